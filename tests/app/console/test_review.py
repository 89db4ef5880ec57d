"""The Review page on a real catalog and real episode files: labels by key, undo, filters, playback, pictures."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot
from recorded import Recorder

from takeover.app.console import tokens
from takeover.app.console.models.review import driver_spans, nice_axis, versions_text
from takeover.app.console.models.review_items import median_gap_s, next_index
from takeover.app.console.models.review_playhead import Playhead
from takeover.app.console.review_page import ReviewPage
from takeover.app.console.review_timeline import LABELS
from takeover.app.console.window import INSIGHTS, REVIEW
from takeover.data.labels import Labels
from takeover.data.workspace import Workspace

PERSON = "lb-01"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episode 0: takeovers, 1: a failure without help, 2: a safety hold, 3: short, with pictures."""
    folder = tmp_path_factory.mktemp("recorded")
    recorder = Recorder(folder)
    recorder.episode(flaw=0.8, version=3)
    recorder.episode(flaw=1.0, help_=False, version=4, most_steps=60)
    recorder.episode(flaw=0.1, version=5, hold_at=12)
    recorder.close()
    filmed = Recorder(folder, session="s2", pictures=True, started_ns=1_790_000_900_000_000_000)
    filmed.episode(flaw=1.0, help_=False, version=6, most_steps=12)
    filmed.close()
    return folder


@pytest.fixture
def workspace(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "ws"))


@pytest.fixture
def page(workspace: Path, qtbot: QtBot, qapp: object) -> Iterator[ReviewPage]:
    tokens.apply_theme(qapp)  # type: ignore[arg-type]
    made = open_page(qtbot, workspace)
    yield made
    made.close_page()


def open_page(qtbot: QtBot, workspace: Path) -> ReviewPage:
    made = ReviewPage(workspace, PERSON)
    qtbot.addWidget(made)
    made.resize(1528, 920)
    made.show()
    made.activated()
    qtbot.waitUntil(lambda: made.playhead is not None and not made.background.busy, timeout=10_000)
    return made


def press(page: ReviewPage, key: Qt.Key, modifier: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier) -> None:
    QTest.keyClick(page, key, modifier)


def settle(qtbot: QtBot, page: ReviewPage) -> None:
    qtbot.waitUntil(lambda: not page.background.busy, timeout=10_000)


def choose(qtbot: QtBot, page: ReviewPage, reason: str, episode: int) -> None:
    rows = [row for row, item in enumerate(page.queue.items) if item.reason == reason and item.episode_number == episode]
    page.select(rows[0])
    settle(qtbot, page)


def stored(workspace: Path, target: str) -> dict[str, str]:
    labels = Labels(Workspace(workspace))
    try:
        return labels.current(target)
    finally:
        labels.close()


def test_queue_lists_what_was_recorded_newest_first(page: ReviewPage) -> None:
    items = page.queue.items
    assert (items[0].reason, items[0].has_pictures) == ("failure", True)
    assert {item.reason for item in items} == {"takeover", "failure", "safety"}
    assert page.queue._note == f"{len(items)} open, newest first"
    assert page.item == items[0]


def test_digit_labels_and_goes_to_the_next_open_segment(page: ReviewPage, qtbot: QtBot, workspace: Path) -> None:
    first = page.item
    assert first is not None
    press(page, Qt.Key.Key_4)
    settle(qtbot, page)
    assert stored(workspace, first.segment_id) == {"cause": "force", "review": "submitted"}
    assert page.item is not None
    assert page.item.segment_id == page.queue.items[1].segment_id
    assert page.queue.items[0].state == "force"
    assert page.footer.totals.done_today == 1
    assert page.footer.totals.open == len(page.queue.items) - 1


def test_one_undo_takes_back_one_act_and_redo_gives_it_again(page: ReviewPage, qtbot: QtBot, workspace: Path) -> None:
    first = page.item
    assert first is not None
    press(page, Qt.Key.Key_2)
    settle(qtbot, page)
    press(page, Qt.Key.Key_Z)
    settle(qtbot, page)
    assert stored(workspace, first.segment_id) == {}
    assert page.item is not None
    assert page.item.segment_id == first.segment_id, "undo goes back to what it changed"
    press(page, Qt.Key.Key_Z, Qt.KeyboardModifier.ShiftModifier)
    settle(qtbot, page)
    assert stored(workspace, first.segment_id) == {"cause": "planning", "review": "submitted"}
    labels = Labels(Workspace(workspace))
    assert [event.action for event in labels.history(first.segment_id)] == ["set", "set", "undo", "undo", "redo", "redo"]
    labels.close()


