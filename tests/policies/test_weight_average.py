"""Imitation learners that publish an average of their weights: the right one, also after a restart, and without learning anything else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from takeover.data.schema import ControlMode, EpisodeKind, RobotSpec
from takeover.policies.base import LearnerError
from takeover.policies.imitation import ImitationLearner
from takeover.policies.learner_run import LearnerRun
from takeover.policies.registry import make_learner

from .test_resume import FAST, Stream, demonstration, differences, episode, make_run, state_of, take

__all__ = ["make_run"]  # a fixture

P, H = ControlMode.POLICY, ControlMode.HUMAN
SMALL: dict[str, Any] = {"hidden": 16, "batch": 32, "clone_updates": 20, "learning_starts": 5}


@pytest.fixture
def spec(make_robot_spec: Callable[..., Any]) -> RobotSpec:
    return make_robot_spec(observation=4, arm=2)


def cloned(spec: RobotSpec, script: Any, name: str = "hg-dagger", **settings: Any) -> ImitationLearner:
    """With an episode to learn from, which a person has corrected."""
    learner = ImitationLearner.make(name, spec, 0, SMALL | settings)
    for kind, modes in ((EpisodeKind.DEMONSTRATION, [H] * 30), (EpisodeKind.POLICY, [P] * 20 + [H] * 20)):
        learner.begin_episode(script.start(kind))
        learner.ingest([script.step(mode, observation=[0.1 * i, 0.2, -0.1, 0.3]) for i, mode in enumerate(modes)])
        learner.end_episode(script.end())
        if kind == EpisodeKind.DEMONSTRATION:
            for _ in learner.clone_demonstrations():
                pass
    return learner


def published(learner: ImitationLearner) -> torch.Tensor:
    tensors = learner.weights().tensors
    return learner._layout.pack({name: tensor for name, tensor in tensors.items() if not name.startswith("normaliser.")})


@pytest.mark.parametrize("name", ["sirius", "iwr", "hg-dagger", "bc"])
def test_the_average_begins_with_the_clone_and_follows_every_update(name: str, spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner = cloned(spec, make_script(spec), name, average_horizon=4)
    expected = learner._flat.detach().clone()
    assert torch.equal(published(learner), expected), "version 1 is the clone"
    for _ in range(10):
        learner.update()
        expected += (learner._flat.detach() - expected) / 4
    assert torch.allclose(published(learner), expected, atol=1e-6)
    assert (published(learner) - learner._flat.detach()).abs().max() > 1e-5


def test_what_is_learned_is_the_same_and_without_averaging_it_is_published(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learners = [cloned(spec, make_script(spec), average_horizon=horizon) for horizon in (0, 1, 50)]
    for learner in learners:
        for _ in range(20):
            learner.update()
    off, one, many = learners
    assert torch.equal(off._flat, many._flat)
    assert torch.equal(published(off), off._flat.detach())
    assert torch.equal(published(one), one._flat.detach())
    assert not torch.equal(published(many), many._flat.detach())
    assert "average" not in off.state()["tensors"]


def test_a_restored_learner_publishes_the_same_to_the_bit(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    first, second = (cloned(spec, make_script(spec), average_horizon=7) for _ in range(2))
    for _ in range(10):
        first.update()
    second.restore(first.state())
    assert torch.equal(published(first), published(second))
    for learner in (first, second):
        for _ in range(10):
            learner.update()
    assert torch.equal(published(first), published(second))


def test_a_resumed_run_ends_at_the_same_bits(tmp_path: Path, make_run: Callable[..., LearnerRun], make_script: Callable[..., Any]) -> None:
    settings = {"learner_parameters": FAST["sirius"] | {"average_horizon": 7}}

    def records() -> list[Any]:
        script, rng = make_script(), np.random.default_rng(7)
        return [*demonstration(script, rng), *episode(script, rng), *episode(script, rng), *episode(script, rng)]

    plain, stream = make_run(tmp_path / "plain", "sirius", **settings), Stream(tmp_path / "plain")
    take(plain, stream.commit(records()))
    stream.recorder.close()

    folder, cut = tmp_path / "restarted", len(records()) - 20
    run, stream = make_run(folder, "sirius", **settings), Stream(folder)
    take(run, stream.commit(records()[:cut]))
    run.checkpoint()
    run.close()
    run = make_run(folder, "sirius", **settings)
    run.resume()
    take(run, stream.commit(records()[cut:]))
    stream.recorder.close()
    assert "average" in run.training.need_learner().state()["tensors"]
    assert differences(state_of(plain), state_of(run)) == []


def test_the_last_good_state_has_its_average(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner = cloned(spec, make_script(spec), average_horizon=4)
    clone = published(learner)
    for _ in range(10):
        learner.update()
    with torch.no_grad():
        learner._flat[0] = float("nan")
    learner._average.follow()
    for _ in range(5):
        learner.update()
    assert torch.equal(published(learner), clone)


@pytest.mark.parametrize(("value", "said"), [(-1, "allowed 0..1e\\+06"), (1_000_001, "allowed 0..1e\\+06"), (0.5, "expected int")])
def test_horizons_out_of_range_are_refused(value: Any, said: str, spec: RobotSpec) -> None:
    with pytest.raises(ValueError, match=f"average_horizon = {value}; {said}"):
        make_learner("hg-dagger", spec, 0, {"average_horizon": value})


def test_a_saved_run_does_not_change_over_by_itself(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    state = cloned(spec, make_script(spec)).state()
    with pytest.raises(LearnerError, match="average_horizon was 0 and is 7"):
        cloned(spec, make_script(spec), average_horizon=7).restore(state)
