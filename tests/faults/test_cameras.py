"""Rows 5, 6 and 16: cameras that freeze, fail, or are looked at slowly. The real bridge process renders both."""

import itertools
import time
from collections.abc import Callable, Iterator

import pytest

from takeover.data.schema import CameraFrame, EpisodeKind, Fault, Hold, HoldReason, Mode, Outcome, Step
from takeover.robot_bridge.camera_watch import MOVED_M
from takeover.robot_bridge.protocol import Subscriber
from tests.robot_bridge.station import Operator

from .rig import Rig, rig

Bound = Callable[[float, float, str], None]
FRAME_MS = 50.0
ASKED = [0.0] * 4  # of the policy
TOOL_Z = 2  # in an observation of sim:peg-insert


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Rig, Operator]]:
    with rig(cameras=True, policy_cameras=["front"]) as made:
        made.actor(lambda _: list(ASKED))
        yield made, made.operator()


@pytest.fixture
def running(shared: tuple[Rig, Operator]) -> Iterator[tuple[Rig, Operator]]:
    station, operator = shared
    station.begin(operator, EpisodeKind.POLICY)
    station.policy_runs(operator)
    yield shared
    ASKED[:] = [0.0] * 4
    operator.deadman, operator.action = False, [0.0] * 4
    station.ask(Fault(sender="test", name="frozen_camera", value=0.0))
    station.end_block()
    station.until(lambda s: not s.gate["cameras"], "pictures come again")


def test_row_05_camera_frozen(running: tuple[Rig, Operator], bound: Bound) -> None:
    """The frame counter stops. The policy is held. A person may drive."""
    station, operator = running
    fault = time.monotonic_ns()
    assert not station.ask(Fault(sender="test", name="frozen_camera", value=1.0))
    state, after_ms = station.held(fault, [HoldReason.CAMERA_FROZEN])
    assert state.hold_detail == "front"
    bound(after_ms, 200.0, "ms")
    station.drive(operator)


@pytest.fixture(scope="module")
def unseen() -> Iterator[tuple[Rig, Operator]]:
    """A station without line of sight; its policy needs no camera."""
    with rig(cameras=True, line_of_sight="no") as made:
        made.actor(lambda _: [0.0] * 4)
        yield made, made.operator()


@pytest.fixture
def watching(unseen: tuple[Rig, Operator]) -> Iterator[tuple[Rig, Operator]]:
    yield unseen
    station, operator = unseen
    operator.deadman, operator.action = False, [0.0] * 4
    station.ask(Fault(sender="test", name="frozen_camera", value=0.0))
    station.end_block()
    station.until(lambda s: not s.gate["cameras"], "pictures come again")


def moved_when_the_pictures_return(station: Rig) -> float:
    """Steps that move within a second after the pictures are there again, with the deadman and the stick as they are."""
    back = time.monotonic_ns()
    assert not station.ask(Fault(sender="test", name="frozen_camera", value=0.0))
    station.until(lambda s: not s.gate["cameras"], "pictures come again")
    time.sleep(1.0)
    assert not [s for _, s in station.watch.states if s.t_ns > back and s.mode is Mode.TAKEOVER]
    return float(len([step for step in station.steps_since(back) if any(step.action)]))


def test_row_05_camera_frozen_for_who_does_not_see_the_robot(watching: tuple[Rig, Operator], bound: Bound) -> None:
    """The person who drives is held, and drives again when the pictures come: after letting go, not with the deadman kept down."""
    station, operator = watching
    station.begin(operator, EpisodeKind.POLICY)
    station.policy_runs(operator)
    station.drive(operator)
    fault = time.monotonic_ns()
    assert not station.ask(Fault(sender="test", name="frozen_camera", value=1.0))
    state, after_ms = station.held(fault, [HoldReason.CAMERA_FROZEN])
    assert state.hold_detail
    bound(after_ms, 200.0, "ms")
    bound(moved_when_the_pictures_return(station), 0.0, "steps")
    station.drive(operator)


@pytest.mark.parametrize("mode", [Mode.HOLD, Mode.READY, Mode.POLICY])
def test_row_05_camera_frozen_when_the_deadman_is_pressed(watching: tuple[Rig, Operator], bound: Bound, mode: Mode) -> None:
    """Who had let go presses in vain without pictures (the policy is held); that press takes nothing over when they return, either."""
    station, operator = watching
    station.begin(operator, EpisodeKind.DEMONSTRATION if mode is Mode.READY else EpisodeKind.POLICY)
    if mode is not Mode.READY:
        station.policy_runs(operator)
    if mode is Mode.HOLD:
        assert not operator.ask(Hold(sender=operator.name)).error
        station.until(lambda s: s.mode is Mode.HOLD, "held as asked")
    time.sleep(0.3)  # seen to have let go
    assert not station.ask(Fault(sender="test", name="frozen_camera", value=1.0))
    station.until(lambda s: bool(s.gate["cameras"]), "the pictures stand")
    if mode is Mode.POLICY:
        station.policy_runs(operator)
    pressed = time.monotonic_ns()
    operator.action, operator.deadman = [0.3, 0.0, 0.0, 0.0], True
    if mode is Mode.POLICY:
        _, after_ms = station.held(pressed, [HoldReason.CAMERA_FROZEN])
        bound(after_ms, 200.0, "ms")
    time.sleep(0.3)
    bound(moved_when_the_pictures_return(station), 0.0, "steps")
    station.drive(operator)


