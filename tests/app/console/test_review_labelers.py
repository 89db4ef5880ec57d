"""Several labelers at one catalog: leases, blind second opinions, and what the page says when the catalog cannot be written."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot
from recorded import Recorder

from takeover.app.console import tokens
from takeover.app.console.models.review_items import LEAST_DOUBLES
from takeover.app.console.review_lease import Lease
from takeover.app.console.review_page import ReviewPage
from takeover.data.catalog import Catalog
from takeover.data.claims import Claim, Claims
from takeover.data.labels import Labels
from takeover.data.training_labels import note_uses, note_version
from takeover.data.workspace import Workspace

FUTURE_NS = 3_600_000_000_000
Opener = Callable[..., ReviewPage]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five short failures."""
    folder = tmp_path_factory.mktemp("recorded")
    recorder = Recorder(folder)
    for _ in range(5):
        recorder.episode(flaw=1.0, help_=False, most_steps=8)
    recorder.close()
    return folder


@pytest.fixture
def workspace(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "ws"))


@pytest.fixture
def opened(workspace: Path, qtbot: QtBot, qapp: object) -> Iterator[Opener]:
    """Opens a page for a person; all are closed at the end."""
    tokens.apply_theme(qapp)  # type: ignore[arg-type]
    made: list[ReviewPage] = []

    def make(person: str, percent: int = 0) -> ReviewPage:
        page = ReviewPage(workspace, person)
        page.store.blind_percent = percent
        qtbot.addWidget(page)
        page.resize(1528, 920)
        page.show()
        page.activated()
        made.append(page)
        qtbot.waitUntil(lambda: page.playhead is not None and page.hold is not None and not page.background.busy, timeout=10_000)
        return page

    yield make
    for page in made:
        page.close_page()


def press(page: ReviewPage, key: Qt.Key) -> None:
    QTest.keyClick(page, key)


def settle(qtbot: QtBot, *pages: ReviewPage) -> None:
    qtbot.waitUntil(lambda: not any(page.background.busy for page in pages), timeout=10_000)


def held(workspace: Path) -> dict[str, str]:
    with Catalog.open(workspace) as catalog:
        return {key: one.person for key, one in Claims(catalog).running().items()}


def open_id(page: ReviewPage) -> str:
    assert page.item is not None
    return page.item.segment_id


def labels_of(workspace: Path, target: str) -> dict[str, str]:
    labels = Labels(Workspace(workspace))
    try:
        return labels.current(target)
    finally:
        labels.close()


# --- leases ---


def test_two_labelers_never_work_on_the_same_segment(opened: Opener, workspace: Path, qtbot: QtBot) -> None:
    one, two = opened("lb-01"), opened("lb-02")
    assert held(workspace) == {open_id(one): "lb-01", open_id(two): "lb-02"}
    done: list[str] = []
    while one.queue.items and any(item.open for item in one.queue.items) and len(done) < 10:
        for page in (one, two):  # without waiting for each other's news
            done.append(open_id(page))
            press(page, Qt.Key.Key_3)
        settle(qtbot, one, two)
        one.refresh()
        two.refresh()
        settle(qtbot, one, two)
    decided = {item.segment_id for item in one.queue.items if not item.open}
    assert len(decided) == 5
    labels = Labels(Workspace(workspace))
    authors = [{event.author for event in labels.history(key)} for key in decided]
    labels.close()
    assert all(len(names) == 1 for names in authors), "nobody labelled what another had"


def test_a_segment_of_somebody_else_is_shown_and_cannot_be_labelled(opened: Opener, workspace: Path, qtbot: QtBot) -> None:
    one, two = opened("lb-01"), opened("lb-02")
    theirs = open_id(one)
    two.refresh()
    settle(qtbot, two)
    row = [item.segment_id for item in two.queue.items].index(theirs)
    assert two._queue is not None
    assert two._queue.held[theirs].text(time.time_ns()) == "lb-01, 30 min left"
    two.select(row)
    settle(qtbot, two)
    assert open_id(two) == theirs
    assert not two.mine
    assert not two.labels.causes.isEnabled()
    assert "lb-01 has this segment" in two.labels.saved.text()
    assert two.title.right_text == "lb-01, 30 min left"
    two.acts.decide(("cause", "wear"))
    two.acts.label("note", "x")
    assert two.acts.labelled_last is None, "nothing was even tried"
    two.timeline.move_edge("first", 3)
    settle(qtbot, two)
    assert labels_of(workspace, theirs) == {}
    one.select(2)  # gives it back
    settle(qtbot, one)
    qtbot.waitUntil(lambda: two.mine, timeout=5000)
    assert two.labels.causes.isEnabled()
    assert held(workspace)[theirs] == "lb-02"


