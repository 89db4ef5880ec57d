"""The timeline under the pictures: film strip, who drove, flags, signals, and the play-head that can be dragged."""

import math

from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QColor, QImage, QMouseEvent, QPainter, QPaintEvent, QPen, QPixmap, QPolygonF, QResizeEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from takeover.app.console import tokens
from takeover.app.console.icons import draw_icon
from takeover.app.console.models.insights import nice_step
from takeover.app.console.models.review import Timeline, versions_text
from takeover.app.console.models.review_edges import Edges
from takeover.app.console.models.review_items import ReviewItem
from takeover.app.console.review_curves import paint_curve
from takeover.app.console.review_grips import HELP, Place
from takeover.app.console.review_grips import paint as paint_grips
from takeover.app.console.widgets import CENTER, RIGHT, draw_text, fill_round, hatch, text_width

LABELS = 128  # left of the plot, px
VALUES = 56  # right of it
AXIS = 24
FILM = 48
BAND = 28
FLAGS = 32


class TimelineView(QWidget):
    """Paints a `Timeline`; the static part is kept as a pixmap so that moving the play-head costs one copy. `sought(seconds)` on
    click and drag; `edged(field, value)` when a grip was let go: a trim or an onset."""

    sought = Signal(float)
    edged = Signal(str, str)
    FRAMES = 12  # of the film strip

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._timeline: Timeline | None = None
        self._item: ReviewItem | None = None
        self._film: list[QImage] = []
        self._film_expected = False
        self._position_s = 0.0
        self._static: QPixmap | None = None
        self._edges: Edges | None = None
        self._live = False
        self._grip = ""
        self.setMouseTracking(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(250)

    def set_timeline(self, timeline: Timeline | None, item: ReviewItem | None, film_expected: bool = False) -> None:
        self._timeline, self._film, self._film_expected = timeline, [], film_expected
        self.set_item(item, self._live)

    def set_item(self, item: ReviewItem | None, live: bool) -> None:
        """The segment with its present labels; ``live``: its edges can be moved. A drag that is under way goes on."""
        same = item is not None and self._item is not None and item.segment_id == self._item.segment_id
        self._item, self._live = item, live
        if not (same and live and self._grip):
            self._edges, self._grip = Edges.of(item) if item is not None else None, ""
        self._static = None
        self.update()

    @property
    def edges(self) -> Edges | None:
        return self._edges

    def move_edge(self, grip: str, step: int) -> None:
        """Put "first", "last" or "onset" at a step and report it, if that changes anything."""
        if self._edges is None or not self._live:
            return
        before, self._edges = self._edges, self._edges.moved(grip, step)
        self.update()
        if self._edges != before:
            self.edged.emit(*self._edges.label(grip))

    def set_film(self, film: list[QImage]) -> None:
        """Pictures spread evenly over the episode."""
        self._film = film
        self._static = None
        self.update()

    def set_position(self, position_s: float) -> None:
        if position_s != self._position_s:
            self._position_s = position_s
            self.update()

    @property
    def timeline(self) -> Timeline | None:
        return self._timeline

    # --- geometry ---

    def _duration(self) -> float:
        timeline = self._timeline
        return timeline.steps / timeline.control_hz if timeline else 1.0

    def _width(self) -> float:
        return max(1.0, self.width() - LABELS - VALUES)

    def x_of(self, seconds: float) -> float:
        return LABELS + seconds / self._duration() * self._width()

    def _band_top(self) -> float:
        return AXIS + (FILM + 8 if self._film_expected else 4)

    def resizeEvent(self, event: QResizeEvent) -> None:
        self._static = None

    # --- pointer ---

    def _seek(self, event: QMouseEvent) -> None:
        if self._timeline is not None:
            self.sought.emit(min(1.0, max(0.0, (event.position().x() - LABELS) / self._width())) * self._duration())

    def place(self) -> Place:
        """Where the grips are painted."""
        hz = self._timeline.control_hz if self._timeline else 1.0
        return Place(self.x_of, hz, self._band_top(), BAND, FLAGS, self.height() - 8, self.width() - VALUES)

    def _grip_under(self, event: QMouseEvent) -> str:
        if self._edges is None or self._timeline is None or not self._live:
            return ""
        return self.place().grip_at(self._edges, event.position())

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() != Qt.MouseButton.LeftButton:
            return
        self._grip = self._grip_under(event)
        if not self._grip and event.position().x() >= LABELS - 8:
            self._seek(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if not event.buttons() & Qt.MouseButton.LeftButton:
            under = self._grip_under(event)
            self.setCursor(Qt.CursorShape.SizeHorCursor if under else Qt.CursorShape.ArrowCursor)
            self.setToolTip(HELP.get(under, ""))
        elif self._grip and self._edges is not None and self._timeline is not None:
            at = (event.position().x() - LABELS) / self._width() * self._duration() * self._timeline.control_hz
            self._edges = self._edges.moved(self._grip, round(at) - (self._grip == "last"))
            step = {"first": self._edges.first, "last": self._edges.last}.get(self._grip, self._edges.onset)
            self.sought.emit((step or 0) / self._timeline.control_hz)
            self.update()
        else:
            self._seek(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        grip, self._grip = self._grip, ""
        if grip and self._edges is not None and self._item is not None:
            self.update()
            if self._edges != Edges.of(self._item):
                self.edged.emit(*self._edges.label(grip))

    # --- painting ---

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        if self._timeline is None:
            fill_round(painter, QRectF(self.rect()), tokens.SURFACE, tokens.RADIUS)
            return
        if self._static is None:
            ratio = self.devicePixelRatioF()
            self._static = QPixmap(round(self.width() * ratio), round(self.height() * ratio))
            self._static.setDevicePixelRatio(ratio)
            self._static.fill(Qt.GlobalColor.transparent)
            layer = QPainter(self._static)
            self._paint_static(layer, self._timeline)
            layer.end()
        painter.drawPixmap(0, 0, self._static)
        if self._edges is not None:
            paint_grips(painter, self.place(), self._edges, self._live, self._grip)
        self._paint_values(painter, self._timeline)
        self._paint_head(painter)

    def _paint_static(self, painter: QPainter, timeline: Timeline) -> None:
        fill_round(painter, QRectF(self.rect()), tokens.SURFACE, tokens.RADIUS)
        self._paint_axis(painter)
        if self._film_expected:
            self._paint_film(painter)
        self._paint_segment(painter, timeline)
        self._paint_band(painter, timeline)
        self._paint_flags(painter, timeline)
        for index, curve in enumerate(timeline.signals):
            paint_curve(painter, self._row(index), timeline, curve, self.x_of)

    def _paint_axis(self, painter: QPainter) -> None:
        duration = self._duration()
        step = nice_step(duration, 9)
        for index in range(math.floor(duration / step + 1e-9) + 1):
            x = round(self.x_of(index * step)) + 0.5
            painter.setPen(QPen(QColor(tokens.GRID), 1))
            painter.drawLine(QPointF(x, AXIS), QPointF(x, self.height() - 8))
            draw_text(painter, QRectF(x - 40, 4, 80, 16), f"{index * step:g} s", tokens.T3, 11, align=CENTER)

    def _paint_film(self, painter: QPainter) -> None:
        slot = self._width() / self.FRAMES
        for index, image in enumerate(self._film):
            target = QRectF(LABELS + index * slot, AXIS, slot - 1, FILM)
            height = image.width() * target.height() / target.width()
            source = QRectF(0, max(0.0, (image.height() - height) / 2), image.width(), min(height, image.height()))
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
            painter.drawImage(target, image, source)

    def _paint_segment(self, painter: QPainter, timeline: Timeline) -> None:
        if self._item is None:
            return
        low, high = (self.x_of(step / timeline.control_hz) for step in (self._item.start_step, self._item.end_step))
        top = self._band_top()
        painter.fillRect(QRectF(low, top, max(1.0, high - low), self.height() - 8 - top), tokens.color("#FFFFFF", 0.05))
        painter.setPen(QPen(QColor(tokens.T3), 1, Qt.PenStyle.DashLine))
        painter.drawLine(QPointF(low, top - 4), QPointF(low, self.height() - 8))

    def _paint_band(self, painter: QPainter, timeline: Timeline) -> None:
        top = self._band_top()
        draw_text(painter, QRectF(12, top, LABELS - 16, BAND), "Who drove", tokens.T2, 12)
        painter.fillRect(QRectF(LABELS, top, self._width(), BAND), QColor(tokens.BAND))
        hz = timeline.control_hz
        ink_until = LABELS
        for index, span in enumerate(timeline.spans):
            left, right = self.x_of(span.start / hz), self.x_of(span.stop / hz)
            box = QRectF(left, top, right - left, BAND)
            if span.driver == "ramp":
                painter.fillRect(box, QColor(tokens.RAMP))
                hatch(painter, box, QColor(tokens.TAKEOVER), 2, 5)
                continue
            painter.fillRect(box, QColor(tokens.POLICY if span.driver == "policy" else tokens.TAKEOVER))
            steps = span.stop - span.start
            if span.driver == "human" and index and timeline.spans[index - 1].driver == "ramp":
                steps += timeline.spans[index - 1].stop - timeline.spans[index - 1].start
            versions = versions_text(timeline.policy_version[span.start : span.stop])
            text = f"policy {versions}" if span.driver == "policy" else f"{timeline.operator}, {steps} steps"
            for shorter in (text, f"{steps} steps" if span.driver == "human" else versions):
                if text_width(shorter, 11, tokens.SEMIBOLD) + 8 <= box.width():
                    draw_text(painter, box, shorter, tokens.INK, 11, tokens.SEMIBOLD, CENTER)
                    break
            ink_until = max(ink_until, int(right))
        painter.setPen(QPen(QColor(tokens.BG), 2))
        for step in timeline.breaks():
            x = self.x_of(step / hz)
            painter.drawLine(QPointF(x, top), QPointF(x, top + BAND))

    def _paint_flags(self, painter: QPainter, timeline: Timeline) -> None:
        top = self._band_top() + BAND
        draw_text(painter, QRectF(12, top + 4, LABELS - 16, FLAGS - 4), "Flags", tokens.T2, 12)
        free = 0.0
        for flag in timeline.flags:
            x = self.x_of(flag.step / timeline.control_hz)
            painter.setPen(QPen(QColor(tokens.T2), 1))
            painter.drawLine(QPointF(x, top - 4), QPointF(x, top + FLAGS - 4))
            width = text_width(flag.text, 11) + 20
            right_side = x + 4 + width <= self.width() - 8
            gap = 9 if self._edges is not None and flag.step == self._edges.onset else 4  # beside the onset's grip
            start = x + gap if right_side else x - 4 - width
            if start < free:
                continue  # its line is there; the text would cover its neighbour's
            draw_icon(painter, flag.icon, start, top + 9, 13, tokens.T2, 2)
            draw_text(painter, QRectF(start + 17, top + 4, width, FLAGS - 8), flag.text, tokens.T2, 11)
            free = start + width + 4

    def _row(self, index: int) -> QRectF:
        top = self._band_top() + BAND + FLAGS + 4
        rows = len(self._timeline.signals) if self._timeline else 1
        height = min(150.0, (self.height() - 8 - top) / max(1, rows))
        return QRectF(LABELS, top + index * height, self._width(), height)

    def _paint_values(self, painter: QPainter, timeline: Timeline) -> None:
        step = min(timeline.steps - 1, max(0, int(self._position_s * timeline.control_hz + 1e-6)))
        for index, curve in enumerate(timeline.signals):
            row = self._row(index)
            draw_text(
                painter,
                QRectF(row.right() + 4, row.top(), VALUES - 16, row.height()),
                curve.text(step),
                tokens.T1,
                12,
                tokens.MEDIUM,
                RIGHT,
            )

    def _paint_head(self, painter: QPainter) -> None:
        x = self.x_of(self._position_s)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
        painter.setPen(QPen(QColor(tokens.T1), 1))
        painter.drawLine(QPointF(x, AXIS - 4), QPointF(x, self.height() - 8))
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(tokens.T1))
        top = 3.0
        painter.drawPolygon(
            QPolygonF([QPointF(x - 6, top), QPointF(x + 6, top), QPointF(x + 6, top + 8), QPointF(x, top + 15), QPointF(x - 6, top + 8)])
        )
