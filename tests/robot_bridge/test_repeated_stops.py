"""Copies of one STOP that were under way when it was acted on: over a network they undo nobody's Clear; what may be another press stops."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from takeover.data.schema import PROTOCOL_VERSION, Clear, ControlEnvelope, Hello, Mode, ReplyEnvelope, Role, Stop
from takeover.robot_bridge.control_desk import REMEMBERED_STOPS
from takeover.robot_bridge.inbox import PendingRequest
from takeover.robot_bridge.protocol import ControlClient, Endpoints, KeyFolder
from takeover.robot_bridge.protocol.link import Link
from tests.introduced import introduced, unused_port

from .by_hand import ByHand, by_hand

Connect = Callable[..., ControlClient]
HELLO = Hello(protocol=PROTOCOL_VERSION, sender="far", role=Role.OPERATOR, software="test")


@pytest.fixture
def station(tmp_path: Path) -> Iterator[tuple[ByHand, Connect]]:
    """A bridge on a network, and connections with one of two keys; nobody has said hello."""
    robot, first = introduced(tmp_path, [Role.OPERATOR])
    second = KeyFolder(tmp_path / "second")
    second.new("second")
    (tmp_path / "second.json").write_text(second.card())
    robot.allow(tmp_path / "second.json", [Role.OPERATOR])
    second.trust(tmp_path / "robot.json")
    port = unused_port("127.0.0.2")
    made: list[ControlClient] = []

    def connect(key: int = 0) -> ControlClient:
        made.append(ControlClient(Endpoints(tmp_path / f"s{len(made)}", Link("127.0.0.2", port, False, (first, second)[key])), "far"))
        assert hand.pump_until(lambda: made[-1]._dealer.writable(0.0))
        return made[-1]

    with by_hand(tmp_path, listen=f"tcp://127.0.0.2:{port}", keys=str(robot.path)) as hand:
        yield hand, connect
        for client in made:
            client.close()


def sent(hand: ByHand, client: ControlClient, request_id: int, seen: int = 5) -> bool:
    """Whether this STOP, answered in any case, was acted on."""
    before = hand.io.inbox.stops
    client._dealer.send(ControlEnvelope(request_id=request_id, request=Stop(sender="far"), newest_state_seq=seen))
    replies: list[ReplyEnvelope] = []

    def answered() -> bool:
        if (reply := client.poll()) is not None:
            replies.append(reply)
        return bool(replies)

    assert hand.pump_until(answered)
    assert (replies[0].request_id, replies[0].reply.error) == (request_id, "")
    return hand.io.inbox.stops > before


def test_copies_of_a_stop_undo_no_clear_and_another_press_stops(station: tuple[ByHand, Connect]) -> None:
    hand, connect = station
    client, other = connect(), connect(1)
    for each in (client, other):
        assert hand.answered(each, HELLO).error == ""
    assert sent(hand, client, 7)
    hand.tick()
    hand.io.lease.release("console", b"console")
    knew = hand.io.inbox.stops
    assert not sent(hand, client, 7), "while it is stopped, too: the Clear of who has seen it would be refused"
    hand.io.inbox.requests.append(PendingRequest(b"x", 1, Clear(sender="console"), "console", Role.OPERATOR, b"console", knew))
    hand.tick()
    assert hand.mode is Mode.READY
    assert not sent(hand, client, 7)
    hand.tick()
    assert hand.mode is Mode.READY
    again = connect()
    assert hand.answered(again, HELLO).error == ""
    assert not sent(hand, again, 7), "over the next connection"
    assert sent(hand, client, 8), "another press"
    assert sent(hand, client, 7, seen=6), "by who has seen more since"
    assert sent(hand, other, 7), "by another key"


def test_what_may_be_another_press_stops(station: tuple[ByHand, Connect]) -> None:
    hand, connect = station
    client = connect()
    assert all(sent(hand, client, 1) for _ in range(2)), "nobody said hello: a button may send the same bytes at every press"
    assert hand.answered(client, HELLO).error == ""
    assert all(sent(hand, client, 1, seen=-1) for _ in range(2)), "it does not say what it saw"
    for number in range(REMEMBERED_STOPS + 1):
        assert sent(hand, client, 100 + number)
    assert len(hand.io._stops_done) == REMEMBERED_STOPS
    assert sent(hand, client, 100), "forgotten"


def test_on_one_computer_every_stop_stops(tmp_path: Path) -> None:
    with by_hand(tmp_path) as hand:
        client = hand.client()
        assert hand.answered(client, HELLO).error == ""
        assert all(sent(hand, client, 1) for _ in range(2))
        client.close()