def test_next_passes_over_what_another_process_has_taken_meanwhile(opened: Opener, workspace: Path, qtbot: QtBot) -> None:
    page = opened("lb-01")
    page._poll.stop()  # it has not heard yet
    second, third = (page.queue.items[row].segment_id for row in (1, 2))
    script = (
        "import sys; from takeover.data.catalog import Catalog; from takeover.data.claims import Claim, Claims\n"
        "Claims(Catalog.open(sys.argv[1])).claim(sys.argv[2], 'lb-02')"
    )
    subprocess.run([sys.executable, "-c", script, str(workspace), second], check=True, timeout=60)
    press(page, Qt.Key.Key_1)
    settle(qtbot, page)
    qtbot.waitUntil(lambda: open_id(page) == third and page.hold is not None and page.hold.mine, timeout=5000)
    assert labels_of(workspace, second) == {}


def test_next_ends_where_others_have_all_the_rest(opened: Opener, workspace: Path, qtbot: QtBot) -> None:
    page = opened("lb-01")
    page._poll.stop()  # it has not heard yet
    mine = open_id(page)
    with Catalog.open(workspace) as catalog:
        for item in page.queue.items[1:]:
            Claims(catalog).claim(item.segment_id, "lb-02")
    press(page, Qt.Key.Key_1)
    qtbot.waitUntil(lambda: not page.mine and not page.background.busy, timeout=5000)
    QTest.qWait(200)  # it has come to rest
    assert not page.background.busy
    assert "lb-02 has this segment" in page.labels.saved.text()
    assert labels_of(workspace, mine)["cause"] == "vision"


def test_a_lease_that_ran_out_and_was_taken_is_told_and_no_label_is_written(opened: Opener, workspace: Path, qtbot: QtBot) -> None:
    page = opened("lb-01")
    page._poll.stop()
    mine = open_id(page)
    with Catalog.open(workspace) as catalog:
        Claims(catalog).claim(mine, "lb-02", now_ns=time.time_ns() + FUTURE_NS)
    assert page.mine  # it has not heard yet
    page.labels.kind.changed.emit(1)
    settle(qtbot, page)
    assert labels_of(workspace, mine) == {}
    assert "lb-02 has this segment" in page.labels.saved.text()
    assert page.labels.kind.index == -1, "the control shows what holds"
    page.refresh()
    settle(qtbot, page)
    assert not page.mine
    assert "your lease ran out" in page.labels.saved.text()


def test_the_lease_is_renewed_while_open_and_given_back_on_leaving_and_closing(opened: Opener, workspace: Path, qtbot: QtBot) -> None:
    page = opened("lb-01")
    page.deactivated()
    settle(qtbot, page)
    assert held(workspace) == {}
    page.activated()
    settle(qtbot, page)
    assert held(workspace) == {open_id(page): "lb-01"}
    page.close_page()
    assert held(workspace) == {}
    with Catalog.open(workspace) as catalog:
        lease = Lease(catalog, "lb-01", lease_s=2.0)
        first = lease.take(open_id(page), False)
        lease.renew()
        assert lease.held()[open_id(page)].expires_ns == first.expires_ns  # most of it is left
        time.sleep(0.5)
        lease.renew()
        assert lease.held()[open_id(page)].expires_ns > first.expires_ns + 400_000_000
        lease.leave()
        assert lease.held() == {}


def test_an_open_page_renews_its_lease_by_itself(opened: Opener, workspace: Path, qtbot: QtBot) -> None:
    page = opened("lb-01")
    with Catalog.open(workspace) as catalog:
        claims = Claims(catalog)
        first = claims.held([open_id(page)])[open_id(page)].expires_ns
        page.store.lease._mine = Claim(open_id(page), "lb-01", time.time_ns() + 60_000_000_000)  # as after 29 minutes
        qtbot.waitUntil(lambda: claims.held([open_id(page)])[open_id(page)].expires_ns > first, timeout=5000)


# --- blind second opinions ---


