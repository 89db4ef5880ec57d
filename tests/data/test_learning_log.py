"""Policies, evaluations and uses of labels survive the loss of the catalog, a crash between log and catalog, and a broken line."""

import math
import multiprocessing
import os

import pytest

from takeover.app.cli import main
from takeover.data.catalog import Catalog
from takeover.data.catalog_log import agree, append, differing, read_rows
from takeover.data.catalog_rows import EvaluationRow
from takeover.data.index import rebuild_index
from takeover.data.labels import Labels
from takeover.data.people import list_people
from takeover.data.recorder import Recorder
from takeover.data.recovery import rebuild_catalog
from takeover.data.repair import repair
from takeover.data.training_labels import note_uses, note_version
from takeover.data.verify import verify_workspace
from takeover.data.workspace import Workspace

LEARNER = "s1/hil-serl"
TARGETS = ["s1-ep0000", "s1-ep0000:t0", "s1-ep0001"]


def evaluate(catalog, version, successes=40):
    catalog.add_evaluation(
        session_id="s1", policy_version=version, policy_sha256="aa", task_id="pick-lift", protocol="heldout", successes=successes, n=50,
        wall_s=0.1 + version,
    )  # fmt: skip


@pytest.fixture
def lived(workspace, stream):
    """Episodes, labels, policies (one published twice), evaluations, and labels that a learner used before and after publishing."""
    recorder = Recorder(workspace)
    for options in ({}, {"takeovers": (), "frames": True}, {"holds": (3,)}):
        for record in stream.episode(**options):
            recorder.accept(record)
        recorder.sync()
    recorder.close()
    with Catalog.open(workspace) as catalog:
        labels = Labels(workspace, catalog)
        made = [labels.add_label(*about, "op-02") for about in ((TARGETS[1], "exclude", True), (TARGETS[0], "trim", "2-30"))]
        for version, sha in ((1, "aa"), (2, "bb"), (2, "cc")):
            catalog.add_policy(
                session_id="s1", version=version, sha256=sha, learner="hil-serl", task_id="pick-lift", metrics={"loss": 0.1, "x": math.nan}
            )
            evaluate(catalog, version)
        note_uses(catalog, LEARNER, [(made[0].id, made[0].target)], 7, 1000)
        note_version(catalog, LEARNER, 2)
        note_uses(catalog, LEARNER, [(event.id, event.target) for event in made], 9, 2000)
        rebuild_index(workspace, catalog)
    return workspace


def pages(workspace):
    """Everything that a page shows."""
    with Catalog.open(workspace) as catalog:
        labels = Labels(workspace, catalog)
        return {
            "episodes": catalog.episodes(),
            "segments": catalog.segments(limit=None),
            "sessions": catalog.sessions(),
            "policies": [repr(row) for row in catalog.policies()],  # NaN is not itself
            "evaluations": catalog.evaluations(),
            "uses": [labels.uses(target) for target in TARGETS],
            "labels": catalog.labels(TARGETS),
            "history": labels.events_since(0),
            "people": list_people(catalog),
        }


def lose(workspace):
    for path in workspace.path.glob("catalog.sqlite*"):
        path.unlink()


@pytest.mark.parametrize("how", ["repair", "recorder", "rebuild"])
def test_a_lost_catalog_comes_back_page_by_page(lived, how):
    before = pages(lived)
    assert [row.policy_version for row in before["evaluations"]] == [1, 2, 2]
    assert [[use.policy_version for use in uses] for uses in before["uses"]] == [[0], [2], []]
    assert len(before["policies"]) == 2
    if how == "rebuild":
        assert rebuild_catalog(lived) == []
    else:
        lose(lived)
        if how == "repair":
            assert main(["data", "repair", "--workspace", str(lived.path)]) == 0
        else:
            Recorder(lived).close()
    assert pages(lived) == before
    with Catalog.open(lived) as catalog:
        assert verify_workspace(lived, catalog).problems == []
    assert repair(lived).done == []


def test_killed_between_log_and_catalog_both_ways(lived):
    with Catalog.open(lived) as catalog:
        row = catalog.evaluations()[0]
        late = EvaluationRow(**{name: getattr(row, name) for name in row.__struct_fields__} | {"created_ns": row.created_ns + 1})
        append(lived.learning_path, [late])
        (problem,) = verify_workspace(lived, catalog).problems
        assert "learning.jsonl: has 1 rows that the catalog lacks" in problem.text
        assert agree(catalog).entered == 1
        assert catalog.evaluations()[-1] == late
        count = len(read_rows(lived.learning_path)[0])
        lived.learning_path.unlink()  # as in a workspace from before there was this log
        (problem,) = verify_workspace(lived, catalog).problems
        assert "learning.jsonl: lacks 8 rows that the catalog has" in problem.text
        assert (count, agree(catalog).written) == (10, 8)  # a policy that was replaced and a use without its version are history
        assert differing(catalog) == ([], [], {})
    before = pages(lived)
    lose(lived)
    repair(lived)
    assert pages(lived) == before


def test_killed_within_a_line(lived):
    size = lived.learning_path.stat().st_size
    os.truncate(lived.learning_path, size - 10)
    before = pages(lived)
    lose(lived)
    repair(lived)
    assert pages(lived)["uses"] == [[], *before["uses"][1:]]  # the last note was never finished
    with Catalog.open(lived) as catalog:
        evaluate(catalog, 5)
    assert read_rows(lived.learning_path)[1] == {}


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (b"\xc3(", "codec can't decode"),
        (b"[]", "not a map of a row and what it is; known: policy, evaluation, label use"),
        (b'{"what": "evaluation", "row": {"n": 1}}', "missing required field"),
    ],
)
def test_a_broken_line_is_named_and_set_aside(lived, capsys, broken, why):
    where = ["--workspace", str(lived.path)]
    before = pages(lived)
    lines = lived.learning_path.read_bytes().splitlines()
    lived.learning_path.write_bytes(b"\n".join([*lines[:2], broken, *lines[2:], b""]))
    assert main(["data", "verify", *where]) == 1
    said = capsys.readouterr().out
    assert f"{lived.learning_path}: line 3: " in said
    assert why in said
    lose(lived)
    assert main(["data", "repair", *where]) == 0
    assert "learning.jsonl: line 3 cannot be read; set aside in learning.jsonl.broken" in capsys.readouterr().out
    assert (lived.path / "learning.jsonl.broken").read_bytes() == broken + b"\n"
    assert lived.learning_path.read_bytes().splitlines() == lines
    assert pages(lived) == before


def _evaluate_on(workspace, first):
    with Catalog.open(Workspace(workspace.path)) as catalog:
        for version in range(first, first + 15):
            evaluate(catalog, version)


def test_several_processes_note_while_others_compare(lived):
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_evaluate_on, args=(lived, first)) for first in (100, 200)]
    for process in processes:
        process.start()
    with Catalog.open(lived) as catalog:
        while any(process.is_alive() for process in processes):
            agree(catalog)
        assert [process.exitcode for process in processes] == [0, 0]
        found = [row.policy_version for row in catalog.evaluations()]
    assert sorted(found) == sorted([1, 2, 2, *range(100, 115), *range(200, 215)])
    with Catalog.open(lived) as catalog:
        assert differing(catalog) == ([], [], {})
