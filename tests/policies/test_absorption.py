"""Absorption: distances to what the person did, which corrections count, retests in the real simulator, what is kept and shown."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from takeover.app.cli import main
from takeover.app.console.insights_store import InsightsStore
from takeover.app.processes.evaluator_stock import take_stock
from takeover.data.catalog import Catalog
from takeover.data.entry import entry_of
from takeover.data.episode_file import write_episode
from takeover.data.episode_schema import EpisodeRecords
from takeover.data.labels import Labels
from takeover.data.recorder import Recorder
from takeover.data.schema import ControlMode, EpisodeKind, Outcome, RobotSpec, RunConfig
from takeover.data.workspace import Workspace
from takeover.policies.absorb import absorb
from takeover.policies.absorption import AbsorptionCancelled, actions_of, block_interval, distance
from takeover.policies.absorption_file import FILE, read_absorption
from takeover.policies.base import Decision
from takeover.policies.learner_run import LearnerRun
from takeover.policies.lineage import Lineage
from takeover.policies.manifest import read_manifest, version_folder
from takeover.policies.publish import make_manifest, publish, weights_bytes
from takeover.policies.recorded_corrections import Correction, Found, find_corrections
from takeover.policies.recorded_pictures import RecordedPictures
from takeover.policies.registry import make_learner
from takeover.policies.steps_to_go_file import head_path, load_head
from takeover.policies.steps_to_go_fit import FitSettings
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.robots.sim_state import reseeded

P, T, H, HELD = ControlMode.POLICY, ControlMode.TRANSITION, ControlMode.HUMAN, ControlMode.PAUSED
PERSON = [0.3, -0.2, -0.5, 0.1]
NO_PICTURES = RecordedPictures()


class Constant:
    """A policy that always does the same, and remembers what it saw since its last reset."""

    def __init__(self, action: list[float]) -> None:
        self.action, self.seen, self.asked = action, [], []  # type: ignore[var-annotated]

    def reset(self) -> None:
        self.seen = []

    def act(self, observation: Any, *, sample: bool, generator: Any = None) -> Decision:
        assert not sample
        self.seen.append(float(observation[0]))
        self.asked.append(list(self.seen))
        return Decision(np.array([self.action], np.float32))


def a_correction(steps: list[int], actions: Any, run: list[int]) -> Correction:
    n = len(run)
    observations = np.arange(n, dtype=np.float32)[:, None]
    return Correction("e000", 0, 5, 1, np.array(steps), observations, np.asarray(actions, float), np.array(run), True, Path())


def publish_versions(place: Workspace, spec: RobotSpec, **corrections: Any) -> None:
    for version in (1, 2, 3):
        weights = make_learner("hil-serl", spec, version, {"hidden": 16}).weights()
        data = weights_bytes(weights)
        more = {"corrections": corrections[f"v{version}"]} if f"v{version}" in corrections else {}
        publish(
            place.path,
            make_manifest(weights, data, spec, version=version, parent=version - 1, learner="hil-serl", swap="step", **more),
            data,
        )


def record(
    place: Workspace,
    script: Any,
    modes: list[Any],
    robot: SimRobot | None = None,
    version: int = 1,
    kind: EpisodeKind = EpisodeKind.POLICY,
) -> str:
    """One episode file; the first run of human steps is intervention 0, the next 1, ..."""
    if robot is not None:
        robot.reset(7)
    start, steps, number, before = msgspec.structs.replace(script.start(kind), policy_version=version), [], -1, P
    for mode in modes:
        human = mode in (T, H)
        number += human and before not in (T, H)
        before = before if mode == HELD else mode
        changes: dict[str, Any] = {"policy_version": version, "intervention_id": number if human else -1}
        if robot is not None:
            changes |= {"sim_state": robot.save(), "observation": robot.read().observation.tolist(), "action": PERSON}
            robot.apply(np.array(PERSON))
            robot.advance()
        steps.append(script.step(mode, **changes))
    end = script.end(Outcome.SUCCESS, takeovers=number + 1, human_steps=sum(m in (T, H) for m in modes), autonomous=number < 0)
    episode = EpisodeRecords(start=start, steps=steps, end=end)
    path, digest, size = write_episode(place, episode)
    entry = entry_of(episode, path.relative_to(place.path).as_posix(), digest, size)
    with Catalog.open(place) as catalog:
        catalog.add_episode(entry.session, entry.episode, entry.segments)
    return str(start.episode_id)


# --- distances ---


def test_distance_is_to_what_the_person_did(make_robot_spec: Any) -> None:
    spec = make_robot_spec(observation=1, arm=2, gripper=True)
    actions = np.tile([0.3, 0.4, 1.0], (20, 1))
    correction = a_correction(list(range(5, 20)), actions, [0] * 20)
    found = distance(spec, Constant([0.0, 0.0, 1.0]), Constant([0.3, 0.4, 0.0]), correction, NO_PICTURES)
    assert (found.n, found.verdict) == (15, "closer")
    assert found.before == pytest.approx(0.5)
    assert found.after == pytest.approx(0.0, abs=1e-6)
    assert found.interval == pytest.approx((-0.5, -0.5))
    assert (found.gripper_before, found.gripper_after) == (0.0, 1.0)  # keep is another command than open
    back = distance(spec, Constant([0.3, 0.4, 1.0]), Constant([0.0, 0.0, 1.0]), correction, NO_PICTURES)
    assert back.verdict == "farther"
    few = a_correction(list(range(12, 20)), actions, [0] * 20)
    assert distance(spec, Constant([0.0, 0.0, 1.0]), Constant([0.3, 0.4, 1.0]), few, NO_PICTURES).verdict == "not shown"  # 8 steps
    bad = a_correction([5], np.where(np.arange(20)[:, None] == 5, math.nan, actions), [0] * 20)
    with pytest.raises(ValueError, match="correction e000:0, step 5: an action is not finite"):
        distance(spec, Constant([0.0, 0.0, 0.0]), Constant([0.0, 0.0, 0.0]), bad, NO_PICTURES)


def test_a_policy_has_the_history_of_the_run_and_no_other(make_robot_spec: Any) -> None:
    policy = Constant([0.0, 0.0])
    correction = a_correction([4, 6], np.zeros((8, 2)), [0, 0, 0, 1, 1, 1, 1, 1])
    made = actions_of(policy, correction, correction.steps)
    assert made.shape == (2, 2)
    assert policy.asked[4] == [3.0, 4.0]  # the observations of run 0 are forgotten
    assert policy.asked[6] == [3.0, 4.0, 5.0, 6.0]


def test_neighbouring_steps_do_not_count_as_independent() -> None:
    values = np.random.default_rng(0).normal(size=8).repeat(5)  # 40 numbers, 8 of them different
    low, high = block_interval(values)
    alone = block_interval(values, block=1)
    assert low < values.mean() < high
    assert high - low > 1.5 * (alone[1] - alone[0])
    assert block_interval(values) == (low, high)
    assert block_interval(values[:9]) == (-math.inf, math.inf)


# --- which corrections ---


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws").prepare()


def look(place: Workspace, version: int = 3, limit: int = 0) -> Found:
    return find_corrections(place, read_manifest(version_folder(place.path, version)), limit)


def test_ramps_holds_and_labels_are_no_part_of_a_correction(place: Workspace, make_script: Any, make_robot_spec: Any) -> None:
    spec = make_robot_spec()
    publish_versions(place, spec)
    script = make_script(spec)
    name = record(place, script, [P, P, T, T, H, H, HELD, H, P, P, H, H, P])
    found = look(place)
    assert [(c.name, c.acted, c.seq, c.steps.tolist()) for c in found.corrections] == [
        (f"{name}:1", 1, 10, [9, 10]),
        (f"{name}:0", 1, 2, [4, 5, 6]),
    ]
    with Catalog.open(place) as catalog:
        labels = Labels(place, catalog)
        labels.add_label(f"{name}:t1", "quality", "bad", "op-01")
        labels.add_label(f"{name}:t0", "onset", 5, "op-01")
    found = look(place)
    assert [(c.name, c.steps.tolist()) for c in found.corrections] == [(f"{name}:0", [5, 6])]
    assert found.labelled_out == 1
    with Catalog.open(place) as catalog:
        Labels(place, catalog).add_label(f"{name}:t0", "exclude", True, "op-01")
    assert (look(place).corrections, look(place).labelled_out) == ([], 2)
    with Catalog.open(place) as catalog:
        Labels(place, catalog).add_label(name, "exclude", True, "op-01")
    assert look(place) == Found()


def test_only_corrections_of_earlier_versions_count_newest_first(place: Workspace, make_script: Any, make_robot_spec: Any) -> None:
    spec = make_robot_spec()
    publish_versions(place, spec)
    script = make_script(spec)
    names = [record(place, script, [P, H, H, P], version=version) for version in (0, 1, 2, 3, 7)]
    record(place, script, [P, P, P])
    found = look(place, 3)
    assert [c.episode_id for c in found.corrections] == [names[2], names[1]]
    assert (found.later, found.unattended) == (2, 1)
    assert [c.episode_id for c in look(place, 3, limit=1).corrections] == [names[2]]


def test_whether_a_batch_held_a_correction_is_said(place: Workspace, make_script: Any, make_robot_spec: Any) -> None:
    spec = make_robot_spec()
    publish_versions(place, spec, v1=[], v2=["e000:0"], v3=[])
    script = make_script(spec)
    for _ in range(2):
        record(place, script, [P, H, H, P])
    manifest = read_manifest(version_folder(place.path, 3))
    assert Lineage(place.path).used(manifest) == ({"e000:0"}, True)
    assert [c.used for c in look(place).corrections] == [False, True]
    made = absorb(place, 3, spec)
    assert (made.totals["segments"], made.totals["in_no_batch_yet"], made.totals["use_not_noted"]) == (1, 1, 0)
    path = version_folder(place.path, 2) / "manifest.json"
    old = json.loads(path.read_bytes())
    del old["corrections"]  # a version of before this was noted
    path.write_text(json.dumps(old))
    assert Lineage(place.path).used(manifest) == (set(), False)
    assert [c.used for c in look(place).corrections] == [None, None]


def test_the_learner_notes_what_its_batches_held(tmp_path: Path, make_script: Any, make_robot_spec: Any) -> None:
    recorder = Recorder(Workspace(tmp_path / "w"))
    fast = {
        "updates_per_step": 1,
        "clone_updates": 30,
        "critic_warmup": 10,
        "learning_starts": 5,
        "hidden": 16,
        "batch": 32,
        "actor_delay": 0,
    }
    run = LearnerRun(
        RunConfig(
            session_id="run-a",
            workspace=str(tmp_path / "w"),
            sockets="",
            task="reach",
            clock="lockstep",
            demonstrations=1,
            publish_every_updates=4,
            learner_parameters=fast,
        )
    )
    script = make_script(make_robot_spec())
    records = [script.start(EpisodeKind.DEMONSTRATION), *[script.step(H) for _ in range(10)], script.end()]
    records += [script.start(), *[script.step(P) for _ in range(9)], *[script.step(H) for _ in range(6)], script.end()]
    for one in records:
        recorder.accept(one)
    synced = recorder.sync()
    for message in (synced.committed, *synced.closed):
        for _ in run.committed(message) if message is not None else ():
            pass
    manifests = [read_manifest(version_folder(tmp_path / "w", version)) for version in (1, 2, 3)]
    assert [m.corrections for m in manifests[:2]] == [[], []]
    assert manifests[2].corrections == ["e001:0"]
    assert run.training.state()["run"]["corrections"] == []
    run.close()
    recorder.close()


# --- all of it ---


@pytest.fixture(scope="module")
def robot() -> SimRobot:
    return SimRobot("peg-insert")


@pytest.fixture
def corrected(place: Workspace, make_script: Callable[..., Any], robot: SimRobot) -> Workspace:
    """Three versions; two corrections of 12 steps by hand, of version 1 and of one that is gone."""
    publish_versions(place, robot.spec)
    script = make_script(robot.spec)
    for version in (1, 2):
        record(place, script, [P] * 3 + [H] * 12 + [P], robot, version=version)
    (version_folder(place.path, 2) / "manifest.json").unlink()
    return place


def test_absorption_is_measured_kept_and_shown(corrected: Workspace, robot: SimRobot, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--robot", "sim:peg-insert", "--workspace", str(corrected.path))
    assert main(["policy", "absorb", "3", "--runs", "2", "--json", *where]) == 0
    made = json.loads(capsys.readouterr().out)
    (segment,) = made["segments"]
    assert (segment["episode_id"], segment["acted_version"], segment["n"], segment["used"]) == ("e000", 1, 12, None)
    assert segment["retest"]["runs"] == 2
    assert segment["retest"]["verdict"] in ("fixed", "not fixed", "worse", "nothing to fix")
    assert segment["interval"][0] <= segment["after"] - segment["before"] <= segment["interval"][1]
    (problem,) = made["problems"]
    assert problem.startswith("version 2, which acted: cannot read")
    kept = read_absorption(corrected.path, 3)
    assert kept is not None
    assert (made.pop("task_parameters"), made.pop("control_hz")) == ({}, 20.0)
    assert "version 3 has no note of the task parameters" in made.pop("notes")[0]
    assert json.loads(msgspec.json.encode(kept)) == made
    store = InsightsStore(corrected.path)
    closer = int(segment["verdict"] == "closer")
    shown = store.snapshot().shown
    assert shown is not None
    (point,) = store.absorption(shown).points
    assert (point.version, point.closer, point.corrections) == (3, closer, 1)
    store.close()
    assert main(["policy", "absorb", "3", "--runs", "0", *where]) == 0
    said = capsys.readouterr().out
    assert "n = 1 corrections, 12 steps" in said
    assert "not measured: version 2" in said
    assert main(["policy", "show", "3", "--workspace", str(corrected.path)]) == 0
    assert "mean distance" in capsys.readouterr().out
    assert main(["policy", "show", "3", "--json", "--workspace", str(corrected.path)]) == 0
    assert json.loads(capsys.readouterr().out)["absorption"]["totals"]["segments"] == 1
    assert main(["policy", "show", "1", "--json", "--workspace", str(corrected.path)]) == 0
    assert json.loads(capsys.readouterr().out)["absorption"] is None


def test_nothing_to_look_at_is_said(corrected: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--robot", "sim:peg-insert", "--workspace", str(corrected.path))
    assert main(["policy", "absorb", "1", *where]) == 2
    assert "no correction of an earlier version than 1 to look at (2 of this version or later ones)" in capsys.readouterr().err
    assert main(["policy", "absorb", "9", *where]) == 2
    assert "no policy version 9" in capsys.readouterr().err
    assert main(["policy", "absorb", "3", "--segments", "-1", *where]) == 2
    assert "neither may be below 0" in capsys.readouterr().err
    assert not (version_folder(corrected.path, 1) / FILE).exists()


def test_stopped_it_keeps_nothing_but_finished_retests(corrected: Workspace, robot: SimRobot) -> None:
    def stop(what: str, done: int, total: int) -> bool:
        return what != "retests"

    with pytest.raises(AbsorptionCancelled, match="stopped after 1 of 1 retests"):
        absorb(corrected, 3, robot.spec, environment=robot, vary=reseeded, runs=1, on_progress=stop)
    assert not (version_folder(corrected.path, 3) / FILE).exists()
    lines = (corrected.path / "policies" / "retests.jsonl").read_bytes()
    absorb(corrected, 3, robot.spec, environment=robot, vary=reseeded, runs=1)
    assert (corrected.path / "policies" / "retests.jsonl").read_bytes() == lines  # nothing was run twice
    with pytest.raises(ValueError, match="0 runs per correction"):
        absorb(corrected, 3, robot.spec, runs=0)


def test_what_is_kept_is_of_these_weights_and_damage_is_named(
    corrected: Workspace, robot: SimRobot, capsys: pytest.CaptureFixture[str]
) -> None:
    absorb(corrected, 3, robot.spec)
    path = version_folder(corrected.path, 3) / FILE
    whole = path.read_bytes()
    path.write_bytes(whole.replace(read_manifest(path.parent).sha256.encode(), b"0" * 64))
    assert read_absorption(corrected.path, 3) is None
    path.write_bytes(whole[:40])
    assert main(["policy", "show", "3", "--workspace", str(corrected.path)]) == 2
    assert "takeover policy absorb 3" in capsys.readouterr().err
    assert sorted(p.name for p in path.parent.iterdir()) == ["absorption.json", "manifest.json", "weights.safetensors"]


def test_the_evaluator_fits_the_head_as_data_grows(corrected: Workspace, robot: SimRobot, make_script: Any) -> None:
    script = make_script(robot.spec, "session-b")
    script.number = 9
    for _ in range(17):
        record(corrected, script, [P] * 6)
    head = head_path(corrected.path, "sim", "peg-insert")
    with Catalog.open(corrected) as catalog:

        def stock(goes_on: bool = True) -> str:
            return take_stock(str(corrected.path), robot.spec, catalog, lambda: goes_on, FitSettings(updates=50))

        assert stock() == ""
        assert not head.exists()  # 19 episodes
        record(corrected, script, [P] * 6)
        assert stock(goes_on=False) == ""
        assert not head.exists()
        assert stock() == ""
        fitted = head.stat().st_mtime_ns
        assert stock() == ""
        assert head.stat().st_mtime_ns == fitted
        head.write_bytes(b"damaged")
        assert stock() == ""
        assert load_head(head, robot.spec).manifest.recorded == 20
