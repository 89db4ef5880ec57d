"""The label column: cause on digits, kind, outcome, quality, note, exclude, submit. Every act is reported at once."""

from PySide6.QtCore import QEvent, QObject, QRectF, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPlainTextEdit, QScrollArea, QVBoxLayout, QWidget

from takeover.app.console import tokens
from takeover.app.console.models.review_items import CAUSES, KINDS, OUTCOMES, QUALITIES, Names, ReviewItem
from takeover.app.console.review_tags import NameEdit, TagsField
from takeover.app.console.widgets import Button, KeyHints, Panel, Segmented, draw_key_cap, draw_text, label

ROW, LEAST_ROW = 36, 26
NOTE_DELAY_MS = 600  # after the last keystroke


class CauseList(QWidget):
    """The seven causes with their digit keys; clicking one labels without moving on."""

    chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._current = ""
        self.setMinimumHeight(LEAST_ROW * len(CAUSES))
        self.setMaximumHeight(ROW * len(CAUSES))
        self.setCursor(Qt.CursorShape.PointingHandCursor)

    def sizeHint(self) -> QSize:
        return QSize(304, ROW * len(CAUSES))

    @property
    def current(self) -> str:
        return self._current

    def row_height(self) -> float:
        return self.height() / len(CAUSES)

    def set_current(self, cause: str) -> None:
        if cause != self._current:
            self._current = cause
            self.update()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        row = int(event.position().y() // self.row_height())
        if self.isEnabled() and 0 <= row < len(CAUSES):
            self.chosen.emit(str(CAUSES[row][0]))

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        height = self.row_height()
        for index, (cause, meaning) in enumerate(CAUSES):
            top = index * height
            on = cause == self._current
            if on:
                painter.fillRect(QRectF(0, top, self.width(), height), QColor(tokens.T1))
            draw_key_cap(painter, 12, top + height / 2, str(index + 1), tokens.INK if on else tokens.T2, bg=tokens.T1 if on else tokens.BG)
            ink, note = (tokens.INK, tokens.INK) if on else (tokens.T1, tokens.T3)
            name = str(cause).capitalize()
            draw_text(painter, QRectF(44, top, 88, height), name, ink, 13, tokens.SEMIBOLD if on else tokens.MEDIUM)
            draw_text(painter, QRectF(136, top, self.width() - 144, height), meaning, note, 12)


class ExcludeRow(QWidget):
    """A toggle: these steps are not trained on."""

    toggled = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._on = False
        self.setFixedHeight(24)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setToolTip("The learner leaves these steps out from its next batch on. Nothing is deleted.")

    @property
    def on(self) -> bool:
        return self._on

    def set_on(self, on: bool) -> None:
        if on != self._on:
            self._on = on
            self.update()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if self.isEnabled():
            self.toggled.emit(not self._on)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(QColor(tokens.T1 if self._on else tokens.CONTROL), 1))
        painter.setBrush(QColor(tokens.T1 if self._on else tokens.BG))
        painter.drawRoundedRect(QRectF(0.5, 4.5, 28, 15), 7.5, 7.5)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(tokens.INK if self._on else tokens.T3))
        painter.drawEllipse(QRectF(16 if self._on else 3, 7, 10, 10))
        draw_text(painter, QRectF(40, 0, self.width() - 40, 24), "Exclude from training", tokens.T1 if self._on else tokens.T2, 12)


