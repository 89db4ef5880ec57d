"""The learning curves of a run as one picture, drawn with Pillow: works where neither Qt nor a display is installed."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from takeover.app.console.models import insights_charts as charts
from takeover.app.console.models import insights_scene as scene
from takeover.app.console.models.insights import (
    DEFINITIONS,
    HeldOut,
    Proportion,
    rate_curve,
    success_windows,
    summary_points,
    version_marks,
    window_of,
)
from takeover.app.console.models.insights_scene import Area, Box, Disc, Polyline, Scene, Segment, Text

SCALE = 2  # pixels per unit of the scene
FONTS = Path(__file__).resolve().parent / "console" / "fonts"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_WEIGHTS = {400: "Regular", 500: "Medium", 600: "SemiBold"}


def _font(size: int, weight: int) -> Font:
    """The console's font where it is bundled, else Pillow's own scalable one."""
    for name in (f"Inter-{_WEIGHTS[weight]}.ttf", f"Inter-{_WEIGHTS[weight]}.otf"):
        if (FONTS / name).is_file():
            return ImageFont.truetype(str(FONTS / name), size * SCALE)
    return ImageFont.load_default(size * SCALE)


def _rgba(colour: str, alpha: float = 1.0) -> tuple[int, int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16), round(255 * alpha)


def _dashes(points: Sequence[scene.Point], dash: Sequence[float]) -> list[tuple[scene.Point, scene.Point]]:
    """The drawn pieces of a dashed polyline; ``dash`` is (on, off) in the points' unit."""
    pieces = []
    on, left = True, dash[0]
    for (x1, y1), (x2, y2) in itertools.pairwise(points):
        length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
        done = 0.0
        while length - done > 1e-9:
            take = min(left, length - done)
            if on:
                a, b = done / length, (done + take) / length
                pieces.append(((x1 + (x2 - x1) * a, y1 + (y2 - y1) * a), (x1 + (x2 - x1) * b, y1 + (y2 - y1) * b)))
            done += take
            left -= take
            if left <= 1e-9:
                on = not on
                left = dash[0] if on else dash[1]
    return pieces


class Painter:
    """Draws scenes onto an RGB picture of ``width`` x ``height`` scene units."""

    def __init__(self, width: int, height: int, colour: str = scene.BACKGROUND) -> None:
        self.image = Image.new("RGB", (width * SCALE, height * SCALE), colour)
        self._draw = ImageDraw.Draw(self.image, "RGBA")  # blends alpha

    def _at(self, point: scene.Point, origin: scene.Point) -> scene.Point:
        return (point[0] + origin[0]) * SCALE, (point[1] + origin[1]) * SCALE

    def paint(self, drawing: Scene, origin: scene.Point = (0.0, 0.0)) -> None:
        for item in drawing.items:
            self._item(item, origin)

    def _item(self, item: scene.Item, origin: scene.Point) -> None:
        if isinstance(item, Segment):
            self._line([item.a, item.b], item.colour, item.width, item.dash, origin)
        elif isinstance(item, Polyline):
            self._line(item.points, item.colour, item.width, item.dash, origin)
        elif isinstance(item, Area):
            self._draw.polygon([self._at(point, origin) for point in item.points], fill=_rgba(item.colour, item.alpha))
        elif isinstance(item, Box):
            corner, other = self._at((item.x, item.y), origin), self._at((item.x + item.width, item.y + item.height), origin)
            if other[0] - corner[0] >= 1 and other[1] - corner[1] >= 1:
                outline = _rgba(item.outline) if item.outline else None
                self._draw.rectangle([corner, (other[0] - 1, other[1] - 1)], fill=_rgba(item.colour, item.alpha), outline=outline)
        elif isinstance(item, Disc):
            x, y = self._at(item.centre, origin)
            radius = item.radius * SCALE
            outline = _rgba(item.outline) if item.outline else None
            self._draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=_rgba(item.colour), outline=outline, width=SCALE)
        else:
            anchor = {"start": "ls", "middle": "ms", "end": "rs"}[item.anchor]
            font = _font(item.size, item.weight)
            self._draw.text(self._at(item.at, origin), item.text, _rgba(item.colour), font=font, anchor=anchor)

    def _line(self, points: Sequence[scene.Point], colour: str, width: float, dash: Sequence[float], origin: scene.Point) -> None:
        pieces = _dashes(points, dash) if dash else [tuple(points)]
        for piece in pieces:
            if len(piece) > 1:
                self._draw.line([self._at(point, origin) for point in piece], fill=_rgba(colour), width=round(width * SCALE), joint="curve")

    def panel(self, box: tuple[int, int, int, int], title: str, note: str, right: str, drawing: Scene) -> None:
        """A titled panel at (x, y, width, height) with the scene 12 px inside, below its 28 px head."""
        x, y, width, height = box
        corner, other = self._at((x, y), (0, 0)), self._at((x + width, y + height), (0, 0))
        self._draw.rounded_rectangle([corner, other], 4 * SCALE, fill=_rgba(scene.SURFACE))
        self.paint(
            Scene(0, 0, [Text((x + 12, y + 20), title, scene.T1, 12, weight=600), Text((x + width - 12, y + 20), right, anchor="end")])
        )
        offset = self._draw.textlength(title, _font(12, 600)) / SCALE
        self.paint(Scene(0, 0, [Text((x + 24 + offset, y + 20), note)]))
        self.paint(drawing, (x + 12, y + 32))


