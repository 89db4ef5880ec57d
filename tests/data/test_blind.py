"""Whom a blind second opinion is asked of, agreement per class, every running lease, and the names that labels use."""

import math

import pytest

from benchmarks.catalog_rows import fill
from takeover.data.agreement import by_class, doubled
from takeover.data.blind import is_drawn, second_opinions
from takeover.data.catalog import SegmentFilter
from takeover.data.catalog_errors import reason_of
from takeover.data.claims import ClaimError, Claims
from takeover.data.label_names import known_subtasks, known_tags
from takeover.data.labels import Labels
from takeover.data.queue_rows import NO_LABELS, decisions_since, flagged_of, queue_rows
from takeover.data.workspace import Workspace

T = 1_800_000_000_000_000_000
S = 1_000_000_000


@pytest.fixture
def labels(tmp_path):
    """20 episodes with 60 segments, half of them reviewed by op-00, op-01 and op-02."""
    made = Labels(Workspace(tmp_path).prepare())
    fill(made.catalog, 20, 60)
    yield made
    made.close()


def submitted(labels):
    return [row.id for row in labels.catalog.segments(SegmentFilter(state="done"), limit=None)]


def test_a_second_opinion_is_blind_until_it_is_given(labels):
    done = submitted(labels)
    found = second_opinions(labels.catalog, done, "new", 100)
    assert set(found) == set(done)
    assert all(one.labels == {} and not one.finished and one.recorded_outcome for one in found.values())
    key = done[0]
    labels.add_label(key, "cause", "wear", "new", blind=True)
    half = second_opinions(labels.catalog, done, "new", 100)[key]
    assert (half.finished, half.labels) == (False, {"cause": "wear"})
    assert key not in second_opinions(labels.catalog, done, "other", 100), "each is doubled once"
    labels.add_label(key, "review", "submitted", "new", blind=True)
    assert second_opinions(labels.catalog, done, "new", 100)[key].finished
    labels.undo("new")
    assert not second_opinions(labels.catalog, done, "new", 100)[key].finished


def test_who_labelled_openly_gives_no_second_opinion(labels):
    done = submitted(labels)
    labels.add_label(done[1], "note", "seen", "new")
    assert done[1] not in second_opinions(labels.catalog, done, "new", 100)
    drawn = [key for key in done if is_drawn(key, 30)]
    assert set(second_opinions(labels.catalog, done, "other", 30)) == set(drawn)
    assert second_opinions(labels.catalog, done, "other", 0) == {}


def test_agreement_per_class_and_of_the_newest_only(labels):
    pairs = [("a", "a")] * 6 + [("b", "b")] * 3 + [("a", "b")]
    found = by_class(pairs, ["a", "b", "c"])
    assert (found["a"].n, found["b"].n, found["c"].n) == (7, 4, 0)
    assert found["a"].kappa == pytest.approx(found["b"].kappa)  # two classes: the same question
    assert math.isnan(found["c"].kappa)
    keys = submitted(labels)[:4]
    for number, key in enumerate(keys):
        labels.add_label(key, "cause", "wear", "new", T + number, blind=True)
    assert set(doubled(labels.catalog, "cause")) == set(keys)
    assert set(doubled(labels.catalog, "cause", newest=2)) == set(keys[2:])


def test_every_running_lease_and_leaving_one_for_another(labels):
    claims = Claims(labels.catalog, lease_s=60)
    one, two = submitted(labels)[:2]
    claims.claim(one, "a", now_ns=T)
    claims.claim(two, "b", now_ns=T + 30 * S)
    assert {key: claim.person for key, claim in claims.running(T + 31 * S).items()} == {one: "a", two: "b"}
    assert set(claims.running(T + 61 * S)) == {two}
    with pytest.raises(ClaimError):
        claims.claim(two, "a", now_ns=T + 40 * S, leave=one)
    assert set(claims.running(T + 41 * S)) == {two}, "what was left is given back in any case"
    claims.claim(one, "a", now_ns=T + 200 * S)
    with labels.catalog.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM claims").scalar() == 1, "leases that ran out do not pile up"


def test_names_in_use_are_found_one_look_up_each(labels):
    key = submitted(labels)[0]
    assert known_tags(labels.catalog) in ([], ["slippery"])
    for tag in ("rim", "a-1", "z_9"):
        labels.add_label(key, f"tag:{tag}", "true", "a")
    row = labels.catalog.segment(key)
    labels.add_label(key, "trim", f"{row.start_step}-{row.end_step}", "a")  # a field that follows the tags
    labels.add_label(key, "subtask", "insert", "a")
    labels.add_label(submitted(labels)[1], "subtask", "approach", "a")
    assert set(known_tags(labels.catalog)) >= {"a-1", "rim", "z_9"}
    assert known_subtasks(labels.catalog) == ["approach", "insert"]
    assert known_tags(labels.catalog, most=1) == ["a-1"]
    labels.add_label(key, "subtask", "", "a")
    assert known_subtasks(labels.catalog) == ["approach"]


def test_narrow_rows_say_what_the_wide_ones_do(labels):
    wide = labels.catalog.segments(limit=30)
    rows, episodes = queue_rows(labels.catalog, 30)
    assert [(r.id, r.kind, r.start_step, r.end_step, r.policy_version, r.operator, r.labels) for r in rows] == [
        (w.id, w.kind, w.start_step, w.end_step, w.policy_version, w.operator, w.labels) for w in wide
    ]
    assert NO_LABELS == {}
    for one in episodes.values():
        row = labels.catalog.episode(one.id)
        assert (one.number, one.kind, one.outcome, one.path) == (row.number, row.kind, row.outcome, row.path)
    session = wide[0].session_id
    flagged = flagged_of(labels.catalog, session, 1000)
    expected = labels.catalog.segments(SegmentFilter(session_id=session), limit=None)
    assert [(f.id, f.cause, f.excluded) for f in flagged] == [
        (e.id, e.labels.get("cause", ""), e.labels.get("exclude") == "true") for e in expected
    ]
    labels.add_label(wide[0].id, "review", "skipped", "new", T)
    labels.add_label(wide[0].id, "note", "x", "new", T + 1)
    assert decisions_since(labels.catalog, T, "new") == [(wide[0].id, "skipped", T)]


def test_errors_are_said_in_words(tmp_path):
    with pytest.raises(OSError, match="No such file") as caught:
        (tmp_path / "none" / "x").open()
    assert reason_of(caught.value) == f"No such file or directory: {tmp_path / 'none' / 'x'}"
    assert reason_of(ValueError("what and where")) == "what and where"
    assert reason_of(ValueError()) == "ValueError"
