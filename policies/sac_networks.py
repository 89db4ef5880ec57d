"""Everything of hil-serl that is trained, saved and restored as one: networks, optimisers, normaliser, temperature."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from takeover.data.schema import RobotSpec
from takeover.policies import nets
from takeover.policies.base import FloatArray, LearnerError, PolicyWeights
from takeover.policies.flat import Adam, Layout
from takeover.policies.frames import Frames
from takeover.policies.hil_serl_parameters import HilSerlParameters
from takeover.policies.inference import split_action
from takeover.policies.residual import residual_gaussian
from takeover.policies.sac_autograd import AutogradUpdate
from takeover.policies.sac_update import Gradients, SacUpdate
from takeover.policies.warm_start import Anchor


class SacNetworks:
    """Flat vectors on ``device`` that change in place only; the temperature, a single number, stays on the CPU."""

    def __init__(self, spec: RobotSpec, generator: torch.Generator, parameters: HilSerlParameters, device: torch.device) -> None:
        p = parameters
        self.parameters, self.device = parameters, device
        self.discrete_gripper = spec.action.gripper == "discrete"
        self._arm, self._gripper = split_action(spec)
        self._frames = Frames.of(spec, p.relative_pose, p.ee_frame)
        d, a = spec.observation.size, len(self._arm)
        self._actor_layout = Layout(nets.mlp_layout("actor", d, p.hidden, 2 * a))
        self._critic_layout = Layout(nets.critic_layout(d + a, p.hidden, 3 if self.discrete_gripper else 1, p.ensemble))
        self._actor = nets.initialise(self._actor_layout, generator, last_scale=0.1).to(device)
        self._critic = nets.initialise(self._critic_layout, generator).to(device)
        self._target = self._critic.clone()
        self._published = self._actor.clone()  # running average, what acts
        self._anchor = Anchor(self._actor_layout, device)
        self._base = torch.zeros_like(self._actor) if p.residual_scale else None  # the frozen actor below a residual
        self._temperature = torch.tensor([math.log(math.expm1(p.initial_temperature))])  # inverse softplus
        self._mean = torch.zeros(d, device=device)
        self._scale = torch.ones(d, device=device)
        self._actor_optimiser = Adam(self._actor_layout.size, p.learning_rate, device=device)
        self._critic_optimiser = Adam(self._critic_layout.size, p.learning_rate, device=device)
        self._temperature_optimiser = Adam(1, p.learning_rate)

    def _make_gradients(self) -> Gradients:
        """Written out, or by autograd where a setting asks for what only autograd can."""
        p = self.parameters
        networks = (self._actor, self._actor_layout, self._critic, self._target, self._critic_layout)
        residual: dict[str, Any] = {"gripper": self.discrete_gripper, "base": self._base, "residual_scale": p.residual_scale}
        if p.written_gradients and not (p.compile or p.bf16):
            return SacUpdate(*networks, p.batch, **residual)
        return AutogradUpdate(*networks, **residual, compiled=p.compile, bf16=p.bf16)

    def _normalised(self, observation: Tensor) -> Tensor:
        return nets.normalise(observation, self._mean, self._scale)

    def _target_critics(self, generator: torch.Generator) -> Tensor | None:
        """Which critics the next target is the minimum of, (S,) int64, drawn anew each time; None: of all, and nothing is drawn."""
        p = self.parameters
        if p.target_subset in (0, p.ensemble):
            return None
        return torch.randperm(p.ensemble, generator=generator)[: p.target_subset].to(self.device)

    def _finite(self) -> bool:
        return all(bool(torch.isfinite(flat).all()) for flat in (self._actor, self._critic, self._target))

    def weights(self) -> PolicyWeights:
        """The acting network, on the CPU: actor, the critics too where they choose the gripper, and the normaliser."""
        flat = self._actor_layout.views(self._published)
        if self.discrete_gripper:
            flat = flat | self._critic_layout.views(self._critic)
        flat |= {"normaliser.mean": self._mean, "normaliser.scale": self._scale}
        config: dict[str, Any] = {"hidden": self.parameters.hidden, "ensemble": self.parameters.ensemble if self.discrete_gripper else 0}
        if self._frames is not None:
            config["frames"] = self._frames.config
        if self._base is not None:
            config["residual_scale"] = self.parameters.residual_scale
            flat |= {name.replace("actor.", "base."): view for name, view in self._actor_layout.views(self._base).items()}
        return PolicyWeights("squashed_gaussian", config, {name: view.clone().cpu() for name, view in flat.items()}, metrics={})

    @torch.inference_mode()
    def start_values(self, first: FloatArray) -> FloatArray:
        """Discounted return (N,) that the critics expect, in their mean, from what acts (its mode, and the best gripper command) at first
        observations of episodes (N, D), canonical. Raises `ValueError` for another shape, and where pictures are observed."""
        size = len(self._mean)
        if self.parameters.observations != "state" or first.ndim != 2 or first.shape[1] != size:
            raise ValueError(f"first observations of shape {first.shape}; start values need (N, {size}) numbers of the state")
        if self._frames is not None:
            first = np.array([self._frames.observation(one, one) for one in first])
        x = self._normalised(torch.as_tensor(np.asarray(first, np.float32), device=self.device))
        actor = self._actor_layout.views(self._published)
        if self._base is None:
            mean, _ = nets.gaussian(actor, x)
        else:
            mean, _ = residual_gaussian(actor, self._actor_layout.views(self._base), self.parameters.residual_scale, x)
        values = nets.critics(self._critic_layout.views(self._critic), torch.cat([x, mean.tanh()], 1)).mean(0)
        found: FloatArray = values.amax(-1).cpu().numpy()
        return found

    def _held(self) -> dict[str, Tensor]:
        """The vectors themselves, by their names in a checkpoint."""
        held = {
            "actor": self._actor,
            "published": self._published,
            "clone": self._anchor.clone,
            "critic": self._critic,
            "target": self._target,
            "temperature": self._temperature,
            "mean": self._mean,
            "scale": self._scale,
        }
        return held if self._base is None else held | {"base": self._base}

    def _state_tensors(self) -> dict[str, Tensor]:
        """Copies on the device."""
        tensors = {name: tensor.clone() for name, tensor in self._held().items()}
        for name, optimiser in self._optimisers().items():
            tensors |= {f"{name}.{key}": value for key, value in optimiser.state().items()}
        return tensors

    def _optimisers(self) -> dict[str, Adam]:
        return {"adam_actor": self._actor_optimiser, "adam_critic": self._critic_optimiser, "adam_temperature": self._temperature_optimiser}

    def _restore_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Raises `LearnerError` naming what is missing or has another shape, before anything was changed."""
        held = self._held()
        wanted = {name: tuple(tensor.shape) for name, tensor in held.items()}
        for name, optimiser in self._optimisers().items():
            wanted |= {f"{name}.{key}": tuple(value.shape) for key, value in optimiser.state().items()}
        for name, shape in wanted.items():
            if name not in tensors:
                raise LearnerError(f"the saved state has no {name!r}: it is of an earlier version that this one cannot continue")
            if tuple(tensors[name].shape) != shape:
                raise LearnerError(f"the saved {name!r} has shape {tuple(tensors[name].shape)}, not {shape}: it is of another robot")
        for name, tensor in held.items():
            tensor.copy_(tensors[name])
        for name, optimiser in self._optimisers().items():
            optimiser.restore({key: tensors[f"{name}.{key}"] for key in ("count", "moment1", "moment2")})
