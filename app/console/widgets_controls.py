"""What is pressed: button and segmented control. Painted, so that all pages look alike."""

from collections.abc import Sequence

from PySide6.QtCore import QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QMouseEvent, QPainter, QPainterPath, QPaintEvent, QPen
from PySide6.QtWidgets import QAbstractButton, QSizePolicy, QWidget

from takeover.app.console import tokens
from takeover.app.console.icons import draw_icon
from takeover.app.console.painting import CENTER, draw_key_cap, draw_text, key_cap_width, text_width
from takeover.app.console.tokens import MEDIUM, REGULAR, SEMIBOLD, T1, T2, T3


class Button(QAbstractButton):
    """32 px high (main action 40). ``kind``: normal, primary (one per page), danger. Disabled ones are dashed; say why in the tooltip."""

    def __init__(self, text: str, keys: Sequence[str] = (), kind: str = "normal", icon: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setText(text)
        self.keys, self.kind, self.icon_name = tuple(keys), kind, icon
        self._height = 40 if kind == "primary-large" else 32
        self.setFixedHeight(self._height)
        self.setSizePolicy(QSizePolicy.Policy.Minimum, QSizePolicy.Policy.Fixed)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # keys belong to the page, Space is the deadman

    def sizeHint(self) -> QSize:
        width = text_width(self.text(), 12, SEMIBOLD) + 28
        width += sum(key_cap_width(key) + 6 for key in self.keys)
        width += 24 if self.icon_name else 0
        return QSize(int(width), self._height)

    def minimumSizeHint(self) -> QSize:
        return self.sizeHint()

    def set_keys(self, keys: Sequence[str]) -> None:
        if tuple(keys) != self.keys:
            self.keys = tuple(keys)
            self.updateGeometry()
            self.update()

    def setText(self, text: str) -> None:
        if text != self.text():
            super().setText(text)
            self.updateGeometry()

    def _colors(self) -> tuple[str, str, str]:
        """Background, border, text."""
        if not self.isEnabled():
            return "", tokens.CONTROL, T3
        if self.kind.startswith("primary") or self.isChecked():
            return (tokens.T2 if self.isDown() else T1), T1, tokens.INK
        if self.kind == "danger":
            return tokens.STOP, tokens.STOP, tokens.STOP_INK
        return (tokens.CONTROL if self.isDown() or self.underMouse() else tokens.RAISED), tokens.CONTROL, T1

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        bg, border, fg = self._colors()
        pen = QPen(QColor(border), 1)
        if not self.isEnabled():
            pen.setDashPattern([3, 3])
        painter.setPen(pen)
        painter.setBrush(QColor(bg) if bg else Qt.BrushStyle.NoBrush)
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), tokens.RADIUS, tokens.RADIUS)
        weight = SEMIBOLD if self.kind.startswith("primary") else MEDIUM
        label_width = text_width(self.text(), 12, weight)
        keys_width = sum(key_cap_width(key) + 6 for key in self.keys) + (2 if self.keys else 0)
        icon_width = 24 if self.icon_name else 0
        x = max(8.0, (self.width() - label_width - keys_width - icon_width) / 2)
        middle = self.height() / 2
        if self.icon_name:
            draw_icon(painter, self.icon_name, x, middle - 8, 16, fg)
            x += icon_width
        draw_text(painter, QRectF(x, 0, min(label_width + 1, self.width() - x - 4), self.height()), self.text(), fg, 12, weight)
        x += label_width + 8
        on_fill = bg in (T1, tokens.T2)
        for key in self.keys:
            x += (
                draw_key_cap(
                    painter,
                    x,
                    middle,
                    key,
                    fg if on_fill else T2,
                    tokens.T3 if on_fill else tokens.KEY_BORDER,
                    "" if on_fill else tokens.BG,
                )
                + 6
            )

    def enterEvent(self, event: object) -> None:
        self.update()

    def leaveEvent(self, event: object) -> None:
        self.update()


class Segmented(QWidget):
    """A row of exclusive choices; the chosen one is white, never coloured; index -1: none yet. ``changed(index)`` on the user's act."""

    changed = Signal(int)

    def __init__(self, options: Sequence[str], index: int = 0, height: int = 28, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.options = list(options)
        self._index = index
        self._enabled = [True] * len(self.options)
        self.setFixedHeight(height)
        self.setMinimumWidth(int(sum(text_width(o, 12, SEMIBOLD) + 20 for o in self.options)))
        self.setCursor(Qt.CursorShape.PointingHandCursor)

    @property
    def index(self) -> int:
        return self._index

    def set_index(self, index: int) -> None:
        if not -1 <= index < len(self.options):
            raise IndexError(f"segment {index} of {len(self.options)}")
        if index != self._index:
            self._index = index
            self.update()

    def set_options(self, options: Sequence[str]) -> None:
        self.options = list(options)
        self._enabled = [True] * len(self.options)
        self._index = min(self._index, len(self.options) - 1)
        self.setMinimumWidth(int(sum(text_width(o, 12, SEMIBOLD) + 20 for o in self.options)))
        self.update()

    def _edges(self) -> list[float]:
        return [round(i * self.width() / len(self.options)) for i in range(len(self.options) + 1)]

    def mousePressEvent(self, event: QMouseEvent) -> None:
        index = min(len(self.options) - 1, max(0, int(event.position().x() * len(self.options) / max(1, self.width()))))
        if index != self._index and self.isEnabled():
            self.set_index(index)
            self.changed.emit(index)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        outline = QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5)
        path = QPainterPath()
        path.addRoundedRect(outline, tokens.RADIUS, tokens.RADIUS)
        edges = self._edges()
        painter.save()
        painter.setClipPath(path)
        painter.fillPath(path, QColor(tokens.BG))
        on = self._index
        if on >= 0:
            painter.fillRect(
                QRectF(edges[on], 0, edges[on + 1] - edges[on], self.height()), QColor(T1 if self.isEnabled() else tokens.LINE)
            )
        painter.restore()
        painter.setPen(QPen(QColor(tokens.CONTROL), 1))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawPath(path)
        for i, option in enumerate(self.options):
            if i:
                painter.setPen(QPen(QColor(tokens.CONTROL), 1))
                painter.drawLine(QPointF(edges[i] + 0.5, 1), QPointF(edges[i] + 0.5, self.height() - 1))
            chosen = i == on
            ink = (tokens.INK if self.isEnabled() else T2) if chosen else T2
            draw_text(
                painter,
                QRectF(edges[i], 0, edges[i + 1] - edges[i], self.height()),
                option,
                ink,
                12,
                SEMIBOLD if chosen else REGULAR,
                CENTER,
            )
