"""``hil-serl`` from pictures with ``encoder: trained``: after cloning, the critics' gradient goes on training the encoder.

The warm start is that of `picture_hil_serl`, to the same random numbers. Then pictures stay (`PictureReplay`), and as in HIL-SERL:

- every critic update draws pictures with a random crop each, for the observation and for the next one on their own;
- the critics' loss, the gripper's cloning term included, is differentiated by the encoder, too, which has an optimiser of its own;
- the actor acts and learns on features that carry no gradient; at next observations it and the online critics see through the encoder as
  it is, the target critics through a target encoder that follows as they do.

What keeps the warm start keeps the encoder, too: it waits as long as the actor does, since the cloned actor knows no other features; the
clone that the actor is held to looks through the cloned encoder; and what is published is a running average of both.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from takeover.data.schema import RobotSpec, Step
from takeover.policies import nets
from takeover.policies.base import LearnerError
from takeover.policies.device import sent
from takeover.policies.flat import Adam
from takeover.policies.hil_serl_parameters import HilSerlParameters
from takeover.policies.picture_cloning import encode_frames
from takeover.policies.picture_encoder import FIXED_SHIFTS, encode
from takeover.policies.picture_hil_serl import PictureHilSerlLearner
from takeover.policies.picture_replay import AFTER, OBSERVED, PictureReplay
from takeover.policies.pictures import FramesFull
from takeover.policies.replay import CorrectionReplay
from takeover.policies.sac_autograd import AutogradUpdate
from takeover.policies.sac_batches import Batches
from takeover.policies.warm_start import published_rate


class TrainedPictureLearner(PictureHilSerlLearner):
    """See the module. Construct with `make`."""

    def __init__(self, spec: RobotSpec, seed: int, parameters: HilSerlParameters) -> None:
        super().__init__(spec, seed, parameters)
        self._encoder_layout = self.shape.layout()
        self._target_encoder, self._published_encoder, self._cloned_encoder = (self._encoder.clone() for _ in range(3))
        self._encoder_optimiser = Adam(self._encoder_layout.size, parameters.encoder_critic_rate, device=self.device)
        self._known: dict[int, Tensor] = {}  # while actor and critics are cloned: frame -> features (crops, F)
        self._known_of = 0
        self._looked_at = torch.zeros(0)  # pictures (B, cameras, H, W, 3) of the actor's batch

    def _make_replay(self, **options: Any) -> CorrectionReplay:
        p, shape = self.parameters, self.shape
        self._pictures = PictureReplay(
            self.robot_spec,
            shape.cameras,
            height=shape.height,
            width=shape.width,
            compressed=p.picture_store == "jpeg",
            most_bytes=p.picture_bytes,
            **options,
        )
        return self._pictures

    def _make_gradients(self) -> AutogradUpdate:
        """Whatever ``written_gradients`` says: written-out passes end at the critics' inputs."""
        p, gripper = self.parameters, self.discrete_gripper
        networks = (self._actor, self._actor_layout, self._critic, self._target, self._critic_layout)
        self._autograd = AutogradUpdate(*networks, gripper=gripper, compiled=p.compile, bf16=p.bf16)
        return self._autograd

    # --- ingestion ---

    @property
    def picture_bytes(self) -> int:
        """That the pictures of the replay take now."""
        return self._pictures.frames.used_bytes

    def _add(self, step: Step) -> None:
        """Raises `LearnerError` where demonstrations alone take more than ``picture_bytes``."""
        try:
            self._pictures.add_paired(step)
        except FramesFull as error:
            where = f"episode {step.episode_id}, step {step.episode_step}"
            raise LearnerError(f"no room for the pictures of {where}: {error} (learner.picture_bytes)") from error

    def _freeze(self) -> Iterator[None]:
        """The encoder is cloned: pictures go to the replay from now on."""
        for held in (self._target_encoder, self._published_encoder, self._cloned_encoder):
            held.copy_(self._encoder)
        return super()._freeze()

    # --- cloning: the encoder stands still, so each frame is encoded once for `crops` fixed crops, as for a frozen one ---

    def clone_demonstrations(self) -> Iterator[float]:
        yield from super().clone_demonstrations()
        self._known = {}

    def _look(self) -> Iterator[None]:
        buffer = self.replay.demonstrations
        for number in buffer.rows[: buffer.size, OBSERVED:].flatten().unique():
            self._features_of(number.view(1))
            yield

    def _features_of(self, frames: Tensor) -> Tensor:
        """Numbers of frames (n,) -> features (n, crops, F) float32 on the CPU."""
        if self._known_of != self._pictures.times_freed:  # numbers may mean other frames by now
            self._known, self._known_of = {}, self._pictures.times_freed
        shifts = np.array(FIXED_SHIFTS[: self.parameters.crops])
        numbers = frames.long().tolist()
        for number in set(numbers) - self._known.keys():
            crops = np.empty((len(shifts), *self.shape.frame), np.uint8)
            self._pictures.frames.copy(np.full(len(shifts), number), shifts, crops)
            self._known[number] = torch.from_numpy(encode_frames(self.shape, self._encoder, crops))
        return torch.stack([self._known[number] for number in numbers])

    def _demonstrated(self) -> Tensor:
        buffer = self.replay.demonstrations
        rows = buffer.rows[: buffer.size]
        return torch.cat([rows[:, self.replay.columns.observation], self._features_of(rows[:, OBSERVED])[:, 0]], 1)

    def _cropped(self, rows: Tensor) -> Tensor:
        n, crops = len(rows), self.parameters.crops
        chosen = torch.zeros(2, n, dtype=torch.int64) if crops == 1 else torch.randint(crops, (2, n), generator=self.generator)
        each = torch.arange(n)
        now, after = (self._features_of(rows[:, frame])[each, crop] for frame, crop in zip((OBSERVED, AFTER), chosen, strict=True))
        return self._widened(rows, now, after)

    def _widened(self, rows: Tensor, now: Tensor, after: Tensor) -> Tensor:
        """Rows of the replay (n, W) with features (n, F) of both moments, as `_stage` takes them."""
        c = self.replay.columns
        return torch.cat([rows[:, c.observation], now, rows[:, c.next_observation], after, rows[:, c.action.start : c.mask + 1]], 1)

    # --- learning ---

    def _steps_of_update(self, critics: int, climbs: bool) -> Iterator[dict[str, float]]:
        """One batch after the other, since the encoder changes in between. None is drawn ahead of the next update: a learner that goes on
        from a checkpoint draws the same."""
        for i in range(critics):
            batch = self._pictured(learns=climbs, more=climbs or i + 1 < critics)
            yield self._critic_metrics(batch, 0, self._propose(batch, 1))
        if climbs:
            batch = self._pictured_for_actor()
            yield self._actor_update(batch, 0, self._propose(batch, 0))
            self._published_encoder.lerp_(self._encoder, published_rate(self.parameters))

    def _drawn(self, more: bool) -> tuple[Batches, Tensor, Tensor]:
        """A batch without features, and its pictures of both moments, on the device; valid until the next one."""
        p = self.parameters
        drawn = self._pictures.sample_pictures(p.batch, self.generator, more=more)
        nothing = torch.zeros(p.batch, self.shape.size)
        rows = [(self._widened(drawn.rows, nothing, nothing), drawn.demonstrations)]
        batch = self._stage.batches(rows, [self._noise(p.batch)], self._mean, self._scale, p.discount)
        return batch, sent(drawn.observation, self.device), sent(drawn.following, self.device)

    def _seen(self, normalised: Tensor, encoder: Tensor, pictures: Tensor) -> Tensor:
        """Normalised observations (n, D) whose features are those of ``pictures`` (n, cameras, H, W, 3) through ``encoder``."""
        own = self.robot_spec.observation.size
        features = encode(self.shape, self._encoder_layout.views(encoder), pictures)
        return torch.cat([normalised[:, :own], nets.normalise(features, self._mean[own:], self._scale[own:])], 1)

    def _pictured(self, *, learns: bool, more: bool) -> Batches:
        """A batch for the critics; ``learns``: the encoder, too."""
        batch, now, after = self._drawn(more)
        with torch.no_grad():
            following = self._seen(batch.following, self._encoder, after)
            if not learns:
                return replace(batch, observation=self._seen(batch.observation, self._encoder, now), following=following)
            target = self._seen(batch.following, self._target_encoder, after)
        encoder = self._encoder.detach().requires_grad_()
        observation = self._seen(batch.observation, encoder, now)
        return replace(batch, observation=observation, following=following, target_following=target, encoder=encoder)

    @torch.no_grad()
    def _pictured_for_actor(self) -> Batches:
        batch, self._looked_at, _ = self._drawn(more=False)
        return replace(batch, observation=self._seen(batch.observation, self._encoder, self._looked_at))

    def _critic_update(self, batch: Batches, i: int, proposal: Any) -> tuple[float, float]:
        found = super()._critic_update(batch, i, proposal)
        if (gradient := self._autograd.encoder_gradient) is not None:
            self._step(self._encoder, self._encoder_optimiser, gradient)
            self._target_encoder.lerp_(self._encoder, self.parameters.target_rate)
        return found

    @torch.no_grad()
    def _clone_sees(self, observation: Tensor, first: int) -> Tensor:
        return self._seen(observation[first:], self._cloned_encoder, self._looked_at[first:])

    # --- weights and state ---

    @property
    def _acting_encoder(self) -> Tensor:
        return self._published_encoder

    def _held(self) -> dict[str, Tensor]:
        encoders = {
            "": self._encoder,
            "_target": self._target_encoder,
            "_published": self._published_encoder,
            "_clone": self._cloned_encoder,
        }
        return super()._held() | {f"encoder{which}": held for which, held in encoders.items()}

    def _optimisers(self) -> dict[str, Adam]:
        return super()._optimisers() | {"adam_encoder": self._encoder_optimiser}

    def _finite(self) -> bool:
        return super()._finite() and bool(torch.isfinite(self._encoder).all())
