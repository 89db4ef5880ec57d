"""Review: see a flagged segment, scrub, decide, submit. Every act is saved at once as an event; undo is one too.

The segment that is open is leased, so that two labelers never work on the same one; one that somebody else has can be looked at.
"""

import datetime
from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import QObject, Qt, QTimer, Signal
from PySide6.QtGui import QCloseEvent, QKeyEvent
from PySide6.QtWidgets import QLineEdit, QPlainTextEdit, QWidget

from takeover.app.console.models.review_episode import LoadedEpisode
from takeover.app.console.models.review_items import Hold, ReviewItem, counts, matches, next_index, others
from takeover.app.console.models.review_playhead import Playhead
from takeover.app.console.review_acts import ReviewActs
from takeover.app.console.review_background import Background
from takeover.app.console.review_keys import REPEATS, key_actions
from takeover.app.console.review_labels import LabelPanel
from takeover.app.console.review_layout import ReviewLayout
from takeover.app.console.review_player import ReviewPlayer
from takeover.app.console.review_queue import QueuePanel
from takeover.app.console.review_store import ClaimError, LabelError, Queue, ReviewStore
from takeover.app.console.review_transport import FooterRow, TitleRow
from takeover.app.console.widgets import is_plain
from takeover.data.catalog_errors import reason_of

POLL_MS = 1000  # how often the catalog is asked whether anything changed


