"""The switch ``progress_reward`` of hil-serl: what it adds, when, and that it resumes exactly."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from takeover.data.episode_labels import EpisodeLabels
from takeover.data.schema import ControlMode, EpisodeKind, Outcome, OutcomeSource, RobotSpec
from takeover.policies.base import LearnerError
from takeover.policies.progress_reward import ProgressReward
from takeover.policies.publish import weights_bytes
from takeover.policies.registry import make_learner

SMALL = {"hidden": 16, "batch": 64, "clone_updates": 30, "critic_warmup": 5, "learning_starts": 5, "keep_warm_start": False}
LENGTH = 20


@pytest.fixture
def spec(make_robot_spec: Callable[..., Any]) -> RobotSpec:
    return make_robot_spec(observation=3, arm=2, max_steps=30)


def drive(target: Any, script: Any, kind: EpisodeKind, outcome: Outcome = Outcome.SUCCESS) -> str:
    """An episode in which the first observation counts down to the goal."""
    target.begin_episode(script.start(kind))
    mode = ControlMode.HUMAN if kind == EpisodeKind.DEMONSTRATION else ControlMode.POLICY
    for index in range(LENGTH):
        last = index == LENGTH - 1
        here, there = (0.05 * (LENGTH - at) for at in (index, index + 1))
        won = last and outcome == Outcome.SUCCESS
        fields = {"observation": [here, 0.0, 0.0], "next_observation": [there, 0.0, 0.0], "reward": float(won), "terminated": won}
        target.ingest([script.step(mode, **fields)])
    target.end_episode(script.end(outcome, OutcomeSource.TASK if outcome == Outcome.SUCCESS else OutcomeSource.LIMIT))
    return str(script.episode_id)


def learner_of(spec: RobotSpec, script: Any, **more: Any) -> Any:
    learner = make_learner("hil-serl", spec, 0, SMALL | more)
    for _ in range(6):
        drive(learner, script, EpisodeKind.DEMONSTRATION)
    assert list(learner.clone_demonstrations())[-1] == 1.0
    for _ in range(3):
        drive(learner, script, EpisodeKind.POLICY)
    return learner


def test_each_step_earns_the_fall_of_the_steps_to_go(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    shaping = ProgressReward(spec, 2.0, 0)
    script = make_script(spec)
    for _ in range(6):
        drive(shaping, script, EpisodeKind.DEMONSTRATION)
    assert list(shaping.fit())[-1] == 1000
    learner = make_learner("hil-serl", spec, 0, SMALL)
    drive(learner, script, EpisodeKind.POLICY)
    buffer, columns = learner.replay.online, learner.replay.columns
    plain = buffer.rows[:LENGTH].clone()
    shaped = shaping.shape(plain.clone(), columns)
    extra = shaped[:, columns.reward] - plain[:, columns.reward]
    assert (extra[2:-2] > 0.0).all()  # every step comes nearer
    assert float(extra.sum()) == pytest.approx(2.0 * LENGTH / 30, abs=0.15)  # from 20 steps to go to none, of a limit of 30
    others = [i for i in range(plain.shape[1]) if i != columns.reward]
    assert torch.equal(shaped[:, others], plain[:, others])
    assert torch.equal(buffer.rows[:LENGTH], plain)  # the replay keeps the recorded reward


def test_off_it_changes_nothing_and_on_it_changes_the_weights(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    found = []
    for more in ({}, {"progress_reward": 0.0}, {"progress_reward": 1.0}):
        learner = learner_of(spec, make_script(spec), **more)
        for _ in range(5):
            learner.update()
        found.append(weights_bytes(learner.weights()))
    assert found[0] == found[1] != found[2]


def test_a_restored_learner_goes_on_to_the_same_weights(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    script = make_script(spec)
    learner = learner_of(spec, script, progress_reward=1.0)
    learner.update()
    state = learner.state()
    other = make_learner("hil-serl", spec, 0, SMALL | {"progress_reward": 1.0})
    again = make_script(spec)
    for kind in [EpisodeKind.DEMONSTRATION] * 6 + [EpisodeKind.POLICY] * 3:
        drive(other, again, kind)
    other.restore(state)
    for one in (learner, other):
        for _ in range(4):
            one.update()
    assert weights_bytes(learner.weights()) == weights_bytes(other.weights())
    assert torch.equal(learner.state()["tensors"]["critic"], other.state()["tensors"]["critic"])


def test_labels_and_too_few_demonstrations(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner, script = make_learner("hil-serl", spec, 0, SMALL | {"progress_reward": 1.0}), make_script(spec)
    names = [drive(learner, script, EpisodeKind.DEMONSTRATION) for _ in range(6)]
    learner.apply_labels(EpisodeLabels(episode_id=names[0], excluded=True))
    learner.relabel(names[1], Outcome.FAILURE, 9)
    with pytest.raises(LearnerError, match=r"progress_reward = 1\.0: 4 successful episodes; steps to go needs 5"):
        list(learner.clone_demonstrations())
    with pytest.raises(ValueError, match=r"progress_reward = -1\.0; allowed 0\.\.100"):
        make_learner("hil-serl", spec, 0, {"progress_reward": -1})
