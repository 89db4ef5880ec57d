"""What was asked does not happen late: not after a STOP, a loop that stood still or a robot that was away; and a hold that was asked for
lasts. By hand, step by step."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from takeover.data.schema import (
    PROTOCOL_VERSION,
    Clear,
    ControlRequest,
    EpisodeEnd,
    EpisodeKind,
    Finish,
    Hello,
    Hold,
    HoldReason,
    Mode,
    Next,
    Outcome,
    OutcomeSource,
    Ready,
    Resume,
    Role,
    SetOutcome,
    Source,
    SpeedScale,
    Start,
    Stop,
)
from takeover.robot_bridge.chunks import MAX_PLAN_S
from takeover.robot_bridge.control_state import POLICY_SILENT_S
from takeover.robot_bridge.inbox import PendingRequest
from takeover.robot_bridge.robots.base import Evaluation, RobotError

from .by_hand import SECOND, ByHand, by_hand

START = Start(sender="console", kind=EpisodeKind.POLICY)


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[ByHand]:
    with by_hand(tmp_path) as made:
        yield made


def waiting(hand: ByHand, request: ControlRequest, stops: int = 0, seconds: float = 0.0) -> None:
    """A request that came when there had been ``stops``, ``seconds`` ago."""
    then = time.monotonic_ns() - int(seconds * SECOND)
    hand.io.inbox.requests.append(PendingRequest(b"x", 1, request, "console", Role.OPERATOR, b"console", stops, then))


def stopped(hand: ByHand) -> int:
    """STOP is pressed; how often by now."""
    hand.io.inbox.stop("pressed")
    hand.tick()
    assert hand.mode is Mode.STOPPED
    return hand.io.inbox.stops


# --- STOP ---


def test_a_clear_that_was_asked_before_a_stop_does_not_take_it_back(hand: ByHand) -> None:
    knew = stopped(hand)
    clear = hand.robot.clear
    cleared: list[bool] = []
    hand.robot.clear = lambda: cleared.append(True)
    waiting(hand, Clear(sender="console"), knew)
    hand.io.inbox.stop("again")
    waiting(hand, START, knew)
    hand.tick(3)
    assert not cleared, "the robot is not even told"
    hand.robot.clear = clear
    assert hand.errors == ["STOP was pressed after this was asked: not done"] * 2
    assert hand.mode is Mode.STOPPED
    waiting(hand, Clear(sender="console"), knew + 1)
    hand.tick()
    assert hand.mode is Mode.READY


def test_clear_and_stop_at_once_over_the_socket_leave_it_stopped(hand: ByHand) -> None:
    hand.io.lease.release("console", b"console")
    stopped(hand)
    client = hand.client()
    client.send(Hello(sender="console", role=Role.OPERATOR, protocol=PROTOCOL_VERSION, software="test"))
    hand.pump()
    client.send(Clear(sender="console"))
    client.send(Stop(sender="console", reason="again"))
    client.send(START)
    assert hand.pump_until(lambda: len(hand.io.inbox.requests) == 2)
    hand.tick(3)
    assert hand.errors == ["STOP was pressed after this was asked: not done", "start is possible in mode ready; the bridge is in stopped"]
    assert hand.mode is Mode.STOPPED
    client.close()


@pytest.mark.parametrize("request_", [Start, Resume, Ready, Next], ids=lambda kind: kind.__name__)
def test_what_would_move_the_robot_and_was_asked_before_a_stop_is_not_done(hand: ByHand, request_: Any) -> None:
    knew = hand.io.inbox.stops
    waiting(hand, Clear(sender="console"), stopped(hand))
    made = START if request_ is Start else request_(sender="console")
    waiting(hand, made, knew)
    hand.tick()
    assert hand.errors == ["", "STOP was pressed after this was asked: not done"]
    assert hand.mode is Mode.READY
    waiting(hand, SpeedScale(sender="console", scale=0.5), knew)
    hand.tick()
    assert hand.errors[-1] == "", "moves nothing"


def test_a_stop_between_the_look_at_a_clear_and_its_doing_stays(hand: ByHand) -> None:
    knew = stopped(hand)
    clear = hand.robot.clear

    def interrupted() -> None:
        clear()
        hand.io.inbox.stop("just now")

    hand.robot.clear = interrupted
    waiting(hand, Clear(sender="console"), knew)
    hand.tick(2)
    assert hand.errors == ["STOP was pressed after this was asked: not done"]
    assert hand.mode is Mode.STOPPED
    assert hand.io.inbox.stop_reason == "just now"


@pytest.mark.parametrize("done", [False, True])
def test_stop_and_clear_at_once_leave_no_block_behind(hand: ByHand, done: bool) -> None:
    hand.run()
    if done:  # the task ends it in that very step
        hand.robot.evaluate = lambda: Evaluation(reward=1.0, success=True, terminated=True)
    hand.io.inbox.stop("pressed")
    waiting(hand, Clear(sender="console"), hand.io.inbox.stops)
    waiting(hand, START, hand.io.inbox.stops)
    hand.tick()
    assert (hand.mode, hand.control.book.episode, hand.control.book.block) == (Mode.READY, None, None)
    assert hand.errors[-2] == ""
    assert "is running; finish it first" in hand.errors[-1], "the episode that STOP ends is not yet"
    waiting(hand, START, hand.io.inbox.stops)
    hand.tick()
    assert hand.errors[-1] == ""


def test_a_stop_is_latched_before_the_driver_is_told(hand: ByHand) -> None:
    latched = []
    stop = hand.io._stop_robot

    def noting() -> None:
        latched.append(hand.io.inbox.stop_reason)
        stop()

    hand.io._stop_robot = noting
    client = hand.client()
    client.send(Stop(sender="console", reason="smoke"))
    assert hand.pump_until(lambda: bool(latched))
    assert latched[0] is not None
    client.close()


ENDS = [
    Finish(sender="console", now=True),
    Next(sender="console"),
    SetOutcome(sender="console", outcome="success"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("request_", ENDS, ids=lambda made: type(made).__name__)
def test_what_ends_an_episode_after_its_stop_does_not_replace_the_cause(hand: ByHand, request_: ControlRequest) -> None:
    hand.run()
    hand.tick()
    hand.io.inbox.stop("pressed")
    waiting(hand, request_, hand.io.inbox.stops)
    hand.tick(2)
    assert hand.errors == ["STOP ends this episode"]
    (end,) = [record for record in hand.records if isinstance(record, EpisodeEnd)]
    assert (end.outcome, end.outcome_source) == (Outcome.ABORTED, OutcomeSource.STOP)
    assert hand.mode is Mode.STOPPED


# --- late ---


def test_nothing_is_done_that_waited_for_more_than_a_second(hand: ByHand) -> None:
    waiting(hand, START, seconds=1.1)
    hand.tick(3)
    assert hand.errors == ["Start was asked more than a second ago: not done"]
    assert hand.mode is Mode.READY
    hand.run()
    for request in (SetOutcome(sender="console", outcome="success"), Finish(sender="console", now=True)):
        waiting(hand, request, seconds=1.1)
    hand.tick()
    assert all(error.endswith("more than a second ago: not done") for error in hand.errors[1:])
    assert hand.mode is Mode.POLICY
    waiting(hand, Hold(sender="console"), seconds=5.0)
    hand.tick()
    assert hand.mode is Mode.HOLD, "a hold is never too late"


def test_a_robot_that_is_away_keeps_no_request_waiting(hand: ByHand) -> None:
    knew = stopped(hand)
    read = hand.robot.read

    def away() -> Any:
        raise RobotError("off")

    hand.robot.read = away
    assert hand.ask(SpeedScale(sender="console", scale=0.5)) == "", "answered at once"
    waiting(hand, Clear(sender="console"), knew)
    waiting(hand, START, knew)
    hand.tick(3)
    assert len(hand.errors) == 3
    assert hand.mode is Mode.OFFLINE
    hand.robot.read = read
    hand.tick(3)
    assert hand.mode is not Mode.POLICY
    assert hand.control.book.block is None
    assert not hand.control.last_action.any()


def test_start_needs_an_actor_that_answers(hand: ByHand) -> None:
    hand.tick()
    hand.answers = None
    chunk = hand.io.inbox.chunk
    assert chunk is not None
    hand.io.inbox.chunk = replace(chunk, arrival_ns=time.monotonic_ns() - int((POLICY_SILENT_S + 0.1) * SECOND))
    assert hand.ask(START) == "the actor is silent"
    demonstration = Start(sender="console", kind=EpisodeKind.DEMONSTRATION)
    assert hand.ask(demonstration) == "", "a person shows it"


# --- holds ---


def test_a_hold_that_was_asked_for_in_practice_lasts(hand: ByHand) -> None:
    assert hand.ask(Start(sender="console", kind=EpisodeKind.POLICY, unattended=True, max_failures=5)) == ""
    hand.tick(3)
    assert hand.mode is Mode.POLICY
    hand.answers = None
    hand.tick(3)
    assert hand.control.mode.reason is HoldReason.POLICY_LATE
    assert hand.ask(Hold(sender="console")) == ""
    hand.answers = [[0.3, 0.0, 0.0, 0.0]]
    hand.tick(round(2.0 * hand.control.spec.control_hz))
    assert hand.mode is Mode.HOLD, "somebody wanted it held"
    assert hand.ask(Resume(sender="console")) == ""
    hand.answers = None
    hand.tick(3)
    assert hand.mode is Mode.HOLD
    hand.tick(round(2.0 * hand.control.spec.control_hz))
    assert hand.control.mode.reason is not HoldReason.POLICY_LATE or hand.mode is not Mode.HOLD, "nobody asked for this one"


@pytest.mark.parametrize("first", [True, False], ids=["held by it", "held already"])
def test_what_runs_the_practice_does_not_end_the_hold_that_a_person_asked_for(hand: ByHand, first: bool) -> None:
    """A supervisor resumes what is held with nobody there. This is not."""
    assert hand.ask(Start(sender="supervisor", kind=EpisodeKind.POLICY, unattended=True, max_failures=5), sender="supervisor") == ""
    hand.commands = False
    hand.tick(3)
    assert hand.mode is Mode.POLICY
    hand.io.lease.release("console", b"console")
    if not first:
        hand.answers = None
        hand.tick(3)
        assert hand.control.mode.reason is HoldReason.POLICY_LATE
        assert hand.ask(Resume(sender="supervisor"), sender="supervisor") == "", "nobody has asked for this one"
        hand.tick(3)
        assert hand.control.mode.reason is HoldReason.POLICY_LATE
        hand.answers = [[0.0] * 4]
    assert hand.ask(Hold(sender="watcher"), Role.OBSERVER, sender="watcher") == ""
    refusal = hand.ask(Resume(sender="supervisor"), sender="supervisor")
    assert refusal == "watcher asked for this hold of practice: resumed by who did, or by who takes the lease"
    hand.tick(5)
    assert hand.mode is Mode.HOLD
    if first:
        assert hand.ask(Resume(sender="watcher"), sender="watcher") == ""
    else:
        hand.token = hand.io.lease.ask("console", b"console", "gamepad", time.monotonic_ns())
        hand.commands = True
        hand.tick(2)
        assert hand.ask(Resume(sender="console")) == ""
    assert hand.mode is Mode.POLICY


def test_a_hold_between_episodes_keeps_the_next_from_beginning(hand: ByHand) -> None:
    assert hand.ask(Hold(sender="console")) == "nothing moves in mode ready"
    hand.run()
    hand.control.reset_pause_s = 0.4  # type: ignore[misc]
    assert hand.ask(SetOutcome(sender="console", outcome="success")) == ""
    hand.tick()
    assert hand.mode is Mode.RESETTING
    assert hand.ask(Hold(sender="console")) == ""
    time.sleep(0.5)
    hand.tick(3)
    assert hand.mode is Mode.HOLD
    assert not hand.control.last_action.any()
    assert hand.ask(Resume(sender="console")) == ""
    time.sleep(0.5)
    hand.tick(3)
    assert hand.mode is Mode.POLICY


def solve(hand: ByHand) -> None:
    """The task says at the next step that it is solved."""
    evaluate = hand.robot.evaluate

    def solved() -> Any:
        hand.robot.evaluate = evaluate
        return replace(evaluate(), success=True, terminated=True)

    hand.robot.evaluate = solved


@pytest.mark.parametrize("by", ["task", *ENDS[1:]], ids=["task", "Next", "SetOutcome"])
def test_a_hold_in_the_period_in_which_the_episode_ends_outlasts_it(hand: ByHand, by: Any) -> None:
    hand.answers = [[0.3, 0.0, 0.0, 0.0]]
    hand.run()
    hand.tick()
    if by == "task":
        solve(hand)
    else:
        waiting(hand, by, hand.io.inbox.stops)
    waiting(hand, Hold(sender="console"))
    hand.tick()
    assert not any(hand.errors)
    assert len([record for record in hand.records if isinstance(record, EpisodeEnd)]) == 1
    assert (hand.mode, hand.control.mode.reason) == (Mode.HOLD, HoldReason.OPERATOR)
    time.sleep(0.5)
    hand.tick(10)
    before = hand.control.reading
    hand.tick(round(2.0 * hand.control.spec.control_hz))
    assert hand.mode is Mode.HOLD, "nothing but a person leads out of it"
    assert before is not None
    assert hand.robot.read().tool_position == pytest.approx(before.tool_position, abs=1e-3)
    assert hand.ask(Resume(sender="console")) == ""
    time.sleep(0.5)
    hand.tick(3)
    assert hand.mode is Mode.POLICY


@pytest.mark.parametrize("request_", ENDS[1:], ids=lambda made: type(made).__name__)
def test_who_ends_a_held_episode_goes_on_with_the_next(hand: ByHand, request_: ControlRequest) -> None:
    """Also in the very period of the hold: what was asked last counts. And a hold that is over holds no later one."""
    hand.run()
    hand.tick()
    waiting(hand, Hold(sender="console"))
    waiting(hand, request_, hand.io.inbox.stops)
    hand.tick()
    time.sleep(0.5)
    hand.tick(3)
    assert hand.mode is Mode.POLICY
    assert hand.ask(Hold(sender="console")) == ""
    hand.tick()
    assert hand.ask(Resume(sender="console")) == ""
    hand.tick(2)
    assert hand.mode is Mode.POLICY
    solve(hand)
    hand.tick()
    time.sleep(0.5)
    hand.tick(3)
    assert hand.mode is Mode.POLICY
    assert not any(hand.errors)


@pytest.mark.parametrize("reason", [HoldReason.RECORDER_LOST, HoldReason.DISK_FULL])
def test_a_press_moves_nothing_while_what_held_the_robot_lasts(hand: ByHand, reason: HoldReason) -> None:
    hand.run()
    if reason is HoldReason.DISK_FULL:
        hand.io.records.error = "no space"
    else:
        hand.recorder = False
        hand.io.records.heard_ns -= 2 * SECOND
    hand.tick()
    assert hand.control.mode.reason is reason
    hand.tick()
    hand.deadman, hand.action = True, [0.5, 0.0, 0.0, 0.0]
    for _ in range(3):
        hand.tick()
        assert hand.mode is Mode.HOLD
        assert not hand.control.last_action.any()
    hand.recorder, hand.io.records.error = True, ""
    hand.tick(2)
    assert hand.mode is Mode.HOLD, "that press was made in vain"
    hand.deadman, hand.action = False, [0.0] * 4
    hand.tick()
    hand.deadman, hand.action = True, [0.5, 0.0, 0.0, 0.0]
    hand.tick()
    assert hand.mode is Mode.TAKEOVER


# --- the policy beside a person ---


@pytest.fixture
def picking(tmp_path: Path) -> Iterator[ByHand]:
    """A robot with an arm and a gripper, which can be driven by one each."""
    with by_hand(tmp_path, task="pick-lift") as made:
        made.answers, made.action = [[0.0] * 5], [0.0] * 5
        yield made


def test_clamps_of_the_policy_count_where_a_person_drives_the_rest(picking: ByHand) -> None:
    hand = picking
    groups = hand.control.spec.action.group_names
    make = hand.command
    hand.command = lambda **changes: make(**({"authority": [groups[-1]]} | changes))  # type: ignore[method-assign]
    hand.run()
    hand.tick()
    hand.deadman = True
    hand.answers = [[0.3, 0.0, 0.0, 0.0, 0.0]]
    hand.tick(3)
    assert hand.mode is Mode.TAKEOVER
    assert Source.POLICY in hand.control.last_source
    hand.answers = [[3.0, 0.0, 0.0, 0.0, 0.0]]
    hand.tick(hand.config.limits.clamps_to_hold)
    assert hand.mode is Mode.HOLD
    assert hand.control.mode.reason is HoldReason.REPEATED_CLAMP


def test_clamps_of_a_person_do_not_count_beside_the_policy(picking: ByHand) -> None:
    hand = picking
    groups = hand.control.spec.action.group_names
    make = hand.command
    hand.command = lambda **changes: make(**({"authority": list(groups[:-1])} | changes))  # type: ignore[method-assign]
    hand.run()
    hand.tick()
    hand.deadman, hand.action = True, [3.0, 0.0, 0.0, 0.0, 0.0]
    hand.tick(3 * hand.config.limits.clamps_to_hold)
    assert hand.mode is Mode.TAKEOVER
    assert Source.POLICY in hand.control.last_source


def test_a_plan_is_driven_for_so_long_and_no_longer(hand: ByHand) -> None:
    plan = int(MAX_PLAN_S * hand.control.spec.control_hz)
    hand.answers = [[0.3, 0.0, 0.0, 0.0]] * plan + [[0.1, 0.0, 0.0, 0.0]] * 900
    hand.run()
    hand.answers = None
    steps = 0
    while hand.mode is Mode.POLICY and steps < 200:
        hand.tick()
        steps += 1
    assert hand.control.mode.reason is HoldReason.POLICY_LATE
    assert abs(steps - plan) < 10
    assert all(step.policy_action in (None, [0.3, 0.0, 0.0, 0.0]) for step in hand.steps), "its last row, none beyond it"
