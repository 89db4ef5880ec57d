"""The real window against real sockets: keys, STOP, focus, lost link, collect, scripted demonstrations."""

import time
from pathlib import Path

import msgspec
import pytest
from peer import GATE, SPEC, make_learner
from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QKeyEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLineEdit
from recorded import Recorder

from takeover.app.console.controller import Controller
from takeover.app.console.window import OPERATE, REVIEW, SETUP, MainWindow
from takeover.data.catalog import Catalog
from takeover.data.catalog_queries import SegmentFilter
from takeover.data.schema import (
    Clear,
    EpisodeKind,
    HoldReason,
    Lease,
    Mark,
    Mode,
    Next,
    Outcome,
    Resume,
    SetOutcome,
    Start,
    Stop,
    UndoOutcome,
)
from takeover.data.schema import Hold as HoldRequest


def test_commands_carry_the_keys_and_authority(console, peer, until):
    window, _ = console
    first = peer.last_command()
    assert not first.deadman
    assert first.neutral
    assert first.gui_alive
    assert first.focused
    assert first.authority == ["arm"]
    QTest.keyPress(window, Qt.Key.Key_Space)
    QTest.keyPress(window, Qt.Key.Key_W)
    until(lambda: peer.last_command().deadman and max(map(abs, peer.last_command().action)) > 0.5)
    assert peer.last_command().device_kind == "keyboard"
    QTest.keyRelease(window, Qt.Key.Key_Space)
    QTest.keyRelease(window, Qt.Key.Key_W)
    until(lambda: not peer.last_command().deadman and peer.last_command().neutral)


def test_commands_go_out_at_about_50_hz(console, peer, pump):
    before = len(peer.commands)
    pump(1.0)
    assert 30 <= len(peer.commands) - before <= 70
    sequence = [command.seq for _, command in peer.commands]
    assert sequence == sorted(set(sequence))


def test_a_blocked_gui_loses_its_authority_but_not_its_stop(console, peer):
    """The link thread goes on; commands say that the GUI is dead, and STOP still leaves."""
    window, controller = console
    controller.keyboard.press("space")
    time.sleep(0.35)  # the GUI thread, blocked
    assert not peer.last_command().gui_alive
    assert peer.last_command().deadman, "the bridge sees both and gives no authority"
    controller.client.stop_robot("pad")
    time.sleep(0.15)  # still blocked
    assert peer.asked(Stop)
    controller.keyboard.release("space")
    assert window.isVisible()


def test_escape_stops_everywhere_also_with_modifiers_and_in_a_text_field(console, peer, until):
    window, _ = console
    QTest.keyClick(window, Qt.Key.Key_Escape)
    until(lambda: len(peer.asked(Stop)) >= 1)
    QTest.keyClick(window, Qt.Key.Key_Escape, Qt.KeyboardModifier.ShiftModifier)
    until(lambda: len(peer.asked(Stop)) >= 2)
    window.open_palette()
    until(lambda: isinstance(window.focusWidget(), QLineEdit))
    QTest.keyClick(window.palette_view.edit, Qt.Key.Key_Escape)
    until(lambda: len(peer.asked(Stop)) >= 3)
    assert not window.palette_view.isVisible()
    window.show_page(REVIEW)
    QTest.keyClick(window, Qt.Key.Key_Escape)
    until(lambda: len(peer.asked(Stop)) >= 4)
    assert window.isVisible(), "Esc never quits"


