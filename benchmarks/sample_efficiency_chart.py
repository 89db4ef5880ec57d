"""The curves of one task and operator as a PNG: success on held-out starts over human steps, environment steps and wall time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from takeover.app.console.models.insights_charts import ticks
from takeover.app.console.models.insights_scene import T1, T2, T3, Axes, Disc, Item, Polyline, Scene, Segment, Text, count, grid, percent
from takeover.app.report import Painter

COLOURS = ("#56B4E9", "#E69F00", "#2BB58A", "#F0E442", "#E0703A", "#CC79A7", "#9A8CF0", "#B8BDC4", "#7FD1C7", "#D9A68B")
WIDTH, PANEL, HEIGHT = 1200, 390, 392
AXES = (
    ("human_steps", "steps that the operator drove", 1.0),
    ("train_steps", "environment steps", 1.0),
    ("wall_s", "minutes of the loop", 60.0),
)


def draw(group: Mapping[str, Any], path: Path, note: str) -> Path:
    """Write the picture of one group of `sample_efficiency_report.summarise`; ``note`` stands at its foot. Raises OSError."""
    rows: Sequence[Mapping[str, Any]] = group["learners"]
    colours = {row["variant"]: COLOURS[i % len(COLOURS)] for i, row in enumerate(sorted(rows, key=lambda row: row["variant"]))}
    lines = (len(rows) + 3) // 4
    height = 48 + HEIGHT + 20 * lines + 40
    painter = Painter(WIDTH, height)
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    title = f"{group['task']}, scripted operator: {group['operator']}"
    detail = f"seeds {', '.join(map(str, seeds))} · n = {max(row['final']['n'] for row in rows)} starts per point · Wilson 95 %"
    painter.paint(Scene(0, 0, [Text((16, 32), title, T1, 15, weight=600), Text((WIDTH - 16, 32), detail, T2, 12, "end")]))
    for i, (key, name, unit) in enumerate(AXES):
        scene = curves(rows, colours, key, name, unit)
        painter.panel((8 + i * (PANEL + 7), 48, PANEL, HEIGHT), "Success alone", f"over {name}", "", scene)
    painter.paint(Scene(0, 0, legend(rows, colours, 48 + HEIGHT + 22)))
    painter.paint(Scene(0, 0, [Text((16, height - 14), f"No people were tested. {note}", T3)]))
    painter.image.save(path, "PNG")
    return path


def curves(rows: Sequence[Mapping[str, Any]], colours: Mapping[str, str], key: str, name: str, unit: float) -> Scene:
    """One panel: means over seeds with the pooled Wilson interval of every point. Ablations are dashed."""
    right = max(point[key] / unit for row in rows for point in row["curve"]) or 1.0
    axes = Axes(44, 12, PANEL - 40, HEIGHT - 84, (0.0, right), (0.0, 1.0))
    items: list[Item] = grid(axes, ticks(right, 5), (0, 0.25, 0.5, 0.75, 1), count, percent)
    for row in rows:
        colour, points = colours[row["variant"]], row["curve"]
        places = [(axes.x(p[key] / unit), axes.y(p["rate"])) for p in points]
        if len(places) > 1:
            items.append(Polyline(places, colour, 1.6, (5, 3) if row["ablation"] else ()))
        for p, place in zip(points, places, strict=True):
            items += [Segment((place[0], axes.y(p["low"])), (place[0], axes.y(p["high"])), colour), Disc(place, 2.5, colour)]
    items.append(Text(((axes.left + axes.right) / 2, axes.bottom + 36), name, T2, anchor="middle"))
    return Scene(PANEL, HEIGHT, items, axes)


def legend(rows: Sequence[Mapping[str, Any]], colours: Mapping[str, str], top: float) -> list[Item]:
    """Learners with their final success, best first, four to a line."""
    items: list[Item] = []
    for i, row in enumerate(rows):
        x, y = 16 + (i % 4) * 296, top + 20 * (i // 4)
        items.append(Segment((x, y - 4), (x + 22, y - 4), colours[row["variant"]], 2, (5, 3) if row["ablation"] else ()))
        items.append(Text((x + 30, y), f"{row['variant']}  {percent(row['final']['rate'])}", T1, 12))
    return items
