"""Whatever the bridge refuses is counted, and told with its sender, its field, the value and what is allowed."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from takeover.data.schema import (
    PROTOCOL_VERSION,
    Command,
    ControlRequest,
    EpisodeKind,
    Event,
    Hello,
    Lease,
    Mark,
    PolicyAction,
    Reply,
    ReplyEnvelope,
    Resume,
    Role,
    SpeedScale,
    Start,
    ViewReport,
)
from takeover.robot_bridge.protocol import BadMessage, ControlClient, Push
from takeover.robot_bridge.record_log import MAX_EVENT_BACKLOG_BYTES
from takeover.robot_bridge.refusals import MAX_LIMIT, MAX_VALUE, Refusal

from .by_hand import SECOND, ByHand, by_hand


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[ByHand]:
    with by_hand(tmp_path) as made:
        del made.io.reply  # the real one: what the control thread refuses is answered and counted by the I/O side
        yield made


@pytest.fixture
def client(hand: ByHand) -> Iterator[ControlClient]:
    made = hand.client()
    yield made
    made.close()


def told(hand: ByHand, kind: str) -> str:
    """The newest event of ``kind``; it is the State's newest refusal too."""
    events = hand.events(kind)
    state = hand.bridge._board.compose(0, time.monotonic_ns())
    assert state is not None
    assert state.last_refusal == (events[-1].text if events else "")
    assert events == [] or 0 <= state.last_refusal_age_ms < 5000
    assert state.refused_requests == hand.io.refused_requests
    return state.last_refusal


def hello(hand: ByHand, client: ControlClient, role: Role = Role.OPERATOR, protocol: int = PROTOCOL_VERSION) -> Reply:
    return hand.answered(client, Hello(protocol=protocol, sender=client.sender, role=role, software="test"))


def refused(hand: ByHand, client: ControlClient, request: ControlRequest) -> str:
    """What is told of ``request``, which the I/O side refuses."""
    before = hand.io.refused_requests
    error = hand.answered(client, request).error
    assert error
    assert hand.io.refused_requests == before + 1, "counted, once"
    text = told(hand, "request_refused")
    assert text.endswith(error)
    return text


def test_nothing_is_told_before_the_first(hand: ByHand) -> None:
    state = hand.bridge._board.compose(0, time.monotonic_ns())
    assert state is not None
    assert (state.last_refusal, state.last_refusal_age_ms, state.refused_requests) == ("", -1.0, 0)


def test_every_refused_request_is_told(hand: ByHand, client: ControlClient) -> None:
    assert refused(hand, client, Mark(sender="boss", text="x")) == "boss (no hello): Mark {'text': 'x'}: say hello first"
    other_version = f"protocol 99 asked for, this bridge speaks {PROTOCOL_VERSION}"
    text = refused(hand, client, Hello(protocol=99, sender="console", role=Role.OPERATOR, software="s"))
    assert text.startswith("console (no hello): Hello {'protocol': 99, ")
    assert text.endswith(f": {other_version}")
    text = refused(hand, client, Hello(protocol=PROTOCOL_VERSION, sender="desk/boss", role=Role.OPERATOR, software="s"))
    assert text.startswith("somebody (no hello): Hello {")
    assert text.endswith(": sender 'desk/boss': 1 to 72 letters, digits, '-', '_' or '.'")
    observer = hand.client("viewer", Role.OBSERVER)
    assert hello(hand, observer, Role.OBSERVER).error == ""
    text = refused(hand, observer, Lease(sender="viewer", device_kind="gamepad"))
    assert text == "viewer: Lease {'device_kind': 'gamepad'}: role observer may not command"
    observer.close()
    assert hello(hand, client).error == ""
    twin = hand.client()
    assert hello(hand, twin).error == ""
    hand.io.lease.release("console", b"console")
    assert hand.answered(twin, Lease(sender="console")).lease
    assert refused(hand, client, Lease(sender="console")).endswith("console on another connection holds the lease")
    twin.close()
    assert "this connection said hello as 'console'" in refused(hand, client, Mark(sender="boss", text="y"))


def test_what_the_control_thread_refuses_is_told(hand: ByHand, client: ControlClient) -> None:
    assert hello(hand, client).error == ""
    hand.io.lease.release("console", b"console")
    requests: dict[ControlRequest, str] = {
        SpeedScale(sender="console", scale=2.0): "console: SpeedScale {'scale': 2.0}: speed scale 2.0; allowed 0.05 to 1",
        Resume(sender="console"): "console: Resume: resume is possible in mode hold; the bridge is in ready",
    }
    for count, (request, text) in enumerate(requests.items(), 1):
        client.send(request)
        assert hand.pump_until(lambda: hand.io.inbox.requests)
        hand.tick()
        hand.pump(0.05)
        assert told(hand, "request_refused") == text
        assert hand.io.refused_requests == count


