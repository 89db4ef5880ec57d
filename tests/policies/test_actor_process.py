"""The real actor and evaluator processes over real sockets: answers, swaps between steps, refusals, evaluation."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from takeover.app.processes import actor
from takeover.data.catalog import Catalog
from takeover.data.schema import (
    ActorStatus,
    ControlEnvelope,
    Evaluate,
    EvaluateReply,
    LearnerStatus,
    Mode,
    Observation,
    PolicyAction,
    Reply,
    ReplyEnvelope,
    RunConfig,
)
from takeover.data.seeding import HELDOUT_STARTS, heldout_start, stream
from takeover.data.workspace import Workspace
from takeover.policies.base import PolicyWeights
from takeover.policies.decisions import decide, read_decisions
from takeover.policies.evaluation import evaluate
from takeover.policies.inference import build_policy
from takeover.policies.outcomes import Outcomes, conditions_of
from takeover.policies.publish import load_policy, make_manifest, publish, read_manifest, version_folder, weights_bytes
from takeover.policies.registry import make_learner
from takeover.robot_bridge.protocol import Dealer, Endpoints, Publisher, Pull, Router, Subscriber
from takeover.robot_bridge.robots.sim import SimRobot
from tests.patience import patient


class Peer:
    """The bridge's and the learner's ends of an actor's sockets."""

    def __init__(self, folder: Path, sockets: Path, spec: Any, clock: str) -> None:
        self.spec = spec
        self.workspace = folder
        self.config = RunConfig(session_id="run-a", workspace=str(folder), sockets=str(sockets), seed=5, clock=clock)  # type: ignore[arg-type]
        self.endpoints = Endpoints(sockets)
        self.endpoints.prepare()
        self.configure()
        self.control: Router[ControlEnvelope, ReplyEnvelope] = Router(self.endpoints, "control", ControlEnvelope, ReplyEnvelope)
        self.observations: Publisher[Observation] = Publisher(self.endpoints, "observation", Observation)
        self.learner: Publisher[LearnerStatus] = Publisher(self.endpoints, "learner_status", LearnerStatus)
        self.actions: Pull[PolicyAction] = Pull(self.endpoints, "policy_action", PolicyAction)
        self.status: Subscriber[ActorStatus] = Subscriber(self.endpoints, "actor_status", ActorStatus)
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, **changes: Any) -> None:
        """What a process that is started from now on reads."""
        self.config = msgspec.structs.replace(self.config, **changes)
        (Path(self.config.sockets) / "run.json").write_bytes(msgspec.json.encode(self.config))

    def start(self, name: str) -> None:
        command = [sys.executable, "-m", f"takeover.app.processes.{name}", "--config", str(self.endpoints.folder / "run.json")]
        self.process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
        deadline = time.monotonic() + 60.0
        while not (self.endpoints.folder / f"{name}.ready").exists():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def shake_hands(self) -> None:
        received = self.control.receive(20.0)
        assert received is not None
        peer, envelope = received
        self.control.send(peer, ReplyEnvelope(request_id=envelope.request_id, reply=Reply(session="session-a", spec=self.spec)))

    def publish(
        self, version: int, seed: int = 0, change: Callable[[PolicyWeights], None] | None = None, learner: str = "hil-serl"
    ) -> None:
        made = make_learner(learner, self.spec, seed, {"hidden": 16})
        weights = made.weights()
        if change is not None:
            change(weights)
        data = weights_bytes(weights)
        manifest = make_manifest(weights, data, self.spec, version=version, parent=version - 1, learner=learner, swap=made.swap)
        publish(self.workspace, manifest, data)

    def announce(self, version: int) -> None:
        self.learner.send(
            LearnerStatus(
                learner="hil-serl",
                phase="training",
                progress=1.0,
                text="",
                updates=0,
                updates_per_s=0.0,
                demonstrations=20,
                finished_train_step=-1,
                backlog_steps=0,
                newest_version=version,
                versions=[(version, 0)],
                versions_published=version,
            )
        )

    def observe(self, seq: int, **changes: Any) -> Observation:
        fields: dict[str, Any] = {
            "session": "session-a",
            "seq": seq,
            "t_robot_ns": 0,
            "mode": Mode.POLICY,
            "episode_id": "e1",
            "episode_step": seq,
            "run_id": 0,
            "observation": np.linspace(-1, 1, self.spec.observation.size).tolist(),
            "train_step": seq,
        }
        message = Observation(**(fields | changes))
        self.observations.send(message)
        return message

    def answer(self, seq: int, timeout_s: float = 20.0, **changes: Any) -> PolicyAction:
        """Observe (again and again, as latest-only streams may lose one) until the actor answers."""
        deadline = time.monotonic() + patient(timeout_s)
        while time.monotonic() < deadline:
            self.observe(seq, **changes)
            action = self.actions.receive(0.3)
            while action is not None and action.from_seq != seq:
                action = self.actions.receive(0.3)
            if action is not None:
                return action
        raise AssertionError(f"no answer to {seq}")

    def until_status(self, condition: Callable[[ActorStatus], bool]) -> ActorStatus:
        deadline = time.monotonic() + patient(20.0)
        while time.monotonic() < deadline:
            status = self.status.receive(0.5)
            if status is not None and condition(status):
                return status
        raise AssertionError("no such status")

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10.0)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10.0)
        for item in (self.control, self.observations, self.learner, self.actions, self.status):
            item.close()


