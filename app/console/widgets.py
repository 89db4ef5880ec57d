"""Basic widgets every page is made of: panel, button, segmented control, chip, key cap, rows. Painted, so that all pages look alike."""

from collections.abc import Sequence

from PySide6.QtCore import QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter, QPainterPath, QPaintEvent, QPen
from PySide6.QtWidgets import QAbstractButton, QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from takeover.app.console import tokens
from takeover.app.console.icons import draw_icon
from takeover.app.console.painting import (
    CENTER,
    LEFT,
    RIGHT,
    Run,
    draw_key_cap,
    draw_runs,
    draw_text,
    elided,
    fill_round,
    hatch,
    key_cap_width,
    text_width,
)
from takeover.app.console.tokens import MEDIUM, REGULAR, SEMIBOLD, T1, T2, T3, font

__all__ = [
    "CENTER",
    "LEFT",
    "RIGHT",
    "Button",
    "Chip",
    "EmptyState",
    "KeyCap",
    "KeyHints",
    "KeyValueRow",
    "Panel",
    "Run",
    "Segmented",
    "TableView",
    "draw_key_cap",
    "draw_runs",
    "draw_text",
    "elided",
    "fill_round",
    "hatch",
    "is_plain",
    "key_cap_width",
    "label",
    "text_width",
]


