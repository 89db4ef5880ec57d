"""A task that ends in failure by itself: the bridge ends the episode at that step, as the task's failure."""

from pathlib import Path

from takeover.data.schema import EpisodeKind, Mode, Outcome, OutcomeSource, Privileged
from takeover.robot_bridge.tasks.sort_two_expert import action

from .station import eventually, station


def wrong_way_round(privileged: Privileged) -> tuple[bool, list[float]]:
    """Takes the marks for each other."""
    truth = dict(privileged.values)
    truth["first_mark"], truth["second_mark"] = truth["second_mark"], truth["first_mark"]
    return True, action(truth | {"on_mark": [0.0, 0.0]})


def test_the_wrong_mark_ends_the_episode_as_the_tasks_failure(tmp_path: Path) -> None:
    with station(tmp_path, clock="lockstep", operator="scripted", task="sort-two") as made:
        recorder = made.recorder()
        made.actor()
        operator = made.operator("operator", "scripted")
        operator.answer = wrong_way_round
        operator.take_lease()
        made.start(operator, EpisodeKind.DEMONSTRATION, 1)
        made.until(lambda state: state.block_done == 1 and state.mode is Mode.READY, timeout_s=30.0)
        assert eventually(lambda: len(recorder.ends) == 1)
        end, steps = recorder.ends[0], recorder.steps
    assert (end.outcome, end.outcome_source) == (Outcome.FAILURE, OutcomeSource.TASK)
    assert end.steps == len(steps) < 80
    assert [step.terminated for step in steps] == [False] * (len(steps) - 1) + [True]
    assert steps[-1].reward == 0.0
