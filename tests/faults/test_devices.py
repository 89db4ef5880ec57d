"""Input devices and the window that reads them: rows 1-4, 12 and 13.

A real console process on an X server of its own, with SDL's virtual pad plugged into that very process, drives the real bridge and
recorder.
"""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from takeover.app.console.client import GUI_HEARTBEAT_MS
from takeover.data.schema import EpisodeKind, HoldReason, Mode, Resume, Source, Start
from takeover.robot_bridge.lease import PRESENCE_NS
from tests.app.console.test_real_window import Screen

from .rig import PERIOD_MS, Rig, rig

Bound = Callable[[float, float, str], None]
DEVICE_MS = 200.0
T_CMD_MS = 150.0  # clamp(3 periods, 120 ms, 200 ms) at 20 Hz
HAND_MS = 8.0 + 20.0  # the pad is read at 125 Hz, commands leave at 50 Hz


class Pad:
    """A virtual gamepad inside the console's process."""

    def __init__(self, station: Rig) -> None:
        self._station = station

    def do(self, *calls: list[object]) -> int:
        return self._station.hook("console", "pad", calls=list(calls))

    def press(self) -> int:
        return self.do(["axis", "left_y", -0.6], ["button", "rb", True])

    def release(self) -> int:
        return self.do(["button", "rb", False], ["axis", "left_y", 0.0])


@pytest.fixture(scope="module")
def shared() -> Iterator[Rig]:
    screen = Screen()
    patch = pytest.MonkeyPatch()
    patch.setenv("DISPLAY", screen.display)
    patch.setenv("QT_QPA_PLATFORM", "xcb")
    patch.delenv("WAYLAND_DISPLAY", raising=False)
    try:
        with rig(["bridge", "recorder", "console"], operator="console") as made:
            yield made
    finally:
        patch.undo()
        screen.close()


@pytest.fixture
def station(shared: Rig) -> Iterator[Rig]:
    """A console with a pad at rest, and a demonstration that waits for its press."""
    shared.launcher.wait_ready(60)
    shared.until(lambda s: s.commander.startswith("console-"), "the console holds the lease", 30.0)
    shared.ask_until_done(lambda name: Start(sender=name, kind=EpisodeKind.DEMONSTRATION))
    shared.until(lambda s: s.mode is Mode.READY and bool(s.episode_id), "a demonstration waits")
    yield shared
    shared.end_block()


@pytest.fixture
def driving(station: Rig) -> Iterator[Pad]:
    """A pad that has taken over; unplugged afterwards, in whichever console process runs then."""
    pad = Pad(station)
    pad.do(["plug"])
    take_over(station, pad)
    yield pad
    station.launcher.wait_ready(60)
    pad.do(["unplug"])


def take_over(station: Rig, pad: Pad) -> None:
    """Press until it counts: a machine that is busy with other things is late now and then."""
    for _ in range(6):
        time.sleep(0.4)
        pad.press()
        try:
            station.until(lambda s: s.mode is Mode.TAKEOVER and s.human_steps > 5, "the pad drives", 2.0)
            return
        except AssertionError:
            pad.release()
    raise AssertionError("six presses of RB did not take over")


def test_row_01_pad_unplugged(station: Rig, driving: Pad, bound: Bound) -> None:
    fault = driving.do(["unplug"])
    _, after_ms = station.held(fault, [HoldReason.DEVICE_LOST])
    bound(after_ms, DEVICE_MS, "ms")
    bound(station.moved_for_ms(fault), DEVICE_MS, "ms")


def test_row_01_pad_unplugged_while_the_policy_drives(shared: Rig, bound: Bound) -> None:
    """Nobody could take over with it: the policy is held, until there is a device again (here the keyboard)."""
    actor = shared.actor(lambda _: [0.1, 0.0, 0.0, 0.0])
    shared.launcher.wait_ready(60)
    shared.until(lambda s: s.commander.startswith("console-"), "the console holds the lease", 30.0)
    pad = Pad(shared)
    try:
        for attempt in range(4):
            pad.do(["plug"])
            shared.ask_until_done(lambda name: Start(sender=name, kind=EpisodeKind.POLICY))
            with contextlib.suppress(AssertionError):  # a machine that is busy with other things holds it now and then
                take_over(shared, pad)
                pad.release()
                shared.until(lambda s: s.mode is Mode.POLICY, "handed back", 2.0)
                fault = pad.do(["unplug"])
                _, after_ms = shared.held(fault, [HoldReason.DEVICE_LOST], 3.0)
                break
            assert attempt < 3, "no hold for a pad that was unplugged"
            pad.do(["unplug"])
            shared.end_block()
        bound(after_ms, DEVICE_MS, "ms")
        bound(shared.moved_for_ms(fault), DEVICE_MS, "ms")
        shared.until(lambda s: s.device_id == "keyboard" and not s.gate["device_neutral"], "there is a device again")
    finally:
        actor.peer.stop()
        shared.end_block()


