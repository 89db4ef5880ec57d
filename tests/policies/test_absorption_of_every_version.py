"""The evaluator measures the absorption of every version in its idle time: the real one, without its sockets, on real versions."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from takeover.app.cli import main
from takeover.app.console.insights_store import InsightsStore
from takeover.app.processes import evaluator_absorption
from takeover.app.processes.common import ProcessContext
from takeover.app.processes.evaluator import _Evaluator
from takeover.app.processes.evaluator_absorption import BETWEEN_STARTS, CREDIT_S, SHARE, EveryVersion
from takeover.data.catalog import Catalog
from takeover.data.labels import Labels
from takeover.data.schema import Evaluate, EvaluateReply, EvaluatorStatus, RunConfig
from takeover.data.seeding import HELDOUT_STARTS, heldout_start
from takeover.data.workspace import Workspace
from takeover.policies import absorption, absorption_again, lineage, recorded_episodes
from takeover.policies.absorb import absorb
from takeover.policies.absorption_again import BEGUN, TRIES, is_due
from takeover.policies.absorption_file import FILE, read_absorption
from takeover.policies.decisions import GATE, decide, read_decisions
from takeover.policies.inference import build_policy
from takeover.policies.lineage import Lineage
from takeover.policies.manifest import PRUNED_NAME, WEIGHTS_NAME, read_manifest, version_folder
from takeover.policies.outcomes import Outcomes, conditions_of
from takeover.policies.publish import make_manifest, publish, weights_bytes
from takeover.policies.recorded_corrections import Correction, Memory
from takeover.policies.registry import make_learner
from takeover.robot_bridge.robots.base import RobotError
from takeover.robot_bridge.robots.sim import SimRobot

from .test_absorption import H, P, record

TASK = "peg-insert"


class Requests:
    """An `Evaluate` comes when the evaluator looks for the ``at``-th time; 0: none."""

    def __init__(self) -> None:
        self.at = 0

    def receive(self, timeout_s: float) -> tuple[bytes, Evaluate] | None:
        self.at -= 1
        return (b"peer", Evaluate(request_id=1, version=1, starts=1)) if self.at == 0 else None

    def send(self, peer: bytes, reply: EvaluateReply) -> None:
        raise AssertionError("nobody answers here")


class Status:
    def send(self, message: EvaluatorStatus) -> None:
        """Nobody listens."""


@pytest.fixture(scope="module")
def robot() -> SimRobot:
    return SimRobot(TASK)


@pytest.fixture
def place(tmp_path: Path, make_script: Callable[..., Any], robot: SimRobot) -> Workspace:
    """Versions 1 to 3; a person took over from 1, twice."""
    made = Workspace(tmp_path / "ws").prepare()
    for version in (1, 2, 3):
        put(made, robot, version)
    script = make_script(robot.spec)
    for _ in range(2):
        record(made, script, [P] * 3 + [H] * 12 + [P], robot)
    return made


def put(place: Workspace, robot: SimRobot, version: int, task: str = TASK, **fields: Any) -> None:
    weights = make_learner("hil-serl", robot.spec, version, {"hidden": 16}).weights()
    data = weights_bytes(weights)
    spec = msgspec.structs.replace(robot.spec, task_id=task)
    fields = {"parent": version - 1, "learner": "hil-serl", "swap": "step"} | fields
    publish(place.path, make_manifest(weights, data, spec, version=version, **fields), data, sync=False)


class Rig:
    """An evaluator that does what it is told to."""

    def __init__(self, place: Workspace, robot: SimRobot) -> None:
        self.place, self.requests = place, Requests()
        config = RunConfig(session_id="s", workspace=str(place.path), sockets="", task=TASK, evaluate_starts=1)
        self.context = ProcessContext("evaluator", config)
        self.evaluator: Any = _Evaluator(self.context, robot, self.requests, Status())  # type: ignore[arg-type]

    def idle(self, disturbed: bool = False) -> list[int]:
        """One moment with nothing else to do; versions that were measured in it. ``disturbed``: a request comes after a correction."""
        before = measured(self.place)
        self.requests.at = 2 if disturbed else 0  # it looks before it begins, then after each correction
        self.evaluator._absorption.wait(0.0)
        with Catalog.open(self.place) as catalog:
            self.evaluator._absorption.measure(catalog, self.evaluator._undisturbed)
        self.evaluator._error = self.evaluator._absorption.problem
        assert (self.evaluator._waiting is not None) == disturbed
        self.evaluator._waiting = None  # it is answered
        return [version for version, when in measured(self.place).items() if before.get(version) != when]

    def all(self) -> list[int]:
        """Until nothing is due; versions in the order in which they were measured."""
        found: list[int] = []
        while made := self.idle():
            found += made
        return found

    def close(self) -> None:
        self.evaluator.close()


@pytest.fixture
def rig(place: Workspace, robot: SimRobot) -> Any:
    made = Rig(place, robot)
    yield made
    made.close()


def measured(place: Workspace) -> dict[int, int]:
    found = {int(path.parent.name): read_absorption(place.path, int(path.parent.name)) for path in place.policies.glob(f"*/{FILE}")}
    return {version: one.wall_ns for version, one in sorted(found.items()) if one is not None}


def marked(place: Workspace) -> list[int]:
    return sorted(int(path.parent.name) for path in place.policies.glob(f"*/{BEGUN}"))


# --- which versions, when ---


def test_every_version_is_measured_newest_first_and_once(place: Workspace, rig: Rig, robot: SimRobot) -> None:
    assert rig.all() == [3, 2]  # a person took over from 1
    assert marked(place) == []
    put(place, robot, 4)
    put(place, robot, 5)
    assert rig.idle() == [5]
    put(place, robot, 6)
    assert rig.all() == [6, 4]
    found = read_absorption(place.path, 4)
    assert found is not None
    assert (len(found.segments), found.limit) == (2, 20)
    assert Rig(place, robot).all() == []


def test_the_loop_measures_in_idle_time(place: Workspace, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.evaluator, "_next_automatic", time.monotonic() + 60.0)
    monkeypatch.setattr(rig.requests, "receive", ended_after(rig, 30))
    rig.evaluator.run()
    assert sorted(measured(place)) == [2, 3]


@pytest.mark.parametrize("gate", [False, True])
def test_between_the_starts_of_a_look_versions_are_measured_too(
    place: Workspace, rig: Rig, robot: SimRobot, monkeypatch: pytest.MonkeyPatch, gate: bool
) -> None:
    """A comparison of the gate may take longer than it takes until the weights are pruned."""
    shares: list[float] = []
    inner = rig.evaluator._absorption.measure

    def measure(catalog: Catalog, goes_on: Callable[[], bool], share: float) -> int:
        shares.append(share)
        return inner(catalog, goes_on, share)

    monkeypatch.setattr(rig.evaluator._absorption, "measure", measure)
    rig.context.config = msgspec.structs.replace(rig.context.config, gate=gate, evaluate_starts=4)
    if gate:
        decide(place.path, [("promoted", read_manifest(version_folder(place.path, 1)))], author="op-01", reason="")
        failed_everywhere(place, robot, 1)  # half of the runs are known
        monkeypatch.setattr(rig.evaluator, "_run", lambda *_, **__: [])  # what is measured is measured by the gate's pairs
    assert rig.evaluator._look_at_newest()
    assert sorted(measured(place)) == [2, 3]
    assert set(shares) == {BETWEEN_STARTS}
    assert rig.evaluator._error == ""


def test_an_evaluation_that_was_asked_for_is_not_held_up(place: Workspace, rig: Rig) -> None:
    assert len(rig.evaluator._run(3, 4)) == 4
    assert measured(place) == {}


def failed_everywhere(place: Workspace, robot: SimRobot, *versions: int) -> None:
    """What the gate does not run again."""
    known = Outcomes(place.path, conditions_of(robot.spec.robot_id, robot.spec.task_id, robot.spec.control_hz, {}))
    for version in versions:
        sha256 = read_manifest(version_folder(place.path, version)).sha256
        for index in range(HELDOUT_STARTS):
            known.put(sha256, heldout_start(index), False, 100)


def ended_after(rig: Rig, looks: int) -> Callable[[float], None]:
    """No request comes; after so many waits for one the run ends."""
    left = [looks]

    def receive(timeout_s: float) -> None:
        time.sleep(timeout_s)
        left[0] -= timeout_s > 0.0
        if not left[0]:
            rig.context.stop.set()

    return receive


def test_in_lockstep_nothing_is_measured(place: Workspace, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.context.config = msgspec.structs.replace(rig.context.config, clock="lockstep")
    monkeypatch.setattr(rig.requests, "receive", ended_after(rig, 5))
    rig.evaluator.run()
    assert measured(place) == {}


def test_what_is_of_another_task_pruned_or_damaged_is_passed_over(place: Workspace, rig: Rig, robot: SimRobot) -> None:
    for version in range(4, 8):
        put(place, robot, version, task="pick-lift" if version == 4 else TASK)
    (version_folder(place.path, 5) / WEIGHTS_NAME).unlink()
    (version_folder(place.path, 5) / PRUNED_NAME).touch()
    (version_folder(place.path, 6) / WEIGHTS_NAME).write_bytes(b"damaged")
    damaged = version_folder(place.path, 7) / FILE
    damaged.write_bytes(b"{")
    for _ in range(4):
        rig.evaluator._absorption.wait(0.0)
        rig.evaluator._absorb(SHARE)
    assert damaged.read_bytes() == b"{"
    damaged.unlink()
    assert list(measured(place)) == [2, 3], "6 is not in their way"
    assert marked(place) == []


def test_it_takes_a_share_of_a_core_and_saves_some_for_a_while(place: Workspace, robot: SimRobot, monkeypatch: pytest.MonkeyPatch) -> None:
    every, used, now = EveryVersion(str(place.path), robot.spec), [10.0], [1000.0]
    monkeypatch.setattr(evaluator_absorption.time, "process_time", lambda: used.append(used[-1] + 0.5) or used[-1])
    monkeypatch.setattr(evaluator_absorption.time, "monotonic", lambda: now[0])
    with Catalog.open(place) as catalog:
        assert every.measure(catalog, lambda: True) == 3
        assert every._next_at == pytest.approx(1000.0 - CREDIT_S + 0.5 / SHARE)
        assert every.is_time()
        every.measure(catalog, lambda: True)
        every._next_at = 1000.0
        (version_folder(place.path, 3) / FILE).unlink()
        every._settled.clear()
        assert every.measure(catalog, lambda: True, 0.1) == 3
        assert (every._next_at, every.is_time()) == (1005.0, False)


def test_without_a_correction_a_version_is_tried_once(tmp_path: Path, robot: SimRobot, make_script: Any) -> None:
    place = Workspace(tmp_path / "empty").prepare()
    for version in (1, 2):
        put(place, robot, version)
    rig = Rig(place, robot)
    tried: list[int] = []
    inner = evaluator_absorption.absorb

    def counted(workspace: Workspace, version: int, *arguments: Any, **options: Any) -> Any:
        tried.append(version)
        return inner(workspace, version, *arguments, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(evaluator_absorption, "absorb", counted)
        for _ in range(6):
            rig.idle()
        assert tried == [2, 1]
        assert (measured(place), marked(place)) == ({}, [])
        record(place, make_script(robot.spec), [P] * 3 + [H] * 12 + [P], robot)  # from 1
        put(place, robot, 3)
        assert rig.all() == [3, 2], "the correction is one for 2 as well"
        for _ in range(3):
            rig.idle()
        assert tried == [2, 1, 3, 2]
    rig.close()


def test_older_ones_come_after_the_newest_and_nothing_grows(place: Workspace, robot: SimRobot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("takeover.policies.version_watch.HELD", 4)
    monkeypatch.setattr(evaluator_absorption, "OLDER_AT_ONCE", 2)
    for version in range(4, 13):
        put(place, robot, version)
    (version_folder(place.path, 6) / WEIGHTS_NAME).unlink()
    rig = Rig(place, robot)
    every: EveryVersion = rig.evaluator._absorption
    assert [version for _ in range(20) for version in rig.idle()] == [12, 11, 10, 9, 8, 7, 5, 4, 3, 2]
    for version in range(13, 40):
        put(place, robot, version)
        rig.idle()
    assert len(measured(place)) == 37
    assert (len(every._older), len(every._settled | every._nothing) <= 4) == (0, True)
    rig.close()


# --- what gives way, and what fails ---


def test_what_gave_way_to_a_request_is_measured_later(place: Workspace, rig: Rig) -> None:
    assert rig.idle(disturbed=True) == []
    assert marked(place) == [3]
    assert rig.idle() == [3]
    assert marked(place) == []
    for _ in range(TRIES + 2):
        rig.idle(disturbed=True)
    assert rig.all() == [2]


def test_while_a_request_waits_nothing_is_begun(place: Workspace, robot: SimRobot, monkeypatch: pytest.MonkeyPatch) -> None:
    every = EveryVersion(str(place.path), robot.spec)
    with Catalog.open(place) as catalog:
        assert every.measure(catalog, lambda: False) == 0
        assert marked(place) == []
        assert every.measure(catalog, lambda: True) == 3


def test_what_was_cut_off_by_the_end_of_a_run_is_measured_in_the_next(place: Workspace, rig: Rig, robot: SimRobot) -> None:
    inner = rig.requests.receive

    def stopping(timeout_s: float) -> tuple[bytes, Evaluate] | None:
        if rig.requests.at == 1:
            rig.requests.at = 0
            rig.context.stop.set()
        return inner(timeout_s)

    rig.requests.receive = stopping  # type: ignore[method-assign]
    rig.requests.at = 3  # it looks before it goes on, before it begins, then after each correction
    rig.evaluator._absorb(SHARE)
    assert rig.context.stop.is_set()
    assert (measured(place), marked(place)) == ({}, [3])
    again = Rig(place, robot)
    assert again.all() == [3, 2]
    again.close()


def test_what_killed_its_process_again_and_again_is_left(place: Workspace, robot: SimRobot) -> None:
    for _ in range(TRIES):
        assert is_due(place.path, 3, robot.spec.robot_id, TASK)
        absorption_again.began(version_folder(place.path, 3))
    assert not is_due(place.path, 3, robot.spec.robot_id, TASK)
    assert Rig(place, robot).all() == [2]
    absorption_again.gave_way(version_folder(place.path, 3))
    assert Rig(place, robot).all() == [3]


def test_a_result_that_cannot_be_kept_is_said_and_tried_again_later(place: Workspace, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr("takeover.policies.absorption_file._write", no_space)
        assert rig.idle() == []
        assert "absorption of version 3: [Errno 28]" in rig.evaluator._error
        assert rig.evaluator._absorption._next_at > time.monotonic() + 20.0
        assert (marked(place), list(place.policies.glob(f"*/.{FILE}*"))) == ([3], [])
    assert rig.all() == [3, 2]
    assert rig.evaluator._absorption.problem == ""


def no_space(path: Path, data: bytes) -> None:
    path.touch()
    raise OSError(28, "No space left on device", str(path))


def older(place: Workspace, robot: SimRobot, version: int, **changes: Any) -> Path:
    """A file as it was kept before, a correction an object with names and, where ``changes`` say so, without pictures or corrections."""
    made = msgspec.to_builtins(absorb(place, version, robot.spec))
    assert made.pop("with_pictures") is True
    path = version_folder(place.path, version) / FILE
    path.write_text(json.dumps(made | {"segments": [], "totals": {"segments": 0, "steps": 0}} | changes))
    return path


def test_a_result_without_a_correction_of_before_pictures_is_measured_again(place: Workspace, rig: Rig, robot: SimRobot) -> None:
    older(place, robot, 2)
    kept = older(place, robot, 3, with_pictures=True)  # of today's code: there was nothing to measure
    before = kept.read_bytes()
    assert rig.all() == [2]
    found = read_absorption(place.path, 2)
    assert found is not None
    assert (len(found.segments), found.with_pictures) == (2, True)
    assert kept.read_bytes() == before


# --- what it costs ---


def test_a_result_is_small_and_one_of_before_is_read(place: Workspace, robot: SimRobot) -> None:
    made = absorb(place, 3, robot.spec)
    path = version_folder(place.path, 3) / FILE
    assert read_absorption(place.path, 3) == made
    row = len(path.read_bytes()) - len(path.read_bytes()[: path.read_bytes().index(b'"segments"')])
    assert row < 2 * 160 + 700
    assert b"\n" not in path.read_bytes()
    path.write_text(json.dumps(msgspec.to_builtins(made), indent=1))
    assert read_absorption(place.path, 3) == made


def test_between_two_versions_only_the_new_one_is_loaded_and_asked(
    place: Workspace, robot: SimRobot, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, alone = Memory(place), {version: absorb(place, version, robot.spec) for version in (2, 3)}
    loaded: list[int] = []
    read: list[Path] = []
    load, read_one = absorption.load_for, recorded_episodes.read_episode

    def loading(workspace: Path, version: int, spec: Any) -> Any:
        loaded.append(version)
        return load(workspace, version, spec)

    def reading(path: Path) -> Any:
        read.append(path)
        return read_one(path)

    monkeypatch.setattr(absorption, "load_for", loading)
    monkeypatch.setattr(recorded_episodes, "read_episode", reading)
    for version in (3, 2):
        made = absorb(place, version, robot.spec, memory=memory)
        assert msgspec.structs.replace(made, wall_ns=0) == msgspec.structs.replace(alone[version], wall_ns=0)
    assert (loaded, len(read)) == ([1], 2)


@pytest.mark.parametrize("history", [1, 3])
def test_a_policy_that_says_how_far_it_looks_back_answers_the_same(robot: SimRobot, history: int) -> None:
    """The real mixture policy, with runs that change and steps that lie apart, asked at every step and at those alone that decide."""
    learner = make_learner("bc", robot.spec, 3, {"hidden": 16, "history": history})
    policy = build_policy(learner.weights(), robot.spec)
    rows = np.random.default_rng(0).normal(size=(40, robot.spec.observation.size)).astype(np.float32)
    run = np.repeat([0, 1], [12, 28])
    correction = Correction("e", 0, 0, 1, np.array([2, 13, 14, 30]), rows, np.zeros((40, robot.spec.action.size)), run, None, Path())
    asked: list[int] = []

    class Silent:
        """The same policy, that does not say so."""

        def reset(self) -> None:
            policy.reset()

        def act(self, observation: Any, **options: Any) -> Any:
            asked.append(1)
            return policy.act(observation, **options)

    silent = absorption.actions_of(Silent(), correction, correction.steps)
    assert len(asked) == 31
    np.testing.assert_array_equal(absorption.actions_of(policy, correction, correction.steps), silent)
    assert absorption._needed(policy, correction, correction.steps).sum() == {1: 4, 3: 9}[history]


def test_labels_count_at_once(place: Workspace, robot: SimRobot) -> None:
    memory = Memory(place)
    with Catalog.open(place) as catalog:

        def steps() -> list[int]:
            made = absorb(place, 3, robot.spec, catalog=catalog, memory=memory)
            alone = absorb(place, 3, robot.spec, catalog=catalog)
            assert made.segments == alone.segments
            return [segment.n for segment in made.segments]

        labels = Labels(place, catalog)
        assert steps() == [12, 12]
        labels.add_label("e001:t0", "onset", 8, "op-01")
        assert steps() == [7, 12]
        labels.add_label("e001:t0", "quality", "bad", "op-01")
        assert steps() == [12]
        labels.add_label("e001:t0", "quality", "", "op-01")
        assert steps() == [7, 12]
        labels.add_label("e000", "exclude", True, "op-01")
        assert steps() == [7]


def test_an_episode_whose_file_was_rewritten_is_read_again_and_few_are_kept(
    place: Workspace, robot: SimRobot, make_script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Catalog.open(place) as catalog:
        rows = catalog.episodes()
    held = recorded_episodes.RecordedEpisodes(most=1)
    first = held.of(rows[0], place.path / rows[0].path)
    assert held.of(rows[0], place.path / rows[0].path) is first
    assert held.of(msgspec.structs.replace(rows[0], sha256="0" * 64), place.path / rows[0].path) is not first
    held.of(rows[1], place.path / rows[1].path)
    assert len(held._held) == 1
    many = recorded_episodes.RecordedEpisodes()
    monkeypatch.setattr(recorded_episodes, "HELD_BYTES", first.size)
    for row in rows:
        many.of(row, place.path / row.path)
    assert len(many._held) == 1


def test_the_way_back_is_remembered_and_bounded(tmp_path: Path, robot: SimRobot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions 1 to 40; every tenth noted a correction; 31 is the child of 25, whose branch ended at 30."""
    place = Workspace(tmp_path / "many").prepare()
    for version in range(1, 41):
        noted = [f"e{version}:0"] if version % 10 == 0 else []
        put(place, robot, version, parent=25 if version == 31 else version - 1, corrections=noted)
    manifests = {version: read_manifest(version_folder(place.path, version)) for version in range(1, 41)}
    read: list[int] = []

    def reading(folder: Path) -> Any:
        read.append(int(folder.name))
        return read_manifest(folder)

    monkeypatch.setattr(lineage, "read_manifest", reading)
    kept = Lineage(place.path)
    for version in (40, 39, 30, 31, 5, 26):
        expected = {f"e{n}:0" for n in (10, 20, 30, 40) if n <= version and (n != 30 or version == 30)}
        assert kept.used(manifests[version]) == (expected, True)
    read.clear()
    assert kept.used(manifests[40]) == ({"e10:0", "e20:0", "e40:0"}, True)
    assert read == []
    assert kept.used(manifests[40], above=20) == ({"e40:0"}, True)
    monkeypatch.setattr(lineage, "HELD", 3)
    small = Lineage(place.path)
    for version in (38, 39, 40):
        assert small.used(manifests[version])[0] == {"e10:0", "e20:0"} | ({"e40:0"} if version == 40 else set())
    assert len(small._held) == 3
    monkeypatch.setattr(lineage, "HELD", 1000)
    steps, leading = [], Lineage(place.path)
    leading.used(manifests[39])
    at = leading._at
    monkeypatch.setattr(leading, "_at", lambda version: steps.append(version) or at(version))
    leading.used(manifests[40])
    assert steps == [39, 20, 10], "past those that noted nothing"
    (version_folder(place.path, 12) / "manifest.json").unlink()
    assert Lineage(place.path).used(manifests[20]) == ({"e20:0"}, False)
    assert Lineage(place.path).used(manifests[20], above=12) == ({"e20:0"}, True)


