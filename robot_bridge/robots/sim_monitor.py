"""An independent witness beside the simulated hardware: judges every command that arrives, with arithmetic of its own.

It shares no code with the safety filter on purpose: what it counts as a violation is what a robot would have been asked to do.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

LISTED = 20  # of the violations, the first ones are kept with their numbers
ROUNDING = 1e-6


@dataclass(frozen=True)
class Bounds:
    """What the hardware would stand: a command of full scale per component, in SI units, and the tool's box in the base frame (m)."""

    scale: tuple[float, ...]
    cartesian: tuple[int, ...]  # components that move the tool along x, y, z
    period_s: float
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    max_step_m: float = 0.025
    max_speed_m_s: float = 0.5
    max_acceleration_m_s2: float = 20.0
    box_margin_m: float = 0.02  # the bridge judges by a reading that is up to a period old


@dataclass
class Monitor:
    """Counts, worst values, and the first violations of a run. One thread at a time."""

    bounds: Bounds
    commands: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    worst: dict[str, float] = field(default_factory=dict)
    first: list[dict[str, Any]] = field(default_factory=list)
    gaps_ms: list[float] = field(default_factory=list)  # between commands; the latest 10,000
    trips: list[dict[str, float]] = field(default_factory=list)  # of the watchdog
    _last_ns: int = 0
    _velocity: tuple[float, ...] = ()

    def command(self, action: Sequence[object], position: Sequence[float], stopped: bool, now_ns: int | None = None) -> bool:
        """Judge a command that has just arrived, the tool being at ``position`` (m). Returns whether it may be executed."""
        now = time.monotonic_ns() if now_ns is None else now_ns
        self.commands += 1
        if self._last_ns:
            self.gaps_ms.append((now - self._last_ns) / 1e6)
            del self.gaps_ms[:-10_000]
            self._worst("gap_ms", self.gaps_ms[-1])
        self._last_ns = now
        numbers = [float(value) for value in action if isinstance(value, (int, float))]
        if len(numbers) != len(action) or len(numbers) != len(self.bounds.scale):
            return self._violation("shape", float(len(action)))
        if not all(math.isfinite(value) for value in numbers):
            return self._violation("not_finite", 0.0)
        fine = True
        if (largest := max(map(abs, numbers))) > 1.0 + ROUNDING:
            fine = self._violation("range", largest)
        moved = [numbers[i] * self.bounds.scale[i] for i in self.bounds.cartesian]
        self._move(moved, position)
        if stopped and any(abs(value) > ROUNDING for value in numbers):
            self._violation("while_stopped", largest)
        return fine

    def standstill(self) -> None:
        """The robot was stopped: the next command starts from zero velocity."""
        self._velocity = ()

    def refused(self, why: str) -> None:
        """A command that was not even looked at: an old session, an old number."""
        self.counts[why] = self.counts.get(why, 0) + 1

    def tripped(self, after_ms: float) -> None:
        """The watchdog stopped the robot ``after_ms`` since the last command."""
        self.trips.append({"after_ms": after_ms, "standstill_ms": -1.0})
        self.standstill()

    def stood_still(self, after_ms: float) -> None:
        """The tool moves no more, ``after_ms`` since the command before the watchdog's trip."""
        if self.trips and self.trips[-1]["standstill_ms"] < 0:
            self.trips[-1]["standstill_ms"] = after_ms

    @property
    def violations(self) -> int:
        names = ("shape", "not_finite", "range", "step", "speed", "acceleration", "outside", "while_stopped")
        return sum(self.counts.get(name, 0) for name in names)

    def report(self) -> dict[str, Any]:
        ordered = sorted(self.gaps_ms)
        return {
            "commands": self.commands,
            "violations": self.violations,
            "counts": dict(self.counts),
            "worst": dict(self.worst),
            "first": list(self.first),
            "gap_ms": {"p50": ordered[len(ordered) // 2], "p99": ordered[int(len(ordered) * 0.99)], "max": ordered[-1]} if ordered else {},
            "watchdog_trips": list(self.trips),
        }

    def _move(self, moved: list[float], position: Sequence[float]) -> None:
        bounds = self.bounds
        length = math.hypot(*moved)
        self._worst("step_m", length)
        self._worst("speed_m_s", length / bounds.period_s)
        if length > bounds.max_step_m + ROUNDING:
            self._violation("step", length)
        if length / bounds.period_s > bounds.max_speed_m_s + ROUNDING:
            self._violation("speed", length / bounds.period_s)
        velocity = tuple(value / bounds.period_s for value in moved)
        before = self._velocity or (0.0,) * len(velocity)
        acceleration = math.dist(velocity, before) / bounds.period_s
        self._worst("acceleration_m_s2", acceleration)
        if acceleration > bounds.max_acceleration_m_s2 + ROUNDING:
            self._violation("acceleration", acceleration)
        self._velocity = velocity
        outward = 0.0
        for here, step, low, high in zip(position, moved, bounds.low, bounds.high, strict=False):
            if step > ROUNDING:
                outward = max(outward, here + step - high - bounds.box_margin_m)
            elif step < -ROUNDING:
                outward = max(outward, low - bounds.box_margin_m - here - step)
        self._worst("outside_m", outward)
        if outward > 0.0:
            self._violation("outside", outward)

    def _worst(self, name: str, value: float) -> None:
        self.worst[name] = max(self.worst.get(name, 0.0), value)

    def _violation(self, name: str, value: float) -> bool:
        self.counts[name] = self.counts.get(name, 0) + 1
        if len(self.first) < LISTED:
            self.first.append({"command": self.commands, "what": name, "value": value})
        return False
