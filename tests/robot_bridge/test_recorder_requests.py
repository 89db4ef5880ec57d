"""A recorder may ask for everything again, but not all the time; and it acknowledges what it was sent, nothing else."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from takeover.data.schema import Event, RecordAck, RecorderHello
from takeover.robot_bridge.protocol import Dealer
from takeover.robot_bridge.record_desk import TURN_NS

from .by_hand import SECOND, ByHand, by_hand


def test_everything_again_at_most_ten_times_a_second(tmp_path: Path) -> None:
    with by_hand(tmp_path) as hand, Dealer[Any, Any](hand.bridge._endpoints, "record", Any, Any) as recorder:

        def asked_again() -> bool:
            recorder.send(RecorderHello(session="", acked_rec_seq=-1))
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                hand.io.pump(0.01)
                if recorder.receive() is not None:
                    while recorder.receive(0.2) is not None:
                        pass
                    return True
            return False

        hand.io.event("x")
        assert any(asked_again() for _ in range(10)), "the first connection takes its time"
        hand.io._rewound_ns = time.monotonic_ns() + 60 * SECOND
        assert not asked_again()
        hand.io._rewound_ns = 0
        assert asked_again()


@contextmanager
def served(tmp_path: Path) -> Iterator[tuple[ByHand, Dealer[Any, Any]]]:
    """A bridge and the recorder that it sends its records to."""
    with by_hand(tmp_path) as hand, Dealer[Any, Any](hand.bridge._endpoints, "record", Any, Event) as recorder:
        hand.io.event("x")
        recorder.send(RecorderHello(session="", acked_rec_seq=-1))
        assert hand.pump_until(lambda: recorder.receive() is not None)
        while recorder.receive(0.2) is not None:
            pass
        yield hand, recorder


def acknowledged(session: str, rec_seq: int) -> RecordAck:
    return RecordAck(session=session, acked_rec_seq=rec_seq, disk_free_bytes=7, episodes_closed=0)


def refused(hand: ByHand, recorder: Dealer[Any, Any], message: Any) -> str:
    """What is told of ``message``, which changes nothing."""
    before, heard, records = hand.io.refused_commands, hand.io.records.heard_ns, hand.io.records.backlog
    recorder.send(message)
    assert hand.pump_until(lambda: hand.io.refused_commands == before + 1)
    assert hand.io.records.heard_ns == heard, "no sign of life either: its records are not on disk"
    assert hand.io.records.disk_free_bytes != 7
    assert hand.io.records.backlog >= records, "nothing is forgotten"
    return hand.events("command_refused")[-1].text


@pytest.mark.parametrize("kind", ["ack", "hello"])
def test_what_was_never_sent_cannot_be_on_disk(tmp_path: Path, kind: str) -> None:
    with served(tmp_path) as (hand, recorder):
        newest = hand.io.records.sent - 1
        hand.io.records.append(lambda session, rec_seq: Event(session=session, rec_seq=rec_seq, kind="y", source="", t_ns=0, wall_ns=0))
        session, false = hand.io.session, newest + 100
        message = acknowledged(session, false) if kind == "ack" else RecorderHello(session=session, acked_rec_seq=false)
        hand.io._rewound_ns = 0
        told = refused(hand, recorder, message)
        assert f": acked_rec_seq of the recorder {false}: nothing above " in told
        assert told.endswith(", the newest record that was sent")
        assert (frame := recorder.receive(1.0)) is not None
        assert frame.kind == "y", "it is sent all the same"
        recorder.send(acknowledged(session, newest))
        assert hand.pump_until(lambda: hand.io.records.disk_free_bytes == 7), "and what was sent is acknowledged"


def test_an_acknowledgement_of_another_session_is_told_once_its_recorder_knows_ours(tmp_path: Path) -> None:
    with served(tmp_path) as (hand, recorder):
        before = hand.io.refused_commands
        recorder.send(acknowledged("older", 3))
        assert hand.pump_until(lambda: hand.io.records.disk_free_bytes == 7), "it was under way when the first record came"
        assert hand.io.refused_commands == before
        hand.io.records.disk_free_bytes = -1
        hand.io._served_ns -= TURN_NS
        told = refused(hand, recorder, acknowledged("older", 3))
        assert told.endswith(f": session of the recorder 'older': records of {hand.io.session} were sent to it")


def test_a_recorder_that_comes_back_to_a_bridge_started_anew_is_not_refused(tmp_path: Path) -> None:
    """It says the session that it knows, in its hello and in acknowledgements, until it is sent a record."""
    with served(tmp_path) as (hand, _), Dealer[Any, Any](hand.bridge._endpoints, "record", Any, Event) as recorder:
        hand.io._served_ns = time.monotonic_ns() - TURN_NS - 1  # of the one before
        before = hand.io.refused_commands
        recorder.send(acknowledged("older", 10**6))
        assert hand.pump_until(lambda: recorder.receive() is not None), "a new connection's counts as a hello"
        hand.io.records.disk_free_bytes = -1
        recorder.send(acknowledged("older", 10**6))
        assert hand.pump_until(lambda: hand.io.records.disk_free_bytes == 7)
        hand.io._served_ns, hand.io._rewound_ns = time.monotonic_ns() - TURN_NS - 1, 0
        recorder.send(RecorderHello(session="older", acked_rec_seq=10**6))
        hand.pump(0.2)
        assert recorder.receive(1.0) is not None
        assert hand.io.refused_commands == before


def test_who_was_sent_nothing_may_speak_of_what_it_knows(tmp_path: Path) -> None:
    with by_hand(tmp_path) as hand, Dealer[Any, Any](hand.bridge._endpoints, "record", Any, Event) as recorder:
        hand.io.records._entries.clear()
        recorder.send(RecorderHello(session="", acked_rec_seq=-1))
        assert hand.pump_until(lambda: hand.io.records.heard_ns)
        before = hand.io.refused_commands
        recorder.send(acknowledged("", -1))
        assert hand.pump_until(lambda: hand.io.records.disk_free_bytes == 7)
        assert hand.io.refused_commands == before
