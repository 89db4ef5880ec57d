"""The gradients of `sac_update` by plain autograd through `nets`: for what written-out passes cannot do, and to compare them with.

``compiled``: the losses go through torch.compile. ``bf16``: the online critics and the trained actor, with the frozen one below a residual,
run under bfloat16 autocast where they are differentiated; targets, what the actor proposes, losses and parameters stay as they are, since
a target's error would be learned.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from takeover.policies import nets
from takeover.policies.flat import Layout
from takeover.policies.gripper_critic import gather_command, margin_loss
from takeover.policies.residual import residual_gaussian
from takeover.policies.sac_update import CriticBatch, Pull, lowest

Drawn = list[tuple[int, int, Tensor, Tensor]]  # of each pull: first row, last row + 1, wanted, weight


class Proposed(NamedTuple):
    """What the actor answered, (M, A) each."""

    noise: Tensor
    arm: Tensor


class AutogradUpdate:
    """See `sac_update.SacUpdate`: the same vectors, the same methods."""

    def __init__(
        self,
        actor: Tensor,
        actor_layout: Layout,
        critic: Tensor,
        target: Tensor,
        critic_layout: Layout,
        *,
        gripper: bool,
        base: Tensor | None = None,
        residual_scale: float = 0.0,
        compiled: bool = False,
        bf16: bool = False,
    ) -> None:
        self._flat_actor, self._flat_critic, self._flat_target, self._base = actor, critic, target, base
        self._actor_layout, self._critic_layout = actor_layout, critic_layout
        self.actor_gradient, self.critic_gradient = torch.empty_like(actor), torch.empty_like(critic)
        self.encoder_gradient: Tensor | None = None  # (P,) of the newest critics' loss, where its batch came through an encoder
        self._gripper, self._residual_scale, self._bf16 = gripper, residual_scale, bf16
        wrapped: Callable[[Callable[..., Any]], Callable[..., Any]] = torch.compile if compiled else lambda function: function
        self._critic_loss, self._actor_loss = wrapped(self._losses_of_critics), wrapped(self._losses_of_actor)

    def _gaussian(self, flat: Tensor, observation: Tensor) -> tuple[Tensor, Tensor]:
        views = self._actor_layout.views(flat)
        if self._base is None:
            return nets.gaussian(views, observation)
        return residual_gaussian(views, self._actor_layout.views(self._base), self._residual_scale, observation)

    def _quick(self) -> torch.autocast:
        return torch.autocast(self._flat_critic.device.type, torch.bfloat16, enabled=self._bf16)

    def propose(self, observations: Tensor, noise: Tensor) -> Proposed:
        """The actor's actions for normalised observations (M, D) with ``noise`` (M, A)."""
        with torch.no_grad():
            mean, log_std = self._gaussian(self._flat_actor, observations)
            return Proposed(noise, nets.squashed_sample(mean, log_std, noise)[0])

    def critics(self, batch: CriticBatch) -> tuple[Tensor, Tensor]:
        """Loss (of the values alone) and mean value, both 0-dim; the gradient, of the cloning term too, is then in ``critic_gradient``,
        and that of ``batch.encoder`` in ``encoder_gradient``."""
        like = batch.reward
        with torch.no_grad():
            following = torch.cat([batch.following, batch.following_arm], 1)
            seen = following if batch.target_following is None else torch.cat([batch.target_following, batch.following_arm], 1)
            next_values = nets.critics(self._critic_layout.views(self._flat_target), seen)
            if self._gripper:  # double Q: the online critics choose the gripper, the targets value it
                choice = nets.critics(self._critic_layout.views(self._flat_critic), following).mean(0).argmax(-1)
                next_value = lowest(gather_command(next_values, choice), batch.subset)
            else:
                next_value = lowest(next_values.squeeze(-1), batch.subset)
            target = batch.reward + batch.bootstrap * next_value  # no entropy in the backup
        flat = self._flat_critic.detach().requires_grad_()
        now = torch.cat([batch.observation, batch.arm], 1)
        objective, loss, value = self._critic_loss(
            flat, now, target, batch.command, batch.demonstrations, like.new_tensor(batch.cloning), batch.margin
        )
        gradients = torch.autograd.grad(objective, [flat] if batch.encoder is None else [flat, batch.encoder])
        self.critic_gradient.copy_(gradients[0])
        self.encoder_gradient = gradients[1] if batch.encoder is not None else None
        return loss.detach(), value.detach()

    def _losses_of_critics(
        self, flat: Tensor, now: Tensor, target: Tensor, command: Tensor | None, demonstrations: int, cloning: Tensor, margin: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        with self._quick():
            values = nets.critics(self._critic_layout.views(flat), now)
        values = values.to(target.dtype)
        chosen = values.squeeze(-1) if command is None else gather_command(values, command)
        loss = (chosen - target).square().mean()
        objective = loss
        if command is not None and demonstrations:
            objective = loss + cloning * margin_loss(values[:, :demonstrations], command[:demonstrations], margin)
        return objective, loss, chosen.mean()

    def actor(
        self, proposal: Proposed, observation: Tensor, temperature: float, pulls: Sequence[Pull] = ()
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Loss, mean log-density (0-dim), and the error of each pull before its weight; the gradient, of the pulls too, is then in
        ``actor_gradient``. The proposal's last B rows are for ``observation`` (B, D)."""
        flat = self._flat_actor.detach().requires_grad_()
        bounds = [pull.rows.indices(len(observation))[:2] for pull in pulls]
        drawn = [(*bound, pull.wanted, observation.new_tensor(pull.weight)) for bound, pull in zip(bounds, pulls, strict=True)]
        objective, loss, log_density, errors = self._actor_loss(
            flat, self._flat_critic, observation, proposal.noise[-len(observation) :], observation.new_tensor(temperature), drawn
        )
        self.actor_gradient.copy_(torch.autograd.grad(objective, [flat])[0])
        return loss.detach(), log_density.detach(), [error.detach() for error in errors]

    def _losses_of_actor(
        self, flat: Tensor, critic: Tensor, observation: Tensor, noise: Tensor, temperature: Tensor, pulls: Drawn
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        with self._quick():
            mean, log_std = self._gaussian(flat, observation)
        mean, log_std = mean.to(observation.dtype), log_std.to(observation.dtype)
        arm, log_density = nets.squashed_sample(mean, log_std, noise)
        with self._quick():
            values = nets.critics(self._critic_layout.views(critic), torch.cat([observation, arm], 1))
        value = values.to(observation.dtype).mean(0).amax(-1)  # mean of the critics; the gripper takes its best command
        loss = (temperature * log_density - value).mean()
        objective, errors = loss, []
        for first, last, wanted, weight in pulls:
            errors.append((mean[first:last].tanh() - wanted).square().sum(-1).mean())
            objective = objective + weight * errors[-1]
        return objective, loss, log_density.mean(), errors
