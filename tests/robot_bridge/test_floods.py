"""Who floods one stream keeps nobody waiting on another: a STOP least of all. By hand, without a flood's luck, and in a real one."""

import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from takeover.data.schema import Event, LauncherReply, LauncherRequest, Mode, PolicyAction, RecorderHello, Stop
from takeover.robot_bridge import recordable
from takeover.robot_bridge.chunks import MAX_ROWS
from takeover.robot_bridge.protocol import Endpoints, Pull, Push, Router, polling
from takeover.robot_bridge.protocol.polling import MAX_AT_ONCE
from takeover.robot_bridge.protocol.sockets import Socket
from takeover.robot_bridge.recordable import MAX_HASH, MAX_SCORE_NAME, MAX_SCORES, MAX_VERSION
from takeover.robot_bridge.refusals import Refusal
from tests.patience import patient

from .by_hand import ByHand, by_hand
from .station import station

ANSWER = PolicyAction(session="another", from_seq=0, actions=[[0.0] * 4], valid_until_seq=0, policy_version=1)
NOTE = Event(session="", rec_seq=-1, kind="note", text="x", t_ns=0, wall_ns=0, source="desk")


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[ByHand]:
    with by_hand(tmp_path) as made:
        yield made


@pytest.mark.parametrize("name", ["policy", "command", "event", "control", "record", "learner"])
def test_a_flood_of_one_stream_leaves_the_others_their_turn(hand: ByHand, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(polling, "MAX_TURN_S", 60.0)
    messages: dict[str, Any] = {
        "policy": ANSWER,
        "command": hand.command(session="another"),
        "event": NOTE,
        "control": (b"x", b"control\0junk"),
        "record": (b"r", RecorderHello(session="", acked_rec_seq=-1)),
        "learner": object(),
    }
    given: list[str] = []

    def endless() -> Any:
        given.append(name)
        assert len(given) < 1000, "nobody else would be heard any more"
        return messages[name]

    setattr(getattr(hand.io, f"_{name}"), "receive_raw" if name == "control" else "receive", endless)
    getattr(hand.io, f"_on_{name}")()
    assert len(given) == MAX_AT_ONCE


def test_large_messages_end_a_turn_by_their_time() -> None:
    """64 that take 8 ms each kept a STOP waiting for half a second."""
    taken = []
    for item in polling.turn(lambda: "large"):
        taken.append(item)
        time.sleep(0.008)
    assert len(taken) == 1


def test_requests_come_before_the_other_streams_and_between_them(hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by the poll or not: it came meanwhile."""
    io, turns = hand.io, list[str]()
    monkeypatch.setattr(io, "_on_control", lambda: turns.append("control"))
    for socket in (io._policy, io._event, io._record):
        io._handlers[id(socket)] = lambda name=socket.name: turns.append(name)
    monkeypatch.setattr(io._poll, "wait", lambda timeout_s: [io._policy, io._control, io._event, io._record])
    io.pump(0.0)
    assert turns == ["control", "policy_action", "control", "event", "control", "record", "control"]


@pytest.mark.parametrize("size", [1, 4, 5, 14])
def test_the_longest_answer_that_counts_fits_and_nothing_much_longer(size: int) -> None:
    rows = [[math.pi] * size] * MAX_ROWS
    scores = {chr(0x10000 + number) * MAX_SCORE_NAME: math.pi for number in range(MAX_SCORES)}
    longest = PolicyAction(
        session="x" * 64,
        from_seq=2**62,
        actions=rows,
        valid_until_seq=2**62,
        policy_version=MAX_VERSION,
        policy_sha256="\U0001f916" * MAX_HASH,
        spread=math.pi,
        scores=scores,
        reward_version=MAX_VERSION,
    )
    assert recordable.answer_refusal(longest, "actor") is None
    needed = len(b"policy_action\0") + len(msgspec.msgpack.encode(longest))
    assert needed <= recordable.answer_bytes(size) <= max(64 * 1024, needed + 4096)


def test_a_larger_action_has_room_for_its_answers(tmp_path: Path) -> None:
    endpoints = Endpoints(tmp_path)
    with Pull[Any](endpoints, "policy_action", dict, 100_000) as pull, Push[Any](endpoints, "policy_action", dict) as push:
        for length in (99_000, 110_000, 99_000):
            assert push.send({"x": "x" * length}, 2.0)
        received = [pull.receive(2.0), pull.receive(2.0)]
        assert [len(message["x"]) for message in received] == [99_000, 99_000]
        assert pull.bad_messages == 1


@pytest.fixture(params=["pull", "router"])
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Socket[Any]]:
    endpoints = Endpoints(tmp_path)
    made: Socket[Any] = (
        Pull[Any](endpoints, "event", Event)
        if request.param == "pull"
        else Router[Any, Any](endpoints, "launcher", LauncherRequest, LauncherReply)
    )
    with made:
        yield made


@pytest.mark.parametrize("what", [[b"x", b"rubbish"], None], ids=["cannot be read", "revoked key"])
def test_endless_rubbish_is_not_read_for_longer_than_asked(receiver: Any, monkeypatch: pytest.MonkeyPatch, what: Any) -> None:
    read: list[float] = []

    def more() -> Any:
        read.append(time.monotonic())
        assert len(read) < 20_000, "it would be read for ever"
        return what

    class Full:
        """Always something to read."""

        def __init__(self, socket: Any) -> None:
            self.close = socket.close

        def poll(self, timeout_ms: int) -> int:
            return 1

    monkeypatch.setattr(receiver, "socket", Full(receiver.socket))
    monkeypatch.setattr(receiver, "_parts", more)
    assert receiver.receive() is None
    assert len(read) == 1
    assert receiver.receive(0.005) is None
    assert receiver.bad_messages == (len(read) if what else 0)


FLOOD = """
import sys, time, zmq
with zmq.Context() as context, context.socket(zmq.DEALER if sys.argv[2] == "control" else zmq.PUSH) as peer:
    peer.linger = 0
    peer.connect(sys.argv[1])
    print("ready", flush=True)
    while True:
        for _ in range(100):
            try:
                peer.send(sys.argv[2].encode() + b"\\0junk", zmq.NOBLOCK)
            except zmq.Again:
                pass
"""


@pytest.mark.parametrize("name", ["event", "control"])
def test_a_stop_comes_through_a_flood(tmp_path: Path, name: str) -> None:
    with station(tmp_path) as made:
        operator = made.operator()
        made.until_mode(Mode.READY)
        command = [sys.executable, "-c", FLOOD, made.endpoints.address(name), name]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as flood:
            try:
                assert flood.stdout is not None
                assert flood.stdout.readline() == b"ready\n"
                made.until(lambda state: state.bad_messages > 1000, 20.0)
                asked = time.monotonic()
                assert operator.ask(Stop(sender="console")).error == ""
                assert time.monotonic() - asked < patient(0.5)
                made.until_mode(Mode.STOPPED)
            finally:
                flood.kill()


def test_no_depth_of_a_message_ends_the_receiver(hand: ByHand) -> None:
    """Lists in lists that can just be decoded cannot be shown any more: that ended the I/O thread's turn, and stopped the robot."""
    with Push[Any](hand.bridge._endpoints, "event", bytes) as push:
        for number, depth in enumerate(range(600, 1010), 1):
            body = b"\x82\xa4type\xa5event\xa7session" + b"\x91" * depth + b"\xc0"
            assert push.socket.poll(2000, 2)
            push.socket.send(b"event\0" + body)
            assert hand.pump_until(lambda number=number: hand.io.bad_messages == number)
    assert hand.io.inbox.stop_reason is None


def test_what_is_too_deep_to_be_shown_is_said_to_be() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert "too deep" in str(Refusal("x", "session of the message", "a text", deep))