def test_stop_button_acts_on_press_and_clears_only_after_a_second(console, peer, until, pump):
    window, _ = console
    QTest.mousePress(window.stop, Qt.MouseButton.LeftButton)
    until(lambda: peer.asked(Stop))
    QTest.mouseRelease(window.stop, Qt.MouseButton.LeftButton)
    peer.set(mode=Mode.STOPPED, mode_since_ns=time.monotonic_ns())
    until(lambda: window.stop.stopped)
    assert window.banner.banner.word == "STOPPED"
    QTest.mousePress(window.stop, Qt.MouseButton.LeftButton)
    pump(0.4)
    QTest.mouseRelease(window.stop, Qt.MouseButton.LeftButton)
    pump(0.8)
    assert not peer.asked(Clear), "a short press clears nothing"
    assert len(peer.asked(Stop)) == 2, "it stops, whatever is shown: somebody else may have cleared just now"
    QTest.keyPress(window, Qt.Key.Key_C)
    until(lambda: peer.asked(Clear), 3000)
    QTest.keyRelease(window, Qt.Key.Key_C)
    pump(0.1)
    QTest.mousePress(window.stop, Qt.MouseButton.LeftButton)
    until(lambda: len(peer.asked(Clear)) == 2, 3000)
    QTest.mouseRelease(window.stop, Qt.MouseButton.LeftButton)
    assert [type(r) for r in peer.requests if isinstance(r, Stop | Clear)] == [Stop, Stop, Clear, Stop, Clear]


def test_losing_focus_releases_what_the_keyboard_holds(console, peer, until, qapp):
    window, controller = console
    QTest.keyPress(window, Qt.Key.Key_Space)
    until(lambda: peer.last_command().deadman)
    other = QLineEdit()
    other.show()
    other.activateWindow()
    until(lambda: not peer.last_command().focused)
    assert not peer.last_command().deadman
    assert not controller.keyboard.held()
    other.close()


def test_leaving_the_page_releases_the_keyboard_and_space_no_longer_drives(console, peer, until, pump):
    window, _ = console
    QTest.keyPress(window, Qt.Key.Key_Space)
    until(lambda: peer.last_command().deadman)
    QTest.keyClick(window, Qt.Key.Key_4, Qt.KeyboardModifier.ControlModifier)
    until(lambda: window.page_index == SETUP and not peer.last_command().deadman)
    QTest.keyPress(window, Qt.Key.Key_Space)
    pump(0.2)
    assert not peer.last_command().deadman
    QTest.keyClick(window, Qt.Key.Key_1, Qt.KeyboardModifier.ControlModifier)
    until(lambda: window.page_index == OPERATE)