class Panel(QWidget):
    """Surface with a title row (32 px; 28 over plots), a note at its right, and a body layout."""

    def __init__(
        self, title: str = "", note: str = "", *, header: int = 32, padding: int = tokens.PADDING, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._title, self._note, self.header = title, note, header if title else 0
        self.body = QVBoxLayout(self)
        self.body.setContentsMargins(padding, self.header, padding, padding)
        self.body.setSpacing(tokens.GUTTER)

    def set_title(self, title: str, note: str | None = None) -> None:
        if (title, note if note is not None else self._note) != (self._title, self._note):
            self._title = title
            self._note = self._note if note is None else note
            self.update()

    def set_note(self, note: str) -> None:
        self.set_title(self._title, note)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        self.paint_base(painter)
        self.paint_body(painter)

    def paint_base(self, painter: QPainter) -> None:
        fill_round(painter, QRectF(self.rect()), tokens.SURFACE, tokens.RADIUS)
        if not self.header:
            return
        note_width = text_width(self._note) if self._note else 0
        room = self.width() - 2 * tokens.PADDING
        draw_text(painter, QRectF(tokens.PADDING, 0, room - note_width - 8, self.header), self._title, T1, 12, SEMIBOLD)
        if self._note:
            draw_text(painter, QRectF(tokens.PADDING, 0, room, self.header), self._note, T3, 12, REGULAR, RIGHT)

    def paint_body(self, painter: QPainter) -> None:
        """For panels that paint themselves; called after the surface and title."""


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


class Chip(QWidget):
    """24 px high, opaque; runs of (text, colour, weight). With ``width`` fixed so that digits do not jitter."""

    def __init__(self, runs: Sequence[Run] = (), width: int = 0, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._runs: list[Run] = list(runs)
        self._fixed = width
        self._bg = tokens.BG
        self.setFixedHeight(24)
        self._fit()

    def set_runs(self, runs: Sequence[Run], bg: str = tokens.BG) -> None:
        if list(runs) != self._runs or bg != self._bg:
            self._runs, self._bg = list(runs), bg
            self._fit()
            self.update()

    def _fit(self) -> None:
        width = sum(text_width(text, 12, weight) for text, _, weight in self._runs) + 16
        self.setFixedWidth(self._fixed or int(width + 1))

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        fill_round(painter, QRectF(self.rect()), self._bg, tokens.CHIP_RADIUS)
        width = sum(text_width(text, 12, weight) for text, _, weight in self._runs)
        draw_runs(painter, (self.width() - width) / 2 if self._fixed else 8, QRectF(self.rect()), self._runs)


class KeyCap(QWidget):
    def __init__(self, text: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.text = text
        self.setFixedSize(int(key_cap_width(text) + 0.5), 18)

    def paintEvent(self, event: QPaintEvent) -> None:
        draw_key_cap(QPainter(self), 0, 9, self.text)


class KeyHints(QWidget):
    """A row of (key cap, what it does); those that do not fit are left out, the right group stays."""

    def __init__(self, hints: Sequence[tuple[str, str]] = (), right: Sequence[tuple[str, str]] = (), parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._hints, self._right = list(hints), list(right)
        self.setFixedHeight(32)

    def set_hints(self, hints: Sequence[tuple[str, str]]) -> None:
        if list(hints) != self._hints:
            self._hints = list(hints)
            self.update()

    @staticmethod
    def _width(hint: tuple[str, str]) -> float:
        return key_cap_width(hint[0]) + 8 + text_width(hint[1]) + 20

    def _draw(self, painter: QPainter, x: float, hint: tuple[str, str]) -> None:
        cap = draw_key_cap(painter, x, 16, hint[0])
        draw_text(painter, QRectF(x + cap + 8, 0, text_width(hint[1]) + 2, 32), hint[1], T2)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        right = self.width() - sum(self._width(hint) for hint in self._right) + 16
        x = right
        for hint in self._right:
            self._draw(painter, x, hint)
            x += self._width(hint)
        x = 4.0
        for hint in self._hints:
            if x + self._width(hint) > right:
                break
            self._draw(painter, x, hint)
            x += self._width(hint)


class KeyValueRow(QWidget):
    """Label left, value right, 20 px (24 in loose tables)."""

    def __init__(self, label: str, value: str = "", height: int = 20, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.label, self._value, self._color = label, value, T1
        self.setFixedHeight(height)

    def set_value(self, value: str, color: str = T1) -> None:
        if (value, color) != (self._value, self._color):
            self._value, self._color = value, color
            self.update()

    @property
    def value(self) -> str:
        return self._value

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        rect = QRectF(self.rect())
        draw_text(painter, rect, self.label, T2)
        room = rect.adjusted(text_width(self.label) + 8, 0, 0, 0)
        draw_text(painter, room, self._value, self._color, 12, MEDIUM, RIGHT)


class TableView(QWidget):
    """A small painted table. ``columns``: (title, width px or 0 = share the rest, right-aligned)."""

    row_clicked = Signal(int)

    def __init__(self, columns: Sequence[tuple[str, int, bool]], row_height: int = 24, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.columns, self.row_height = list(columns), row_height
        self.rows: list[list[str]] = []
        self.selected = -1
        self.set_rows([])

    def set_rows(self, rows: Sequence[Sequence[str]], selected: int = -1) -> None:
        fresh = [list(row) for row in rows]
        if fresh != self.rows or selected != self.selected:
            self.rows, self.selected = fresh, selected
            self.update()
        self.setMinimumHeight(18 + self.row_height * len(self.rows))

    def _spans(self) -> list[tuple[float, float]]:
        fixed = sum(width for _, width, _ in self.columns)
        flexible = sum(1 for _, width, _ in self.columns if not width)
        share = max(0.0, self.width() - 2 * tokens.PADDING - fixed) / flexible if flexible else 0.0
        x, spans = float(tokens.PADDING), []
        for _, width, _ in self.columns:
            spans.append((x, width or share))
            x += width or share
        return spans

    def mousePressEvent(self, event: QMouseEvent) -> None:
        row = int((event.position().y() - 18) // self.row_height)
        if 0 <= row < len(self.rows):
            self.row_clicked.emit(row)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        spans = self._spans()
        for (title, _, right), (x, width) in zip(self.columns, spans, strict=True):
            draw_text(painter, QRectF(x, 0, width - 4 if not right else width, 18), title, T3, 11, REGULAR, RIGHT if right else LEFT)
        for i, row in enumerate(self.rows):
            y = 18 + i * self.row_height
            if i == self.selected:
                painter.fillRect(QRectF(0, y, self.width(), self.row_height), QColor(tokens.RAISED))
            for j, ((_, _, right), (x, width)) in enumerate(zip(self.columns, spans, strict=True)):
                value = row[j] if j < len(row) else ""
                ink = T1 if j in (0, len(self.columns) - 1) else T2
                draw_text(
                    painter,
                    QRectF(x, y, width - 4 if not right else width, self.row_height),
                    value,
                    ink,
                    12,
                    REGULAR,
                    RIGHT if right else LEFT,
                )


class EmptyState(QWidget):
    """What is missing, why, and one button."""

    def __init__(self, title: str, why: str, button: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setSpacing(8)
        layout.addStretch(1)
        self.title = label(title, T1, 15, SEMIBOLD, wrap=True)
        self.why = label(why, T2, 13, wrap=True)
        for item in (self.title, self.why):
            item.setAlignment(Qt.AlignmentFlag.AlignCenter)
            layout.addWidget(item)
        self.button: Button | None = None
        if button:
            row = QHBoxLayout()
            row.addStretch(1)
            self.button = Button(button, kind="primary")
            row.addWidget(self.button)
            row.addStretch(1)
            layout.addSpacing(8)
            layout.addLayout(row)
        layout.addStretch(1)


def label(text: str = "", color: str = T2, size: int = 12, weight: int = REGULAR, wrap: bool = False) -> QLabel:
    made = QLabel(text)
    made.setFont(font(size, weight))
    made.setStyleSheet(f"color: {color}")
    made.setWordWrap(wrap)
    return made


def is_plain(event: QKeyEvent) -> bool:
    """Without Ctrl, Alt or Meta."""
    blocked = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.AltModifier | Qt.KeyboardModifier.MetaModifier
    return not event.modifiers() & blocked
