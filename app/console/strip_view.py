"""The 60 s strip: who drove, two signals on the same time axis, present values at the right. Redrawn at 10-15 Hz."""

import math

import numpy as np
from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPen, QPolygonF

from takeover.app.console import tokens
from takeover.app.console.icons import draw_icon
from takeover.app.console.models import strip as model
from takeover.app.console.models.strip import Strip
from takeover.app.console.tokens import MEDIUM, REGULAR, SEMIBOLD, T1, T2, T3
from takeover.app.console.widgets import CENTER, RIGHT, Panel, draw_text, hatch, text_width

_LEFT, _RIGHT = 112, 88
_WHO = {model.POLICY: tokens.POLICY, model.PERSON: tokens.TAKEOVER, model.HELD: tokens.HOLD, model.STOPPED: tokens.STOP}
_LEGEND = (("policy", tokens.POLICY), ("", tokens.TAKEOVER), ("held", tokens.HOLD), ("reset", tokens.BAND))
_NOW = {
    model.POLICY: "policy",
    model.HELD: "held",
    model.STOPPED: "stopped",
    model.NOBODY: "nobody",
}

_LEAST_TOP = {"force": 10.0, "height": 100.0, "gripper": 100.0, "steps_to_go": 50.0}  # so that noise does not look like motion


class StripView(Panel):
    def __init__(self, strip: Strip) -> None:
        super().__init__("Last 60 s", header=28)
        self.strip = strip

    def paint_body(self, painter: QPainter) -> None:
        self.legend(painter)
        plot = QRectF(_LEFT, 30, self.width() - _LEFT - _RIGHT, self.height() - 30 - 22)
        if plot.width() < 100:
            return
        band = QRectF(plot.x(), plot.y() + 2, plot.width(), 24)
        self._grid(painter, plot)
        self._who(painter, band)
        rows = self.strip.rows()
        height = (plot.bottom() - band.bottom() - 12) / 2
        for i in range(2):
            area = QRectF(plot.x(), band.bottom() + 10 + i * (height + 4), plot.width(), height - 10)
            if i < len(rows):
                self._curve(painter, area, *rows[i])
        if not len(self.strip.window()[0]):
            draw_text(painter, plot, "nothing has happened yet", T3, 12, REGULAR, CENTER)
        painter.fillRect(QRectF(plot.right(), plot.y() - 2, 1, plot.height() + 2), QColor(T1))

    def legend(self, painter: QPainter) -> None:
        x = 12 + text_width("Last 60 s", 12, SEMIBOLD) + 14
        for fixed, color in _LEGEND:
            name = fixed or self.strip.human
            box = QRectF(round(x), 9, 10, 10)
            painter.fillRect(box, QColor(color))
            if color == tokens.BAND:
                painter.setPen(QPen(QColor(tokens.KEY_BORDER), 1))
                painter.setBrush(Qt.BrushStyle.NoBrush)
                painter.drawRect(box.adjusted(0.5, 0.5, -0.5, -0.5))
            draw_text(painter, QRectF(x + 15, 0, 100, 28), name, T2, 11)
            x += 15 + text_width(name, 11) + 14

    def _grid(self, painter: QPainter, plot: QRectF) -> None:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
        for i in range(7):
            x = plot.x() + plot.width() * i / 6
            painter.fillRect(QRectF(round(x), plot.y(), 1, plot.height()), QColor(tokens.GRID))
            text = "now" if i == 6 else f"−{60 - 10 * i} s"
            draw_text(painter, QRectF(x - 30, plot.bottom() + 4, 60, 14), text, T3, 11, REGULAR, CENTER)

    def _who(self, painter: QPainter, band: QRectF) -> None:
        draw_text(painter, QRectF(12, band.y(), 90, 24), "Who drove", T2)
        painter.fillRect(band, QColor(tokens.BAND))
        scale = band.width() / model.SECONDS
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
        spans = self.strip.spans()
        for start, end, who in spans:
            if who == model.NOBODY:
                continue
            box = QRectF(band.right() + start * scale, band.y(), max(1.0, (end - start) * scale), 24)
            if who == model.RAMP:
                painter.fillRect(box, QColor(tokens.RAMP))
                hatch(painter, box, QColor(tokens.TAKEOVER), 2, 5)
            else:
                painter.fillRect(box, QColor(_WHO[who]))
            if who in (model.HELD, model.STOPPED) and box.width() > 44:
                draw_text(painter, box, _NOW[who], tokens.INK, 11, SEMIBOLD, CENTER)
        for item in self.strip.outcomes:
            x = band.right() + (item.t_s - self.strip.newest_s) * scale
            name, color = {"success": ("check", T2), "failure": ("xcirc", tokens.STOP)}.get(item.outcome, ("back", T3))
            if x < band.right() - 4:
                painter.fillRect(QRectF(x + 1, band.y() + 4, 16, 16), QColor(tokens.BAND))
                draw_icon(painter, name, x + 2, band.y() + 5, 14, color, 2.2)
        now = _NOW.get(spans[-1][2], self.strip.human_now) if spans else "nobody"
        draw_text(painter, QRectF(self.width() - _RIGHT, band.y(), _RIGHT - 8, 24), now, T1, 12, MEDIUM, RIGHT)

    def _curve(self, painter: QPainter, area: QRectF, name: str, title: str, unit: str) -> None:
        pieces = self.strip.curves(name)
        top = _nice_top(max((float(np.nanmax(values)) for _, values in pieces), default=0.0), _LEAST_TOP.get(name, 1.0))
        draw_text(painter, QRectF(12, area.y() + 2, 90, 16), title, T2)
        draw_text(painter, QRectF(area.x() - 46, area.y() - 5, 40, 14), f"{top:g}", T3, 11, REGULAR, RIGHT)
        draw_text(painter, QRectF(area.x() - 46, area.bottom() - 9, 40, 14), "0", T3, 11, REGULAR, RIGHT)
        painter.fillRect(QRectF(area.x(), round(area.bottom()), area.width(), 1), QColor(tokens.GRID))
        painter.setPen(QPen(QColor(T1), 1))
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        scale = area.width() / model.SECONDS
        for t, values in pieces:
            x = area.right() + t * scale
            y = area.bottom() - np.clip(values / top, 0, 1) * area.height()
            painter.drawPolyline(QPolygonF([QPointF(float(a), float(b)) for a, b in zip(x, y, strict=True)]))
        value = self.strip.latest(name)
        shown = "–" if not math.isfinite(value) else f"{value:.2f}" if top <= 1.0 else f"{value:.1f}" if abs(value) < 20 else f"{value:.0f}"
        right = QRectF(self.width() - _RIGHT, area.y() - 2, _RIGHT - 8, 20)
        draw_text(painter, right, shown, T1, 15, MEDIUM, RIGHT)
        draw_text(painter, right.translated(0, 17), unit, T3, 11, REGULAR, RIGHT)


def _nice_top(value: float, at_least: float = 0.0) -> float:
    """The next of 1, 2, 5 times a power of ten; at least ``at_least``."""
    value = max(value, at_least, 1e-3)
    power = 10.0 ** math.floor(math.log10(value))
    for step in (1, 2, 5, 10):
        if value <= step * power * 1.0001:
            return float(step * power)
    return 10.0 * power