@pytest.fixture
def make_peer(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Peer]]:
    peers: list[Peer] = []

    def make(spec: Any, clock: str = "realtime") -> Peer:
        peers.append(Peer(tmp_path, tmp_path_factory.mktemp("s"), spec, clock))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()


def test_real_time_answers_in_every_mode_swaps_and_refuses(make_peer: Callable[..., Peer], make_robot_spec: Callable[..., Any]) -> None:
    peer = make_peer(make_robot_spec(gripper=True))
    peer.start("actor")
    peer.shake_hands()
    peer.observe(0)
    assert peer.actions.receive(0.5) is None  # no policy, no answer
    peer.publish(1)
    peer.announce(1)
    for seq, mode in enumerate((Mode.POLICY, Mode.TAKEOVER, Mode.HOLD), 1):
        answer = peer.answer(seq, mode=mode)
        assert (answer.policy_version, answer.from_seq, len(answer.actions), len(answer.actions[0])) == (1, seq, 1, 3)
        assert answer.actions[0][2] in (-1.0, 0.0, 1.0)

    def spoil(weights: PolicyWeights) -> None:
        weights.tensors["actor.w1"][0, 0] = float("nan")

    peer.publish(2, seed=2, change=spoil)
    peer.announce(2)
    assert "not finite" in peer.until_status(lambda s: s.refused != "").refused
    assert peer.answer(10).policy_version == 1  # the last accepted one goes on
    peer.publish(3, seed=3)
    peer.announce(3)
    status = peer.until_status(lambda s: s.version == 3)
    assert status.refused == ""
    assert peer.answer(11).policy_version == 3
    decide(peer.workspace, [("rolled_back", read_manifest(version_folder(peer.workspace, 1)))], author="op-01", reason="")
    assert peer.until_status(lambda s: s.version == 1).pinned == 1
    assert peer.answer(12).policy_version == 1
    assert peer.stop() == 0


def test_training_steps_sample_reproducibly_and_everything_else_is_deterministic(
    make_peer: Callable[..., Peer], make_robot_spec: Callable[..., Any]
) -> None:
    spec = make_robot_spec()
    peer = make_peer(spec, clock="lockstep")
    for version in (1, 2):
        peer.publish(version, seed=version)
    peer.start("actor")
    peer.shake_hands()
    first = peer.answer(0, required_version=1, lockstep=True)
    assert first.policy_version == 1  # the required one, not the newest
    policy = load_policy(version_folder(peer.workspace, 1), spec).policy
    observation = np.linspace(-1, 1, 3).astype(np.float32)
    generator = torch.Generator().manual_seed(int(stream(5, "actor", 0).integers(2**62)))
    assert first.actions == policy.act(observation, sample=True, generator=generator).actions.tolist()
    assert peer.answer(1, required_version=2, lockstep=True).policy_version == 2
    assert (
        peer.answer(2, required_version=1, lockstep=True, train_step=-1).actions == policy.act(observation, sample=False).actions.tolist()
    )


def test_imitation_policies_swap_between_episodes(make_peer: Callable[..., Peer], make_robot_spec: Callable[..., Any]) -> None:
    peer = make_peer(make_robot_spec())
    peer.publish(1, learner="sirius")
    peer.start("actor")
    peer.shake_hands()
    assert peer.answer(1).policy_version == 1
    peer.publish(2, seed=2, learner="sirius")
    peer.announce(2)
    time.sleep(1.5)  # longer than it looks for new weights by itself
    assert peer.answer(2).policy_version == 1
    assert peer.answer(3, episode_id="e2").policy_version == 2


def test_the_evaluator_counts_as_a_plain_loop_does(make_peer: Callable[..., Peer]) -> None:
    robot = SimRobot("peg-insert")
    peer = make_peer(robot.spec, clock="lockstep")
    peer.publish(1)
    peer.start("evaluator")
    requests: Dealer[Evaluate, EvaluateReply] = Dealer(peer.endpoints, "evaluate", Evaluate, EvaluateReply)
    with requests:
        requests.send(Evaluate(request_id=7, version=1, starts=3))
        reply = requests.receive(60.0)
        assert reply is not None
        policy = load_policy(version_folder(peer.workspace, 1), robot.spec).policy
        expected = [o.success for o in evaluate(policy, robot, [heldout_start(i) for i in range(3)])]
        assert (reply.request_id, reply.outcomes, reply.n, reply.error) == (7, expected, 3, "")
        requests.send(Evaluate(request_id=8, version=9, starts=3))
        refused = requests.receive(60.0)
        assert refused is not None
        assert "cannot read" in refused.error
        requests.send(Evaluate(request_id=9, version=1, starts=1000))
        refused = requests.receive(60.0)
        assert refused is not None
        assert "200" in refused.error
    with Catalog.open(peer.workspace) as catalog:
        (row,) = catalog.evaluations()
        assert (row.policy_version, row.n) == (1, 3)
    assert peer.stop() == 0


