"""SpaceMouse reports as the devices send them, the deflection deadman, what is recognised and what is said without permission."""

import struct

import pytest

from takeover.app.inputs import spacemouse
from takeover.app.inputs.shaping import DeflectionGate, dead_zone, radial_dead_zone
from takeover.app.inputs.spacemouse import (
    SILENT_S,
    AxesAndButtons,
    SpaceMouse,
    SpaceMouseLogic,
    is_spacemouse,
    parse_report,
    permission_problem,
)

MS = 1_000_000


def report(kind: int, *values: int) -> bytes:
    return bytes([kind]) + struct.pack(f"<{len(values)}h", *values)


def test_older_devices_send_translation_and_rotation_apart():
    axes = parse_report(report(1, 350, -175, 70), AxesAndButtons())
    axes = parse_report(report(2, 0, 35, -350), axes)
    assert axes.translation == (1.0, -0.5, 0.2)
    assert axes.rotation == (0.0, 0.1, -1.0)


def test_newer_devices_send_both_in_one_report():
    axes = parse_report(report(1, 100, 200, -300, 350, -350, 7), AxesAndButtons(buttons=1))
    assert axes.translation == pytest.approx((100 / 350, 200 / 350, -300 / 350))
    assert axes.rotation == pytest.approx((1.0, -1.0, 0.02))
    assert axes.buttons == 1


def test_buttons_and_unknown_reports():
    axes = parse_report(bytes([3, 2, 0]), AxesAndButtons())
    assert axes.buttons == 2
    assert parse_report(bytes([23, 80]), axes) == axes
    assert parse_report(b"", axes) == axes
    assert parse_report(b"\x01\x00", axes) == axes


def test_values_beyond_full_scale_are_limited():
    assert parse_report(report(1, 500, -32768, 0), AxesAndButtons()).translation == (1.0, -1.0, 0.0)


def test_pushing_away_lifting_and_turning_left_are_positive():
    # Raw axes: y grows towards the person, z downwards, rotation about z clockwise from above.
    axes = parse_report(report(1, 0, -350, -350, 0, 0, -350), AxesAndButtons())
    x, y, z, roll, pitch, yaw = axes.twist
    assert (x, roll, pitch) == (0.0, 0.0, 0.0)
    assert (y, z, yaw) == pytest.approx((1.0, 1.0, 1.0))


def test_deflection_gate_enters_after_two_samples_and_leaves_after_300_ms():
    gate = DeflectionGate()
    assert not gate.update(0.09, 0.0)
    assert not gate.update(0.05, 0.01), "one sample is not enough"
    assert not gate.update(0.08, 0.02)
    assert gate.update(0.08, 0.03)
    assert gate.update(0.05, 0.5), "between the thresholds nothing changes"
    assert gate.update(0.01, 0.6)
    assert gate.update(0.05, 0.85), "deflected again: the 300 ms start anew"
    assert gate.update(0.01, 0.9)
    assert gate.update(0.0, 1.19)
    assert not gate.update(0.0, 1.21)


def test_a_mouse_held_while_plugged_in_does_not_drive():
    logic = SpaceMouseLogic("spacemouse-0", "SpaceMouse")
    pushed = AxesAndButtons(translation=(1.0, 0.0, 0.0))
    assert not any(logic.reading(pushed, t * MS).deadman for t in range(0, 100, 8))
    assert not any(logic.reading(AxesAndButtons(), t * MS).deadman for t in range(100, 500, 8)), "to let go is no press"
    assert [logic.reading(pushed, t * MS).deadman for t in (500, 508, 516)] == [False, True, True]


def test_button_mode_needs_the_button():
    logic = SpaceMouseLogic("spacemouse-0", "SpaceMouse", deadman="button")
    logic.reading(AxesAndButtons(), 0)
    pushed = AxesAndButtons(translation=(1.0, 0.0, 0.0))
    assert not any(logic.reading(pushed, t * MS).deadman for t in range(0, 100, 8))
    assert logic.reading(AxesAndButtons(translation=(1.0, 0.0, 0.0), buttons=1), 200 * MS).deadman


