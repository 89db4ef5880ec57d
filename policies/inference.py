"""Policies that act, rebuilt from published weights. One observation in, one canonical action out, well below a millisecond."""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from takeover.data.schema import RobotSpec
from takeover.policies import nets
from takeover.policies.base import Decision, FloatArray, Policy, PolicyRefused, PolicyWeights
from takeover.policies.flat import Layout
from takeover.policies.frames import relative
from takeover.policies.residual import residual_gaussian

NORMALISER = ("normaliser.mean", "normaliser.scale")


class _Network:
    """Checked tensors of one architecture: exactly the expected names and shapes, all finite."""

    def __init__(self, layout: Layout, tensors: dict[str, Tensor], observation_size: int) -> None:
        expected = dict(layout.shapes) | dict.fromkeys(NORMALISER, (observation_size,))
        for name, shape in expected.items():
            if name not in tensors:
                raise PolicyRefused(f"tensor {name!r} is missing")
            if tuple(tensors[name].shape) != shape:
                raise PolicyRefused(f"tensor {name!r} has shape {tuple(tensors[name].shape)}; this robot needs {shape}")
            if tensors[name].dtype != torch.float32:
                raise PolicyRefused(f"tensor {name!r} is {tensors[name].dtype}; expected float32")
            if not bool(torch.isfinite(tensors[name]).all()):
                raise PolicyRefused(f"tensor {name!r} holds a number that is not finite")
        if unknown := sorted(set(tensors) - set(expected)):
            raise PolicyRefused(f"unknown tensors: {', '.join(unknown)}")
        self.views = {name: tensors[name] for name in layout.shapes}
        self._mean, self._scale = tensors[NORMALISER[0]], tensors[NORMALISER[1]]
        self._size = observation_size

    def normalised(self, observation: FloatArray) -> Tensor:
        """(D,) -> (1, D)."""
        if observation.shape != (self._size,):
            raise ValueError(f"observation of shape {observation.shape}; this policy needs ({self._size},)")
        return nets.normalise(torch.from_numpy(np.asarray(observation, np.float32)).unsqueeze(0), self._mean, self._scale)


class SquashedGaussianPolicy:
    """Actor of ``hil-serl``; a discrete gripper is the critics' best command for the chosen motion."""

    def __init__(self, config: dict[str, Any], tensors: dict[str, Tensor], spec: RobotSpec) -> None:
        self._arm, self._gripper = split_action(spec)
        d, a, hidden, ensemble = spec.observation.size, len(self._arm), int(config["hidden"]), int(config["ensemble"])
        if (self._gripper >= 0) != (ensemble > 0):
            raise PolicyRefused("these weights and this robot differ in having a discrete gripper")
        shapes = nets.mlp_layout("actor", d, hidden, 2 * a)
        if ensemble:
            shapes |= nets.critic_layout(d + a, hidden, 3, ensemble)
        self._residual_scale = float(config.get("residual_scale", 0.0))
        base = nets.mlp_layout("base", d, hidden, 2 * a) if self._residual_scale else {}
        self._network = _Network(Layout(shapes | base), tensors, d)
        self._base = {name.replace("base.", "actor."): self._network.views[name] for name in base}
        self._size = spec.action.size

    @property
    def history(self) -> int:
        return 1

    def reset(self) -> None:
        """Memoryless."""

    @torch.inference_mode()
    def act(self, observation: FloatArray, *, sample: bool, generator: torch.Generator | None = None) -> Decision:
        x = self._network.normalised(observation)
        if self._residual_scale:
            mean, log_std = residual_gaussian(self._network.views, self._base, self._residual_scale, x)
        else:
            mean, log_std = nets.gaussian(self._network.views, x)
        std = log_std.exp()
        raw = torch.addcmul(mean, std, torch.randn(mean.shape, generator=generator)) if sample else mean
        arm = raw.tanh()
        actions = np.empty((1, self._size), np.float32)
        actions[:, self._arm] = arm.numpy()
        if self._gripper >= 0:
            values = nets.critics(self._network.views, torch.cat([x, arm], 1)).mean(0)
            actions[0, self._gripper] = float(int(values.argmax()) - 1)
        return Decision(actions, spread=float(std.mean()))


