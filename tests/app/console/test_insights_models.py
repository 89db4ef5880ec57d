"""Curves against values worked out by hand, charts as scenes, the headless picture."""

import itertools
import math
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from takeover.app.console import tokens
from takeover.app.console.models import insights_charts as charts
from takeover.app.console.models import insights_scene as scene
from takeover.app.console.models.insights import (
    EpisodePoint,
    HeldOut,
    Proportion,
    curve_csv,
    effort_curve,
    histogram,
    rate_curve,
    success_windows,
    summary_points,
    version_marks,
    version_rows,
)
from takeover.app.report import learning_curves_png


def episode(number: int, steps: int = 40, human: int = 0, success: bool = True, version: int = 1, aborted: bool = False) -> EpisodePoint:
    return EpisodePoint(f"e{number}", steps, human, int(human > 0), success, aborted, version)


def test_rate_is_human_steps_over_steps_of_the_last_window() -> None:
    points = [episode(i, steps=10 * (i + 1), human=i) for i in range(6)]  # steps 10..60, human 0..5
    curve = rate_curve(points, window=4)
    assert curve.episodes == [4, 5, 6]
    assert curve.steps == [100, 150, 210]
    assert curve.value == pytest.approx([6 / 100, 10 / 140, 14 / 180])
    assert all(low <= value <= high for low, value, high in zip(curve.low, curve.value, curve.high, strict=True))


def test_fewer_episodes_than_the_window_give_one_point_and_none_gives_none() -> None:
    assert rate_curve([episode(0, 40, 10), episode(1, 60, 0)]).value == pytest.approx([0.1])
    assert rate_curve([]).value == []
    assert success_windows([]) == []
    assert version_rows([]) == []


def test_the_curve_begins_with_five_episodes_and_grows_to_its_window() -> None:
    curve = rate_curve([episode(i, human=i) for i in range(8)], window=6)  # 40 steps each, human 0..7
    assert curve.episodes == [5, 6, 7, 8]
    assert curve.value == pytest.approx([10 / 200, 15 / 240, 21 / 240, 27 / 240])


def test_curve_is_thinned_and_keeps_its_end() -> None:
    points = [episode(i, human=i % 3) for i in range(2000)]
    curve = rate_curve(points)
    assert len(curve.value) <= 300
    assert curve.episodes[0] == 5
    assert curve.episodes[-1] == 2000


def test_success_is_reported_alone_and_with_help_without_aborted_ones() -> None:
    points = [
        episode(0),
        episode(1, human=5),
        episode(2, human=5, success=False),
        episode(3, success=False),
        episode(4, aborted=True, success=False),
    ]
    (window,) = success_windows(points, window=5)
    assert (window.alone.k, window.helped.k, window.alone.n) == (1, 2, 4)
    assert (window.first, window.last, window.steps) == (1, 5, 200)


def test_short_last_window_joins_the_one_before() -> None:
    assert [(w.first, w.last) for w in success_windows([episode(i) for i in range(45)])] == [(1, 20), (21, 45)]
    assert [(w.first, w.last) for w in success_windows([episode(i) for i in range(52)])] == [(1, 20), (21, 40), (41, 52)]