def test_it_is_told_in_the_episode_that_runs(hand: ByHand, client: ControlClient) -> None:
    hand.run()
    assert hello(hand, client).error == ""
    assert refused(hand, client, Lease(sender="boss"))
    episode = hand.control.book.episode
    assert episode is not None
    newest = hand.events("request_refused")[-1]
    assert (newest.episode_id, newest.seq) == (episode.id, hand.control.seq)


def send(hand: ByHand, stream: str, kind: type, message: Any) -> None:
    """One message, and the bridge has looked at it."""
    before = (hand.io.refused_commands, hand.io.bad_messages, hand.io.refused_connections)
    with Push[Any](hand.bridge._endpoints, stream, kind) as push:
        if isinstance(message, bytes):
            assert push.socket.poll(2000, 2)
            push.socket.send(message)
        else:
            assert push.send(message, 2.0)
        assert hand.pump_until(lambda: (hand.io.refused_commands, hand.io.bad_messages, hand.io.refused_connections) != before)
    assert sum((hand.io.refused_commands, hand.io.bad_messages, hand.io.refused_connections)) == sum(before) + 1


def test_a_refused_command_is_told_with_its_numbers(hand: ByHand) -> None:
    hand.io.lease.heard_ns = time.monotonic_ns()
    hand.io._command_seq = 900
    send(hand, "command", Command, hand.command(seq=7))
    assert told(hand, "command_refused") == "console: seq of the command 7: old sequence number, only above 900"
    send(hand, "command", Command, hand.command(lease="stolen"))
    assert told(hand, "command_refused") == "console: lease of the command: sender does not hold the lease; console does"
    send(hand, "command", Command, hand.command(seq=901, authority=["wing"]))
    assert told(hand, "command_refused") == "console: authority of the command ['wing']: unknown action group wing; known: arm"


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([[float("nan"), 0.0, 0.0, 0.0]], "finite"),
        ([[0.0, 0.0]], "shape of row 0 is (2,), expected (4,)"),
        ([[0.0] * 4] * 1025, "1025 rows in the chunk, allowed 1 to 1024"),
    ],
)
def test_an_answer_that_cannot_be_used_is_counted_and_told(hand: ByHand, rows: list[list[float]], why: str) -> None:
    hand.run()
    hand.io._observation_seq = hand.control.seq
    answer = PolicyAction(
        session=hand.io.session, from_seq=hand.control.seq, actions=rows, valid_until_seq=hand.control.seq, policy_version=3
    )
    send(hand, "policy_action", PolicyAction, answer)
    assert told(hand, "command_refused").startswith("actor: actions of the answer: policy version 3: ")
    assert why in told(hand, "command_refused")


def test_words_that_would_fill_the_memory_are_told(hand: ByHand) -> None:
    hand.io.records.bytes = MAX_EVENT_BACKLOG_BYTES + 1
    send(hand, "event", Event, Event(session="", rec_seq=-1, kind="chat", text="x", t_ns=0, wall_ns=0, source="desk"))
    assert told(hand, "command_refused").startswith("local/desk: event 'chat': nobody may fill the memory with words: ")


def test_what_cannot_be_read_is_told_one_by_one(hand: ByHand, client: ControlClient) -> None:
    send(hand, "command", Command, b"command\0junk")
    assert told(hand, "bad_message").startswith("somebody: message on command: ")
    assert hello(hand, client).error == ""
    before = hand.io.bad_messages
    client._dealer.socket.send(b"control\0junk")
    assert hand.pump_until(lambda: hand.io.bad_messages == before + 1)
    assert told(hand, "bad_message").startswith("console: message on control: "), "whose connection it is, is known"
    hand.io.refusals._noted.clear()
    with Push[Command](hand.bridge._endpoints, "command", Command) as push:
        assert push.socket.poll(2000, 2)
        for _ in range(5):
            push.socket.send(b"command\0junk")
        assert hand.pump_until(lambda: hand.io.bad_messages == before + 6)
    assert sum(event.value for event in hand.events("bad_message")) + sum(hand.io.refusals._since.values()) == before + 6


