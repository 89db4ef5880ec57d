"""A robot that travels to its start pose does so through the safety filter, slowly, and can be stopped and held on the way."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from takeover.data.schema import Clear, EpisodeKind, Hold, HoldReason, Mode, Resume, Stop
from takeover.robot_bridge.robots.base import FloatArray, MovesToStart, Reading
from takeover.robot_bridge.robots.sim import SimRobot

from .station import Operator, Recorder, Station, eventually, station

START = np.array([0.06, 0.06, 0.20])


class Traveller(SimRobot):
    """Asks for far more than any limit allows, as a careless driver would; never jumps."""

    def __init__(self) -> None:
        super().__init__("peg-insert")
        self.applied: list[FloatArray] = []
        self.resets: list[int] = []
        self.arrives = True

    def start_action(self, reading: Reading, seed: int) -> FloatArray | None:
        way = START - reading.tool_position
        if self.arrives and np.linalg.norm(way) < 0.01:
            return None
        return np.array([*(way / np.linalg.norm(way) * 4.0), 0.0])

    def apply(self, action: FloatArray) -> None:
        self.applied.append(np.array(action))
        super().apply(action)

    def reset(self, seed: int) -> None:
        if hasattr(self, "resets"):
            self.resets.append(seed)
        else:
            super().reset(seed)


class Scene:
    def __init__(self, made: Station, robot: Traveller) -> None:
        self.station, self.robot = made, robot
        self.recorder: Recorder = made.recorder()
        self.operator: Operator = made.operator()
        assert self.operator.take_lease().error == ""

    def begin(self) -> None:
        self.robot.applied.clear()
        self.station.start(self.operator, EpisodeKind.DEMONSTRATION)

    def underway(self) -> None:
        assert eventually(lambda: sum(bool(action.any()) for action in list(self.robot.applied)) >= 4)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    robot = Traveller()
    assert isinstance(robot, MovesToStart)
    with station(tmp_path, hardware=robot) as made:
        yield Scene(made, robot)


def test_it_arrives_within_slow_mode_and_acceleration(scene: Scene) -> None:
    scene.begin()

    def arrived() -> bool:
        if scene.station.state().mode is Mode.HOLD:  # a busy machine holds
            scene.operator.ask(Resume(sender="console"))
        return bool(scene.robot.resets)

    assert eventually(arrived, 40.0)
    scene.station.until_mode(Mode.READY)
    assert scene.robot.resets, "what a task does at a start state follows on arrival"
    assert np.linalg.norm(scene.robot.read().tool_position - START) < 0.015
    limits, scale = scene.station.config.limits, np.array(scene.robot.spec.action.scale)[:3]
    moves = [action[:3] * scale for action in list(scene.robot.applied)]
    cap = limits.slow_scale * np.linalg.norm(scale)
    assert max(np.linalg.norm(move) for move in moves) == pytest.approx(cap, rel=1e-3)
    assert scene.station.state().safety_counts["slow_mode"] > 5
    assert not scene.recorder.steps, "it belongs to no episode"


def test_stop_and_hold_work_on_the_way(scene: Scene) -> None:
    scene.robot.arrives = False
    scene.begin()
    scene.underway()
    assert scene.operator.ask(Hold(sender="console")).error == ""
    scene.station.until(lambda s: s.mode is Mode.HOLD and s.hold_reason is HoldReason.OPERATOR)
    time.sleep(0.3)
    assert not scene.robot.applied[-1].any()
    scene.operator.deadman = True  # there is no episode to take over
    time.sleep(0.3)
    assert scene.station.state().mode is Mode.HOLD
    scene.operator.deadman = False
    assert eventually(lambda: scene.operator.ask(Resume(sender="console")).error == "")
    scene.station.until_mode(Mode.RESETTING)
    scene.robot.applied.clear()
    scene.underway()
    assert scene.operator.ask(Stop(sender="console")).error == ""
    scene.station.until_mode(Mode.STOPPED)
    stood = scene.robot.read().tool_position
    time.sleep(0.4)
    assert np.linalg.norm(scene.robot.read().tool_position - stood) < 0.004
    assert scene.operator.ask(Hold(sender="console")).error != ""
    assert scene.operator.ask(Clear(sender="console")).error == ""
    scene.station.until_mode(Mode.READY)
    assert not scene.recorder.steps


def test_a_pose_that_is_never_reached_is_given_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("takeover.robot_bridge.control.WAY_TO_START_S", 0.5)
    scene.robot.arrives = False
    scene.begin()
    assert eventually(lambda: any("start pose was not reached" in event.text for event in scene.recorder.events))
    scene.station.until(lambda s: s.mode is Mode.READY and not s.block_running)
    stood = scene.robot.read().tool_position
    time.sleep(0.3)
    assert np.linalg.norm(scene.robot.read().tool_position - stood) < 0.002
    scene.robot.arrives = True
    scene.begin()
    scene.underway()


def test_the_way_stops_when_the_recorder_is_lost(scene: Scene) -> None:
    """Whatever holds a moving robot holds it here too."""
    scene.robot.arrives = False
    scene.begin()
    scene.underway()
    scene.recorder.acknowledge = False
    scene.station.until(lambda s: s.mode is Mode.HOLD and s.hold_reason is HoldReason.RECORDER_LOST)


def test_one_fault_where_no_episode_runs_is_one_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was held without an episode, tried to record the held step into none, and failed again at every other step for ever."""
    with station(tmp_path) as made:
        recorder = made.recorder()
        failures = iter([True])

        def broken(action: FloatArray, original: object = made.robot.apply) -> None:
            if next(failures, False):
                raise OSError("cable pulled")
            original(action)  # type: ignore[operator]

        made.until_mode(Mode.READY)
        monkeypatch.setattr(made.robot, "apply", broken)
        assert eventually(lambda: any(event.kind == "robot_fault" for event in recorder.events))
        made.until_mode(Mode.READY)
        time.sleep(1.5)
        assert [event.text for event in recorder.events if event.kind == "robot_fault"] == ["OSError: cable pulled"]
        assert made.state().mode is Mode.READY
