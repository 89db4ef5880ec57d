"""The Insights page on a real catalog: what it shows equals what was recorded, evaluated and labelled."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot
from recorded import Recorder

from takeover.app.console import tokens
from takeover.app.console.insights_page import InsightsPage
from takeover.app.console.insights_panels import correction_row, latency_rows, learner_rows, quantile
from takeover.app.console.models.insights_scene import Polyline, Text
from takeover.data.catalog import Catalog, SegmentFilter
from takeover.data.labels import Labels
from takeover.data.schema import EpisodeEnd, EpisodeKind, LearnerStatus
from takeover.data.workspace import Workspace

EPISODES = 24


class Recording:
    """The recorded workspace and what the bridge would have counted, to compare with."""

    def __init__(self, folder: Path, ends: list[EpisodeEnd]) -> None:
        self.folder, self.ends = folder, ends


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    folder = tmp_path_factory.mktemp("recorded")
    other = Recorder(folder, session="older", started_ns=1_780_000_000_000_000_000)
    other.episode(flaw=0.8, most_steps=30)
    other.close()
    recorder = Recorder(folder)
    recorder.episode(kind=EpisodeKind.DEMONSTRATION, most_steps=10)
    ends = [
        recorder.episode(flaw=0.9 if index < 8 else 0.0, help_=index % 4 > 0, version=1 + index // 6, most_steps=60, aborted=index == 3)
        for index in range(EPISODES)
    ]
    for version, successes, n in ((1, 78, 200), (4, 30, 40), (4, 193, 200)):
        recorder.catalog.add_evaluation(
            session_id="s1", policy_version=version, policy_sha256="", task_id="peg-insert", protocol="heldout", successes=successes, n=n
        )
    recorder.close()
    return Recording(folder, ends)


@pytest.fixture
def workspace(recording: Recording, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recording.folder, tmp_path / "ws"))


@pytest.fixture
def page(workspace: Path, qtbot: QtBot, qapp: object) -> Iterator[InsightsPage]:
    tokens.apply_theme(qapp)  # type: ignore[arg-type]
    made = InsightsPage(workspace)
    qtbot.addWidget(made)
    made.resize(1528, 920)
    made.show()
    made.activated()
    qtbot.waitUntil(lambda: made.snapshot is not None and not made.background.busy, timeout=10_000)
    yield made
    made.close_page()


def shown(page: InsightsPage):  # type: ignore[no-untyped-def]
    assert page.snapshot is not None
    assert page.snapshot.shown is not None
    return page.snapshot.shown


def texts(page_chart) -> set[str]:  # type: ignore[no-untyped-def]
    scene = page_chart.scene()
    assert scene is not None
    return {item.text for item in scene.items if isinstance(item, Text)}


def test_newest_session_is_shown_with_its_policy_episodes(page: InsightsPage, recording: Recording) -> None:
    insights = shown(page)
    assert insights.session_id == "s1"
    assert len(insights.points) == EPISODES
    assert insights.demonstrations == 1
    assert page.rate._note == f"n = {EPISODES} episodes, {sum(end.steps for end in recording.ends):,} steps"


def test_rate_equals_what_was_counted_while_recording(page: InsightsPage, recording: Recording) -> None:
    curve = shown(page).rate
    for episode, value in zip(curve.episodes, curve.value, strict=True):
        window = recording.ends[max(0, episode - 20) : episode]
        assert value == pytest.approx(sum(end.human_steps for end in window) / sum(end.steps for end in window))
    assert curve.episodes == list(range(5, 25)), "from five episodes on, over all so far until there are 20"


def test_success_alone_and_with_help_equal_the_record(page: InsightsPage, recording: Recording) -> None:
    windows = shown(page).windows
    assert [(window.first, window.last) for window in windows] == [(1, 10), (11, 24)], "a short run: tens, the rest joins the last"
    for window in windows:
        counted = [end for end in recording.ends[window.first - 1 : window.last] if end.outcome != "aborted"]
        assert window.helped.n == len(counted)
        assert window.helped.k == sum(end.outcome == "success" for end in counted)
        assert window.alone.k == sum(end.outcome == "success" and end.human_steps == 0 for end in counted)
    assert sum(window.helped.n for window in windows) == EPISODES - 1
    assert sum(window.alone.k for window in windows) < sum(window.helped.k for window in windows)


def test_versions_table_counts_every_episode(page: InsightsPage) -> None:
    rows = page.versions.table.rows
    assert [row[0] for row in rows] == ["v4", "v3", "v2", "v1"]
    assert [row[1] for row in rows] == ["6"] * 4


def test_held_out_takes_the_evaluation_with_most_starts(page: InsightsPage) -> None:
    assert [(one.version, one.result.k, one.result.n) for one in shown(page).heldout] == [(1, 78, 200), (4, 193, 200)]
    assert {"v1", "v4", "78 of 200", "193 of 200"} <= texts(page.heldout.chart)


def test_labels_given_elsewhere_appear(page: InsightsPage, workspace: Path, qtbot: QtBot) -> None:
    assert "No causes yet" in page.causes.empty
    labels = Labels(Workspace(workspace))
    with Catalog.open(Workspace(workspace)) as catalog:
        segment = catalog.segments(SegmentFilter(session_id="s1", kinds=("takeover",)))[0]
    labels.add_label(segment.id, "cause", "timing", "lb-01")
    labels.close()
    qtbot.waitUntil(lambda: page.causes.empty == "", timeout=15_000)
    assert shown(page).segments.causes["timing"] == 1
    assert "Timing" in texts(page.causes.chart)


def test_an_excluded_episode_leaves_the_curve(page: InsightsPage, workspace: Path, qtbot: QtBot) -> None:
    labels = Labels(Workspace(workspace))
    labels.add_label(shown(page).points[5].episode_id, "exclude", "true", "lb-01")
    labels.close()
    qtbot.waitUntil(lambda: len(shown(page).points) == EPISODES - 1, timeout=15_000)
    assert "1 excluded" in page.rate._note


def test_times_to_takeover_are_the_segments(page: InsightsPage, recording: Recording) -> None:
    assert len(shown(page).segments.takeover_s) == sum(end.takeovers for end in recording.ends)


def test_steps_or_episodes(page: InsightsPage, recording: Recording) -> None:
    QTest.mouseClick(page.axis, Qt.MouseButton.LeftButton, pos=QPoint(5, 5))
    scene = page.rate.chart.scene()
    assert scene is not None
    assert scene.axes is not None
    assert scene.axes.x_range[1] == sum(end.steps for end in recording.ends)


def test_another_session_is_drawn_dashed(page: InsightsPage, qtbot: QtBot) -> None:
    page.against.setCurrentIndex(1)
    qtbot.waitUntil(lambda: page.snapshot is not None and page.snapshot.against is not None, timeout=10_000)
    assert page.snapshot is not None
    assert page.snapshot.against is not None
    assert page.snapshot.against.session_id == "older"
    scene = page.rate.chart.scene()
    assert scene is not None
    assert any(isinstance(item, Polyline) and item.dash for item in scene.items)


def test_choosing_a_run_shows_it(page: InsightsPage, qtbot: QtBot) -> None:
    page.run.setCurrentIndex(page.run.findData("older"))
    qtbot.waitUntil(lambda: shown(page).session_id == "older", timeout=10_000)
    assert len(shown(page).points) == 1
    assert page.heldout.empty


def test_brushing_opens_the_segments_in_review(page: InsightsPage, qtbot: QtBot, recording: Recording) -> None:
    chart = page.rate.chart
    scene = chart.scene()
    assert scene is not None
    assert scene.axes is not None
    start = QPoint(int(scene.axes.x(0.5)), 100)
    end = QPoint(int(scene.axes.x(8.4)), 100)
    QTest.mousePress(chart, Qt.MouseButton.LeftButton, pos=start)
    QTest.mouseMove(chart, end)
    QTest.mouseRelease(chart, Qt.MouseButton.LeftButton, pos=end)
    found = page.brushed_segments()
    failures = sum(end.outcome == "failure" for end in recording.ends[:8])
    assert len(found) == sum(end.takeovers for end in recording.ends[:8]) + failures
    with qtbot.waitSignal(page.open_segments) as signal:
        QTest.mouseClick(chart, Qt.MouseButton.LeftButton, pos=chart._brush_label().center().toPoint())
    assert signal.args == [found]


def test_pointer_reads_the_curve(page: InsightsPage) -> None:
    curve = shown(page).rate
    assert curve.episodes[17] == 22
    reading = page._reading(shown(page), 22.0)
    assert reading.startswith(f"episode 22, step {curve.steps[17]:,}: {100 * curve.value[17]:.0f} %")
    assert reading.endswith("v4")


def test_export(page: InsightsPage, workspace: Path, qtbot: QtBot) -> None:
    QTest.mouseClick(page.png, Qt.MouseButton.LeftButton)
    QTest.mouseClick(page.csv, Qt.MouseButton.LeftButton)
    made = {path.suffix: path for path in (workspace / "exports").iterdir()}
    assert made[".png"].read_bytes().startswith(b"\x89PNG")
    assert len(made[".csv"].read_text().splitlines()) == EPISODES + 1
    assert "exports/" in page.message.text()


def test_empty_workspace_says_why(tmp_path: Path, qtbot: QtBot) -> None:
    page = InsightsPage(tmp_path / "none")
    qtbot.addWidget(page)
    page.show()
    page.activated()
    qtbot.waitUntil(lambda: page.snapshot is not None, timeout=10_000)
    assert page._stack.currentWidget() is page.empty
    page.close_page()


def status() -> LearnerStatus:
    return LearnerStatus(
        learner="hil-serl",
        phase="training",
        progress=1.0,
        text="",
        updates=500,
        updates_per_s=40.0,
        demonstrations=20,
        finished_train_step=249,
        backlog_steps=3,
        newest_version=9,
        versions=[],
        versions_published=9,
        correction_to_batch_s=[0.4, 0.6, 0.9],
        corrections=[{"episode_number": 7, "length_s": 1.25, "update": 1240, "to_batch_s": 0.8}],
    )


def test_live_rows_show_only_what_was_measured() -> None:
    assert learner_rows(None, None, None, -1.0) == []
    rows = dict(learner_rows(status(), None, None, -1.0))
    assert rows["Updates to data"] == "2.00 per step, backlog 3"
    extra = dict(learner_rows(msgspec.structs.replace(status(), updates=1500, extra_updates=1000), None, None, -1.0))
    assert extra["Updates to data"] == "2.00 per step, 1,000 more in resets, backlog 3"
    assert latency_rows(status()) == [("to batch, n 3", "0.6 s", "0.9 s", "1 s")]
    assert correction_row(status().corrections[0]) == ["7", "1.2 s", "1,240", "0.8 s", "–", "–"]
    assert quantile([1, 2, 3, 4], 0.5) == 2