def _heldout(summary: dict) -> list[HeldOut]:
    """Before and after, where they were measured. Before is version 1, after the last one that drove or was published."""
    results = []
    last = max([one["policy_version"] for one in summary["episodes"]], default=0)
    last = max(last, summary.get("learner", {}).get("versions_published", 0))
    for name, version in (("before", 1), ("after", last)):
        one = (summary.get("heldout_success") or {}).get(name)
        if one and one["n"]:
            results.append(HeldOut(version, Proportion(one["successes"], one["n"]), name))
    return results


def _operator_line(operator: dict) -> str:
    """Who corrected, with every parameter that matters to the result."""
    if operator.get("kind") != "scripted":
        return "Operator: a person"
    skipped = ("kind", "style", "seed_offset")
    names = {name: name.removesuffix("_steps").replace("_", " ") for name in operator if name not in skipped}
    values = ", ".join(f"{text} {operator[name]:g}" for name, text in names.items())
    return f"Operator: scripted, no people were tested; {values}"


def learning_curves_png(summary: dict, path: str | Path) -> Path:
    """Draw the learning curves of a headless run's summary (see ``takeover run --summary``) and return ``path``.

    Intervention rate with its 95 % band and the versions that drove; success alone and with help per 20 episodes with Wilson
    intervals; held-out success before and after. Raises KeyError naming a missing field, OSError when it cannot be written.
    """
    points = summary_points(summary)
    operator = summary.get("operator") or {}
    who = "the scripted operator" if operator.get("kind") == "scripted" else "a person"
    named = [str(summary.get(key, "")) for key in ("robot", "task", "learner_name") if summary.get(key)]
    if summary.get("seed") is not None:
        named.append(f"seed {summary['seed']}")
    steps, human = sum(point.steps for point in points), sum(point.human_steps for point in points)
    painter = Painter(1200, 680)
    painter.paint(Scene(0, 0, [Text((16, 32), "Takeover: learning curves", scene.T1, 15, weight=600)]))
    detail = " · ".join([*named, f"{len(points)} episodes", f"{steps:,} steps", f"{human:,} human steps"])
    painter.paint(Scene(0, 0, [Text((1184, 32), detail, scene.T2, 12, "end")]))
    window = window_of(len(points))
    curve, windows, heldout = rate_curve(points), success_windows(points, window), _heldout(summary)
    painter.panel(
        (8, 48, 1184, 288),
        "Intervention rate",
        f"share of steps {who} drove, last 20 episodes (all so far until there are 20), 95 % band over episodes",
        f"n = {len(points)} episodes, {steps:,} steps",
        charts.rate_scene(1160, 248, curve, version_marks(points), x_title="policy episode"),
    )
    note = f"per {window} episodes, 95 % Wilson intervals"
    painter.panel(
        (8, 344, 780, 296),
        "Success",
        note,
        f"n = {len(points)} episodes",
        charts.success_scene(756, 256, windows, x_title="policy episode"),
    )
    tried = f"n = {heldout[0].result.n} starts" if heldout else "not evaluated"
    painter.panel((796, 344, 396, 296), "Held-out success", "policy alone", tried, charts.heldout_scene(372, 256, heldout))
    painter.paint(Scene(0, 0, [Text((16, 658), DEFINITIONS["success"], scene.T3)]))
    painter.paint(Scene(0, 0, [Text((16, 673), _operator_line(operator), scene.T3)]))
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    painter.image.save(target, "PNG")
    return target
