"""The evaluator takes up what it did not measure to its end, or not at pictures: the real one, without its sockets, on real versions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from takeover.app.processes.common import ProcessContext
from takeover.app.processes.evaluator import _Evaluator
from takeover.app.processes.evaluator_stock import Unfinished
from takeover.data.catalog import Catalog
from takeover.data.schema import Evaluate, EvaluateReply, EvaluatorStatus, RunConfig
from takeover.data.workspace import Workspace
from takeover.policies import absorption_again
from takeover.policies.absorb import absorb
from takeover.policies.absorption_again import BEGUN, LOOKED_AT, TRIES, due
from takeover.policies.absorption_file import FILE, read_absorption
from takeover.policies.decisions import GATE, decide, read_decisions
from takeover.policies.manifest import WEIGHTS_NAME, read_manifest, version_folder
from takeover.policies.publish import make_manifest, publish, weights_bytes
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


def put(place: Workspace, robot: SimRobot, version: int) -> None:
    weights = make_learner("hil-serl", robot.spec, version, {"hidden": 16}).weights()
    data = weights_bytes(weights)
    made = make_manifest(weights, data, robot.spec, version=version, parent=version - 1, learner="hil-serl", swap="step")
    publish(place.path, made, data)


class Rig:
    """An evaluator that looks when it is told to."""

    def __init__(self, place: Workspace, robot: SimRobot) -> None:
        self.place, self.requests = place, Requests()
        config = RunConfig(session_id="s", workspace=str(place.path), sockets="", task=TASK, evaluate_starts=1)
        self.context = ProcessContext("evaluator", config)
        self.evaluator: Any = _Evaluator(self.context, robot, self.requests, Status())  # type: ignore[arg-type]

    def look(self, disturbed: bool = False) -> list[int]:
        """One look; versions that were measured by it. ``disturbed``: a request comes once the newest version's absorption has begun."""
        before = measured(self.place)
        self.requests.at = 2 if disturbed else 0  # it looks once after the start that it runs, then after each correction
        self.evaluator._look_at_newest()
        assert (self.evaluator._waiting is not None) == disturbed
        self.evaluator._waiting = None  # it is answered
        assert self.evaluator._error == ""
        return [version for version, when in measured(self.place).items() if before.get(version) != when]

    def close(self) -> None:
        self.evaluator.close()


@pytest.fixture
def rig(place: Workspace, robot: SimRobot) -> Any:
    made = Rig(place, robot)
    yield made
    made.close()


def measured(place: Workspace) -> dict[int, int]:
    found = {version: read_absorption(place.path, version) for version in range(1, 10) if version_folder(place.path, version).exists()}
    return {version: one.wall_ns for version, one in found.items() if one is not None}


def marked(place: Workspace) -> list[int]:
    return sorted(int(path.parent.name) for path in place.policies.glob(f"*/{BEGUN}"))


def test_what_gave_way_to_a_request_is_measured_at_the_next_look(place: Workspace, rig: Rig) -> None:
    assert rig.look(disturbed=True) == []
    assert marked(place) == [3]
    assert rig.look() == [3]
    assert marked(place) == []
    found = read_absorption(place.path, 3)
    assert found is not None
    assert len(found.segments) == 2
    assert rig.look() == [], "once"


def test_the_newest_comes_first_and_one_older_one_with_each_look(place: Workspace, rig: Rig, robot: SimRobot) -> None:
    rig.look(disturbed=True)
    put(place, robot, 4)
    rig.look(disturbed=True)
    put(place, robot, 5)
    assert rig.look() == [4, 5]
    times = measured(place)
    assert times[5] < times[4], "the newest before all others"
    put(place, robot, 6)
    assert rig.look() == [3, 6]
    assert rig.look() == []


def test_a_request_that_comes_again_and_again_costs_no_version_its_turn(place: Workspace, rig: Rig) -> None:
    for _ in range(TRIES + 2):
        rig.evaluator._evaluated = 2  # as if 3 were new
        rig.look(disturbed=True)
    assert rig.look() == [3]


