"""Rows 5, 6 and 16: cameras that freeze, fail, or are looked at slowly. The real bridge process renders both."""

import time
from collections.abc import Callable, Iterator

import pytest

from takeover.data.schema import CameraFrame, EpisodeKind, Fault, HoldReason, Mode, Outcome
from takeover.robot_bridge.protocol import Subscriber
from tests.robot_bridge.station import Operator

from .rig import Rig, rig

Bound = Callable[[float, float, str], None]
FRAME_MS = 50.0


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Rig, Operator]]:
    with rig(cameras=True, policy_cameras=["front"]) as made:
        made.actor()
        yield made, made.operator()


@pytest.fixture
def running(shared: tuple[Rig, Operator]) -> Iterator[tuple[Rig, Operator]]:
    station, operator = shared
    station.begin(operator, EpisodeKind.POLICY)
    station.policy_runs(operator)
    yield shared
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
    ages, counters = [], []
    with Subscriber[CameraFrame](station.endpoints, "camera/front", CameraFrame) as frames:
        assert frames.receive(2.0) is not None
        for _ in range(8):
            time.sleep(0.33)
            frame = frames.receive(1.0)
            assert frame is not None
            ages.append((time.monotonic_ns() - frame.t_source_ns) / 1e6)
            counters.append(frame.counter)
    missed = counters[-1] - counters[0] - len(counters) + 1
    assert missed >= 5
    bound(sorted(ages)[len(ages) // 2], 2 * FRAME_MS + 20.0, "ms")  # two frames, and rendering
