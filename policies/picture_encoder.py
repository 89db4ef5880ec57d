"""From pictures to a few numbers: one small network per camera, shared by actor and critics.

Three convolutions, learned spatial kernels, a dense layer, LayerNorm, tanh. Parameters are named views of one flat vector, as everywhere.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from takeover.data.schema import PolicyImage
from takeover.policies.flat import Layout
from takeover.policies.picture_shift import PAD, Pixels, shift_all

KERNELS = 8  # spatial kernels per channel
_FIRST, _CHANNELS = 16, 32  # channels after the first convolution and after the others
_REDUCTION = 8  # of height and width, by the convolutions

FIXED_SHIFTS = ((0, 0), (-3, 2), (3, -2), (2, 3), (-2, -3), (4, 0), (0, -4), (-4, -1))
"""(down, right) in pixels of the crops that a frozen encoder sees of every frame; the first is the frame as it is."""


@dataclass(frozen=True)
class EncoderShape:
    """What is encoded: ``cameras`` in this order, each ``height`` x ``width`` pixels, to ``features`` numbers in [-1, 1] per camera.

    Raises `ValueError` for cameras that are missing or named twice, and for sizes that the convolutions cannot halve three times.
    """

    cameras: tuple[str, ...]
    height: int = 128
    width: int = 128
    features: int = 64

    def __post_init__(self) -> None:
        if not self.cameras or len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"cameras {list(self.cameras)}: name each of the policy's cameras once")
        if self.height % _REDUCTION or self.width % _REDUCTION or min(self.height, self.width) < 2 * _REDUCTION:
            raise ValueError(f"pictures of {self.width}x{self.height}; both must be multiples of {_REDUCTION}, {2 * _REDUCTION} or more")
        if not 2 <= self.features <= 1024:
            raise ValueError(f"{self.features} features per camera; allowed 2..1024")

    @property
    def size(self) -> int:
        """Numbers that come out."""
        return len(self.cameras) * self.features

    @property
    def frame(self) -> tuple[int, int, int, int]:
        """Shape of the pictures of one moment: (cameras, H, W, 3)."""
        return len(self.cameras), self.height, self.width, 3

    def names(self) -> list[str]:
        """A name for each number that comes out."""
        return [f"{camera}.{i}" for camera in self.cameras for i in range(self.features)]

    def layout(self) -> Layout:
        """Names and shapes of the parameters."""
        places = (self.height // _REDUCTION) * (self.width // _REDUCTION)
        shapes: dict[str, tuple[int, ...]] = {}
        for camera in self.cameras:
            shapes |= {
                f"encoder.{camera}.c0": (_FIRST, 3, 8, 8),
                f"encoder.{camera}.a0": (_FIRST,),
                f"encoder.{camera}.c1": (_CHANNELS, _FIRST, 3, 3),
                f"encoder.{camera}.a1": (_CHANNELS,),
                f"encoder.{camera}.c2": (_CHANNELS, _CHANNELS, 3, 3),
                f"encoder.{camera}.a2": (_CHANNELS,),
                f"encoder.{camera}.k": (_CHANNELS, places, KERNELS),
                f"encoder.{camera}.w": (_CHANNELS * KERNELS, self.features),
                f"encoder.{camera}.b": (self.features,),
            }
        return Layout(shapes)


def initialise_encoder(shape: EncoderShape, generator: torch.Generator) -> Tensor:
    """A fresh flat vector: uniform by fan-in, biases zero."""
    parts = []
    for name, size in shape.layout().shapes.items():
        kind = name.rsplit(".", 1)[1]
        if kind[0] in "ab":
            parts.append(torch.zeros(math.prod(size)))
            continue
        fan_in = math.prod(size[1:]) if kind[0] == "c" else size[1] if kind == "k" else size[0]
        bound = math.sqrt((6.0 if kind[0] == "c" else 3.0) / fan_in)  # a ReLU follows the convolutions
        parts.append((torch.rand(math.prod(size), generator=generator) * 2.0 - 1.0) * bound)
    return torch.cat(parts)


def encode(shape: EncoderShape, views: dict[str, Tensor], pictures: Tensor) -> Tensor:
    """Pictures (B, cameras, H, W, 3) uint8 -> (B, `EncoderShape.size`) float32 in [-1, 1]."""
    return torch.cat([_encode_one(views, f"encoder.{camera}", pictures[:, i]) for i, camera in enumerate(shape.cameras)], 1)


def _encode_one(views: dict[str, Tensor], prefix: str, pictures: Tensor) -> Tensor:
    x = pictures.permute(0, 3, 1, 2).to(views[f"{prefix}.w"].dtype).mul_(2.0 / 255.0).sub_(1.0)
    x = F.conv2d(x, views[f"{prefix}.c0"], views[f"{prefix}.a0"], stride=4, padding=2).relu()
    x = F.conv2d(x, views[f"{prefix}.c1"], views[f"{prefix}.a1"], stride=2, padding=1).relu()
    x = F.conv2d(x, views[f"{prefix}.c2"], views[f"{prefix}.a2"], padding=1).relu()
    x = torch.bmm(x.flatten(2).transpose(0, 1), views[f"{prefix}.k"])  # (channels, B, kernels)
    x = x.transpose(0, 1).flatten(1)
    x = torch.addmm(views[f"{prefix}.b"], x, views[f"{prefix}.w"])
    return F.layer_norm(x, x.shape[1:]).tanh()


def stack_pictures(shape: EncoderShape, images: Sequence[PolicyImage], where: str) -> Pixels:
    """One moment's pictures as (cameras, H, W, 3) uint8, in the shape's order of cameras.

    Raises `ValueError` naming ``where`` and the camera for a picture that is missing or has another size.
    """
    found = []
    for camera in shape.cameras:
        image = next((image for image in images if image.camera == camera), None)
        if image is None:
            has = ", ".join(image.camera for image in images) or "none"
            raise ValueError(f"{where}: no picture of camera {camera!r} (there: {has}); add it to policy_cameras, or learn without it")
        if (image.height, image.width) != (shape.height, shape.width) or len(image.data) != shape.height * shape.width * 3:
            got = f"{image.width}x{image.height} in {len(image.data)} bytes"
            raise ValueError(f"{where}: camera {camera!r} gives {got}; expected {shape.width}x{shape.height} RGB of a byte per colour")
        found.append(np.frombuffer(image.data, np.uint8).reshape(shape.height, shape.width, 3))
    return np.stack(found)


def fixed_crops(frame: Pixels, count: int) -> Pixels:
    """(cameras, H, W, 3) -> (count, cameras, H, W, 3): the frame as `FIXED_SHIFTS` move it."""
    crops = np.empty((count, *frame.shape), np.uint8)
    shift_all([frame] * count, np.array(FIXED_SHIFTS[:count]), crops)
    return crops


def random_crops(frames: Pixels, generator: torch.Generator) -> Tensor:
    """(B, cameras, H, W, 3) uint8, each frame shifted by up to `PAD` pixels each way."""
    shifts = torch.randint(-PAD, PAD + 1, (len(frames), 2), generator=generator).numpy()
    crops = np.empty_like(frames)
    shift_all(frames, shifts, crops)
    return torch.from_numpy(crops)


def encoder_config(shape: EncoderShape) -> dict[str, Any]:
    """What a manifest needs to rebuild it."""
    return {"cameras": list(shape.cameras), "picture_height": shape.height, "picture_width": shape.width, "features": shape.features}
