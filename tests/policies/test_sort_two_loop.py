"""A task that can end in failure (`sort-two`), in the loop of the benchmarks and in what the learner makes of it."""

import numpy as np
import pytest

from benchmarks.expert import measure
from benchmarks.inprocess_loop import Loop
from benchmarks.sample_efficiency import main
from takeover.app.operators.scripted import OperatorDecision
from takeover.data.schema import EpisodeEnd, EpisodeKind, Outcome, OutcomeSource, Privileged, RunConfig, Step
from takeover.robot_bridge.tasks.sort_two_expert import action


def config(**settings: object) -> RunConfig:
    about = {"session_id": "t", "workspace": "", "sockets": "", "task": "sort-two", "learner": "bc", "operator": "scripted"}
    return RunConfig(**(about | {"clock": "lockstep", "demonstrations": 5} | settings))


class TakesTheVioletOneFirst:
    """Drives as the expert would if the order were the other one."""

    def decide(self, privileged: Privileged) -> OperatorDecision:
        truth = dict(privileged.values)
        for one, two in (("first_cube_pose", "second_cube_pose"), ("first_mark", "second_mark")):
            truth[one], truth[two] = truth[two], truth[one]
        width, command, first, second = truth["gripper"]
        truth |= {"gripper": [width, command, second, first], "on_mark": truth["on_mark"][::-1]}
        return OperatorDecision(True, action(truth), reason="demonstration")


def test_a_failure_ends_the_episode_for_the_learner_too(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop(config())
    loop.operator = TakesTheVioletOneFirst()  # type: ignore[assignment]
    fed: list[object] = []
    monkeypatch.setattr(loop.training, "handle", fed.append)
    found = loop.episode(EpisodeKind.DEMONSTRATION, 0)
    assert not found["success"]
    assert found["steps"] < 80
    steps, ends = [r for r in fed if isinstance(r, Step)], [r for r in fed if isinstance(r, EpisodeEnd)]
    assert [step.terminated for step in steps] == [False] * (len(steps) - 1) + [True]
    assert not any(step.truncated for step in steps)
    assert sum(step.reward for step in steps) == 0.0
    assert (ends[0].outcome, ends[0].outcome_source) == (Outcome.FAILURE, OutcomeSource.TASK)


def test_a_hand_demonstrates_it() -> None:
    loop = Loop(config(demonstrations=100))
    found = [loop.episode(EpisodeKind.DEMONSTRATION, number) for number in range(12)]
    assert sum(episode["success"] for episode in found) >= 11
    assert np.mean([episode["steps"] for episode in found]) < 95
    assert loop.holds == 0


def test_the_experts_benchmark_counts_successes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """An expert that gets the order wrong ends its episodes early, and has not succeeded."""
    assert measure("sort-two", 3)["successes"] == 3
    wrong = TakesTheVioletOneFirst()

    def mistaken(_: object, truth: dict[str, list[float]]) -> list[float]:
        return wrong.decide(_Seen(truth)).action  # type: ignore[arg-type]

    monkeypatch.setattr("takeover.robot_bridge.tasks.sort_two.SortTwo.expert", mistaken)
    assert measure("sort-two", 3)["successes"] == 0


class _Seen:
    def __init__(self, values: dict[str, list[float]]) -> None:
        self.values = values


def test_the_comparison_knows_the_task(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    """A grid without a finished cell says so; a task that is not known, or a setting it does not have, is said before."""
    where = ["--tasks", "sort-two", "--cells", "0", "--out", str(tmp_path)]
    assert main([*where, "--set", "task.mark_range_m=0.01"]) == 2
    assert "no cell is finished" in capsys.readouterr().err
    assert main([*where, "--set", "task.clearance_m=0.01"]) == 2
    assert "sort-two: unknown task parameter 'clearance_m'; known: cube_range_m" in capsys.readouterr().err
