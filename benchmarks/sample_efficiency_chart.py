"""The curves of one task and operator as a PNG: success on held-out starts over human steps, environment steps, loop time, learning time.

A learner has the same colour in every picture. Bands are Wilson intervals; the legend stands below the panels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.sample_efficiency_plan import VARIANTS
from takeover.app.console.models.insights_charts import ticks
from takeover.app.console.models.insights_scene import (
    T1,
    T2,
    T3,
    Axes,
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
from takeover.app.report import Painter

COLOURS = (
    *("#56B4E9", "#F0E442", "#2BB58A", "#CC79A7", "#E69F00", "#B8BDC4", "#9A8CF0", "#E0703A", "#7FD1C7", "#D9A68B"),
    *("#4C78D0", "#A3C644", "#D8C8F5", "#C9B458", "#FF8FA3", "#8FB8A8", "#B07AA1"),
)
WIDTH, GAP, HEAD, PANEL_HEIGHT = 1240, 8, 48, 352
PANEL = (WIDTH - 3 * GAP) // 2
AXES = (
    ("human_steps", "steps that the operator drove", False),
    ("train_steps", "environment steps", False),
    ("wall_s", "of the loop", True),
    ("learning_s", "of learning (processor time)", True),
)
DASH = (6, 3)
LEGEND_COLUMNS, LEGEND_LINE = 3, 22

Rows = Sequence[Mapping[str, Any]]


def colour(variant: str) -> str:
    """The same in every picture."""
    return COLOURS[list(VARIANTS).index(variant) % len(COLOURS)]


def draw(group: Mapping[str, Any], path: Path, note: str) -> Path:
    """Write the picture of one group of `sample_efficiency_report.summarise`; ``note`` stands at its foot. Raises OSError."""
    rows: Rows = group["learners"]
    foot = HEAD + 2 * (PANEL_HEIGHT + GAP)
    height = foot + LEGEND_LINE * -(-len(rows) // LEGEND_COLUMNS) + 46
    painter = Painter(WIDTH, height)
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    title = f"{group['task']}, scripted operator: {group['operator']}"
    starts = " or ".join(str(n) for n in sorted({row["worst_seed"]["n"] for row in rows}))
    detail = f"seeds {', '.join(map(str, seeds))}, {starts} starts of each per point; bands: Wilson, 95 %"
    painter.paint(Scene(0, 0, [Text((GAP + 8, 31), title, T1, 15, weight=600), Text((WIDTH - GAP - 8, 31), detail, T2, 12, "end")]))
    for i, (key, name, is_time) in enumerate(AXES):
        unit, name = _unit(rows, key, name) if is_time else (1.0, name)
        box = (GAP + i % 2 * (PANEL + GAP), HEAD + i // 2 * (PANEL_HEIGHT + GAP), PANEL, PANEL_HEIGHT)
        left_out = [row["variant"] for row in rows if not _spends(row, key)]
        right = f"none of them: {', '.join(left_out)}" if left_out else ""
        painter.panel(box, "Success alone", f"over {name}", right, curves(rows, key, name, unit))
    painter.paint(Scene(0, 0, legend(rows, foot + 22)))
    painter.paint(Scene(0, 0, [Text((GAP + 8, height - 14), f"No people were tested. {note}", T3)]))
    painter.image.save(path, "PNG")
    return path


def _unit(rows: Rows, key: str, name: str) -> tuple[float, str]:
    """Seconds per unit, and what the axis is called."""
    longest = max(point[key] for row in rows for point in row["curve"])
    return (60.0, f"minutes {name}") if longest >= 240.0 else (1.0, f"seconds {name}")


def _spends(row: Mapping[str, Any], key: str) -> bool:
    """A curve over something of which nothing was spent would be an upright line."""
    return bool(row["curve"][-1][key] > 0)


def curves(rows: Rows, key: str, name: str, unit: float) -> Scene:
    """One panel: means over seeds in the pooled Wilson band. Ablations are dashed."""
    shown = [row for row in reversed(rows) if _spends(row, key)]  # the best comes last, on top
    right = max((point[key] / unit for row in shown for point in row["curve"]), default=1.0)
    axes = Axes(46, 10, PANEL - 44, PANEL_HEIGHT - 84, (0.0, right), (0.0, 1.0))
    items: list[Item] = grid(axes, ticks(right, 8), (0, 0.25, 0.5, 0.75, 1), count, percent)
    for row in shown:
        xs = [axes.x(p[key] / unit) for p in row["curve"]]
        low, high = ([axes.y(p[end]) for p in row["curve"]] for end in ("low", "high"))
        if len(xs) > 1:
            items.append(band(xs, low, high, colour(row["variant"]), 0.16))
        else:
            items.append(Segment((xs[0], low[0]), (xs[0], high[0]), colour(row["variant"])))
    for row in shown:
        places = [(axes.x(p[key] / unit), axes.y(p["rate"])) for p in row["curve"]]
        if len(places) > 1:
            items.append(Polyline(places, colour(row["variant"]), 2.0, DASH if row["ablation"] else ()))
        items += [Disc(place, 3, colour(row["variant"])) for place in places]
    items.append(Text(((axes.left + axes.right) / 2, axes.bottom + 38), name, T2, 12, anchor="middle"))
    return Scene(PANEL, PANEL_HEIGHT, items, axes)


def legend(rows: Rows, top: float) -> list[Item]:
    """Learners with their final success, best first."""
    items: list[Item] = []
    for i, row in enumerate(rows):
        x, y = GAP + 8 + i % LEGEND_COLUMNS * (WIDTH // LEGEND_COLUMNS), top + LEGEND_LINE * (i // LEGEND_COLUMNS)
        final, tint = row["final"], colour(row["variant"])
        items += [Segment((x, y - 4), (x + 26, y - 4), tint, 2.4, DASH if row["ablation"] else ()), Disc((x + 13, y - 4), 3, tint)]
        share = f"{percent(final['rate'])} ({100 * final['low']:.0f}-{100 * final['high']:.0f}, n = {final['n']})"
        items += [Text((x + 36, y), row["variant"], T1, 12, weight=500), Text((x + 196, y), f"in the end {share}", T2, 12)]
    return items
