"""Qt side of the charts: paints a scene, shows what is under the pointer, lets the user brush a stretch of the x axis."""

from collections.abc import Callable

from PySide6.QtCore import QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QFontMetricsF, QMouseEvent, QPainter, QPaintEvent, QPen, QPolygonF, QResizeEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from takeover.app.console import tokens
from takeover.app.console.models.insights_scene import Area, Box, Disc, Item, Polyline, Scene, Segment, Text
from takeover.app.console.widgets import CENTER, draw_text, fill_round, text_width

SceneBuilder = Callable[[float, float], Scene]  # (width px, height px)


def paint_scene(painter: QPainter, scene: Scene) -> None:
    """Paint every item at the painter's origin."""
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    for item in scene.items:
        _paint_item(painter, item)
    painter.restore()


def _pen(colour: str, width: float, dash: tuple[float, ...] = ()) -> QPen:
    pen = QPen(QColor(colour), width)
    pen.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
    if dash:
        pen.setCapStyle(Qt.PenCapStyle.FlatCap)
        pen.setDashPattern([part / width for part in dash])
    return pen


def _polygon(points: list[tuple[float, float]]) -> QPolygonF:
    return QPolygonF([QPointF(x, y) for x, y in points])


def _paint_item(painter: QPainter, item: Item) -> None:
    if isinstance(item, Segment):
        painter.setPen(_pen(item.colour, item.width, item.dash))
        straight = item.a[0] == item.b[0] or item.a[1] == item.b[1]
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, not straight)  # hairlines stay one crisp pixel
        painter.drawLine(QPointF(*item.a), QPointF(*item.b))
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    elif isinstance(item, Polyline):
        painter.setPen(_pen(item.colour, item.width, item.dash))
        painter.drawPolyline(_polygon(item.points))
    elif isinstance(item, Area):
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(tokens.color(item.colour, item.alpha))
        painter.drawPolygon(_polygon(item.points))
    elif isinstance(item, Box):
        if item.width > 0 and item.height > 0:
            painter.setPen(QPen(QColor(item.outline)) if item.outline else Qt.PenStyle.NoPen)
            painter.setBrush(tokens.color(item.colour, item.alpha))
            painter.drawRect(QRectF(item.x, item.y, item.width, item.height))
    elif isinstance(item, Disc):
        painter.setPen(QPen(QColor(item.outline or item.colour)))
        painter.setBrush(QColor(item.colour))
        painter.drawEllipse(QPointF(*item.centre), item.radius, item.radius)
    else:
        _paint_text(painter, item)


def _paint_text(painter: QPainter, item: Text) -> None:
    painter.setFont(tokens.font(item.size, item.weight))
    painter.setPen(QColor(item.colour))
    width = QFontMetricsF(painter.font()).horizontalAdvance(item.text)
    shift = {"start": 0.0, "middle": width / 2, "end": width}[item.anchor]
    painter.drawText(QPointF(item.at[0] - shift, item.at[1]), item.text)


