"""The gate in a running station, every process real, in real time: a version that is made worse acts, is refused, and leaves the robot."""

import json
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from safetensors.torch import load_file

from benchmarks.inprocess_loop import Loop
from takeover.app.cli import main
from takeover.app.console.controller import Controller
from takeover.app.console.models.notices import notices
from takeover.app.launcher import Interrupted, Launcher
from takeover.app.supervisor import RunPlan, Supervisor
from takeover.data.audit import entries
from takeover.data.catalog import Catalog
from takeover.data.episode_file import EpisodeReader
from takeover.data.recorder import Recorder
from takeover.data.schema import EpisodeKind, RunConfig
from takeover.data.workspace import Workspace
from takeover.policies.base import PolicyWeights
from takeover.policies.decisions import current_standing, read_decisions
from takeover.policies.publish import load_policy, make_manifest, publish, read_manifest, version_folder, weights_bytes
from takeover.robot_bridge.robots.sim import SimRobot

PROCESSES = ["bridge", "recorder", "actor", "learner", "evaluator", "operator"]
EASY = {"clearance_m": 0.004}  # so that cloning alone is good
DEMONSTRATIONS = 10
PATIENCE_S = 100.0  # on a busy machine; a quiet one needs a few seconds


class _Recorded(Loop):
    """Scripted demonstrations, faster than real time, that go to the recorder and not to a learner."""

    def __init__(self, config: RunConfig, recorder: Recorder) -> None:
        super().__init__(config, redo_failed=True)
        self._recorder = recorder

    def _feed(self, record_type: type[Any], /, **fields: Any) -> None:
        self._recorder.accept(record_type(session="bench", rec_seq=self.records, **fields))
        self.records += 1


@pytest.fixture
def config(station_config: Any) -> RunConfig:
    """A station whose store holds the demonstrations: its learner clones them when it starts, and publishes nothing after that."""
    made: RunConfig = station_config(
        clock="realtime",
        gate=True,
        demonstrations=DEMONSTRATIONS,
        task_parameters=EASY,
        learner_parameters={"clone_updates": 300, "critic_warmup": 1},
        publish_every_s=1000.0,
        evaluate_every_s=0.5,
        evaluate_starts=3,
    )
    recorder = Recorder(Workspace(made.workspace).prepare())
    loop = _Recorded(msgspec.structs.replace(made, clock="lockstep"), recorder)
    good, number = 0, 0
    while good < DEMONSTRATIONS:
        good += loop.episode(EpisodeKind.DEMONSTRATION, number)["success"]
        number += 1
    recorder.sync()
    recorder.close()
    return made


def _make_worse(workspace: str) -> None:
    """Version 2 by the path that a learner publishes by: version 1 with the actor's last layer turned round."""
    spec = SimRobot("peg-insert", EASY).spec
    folder = version_folder(workspace, 1)
    manifest = read_manifest(folder)
    assert load_policy(folder, spec).manifest == manifest
    tensors = load_file(folder / "weights.safetensors")
    last = sorted(name for name in tensors if name.startswith("actor.w"))[-1]
    weights = PolicyWeights(manifest.architecture, manifest.config, tensors | {last: -tensors[last]})
    data = weights_bytes(weights)
    fields = {"version": 2, "parent": 1, "learner": manifest.learner, "swap": manifest.swap, "session_id": manifest.session_id}
    publish(workspace, make_manifest(weights, data, spec, **fields), data)


def _work(supervisor: Supervisor) -> None:
    try:
        supervisor.work()
    except Interrupted:
        return
    finally:
        supervisor.close()


@pytest.mark.timeout(300)
def test_a_worse_version_is_refused_and_leaves_the_robot(config: RunConfig, eventually: Any, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = Path(config.workspace)
    with Launcher(config, PROCESSES) as launcher:
        launcher.wait_ready(60)
        controller = Controller(config)
        controller.start()
        client = controller.client
        try:
            eventually(lambda: client.actor is not None and client.actor.version == 1, PATIENCE_S)
            eventually(lambda: current_standing(workspace, "sim", "peg-insert").trusted == 1, PATIENCE_S)
            worker = threading.Thread(
                target=_work, args=(Supervisor(config, launcher, RunPlan(episodes=1000), lambda _: None),), daemon=True
            )
            worker.start()
            eventually(lambda: client.state is not None and client.state.policy_version == 1 and client.state.episode_step > 3, PATIENCE_S)
            _make_worse(config.workspace)
            eventually(
                lambda: client.actor.version == 2 and client.state.policy_version == 2, PATIENCE_S
            )  # it acts before anybody has judged it
            eventually(lambda: client.actor.version == 1 and client.actor.pinned == 1, PATIENCE_S)
            eventually(lambda: client.state.policy_version == 1 and client.state.episode_step > 3, PATIENCE_S)
            eventually(lambda: len(client.evaluator.notices) == 1, PATIENCE_S)
            shown = {notice.who: notice.text for notice in notices(controller.snapshot())}
            done = client.state.block_done
            eventually(lambda: client.state.block_done > done + 1, PATIENCE_S)  # an episode that version 1 drove alone, and closed
        finally:
            controller.close()
        launcher.shutdown()
    worker.join(20)

    assert shown["Policy"] == "a rollback holds the robot to version 1; newer versions wait"
    assert shown["Evaluator"].startswith("gate: version 2 against 1: worse; ")
    assert shown["Evaluator"].endswith("; version 1 acts")
    first, *made = read_decisions(workspace)
    assert (first.kind, first.version, first.author) == ("promoted", 1, "gate")
    assert [(d.kind, d.version, d.author) for d in made] == [("refused", 2, "gate"), ("rolled_back", 1, "gate")]
    numbers = made[0].evidence
    assert numbers["conditions"] == "sim:peg-insert@20 clearance_m=0.004", "the station's own task parameters"
    assert numbers["trusted_successes"] > numbers["candidate_successes"]
    audited = [entry for entry in entries(workspace) if entry.get("who") == "gate"]
    assert len(audited) == 3

    assert main(["policy", "ls", "--json", "--workspace", str(workspace)]) == 0
    rows = {row["version"]: row for row in json.loads(capsys.readouterr().out)["policies"]}
    assert "refused" in rows[2]["marks"]
    assert {"trusted", "pinned", "acts"} <= set(rows[1]["marks"])
    assert rows[1]["n"] == rows[2]["n"] == 3

    drove = _versions_in_order(workspace)
    assert drove[0] == 1
    assert drove[-1] == 1
    assert 2 in drove
    assert len(drove) == 3, "the robot went to version 2 once and came back once"


def _versions_in_order(workspace: Path) -> list[int]:
    """Versions of the policy's answers as recorded, one after another without repetition."""
    with Catalog.open(workspace) as catalog:
        rows = sorted(catalog.episodes(kind="policy"), key=lambda row: row.started_ns)
    found: list[int] = []
    for row in rows:
        with EpisodeReader(workspace / row.path) as episode:
            for version in episode.column("policy_version", held=True).tolist():
                if version and version != (found[-1] if found else 0):
                    found.append(version)
    return found
