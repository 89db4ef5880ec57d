"""Every limit and timeout of the real-time loop, one at a time, step by step without threads."""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from takeover.data.schema import (
    Clear,
    EpisodeKind,
    Fault,
    Hold,
    HoldReason,
    Mode,
    Outcome,
    OutcomeSource,
    Ready,
    Resume,
    Role,
    SetOutcome,
    Source,
    SpeedScale,
    Start,
)
from takeover.robot_bridge.chunks import Chunk
from takeover.robot_bridge.control_base import FAULTS_TO_OFFLINE
from takeover.robot_bridge.modes import ModeEvent

from .by_hand import SECOND, ByHand, by_hand


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[ByHand]:
    with by_hand(tmp_path) as made:
        yield made


def held(hand: ByHand) -> HoldReason:
    """Why the robot is held; it stands."""
    assert hand.mode is Mode.HOLD
    assert not hand.control.last_action.any()
    return hand.control.mode.reason


def moving(hand: ByHand) -> None:
    hand.answers = [[0.3, 0.0, 0.0, 0.0]]
    hand.run()
    hand.tick(3)
    assert hand.control.last_action.any()


# --- who drives ---


def test_the_policy_drives_and_a_person_takes_over(hand: ByHand) -> None:
    moving(hand)
    hand.take_over()
    hand.tick(4)
    assert hand.control.last_action[0] == pytest.approx(0.5)
    hand.deadman, hand.action = False, [0.0] * 4
    hand.tick()
    assert hand.mode is Mode.POLICY


def test_a_command_lives_150_ms(hand: ByHand) -> None:
    moving(hand)
    hand.take_over()
    hand.age_s = 0.02
    hand.tick()
    assert hand.mode is Mode.TAKEOVER
    hand.age_s = 0.16
    hand.tick()
    assert held(hand) is HoldReason.COMMAND_STALE


def test_silence_of_the_policy_is_awaited_for_part_of_a_period_and_holds(hand: ByHand) -> None:
    moving(hand)
    hand.answers = None
    hand.tick()
    assert hand.mode is Mode.POLICY
    assert not hand.control.last_action.any()
    waited = []
    for _ in range(4):
        hand.control._deadline = began = time.monotonic_ns()
        hand.control.await_answers()
        waited.append((time.monotonic_ns() - began) / 1e9)
    assert 0.02 < min(waited) < 5.0, "the shortest: a busy machine makes any of them long"
    hand.tick()
    assert held(hand) is HoldReason.POLICY_LATE


def test_the_loops_own_lateness_is_not_the_actors(hand: ByHand) -> None:
    moving(hand)
    hand.answers = None
    for _ in range(5):
        hand.control._late.append(True)
        hand.tick()
        assert hand.mode is Mode.POLICY
    hand.control._late.append(False)
    hand.tick(2)
    assert held(hand) is HoldReason.POLICY_LATE


def stall(hand: ByHand) -> None:
    """As the I/O side sees a control thread that does not tick."""
    now = time.monotonic_ns()
    hand.control.ticked_ns = now - SECOND
    assert not hand.control.check_alive(now)
    assert hand.robot._stopped.is_set()
    hand.control.ticked_ns = now


@pytest.mark.parametrize("waits", [False, True])
def test_a_stall_while_nothing_is_to_move_holds_nobody_later(hand: ByHand, waits: bool) -> None:
    """Not when it stands ready (or a demonstration waits), where the robot stands by again, nor in a hold; the next one stops it again."""
    if waits:
        hand.run(EpisodeKind.DEMONSTRATION)
    for _ in range(2):
        hand.tick()
        assert hand.mode is Mode.READY
        stall(hand)
        hand.tick()
        assert not hand.robot._stopped.is_set()
    if waits:
        hand.take_over()
    else:
        hand.run()
    hand.tick(2)
    assert hand.mode is (Mode.TAKEOVER if waits else Mode.POLICY)
    hand.deadman, hand.action = False, [0.0] * 4
    assert hand.ask(Hold(sender="console")) == ""
    stall(hand)
    hand.tick(2)
    assert hand.robot._stopped.is_set(), "whoever ends the hold starts it again"
    if not waits:
        assert hand.ask(Resume(sender="console")) == ""
        hand.tick(2)
        assert hand.mode is Mode.POLICY
    hand.io.inbox.stop_reason = "pressed"
    hand.tick()
    assert hand.mode is Mode.STOPPED
    stall(hand)
    hand.tick()
    assert hand.robot._stopped.is_set(), "a STOP is cleared by people"


