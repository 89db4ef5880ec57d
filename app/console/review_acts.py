"""What a person does with the open segment: label, decide, undo, move an edge. Each act is saved at once by the worker thread."""

import datetime
from typing import TYPE_CHECKING

from takeover.app.console.models.review_items import CAUSES, ReviewItem
from takeover.app.console.review_store import Queue, Undone

if TYPE_CHECKING:
    from takeover.app.console.review_page import ReviewPage


class ReviewActs:
    """Acts on a page's open segment. ``deciding``: segments whose decision is being written: not open, though the queue still says so."""

    def __init__(self, page: "ReviewPage") -> None:
        self._page = page
        self.deciding: set[str] = set()
        self.labelled_last: ReviewItem | None = None

    def label(self, field: str, value: str) -> None:
        """One label, saved at once; nothing when the segment is somebody else's."""
        page, item = self._page, self._page.item
        if item is None or not page.mine:
            return
        self.labelled_last = item
        page.background.submit("label", lambda: page.store.label(item, field, value), self._saved)
        if field == "subtask" or field.startswith("tag:"):
            page.background.submit("names", page.store.names, page.labels.set_names)

    def decide(self, *labels: tuple[str, str]) -> None:
        """Several labels as one act; nothing when the segment is somebody else's."""
        page, item = self._page, self._page.item
        if item is None or not page.mine:
            return
        page.labels.save_note()
        self.deciding.add(item.segment_id)
        self.labelled_last = item
        page.background.submit("label", lambda: page.store.decide(item, labels), self._saved)
        if item.blind:
            page.background.submit("doubles", page.store.doubles, page.footer.set_doubles)

    def _saved(self, queue: Queue) -> None:
        self.deciding.clear()
        self._page.labels.say(f"Saved {datetime.datetime.now():%H:%M:%S}")
        self._page.take_queue(queue)

    def submit(self) -> None:
        """Submit and next."""
        self._decide_and_go(("review", "submitted"))

    def cause(self, number: int) -> None:
        """The cause of that number, from 1; submit and next."""
        self._decide_and_go(("cause", str(CAUSES[number - 1][0])), ("review", "submitted"))

    def skip(self) -> None:
        self._decide_and_go(("review", "skipped"))

    def unsure(self) -> None:
        self._decide_and_go(("review", "unsure"))

    def flag(self) -> None:
        if self._page.item is not None:
            self.decide(("review", "" if self._page.item.flagged else "flagged"))

    def _decide_and_go(self, *labels: tuple[str, str]) -> None:
        self.decide(*labels)
        self._page.next_open()

    def undo(self, redo: bool = False) -> None:
        """Take the last act back, or do it again."""
        store = self._page.store
        self._page.labels.save_note()
        self._page.background.submit("undo", store.redo if redo else store.undo, self._undone)

    def _undone(self, answer: tuple[Undone, Queue]) -> None:
        page = self._page
        undone, queue = answer
        page.take_queue(queue)
        page.labels.say(undone.text)
        rows = [row for row, item in enumerate(page.queue.items) if undone.target in (item.segment_id, item.episode_id)]
        if rows and page.item is not None and undone.target not in (page.item.segment_id, page.item.episode_id):
            page.select(rows[0])

    def move_edge(self, grip: str, back: bool = False) -> None:
        """Put "first" or "last" of what counts, or the "onset", at the play-head; ``back``: where it was recorded."""
        page = self._page
        edges, head, item = page.timeline.edges, page.playhead, page.item
        if edges is None or head is None or item is None or not page.mine:
            return
        if item.blind:
            page.labels.say("A second opinion is about cause, kind, quality, subtask and exclusion; edges are no part of it.")
        elif grip == "onset" and edges.onset is None:
            page.labels.say("Only a takeover has an onset.")
        elif back:
            self.label("onset" if grip == "onset" else "trim", "")
        elif head.step > edges.end or (grip != "onset" and head.step < edges.start):
            page.labels.say(f"The play-head is at step {head.step}; this segment has steps {edges.start} to {edges.end}.")
        else:
            page.timeline.move_edge(grip, head.step)
