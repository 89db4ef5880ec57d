"""The gradients of one hil-serl update: what the losses are, and what they ask of the networks, without autograd.

Losses, in loop order. Critics: mean over nets and rows of (Q - target)^2, with a discrete gripper also a large-margin cloning term on the
demonstration part. Actor: mean of temperature * log-density - value, plus pulls of its mode (`Pull`). `hil_serl` steps the parameters.
`sac_autograd` is the same by plain autograd.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from takeover.policies import nets
from takeover.policies.flat import Layout
from takeover.policies.passes import CriticPass, MlpPass


class Pull(NamedTuple):
    """A term weight * mean over ``rows`` (of the actor's batch) of |tanh(mean) - wanted|^2; ``wanted`` (n, A) in [-1, 1]."""

    rows: slice
    wanted: Tensor
    weight: float


class CriticBatch(NamedTuple):
    """What one critic update sees. ``bootstrap`` (B,): discount, 0 where the future ends; ``command`` (B,): 0 close, 1 keep, 2 open, where
    the gripper is discrete; its first ``demonstrations`` rows are cloned with weight ``cloning`` and ``margin`` (in value)."""

    observation: Tensor  # (B, D), normalised
    arm: Tensor  # (B, A)
    following: Tensor  # (B, D), normalised
    following_arm: Tensor  # (B, A), what the actor would do there
    reward: Tensor
    bootstrap: Tensor
    command: Tensor | None = None
    demonstrations: int = 0
    cloning: float = 0.0
    margin: float = 0.0
    subset: Tensor | None = None  # (S,) int64: the critics whose minimum is the target; all of them
    target_following: Tensor | None = None  # (B, D), normalised: what the target critics see of ``following``, where it is something else
    encoder: Tensor | None = None  # (P,) parameters that ``observation`` was computed from: the loss is differentiated by them, too


class Proposal(NamedTuple):
    """What the actor answered, (M, A) each; valid until the next one of the same size."""

    network: MlpPass
    mean: Tensor
    bend: Tensor | None  # of a residual: d mean / d what the actor adds
    raw_log_std: Tensor
    log_std: Tensor
    std: Tensor
    noise: Tensor
    raw: Tensor
    arm: Tensor


class Gradients(Protocol):
    """What `SacUpdate` and `sac_autograd.AutogradUpdate` have in common."""

    actor_gradient: Tensor
    critic_gradient: Tensor

    def propose(self, observations: Tensor, noise: Tensor) -> Any:
        """Something with ``arm`` (M, A)."""

    def critics(self, batch: CriticBatch) -> tuple[Tensor, Tensor]: ...

    def actor(
        self, proposal: Any, observation: Tensor, temperature: float, pulls: Sequence[Pull] = ()
    ) -> tuple[Tensor, Tensor, list[Tensor]]: ...


class SacUpdate:
    """Works on flat vectors that may only change in place; ``actor``, ``critic`` and ``target`` as `nets` lays them out."""

    def __init__(
        self,
        actor: Tensor,
        actor_layout: Layout,
        critic: Tensor,
        target: Tensor,
        critic_layout: Layout,
        batch: int,
        *,
        gripper: bool,
        base: Tensor | None = None,
        residual_scale: float = 0.0,
    ) -> None:
        """``base``: the frozen actor below a residual that adds up to ``residual_scale`` to its mean (`residual`)."""
        self._actor = actor_layout.views(actor)
        self._base = None if base is None else actor_layout.views(base)
        self._residual_scale = residual_scale
        online, targets = critic_layout.views(critic), critic_layout.views(target)
        self.actor_gradient, self.critic_gradient = torch.empty_like(actor), torch.empty_like(critic)
        self._into_actor, self._into_critic = actor_layout.views(self.actor_gradient), critic_layout.views(self.critic_gradient)
        self._gripper = gripper
        now, following = (critic.new_empty(batch, critic_layout.shapes["critic.w0"][1]) for _ in range(2))
        # with a discrete gripper the online critics choose its next command, the targets value it
        parts = [(online, now), (online, following), (targets, following)] if gripper else [(online, now), (targets, following)]
        self._critics = CriticPass([views for views, _ in parts], [x for _, x in parts])
        self._climbed = CriticPass([online], [now])
        self._networks: dict[int, tuple[MlpPass, MlpPass | None]] = {}

    def propose(self, observations: Tensor, noise: Tensor) -> Proposal:
        """The actor's actions for normalised observations (M, D) with ``noise`` (M, A); what the last B rows need to be differentiated."""
        rows = len(observations)
        if rows not in self._networks:
            base = None if self._base is None else MlpPass(self._base, "actor", rows)
            self._networks[rows] = MlpPass(self._actor, "actor", rows), base
        network, base = self._networks[rows]
        network.x.copy_(observations)
        mean, raw_log_std = network.forward().chunk(2, dim=-1)
        bend = None
        if base is not None:
            base.x.copy_(observations)
            added = mean.tanh()
            bend = self._residual_scale * (1.0 - added.square())
            mean = torch.add(base.forward()[:, : added.shape[1]], added, alpha=self._residual_scale)
        log_std = raw_log_std.clamp(nets.LOG_MIN_STD, nets.LOG_MAX_STD)
        std = log_std.exp()
        raw = torch.addcmul(mean, std, noise)
        return Proposal(network, mean, bend, raw_log_std, log_std, std, noise, raw, raw.tanh())

    def critics(self, batch: CriticBatch) -> tuple[Tensor, Tensor]:
        """Loss (of the values alone) and mean value, both 0-dim; the gradient, of the cloning term too, is then in ``critic_gradient``."""
        if batch.target_following is not None or batch.encoder is not None:
            raise ValueError("written-out passes know no encoder that learns; use `sac_autograd.AutogradUpdate`")
        command = batch.command
        torch.cat([batch.observation, batch.arm], 1, out=self._critics.inputs[0])
        torch.cat([batch.following, batch.following_arm], 1, out=self._critics.inputs[-1])
        values = self._critics.forward()  # (parts, E, B, G)
        online, ensemble = values[0], values.shape[1]
        if command is not None:
            choice = values[1].mean(0).argmax(-1)
            next_values = values[2].gather(2, choice.view(1, -1, 1).expand(ensemble, -1, 1)).squeeze(-1)
            chosen_at = command.view(1, -1, 1).expand(ensemble, -1, 1)
            chosen = online.gather(2, chosen_at).squeeze(-1)
        else:
            next_values, chosen = values[1].squeeze(-1), online.squeeze(-1)
        next_value = lowest(next_values, batch.subset)
        error = chosen - torch.addcmul(batch.reward, batch.bootstrap, next_value)  # no entropy in the backup
        slope = (error * (2.0 / error.numel())).unsqueeze(-1)
        if command is None:
            gradient = slope
        else:
            gradient = torch.zeros_like(online).scatter_(2, chosen_at, slope)
            if batch.demonstrations:
                _clone_gripper(gradient, online, chosen_at, batch)
        self._critics.backward(gradient, self._into_critic)
        return torch.linalg.vector_norm(error).square() / error.numel(), chosen.mean()

    def actor(
        self, proposal: Proposal, observation: Tensor, temperature: float, pulls: Sequence[Pull] = ()
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Loss, mean log-density (0-dim), and the error of each pull before its weight; the gradient, of the pulls too, is then in
        ``actor_gradient``. The proposal's last B rows are for ``observation`` (B, D)."""
        batch = len(observation)
        mean, arm, noise = proposal.mean[-batch:], proposal.arm[-batch:], proposal.noise[-batch:]
        log_std, std = proposal.log_std[-batch:], proposal.std[-batch:]
        torch.cat([observation, arm], 1, out=self._climbed.inputs[0])
        values = self._climbed.forward()[0]
        ensemble = len(values)
        best, command = values.mean(0).max(-1)  # mean of the critics; the gripper takes its best command
        at = command.view(1, -1, 1).expand(ensemble, -1, 1)
        downhill = values.new_full((1, 1, 1), -1.0 / (ensemble * batch)).expand_as(at)
        self._climbed.backward(torch.zeros_like(values).scatter_(2, at, downhill))
        to_arm = self._climbed.action_gradient(arm.shape[1])
        per_row = temperature / batch
        to_mean = torch.addcmul(to_arm, arm, arm * to_arm, value=-1.0).add_(arm, alpha=2.0 * per_row)  # d log-density / d raw = 2 tanh(raw)
        to_log_std = (to_mean * std).mul_(noise).sub_(per_row)
        raw_log_std = proposal.raw_log_std[-batch:]
        to_log_std.mul_(raw_log_std == log_std)  # nothing through the clamp
        errors = []
        for rows, wanted, weight in pulls:
            followed = mean[rows].tanh()
            away = followed - wanted
            errors.append(torch.linalg.vector_norm(away).square() / len(wanted))
            to_mean[rows].add_(torch.addcmul(away, away, followed.square(), value=-1.0), alpha=2.0 * weight / len(wanted))
        if proposal.bend is not None:
            to_mean.mul_(proposal.bend[-batch:])
        proposal.network.backward(torch.cat([to_mean, to_log_std], 1), self._into_actor)
        log_density = nets.squashed_log_density(noise, log_std, proposal.raw[-batch:]).mean()
        return temperature * log_density - best.mean(), log_density, errors


def lowest(values: Tensor, subset: Tensor | None) -> Tensor:
    """(B,): the minimum over nets of values (E, B), of those in ``subset`` (S,) where it is given."""
    return (values if subset is None else values.index_select(0, subset)).amin(0)


def _clone_gripper(gradient: Tensor, values: Tensor, chosen_at: Tensor, batch: CriticBatch) -> None:
    """Adds the gradient of weight * mean(max(Q + margin of the others) - Q of the demonstrated command) over the first rows."""
    n = batch.demonstrations
    demonstrated = chosen_at[:, :n]
    wanted = (values[:, :n] + batch.margin).scatter_add_(2, demonstrated, values.new_full((1, 1, 1), -batch.margin).expand_as(demonstrated))
    best = wanted.argmax(-1, keepdim=True)
    slope = values.new_full((1, 1, 1), batch.cloning / (len(values) * n)).expand_as(best)
    gradient[:, :n].scatter_add_(2, best, slope).scatter_add_(2, demonstrated, -slope)
