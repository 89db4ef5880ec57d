"""The gradients written by hand are those of plain autograd on the same losses, alone and over 20 updates of the learner."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from takeover.data.schema import ControlMode, EpisodeKind, Outcome, OutcomeSource
from takeover.policies import nets
from takeover.policies.flat import Adam, Layout
from takeover.policies.hil_serl import HilSerlLearner
from takeover.policies.registry import make_learner
from takeover.policies.sac_autograd import AutogradUpdate
from takeover.policies.sac_update import CriticBatch, Pull, SacUpdate

D, A, B, DEMONSTRATIONS, CLONING, MARGIN, TEMPERATURE = 7, 3, 24, 9, 0.4, 0.1, 0.07
CLOSE = {"rtol": 1e-9, "atol": 1e-10}  # torch's softplus is off by 2e-9 of itself where its argument is above 20


class Case(NamedTuple):
    """Both ways over the same vectors."""

    actor: torch.Tensor
    critic: torch.Tensor
    target: torch.Tensor
    actor_layout: Layout
    critic_layout: Layout
    written: SacUpdate
    autograd: AutogradUpdate


def make(gripper: bool, ensemble: int = 2, hidden: int = 20, residual_scale: float = 0.0) -> Case:
    """In double precision, so that the comparison is sharp; biases away from zero, one log std of the actor past its bound."""
    actor_layout = Layout(nets.mlp_layout("actor", D, hidden, 2 * A))
    critic_layout = Layout(nets.critic_layout(D + A, hidden, 3 if gripper else 1, ensemble))
    generator = torch.Generator().manual_seed(5)
    actor, critic, target, base = (
        nets.initialise(layout, generator).double() + 0.05 * torch.randn(layout.size, generator=generator).double()
        for layout in (actor_layout, critic_layout, critic_layout, actor_layout)
    )
    actor_layout.views(actor)["actor.b2"][-1] = 3.0
    residual: dict[str, Any] = {"gripper": gripper, "base": base if residual_scale else None, "residual_scale": residual_scale}
    written = SacUpdate(actor, actor_layout, critic, target, critic_layout, B, **residual)
    autograd = AutogradUpdate(actor, actor_layout, critic, target, critic_layout, **residual)
    return Case(actor, critic, target, actor_layout, critic_layout, written, autograd)


def rows(count: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "observation": torch.randn(count, D, generator=generator).double() * 2.0,
        "following": torch.randn(count, D, generator=generator).double(),
        "arm": torch.rand(count, A, generator=generator).double() * 2.0 - 1.0,
        "noise": torch.randn(count, A, generator=generator).double(),
        "reward": torch.rand(count, generator=generator).double(),
        "bootstrap": 0.97 * (torch.rand(count, generator=generator) > 0.2).double(),
        "command": torch.randint(3, (count,), generator=generator),
    }


@pytest.mark.parametrize("residual_scale", [0.0, 0.6])
@pytest.mark.parametrize(("gripper", "ensemble"), [(True, 2), (False, 2), (True, 1), (False, 5)])
@pytest.mark.parametrize("demonstrations", [0, DEMONSTRATIONS])
def test_the_critics_gradient_equals_plain_autograd(gripper: bool, ensemble: int, demonstrations: int, residual_scale: float) -> None:
    case, row = make(gripper, ensemble, residual_scale=residual_scale), rows(B, 1)
    losses, gradients = [], []
    for way in (case.written, case.autograd):
        arm = way.propose(row["following"], row["noise"]).arm
        command = row["command"] if gripper else None
        future = (row["following"], arm, row["reward"], row["bootstrap"])
        batch = CriticBatch(row["observation"], row["arm"], *future, command, demonstrations, CLONING, MARGIN)
        losses.append([float(x) for x in way.critics(batch)])
        gradients.append(way.critic_gradient)
    assert torch.allclose(*gradients, **CLOSE)
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    assert float(gradients[0].abs().max()) > 1e-3


@pytest.mark.parametrize("residual_scale", [0.0, 0.6])
@pytest.mark.parametrize("gripper", [True, False])
@pytest.mark.parametrize("pulls", ["none", "cloning", "cloning and anchor", "anchor"])
def test_the_actors_gradient_equals_plain_autograd(gripper: bool, pulls: str, residual_scale: float) -> None:
    case, row = make(gripper, residual_scale=residual_scale), rows(3 * B, 2)  # the actor's batch is the last third of what was proposed
    observation, demonstrated = row["observation"][-B:], row["arm"][-B:]
    n = DEMONSTRATIONS if "cloning" in pulls else 0
    wanted = [Pull(slice(0, n), demonstrated[:n], CLONING)] if n else []
    if "anchor" in pulls:
        wanted.append(Pull(slice(n, B), demonstrated[n:] * 0.5, 3.0))
    results = []
    for way in (case.written, case.autograd):
        proposal: Any = way.propose(torch.cat([row["following"][: 2 * B], observation]), row["noise"])
        loss, log_density, errors = way.actor(proposal, observation, TEMPERATURE, wanted)
        results.append([float(loss), float(log_density), *map(float, errors)])
    assert torch.allclose(case.written.actor_gradient, case.autograd.actor_gradient, **CLOSE)
    assert results[0] == pytest.approx(results[1], rel=1e-9)
    assert len(results[0]) == 2 + len(wanted)


def test_autograd_itself_is_right() -> None:
    """Against differences of the losses, for what both ways could share as a mistake: the terms of the losses."""
    case, row = make(True, residual_scale=0.6), rows(B, 2)
    pulls = [Pull(slice(0, 9), row["arm"][:9], CLONING), Pull(slice(9, B), row["arm"][9:], 2.0)]

    def objective() -> float:
        proposal = case.autograd.propose(row["observation"], row["noise"])
        loss, _, errors = case.autograd.actor(proposal, row["observation"], TEMPERATURE, pulls)
        return float(loss) + sum(float(error) * pull.weight for error, pull in zip(errors, pulls, strict=True))

    objective()
    gradient = case.autograd.actor_gradient.clone()
    direction = torch.randn(len(gradient), generator=torch.Generator().manual_seed(0)).double()
    case.actor.add_(direction, alpha=1e-6)
    above = objective()
    case.actor.sub_(direction, alpha=2e-6)
    assert (above - objective()) / 2e-6 == pytest.approx(float(gradient @ direction), rel=1e-5)


def test_single_precision_is_as_close_to_the_truth_as_plain_autograd() -> None:
    case, row = make(True, hidden=128), rows(B, 3)
    x = torch.cat([row["observation"], row["arm"]], 1) * 5.0
    wanted = nets.critics(case.critic_layout.views(case.critic), x)
    single = case.critic.float()
    plain = nets.critics(case.critic_layout.views(single), x.float())
    update = SacUpdate(case.actor.float(), case.actor_layout, single, case.target.float(), case.critic_layout, B, gripper=True)
    update._critics.inputs[0].copy_(x)
    ours = update._critics.forward()[0]
    assert (ours.double() - wanted).abs().max() < 2.0 * (plain.double() - wanted).abs().max() + 1e-6


def test_an_update_follows_parameters_that_change_in_place() -> None:
    case, row = make(True), rows(B, 4)
    first = case.written.propose(row["observation"], row["noise"]).arm.clone()
    case.actor.mul_(1.5)
    wanted = case.autograd.propose(row["observation"], row["noise"]).arm
    assert not torch.allclose(first, wanted)
    assert torch.allclose(case.written.propose(row["observation"], row["noise"]).arm, wanted)


# --- the learner ---

P, T, H = ControlMode.POLICY, ControlMode.TRANSITION, ControlMode.HUMAN
SMALL = {
    "hidden": 16,
    "batch": 32,
    "clone_updates": 20,
    "critic_warmup": 10,
    "learning_starts": 5,
    "learning_rate": 3e-3,
    "keep_warm_start": False,
}
KEEP = {"keep_warm_start": True, "actor_delay": 5}
SWITCHES: dict[str, dict[str, Any]] = {
    "plain": {},
    "ensemble of 3, one critic update": {"ensemble": 3, "critic_updates": 1},
    "redq": {"ensemble": 10, "target_subset": 2},
    "the actor waits, then is held": KEEP,
    "residual": {"residual_scale": 0.5},
    "rlif": {"takeover_reward": -1.0, "task_reward": False},
    "rlif, residual, one buffer, marks": {
        "takeover_reward": -0.5,
        "residual_scale": 0.5,
        "both_buffers": False,
        "pre_takeover_weight": 0.3,
    },
    "held, one buffer, marks, rlif": KEEP | {"takeover_reward": -1.0, "both_buffers": False, "pre_takeover_weight": 0.3},
    "no cloning terms": {"bc_weight": 0.0, "gripper_bc_weight": 0.0},
}


@pytest.fixture
def double() -> Iterator[None]:
    """Everything that is made from now on is in double precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def taught(spec: Any, script: Any, **parameters: Any) -> HilSerlLearner:
    """A learner that has cloned and seen two episodes with takeovers."""
    learner = make_learner("hil-serl", spec, 3, SMALL | parameters)
    assert isinstance(learner, HilSerlLearner)
    random = np.random.default_rng(1)
    ends = {"reward": 1.0, "terminated": True}
    for kind, modes in (
        (EpisodeKind.DEMONSTRATION, [H] * 25),
        (EpisodeKind.POLICY, [P] * 12 + [T] + [H] * 6 + [P] * 6),
        (EpisodeKind.POLICY, [P] * 20 + [T] + [H] * 4),
    ):
        learner.begin_episode(script.start(kind))
        for i, mode in enumerate(modes):
            observation, following = random.normal(size=(2, spec.observation.size))
            action = [*np.tanh(observation[:2]), *random.integers(-1, 2, spec.action.size - 2).astype(float)]
            changes = ends if i == len(modes) - 1 else {}
            learner.ingest(
                [script.step(mode, observation=observation.tolist(), next_observation=following.tolist(), action=action, **changes)]
            )
        learner.end_episode(script.end(outcome=Outcome.SUCCESS, source=OutcomeSource.TASK))
        if kind == EpisodeKind.DEMONSTRATION:
            for _ in learner.clone_demonstrations():
                pass
    return learner


