"""A no-help probe is shown as one, and what everyone should know is said where the robot is watched."""

from dataclasses import replace

import msgspec
import pytest
from peer import SPEC, make_learner, make_state
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QApplication
from recorded import Recorder

from takeover.app.console import tokens
from takeover.app.console.insights_store import insights_of
from takeover.app.console.models.banner import banner
from takeover.app.console.models.episode import episode_view
from takeover.app.console.models.hints import hints
from takeover.app.console.models.notices import last_refused, line, notices, refused, reward_text
from takeover.app.console.models.review_episode import load_episode
from takeover.app.console.models.snapshot import Snapshot
from takeover.app.console.review_page import ReviewPage
from takeover.app.console.setup_page import SetupPage
from takeover.app.console.widgets import KeyValueRow
from takeover.app.inputs.base import DeviceReading
from takeover.data.catalog import Catalog
from takeover.data.schema import ActorStatus, EpisodeKind, EvaluatorStatus, HoldReason, Mode

PROBE = {"mode": Mode.POLICY, "episode_id": "e7", "episode_kind": EpisodeKind.EVALUATION, "probe": 2, "probe_version": 9}


def view(**changes) -> Snapshot:
    reading = DeviceReading("keyboard", "keyboard", "Keyboard", True, False, True, (0.0,) * 6, 0.0, 0)
    state = make_state(**(PROBE | changes))
    return Snapshot(state=state, state_age_ms=10.0, spec=SPEC, reading=reading, holds_lease=True)


def test_the_banner_of_a_probe_says_what_to_do_and_what_a_takeover_means():
    shown = banner(view())
    assert (shown.word, shown.icon, shown.filled) == ("NO-HELP PROBE", "dice", False)
    assert shown.parts[0] == "**Watch, do not help unless it is unsafe**"
    assert shown.parts[1] == "v9 drives alone; a takeover (hold **Space**) counts as a failure"
    assert banner(view(probe_version=0, policy_version=12)).parts[1].startswith("v12 drives alone")
    again = banner(view(takeovers=1))
    assert again.parts[0] == "**It counts as a failure**: somebody took over"
    driving = banner(view(mode=Mode.TAKEOVER, takeovers=1))
    assert driving.filled
    assert "**This probe counts as a failure**" in driving.parts
    assert "no-help probe" in banner(view(mode=Mode.HOLD, hold_reason=HoldReason.OPERATOR)).parts
    assert banner(view(mode=Mode.RESETTING)).parts[0] == "**Next: a no-help probe**"


def test_an_evaluation_that_somebody_started_and_normal_work_are_no_probes():
    assert banner(view(probe=-1)).word == "POLICY"
    assert banner(view(probe=2, episode_id="")).word == "POLICY"
    assert episode_view(view(probe=-1, episode_number=4)).title == "Episode 4"


def test_panel_and_keys_of_a_probe():
    shown = episode_view(view())
    assert (shown.title, shown.note) == ("No-help probe 3", "v9 alone, not trained on")
    assert hints(view())[0] == ("Space", "take over if it is unsafe")
    assert "drive" not in " ".join(text for _, text in hints(view()))
    assert hints(view(mode=Mode.TAKEOVER))[0] == ("Space", "hold to drive")


def test_notices_come_faults_first_each_once_and_not_from_those_who_are_silent():
    learner = make_learner(notices=["checkpoint not written: the disk is full", "episode e3 is left out: step 2 is not finite"])
    actor = ActorStatus(version=1, sha256="", since_ns=0, rate_hz=20.0, inference_ms=1.0, pinned=1)
    evaluator = EvaluatorStatus(busy=False, version=0, done=0, total=0, notices=["gate: version 2 against 1: worse"])
    base = Snapshot(learner=learner, learner_age_ms=100.0, actor=actor, actor_age_ms=100.0, evaluator=evaluator)
    found = notices(base)
    assert [notice.who for notice in found] == ["Learner", "Learner", "Policy", "Evaluator"]
    assert "holds the robot to version 1" in found[2].text
    assert line(found) == ("Learner: checkpoint not written: the disk is full", "+3")
    broken = msgspec.structs.replace(learner, error="other settings", notices=["other settings", "and more"])
    first, *others = notices(Snapshot(learner=broken, learner_age_ms=100.0))
    assert (first.fault, first.text, [notice.text for notice in others]) == (True, "other settings", ["and more"])
    assert [n.who for n in notices(Snapshot(learner=learner, learner_age_ms=9e9, actor=actor, evaluator=evaluator))] == ["Evaluator"]
    assert notices(Snapshot()) == ()
    kept = make_state(recorder_notice="episode e4 cannot be closed; its journal is kept")
    assert [(n.who, n.text) for n in notices(Snapshot(state=kept))] == [("Recorder", "episode e4 cannot be closed; its journal is kept")]
    assert line(()) == ("", "")
    assert line(notices(Snapshot(learner=make_learner(notices=["two\nlines"]), learner_age_ms=0.0)))[0] == "Learner: two lines"


def test_the_learned_reward_in_words():
    figures = {"version": 3.0, "vetoes": 1.0, "wanted": 3.0, "precision": 0.9, "recall": 0.8}
    assert reward_text(figures) == "v3, 1 of 3 vetoes until the next; held out: precision 0.90, recall 0.80"
    assert "the next is being trained: 40 %" in reward_text(figures | {"training": 0.4})
    assert reward_text({}) == ""


