"""3Dconnexion SpaceMouse through hidapi: six axes, and its own deflection (or a button) as the deadman."""

import os
import struct
import time
from dataclasses import dataclass, replace
from typing import Any, Literal

import hid

from takeover.app.inputs.base import DeviceReading
from takeover.app.inputs.gamepad import lost
from takeover.app.inputs.shaping import DeflectionGate, dead_zone

VENDOR_3DCONNEXION = 0x256F  # every six-axis device of theirs but the CadMouse
VENDOR_LOGITECH = 0x046D
LOGITECH_PRODUCTS = (0xC603, 0xC605, 0xC606, 0xC621, 0xC623, 0xC625, 0xC626, 0xC627, 0xC628, 0xC629, 0xC62B)
CADMOUSE_PRODUCTS = (0xC650, 0xC651, 0xC654, 0xC655, 0xC656, 0xC657, 0xC658)
MULTI_AXIS_USAGE = (0x01, 0x08)  # HID usage page, usage; (0, 0) where the system does not tell
FULL_SCALE = 350.0
DEAD_ZONE = 0.03
SCAN_PERIOD_S = 2.0
SILENT_S = 0.15  # deflected they send a report every 8 or 16 ms: one that says nothing any more is out of reach, or switched off
UDEV_RULE = 'SUBSYSTEM=="hidraw", ATTRS{idVendor}=="%04x", MODE="0660", TAG+="uaccess"'


@dataclass(frozen=True)
class AxesAndButtons:
    """Newest values of one device: translation and rotation in its own axes (right, towards the person, down), in [-1, 1]."""

    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    buttons: int = 0  # bit mask

    @property
    def twist(self) -> tuple[float, float, float, float, float, float]:
        """In the devices' common axes: right, away, up, and rotations about them."""
        x, y, z = (dead_zone(value, DEAD_ZONE) for value in self.translation)
        roll, pitch, yaw = (dead_zone(value, DEAD_ZONE) for value in self.rotation)
        return (x, 0.0 - y, 0.0 - z, roll, 0.0 - pitch, 0.0 - yaw)

    @property
    def deflection(self) -> float:
        return max(abs(value) for value in self.translation + self.rotation)


def parse_report(report: bytes, newest: AxesAndButtons) -> AxesAndButtons:
    """``newest`` brought up to date by one HID report; reports that carry neither axes nor buttons change nothing.

    Report 1: translation (three int16, little endian), on newer devices followed by rotation; 2: rotation; 3: buttons.
    """
    if len(report) >= 13 and report[0] == 1:
        values = _scaled(struct.unpack_from("<6h", report, 1))
        return replace(newest, translation=values[:3], rotation=values[3:])
    if len(report) >= 7 and report[0] in (1, 2):
        values = _scaled(struct.unpack_from("<3h", report, 1))
        return replace(newest, translation=values) if report[0] == 1 else replace(newest, rotation=values)
    if len(report) >= 2 and report[0] == 3:
        return replace(newest, buttons=int.from_bytes(report[1:5], "little"))
    return newest


def _scaled(values: tuple[int, ...]) -> Any:
    return tuple(max(-1.0, min(1.0, value / FULL_SCALE)) for value in values)


def is_spacemouse(entry: dict[str, Any]) -> bool:
    """Whether an entry of `hid.enumerate` is the six-axis interface of a SpaceMouse."""
    vendor, product = entry["vendor_id"], entry["product_id"]
    known = (vendor == VENDOR_3DCONNEXION and product not in CADMOUSE_PRODUCTS) or (
        vendor == VENDOR_LOGITECH and product in LOGITECH_PRODUCTS
    )
    return known and (entry.get("usage_page", 0), entry.get("usage", 0)) in (MULTI_AXIS_USAGE, (0, 0))


def permission_problem(entry: dict[str, Any]) -> str:
    """What to do when a SpaceMouse is there but may not be opened."""
    path = entry["path"].decode(errors="replace")
    rule = UDEV_RULE % entry["vendor_id"]
    return (
        f"SpaceMouse {entry.get('product_string') or ''} at {path} may not be opened. Put this line into "
        f"/etc/udev/rules.d/99-spacemouse.rules, run `sudo udevadm control --reload`, and plug it in again: {rule}"
    )


