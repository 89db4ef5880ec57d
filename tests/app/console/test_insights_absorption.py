"""Absorption over versions on the Insights page: real result files of real versions, in a real window."""

import csv
import os
import shlex
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import itertools

from PySide6.QtCore import QPoint, QRect, Qt
from PySide6.QtGui import QFontMetrics
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from recorded import Recorder

from takeover.app.cli import main
from takeover.app.console import insights_absorption, tokens
from takeover.app.console.insights_absorption import AGAIN, AbsorptionReader
from takeover.app.console.insights_page import InsightsPage
from takeover.app.console.models.absorption import MOST_LEARNERS, Run, VersionAbsorption, curve_of, reading
from takeover.app.console.models.absorption_chart import absorption_scene
from takeover.app.console.models.insights import MOST_POINTS
from takeover.app.console.models.insights_scene import Area, Box, Text
from takeover.app.console.painting import text_width
from takeover.data.schema import EpisodeKind, RobotSpec
from takeover.data.statistics import wilson
from takeover.policies.absorb import totals_of
from takeover.policies.absorption_file import FILE, Absorption, SegmentAbsorption, write_absorption
from takeover.policies.manifest import MANIFEST_NAME, read_manifest, version_folder
from takeover.policies.publish import make_manifest, publish, weights_bytes
from takeover.policies.registry import make_learner
from takeover.policies.version_watch import HELD
from takeover.robot_bridge.robots.sim import SimRobot

RUN = Run("s1", "sim", "peg-insert")


@pytest.fixture(scope="module")
def spec() -> Iterator[RobotSpec]:
    robot = SimRobot("peg-insert")
    yield robot.spec
    robot.close()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    other = Recorder(folder, session="older", started_ns=1_780_000_000_000_000_000)
    other.episode(flaw=0.8, most_steps=30)
    other.close()
    recorder = Recorder(folder)
    recorder.episode(kind=EpisodeKind.DEMONSTRATION, most_steps=10)
    for _ in range(3):
        recorder.episode(flaw=0.9, version=1, most_steps=60)
    recorder.close()
    return folder


@pytest.fixture
def workspace(recording: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recording, tmp_path / "ws"))


@pytest.fixture
def page(workspace: Path, qtbot: QtBot, qapp: Any) -> Iterator[InsightsPage]:
    tokens.apply_theme(qapp)
    made = InsightsPage(workspace)
    qtbot.addWidget(made)
    made.resize(1528, 920)
    made.show()
    yield made
    made.close_page()


def opened(page: InsightsPage, qtbot: QtBot) -> InsightsPage:
    page.activated()
    qtbot.waitUntil(lambda: page.absorbed is not None and not page.absorbed.unread, timeout=20_000)
    return page


def put(
    workspace: Path, spec: RobotSpec, version: int, *, task: str = "peg-insert", learner: str = "hil-serl", session: str = "s1"
) -> None:
    weights = make_learner("hil-serl", spec, version, {"hidden": 16}).weights()
    fields = {"parent": version - 1, "learner": learner, "swap": "step", "data_session": session}
    data = weights_bytes(weights)
    manifest = make_manifest(weights, data, msgspec.structs.replace(spec, task_id=task), version=version, **fields)
    publish(workspace, manifest, data, sync=False)


def measure(workspace: Path, version: int, closer: int, of: int, used: bool = True) -> None:
    """A result such as the evaluator writes, with ``closer`` of ``of`` corrections."""
    segments = [
        SegmentAbsorption(
            episode_id=f"s1-{index:04d}",
            intervention_id=0,
            acted_version=1,
            used=used,
            n=12,
            before=0.75,
            after=0.25,
            interval=(-0.6, -0.4) if index < closer else (-0.1, 0.1),
            verdict="closer" if index < closer else "not shown",
        )
        for index in range(of)
    ]
    write_absorption(
        workspace,
        Absorption(
            version=version,
            sha256=read_manifest(version_folder(workspace, version)).sha256,
            wall_ns=time.time_ns(),
            limit=20,
            segments=segments,
            totals=totals_of(segments),
            labelled_out=0,
            later=0,
            unattended=0,
            problems=[],
            with_pictures=True,
        ),
    )


