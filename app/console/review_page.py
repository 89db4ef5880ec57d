"""Review: see a flagged segment, scrub, decide, submit. Every act is saved at once as an event; undo is one too."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Qt, QTimer, Signal
from PySide6.QtGui import QCloseEvent, QKeyEvent
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QPlainTextEdit, QStackedLayout, QVBoxLayout, QWidget

from takeover.app.console import tokens
from takeover.app.console.models.review import CAUSES, ReviewItem, counts, matches, next_index
from takeover.app.console.models.review_episode import LoadedEpisode
from takeover.app.console.models.review_playhead import Playhead
from takeover.app.console.review_background import Background
from takeover.app.console.review_labels import LabelPanel
from takeover.app.console.review_player import ReviewPlayer
from takeover.app.console.review_queue import QueuePanel
from takeover.app.console.review_store import LabelError, Queue, ReviewStore, Undone
from takeover.app.console.review_transport import FooterRow, TitleRow
from takeover.app.console.widgets import EmptyState, is_plain

POLL_MS = 1000  # how often the catalog is asked whether anything changed
_SHIFT = Qt.KeyboardModifier.ShiftModifier


class ReviewPage(QWidget):
    """`open_changed(n)` for the rail's badge; `go_operate` from the empty state's button."""

    open_changed = Signal(int)
    go_operate = Signal()

    def __init__(self, workspace: Path, person: str, client: object = None, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.store = ReviewStore(workspace, person)
        self.background = Background(self._failed, self)
        self.item: ReviewItem | None = None
        self.player = ReviewPlayer(self.background, self)
        self._queue: Queue | None = None
        self._only: tuple[str, ...] | None = None
        self._deciding: set[str] = set()  # being written: not open, though the queue still says so
        self._build()
        self._connect()
        self._poll = QTimer(self, interval=POLL_MS)
        self._poll.timeout.connect(self.refresh)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    # --- layout ---

    def _build(self) -> None:
        self.queue, self.labels = QueuePanel(), LabelPanel()
        self.title, self.footer = TitleRow(), FooterRow()
        self.front, self.wrist, self.action = self.player.front, self.player.wrist, self.player.action
        self.timeline = self.player.timeline
        self._side = QVBoxLayout()
        self._side.setSpacing(tokens.GUTTER)
        self._side.addWidget(self.wrist, 264)
        self._side.addWidget(self.action, 128)
        pictures = QHBoxLayout()
        pictures.setSpacing(tokens.GUTTER)
        pictures.addWidget(self.front, 528)
        pictures.addLayout(self._side, 352)
        self._middle = QVBoxLayout()
        self._middle.setSpacing(tokens.GUTTER)
        self._middle.addWidget(self.title)
        self._middle.addLayout(pictures, 400)
        self._middle.addWidget(self.player.transport)
        self._middle.addWidget(self.timeline, 328)
        top = QHBoxLayout()
        top.setSpacing(tokens.GUTTER)
        top.addWidget(self.queue)
        top.addLayout(self._middle, 1)
        top.addWidget(self.labels)
        working = QWidget()
        column = QVBoxLayout(working)
        column.setContentsMargins(8, 8, 8, 8)
        column.setSpacing(tokens.GUTTER)
        column.addLayout(top, 1)
        column.addWidget(self.footer)
        self.empty = EmptyState(
            "Nothing to review yet",
            "Takeovers, failures and safety holds appear here as soon as an episode with one is recorded.",
            "Go to Operate",
        )
        self._stack = QStackedLayout(self)
        self._stack.addWidget(self.empty)
        self._stack.addWidget(working)

    def _connect(self) -> None:
        self.queue.selected.connect(self.select)
        self.queue.searched.connect(lambda _: self._show_queue())
        self.queue.filtered.connect(lambda _: self.show_segments(()))
        self.queue.search.returnPressed.connect(self.queue.search.clearFocus)
        self.labels.labelled.connect(self._labelled)
        self.labels.submitted.connect(self.submit)
        if self.empty.button is not None:
            self.empty.button.clicked.connect(self.go_operate)

    # --- life ---

    def activated(self) -> None:
        """The page is shown: read the catalog, then ask once a second whether it changed."""
        self.refresh()
        self._poll.start()
        self.setFocus()

    def deactivated(self) -> None:
        self._poll.stop()
        self.player.pause()
        self.labels.save_note()

    def close_page(self) -> None:
        """Save what is being typed, finish writing, close the catalog."""
        self.deactivated()
        self.background.submit("close", self.store.close)
        self.background.close()

    def closeEvent(self, event: QCloseEvent) -> None:
        self.close_page()

    def refresh(self) -> None:
        if self.background.busy:
            return
        self.background.submit("queue", self.store.queue, self._take_queue)

    def _failed(self, key: str, error: BaseException) -> None:
        if key in ("label", "undo"):
            self._deciding.clear()
        if isinstance(error, LabelError):
            self._say(str(error))
        elif key == "load":
            self.player.show_nothing(f"Cannot be played: {error}")
        else:
            self._say(f"{datetime.datetime.now():%H:%M:%S} not saved: {error}" if key == "label" else f"Catalog: {error}")

    def _say(self, text: str) -> None:
        self.labels.saved.setText(text)
        self.labels.saved.setToolTip(text)

    # --- queue ---

    def _take_queue(self, queue: Queue) -> None:
        if queue is self._queue:
            return
        first = self._queue is None
        self._queue = queue
        self.open_changed.emit(queue.totals.open)
        self.footer.set_totals(queue.totals)
        self._stack.setCurrentIndex(1 if queue.items else 0)
        if not queue.items and queue.episodes:
            self.empty.why.setText(f"{queue.episodes} episodes are recorded; none had a takeover, a failure or a safety hold.")
        if self.item is not None:
            found = [item for item in queue.items if item.segment_id == self.item.segment_id]
            if found and found[0] != self.item:
                self.item = found[0]
                self._show_item()
        self._show_queue()
        if (first or self.item is None) and self.queue.items:
            opened = [row for row, item in enumerate(self.queue.items) if item.open]
            self.select(opened[0] if opened else 0)

    def visible_items(self) -> list[ReviewItem]:
        """Rows after the brush from Insights, filter chip and search."""
        items = self._queue.items if self._queue else []
        if self._only is not None:
            wanted = set(self._only)
            items = [item for item in items if item.segment_id in wanted]
        return [item for item in items if matches(item, self.queue.chips.chosen, self.queue.search.text())]

    def _show_queue(self) -> None:
        if self._queue is None:
            return
        items = self.visible_items()
        current = next((row for row, item in enumerate(items) if self.item and item.segment_id == self.item.segment_id), -1)
        self.queue.set_items(items, counts(self._queue.items), self._queue.totals.open, current)
        if self._only is not None:
            self.queue.set_note("brushed in Insights, All clears")

    def show_segments(self, segment_ids: Sequence[str]) -> None:
        """Show only these (brushed in Insights); an empty sequence shows all again."""
        self._only = tuple(segment_ids) or None
        self._show_queue()
        if self._only and self.queue.items:
            self.select(0)

    def select(self, row: int) -> None:
        """Open a row of the queue: its labels at once, its recording from the worker thread."""
        if not 0 <= row < len(self.queue.items):
            return
        self.labels.save_note()
        self.player.pause()
        previous = self.item
        self.item = self.queue.items[row]
        self.queue.set_current(row)
        self._show_item()
        if self.player.episode is not None and previous is not None and previous.episode_id == self.item.episode_id:
            self.player.show_episode(self.player.episode, self.item)
            return
        item = self.item
        self.player.episode = None
        self.background.submit("load", lambda: self.store.load(item.episode_id), self._take_episode)

    def _show_item(self) -> None:
        self.title.set_item(self.item, self.player.episode.devices if self.player.episode else "")
        self.labels.show_item(self.item)

    def _move(self, direction: int) -> None:
        row = next((row for row, item in enumerate(self.queue.items) if self.item and item.segment_id == self.item.segment_id), -1)
        self.select(next_index(self.queue.items, row, direction))

    def _next_open(self) -> None:
        row = next((row for row, item in enumerate(self.queue.items) if self.item and item.segment_id == self.item.segment_id), -1)
        self.select(next_index(self.queue.items, row, only_open=True, decided=self._deciding))

    # --- labels ---

    def _labelled(self, field: str, value: str) -> None:
        item = self.item
        if item is not None:
            self.background.submit("label", lambda: self.store.label(item, field, value), self._saved)

    def _decide(self, *labels: tuple[str, str]) -> None:
        item = self.item
        if item is None:
            return
        self.labels.save_note()
        self._deciding.add(item.segment_id)
        self.background.submit("label", lambda: self.store.decide(item, labels), self._saved)

    def _saved(self, queue: Queue) -> None:
        self._deciding.clear()
        self._say(f"Saved {datetime.datetime.now():%H:%M:%S}")
        self._take_queue(queue)

    def submit(self) -> None:
        """Submit and next."""
        self._decide(("review", "submitted"))
        self._next_open()

    def _cause(self, number: int) -> None:
        self._decide(("cause", str(CAUSES[number - 1][0])), ("review", "submitted"))
        self._next_open()

    def _undo(self, redo: bool) -> None:
        self.labels.save_note()
        self.background.submit("undo", self.store.redo if redo else self.store.undo, self._undone)

    def _undone(self, answer: tuple[Undone, Queue]) -> None:
        undone, queue = answer
        self._take_queue(queue)
        self._say(undone.text)
        rows = [row for row, item in enumerate(self.queue.items) if undone.target in (item.segment_id, item.episode_id)]
        if rows and self.item is not None and undone.target not in (self.item.segment_id, self.item.episode_id):
            self.select(rows[0])

    # --- playback ---

    @property
    def playhead(self) -> Playhead | None:
        return self.player.playhead

    def _take_episode(self, episode: LoadedEpisode) -> None:
        self._middle.setStretch(1, 400 if episode.tracks else 160)
        self.player.show_episode(episode, self.item)
        self.title.set_item(self.item, episode.devices)

    # --- keys ---

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if not self.handle_key(event):
            super().keyPressEvent(event)

    def typing(self) -> bool:
        """Whether keys belong to a text field."""
        focus: QObject | None = self.focusWidget()
        return isinstance(focus, QLineEdit | QPlainTextEdit) and focus.hasFocus()

    def handle_key(self, event: QKeyEvent) -> bool:
        """Keys of the page; False for what it does not use (and while text is typed)."""
        if self.typing() or not is_plain(event):
            return False
        shift = bool(event.modifiers() & _SHIFT)
        key = event.key()
        if Qt.Key.Key_1 <= key <= Qt.Key.Key_7 and not event.isAutoRepeat():
            self._cause(key - Qt.Key.Key_0)
            return True
        if key in (Qt.Key.Key_Left, Qt.Key.Key_Right):
            self.player.jump(-1 if key == Qt.Key.Key_Left else 1, shift)
            return True
        action = self._actions(shift).get(key)
        if action is None:
            return False
        if not event.isAutoRepeat() or key in (Qt.Key.Key_Comma, Qt.Key.Key_Period):
            action()
        return True

    def _flag(self) -> None:
        if self.item is not None:
            self._decide(("review", "" if self.item.flagged else "flagged"))

    def _skip(self) -> None:
        self._decide(("review", "skipped"))
        self._next_open()

    def _unsure(self) -> None:
        self._decide(("review", "unsure"))
        self._next_open()

    def _search(self) -> None:
        self.queue.search.setFocus()
        self.queue.search.selectAll()

    def _actions(self, shift: bool) -> dict[int, Any]:
        return {
            Qt.Key.Key_J: lambda: self.player.shuttle(-1),
            Qt.Key.Key_K: self.player.toggle,
            Qt.Key.Key_L: lambda: self.player.shuttle(1),
            Qt.Key.Key_Return: self.submit,
            Qt.Key.Key_Enter: self.submit,
            Qt.Key.Key_S: self._skip,
            Qt.Key.Key_U: self._unsure,
            Qt.Key.Key_F: self._flag,
            Qt.Key.Key_Z: lambda: self._undo(redo=shift),
            Qt.Key.Key_Comma: lambda: self._move(-1),
            Qt.Key.Key_Period: lambda: self._move(1),
            Qt.Key.Key_Slash: self._search,
        }
