"""Where Review's parts stand, and what it says when there is nothing to review."""

from typing import TYPE_CHECKING

from PySide6.QtWidgets import QHBoxLayout, QStackedLayout, QVBoxLayout, QWidget

from takeover.app.console import tokens
from takeover.app.console.widgets import EmptyState

if TYPE_CHECKING:
    from takeover.app.console.review_page import ReviewPage


class ReviewLayout:
    """Lays out a page's widgets: queue, pictures and timeline, labels, footer; ``show_working(False)`` shows the empty state."""

    def __init__(self, page: "ReviewPage") -> None:
        side, pictures, top = QVBoxLayout(), QHBoxLayout(), QHBoxLayout()
        self._middle = QVBoxLayout()
        for layout in (side, pictures, top, self._middle):
            layout.setSpacing(tokens.GUTTER)
        side.addWidget(page.wrist, 264)
        side.addWidget(page.action, 128)
        pictures.addWidget(page.front, 528)
        pictures.addLayout(side, 352)
        self._middle.addWidget(page.title)
        self._middle.addLayout(pictures, 400)
        self._middle.addWidget(page.player.transport)
        self._middle.addWidget(page.timeline, 328)
        top.addWidget(page.queue)
        top.addLayout(self._middle, 1)
        top.addWidget(page.labels)
        working = QWidget()
        column = QVBoxLayout(working)
        column.setContentsMargins(8, 8, 8, 8)
        column.setSpacing(tokens.GUTTER)
        column.addLayout(top, 1)
        column.addWidget(page.footer)
        self.empty = EmptyState(
            "Nothing to review yet",
            "Takeovers, failures and safety holds appear here as soon as an episode with one is recorded.",
            "Go to Operate",
        )
        self.stack = QStackedLayout(page)
        self.stack.addWidget(self.empty)
        self.stack.addWidget(working)

    def show_working(self, there_is_something: bool, episodes: int) -> None:
        """The page, or why it is empty; ``episodes``: how many are recorded."""
        self.stack.setCurrentIndex(1 if there_is_something else 0)
        if not there_is_something and episodes:
            self.empty.why.setText(f"{episodes} episodes are recorded; none had a takeover, a failure or a safety hold.")

    def give_room(self, pictures: bool) -> None:
        """Less for the pictures of an episode that has none."""
        self._middle.setStretch(1, 400 if pictures else 160)
