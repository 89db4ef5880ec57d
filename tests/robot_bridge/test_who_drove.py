"""Who drove is on record: the person that the lease names, not the one of the bridge's own station."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from takeover.data.drivers import Driver, driver_at, drivers
from takeover.data.schema import (
    PROTOCOL_VERSION,
    ControlEnvelope,
    EpisodeKind,
    EpisodeStart,
    Hello,
    HoldReason,
    Lease,
    Reply,
    ReplyEnvelope,
    Role,
    Source,
)
from takeover.data.station import ID_ALLOWED
from takeover.robot_bridge.modes import ModeEvent
from takeover.robot_bridge.protocol import ControlClient, Endpoints, Router
from takeover.robot_bridge.refusals import shown

from .by_hand import ByHand, by_hand

ANNA, BOB, CAROL = Driver("anna", "anna-2026"), Driver("bob", "bob-2026"), Driver("carol")


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[ByHand]:
    with by_hand(tmp_path, person=ANNA.name, consent_version=ANNA.consent_version) as made:
        yield made


def command_as(hand: ByHand, person: Driver, kind: str = "gamepad") -> None:
    """A new grant to ``person``, whose hands are off the device."""
    hand.io.lease.release("console", b"console")
    hand.deadman, hand.action = False, [0.0] * 4
    hand.token = hand.io.lease.ask("console", b"console", kind, time.monotonic_ns(), person=person)


def operator(hand: ByHand) -> Driver:
    """Of the newest episode, as its first record says."""
    start = [record for record in hand.records if isinstance(record, EpisodeStart)][-1]
    return Driver(start.operator, start.consent_version)


def noted(hand: ByHand) -> list[tuple[int, Driver]]:
    start = [record for record in hand.records if isinstance(record, EpisodeStart)][-1]
    return drivers(start, hand.events("driver"))


@pytest.mark.parametrize("kind", [EpisodeKind.POLICY, EpisodeKind.DEMONSTRATION])
def test_the_operator_is_whom_the_lease_names(hand: ByHand, kind: EpisodeKind) -> None:
    command_as(hand, BOB)
    hand.run(kind)
    hand.take_over()
    hand.tick(3)
    assert operator(hand) == BOB
    assert noted(hand) == [(-1, BOB)], "nobody else drove"


def test_who_names_nobody_is_the_stations_own_person(hand: ByHand) -> None:
    hand.run()
    hand.take_over()
    hand.tick(3)
    assert noted(hand) == [(-1, ANNA)]


def test_a_lapsed_lease_names_nobody(hand: ByHand) -> None:
    command_as(hand, BOB)
    hand.control.book.start_block(EpisodeKind.POLICY, 0)
    hand.control.begin_reset()
    hand.io.lease.heard_ns = 0
    hand.control.reset_now()
    assert operator(hand) == ANNA


@pytest.mark.parametrize(("person", "expected"), [(BOB, BOB), (Driver(), ANNA)])
def test_a_person_who_drives_in_the_episode_of_a_script_is_noted(hand: ByHand, person: Driver, expected: Driver) -> None:
    command_as(hand, BOB, "scripted")
    hand.control.book.start_block(EpisodeKind.POLICY, 0)
    hand.control.begin_reset()
    hand.control.reset_now()
    assert operator(hand) == Driver("scripted"), "whatever it calls itself"
    command_as(hand, person)
    hand.take_over()
    hand.tick(3)
    first = next(step.seq for step in hand.steps if Source.HUMAN in step.source)
    assert noted(hand) == [(-1, Driver("scripted")), (first, expected)]
    (event,) = hand.events("driver")
    assert (event.episode_id, event.source) == (hand.steps[-1].episode_id, "bridge")


def test_another_person_out_of_the_same_hold_makes_another_intervention(hand: ByHand) -> None:
    command_as(hand, BOB)
    hand.run()
    for person in (BOB, BOB, CAROL):
        command_as(hand, person)
        hand.tick()
        hand.take_over()
        hand.tick(2)
        hand.control.change(ModeEvent.HOLD, HoldReason.OPERATOR)
        hand.tick()
    episode = hand.control.book.episode
    assert episode is not None
    assert episode.takeovers == 2
    changes = noted(hand)
    assert [driver for _, driver in changes] == [BOB, CAROL]
    drove = {(step.intervention_id, driver_at(changes, step.seq)) for step in hand.steps if Source.HUMAN in step.source}
    assert drove == {(0, "bob"), (1, "carol")}, "a hold alone makes none"


def greet(hand: ByHand, client: ControlClient) -> Reply:
    return hand.answered(client, Hello(protocol=PROTOCOL_VERSION, sender=client.sender, role=Role.OPERATOR, software="s"))


def test_a_lease_names_its_person_and_a_grant_is_told_in_the_episode(hand: ByHand) -> None:
    hand.run()
    hand.io.lease.release("console", b"console")
    client = ControlClient(hand.bridge._endpoints, "console-bob", Role.OPERATOR, BOB)
    assert greet(hand, client).names_people
    first = hand.answered(client, Lease(sender="console-bob", device_kind="gamepad")).lease
    assert hand.io.lease.person == BOB
    assert hand.answered(client, Lease(sender="console-bob")).lease == first, "renewed"
    client.driver = CAROL
    assert hand.answered(client, Lease(sender="console-bob")).lease not in ("", first), "somebody else sits there now"
    assert hand.io.lease.person == CAROL
    assert hand.answered(client, Lease(sender="console-bob", release=True)).error == ""
    told = [(event.text, event.episode_id) for event in hand.events("lease")]
    episode = hand.control.driven()[0]
    assert told == [(f"granted to console-bob, person {name}", episode) for name in ("bob", "carol")]
    client.close()


@pytest.mark.parametrize(("field", "value"), [("person", "a b"), ("person", "x" * 65), ("consent_version", "desk/1"), ("person", "a\n")])
def test_names_are_those_of_a_station_file(hand: ByHand, field: str, value: str) -> None:
    hand.io.lease.release("console", b"console")
    client = ControlClient(hand.bridge._endpoints, "console")
    greet(hand, client)
    client._names_people = False  # it sends what it is told to
    fields: dict[str, Any] = {field: value}
    error = hand.answered(client, Lease(sender="console", **fields)).error
    assert error == f"{field} {shown(value)}: {ID_ALLOWED}"
    assert not hand.io.lease.sender
    client.close()


def test_a_bridge_that_knows_no_names_is_sent_none(tmp_path: Path) -> None:
    """It refuses a field that it does not know, and must grant the lease as ever."""
    ends = Endpoints(tmp_path / "s")
    ends.prepare()
    client = ControlClient(ends, "console-bob", Role.OPERATOR, BOB)
    with Router[ControlEnvelope, ReplyEnvelope](ends, "control", ControlEnvelope, ReplyEnvelope) as bridge:

        def heard() -> bytes:
            received = bridge.receive_raw(5.0)
            assert received is not None
            bridge.send(received[0], ReplyEnvelope(request_id=bridge.decode(received[1]).request_id, reply=Reply(session="s")))
            return received[1]

        client.send(Hello(protocol=PROTOCOL_VERSION, sender="console-bob", role=Role.OPERATOR, software="s"))
        heard()
        assert client.poll(5.0) is not None
        client.send(Lease(sender="console-bob", device_kind="gamepad"))
        sent = heard()
        assert b"gamepad" in sent
        assert b"person" not in sent
        assert b"consent" not in sent
    client.close()