def copies(workspace: Path, versions: range) -> None:
    """Version 1 and its result under other numbers, by hand: a thousand real ones take a minute."""
    source = version_folder(workspace, 1)
    manifest, result = ((source / name).read_bytes() for name in (MANIFEST_NAME, FILE))
    own = (b'"version": 1,', b'"version":1,')
    assert manifest.count(own[0]) == 1
    assert result.count(own[1]) == 1
    for version in versions:
        folder = version_folder(workspace, version)
        folder.mkdir()
        (folder / MANIFEST_NAME).write_bytes(manifest.replace(own[0], b'"version": %d,' % version))
        (folder / FILE).write_bytes(result.replace(own[1], b'"version":%d,' % version))


def shares(page: InsightsPage) -> dict[int, tuple[int, int]]:
    assert page.absorbed is not None
    return {one.version: (one.closer, one.corrections) for one in page.absorbed.points}


def test_the_curve_is_what_the_files_of_this_run_say(page: InsightsPage, workspace: Path, spec: RobotSpec, qtbot: QtBot) -> None:
    for version, (closer, of) in {1: (1, 8), 2: (6, 12), 3: (18, 20)}.items():
        put(workspace, spec, version)
        measure(workspace, version, closer, of)
    put(workspace, spec, 4, task="pick-lift")
    put(workspace, spec, 5, session="older")
    measure(workspace, 4, 3, 3)
    measure(workspace, 5, 2, 4)
    put(workspace, spec, 6)
    measure(workspace, 6, 5, 5, used=False)  # no batch held one yet
    put(workspace, spec, 7)
    assert opened(page, qtbot).absorbed is not None
    assert shares(page) == {1: (1, 8), 2: (6, 12), 3: (18, 20)}
    curve = page.absorbed.curve
    assert curve.versions == [1, 2, 3]
    assert curve.value == pytest.approx([1 / 8, 6 / 12, 18 / 20])
    assert list(zip(curve.low, curve.high, strict=True)) == [pytest.approx(wilson(k, n)) for k, n in ((1, 8), (6, 12), (18, 20))]
    assert (page.absorbed.versions, page.absorbed.uncounted, page.absorbed.unmeasured) == (5, 1, 1)
    assert page.absorption.empty == ""
    assert page.absorption._note == "v3: 18 of 20"
    scene = page.absorption.chart.scene()
    assert scene is not None
    assert {"v1", "v2", "v3", "90 %"} <= {item.text for item in scene.items if isinstance(item, Text)}
    assert "3 drawn, 1 not measured" in page.absorption.toolTip()
    page.run.setCurrentIndex(page.run.findData("older"))
    qtbot.waitUntil(lambda: shares(page) == {5: (2, 4)}, timeout=10_000)
    assert page.absorption._note == "v5: 2 of 4"


def test_before_there_is_a_version_it_says_so(page: InsightsPage, qtbot: QtBot) -> None:
    assert opened(page, qtbot).absorption.empty == "No policy version was made from this run's steps."
    QTest.mouseClick(page.absorption, Qt.MouseButton.LeftButton, pos=QPoint(40, 80))
    assert page.absorption.command == ""


def test_the_command_that_it_names_fills_the_open_page(page: InsightsPage, workspace: Path, spec: RobotSpec, qtbot: QtBot) -> None:
    for version in (1, 2, 3):
        put(workspace, spec, version)
    assert "takeover policy absorb --all" in opened(page, qtbot).absorption.empty
    assert "3 versions, none measured" in page.absorption.empty
    QApplication.clipboard().clear()
    QTest.mouseClick(page.absorption, Qt.MouseButton.LeftButton, pos=QPoint(40, 80))
    words = shlex.split(QApplication.clipboard().text())
    assert words == ["takeover", "policy", "absorb", "--all", "--robot", "sim:peg-insert", "--workspace", str(workspace)]
    assert main(words[1:]) == 0
    qtbot.waitUntil(lambda: set(shares(page)) == {2, 3}, timeout=15_000)  # 1 has no earlier correction
    assert page.absorption.empty == ""


