"""Leases on segments, blind second opinions, and how far labelers agree."""

import math
import threading

import numpy as np
import pytest

from benchmarks.catalog_rows import fill
from takeover.app.cli import main
from takeover.data.agreement import agreements, cohen_kappa, doubled
from takeover.data.catalog import Catalog, SegmentFilter
from takeover.data.claims import ClaimError, Claims
from takeover.data.labels import Labels
from takeover.data.workspace import Workspace

T = 1_800_000_000_000_000_000
S = 1_000_000_000


@pytest.fixture
def workspace(tmp_path):
    """40 episodes with 120 segments, half of them reviewed by op-00, op-01 and op-02."""
    made = Workspace(tmp_path).prepare()
    with Catalog.open(made) as catalog:
        fill(catalog, 40, 120)
    return made


@pytest.fixture
def labels(workspace):
    made = Labels(workspace)
    yield made
    made.close()


def test_two_labelers_never_get_the_same_segment(labels):
    claims = Claims(labels.catalog, lease_s=60)
    open_segments = [row.id for row in labels.catalog.segments(SegmentFilter(state="open"), limit=None)]
    first = claims.next("a", now_ns=T)
    assert first.id == open_segments[0]
    assert claims.next("b", now_ns=T).id == open_segments[1]
    assert claims.next("a", now_ns=T + 59 * S).id == first.id  # one's own comes first, and is renewed
    assert claims.next("c", now_ns=T + 90 * S).id == open_segments[1]  # b's ran out
    with pytest.raises(ClaimError, match=r"a has .* for 29 s more"):
        claims.claim(first.id, "b", now_ns=T + 90 * S)
    assert claims.held(open_segments[:3], now_ns=T + 90 * S)[first.id].person == "a"
    claims.release(first.id, "a")
    claims.release(open_segments[1], "a")  # not a's: nothing happens
    assert claims.claim(first.id, "b", now_ns=T + 90 * S).expires_ns == T + 150 * S
    assert claims.renew("b", now_ns=T + 100 * S) == 1
    assert claims.held([first.id], now_ns=T + 155 * S)[first.id].person == "b"


def test_what_is_submitted_or_filtered_out_is_not_handed_out(labels):
    claims = Claims(labels.catalog)
    row = claims.next("a")
    labels.add_label(row.id, "review", "submitted", "a")
    assert claims.next("a").id != row.id
    assert claims.next("b", SegmentFilter(kinds=("safety",))).kind == "safety"
    assert claims.next("b", SegmentFilter(session_id="nobody's")) is None
    with pytest.raises(ClaimError, match="no segment 'x'"):
        claims.claim("x", "a")
    with pytest.raises(ValueError, match="1 to 86400"):
        Claims(labels.catalog, lease_s=0)


def test_a_claim_is_no_change_to_the_pages(labels):
    before = labels.catalog.change_counter()
    Claims(labels.catalog).next("a")
    assert labels.catalog.change_counter() == before


