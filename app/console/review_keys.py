"""What the keys of Review do."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt

if TYPE_CHECKING:
    from takeover.app.console.review_page import ReviewPage

Action = Callable[[], None]
REPEATS = (Qt.Key.Key_Comma, Qt.Key.Key_Period)  # held down they walk on


def key_actions(page: "ReviewPage", shift: bool) -> dict[int, Action]:
    """{key: what it does}; digits and arrows are the page's own."""
    player, edge = page.player, page.acts.move_edge
    return {
        Qt.Key.Key_J: lambda: player.shuttle(-1),
        Qt.Key.Key_K: player.toggle,
        Qt.Key.Key_L: lambda: player.shuttle(1),
        Qt.Key.Key_Return: page.acts.submit,
        Qt.Key.Key_Enter: page.acts.submit,
        Qt.Key.Key_S: page.acts.skip,
        Qt.Key.Key_U: page.acts.unsure,
        Qt.Key.Key_F: page.acts.flag,
        Qt.Key.Key_Z: lambda: page.acts.undo(redo=shift),
        Qt.Key.Key_I: lambda: edge("first", shift),
        Qt.Key.Key_O: lambda: edge("last", shift),
        Qt.Key.Key_B: lambda: edge("onset", shift),
        Qt.Key.Key_T: page.labels.tags.edit.setFocus,
        Qt.Key.Key_Comma: lambda: page.step_by(-1),
        Qt.Key.Key_Period: lambda: page.step_by(1),
        Qt.Key.Key_Slash: page.search,
    }
