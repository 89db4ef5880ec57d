"""The keyboard as an `InputDevice`: a snapshot fed with key names. No window system here; the console feeds Qt's key events in.

Held keys give full deflection. Auto-repeat is ignored by the feeder's flag; losing focus releases everything, the latch too.
Twist axes: x right, y away, z up (view frame; base and tool frames are a matter of the mapping), yaw counter-clockwise.
"""

import threading
import time

from takeover.app.inputs.base import DeviceReading

_AXES: dict[str, tuple[int, float]] = {
    "w": (1, 1.0),
    "up": (1, 1.0),
    "s": (1, -1.0),
    "down": (1, -1.0),
    "d": (0, 1.0),
    "right": (0, 1.0),
    "a": (0, -1.0),
    "left": (0, -1.0),
    "r": (2, 1.0),
    "f": (2, -1.0),
    "q": (5, 1.0),
    "e": (5, -1.0),
}
HELD_KEYS = frozenset(_AXES) | {"space", "g"}
GRIPPER_PULSE_NS = 300_000_000  # one tap moves a discrete gripper for at least this long


class Keyboard:
    """Thread-safe: events come from the GUI thread, `poll` may be called from any."""

    device_id = "keyboard"

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled  # False: the station does not let it drive; its keys do nothing
        self._lock = threading.Lock()
        self._down: set[str] = set()
        self._latched = False
        self._gripper_open = True
        self._gripper_until_ns = 0

    def press(self, key: str, *, shift: bool = False, auto_repeat: bool = False, t_ns: int | None = None) -> bool:
        """A key went down. Returns whether it is one that drives (then nobody else should act on it)."""
        if key not in HELD_KEYS:
            return False
        if auto_repeat or not self.enabled:
            return True
        with self._lock:
            self._down.add(key)
            if key == "space":
                self._latched = not self._latched if shift else False
                if shift:
                    self._down.discard("space")  # a latch must not depend on which of the two keys is let go first
            elif key == "g":
                self._gripper_open = not self._gripper_open
                self._gripper_until_ns = (time.monotonic_ns() if t_ns is None else t_ns) + GRIPPER_PULSE_NS
        return True

    def release(self, key: str, *, auto_repeat: bool = False) -> bool:
        if key not in HELD_KEYS:
            return False
        if not auto_repeat:
            with self._lock:
                self._down.discard(key)
        return True

    def release_all(self) -> None:
        """Focus was lost, or the keys now belong to another page: nothing stays held."""
        with self._lock:
            self._down.clear()
            self._latched = False
            self._gripper_until_ns = 0

    def observe_gripper(self, is_open: bool) -> None:
        """What the gripper really is, so that G toggles from there (not while a tap is being carried out)."""
        with self._lock:
            if time.monotonic_ns() > self._gripper_until_ns + 1_000_000_000 and "g" not in self._down:
                self._gripper_open = is_open

    @property
    def latched(self) -> bool:
        return self._latched

    def held(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._down)

    def poll(self) -> DeviceReading:
        now = time.monotonic_ns()
        with self._lock:
            axes = [0.0] * 6
            for key in self._down & _AXES.keys():
                axis, sign = _AXES[key]
                axes[axis] += sign
            x, y, z, roll, pitch, yaw = (max(-1.0, min(1.0, value)) for value in axes)
            deadman = "space" in self._down or self._latched
            moving = "g" in self._down or now < self._gripper_until_ns
            gripper = (1.0 if self._gripper_open else -1.0) if moving else 0.0
            raw = dict.fromkeys(self._down, 1.0)
            if self._latched:
                raw["latched"] = 1.0
        still = not any((x, y, z, roll, pitch, yaw)) and gripper == 0.0
        return DeviceReading(
            device_id=self.device_id,
            kind="keyboard",
            name="Keyboard",
            alive=True,
            deadman=deadman,
            neutral=still and not deadman,
            twist=(x, y, z, roll, pitch, yaw),
            gripper=gripper,
            t_ns=now,
            raw=raw,
        )

    def rumble(self, strength: float, seconds: float) -> None:
        """Keyboards cannot."""

    def close(self) -> None:
        self.release_all()