@pytest.mark.parametrize("how", ["fail", "stick"])
def test_row_02_reader_thread_gone(station: Rig, driving: Pad, bound: Bound, how: str) -> None:
    """The thread that reads the pad dies, or hangs in the driver: RB stays down in its last reading, which is never used again."""
    fault = station.hook("console", how, "devices", 1.5)
    _, after_ms = station.held(fault, [HoldReason.DEVICE_LOST])
    bound(after_ms, DEVICE_MS, "ms")
    bound(station.moved_for_ms(fault), DEVICE_MS, "ms")
    if how == "fail":
        station.replace("console")
    else:
        time.sleep(1.5)
        assert station.watch.state is not None
        assert station.watch.state.mode is Mode.HOLD  # read again, RB still down: not a fresh press
        driving.release()


def test_row_03_stick_stuck(station: Rig, driving: Pad, bound: Bound) -> None:
    fault = driving.do(["button", "rb", False])  # the stick stays where it is
    bound(max(0.0, station.moved_for_ms(fault) - HAND_MS), PERIOD_MS, "ms")
    assert all(Source.HUMAN not in step.source for step in station.steps_since(fault + int((HAND_MS + PERIOD_MS + 100) * 1e6)))


def test_row_04_reconnected_with_the_stick_deflected(station: Rig, driving: Pad, bound: Bound) -> None:
    fault = driving.do(["unplug"])
    station.held(fault, [HoldReason.DEVICE_LOST])
    back = driving.do(["plug"], ["axis", "left_y", -1.0], ["button", "rb", True])
    time.sleep(1.0)
    moved = [step for step in station.steps_since(back + int(1e8)) if any(step.action)]
    bound(float(len(moved)), 0.0, "steps")
    assert station.ask(Resume(sender="test"))
    driving.release()
    time.sleep(0.3)
    driving.press()
    station.until(lambda s: s.mode is Mode.TAKEOVER, "neutral, then a fresh press drives")


@pytest.mark.parametrize("how", ["killed", "stopped", "window frozen"])
def test_row_12_console_gone_in_a_takeover(station: Rig, driving: Pad, bound: Bound, how: str) -> None:
    if how == "window frozen":
        fault = station.hook("console", "stick", "gui", 1.0)
    else:
        fault = station.kill("console", signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    try:
        _, after_ms = station.held(fault, [HoldReason.COMMAND_STALE, HoldReason.LEASE_LAPSED])
        bound(after_ms, T_CMD_MS + PERIOD_MS, "ms")
        bound(station.moved_for_ms(fault), T_CMD_MS + PERIOD_MS, "ms")
    finally:
        if how == "stopped":
            station.kill("console", signal.SIGCONT)
    if how != "killed":
        time.sleep(1.0)
        assert station.watch.state is not None
        assert station.watch.state.mode is Mode.HOLD  # RB was never let go
        driving.release()


def test_row_12_window_frozen_while_the_policy_drives(shared: Rig, bound: Bound) -> None:
    """Nobody at a frozen window could take over: the policy is held, although the console's link goes on commanding."""
    actor = shared.actor(lambda _: [0.1, 0.0, 0.0, 0.0])
    shared.launcher.wait_ready(60)
    shared.until(lambda s: s.commander.startswith("console-"), "the console holds the lease", 30.0)
    try:
        for attempt in range(4):
            shared.ask_until_done(lambda name: Start(sender=name, kind=EpisodeKind.POLICY))
            with contextlib.suppress(AssertionError):  # a machine that is busy with other things holds it now and then
                shared.until(lambda s: s.mode is Mode.POLICY and s.episode_step > 10, "the policy drives", 2.0)
                fault = shared.hook("console", "stick", "gui", 1.5)
                _, after_ms = shared.held(fault, [HoldReason.NOT_PRESENT], 3.0)
                break
            assert attempt < 3, "no hold for a frozen window"
            shared.end_block()
        bound(after_ms, GUI_HEARTBEAT_MS + PRESENCE_NS / 1e6 + 2 * PERIOD_MS, "ms")
        bound(shared.moved_for_ms(fault), GUI_HEARTBEAT_MS + PRESENCE_NS / 1e6 + 2 * PERIOD_MS, "ms")
    finally:
        actor.peer.stop()
        shared.end_block()


def test_row_13_stop_with_a_blocked_window(station: Rig, driving: Pad, bound: Bound) -> None:
    station.hook("console", "stick", "gui", 1.5)
    time.sleep(0.3)
    pressed = driving.do(["button", "back", True])
    station.until(lambda s: s.mode is Mode.STOPPED, "STOP on the pad stops")
    first = next(s for _, s in station.watch.states if s.t_ns > pressed and s.mode is Mode.STOPPED)
    bound((first.t_ns - pressed) / 1e6, 100.0, "ms")
    driving.do(["button", "back", False], ["button", "rb", False], ["axis", "left_y", 0.0])
