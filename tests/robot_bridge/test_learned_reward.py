"""Who ends an episode with success: the task, operators' keys alone, or a learned reward that the actor reports."""

from pathlib import Path

import pytest

from takeover.data.schema import ControlMode, EpisodeKind, Finish, Mode, Observation, Outcome, OutcomeSource, SetOutcome
from takeover.robot_bridge.robots.base import Evaluation
from tests.robot_bridge.station import eventually, station

SAW = 5  # episode step whose observation is called success


def seen(observation: Observation) -> dict[str, object]:
    return {"success": observation.episode_step == SAW, "reward_version": 3, "scores": {"success": 0.9}}


def test_a_learned_success_ends_the_episode_at_the_step_that_led_to_it(tmp_path: Path) -> None:
    with station(tmp_path, clock="lockstep", operator="none", reward="classifier") as made:
        recorder, actor = made.recorder(), made.actor()
        actor.more = seen
        made.start(made.operator(), EpisodeKind.EVALUATION, 1)
        assert eventually(lambda: len(recorder.ends) == 1)
    end, last = recorder.ends[0], recorder.steps[-1]
    assert (end.outcome, end.outcome_source, end.steps, end.event_step) == (Outcome.SUCCESS, OutcomeSource.CLASSIFIER, SAW + 1, SAW - 1)
    assert (last.reward, last.reward_source, last.reward_version, last.terminated, last.truncated) == (0.0, "classifier", 3, False, True)
    assert last.scores == {"success": 0.9}
    assert {step.reward_version for step in recorder.steps[:-1]} == {0}
    assert {step.reward_source for step in recorder.steps[:-1]} == {"none"}  # the task was not asked


@pytest.mark.parametrize("reward", ["task", "keys"])
def test_it_ends_nothing_where_the_station_does_not_say_so(tmp_path: Path, reward: str) -> None:
    with station(tmp_path, clock="lockstep", operator="none", reward=reward) as made:
        recorder, actor = made.recorder(), made.actor()
        actor.more = seen
        operator = made.operator()
        made.start(operator, EpisodeKind.EVALUATION)
        assert eventually(lambda: len(recorder.steps) > SAW + 5)
        assert recorder.ends == []
        assert {step.reward_source for step in recorder.steps} == {"task" if reward == "task" else "none"}
        operator.ask(Finish(sender="console", now=True))
        made.until_mode(Mode.READY)


def test_with_keys_the_task_says_nothing_and_a_key_is_dated_back_by_the_stations_delay(tmp_path: Path) -> None:
    with station(tmp_path, clock="lockstep", operator="none", reward="keys", key_delay_s=0.2) as made:
        made.robot.evaluate = lambda: Evaluation(1.0, True, True)  # type: ignore[method-assign]
        recorder = made.recorder()
        made.actor()
        operator = made.operator()
        made.start(operator, EpisodeKind.EVALUATION, 1)
        assert eventually(lambda: len(recorder.steps) > 12)
        operator.ask(SetOutcome(sender="console", outcome=Outcome.SUCCESS))
        assert eventually(lambda: len(recorder.ends) == 1)
    end = recorder.ends[0]
    assert (end.outcome, end.outcome_source, end.event_step) == (Outcome.SUCCESS, OutcomeSource.OPERATOR, end.steps - 1 - 4)
    steps = [step for step in recorder.steps if step.control_mode not in (ControlMode.PAUSED, ControlMode.SAFETY_HOLD)]
    assert len(steps) == end.steps
    assert not any(step.terminated or step.reward for step in steps[:-1])  # the task's own judgement, success at once, is not heard
