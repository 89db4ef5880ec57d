"""Basic widgets every page is made of: the panel and the empty state here, controls and rows from their own files."""

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QKeyEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from takeover.app.console import tokens
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
from takeover.app.console.tokens import REGULAR, SEMIBOLD, T1, T2, T3, font
from takeover.app.console.widgets_controls import Button, Segmented
from takeover.app.console.widgets_rows import Chip, KeyCap, KeyHints, KeyValueRow, TableView

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
