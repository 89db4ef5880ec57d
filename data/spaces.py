"""What the numbers of observations and actions mean: two robots whose names agree may still be ten times as fast as one another."""

import math
from collections.abc import Iterator, Sequence

import msgspec

from takeover.data.schema import ActionGroup, RobotSpec

TOLERANCE = 1e-6  # relative, of scales and rates: some went through 32 bits


class Spaces(msgspec.Struct, frozen=True, kw_only=True):
    """A robot's observation and action spaces as far as they are known: None and "" are compared with nothing."""

    control_hz: float | None = None
    observation_names: list[str] | None = None
    action_names: list[str] | None = None
    action_kind: str | None = None
    action_frame: str | None = None
    action_scale: list[float] | None = None
    action_units: list[str] | None = None
    observation_units: list[str] | None = None
    gripper: str | None = None  # "discrete", or "continuous": a number like the others
    action_groups: list[ActionGroup] | None = None


def spaces_of(spec: RobotSpec) -> Spaces:
    """Of a robot. The one group that an import makes up for a file that names none is not known."""
    action, groups = spec.action, list(spec.action.groups)
    made_up = len(groups) == 1 and (groups[0].name, groups[0].start, groups[0].stop) == ("all", 0, action.size)
    return Spaces(
        observation_names=list(spec.observation.names),
        action_names=list(action.names),
        control_hz=spec.control_hz,
        action_kind=action.kind,
        action_frame=action.frame,
        action_scale=list(action.scale),
        action_units=list(action.units),
        observation_units=list(spec.observation.units),
        gripper="discrete" if action.gripper == "discrete" else "continuous",
        action_groups=None if made_up else groups,
    )


def differences(known: Spaces, other: Spaces) -> Iterator[tuple[str, str, str]]:
    """(what, that of ``known``, that of ``other``) for each part that both know and that is not the same; rate and names first."""
    for field in Spaces.__struct_fields__:
        one, two = getattr(known, field), getattr(other, field)
        if one is not None and two is not None and not _same(one, two):
            yield field if field == "control_hz" else field.replace("_", " "), _text(one), _text(two)


def _same(one: object, two: object) -> bool:
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(_same, one, two))
    if isinstance(one, int | float) and isinstance(two, int | float):
        return math.isclose(one, two, rel_tol=TOLERANCE)
    return one == two or (isinstance(one, str) and "" in (one, two))


def _text(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"({', '.join(_text(one) for one in value)})"
    if isinstance(value, ActionGroup):
        return f"{value.name} {value.start}:{value.stop}"
    return f"{value:g}" if isinstance(value, int | float) else str(value)
