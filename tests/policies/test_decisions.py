"""Decisions about versions: who is trusted and who may act, on real files; torn and broken ones, long ones, a full disk."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from takeover.data import audit
from takeover.policies.decision_watch import DecisionWatch
from takeover.policies.decisions import (
    DecisionConflict,
    DecisionError,
    Kind,
    Standing,
    current_standing,
    decide,
    decisions_path,
    read_decisions,
)
from takeover.policies.publish import Manifest

ROBOT = ("toy", "reach")


def note(workspace: Path, kind: Kind, version: int, author: str = "op-01", reason: str = "", robot: tuple[str, str] = ROBOT) -> None:
    """A decision with evidence that is not easily written twice in the same way."""
    manifest = Manifest(
        version=version,
        parent=0,
        sha256=f"{version:064d}",
        learner="hil-serl",
        architecture="",
        config={},
        swap="step",
        robot_id=robot[0],
        task_id=robot[1],
        observation_names=[],
        action_names=[],
    )
    decide(workspace, [(kind, manifest)], author=author, reason=reason, evidence={"p": 0.1 + 0.2, "n": 7, "text": "ä"})


def follow(workspace: Path, *steps: tuple[Kind, int]) -> Standing:
    for kind, version in steps:
        note(workspace, kind, version)
    return current_standing(workspace, *ROBOT)


def test_without_a_decision_the_newest_acts_and_none_is_trusted(tmp_path: Path) -> None:
    found = current_standing(tmp_path, *ROBOT)
    assert (found.trusted, found.pinned, found.may_act([1, 2, 7]), found.may_act([])) == (0, 0, 7, 0)


def test_promotions_are_trusted_in_their_order(tmp_path: Path) -> None:
    found = follow(tmp_path, ("promoted", 2), ("promoted", 5))
    assert (found.trusted, found.before, found.may_act([2, 5, 9])) == (5, 2, 9)
    assert [d.trusted_before for d in read_decisions(tmp_path)] == [0, 2]


def test_a_refused_version_never_acts_until_a_person_says_so(tmp_path: Path) -> None:
    assert follow(tmp_path, ("refused", 9)).may_act([2, 5, 9]) == 5
    assert follow(tmp_path, ("promoted", 9)).may_act([2, 5, 9]) == 9


def test_a_rollback_pins_until_a_promotion_or_a_release(tmp_path: Path) -> None:
    found = follow(tmp_path, ("promoted", 2), ("promoted", 5), ("rolled_back", 2))
    assert (found.trusted, found.pinned, found.may_act([2, 5, 9])) == (2, 2, 2)
    assert follow(tmp_path, ("released", 2)).may_act([2, 5, 9]) == 9
    follow(tmp_path, ("rolled_back", 2))
    found = follow(tmp_path, ("promoted", 9))
    assert (found.trusted, found.before, found.pinned) == (9, 2, 0)


def test_a_rollback_to_a_version_never_promoted_drops_newer_promotions(tmp_path: Path) -> None:
    found = follow(tmp_path, ("promoted", 2), ("promoted", 7), ("rolled_back", 4))
    assert (found.trusted, found.pinned) == (2, 4)
    assert follow(tmp_path, ("rolled_back", 1)).trusted == 0


def test_robots_and_tasks_have_their_own(tmp_path: Path) -> None:
    note(tmp_path, "promoted", 3)
    note(tmp_path, "rolled_back", 4, robot=("toy", "lift"))
    assert (current_standing(tmp_path, *ROBOT).trusted, current_standing(tmp_path, *ROBOT).pinned) == (3, 0)
    assert current_standing(tmp_path, "toy", "lift").pinned == 4


def test_every_torn_end_is_dropped_and_groups_hold_together(tmp_path: Path) -> None:
    note(tmp_path, "promoted", 1)
    path = decisions_path(tmp_path)
    kept = path.read_bytes()
    manifest = Manifest(
        version=2, parent=1, sha256="2" * 64, learner="", architecture="", config={}, swap="step",
        robot_id="toy", task_id="reach", observation_names=[], action_names=[],
    )  # fmt: skip
    decide(tmp_path, [("refused", manifest), ("rolled_back", manifest)], author="gate", reason="worse")
    whole = path.read_bytes()
    for end in range(len(kept), len(whole)):
        path.write_bytes(whole[:end])
        assert [d.kind for d in read_decisions(tmp_path)] == ["promoted"], end
    note(tmp_path, "promoted", 3)  # after the torn rest was cut off
    assert [(d.number, d.kind) for d in read_decisions(tmp_path)] == [(1, "promoted"), (2, "promoted")]
    path.write_bytes(whole)
    assert [d.kind for d in read_decisions(tmp_path)] == ["promoted", "refused", "rolled_back"]


def test_broken_lines_are_named_and_nothing_is_written_after_them(tmp_path: Path) -> None:
    note(tmp_path, "promoted", 1)
    note(tmp_path, "promoted", 2)
    path = decisions_path(tmp_path)
    whole = path.read_bytes()
    first, second = whole.splitlines(keepends=True)
    for broken, reason in ((b"{}\n" + second, "line 1"), (first + b"\xff\xfe\n", "line 2"), (second + first, "line 2")):
        path.write_bytes(broken)
        with pytest.raises(DecisionError, match=reason):
            read_decisions(tmp_path)
        with pytest.raises(DecisionError, match=reason):
            note(tmp_path, "promoted", 3)
        assert path.read_bytes() == broken


def test_who_decides_on_old_news_is_told(tmp_path: Path) -> None:
    manifest = Manifest(
        version=1, parent=0, sha256="1" * 64, learner="", architecture="", config={}, swap="step",
        robot_id="toy", task_id="reach", observation_names=[], action_names=[],
    )  # fmt: skip
    note(tmp_path, "promoted", 1)
    decide(tmp_path, [("promoted", manifest)], author="gate", reason="", after=1)
    with pytest.raises(DecisionConflict, match="decision 2 came in the meantime"):
        decide(tmp_path, [("refused", manifest)], author="gate", reason="", after=1)


def test_what_cannot_be_written_is_not_decided(tmp_path: Path) -> None:
    note(tmp_path, "undecided", 1)
    assert list(audit.entries(tmp_path)) == []  # it changes nothing
    (tmp_path / audit.FILE).mkdir()
    with pytest.raises(DecisionError, match=r"audit\.log.*nothing was decided"):
        note(tmp_path, "promoted", 2)
    assert [d.kind for d in read_decisions(tmp_path)] == ["undecided"]


def test_a_disk_that_is_full_leaves_the_decisions_as_they_were(tmp_path: Path) -> None:
    note(tmp_path, "promoted", 1)
    before = decisions_path(tmp_path).read_bytes()
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2);" + _NOTE_MANY.replace("\nimport sys\n", "\n")
    )
    limit = len(before) + 20  # the audit log's line fits, the decision does not
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), "2", str(limit)], capture_output=True, text=True, timeout=60)
    assert "File too large; nothing was decided" in done.stderr
    assert [entry["version"] for entry in audit.entries(tmp_path)] == [1, 2]  # it got as far as that
    assert decisions_path(tmp_path).read_bytes() == before


_NOTE_MANY = """
import sys
from takeover.policies.decisions import decide
from takeover.policies.manifest import Manifest
for version in range(int(sys.argv[2]), int(sys.argv[2]) + 10):
    manifest = Manifest(version=version, parent=0, sha256="0" * 64, learner="", architecture="", config={}, swap="step",
                        robot_id="toy", task_id="reach", observation_names=[], action_names=[])
    decide(sys.argv[1], [("promoted", manifest)], author="op-01", reason="")
