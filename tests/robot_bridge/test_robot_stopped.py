"""A robot that the bridge itself has stopped, for a fault or a stall: when it moves again, and from which velocity. By hand."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from takeover.data.schema import (
    Clear,
    EpisodeEnd,
    EpisodeKind,
    Finish,
    Hold,
    HoldReason,
    Mode,
    Next,
    Outcome,
    OutcomeSource,
    Resume,
    Role,
    SafetyLimits,
    SetOutcome,
    Start,
)
from takeover.robot_bridge.control_base import FAULTS_TO_OFFLINE
from takeover.robot_bridge.inbox import PendingRequest
from takeover.robot_bridge.robots.base import FloatArray, Reading, RobotError
from takeover.robot_bridge.robots.sim import SimRobot

from .by_hand import SECOND, ByHand, by_hand

ACCELERATION_M_S2 = 0.5  # within its range; a robot at 0.2 m/s needs eight steps to stand


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[ByHand]:
    with by_hand(tmp_path, limits=SafetyLimits(max_acceleration_m_s2=ACCELERATION_M_S2)) as made:
        yield made


def moving(hand: ByHand) -> None:
    hand.answers = [[0.0] * 4]
    hand.run()
    for share in range(1, 9):  # as the limit allows: else it would be held for gross clamps
        hand.answers = [[0.1 * share, 0.0, 0.0, 0.0]]
        hand.tick()
    assert hand.mode is Mode.POLICY
    assert hand.control.safety_state.velocity[0] > 0.07


def fails(hand: ByHand, times: int) -> None:
    read = hand.robot.read

    def gone() -> Any:
        raise RobotError("cable pulled")

    hand.robot.read = gone
    hand.tick(times)
    hand.robot.read = read


def stalls(hand: ByHand) -> None:
    """As the I/O side sees a control thread that does not tick."""
    now = time.monotonic_ns()
    hand.control.ticked_ns = now - SECOND
    assert not hand.control.check_alive(now)
    hand.control.ticked_ns = now
    hand.tick()


def sleeps(hand: ByHand) -> None:
    """The computer was suspended since the last period."""
    hand.control._asleep_ns -= SECOND
    hand.tick()


def applied(hand: ByHand) -> list[np.ndarray]:
    """What the robot is told from now on."""
    told: list[np.ndarray] = []
    apply = hand.robot.apply

    def noted(action: np.ndarray) -> None:
        told.append(np.array(action))
        apply(action)

    hand.robot.apply = noted
    return told


WHY: list[tuple[Callable[[ByHand], None], HoldReason]] = [
    (lambda hand: fails(hand, 1), HoldReason.ROBOT_FAULT),
    (stalls, HoldReason.CONTROL_LATE),
]


@pytest.mark.parametrize(("stop", "reason"), WHY, ids=["fault", "stall"])
@pytest.mark.parametrize("how", ["next", "outcome", "another block"])
def test_the_episode_after_a_hold_that_nobody_resumed_moves_the_robot(hand: ByHand, stop: Any, reason: HoldReason, how: str) -> None:
    """It stood still for the rest of the day, and what the policy asked was recorded as done."""
    moving(hand)
    stop(hand)
    assert (hand.mode, hand.control.mode.reason) == (Mode.HOLD, reason)
    assert hand.robot._stopped.is_set()
    hand.answers = [[0.0] * 4]
    if how == "another block":
        assert hand.ask(Finish(sender="console", now=True)) == ""
        hand.tick(2)
        assert hand.mode is Mode.READY
        assert hand.robot._stopped.is_set(), "nobody wants it to move"
        assert hand.ask(Start(sender="console", kind=EpisodeKind.POLICY)) == ""
    else:
        ends = {"next": Next(sender="console"), "outcome": SetOutcome(sender="console", outcome="failure")}
        assert hand.ask(ends[how]) == ""
    time.sleep(0.5)
    hand.tick(2)
    assert hand.mode is Mode.POLICY
    hand.answers = [[0.1, 0.0, 0.0, 0.0]]
    before = hand.robot.read().tool_position
    hand.tick(15)
    assert hand.mode is Mode.POLICY
    assert hand.robot.read().tool_position[0] - before[0] > 0.005


def test_a_robot_that_comes_back_stands(hand: ByHand) -> None:
    """It stood while it was away: what it was told last is not braked from any more, with nobody there."""
    moving(hand)
    fails(hand, FAULTS_TO_OFFLINE)
    assert hand.mode is Mode.OFFLINE
    told = applied(hand)
    hand.control._reconnect_ns = 0
    hand.tick(10)
    assert hand.mode is Mode.READY
    assert len(told) >= 5
    assert not any(action.any() for action in told)


def stalls_in_a_hold(hand: ByHand) -> None:
    assert hand.ask(Hold(sender="console")) == ""
    stalls(hand)


@pytest.mark.parametrize("stop", [*(stop for stop, _ in WHY), sleeps, stalls_in_a_hold], ids=["fault", "stall", "sleep", "stall in a hold"])
def test_a_robot_that_was_stopped_is_sped_up_from_standstill(hand: ByHand, stop: Any) -> None:
    moving(hand)
    stop(hand)
    assert hand.mode is Mode.HOLD
    hand.tick()
    told = applied(hand)
    assert hand.ask(Resume(sender="console")) == ""
    assert hand.mode is Mode.POLICY
    hand.tick()
    largest_m = ACCELERATION_M_S2 * hand.control.period_s**2
    steps = [action[0] * hand.control.spec.action.scale[0] for action in told]
    assert max(np.diff([0.0, *steps])) == pytest.approx(largest_m, rel=1e-3), "as fast as the limit allows, from nothing"


def test_a_stop_while_a_robot_is_let_go_stays(hand: ByHand) -> None:
    """A press out of a hold lets the robot move again, which takes a driver its time: a STOP may come just then."""
    moving(hand)
    assert hand.ask(Hold(sender="console")) == ""
    hand.tick(3)
    clear = hand.robot.clear

    def interrupted() -> None:
        hand.io.inbox.stop("just now")
        hand.robot.stop()
        clear()

    hand.robot.clear = interrupted
    hand.deadman, hand.action = True, [1.0, 0.0, 0.0, 0.0]
    hand.tick()
    assert hand.mode is Mode.TAKEOVER
    assert hand.robot._stopped.is_set(), "not to be undone by what was decided before it"
    hand.tick()
    assert hand.mode is Mode.STOPPED


class Traveller(SimRobot):
    """Has to travel to its start pose, and is far away."""

    def start_action(self, reading: Reading, seed: int) -> FloatArray | None:
        return np.array([1.0, 0.0, 0.0, 0.0])


def test_a_robot_that_was_stopped_on_its_way_waits_for_who_resumes(tmp_path: Path) -> None:
    with by_hand(tmp_path, robot=Traveller("peg-insert")) as hand:
        hand.control.book.start_block(EpisodeKind.POLICY, 0)
        hand.control.begin_reset()
        hand.tick(3)
        assert hand.control.start_steps == 3
        stalls(hand)
        assert (hand.mode, hand.control.mode.reason) == (Mode.HOLD, HoldReason.CONTROL_LATE)
        assert hand.robot._stopped.is_set()
        assert hand.ask(Resume(sender="console")) == ""
        hand.tick(3)
        assert hand.mode is Mode.RESETTING
        assert not hand.robot._stopped.is_set()


def ends(hand: ByHand) -> list[tuple[Outcome, OutcomeSource]]:
    return [(record.outcome, record.outcome_source) for record in hand.records if isinstance(record, EpisodeEnd)]


@pytest.mark.parametrize("at_once", [False, True])
def test_after_stop_and_clear_a_robot_that_fails_goes_on_with_nothing(hand: ByHand, at_once: bool) -> None:
    moving(hand)
    hand.io.inbox.stop("pressed")
    if not at_once:
        fails(hand, 1)
        assert hand.mode is Mode.STOPPED
        assert ends(hand) == [(Outcome.ABORTED, OutcomeSource.STOP)], "also when the robot is never read again"
    hand.io.inbox.requests.append(PendingRequest(b"x", 1, Clear(sender="console"), "console", Role.OPERATOR, b"console", stops=1))
    fails(hand, 1)
    assert hand.errors[-1] == ""
    assert hand.mode is Mode.OFFLINE, "no episode is left to be held"
    assert ends(hand) == [(Outcome.ABORTED, OutcomeSource.STOP)]
    for _ in range(5):
        hand.control._reconnect_ns = hand.control.reset_due_ns = 0
        hand.tick()
        assert hand.mode is Mode.READY
    assert hand.control.book.block is None


def test_an_episode_that_stop_ends_is_the_last_of_its_block_in_whatever_mode(hand: ByHand) -> None:
    moving(hand)
    assert hand.ask(Hold(sender="console")) == ""
    hand.control.end_episode(Outcome.ABORTED, OutcomeSource.STOP)
    assert hand.control.book.block is None
    assert hand.mode is Mode.HOLD
    assert hand.ask(Resume(sender="console")) == ""
    assert hand.mode is Mode.READY
