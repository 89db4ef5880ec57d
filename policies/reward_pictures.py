"""Pictures for the reward classifier: a small encoder, trained once and then frozen, and its features kept on disk per episode.

A later version takes over the encoder of the one before, so a veto costs the head alone. ``<workspace>/rewards/features/<encoder>/`` holds
what was computed; nothing depends on it but time.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from takeover.data.hdf5_image import DamagedFile
from takeover.data.workspace import Workspace
from takeover.policies.device import sent
from takeover.policies.flat import Adam, Layout
from takeover.policies.reward_data import Pixels, Recorded, RewardEpisode, pictures_after
from takeover.policies.reward_fit import Progress, RewardCancelled, balanced, training_device
from takeover.policies.reward_model import RewardConfig, RewardModel, encode, encoder_shapes, small
from takeover.policies.reward_settings import RewardError, RewardSettings
from takeover.policies.reward_store import RewardManifest, load_reward, rewards_folder

MOST_PICTURES = 3000  # that the encoder is trained on: all positives first
SHIFT = 2  # pixels of the reduced picture by which a batch is shifted at most
BATCH = 64


def encoder_name(encoder: Mapping[str, Tensor]) -> str:
    """sha256 of the weights."""
    digest = hashlib.sha256()
    for name in sorted(encoder):
        digest.update(name.encode() + encoder[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def features_of(
    workspace: Workspace,
    config: RewardConfig,
    recorded: Recorded,
    training: Sequence[RewardEpisode],
    settings: RewardSettings,
    before: RewardManifest | None,
    progress: Progress,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(encoder, {episode: features (N, F x cameras), NaN where a step has no pictures}).

    ``before``: the version whose encoder is taken over, where it fits.

    Raises `RewardError` when no step has pictures of all cameras, `RewardCancelled`, `OSError`.
    """
    encoder = _encoder_of(workspace, config, before)
    if encoder is None:
        encoder = _train_encoder(config, training, settings, progress)
    model = _Encoder(config, encoder)
    name = encoder_name(encoder)
    folder = rewards_folder(workspace.path) / "features" / name[:16]
    folder.mkdir(parents=True, exist_ok=True)
    features: dict[str, Tensor] = {}
    for done, episode in enumerate(recorded.episodes):
        if not progress(done, len(recorded.episodes)):
            raise RewardCancelled("stopped; what was computed of the pictures is kept")
        kept = folder / f"{episode.episode_id}-{episode.file_sha256[:16]}.safetensors"
        found = _kept(kept, len(episode.states), config)
        if found is None:
            found = model.of_episode(episode.path, len(episode.states))
            temporary = kept.with_name(f".{kept.name}.{os.getpid()}.tmp")
            try:
                save_file({"features": found}, temporary)
                temporary.rename(kept)
            finally:
                temporary.unlink(missing_ok=True)
        features[episode.episode_id] = found
    for other in folder.parent.iterdir():
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return encoder, features


def episode_features(model: RewardModel, path: Path, count: int) -> Tensor:
    """Features (N, F x cameras) of a recorded episode; NaN where a step has no pictures. Raises `DamagedFile`, `FileNotFoundError`."""
    encoder = {name: model.tensors[name] for name in model.config.encoder_layout().shapes}
    return _Encoder(model.config, encoder).of_episode(path, count)


class _Encoder:
    """Frozen weights at work on one episode."""

    def __init__(self, config: RewardConfig, tensors: Mapping[str, Tensor]) -> None:
        self._config, self._tensors = config, tensors

    @torch.inference_mode()
    def of_episode(self, path: Path, count: int) -> Tensor:
        config = self._config
        found = torch.full((count, config.features * len(config.cameras)), float("nan"))
        for step, pictures in pictures_after(path, config.cameras):
            parts = [
                encode(self._tensors, number, small(pictures[camera][None], config.picture_size))
                for number, camera in enumerate(config.cameras)
            ]
            found[step] = torch.cat(parts, 1)[0]
        return found


def _kept(path: Path, count: int, config: RewardConfig) -> Tensor | None:
    try:
        found = load_file(path)["features"]
    except (OSError, SafetensorError, KeyError):
        return None
    return found if tuple(found.shape) == (count, config.features * len(config.cameras)) else None


def _encoder_of(workspace: Workspace, config: RewardConfig, before: RewardManifest | None) -> dict[str, Tensor] | None:
    """The encoder of the version before, where it fits."""
    if before is None or not before.encoder:
        return None
    old = RewardConfig.of(before.config)
    if (old.cameras, old.features, old.picture_size) != (config.cameras, config.features, config.picture_size):
        return None
    model, _ = load_reward(workspace.path, before.version)
    return {name: model.tensors[name] for name in old.encoder_layout().shapes}


