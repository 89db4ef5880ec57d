"""The charts of Insights and of the headless report, as scenes. Every one carries n and its interval. No Qt."""

import math
from collections.abc import Sequence
from typing import Literal

from takeover.app.console.models.insights import Curve, HeldOut, Proportion, SuccessWindow, VersionMark, histogram, nice_step
from takeover.app.console.models.insights_scene import (
    BARS,
    DIM,
    POLICY,
    SURFACE,
    T1,
    T2,
    T3,
    TAKEOVER,
    Anchor,
    Area,
    Axes,
    Box,
    Disc,
    Item,
    Polyline,
    Scene,
    Segment,
    Text,
    band,
    count,
    grid,
    percent,
)

Unit = Literal["steps", "episodes"]


def ticks(top: float, most: int = 6) -> list[float]:
    """0, ... up to ``top``, at round values."""
    if top <= 0:
        return [0.0]
    step = nice_step(top, most)
    return [index * step for index in range(math.floor(top / step + 1e-9) + 1)]


def _most_ticks(axes: Axes, most: int, px_each: float = 44.0) -> int:
    """As many labels as stand apart on the x axis."""
    return max(2, min(most, int((axes.right - axes.left) / px_each)))


def _over(curve: Curve, unit: Unit) -> list[int]:
    return curve.steps if unit == "steps" else curve.episodes


def rate_scene(
    width: float,
    height: float,
    curve: Curve,
    marks: Sequence[VersionMark] = (),
    unit: Unit = "episodes",
    against: Curve | None = None,
    against_name: str = "",
    x_title: str = "",
) -> Scene:
    """Intervention rate with its band, marks for policy versions, and another session dashed."""
    xs = _over(curve, unit)
    others = _over(against, unit) if against is not None else []
    right = max([*xs, *others, 1])
    top = max([value for series in (curve.high, against.value if against else []) for value in series if math.isfinite(value)] or [0.0])
    step = nice_step(max(0.1, top), 4)
    top = max(0.1, math.ceil(top / step - 1e-9) * step)
    axes = Axes(44, 24, width - 52, height - 26 - (16 if x_title else 0), (0, right), (0, min(1.0, top)))
    wanted = ticks(right, _most_ticks(axes, 8))
    items = grid(axes, wanted, ticks(axes.y_range[1], 4), count, percent)
    free = axes.left - 44.0  # from here on no mark before is written over
    for mark in marks:
        x = axes.x(mark.steps if unit == "steps" else mark.episode - 1)
        items.append(Segment((x, 16), (x, axes.bottom), DIM, dash=(2, 3)))
        items.append(Area([(x - 4, 8), (x + 4, 8), (x, 14)], T2, 1.0))
        left = x - axes.left > 40
        name = f"v{mark.version}"
        width_px = 6.6 * len(name)
        if not left or x - 8 - width_px >= free:
            items.append(Text((x - 8 if left else x + 8, 15), name, T2, anchor="end" if left else "start"))
        free = x + (6 if left else 10 + width_px)
    pixels = [axes.x(value) for value in xs]
    if len(pixels) > 1:
        items.append(band(pixels, [axes.y(v) for v in curve.low], [axes.y(v) for v in curve.high]))
    elif pixels:
        items.append(Segment((pixels[0], axes.y(curve.low[0])), (pixels[0], axes.y(curve.high[0])), T2))
    if against is not None and against.value:
        line = [(axes.x(x), axes.y(y)) for x, y in zip(others, against.value, strict=True)]
        items.append(Polyline(line, T3, dash=(4, 3)))
        text = f"{against_name}, {percent(against.value[-1])}"
        width_px = 6.1 * len(text)
        items.append(Box(axes.right - width_px - 36, axes.top + 4, width_px + 36, 20, SURFACE, 0.9))
        items.append(Segment((axes.right - width_px - 30, axes.top + 14), (axes.right - width_px - 6, axes.top + 14), T3, dash=(4, 3)))
        items.append(Text((axes.right - 2, axes.top + 18), text, T2, anchor="end"))
    if curve.value:
        line = [(x, axes.y(y)) for x, y in zip(pixels, curve.value, strict=True)]
        items.append(Polyline(line, T1))
        items.append(Disc(line[-1], 3, T1))
        items.append(Text((line[-1][0] + 9, line[-1][1] + 4), percent(curve.value[-1]), T1, 12, weight=600))
    items += _x_title(axes, x_title)
    return Scene(width, height, items, axes)