DEVICE_KINDS = ", ".join(sorted(get_args(get_type_hints(Command)["device_kind"])))
UNREADABLE = {
    "item": ({"action": [0.0, 0.0, "up", 0.0]}, "action[2] of the message on command 'up': Expected `float`, got `str`"),
    "field": ({"deadman": "yes"}, "deadman of the message on command 'yes': Expected `bool`, got `str`"),
    "word": (
        {"device_kind": "joystick"},
        "device_kind of the message on command 'joystick': Invalid enum value 'joystick'; allowed: " + DEVICE_KINDS,
    ),
    "token": ({"lease": b"secret"}, "lease of the message on command: Expected `str`, got `bytes`"),
    "unknown": ({"turbo": True}, "message on command: Object contains unknown field `turbo`"),
    "large": ({"device_id": "x" * 5000, "deadman": "yes"}, "deadman of the message on command: Expected `bool`, got `str`"),
}


@pytest.mark.parametrize(("change", "text"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_told_with_its_field_and_value(hand: ByHand, change: dict[str, Any], text: str) -> None:
    """Where it is known, and without a second look at what is large; a lease is never told."""
    send(hand, "command", Command, b"command\0" + msgspec.msgpack.encode(msgspec.to_builtins(hand.command()) | change))
    assert told(hand, "bad_message") == f"somebody: {text}"


def asked_raw(hand: ByHand, client: ControlClient, request: dict[str, Any]) -> str:
    """What is answered to ``request``, whatever it is."""
    body = msgspec.msgpack.encode({"request_id": 77, "newest_state_seq": -1, "request": request})
    client._dealer.socket.send(b"control\0" + body)
    answers: list[ReplyEnvelope] = []

    def answered() -> bool:
        while (envelope := client.poll()) is not None:
            answers.append(envelope)
        return bool(answers)

    assert hand.pump_until(answered)
    assert [answer.request_id for answer in answers] == [77]
    return answers[0].reply.error


def test_a_hello_of_another_version_is_told_as_it_was_answered(hand: ByHand, client: ControlClient) -> None:
    """With its sender and both versions, whatever fields it has: that one of them is unknown says nothing to anybody."""
    counted = (hand.io.refused_requests, hand.io.bad_messages)
    asked = {"type": "hello", "protocol": PROTOCOL_VERSION + 1, "sender": "next", "role": "operator", "software": "2", "mood": "good"}
    both = f"protocol {PROTOCOL_VERSION + 1} asked for, this bridge speaks {PROTOCOL_VERSION}"
    assert asked_raw(hand, client, asked) == both
    assert told(hand, "request_refused") == f"next (no hello): Hello {{'protocol': {PROTOCOL_VERSION + 1}}}: {both}"
    assert (hand.io.refused_requests, hand.io.bad_messages) == (counted[0] + 1, counted[1])
    assert asked_raw(hand, client, asked | {"sender": ["desk"]}) == both
    assert told(hand, "request_refused").startswith("somebody (no hello): Hello")


ROLES = "observer, labeler, operator, learner"
HELLO = {"type": "hello", "protocol": PROTOCOL_VERSION, "sender": "next", "role": "operator", "software": ""}
WORDS = {
    "type": ({"type": "teleport"}, "request.type", "'teleport'", "Invalid value 'teleport'; allowed: hello, lease, start, "),
    "role": (HELLO | {"role": "boss"}, "request.role", "'boss'", f"Invalid enum value 'boss'; allowed: {ROLES}"),
    "kind": ({"type": "start", "sender": "next", "kind": "x", "episodes": 1}, "request.kind", "'x'", "Invalid enum value 'x'; allowed: "),
}


@pytest.mark.parametrize(("request_", "field", "value", "why"), WORDS.values(), ids=WORDS)
def test_a_word_that_is_none_of_those_allowed_is_told_which_are(
    hand: ByHand, client: ControlClient, request_: dict[str, Any], field: str, value: str, why: str
) -> None:
    before = hand.io.bad_messages
    answer = asked_raw(hand, client, request_)
    assert answer.startswith(f"bad request: {why}")
    assert answer.endswith(f" - at `$.{field}`")
    reason = answer.removeprefix("bad request: ").removesuffix(f" - at `$.{field}`")
    assert told(hand, "bad_message") == f"somebody: {field} of the message on control {value}: {reason}"
    assert hand.io.bad_messages == before + 1


def test_every_type_of_a_request_is_among_the_allowed_ones(hand: ByHand, client: ControlClient) -> None:
    allowed = asked_raw(hand, client, {"type": "teleport"}).partition("allowed: ")[2].partition(" - at ")[0].split(", ")
    assert sorted(allowed) == sorted(kind.__struct_config__.tag for kind in get_args(ControlRequest))
    assert ", ".join(allowed) in told(hand, "bad_message"), "whole"


def test_a_long_word_hides_nothing_of_what_is_allowed(hand: ByHand, client: ControlClient) -> None:
    answer = asked_raw(hand, client, HELLO | {"role": "b" * 3000})
    assert f"; allowed: {ROLES} - at " in answer
    assert told(hand, "bad_message").endswith(f"; allowed: {ROLES}")


@pytest.mark.parametrize("age_ms", [float("nan"), float("inf"), -float("inf"), -0.1])
def test_a_report_of_an_age_that_none_can_have_is_refused(hand: ByHand, client: ControlClient, age_ms: float) -> None:
    reported: list[float] = []
    hand.io.on_view_report = lambda sender, age, driver: reported.append(age)
    assert hello(hand, client).error == ""
    text = refused(hand, client, ViewReport(sender="console", age_ms=age_ms))
    assert text == f"console: ViewReport {{'age_ms': {age_ms}}}: age_ms: a finite number of ms, at least 0"
    assert reported == []
    assert hand.answered(client, ViewReport(sender="console", age_ms=0.0)).error == ""
    assert reported == [0.0]


def test_a_report_of_pictures_comes_with_who_drives(hand: ByHand, client: ControlClient) -> None:
    """By its connection: another one of the same name is somebody else. A script looks at none."""
    hand.io.lease.release("console", b"console")
    reported: list[tuple[bool, str]] = []
    hand.io.on_view_report = lambda sender, age, driver: reported.append((sender == driver, driver.partition("/")[0]))
    with closing(hand.client("console")) as other:
        for one in (client, other):
            assert hello(hand, one).error == ""
        report = ViewReport(sender="console", age_ms=1.0)
        for kind in ("", "gamepad", "scripted"):
            if kind:
                assert hand.answered(client, Lease(sender="console", device_kind="gamepad")).lease
                hand.io.lease.heard(kind, time.monotonic_ns())
            for one in (client, other):
                assert hand.answered(one, report).error == ""
        hand.io.lease.heard("gamepad", time.monotonic_ns() - SECOND)
        assert hand.answered(client, report).error == "", "the lease has lapsed"
    assert reported == [(False, ""), (False, ""), (True, "console"), (False, "console"), (False, ""), (False, ""), (False, "")]


def test_a_value_is_cut(hand: ByHand) -> None:
    send(hand, "command", Command, b"command\0" + msgspec.msgpack.encode(msgspec.to_builtins(hand.command()) | {"seq": "7" * 3000}))
    assert len(told(hand, "bad_message")) < 200


def test_the_same_mistake_at_many_places_is_one(hand: ByHand) -> None:
    for place in range(4):
        action: list[Any] = [0.0] * 4
        action[place] = "up"
        send(hand, "command", Command, b"command\0" + msgspec.msgpack.encode(msgspec.to_builtins(hand.command(action=action))))
    assert len(hand.events("bad_message")) == 1


def test_what_cannot_be_looked_into_is_told_without_a_value() -> None:
    error = BadMessage.of(msgspec.ValidationError("Expected `int`, got `str` - at `$.scores[...]`"), b"\x80")
    assert (error.field, error.value) == ("scores[...]", None)
    error = BadMessage.of(msgspec.ValidationError("wrong - at `$.scores[...]`"), msgspec.msgpack.encode({"scores": {"a": "b"}}))
    assert error.value is None, "which of them is not known"
    for broken in (b"\xc1", b"\x91" * 3000 + b"\xc0", b"\xa2\xff\xff", b"\x81\x80\xc0", b"\x91\xc0"):
        error = BadMessage.of(msgspec.ValidationError("wrong - at `$.seq`"), broken)
        assert (str(error), error.field, error.value, error.reason) == ("wrong - at `$.seq`", "seq", None, "wrong")


def test_a_key_that_is_not_admitted_is_told(hand: ByHand) -> None:
    hand.io._command.on_revoked("k1")
    assert hand.io.refused_connections == 1
    assert told(hand, "client_refused") == "k1: connection to command: its key is not admitted to that stream"


def test_a_refusal_is_a_short_line() -> None:
    text = str(Refusal("s" * 1000, "field", "l" * 100_000, "v" * 100_000))
    assert len(text) < 64 + MAX_VALUE + MAX_LIMIT + 20
    assert str(Refusal("a", "Start", "no recorder")) == "a: Start: no recorder"


def test_starting_without_an_actor_names_what_was_asked(hand: ByHand, client: ControlClient) -> None:
    assert hello(hand, client).error == ""
    client.send(Start(sender="console", kind=EpisodeKind.POLICY, episodes=3))
    assert hand.pump_until(lambda: hand.io.inbox.requests)
    hand.answers = None
    hand.tick()
    hand.pump(0.05)
    assert "console: Start {'kind': 'policy', 'episodes': 3, " in told(hand, "request_refused")
