"""The reward classifier itself: probability of success of a state and, where it was trained on them, pictures.

An ensemble of small networks on normalised numbers (the state, and ``features`` numbers per camera of a frozen encoder); the smallest
probability counts. Where a range check is set, a state outside of it is no success whatever the networks say.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from takeover.policies import nets
from takeover.policies.flat import Layout
from takeover.policies.reward_settings import RewardError

FloatArray = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
CHANNELS = (3, 16, 32, 32, 32)
MEAN, SCALE = "normaliser.mean", "normaliser.scale"


@dataclass(frozen=True)
class RewardConfig:
    """All that is needed beside the weights. ``inputs``: indices of the observation; ``checks``: (index, low, high)."""

    observation_size: int
    inputs: tuple[int, ...]
    cameras: tuple[str, ...]
    hidden: int
    members: int
    features: int
    picture_size: int
    threshold: float
    checks: tuple[tuple[int, float, float], ...] = ()

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "RewardConfig":
        """Raises `RewardError` for what is missing or cannot be."""
        try:
            made = cls(
                **{name: int(content[name]) for name in ("observation_size", "hidden", "members", "features", "picture_size")},
                inputs=tuple(int(i) for i in content["inputs"]),
                cameras=tuple(str(name) for name in content["cameras"]),
                threshold=float(content["threshold"]),
                checks=tuple((int(i), float(low), float(high)) for i, low, high in content.get("checks", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RewardError(f"the classifier's configuration is not complete: {error}") from None
        indices = [*made.inputs, *(index for index, _, _ in made.checks)]
        if any(not 0 <= index < made.observation_size for index in indices) or not (made.inputs or made.cameras):
            raise RewardError(f"the classifier's configuration names inputs that an observation of {made.observation_size} does not have")
        return made

    @property
    def width(self) -> int:
        return len(self.inputs) + self.features * len(self.cameras)

    def head_layout(self) -> Layout:
        return Layout(nets.critic_layout(self.width, self.hidden, 1, self.members))

    def encoder_layout(self) -> Layout:
        return Layout(encoder_shapes(self.cameras, self.features, self.picture_size))


def encoder_shapes(cameras: tuple[str, ...], features: int, size: int) -> dict[str, tuple[int, ...]]:
    """Per camera: four convolutions that halve each side, then one linear layer."""
    shapes: dict[str, tuple[int, ...]] = {}
    left = -(-size // 16)
    for number, _ in enumerate(cameras):
        for i, (before, after) in enumerate(itertools.pairwise(CHANNELS)):
            shapes[f"camera{number}.w{i}"] = (after, before, 3, 3)
            shapes[f"camera{number}.b{i}"] = (after,)
        shapes[f"camera{number}.projection"] = (CHANNELS[-1] * left * left, features)
    return shapes


def encode(views: Mapping[str, Tensor], number: int, pictures: Tensor) -> Tensor:
    """Camera ``number``: pictures (B, 3, S, S) in [0, 1] -> features (B, F) in (-1, 1)."""
    x = pictures - 0.5
    for i in range(len(CHANNELS) - 1):
        x = F.relu(F.conv2d(x, views[f"camera{number}.w{i}"], views[f"camera{number}.b{i}"], stride=2, padding=1))
    x = x.flatten(1) @ views[f"camera{number}.projection"]
    return F.layer_norm(x, x.shape[-1:]).tanh()


def small(pictures: Pixels, size: int) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, S, S) float32 in [0, 1], by area."""
    x = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float().div_(255.0)
    return x if tuple(x.shape[2:]) == (size, size) else F.interpolate(x, size=(size, size), mode="area")


class RewardModel:
    """Weights that passed every check. ``tensors`` as `RewardConfig` lays them out, normaliser (width,) included."""

    def __init__(self, config: RewardConfig, tensors: Mapping[str, Tensor]) -> None:
        head, encoder = config.head_layout(), config.encoder_layout()
        expected = head.shapes | encoder.shapes | {MEAN: (config.width,), SCALE: (config.width,)}
        for name, shape in expected.items():
            if name not in tensors or tuple(tensors[name].shape) != shape:
                found = tuple(tensors[name].shape) if name in tensors else "nothing"
                raise RewardError(f"the classifier's tensor {name!r} is {found}; expected {shape}")
            if not bool(torch.isfinite(tensors[name]).all()):
                raise RewardError(f"the classifier's tensor {name!r} holds a number that is not finite")
        if unknown := sorted(set(tensors) - set(expected)):
            raise RewardError(f"unknown tensors in a classifier: {', '.join(unknown)}")
        self.config = config
        self.tensors = {name: tensors[name] for name in expected}
        self._inputs = list(config.inputs)

    @torch.inference_mode()
    def features(self, pictures: Mapping[str, Pixels]) -> Tensor:
        """{camera: (B, H, W, 3) uint8} -> (B, F x cameras). Raises `RewardError` naming a camera that is missing."""
        parts = []
        for number, camera in enumerate(self.config.cameras):
            if camera not in pictures:
                raise RewardError(f"the classifier needs pictures of camera {camera!r}; there are {', '.join(pictures) or 'none'}")
            parts.append(encode(self.tensors, number, small(pictures[camera], self.config.picture_size)))
        return torch.cat(parts, 1) if parts else torch.zeros(0, 0)

    @torch.inference_mode()
    def probabilities(self, states: FloatArray, features: Tensor | None = None) -> FloatArray:
        """States (B, D) float32 and features (B, F x cameras) -> probability of success (B,), 0 where a check fails."""
        if states.ndim != 2 or states.shape[1] != self.config.observation_size:
            raise RewardError(f"states of shape {states.shape}; this classifier needs (B, {self.config.observation_size})")
        x = torch.from_numpy(np.ascontiguousarray(states[:, self._inputs], np.float32))
        if self.config.cameras:
            if features is None or len(features) != len(x):
                raise RewardError("this classifier needs pictures: the policy's cameras must be recorded")
            x = torch.cat([x, features], 1)
        logits = nets.critics(self.tensors, nets.normalise(x, self.tensors[MEAN], self.tensors[SCALE])).squeeze(-1)
        found = logits.amin(0).sigmoid().numpy()
        found[~np.isfinite(found)] = 0.0  # a step without pictures has features of NaN
        for index, low, high in self.config.checks:
            found[(states[:, index] < low) | (states[:, index] > high)] = 0.0
        return found.astype(np.float32)

    def probability(self, state: npt.NDArray[Any], pictures: Mapping[str, Pixels] | None = None) -> float:
        """Of one state (D,) and one picture (H, W, 3) per camera."""
        features = self.features({name: picture[None] for name, picture in (pictures or {}).items()}) if self.config.cameras else None
        return float(self.probabilities(np.asarray(state, np.float32)[None], features)[0])


def first_success(probabilities: FloatArray, threshold: float) -> int:
    """The first step at which the probability passes; -1: none does."""
    passing = np.flatnonzero(probabilities >= threshold)
    return int(passing[0]) if passing.size else -1