def _collect(config: RewardConfig, training: Sequence[RewardEpisode]) -> tuple[Pixels, Tensor]:
    """(n, cameras, S, S, 3) uint8 and labels (n,): every positive, and of the negatives as many as there is room for, evenly."""
    positives = sum(int((episode.evidence.labels == 1).sum()) for episode in training)
    negatives = sum(int((episode.evidence.labels == 0).sum()) for episode in training)
    every = max(1, -(-negatives // max(1, MOST_PICTURES - min(positives, MOST_PICTURES // 2))))
    taken: list[Pixels] = []
    labels: list[float] = []
    seen = 0
    for episode in training:
        try:
            for step, pictures in pictures_after(episode.path, config.cameras):
                label, hard = int(episode.evidence.labels[step]), bool(episode.evidence.hard[step])
                seen += label == 0
                if label < 0 or (label == 0 and seen % every and not hard):
                    continue
                reduced = [small(pictures[camera][None], config.picture_size)[0] for camera in config.cameras]
                taken.append((torch.stack(reduced).permute(0, 2, 3, 1) * 255.0).round().to(torch.uint8).numpy())
                labels.append(float(label))
        except (DamagedFile, FileNotFoundError):
            continue  # it was readable a moment ago; said when it is read for its states the next time
    if not any(labels) or all(labels):
        raise RewardError(
            f"no pictures of {', '.join(config.cameras)} at {'positive' if not any(labels) else 'negative'} steps: "
            "record with these as policy cameras, or train without --cameras"
        )
    return np.stack(taken), torch.tensor(labels)


def _train_encoder(
    config: RewardConfig, training: Sequence[RewardEpisode], settings: RewardSettings, progress: Progress
) -> dict[str, Tensor]:
    """End to end with a linear layer on top, which is thrown away. What comes back is on the CPU."""
    device = training_device(settings)
    pictures, labels = _collect(config, training)
    generator = torch.Generator().manual_seed(settings.seed)
    width = config.features * len(config.cameras)
    layout = Layout(encoder_shapes(config.cameras, config.features, config.picture_size) | {"top.w": (width, 1), "top.b": (1,)})
    flat = _initial(layout, generator).to(device).requires_grad_()
    optimiser = Adam(layout.size, settings.learning_rate, device=device)
    positives, negatives = (torch.nonzero(labels == value).squeeze(1) for value in (1.0, 0.0))
    none = torch.zeros(0, dtype=torch.long)
    target = labels * (1.0 - 2.0 * settings.smoothing) + settings.smoothing
    for update in range(settings.encoder_updates):
        chosen = balanced(positives, negatives, none, BATCH, generator)
        seen = [small(pictures[chosen.numpy(), number], config.picture_size) for number in range(len(config.cameras))]
        loss = encoder_loss(layout, flat, [_shifted(x, generator) for x in seen], target[chosen])
        (gradient,) = torch.autograd.grad(loss, [flat])
        if not bool(torch.isfinite(gradient).all()):
            raise RewardError(f"the picture encoder's loss is not finite at update {update}")
        optimiser.step(flat, gradient)
        if update % 10 == 9 and not progress(update + 1, settings.encoder_updates):
            raise RewardCancelled("stopped; nothing was written")
    views = layout.views(flat.detach())
    return {name: tensor.clone().cpu() for name, tensor in views.items() if not name.startswith("top.")}


def encoder_loss(layout: Layout, flat: Tensor, pictures: Sequence[Tensor], target: Tensor) -> Tensor:
    """Of encoder and layer ``flat``, on their device, for each camera's pictures (B, 3, S, S) and targets (B,) from the CPU."""
    views = layout.views(flat)
    parts = [encode(views, number, sent(x, flat.device)) for number, x in enumerate(pictures)]
    logits = (torch.cat(parts, 1) @ views["top.w"] + views["top.b"]).squeeze(1)
    return F.binary_cross_entropy_with_logits(logits, sent(target, flat.device))


def _initial(layout: Layout, generator: torch.Generator) -> Tensor:
    parts = []
    for shape in layout.shapes.values():
        if len(shape) == 1:
            parts.append(torch.zeros(shape))
            continue
        fan_in = int(np.prod(shape[1:])) if len(shape) == 4 else shape[0]
        bound = (6.0 / fan_in) ** 0.5 if len(shape) == 4 else (3.0 / fan_in) ** 0.5
        parts.append(((torch.rand(int(np.prod(shape)), generator=generator) * 2.0 - 1.0) * bound).view(shape))
    return torch.cat([part.reshape(-1) for part in parts])


def _shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """One random shift for the batch, edges repeated."""
    size = x.shape[-1]
    down, right = torch.randint(2 * SHIFT + 1, (2,), generator=generator).tolist()
    return F.pad(x, [SHIFT] * 4, mode="replicate")[:, :, down : down + size, right : right + size]