class MixturePolicy:
    """Gaussian mixture over a short history: the imitation learners' policy. Evaluation takes the likeliest mode's mean."""

    def __init__(self, config: dict[str, Any], tensors: dict[str, Tensor], spec: RobotSpec) -> None:
        self._arm, self._gripper = split_action(spec)
        d, a = spec.observation.size, len(self._arm)
        self._modes, self._history_length = int(config["modes"]), int(config["history"])
        outputs = nets.mixture_outputs(a, self._modes, self._gripper >= 0)
        shapes = nets.mlp_layout("policy", d * self._history_length, int(config["hidden"]), outputs)
        self._network = _Network(Layout(shapes), tensors, d)
        self._size, self._a = spec.action.size, a
        self._history: deque[Tensor] = deque(maxlen=self._history_length)

    @property
    def history(self) -> int:
        return self._history_length

    def reset(self) -> None:
        self._history.clear()

    @torch.inference_mode()
    def act(self, observation: FloatArray, *, sample: bool, generator: torch.Generator | None = None) -> Decision:
        x = self._network.normalised(observation)
        while len(self._history) < self._history_length - 1:
            self._history.append(x)  # a run begins with its first observation repeated
        self._history.append(x)
        outputs = nets.mlp(self._network.views, "policy", torch.cat(list(self._history), 1))
        logits, means, log_stds, gripper = nets.split_mixture(outputs, self._a, self._modes)
        mode = int(torch.multinomial(logits.softmax(-1), 1, generator=generator)) if sample else int(logits.argmax())
        arm = means[0, mode]
        if sample:
            arm = torch.addcmul(arm, log_stds[0, mode].exp(), torch.randn(arm.shape, generator=generator))
        actions = np.empty((1, self._size), np.float32)
        actions[0, self._arm] = arm.clamp(-1.0, 1.0).numpy()
        if self._gripper >= 0:
            actions[0, self._gripper] = float(int(gripper.argmax()) - 1)
        return Decision(actions, spread=float(log_stds[0, mode].exp().mean()))


def _picture_gaussian(config: dict[str, Any], tensors: dict[str, Tensor], spec: RobotSpec) -> Policy:
    from takeover.policies.picture_policy import PictureGaussianPolicy  # which is built on this module

    return PictureGaussianPolicy(config, tensors, spec)


ARCHITECTURES: dict[str, Callable[[dict[str, Any], dict[str, Tensor], RobotSpec], Policy]] = {
    "squashed_gaussian": SquashedGaussianPolicy,
    "gaussian_mixture": MixturePolicy,
    "picture_gaussian": _picture_gaussian,
}


def build_policy(weights: PolicyWeights, spec: RobotSpec) -> Policy:
    """A policy for ``spec``. Raises `PolicyRefused` with the reason."""
    if weights.architecture not in ARCHITECTURES:
        raise PolicyRefused(f"unknown architecture {weights.architecture!r}; known: {', '.join(ARCHITECTURES)}")
    try:
        policy = ARCHITECTURES[weights.architecture](weights.config, weights.tensors, spec)
    except KeyError as error:
        raise PolicyRefused(f"the configuration lacks {error}") from error
    return relative(policy, weights.config, spec)


def split_action(spec: RobotSpec) -> tuple[list[int], int]:
    """Indices of the action that are continuous, and the discrete gripper's (-1: none)."""
    if spec.action.gripper != "discrete":
        return list(range(spec.action.size)), -1
    group = next((g for g in spec.action.groups if g.name == "gripper"), None)
    if group is None or group.stop - group.start != 1:
        raise ValueError("a discrete gripper needs an action group named 'gripper' of one number")
    return [i for i in range(spec.action.size) if i != group.start], group.start
