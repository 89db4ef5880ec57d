"""Losses and gradients that are not finite: skipped, counted, said, and no longer said once the learner has recovered."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from takeover.data.schema import EpisodeKind, RobotSpec
from takeover.policies.base import LearnerError
from takeover.policies.imitation import ImitationLearner
from takeover.policies.last_good import SKIPS_IN_A_ROW, LastGood
from takeover.policies.registry import make_learner
from takeover.policies.training import RECOVERED_AFTER, Training

from .test_quarantine import LEARNERS, feed, finite, make_training
from .test_resume import FAST, STEPS, demonstration, episode


@pytest.fixture
def spec(make_robot_spec: Callable[..., Any]) -> RobotSpec:
    return make_robot_spec()


def trained(learner: str, make_script: Callable[..., Any]) -> tuple[Training, Any, np.random.Generator]:
    training, _ = make_training(learner)
    script, rng = make_script(), np.random.default_rng(3)
    feed(training, [*demonstration(script, rng), *episode(script, rng)])
    return training, script, rng


def test_a_finite_loss_with_a_gradient_that_is_not_is_a_skipped_update(make_script: Callable[..., Any]) -> None:
    """A mode that has become infinitely narrow says nothing about the loss, and everything about the gradient."""
    learner = ImitationLearner.make("sirius", make_script().spec, 0, FAST["sirius"] | {"min_std": 1e-44, "modes": 5})
    script, rng = make_script(), np.random.default_rng(3)
    for record in demonstration(script, rng):
        if hasattr(record, "kind") and hasattr(record, "spec"):
            learner.begin_episode(record)
        elif hasattr(record, "action"):
            learner.ingest([record])
        else:
            learner.end_episode(record)
    for _ in learner.clone_demonstrations():
        pass
    modes, arm = learner.parameters.modes, 2
    clone = learner._flat.detach().clone()
    with torch.no_grad():
        learner._layout.views(learner._flat)["policy.b2"][modes + modes * arm] = -1e4  # the first mode's first standard deviation
        learner._layout.views(learner._flat)["policy.w2"][:, modes + modes * arm] = 0.0
    before = learner._flat.detach().clone()
    for count in range(1, 5):
        metrics = learner.update()
        assert np.isfinite(metrics["cloning_loss"])
        assert metrics["skipped"] == count
    assert torch.equal(learner._flat, before)
    assert learner.update()["skipped"] == 5
    assert torch.equal(learner._flat, clone), "the last good state"
    assert learner.update()["skipped"] == 5


def test_hil_serl_counts_gradients_that_are_not_finite(make_script: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    training, _, _ = trained("hil-serl", make_script)
    learner: Any = training.learner
    critics = learner._gradients.critics

    def broken(batch: Any) -> Any:
        found = critics(batch)
        learner._gradients.critic_gradient[0] = float("nan")
        return found

    good = {name: tensor.clone() for name, tensor in learner._last_good.state.items()}
    with monkeypatch.context() as patched:
        patched.setattr(learner._gradients, "critics", broken)
        for count in range(1, 6):
            metrics = learner.update()
            assert np.isfinite(metrics["critic_loss"])
            assert metrics["skipped"] == count
    assert torch.equal(learner._critic, good["critic"]), "the last good state"
    assert torch.equal(learner._actor, good["actor"])
    assert learner.update()["skipped"] == 5


@pytest.mark.parametrize("learner", LEARNERS)
def test_what_was_skipped_is_said_until_the_learner_has_recovered(learner: str, make_script: Callable[..., Any]) -> None:
    training, script, rng = trained(learner, make_script)
    made: Any = training.learner
    with torch.no_grad():
        (made._critic if learner == "hil-serl" else made._flat)[0] = float("nan")
    feed(training, episode(script, rng))
    said = "updates were skipped: their loss or gradient was not finite"
    assert said in training.status().text
    assert finite(training)
    assert training.metrics["skipped"] >= 5
    for _ in range(RECOVERED_AFTER // STEPS - 1):
        feed(training, episode(script, rng))
    assert said in training.status().text, "not yet"
    for _ in range(2):
        feed(training, episode(script, rng))
    assert said not in training.status().text
    assert training.metrics["skipped"] >= 5, "it stays counted"


@pytest.mark.parametrize("learner", LEARNERS)
def test_demonstrations_that_are_thrown_away_while_they_are_cloned(learner: str, spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    """In real time records come in while cloning goes on. It used to end the learner."""
    made, script = make_learner(learner, spec, 0, FAST[learner]), make_script(spec)
    records = demonstration(script, np.random.default_rng(3))
    assert records[0].kind is EpisodeKind.DEMONSTRATION
    made.begin_episode(records[0])
    made.ingest(records[1:-1])
    made.end_episode(records[-1])
    cloning = made.clone_demonstrations()
    next(cloning)
    made.exclude("e000")
    with pytest.raises(LearnerError, match="every demonstration was left out while they were cloned"):
        for _ in cloning:
            pass
    assert not made.cloned


def test_updates_skipped_before_a_checkpoint_count_after_it() -> None:
    before, after = LastGood(), LastGood()
    before.state = {"actor": torch.ones(2)}
    assert [before.skip() for _ in range(SKIPS_IN_A_ROW - 1)] == [None] * (SKIPS_IN_A_ROW - 1)
    values = before.values()
    after.restore(values["skipped"], values["skipped_in_a_row"], {"actor": torch.zeros(2), **before.tensors()})
    good = after.skip()
    assert good is not None
    assert torch.equal(good["actor"], torch.ones(2))
    assert after.values() == {"skipped": SKIPS_IN_A_ROW, "skipped_in_a_row": 0}
    assert after.skip() is None, "five in a row again"
    after.restore(7, 0, {"actor": torch.zeros(2)})
    assert after.tensors() == {}
    assert [after.skip() for _ in range(SKIPS_IN_A_ROW)] == [None] * SKIPS_IN_A_ROW, "there is none to go back to"