def test_many_labelers_at_once_share_out_every_segment(workspace):
    got, errors = [], []

    def work(name):
        with Catalog.open(workspace) as catalog:
            claims, own = Claims(catalog), Labels(workspace, catalog)
            try:
                while (row := claims.next(name)) is not None:
                    got.append(row.id)
                    own.add_label(row.id, "review", "submitted", name)
            except Exception as error:  # noqa: BLE001
                errors.append(error)

    with Catalog.open(workspace) as catalog:
        wanted = [row.id for row in catalog.segments(SegmentFilter(state="open"), limit=None)]
    threads = [threading.Thread(target=work, args=(f"l{i}",)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(got) == sorted(wanted)


def test_a_second_labeler_sees_nothing_of_the_first_and_changes_nothing(labels):
    catalog, claims = labels.catalog, Claims(labels.catalog)
    row = catalog.segments(SegmentFilter(state="done"))[0]
    labels.add_label(row.id, "note", "the first one's", "op-00")
    labels.add_label(row.episode_id, "outcome", "aborted", "op-00")
    seen = []
    while (blind := claims.next_blind("second", percent=100)) is not None:
        seen.append(blind)
        assert blind.labels == {}
        assert blind.episode_outcome == catalog.episode(blind.episode_id).recorded_outcome
        before = catalog.segment(blind.id)
        labels.add_label(blind.id, "cause", "wear", "second", blind=True)
        labels.add_label(blind.id, "cause", "force", "second", blind=True)
        assert catalog.segment(blind.id) == before
    assert {found.id for found in seen} == {row.id for row in catalog.segments(SegmentFilter(state="done"), limit=None)}
    assert claims.next_blind("third", percent=100) is None  # each is doubled once
    last = seen[-1].id
    assert labels.undo("second").value == "wear"
    assert labels.redo("second").value == "force"
    assert [event.previous for event in labels.history(last) if event.blind] == ["", "wear", "force", "wear"]


def test_nobody_doubles_what_they_labelled_and_a_share_is_doubled(labels):
    claims = Claims(labels.catalog)
    own = set()
    for row in labels.catalog.segments(SegmentFilter(state="done"), limit=None):
        if labels.history(row.id)[0].author == "op-01":
            own.add(row.id)
    got = set()
    while (row := claims.next_blind("op-01", percent=50)) is not None:
        got.add(row.id)
        labels.add_label(row.id, "cause", "wear", "op-01", blind=True)
    everyone = {row.id for row in labels.catalog.segments(SegmentFilter(state="done"), limit=None)}
    assert own
    assert not got & own
    assert 0.2 < len(got) / len(everyone - own) < 0.8


def test_kappa_is_the_textbooks():
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    found = cohen_kappa("cause", pairs)
    assert (found.n, found.observed, found.kappa) == (50, pytest.approx(0.7), pytest.approx(0.4))
    assert found.low < 0.4 < found.high
    assert found.classes == {"n": 30, "y": 35}
    full = cohen_kappa("cause", [("y", "y"), ("n", "n"), ("y", "y")])
    assert full.kappa == full.high == 1.0
    assert full.low < 0.5  # three segments prove little
    assert math.isnan(cohen_kappa("cause", []).kappa)
    assert math.isnan(cohen_kappa("cause", [("y", "y")] * 9).kappa)


def test_the_interval_of_kappa_covers_the_truth():
    rng, covered = np.random.default_rng(0), 0
    truth = 0.6  # of 3 equally likely classes, both copy the true one with probability q
    q = math.sqrt(truth)
    for _ in range(200):
        true = rng.integers(0, 3, 60)
        said = [np.where(rng.random(60) < q, true, rng.integers(0, 3, 60)) for _ in range(2)]
        found = cohen_kappa("x", list(zip(map(str, said[0]), map(str, said[1]), strict=True)))
        covered += found.low <= truth <= found.high
    assert covered >= 180


def test_agreement_counts_what_was_said_independently(labels, capsys):
    rows = labels.catalog.segments(SegmentFilter(state="done"), limit=4)
    for index, row in enumerate(rows):
        labels.add_label(row.id, "cause", "wear", "first")
        labels.add_label(row.id, "cause", "wear" if index else "force", "second", blind=True)
    labels.add_label(rows[0].id, "cause", "force", "first")  # after talking about it
    labels.add_label(rows[1].id, "cause", "", "second", blind=True)  # an opinion taken back
    assert doubled(labels.catalog, "cause") == {rows[0].id: [("wear", "force")]} | {row.id: [("wear", "wear")] for row in rows[2:]}
    found = {agreement.name: agreement for agreement in agreements(labels.catalog)}
    assert (found["cause"].n, found["cause"].observed, found["kind"].n) == (3, pytest.approx(2 / 3), 0)
    assert main(["data", "labels", "agreement", "--workspace", str(labels.workspace.path)]) == 0
    printed = capsys.readouterr().out
    assert "cause" in printed
    assert "0.67" in printed