def after_updates(learner: HilSerlLearner, count: int = 20) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    metrics = [learner.update() for _ in range(count)]
    return {name: tensor for name, tensor in learner.state()["tensors"].items() if name != "generator"}, metrics


@pytest.mark.parametrize("gripper", [True, False])
@pytest.mark.parametrize("switches", SWITCHES)
def test_twenty_updates_equal_those_of_plain_autograd(
    switches: str, gripper: bool, double: None, make_robot_spec: Callable[..., Any], make_script: Callable[..., Any]
) -> None:
    spec = make_robot_spec(observation=4, arm=2, gripper=gripper)
    (ours, metrics), (wanted, theirs) = (
        after_updates(taught(spec, make_script(spec), written_gradients=written, **SWITCHES[switches])) for written in (True, False)
    )
    assert ours["actor"].dtype == torch.float64
    assert ours.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.allclose(ours[name], tensor, rtol=1e-9, atol=1e-9), name
    for mine, other in zip(metrics, theirs, strict=True):
        assert mine == pytest.approx(other, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("switches", ["plain", "redq", "residual", "the actor waits, then is held"])
def test_in_single_precision_twenty_updates_stay_close_to_plain_autograd(
    switches: str, make_robot_spec: Callable[..., Any], make_script: Callable[..., Any]
) -> None:
    spec = make_robot_spec(observation=4, arm=2, gripper=True)
    (ours, _), (wanted, _) = (
        after_updates(taught(spec, make_script(spec), written_gradients=written, **SWITCHES[switches])) for written in (True, False)
    )
    for name in ("actor", "critic", "target", "published"):
        assert torch.allclose(ours[name], wanted[name], rtol=1e-3, atol=1e-4), name


def test_adam_follows_its_formula_and_goes_on_after_a_restore() -> None:
    generator = torch.Generator().manual_seed(1)
    ours = torch.randn(50, generator=generator)
    wanted = ours.double()
    first = second = torch.zeros(50, dtype=torch.float64)
    adam = Adam(50, 1e-2)
    for i in range(1, 21):
        if i == 10:
            state, adam = adam.state(), Adam(50, 1e-2)
            adam.restore(state)
        gradient = torch.randn(50, generator=generator)
        adam.step(ours, gradient)
        first = 0.9 * first + 0.1 * gradient.double()
        second = 0.999 * second + 0.001 * gradient.double().square()
        wanted = wanted - 1e-2 * (first / (1.0 - 0.9**i)) / ((second / (1.0 - 0.999**i)).sqrt() + 1e-8)
    assert torch.allclose(ours.double(), wanted, rtol=1e-5, atol=1e-6)
