"""Shaped reward from steps to go, a switch of ``hil-serl`` (``progress_reward``): w x (d(o_t) - d(o_t+1)) / the step limit, on top.

The head is fitted to everything that was ingested when cloning begins, demonstrations mostly, and then stays as it is: a reward that
moves under the critics would teach them the past. It is part of the learner's state. Over an episode the extra reward adds up to at most
w; the step that succeeds is followed by no steps to go.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import msgspec
import numpy as np
import torch
from torch import Tensor

from takeover.data.episode_labels import EpisodeLabels
from takeover.data.schema import EpisodeEnd, EpisodeStart, Outcome, RobotSpec, Step
from takeover.policies.base import LearnerError
from takeover.policies.frames import Frames
from takeover.policies.quarantine import wrong_observation
from takeover.policies.steps_to_go import PREFIX, Bins, Head, Targets, targets_of
from takeover.policies.steps_to_go_fit import FitSettings, fitting
from takeover.policies.transition_buffer import Columns


class ProgressReward:
    """Does nothing at all where ``weight`` is 0."""

    def __init__(self, spec: RobotSpec, weight: float, seed: int, frames: Frames | None = None, device: str = "auto") -> None:
        """``frames``: what the learner's transitions are in; ``device``: where the head is fitted."""
        self._frames = frames
        self._spec, self._weight = spec, weight
        self._settings = FitSettings(seed=seed, device=device)
        self._head: Head | None = None
        self._running: tuple[EpisodeStart, list[Step]] | None = None
        self._episodes: dict[str, tuple[EpisodeStart, list[Step], EpisodeEnd]] = {}
        self._labels: dict[str, EpisodeLabels] = {}

    @property
    def _collects(self) -> bool:
        return self._weight > 0.0 and self._head is None

    def begin_episode(self, start: EpisodeStart) -> None:
        self._running = (start, []) if self._collects else None

    def ingest(self, steps: Sequence[Step]) -> None:
        if self._running is not None:
            self._running[1].extend(steps)

    def end_episode(self, end: EpisodeEnd) -> None:
        if self._running is not None and not end.discarded:
            self._episodes[end.episode_id] = (*self._running, end)
        self._running = None

    def apply_labels(self, labels: EpisodeLabels) -> None:
        """What they take out is not fitted; after the fit they change nothing here."""
        if self._collects:
            self._labels[labels.episode_id] = labels

    def relabel(self, episode_id: str, outcome: Outcome, event_step: int) -> None:
        """An outcome that was corrected after the episode and before cloning."""
        if self._collects:
            known = self._labels.get(episode_id) or EpisodeLabels(episode_id=episode_id)
            self._labels[episode_id] = msgspec.structs.replace(known, outcome=outcome, event_step=event_step, relabelled=True)

    def exclude(self, episode_id: str) -> None:
        self._episodes.pop(episode_id, None)

    def fit(self) -> Iterator[int]:
        """When cloning begins, in short pieces. Raises `LearnerError` when the episodes are too few or cannot be used."""
        if not self._collects:
            return
        bins = Bins.of(self._spec.max_steps)
        try:
            episodes = [self._targets(name, bins) for name in self._episodes]
            self._head = yield from fitting(episodes, bins, self._spec.observation.units, self._settings)
        except ValueError as error:
            raise LearnerError(f"progress_reward = {self._weight}: {error}") from error
        self._episodes, self._labels = {}, {}

    def _targets(self, name: str, bins: Bins) -> Targets:
        start, steps, end = self._episodes[name]
        found = targets_of(start, steps, end, bins, self._labels.get(name))
        if self._frames is None or not len(found):
            return found
        first = next(step.observation for step in steps if not wrong_observation(step.observation, self._spec))  # a held one may be none
        relative = [self._frames.observation(observation, first) for observation in found.observations]
        return replace(found, observations=np.array(relative))

    def shape(self, rows: Tensor, columns: Columns) -> Tensor:
        """Packed transitions (B, width), a copy of the buffer's: their rewards are raised in place."""
        if self._weight == 0.0 or self._head is None:
            return rows
        now, _ = self._head.predict(rows[:, columns.observation])
        then, _ = self._head.predict(rows[:, columns.next_observation])
        succeeded = (rows[:, columns.mask] == 0.0) & (rows[:, columns.reward] > 0.0)
        then = torch.where(succeeded, torch.zeros_like(then), then)
        rows[:, columns.reward] += self._weight * (now - then) / self._head.bins.limit
        return rows

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return self._head.tensors() if self._head is not None else {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """What `tensors` gave, among others."""
        if self._weight > 0.0 and f"{PREFIX}.flat" in tensors:
            parts = (tensors[f"{PREFIX}.{name}"].clone() for name in ("flat", "mean", "scale"))
            self._head = Head(Bins.of(self._spec.max_steps), self._settings.hidden, *parts)
            self._episodes, self._labels, self._running = {}, {}, None
