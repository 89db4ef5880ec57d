"""What is read in a line or a table: chip, key caps and hints, name and value, small table."""

import html
from collections.abc import Sequence

from PySide6.QtCore import QRectF, Signal
from PySide6.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QWidget

from takeover.app.console import tokens
from takeover.app.console.painting import LEFT, RIGHT, Run, draw_key_cap, draw_runs, draw_text, fill_round, key_cap_width, text_width
from takeover.app.console.tokens import MEDIUM, REGULAR, T1, T2, T3


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


LONG_VALUE = 40  # characters; longer ones may be cut off, and are whole in the tooltip


class KeyValueRow(QWidget):
    """Label left, value right, 20 px (24 in loose tables)."""

    def __init__(self, label: str, value: str = "", height: int = 20, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.label, self._value, self._color = label, value, T1
        self.setFixedHeight(height)

    def set_value(self, value: str, color: str = T1) -> None:
        if (value, color) != (self._value, self._color):
            self._value, self._color = value, color
            self.setToolTip(f"<p>{html.escape(value)}</p>" if len(value) > LONG_VALUE else "")  # rich text is wrapped
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