class SpaceMouseLogic:
    """From axes and buttons to readings. ``deadman``: "deflection" (with hysteresis; left button closes, right opens the gripper)
    or "button" (left held drives, right toggles between closing and opening)."""

    def __init__(self, device_id: str, name: str, deadman: Literal["deflection", "button"] = "deflection") -> None:
        self.device_id = device_id
        self.name = name
        self._by_button = deadman == "button"
        self._gate = DeflectionGate()
        self._armed = False
        self._opens = False
        self._right_was_down = False

    def reading(self, axes: AxesAndButtons, now_ns: int) -> DeviceReading:
        left, right = bool(axes.buttons & 1), bool(axes.buttons & 2)
        twist = axes.twist
        centred = axes.deflection < self._gate.leave
        self._armed = self._armed or (centred and not left and not right)
        if self._by_button:
            self._opens ^= right and not self._right_was_down
            deadman = left
            gripper = (1.0 if self._opens else -1.0) if right else 0.0
        else:
            # not fed before: it would stay open for a moment after the cap was let go, which is no press
            deadman = self._armed and self._gate.update(axes.deflection, now_ns * 1e-9)
            gripper = float(right) - float(left)
        self._right_was_down = right
        deadman = deadman and self._armed
        return DeviceReading(
            device_id=self.device_id,
            kind="spacemouse",
            name=self.name,
            alive=True,
            deadman=deadman,
            neutral=centred and not deadman and not left and not right,
            twist=twist,
            gripper=gripper,
            t_ns=now_ns,
            raw=dict(zip(("x", "y", "z", "roll", "pitch", "yaw"), twist, strict=True)) | {"left": float(left), "right": float(right)},
        )


class SpaceMouse:
    """One opened device; reports are read without blocking."""

    def __init__(self, entry: dict[str, Any], device_id: str) -> None:
        """Raises OSError when it may not be opened."""
        self._hid = hid.device()
        self._hid.open_path(entry["path"])
        self._hid.set_nonblocking(True)
        self._axes = AxesAndButtons()
        self._heard_ns = time.monotonic_ns()
        self._alive = True
        self._device_id, self._name = device_id, entry.get("product_string") or "SpaceMouse"
        self._logic = SpaceMouseLogic(self._device_id, self._name)
        self._reading = self._logic.reading(self._axes, time.monotonic_ns())

    @property
    def device_id(self) -> str:
        return self._device_id

    def poll(self) -> DeviceReading:
        """What it said last counts only while it goes on saying something, or was at rest. One that was silent must be centred first."""
        now_ns = time.monotonic_ns()
        if self._alive:
            try:
                while report := self._hid.read(64):
                    self._axes, self._heard_ns = parse_report(bytes(report), self._axes), now_ns
            except OSError:
                self._alive = False
        if not self._alive:
            self._reading = lost(self._reading, now_ns)
        elif self._axes.deflection >= DeflectionGate.leave and now_ns - self._heard_ns > SILENT_S * 1e9:
            self._reading = lost(self._reading, self._heard_ns)
            self._logic = SpaceMouseLogic(self._device_id, self._name)
        else:
            self._reading = self._logic.reading(self._axes, now_ns)
        return self._reading

    def rumble(self, strength: float, seconds: float) -> None:
        """It has no motor."""

    def close(self) -> None:
        self._hid.close()


class SpaceMouseHub:
    """All SpaceMice; looks for new ones every two seconds. ``problems``: those that may not be opened, with what to do."""

    def __init__(self) -> None:
        self.mice: dict[bytes, SpaceMouse] = {}
        self.problems: list[str] = []
        self._next_scan_s = 0.0
        self._count = 0

    def update(self) -> None:
        now_s = time.monotonic()
        if now_s < self._next_scan_s:
            return
        self._next_scan_s = now_s + SCAN_PERIOD_S
        entries = {entry["path"]: entry for entry in hid.enumerate() if is_spacemouse(entry)}
        for path in [path for path in self.mice if path not in entries]:
            self.mice.pop(path).close()
        self.problems = []
        for path, entry in entries.items():
            if path in self.mice:
                continue
            try:
                self.mice[path] = SpaceMouse(entry, f"spacemouse-{self._count}")
                self._count += 1
            except OSError:
                if path.startswith(b"/") and os.access(path, os.R_OK | os.W_OK):
                    self.problems.append(f"SpaceMouse at {path.decode()} cannot be opened; is another program (spacenavd) using it?")
                else:
                    self.problems.append(permission_problem(entry))

    def close(self) -> None:
        for mouse in self.mice.values():
            mouse.close()
        self.mice.clear()
