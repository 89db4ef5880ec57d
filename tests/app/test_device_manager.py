"""Which device drives."""

import threading
from dataclasses import replace

from takeover.app.inputs.base import DeviceReading
from takeover.app.inputs.gamepad import GamepadHub
from takeover.app.inputs.manager import NO_DEVICE, Arbiter, DeviceManager

PAD = DeviceReading("gamepad-0", "gamepad", "Pad", True, False, True, (0.0,) * 6, 0.0, 1)
KEYS = DeviceReading("keyboard", "keyboard", "Keyboard", True, False, True, (0.0,) * 6, 0.0, 1)


def drive(arbiter: Arbiter, *readings: DeviceReading, now_ns: int = 2) -> str:
    table = {reading.device_id: reading for reading in readings}
    arbiter.update(table)
    return arbiter.choose(table, now_ns).device_id


def test_the_last_one_pressed_drives_and_keeps_driving():
    arbiter = Arbiter()
    assert drive(arbiter, PAD, KEYS) == "gamepad-0"
    assert drive(arbiter, PAD, replace(KEYS, deadman=True)) == "keyboard"
    assert drive(arbiter, PAD, KEYS) == "keyboard"
    assert drive(arbiter, replace(PAD, deadman=True), KEYS) == "gamepad-0"


def test_nobody_steals_from_a_held_deadman():
    arbiter = Arbiter()
    drive(arbiter, replace(PAD, deadman=True), KEYS)
    assert drive(arbiter, replace(PAD, deadman=True), replace(KEYS, deadman=True)) == "gamepad-0"
    assert drive(arbiter, PAD, replace(KEYS, deadman=True)) == "gamepad-0", "a press from before needs a new press"
    drive(arbiter, PAD, KEYS)
    assert drive(arbiter, PAD, replace(KEYS, deadman=True)) == "keyboard"


def test_a_dead_driver_stays_chosen():
    arbiter = Arbiter()
    drive(arbiter, replace(PAD, deadman=True), KEYS)
    gone = replace(PAD, alive=False)
    assert drive(arbiter, gone, KEYS) == "gamepad-0", "the bridge must see it gone"
    assert drive(arbiter, gone, KEYS, now_ns=2_000_000_000) == "keyboard", "what is there may now show that it is at rest"
    assert drive(arbiter, gone, now_ns=2_000_000_000) == "gamepad-0", "nothing else is there"
    assert drive(arbiter, PAD, KEYS, now_ns=3_000_000_000) == "gamepad-0", "it is back"


def test_no_device_at_all():
    assert Arbiter().choose({}, 0) is NO_DEVICE


def test_a_kind_that_is_off_is_not_opened(plug_pad, eventually):
    with_pads = DeviceManager(kinds=["gamepad"])
    try:
        assert with_pads.wait_scanned()
        plug_pad()
        eventually(lambda: [reading.kind for reading in with_pads.devices()] == ["gamepad"])
    finally:
        with_pads.close()
    without = DeviceManager(kinds=[])
    try:
        plug_pad()
        assert without.wait_scanned()
        assert without.devices() == []
        assert without.problems() == []
    finally:
        without.close()


def test_a_reader_that_hangs_is_a_lost_device(plug_pad, eventually, monkeypatch):
    """RB stays down in the last reading of a driver that hangs: it must not go on driving."""
    manager = DeviceManager(kinds=["gamepad"])
    release = threading.Event()
    try:
        pad = plug_pad()
        eventually(lambda: manager.poll().alive)
        pad.button("rb", True)
        eventually(lambda: manager.poll().deadman)
        update = GamepadHub.update
        monkeypatch.setattr(GamepadHub, "update", lambda hub: (release.wait(5.0), update(hub)))
        eventually(lambda: not manager.poll().alive)
        assert not manager.poll().deadman
        assert manager.poll().device_id.startswith("gamepad")
        release.set()
        eventually(lambda: manager.poll().alive)
    finally:
        release.set()
        manager.close()


def test_presses_of_every_device_arrive_once():
    manager = DeviceManager()
    try:
        manager.submit_keyboard(replace(KEYS, presses=("mark",)))
        manager.submit_keyboard(replace(KEYS, presses=("stop",)))
        assert manager.poll().presses == ("mark", "stop")
        assert manager.poll().presses == ()
        assert [reading.device_id for reading in manager.devices()] == ["keyboard"]
    finally:
        manager.close()