def test_version_rows_count_every_episode_once_newest_first() -> None:
    points = [episode(i, human=4, version=1 + i // 2) for i in range(40)]
    rows = version_rows(points, most=8)
    assert len(rows) == 8
    assert sum(row.episodes for row in rows) == 40
    assert rows[0].last_version == 20
    assert rows[-1].first_version == 1
    assert rows[0].rate == pytest.approx(0.1)
    assert rows[0].alone == Proportion(0, rows[0].episodes)
    assert [row.name for row in version_rows(points[:4])] == ["v2", "v1"]


def test_marks_stand_where_the_version_changed() -> None:
    points = [episode(i, version=1 + i // 10) for i in range(30)]
    assert [(mark.version, mark.episode, mark.steps) for mark in version_marks(points)] == [(2, 11, 400), (3, 21, 800)]
    assert len(version_marks([episode(i, version=i) for i in range(300)])) <= 6


def test_names_of_marks_that_stand_close_are_left_out() -> None:
    points = [episode(i, version=1 + (i > 23) + (i > 24) + (i > 32)) for i in range(40)]
    marks = version_marks(points, most=20)
    assert [mark.version for mark in marks] == [2, 3, 4]
    wide, narrow = (charts.rate_scene(width, 200, rate_curve(points), marks) for width in (1600, 380))
    written = [[item.text for item in made.items if isinstance(item, scene.Text) and item.text.startswith("v")] for made in (wide, narrow)]
    assert written == [["v2", "v3", "v4"], ["v2", "v4"]]


def test_effort_starts_with_the_first_human_step() -> None:
    points = [episode(i, human=0 if i < 25 else 10) for i in range(40)]
    curve = effort_curve(points)
    assert curve.episodes[0] == 26
    assert curve.value[-1] == pytest.approx(1000 * 40 / 150)


def test_histogram_has_round_bins_and_every_value() -> None:
    edges, counts = histogram([0.1, 0.6, 1.9, 2.0, 5.9])
    assert sum(counts) == 5
    assert edges[0] == 0.0
    assert edges[1] == pytest.approx(0.5)


def test_csv_has_a_row_per_episode_and_the_curve() -> None:
    lines = curve_csv([episode(i, human=4) for i in range(21)]).split("\r\n")
    assert lines[0].startswith("episode,episode_id,policy_version")
    assert len(lines) == 23
    assert lines[20].split(",")[10] == "0.100000"
    assert all(line.split(",")[10] == "" for line in lines[1:20]), "no rate of the last 20 before there are 20"


def test_the_names_of_two_equal_results_are_apart_and_inside() -> None:
    for success in (False, True):
        drawing = charts.success_scene(304, 216, success_windows([episode(i, human=8 if i else 0, success=success) for i in range(3)]))
        places = sorted(item.at[1] for item in drawing.items if isinstance(item, scene.Text) and item.at[0] > drawing.axes.right)
        assert len(places) == 4
        assert places[-1] <= drawing.height - 6
        assert places[0] >= 10
        assert all(below - above >= 14 for above, below in itertools.pairwise(places))


def test_charts_stay_inside_and_carry_their_numbers() -> None:
    points = [episode(i, human=8 if i < 30 else 0, success=i % 4 > 0, version=1 + i // 20) for i in range(80)]
    curve = rate_curve(points)
    drawings = [
        charts.rate_scene(900, 240, curve, version_marks(points), "steps", curve, "other"),
        charts.success_scene(304, 216, success_windows(points)),
        charts.heldout_scene(304, 216, [HeldOut(1, Proportion(78, 200)), HeldOut(9, Proportion(193, 200))]),
        charts.causes_scene(304, 216, [("Force", 4), ("Vision", 0)]),
        charts.times_scene(304, 216, [0.3, 0.9, 1.1]),
        charts.effort_scene(304, 176, effort_curve(points)),
    ]
    for drawing in drawings:
        for item in drawing.items:
            if isinstance(item, scene.Polyline):
                assert all(0 <= x <= drawing.width and 0 <= y <= drawing.height for x, y in item.points)
                assert all(math.isfinite(value) for point in item.points for value in point)
    texts = {item.text for item in drawings[2].items if isinstance(item, scene.Text)}
    assert {"39 %", "78 of 200", "v1"} <= texts


def test_chart_colours_are_the_consoles_tokens() -> None:
    pairs = [
        ("BACKGROUND", "BG"),
        ("DIM", "OUTLINE"),
        *((name, name) for name in ("SURFACE", "RAISED", "LINE", "GRID", "T1", "T2", "T3", "POLICY", "TAKEOVER")),
    ]
    assert all(getattr(scene, ours) == getattr(tokens, theirs) for ours, theirs in pairs)


def summary() -> dict:
    episodes = [
        {
            "success": True,
            "autonomous": i > 20,
            "outcome": "success",
            "steps": 40,
            "human_steps": 0 if i > 20 else 12,
            "takeovers": 1,
            "policy_version": 1 + i,
        }
        for i in range(60)
    ]
    return {
        "episodes": episodes,
        "heldout_success": {"before": {"successes": 78, "n": 200}, "after": {"successes": 193, "n": 200}},
        "learner": {"updates": 10, "versions_published": 60},
    }


def test_learning_curves_are_drawn_without_qt(tmp_path: Path) -> None:
    path = learning_curves_png(summary(), tmp_path / "new" / "curves.png")
    with Image.open(path) as picture:
        assert picture.size == (2400, 1360)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    assert {(0x56, 0xB4, 0xE9), (0xE6, 0x9F, 0x00), (0xE8, 0xEA, 0xED)} <= colours
    code = "import sys, takeover.app.report; sys.exit(any(n.split('.')[0] in sys.argv[1:] for n in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code, "PySide6", "pyqtgraph", "torch", "matplotlib"], check=False).returncode == 0


def test_a_summary_without_a_field_is_named(tmp_path: Path) -> None:
    broken = summary()
    del broken["episodes"][3]["human_steps"]
    with pytest.raises(KeyError, match="human_steps"):
        learning_curves_png(broken, tmp_path / "curves.png")
    assert len(summary_points(summary())) == 60
