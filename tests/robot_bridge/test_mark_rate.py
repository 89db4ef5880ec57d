"""What a peer may have kept for ever: marks and outcomes at a person's pace, and no words while much of the record waits."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from takeover.data.schema import PROTOCOL_VERSION, ControlRequest, Hello, Mark, Outcome, Role, SetOutcome, SpeedScale, UndoOutcome
from takeover.robot_bridge.mark_rate import MARKS_AT_ONCE, MARKS_PER_S, MAX_REMEMBERED, MarkRate
from takeover.robot_bridge.protocol import ControlClient
from takeover.robot_bridge.record_log import MAX_EVENT_BACKLOG_BYTES

from .by_hand import SECOND, ByHand, by_hand

TOO_MANY = "at most 20 marks and outcomes a second"


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[ByHand]:
    with by_hand(tmp_path) as made:
        del made.io.reply
        yield made


def greeted(hand: ByHand, name: str = "lab", role: Role = Role.LABELER) -> ControlClient:
    client = hand.client(name, role)
    assert hand.answered(client, Hello(protocol=PROTOCOL_VERSION, sender=name, role=role, software="test")).error == ""
    return client


def flood(hand: ByHand, client: ControlClient, request: ControlRequest, count: int = 3 * MARKS_AT_ONCE) -> list[str]:
    """Errors of the requests that were answered on arrival: the others wait for the control thread."""
    for _ in range(count):
        client.send(request)
    errors: list[str] = []

    def all_there() -> bool:
        while (envelope := client.poll()) is not None:
            errors.append(envelope.reply.error)
        return len(errors) + len(hand.io.inbox.requests) == count

    assert hand.pump_until(all_there)
    return errors


def test_a_burst_passes_and_then_one_whenever_its_time_has_come() -> None:
    rate, step = MarkRate(), int(SECOND / MARKS_PER_S)
    assert [rate.permits(b"a", 0) for _ in range(MARKS_AT_ONCE + 2)] == [True] * MARKS_AT_ONCE + [False] * 2
    assert rate.permits(b"b", 0), "another peer's are its own"
    assert [rate.permits(b"a", step), rate.permits(b"a", step)] == [True, False]
    later = 3600 * SECOND
    assert [rate.permits(b"a", later) for _ in range(MARKS_AT_ONCE + 1)] == [True] * MARKS_AT_ONCE + [False], "an hour saves up no more"


def test_who_is_remembered_is_bounded_and_who_floods_is_not_forgotten() -> None:
    rate = MarkRate()
    for _ in range(MARKS_AT_ONCE):
        assert rate.permits(b"flood", 0)
    for number in range(3 * MAX_REMEMBERED):
        rate.permits(b"%d" % number, 0)
        assert not rate.permits(b"flood", 0)
    assert len(rate._peers) == MAX_REMEMBERED


@pytest.mark.parametrize("request_", [Mark(sender="lab"), SetOutcome(sender="lab", outcome=Outcome.SUCCESS), UndoOutcome(sender="lab")])
def test_a_flood_of_what_is_kept_for_ever_is_refused(hand: ByHand, request_: ControlRequest) -> None:
    with closing(greeted(hand)) as client:
        errors = flood(hand, client, request_)
    assert set(errors) == {TOO_MANY}
    assert MARKS_AT_ONCE <= len(hand.io.inbox.requests) < 2 * MARKS_AT_ONCE


def test_other_requests_have_no_such_rate(hand: ByHand) -> None:
    with closing(greeted(hand, "console", Role.OPERATOR)) as client:
        assert flood(hand, client, SpeedScale(sender="console", scale=0.5)) == []


def test_in_lockstep_no_wall_time_decides(tmp_path: Path) -> None:
    with by_hand(tmp_path) as hand, closing(greeted(hand)) as client:
        hand.io._lockstep = True
        assert flood(hand, client, Mark(sender="lab")) == []


def test_marks_do_not_fill_the_memory(hand: ByHand) -> None:
    with closing(greeted(hand)) as client:
        hand.io.records.bytes = MAX_EVENT_BACKLOG_BYTES + 1
        refused = hand.answered(client, Mark(sender="lab", text="one too many")).error
        assert refused.startswith("nobody may fill the memory with words: ")
        assert refused.endswith(f" bytes wait, at most {MAX_EVENT_BACKLOG_BYTES}")
        hand.io.records.bytes = MAX_EVENT_BACKLOG_BYTES
        client.send(Mark(sender="lab", text="fits"))
        client.send(SetOutcome(sender="lab", outcome=Outcome.FAILURE))
        assert hand.pump_until(lambda: len(hand.io.inbox.requests) == 2)
