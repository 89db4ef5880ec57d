"""A virtual gamepad through the real window's controller onto the real bridge: drive, freeze the window, unplug, STOP."""

import time
from collections.abc import Callable, Iterator

import pytest
from PySide6.QtWidgets import QLineEdit

from takeover.app.console.application import make_controller
from takeover.app.console.controller import Controller
from takeover.app.console.window import MainWindow
from takeover.app.launcher import Launcher
from takeover.data.schema import EpisodeKind, HoldReason, Mode, Start


@pytest.fixture
def station(station_config, theme, qtbot) -> Iterator[tuple[MainWindow, Controller]]:
    """Bridge and recorder as processes, the window here, its devices live."""
    config = station_config(operator="console", clock="realtime", learner="none")
    with Launcher(config, ["bridge", "recorder"]) as launcher:
        launcher.wait_ready(60)
        controller = make_controller(config)
        window = MainWindow(controller)
        controller.start()
        window.show()
        window.activateWindow()
        qtbot.waitUntil(lambda: controller.client.holds_lease, timeout=15_000)
        yield window, controller
        window.close()


@pytest.fixture
def mode(station) -> Callable[[], Mode]:
    _, controller = station
    return lambda: controller.client.state.mode


@pytest.fixture
def pad(station, plug_pad, until):
    """Plugged in, at rest, known to the controller."""
    _, controller = station
    assert controller.devices.manager.wait_scanned()
    made = plug_pad()
    until(lambda: any(reading.kind == "gamepad" and reading.neutral for reading in controller.devices.all()), 10_000)
    return made


@pytest.fixture
def driving(station, pad, until, mode, pump):
    """A demonstration, driven by the pad."""
    _, controller = station
    client = controller.client
    client.request(Start(sender=client.sender, kind=EpisodeKind.DEMONSTRATION, episodes=3))
    until(lambda: controller.snapshot().demonstration_waits, 15_000)
    for _ in range(5):  # on a busy computer a command may be late at the very press; then only a fresh one counts
        pad.button("rb", True)
        deadline = time.monotonic() + 2.0
        while mode() is not Mode.TAKEOVER and time.monotonic() < deadline:
            pump(0.02)
        if mode() is Mode.TAKEOVER:
            return pad
        pad.button("rb", False)
        pump(0.3)
    raise AssertionError("five presses of RB did not take over")


def test_the_pad_drives_and_letting_go_holds(station, driving, until, mode):
    window, controller = station
    until(lambda: "**RB held**" in window.banner.banner.parts[0])
    start = controller.client.state.tool_position
    driving.axis("right_y", 1.0)
    until(lambda: controller.client.state.tool_position[2] < start[2] - 0.01)
    driving.axis("right_y", 0.0)
    driving.button("rb", False)
    until(lambda: mode() is Mode.HOLD)
    assert controller.client.state.hold_reason is HoldReason.RELEASED


def test_unplugging_the_pad_while_it_drives_holds(station, driving, until, mode):
    window, controller = station
    driving.unplug()
    until(lambda: mode() is Mode.HOLD)
    assert controller.client.state.hold_reason is HoldReason.DEVICE_LOST
    until(lambda: window.operate.card.isVisible() and "device that drove is gone" in window.operate.card.card.title)


def test_a_frozen_window_loses_authority_and_the_pads_stop_still_works(station, driving, mode):
    _, controller = station
    time.sleep(0.6)  # the GUI thread does nothing; RB is still held
    assert mode() is Mode.HOLD
    driving.button("back", True)
    time.sleep(0.6)  # still frozen
    assert mode() is Mode.STOPPED
    driving.button("back", False)
    assert controller.client.running


def test_losing_the_focus_leaves_the_pad_driving(station, driving, until, mode, pump):
    """Only the keyboard needs the focus."""
    _, controller = station
    other = QLineEdit()
    other.show()
    other.activateWindow()
    until(lambda: not controller.client.focused)
    pump(0.4)
    assert mode() is Mode.TAKEOVER
    other.close()
