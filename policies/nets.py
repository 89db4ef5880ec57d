"""Network functions on named views of a flat parameter vector. Batches are (B, ...) float32 tensors.

Actor and cloning policies are MLPs; critics are an ensemble of E networks evaluated by one batched product, with separate
weights throughout, so that no layer is shared.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from takeover.policies.flat import Layout

MIN_STD = 1e-5
MAX_STD = 5.0
LOG_MIN_STD = math.log(MIN_STD)
LOG_MAX_STD = math.log(MAX_STD)
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
_LOG_2 = math.log(2.0)


def mlp_layout(prefix: str, inputs: int, hidden: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a two-layer ReLU MLP."""
    return {
        f"{prefix}.w0": (inputs, hidden),
        f"{prefix}.b0": (hidden,),
        f"{prefix}.w1": (hidden, hidden),
        f"{prefix}.b1": (hidden,),
        f"{prefix}.w2": (hidden, outputs),
        f"{prefix}.b2": (outputs,),
    }


def critic_layout(inputs: int, hidden: int, outputs: int, ensemble: int) -> dict[str, tuple[int, ...]]:
    """Shapes of an ensemble of critics."""
    return {
        "critic.w0": (ensemble, inputs, hidden),
        "critic.b0": (ensemble, 1, hidden),
        "critic.w1": (ensemble, hidden, hidden),
        "critic.b1": (ensemble, 1, hidden),
        "critic.w2": (ensemble, hidden, outputs),
        "critic.b2": (ensemble, 1, outputs),
    }


def initialise(layout: Layout, generator: torch.Generator, *, last_scale: float = 1.0) -> Tensor:
    """Uniform fan-in initialisation (+-sqrt(3 / fan_in)), zero biases; the last layer scaled by ``last_scale``."""
    parts = []
    for name, shape in layout.shapes.items():
        if name.rsplit(".", 1)[1].startswith("b"):
            parts.append(torch.zeros(math.prod(shape)))
            continue
        bound = math.sqrt(3.0 / shape[-2])
        if name.endswith("w2"):
            bound *= last_scale
        parts.append((torch.rand(math.prod(shape), generator=generator) * 2.0 - 1.0) * bound)
    return torch.cat(parts)


def mlp(views: dict[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    """(B, inputs) -> (B, outputs)."""
    h = torch.addmm(views[f"{prefix}.b0"], x, views[f"{prefix}.w0"]).relu()
    h = torch.addmm(views[f"{prefix}.b1"], h, views[f"{prefix}.w1"]).relu()
    return torch.addmm(views[f"{prefix}.b2"], h, views[f"{prefix}.w2"])


def critics(views: dict[str, Tensor], x: Tensor) -> Tensor:
    """(B, D + A) -> (E, B, outputs). LayerNorm before each ReLU keeps values bounded on actions that were never tried."""
    ensemble = views["critic.w0"].shape[0]
    x = x.unsqueeze(0).expand(ensemble, -1, -1)
    for i in ("0", "1"):
        h = torch.baddbmm(views[f"critic.b{i}"], x, views[f"critic.w{i}"])
        x = F.layer_norm(h, h.shape[-1:]).relu()
    return torch.baddbmm(views["critic.b2"], x, views["critic.w2"])


def gaussian(views: dict[str, Tensor], observation: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised observation (B, D) -> mean and log std before the tanh, each (B, A)."""
    mean, log_std = mlp(views, "actor", observation).chunk(2, dim=-1)
    return mean, log_std.clamp(LOG_MIN_STD, LOG_MAX_STD)


def squashed_sample(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Action (B, A) = tanh(mean + std * noise) and its log-density (B,)."""
    raw = torch.addcmul(mean, log_std.exp(), noise)
    return raw.tanh(), squashed_log_density(noise, log_std, raw)


def squashed_log_density(noise: Tensor, log_std: Tensor, raw: Tensor) -> Tensor:
    """Log-density (B,) of tanh(raw), where raw (B, A) = mean + std * noise."""
    # log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)), stable where tanh saturates
    return (-0.5 * noise.square() - log_std - _HALF_LOG_2PI - 2.0 * (_LOG_2 - raw - F.softplus(-2.0 * raw))).sum(-1)


def normalise(observation: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """(observation - mean) * scale, clipped to +-10 so that one wild reading cannot blow up a layer."""
    return ((observation - mean) * scale).clamp_(-10.0, 10.0)


def mixture_outputs(actions: int, modes: int, discrete_gripper: bool) -> int:
    """Width of a mixture head: logits, means and log stds per mode, and three gripper logits."""
    return modes * (1 + 2 * actions) + (3 if discrete_gripper else 0)


def split_mixture(outputs: Tensor, actions: int, modes: int, min_std: float = 1e-4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(B, outputs) -> logits (B, M), means in [-1, 1] (B, M, A), log stds (B, M, A), gripper logits (B, 0 or 3)."""
    m, a = modes, actions
    logits = outputs[:, :m]
    means = outputs[:, m : m + m * a].reshape(-1, m, a).tanh()
    log_stds = (F.softplus(outputs[:, m + m * a : m + 2 * m * a]) + min_std).log().reshape(-1, m, a)
    return logits, means, log_stds, outputs[:, m + 2 * m * a :]


def mixture_log_density(logits: Tensor, means: Tensor, log_stds: Tensor, action: Tensor) -> Tensor:
    """Log-density (B,) of actions (B, A)."""
    z = (action.unsqueeze(1) - means) * (-log_stds).exp()
    per_mode = (-0.5 * z.square() - log_stds - _HALF_LOG_2PI).sum(-1)
    return torch.logsumexp(logits.log_softmax(-1) + per_mode, -1)
