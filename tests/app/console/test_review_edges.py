"""Trims and onsets dragged on the timeline and set by keys, subtasks and tags: on a real catalog with real widgets."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot
from recorded import Recorder

from takeover.app.console import tokens
from takeover.app.console.models.review_edges import Edges
from takeover.app.console.review_page import ReviewPage
from takeover.app.console.review_tags import name_of
from takeover.data.labels import Labels
from takeover.data.training_labels import training_labels
from takeover.data.workspace import Workspace

SHIFT = Qt.KeyboardModifier.ShiftModifier
LEFT = Qt.MouseButton.LeftButton


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episode 0: takeovers; 1: a failure without help."""
    folder = tmp_path_factory.mktemp("recorded")
    recorder = Recorder(folder)
    recorder.episode(flaw=0.8, version=3)
    recorder.episode(flaw=1.0, help_=False, most_steps=30)
    recorder.close()
    return folder


@pytest.fixture
def workspace(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "ws"))


@pytest.fixture
def page(workspace: Path, qtbot: QtBot, qapp: object) -> Iterator[ReviewPage]:
    """At the longest takeover."""
    tokens.apply_theme(qapp)  # type: ignore[arg-type]
    made = ReviewPage(workspace, "lb-01")
    qtbot.addWidget(made)
    made.resize(1528, 920)
    made.show()
    made.activated()
    settled = lambda: made.playhead is not None and made.hold is not None and not made.background.busy  # noqa: E731
    qtbot.waitUntil(settled, timeout=10_000)
    items = made.queue.items
    rows = [row for row in range(len(items)) if items[row].reason == "takeover"]
    made.select(max(rows, key=lambda row: items[row].end_step - items[row].start_step))
    qtbot.waitUntil(settled, timeout=10_000)
    yield made
    made.close_page()


def settle(qtbot: QtBot, page: ReviewPage) -> None:
    qtbot.waitUntil(lambda: not page.background.busy, timeout=10_000)


def stored(workspace: Path, page: ReviewPage) -> dict[str, str]:
    assert page.item is not None
    labels = Labels(Workspace(workspace))
    try:
        return labels.current(page.item.segment_id)
    finally:
        labels.close()