def test_row_05_camera_frozen_while_its_counter_runs(running: tuple[Rig, Operator], bound: Bound) -> None:
    """New numbers, but the picture's time stands."""
    station, _ = running
    fault = time.monotonic_ns()
    assert not station.ask(Fault(sender="test", name="frozen_camera", value=2.0))
    state, after_ms = station.held(fault, [HoldReason.CAMERA_FROZEN])
    assert state.hold_detail == "front"
    bound(after_ms, 200.0, "ms")


def test_row_05_camera_repeats_its_pixels(running: tuple[Rig, Operator], bound: Bound) -> None:
    """New numbers and times, the same pixels. On a still scene that is what a good camera gives, too; once the robot moves it is not."""
    station, operator = running
    assert not station.ask(Fault(sender="test", name="frozen_camera", value=3.0))
    station.policy_runs(operator, steps=10)
    fault = time.monotonic_ns()
    ASKED[:] = [0.0, 0.0, 0.9, 0.0]
    state, after_ms = station.held(fault, [HoldReason.CAMERA_FROZEN])
    assert state.hold_detail == "front"
    bound(after_ms, 600.0, "ms from standing still")  # the way of 3 cm, two pictures, a step
    shows_ns = next(step.t_observation_ns for step in rising(station, fault) if step.observation[TOOL_Z] > low(station, fault) + MOVED_M)
    bound(after_ms - (shows_ns - fault) / 1e6, 200.0, "ms")


def rising(station: Rig, since_ns: int) -> list[Step]:
    """The recorded steps since then, once the recorder has those of the motion."""
    deadline = time.monotonic() + 5.0
    while not (steps := station.steps_since(since_ns)) or steps[-1].observation[TOOL_Z] <= low(station, since_ns) + MOVED_M:
        assert time.monotonic() < deadline, "the motion is not in the record"
        time.sleep(0.02)
    return steps


def low(station: Rig, at_ns: int) -> float:
    """Height of the tool before the motion, m."""
    return next(step for step in reversed(station.watch.steps) if step.t_observation_ns <= at_ns).observation[TOOL_Z]


def test_row_06_camera_gone(running: tuple[Rig, Operator], bound: Bound) -> None:
    station, _ = running
    fault = station.hook("bridge", "fail", "camera", count=4)
    _, after_ms = station.held(fault, [HoldReason.CAMERA_MISSING])
    bound(after_ms, 200.0, "ms")
    station.until(lambda s: s.mode is Mode.READY and not s.block_running, "the episode ends, and with it the block")
    ended = next(s for _, s in station.watch.states if s.t_ns > fault and s.mode is Mode.READY)
    bound((ended.t_ns - fault) / 1e6, 1000.0, "ms")
    assert ended.last_outcome is Outcome.ABORTED


def test_row_16_slow_viewer(running: tuple[Rig, Operator], bound: Bound) -> None:
    """A viewer that looks three times a second sees the newest picture each time, and knows what it missed from the counter."""
    station, _ = running
    ages, counters, behind, taken = [], [], [], []
    with (
        Subscriber[CameraFrame](station.endpoints, "camera/front", CameraFrame) as frames,
        Subscriber[CameraFrame](station.endpoints, "camera/front", CameraFrame, latest=False) as every,
    ):
        assert frames.receive(2.0) is not None
        for _ in range(8):
            time.sleep(0.33)
            frame = frames.receive(1.0)
            assert frame is not None
            ages.append((time.monotonic_ns() - frame.t_source_ns) / 1e6)
            counters.append(frame.counter)
            while (other := every.receive()) is not None:
                taken.append(other)
            behind.append(max([other.counter for other in taken]) - frame.counter)
    missed = counters[-1] - counters[0] - len(counters) + 1
    assert missed >= 5
    bound(float(max(behind)), 2.0, "frames")
    longest_ms = max(b.t_source_ns - a.t_source_ns for a, b in itertools.pairwise(taken)) / 1e6  # a busy machine renders less often
    bound(max(ages), 2 * max(FRAME_MS, longest_ms) + 20.0, "ms")  # the oldest one: two frames, and rendering
