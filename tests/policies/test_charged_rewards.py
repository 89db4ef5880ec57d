"""What a step was charged for, gripper toggles and takeovers, stays in its reward whoever says how the episode ended."""

from collections.abc import Callable
from typing import Any

import pytest

from takeover.data.episode_labels import EpisodeLabels
from takeover.data.schema import ControlMode, EpisodeKind, Outcome, OutcomeSource
from takeover.policies.replay import CorrectionReplay
from takeover.policies.takeover_marks import TakeoverMarks

P, H = ControlMode.POLICY, ControlMode.HUMAN
KEEP, CLOSE = [0.0, 0.0], [0.0, -1.0]
COST = 0.02


@pytest.fixture
def script(make_robot_spec: Callable[..., Any], make_script: Callable[..., Any]) -> Any:
    return make_script(make_robot_spec(arm=1, gripper=True))


def rows(buffer: Any, replay: CorrectionReplay) -> list[tuple[float, float]]:
    """(reward, mask) of each row, oldest first."""
    found = buffer.rows[: buffer.size, [replay.columns.reward, replay.columns.mask]].tolist()
    return [(pytest.approx(reward, abs=1e-6), mask) for reward, mask in found]


def recorded(script: Any, source: OutcomeSource, outcome: Outcome, mode: ControlMode = P, **options: Any) -> CorrectionReplay:
    """Four steps of which the third closes the gripper, and an outcome that is dated back to it."""
    replay = CorrectionReplay(script.spec, gripper_penalty=COST, **options)
    replay.begin_episode(script.start())
    for action in (KEEP, KEEP, CLOSE, KEEP):
        replay.add(script.step(mode, action=action))
    replay.end_episode(script.end(outcome, source, event_step=2))
    return replay


@pytest.mark.parametrize("mode", [P, H])
@pytest.mark.parametrize("source", [OutcomeSource.OPERATOR, OutcomeSource.CLASSIFIER, OutcomeSource.LABEL])
@pytest.mark.parametrize(("outcome", "reward"), [(Outcome.SUCCESS, 1.0), (Outcome.FAILURE, 0.0)])
def test_the_gripper_cost_stays_on_the_step_that_a_key_or_a_classifier_ends(
    script: Any, source: OutcomeSource, outcome: Outcome, reward: float, mode: ControlMode
) -> None:
    replay = recorded(script, source, outcome, mode)
    wanted = [(0.0, 1.0), (0.0, 1.0), (reward - COST, 0.0)]
    assert rows(replay.online, replay) == wanted
    assert rows(replay.demonstrations, replay) == (wanted if mode == H else [])


def test_the_gripper_cost_stays_through_labels_and_when_they_are_taken_back(script: Any) -> None:
    replay = recorded(script, OutcomeSource.LIMIT, Outcome.FAILURE)
    plain = [(0.0, 1.0), (0.0, 1.0), (-COST, 1.0), (0.0, 1.0)]
    assert rows(replay.online, replay) == plain
    for outcome, reward in ((Outcome.SUCCESS, 1.0), (Outcome.FAILURE, 0.0)):
        replay.relabel("e000", outcome, 2)
        assert rows(replay.online, replay)[2] == (reward - COST, 0.0)
    replay.apply_labels(EpisodeLabels(episode_id="e000", outcome=Outcome.FAILURE, event_step=3))
    assert sorted(rows(replay.online, replay), key=str) == sorted(plain, key=str)


def test_a_success_key_is_worth_as_much_as_the_tasks_own_end(script: Any) -> None:
    found = []
    for by_task in (True, False):
        replay = CorrectionReplay(script.spec, gripper_penalty=COST)
        replay.begin_episode(script.start())
        ends = {"reward": 1.0, "terminated": True} if by_task else {}
        replay.add(script.step(action=CLOSE, **ends))
        replay.end_episode(script.end(Outcome.SUCCESS, OutcomeSource.TASK if by_task else OutcomeSource.OPERATOR))
        found.append(replay.online.rows[0, [replay.columns.reward, replay.columns.mask]].tolist())
    assert found[0] == found[1]  # to the bit


def test_a_demonstration_that_a_key_ends_keeps_it_too(script: Any) -> None:
    replay = CorrectionReplay(script.spec, gripper_penalty=COST)
    replay.begin_episode(script.start(EpisodeKind.DEMONSTRATION))
    for action in (KEEP, CLOSE):
        replay.add(script.step(H, action=action))
    replay.end_episode(script.end(Outcome.SUCCESS, OutcomeSource.OPERATOR))
    assert rows(replay.demonstrations, replay) == [(0.0, 1.0), (1.0 - COST, 0.0)]


@pytest.mark.parametrize("task_reward", [True, False])
def test_the_reward_of_a_takeover_stays_beside_the_cost(script: Any, task_reward: bool) -> None:
    """The policy closes the gripper, somebody takes over, and then says that it had been done at that step."""
    replay = CorrectionReplay(script.spec, gripper_penalty=COST, marks=TakeoverMarks(-0.5), task_reward=task_reward)
    replay.begin_episode(script.start())
    for mode, action in ((P, KEEP), (P, CLOSE), (H, KEEP), (H, KEEP)):
        replay.add(script.step(mode, action=action))
    replay.end_episode(script.end(Outcome.SUCCESS, OutcomeSource.OPERATOR, event_step=1))
    assert rows(replay.online, replay) == [(0.0, 1.0), (float(task_reward) - 0.5 - COST, 0.0)]
    replay.relabel("e000", Outcome.FAILURE, 1)
    assert rows(replay.online, replay)[1] == (-0.5 - COST, 0.0)