def _x_title(axes: Axes, title: str) -> list[Item]:
    """Under the tick labels; nothing without a title."""
    return [Text(((axes.left + axes.right) / 2, axes.bottom + 34), title, T2, anchor="middle")] if title else []


def _interval(axes: Axes, x: float, result: Proportion, colour: str) -> Item:
    low, high = result.interval
    return Segment((x, axes.y(low)), (x, axes.y(high)), colour)


def success_scene(
    width: float, height: float, windows: Sequence[SuccessWindow], unit: Unit = "episodes", x_title: str = "", last_n: bool = True
) -> Scene:
    """Alone (blue) and with help (amber) per window of episodes with Wilson intervals; the last values stand at the right.

    Where windows stand close together the intervals become bands.
    """
    right = max([window.steps if unit == "steps" else window.last for window in windows] or [1])
    axes = Axes(44, 12, width - 98, height - 26 - (16 if x_title else 0), (0, right), (0, 1))
    items = grid(axes, ticks(right, _most_ticks(axes, 8 if x_title else 4)), (0, 0.5, 1), count, percent)
    dense = len(windows) > 1 and (axes.right - axes.left) / len(windows) < 16
    alone: list[tuple[float, float]] = []
    helped: list[tuple[float, float]] = []
    marks: list[Item] = []
    for window in windows:
        x = axes.x(window.steps if unit == "steps" else window.last)
        if not window.alone.n:
            continue
        marks += [_interval(axes, x + 3, window.helped, TAKEOVER), _interval(axes, x, window.alone, POLICY)]
        alone.append((x, axes.y(window.alone.value)))
        helped.append((x + 3, axes.y(window.helped.value)))
    if dense:
        for points, results, colour in (
            (helped, [w.helped for w in windows if w.alone.n], TAKEOVER),
            (alone, [w.alone for w in windows if w.alone.n], POLICY),
        ):
            ends = [result.interval for result in results]
            items.append(band([x for x, _ in points], [axes.y(low) for low, _ in ends], [axes.y(high) for _, high in ends], colour, 0.2))
        items += [Polyline(helped, TAKEOVER, dash=(4, 2)), Polyline(alone, POLICY)]
        items += [Disc(point, 3, SURFACE, TAKEOVER) for point in helped[-1:]]
        items += [Box(x - 2.5, y - 2.5, 5, 5, POLICY) for x, y in alone[-1:]]
    else:
        items += marks
        items += [Polyline(helped, TAKEOVER, dash=(4, 2)), Polyline(alone, POLICY)]
        items += [Disc(point, 3, SURFACE, TAKEOVER) for point in helped]
        items += [Box(x - 2.5, y - 2.5, 5, 5, POLICY) for x, y in alone]
    items += _x_title(axes, x_title)
    if alone:
        last = next(window for window in reversed(windows) if window.alone.n)
        high, low = max(14.0, helped[-1][1] - 4), alone[-1][1] + 4
        if low - high < 34:
            high, low = max(14.0, (high + low) / 2 - 17), max(48.0, (high + low) / 2 + 17)
        if (below := low + 14 - (height - 6)) > 0:  # both at 0 %: the lower name would be cut off
            high, low = min(high, low - below - 34), low - below
        x = axes.right + 12
        for y, result, colour, name in ((high, last.helped, TAKEOVER, "with help"), (low, last.alone, POLICY, "alone")):
            items.append(Text((x, y), percent(result.value), colour, 12, weight=600))
            items.append(Text((x, y + 14), f"{name}, n {result.n}" if last_n else name, T2))
    return Scene(width, height, items, axes)


def heldout_scene(width: float, height: float, results: Sequence[HeldOut]) -> Scene:
    """Success alone on the held-out starts, one mark per evaluated version, oldest left."""
    axes = Axes(44, 12, width - 32, height - 40, (-0.5, max(0.5, len(results) - 0.5)), (0, 1))
    items = grid(axes, (), (0, 0.5, 1), count, percent)
    line = [(axes.x(index), axes.y(one.result.value)) for index, one in enumerate(results)]
    items.append(Polyline(line, POLICY))
    anchor: Anchor
    for index, ((x, y), one) in enumerate(zip(line, results, strict=True)):
        items += [_interval(axes, x, one.result, POLICY), Box(x - 2.5, y - 2.5, 5, 5, POLICY)]
        crowded = len(results) > 6
        if not crowded or one in (results[0], results[-1]):
            rises = index + 1 < len(line) and line[index + 1][1] < y
            if rises and y + 18 < axes.bottom:
                place, anchor = (x + 8, y + 18), "start"
            elif rises:
                place, anchor = (x - 8, y - 6), "end"
            else:
                place, anchor = (x + 8, y - 6 if index + 1 < len(line) else y + 4), "start"
            items.append(Text(place, percent(one.result.value), T1, 12, anchor, 600))
            items.append(Text((x, axes.bottom + 16), f"v{one.version}" + (f", {one.label}" if one.label else ""), T2, anchor="middle"))
            if (axes.right - axes.left) / len(results) >= 76 or one in (results[0], results[-1]):
                items.append(Text((x, axes.bottom + 31), f"{one.result.k} of {one.result.n}", T3, anchor="middle"))
    return Scene(width, height, items, axes)