def test_a_blind_labeler_sees_nothing_of_the_first_until_done(opened: Opener, workspace: Path, qtbot: QtBot) -> None:
    first = opened("lb-01")
    target = open_id(first)
    assert first.item is not None
    episode = first.item.episode_id
    first.store.label(first.item, "note", "pressed on the rim")
    first.store.label(first.item, "tag:rim", "true")
    first.store.label(first.item, "quality", "bad")
    first.store.label(first.item, "outcome", "success")
    press(first, Qt.Key.Key_4)
    settle(qtbot, first)
    second = opened("lb-02", percent=100)
    row = [item.segment_id for item in second.queue.items].index(target)
    second.select(row)
    settle(qtbot, second)
    item = second.item
    assert item is not None
    assert (item.blind, item.open, item.labels, item.outcome, item.state) == (True, True, {}, "failure", "blind")
    assert second.title.right_text == "blind second label: yes"
    assert (second.labels.causes.current, second.labels.quality.index, second.labels.note.toPlainText()) == ("", -1, "")
    assert second.labels.tags.chips.tags == []
    assert not second.labels.outcome.isEnabled()
    second.queue.search.setText("rim")
    assert second.queue.items == [], "nor does the search find what the first one wrote"
    second.queue.search.clear()
    second.labels.quality.changed.emit(0)
    settle(qtbot, second)
    assert second.item is not None
    assert second.item.labels == {"quality": "good"}
    assert second.item.blind, "begun is not done"
    press(second, Qt.Key.Key_I)
    assert "Second opinion" in second.labels._title
    press(second, Qt.Key.Key_2)
    settle(qtbot, second)
    done = next(one for one in second.queue.items if one.segment_id == target)
    assert not done.blind
    assert done.second == {"cause": "planning", "quality": "good", "review": "submitted"}
    assert done.labels["cause"] == "force", "now the first one may be seen"
    assert labels_of(workspace, target)["cause"] == "force", "and stays what holds"
    assert labels_of(workspace, episode) == {"outcome": "success"}
    press(second, Qt.Key.Key_Z)  # one act, back to blind
    settle(qtbot, second)
    assert next(one for one in second.queue.items if one.segment_id == target).blind


def test_ones_own_segments_are_not_offered_blind(opened: Opener, qtbot: QtBot) -> None:
    page = opened("lb-01", percent=100)
    target = open_id(page)
    press(page, Qt.Key.Key_4)
    settle(qtbot, page)
    done = next(one for one in page.queue.items if one.segment_id == target)
    assert (done.blind, done.state) == (False, "force")


def test_agreement_of_doubles_stands_in_the_footer(opened: Opener, workspace: Path, qtbot: QtBot) -> None:
    recorder = Recorder(workspace, session="s9", started_ns=1_790_009_900_000_000_000)
    for _ in range(LEAST_DOUBLES):
        recorder.episode(flaw=1.0, help_=False, most_steps=4)
    recorder.close()
    labels = Labels(Workspace(workspace))
    rows = labels.catalog.segments(limit=LEAST_DOUBLES + 2)
    for number, row in enumerate(rows):
        labels.add_label(row.id, "cause", "force" if number % 2 else "vision", "lb-01")
        labels.add_label(row.id, "cause", "force" if number % 2 else "vision" if number else "wear", "lb-02", blind=True)
    labels.close()
    page = opened("lb-03")
    cells = dict(page.footer.cells)
    assert page.footer._doubles.pairs == LEAST_DOUBLES + 2
    assert cells["force"].startswith("n too small")  # six of them
    assert page.footer._doubles.overall.text == "0.85"
    assert not page.footer._doubles.overall.low


# --- what a learner did with them, and errors ---


def test_the_update_that_first_used_a_label_is_shown(opened: Opener, workspace: Path, qtbot: QtBot) -> None:
    page = opened("lb-01")
    assert page.item is not None
    page.store.label(page.item, "exclude", "true")
    page.refresh()
    settle(qtbot, page)
    qtbot.waitUntil(lambda: page.labels.used.text() == "Label not in an update yet", timeout=5000)
    labels = Labels(Workspace(workspace))
    event = labels.history(open_id(page))[0]
    note_uses(labels.catalog, "s1/hil-serl", [(event.id, event.target)], 1240, event.wall_ns + 800_000_000)
    qtbot.waitUntil(lambda: page.labels.used.text() == "Label in update 1,240 after 0.8 s", timeout=5000)
    note_version(labels.catalog, "s1/hil-serl", 17)
    labels.close()
    qtbot.waitUntil(lambda: page.labels.used.text() == "Label in update 1,240 after 0.8 s, in v17", timeout=5000)


def test_a_busy_catalog_says_so_and_the_label_is_not_shown_as_saved(opened: Opener, workspace: Path, qtbot: QtBot) -> None:
    page = opened("lb-01")
    page._poll.stop()
    target = open_id(page)
    catalog = page.store._catalog
    assert catalog is not None
    with catalog.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=50")
    other = sqlite3.connect(Workspace(workspace).catalog_path)
    other.execute("BEGIN IMMEDIATE")
    page.labels.quality.changed.emit(2)
    settle(qtbot, page)
    other.rollback()
    other.close()
    assert "not saved: the catalog is busy" in page.labels.saved.text()
    assert page.labels.quality.index == -1
    assert labels_of(workspace, target) == {}
    page.labels.quality.changed.emit(2)
    settle(qtbot, page)
    assert labels_of(workspace, target) == {"quality": "bad"}


def test_a_read_only_catalog_says_so(opened: Opener, qtbot: QtBot) -> None:
    page = opened("lb-01")
    page._poll.stop()
    catalog = page.store._catalog
    assert catalog is not None
    with catalog.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only=1")
    page.labels.kind.changed.emit(0)
    settle(qtbot, page)
    assert "not saved: the catalog can only be read here" in page.labels.saved.text()
    with catalog.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only=0")