class ReviewPage(QWidget):
    """`open_changed(n)` for the rail's badge; `go_operate` from the empty state's button."""

    open_changed = Signal(int)
    go_operate = Signal()

    def __init__(self, workspace: Path, person: str, client: object = None, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.store = ReviewStore(workspace, person)
        self.background = Background(self._failed, self)
        self.item: ReviewItem | None = None
        self.hold: Hold | None = None  # whose the open segment is; None: not known yet
        self.player = ReviewPlayer(self.background, self)
        self._queue: Queue | None = None
        self._only: tuple[str, ...] | None = None
        self.acts = ReviewActs(self)
        self._taken: dict[str, Hold] = {}  # by others, met since the queue was last read
        self.queue, self.labels = QueuePanel(), LabelPanel()
        self.title, self.footer = TitleRow(), FooterRow()
        self.front, self.wrist, self.action = self.player.front, self.player.wrist, self.player.action
        self.timeline = self.player.timeline
        self._layout = ReviewLayout(self)
        self.empty, self._stack = self._layout.empty, self._layout.stack
        self._connect()
        self._poll = QTimer(self, interval=POLL_MS)
        self._poll.timeout.connect(self.refresh)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def _connect(self) -> None:
        self.queue.selected.connect(self.select)
        self.queue.searched.connect(lambda _: self._show_queue())
        self.queue.filtered.connect(lambda _: self.show_segments(()))
        self.queue.search.returnPressed.connect(self.queue.search.clearFocus)
        self.labels.labelled.connect(self.acts.label)
        self.labels.submitted.connect(self.acts.submit)
        self.timeline.edged.connect(self.acts.label)
        if self.empty.button is not None:
            self.empty.button.clicked.connect(self.go_operate)

    # --- life ---

    def activated(self) -> None:
        """The page is shown: read the catalog, then ask once a second whether it changed."""
        self.refresh()
        self.background.submit("doubles", self.store.doubles, self.footer.set_doubles)
        self.background.submit("names", self.store.names, self.labels.set_names)
        if self.item is not None:
            self._take(self.item)
        self._poll.start()
        self.setFocus()

    def deactivated(self) -> None:
        """Another page is shown: what is open is given back."""
        self._poll.stop()
        self.player.pause()
        self.labels.save_note()
        if self.item is not None:
            self.hold = None
            self.background.submit("claim", self.store.leave)

    def close_page(self) -> None:
        """Save what is being typed, finish writing, give the segment back, close the catalog."""
        self.deactivated()
        self.background.submit("close", self.store.close)
        self.background.close()

    def closeEvent(self, event: QCloseEvent) -> None:
        self.close_page()

    def refresh(self) -> None:
        if self.background.busy:
            return
        if self.item is not None and self._poll.isActive():
            self.background.submit("renew", self.store.renew)
        self.background.submit("queue", self.store.queue, self.take_queue)
        shown, last = self.item, self.acts.labelled_last
        if shown is not None:
            self.background.submit("used", lambda: self.store.used_text(shown, last), self.labels.used.setText)

    def _failed(self, key: str, error: BaseException) -> None:
        if key in ("label", "undo"):
            self.acts.deciding.clear()
            self._show_item()  # the controls show what the catalog says
        if isinstance(error, LabelError | ClaimError):
            self.labels.say(str(error))
        elif key == "load":
            self.player.show_nothing(f"Cannot be played: {error}")
        else:
            what = {"label": "not saved: ", "undo": "not undone: ", "claim": "no lease: ", "renew": "lease not renewed: "}.get(key, "")
            self.labels.say(f"{datetime.datetime.now():%H:%M:%S} {what}{reason_of(error)}")

    # --- queue ---

    def take_queue(self, queue: Queue) -> None:
        """The catalog was read."""
        if queue is self._queue:
            return
        first, same = self._queue is None, self._queue is not None and queue.items is self._queue.items
        self._queue, self._taken = queue, {}
        self.queue.set_held(queue.held)
        if not same:
            self._take_items(queue)
        self._check_hold(queue)
        if (first or self.item is None) and self.queue.items:
            taken = others(queue.held)
            opened = [row for row, item in enumerate(self.queue.items) if item.open and item.segment_id not in taken]
            self.select(opened[0] if opened else 0)

    def _take_items(self, queue: Queue) -> None:
        self.open_changed.emit(queue.totals.open)
        self.footer.set_totals(queue.totals)
        self._layout.show_working(bool(queue.items), queue.episodes)
        if self.item is not None:
            found = next((item for item in queue.items if item.segment_id == self.item.segment_id), None)
            if found is not None and found != self.item:
                self.item = found
                self._show_item()
        self._show_queue()

    def _check_hold(self, queue: Queue) -> None:
        """Somebody else may have taken what is open here, or given it back."""
        if self.item is None or self.hold is None:
            return
        now = queue.held.get(self.item.segment_id)
        if now is not None and now != self.hold:
            self._know_hold(self.item, now)
        elif now is None and not self.hold.mine:
            self._take(self.item)

    def visible_items(self) -> list[ReviewItem]:
        """Rows after the brush from Insights, filter chip and search."""
        items = self._queue.items if self._queue else []
        if self._only is not None:
            wanted = set(self._only)
            items = [item for item in items if item.segment_id in wanted]
        return [item for item in items if matches(item, self.queue.chips.chosen, self.queue.search.text())]

    def _row(self) -> int:
        """Of the open segment; -1 when it is not in the list."""
        return next((row for row, item in enumerate(self.queue.items) if self.item and item.segment_id == self.item.segment_id), -1)

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

    def select(self, row: int, go_on: bool = False) -> None:
        """Open a row of the queue: its labels at once, its lease and its recording from the worker thread.

        ``go_on``: to the next open one when somebody else turns out to have it.
        """
        if not 0 <= row < len(self.queue.items):
            return
        self.labels.save_note()
        self.player.pause()
        self.labels.say("")
        previous = self.item
        self.item = self.queue.items[row]
        self.hold = None
        self.queue.set_current(row)
        self._show_item()
        if self.isVisible():
            self._take(self.item, go_on)
        if self.player.episode is not None and previous is not None and previous.episode_id == self.item.episode_id:
            self.player.show_episode(self.player.episode, self.item)
            self._show_item()
            return
        item = self.item
        self.player.episode = None
        self.background.submit("load", lambda: self.store.load(item.episode_id), self._take_episode)

    @property
    def mine(self) -> bool:
        """Whether the open segment may be labelled here: nobody else is known to have it."""
        return self.item is not None and (self.hold is None or self.hold.mine)

    def _take(self, item: ReviewItem, go_on: bool = False) -> None:
        self.background.submit("claim", lambda: self.store.take(item), lambda hold: self._know_hold(item, hold, go_on))

    def _know_hold(self, item: ReviewItem, hold: Hold, go_on: bool = False) -> None:
        if self.item is None or self.item.segment_id != item.segment_id:
            return
        lost = self.hold is not None and self.hold.mine and not hold.mine
        self.hold = hold
        self._show_item()
        if hold.mine:
            return
        self._taken[item.segment_id] = hold
        if go_on:
            self.next_open()
        if self.item is not None and self.item.segment_id == item.segment_id:
            what = "has taken this segment: your lease ran out" if lost else "has this segment"
            self.labels.say(f"{hold.person} {what}. You can look at it; the key . goes on.")

    def _show_item(self) -> None:
        shown = self.player.episode
        self.title.set_item(self.item, shown.devices if shown else "", self.hold, shown.probe if shown else "")
        self.labels.show_item(self.item, self.mine)
        self.timeline.set_item(self.item, self.mine and self.item is not None and not self.item.blind)

    def step_by(self, direction: int) -> None:
        """To the segment after (before) this one."""
        self.select(next_index(self.queue.items, self._row(), direction))

    def next_open(self) -> None:
        """To the next segment that nobody has decided or has open."""
        taken = others(self._queue.held if self._queue else {}) | set(self._taken)
        row, current = next_index(self.queue.items, self._row(), only_open=True, decided=self.acts.deciding | taken), self._row()
        if row != current:
            self.select(row, go_on=True)

    # --- playback ---

    @property
    def playhead(self) -> Playhead | None:
        return self.player.playhead

    def _take_episode(self, episode: LoadedEpisode) -> None:
        self._layout.give_room(bool(episode.tracks))
        self.player.show_episode(episode, self.item)
        self._show_item()

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
        shift = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
        key = event.key()
        if Qt.Key.Key_1 <= key <= Qt.Key.Key_7 and not event.isAutoRepeat():
            self.acts.cause(key - Qt.Key.Key_0)
            return True
        if key in (Qt.Key.Key_Left, Qt.Key.Key_Right):
            self.player.jump(-1 if key == Qt.Key.Key_Left else 1, shift)
            return True
        action = key_actions(self, shift).get(key)
        if action is None:
            return False
        if not event.isAutoRepeat() or key in REPEATS:
            action()
        return True

    def search(self) -> None:
        """Type into the search line."""
        self.queue.search.setFocus()
        self.queue.search.selectAll()