@pytest.mark.parametrize("deadman", ["deflection", "button"])
@pytest.mark.parametrize("buttons", [1, 2, 3])
def test_a_mouse_with_a_button_held_while_plugged_in_does_not_drive_until_let_go(deadman, buttons):
    logic = SpaceMouseLogic("spacemouse-0", "SpaceMouse", deadman=deadman)
    pushed = AxesAndButtons(translation=(1.0, 0.0, 0.0), buttons=buttons | (deadman == "button"))
    logic.reading(AxesAndButtons(buttons=buttons), 0)
    assert not any(logic.reading(pushed, t * MS).deadman for t in range(8, 100, 8))
    logic.reading(AxesAndButtons(), 100 * MS)
    assert [logic.reading(pushed, t * MS).deadman for t in (108, 116)][-1]


@pytest.mark.parametrize(
    ("vendor", "product", "usage", "expected"),
    [
        (0x256F, 0xC635, (1, 8), True),
        (0x256F, 0xC652, (0, 0), True),
        (0x046D, 0xC626, (1, 8), True),
        (0x046D, 0xC077, (1, 2), False),  # an ordinary mouse
        (0x256F, 0xC651, (1, 2), False),  # CadMouse
        (0x256F, 0xC635, (1, 6), False),  # the keyboard interface of the same device
    ],
)
def test_what_is_a_spacemouse(vendor, product, usage, expected):
    entry = {"vendor_id": vendor, "product_id": product, "usage_page": usage[0], "usage": usage[1], "path": b"/dev/hidraw0"}
    assert is_spacemouse(entry) is expected


def test_missing_permission_names_the_file_and_the_rule():
    text = permission_problem({"vendor_id": 0x256F, "product_id": 0xC635, "path": b"/dev/hidraw3", "product_string": "SpaceMouse Compact"})
    assert "/dev/hidraw3" in text
    assert 'SUBSYSTEM=="hidraw", ATTRS{idVendor}=="256f"' in text


def test_dead_zones_grow_from_zero():
    assert radial_dead_zone(0.1, 0.05, 0.12) == (0.0, 0.0)
    x, y = radial_dead_zone(0.0, 0.13, 0.12)
    assert x == 0.0
    assert 0.0 < y < 0.02
    assert radial_dead_zone(0.0, -1.0, 0.12) == (0.0, -1.0)
    assert dead_zone(-1.0, 0.1) == -1.0


class Hid:
    """A device as hidapi gives it: reports that wait, then nothing."""

    def __init__(self):
        self.reports = []

    def open_path(self, path):
        pass

    def set_nonblocking(self, on):
        pass

    def read(self, size):
        return list(self.reports.pop(0)) if self.reports else []


def test_what_a_mouse_said_last_is_not_repeated_when_it_falls_silent(monkeypatch):
    """Out of reach of its receiver, or with an empty battery, in the middle of a motion: nothing else would end that."""
    device, clock = Hid(), [1000 * MS]
    monkeypatch.setattr(spacemouse.hid, "device", lambda: device, raising=False)
    monkeypatch.setattr(spacemouse.time, "monotonic_ns", lambda: clock[0])
    mouse = SpaceMouse({"path": b"/dev/hidraw9"}, "spacemouse-0")

    def after(ms, *reports):
        clock[0] += ms * MS
        device.reports.extend(reports)
        return mouse.poll()

    away = report(1, 0, -300, 0, 0, 0, 0)
    assert after(10_000).alive, "at rest it has nothing to say"
    for _ in range(5):
        driving = after(16, away)
    assert (driving.deadman, driving.alive) == (True, True)
    assert driving.twist[1] > 0.8
    assert after(SILENT_S * 1000 - 1).deadman, "a report may be late"
    gone = after(2)
    assert (gone.alive, gone.deadman, gone.twist, gone.gripper) == (False, False, (0.0,) * 6, 0.0)
    still = after(2000)
    assert clock[0] - still.t_ns > 2000 * MS, "gone since it was heard last: another device may take its place"
    for _ in range(5):
        back = after(16, away)
        assert (back.alive, back.deadman, back.neutral) == (True, False, False), "heard again, and never let go: nobody's press"
    assert after(16, report(1, 0, 0, 0, 0, 0, 0)).neutral
    assert after(10_000).neutral
    assert [after(16, away).deadman for _ in range(3)] == [False, True, True], "centred and pushed: a press"