class LabelPanel(Panel):
    """`labelled(field, value)` on every act; `submitted` for Submit and next. Shows what the catalog says, nothing of its own."""

    labelled = Signal(str, str)
    submitted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Cause", "1 to 7: label and advance", parent=parent)
        self.setFixedWidth(304)
        self.body.setContentsMargins(0, self.header, 0, 12)
        self.body.setSpacing(0)
        self.causes = CauseList()
        self.causes.chosen.connect(lambda cause: self.labelled.emit("cause", cause))
        self._rows = self._scrolled()
        self._rows.addWidget(self.causes)
        self.kind, self.outcome, self.quality = Segmented(KINDS), Segmented(OUTCOMES), Segmented(QUALITIES)
        for name, control, options in (
            ("kind", self.kind, KINDS),
            ("outcome", self.outcome, OUTCOMES),
            ("quality", self.quality, QUALITIES),
        ):
            self._add(label(name.capitalize(), tokens.T2, 12), 12, 4)
            self._add(control)
            control.changed.connect(lambda index, name=name, options=options: self.labelled.emit(name, options[index]))
        self.quality.setToolTip("Of the correction. Different: another way than yours, and fine. Bad: it should not be learned from.")
        self._add(label("Note", tokens.T2, 12), 12, 4)
        self.note = QPlainTextEdit()
        self.note.setFont(tokens.font(12))
        self.note.setMinimumHeight(40)
        self.note.setMaximumHeight(64)
        self.note.setTabChangesFocus(True)
        self.note.setPlaceholderText("what happened, in a few words")
        self.note.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.note.installEventFilter(self)
        self._add(self.note)
        self.subtask = NameEdit("what the robot was at", clears=False)
        self.subtask.setToolTip("The part of the task these steps belong to. Enter saves it; names in use are offered while you type.")
        self.tags = TagsField()
        self.tags.edit.setToolTip("A tag of your own. Enter adds it; tags in use are offered while you type.")
        self._beside("Subtask", self.subtask, 10)
        self._beside("Tags", self.tags, 6)
        self.subtask.entered.connect(lambda name: self.labelled.emit("subtask", name))
        self.tags.changed.connect(lambda tag, on: self.labelled.emit(f"tag:{tag}", "true" if on else ""))
        self.exclude = ExcludeRow()
        self.exclude.toggled.connect(lambda on: self.labelled.emit("exclude", "true" if on else "false"))
        self._add(self.exclude, 12)
        self._rows.addStretch(1)
        self._rows = self.body
        for edit in (self.subtask, self.tags):
            edit.refused.connect(self.say)
        self.used = label("", tokens.T2, 12)
        self.used.setToolTip("Which update of the learner was the first with this segment's labels.")
        self._add(self.used, 0, 4)
        self.saved = label("", tokens.T3, 12, wrap=True)
        self.hints = KeyHints([("S", "skip"), ("U", "unsure"), ("F", "flag")])
        self._add(self.saved)
        self._add(self.hints, 4, 4)
        self.submit = Button("Submit and next", ["Enter"], "primary-large")
        self.submit.clicked.connect(self.submitted)
        self._add(self.submit)
        self._note_saved = ""
        self._note_timer = QTimer(self, singleShot=True, interval=NOTE_DELAY_MS)
        self._note_timer.timeout.connect(self.save_note)
        self.note.textChanged.connect(self._note_edited)
        self.show_item(None)

    def _scrolled(self) -> QVBoxLayout:
        """The upper part, which scrolls where the window is low."""
        inside = QWidget()
        rows = QVBoxLayout(inside)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(0)
        area = QScrollArea()
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidgetResizable(True)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        area.setMinimumHeight(LEAST_ROW * len(CAUSES))
        area.setWidget(inside)
        for see_through in (area.viewport(), inside):
            see_through.setAutoFillBackground(False)
        self.body.addWidget(area, 1)
        return rows

    def _add(self, widget: QWidget, above: int = 0, below: int = 0) -> None:
        row = QWidget()
        line = QHBoxLayout(row)
        line.setContentsMargins(12, above, 12, below)
        line.addWidget(widget)
        self._rows.addWidget(row)

    def _beside(self, name: str, widget: QWidget, above: int) -> None:
        """A row with its name at the left."""
        row = QWidget()
        line = QHBoxLayout(row)
        line.setContentsMargins(12, above, 12, 0)
        line.setSpacing(8)
        text = label(name, tokens.T2, 12)
        text.setFixedSize(52, 28)
        line.addWidget(text, 0, Qt.AlignmentFlag.AlignTop)
        line.addWidget(widget, 1)
        self._rows.addWidget(row)

    def say(self, text: str) -> None:
        """One line above the buttons: saved, refused, or why not."""
        self.saved.setText(text)
        self.saved.setToolTip(text)

    def set_names(self, names: Names) -> None:
        """What is offered while a tag or a subtask is typed."""
        self.tags.edit.set_names(names.tags)
        self.subtask.set_names(names.subtasks)

    def show_item(self, item: ReviewItem | None, mine: bool = True) -> None:
        """Show the current labels of a segment; the note being typed is left alone unless the segment changed.

        ``mine``: the person may label it. A blind one has no outcome and no tags: a second opinion is not about them.
        """
        labels = item.labels if item else {}
        for widget in (self.causes, self.kind, self.quality, self.note, self.subtask, self.exclude, self.submit):
            widget.setEnabled(item is not None and mine)
        for extra in (self.outcome, self.tags):
            extra.setEnabled(item is not None and mine and not item.blind)
        self.outcome.setToolTip("Of the whole episode, so it is no part of a second opinion." if item and item.blind else "")
        self.set_title("Second opinion, blind" if item and item.blind else "Cause", "1 to 7: label and advance")
        self.subtask.show_name(labels.get("subtask", ""))
        self.tags.show_tags(item.tags if item else [])
        self.causes.set_current(labels.get("cause", ""))
        for name, control, options in (("kind", self.kind, KINDS), ("quality", self.quality, QUALITIES)):
            value = labels.get(name, "")
            control.set_index(options.index(value) if value in options else -1)
        outcome = item.outcome if item else ""
        self.outcome.set_index(OUTCOMES.index(outcome) if outcome in OUTCOMES else -1)
        self.exclude.set_on(labels.get("exclude") == "true")
        note = labels.get("note", "")
        if not (self.note.hasFocus() and self._note_timer.isActive()) and note != self.note.toPlainText():
            self._note_saved = note
            self.note.setPlainText(note)
        self._note_saved = note
        if note == self.note.toPlainText():
            self._note_timer.stop()

    def _note_edited(self) -> None:
        if self.note.toPlainText() != self._note_saved:
            self._note_timer.start()

    def save_note(self) -> None:
        """Report the note if it differs from what is saved; called after a pause in typing and before moving on."""
        self._note_timer.stop()
        text = self.note.toPlainText().strip()
        if text != self._note_saved and self.note.isEnabled():
            self._note_saved = text
            self.labelled.emit("note", text)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """In the note: Enter saves and leaves it (Shift+Enter: a new line); leaving it saves."""
        if watched is self.note and event.type() == QEvent.Type.FocusOut:
            self.save_note()
        if watched is self.note and isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            shift = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
            if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and not shift:
                self.save_note()
                self.note.clearFocus()
                return True
        return False