def test_a_catalog_that_fails_does_not_end_the_evaluator(make_peer: Callable[..., Peer]) -> None:
    peer = make_peer(SimRobot("peg-insert").spec, clock="lockstep")
    peer.publish(1)
    where = Workspace(peer.workspace).catalog_path
    broken = b"no database" * 100
    where.write_bytes(broken)
    peer.start("evaluator")
    with Dealer[Evaluate, EvaluateReply](peer.endpoints, "evaluate", Evaluate, EvaluateReply) as requests:
        for number in (1, 2):
            requests.send(Evaluate(request_id=number, version=1, starts=1))
            reply = requests.receive(60.0)
            assert reply is not None
            assert (reply.request_id, reply.n, reply.error) == (number, 1, "")
            if number == 1:
                assert where.read_bytes() == broken
                where.unlink()
    with Catalog.open(peer.workspace) as catalog:
        assert len(catalog.evaluations()) == 1
    assert peer.stop() == 0


def test_in_real_time_the_evaluator_refuses_a_worse_version_and_rolls_back(make_peer: Callable[..., Peer]) -> None:
    robot = SimRobot("peg-insert")
    peer = make_peer(robot.spec)
    peer.configure(gate=True)
    known = Outcomes(peer.workspace, conditions_of("sim", "peg-insert", 20.0, {}))
    for version, success in ((1, True), (2, False)):
        peer.publish(version, seed=version)
        manifest = read_manifest(version_folder(peer.workspace, version))
        for index in range(HELDOUT_STARTS):
            known.put(manifest.sha256, heldout_start(index), success, 50)
    decide(peer.workspace, [("promoted", read_manifest(version_folder(peer.workspace, 1)))], author="op-01", reason="")
    peer.start("evaluator")
    deadline = time.monotonic() + 60.0
    while len(made := read_decisions(peer.workspace)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert [(d.kind, d.version, d.author) for d in made[1:]] == [("refused", 2, "gate"), ("rolled_back", 1, "gate")]
    assert made[1].evidence["only_trusted"] == made[1].evidence["pairs"] == 7
    with Catalog.open(peer.workspace) as catalog:
        while not (rows := catalog.evaluations()):  # the look at it comes after the gate, from the same runs
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert [(row.protocol, row.successes, row.n) for row in rows] == [("heldout", 0, 50)]
    assert peer.stop() == 0


def test_a_resent_observation_gets_the_same_answer_with_a_history(make_robot_spec: Callable[..., Any], tmp_path: Path) -> None:
    from takeover.policies.acting import Acting

    spec = make_robot_spec()
    learner = make_learner("sirius", spec, 0, {"history": 3, "hidden": 16})
    data = weights_bytes(learner.weights())
    publish(tmp_path, make_manifest(learner.weights(), data, spec, version=1, parent=0, learner="sirius", swap="episode"), data)
    acting = Acting(tmp_path, spec, 0)
    assert acting.offer(acting.newest_on_disk())
    fields: dict[str, Any] = {"session": "s", "t_robot_ns": 0, "mode": Mode.POLICY, "episode_id": "e", "episode_step": 0, "run_id": 0}
    plain = build_policy(learner.weights(), spec)
    for seq in range(4):
        observation = [0.3 * seq, -0.2 * seq, 0.1]
        expected = plain.act(np.array(observation, np.float32), sample=False).actions.tolist()
        for _ in range(2):
            answer = acting.answer(Observation(seq=seq, observation=observation, **fields))
            assert answer is not None
            assert answer.actions == expected


@pytest.mark.parametrize(("clock", "told"), [("realtime", [-1.0]), ("lockstep", [])])
def test_its_answers_socket_is_told_whether_the_bridge_gets_them(tmp_path, clock, told):
    """Over a network a connection that a NAT has forgotten is made anew by what the states say; in lockstep nothing is said by time."""
    ends = Endpoints(tmp_path / "s")
    ends.prepare()
    said, stop = [], threading.Event()
    learned = iter([SimpleNamespace(policy_age_ms=-1.0)])
    acting = SimpleNamespace(
        version=1,
        sha256="",
        since_ns=0,
        inference_ms=0.0,
        refused="",
        waiting="",
        pinned=0,
        progress=SimpleNamespace(problem=""),
        reward=SimpleNamespace(poll=lambda: None),
        follow_decisions=lambda: False,
        offer=lambda version: False,
        newest_on_disk=lambda: 0,
    )
    with (
        Subscriber[Observation](ends, "observation", Observation) as observations,
        Subscriber[LearnerStatus](ends, "learner_status", LearnerStatus) as learner,
    ):
        actor._serve(
            SimpleNamespace(stop=stop, config=SimpleNamespace(clock=clock)),
            acting,
            observations,
            learner,
            SimpleNamespace(receive=lambda: next(learned, None)),
            SimpleNamespace(arrived=said.append),
            SimpleNamespace(send=lambda status: stop.set()),
        )
    assert said == told
