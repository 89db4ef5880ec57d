"""A residual on a frozen policy: what is learned may add a bounded amount to the mean of the cloned actor.

Both are networks of the same shape. The sum is taken before the tanh, so that the action stays within its limits.
"""

import torch
from torch import Tensor

from takeover.policies import nets
from takeover.policies.flat import Layout


def residual_gaussian(actor: dict[str, Tensor], base: dict[str, Tensor], scale: float, observation: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised observation (B, D) -> mean and log std before the tanh, each (B, A): the base's mean plus at most ``scale``, and the
    actor's own spread. No gradient reaches the base."""
    with torch.no_grad():
        frozen, _ = nets.gaussian(base, observation)
    added, log_std = nets.gaussian(actor, observation)
    return frozen + scale * added.tanh(), log_std


def residual_start(layout: Layout, generator: torch.Generator, log_std: float) -> Tensor:
    """A fresh actor (flat) that adds nothing yet: the last layer is 0 but for the log std."""
    flat = nets.initialise(layout, generator)
    views = layout.views(flat)
    views["actor.w2"].zero_()
    views["actor.b2"].zero_()
    views["actor.b2"][views["actor.b2"].shape[0] // 2 :] = log_std
    return flat
