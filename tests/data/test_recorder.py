"""The recorder's core on real files: acknowledgement, duplicates, gaps, recovery, full disk."""

import time

import msgspec
import pytest
from msgspec import structs

from takeover.data import episode_build
from takeover.data.catalog import SegmentFilter
from takeover.data.episode_file import read_records, verify_file
from takeover.data.journal import JournalError
from takeover.data.open_episode import OpenEpisode
from takeover.data.recorder import Accepted, Recorder
from takeover.data.schema import CameraFrame, EpisodeStart, Event, Outcome, OutcomeChange, OutcomeSource, Step
from takeover.data.store import GapError, iter_episode_records, read_gap
from tests.patience import patient


def feed(recorder, records):
    return [recorder.accept(record) for record in records]


def wait_closed(recorder):
    deadline = time.monotonic() + patient(10)
    while recorder.pending and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not recorder.pending


def without_pictures(records):
    return [record for record in records if not isinstance(record, CameraFrame)]


def test_an_episode_is_acknowledged_announced_and_closed(workspace, stream):
    recorder = Recorder(workspace)
    records = stream.episode(frames=True, holds=(15,))
    assert set(feed(recorder, records[:-1])) == {Accepted.TAKEN}
    assert recorder.ack().acked_rec_seq == -1  # taken is not durable
    first = recorder.sync()
    assert (first.committed.first, first.committed.cursor) == (0, records[-2].rec_seq)
    assert first.committed.records == without_pictures(records[:-1])
    feed(recorder, records[-1:])
    second = recorder.sync()
    assert second.committed.first == records[-1].rec_seq == recorder.ack().acked_rec_seq
    wait_closed(recorder)
    assert [closed.closed_episode for closed in recorder.take_closed()] == ["s1-ep0000"]
    (row,) = recorder.catalog.episodes()
    assert (row.steps, row.human_steps, row.takeovers, row.held_steps, row.success, row.autonomous) == (40, 10, 1, 2, True, False)
    assert verify_file(workspace.path / row.path) == []
    assert list(workspace.journal.glob("*.mcap")) == []
    start, steps, end = read_records(workspace.path / row.path)
    assert [start, *steps, end] == [r for r in without_pictures(records) if r.rec_seq in {s.rec_seq for s in [start, *steps, end]}]
    kinds = {segment.kind for segment in recorder.catalog.segments()}
    assert kinds == {"takeover", "safety"}
    recorder.close()
    assert workspace.index_path.exists()


def test_duplicates_are_dropped_and_gaps_are_not_taken(workspace, stream):
    recorder = Recorder(workspace)
    records = stream.episode()
    feed(recorder, records[:10])
    assert set(feed(recorder, records[4:10])) == {Accepted.DUPLICATE}
    assert recorder.accept(records[12]) is Accepted.GAP
    assert recorder.sync().committed.cursor == 9
    assert set(feed(recorder, records[5:])) == {Accepted.DUPLICATE, Accepted.TAKEN}
    recorder.sync()
    recorder.close()
    assert len(next(iter_episode_records(workspace))[1]) == 40


def test_a_restarted_recorder_goes_on_with_the_episode(workspace, stream):
    records = stream.episode(frames=True)
    first = Recorder(workspace)
    feed(first, records[:20])
    first.sync()
    first.close()  # without its end the episode stays in the journal
    assert not list(workspace.episodes.glob("*/*.hdf5"))
    second = Recorder(workspace)
    assert second.hello().session == "s1"
    assert second.hello().acked_rec_seq == 19
    feed(second, records[15:])
    second.sync()
    second.close()
    _, steps, end = next(iter_episode_records(workspace))
    assert steps == [record for record in records if isinstance(record, Step)]
    assert end == records[-1]


def test_an_episode_cut_off_is_recovered_when_another_session_begins(workspace, stream, new_stream):
    records = stream.episode(end=False)
    first = Recorder(workspace)
    feed(first, records)
    first.sync()
    first.close()
    second = Recorder(workspace)
    feed(second, new_stream("s2", seed=1).episode())
    second.sync()
    second.close()
    with_recovered = Recorder(workspace)
    rows = {row.id: row for row in with_recovered.catalog.episodes()}
    with_recovered.close()
    assert rows["s1-ep0000"].recovered
    assert rows["s1-ep0000"].outcome == "unknown"
    assert not rows["s2-ep0000"].recovered
    assert rows["s1-ep0000"].steps == 40


