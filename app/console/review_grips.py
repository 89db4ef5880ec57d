"""The grips on the timeline: both ends of what counts of a segment, and the onset. Painted and hit-tested here, moved by the timeline."""

from collections.abc import Callable
from dataclasses import dataclass

from PySide6.QtCore import QPointF, QRectF
from PySide6.QtGui import QColor, QPainter, QPen

from takeover.app.console import tokens
from takeover.app.console.models.review_edges import BEFORE_S, Edges
from takeover.app.console.widgets import draw_text, fill_round, text_width

WIDTH, REACH = 10.0, 3.0  # of a grip; how far beside it still counts
HELP = {
    "first": "Drag: steps before it do not count. Key I puts it at the play-head, Shift+I takes the trim back.",
    "last": "Drag: steps after it do not count. Key O puts it at the play-head, Shift+O takes the trim back.",
    "onset": "Drag to where the reason for the takeover began. Key B puts it at the play-head, Shift+B takes it back.",
}


@dataclass(frozen=True)
class Place:
    """Where things are: ``x_of`` a time in seconds, the band of who drove, the row of flags, the plot's lower and right
    end."""

    x_of: Callable[[float], float]
    control_hz: float
    band_top: float
    band: float
    flags: float
    bottom: float
    right: float

    def x(self, step: int) -> float:
        return self.x_of(step / self.control_hz)

    def boxes(self, edges: Edges) -> dict[str, QRectF]:
        """Every grip's rectangle. The two of the trim stand outside its lines, so that those of one step can be told apart."""
        low, high, height = self.x(edges.first), self.x(edges.last + 1), self.band - 8
        boxes = {
            "first": QRectF(low - WIDTH, self.band_top + 4, WIDTH, height),
            "last": QRectF(high, self.band_top + 4, WIDTH, height),
        }
        if edges.onset is not None:
            boxes["onset"] = QRectF(self.x(edges.onset) - WIDTH / 2, self.band_top + self.band + 4, WIDTH, self.flags - 12)
        return boxes

    def grip_at(self, edges: Edges, where: QPointF) -> str:
        """The grip under the pointer, "" for none."""
        for name, box in self.boxes(edges).items():
            if box.adjusted(-REACH, -REACH, REACH, REACH).contains(where):
                return name
        return ""


def paint(painter: QPainter, place: Place, edges: Edges, live: bool, dragged: str) -> None:
    """``live``: the person may move them; else only what was moved is shown. ``dragged``: the grip that is being moved, "" for none."""
    top = place.band_top
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
    for low, high in ((edges.start, edges.first), (edges.last + 1, edges.end + 1)):
        if high > low:  # cut off: dimmed
            cut = QRectF(place.x(low), top, place.x(high) - place.x(low), place.bottom - top)
            painter.fillRect(cut, tokens.color(tokens.BG, 0.62))
    if edges.onset is not None and edges.onset < edges.start:
        _paint_before(painter, place, edges.onset)
    boxes = place.boxes(edges)
    for name, box in boxes.items():
        moved = edges.trimmed if name != "onset" else edges.onset != edges.start
        if not live and not moved:
            continue
        x = {"first": box.right(), "last": box.left()}.get(name, box.center().x())
        strong = moved or name == dragged
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
        painter.setPen(QPen(QColor(tokens.T1 if strong else tokens.T3), 2 if strong else 1))
        upper = top if name != "onset" else top + place.band
        painter.drawLine(QPointF(x, upper - 4 if name != "onset" else upper), QPointF(x, place.bottom))
        if live:
            _paint_grip(painter, box, strong)
    _paint_texts(painter, place, edges, dragged)


def _paint_before(painter: QPainter, place: Place, onset: int) -> None:
    """The stretch before an early onset that counts as what went wrong."""
    right = place.x(onset)
    left = max(place.x_of(0.0), place.x_of(onset / place.control_hz - BEFORE_S))
    painter.fillRect(QRectF(left, place.band_top, right - left, place.bottom - place.band_top), tokens.color("#FFFFFF", 0.09))
    text = f"before: {BEFORE_S:g} s"
    if text_width(text, 11, tokens.MEDIUM) + 16 <= right - left:
        _paint_chip(painter, QPointF(right - 2, place.bottom - 40), text, leftward=True)


def _paint_grip(painter: QPainter, box: QRectF, strong: bool) -> None:
    fill_round(painter, box, tokens.INK, 3)
    fill_round(painter, box.adjusted(1, 1, -1, -1), tokens.T1 if strong else tokens.T2, 2.5)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
    painter.setPen(QPen(QColor(tokens.INK), 1))
    middle = box.center()
    for x in (middle.x() - 2, middle.x() + 1):
        painter.drawLine(QPointF(x, middle.y() - 4), QPointF(x, middle.y() + 3))


def _paint_chip(painter: QPainter, corner: QPointF, text: str, leftward: bool) -> None:
    """``corner``: its top left corner, or its top right one."""
    width = text_width(text, 11, tokens.MEDIUM) + 12
    box = QRectF(corner.x() - width if leftward else corner.x(), corner.y(), width, 18)
    fill_round(painter, box, tokens.BG, tokens.CHIP_RADIUS)
    draw_text(painter, box.adjusted(6, 0, -6, 0), text, tokens.T1, 11, tokens.MEDIUM)


def _paint_texts(painter: QPainter, place: Place, edges: Edges, dragged: str) -> None:
    """What the moved edges say, beside their lines at the lower end."""
    if edges.onset is not None and (edges.onset != edges.start or dragged == "onset"):
        text = f"onset {edges.onset / place.control_hz:.2f} s"
        x = place.x(edges.onset)
        leftward = x + text_width(text, 11) + 20 > place.right
        _paint_chip(painter, QPointF(x - 4 if leftward else x + 4, place.bottom - 40), text, leftward)
    if edges.trimmed or dragged in ("first", "last"):
        text = f"{edges.last - edges.first + 1} of {edges.end - edges.start + 1} steps count"
        low, high = place.x(edges.first), place.x(edges.last + 1)
        leftward = low + text_width(text, 11) + 20 > place.right
        _paint_chip(painter, QPointF(high - 4 if leftward else low + 4, place.bottom - 20), text, leftward)
