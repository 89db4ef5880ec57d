"""Retest: cases from real episode files, exact states in the real simulator, verdicts, what is kept, what cannot be run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from takeover.app.cli import main
from takeover.data.catalog import Catalog
from takeover.data.entry import entry_of
from takeover.data.episode_file import write_episode
from takeover.data.episode_schema import EpisodeRecords
from takeover.data.labels import Labels
from takeover.data.schema import ControlMode, EpisodeKind, Outcome
from takeover.data.seeding import stream
from takeover.data.statistics import wilson
from takeover.data.workspace import Workspace
from takeover.policies.evaluation import EvaluationCancelled, drive
from takeover.policies.publish import LoadedPolicy, load_policy, make_manifest, publish, version_folder, weights_bytes
from takeover.policies.registry import make_learner
from takeover.policies.retest import Case, KeptRuns, difference_interval, find_cases, retest, run_case, verdict_of
from takeover.robot_bridge.robots.base import RobotError
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.robots.sim_state import reseeded

STEPS, ONSET = 8, 3


@pytest.fixture(scope="module")
def robot() -> SimRobot:
    return SimRobot("peg-insert")


@pytest.fixture
def workspace(tmp_path: Path, make_script: Callable[..., Any], robot: SimRobot) -> Workspace:
    """Two versions; one episode that a person took over at step 3 and that failed, one without help that succeeded."""
    place = Workspace(tmp_path / "ws").prepare()
    for version in (1, 2):
        weights = make_learner("hil-serl", robot.spec, version, {"hidden": 16}).weights()
        data = weights_bytes(weights)
        manifest = make_manifest(weights, data, robot.spec, version=version, parent=version - 1, learner="hil-serl", swap="step")
        publish(place.path, manifest, data)
    enter(place, make_script(robot.spec), robot, [(Outcome.FAILURE, True), (Outcome.SUCCESS, False)])
    return place


def enter(
    place: Workspace, script: Any, robot: SimRobot, episodes: list[tuple[Outcome, bool]], kind: EpisodeKind = EpisodeKind.POLICY
) -> None:
    """Record them: how each ends, and whether a person helped."""
    for outcome, helped in episodes:
        robot.reset(7)
        start, steps = script.start(kind), []
        for index in range(STEPS):
            state = robot.save()
            mode = ControlMode.HUMAN if helped and index >= ONSET else ControlMode.POLICY
            steps.append(script.step(mode, sim_state=state, observation=robot.read().observation.tolist()))
            robot.apply(np.array([0.3, -0.2, -0.5, 0.1]))
            robot.advance()
        end = script.end(outcome, takeovers=int(helped), human_steps=helped * (STEPS - ONSET), autonomous=not helped)
        episode = EpisodeRecords(start=start, steps=steps, end=end)
        path, digest, size = write_episode(place, episode)
        entry = entry_of(episode, path.relative_to(place.path).as_posix(), digest, size)
        with Catalog.open(place) as catalog:
            catalog.add_episode(entry.session, entry.episode, entry.segments)


def cases_of(workspace: Workspace, problems: list[str] | None = None, **changes: Any) -> list[Case]:
    spec = msgspec.structs.replace(SimRobot("peg-insert").spec, **changes)
    return list(find_cases(workspace, spec, problems if problems is not None else []))


def loaded(workspace: Workspace, version: int, robot: SimRobot) -> LoadedPolicy:
    return load_policy(version_folder(workspace.path, version), robot.spec)


def test_every_takeover_and_failure_is_a_case_with_its_exact_state(workspace: Workspace, robot: SimRobot) -> None:
    cases = cases_of(workspace)
    assert [(case.episode_id, case.seq, case.kind) for case in cases] == [("e000", ONSET, "takeover"), ("e000", STEPS - 1, "failure")]
    robot.reset(7)
    for _ in range(ONSET):
        robot.apply(np.array([0.3, -0.2, -0.5, 0.1]))
        robot.advance()
    expected = robot.read().observation
    robot.reset(99)
    robot.restore(cases[0].state)
    assert np.array_equal(robot.read().observation, expected)


def test_a_probe_that_failed_is_a_case(workspace: Workspace, make_script: Callable[..., Any], robot: SimRobot) -> None:
    before = len(cases_of(workspace))
    script = make_script(robot.spec, session="session-b")
    script.number = 1
    enter(workspace, script, robot, [(Outcome.FAILURE, False), (Outcome.SUCCESS, False)], EpisodeKind.EVALUATION)
    added = [case for case in cases_of(workspace) if case.episode_id == "e002"]
    assert [(case.kind, case.seq >= 0) for case in added] == [("failure", True)]
    assert len(cases_of(workspace)) == before + 1


def test_episodes_of_another_control_rate_give_no_case_and_are_counted(workspace: Workspace) -> None:
    problems: list[str] = []
    assert cases_of(workspace, problems, control_hz=50.0) == []
    assert problems == ["1 episodes with cases: recorded at another control rate than 50 Hz"]


def test_excluded_episodes_and_other_robots_give_no_case(workspace: Workspace) -> None:
    assert cases_of(workspace, robot_id="arm") == []
    with Catalog.open(workspace) as catalog:
        Labels(workspace, catalog).add_label("e000", "exclude", True, "op-01")
    assert cases_of(workspace) == []


def test_a_damaged_file_is_named_and_the_rest_goes_on(workspace: Workspace) -> None:
    (path,) = workspace.episodes.rglob("e000.hdf5")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    problems: list[str] = []
    assert cases_of(workspace, problems) == []
    assert "e000" in problems[0]


def test_other_noise_changes_nothing_but_the_noise(workspace: Workspace, robot: SimRobot) -> None:
    state = cases_of(workspace)[0].state
    seen = []
    for made in (state, reseeded(state, stream(3, "a", 1)), reseeded(state, stream(3, "a", 1)), reseeded(state, stream(3, "a", 2))):
        robot.restore(made)
        first = robot.read().observation
        robot.advance()
        seen.append((first.tolist(), robot.data.qpos.tolist(), robot.read().observation.tolist()))
    assert seen[1] == seen[2]
    assert [entry[:2] for entry in seen] == [seen[0][:2]] * 4
    assert len({json.dumps(entry[2]) for entry in seen}) == 3
    for wrong in (b"", state[:-8], b"x" + state[1:]):
        with pytest.raises(RobotError, match="noise cannot be varied"):
            reseeded(wrong, stream(3, "a", 1))


def test_runs_count_as_a_plain_loop_does_and_are_run_once(workspace: Workspace, robot: SimRobot) -> None:
    case, policy, kept = cases_of(workspace)[0], loaded(workspace, 1, robot), KeptRuns(workspace.path)
    found = run_case(policy, robot, case, 2, 20, kept, reseeded)
    expected = []
    for state in (case.state, reseeded(case.state, stream(case.seq, f"retest-{case.episode_id}", 1))):
        robot.restore(state)
        expected.append(drive(policy.policy, robot, 20)[0])
    assert (kept.get(case, policy.manifest.sha256, 20), found) == (expected, sum(expected))
    size = kept.path.stat().st_size
    kept.path.write_bytes(kept.path.read_bytes() + b'{"torn')
    again = KeptRuns(workspace.path)
    assert again.unreadable == 1
    run_case(policy, robot, case, 2, 20, again, reseeded)
    assert kept.path.stat().st_size == size + 6  # nothing was run
    run_case(policy, robot, case, 3, 20, again, reseeded)
    assert len(KeptRuns(workspace.path).get(case, policy.manifest.sha256, 20)) == 3


def test_a_state_that_does_not_fit_is_named_and_the_others_are_run(workspace: Workspace, robot: SimRobot) -> None:
    good = cases_of(workspace)[0]
    bad = Case("e777", 5, "takeover", 1, good.state[:-8])
    policies = [loaded(workspace, version, robot) for version in (1, 2)]
    result = retest(policies[0], policies[1], robot, [bad, good], KeptRuns(workspace.path), reseeded, runs=1)
    assert [row.case.name for row in result.cases] == [good.name]
    assert "episode e777, step 5: simulator state of" in result.problems[0]
    with pytest.raises(EvaluationCancelled, match="1 of 2"):
        retest(*policies, robot, [good, bad], KeptRuns(workspace.path), reseeded, runs=1, on_progress=lambda done, total: False)
    with pytest.raises(ValueError, match="0 runs"):
        retest(*policies, robot, [good], KeptRuns(workspace.path), reseeded, runs=0)


@pytest.mark.parametrize(
    ("old", "new", "n", "verdict"),
    [
        (0, 10, 10, "fixed"),
        (0, 6, 10, "fixed"),
        (0, 4, 10, "not fixed"),  # better, but it still fails more often than not
        (0, 2, 10, "not fixed"),
        (5, 7, 10, "not fixed"),
        (10, 3, 10, "worse"),
        (10, 10, 10, "nothing to fix"),
        (10, 9, 10, "nothing to fix"),
        (0, 1, 1, "not fixed"),  # one run proves nothing
    ],
)
def test_verdicts(old: int, new: int, n: int, verdict: str) -> None:
    assert verdict_of(old, new, n) == verdict
    low, high = difference_interval(old, new, n)
    assert -1.0 <= low <= (new - old) / n <= high <= 1.0


def test_the_interval_holds_the_true_difference() -> None:
    generator = np.random.default_rng(1)
    old, new = generator.binomial(10, 0.3, 2000), generator.binomial(10, 0.7, 2000)
    inside = [low <= 0.4 <= high for low, high in (difference_interval(int(a), int(b), 10) for a, b in zip(old, new, strict=True))]
    assert 0.93 <= np.mean(inside) <= 0.99


def test_the_command_prints_stores_and_refuses(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*argv: str) -> int:
        return main(["policy", "retest", *argv, "--workspace", str(workspace.path)])

    assert run("2", "--against", "1", "--runs", "1", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["episode_id"], row["step"], row["runs"], row["verdict"]) for row in found["cases"]] == [
        ("e000", ONSET, 1, found["cases"][0]["verdict"]),
        ("e000", STEPS - 1, 1, found["cases"][1]["verdict"]),
    ]
    assert found["old"]["n"] == found["new"]["n"] == 2
    with Catalog.open(workspace) as catalog:
        stored = [(row.policy_version, row.n) for row in catalog.evaluations() if row.protocol == "retest"]
    assert stored == [(1, 2), (2, 2)]
    assert run("2", "--against", "1", "--runs", "1", "--cases", "1") == 0
    assert "takeover" in capsys.readouterr().out
    for argv, reason in (
        (["2"], "no version is trusted"),
        (["2", "--against", "best"], "--against best"),
        (["9", "--against", "1"], "no policy version 9"),
        (["2", "--against", "1", "--runs", "0"], "0 runs per case"),
        (["2", "--against", "1", "--cases", "-1"], "--cases -1"),
    ):
        assert run(*argv) == 2
        assert reason in capsys.readouterr().err
    for path in workspace.episodes.rglob("*.hdf5"):
        path.unlink()
    assert run("2", "--against", "1") == 2
    assert "no recorded takeover or failure" in capsys.readouterr().err


def test_kept_runs_survive_as_json_lines(workspace: Workspace) -> None:
    kept = KeptRuns(workspace.path)
    case = Case("e1", 4, "takeover", 1, b"")
    kept.put(case, "a" * 64, 100, [True, False])
    (line,) = kept.path.read_bytes().splitlines()
    assert msgspec.json.decode(line)["successes"] == [True, False]
    assert KeptRuns(workspace.path).get(case, "b" * 64, 100) == []


def test_the_rate_of_all_cases_counts_cases_not_runs(workspace: Workspace, robot: SimRobot) -> None:
    cases = cases_of(workspace)
    policies = [loaded(workspace, version, robot) for version in (1, 2)]
    kept = KeptRuns(workspace.path)
    for policy, successes in zip(policies, (0, 1), strict=True):
        for case in cases:
            kept.put(case, policy.manifest.sha256, robot.spec.max_steps, [bool(successes)] * 50)
    result = retest(policies[0], policies[1], robot, cases, kept, reseeded, runs=50)
    assert [row.verdict for row in result.cases] == ["fixed", "fixed"]
    assert result.rate("old") == (0, 100, *wilson(0, 2))
    assert result.rate("new") == (100, 100, *wilson(2, 2))