def test_journal_cut_at_random_bytes_keeps_what_was_synced(workspace, stream):
    """Every sync's size on disk is noted; a file cut anywhere later than that has at least its records."""
    from takeover.data.journal import JournalWriter, read_journal

    path = workspace.journal / "cut.1.mcap"
    writer = JournalWriter(path)
    records = stream.episode(frames=True)
    durable = []
    for index in range(0, len(records), 7):
        for record in records[index : index + 7]:
            writer.add(record)
        writer.sync()
        durable.append((path.stat().st_size, min(index + 7, len(records))))
    whole = path.read_bytes()
    writer.close()
    assert read_journal(path).records == records
    assert read_journal(path).problem == ""
    cut_path = workspace.journal / "cut.2.mcap"
    for cut in stream.rng.integers(1, len(whole), 60).tolist():
        cut_path.write_bytes(whole[:cut])
        contents = read_journal(cut_path)
        expected = max([count for size, count in durable if size <= cut], default=0)
        assert contents.records[:expected] == records[:expected]
        assert contents.records == records[: len(contents.records)]
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    cut_path.write_bytes(flipped)
    contents = read_journal(cut_path)
    assert contents.problem
    assert all(record in records for record in contents.records)


def test_mcap_library_reads_the_journal(workspace, stream):
    from mcap.reader import NonSeekingReader

    from takeover.data.journal import JournalWriter

    path = workspace.journal / "lib.1.mcap"
    writer = JournalWriter(path)
    records = stream.episode(frames=True)
    for record in records:
        writer.add(record)
    writer.close()
    with path.open("rb") as file:
        topics = [channel.topic for _, channel, _ in NonSeekingReader(file, validate_crcs=True).iter_messages(log_time_order=False)]
    assert len(topics) == len(records)
    assert {"episode_start", "step", "camera/front", "event", "episode_end"} == set(topics)


def test_full_disk_acknowledges_nothing_and_goes_on_afterwards(workspace, stream, monkeypatch):
    """A real ENOSPC needs a file system of its own; here the kernel's limit on file size refuses the same write with EFBIG."""
    import resource
    import signal

    recorder = Recorder(workspace)
    records = stream.episode()
    feed(recorder, records[:5])
    recorder.sync()
    acked = recorder.ack().acked_rec_seq
    feed(recorder, records[5:30])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = next(workspace.journal.glob("*.mcap")).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, hard))
    try:
        failed = recorder.sync()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot write journal" in failed.error
    assert failed.committed is None
    assert recorder.ack().acked_rec_seq == acked
    assert next(workspace.journal.glob("*.mcap")).stat().st_size == size  # no half-written chunk
    feed(recorder, records[30:])
    assert recorder.sync().committed.cursor == records[-1].rec_seq
    recorder.close()
    assert next(iter_episode_records(workspace))[1] == [record for record in records if isinstance(record, Step)]


@pytest.mark.parametrize("what", ["write", "create"])
def test_a_full_disk_at_the_next_start_loses_nothing(workspace, stream, monkeypatch, what):
    """The next episode begins while the last records of the one before cannot be written, or while no journal can be made for it."""
    import os

    recorder = Recorder(workspace)
    first, second = stream.episode(end=False), stream.episode()
    feed(recorder, first[:30])
    assert recorder.sync().committed.cursor == first[29].rec_seq
    feed(recorder, first[30:])
    if what == "create":
        recorder.sync()
    acked = recorder.ack().acked_rec_seq
    real_open, real_write = os.open, os.pwrite

    def no_room(*arguments, **more):
        raise OSError(28, "No space left on device")

    def open_no_new(path, flags, *more):
        return no_room() if flags & os.O_CREAT else real_open(path, flags, *more)

    monkeypatch.setattr(os, "pwrite", no_room) if what == "write" else monkeypatch.setattr(os, "open", open_no_new)
    for _ in range(3):
        with pytest.raises(JournalError, match="No space left"):
            recorder.accept(second[0])
        assert recorder.accept(second[5]) is Accepted.GAP
        recorder.sync()
        assert "No space left" in recorder.error()  # so that nobody gives the missing records up
        assert recorder.ack().acked_rec_seq == acked
    monkeypatch.setattr(os, "pwrite", real_write)
    monkeypatch.setattr(os, "open", real_open)
    feed(recorder, second)
    assert recorder.sync().committed.cursor == second[-1].rec_seq
    assert recorder.error() == ""
    recorder.close()
    stored = {step.seq: step for _, steps, _ in iter_episode_records(workspace) for step in steps}
    sent = [record for record in first + second if isinstance(record, Step)]
    assert [stored[step.seq] for step in sent] == sent


