"""A version is run at the control rate it was trained at: the `takeover policy` commands on real versions of a robot at 50 Hz."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from takeover.app.cli import main
from takeover.data.seeding import heldout_start
from takeover.data.workspace import Workspace
from takeover.policies.decisions import read_decisions
from takeover.policies.evaluation import evaluate
from takeover.policies.manifest import MANIFEST_NAME, version_folder
from takeover.policies.outcomes import Outcomes, StartOutcome, conditions_of
from takeover.policies.publish import load_policy, make_manifest, publish, weights_bytes
from takeover.policies.registry import make_learner
from takeover.robot_bridge.robots.sim import SimRobot

from .test_absorption import H, P, record

FAST, SLOW = 50.0, 20.0
NO_NOTE = "has no note of the control rate that it was trained at: run at 20 Hz"


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """Versions 1 and 2 of a robot at 50 Hz, 3 and 4 of one at 20, 5 of before the rate was noted, 6 of a robot at 30."""
    made = Workspace(tmp_path / "ws").prepare()
    for version, hz in enumerate((FAST, FAST, SLOW, SLOW, SLOW, SLOW), 1):
        spec = SimRobot("peg-insert", control_hz=hz).spec
        weights = make_learner("hil-serl", spec, version, {"hidden": 16}).weights()
        fields: dict[str, Any] = {"version": version, "parent": version - 1, "learner": "hil-serl", "swap": "step", "task_parameters": {}}
        data = weights_bytes(weights)
        publish(made.path, make_manifest(weights, data, spec, **fields), data)
    change(made, 5, lambda spaces: spaces.pop("control_hz"))
    change(made, 6, lambda spaces: spaces.update(control_hz=30.0))
    return made


def change(place: Workspace, version: int, what: Any) -> None:
    path = version_folder(place.path, version) / MANIFEST_NAME
    fields = json.loads(path.read_bytes())
    what(fields["spaces"])
    path.write_text(json.dumps(fields))


@pytest.fixture
def recorded(place: Workspace, make_script: Any) -> Workspace:
    """An episode at 50 Hz in which a person took over from version 1."""
    robot = SimRobot("peg-insert", control_hz=FAST)
    record(place, make_script(robot.spec), [P] * 3 + [H] * 12, robot)
    return place


def said(capsys: pytest.CaptureFixture[str], place: Workspace, *argv: str) -> Any:
    assert main(["policy", *argv, "--json", "--workspace", str(place.path)]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], place: Workspace, *argv: str) -> str:
    assert main(["policy", *argv, "--workspace", str(place.path)]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    return found.err


def conditions_in(place: Workspace) -> set[str]:
    path = Outcomes(place.path, "").path
    lines = path.read_bytes().splitlines() if path.exists() else []
    return {msgspec.json.decode(line, type=StartOutcome).conditions for line in lines}


def test_evaluate_runs_at_the_rate_that_is_noted(recorded: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, recorded, "evaluate", "1", "--starts", "2")
    assert (found["control_hz"], found["notes"]) == (FAST, ["run at 50 Hz, as version 1 was trained"])
    robot = SimRobot("peg-insert", control_hz=FAST)
    loaded = load_policy(version_folder(recorded.path, 1), robot.spec)
    expected = evaluate(loaded.policy, robot, [heldout_start(0), heldout_start(1)])
    kept = Outcomes(recorded.path, conditions_of("sim", "peg-insert", FAST, {}))
    assert [kept.get(loaded.manifest.sha256, one.start).steps for one in expected] == [one.steps for one in expected]  # type: ignore[union-attr]
    assert conditions_in(recorded) == {"sim:peg-insert@50"}
    assert main(["policy", "show", "1", "--workspace", str(recorded.path)]) == 0
    assert "50 Hz" in capsys.readouterr().out


def test_two_versions_of_one_rate_are_compared_at_it(recorded: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, recorded, "evaluate", "2", "--against", "1", "--starts", "1")["control_hz"] == FAST
    assert conditions_in(recorded) == {"sim:peg-insert@50"}


def test_retest_and_absorb_run_at_it(recorded: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, recorded, "retest", "2", "--against", "1", "--runs", "1", "--cases", "1")
    assert (found["control_hz"], len(found["cases"]), found["problems"]) == (FAST, 1, [])
    found = said(capsys, recorded, "absorb", "2", "--runs", "1")
    assert (found["control_hz"], found["totals"]["retested"], found["problems"]) == (FAST, 1, [])


def test_what_was_recorded_at_another_rate_is_no_case_and_no_correction(recorded: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    none = "no recorded takeover or failure of sim:peg-insert"
    error = refused(capsys, recorded, "retest", "4", "--against", "3")
    assert none in error
    assert "1 episodes with cases: recorded at another control rate than 20 Hz" in error
    found = said(capsys, recorded, "absorb", "4", "--runs", "1")
    assert found["segments"] == []
    assert "version 1, which acted: version 1 was trained with control_hz 50, this robot's: 20" in found["problems"][0]


def test_a_version_without_a_note_is_run_at_the_robots_own_and_that_is_said(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    (place.path / "episodes").mkdir(exist_ok=True)
    found = said(capsys, place, "evaluate", "5", "--starts", "1")
    assert (found["control_hz"], found["notes"]) == (SLOW, [f"warning: version 5 {NO_NOTE}"])
    found = said(capsys, place, "evaluate", "3", "--starts", "1")
    assert (found["control_hz"], found["notes"]) == (SLOW, []), "the usual one needs no word"
    found = said(capsys, place, "evaluate", "3", "--against", "5", "--starts", "1")
    assert found["notes"] == [f"warning: version 5 {NO_NOTE}"]
    assert conditions_in(place) == {"sim:peg-insert@20"}
    assert main(["policy", "show", "5", "--workspace", str(place.path)]) == 0
    assert "not noted" in capsys.readouterr().out.partition("control rate")[2].splitlines()[0]


def test_other_rates_are_refused_before_anything_runs(recorded: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    both = "version 3 was trained at 20 Hz, version 1 at 50 Hz; no robot has both rates at once"
    assert both in refused(capsys, recorded, "evaluate", "1", "--against", "3", "--starts", "1")
    assert both in refused(capsys, recorded, "retest", "1", "--against", "3")
    unknown = "version 1 was trained at 50 Hz, version 5 at 20 Hz, as nothing else is noted"
    assert unknown in refused(capsys, recorded, "evaluate", "5", "--against", "1", "--starts", "1")
    none = "version 6 was trained at 30 Hz; the simulated robot runs at 20, 50, 100 Hz"
    for command in ("evaluate", "retest", "absorb"):
        assert none in refused(capsys, recorded, command, "6")
    assert conditions_in(recorded) == set()


def test_what_is_promoted_must_fit_the_rate_at_which_the_robot_recorded_last(
    recorded: Workspace, make_script: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, recorded, "promote", "1")
    said(capsys, recorded, "rollback", "2")
    assert "version 3 was trained with control_hz 20, this robot's: 50" in refused(capsys, recorded, "promote", "3")
    slow, script = SimRobot("peg-insert"), make_script(SimRobot("peg-insert").spec, "session-b")
    script.number = 9  # a later one by its name
    record(recorded, script, [P] * 3, slow)
    said(capsys, recorded, "promote", "3")
    assert "version 1 was trained with control_hz 50, this robot's: 20" in refused(capsys, recorded, "rollback", "1")
    assert [decision.version for decision in read_decisions(recorded.path)] == [1, 2, 3]
    recorded.catalog_path.write_bytes(b"damaged")
    said(capsys, recorded, "promote", "4")


def test_where_nothing_was_recorded_the_robots_own_rate_counts(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    (place.path / "episodes").mkdir(exist_ok=True)
    said(capsys, place, "promote", "3")
    assert "this robot's: 20" in refused(capsys, place, "promote", "1")


def test_that_a_rate_is_not_noted_is_said_of_what_is_promoted_too(
    place: Workspace, make_script: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (place.path / "episodes").mkdir(exist_ok=True)
    own = "warning: version 5 has no note of the control rate that it was trained at: it acts at the robot's, 20 Hz"
    assert said(capsys, place, "promote", "3")["notes"] == []
    found = said(capsys, place, "promote", "5")
    assert (found["version"], found["notes"]) == (5, [own])
    assert main(["policy", "rollback", "3", "--workspace", str(place.path)]) == 0
    assert "warning" not in capsys.readouterr().out
    assert main(["policy", "rollback", "5", "--workspace", str(place.path)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == own
    assert said(capsys, place, "rollback", "--release")["notes"] == [], "the newest acts, not version 5"
    change(place, 5, lambda spaces: spaces.pop("action_scale"))  # as old manifests: another rate has another scale
    fast = SimRobot("peg-insert", control_hz=FAST)
    record(place, make_script(fast.spec), [P] * 3, fast)
    assert said(capsys, place, "rollback", "5")["notes"] == [own.replace("20 Hz", "50 Hz")]