def test_while_a_request_waits_nothing_is_begun(place: Workspace, robot: SimRobot, monkeypatch: pytest.MonkeyPatch) -> None:
    absorption_again.gave_way(version_folder(place.path, 3))
    with Catalog.open(place) as catalog, monkeypatch.context() as patched:
        patched.setattr("takeover.app.processes.evaluator_stock.absorb", None)
        unfinished = Unfinished(str(place.path), robot.spec)
        assert unfinished.take_up(catalog, lambda: False) == 0
        patched.undo()
        assert unfinished.take_up(catalog, lambda: True) == 3


def test_what_was_cut_off_by_the_end_of_a_run_is_measured_in_the_next(place: Workspace, rig: Rig, robot: SimRobot) -> None:
    inner = rig.requests.receive

    def stopping(timeout_s: float) -> tuple[bytes, Evaluate] | None:
        if rig.requests.at == 1:
            rig.requests.at = 0
            rig.context.stop.set()
        return inner(timeout_s)

    rig.requests.receive = stopping  # type: ignore[method-assign]
    rig.requests.at = 2
    rig.evaluator._look_at_newest()
    assert rig.context.stop.is_set()
    assert (measured(place), marked(place)) == ({}, [3])
    put(place, robot, 4)
    again = Rig(place, robot)
    assert again.look() == [3, 4]
    again.close()


def test_what_killed_its_process_again_and_again_is_left(place: Workspace, rig: Rig, robot: SimRobot) -> None:
    put(place, robot, 4)
    for tries in range(TRIES):
        assert list(due(place.path, TASK)) == ([3] if tries else [])
        absorption_again.began(version_folder(place.path, 3))
    assert list(due(place.path, TASK)) == []
    assert rig.look() == [4]
    absorption_again.gave_way(version_folder(place.path, 3))
    assert rig.look() == [3]


def older(place: Workspace, robot: SimRobot, version: int, **changes: Any) -> Path:
    """A file without a correction, as it was kept by code that looked at no pictures; other fields by name."""
    absorb(place, version, robot.spec)
    path = version_folder(place.path, version) / FILE
    fields = json.loads(path.read_bytes())
    assert fields.pop("with_pictures") is True
    path.write_text(json.dumps(fields | {"segments": [], "totals": {"segments": 0, "steps": 0}} | changes))
    return path


def test_a_result_without_a_correction_of_before_pictures_is_measured_again(place: Workspace, rig: Rig, robot: SimRobot) -> None:
    older(place, robot, 2)
    put(place, robot, 4)
    kept = older(place, robot, 3, with_pictures=True)  # of today's code: there was nothing to measure
    before = kept.read_bytes()
    assert rig.look() == [2, 4]
    found = read_absorption(place.path, 2)
    assert found is not None
    assert (len(found.segments), found.with_pictures) == (2, True)
    assert rig.look() == []
    assert kept.read_bytes() == before


def test_the_newest_has_its_empty_result_measured_again_too(place: Workspace, rig: Rig, robot: SimRobot) -> None:
    older(place, robot, 3)
    assert rig.look() == [3]


def test_what_cannot_be_measured_is_tried_once_and_leaves_no_mark(place: Workspace, rig: Rig, robot: SimRobot) -> None:
    older(place, robot, 2)
    path = older(place, robot, 3)
    before = path.read_bytes()
    put(place, robot, 4)
    (path.parent / WEIGHTS_NAME).unlink()
    assert rig.look() == [4]
    assert rig.look() == [2], "3 is not in its way"
    assert rig.look() == []
    assert (path.read_bytes(), marked(place)) == (before, [])


def test_of_many_versions_only_the_newest_are_looked_at(place: Workspace, robot: SimRobot) -> None:
    put(place, robot, 9)
    for version in (1, 2, 3, 9):
        absorption_again.gave_way(version_folder(place.path, version))
    assert list(due(place.path, TASK)) == [9, 3, 2, 1]
    assert list(due(place.path, "another")) == []
    for version in range(10, 10 + LOOKED_AT - 2):
        version_folder(place.path, version).mkdir()
    assert list(due(place.path, TASK)) == [9, 3]


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
        decide(place.path, [("promoted", read_manifest(version_folder(place.path, 1)))], author="gate", reason="the first")
        rig.requests.at = 3  # in the middle of the third pair of version 3 against version 1
        assert not rig.evaluator._look_at_newest()  # it is looked again at once, not after evaluate_every_s
        assert rig.evaluator._waiting is not None
        rig.evaluator._waiting, rig.requests.at = None, 0
        put(place, robot, 4)
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
