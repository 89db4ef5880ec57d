"""The actor of ``hil-serl`` that sees: its encoder, and the network on the robot's numbers and the features."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from takeover.data.schema import PolicyImage, RobotSpec
from takeover.policies.base import Decision, FloatArray, PolicyRefused
from takeover.policies.feature_replay import widened
from takeover.policies.inference import SquashedGaussianPolicy
from takeover.policies.picture_encoder import EncoderShape, encode, stack_pictures


class PictureGaussianPolicy:
    """`look` at the pictures of an observation, then `act` on it. Raises `PolicyRefused` for weights that do not fit the robot."""

    def __init__(self, config: dict[str, Any], tensors: dict[str, Tensor], spec: RobotSpec) -> None:
        cameras = tuple(str(name) for name in config["cameras"])
        if missing := [camera for camera in cameras if camera not in spec.policy_cameras]:
            has = ", ".join(spec.policy_cameras) or "none"
            raise PolicyRefused(f"this policy needs pictures of {', '.join(missing)}; policy_cameras of this station: {has}")
        try:
            self._shape = EncoderShape(cameras, int(config["picture_height"]), int(config["picture_width"]), int(config["features"]))
        except ValueError as error:
            raise PolicyRefused(str(error)) from error
        layout = self._shape.layout()
        self._views = {name: _checked(name, shape, tensors) for name, shape in layout.shapes.items()}
        rest = {name: tensor for name, tensor in tensors.items() if name not in layout.shapes}
        self._inner = SquashedGaussianPolicy(config, rest, widened(spec, self._shape.names()))
        self._size = spec.observation.size
        self._features: FloatArray | None = None

    @property
    def cameras(self) -> tuple[str, ...]:
        return self._shape.cameras

    def reset(self) -> None:
        self._features = None

    @torch.inference_mode()
    def look(self, images: Sequence[PolicyImage]) -> None:
        """Raises `ValueError` naming the camera whose picture is missing or has another size."""
        pictures = torch.from_numpy(stack_pictures(self._shape, images, "observation"))
        self._features = encode(self._shape, self._views, pictures.unsqueeze(0)).numpy()[0]

    def act(self, observation: FloatArray, *, sample: bool, generator: torch.Generator | None = None) -> Decision:
        """Raises `ValueError` when this observation's pictures were not looked at."""
        if self._features is None:
            raise ValueError(f"an observation without pictures; this policy needs those of {', '.join(self.cameras)}")
        if observation.shape != (self._size,):
            raise ValueError(f"observation of shape {observation.shape}; this policy needs ({self._size},) and pictures")
        seen, self._features = self._features, None  # never those of the step before
        return self._inner.act(np.concatenate([np.asarray(observation, np.float32), seen]), sample=sample, generator=generator)


def _checked(name: str, shape: tuple[int, ...], tensors: dict[str, Tensor]) -> Tensor:
    if name not in tensors:
        raise PolicyRefused(f"tensor {name!r} is missing")
    tensor = tensors[name]
    if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
        raise PolicyRefused(f"tensor {name!r} is {tensor.dtype} of {tuple(tensor.shape)}; this policy's cameras need float32 of {shape}")
    if not bool(torch.isfinite(tensor).all()):
        raise PolicyRefused(f"tensor {name!r} holds a number that is not finite")
    return tensor
