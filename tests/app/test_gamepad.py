"""Gamepads: the pure logic, and SDL's virtual joystick through the real hub and manager."""

import pytest

from takeover.app.inputs.gamepad import AXES, BUTTONS, PRESSES, Gamepad, GamepadHub, PadLogic
from takeover.app.inputs.manager import DeviceManager

IDLE = dict.fromkeys([*AXES, *BUTTONS], 0.0)
MS = 1_000_000


@pytest.fixture
def manager():
    stops = []
    manager = DeviceManager(on_stop=stops.append)
    manager.stops = stops
    assert manager.wait_scanned()
    yield manager
    manager.close()


def test_sticks_are_right_away_up_and_counter_clockwise():
    logic = PadLogic("pad", "Pad")
    logic.reading(IDLE, 0)
    reading = logic.reading(IDLE | {"left_x": 1.0, "left_y": 0.0, "right_x": 1.0, "right_y": -1.0}, MS)
    assert reading.twist == (1.0, 0.0, 1.0, 0.0, 0.0, -1.0)
    assert logic.reading(IDLE | {"left_y": -1.0}, 2 * MS).twist[1] == 1.0
    assert logic.reading(IDLE | {"rt": 1.0}, 3 * MS).gripper == -1.0
    assert logic.reading(IDLE | {"lt": 1.0}, 4 * MS).gripper == 1.0


def test_drift_within_the_dead_zone_is_nothing_and_neutral():
    logic = PadLogic("pad", "Pad")
    reading = logic.reading(IDLE | {"left_x": 0.08, "left_y": -0.08, "right_y": 0.11}, 0)
    assert reading.twist == (0.0,) * 6
    assert reading.neutral


def test_a_pad_plugged_in_with_rb_held_does_nothing_until_let_go():
    logic = PadLogic("pad", "Pad")
    held = IDLE | {"rb": 1.0, "left_x": 1.0}
    assert not logic.reading(held, 0).deadman
    assert logic.reading(held, MS).twist == (0.0,) * 6
    logic.reading(IDLE, 2 * MS)
    reading = logic.reading(held, 3 * MS)
    assert reading.deadman
    assert reading.twist[0] == 1.0


def test_success_needs_holding_and_comes_once():
    logic = PadLogic("pad", "Pad")
    logic.reading(IDLE, -MS)
    presses = [logic.reading(IDLE | {"a": 1.0}, t * MS).presses for t in range(0, 1000, 50)]
    assert [t * 50 for t, press in enumerate(presses) if press] == [400]
    assert presses[8] == ("success",)
    logic.reading(IDLE, 1000 * MS)
    short = [logic.reading(IDLE | {"a": float(t < 300)}, (2000 + t) * MS).presses for t in range(0, 800, 50)]
    assert not any(short)


def test_mark_acts_at_once():
    logic = PadLogic("pad", "Pad")
    logic.reading(IDLE, -MS)
    assert logic.reading(IDLE | {"x": 1.0}, 0).presses == ("mark",)
    assert logic.reading(IDLE | {"x": 1.0}, MS).presses == ()


@pytest.mark.parametrize("button", sorted(PRESSES))
def test_a_button_held_while_plugged_in_is_no_press_until_let_go(button):
    """Y down in a hand that wakes the pad would resume the policy. STOP stops all the same."""
    logic = PadLogic("pad", "Pad")
    held = IDLE | {button: 1.0}
    made = [name for t in range(0, 1000, 50) for name in logic.reading(held, t * MS).presses]
    assert made == (["stop"] if button == "back" else [])
    logic.reading(IDLE, 1000 * MS)
    assert [name for t in range(1050, 2000, 50) for name in logic.reading(held, t * MS).presses] == [PRESSES[button][0]]


def test_a_pad_that_comes_back_is_as_one_that_is_plugged_in():
    held, attached = {"rb", "y"}, [True]

    class Pad:
        """What `Gamepad` reads of SDL's controller."""

        name = "Pad"

        def attached(self):
            return attached[0]

        def get_axis(self, axis):
            return 0

        def get_button(self, button):
            return any(BUTTONS[name] == button for name in held)

    pad = Gamepad(Pad(), 0)
    pressed, held = held, set()
    assert pad.poll().neutral
    attached[0] = False
    assert not pad.poll().alive
    attached[0], held = True, pressed
    back = pad.poll()
    assert (back.alive, back.deadman, back.presses) == (True, False, ())
    held = set()
    assert pad.poll().neutral
    held = pressed
    again = pad.poll()
    assert (again.deadman, again.presses) == (True, ("resume",))


def test_hub_follows_plugging_by_instance_id(plug_pad):
    hub = GamepadHub()
    try:
        first, second = plug_pad(), plug_pad()
        hub.update()
        assert len(hub.pads) == 2
        survivor = list(hub.pads)[1]
        first.unplug()
        hub.update()
        assert list(hub.pads) == [survivor]
        assert hub.pads[survivor].poll().neutral
        second.axis("left_x", 1.0)
        hub.update()
        assert hub.pads[survivor].poll().twist[0] == pytest.approx(1.0)
    finally:
        hub.close()


def test_virtual_pad_drives_through_the_manager_and_dies_when_unplugged(manager, plug_pad, eventually):
    pad = plug_pad()
    eventually(lambda: manager.poll().kind == "gamepad" and manager.poll().neutral)
    pad.axis("left_y", -1.0)
    pad.button("rb", True)
    reading = eventually(lambda: (r := manager.poll()).deadman and r.twist[1] > 0.9 and r)
    assert reading.alive
    pad.unplug()
    reading = eventually(lambda: not (r := manager.poll()).alive and r)
    assert reading.kind == "gamepad"  # still the driving device, so that the bridge sees it gone
    assert not reading.deadman
    assert reading.twist == (0.0,) * 6


def test_stop_on_the_pad_calls_back_from_its_own_thread(manager, plug_pad, eventually):
    pad = plug_pad()
    eventually(lambda: manager.poll().kind == "gamepad")
    pad.button("back", True)
    eventually(lambda: manager.stops)
    assert "stop" in manager.poll().presses
    assert "stop" not in manager.poll().presses