def test_undo_of_nothing_is_said_not_raised(page: ReviewPage, qtbot: QtBot) -> None:
    press(page, Qt.Key.Key_Z)
    settle(qtbot, page)
    assert "nothing" in page.labels.saved.text()


def test_kind_quality_exclude_and_note_are_saved_as_they_are_given(page: ReviewPage, qtbot: QtBot, workspace: Path) -> None:
    item = page.item
    assert item is not None
    QTest.mouseClick(page.labels.kind, Qt.MouseButton.LeftButton, pos=QPoint(page.labels.kind.width() // 2, 10))
    QTest.mouseClick(page.labels.quality, Qt.MouseButton.LeftButton, pos=QPoint(page.labels.quality.width() - 5, 10))
    QTest.mouseClick(page.labels.exclude, Qt.MouseButton.LeftButton)
    QTest.keyClicks(page.labels.note, "presses on the rim")
    QTest.keyClick(page.labels.note, Qt.Key.Key_Return)
    settle(qtbot, page)
    assert stored(workspace, item.segment_id) == {"kind": "correct", "quality": "bad", "exclude": "true", "note": "presses on the rim"}
    assert page.item is not None
    assert page.item.segment_id == item.segment_id, "only cause keys and Submit move on"
    assert page.queue.items[0].state == "excluded"


def test_note_being_typed_is_saved_when_moving_on(page: ReviewPage, qtbot: QtBot, workspace: Path) -> None:
    item = page.item
    assert item is not None
    QTest.keyClicks(page.labels.note, "half a tho")
    press(page, Qt.Key.Key_Period)
    settle(qtbot, page)
    assert stored(workspace, item.segment_id)["note"] == "half a tho"
    assert page.labels.note.toPlainText() == ""


def test_outcome_is_the_episodes(page: ReviewPage, qtbot: QtBot, workspace: Path) -> None:
    choose(qtbot, page, "failure", 1)
    item = page.item
    assert item is not None
    QTest.mouseClick(page.labels.outcome, Qt.MouseButton.LeftButton, pos=QPoint(5, 10))
    settle(qtbot, page)
    assert stored(workspace, item.episode_id) == {"outcome": "success"}
    assert page.item is not None
    assert page.item.outcome == "success"


def test_flag_toggles_skip_stays_open_unsure_closes(page: ReviewPage, qtbot: QtBot, workspace: Path) -> None:
    items = list(page.queue.items)
    press(page, Qt.Key.Key_F)
    settle(qtbot, page)
    assert stored(workspace, items[0].segment_id) == {"review": "flagged"}
    press(page, Qt.Key.Key_F)
    settle(qtbot, page)
    assert stored(workspace, items[0].segment_id) == {}
    press(page, Qt.Key.Key_S)
    settle(qtbot, page)
    press(page, Qt.Key.Key_U)
    settle(qtbot, page)
    assert [item.open for item in page.queue.items[:2]] == [True, False]
    assert page.item is not None
    assert page.item.segment_id == items[2].segment_id


def test_enter_submits_and_commas_walk(page: ReviewPage, qtbot: QtBot, workspace: Path) -> None:
    items = list(page.queue.items)
    press(page, Qt.Key.Key_Return)
    settle(qtbot, page)
    assert stored(workspace, items[0].segment_id) == {"review": "submitted"}
    press(page, Qt.Key.Key_Comma)
    settle(qtbot, page)
    assert page.item is not None
    assert page.item.segment_id == items[0].segment_id


def test_filter_and_search(page: ReviewPage, qtbot: QtBot) -> None:
    everything = len(page.queue.items)
    for reason, _, box in page.queue.chips.boxes():
        if reason == "safety":
            QTest.mouseClick(page.queue.chips, Qt.MouseButton.LeftButton, pos=box.center().toPoint())
    assert [item.reason for item in page.queue.items] == ["safety"]
    page.queue.chips.choose("")
    press(page, Qt.Key.Key_Slash)
    QTest.keyClicks(page.queue.search, "ep 1 failure")
    assert [(item.episode_number, item.reason) for item in page.queue.items] == [(1, "failure")]
    page.queue.search.clear()
    assert len(page.queue.items) == everything


def test_brushed_segments_from_insights_and_back(page: ReviewPage, qtbot: QtBot) -> None:
    wanted = [item.segment_id for item in page.queue.items if item.reason == "takeover"]
    page.show_segments(wanted)
    assert [item.segment_id for item in page.queue.items] == wanted
    settle(qtbot, page)
    page.queue.chips.choose("")
    assert len(page.queue.items) > len(wanted)


def test_playback_starts_before_the_onset_and_moves_by_keys(page: ReviewPage, qtbot: QtBot) -> None:
    choose(qtbot, page, "failure", 1)
    item, playhead = page.item, page.playhead
    assert item is not None
    assert playhead is not None
    assert playhead.position_s == pytest.approx(max(0.0, item.start_step / 20 - 2.0))
    page.player.seek(0.0)
    press(page, Qt.Key.Key_Right)
    assert page.playhead is not None
    assert page.playhead.step == 1
    press(page, Qt.Key.Key_Right, Qt.KeyboardModifier.ShiftModifier)
    assert page.playhead.step == 21
    press(page, Qt.Key.Key_Left)
    assert page.playhead.step == 20
    press(page, Qt.Key.Key_L)
    qtbot.waitUntil(lambda: page.playhead is not None and page.playhead.step > 23, timeout=10_000)
    press(page, Qt.Key.Key_K)
    assert page.playhead is not None
    assert not page.playhead.playing


def test_clicking_the_timeline_moves_the_play_head(page: ReviewPage, qtbot: QtBot) -> None:
    choose(qtbot, page, "failure", 1)
    middle = int(page.timeline.x_of(1.5))
    QTest.mouseClick(page.timeline, Qt.MouseButton.LeftButton, pos=QPoint(middle, 120))
    assert page.playhead is not None
    assert page.playhead.position_s == pytest.approx(1.5, abs=0.02)
    QTest.mouseClick(page.timeline, Qt.MouseButton.LeftButton, pos=QPoint(LABELS - 40, 120))
    assert page.playhead.position_s == pytest.approx(1.5, abs=0.02)


def test_pictures_follow_the_play_head(page: ReviewPage, qtbot: QtBot) -> None:
    assert page.player.episode is not None
    assert [track.camera for track in page.player.episode.tracks] == ["front", "wrist"]
    page.player.seek(0.0)
    first = page.front.image
    assert first is not None
    assert (first.width(), first.height()) == (640, 480)
    page.player.seek(0.5)
    later = page.front.image
    assert later is not None
    assert later != first
    assert page.wrist.image is not None
    qtbot.waitUntil(lambda: len(page.timeline._film) == page.timeline.FRAMES, timeout=10_000)


def test_episode_without_pictures_says_so_and_shows_signals(page: ReviewPage, qtbot: QtBot) -> None:
    choose(qtbot, page, "takeover", 0)
    assert page.front.image is None
    assert "no pictures" in page.front._missing
    timeline = page.timeline.timeline
    assert timeline is not None
    assert [signal.name for signal in timeline.signals] == ["Height", "Force", "Disagreement"]
    assert {span.driver for span in timeline.spans} == {"policy", "ramp", "human"}
    assert page.item is not None
    assert any(flag.text == "takeover" and flag.step == page.item.start_step for flag in timeline.flags)


def test_action_bars_show_policy_person_and_robot(page: ReviewPage, qtbot: QtBot) -> None:
    choose(qtbot, page, "takeover", 0)
    timeline = page.timeline.timeline
    assert page.item is not None
    assert timeline is not None
    step = page.item.start_step + 5
    page.player.seek(step / 20)
    bars = page.action.bars(0)
    assert [bar.colour for bar in bars] == [tokens.POLICY, tokens.TAKEOVER, tokens.T1]
    assert [bar.value for bar in bars] == [
        timeline.policy_action[step, 0],
        timeline.human_action[step, 0],
        timeline.applied_action[step, 0],
    ]


def test_a_hold_breaks_the_curves_and_is_in_the_queue(page: ReviewPage, qtbot: QtBot) -> None:
    choose(qtbot, page, "safety", 2)
    assert page.timeline.timeline is not None
    assert page.timeline.timeline.breaks() == [12]


def test_labels_survive_closing_the_page(workspace: Path, qtbot: QtBot) -> None:
    page = open_page(qtbot, workspace)
    assert page.item is not None
    target = page.item.segment_id
    press(page, Qt.Key.Key_6)
    page.close_page()  # at once: what was submitted is still written
    assert stored(workspace, target)["cause"] == "assumption"
    again = open_page(qtbot, workspace)
    assert again.queue.items[0].state == "assumption"
    again.close_page()


def test_digits_in_a_row_label_one_segment_each(page: ReviewPage, qtbot: QtBot, workspace: Path) -> None:
    ids = [item.segment_id for item in page.queue.items]
    for _ in ids:
        press(page, Qt.Key.Key_1)
    settle(qtbot, page)
    assert [stored(workspace, identity).get("cause") for identity in ids] == ["vision"] * len(ids)
    assert page.footer.totals.open == 0


def test_keys_in_the_real_window_reach_the_page(console, peer, until) -> None:  # type: ignore[no-untyped-def]
    """Through the frame: a digit labels, Space does not take over here, a brushed stretch opens, closing loses nothing."""
    window, controller = console
    folder = Path(peer.config.workspace)
    recorder = Recorder(folder)
    recorder.episode(flaw=1.0, help_=False, most_steps=8)
    recorder.episode(flaw=1.0, help_=False, most_steps=8)
    recorder.close()
    window.show_page(REVIEW)
    until(lambda: window.review.playhead is not None, 10_000)
    first = window.review.item.segment_id
    QTest.keyClick(window, Qt.Key.Key_5)
    until(lambda: window.review.item.segment_id != first)
    QTest.keyPress(window, Qt.Key.Key_Space)
    assert not controller.keyboard.poll().deadman
    QTest.keyRelease(window, Qt.Key.Key_Space)
    window.show_page(INSIGHTS)
    until(lambda: window.insights.snapshot is not None, 10_000)
    window.insights.open_segments.emit([first])
    assert window.page_index == REVIEW
    assert [item.segment_id for item in window.review.queue.items] == [first]
    QTest.keyClick(window, Qt.Key.Key_2)
    window.close()
    assert stored(folder, first)["cause"] == "planning"


def test_empty_workspace_says_why_and_offers_one_button(tmp_path: Path, qtbot: QtBot) -> None:
    page = ReviewPage(tmp_path / "none", PERSON)
    qtbot.addWidget(page)
    page.show()
    page.activated()
    settle(qtbot, page)
    assert page._stack.currentWidget() is page.empty
    assert page.empty.button is not None
    with qtbot.waitSignal(page.go_operate):
        QTest.mouseClick(page.empty.button, Qt.MouseButton.LeftButton)
    page.close_page()


def test_new_episodes_appear_while_the_page_is_open(page: ReviewPage, workspace: Path, qtbot: QtBot) -> None:
    before = len(page.queue.items)
    recorder = Recorder(workspace, session="s3", started_ns=1_790_009_900_000_000_000)
    recorder.episode(flaw=1.0, help_=False, most_steps=5)
    recorder.close()
    qtbot.waitUntil(lambda: len(page.queue.items) == before + 1, timeout=15_000)
    assert page.queue.items[0].episode_id == "s3-0000"


def test_a_missing_file_is_named(page: ReviewPage, workspace: Path, qtbot: QtBot) -> None:
    for path in (workspace / "episodes").rglob("s1-0001*"):
        path.unlink()
    choose(qtbot, page, "failure", 1)
    assert "s1-0001" in page.front._missing


# --- pure parts ---


def test_playhead_shuttles_and_stops_at_the_ends() -> None:
    head = Playhead(41, 20.0)
    assert head.duration_s == 2.0
    assert head.shuttle(1).shuttle(1).speed == 2.0
    assert head.shuttle(1).shuttle(-1).direction == -1
    ended = head.seek(1.9).toggle().advance(1.0)
    assert (ended.position_s, ended.playing) == (2.0, False)
    assert ended.toggle().position_s == 0.0
    assert head.seek(0.05 * 7).step == 7
    assert head.seek(99).step == 40
    with pytest.raises(ValueError, match="cannot be played"):
        Playhead(0, 20.0)


def test_steps_without_an_answer_name_no_version():
    assert versions_text(np.array([3, 3, 0])) == "v3"
    assert versions_text(np.array([0, 6, 8, 0])) == "v6–v8"
    assert versions_text(np.array([0, 0])) == "no answer"


def test_spans_join_equal_neighbours() -> None:

    spans = driver_spans(np.array([0, 0, 2, 1, 1, 0]))
    assert [(span.start, span.stop, span.driver) for span in spans] == [(0, 2, "policy"), (2, 3, "ramp"), (3, 5, "human"), (5, 6, "policy")]


def test_median_leaves_breaks_out() -> None:
    assert median_gap_s([0, 10, 24, 4000, 4012]) == 12
    assert median_gap_s([5]) is None


def test_axis_holds_its_values() -> None:

    low, high = nice_axis(np.array([0.0, 7.3, np.nan]), 1.0, True)
    assert low == 0.0
    assert 7.3 <= high <= 10.0
    assert nice_axis(np.array([np.nan]), 5.0, True) == (0.0, 5.0)


def test_next_index_stays_when_nothing_is_open() -> None:
    assert next_index([], 0) == -1
