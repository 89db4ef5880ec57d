"""A version is judged at the task parameters it was trained at: `takeover policy evaluate|retest|absorb` on real versions."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from takeover.app.cli import main
from takeover.data.catalog import Catalog
from takeover.data.recorder import Recorder
from takeover.data.schema import EpisodeKind, ParameterSpec
from takeover.data.seeding import heldout_start
from takeover.data.workspace import Workspace
from takeover.policies.evaluation import evaluate
from takeover.policies.manifest import MANIFEST_NAME, read_manifest, version_folder
from takeover.policies.outcomes import Outcomes, StartOutcome, conditions_of
from takeover.policies.publish import load_policy, make_manifest, publish, weights_bytes
from takeover.policies.registry import make_learner
from takeover.policies.retest import CaseRuns
from takeover.robot_bridge.robots.sim import SimRobot

from .test_absorption import H, P, record
from .test_learner_run import commit, demonstration, policy_episode, take

TIGHT = {"clearance_m": 0.0012}


@pytest.fixture
def place(tmp_path: Path, make_script: Any) -> Workspace:
    """Versions 1 and 2 for a tight peg, 3 for the usual one, 4 of before it was noted; an episode that was taken over from 1."""
    made = Workspace(tmp_path / "ws").prepare()
    robot = SimRobot("peg-insert", TIGHT)
    for version, trained in ((1, TIGHT), (2, TIGHT), (3, {}), (4, None)):
        weights = make_learner("hil-serl", robot.spec, version, {"hidden": 16}).weights()
        data = weights_bytes(weights)
        fields: dict[str, Any] = {"version": version, "parent": version - 1, "learner": "hil-serl", "swap": "step"}
        publish(made.path, make_manifest(weights, data, robot.spec, task_parameters=trained, **fields), data)
    old = version_folder(made.path, 4) / MANIFEST_NAME
    fields = json.loads(old.read_bytes())
    assert fields.pop("task_parameters") is None
    old.write_text(json.dumps(fields))
    record(made, make_script(robot.spec), [P] * 3 + [H] * 12, robot)
    return made


def said(capsys: pytest.CaptureFixture[str], place: Workspace, *argv: str) -> Any:
    assert main(["policy", *argv, "--json", "--workspace", str(place.path)]) == 0
    return json.loads(capsys.readouterr().out)


def printed(capsys: pytest.CaptureFixture[str], place: Workspace, *argv: str) -> str:
    assert main(["policy", *argv, "--workspace", str(place.path)]) == 0
    return capsys.readouterr().out


def conditions_in(place: Workspace) -> set[str]:
    lines = Outcomes(place.path, "").path.read_bytes().splitlines()
    return {msgspec.json.decode(line, type=StartOutcome).conditions for line in lines}


def test_evaluate_runs_what_the_version_was_trained_at(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, place, "evaluate", "1", "--starts", "2")
    robot = SimRobot("peg-insert", TIGHT)
    loaded = load_policy(version_folder(place.path, 1), robot.spec)
    expected = evaluate(loaded.policy, robot, [heldout_start(0), heldout_start(1)])
    kept = Outcomes(place.path, conditions_of("sim", "peg-insert", 20.0, TIGHT))
    assert [kept.get(loaded.manifest.sha256, one.start).steps for one in expected] == [one.steps for one in expected]  # type: ignore[union-attr]
    assert conditions_in(place) == {"sim:peg-insert@20 clearance_m=0.0012"}
    assert found["task_parameters"] == TIGHT
    assert found["notes"] == ["judged at clearance_m=0.0012, as version 1 was trained"]
    assert "judged at clearance_m=0.0012, as version 1 was trained\nversion 1: " in printed(capsys, place, "evaluate", "1", "--starts", "2")


def test_the_usual_ones_need_no_word_and_older_versions_say_what_is_not_known(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, place, "evaluate", "3", "--starts", "1")
    assert (found["task_parameters"], found["notes"]) == ({}, [])
    found = said(capsys, place, "evaluate", "4", "--starts", "1")
    assert found["task_parameters"] == {}
    assert "version 4 has no note of the task parameters that it was trained at" in found["notes"][0]
    assert conditions_in(place) == {"sim:peg-insert@20"}
    assert "clearance_m=0.0012" in printed(capsys, place, "show", "1")
    assert "the task's own parameters" in printed(capsys, place, "show", "3")
    assert "not noted" in printed(capsys, place, "show", "4")


def test_others_can_be_asked_for_with_a_warning_and_count_apart(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, place, "evaluate", "1", "--starts", "1", "--set", "clearance_m=0.003")
    assert "warning: judged at clearance_m=0.003 (--set); version 1 was trained at clearance_m=0.0012" in text
    text = printed(capsys, place, "evaluate", "4", "--starts", "1", "--set", "task.friction=0.6", "clearance_m=0.003")
    assert "warning: judged at clearance_m=0.003,friction=0.6 (--set); version 4 was trained at parameters that were not noted" in text
    assert conditions_in(place) == {"sim:peg-insert@20 clearance_m=0.003", "sim:peg-insert@20 clearance_m=0.003,friction=0.6"}
    with Catalog.open(place) as catalog:
        assert [row.protocol for row in catalog.evaluations()] == ["heldout clearance_m=0.003", "heldout clearance_m=0.003,friction=0.6"]
    assert [row["n"] for row in said(capsys, place, "ls")["policies"]] == [None] * 4


def test_two_versions_are_compared_at_those_of_the_first(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, place, "evaluate", "1", "--against", "3", "--starts", "1")
    assert found["task_parameters"] == TIGHT
    assert found["notes"][1] == "warning: version 3 was trained at the task's own parameters"
    assert conditions_in(place) == {"sim:peg-insert@20 clearance_m=0.0012"}
    assert len(said(capsys, place, "evaluate", "1", "--against", "2", "--starts", "1")["notes"]) == 1
    said(capsys, place, "promote", "3")
    found = said(capsys, place, "evaluate", "1", "--against", "trusted", "--starts", "1")
    assert (found["trusted"], found["notes"][1]) == (3, "warning: version 3 was trained at the task's own parameters")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("clearance=0.002", "clearance"),
        ("learner.batch=3", "only parameters of the task"),
        ("clearance_m=wide", "a number is expected"),
        ("clearance_m", "expected GROUP.NAME=VALUE"),
        ("clearance_m=5", "clearance_m"),
    ],
)
def test_parameters_that_cannot_be_are_refused(place: Workspace, capsys: pytest.CaptureFixture[str], given: str, reason: str) -> None:
    assert main(["policy", "evaluate", "1", "--starts", "1", "--set", given, "--workspace", str(place.path)]) == 2
    found = capsys.readouterr()
    assert (found.out, reason in found.err) == ("", True)


def runs_of(place: Workspace) -> list[CaseRuns]:
    return [msgspec.json.decode(line, type=CaseRuns) for line in (place.path / "policies" / "retests.jsonl").read_bytes().splitlines()]


def test_retests_are_run_and_kept_by_parameters(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("retest", "2", "--against", "1", "--runs", "1", "--cases", "1")
    assert said(capsys, place, *argv)["task_parameters"] == TIGHT
    assert [one.conditions for one in runs_of(place)] == ["clearance_m=0.0012"] * 2
    said(capsys, place, *argv)
    assert len(runs_of(place)) == 2, "nothing is run twice"
    assert "warning: judged at clearance_m=0.004 (--set)" in printed(capsys, place, *argv, "--set", "clearance_m=0.004")
    assert [one.conditions for one in runs_of(place)][2:] == ["clearance_m=0.004"] * 2, "what was run at others does not count here"


def test_absorption_is_retested_at_them(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, place, "absorb", "2", "--runs", "1")
    assert (found["task_parameters"], found["totals"]["retested"]) == (TIGHT, 1)
    assert {one.conditions for one in runs_of(place)} == {"clearance_m=0.0012"}
    assert "judged at clearance_m=0.0012, as version 2 was trained" in printed(capsys, place, "absorb", "2", "--runs", "1")


def test_the_learner_notes_what_its_newest_episode_had(recorder: Recorder, make_run: Any, make_script: Any, make_robot_spec: Any) -> None:
    parameter = {"unit": "m", "low": 0.0, "high": 1.0}
    known = [ParameterSpec(name="clearance_m", nominal=0.0015, **parameter), ParameterSpec(name="friction", nominal=0.6, **parameter)]
    script = make_script(msgspec.structs.replace(make_robot_spec(), parameters=known))
    run = make_run()
    for clearance, records in ((0.0015, demonstration(script)), (0.0012, policy_episode(script))):
        start = msgspec.structs.replace(records[0], parameters={"clearance_m": clearance, "friction": 0.6})
        take(run, commit(recorder, [start, *records[1:]]))
        run.training.publish(0)
    probe = msgspec.structs.replace(script.start(EpisodeKind.EVALUATION), parameters={"clearance_m": 0.2, "friction": 0.6})
    take(run, commit(recorder, [probe]))
    run.training.publish(0)
    noted = [read_manifest(version_folder(run.workspace, version)).task_parameters for version in (1, 2)]
    newest = [read_manifest(version_folder(run.workspace, version)).task_parameters for version, _ in run.training.versions[-2:]]
    assert noted == [{}, {}]
    assert newest == [TIGHT, TIGHT], "nobody learns from an evaluation"