def test_a_disk_too_full_for_the_file_keeps_the_journal_and_tries_again(workspace, stream, monkeypatch):
    import resource
    import signal

    from takeover.data import finalise

    monkeypatch.setattr(finalise, "RETRY_AFTER_S", 0.1)
    recorder = Recorder(workspace)
    records = stream.episode()
    feed(recorder, records[:-1])
    recorder.sync()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    journal = next(workspace.journal.glob("*.mcap"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size + 2000, hard))  # enough for the last record, not for the file
    try:
        feed(recorder, records[-1:])
        assert recorder.sync().committed.cursor == records[-1].rec_seq
        deadline = time.monotonic() + patient(10)
        while not recorder.error() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "cannot be closed" in recorder.ack().error
        assert journal.exists()
        assert not list(workspace.episodes.glob("*/*"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    wait_closed(recorder)
    assert recorder.error() == ""
    assert not journal.exists()
    recorder.close()
    assert len(next(iter_episode_records(workspace))[1]) == 40


def test_little_disk_and_long_episodes_are_reported(workspace, stream):
    recorder = Recorder(workspace, min_free_bytes=workspace.free_bytes() * 2)
    assert "the disk is full" in recorder.ack().error
    recorder.close()
    recorder = Recorder(workspace, max_episode_bytes=20_000)
    feed(recorder, stream.episode(end=False))
    assert "memory limit" in recorder.sync().error
    recorder.close()


def test_the_words_and_states_of_events_count_too(workspace, stream):
    episode = OpenEpisode(workspace, "e")
    records = [record for record in stream.episode(events=True) if isinstance(record, Event)]
    for text, state, least in (("", b"", 0), ("\U0001f916" * 4000, b"", 16_000), ("", b"x" * 9000, 9000)):
        before = episode.size_bytes
        episode.add(structs.replace(records[0], text=text, sim_state=state))
        assert 0 < episode.size_bytes - before - least < 5000
    episode.close_journal()


def test_late_outcomes_become_labels_once(workspace, stream):
    recorder = Recorder(workspace)
    feed(recorder, stream.episode(outcome=Outcome.SUCCESS))
    change = OutcomeChange(
        session="s1",
        rec_seq=stream.next(),
        episode_id="s1-ep0000",
        outcome=Outcome.FAILURE,
        previous=Outcome.SUCCESS,
        author="op-01",
        event_step=39,
        wall_ns=5,
    )
    assert recorder.accept(change) is Accepted.TAKEN
    assert change in recorder.sync().committed.records
    recorder.close()
    again = Recorder(workspace)
    assert again.hello().acked_rec_seq == change.rec_seq
    (row,) = again.catalog.episodes()
    assert (row.outcome, row.recorded_outcome, row.outcome_source) == ("failure", "success", "label")
    assert again.catalog.outcome_overrides() == {"s1-ep0000": "failure"}
    again.close()


def test_gaps_are_read_from_closed_episodes_open_journals_and_the_session(workspace, stream):
    recorder = Recorder(workspace)
    closed = stream.episode(frames=True, holds=(3,))
    running = stream.episode(end=False, frames=True)
    feed(recorder, closed + running)
    recorder.sync()
    wait_closed(recorder)
    everything = without_pictures(closed + running)
    last = everything[-1].rec_seq
    assert read_gap(workspace, "s1", 0, running[-1].rec_seq) == everything
    assert read_gap(workspace, "s1", 17, 60) == [record for record in everything if 17 <= record.rec_seq <= 60]
    with pytest.raises(GapError, match="of records"):
        read_gap(workspace, "s1", 0, last + 5, timeout_s=0.1)
    recorder.close()


def test_a_journal_without_a_start_is_set_aside(workspace, stream):
    recorder = Recorder(workspace)
    recorder.close()
    from takeover.data.journal import JournalWriter

    records = stream.episode()
    writer = JournalWriter(workspace.journal / "orphan.1.mcap")
    for record in records[3:]:
        writer.add(record)
    writer.close()
    recorder = Recorder(workspace)
    wait_closed(recorder)
    assert recorder.error() == ""
    recorder.close()
    assert [path.name for path in (workspace.journal / "unreadable").iterdir()] == ["orphan.1.mcap"]


UNBUILDABLE = [
    {"policy_version": 2**63},
    {"policy_version": 2**31},
    {"reward_version": 2**63},
    {"scores": {"": 1.0}},
    {"scores": {".": 1.0}},
    {"scores": {"a/b": 1.0, "a_b": 2.0}},
]


def changed(records, change):
    return [structs.replace(record, **change) if isinstance(record, Step) else record for record in records]


@pytest.mark.parametrize("change", UNBUILDABLE, ids=str)
def test_an_episode_no_file_can_hold_is_set_aside_and_the_next_is_closed(workspace, stream, change, caplog):
    recorder = Recorder(workspace)
    odd, good = changed(stream.episode(frames=True), change), stream.episode()
    feed(recorder, odd + good)
    recorder.sync()
    wait_closed(recorder)
    assert [closed.closed_episode for closed in recorder.take_closed()] == ["s1-ep0001"]
    said = recorder.ack().notice
    assert "episode s1-ep0000 cannot be closed" in said
    assert "journal/unreadable" in said
    assert "takeover data repair" in said
    assert said in caplog.text
    assert recorder.ack().error == "", "no reason to hold the robot"
    assert [path.name for path in workspace.unreadable.iterdir()] == ["s1-ep0000.1.mcap"]
    assert read_gap(workspace, "s1", 0, good[-1].rec_seq) == without_pictures(odd + good), "whoever reads the session has all of it"
    recorder.close()


def test_what_was_set_aside_is_tried_once_at_the_next_start_and_hurts_nobody(workspace, stream, caplog, monkeypatch):
    recorder = Recorder(workspace)
    odd, cut_off = changed(stream.episode(), {"scores": {".": 1.0}}), stream.episode(end=False)
    feed(recorder, odd + cut_off)
    recorder.sync()
    wait_closed(recorder)
    recorder.close()
    (workspace.unreadable / "note.mcap").write_bytes(b"x")
    (workspace.unreadable / "empty.1.mcap").write_bytes(b"")
    kept = (workspace.unreadable / "s1-ep0000.1.mcap").read_bytes()
    caplog.clear()
    again = Recorder(workspace)
    assert again.hello().session == "s1"
    assert again.hello().acked_rec_seq == cut_off[-1].rec_seq, "what was acknowledged stays so"
    wait_closed(again)
    assert caplog.text.count("s1-ep0000 cannot be closed") == 1
    assert "s1-ep0000 cannot be closed" in again.ack().notice
    assert (workspace.unreadable / "s1-ep0000.1.mcap").read_bytes() == kept
    assert {path.name for path in workspace.unreadable.iterdir()} == {"s1-ep0000.1.mcap", "note.mcap", "empty.1.mcap"}
    following = stream.episode()
    assert set(feed(again, following)) == {Accepted.TAKEN}
    again.sync()
    wait_closed(again)
    assert [closed.closed_episode for closed in again.take_closed()] == ["s1-ep0001", "s1-ep0002"]
    again.close()
    # a version that can do it closes it by itself
    monkeypatch.setattr("takeover.data.episode_build._put_steps", forgiving(episode_build._put_steps))
    newer = Recorder(workspace)
    wait_closed(newer)
    assert newer.ack().notice == ""
    assert {row.id for row in newer.catalog.episodes()} == {"s1-ep0000", "s1-ep0001", "s1-ep0002"}
    newer.close()
    assert not (workspace.unreadable / "s1-ep0000.1.mcap").exists()


def forgiving(put_steps):
    """As a later version might be: it has another name for a score whose name is none."""

    def put(builder, group, steps, start):
        put_steps(builder, group, [structs.replace(step, scores={"dot": 1.0}) for step in steps], start)

    return put


def test_a_session_of_which_only_a_set_aside_episode_is_left_is_gone_on_with(workspace, stream, new_stream):
    first = Recorder(workspace)
    later = new_stream("s2", seed=1)
    later.wall_ns += 10**15
    records = changed(later.episode(), {"scores": {".": 1.0}})
    feed(first, stream.episode() + records)
    first.sync()
    wait_closed(first)
    first.close()
    again = Recorder(workspace)
    assert (again.hello().session, again.hello().acked_rec_seq) == ("s2", records[-1].rec_seq)
    wait_closed(again)
    feed(again, new_stream("s3", seed=2).episode())
    assert set(feed(again, records)) == {Accepted.DUPLICATE}, "known in whatever order the sessions come"
    again.sync()
    again.close()


def test_a_file_that_the_catalog_has_no_room_for_keeps_no_other_out(workspace, stream):
    recorder = Recorder(workspace)
    start, *rest = stream.episode()
    feed(recorder, [structs.replace(start, start_seed=2**63), *rest, *stream.episode()])
    recorder.sync()
    wait_closed(recorder)
    assert [row.id for row in recorder.catalog.episodes()] == ["s1-ep0001"]
    assert "s1-ep0000 cannot be closed (OverflowError" in recorder.ack().notice
    recorder.close()
    again = Recorder(workspace)
    assert len(again.problems) == 1
    assert "s1-ep0000.hdf5 cannot be entered" in again.problems[0]
    wait_closed(again)
    again.close()
    assert [path.name for path in workspace.unreadable.iterdir()] == ["s1-ep0000.1.mcap"]


def test_an_outcome_that_is_taken_back_leaves_what_was_recorded(workspace, stream):
    recorder = Recorder(workspace)
    records = stream.episode(outcome=Outcome.FAILURE)
    feed(recorder, [*records[:-1], msgspec.structs.replace(records[-1], outcome_source=OutcomeSource.LIMIT)])
    recorder.sync()
    wait_closed(recorder)
    (recorded,) = recorder.catalog.episodes()
    fields = {"session": "s1", "episode_id": "s1-ep0000", "author": "op-01"}
    given = OutcomeChange(
        **fields, rec_seq=stream.next(), previous=Outcome.FAILURE, outcome=Outcome.SUCCESS, event_step=3, wall_ns=2_000_000_000
    )
    feed(recorder, [given])
    recorder.sync()
    wait_closed(recorder)
    (row,) = recorder.catalog.episodes()
    assert (row.outcome, row.outcome_source, row.event_step) == ("success", "label", 3)
    back = OutcomeChange(
        **fields,
        rec_seq=stream.next(),
        previous=Outcome.SUCCESS,
        outcome=Outcome.FAILURE,
        event_step=recorded.event_step,
        source=OutcomeSource.LIMIT,
        wall_ns=3_000_000_000,
    )
    feed(recorder, [back])
    recorder.sync()
    wait_closed(recorder)
    (row,) = recorder.catalog.episodes()
    assert (row.outcome, row.outcome_source, row.event_step) == ("failure", "limit", recorded.event_step)
    recorder.close()
    workspace.catalog_path.unlink()
    again = Recorder(workspace)
    wait_closed(again)
    assert again.catalog.episodes()[0].outcome_source == "limit"
    again.close()


def test_an_outcome_that_is_no_label_ends_nothing(workspace, stream):
    recorder = Recorder(workspace)
    feed(recorder, stream.episode())
    change = OutcomeChange(
        session="s1",
        rec_seq=stream.next(),
        episode_id="s1-ep0000",
        previous=Outcome.SUCCESS,
        outcome=Outcome.FAILURE,
        author="op-01",
        wall_ns=2**63,
        event_step=3,
    )
    feed(recorder, [change, *stream.episode()])
    recorder.sync()
    wait_closed(recorder)
    assert {row.id for row in recorder.catalog.episodes()} == {"s1-ep0000", "s1-ep0001"}
    assert "the outcome failure of episode s1-ep0000 is no label" in recorder.ack().notice
    recorder.close()
    Recorder(workspace).close()


def test_lost_catalog_comes_back_from_the_files(workspace, stream):
    recorder = Recorder(workspace)
    for outcome in (Outcome.SUCCESS, Outcome.FAILURE):
        feed(recorder, stream.episode(outcome=outcome))
    recorder.sync()
    wait_closed(recorder)
    from takeover.data.labels import Labels

    labels = Labels(workspace, recorder.catalog)
    segment = recorder.catalog.segments(SegmentFilter(kinds=("takeover",)))[0]
    labels.add_label(segment.id, "cause", "force", "op-02")
    before = (recorder.catalog.episodes(), recorder.catalog.segments())
    recorder.close()
    for path in workspace.path.glob("catalog.sqlite*"):
        path.unlink()
    again = Recorder(workspace)
    assert (again.catalog.episodes(), again.catalog.segments()) == before
    assert again.problems == []
    again.close()


def test_records_the_bridge_no_longer_has_can_be_given_up(workspace, stream):
    recorder = Recorder(workspace)
    stream.rec_seq = 50
    records = stream.episode()
    assert recorder.accept(records[0]) is Accepted.GAP
    recorder.skip_to(50)
    feed(recorder, records)
    assert recorder.sync().committed.cursor == records[-1].rec_seq
    recorder.close()
    assert isinstance(records[0], EpisodeStart)
    assert next(iter_episode_records(workspace))[0] == records[0]
