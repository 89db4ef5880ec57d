"""What a control request that cannot be read is answered with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from takeover.data.schema import PROTOCOL_VERSION, ControlEnvelope, Hello, Hold, Role
from takeover.robot_bridge.conformance.peers import RawClient
from takeover.robot_bridge.protocol import BadMessage
from takeover.robot_bridge.unreadable import Unreadable, refusal_of

from .by_hand import ByHand, by_hand

ERROR = BadMessage("unknown field")
HELLO = {"type": "hello", "protocol": PROTOCOL_VERSION + 1, "sender": "next", "role": "operator", "software": "2.0", "mood": "good"}


def frame(envelope: object) -> bytes:
    return b"control\0" + msgspec.msgpack.encode(envelope)


def test_a_hello_of_another_version_is_told_both_whatever_else_it_says():
    for extra in ({}, {"deadline_ms": 5}, {"type": "ControlEnvelope2"}):
        both = f"protocol {PROTOCOL_VERSION + 1} asked for, this bridge speaks {PROTOCOL_VERSION}"
        told = refusal_of(frame({"request_id": 8, "request": HELLO} | extra), ERROR)
        assert told == Unreadable(8, both, PROTOCOL_VERSION + 1, "next")


def test_the_sender_of_another_version_need_not_have_a_name_that_this_one_can_read():
    for sender in (7, None, ["next"]):
        assert refusal_of(frame({"request_id": 8, "request": HELLO | {"sender": sender}}), ERROR).sender == ""
    nameless = {name: value for name, value in HELLO.items() if name != "sender"}
    assert refusal_of(frame({"request_id": 8, "request": nameless}), ERROR).protocol == PROTOCOL_VERSION + 1


def test_a_hello_of_this_version_with_an_unknown_field_is_told_the_field():
    told = refusal_of(frame({"request_id": 9, "request": HELLO | {"protocol": PROTOCOL_VERSION}}), ERROR)
    assert told == Unreadable(9, "bad request: unknown field")


def test_another_request_is_not_taken_for_a_hello():
    assert refusal_of(frame({"request_id": 9, "request": HELLO | {"type": "greet"}}), ERROR) == Unreadable(9, "bad request: unknown field")


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\xdf\xff\xff\xff\xff", b"\x91" * 5000, b"\x81\xa1\xff\x01"])
def test_what_cannot_be_read_at_all_has_no_number(body):
    assert refusal_of(b"control\0" + body, ERROR) == Unreadable(-1, "bad request: unknown field")


def test_the_number_of_a_request_that_cannot_be_read_is_told():
    for envelope in (ControlEnvelope(request_id=7, request=Hold(sender="x")), {"request_id": 7}, {"request_id": 7, "request": "hold"}):
        assert refusal_of(frame(envelope), ERROR).request_id == 7
    assert refusal_of(frame({"request_id": "7", "request": HELLO}), ERROR).request_id == -1
    ours = Hello(protocol=PROTOCOL_VERSION, sender="x", role=Role.OPERATOR, software="x")
    assert refusal_of(frame(ControlEnvelope(request_id=7, request=ours)), ERROR) == Unreadable(7, "bad request: unknown field")


# --- a STOP is one all the same ---


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[ByHand]:
    with by_hand(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    "wrong",
    [
        {"request": {"type": "stop", "sender": "anyone", "because": "smoke"}},
        {"request": {"type": "stop"}},
        {"request": {"type": "stop", "sender": None, "reason": 7}},
        {"request_id": "one", "request": {"type": "stop", "sender": "anyone"}},
        {"request": {"type": "stop", "sender": "anyone"}, "urgent": True},
    ],
    ids=["unknown field", "no sender", "wrong types", "number", "envelope"],
)
def test_a_stop_that_cannot_be_read_stops_and_is_refused(hand: ByHand, wrong: dict[str, Any]) -> None:
    """Who presses it has no time for what is wrong with the message; who wrote it is told."""
    with RawClient(hand.bridge._endpoints) as client:
        client.send(frame({"request_id": 5} | wrong))
        assert hand.pump_until(lambda: hand.io.bad_messages)
        envelope = client.receive(2.0)
    assert hand.robot._stopped.is_set()
    named = "anyone" if isinstance(wrong["request"].get("sender"), str) else "somebody"
    assert hand.io.inbox.stop_reason == f"{named} (no hello)"
    assert envelope is not None
    assert "bad request" in envelope.reply.error


def test_nothing_else_that_cannot_be_read_stops(hand: ByHand) -> None:
    with RawClient(hand.bridge._endpoints) as client:
        for request in ({"sender": "x"}, {"type": "stopp", "sender": "x"}, {"type": "hold"}, "stop", {"type": ["stop"]}):
            client.send(frame({"request_id": 5, "request": request}))
        assert hand.pump_until(lambda: hand.io.bad_messages == 5)
    assert hand.io.inbox.stop_reason is None
