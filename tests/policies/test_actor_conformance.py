"""Our own actor process under the conformance suite that others run on theirs."""

import sys
from pathlib import Path

from takeover.policies.publish import make_manifest, publish, weights_bytes
from takeover.policies.registry import make_learner
from takeover.robot_bridge.conformance.actor import check_actor
from takeover.robot_bridge.conformance.report import Status
from takeover.robot_bridge.robots.sim import SimRobot

CHECKS = ["rows", "flush", "newest_first", "unknown_field", "malformed", "lockstep_repeats", "new_session", "second_takes_no_path"]


def test_our_actor_conforms(tmp_path: Path) -> None:
    spec = SimRobot("peg-insert").spec
    made = make_learner("hil-serl", spec, 0, {"hidden": 16})
    weights = made.weights()
    data = weights_bytes(weights)
    publish(tmp_path, make_manifest(weights, data, spec, version=1, parent=0, learner="hil-serl", swap=made.swap), data)
    command = f"{sys.executable} -m takeover.app.cli actor --robot sim:peg-insert --workspace {tmp_path} --sockets {{sockets}}"
    results = check_actor(command, spec, start_s=60.0, only=CHECKS)
    assert {result.name for result in results} >= {*CHECKS, "handshake", "answers"}
    assert [result for result in results if result.status is not Status.PASS] == []
