"""A live camera picture with its overlays. The newest frame is decoded when it is shown; an old one cannot pass for live."""

import time
from dataclasses import dataclass, replace

from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QColor, QImage, QMouseEvent, QPainter, QPainterPath, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from takeover.app.console import tokens
from takeover.app.console.models.snapshot import milliseconds
from takeover.app.console.tokens import MEDIUM, REGULAR, SEMIBOLD, T1, T2, T3
from takeover.app.console.widgets import CENTER, Run, draw_runs, draw_text, fill_round, hatch, text_width
from takeover.data.schema import CameraFrame

AMBER_MS, RED_MS, STALE_MS = 100.0, 300.0, 500.0


@dataclass(frozen=True)
class Overlay:
    """What is drawn over a picture. ``arrow``: tool and tip in picture pixels. ``twist``: the person's command (x, y, z) for the inset."""

    age_ms: float = -1.0
    note: str = ""
    frame_color: str = ""
    chips: tuple[tuple[str, str], ...] = ()
    arrow: tuple[tuple[float, float], tuple[float, float]] | None = None
    arrow_color: str = tokens.TAKEOVER
    twist: tuple[float, float, float] | None = None
    twist_title: str = ""
    stopped: bool = False
    lost: bool = False  # no link: nothing shown is live


class PictureView(QWidget):
    double_clicked = Signal()

    def __init__(self, camera: str, compact: bool = False, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.camera, self.compact = camera, compact
        self._image = QImage()
        self._counter = -1
        self._source_ns = -1
        self._overlay = Overlay()
        self.frames_shown = 0
        self._painted_s = 0.0
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)

    def show_frame(self, frame: CameraFrame | None) -> None:
        """Decode and show when it is another frame than the one shown. A picture that cannot be decoded is not shown."""
        if frame is None or (frame.counter, frame.t_source_ns) == (self._counter, self._source_ns):
            return
        image = QImage.fromData(frame.jpeg)
        if image.isNull():
            return
        self._image, self._counter, self._source_ns = image, frame.counter, frame.t_source_ns
        self.frames_shown += 1
        self.update()

    def show_overlay(self, overlay: Overlay) -> None:
        """The age alone repaints five times a second; new pictures bring it along anyway."""
        old, self._overlay = self._overlay, overlay
        if overlay == old:
            return
        only_age = replace(overlay, age_ms=old.age_ms) == old and (overlay.age_ms > STALE_MS) == (old.age_ms > STALE_MS)
        if not only_age or time.monotonic() - self._painted_s > 0.2:
            self.update()

    @property
    def overlay(self) -> Overlay:
        return self._overlay

    @property
    def has_picture(self) -> bool:
        return not self._image.isNull()

    def picture_rect(self) -> QRectF:
        """Where the picture lies: whole, centred, never cropped."""
        if self._image.isNull():
            return QRectF(self.rect())
        scale = min(self.width() / self._image.width(), self.height() / self._image.height())
        width, height = self._image.width() * scale, self._image.height() * scale
        return QRectF((self.width() - width) / 2, (self.height() - height) / 2, width, height)

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        self.double_clicked.emit()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        self._painted_s = time.monotonic()
        overlay = self._overlay
        painter.fillRect(self.rect(), QColor(tokens.BG))
        stale = overlay.age_ms > STALE_MS or overlay.lost
        rect = self.picture_rect()
        if self.has_picture:
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
            painter.drawImage(rect, self._image)
        else:
            fill_round(painter, rect, tokens.SURFACE, tokens.PICTURE_RADIUS)
            draw_text(painter, rect, "waiting for a picture", T3, 13, REGULAR, CENTER)
        if self.has_picture and (stale or overlay.stopped):
            self._dim(painter, rect, stale)
        if overlay.arrow is not None and self.has_picture and not stale:
            self._arrow(painter, rect)
        if overlay.frame_color:
            painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(QColor(overlay.frame_color), 4, Qt.PenStyle.SolidLine, Qt.PenCapStyle.FlatCap, Qt.PenJoinStyle.MiterJoin))
            painter.drawRect(rect.adjusted(2, 2, -2, -2))
        self._chips(painter, rect, stale)
        if overlay.twist is not None and not self.compact and rect.height() > 300:
            self._inset(painter, rect)

    def _dim(self, painter: QPainter, rect: QRectF, stale: bool) -> None:
        """A live picture of a stopped robot stays clear to see, only darker; an old one is hatched and says its age."""
        painter.fillRect(rect, tokens.color(tokens.BG, 0.45 if stale else 0.3))
        if not stale:
            return
        hatch(painter, rect, tokens.color(tokens.BG, 0.6), 5, 17)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(QPen(QColor(tokens.STOP), 2, Qt.PenStyle.SolidLine, Qt.PenCapStyle.FlatCap, Qt.PenJoinStyle.MiterJoin))
        painter.drawRect(rect.adjusted(1, 1, -1, -1))
        box = QRectF(0, 0, 160, 72)
        box.moveCenter(rect.center())
        fill_round(painter, box, tokens.BG, tokens.CHIP_RADIUS)
        age = self._overlay.age_ms
        text = f"{max(0.0, age) / 1000:.1f} s old" if age < 99_500 else f"{age / 60_000:.0f} min old"
        draw_text(painter, QRectF(box.x(), box.y() + 8, 160, 32), text, tokens.STOP, 24, SEMIBOLD, CENTER)
        draw_text(painter, QRectF(box.x(), box.y() + 44, 160, 18), "not live", T2, 12, REGULAR, CENTER)

    def _chips(self, painter: QPainter, rect: QRectF, stale: bool) -> None:
        margin = 8 if self.compact else 16
        name: list[Run] = [(self.camera.capitalize(), T1, MEDIUM)]
        if self._overlay.note and not self.compact:
            name.append((f"  {self._overlay.note}", T3, REGULAR))
        self._chip(painter, rect.x() + margin, rect.y() + margin, name)
        age = self._overlay.age_ms
        width = 80 if self.compact else 96
        runs: list[Run] = [("age ", T3, REGULAR), (milliseconds(age), T1, REGULAR)]
        bg = tokens.BG
        if stale:
            runs, bg = [(f"age {milliseconds(age)}", tokens.STOP_INK, SEMIBOLD)], tokens.STOP
        elif age > RED_MS:
            runs = [("age ", T3, REGULAR), (milliseconds(age), tokens.STOP, SEMIBOLD)]
        elif age > AMBER_MS:
            runs = [("age ", T3, REGULAR), (milliseconds(age), tokens.TAKEOVER, SEMIBOLD)]
        self._chip(painter, rect.right() - margin - width, rect.y() + margin, runs, width, bg)
        if self._overlay.chips:
            pieces: list[Run] = []
            for i, (label, value) in enumerate(self._overlay.chips):
                pieces += [(("    " if i else "") + f"{label}  ", T3, REGULAR), (value, T1, REGULAR)]
            self._chip(painter, rect.x() + margin, rect.bottom() - margin - 24, pieces)

    @staticmethod
    def _chip(painter: QPainter, x: float, y: float, runs: list[Run], fixed: float = 0.0, bg: str = tokens.BG) -> None:
        width = sum(text_width(text, 12, weight) for text, _, weight in runs)
        box = QRectF(x, y, fixed or width + 16, 24)
        fill_round(painter, box, bg, tokens.CHIP_RADIUS)
        draw_runs(painter, box.x() + (box.width() - width) / 2, box, runs)

    def _arrow(self, painter: QPainter, rect: QRectF) -> None:
        """From the tool along the command, with a dark edge so that it reads on any picture."""
        if self._overlay.arrow is None:
            return
        scale = rect.width() / self._image.width()
        (ax, ay), (bx, by) = self._overlay.arrow
        start = QPointF(rect.x() + ax * scale, rect.y() + ay * scale)
        end = QPointF(rect.x() + bx * scale, rect.y() + by * scale)
        along = end - start
        length = max(1e-6, (along.x() ** 2 + along.y() ** 2) ** 0.5)
        path = QPainterPath(start)
        path.lineTo(end)
        if length > 8:
            ux, uy = along.x() / length, along.y() / length
            for side in (0.5, -0.5):
                wing = QPointF(end.x() - 13 * ux + 13 * side * uy, end.y() - 13 * uy - 13 * side * ux)
                path.moveTo(end)
                path.lineTo(wing)
        painter.save()
        painter.setClipRect(rect)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        for color, width in ((tokens.INK, 6.0), (self._overlay.arrow_color, 2.5)):
            painter.setPen(QPen(QColor(color), width, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap, Qt.PenJoinStyle.RoundJoin))
            painter.drawPath(path)
        painter.setPen(QPen(QColor(tokens.INK), 1.5))
        painter.setBrush(QColor(self._overlay.arrow_color))
        painter.drawEllipse(start, 5, 5)
        painter.restore()

    def _inset(self, painter: QPainter, rect: QRectF) -> None:
        """Plan (x, y) and height (z) of the command: one arrow alone hides depth."""
        if self._overlay.twist is None:
            return
        x, y, z = self._overlay.twist
        box = QRectF(rect.right() - 16 - 128, rect.bottom() - 16 - 104, 128, 104)
        fill_round(painter, box, tokens.BG, tokens.CHIP_RADIUS)
        draw_text(painter, QRectF(box.x() + 8, box.y() + 5, 116, 16), self._overlay.twist_title, T3, 11)
        center = QPointF(box.x() + 46, box.y() + 66)
        reach = 26.0
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(QPen(QColor(tokens.LINE), 1))
        painter.drawLine(QPointF(center.x(), center.y() - reach), QPointF(center.x(), center.y() + reach))
        painter.drawLine(QPointF(center.x() - reach, center.y()), QPointF(center.x() + reach, center.y()))
        painter.setPen(QPen(QColor(tokens.KEY_BORDER), 1))
        painter.drawEllipse(center, reach, reach)
        tip = QPointF(center.x() + reach * x, center.y() - reach * y)
        painter.setPen(QPen(QColor(tokens.TAKEOVER), 2))
        painter.drawLine(center, tip)
        painter.setBrush(QColor(tokens.TAKEOVER))
        painter.setPen(Qt.PenStyle.NoPen)
        painter.drawEllipse(tip, 3.5, 3.5)
        bar = QRectF(box.x() + 100, center.y() - reach, 6, 2 * reach)
        painter.fillRect(bar, QColor(tokens.LINE))
        if z:
            painter.fillRect(QRectF(bar.x(), min(center.y(), center.y() - reach * z), 6, abs(reach * z)), QColor(tokens.TAKEOVER))
        painter.fillRect(QRectF(bar.x() - 3, round(center.y()), 12, 1), QColor(T3))
        draw_text(painter, QRectF(center.x() + reach + 6, center.y() - 8, 12, 16), "x", T3, 11)
        draw_text(painter, QRectF(center.x() - 10, box.y() + 20, 20, 14), "y", T3, 11, REGULAR, CENTER)
        draw_text(painter, QRectF(bar.right() + 7, center.y() - 8, 12, 16), "z", T3, 11)
