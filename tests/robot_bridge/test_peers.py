"""Whose hello is remembered: who floods hellos throws out its own kind, never who commands, and nobody who was heard lately."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from takeover.data.schema import PROTOCOL_VERSION, Hello, Lease, Role, ViewReport
from takeover.robot_bridge.peers import MAX_ALIKE, MAX_PEERS, Peer, Peers
from takeover.robot_bridge.protocol import SAY_HELLO

from .by_hand import ByHand, by_hand

ONLOOKER, LABELER = Peer("x", Role.OBSERVER), Peer("lab", Role.LABELER)


def greeted(peer: Peer, count: int, peers: Peers | None = None, kept: bytes = b"") -> Peers:
    peers = peers or Peers()
    for number in range(count):
        peers.greet(f"{peer.sender} {number}".encode(), peer, kept)
    return peers


def test_who_floods_throws_out_its_own_kind_only() -> None:
    peers = greeted(LABELER, 3)
    greeted(ONLOOKER, 3 * MAX_PEERS, peers)
    assert len(peers) == MAX_ALIKE + 3
    assert peers.at(b"lab 0") == LABELER
    assert peers.at(b"x 0").sender == ""
    last = f"x {3 * MAX_PEERS - 1}".encode()
    assert peers.at(last) == ONLOOKER
    greeted(Peer("x", Role.LABELER, "key"), 3 * MAX_PEERS, peers)
    assert peers.at(b"lab 0") == LABELER, "over a network its key is its kind, whatever role it takes"
    assert len(peers) <= 2 * MAX_ALIKE + 3


def test_all_kinds_together_are_bounded() -> None:
    peers = Peers()
    for number in range(2 * MAX_PEERS):
        peers.greet(b"%d" % number, Peer("x", Role.OBSERVER, f"key {number}"), kept=b"0")
    assert len(peers) == MAX_PEERS
    assert peers.at(b"0").sender == "x", "who commands"
    assert peers.at(b"1").sender == ""


def test_who_spoke_longest_ago_goes_first_and_who_commands_never() -> None:
    peers = greeted(ONLOOKER, MAX_ALIKE)
    peers.heard(b"x 1")
    peers.heard(b"nobody")
    for number in range(MAX_ALIKE):
        peers.greet(b"new %d" % number, ONLOOKER, kept=b"x 0")
        peers.heard(b"x 1")
    assert [peers.at(b"x %d" % number).sender for number in range(4)] == ["x", "x", "", ""]


def test_a_further_hello_of_a_connection_throws_nobody_out() -> None:
    peers = greeted(ONLOOKER, MAX_ALIKE)
    for _ in range(5):
        peers.greet(b"x 3", ONLOOKER, kept=b"")
    assert all(peers.at(b"x %d" % number).sender for number in range(MAX_ALIKE))


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[ByHand]:
    with by_hand(tmp_path) as made:
        made.io.lease.release("console", b"console")
        del made.io.reply
        yield made


def hello(name: str, role: Role) -> Hello:
    return Hello(protocol=PROTOCOL_VERSION, sender=name, role=role, software="test")


@pytest.mark.parametrize("role", [Role.OBSERVER, Role.OPERATOR])
def test_who_commands_outlasts_any_number_of_hellos(hand: ByHand, role: Role) -> None:
    """300 of an observer took the lease from its holder, and its takeover ended."""
    with closing(hand.client("console")) as console:
        assert hand.answered(console, hello("console", Role.OPERATOR)).error == ""
        assert hand.answered(console, Lease(sender="console", device_kind="gamepad")).lease
        for number in range(2 * MAX_PEERS):
            hand.io._hello(b"other %d" % number, 1, hello("onlooker", role))
        assert hand.answered(console, Lease(sender="console", device_kind="gamepad")).error == ""


def test_who_is_at_work_outlasts_who_only_greets(hand: ByHand) -> None:
    with closing(hand.client("desk", Role.OBSERVER)) as desk:
        assert hand.answered(desk, hello("desk", Role.OBSERVER)).error == ""
        for number in range(3 * MAX_ALIKE):
            hand.io._hello(b"other %d" % number, 1, hello("onlooker", Role.OBSERVER))
            if number % 8 == 0:
                assert hand.answered(desk, ViewReport(sender="desk", age_ms=1.0)).error == ""
        for number in range(MAX_ALIKE):
            hand.io._hello(b"more %d" % number, 1, hello("onlooker", Role.OBSERVER))
        assert hand.answered(desk, ViewReport(sender="desk", age_ms=1.0)).error == SAY_HELLO, "who is silent is not at work"
