"""Pure pieces that devices share: dead zones, buttons that must be held, deadman by deflection."""

import math
from dataclasses import dataclass

HELD_S = 0.4


def radial_dead_zone(x: float, y: float, zone: float) -> tuple[float, float]:
    """A stick's position in the unit circle: 0 within ``zone``, then growing from 0 to 1 without a step."""
    length = math.hypot(x, y)
    if length <= zone:
        return 0.0, 0.0
    scale = min(1.0, (length - zone) / (1.0 - zone)) / length
    return x * scale, y * scale


def dead_zone(value: float, zone: float) -> float:
    """The same for one axis."""
    if abs(value) <= zone:
        return 0.0
    return math.copysign(min(1.0, (abs(value) - zone) / (1.0 - zone)), value)


@dataclass
class Press:
    """A button that acts once per press; with ``held_s`` only after it was held so long.

    Down since before it was first seen it is nobody's press, but for a button with ``at_once``.
    """

    held_s: float = 0.0
    at_once: bool = False
    _seen_up: bool = False
    _since_s: float | None = None
    _fired: bool = False

    def update(self, down: bool, now_s: float) -> bool:
        """Whether it acts now."""
        if not down:
            self._since_s, self._fired, self._seen_up = None, False, True
            return False
        if not (self._seen_up or self.at_once):
            return False
        if self._since_s is None:
            self._since_s = now_s
        if not self._fired and now_s - self._since_s >= self.held_s:
            self._fired = True
            return True
        return False


@dataclass
class DeflectionGate:
    """A deadman for devices without one: entered at >= ``enter`` for ``samples`` samples, left below ``leave`` for ``leave_s``."""

    enter: float = 0.08
    leave: float = 0.04
    samples: int = 2
    leave_s: float = 0.3
    active: bool = False
    _count: int = 0
    _below_since_s: float | None = None

    def update(self, deflection: float, now_s: float) -> bool:
        """``deflection``: the largest absolute axis value in [0, 1]. Returns whether the device drives."""
        if not self.active:
            self._count = self._count + 1 if deflection >= self.enter else 0
            if self._count >= self.samples:
                self.active, self._count, self._below_since_s = True, 0, None
        elif deflection >= self.leave:
            self._below_since_s = None
        elif self._below_since_s is None:
            self._below_since_s = now_s
        elif now_s - self._below_since_s >= self.leave_s:
            self.active = False
        return self.active
