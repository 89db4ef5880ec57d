"""Subtask and free tags: one line each, completed from names that are in use already; a tag is taken off by clicking it."""

import re
from collections.abc import Sequence

from PySide6.QtCore import QEvent, QObject, QRectF, QSize, QStringListModel, Qt, QTimer, Signal
from PySide6.QtGui import QKeyEvent, QMouseEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QCompleter, QLineEdit, QVBoxLayout, QWidget

from takeover.app.console import tokens
from takeover.app.console.widgets import draw_text, fill_round, text_width

MOST = 32  # characters of a name
_CHIP, _GAP = 22, 6


def name_of(text: str) -> str:
    """What is typed as a name: lower case, words joined by "_". Raises `ValueError` for what a name cannot have."""
    name = re.sub(r"\s+", "_", text.strip().lower())
    if not re.fullmatch(r"[0-9a-z_-]{0,32}", name):
        raise ValueError(f'"{text.strip()[:40]}" is no name: letters a to z, digits, _ and -, at most {MOST}')
    return name


class Line(QLineEdit):
    """A line in which Enter ends: the page would take it for Submit."""

    def keyPressEvent(self, event: QKeyEvent) -> None:
        super().keyPressEvent(event)
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            event.accept()


class NameEdit(Line):
    """`entered(name)` on Enter or a chosen completion, `refused(why)` for what is no name. Esc leaves it as it was."""

    entered = Signal(str)
    refused = Signal(str)

    def __init__(self, placeholder: str, clears: bool, parent: QWidget | None = None) -> None:
        """``clears``: empty again after a name was entered (tags), else it keeps the name (a subtask)."""
        super().__init__(parent)
        self._clears, self._shown = clears, ""
        self._names = QStringListModel(self)
        completer = QCompleter(self._names, self)
        completer.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        completer.setFilterMode(Qt.MatchFlag.MatchContains)
        completer.activated.connect(lambda _: QTimer.singleShot(0, self.enter))
        self.setCompleter(completer)
        self.setPlaceholderText(placeholder)
        self.setFont(tokens.font(12))
        self.setFixedHeight(28)
        self.setMaxLength(2 * MOST)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.returnPressed.connect(self.enter)
        self.installEventFilter(self)

    def set_names(self, names: Sequence[str]) -> None:
        """What is offered while typing."""
        if list(names) != self._names.stringList():
            self._names.setStringList(list(names))

    @property
    def names(self) -> list[str]:
        return self._names.stringList()

    def show_name(self, name: str) -> None:
        """What holds; what is being typed is left alone."""
        if name != self._shown or not self.hasFocus():
            self._shown = name
            if self.text() != name:
                self.setText(name)

    def enter(self) -> None:
        """Report what is typed, if it is a name and another one."""
        try:
            name = name_of(self.text())
        except ValueError as error:
            self.refused.emit(str(error))
            return
        if self._clears:
            self.clear()
        else:
            self._shown = name
            self.setText(name)
            self.clearFocus()
        if name or not self._clears:
            self.entered.emit(name)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Esc is left to STOP, and gives the field back what it had; leaving a subtask enters it."""
        if event.type() == QEvent.Type.FocusOut and not self._clears and self.text() != self._shown:
            self.enter()
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress and event.key() == Qt.Key.Key_Tab:
            self.clearFocus()
            return True
        return False


class TagChips(QWidget):
    """The tags of a segment; `removed(tag)` on a click."""

    removed = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.tags: list[str] = []
        self.setFixedHeight(0)
        self.setToolTip("Click a tag to take it off.")
        self.setCursor(Qt.CursorShape.PointingHandCursor)

    def sizeHint(self) -> QSize:
        return QSize(100, self.height())

    def set_tags(self, tags: Sequence[str]) -> None:
        if list(tags) != self.tags:
            self.tags = list(tags)
            self._fit()
            self.update()

    def _fit(self) -> None:
        boxes = self.boxes()
        self.setFixedHeight(int(boxes[-1][1].bottom()) if boxes else 0)

    def resizeEvent(self, event: object) -> None:
        self._fit()

    def boxes(self) -> list[tuple[str, QRectF]]:
        """(tag, where), wrapped into lines."""
        made, x, y = [], 0.0, float(_GAP)
        for tag in self.tags:
            width = min(float(max(60, self.width())), text_width(tag, 11, tokens.MEDIUM) + 30)
            if x and x + width > self.width():
                x, y = 0.0, y + _CHIP + 4
            made.append((tag, QRectF(x, y, width, _CHIP)))
            x += width + _GAP
        return made

    def mousePressEvent(self, event: QMouseEvent) -> None:
        for tag, box in self.boxes():
            if self.isEnabled() and box.contains(event.position()):
                self.removed.emit(tag)
                return

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        for tag, box in self.boxes():
            fill_round(painter, box, tokens.CONTROL, tokens.CHIP_RADIUS)
            ink = tokens.T1 if self.isEnabled() else tokens.T3
            draw_text(painter, box.adjusted(8, 0, -20, 0), tag, ink, 11, tokens.MEDIUM)
            draw_text(painter, QRectF(box.right() - 18, box.top(), 12, box.height()), "×", tokens.T2, 12)


class TagsField(QWidget):
    """A line to add tags and the chips of those there are. `changed(tag, on)`, `refused(why)`."""

    changed = Signal(str, bool)
    refused = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.edit, self.chips = NameEdit("add a tag", clears=True), TagChips()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self.edit)
        column.addWidget(self.chips)
        self.edit.entered.connect(lambda tag: self.changed.emit(tag, True))
        self.edit.refused.connect(self.refused)
        self.chips.removed.connect(lambda tag: self.changed.emit(tag, False))

    def show_tags(self, tags: Sequence[str]) -> None:
        self.chips.set_tags(tags)