def test_review_and_insights_name_probes(tmp_path, qtbot, theme):
    recorder = Recorder(tmp_path)
    recorder.episode(flaw=1.0, help_=False, version=4, most_steps=12)
    recorder.episode(flaw=1.0, version=9, most_steps=60, kind=EpisodeKind.EVALUATION, probe=2, probe_version=9)
    recorder.close()
    with Catalog.open(tmp_path) as catalog:
        paths = {row.kind: tmp_path / row.path for row in catalog.episodes()}
        assert insights_of(catalog, "s1").alone == 1
        assert len(insights_of(catalog, "s1").points) == 1
    assert load_episode(paths["policy"]).probe == ""
    assert load_episode(paths["evaluation"]).probe == "no-help probe 3 of v9, failed by a takeover"
    page = ReviewPage(tmp_path, "lb-01")
    qtbot.addWidget(page)
    page.show()
    page.activated()
    qtbot.waitUntil(lambda: len(page.queue.items) > 1, timeout=8000)
    kinds = {item.kind: item for item in page.queue.items}
    assert kinds["evaluation"].detail.endswith(" · v9 · alone")
    assert kinds["policy"].detail.endswith(" · v4")
    page.select(page.queue.items.index(kinds["evaluation"]))
    qtbot.waitUntil(lambda: page.title.probe.startswith("no-help probe 3"), timeout=8000)
    page.select(page.queue.items.index(kinds["policy"]))
    qtbot.waitUntil(lambda: page.title.probe == "" and page.player.episode is not None, timeout=8000)
    page.close_page()


def test_what_the_bridge_refused_is_shown_with_its_newest_case():
    state = make_state(refused_commands=3, refused_requests=2, refused_connections=1, bad_messages=4)
    assert refused(state) == "3 messages, 2 requests, 1 connections, 4 unreadable"
    assert last_refused(state) == "none"
    text = "desk/pad: seq of the command 5: old sequence number, only above 7"
    assert last_refused(make_state(last_refusal=text, last_refusal_age_ms=4200.0)) == f"{text} (4 s ago)"
    assert last_refused(make_state(last_refusal=text, last_refusal_age_ms=300_000.0)) == f"{text} (5 min ago)"


LONG = (
    "learned reward: version 1 stays after 3 vetoes, the next cannot be trained: one class only: 0 positive and 1,260 negative steps " * 3
)


@pytest.mark.parametrize("size", [(1600, 1000), (1180, 720)])
def test_a_long_notice_is_cut_off_on_the_picture_and_whole_in_the_tooltip(console, peer, until, pump, qtbot, size, tmp_path):
    window, _ = console
    window.resize(*size)
    peer.set(**PROBE)
    peer.learner = make_learner(notices=[LONG, "<b>checkpoint</b> not written"])
    bar = window.operate.notices
    until(lambda: bar.isVisibleTo(window.operate) and len(bar.notices) == 2)
    pump(0.3)
    picture = window.operate.main.geometry()
    assert picture.contains(bar.geometry())
    assert bar.width() < bar.wanted_width
    assert LONG.strip() in bar.toolTip()
    assert "&lt;b&gt;checkpoint" in bar.toolTip()
    assert not window.operate.card.isVisibleTo(window.operate)
    assert "Watch, do not help unless it is unsafe" in window.banner.accessibleName()
    shot = window.grab()
    assert shot.save(str(tmp_path / "probe.png"))
    inside = shot.toImage().pixelColor(bar.mapTo(window, QPoint(4, bar.height() - 4)) * shot.devicePixelRatio())
    assert inside == QColor(tokens.BG)
    qtbot.mouseClick(bar, Qt.MouseButton.LeftButton)
    assert "checkpoint" in QApplication.clipboard().text()
    peer.learner = make_learner()
    until(lambda: not bar.isVisibleTo(window.operate))
    assert bar.toolTip() == ""


def test_setup_has_the_notices_too_and_the_learned_reward(console, until):
    window, controller = console
    figures = {"version": 3.0, "vetoes": 1.0, "wanted": 3.0, "precision": 0.9, "recall": 0.8}
    status = EvaluatorStatus(busy=True, version=0, done=0, total=0, notices=["gate: <version 2> against 1: worse"], reward=figures)
    until(lambda: controller.snapshot().learner is not None)
    window.setup.refresh(replace(controller.snapshot(), evaluator=status))
    rows = {row.label: row for row in window.setup.findChildren(KeyValueRow)}
    assert rows["Evaluator"].value == "at work on the learned reward; gate: <version 2> against 1: worse"
    assert "&lt;version 2&gt;" in rows["Evaluator"].toolTip()
    assert rows["Learned reward"].value.startswith("v3, 1 of 3 vetoes")
    assert rows["Recipe"].toolTip() == ""


def test_setup_shows_who_sees_the_robot_where_the_bridge_is_on_this_computer(console, until, qtbot, monkeypatch):
    """Elsewhere that bridge has a station file of its own, and ours says nothing about it."""
    _, controller = console
    until(lambda: controller.snapshot().state is not None)
    config = msgspec.structs.replace(controller.config, line_of_sight="no")
    for connect, shown in (("", ["no"]), ("tcp://10.77.0.1:5600", [])):
        monkeypatch.setattr(controller, "config", msgspec.structs.replace(config, connect=connect))
        page = SetupPage(controller)
        qtbot.addWidget(page)
        page.refresh(controller.snapshot())
        assert [row.value for row in page.findChildren(KeyValueRow) if row.label == "Line of sight"] == shown
