"""Hard ranges of the safety limits: a station may tighten within them, never leave them. None of them means off.

Where loosening a limit would come close to that, its default is the highest (lowest) value of its range.
"""

from takeover.data.schema import SafetyLimits

LIMIT_RANGES: dict[str, tuple[float, float, str]] = {
    "max_step_m": (0.0005, 0.05, "m"),
    "max_step_rad": (0.005, 0.5, "rad"),
    "max_speed_m_s": (0.01, 1.0, "m/s"),
    "max_acceleration_m_s2": (0.1, 20.0, "m/s^2"),
    "max_force_n": (1.0, 150.0, "N"),
    "max_gripper_force_n": (1.0, 150.0, "N"),
    "force_debounce_steps": (1, 10, "steps"),
    "joint_margin_rad": (0.005, 0.5, "rad"),
    "slow_speed_m_s": (0.01, 0.25, "m/s"),
    "slow_scale": (0.05, 0.25, ""),
    "clamps_to_hold": (1, 10, "steps"),
    "mistakes_per_episode": (1, 100, "steps"),
}
"""Name -> (lowest, highest, unit)."""
WORKSPACE_RANGE_M = (-2.0, 2.0)


class LimitError(ValueError):
    """A limit outside its range; ``field``, ``value`` and ``allowed`` say which."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"limits.{field} is {value!r}; allowed: {allowed}")
        self.field, self.value, self.allowed = field, value, allowed


def check_limits(limits: SafetyLimits) -> None:
    """Raises `LimitError`. NaN and infinity are outside every range."""
    for name, (low, high, unit) in LIMIT_RANGES.items():
        value = getattr(limits, name)
        if not low <= value <= high:  # false for NaN too
            raise LimitError(name, value, f"{low:g} to {high:g} {unit}".rstrip())
    low, high = WORKSPACE_RANGE_M
    for name in ("workspace_low", "workspace_high"):
        box = getattr(limits, name)
        if len(box) != 3 or not all(low <= value <= high for value in box):
            raise LimitError(name, box, f"three numbers from {low:g} to {high:g} m")
    if not all(a < b for a, b in zip(limits.workspace_low, limits.workspace_high, strict=True)):
        raise LimitError("workspace_low", limits.workspace_low, f"less than workspace_high {limits.workspace_high} on each axis")