def test_insights_shows_what_the_evaluator_measures_while_it_does(place: Workspace, robot: SimRobot) -> None:
    rig = Rig(place, robot)
    assert rig.all() == [3, 2]
    store = InsightsStore(place.path)
    shown = store.snapshot().shown
    assert shown is not None

    def versions() -> dict[int, int]:
        while (view := store.absorption(shown)).unread:
            pass
        return {point.version: point.corrections for point in view.points}

    before = versions()
    assert set(before) == {2, 3}
    put(place, robot, 4)
    assert rig.all() == [4]
    assert versions() == before | {4: read_absorption(place.path, 4).totals["segments"]}  # type: ignore[union-attr]
    store.close()
    rig.close()


# --- the command ---


def test_all_versions_without_a_result_are_measured_by_one_command(
    place: Workspace, robot: SimRobot, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--robot", "sim:peg-insert", "--workspace", str(place.path))
    put(place, robot, 4, task="pick-lift")
    put(place, robot, 5)
    (version_folder(place.path, 5) / WEIGHTS_NAME).write_bytes(b"damaged")
    assert main(["policy", "absorb", "--all", *where]) == 0
    said = capsys.readouterr().out
    assert "2 of 4 versions without a result measured" in said
    assert "1 have no correction of an earlier version to look at" in said
    assert "not measured: version 5: " in said
    assert sorted(measured(place)) == [2, 3]
    (version_folder(place.path, 2) / FILE).unlink()
    assert main(["policy", "absorb", "--all", "--json", *where]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["measured"], made["nothing_to_measure"], len(made["problems"])) == ([2], [1], 1)
    for wrong in (("3", "--all"), ("--all", "--runs", "2"), ("--all", "--set", "clearance_m=0.002")):
        assert main(["policy", "absorb", *wrong, *where]) == 2
        assert "it goes with neither a version nor --runs nor --set" in capsys.readouterr().err
    assert main(["policy", "absorb", *where]) == 2
    assert "which version?" in capsys.readouterr().err


def test_all_versions_stopped_keep_what_is_done(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = absorb

    def stopped(workspace: Workspace, version: int, *arguments: Any, **options: Any) -> Any:
        if version == 2:
            raise KeyboardInterrupt
        return inner(workspace, version, *arguments, **options)

    where = ("--robot", "sim:peg-insert", "--workspace", str(place.path))
    with monkeypatch.context() as patched:
        patched.setattr("takeover.policies.absorb.absorb", stopped)
        assert main(["policy", "absorb", "--all", *where]) == 130
    assert "1 of 3 versions measured and kept" in capsys.readouterr().err
    assert list(measured(place)) == [3]
    assert main(["policy", "absorb", "--all", *where]) == 0
    assert sorted(measured(place)) == [2, 3]


# --- the evaluator besides ---


def test_simulation_that_becomes_unstable_fails_its_start_and_ends_no_evaluator(
    rig: Rig, robot: SimRobot, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(robot, "_simulate", raises("the simulation became unstable; reset it"))
        assert rig.evaluator._run(2, 1) == [False]
    with monkeypatch.context() as broken:
        broken.setattr(robot, "reset", raises("the arm cannot reach the start pose"))
        assert rig.evaluator._look_at_newest()
    assert rig.evaluator._error == "version 3: the arm cannot reach the start pose"


def test_a_comparison_that_gave_way_is_finished_though_a_newer_version_came(place: Workspace, robot: SimRobot, tmp_path: Path) -> None:
    rig = Rig(place, robot)
    try:
        rig.context.config = msgspec.structs.replace(rig.context.config, gate=True)
        rig.evaluator._absorption.wait(1000.0)  # it would look for requests as well
        decide(place.path, [("promoted", read_manifest(version_folder(place.path, 1)))], author="gate", reason="the first")
        failed_everywhere(place, robot, 1, 3)
        rig.requests.at = 3  # in the middle of the third pair of version 3 against version 1
        assert not rig.evaluator._look_at_newest()  # it is looked again at once, not after evaluate_every_s
        assert rig.evaluator._waiting is not None
        rig.evaluator._waiting, rig.requests.at = None, 0
        put(place, robot, 4)
        failed_everywhere(place, robot, 4)
        assert rig.evaluator._look_at_newest()
        judged = [decision.version for decision in read_decisions(place.path) if decision.author == GATE]
        assert judged[0] == 1
        assert {3, 4} <= set(judged)
        assert judged.index(3) < judged.index(4)
    finally:
        rig.close()


def raises(text: str) -> Callable[..., None]:
    def fail(*_: Any) -> None:
        raise RobotError(text)

    return fail
