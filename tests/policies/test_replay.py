"""Replay: each fault found in other learners' buffers has its test here."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from takeover.data.schema import ControlMode, EpisodeKind, Outcome, OutcomeSource
from takeover.policies.gripper_cost import GripperCost
from takeover.policies.replay import CorrectionReplay
from takeover.policies.transition_buffer import TransitionBuffer


@pytest.fixture
def replay(make_robot_spec: Callable[..., Any]) -> CorrectionReplay:
    return CorrectionReplay(make_robot_spec())


def observations(buffer: TransitionBuffer) -> list[float]:
    return buffer.rows[: buffer.size, 0].tolist()


def test_human_steps_go_to_both_buffers_and_policy_steps_only_online(replay: CorrectionReplay, make_script: Callable[..., Any]) -> None:
    script = make_script(replay.spec)
    replay.begin_episode(script.start())
    for mode in (ControlMode.POLICY, ControlMode.TRANSITION, ControlMode.HUMAN, ControlMode.HUMAN, ControlMode.POLICY):
        replay.add(script.step(mode))
    replay.end_episode(script.end())
    assert observations(replay.online) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert observations(replay.demonstrations) == [2.0, 3.0]
    assert (replay.train_steps, replay.human_steps) == (5, 2)


def test_applied_action_is_stored_not_the_asked_or_human_one(replay: CorrectionReplay, make_script: Callable[..., Any]) -> None:
    script = make_script(replay.spec)
    replay.begin_episode(script.start())
    replay.add(script.step(ControlMode.TRANSITION, action=[0.1, -0.2], asked_action=[0.9, 0.9], human_action=[1.0, 1.0]))
    assert replay.online.rows[0, replay.columns.action].tolist() == pytest.approx([0.1, -0.2])


@pytest.mark.parametrize("held", [ControlMode.PAUSED, ControlMode.SAFETY_HOLD])
def test_held_steps_are_skipped_and_nothing_is_read_across_them(
    replay: CorrectionReplay, make_script: Callable[..., Any], held: ControlMode
) -> None:
    script = make_script(replay.spec)
    replay.begin_episode(script.start())
    replay.add(script.step())
    assert not replay.add(script.step(held))
    replay.add(script.step(run_id=1))
    assert observations(replay.online) == [0.0, 2.0]
    following = replay.online.rows[:2, replay.columns.next_observation][:, 0].tolist()
    assert following == [0.5, 2.5]  # each step's own successor, not the next row
    assert replay.online.rows[:2, replay.columns.mask].tolist() == [1.0, 1.0]  # a hold is no end


@pytest.mark.parametrize(("terminated", "truncated", "mask"), [(True, False, 0.0), (False, True, 1.0), (False, False, 1.0)])
def test_timeouts_bootstrap_and_success_does_not(
    replay: CorrectionReplay, make_script: Callable[..., Any], terminated: bool, truncated: bool, mask: float
) -> None:
    script = make_script(replay.spec)
    replay.begin_episode(script.start())
    replay.add(script.step(terminated=terminated, truncated=truncated))
    replay.end_episode(
        script.end(Outcome.SUCCESS if terminated else Outcome.FAILURE, OutcomeSource.TASK if terminated else OutcomeSource.LIMIT)
    )
    assert replay.online.rows[0, replay.columns.mask].item() == mask


def test_a_demonstration_counts_when_it_is_complete_and_not_discarded(replay: CorrectionReplay, make_script: Callable[..., Any]) -> None:
    script = make_script(replay.spec)
    for discarded in (False, True):
        replay.begin_episode(script.start(EpisodeKind.DEMONSTRATION))
        replay.add(script.step(ControlMode.TRANSITION))
        replay.add(script.step(ControlMode.HUMAN))
        assert replay.demonstrations.size == 0 if not discarded else replay.demonstrations.size == 1
        replay.end_episode(script.end(discarded=discarded))
    assert (replay.demonstration_episodes, replay.demonstrations.size, replay.online.size) == (1, 1, 1)
    assert observations(replay.demonstrations) == [1.0]  # the ramp is no imitation target
    assert replay.train_steps == 0


def test_a_failed_demonstration_is_experience_but_not_imitated(replay: CorrectionReplay, make_script: Callable[..., Any]) -> None:
    script = make_script(replay.spec)
    replay.begin_episode(script.start(EpisodeKind.DEMONSTRATION))
    replay.add(script.step(ControlMode.HUMAN))
    replay.end_episode(script.end(Outcome.FAILURE, OutcomeSource.LIMIT))
    assert (replay.demonstrations.size, replay.online.size) == (0, 1)


def test_evaluation_episodes_are_never_trained_on(replay: CorrectionReplay, make_script: Callable[..., Any]) -> None:
    script = make_script(replay.spec)
    replay.begin_episode(script.start(EpisodeKind.EVALUATION))
    assert not replay.add(script.step())
    assert replay.online.size == 0


def test_an_excluded_episode_leaves_both_buffers_at_once(replay: CorrectionReplay, make_script: Callable[..., Any]) -> None:
    script = make_script(replay.spec)
    for name in ("keep", "drop", "late"):
        replay.begin_episode(script.start(episode_id=name))
        replay.add(script.step(ControlMode.POLICY))
        replay.add(script.step(ControlMode.HUMAN))
        replay.end_episode(script.end())
    assert replay.exclude("drop") == 3
    assert observations(replay.online) == [0.0, 1.0, 4.0, 5.0]
    assert observations(replay.demonstrations) == [1.0, 5.0]
    rows, _ = replay.sample(512, torch.Generator().manual_seed(0))
    assert not set(rows[:, 0].tolist()) & {2.0, 3.0}


def test_an_operators_late_success_is_dated_back(replay: CorrectionReplay, make_script: Callable[..., Any]) -> None:
    script = make_script(replay.spec)
    replay.begin_episode(script.start())
    for _ in range(4):
        replay.add(script.step())
    replay.end_episode(script.end(Outcome.SUCCESS, OutcomeSource.OPERATOR, event_step=2))
    assert observations(replay.online) == [0.0, 1.0, 2.0]
    assert replay.online.rows[:3, replay.columns.reward].tolist() == [0.0, 0.0, 1.0]
    assert replay.online.rows[:3, replay.columns.mask].tolist() == [1.0, 1.0, 0.0]
    replay.relabel("e000", Outcome.FAILURE, 2)
    assert replay.online.rows[2, replay.columns.reward].item() == 0.0


def test_ring_overwrites_the_oldest_and_drop_keeps_the_order() -> None:
    buffer = TransitionBuffer(4, 1)
    for i in range(6):
        buffer.add(torch.tensor([float(i)]), episode=i % 2, step=i)
    assert sorted(observations(buffer)) == [2.0, 3.0, 4.0, 5.0]
    buffer.drop(buffer.of_episode(0))
    assert observations(buffer) == [3.0, 5.0]
    buffer.add(torch.tensor([9.0]), episode=7, step=9)
    assert observations(buffer) == [3.0, 5.0, 9.0]


def test_ring_grows_to_its_capacity_without_losing_rows() -> None:
    buffer = TransitionBuffer(10_000, 1)
    for i in range(9_000):
        buffer.add(torch.tensor([float(i)]), episode=0, step=i)
    assert np.array_equal(np.array(observations(buffer)), np.arange(9_000, dtype=np.float32))


def test_batches_are_half_demonstrations_and_the_newest_correction_is_in_the_next_one(
    replay: CorrectionReplay, make_script: Callable[..., Any]
) -> None:
    script = make_script(replay.spec)
    replay.begin_episode(script.start())
    for mode in [ControlMode.HUMAN] * 3000 + [ControlMode.POLICY] * 3000:
        replay.add(script.step(mode))
    generator = torch.Generator().manual_seed(1)
    rows, n = replay.sample(256, generator)
    assert n == 128
    assert replay.corrections_used() == [("e000", 0)]
    assert (rows[:n, 0] < 3000).all()
    replay.add(script.step(ControlMode.HUMAN, intervention_id=1))
    rows, n = replay.sample(8, generator)
    assert rows[0, 0].item() == 6000.0
    assert replay.corrections_used() == [("e000", 1)]
    assert replay.corrections_used() == []


def test_sampling_nothing_says_so(replay: CorrectionReplay) -> None:
    with pytest.raises(ValueError, match="nothing to sample"):
        replay.sample(4, torch.Generator())


def test_gripper_cost_is_charged_only_when_the_state_changes(make_robot_spec: Callable[..., Any]) -> None:
    cost = GripperCost(make_robot_spec(arm=1, gripper=True), 0.02)
    cost.begin_episode()
    commands = [0.0, 1.0, -1.0, -1.0, 0.0, 1.0]  # keep, open while open, close, close again, keep, open
    assert [cost.of([0.0, command]) for command in commands] == [0.0, 0.0, 0.02, 0.0, 0.0, 0.02]


def test_gripper_cost_on_the_last_step_is_kept(make_robot_spec: Callable[..., Any], make_script: Callable[..., Any]) -> None:
    spec = make_robot_spec(arm=1, gripper=True)
    replay = CorrectionReplay(spec, gripper_penalty=0.02)
    script = make_script(spec)
    replay.begin_episode(script.start())
    replay.add(script.step(action=[0.0, -1.0], reward=1.0, terminated=True))
    assert replay.online.rows[0, replay.columns.reward].item() == pytest.approx(0.98)


def test_another_robots_episode_is_refused(
    replay: CorrectionReplay, make_script: Callable[..., Any], make_robot_spec: Callable[..., Any]
) -> None:
    with pytest.raises(ValueError, match="another observation or action space"):
        replay.begin_episode(make_script(make_robot_spec(observation=5)).start())


def test_a_classifiers_end_is_dated_back_like_a_key(make_robot_spec, make_script):
    spec, script = make_robot_spec(), make_script()
    replay = CorrectionReplay(spec)
    replay.begin_episode(script.start())
    for _ in range(5):
        replay.add(script.step())
    replay.add(script.step(truncated=True))  # the step in which the state before it was called success
    replay.end_episode(script.end(Outcome.SUCCESS, OutcomeSource.CLASSIFIER, event_step=4))
    rows = replay.online.rows[: replay.online.size]
    assert rows[:, replay.columns.reward].tolist() == [0.0] * 4 + [1.0]
    assert rows[:, replay.columns.mask].tolist() == [1.0] * 4 + [0.0]