def test_nothing_is_awaited_once_stop_was_pressed(hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    moving(hand)
    hand.answers = None
    hand.io.inbox.chunk = None
    control, waited = hand.control, []

    def stopped_meanwhile() -> bool:
        hand.io.inbox.stop_reason = "now"
        began = time.monotonic()
        control._deadline = time.monotonic_ns() + 3 * SECOND
        done = type(control).await_answers(control)
        waited.append(time.monotonic() - began)
        return done

    monkeypatch.setattr(control, "await_answers", stopped_meanwhile)
    applied = len(hand.steps)
    before = control.pending
    hand.tick()
    assert len(waited) == 1
    assert waited[0] < 2.0
    assert control.pending is None or control.pending is before, "a step that STOP overtook is not made"
    hand.tick()
    assert hand.mode is Mode.STOPPED
    assert len(hand.steps) <= applied + 1


def test_answers_from_before_a_flush_do_not_count(hand: ByHand) -> None:
    moving(hand)
    hand.answers = None
    hand.answer(hand.control.seq, [[0.3, 0.0, 0.0, 0.0]] * 50)
    hand.tick()
    assert hand.control.last_action.any()
    assert hand.ask(Hold(sender="console")) == ""
    assert hand.ask(Resume(sender="console")) == ""
    hand.tick()
    assert not hand.control.last_action.any()


def test_a_group_given_back_in_a_takeover_waits_for_what_is_planned_from_then_on(tmp_path: Path) -> None:
    with by_hand(tmp_path, task="sort-two") as hand:
        control, plan = hand.control, [[0.2, 0.0, 0.0, 0.0, 1.0]] * 50
        hand.answers, hand.action = [[0.0] * 4 + [1.0]], [0.0] * 5
        hand.run()
        hand.tick()
        hand.deadman, hand.action = True, [0.3, 0.0, 0.0, 0.0, 0.0]
        hand.tick(6)
        assert (hand.mode, control.last_source) == (Mode.TAKEOVER, (Source.HUMAN, Source.HUMAN))
        hand.answers = None
        hand.answer(control.seq, plan)
        hand.authority = ["arm"]
        for _ in range(5):
            hand.tick()
            assert (hand.mode, control.last_source, control.last_action[4]) == (Mode.TAKEOVER, (Source.HUMAN, Source.NONE), 0.0)
        assert control.flushed_at == control.seq - 3, "told to the actor in the step after"
        hand.answer(control.seq, plan)
        hand.tick(3)
        assert (control.last_source, control.last_action[4]) == ((Source.HUMAN, Source.POLICY), 1.0)
        hand.authority = ["gripper"]
        hand.tick(2)
        assert control.last_source == (Source.NONE, Source.HUMAN)


def test_the_last_row_is_repeated_for_three_steps(hand: ByHand) -> None:
    moving(hand)
    hand.answers = None
    seq = hand.control.seq + 1
    hand.answer(seq, [[0.3, 0.0, 0.0, 0.0]])
    chunk = hand.io.inbox.chunk
    assert chunk is not None
    hand.io.inbox.chunk = replace(chunk, answer=structs.replace(chunk.answer, valid_until_seq=seq + 99))
    hand.tick(4)
    assert hand.control.last_action.any()
    hand.tick()
    assert not hand.control.last_action.any()


def test_a_slow_actor_is_not_late_just_after_a_flush(hand: ByHand) -> None:
    moving(hand)
    hand.answers = None
    hand.control.latency.rows, hand.control.latency.latest_s = 50, 0.2
    hand.control.flush = True
    hand.io.inbox.chunk = None
    hand.tick(8)
    assert hand.mode is Mode.POLICY
    hand.tick(6)
    assert held(hand) is HoldReason.POLICY_LATE


# --- what a moving robot relies on ---


def test_a_silent_recorder_holds(hand: ByHand) -> None:
    moving(hand)
    hand.recorder = False
    hand.io.records.heard_ns -= SECOND
    hand.tick()
    assert held(hand) is HoldReason.RECORDER_LOST


def test_a_recorder_that_cannot_write_holds(hand: ByHand) -> None:
    moving(hand)
    hand.io.records.error = "No space left"
    hand.tick()
    assert held(hand) is HoldReason.DISK_FULL


def test_ten_late_steps_of_twenty_hold(hand: ByHand) -> None:
    moving(hand)

    def late(count: int, seconds: float = 0.03) -> None:
        for _ in range(count):
            hand.control._count_lateness(seconds)

    late(9)
    hand.tick()
    assert hand.mode is Mode.POLICY
    assert hand.control.steps_late == 9
    late(20, 0.02)
    assert hand.control.steps_late == 9, "less than half a period is not late"
    late(9)
    hand.tick()
    assert hand.mode is Mode.POLICY, "what was longer ago does not count"
    late(1)
    hand.tick()
    assert held(hand) is HoldReason.CONTROL_LATE


def test_lateness_counts_only_while_the_robot_moves(hand: ByHand) -> None:
    for _ in range(20):
        hand.control._count_lateness(0.03)
    hand.run()
    hand.tick()
    assert hand.mode is Mode.POLICY
    assert hand.control.steps_late == 0


def test_dropped_steps_are_counted_and_never_caught_up(hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    moving(hand)
    ticks: list[int] = []

    def slow() -> None:
        ticks.append(time.monotonic_ns())
        if len(ticks) == 1:
            time.sleep(0.23)

    monkeypatch.setattr(hand.control, "guarded_tick", slow)
    hand.control.run(lambda: len(ticks) >= 4)
    assert 3 <= hand.control.steps_dropped < 40
    assert ticks[2] - ticks[1] > 0.02 * SECOND, "not made up for"
    assert any(hand.control._late)


def test_a_stuck_control_thread_stops_the_robot_and_the_heartbeat_then_holds(hand: ByHand) -> None:
    moving(hand)
    now = time.monotonic_ns()
    hand.control.ticked_ns = now - SECOND * 9 // 100
    assert hand.bridge._compose_alive(0, now) is not None
    hand.control.ticked_ns = now - SECOND * 4 // 10
    assert hand.bridge._compose_alive(0, now) is None, "people shall soon see that what drives hangs"
    assert not hand.robot._stopped.is_set(), "its own watchdog has"
    hand.control.ticked_ns = now - SECOND * 6 // 10
    assert hand.bridge._compose_alive(0, now) is None
    assert hand.robot._stopped.is_set()
    hand.control.ticked_ns = time.monotonic_ns()
    assert hand.bridge._compose_alive(0, now) is not None
    hand.tick()
    assert held(hand) is HoldReason.CONTROL_LATE
    hand.control.change(ModeEvent.LOSE)
    hand.control.ticked_ns = now - SECOND * 4 // 10
    assert hand.bridge._compose_alive(0, now) is not None, "a robot that does not answer is no lost link"
    hand.control.ticked_ns = now - SECOND * 6 // 10
    assert hand.bridge._compose_alive(0, now) is None, "not for ever"


def slept(hand: ByHand, seconds: float) -> None:
    """The computer was suspended since the last period."""
    hand.control._asleep_ns -= int(seconds * SECOND)
    hand.tick()


@pytest.mark.parametrize("driver", [Mode.POLICY, Mode.TAKEOVER])
def test_a_computer_that_was_suspended_holds_until_somebody_resumes(hand: ByHand, driver: Mode) -> None:
    moving(hand)
    if driver is Mode.TAKEOVER:
        hand.take_over()
    slept(hand, 0.4)
    assert hand.mode is driver
    slept(hand, 0.6)
    assert held(hand) is HoldReason.CONTROL_LATE
    assert hand.control.mode.detail == "the computer was suspended for 0.6 s"
    assert hand.robot._stopped.is_set()
    hand.deadman, hand.action = False, [0.0] * 4
    hand.tick(2)
    assert hand.mode is Mode.HOLD
    assert hand.ask(Resume(sender="console")) == ""
    hand.tick(2)
    assert (hand.mode, hand.robot._stopped.is_set()) == (Mode.POLICY, False)


@pytest.mark.parametrize("driver", [Mode.POLICY, Mode.TAKEOVER, Mode.HOLD])
def test_a_step_that_waited_for_its_answer_through_a_sleep_is_not_made(hand: ByHand, driver: Mode) -> None:
    """Its reading, its command and its answer are hours old, and young by the clock that stood still."""
    moving(hand)
    if driver is Mode.TAKEOVER:
        hand.take_over()
    if driver is Mode.HOLD:
        assert hand.ask(Hold(sender="console")) == ""
        hand.tick()
        hand.deadman, hand.action = True, [0.5, 0.0, 0.0, 0.0]
    assert hand.mode is driver
    answered_by, apply, told = hand.control.answered_by, hand.robot.apply, []

    def asleep(chunk: Chunk) -> bool:
        hand.control.answered_by = answered_by  # type: ignore[method-assign]
        hand.control._asleep_ns -= 8 * 3600 * SECOND
        return answered_by(chunk)

    hand.control.answered_by = asleep  # type: ignore[method-assign]
    hand.robot.apply = lambda action: (told.append(action), apply(action))
    hand.tick()
    assert told == []
    assert hand.mode is Mode.HOLD
    assert hand.control.mode.reason is (HoldReason.OPERATOR if driver is Mode.HOLD else HoldReason.CONTROL_LATE)
    assert hand.robot._stopped.is_set() is (driver is not Mode.HOLD)
    hand.deadman, hand.action = False, [0.0] * 4
    hand.tick()
    assert [action.any() for action in told] == [False], "the loop goes on, held"


def test_a_block_does_not_go_on_by_itself_after_a_sleep(hand: ByHand) -> None:
    hand.control.book.start_block(EpisodeKind.POLICY, 0)
    hand.control.begin_reset()
    slept(hand, 3600.0)
    hand.tick(3)
    assert hand.mode is Mode.HOLD
    assert hand.ask(Resume(sender="console")) == ""
    hand.tick(3)
    assert hand.mode is Mode.POLICY


def test_a_sleep_in_which_nothing_was_to_move_is_no_reason_to_hold(hand: ByHand) -> None:
    slept(hand, 3600.0)
    assert (hand.mode, hand.robot._stopped.is_set()) == (Mode.READY, False)
    hand.run()


def test_nobody_there_nobody_drives(hand: ByHand) -> None:
    moving(hand)
    hand.commands = False
    hand.io.lease.heard_ns -= SECOND
    hand.tick()
    assert held(hand) is HoldReason.LEASE_LAPSED


def test_a_window_that_stands_still_is_nobody(hand: ByHand) -> None:
    moving(hand)
    lease = hand.io.lease

    def command(gui_alive: bool) -> None:
        lease.heard("gamepad", time.monotonic_ns(), present=gui_alive)

    hand.commands = False
    lease.present_ns -= SECOND
    command(gui_alive=True)
    hand.tick()
    assert hand.mode is Mode.POLICY
    lease.present_ns -= SECOND // 5  # a short pause is no absence
    command(gui_alive=False)
    hand.tick()
    assert hand.mode is Mode.POLICY
    lease.present_ns -= SECOND // 3
    command(gui_alive=False)
    hand.tick()
    assert held(hand) is HoldReason.NOT_PRESENT
    assert "console holds the lease, but its window stands still" in hand.control.mode.detail


def test_who_holds_the_lease_and_sends_nothing_is_nobody(hand: ByHand) -> None:
    moving(hand)
    hand.commands = False
    hand.io.lease.present_ns -= SECOND
    hand.io.lease.ask("console", b"console", "gamepad", time.monotonic_ns())
    hand.tick()
    assert held(hand) is HoldReason.NOT_PRESENT


@pytest.mark.parametrize("simulated", [True, False])
def test_a_script_is_somebody_on_a_simulator_only(hand: ByHand, simulated: bool) -> None:
    moving(hand)
    hand.commands = False
    hand.control.spec = structs.replace(hand.control.spec, simulated=simulated)
    hand.io.lease.heard("scripted", time.monotonic_ns())
    hand.tick()
    assert hand.mode is (Mode.POLICY if simulated else Mode.HOLD)
    assert simulated or (held(hand) is HoldReason.NOT_PRESENT and "console is a script" in hand.control.mode.detail)


@pytest.mark.parametrize("simulated", [True, False])
def test_a_script_whose_deadman_was_down_before_begins_on_a_simulator_only(hand: ByHand, simulated: bool) -> None:
    hand.control.spec = structs.replace(hand.control.spec, simulated=simulated)
    hand.kind, hand.deadman = "scripted", True
    hand.control.book.start_block(EpisodeKind.DEMONSTRATION, 0)
    hand.control.begin_reset()
    hand.tick(6)
    assert hand.mode is (Mode.TAKEOVER if simulated else Mode.READY)
    if not simulated:
        hand.deadman = False
        hand.tick(2)
        hand.deadman = True
        hand.tick()
        assert hand.mode is Mode.TAKEOVER, "as a person"


def test_nobody_was_ever_there(hand: ByHand) -> None:
    hand.commands = False
    hand.io.lease.release("console", b"console")
    hand.io.lease.grants = 0
    hand.control.book.start_block(EpisodeKind.POLICY, 0)
    hand.control.begin_reset()
    hand.tick(3)
    assert held(hand) is HoldReason.NOT_PRESENT


# --- faults ---


def test_a_reading_that_is_not_finite_holds_and_moves_nothing(hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    moving(hand)
    read, applied = hand.robot.read, []
    bad_parts = {name: np.full(3, math.nan) for name in ("observation", "tool_position", "tool_velocity", "force_n", "joints")}
    for part, value in {**bad_parts, "gripper_force_n": math.nan}.items():
        bad = replace(read(), **{part: value})
        monkeypatch.setattr(hand.robot, "read", lambda bad=bad: bad)
        with monkeypatch.context() as patched:
            patched.setattr(hand.robot, "apply", applied.append)
            hand.tick()
        assert hand.control.mode.reason is HoldReason.ROBOT_FAULT
        assert hand.control.mode.detail == "the robot's reading is not finite", part
        assert hand.robot._stopped.is_set()
        assert applied == []
        monkeypatch.setattr(hand.robot, "read", read)
        hand.tick()
        assert hand.ask(Resume(sender="console")) == ""
        assert hand.mode is Mode.POLICY


def test_a_reading_with_another_number_of_joints_than_limits_holds(hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    moving(hand)
    short = replace(hand.robot.read(), joints=hand.robot.read().joints[:-1])
    monkeypatch.setattr(hand.robot, "read", lambda: short)
    hand.tick()
    assert hand.control.mode.reason is HoldReason.ROBOT_FAULT
    assert hand.control.mode.detail == "the robot's reading has 5 joints, its spec limits of 6"


@pytest.mark.parametrize(("periods", "why"), [(1.5, ""), (2.1, "it measures no more"), (-200.0, "is of a time to come")])
def test_a_reading_is_of_now(hand: ByHand, monkeypatch: pytest.MonkeyPatch, periods: float, why: str) -> None:
    moving(hand)
    read = hand.robot.read
    monkeypatch.setattr(hand.robot, "read", lambda: replace(read(), t_ns=time.monotonic_ns() - int(periods * SECOND / 20)))
    hand.tick()
    if why:
        assert hand.control.mode.reason is HoldReason.ROBOT_FAULT
        assert why in hand.control.mode.detail
        assert hand.robot._stopped.is_set()
    else:
        assert hand.mode is Mode.POLICY
    monkeypatch.setattr(hand.control, "lockstep", True)
    hand.control._read()  # nothing there depends on a clock


def test_a_reading_that_is_seen_twice_is_recorded_a_little_later(hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    moving(hand)
    frozen = hand.robot.read()
    monkeypatch.setattr(hand.robot, "read", lambda: frozen)
    hand.tick(2)
    monkeypatch.undo()
    hand.tick(2)
    times = [step.t_observation_ns for step in hand.steps]
    assert hand.mode is Mode.POLICY
    assert times == sorted(set(times))


def test_faults_in_a_row_take_the_robot_offline_and_are_said_once_a_second(hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    moving(hand)
    monkeypatch.setattr(hand.robot, "read", lambda: 1 / 0)
    hand.tick(FAULTS_TO_OFFLINE - 1)
    assert hand.mode is Mode.HOLD
    hand.tick()
    assert hand.mode is Mode.OFFLINE
    assert hand.robot._stopped.is_set()
    assert [record.outcome for record in hand.records if hasattr(record, "outcome")] == [Outcome.ABORTED]
    hand.control.mode = replace(hand.control.mode, mode=Mode.STOPPED)
    for _ in range(60):
        hand.control.fault(RuntimeError("off"))
    assert len(hand.events("robot_fault")) == FAULTS_TO_OFFLINE + 3


def test_a_robot_that_is_off_is_asked_once_a_second(hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    hand.control.change(ModeEvent.LOSE)
    asked: list[int] = []
    monkeypatch.setattr(hand.robot, "connect", lambda: asked.append(1) or 1 / 0)
    hand.tick(5)
    assert len(asked) == 1
    monkeypatch.undo()
    hand.tick()
    assert hand.mode is Mode.OFFLINE
    hand.control._reconnect_ns -= 2 * SECOND
    hand.tick()
    assert hand.mode is Mode.READY


def test_stop_latches_stops_the_robot_and_aborts(hand: ByHand) -> None:
    moving(hand)
    hand.io.inbox.stop_reason = "pressed"
    hand.tick(3)
    assert hand.mode is Mode.STOPPED
    assert hand.robot._stopped.is_set()
    ends = [record for record in hand.records if hasattr(record, "outcome_source")]
    assert [(end.outcome, end.outcome_source) for end in ends] == [(Outcome.ABORTED, OutcomeSource.STOP)]
    hand.control.authority = replace(hand.control.authority, armed=True, needs_neutral=False)
    hand.deadman = True
    assert hand.ask(Clear(sender="console")) == ""
    assert not hand.control.authority.armed, "what was armed before the stop is not"
    assert hand.mode is Mode.READY


# --- limits ---


def test_a_hold_after_gross_clamps_stands_in_the_same_step(tmp_path: Path) -> None:
    with by_hand(tmp_path) as hand:
        moving(hand)
        hand.answers = [[3.0, 0.0, 0.0, 0.0]]
        hand.tick(hand.config.limits.clamps_to_hold)
        assert held(hand) is HoldReason.REPEATED_CLAMP


def test_every_hold_disarms(hand: ByHand) -> None:
    moving(hand)
    hand.tick()
    assert hand.control.authority.armed
    hand.control.change(ModeEvent.HOLD, HoldReason.OPERATOR)
    assert not hand.control.authority.armed
    assert hand.control.authority.needs_neutral
    hand.deadman, hand.action = True, [0.5, 0.0, 0.0, 0.0]
    hand.tick(2)
    assert held(hand) is HoldReason.OPERATOR, "kept down it starts nothing"


def test_the_budget_of_mistakes_begins_anew_when_a_person_resumes(hand: ByHand) -> None:
    moving(hand)
    assert hand.ask(Hold(sender="console")) == ""
    hand.control.safety_state = replace(hand.control.safety_state, mistakes=7)
    assert hand.ask(Resume(sender="console")) == ""
    assert hand.control.safety_state.mistakes == 0


def test_resume_wants_the_device_at_rest(hand: ByHand) -> None:
    moving(hand)
    assert hand.ask(Hold(sender="console")) == ""
    hand.action = [0.5, 0.0, 0.0, 0.0]
    assert "centre the device" in hand.ask(Resume(sender="console"))
    hand.action = [0.0] * 4
    assert hand.ask(Resume(sender="console")) == ""


def test_resume_wants_somebody_who_commands(hand: ByHand) -> None:
    """A holder who was given the lease anew, or whose commands are late, has not shown that the device is at rest."""
    moving(hand)
    assert hand.ask(Hold(sender="console")) == ""
    hand.age_s = 0.3
    assert "in time" in hand.ask(Resume(sender="console"))
    hand.commands, hand.io.inbox.command = False, None
    assert "in time" in hand.ask(Resume(sender="console"))
    hand.commands, hand.age_s = True, 0.0
    assert hand.ask(Resume(sender="console")) == ""
    assert hand.ask(Hold(sender="console")) == ""
    hand.io.inbox.command, hand.control.lockstep = None, True
    hand.control.resume()  # nothing that decides counts time there
    assert hand.mode is Mode.POLICY


def test_a_demonstration_goes_on_by_a_press_only(hand: ByHand) -> None:
    hand.run(EpisodeKind.DEMONSTRATION)
    hand.take_over()
    hand.deadman, hand.action = False, [0.0] * 4
    hand.tick()
    assert hand.control.mode.reason is HoldReason.RELEASED
    assert "press the deadman" in hand.ask(Resume(sender="console"))
    assert hand.mode is Mode.HOLD


def test_speed_is_what_a_person_asks_for(hand: ByHand) -> None:
    for scale in (1.0, 0.1):
        assert hand.ask(SpeedScale(sender="console", scale=scale)) == ""
        assert hand.control.active_speed_scale() == scale


def test_an_episode_ends_at_its_step_limit(hand: ByHand) -> None:
    moving(hand)
    episode = hand.control.book.episode
    assert episode is not None
    episode.steps = hand.control.spec.max_steps - 2
    hand.tick(3)
    ends = [record for record in hand.records if hasattr(record, "outcome_source")]
    assert [(end.outcome, end.outcome_source) for end in ends] == [(Outcome.FAILURE, OutcomeSource.LIMIT)]


def test_a_long_hold_is_recorded_once_a_second(hand: ByHand) -> None:
    moving(hand)
    assert hand.ask(Hold(sender="console")) == ""
    hand.tick(2)
    before = len(hand.steps)
    hand.tick(10)
    assert len(hand.steps) == before + 10
    hand.control.held_steps = 201
    before = len(hand.steps)
    hand.tick(40)
    assert len(hand.steps) == before + 2


@pytest.mark.parametrize("was_there", [False, True])
def test_with_nobody_to_resume_a_hold_ends_the_episode(tmp_path: Path, was_there: bool) -> None:
    """Without a script nobody is there, until somebody takes the lease: a person at another computer, say."""
    with by_hand(tmp_path, operator="none") as hand:
        moving(hand)
        assert hand.io.lease.grants
        if not was_there:
            hand.io.lease.grants = 0
        hand.answers = None
        hand.io.inbox.chunk = None
        hand.tick(2)
        assert held(hand) is HoldReason.POLICY_LATE
        hand.answers = [[0.0] * 4]
        hand.tick(15)
        assert hand.mode is Mode.HOLD
        hand.tick(8)
        ends = [record for record in hand.records if hasattr(record, "outcome_source")]
        assert [(end.outcome, end.outcome_source) for end in ends] == ([] if was_there else [(Outcome.ABORTED, OutcomeSource.FAULT)])


# --- requests ---


@pytest.mark.parametrize("role", [Role.LABELER, Role.OBSERVER, Role.LEARNER])
def test_who_may_ask_for_what(hand: ByHand, role: Role) -> None:
    for request in (Start(sender="x", kind=EpisodeKind.DEMONSTRATION), Resume(sender="x"), SpeedScale(sender="x", scale=0.5)):
        assert "may not ask" in hand.ask(request, role, "x")
    assert ("may not ask" in hand.ask(SetOutcome(sender="x", outcome=Outcome.SUCCESS), role, "x")) == (role is not Role.LABELER)
    hand.run()
    assert hand.ask(Hold(sender="x"), role, "x") == "", "anyone may hold"
    assert "console holds the lease" in hand.ask(Resume(sender="y"), Role.OPERATOR, "y")
    hand.io.lease.device_kind = "scripted"
    hand.commands = False
    assert hand.ask(SpeedScale(sender="y", scale=0.5), Role.OPERATOR, "y") == "", "a script's lease keeps no person out"


def test_requests_out_of_place_are_refused(hand: ByHand) -> None:
    assert "nothing moves" in hand.ask(Hold(sender="console"))
    assert "possible in mode hold" in hand.ask(Resume(sender="console"))
    assert "nothing to clear" in hand.ask(Clear(sender="console"))
    assert "no manual reset" in hand.ask(Ready(sender="console"))
    for scale in (0.0, 0.04, 1.01, math.nan, -1.0):
        assert "allowed" in hand.ask(SpeedScale(sender="console", scale=scale))
    hand.run()
    assert "possible in mode ready" in hand.ask(Start(sender="console", kind=EpisodeKind.POLICY))
    assert "success or failure" in hand.ask(SetOutcome(sender="console", outcome=Outcome.ABORTED))


def test_what_a_start_needs(hand: ByHand) -> None:
    hand.answers = None
    assert "no policy" in hand.ask(Start(sender="console", kind=EpisodeKind.POLICY))
    hand.answers = [[0.0] * 4]
    hand.recorder = False
    hand.io.records.heard_ns = 0
    assert "no recorder" in hand.ask(Start(sender="console", kind=EpisodeKind.POLICY))
    hand.recorder = True
    assert hand.ask(Start(sender="console", kind=EpisodeKind.POLICY)) == ""


def test_faults_are_for_simulators(hand: ByHand) -> None:
    hand.control.spec = structs.replace(hand.control.spec, simulated=False)
    assert "simulators" in hand.ask(Fault(sender="console", name="frozen_camera", value=1.0))