def causes_scene(width: float, height: float, counts: Sequence[tuple[str, int]]) -> Scene:
    """Horizontal bars, one per cause, most frequent first."""
    left, right = 84.0, width - 40
    row = min(30.0, (height - 8) / max(1, len(counts)))
    top = max([number for _, number in counts] or [1]) or 1
    items: list[Item] = []
    for index, (name, number) in enumerate(counts):
        y = 4 + index * row
        items.append(Text((0, y + row / 2 + 4), name, T2, 12))
        items.append(Box(left, y + row / 2 - 4, number / top * (right - left), 8, T1 if number else DIM))
        items.append(Text((width - 4, y + row / 2 + 4), str(number), T1 if number else T3, 12, "end", 500))
    items.append(Segment((left, 0), (left, 4 + row * len(counts)), DIM))
    return Scene(width, height, items)


def times_scene(width: float, height: float, seconds: Sequence[float]) -> Scene:
    """Histogram of seconds from the episode's start to the takeover, with median and 95 % point."""
    edges, counts = histogram(seconds)
    top = max(1, max(counts))
    ordered = sorted(seconds)
    late = ordered[min(len(ordered) - 1, math.ceil(0.95 * len(ordered)) - 1)] if seconds else 0.0
    room = width - 48.0
    reach = late * room / max(1.0, room - 78) if len(ordered) >= 20 else 0.0  # so that its label stands beside its line
    axes = Axes(36, 14, width - 12, height - 26, (0, max(edges[-1], reach)), (0, top * 1.12))
    steps = [tick for tick in ticks(top, 4) if float(tick).is_integer()]
    items = grid(axes, ticks(axes.x_range[1], 5), steps, lambda value: f"{value:g} s", count)
    for low, high, number in zip(edges, edges[1:], counts, strict=False):
        items.append(Box(axes.x(low) + 1, axes.y(number), axes.x(high) - axes.x(low) - 2, axes.bottom - axes.y(number), BARS))
    if seconds:
        median = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
        items.append(Segment((axes.x(median), 8), (axes.x(median), axes.bottom), T1))
        items.append(_beside(axes, median, 16, f"median {median:.1f} s", T1, 500))
        if len(ordered) >= 20:
            items.append(Segment((axes.x(late), 34), (axes.x(late), axes.bottom), T3, dash=(3, 3)))
            items.append(Text((axes.x(late) + 6, 42), f"95 %: {late:.1f} s", T2))
    return Scene(width, height, items, axes)


def _beside(axes: Axes, value: float, y: float, text: str, colour: str, weight: int) -> Text:
    x = axes.x(value)
    roomy = x + 90 < axes.right
    return Text((x + 6 if roomy else x - 6, y), text, colour, anchor="start" if roomy else "end", weight=weight)


def effort_scene(width: float, height: float, curve: Curve, unit: Unit = "episodes") -> Scene:
    xs = _over(curve, unit)
    highs = sorted(value for value in curve.high if math.isfinite(value))
    top = max([*curve.value, highs[len(highs) // 2] if highs else 0.0, 1.0]) * 1.1
    axes = Axes(36, 8, width - 12, height - 26, (0, max([*xs, 1])), (0, top))
    items = grid(axes, ticks(axes.x_range[1], _most_ticks(axes, 4)), ticks(top, 4), count, count)
    pixels = [axes.x(value) for value in xs]
    clip = [(axes.y(min(top, low)), axes.y(min(top, high))) for low, high in zip(curve.low, curve.high, strict=True)]
    if len(pixels) > 1:
        items.append(band(pixels, [low for low, _ in clip], [high for _, high in clip]))
    line = [(x, axes.y(y)) for x, y in zip(pixels, curve.value, strict=True)]
    items.append(Polyline(line, T1))
    if line:
        items.append(Disc(line[-1], 3, T1))
    return Scene(width, height, items, axes)