def drag(page: ReviewPage, grip: str, to_step: int) -> None:
    """With the mouse, from the grip to where a step begins (for "last": ends)."""
    view = page.timeline
    assert view.edges is not None
    begin = view.place().boxes(view.edges)[grip].center().toPoint()
    end = QPoint(round(view.place().x(to_step + (grip == "last"))), begin.y() + 60)
    QTest.mousePress(view, LEFT, pos=begin)
    QTest.mouseMove(view, QPoint((begin.x() + end.x()) // 2, begin.y()))
    QTest.mouseMove(view, end)
    QTest.mouseRelease(view, LEFT, pos=end)


def test_both_ends_are_dragged_and_undone_one_by_one(page: ReviewPage, workspace: Path, qtbot: QtBot) -> None:
    item = page.item
    assert item is not None
    first, last = item.start_step, item.end_step - 1
    assert last - first > 6, "the recording has a long enough takeover"
    drag(page, "first", first + 2)
    settle(qtbot, page)
    assert stored(workspace, page) == {"trim": f"{first + 2}-{last}"}
    assert page.playhead is not None
    assert page.playhead.step == first + 2, "the pictures show the edge while it is dragged"
    drag(page, "last", last - 3)
    settle(qtbot, page)
    assert stored(workspace, page) == {"trim": f"{first + 2}-{last - 3}"}
    assert page.item is not None
    learned = training_labels(page.store._open()[0], [item.episode_id])[item.episode_id]
    assert learned.left_out == ((first, first + 1), (last - 2, last)), "the learner leaves out what was cut"
    QTest.keyClick(page, Qt.Key.Key_Z)
    settle(qtbot, page)
    assert stored(workspace, page) == {"trim": f"{first + 2}-{last}"}
    assert page.timeline.edges is not None
    assert (page.timeline.edges.first, page.timeline.edges.last) == (first + 2, last)
    QTest.keyClick(page, Qt.Key.Key_Z)
    settle(qtbot, page)
    assert stored(workspace, page) == {}
    assert not page.timeline.edges.trimmed
    QTest.keyClick(page, Qt.Key.Key_Z, SHIFT)
    settle(qtbot, page)
    assert stored(workspace, page) == {"trim": f"{first + 2}-{last}"}


def test_an_end_dragged_beyond_the_segment_stops_there_and_back_is_no_trim(page: ReviewPage, workspace: Path, qtbot: QtBot) -> None:
    item = page.item
    assert item is not None
    drag(page, "first", item.end_step + 40)
    settle(qtbot, page)
    assert stored(workspace, page) == {"trim": f"{item.end_step - 1}-{item.end_step - 1}"}, "one step is left"
    drag(page, "first", max(0, item.start_step - 9))
    settle(qtbot, page)
    assert stored(workspace, page) == {}


def test_the_onset_is_dragged_before_the_takeover(page: ReviewPage, workspace: Path, qtbot: QtBot) -> None:
    item = page.item
    assert item is not None
    assert item.start_step >= 3
    drag(page, "onset", item.start_step - 3)
    settle(qtbot, page)
    assert stored(workspace, page) == {"onset": str(item.start_step - 3)}
    drag(page, "onset", item.start_step)
    settle(qtbot, page)
    assert stored(workspace, page) == {}


def test_keys_put_the_edges_at_the_play_head_and_back(page: ReviewPage, workspace: Path, qtbot: QtBot) -> None:
    item = page.item
    assert item is not None
    hz = item.control_hz
    page.player.seek((item.start_step + 1) / hz)
    QTest.keyClick(page, Qt.Key.Key_I)
    page.player.seek((item.end_step - 2) / hz)
    QTest.keyClick(page, Qt.Key.Key_O)
    page.player.seek((item.start_step - 2) / hz)
    QTest.keyClick(page, Qt.Key.Key_B)
    settle(qtbot, page)
    assert stored(workspace, page) == {"trim": f"{item.start_step + 1}-{item.end_step - 2}", "onset": str(item.start_step - 2)}
    QTest.keyClick(page, Qt.Key.Key_I)
    assert "The play-head is at step" in page.labels.saved.text()
    QTest.keyClick(page, Qt.Key.Key_O, SHIFT)
    QTest.keyClick(page, Qt.Key.Key_B, SHIFT)
    settle(qtbot, page)
    assert stored(workspace, page) == {}
    page.select(next(row for row, one in enumerate(page.queue.items) if one.reason == "failure"))
    settle(qtbot, page)
    QTest.keyClick(page, Qt.Key.Key_B)
    assert page.labels.saved.text() == "Only a takeover has an onset."


def test_clicks_beside_the_grips_still_move_the_play_head_only(page: ReviewPage, workspace: Path, qtbot: QtBot) -> None:
    QTest.mouseClick(page.timeline, LEFT, pos=QPoint(int(page.timeline.x_of(0.5)), page.timeline.height() - 30))
    settle(qtbot, page)
    assert page.playhead is not None
    assert page.playhead.position_s == pytest.approx(0.5, abs=0.02)
    assert stored(workspace, page) == {}


def test_tags_are_added_offered_and_taken_off(page: ReviewPage, workspace: Path, qtbot: QtBot) -> None:
    edit = page.labels.tags.edit
    QTest.keyClick(page, Qt.Key.Key_T)
    QTest.keyClicks(edit, "Hard Rim")
    QTest.keyClick(edit, Qt.Key.Key_Return)
    settle(qtbot, page)
    assert stored(workspace, page) == {"tag:hard_rim": "true"}
    assert page.labels.tags.chips.tags == ["hard_rim"]
    assert edit.names == ["hard_rim"]
    QTest.keyClicks(edit, "b@d")
    QTest.keyClick(edit, Qt.Key.Key_Return)
    assert '"b@d" is no name' in page.labels.saved.text()
    edit.clear()
    page.step_by(1)
    settle(qtbot, page)
    assert page.labels.tags.chips.tags == []
    QTest.keyClicks(edit, "RIM")
    completer = edit.completer()
    assert completer is not None
    assert completer.currentCompletion() == "hard_rim"
    edit.clear()
    page.queue.search.setText("hard_rim")
    assert len(page.queue.items) == 1
    page.select(0)
    settle(qtbot, page)
    box = page.labels.tags.chips.boxes()[0][1]
    QTest.mouseClick(page.labels.tags.chips, LEFT, pos=box.center().toPoint())
    settle(qtbot, page)
    assert stored(workspace, page) == {}


def test_a_subtask_is_entered_and_offered_again(page: ReviewPage, workspace: Path, qtbot: QtBot) -> None:
    edit = page.labels.subtask
    edit.setFocus()
    QTest.keyClicks(edit, "insert")
    QTest.keyClick(edit, Qt.Key.Key_Return)
    settle(qtbot, page)
    assert stored(workspace, page) == {"subtask": "insert"}
    assert edit.names == ["insert"]
    edit.setFocus()
    edit.clear()
    QTest.keyClick(edit, Qt.Key.Key_Return)
    settle(qtbot, page)
    assert stored(workspace, page) == {}


def test_enter_in_a_line_is_not_submit(page: ReviewPage, workspace: Path, qtbot: QtBot) -> None:
    for edit in (page.labels.subtask, page.labels.tags.edit, page.queue.search):
        edit.setFocus()
        QTest.keyClick(edit, Qt.Key.Key_Return)
        settle(qtbot, page)
        assert all(item.labels == {} for item in page.queue.items), edit.placeholderText()
    assert not page.queue.search.hasFocus()


def test_names_are_made_plain_or_refused() -> None:
    assert name_of("  Hard  Rim ") == "hard_rim"
    for wrong in ("a/b", "ü", "x" * 33):
        with pytest.raises(ValueError, match="is no name"):
            name_of(wrong)


def test_edges_stay_within_the_segment() -> None:
    edges = Edges(10, 20, 10, 20, 10)
    assert edges.moved("first", 3).first == 10
    assert edges.moved("first", 99).first == 20
    assert edges.moved("last", 12).moved("first", 15).first == 12
    assert edges.moved("onset", -4).onset == 0
    assert edges.moved("onset", 50).onset == 20
    assert edges.moved("last", 12).label("last") == ("trim", "10-12")
    assert edges.label("first") == ("trim", "")
    with pytest.raises(ValueError, match="no grip"):
        edges.moved("middle", 1)
