"""Which readings of the devices may still drive: those that are gone, hang, or were there before."""

import time
from dataclasses import replace

import pytest

from takeover.app.inputs import manager as inputs
from takeover.app.inputs.base import DeviceReading
from takeover.app.inputs.manager import NO_DEVICE, Arbiter, DeviceManager

SECOND = 1_000_000_000
PAD = DeviceReading("gamepad-0", "gamepad", "Pad", True, False, True, (0.0,) * 6, 0.0, SECOND)
MOUSE = replace(PAD, device_id="spacemouse-0", kind="spacemouse", name="Mouse")
KEYS = replace(PAD, device_id="keyboard", kind="keyboard", name="Keyboard")


def drive(arbiter: Arbiter, *readings: DeviceReading, now_ns: int = SECOND) -> str:
    table = {reading.device_id: reading for reading in readings}
    arbiter.update(table)
    return arbiter.choose(table, now_ns).device_id


@pytest.fixture
def manager():
    """Its thread runs, with no devices of its own: the test merges what would have been polled."""
    made = DeviceManager(kinds=[])
    made.close()
    return made


def poll(manager: DeviceManager, *readings: DeviceReading) -> DeviceReading:
    with manager._lock:
        manager._merge({reading.device_id: reading for reading in readings})
    manager._turned_ns = time.monotonic_ns() + 10 * SECOND
    return manager.poll()


def test_a_press_drives_but_takes_nothing_from_a_held_deadman():
    arbiter = Arbiter()
    assert drive(arbiter, replace(PAD, deadman=True), KEYS) == "gamepad-0"
    assert drive(arbiter, replace(PAD, deadman=True), replace(KEYS, deadman=True)) == "gamepad-0"
    assert drive(arbiter, PAD, replace(KEYS, deadman=True)) == "gamepad-0", "only a press gives it, not a deadman that is down"
    assert drive(arbiter, PAD, KEYS) == "gamepad-0"
    assert drive(arbiter, PAD, replace(KEYS, deadman=True)) == "keyboard"


def test_a_dead_device_presses_nothing():
    arbiter = Arbiter()
    drive(arbiter, replace(PAD, deadman=True), KEYS)
    assert drive(arbiter, PAD, replace(KEYS, deadman=True, alive=False)) == "gamepad-0"


def test_a_driver_that_went_stays_for_a_second():
    arbiter = Arbiter()
    drive(arbiter, replace(PAD, deadman=True), KEYS)
    gone = replace(PAD, alive=False)
    assert drive(arbiter, gone, KEYS, now_ns=SECOND * 19 // 10) == "gamepad-0", "the bridge must see it gone"
    assert drive(arbiter, gone, KEYS, now_ns=SECOND * 21 // 10) == "keyboard"


def test_nobody_drives_with_nothing_there():
    assert Arbiter().choose({}, 0) is NO_DEVICE
    assert drive(Arbiter(), replace(PAD, alive=False)) == "none"


def test_a_device_that_is_gone_is_dead_at_rest_and_forgotten_later(manager, monkeypatch):
    assert poll(manager, replace(PAD, deadman=True, neutral=False, twist=(1.0,) * 6), MOUSE).deadman
    gone = poll(manager, MOUSE)
    assert (gone.device_id, gone.alive, gone.deadman, gone.twist) == ("gamepad-0", False, False, (0.0,) * 6)
    poll(manager)
    assert [reading.alive for reading in manager.devices()] == [False, False]
    monkeypatch.setattr(inputs, "FORGET_AFTER_S", -1.0)
    poll(manager)
    assert [reading.device_id for reading in manager.devices()] == ["gamepad-0"], "the one that drove is not forgotten"


def test_a_reading_that_is_not_renewed_is_lost(manager):
    assert poll(manager, replace(PAD, deadman=True)).deadman
    manager._turned_ns = time.monotonic_ns() - SECOND * 12 // 100
    stuck = manager.poll()
    assert (stuck.alive, stuck.deadman, stuck.device_id) == (False, False, "gamepad-0")


def test_what_the_window_hands_in_does_not_hang_with_the_devices(manager):
    manager.submit(replace(KEYS, deadman=True))
    manager._turned_ns -= 10 * SECOND
    assert manager.poll().deadman
    poll(manager)
    assert manager.poll().alive, "and is not lost because nobody polls it"


def test_presses_come_once(manager):
    assert poll(manager, replace(PAD, presses=("stop",))).presses == ("stop",)
    assert manager.poll().presses == ()
