"""The chart of absorption over policy versions. No Qt."""

import math

from takeover.app.console.models.absorption import AbsorptionCurve
from takeover.app.console.models.insights import nice_step
from takeover.app.console.models.insights_scene import (
    DIM,
    T1,
    T2,
    Axes,
    Box,
    Disc,
    Item,
    Polyline,
    Scene,
    Segment,
    Text,
    band,
    grid,
    percent,
)

APART_PX = 10.0  # of versions that are marked one by one; closer ones become a line with a band
LABEL_PX = 56.0  # of a version's number under the axis


def absorption_scene(width: float, height: float, curve: AbsorptionCurve) -> Scene:
    """Share of corrections over version numbers; a line for each learner, the newest value at its right."""
    first, last = (curve.versions[0], curve.versions[-1]) if curve.versions else (0.0, 1.0)
    margin = 0.5 if first == last else 0.0
    named = any(name for _, name in curve.learners)
    axes = Axes(44, 24 if named else 12, width - 52, height - 26, (first - margin, last + margin), (0, 1))
    items = grid(axes, version_ticks(axes), (0, 0.5, 1), lambda value: f"v{value:.0f}", percent)
    ends = [start for start, _ in curve.learners[1:]] + [len(curve.versions)]
    for (start, name), end in zip(curve.learners, ends, strict=False):
        items += _stretch(axes, curve, start, end)
        if name:
            items += _learner(axes, curve, start, end, name)
    if curve.versions:
        x, y = axes.x(curve.versions[-1]), axes.y(curve.value[-1])
        items += [Disc((x, y), 3, T1), Text((x + 9, y + 4), percent(curve.value[-1]), T1, 12, weight=600)]
    return Scene(width, height, items, axes)


def version_ticks(axes: Axes) -> list[float]:
    """Round numbers on the axis, as many as stand apart; the first and the last one where no two round ones do, or the last alone."""
    first, last = math.ceil(axes.x_range[0]), math.floor(axes.x_range[1])
    room = int((axes.right - axes.left) / LABEL_PX)
    if first >= last or not room:
        return [float(last)]
    step = max(1.0, nice_step(last - first, room))
    step = float(math.ceil(step))  # 2.5 is no version
    ticks = [index * step for index in range(math.ceil(first / step), math.floor(last / step) + 1)]
    return ticks if len(ticks) > 1 else [float(first), float(last)]


def _stretch(axes: Axes, curve: AbsorptionCurve, start: int, end: int) -> list[Item]:
    xs = [axes.x(version) for version in curve.versions[start:end]]
    ys = [axes.y(value) for value in curve.value[start:end]]
    low, high = ([axes.y(value) for value in values[start:end]] for values in (curve.low, curve.high))
    line = list(zip(xs, ys, strict=True))
    if len(xs) > 1 and (xs[-1] - xs[0]) / (len(xs) - 1) < APART_PX:
        return [band(xs, low, high), Polyline(line, T1)]
    marks: list[Item] = [Segment((x, bottom), (x, top), T2) for x, bottom, top in zip(xs, low, high, strict=True)]
    boxes: list[Item] = [Box(x - 2, y - 2, 4, 4, T1) for x, y in line]
    return [*marks, *([Polyline(line, T1)] if len(line) > 1 else []), *boxes]


def _learner(axes: Axes, curve: AbsorptionCurve, start: int, end: int, name: str) -> list[Item]:
    """Its name over its stretch, where there is room for it; a dotted line where it began."""
    x, stop = axes.x(curve.versions[start]), axes.x(curve.versions[end - 1])
    made: list[Item] = [Segment((x, axes.top), (x, axes.bottom), DIM, dash=(2, 3))] if start else []
    if stop - x >= 6.2 * len(name):
        made.append(Text((x, 15), name, T2))
    elif end == len(curve.versions):
        made.append(Text((stop, 15), name, T2, anchor="end"))
    return made