def test_what_cannot_be_read_is_counted_named_and_read_once_it_is_mended(
    page: InsightsPage, workspace: Path, spec: RobotSpec, qtbot: QtBot
) -> None:
    for version in range(1, 8):
        put(workspace, spec, version)
        measure(workspace, version, version, 10)
    files = {version: version_folder(workspace, version) / FILE for version in range(1, 8)}
    kept = files[3].read_bytes()
    files[2].write_bytes(files[2].read_bytes()[:200])
    files[3].write_bytes(kept.replace(b'"closer":3', b'"closer":33'))
    files[4].unlink()
    files[4].mkdir()
    files[5].write_bytes(files[5].read_bytes().replace(b'"segments":10', b'"segments":"many"'))
    (version_folder(workspace, 6) / MANIFEST_NAME).write_bytes(b"{")
    assert set(shares(opened(page, qtbot))) == {1, 7}
    assert page.absorbed is not None
    assert page.absorbed.unreadable == 5
    assert page.absorption._note == "v7: 7 of 10, 5 unreadable"
    assert all(str(version_folder(workspace, version)) in page.absorption.toolTip() for version in (6, 5, 4))
    assert "takeover policy absorb 5" in page.absorption.toolTip()
    assert "and 2 more" in page.absorption.toolTip()
    files[3].write_bytes(kept)
    qtbot.waitUntil(lambda: set(shares(page)) == {1, 3, 7}, timeout=10_000)


def test_where_nothing_can_be_read_the_first_reason_stands_there(
    page: InsightsPage, workspace: Path, spec: RobotSpec, qtbot: QtBot
) -> None:
    put(workspace, spec, 1)
    measure(workspace, 1, 1, 2)
    (version_folder(workspace, 1) / FILE).write_bytes(b"nothing")
    empty = opened(page, qtbot).absorption.empty
    assert empty.startswith("1 result cannot be read. ")
    assert "measure it again with `takeover policy absorb 1`" in empty


def test_results_come_change_and_go_while_the_page_is_open(page: InsightsPage, workspace: Path, spec: RobotSpec, qtbot: QtBot) -> None:
    put(workspace, spec, 1)
    measure(workspace, 1, 1, 10)
    assert shares(opened(page, qtbot)) == {1: (1, 10)}
    put(workspace, spec, 2)
    measure(workspace, 2, 4, 10)
    qtbot.waitUntil(lambda: shares(page) == {1: (1, 10), 2: (4, 10)}, timeout=10_000)
    measure(workspace, 1, 3, 10)
    qtbot.waitUntil(lambda: shares(page)[1] == (3, 10), timeout=10_000)
    shutil.rmtree(version_folder(workspace, 1))
    qtbot.waitUntil(lambda: shares(page) == {2: (4, 10)}, timeout=10_000)


def test_pointer_reads_the_nearest_version(page: InsightsPage, workspace: Path, spec: RobotSpec, qtbot: QtBot) -> None:
    for version, closer in ((1, 2), (2, 8)):
        put(workspace, spec, version)
        measure(workspace, version, closer, 10)
    chart = opened(page, qtbot).absorption.chart
    scene = chart.scene()
    assert scene is not None
    assert scene.axes is not None
    before = chart.grab().toImage()
    QTest.mouseMove(chart, QPoint(int(scene.axes.x(1.9)), 40))
    assert chart.grab().toImage() != before
    said = chart._reading(1.9)  # type: ignore[misc]
    assert said.split("\n") == [
        "v2: 80 % (49–94 %), n 10",
        "distance 0.75 → 0.25",
        "change −0.50 to −0.50",
        "closer in 8, farther in 0",
        "hil-serl, 120 steps",
    ]
    points = page.absorbed.points if page.absorbed else []
    assert reading(points, 1.2).startswith("v1: 20 %")
    assert reading(points, -5).startswith("v1:")
    assert reading([], 1.0) == ""


