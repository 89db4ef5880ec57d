"""One curve of the timeline with its name and axis."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPen, QPolygonF

from takeover.app.console import tokens
from takeover.app.console.models.review import Signal, Timeline, minus
from takeover.app.console.widgets import RIGHT, draw_text


def paint_curve(painter: QPainter, row: QRectF, timeline: Timeline, curve: Signal, x_of: Callable[[float], float]) -> None:
    """``row``: the plot's part of the row, name and axis stand left of it; ``x_of`` a time in seconds. Holds and gaps are not joined."""
    left = row.left()
    painter.setPen(QPen(QColor(tokens.GRID), 1))
    painter.drawLine(QPointF(left, row.top() + 0.5), QPointF(row.right(), row.top() + 0.5))
    draw_text(painter, QRectF(12, row.top() + 5, left - 40, 16), curve.name, tokens.T2, 12)
    if curve.unit:
        draw_text(painter, QRectF(12, row.top() + 20, left - 44, 16), curve.unit, tokens.T3, 11)
    draw_text(painter, QRectF(left - 46, row.top() + 2, 40, 14), minus(f"{curve.high:g}"), tokens.T3, 11, align=RIGHT)
    draw_text(painter, QRectF(left - 46, row.bottom() - 14, 40, 14), minus(f"{curve.low:g}"), tokens.T3, 11, align=RIGHT)
    painter.setPen(QPen(QColor(tokens.T1), 1))
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    span = (curve.high - curve.low) or 1.0
    for start, stop in pairwise([0, *timeline.breaks(), timeline.steps]):
        points: list[QPointF] = []
        for step in range(start, stop):
            value = curve.values[step]
            if np.isfinite(value):
                y = row.bottom() - 5 - (value - curve.low) / span * (row.height() - 10)
                points.append(QPointF(x_of((step + 0.5) / timeline.control_hz), y))
            elif points:
                painter.drawPolyline(QPolygonF(points))
                points = []
        if points:
            painter.drawPolyline(QPolygonF(points))
