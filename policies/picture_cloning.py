"""The encoder's warm start: it is cloned together with a small head, from demonstrations, and frozen afterwards.

The head sees the robot's normalised numbers and the features, and predicts what the person did: the continuous action and, where the
gripper is discrete, one of close, keep, open. It is thrown away; what remains are features that tell what a person would do.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from takeover.data.schema import RobotSpec
from takeover.policies import nets
from takeover.policies.device import sent
from takeover.policies.flat import Adam, Layout
from takeover.policies.gripper_critic import gripper_columns
from takeover.policies.inference import split_action
from takeover.policies.normaliser import fit_normaliser
from takeover.policies.picture_encoder import EncoderShape, encode, random_crops
from takeover.policies.picture_shift import Pixels

_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class CloningSet:
    """What is cloned: the n human steps of demonstrations."""

    observations: Tensor  # (n, D) float32, the robot's own numbers
    frames: Pixels  # (n, cameras, H, W, 3) uint8
    actions: Tensor  # (n, A) float32, canonical


@dataclass(frozen=True)
class CloningSettings:
    updates: int
    batch: int
    learning_rate: float
    weight_decay: float
    hidden: int


def clone_encoder(
    spec: RobotSpec, shape: EncoderShape, encoder: Tensor, data: CloningSet, settings: CloningSettings, generator: torch.Generator
) -> Iterator[tuple[float, float]]:
    """Train the flat parameters ``encoder`` in place, on their device; yields (progress in [0, 1], loss) after every update.

    A loss that is not finite raises `FloatingPointError` before anything is changed by it.
    """
    arm, gripper = split_action(spec)
    inputs = spec.observation.size + shape.size
    layouts = shape.layout(), Layout(nets.mlp_layout("head", inputs, settings.hidden, len(arm) + (3 if gripper >= 0 else 0)))
    head = nets.initialise(layouts[1], generator, last_scale=0.1).to(encoder.device)
    everything = torch.cat([encoder.detach(), head]).requires_grad_()
    sizes = [layout.size for layout in layouts]
    optimiser = Adam(everything.numel(), settings.learning_rate, device=encoder.device)
    mean, scale = fit_normaliser(data.observations, spec.observation.units)
    numbers = nets.normalise(data.observations, mean, scale)
    for i in range(settings.updates):
        optimiser.learning_rate = settings.learning_rate * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * i / settings.updates)))
        chosen = torch.randint(len(numbers), (settings.batch,), generator=generator)
        pictures = random_crops(data.frames[chosen.numpy()], generator)
        views = [layout.views(part) for layout, part in zip(layouts, torch.split(everything, sizes), strict=True)]
        outputs = outputs_of(shape, (views[0], views[1]), numbers[chosen], pictures)
        loss = _loss(outputs, sent(data.actions[chosen], encoder.device), arm, gripper)
        value = float(loss.detach())
        (gradient,) = torch.autograd.grad(loss, [everything])
        norm = float(gradient.norm())
        if not math.isfinite(value + norm):
            raise FloatingPointError(f"cloning the encoder: loss {value} or its gradient is not finite at update {i}")
        optimiser.step(everything, gradient.mul_(min(1.0, _GRADIENT_NORM / max(norm, 1e-12))))
        with torch.no_grad():
            everything.mul_(1.0 - optimiser.learning_rate * settings.weight_decay)
            encoder.copy_(everything[: sizes[0]])
        yield (i + 1) / settings.updates, value


def outputs_of(shape: EncoderShape, views: tuple[dict[str, Tensor], dict[str, Tensor]], numbers: Tensor, pictures: Tensor) -> Tensor:
    """Encoder and head on their device, for a batch of the robot's numbers (B, D) and pictures from the CPU."""
    device = views[1]["head.w0"].device
    return nets.mlp(views[1], "head", torch.cat([sent(numbers, device), encode(shape, views[0], sent(pictures, device))], 1))


def _loss(outputs: Tensor, actions: Tensor, arm: list[int], gripper: int) -> Tensor:
    loss = (outputs[:, : len(arm)].tanh() - actions[:, arm]).square().sum(-1).mean()
    if gripper >= 0:
        loss = loss + 0.1 * F.cross_entropy(outputs[:, len(arm) :], gripper_columns(actions[:, gripper]))
    return loss


@torch.inference_mode()
def encode_frames(shape: EncoderShape, encoder: Tensor, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Frames (n, cameras, H, W, 3) through the encoder as it is -> (n, features) float32."""
    return encode(shape, shape.layout().views(encoder), sent(torch.from_numpy(frames), encoder.device)).cpu().numpy()
