"""Painter helpers in the design's terms: lines of text, runs, key caps, rounded fills, hatches."""

from collections.abc import Sequence

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QFontMetricsF, QPainter, QPen

from takeover.app.console import tokens
from takeover.app.console.tokens import MEDIUM, REGULAR, T1, T2, font

Run = tuple[str, str, int]  # text, colour, weight

LEFT = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
CENTER = Qt.AlignmentFlag.AlignCenter


def text_width(text: str, size: int = 12, weight: int = REGULAR) -> float:
    return QFontMetricsF(font(size, weight)).horizontalAdvance(text)


def elided(text: str, width: float, size: int = 12, weight: int = REGULAR) -> str:
    return QFontMetricsF(font(size, weight)).elidedText(text, Qt.TextElideMode.ElideRight, width)


def draw_text(
    painter: QPainter,
    rect: QRectF,
    text: str,
    color: str = T1,
    size: int = 12,
    weight: int = REGULAR,
    align: Qt.AlignmentFlag = LEFT,
    spacing_px: float = 0.0,
) -> None:
    """One line, elided when it does not fit."""
    painter.setFont(font(size, weight, spacing_px))
    painter.setPen(QColor(color))
    metrics = QFontMetricsF(painter.font())
    if metrics.horizontalAdvance(text) > rect.width() + 1:
        text = metrics.elidedText(text, Qt.TextElideMode.ElideRight, rect.width())
    painter.drawText(rect, int(align | Qt.TextFlag.TextSingleLine), text)


def draw_runs(painter: QPainter, x: float, rect: QRectF, runs: Sequence[Run], size: int = 12) -> float:
    """Pieces of differing colour and weight on one line from ``x``; returns where they end."""
    for text, color, weight in runs:
        width = text_width(text, size, weight)
        draw_text(painter, QRectF(x, rect.y(), width + 1, rect.height()), text, color, size, weight)
        x += width
    return x


def key_cap_width(text: str) -> float:
    return max(20.0, text_width(text, 11, MEDIUM) + 12)


def draw_key_cap(
    painter: QPainter, x: float, center_y: float, text: str, fg: str = T2, border: str = tokens.KEY_BORDER, bg: str = tokens.BG
) -> float:
    """18 px high; returns its width."""
    width = key_cap_width(text)
    rect = QRectF(x + 0.5, center_y - 8.5, width - 1, 17)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QPen(QColor(border), 1))
    painter.setBrush(QColor(bg) if bg else Qt.BrushStyle.NoBrush)
    painter.drawRoundedRect(rect, 3, 3)
    draw_text(painter, rect, text, fg, 11, MEDIUM, CENTER)
    return width


def fill_round(painter: QPainter, rect: QRectF, color: str | QColor, radius: float) -> None:
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(color))
    painter.drawRoundedRect(rect, radius, radius)


def hatch(painter: QPainter, rect: QRectF, color: QColor, width: float, step: float) -> None:
    """Solid diagonal stripes, ``step`` px apart along x."""
    painter.save()
    painter.setClipRect(rect, Qt.ClipOperation.IntersectClip)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QPen(color, width))
    x = rect.left() - rect.height()
    x -= x % step
    while x < rect.right():
        painter.drawLine(QPointF(x, rect.bottom()), QPointF(x + rect.height(), rect.top()))
        x += step
    painter.restore()
