"""A request counts for what its sender had seen, over a slow link too: it takes back no STOP, and ends no hold, that came since."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from takeover.data.schema import (
    PROTOCOL_VERSION,
    Clear,
    ControlRequest,
    EpisodeKind,
    Hello,
    Hold,
    HoldReason,
    Lease,
    Mode,
    Resume,
    Role,
    Start,
    Stop,
)
from takeover.robot_bridge.inbox import MAX_STOP_REASON
from takeover.robot_bridge.modes import ModeEvent
from takeover.robot_bridge.protocol import ControlClient

from .by_hand import ByHand, by_hand

SINCE = "STOP was pressed after this was asked: not done"


class Desk:
    """One that asks over the bridge's real sockets, with the state in view that it is told to have."""

    def __init__(self, hand: ByHand) -> None:
        self.hand = hand
        hand.io.compose_state = hand.bridge._board.compose
        hand.io.lease.release("console", b"console")
        self.client: ControlClient = hand.client("desk")
        hello = Hello(protocol=PROTOCOL_VERSION, sender="desk", role=Role.OPERATOR, software="test")
        assert hand.answered(self.client, hello).error == ""
        assert hand.answered(self.client, Lease(sender="desk", device_kind="gamepad")).error == ""

    def state(self) -> int:
        """The number of a state that is sent now."""
        self.hand.io._state_due_ns = 0
        self.hand.io.pump(0.0)
        return self.hand.io._state_seq - 1

    def ask(self, request: ControlRequest, saw: int) -> str:
        """What the control thread answers to it."""
        self.client.newest_state_seq = saw
        self.client.send(request)
        assert self.hand.pump_until(lambda: self.hand.io.inbox.requests)
        self.hand.tick()
        return self.hand.errors[-1]

    def stop(self, reason: str) -> None:
        assert self.hand.answered(self.client, Stop(sender="desk", reason=reason)).error == ""
        self.hand.tick()
        assert self.hand.mode is Mode.STOPPED


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with by_hand(tmp_path) as hand:
        made = Desk(hand)
        yield made
        made.client.close()


def test_a_clear_takes_back_no_stop_that_its_sender_had_not_seen(desk: Desk) -> None:
    desk.stop("first")
    saw = desk.state()
    desk.stop("second")
    assert desk.ask(Clear(sender="desk"), saw) == SINCE
    assert desk.hand.mode is Mode.STOPPED
    assert desk.ask(Clear(sender="desk"), desk.state()) == ""
    assert desk.hand.mode is Mode.READY
    assert desk.ask(Start(sender="desk", kind=EpisodeKind.POLICY), saw) == SINCE, "nor starts after it"
    desk.stop("third")
    assert desk.ask(Clear(sender="desk"), -1) == "", "who says no state: by when it came"


def test_a_stop_of_what_is_stopped_already_is_in_the_record_once(desk: Desk) -> None:
    desk.stop("first")
    desk.stop("second")
    desk.hand.tick(2)
    assert [event.text for event in desk.hand.events("stop")] == ["desk: first", "desk: second"]


def test_the_reason_of_a_stop_makes_no_long_states(desk: Desk) -> None:
    desk.stop("x" * 60_000)
    state = desk.hand.bridge._board.compose(1, time.monotonic_ns())
    assert state is not None
    assert (len(state.hold_detail), state.hold_detail[:8]) == (MAX_STOP_REASON, "desk: xx")


@pytest.mark.parametrize("by_itself", [True, False])
def test_a_resume_ends_no_hold_that_its_sender_had_not_seen(desk: Desk, by_itself: bool) -> None:
    """The second of two presses of Y, and between them another desk's hold, which was answered as done."""
    hand = desk.hand
    hand.run()
    saw = desk.state()
    if by_itself:
        hand.control.change(ModeEvent.HOLD, HoldReason.CONTROL_LATE)
    else:
        assert desk.ask(Hold(sender="desk"), saw) == ""
    assert desk.ask(Resume(sender="desk"), saw) == "held again since this was asked: not done"
    assert hand.mode is Mode.HOLD
    saw = desk.state()
    assert desk.ask(Hold(sender="desk"), saw) == "", "by somebody who wants it to last"
    assert desk.ask(Resume(sender="desk"), saw) == "held again since this was asked: not done"
    assert hand.mode is Mode.HOLD
    assert desk.ask(Resume(sender="desk"), desk.state()) == ""
    assert hand.control.resumes == 1


def test_who_says_no_state_resumes_what_is_held(desk: Desk) -> None:
    desk.hand.run()
    assert desk.ask(Hold(sender="desk"), -1) == ""
    assert desk.ask(Resume(sender="desk"), -1) == ""
    assert desk.hand.control.resumes == 1
