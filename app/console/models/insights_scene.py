"""Drawing instructions of a chart: made once by pure code, painted by Qt in the console and by Pillow in a headless run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

# The same tokens as the console's; this module is also imported where no Qt is installed.
BACKGROUND, SURFACE, RAISED = "#1E1F22", "#26282C", "#30333A"
LINE, GRID, DIM = "#3B3E45", "#34373D", "#6A707A"
T1, T2, T3 = "#E8EAED", "#B8BDC4", "#9AA1AB"
POLICY, TAKEOVER, BARS = "#56B4E9", "#E69F00", "#8B919B"

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class Segment:
    a: Point
    b: Point
    colour: str
    width: float = 1.0
    dash: tuple[float, ...] = ()  # px on, px off


@dataclass(frozen=True)
class Box:
    """``alpha`` in [0, 1]; ``outline`` empty: none."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    alpha: float = 1.0
    outline: str = ""


@dataclass(frozen=True)
class Disc:
    centre: Point
    radius: float
    colour: str
    outline: str = ""


@dataclass(frozen=True)
class Polyline:
    points: list[Point]
    colour: str
    width: float = 1.0
    dash: tuple[float, ...] = ()


@dataclass(frozen=True)
class Area:
    points: list[Point]
    colour: str
    alpha: float


@dataclass(frozen=True)
class Text:
    """``at`` is the baseline point; ``size`` in px; ``weight`` 400, 500 or 600."""

    at: Point
    text: str
    colour: str = T3
    size: int = 11
    anchor: Anchor = "start"
    weight: int = 400


Item = Segment | Box | Disc | Polyline | Area | Text


@dataclass(frozen=True)
class Axes:
    """A plot rectangle (px) and its data ranges."""

    left: float
    top: float
    right: float
    bottom: float
    x_range: Point
    y_range: Point

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / ((high - low) or 1.0) * (self.right - self.left)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.bottom - (value - low) / ((high - low) or 1.0) * (self.bottom - self.top)

    def value_at(self, x: float) -> float:
        """Data x under pixel ``x``, clipped to the axis."""
        low, high = self.x_range
        share = (x - self.left) / ((self.right - self.left) or 1.0)
        return low + min(1.0, max(0.0, share)) * (high - low)


@dataclass(frozen=True)
class Scene:
    width: float
    height: float
    items: list[Item]
    axes: Axes | None = None
    hover: list[tuple[Box, str]] = field(default_factory=list)  # where the pointer finds an explanation


def grid(
    axes: Axes, x_ticks: Sequence[float], y_ticks: Sequence[float], x_text: Callable[[float], str], y_text: Callable[[float], str]
) -> list[Item]:
    """Horizontal grid lines with their labels, and labels under the x axis."""
    items: list[Item] = []
    for tick in y_ticks:
        y = axes.y(tick)
        items.append(Segment((axes.left, y), (axes.right, y), GRID))
        items.append(Text((axes.left - 8, y + 4), y_text(tick), anchor="end"))
    for tick in x_ticks:
        items.append(Text((axes.x(tick), axes.bottom + 17), x_text(tick), anchor="middle"))
    return items


def band(xs: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str = T1, alpha: float = 0.16) -> Area:
    """``xs``, ``low`` and ``high`` in px, equal length."""
    upper = list(zip(xs, high, strict=True))
    lower = list(zip(xs, low, strict=True))
    return Area([*upper, *reversed(lower)], colour, alpha)


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def count(value: float) -> str:
    """1234 -> 1.2k; whole numbers below 1,000 as they are."""
    if abs(value) < 1000:
        return f"{value:g}"
    return f"{value / 1000:.3g}k"
