"""Networks as one flat parameter vector with named views: one Adam step and one target update are a handful of kernels.

On one CPU core at 2x128 units and batch 256 a learner is bound by kernel launches, not by arithmetic.
"""

import math
from collections.abc import Mapping

import torch

from takeover.policies.torch_setup import INFERENCE_DTYPE


class Layout:
    """Names and shapes of a network's parameters, in order."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = dict(shapes)
        self.sizes = [math.prod(shape) for shape in self.shapes.values()]
        self.size = sum(self.sizes)

    def views(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Named views of ``flat`` (size,). One split, so that its gradient is one concatenation."""
        parts = torch.split(flat, self.sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def pack(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The flat vector of ``tensors``. Raises `ValueError` naming what is missing or has the wrong shape."""
        parts = []
        for name, shape in self.shapes.items():
            if name not in tensors:
                raise ValueError(f"parameter {name!r} is missing")
            if tuple(tensors[name].shape) != shape:
                raise ValueError(f"parameter {name!r} has shape {tuple(tensors[name].shape)}; expected {shape}")
            parts.append(tensors[name].detach().reshape(-1).to(INFERENCE_DTYPE))
        unknown = sorted(set(tensors) - set(self.shapes))
        if unknown:
            raise ValueError(f"unknown parameters {', '.join(unknown)}")
        return torch.cat(parts)


class Adam:
    """Adam on one flat vector, in place. ``state``/``restore`` carry moments and step count."""

    def __init__(
        self,
        size: int,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        device: torch.device | None = None,
    ) -> None:
        self.learning_rate = learning_rate
        self.beta1, self.beta2 = betas
        self.epsilon = epsilon
        self.count = 0
        self.moment1 = torch.zeros(size, device=device)
        self.moment2 = torch.zeros(size, device=device)

    def step(self, parameters: torch.Tensor, gradient: torch.Tensor) -> None:
        """One update of ``parameters`` (size,) with ``gradient`` (size,)."""
        self.count += 1
        torch._fused_adam_(  # one kernel; what torch.optim.Adam(fused=True) calls
            [parameters.detach()],
            [gradient],
            [self.moment1],
            [self.moment2],
            [],
            [torch.tensor(float(self.count), device=parameters.device)],
            lr=self.learning_rate,
            beta1=self.beta1,
            beta2=self.beta2,
            weight_decay=0.0,
            eps=self.epsilon,
            amsgrad=False,
            maximize=False,
        )

    def state(self) -> dict[str, torch.Tensor]:
        return {"count": torch.tensor(self.count), "moment1": self.moment1.clone(), "moment2": self.moment2.clone()}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        if state["moment1"].shape != self.moment1.shape:
            raise ValueError(f"optimiser state of {tuple(state['moment1'].shape)}; expected {tuple(self.moment1.shape)}")
        self.count = int(state["count"])
        self.moment1.copy_(state["moment1"])
        self.moment2.copy_(state["moment2"])