def test_in_the_smallest_window_nothing_is_cut_off(page: InsightsPage, workspace: Path, spec: RobotSpec, qtbot: QtBot) -> None:
    page.resize(1108, 640)  # of 1180 x 720, the rest is banner, rail and status line
    for version in (1, 2, 3):
        put(workspace, spec, version)
    panel = opened(page, qtbot).absorption
    area = QRect(0, 0, panel.width() - 48, panel.height() - panel.header - 12)
    wrapped = int(Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap)
    assert area.contains(QFontMetrics(tokens.font(12)).boundingRect(area, wrapped, panel.empty))
    for version in (1, 2, 3):
        measure(workspace, version, 19, 20)
    (version_folder(workspace, 2) / FILE).write_bytes(b"nothing")
    qtbot.waitUntil(lambda: set(shares(page)) == {1, 3} and "1 unreadable" in panel.toolTip(), timeout=10_000)
    assert text_width(panel._title, 12, tokens.SEMIBOLD) + text_width(panel._note) + 32 <= panel.width()
    chart = panel.chart
    scene = chart.scene()
    assert scene is not None
    assert scene.axes is not None
    QTest.mouseMove(chart, QPoint(int(scene.axes.x(1.5)), 40))
    before = chart.grab().toImage()
    assert chart._reading is not None
    assert all(text_width(line, 11) + 16 <= chart.width() for line in chart._reading(1.0).split("\n"))
    QTest.mouseMove(chart, QPoint(int(scene.axes.x(1.5)), int(scene.axes.bottom) - 10))
    assert chart.grab().toImage() != before, "what is read goes to the other half"


def test_export_has_a_row_per_version(page: InsightsPage, workspace: Path, spec: RobotSpec, qtbot: QtBot) -> None:
    opened(page, qtbot)
    alone = page.export_csv(workspace / "exports" / "none.csv")
    assert [path.name for path in alone] == ["none.csv"]
    for version, closer in ((1, 2), (2, 8)):
        put(workspace, spec, version)
        measure(workspace, version, closer, 10)
    qtbot.waitUntil(lambda: len(shares(page)) == 2, timeout=10_000)
    QTest.mouseClick(page.csv, Qt.MouseButton.LeftButton)
    (made,) = (workspace / "exports").glob("insights-*-absorption.csv")
    assert made.name in page.message.text()
    with made.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["policy_version"], row["closer"], row["corrections"], row["share_closer"]) for row in rows] == [
        ("1", "2", "10", "0.200000"),
        ("2", "8", "10", "0.800000"),
    ]
    assert [float(rows[1][name]) for name in ("low_95", "high_95")] == pytest.approx(wilson(8, 10), abs=1e-6)


