"""Records on their way to the recorder, and the right to command."""

import pytest

from takeover.data.schema import AnyRecord, Event
from takeover.robot_bridge.lease import LEASE_LIFE_NS, LeaseRefused, LeaseTable
from takeover.robot_bridge.protocol import Codec
from takeover.robot_bridge.record_log import RecordLog

SECOND = 1_000_000_000


def make_log() -> tuple[RecordLog, Codec[AnyRecord]]:
    codec: Codec[AnyRecord] = Codec(AnyRecord)
    return RecordLog("s", codec.encode, lambda: None), codec


def add(log: RecordLog, count: int) -> None:
    for _ in range(count):
        log.append(lambda session, rec_seq: Event(session=session, rec_seq=rec_seq, kind="x", source="test", t_ns=0, wall_ns=0))


def test_records_are_kept_until_acknowledged_and_sent_again() -> None:
    log, codec = make_log()
    add(log, 5)
    assert [codec.decode(frame).rec_seq for frame in log.unsent()] == [0, 1, 2, 3, 4]
    assert log.unsent() == []
    log.acknowledge(1)
    assert log.backlog == 3
    log.rewind(2)
    assert [codec.decode(frame).rec_seq for frame in log.unsent()] == [3, 4]
    log.rewind(-1)  # a recorder that knows nothing gets whatever is left
    assert [codec.decode(frame).rec_seq for frame in log.unsent(limit=2)] == [2, 3]
    assert [codec.decode(frame).rec_seq for frame in log.unsent(limit=2)] == [4]
    assert log.acknowledge(4)
    assert (log.backlog, log.bytes) == (0, 0)


def test_what_was_never_sent_is_not_acknowledged() -> None:
    log, codec = make_log()
    add(log, 3)
    assert not log.acknowledge(0)
    assert (log.sent, log.backlog) == (0, 3)
    log.unsent(limit=2)
    log.give_back(1)
    assert log.sent == 1
    assert not log.acknowledge(1)
    log.unsent(limit=1)
    log.rewind(-1)
    assert log.sent == 2, "to be sent again, but sent"
    assert log.acknowledge(1)
    assert log.backlog == 1
    log.rewind(50)  # nobody may skip what it was never sent
    assert [codec.decode(frame).rec_seq for frame in log.unsent()] == [2]
    assert log.acknowledge(2)
    assert log.acknowledge(2), "again"


def test_trouble_names_what_is_missing() -> None:
    log, _ = make_log()
    assert "no recorder" in log.trouble(SECOND)
    add(log, 1)
    now = log._entries[0].t_ns
    log.heard_ns = now
    assert log.trouble(now) == ""
    assert log.trouble(now + SECOND // 2) == ""
    assert "silent" in log.trouble(now + SECOND // 2 + 1)
    log.heard_ns = now + 2 * SECOND
    assert "waits" in log.trouble(now + 2 * SECOND)
    log.bytes += 65 * 1024 * 1024
    assert "MB" in log.trouble(now + 2 * SECOND)


def test_one_holder_until_it_lapses() -> None:
    lease = LeaseTable()
    token = lease.ask("a", b"1", "gamepad", 0)
    assert lease.ask("a", b"1", "gamepad", 100) == token
    with pytest.raises(LeaseRefused, match="a holds"):
        lease.ask("b", b"2", "gamepad", 200)
    lease.heard("gamepad", LEASE_LIFE_NS)
    assert lease.holder(2 * LEASE_LIFE_NS) == "a"
    assert lease.holder(2 * LEASE_LIFE_NS + 1) == ""
    assert lease.ask("b", b"2", "gamepad", 3 * LEASE_LIFE_NS) != token
    assert lease.holder(3 * LEASE_LIFE_NS) == "b"


def test_a_lease_lives_half_a_second_and_is_not_renewed_after_that() -> None:
    lease = LeaseTable()
    token = lease.ask("a", b"1", "gamepad", 0)
    assert lease.holder(SECOND // 2) == "a"
    assert lease.holder(SECOND // 2 + 1) == ""
    assert lease.ask("a", b"1", "gamepad", SECOND // 2 + 1) != token, "it may have stood with the deadman down all the time"


def test_a_command_older_than_a_lease_lives_renews_none() -> None:
    lease = LeaseTable()
    lease.ask("a", b"1", "gamepad", 0)
    lease.heard("gamepad", SECOND // 4, age_s=0.5)
    assert lease.heard_ns == SECOND // 4
    lease.heard("gamepad", SECOND // 2, age_s=0.51)
    assert lease.heard_ns == SECOND // 4


def test_a_grant_shows_a_person_only_on_a_new_connection() -> None:
    lease = LeaseTable()
    lease.ask("a", b"1", "gamepad", 1)
    assert lease.present_ns == 1
    lease.ask("a", b"1", "gamepad", SECOND)
    assert (lease.grants, lease.present_ns) == (2, 1), "whoever only asks again and again commands nothing"
    lease.ask("a", b"2", "gamepad", 2 * SECOND)
    assert lease.present_ns == 2 * SECOND


def test_a_restarted_holder_is_somebody_new() -> None:
    lease = LeaseTable()
    before = lease.ask("a", b"1", "gamepad", 0)
    with pytest.raises(LeaseRefused, match="a on another connection holds the lease"):
        lease.ask("a", b"2", "gamepad", LEASE_LIFE_NS)
    assert lease.ask("a", b"2", "gamepad", LEASE_LIFE_NS + 1) != before


def test_only_the_connection_that_holds_it_gives_it_back() -> None:
    lease = LeaseTable()
    lease.ask("a", b"1", "gamepad", 0)
    lease.release("a", b"2")
    lease.release("b", b"1")
    assert lease.holder(1) == "a"
    lease.release("a", b"1")
    assert lease.holder(1) == ""


def test_people_preempt_scripts_never_the_reverse() -> None:
    lease = LeaseTable()
    lease.ask("operator", b"1", "scripted", 0)
    with pytest.raises(LeaseRefused):
        lease.ask("other", b"2", "scripted", 1)
    lease.ask("console", b"3", "keyboard", 2)
    with pytest.raises(LeaseRefused):
        lease.ask("operator", b"1", "scripted", 3)
    lease.release("operator", b"1")
    assert lease.holder(4) == "console"
    lease.release("console", b"3")
    assert lease.holder(4) == ""


def test_in_lockstep_silence_alone_ends_nothing() -> None:
    lease = LeaseTable(lapses=False)
    token = lease.ask("operator", b"1", "scripted", 0)
    assert lease.holder(100 * SECOND) == "operator"
    assert lease.ask("operator", b"1", "scripted", 100 * SECOND) == token
