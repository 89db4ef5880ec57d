"""Switches of hil-serl: RLIF, pre-takeover weighting, one buffer, residual. Each does what it says, and nothing when it is off."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from takeover.data.episode_labels import EpisodeLabels
from takeover.data.schema import ControlMode, EpisodeKind, Outcome, OutcomeSource, RobotSpec
from takeover.policies.base import PolicyRefused
from takeover.policies.inference import build_policy
from takeover.policies.publish import weights_bytes
from takeover.policies.registry import make_learner

P, T, H = ControlMode.POLICY, ControlMode.TRANSITION, ControlMode.HUMAN
SMALL = {"hidden": 16, "batch": 64, "clone_updates": 60, "critic_warmup": 10, "learning_starts": 5, "keep_warm_start": False}


@pytest.fixture
def spec(make_robot_spec: Callable[..., Any]) -> RobotSpec:
    return make_robot_spec(observation=4, arm=2)


def episode(learner: Any, script: Any, kind: EpisodeKind, steps: list[Any], **end: Any) -> None:
    """``steps``: modes, or (mode, changes)."""
    learner.begin_episode(script.start(kind))
    for one in steps:
        mode, changes = one if isinstance(one, tuple) else (one, {})
        learner.ingest([script.step(mode, **changes)])
    learner.end_episode(script.end(**({"outcome": Outcome.FAILURE, "source": OutcomeSource.LIMIT} | end)))


def rewards(learner: Any) -> list[float]:
    buffer = learner.replay.online
    return buffer.rows[: buffer.size, learner.replay.columns.reward].tolist()


END = (P, {"reward": 1.0, "terminated": True})


def test_rlif_punishes_the_policys_last_step_before_each_takeover(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    steps = [P, P, T, H, P, P, P, H, END]
    plain, rlif, added = (
        make_learner("hil-serl", spec, 0, SMALL | more)
        for more in ({}, {"takeover_reward": -1.0, "task_reward": False}, {"takeover_reward": -0.5})
    )
    for learner in (plain, rlif, added):
        episode(learner, make_script(spec), EpisodeKind.POLICY, steps, outcome=Outcome.SUCCESS, source=OutcomeSource.TASK)
    assert rewards(plain) == [0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert rewards(rlif) == [0, -1, 0, 0, 0, 0, -1, 0, 0]
    assert rewards(added) == [0, -0.5, 0, 0, 0, 0, -0.5, 0, 1]
    masks = rlif.replay.online.rows[:9, rlif.replay.columns.mask].tolist()
    assert masks == [1] * 8 + [0]  # a success is an end, though it earns nothing


def test_rlif_reaches_nothing_across_a_hold_or_an_episode(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner, script = make_learner("hil-serl", spec, 0, SMALL | {"takeover_reward": -1.0}), make_script(spec)
    episode(learner, script, EpisodeKind.POLICY, [P, P, ControlMode.PAUSED, (H, {"run_id": 1})])
    episode(learner, script, EpisodeKind.POLICY, [H, H])
    episode(learner, script, EpisodeKind.DEMONSTRATION, [H, H])
    assert rewards(learner) == [0.0] * 7


def test_rlif_without_the_tasks_reward_keeps_it_out_of_labels_too(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    found = []
    for more in ({}, {"takeover_reward": -1.0, "task_reward": False}):
        learner = make_learner("hil-serl", spec, 0, SMALL | more)
        episode(learner, make_script(spec), EpisodeKind.POLICY, [P, P, H, H])
        learner.apply_labels(EpisodeLabels(episode_id="e000", outcome=Outcome.SUCCESS, event_step=3, relabelled=True))
        found.append(rewards(learner))
    assert found == [[0, 0, 0, 1], [0, -1, 0, 0]]


def test_no_reward_at_all_is_refused(spec: RobotSpec) -> None:
    for settings, message in (
        ({"task_reward": False}, "leaves no reward at all; set takeover_reward below 0"),
        ({"takeover_reward": 1.0}, "takeover_reward = 1.0; allowed -10..0"),
        ({"pre_takeover_weight": 2}, "pre_takeover_weight = 2.0; allowed 0..1"),
        ({"residual_scale": -1}, "residual_scale = -1.0; allowed 0..10"),
    ):
        with pytest.raises(ValueError, match=message):
            make_learner("hil-serl", spec, 0, settings)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_steps_before_a_takeover_are_drawn_with_their_weight(weight: float, spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner = make_learner("hil-serl", spec, 0, SMALL | {"pre_takeover_weight": weight, "pre_takeover_s": 0.5})  # 10 steps
    episode(learner, make_script(spec), EpisodeKind.POLICY, [P] * 30 + [T, H] + [P] * 8)
    assert learner.replay._marks.marked == (10 if weight < 1.0 else 0)
    rows, n = learner.replay.sample(40_000, torch.Generator().manual_seed(0))
    drawn = np.bincount(rows[n:, 0].long().numpy(), minlength=40) / (len(rows) - n)
    assert drawn[20:30].sum() == pytest.approx(weight * 10 / 40, abs=0.012)  # the last 10 before the takeover
    others = np.delete(drawn, range(20, 30))
    assert others.sum() == pytest.approx(1 - weight * 10 / 40, abs=0.012)
    assert others.min() > 0.7 * others.max()  # nothing else is preferred


def test_a_buffer_of_marked_steps_alone_can_still_be_drawn_from(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner = make_learner("hil-serl", spec, 0, SMALL | {"pre_takeover_weight": 0.0, "both_buffers": False})
    episode(learner, make_script(spec), EpisodeKind.POLICY, [P] * 10 + [H])
    assert (learner.replay.online.size, learner.replay._marks.marked) == (10, 10)
    rows, n = learner.replay.sample(64, torch.Generator().manual_seed(0))
    assert (len(rows), n) == (64, 32)


def test_one_buffer_keeps_human_steps_out_of_the_online_one(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    sizes = []
    for both in (True, False):
        learner = make_learner("hil-serl", spec, 0, SMALL | {"both_buffers": both})
        episode(learner, make_script(spec), EpisodeKind.POLICY, [P, P, T, H, H, P])
        sizes.append((learner.replay.demonstrations.size, learner.replay.online.size, learner.train_steps))
    assert sizes == [(2, 6, 6), (2, 4, 6)]


def taught(spec: RobotSpec, script: Any, policy_episodes: int = 1, **parameters: Any) -> Any:
    learner = make_learner("hil-serl", spec, 0, SMALL | parameters)
    varied = [(H, {"observation": [0.1 * i] * 4, "action": [0.5, -0.1 * (i % 5)]}) for i in range(20)]
    episode(learner, script, EpisodeKind.DEMONSTRATION, varied, outcome=Outcome.SUCCESS, source=OutcomeSource.TASK)
    for _ in learner.clone_demonstrations():
        pass
    for _ in range(policy_episodes):
        episode(learner, script, EpisodeKind.POLICY, [P] * 12 + [T, H, H, END])
    return learner


def acts(learner: Any, spec: RobotSpec) -> np.ndarray:
    policy = build_policy(learner.weights(), spec)
    return np.array([policy.act(np.full(4, 0.1 * i, np.float32), sample=False).actions[0] for i in range(20)])


@pytest.mark.parametrize("gripper", [False, True])
def test_a_residual_starts_as_the_clone_and_stays_within_its_scale(
    gripper: bool, make_robot_spec: Callable[..., Any], make_script: Callable[..., Any]
) -> None:
    spec = make_robot_spec(observation=4, arm=2, gripper=gripper)
    parameters = {"clone_updates": 60, "actor_average": 1.0, "residual_scale": 0.2, "learning_rate": 0.01}
    learner = make_learner("hil-serl", spec, 0, SMALL | parameters)
    wide = [0.0] if gripper else []
    steps = [(H, {"observation": [0.1 * i] * 4, "action": [0.5, -0.1 * (i % 5), *wide]}) for i in range(20)]
    episode(learner, make_script(spec), EpisodeKind.DEMONSTRATION, steps, outcome=Outcome.SUCCESS, source=OutcomeSource.TASK)
    for _ in learner.clone_demonstrations():
        pass
    base = learner._base.clone()
    start = acts(learner, spec)[:, :2]
    views = learner._actor_layout.views(base)
    observed = learner._normalised(torch.tensor([[0.1 * i] * 4 for i in range(20)]))
    h = torch.relu(observed @ views["actor.w0"] + views["actor.b0"])
    h = torch.relu(h @ views["actor.w1"] + views["actor.b1"])
    cloned = (h @ views["actor.w2"] + views["actor.b2"])[:, :2].tanh().numpy()
    assert start == pytest.approx(cloned, abs=1e-5)
    for _ in range(60):
        learner.update()
    assert torch.equal(learner._base, base)  # frozen
    moved = acts(learner, spec)[:, :2]
    added = np.arctanh(moved) - np.arctanh(start)
    assert 1e-3 < np.abs(added).max() <= 0.2 + 1e-4


def test_published_residual_weights_need_their_base(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    weights = taught(spec, make_script(spec), residual_scale=0.5).weights()
    assert {name for name in weights.tensors if name.startswith("base.")} == {f"base.{k}{i}" for k in "wb" for i in range(3)}
    del weights.tensors["base.w1"]
    with pytest.raises(PolicyRefused, match=r"'base\.w1' is missing"):
        build_policy(weights, spec)


OPTIONS = {"takeover_reward": -1.0, "pre_takeover_weight": 0.3, "both_buffers": False, "residual_scale": 0.5}


def test_with_every_option_on_a_restored_learner_continues_bit_for_bit(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    first, second = taught(spec, make_script(spec), 3, **OPTIONS), taught(spec, make_script(spec), 3, **OPTIONS)
    for _ in range(10):
        first.update()
    second.restore(first.state())
    for _ in range(10):
        first.update()
        second.update()
    assert torch.equal(first._base, second._base)
    assert weights_bytes(first.weights()) == weights_bytes(second.weights())


def test_switches_that_are_off_change_nothing(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    off = {"takeover_reward": 0.0, "task_reward": True, "pre_takeover_weight": 1.0, "both_buffers": True, "residual_scale": 0.0}
    plain, same = taught(spec, make_script(spec)), taught(spec, make_script(spec), **off, pre_takeover_s=3.0)
    others = [taught(spec, make_script(spec), **{name: value}) for name, value in OPTIONS.items()]
    found = []
    for learner in (plain, same, *others):
        for _ in range(10):
            learner.update()
        found.append(weights_bytes(learner.weights()))
    assert found[0] == found[1]
    assert len(set(found)) == 1 + len(OPTIONS)  # and each switch that is on changes something
