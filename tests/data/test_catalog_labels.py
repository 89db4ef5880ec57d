"""Catalog queries and labels: append-only, undo as an event, survival, several labelers."""

import threading
import time

import pytest

from takeover.data.catalog import Catalog, CatalogError, SegmentFilter
from takeover.data.coverage import Coverage
from takeover.data.labels import LabelError, Labels, read_log
from takeover.data.recorder import Recorder
from takeover.data.recovery import rebuild_catalog
from takeover.data.schema import EpisodeKind, Outcome
from takeover.data.store import iter_episode_records


@pytest.fixture
def labels(workspace, stream):
    recorder = Recorder(workspace)
    for options in (
        {"takeovers": ((5, 10), (20, 30))},
        {"outcome": Outcome.FAILURE, "takeovers": ()},
        {"holds": (8,), "takeovers": ()},
        {"kind": EpisodeKind.DEMONSTRATION},
    ):
        for record in stream.episode(**options):
            recorder.accept(record)
    recorder.sync()
    recorder.close()
    made = Labels(workspace)
    yield made
    made.close()


def test_segments_are_takeovers_failures_and_safety_holds_newest_first(labels):
    rows = labels.catalog.segments()
    assert [(row.episode_number, row.kind, row.number, row.start_step, row.end_step) for row in rows] == [
        (2, "safety", 0, 7, 8),
        (1, "failure", 0, 0, 39),
        (0, "takeover", 1, 20, 29),
        (0, "takeover", 0, 5, 9),
    ]
    assert rows[0].detail == "command_stale"
    assert rows[2].end_s - rows[2].start_s == pytest.approx(9 * 0.05)


def test_filters_pages_and_counts(labels):
    catalog = labels.catalog
    everything = catalog.segments()
    assert catalog.segments(limit=2) + catalog.segments(limit=2, offset=2) == everything
    takeovers = SegmentFilter(kinds=("takeover",))
    assert catalog.count_segments(takeovers) == 2
    labels.add_label(everything[2].id, "cause", "force", "a")
    labels.add_label(everything[2].id, "note", "slid off the 100%_edge", "a")
    labels.add_label(everything[2].id, "review", "submitted", "a")
    assert [row.id for row in catalog.segments(SegmentFilter(cause="force"))] == [everything[2].id]
    assert [row.id for row in catalog.segments(SegmentFilter(text="100%_EDGE"))] == [everything[2].id]
    assert catalog.segments(SegmentFilter(text="100x_edge")) == []
    assert catalog.count_segments(SegmentFilter(state="open")) == 3
    assert catalog.segments(SegmentFilter(state="done"))[0].labels == {
        "cause": "force",
        "note": "slid off the 100%_edge",
        "review": "submitted",
    }
    assert catalog.count_segments(SegmentFilter(started_from_ns=everything[0].started_ns)) == 1
    with pytest.raises(ValueError, match="known: open"):
        catalog.segments(SegmentFilter(state="x"))


def test_undo_and_redo_are_events(labels):
    target = labels.catalog.segments()[0].id
    labels.add_label(target, "cause", "vision", "a")
    labels.add_label(target, "cause", "timing", "a")
    assert labels.undo("a").value == "vision"
    assert labels.undo("a").value == ""
    assert labels.current(target) == {}
    assert labels.redo("a").value == "vision"
    assert labels.redo("a").value == "timing"
    with pytest.raises(LabelError, match="nothing of a to redo"):
        labels.redo("a")
    labels.undo("a")
    labels.add_label(target, "note", "x", "a")
    with pytest.raises(LabelError, match="redo"):
        labels.redo("a")
    assert [event.action for event in labels.history(target)] == ["set", "set", "undo", "undo", "redo", "redo", "undo", "set"]
    with pytest.raises(LabelError, match="nothing of b"):
        labels.undo("b")


def test_undo_does_not_overwrite_somebody_elses_label(labels):
    target = labels.catalog.segments()[0].id
    labels.add_label(target, "cause", "vision", "a")
    labels.add_label(target, "cause", "timing", "b")
    with pytest.raises(LabelError, match="was changed to 'timing'"):
        labels.undo("a")
    assert labels.current(target) == {"cause": "timing"}


@pytest.mark.parametrize(
    ("target", "field", "value", "message"),
    [
        ("nope", "outcome", "success", "no segment or episode"),
        ("SEGMENT", "causes", "x", "known: cause"),
        ("SEGMENT", "cause", "gremlins", "allowed: vision, planning"),
        ("SEGMENT", "onset", "-3", "step number"),
        ("EPISODE", "cause", "vision", "an episode has no 'cause'"),
    ],
)
def test_labels_that_cannot_be_are_refused(labels, target, field, value, message):
    row = labels.catalog.segments()[0]
    with pytest.raises(LabelError, match=message):
        labels.add_label({"SEGMENT": row.id, "EPISODE": row.episode_id}.get(target, target), field, value, "a")
    assert read_log(labels.workspace.labels_path) == []


def test_exclusion_and_outcome_reach_readers_and_the_change_counter(labels):
    catalog = labels.catalog
    before = catalog.change_counter()
    episode = catalog.episodes()[0]
    labels.add_label(episode.id, "exclude", True, "a")
    assert catalog.change_counter() > before
    assert catalog.excluded_episode_ids() == {episode.id}
    assert episode.id not in {start.episode_id for start, _, _ in iter_episode_records(labels.workspace)}
    labels.undo("a")
    assert catalog.excluded_episode_ids() == set()
    labels.add_label(episode.id, "outcome", "failure", "a")
    assert catalog.outcome_overrides() == {episode.id: "failure"}
    changed = catalog.episode(episode.id)
    assert (changed.outcome, changed.recorded_outcome, changed.success) == ("failure", "success", False)
    segment = catalog.segments(SegmentFilter(kinds=("takeover",)))[0]
    labels.add_label(segment.id, "exclude", True, "a")
    assert [row.id for row in catalog.excluded_segments()] == [segment.id]
    assert catalog.excluded_episode_ids() == set()