def test_episode_keys(console, peer, until):
    window, controller = console
    peer.set(mode=Mode.POLICY, episode_id="e1", episode_kind=EpisodeKind.POLICY, episode_step=5)
    until(lambda: window.banner.banner.word == "POLICY")
    QTest.keyClick(window, Qt.Key.Key_Return)
    until(lambda: [r.outcome for r in peer.asked(SetOutcome)] == [Outcome.SUCCESS])
    QTest.keyClick(window, Qt.Key.Key_Backspace)
    until(lambda: [r.outcome for r in peer.asked(SetOutcome)] == [Outcome.SUCCESS, Outcome.FAILURE])
    QTest.keyClick(window, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    QTest.keyClick(window, Qt.Key.Key_M)
    QTest.keyClick(window, Qt.Key.Key_N)
    QTest.keyClick(window, Qt.Key.Key_P)
    until(lambda: peer.asked(UndoOutcome) and peer.asked(Mark) and peer.asked(Next) and peer.asked(HoldRequest))
    peer.set(mode=Mode.HOLD, hold_reason=HoldReason.OPERATOR, mode_since_ns=time.monotonic_ns())
    until(lambda: window.banner.banner.word == "HOLD" and not controller.just_now.held)
    QTest.keyClick(window, Qt.Key.Key_P)
    until(lambda: peer.asked(Resume))


def test_a_key_meant_for_what_was_there_a_moment_ago_does_no_harm(console, peer, until):
    """P on its way to hold a policy, and the bridge was quicker; Enter for an episode that its limit has just ended."""
    window, controller = console
    peer.set(mode=Mode.POLICY, episode_id="e1", episode_kind=EpisodeKind.POLICY, last_outcome_episode="e0")
    until(lambda: window.banner.banner.word == "POLICY")
    peer.set(mode=Mode.HOLD, hold_reason=HoldReason.POLICY_LATE, mode_since_ns=time.monotonic_ns())
    until(lambda: window.banner.banner.word == "HOLD")
    QTest.keyClick(window, Qt.Key.Key_P)
    until(lambda: "P again" in window.toast.text)
    until(lambda: peer.asked(HoldRequest))
    assert not peer.asked(Resume)
    until(lambda: not controller.just_now.held)
    QTest.keyClick(window, Qt.Key.Key_P)
    until(lambda: peer.asked(Resume))
    assert len(peer.asked(HoldRequest)) == 1
    for after in ({"mode": Mode.POLICY, "episode_id": "e2"}, {"mode": Mode.READY, "episode_id": ""}):
        peer.set(last_outcome_episode=f"before {after['mode']}", **after)
        until(lambda after=after: window.banner.banner.word == after["mode"].name)
        QTest.keyClick(window, Qt.Key.Key_Return)
        until(lambda: "Enter again" in window.toast.text)
    assert not peer.asked(Start)
    assert not peer.asked(SetOutcome)
    until(lambda: not controller.just_now.ended and window.operate.card.button("start") is not None)
    QTest.keyClick(window, Qt.Key.Key_Return)
    until(lambda: peer.asked(Start))


def test_speed_keys_scale_the_command(console, peer, until):
    window, controller = console
    controller.speed = 1.0
    QTest.keyPress(window, Qt.Key.Key_R)
    until(lambda: peer.last_command().action[2] == pytest.approx(1.0))
    QTest.keyClick(window, Qt.Key.Key_BracketLeft)
    QTest.keyClick(window, Qt.Key.Key_BracketLeft)
    until(lambda: peer.last_command().action[2] == pytest.approx(0.5))
    QTest.keyRelease(window, Qt.Key.Key_R)


def test_hold_shows_the_card_and_lost_link_hides_nothing_as_live(console, peer, until):
    window, _ = console
    until(lambda: window.operate.main.frames_shown > 2)
    peer.set(mode=Mode.HOLD, hold_reason=HoldReason.RECORDER_LOST, episode_id="e", gate={**GATE, "recorder": "silent"})
    until(lambda: window.operate.card.isVisible() and "not being recorded" in window.operate.card.card.title)
    button = window.operate.card.button("restart:recorder")
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    until(lambda: [(r.action, r.process) for r in peer.launcher_requests] == [("restart", "recorder")])
    assert not window.operate.card.button("resume").isEnabled()
    peer.publishing = False
    until(lambda: window.banner.banner.word == "LINK LOST")
    until(lambda: window.operate.main.overlay.lost)
    peer.publishing = True
    until(lambda: window.banner.banner.word == "HOLD")


def test_old_pictures_cannot_begin_a_correction(console, peer, until):
    window, controller = console
    until(lambda: window.operate.main.frames_shown > 0)
    peer.set(mode=Mode.POLICY, episode_id="e", episode_kind=EpisodeKind.POLICY)
    peer.pictures = False
    until(lambda: max(controller.snapshot().picture_age_ms.values()) > 600)
    QTest.keyPress(window, Qt.Key.Key_Space)
    until(lambda: len(peer.asked(HoldRequest)) == 1)  # somebody wants the robot
    peer.set(mode=Mode.HOLD, hold_reason=HoldReason.OPERATOR)
    assert not peer.last_command().deadman
    peer.pictures = True
    until(lambda: max(controller.snapshot().picture_age_ms.values()) < 100)
    QTest.qWait(150)
    assert not peer.last_command().deadman, "that press was made unseen"

    def pressed_anew() -> bool:
        """By a new press; on a busy machine the pictures may be old again just then."""
        QTest.keyRelease(window, Qt.Key.Key_Space)
        QTest.qWait(100)
        QTest.keyPress(window, Qt.Key.Key_Space)
        QTest.qWait(100)
        return peer.last_command().deadman

    until(pressed_anew)
    QTest.keyRelease(window, Qt.Key.Key_Space)


def test_a_press_made_without_pictures_before_the_policy_drives_holds_it(console, peer, until):
    window, controller = console
    until(lambda: window.operate.main.frames_shown > 0)
    peer.pictures = False
    until(lambda: max(controller.snapshot().picture_age_ms.values()) > 600)
    QTest.keyPress(window, Qt.Key.Key_Space)
    until(lambda: not peer.last_command().deadman and not peer.last_command().neutral)
    assert not peer.asked(HoldRequest)
    peer.set(mode=Mode.POLICY, episode_id="e", episode_kind=EpisodeKind.POLICY)
    until(lambda: peer.asked(HoldRequest))
    QTest.keyRelease(window, Qt.Key.Key_Space)


def test_who_watches_a_scripts_policy_holds_it_by_a_press_without_pictures_too(peer, theme, until, qtbot):
    """The lease is the script's, and taken only by a press; a hold needs none."""
    controller = Controller(msgspec.structs.replace(peer.config, operator="scripted"))
    window = MainWindow(controller)
    controller.start()
    window.show()
    window.activateWindow()
    peer.set(mode=Mode.POLICY, episode_id="e", episode_kind=EpisodeKind.POLICY, commander="operator")
    until(lambda: window.isActiveWindow() and controller.client.focused and window.operate.main.frames_shown > 0)
    peer.pictures = False
    until(lambda: max(controller.snapshot().picture_age_ms.values()) > 600)
    QTest.keyPress(window, Qt.Key.Key_Space)
    until(lambda: peer.asked(HoldRequest))
    peer.set(mode=Mode.HOLD, hold_reason=HoldReason.OPERATOR)
    until(lambda: controller.client.state.mode is Mode.HOLD)
    assert not peer.asked(Lease)
    held = len(peer.asked(HoldRequest))
    peer.set(mode=Mode.POLICY, hold_reason=HoldReason.NONE)  # somebody resumes, the key is still down
    QTest.qWait(800)
    assert len(peer.asked(HoldRequest)) == held
    QTest.keyRelease(window, Qt.Key.Key_Space)
    window.close()


def test_scripted_demonstrations_hand_over_the_lease_and_take_it_back(console, peer, until):
    window, controller = console
    peer.learner = make_learner(phase="waiting", demonstrations=0, newest_version=0)
    peer.actor = None
    controller.client.actor = None
    peer.set(policy_version=0)
    until(lambda: window.operate.card.isVisible() and window.operate.card.button("scripted") is not None)
    QTest.keyClick(window, Qt.Key.Key_Return)
    until(lambda: ("start", "operator") in [(r.action, r.process) for r in peer.launcher_requests])
    peer.process_states["operator"] = "up"
    until(lambda: peer.asked(Start))
    assert (peer.asked(Start)[0].kind, peer.asked(Start)[0].episodes) == (EpisodeKind.DEMONSTRATION, 20)
    assert not controller.client.holds_lease
    peer.set(mode=Mode.TAKEOVER, episode_id="d1", episode_kind=EpisodeKind.DEMONSTRATION, commander="operator", block_size=20)
    until(lambda: controller.scripted == "running")
    peer.set(mode=Mode.READY, episode_id="", block_done=20)
    until(lambda: ("stop", "operator") in [(r.action, r.process) for r in peer.launcher_requests])
    until(lambda: controller.client.holds_lease)


def test_collect_starts_a_block_of_demonstrations(console, peer, until):
    window, controller = console
    until(lambda: window.operate.mode_switch.isVisible())
    QTest.mouseClick(
        window.operate.mode_switch,
        Qt.MouseButton.LeftButton,
        pos=window.operate.mode_switch.rect().center() + window.operate.mode_switch.rect().bottomRight() / 4,
    )
    until(lambda: controller.collect and window.operate.card.button("collect") is not None)
    QTest.keyClick(window, Qt.Key.Key_Return)
    until(lambda: peer.asked(Start))
    assert peer.asked(Start)[0].kind == EpisodeKind.DEMONSTRATION
    peer.set(mode=Mode.TAKEOVER, episode_id="d", episode_kind=EpisodeKind.DEMONSTRATION, block_size=20, block_done=2)
    until(lambda: window.operate.episode.redo.isVisible() and window.operate.episode.redo.isEnabled())
    QTest.mouseClick(window.operate.episode.redo, Qt.MouseButton.LeftButton)
    until(lambda: [r.discard for r in peer.asked(Next)] == [True])


def test_a_refusal_is_shown(console, peer, until):
    window, _ = console
    peer.refusals["Start"] = "no policy has been accepted yet"
    until(lambda: window.operate.card.button("start") is not None)
    window.act("start")
    until(lambda: window.toast.isVisible())
    assert "no policy" in window.toast.text


def test_rate_comes_from_finished_episodes(console, peer, until):
    window, controller = console
    for number in range(4):
        peer.finish_episode(number, 50, 25 if number == 0 else 0, Outcome.SUCCESS)
    until(lambda: len(controller.client.episodes) == 4)
    until(lambda: window.operate.rate._rate.episodes == 4)
    assert window.operate.rate._rate.mean == pytest.approx(0.125)


def test_a_new_bridge_session_gets_no_command_before_the_handshake(console, peer, until):
    _, controller = console
    before = len(peer.commands)
    peer.set(session="session-2")
    until(lambda: controller.client.state.session == "session-2")
    count = len(peer.commands)
    QTest.qWait(200)
    assert all(command.session == "session-1" for _, command in peer.commands[before:])
    assert len(peer.commands) - count <= 2


def test_settings_survive_the_window(peer, theme, qtbot):
    controller = Controller(peer.config)
    window = MainWindow(controller)
    controller.start()
    window.show()
    controller.set_frame("tool")
    controller.speed = 0.5
    window.show_page(SETUP)
    window.resize(1400, 900)
    window.close()
    qtbot.waitUntil(lambda: any(r.action == "shutdown" for r in peer.launcher_requests), timeout=3000)
    again = Controller(peer.config)
    reopened = MainWindow(again)
    again.start()
    assert (again.frame, again.speed, reopened.page_index, reopened.width()) == ("tool", 0.5, SETUP, 1400)
    reopened.close()


@pytest.mark.parametrize("size", [(1600, 1000), (1280, 800), (1180, 720), (2400, 1500)])
def test_nothing_overlaps_at_any_size(console, qapp, size):
    window, _ = console
    window.resize(*size)
    qapp.processEvents()
    page = window.operate
    parts = [page.main, *page.sides, page.episode, page.gate, page.device, page.learner, page.strip_view, page.rate, page.hints]
    for i, part in enumerate(parts):
        assert page.rect().contains(part.geometry()), f"{type(part).__name__} leaves the page at {size}"
        for other in parts[i + 1 :]:
            assert not part.geometry().intersects(other.geometry()), f"{type(part).__name__} over {type(other).__name__} at {size}"


def test_space_never_presses_a_button(console, peer, until):
    """Buttons take no focus, so the deadman key cannot act on one."""
    window, _ = console
    peer.set(mode=Mode.POLICY, episode_id="e1", episode_kind=EpisodeKind.POLICY)
    until(lambda: window.operate.episode.success.isEnabled())
    QTest.mouseClick(window.operate.episode.failure, Qt.MouseButton.LeftButton)
    until(lambda: len(peer.asked(SetOutcome)) == 1)
    QTest.keyClick(window.focusWidget() or window, Qt.Key.Key_Space)
    QTest.qWait(100)
    assert len(peer.asked(SetOutcome)) == 1


def test_auto_repeat_of_the_deadman_is_ignored(console, peer, until, qapp):
    window, _ = console
    QTest.keyPress(window, Qt.Key.Key_Space)
    until(lambda: peer.last_command().deadman)
    for kind in (QEvent.Type.KeyRelease, QEvent.Type.KeyPress) * 5:
        qapp.sendEvent(window, QKeyEvent(kind, Qt.Key.Key_Space, Qt.KeyboardModifier.NoModifier, " ", True))
    mark = len(peer.commands)
    QTest.qWait(150)
    assert all(command.deadman for _, command in peer.commands[mark:])
    QTest.keyRelease(window, Qt.Key.Key_Space)


def test_enter_in_the_palette_does_that_command_and_nothing_else(console, peer, until, pump):
    """The key must not go on to the window, where Enter means the card's main button."""
    window, controller = console
    peer.learner = make_learner(phase="waiting", demonstrations=0, newest_version=0)
    controller.client.actor = peer.actor = None
    peer.set(policy_version=0)
    until(lambda: window.operate.card.button("scripted") is not None)
    window.open_palette()
    QTest.keyClicks(window.palette_view.edit, "start a block of demo")
    QTest.keyClick(window.palette_view.edit, Qt.Key.Key_Return)
    until(lambda: peer.asked(Start))
    pump(0.2)
    assert controller.scripted == ""
    assert not [r for r in peer.launcher_requests if r.process == "operator"]
    assert not window.palette_view.isVisible()


def test_the_newest_correction_can_be_discarded_and_restored_at_once(console, peer, until):
    """From the learner card, into the label log of a real workspace."""
    window, _ = console
    recorder = Recorder(Path(peer.config.workspace))
    recorder.episode(flaw=0.8, version=3)
    recorder.close()
    with Catalog.open(peer.config.workspace) as catalog:
        segment = catalog.segments(SegmentFilter(kinds=("takeover",)))[0]
    assert not window.operate.learner.discard.isEnabled()
    peer.finish_episode(segment.episode_number, 50, 20, Outcome.SUCCESS, episode_id=segment.episode_id)
    correction = {"episode_number": segment.episode_number, "intervention_id": segment.number, "length_s": 1.0}
    peer.learner = make_learner(corrections=[correction], last_correction=correction)
    button = window.operate.learner.discard
    until(lambda: button.isEnabled() and button.text() == f"Discard {segment.episode_number}")

    def excluded() -> bool:
        with Catalog.open(peer.config.workspace) as catalog:
            return [row.id for row in catalog.excluded_segments()] == [segment.id]

    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    until(lambda: button.text().startswith("Restore"))
    assert excluded()
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    until(lambda: button.text().startswith("Discard"))
    assert not excluded()


def test_a_robot_that_a_twist_cannot_drive_is_said_and_stop_still_works(peer, theme, qtbot, until):
    """The link thread carries STOP, so it must survive a robot whose actions are unknown."""
    peer.spec = msgspec.structs.replace(SPEC, action=msgspec.structs.replace(SPEC.action, names=["j1", "j2", "j3", "j4"]))
    controller = Controller(peer.config)
    window = MainWindow(controller)
    controller.start()
    window.show()
    until(lambda: window.toast.isVisible() and "j1" in window.toast.text)
    window.act("stop")
    until(lambda: peer.asked(Stop))
    assert not peer.commands
    assert controller.client.running
    window.close()


def test_auto_repeat_that_looks_like_letting_go_does_not_flicker_the_deadman(console, peer, until, qapp):
    """Some X servers send it as release and press at once, without the flag (seen with Xvfb)."""
    window, _ = console
    QTest.keyPress(window, Qt.Key.Key_Space)
    until(lambda: peer.last_command().deadman)
    mark = len(peer.commands)
    for _ in range(12):
        for kind in (QEvent.Type.KeyRelease, QEvent.Type.KeyPress):
            qapp.sendEvent(window, QKeyEvent(kind, Qt.Key.Key_Space, Qt.KeyboardModifier.NoModifier, " ", False))
        QTest.qWait(40)
    assert len(peer.commands) > mark + 5
    assert all(command.deadman for _, command in peer.commands[mark:])
    QTest.keyRelease(window, Qt.Key.Key_Space)
    until(lambda: not peer.last_command().deadman)


def test_keys_held_since_before_the_window_had_the_focus_are_no_press(console, peer, until, qapp):
    """Their first events are auto-repeat: with the flag, or as release and press without it."""
    window, _ = console
    peer.set(mode=Mode.POLICY, episode_id="e1", episode_kind=EpisodeKind.POLICY)
    until(lambda: window.banner.banner.word == "POLICY")
    for flag in (True, False):
        for key in (Qt.Key.Key_P, Qt.Key.Key_Return, Qt.Key.Key_Space):
            for kind in (QEvent.Type.KeyRelease, QEvent.Type.KeyPress) * 3:
                qapp.sendEvent(window, QKeyEvent(kind, key, Qt.KeyboardModifier.NoModifier, "", flag))
    QTest.qWait(100)
    assert not [request for request in peer.requests if isinstance(request, HoldRequest | SetOutcome)]
    assert not peer.last_command().deadman
    QTest.keyClick(window, Qt.Key.Key_P)
    until(lambda: peer.asked(HoldRequest))
