"""Settings of a learner: a flat frozen dataclass, filled from the run configuration and checked once."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

P = TypeVar("P")
LEAST_KEPT = 10  # published versions: fewer, and one could go before the robot has taken it
MOST_KEPT = 1_000_000


def parse_parameters(cls: type[P], given: dict[str, Any], *, name: str) -> P:
    """An instance of the dataclass ``cls`` with ``given`` over its defaults.

    Text from a command line is converted to the default's type. Raises `ValueError` naming the setting, its value and the known
    ones. Ranges are checked by the dataclass's own ``__post_init__``.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in fields:
            raise ValueError(f"learner {name!r} has no setting {key!r}; known: {', '.join(sorted(fields))}")
        values[key] = _convert(value, fields[key].default, f"{name}.{key}")
    return cls(**values)


def _convert(value: Any, default: Any, where: str) -> Any:
    try:
        if isinstance(default, bool):
            if isinstance(value, str):
                return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[value.lower()]
            return bool(value)
        if isinstance(default, int):
            if float(value) != int(float(value)):
                raise ValueError
            return int(float(value))
        if isinstance(default, float):
            if not math.isfinite(number := float(value)):
                raise ValueError
            return number
        return str(value)
    except (ValueError, KeyError, TypeError, OverflowError):
        raise ValueError(f"{where} = {value!r}; expected {type(default).__name__}, for example {default!r}") from None


def check_ranges(parameters: object, ranges: Mapping[str, tuple[float, float]]) -> None:
    """{setting: (least, most)}, both allowed. Raises `ValueError` naming the setting, its value and what is allowed."""
    for name, (least, most) in ranges.items():
        value = getattr(parameters, name)
        require(least <= value <= most, f"{name} = {value}; allowed {least:g}..{most:g}")


def check_kept(versions: int, every: int) -> None:
    """The settings ``keep_versions`` and ``keep_every``, which every learner has. Raises `ValueError`."""
    allowed = f"allowed 0 (all keep their weights), or {LEAST_KEPT}..{MOST_KEPT}"
    require(versions == 0 or LEAST_KEPT <= versions <= MOST_KEPT, f"keep_versions = {versions}; {allowed}")
    require(0 <= every <= MOST_KEPT, f"keep_every = {every}; allowed 0..{MOST_KEPT}")


def check_device(device: str) -> None:
    """Where something is computed, by name; whether it is there is another question. Raises `ValueError`."""
    known = re.fullmatch(r"auto|cpu|cuda(:\d+)?", device)
    require(known is not None, f"device = {device!r}; allowed auto, cpu, cuda, cuda:N")


def require(condition: bool, message: str) -> None:
    """Range check of a setting. Raises `ValueError`."""
    if not condition:
        raise ValueError(message)
