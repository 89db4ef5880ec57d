"""No dip after cloning: what keeps the acting policy near its warm start until the critics know what they talk about.

After cloning, the critics have seen good demonstrations only: they think well of every action, and an actor that climbs them at once
leaves what it cloned for nothing.

With the setting ``keep_warm_start`` (on; a residual does without)

- the actor waits for ``actor_delay`` updates while the critics learn what the cloned policy is worth, failures included;
- then an anchor holds the actor's mode with a weight that decays: to what the person did on the demonstration half of a batch (the
  cloning term, heavier), to what the cloned actor would do on the online half;
- and what is published is a slower running average.

All three are functions of the update count alone; what is published is one actor, as ever.
"""

import torch
from torch import Tensor

from takeover.policies import nets
from takeover.policies.flat import Layout
from takeover.policies.hil_serl_parameters import HilSerlParameters


def actor_waits(parameters: HilSerlParameters, updates: int) -> bool:
    """Whether update number ``updates`` (from 1) is one of the critics alone."""
    return parameters.keeps_warm_start and updates <= parameters.actor_delay


def updates_to_wait(parameters: HilSerlParameters, updates: int) -> int:
    """In how many updates after number ``updates`` the actor first learns; 0 once it did."""
    return max(0, parameters.actor_delay + 1 - updates) if parameters.keeps_warm_start else 0


def anchor_weight(parameters: HilSerlParameters, updates: int) -> float:
    """Weight of the anchor at update ``updates``: decays once the actor learns; 0 without ``keep_warm_start``."""
    if not parameters.keeps_warm_start:
        return 0.0
    return parameters.anchor_weight * parameters.anchor_decay ** max(0, updates - parameters.actor_delay)


def cloning_share(decay: float, updates: int, help_share: float, wanted: float) -> float:
    """What is left of a cloning term at update ``updates``: it fades by ``decay``, but not while people drive ``wanted`` or more of the
    recent steps (``help_share``); ``wanted`` 0: by ``decay`` alone."""
    return max(decay**updates, min(1.0, help_share / wanted) if wanted else 0.0)


def published_rate(parameters: HilSerlParameters) -> float:
    """Fraction by which the published actor follows the trained one per update."""
    return parameters.kept_average if parameters.keeps_warm_start else parameters.actor_average


class Anchor:
    """The cloned actor, frozen: a flat vector of ``layout``."""

    def __init__(self, layout: Layout, device: torch.device | None = None) -> None:
        self._layout = layout
        self.clone = torch.zeros(layout.size, device=device)

    def take(self, actor: Tensor) -> None:
        """Freeze ``actor`` (size,) as it is."""
        self.clone.copy_(actor.detach())

    def mode(self, observation: Tensor) -> Tensor:
        """Normalised observations (B, D) -> the cloned action (B, A) in [-1, 1]."""
        with torch.no_grad():
            mean, _ = nets.gaussian(self._layout.views(self.clone), observation)
            return mean.tanh()

    def loss(self, observation: Tensor, mean: Tensor) -> Tensor:
        """Squared distance of the modes tanh(``mean``) (B, A) from the cloned ones, summed over the action, mean over the batch."""
        return (mean.tanh() - self.mode(observation)).square().sum(-1).mean()
