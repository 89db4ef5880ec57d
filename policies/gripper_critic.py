"""The discrete gripper as outputs of the critics: 0 close, 1 keep, 2 open."""

import torch
from torch import Tensor


def gripper_columns(command: Tensor) -> Tensor:
    """Canonical gripper commands (B,) -> critic outputs (B,) int64."""
    return (command > 0.5).long() - (command < -0.5).long() + 1


def gather_command(values: Tensor, command: Tensor) -> Tensor:
    """Values (E, B, 3) at the commands (B,) int64 -> (E, B)."""
    return values.gather(2, command.expand(values.shape[0], -1).unsqueeze(-1)).squeeze(-1)


def margin_loss(values: Tensor, command: Tensor, margin: float) -> Tensor:
    """Large-margin cloning: the demonstrated command (B,) must beat the others by ``margin`` in values (E, B, 3); a scalar."""
    required = torch.full_like(values[0], margin).scatter_(1, command.unsqueeze(-1), 0.0)
    return ((values + required).amax(-1) - gather_command(values, command)).mean()