def test_thousands_are_drawn_as_some_hundred_and_read_once(
    page: InsightsPage, workspace: Path, spec: RobotSpec, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(workspace, spec, 1)
    measure(workspace, 1, 5, 10)
    copies(workspace, range(2, 3001))
    measure(workspace, 3000, 9, 10)
    assert opened(page, qtbot).absorbed is not None
    assert len(page.absorbed.points) == 3000
    assert len(page.absorbed.curve.versions) <= MOST_POINTS + 1
    assert (page.absorbed.curve.versions[-1], page.absorbed.curve.value[-1]) == (3000, 0.9), "the newest is itself"
    assert set(page.absorbed.curve.value[:-1]) == {0.5}
    scene = page.absorption.chart.scene()
    assert scene is not None
    assert any(isinstance(item, Area) for item in scene.items)
    assert not any(isinstance(item, Box) for item in scene.items)
    page.deactivated()
    qtbot.waitUntil(lambda: not page.background.busy, timeout=10_000)

    read: list[int] = []
    real = insights_absorption.version_absorption
    monkeypatch.setattr(insights_absorption, "version_absorption", lambda where, version: read.append(version) or real(where, version))
    reader = page.store._absorption
    looked: list[object] = []
    state_of = insights_absorption._state_of
    monkeypatch.setattr(insights_absorption, "_state_of", lambda folder: looked.append(folder) or state_of(folder))
    view = reader.view(RUN)
    reader.look()
    assert not read, "nothing has changed"
    assert reader.view(RUN) is view
    assert 0 < len(looked) <= HELD + AGAIN
    measure(workspace, 17, 10, 10)
    for _ in range(3 + 3000 // AGAIN):
        reader.look()
    assert read == [17]


def test_a_long_first_look_stops_in_time_and_the_newest_come_first(workspace: Path, spec: RobotSpec) -> None:
    put(workspace, spec, 1)
    measure(workspace, 1, 5, 10)
    copies(workspace, range(2, 301))
    reader = AbsorptionReader(workspace)
    left = reader.look(budget_s=0.0)
    assert left == 299
    view = reader.view(RUN)
    assert ([one.version for one in view.points], view.unread) == ([300], 299)
    while reader.look():
        pass
    assert len(reader.view(RUN).points) == 300


def test_what_goes_behind_the_round_goes_with_the_next(workspace: Path, spec: RobotSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    put(workspace, spec, 1)
    measure(workspace, 1, 5, 10)
    copies(workspace, range(2, 6))
    monkeypatch.setattr(insights_absorption, "AGAIN", 2)
    reader = AbsorptionReader(workspace)
    while reader.look():
        pass
    reader.look()  # the names for a round
    reader.look()  # 1 and 2 of it
    shutil.rmtree(version_folder(workspace, 1))
    for _ in range(4):
        reader.look()
    assert [one.version for one in reader.view(RUN).points] == [2, 3, 4, 5]


def test_reading_thousands_never_runs_in_the_windows_thread(
    page: InsightsPage, workspace: Path, spec: RobotSpec, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    put(workspace, spec, 1)
    measure(workspace, 1, 5, 10)
    copies(workspace, range(2, 501))
    threads: set[str] = set()
    real = insights_absorption.version_absorption
    monkeypatch.setattr(
        insights_absorption, "version_absorption", lambda *where: threads.add(threading.current_thread().name) or real(*where)
    )
    seen: list[int] = []
    show = page.absorption.show_view
    monkeypatch.setattr(page.absorption, "show_view", lambda view: seen.append(len(view.points)) or show(view))
    monkeypatch.setattr(insights_absorption, "LOOK_S", 0.0)
    assert len(opened(page, qtbot).absorbed.points) == 500  # type: ignore[union-attr]
    assert threads == {"catalog_0"}
    assert seen[-1] == 500


def measured(version: int, closer: int = 5, learner: str = "hil-serl") -> VersionAbsorption:
    return VersionAbsorption(version, "s1", "sim", "peg-insert", learner, measured=True, closer=closer, corrections=10, steps=100)


def test_another_learner_begins_another_line() -> None:
    points = [measured(version, learner="iwr" if version > 40 else "hil-serl") for version in range(1, 81)]
    curve = curve_of(points)
    assert curve.learners == [(0, "hil-serl"), (40, "iwr")]
    scene = absorption_scene(330, 240, curve)
    assert sum(isinstance(item, Area) for item in scene.items) == 2
    assert {"hil-serl", "iwr"} <= {item.text for item in scene.items if isinstance(item, Text)}
    often = [replace(one, learner=f"l{one.version % 2}") for one in points]
    assert curve_of(often).learners == [(0, "")], f"more than {MOST_LEARNERS} stretches are no picture"


@pytest.mark.parametrize("count", [0, 1, 2, 7, 80, 301, 5000])
@pytest.mark.parametrize(("width", "height"), [(120, 60), (183, 137), (331, 240)])
def test_every_number_of_versions_stays_inside_the_chart(count: int, width: int, height: int) -> None:
    points = [measured(3 + 7 * index, closer=index % 11) for index in range(count)]
    scene = absorption_scene(width, height, curve_of(points))
    labels = sorted((item.at[0], item.text) for item in scene.items if isinstance(item, Text) and item.text.startswith("v"))
    assert bool(labels) or not count
    for (x, text), (following, next_text) in itertools.pairwise(labels):
        assert following - x >= (text_width(text, 11) + text_width(next_text, 11)) / 2, "labels do not touch"
    assert scene.axes is not None
    for item in scene.items:
        if isinstance(item, Area):
            assert all(scene.axes.left - 1 <= x <= scene.axes.right + 1 and 0 <= y <= height for x, y in item.points)