"""


def test_two_processes_lose_no_decision(tmp_path: Path) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", _NOTE_MANY, str(tmp_path), str(first)]) for first in (1, 101)]
    for process in processes:
        assert process.wait(60) == 0
    found = read_decisions(tmp_path)
    assert [d.number for d in found] == list(range(1, 21))
    assert {d.version for d in found} == {*range(1, 11), *range(101, 111)}


def test_a_long_file_is_followed_at_the_cost_of_what_is_new(tmp_path: Path) -> None:
    from time import perf_counter

    note(tmp_path, "promoted", 1)
    (line,) = read_decisions(tmp_path)
    kinds: list[Kind] = ["promoted", "undecided", "refused", "passed"]
    many = [
        msgspec.structs.replace(line, number=n, group_end=n, version=n, kind=kinds[n % 4], evidence={"text": "x" * 500})
        for n in range(2, 10_001)
    ]
    with decisions_path(tmp_path).open("ab") as file:
        file.write(b"".join(msgspec.json.encode(decision) + b"\n" for decision in many))
    watch = DecisionWatch(tmp_path, *ROBOT)
    assert watch.poll()
    assert watch.standing == current_standing(tmp_path, *ROBOT)
    times = []
    for version in range(10_001, 10_006):
        note(tmp_path, "promoted", version)
        started = perf_counter()
        assert watch.poll()
        times.append(perf_counter() - started)
        assert watch.standing.trusted == version
    assert min(times) < 0.005
    assert watch.standing == current_standing(tmp_path, *ROBOT)
    whole = decisions_path(tmp_path).read_bytes()
    decisions_path(tmp_path).write_bytes(whole[: len(whole) // 2])  # put back from a copy: shorter
    assert watch.poll()
    assert watch.standing == current_standing(tmp_path, *ROBOT)
    decisions_path(tmp_path).write_bytes(b"\n".join(whole.splitlines()[1:4000]) + b"\n")  # a line was taken out, by hand, and more came
    assert watch.poll()
    assert (watch.standing, watch.error) == (current_standing(tmp_path, *ROBOT), "")
    decisions_path(tmp_path).unlink()
    assert watch.poll()
    assert watch.standing == Standing()