def test_labels_survive_the_loss_of_the_catalog_and_a_torn_last_line(labels):
    target = labels.catalog.segments()[0].id
    labels.add_label(target, "cause", "vision", "a")
    labels.undo("a")
    labels.add_label(target, "cause", "wear", "b")
    history, rows = labels.history(target), labels.catalog.segments()
    with labels.workspace.labels_path.open("ab") as file:
        file.write(b'{"id":"torn')
    labels.catalog.close()
    assert rebuild_catalog(labels.workspace) == []
    again = Labels(labels.workspace)
    assert again.history(target) == history
    assert again.catalog.segments() == rows
    again.add_label(target, "cause", "force", "a")
    assert [event.value for event in read_log(labels.workspace.labels_path)] == ["vision", "", "wear", "force"]
    again.close()


def test_two_labelers_at_once_lose_nothing(labels):
    targets = [row.id for row in labels.catalog.segments()]
    errors = []

    def work(author):
        own = Labels(labels.workspace)
        try:
            for index in range(15):
                own.add_label(targets[index % 4], "note", f"{author}-{index}", author)
        except Exception as error:  # noqa: BLE001
            errors.append(error)
        own.close()

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(labels.events_since(0)) == len(read_log(labels.workspace.labels_path)) == 30
    last = [event for event in labels.events_since(0) if event.target == targets[0]][-1]
    assert labels.current(targets[0])["note"] == last.value


def test_policies_evaluations_and_sessions(labels):
    catalog = labels.catalog
    catalog.add_policy(session_id="s1", version=1, sha256="aa", learner="hil-serl", task_id="pick-lift", updates=10, metrics={"loss": 0.5})
    catalog.add_policy(session_id="s1", version=1, sha256="bb", learner="hil-serl", task_id="pick-lift", updates=12)
    assert [(row.version, row.sha256, row.updates, row.metrics) for row in catalog.policies("s1")] == [(1, "bb", 12, {})]
    catalog.add_evaluation(
        session_id="s1", policy_version=1, policy_sha256="bb", task_id="pick-lift", protocol="heldout-200", successes=80, n=200
    )
    (row,) = catalog.evaluations("s1")
    assert (row.successes, row.n, row.protocol) == (80, 200, "heldout-200")
    (session,) = catalog.sessions()
    assert (session.id, session.episodes, session.steps) == ("s1", 4, 160)


def test_pages_of_a_big_catalog_stay_fast(workspace):
    """20,000 rows here; the million of the design is measured by a benchmark."""
    from sqlalchemy import insert

    from takeover.data.catalog_tables import episodes, segments

    with Catalog.open(workspace) as catalog:
        rows = [_episode(i) for i in range(10_000)]
        flagged = [_segment(i) for i in range(20_000)]
        with catalog.writing() as connection:
            connection.execute(insert(episodes), rows)
            connection.execute(insert(segments), flagged)
        started = time.perf_counter()
        for page in range(10):
            assert len(catalog.segments(SegmentFilter(kinds=("takeover",)), limit=50, offset=page * 50)) == 50
        assert (time.perf_counter() - started) / 10 < 0.25  # 5 ms here; a missing index takes seconds


def _episode(i):
    return {
        "id": f"e{i:06d}",
        "session_id": "s",
        "number": i,
        "kind": "policy",
        "robot_id": "r",
        "task_id": "t",
        "operator": "o",
        "started_ns": i,
        "ended_ns": i + 1,
        "control_hz": 20.0,
        "steps": 40,
        "human_steps": 4,
        "held_steps": 0,
        "takeovers": 1,
        "autonomous": False,
        "outcome": "success",
        "outcome_source": "task",
        "event_step": 39,
        "discarded": False,
        "recovered": False,
        "policy_version": 1,
        "policy_sha256": "",
        "start_seed": i,
        "has_pictures": False,
        "first_rec_seq": i * 50,
        "rec_ranges": "[]",
        "path": f"p{i}",
        "sha256": "",
        "size_bytes": 1,
    }


def _segment(i):
    return {
        "id": f"e{i // 2:06d}:t{i % 2}",
        "episode_id": f"e{i // 2:06d}",
        "kind": "takeover" if i % 2 else "failure",
        "number": i % 2,
        "start_step": 1,
        "end_step": 5,
        "start_s": 0.0,
        "end_s": 0.2,
        "started_ns": i,
        "trigger": "human",
        "detail": "",
        "operator": "o",
        "policy_version": 1,
    }


def test_a_broken_or_foreign_catalog_says_what_to_do(workspace):
    workspace.catalog_path.write_bytes(b"this is not a database, but long enough to be read as one" * 50)
    with pytest.raises(CatalogError, match="cannot open the catalog"):
        Catalog.open(workspace)


def test_coverage_against_a_plain_set(stream):
    for _ in range(50):
        covered, plain = Coverage(), set()
        for _ in range(30):
            first = int(stream.rng.integers(0, 60))
            last = first + int(stream.rng.integers(0, 4))
            covered.add_range(first, last)
            plain |= set(range(first, last + 1))
        assert {n for n in range(70) if n in covered} == plain
        assert covered.contiguous == next(n for n in range(70) if n not in plain) - 1
        assert covered.largest == max(plain)
        assert covered.missing(0, 69) == [n for n in range(70) if n not in plain]
        assert all(b[0] > a[1] + 1 for a, b in zip(covered.ranges(), covered.ranges()[1:], strict=False))