class ChartView(QWidget):
    """A chart that is rebuilt when its data or size changes. With ``brushable``, dragging marks a stretch: `brushed(low, high)` in
    x units while it changes, `brush_activated` when its label is clicked; a click outside clears it (`brush_cleared`)."""

    brushed = Signal(float, float)
    brush_cleared = Signal()
    brush_activated = Signal()

    def __init__(self, brushable: bool = False, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._builder: SceneBuilder | None = None
        self._scene: Scene | None = None
        self._reading: Callable[[float], str] | None = None
        self._pointer: QPointF | None = None
        self._brushable = brushable
        self._brush: tuple[float, float] | None = None
        self._brush_text = ""
        self._drag_from: float | None = None
        self.setMouseTracking(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(120, 60)

    def sizeHint(self) -> QSize:
        return QSize(304, 176)

    def set_builder(self, builder: SceneBuilder | None, reading: Callable[[float], str] | None = None) -> None:
        """``reading(x)`` gives the text under the pointer for a data x, one line or several, the most
        important first: a low chart shows the first ones alone. Empty: none."""
        self._builder, self._reading, self._scene = builder, reading, None
        self.update()

    def scene(self) -> Scene | None:
        """The scene at the present size."""
        if self._scene is None and self._builder is not None:
            self._scene = self._builder(self.width(), self.height())
        return self._scene

    @property
    def brush(self) -> tuple[float, float] | None:
        return self._brush

    def set_brush_text(self, text: str) -> None:
        self._brush_text = text
        self.update()

    def clear_brush(self) -> None:
        if self._brush is not None:
            self._brush, self._brush_text = None, ""
            self.brush_cleared.emit()
            self.update()

    def resizeEvent(self, event: QResizeEvent) -> None:
        self._scene = None

    def _brush_label(self) -> QRectF:
        scene = self.scene()
        if self._brush is None or not self._brush_text or scene is None or scene.axes is None:
            return QRectF()
        width = text_width(self._brush_text, 11, tokens.MEDIUM) + 20
        x = scene.axes.x(self._brush[1]) + 8
        if x + width > self.width():
            x = max(0.0, scene.axes.x(self._brush[0]) - 8 - width)
        return QRectF(x, scene.axes.top + 32, width, 24)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        scene = self.scene()
        if not self._brushable or scene is None or scene.axes is None or event.button() != Qt.MouseButton.LeftButton:
            return
        if self._brush_label().contains(event.position()):
            self.brush_activated.emit()
            return
        self.clear_brush()
        self._drag_from = scene.axes.value_at(event.position().x())

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        self._pointer = event.position()
        scene = self.scene()
        if self._drag_from is not None and scene is not None and scene.axes is not None:
            value = scene.axes.value_at(event.position().x())
            if abs(scene.axes.x(value) - scene.axes.x(self._drag_from)) >= 4:
                self._brush = (min(value, self._drag_from), max(value, self._drag_from))
                self.brushed.emit(*self._brush)
        over = self._brush_label().contains(event.position())
        self.setCursor(Qt.CursorShape.PointingHandCursor if over else Qt.CursorShape.ArrowCursor)
        self.update()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        self._drag_from = None

    def leaveEvent(self, event: object) -> None:
        self._pointer = None
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        scene = self.scene()
        if scene is None:
            return
        painter = QPainter(self)
        paint_scene(painter, scene)
        self._paint_brush(painter, scene)
        self._paint_reading(painter, scene)

    def _paint_brush(self, painter: QPainter, scene: Scene) -> None:
        if self._brush is None or scene.axes is None:
            return
        low, high = (scene.axes.x(value) for value in self._brush)
        painter.fillRect(QRectF(low, scene.axes.top, high - low, scene.axes.bottom - scene.axes.top), tokens.color("#FFFFFF", 0.08))
        painter.setPen(QColor(tokens.T1))
        for x in (low, high):
            painter.drawLine(QPointF(x, scene.axes.top), QPointF(x, scene.axes.bottom))
        label = self._brush_label()
        if not label.isNull():
            fill_round(painter, label, tokens.CONTROL, 3)
            fill_round(painter, label.adjusted(1, 1, -1, -1), tokens.BG, 3)
            draw_text(painter, label, self._brush_text, tokens.T1, 11, tokens.MEDIUM, CENTER)

    def _paint_reading(self, painter: QPainter, scene: Scene) -> None:
        if self._pointer is None or self._reading is None or scene.axes is None or self._drag_from is not None:
            return
        x = self._pointer.x()
        if not scene.axes.left <= x <= scene.axes.right or self._brush_label().contains(self._pointer):
            return
        text = self._reading(scene.axes.value_at(x))
        if not text:
            return
        painter.setPen(QColor(tokens.OUTLINE))
        painter.drawLine(QPointF(x, scene.axes.top), QPointF(x, scene.axes.bottom))
        lines = text.split("\n")[: max(1, int((scene.axes.bottom - scene.axes.top) / 2 / 16))]  # the curve stays in sight
        width = max(text_width(one, 11) for one in lines) + 16
        left = min(max(0.0, x + 8), self.width() - width) if x + 8 + width <= self.width() else max(0.0, x - 8 - width)
        height = 6.0 + 16 * len(lines)
        lower = self._pointer.y() > (scene.axes.top + scene.axes.bottom) / 2
        box = QRectF(left, scene.axes.top + 6 if lower and len(lines) > 1 else scene.axes.bottom - 6 - height, width, height)
        fill_round(painter, box, tokens.RAISED, 3)
        for index, one in enumerate(lines):
            draw_text(painter, QRectF(left, box.top() + 3 + 16 * index, width, 16), one, tokens.T1, 11, tokens.REGULAR, CENTER)
