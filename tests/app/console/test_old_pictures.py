"""A correction does not begin while pictures are old, nor by a press made then."""

from takeover.app.console.controller import Devices
from takeover.app.inputs.keyboard import Keyboard


def test_a_press_without_pictures_does_not_begin_when_they_are_back() -> None:
    keyboard = Keyboard()
    devices = Devices(keyboard, None)
    devices.may_start = False
    keyboard.press("space")
    assert not devices.poll().deadman
    devices.may_start = True
    kept = devices.poll()
    assert (kept.deadman, kept.neutral) == (False, False)
    keyboard.release("space")
    assert devices.poll().neutral
    keyboard.press("space")
    assert devices.poll().deadman
    devices.may_start = True  # it is while somebody drives, however old the pictures are
    assert devices.poll().deadman


def test_a_press_without_pictures_holds_a_policy_that_drives_once() -> None:
    keyboard = Keyboard()
    devices = Devices(keyboard, None)
    devices.may_start = False
    keyboard.press("space")
    assert "hold" not in devices.poll().presses, "nothing moves"
    keyboard.release("space")
    devices.poll()
    devices.policy_drives = True
    keyboard.press("space")
    pressed = devices.poll()
    assert (pressed.deadman, pressed.presses) == (False, ("hold",))
    assert devices.poll().presses == (), "kept down it holds nothing again: the robot may go on"
    keyboard.release("space")
    devices.poll()
    keyboard.press("space")
    assert devices.poll().presses == ("hold",)
