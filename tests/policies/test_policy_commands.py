"""`takeover policy ls|show|promote|rollback` on real files: what they print, write and refuse."""

import json
from pathlib import Path
from typing import Any

import pytest

from takeover.app.cli import main
from takeover.app.commands.options import StationOptions, make_config
from takeover.data import audit
from takeover.data.catalog import Catalog
from takeover.data.workspace import Workspace
from takeover.policies import pruning
from takeover.policies.decisions import current_standing, decisions_path, read_decisions
from takeover.policies.publish import WEIGHTS_NAME, make_manifest, publish, version_folder, weights_bytes
from takeover.policies.registry import make_learner
from takeover.robot_bridge.robots.sim import SimRobot

PEG = ("sim", "peg-insert")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with versions 1 to 3 for peg-insert and 4 for pick-lift; copied by `workspace`."""
    folder = tmp_path_factory.mktemp("published")
    Workspace(folder).prepare()
    for version, task in ((1, "peg-insert"), (2, "peg-insert"), (3, "peg-insert"), (4, "pick-lift")):
        spec = SimRobot(task).spec
        weights = make_learner("hil-serl", spec, version, {"hidden": 16}).weights()
        data = weights_bytes(weights)
        manifest = make_manifest(weights, data, spec, version=version, parent=version - 1, learner="hil-serl", swap="step")
        publish(folder, manifest, data)
        if version == 2:
            with Catalog.open(folder) as catalog:
                catalog.add_evaluation(
                    session_id="s", policy_version=2, policy_sha256=manifest.sha256, task_id=task, protocol="heldout", successes=7, n=10
                )
                catalog.add_evaluation(
                    session_id="s", policy_version=2, policy_sha256=manifest.sha256, task_id=task, protocol="retest", successes=1, n=5
                )
    return folder


@pytest.fixture
def workspace(tmp_path: Path, published: Path) -> Path:
    import shutil

    return Path(shutil.copytree(published, tmp_path / "ws"))


def said(capsys: pytest.CaptureFixture[str], workspace: Path, *argv: str) -> Any:
    """JSON of a command that succeeds."""
    assert main(["policy", *argv, "--json", "--workspace", str(workspace)]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], workspace: Path, *argv: str) -> str:
    before = decisions_path(workspace).read_bytes() if decisions_path(workspace).exists() else None
    assert main(["policy", *argv, "--workspace", str(workspace)]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert (decisions_path(workspace).read_bytes() if decisions_path(workspace).exists() else None) == before
    return printed.err


def test_promote_and_rollback_are_written_listed_and_audited(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = said(capsys, workspace, "promote", "2", "--by", "op-07", "--reason", "does not scratch")
    assert (made["kind"], made["version"], made["author"], made["reason"]) == ("promoted", 2, "op-07", "does not scratch")
    rows = {row["version"]: row for row in said(capsys, workspace, "ls")["policies"]}
    assert {version: row["marks"] for version, row in rows.items()} == {1: [], 2: ["trusted"], 3: ["acts"], 4: ["acts"]}
    assert (rows[2]["successes"], rows[2]["n"]) == (7, 10)  # the held-out ones, not the retest
    assert said(capsys, workspace, "rollback")["version"] == 2  # to the trusted one
    rows = {row["version"]: row for row in said(capsys, workspace, "ls")["policies"]}
    assert (rows[2]["marks"], rows[3]["marks"]) == (["trusted", "pinned", "acts"], [])
    assert said(capsys, workspace, "rollback", "--release")["kind"] == "released"
    assert said(capsys, workspace, "show", "2")["marks"] == ["trusted"]
    assert [entry["what"] for entry in audit.entries(workspace)] == ["policy_promoted", "policy_rolled_back", "policy_released"]
    assert next(audit.entries(workspace))["who"] == "op-07"
    assert read_decisions(workspace)[1].author == "op-01"  # the station's person


def test_a_rollback_from_the_trusted_one_goes_to_the_one_before(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, workspace, "promote", "1")
    said(capsys, workspace, "promote", "3")
    assert said(capsys, workspace, "rollback")["version"] == 1
    assert current_standing(workspace, *PEG).trusted == 1
    assert "already" in refused(capsys, workspace, "rollback", "1")


def test_where_only_a_person_holds_the_robot_it_is_said_that_nothing_is_trusted(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, workspace, "rollback", "1", "--by", "op-07")
    held = "no version is trusted; the robot is held to version 1, by op-07: compare with it by its number"
    for command in ("evaluate", "probes", "retest"):
        assert held in refused(capsys, workspace, command, "2", "--against", "trusted")
    (note,) = said(capsys, workspace, "rollback", "--release")["notes"]
    assert note.startswith("no version is trusted: the next one that the gate looks at is trusted without a comparison")
    said(capsys, workspace, "promote", "1")
    said(capsys, workspace, "rollback", "2")
    said(capsys, workspace, "promote", "2")
    said(capsys, workspace, "rollback", "1")
    assert said(capsys, workspace, "rollback", "--release")["notes"] == []


def test_tables_name_what_holds(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, workspace, "promote", "2", "--reason", "tried")
    assert main(["policy", "ls", "--workspace", str(workspace)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "7 of 10" in line)
    assert "trusted" in line
    assert main(["policy", "show", "2", "--workspace", str(workspace)]) == 0
    shown = capsys.readouterr().out
    for words in ("version 2: trusted", "7 of 10 (40 to 89 %)", "retest", "1 of 5", "by op-01: tried"):
        assert words in shown


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["promote", "9"], "no policy version 9"),
        (["show", "9"], "published: 1 to 4"),
        (["rollback", "9"], "no policy version 9"),
        (["promote", "4"], "version 4 is for sim:pick-lift, this station's robot is sim:peg-insert"),
        (["rollback", "4"], "name another with --robot"),
        (["rollback"], "no version is trusted; name the version"),
        (["rollback", "--release"], "no rollback holds"),
        (["promote", "1", "--robot", "ur5"], "unknown robot 'ur5'"),
        (["promote", "1", "--reason", "x" * 501], "at most 500"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(workspace: Path, capsys: pytest.CaptureFixture[str], argv: list[str], reason: str) -> None:
    assert reason in refused(capsys, workspace, *argv)


def test_another_robot_can_be_named(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, workspace, "promote", "4", "--robot", "sim:pick-lift")
    assert (current_standing(workspace, "sim", "pick-lift").trusted, current_standing(workspace, *PEG).trusted) == (4, 0)


def test_a_version_whose_weights_were_pruned_is_marked_and_not_run(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "AT_ONCE", 1)
    with Catalog.open(workspace) as catalog:
        pruner = pruning.Pruner(workspace, catalog)
        for _ in range(2):  # looks for the newest, then at the oldest
            assert pruner.work(2, 0, PEG)
    assert {row["version"]: row["marks"] for row in said(capsys, workspace, "ls")["policies"]} == {
        1: ["weights pruned"],
        2: [],
        3: ["acts"],
        4: ["acts"],
    }
    assert said(capsys, workspace, "show", "1")["marks"] == ["weights pruned"]
    assert main(["policy", "show", "1", "--workspace", str(workspace)]) == 0
    assert "version 1: weights pruned" in capsys.readouterr().out
    for argv in (
        "promote 1",
        "rollback 1",
        "evaluate 1",
        "evaluate 3 --against 1",
        "retest 1 --against 3",
        "retest 3 --against 1",
        "absorb 1",
    ):
        text = refused(capsys, workspace, *argv.split())
        assert f"the weights of version 1 were pruned, {version_folder(workspace, 1)} keeps its manifest alone" in text, argv
        assert "`takeover policy ls` does not mark so" in text


@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_damaged_weights_are_not_decided_for(workspace: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    path = version_folder(workspace, 2) / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:-4] + b"\x00\x00\xc0\x7f")
    assert "version 2 must not act" in refused(capsys, workspace, command, "2")
    path.unlink()
    assert "cannot read" in refused(capsys, workspace, command, "2")


def test_a_damaged_manifest_is_named_and_the_others_are_listed(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (version_folder(workspace, 2) / "manifest.json").write_text("{")
    assert main(["policy", "ls", "--json", "--workspace", str(workspace)]) == 0
    printed = capsys.readouterr()
    assert [row["version"] for row in json.loads(printed.out)["policies"]] == [1, 3, 4]
    assert str(version_folder(workspace, 2)) in printed.err
    assert "manifest.json" in refused(capsys, workspace, "promote", "2")


def test_broken_decisions_are_named_not_overwritten(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decisions_path(workspace).write_text("nonsense\n")
    for argv in (["ls"], ["show", "1"], ["promote", "1"], ["rollback", "1"]):
        assert "decisions.jsonl, line 1" in refused(capsys, workspace, *argv)


# --- evaluate: the real simulator ---


def test_evaluate_alone_counts_as_the_evaluator_does_and_runs_nothing_twice(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from takeover.data.seeding import heldout_start
    from takeover.policies.evaluation import evaluate
    from takeover.policies.outcomes import Outcomes, conditions_of
    from takeover.policies.publish import load_policy

    found = said(capsys, workspace, "evaluate", "1", "--starts", "2")
    robot = SimRobot("peg-insert")
    loaded = load_policy(version_folder(workspace, 1), robot.spec)
    expected = evaluate(loaded.policy, robot, [heldout_start(0), heldout_start(1)])
    assert (found["n"], found["successes"]) == (2, sum(outcome.success for outcome in expected))
    kept = Outcomes(workspace, conditions_of("sim", "peg-insert", 20.0, {}))
    assert [kept.get(loaded.manifest.sha256, o.start).steps for o in expected] == [o.steps for o in expected]  # type: ignore[union-attr]
    lines = kept.path.read_bytes()
    said(capsys, workspace, "evaluate", "1", "--starts", "2")
    assert kept.path.read_bytes() == lines
    with Catalog.open(workspace) as catalog:
        assert [(row.protocol, row.n) for row in catalog.evaluations() if row.policy_version == 1] == [("heldout", 2), ("heldout", 2)]


def test_evaluate_against_the_trusted_one_decides_only_when_asked(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, workspace, "promote", "1")
    found = said(capsys, workspace, "evaluate", "2", "--against", "trusted", "--starts", "1")
    assert (found["trusted"], found["verdict"], found["decisions"]) == (1, "insufficient evidence", [])
    found = said(capsys, workspace, "evaluate", "2", "--against", "trusted", "--starts", "1", "--decide", "--by", "op-07")
    assert [(d["kind"], d["version"], d["author"]) for d in found["decisions"]] == [("undecided", 2, "op-07")]
    with Catalog.open(workspace) as catalog:
        assert [row.n for row in catalog.evaluations() if row.protocol == "paired"] == [1, 1]


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["9"], "no policy version 9"),
        (["1", "--starts", "201"], "1 to 200"),
        (["1", "--against", "best"], "--against best: a version's number, or trusted"),
        (["1", "--against", "trusted"], "no version is trusted"),
        (["1", "--against", "1"], "against itself"),
        (["1", "--against", "9"], "no policy version 9"),
        (["1", "--decide"], "--decide needs --against trusted"),
        (["1", "--against", "2", "--alpha", "1.5"], "alpha_worse = 1.5"),
        (["1", "--against", "2", "--margin", "0"], "margin = 0"),
        (["4"], "version 4 is for sim:pick-lift, this robot is sim:peg-insert"),
    ],
)
def test_evaluations_that_cannot_be_are_refused(workspace: Path, capsys: pytest.CaptureFixture[str], argv: list[str], reason: str) -> None:
    assert reason in refused(capsys, workspace, "evaluate", *argv)


def test_the_gate_can_be_left_to_people(tmp_path: Path) -> None:
    assert make_config(StationOptions(workspace=str(tmp_path)), operator="none").gate
    assert not make_config(StationOptions(workspace=str(tmp_path), gate="off"), operator="none").gate
