"""Steps to go: a head that says, of one observation, how many control steps are left until success.

Cross-entropy over bins of remaining steps; d(o) is the mean of the distribution, its standard deviation says how unsure it is. What a
run teaches depends on how it ended (`targets_of`); every target is a range of bins, and the loss is how little probability it got:

- success: the bin of the steps that were left, exactly. The *index* of the bin is the target, never the raw number of steps;
- a task's or a person's failure: the last bin, "not within the episode's limit";
- anything else (time limit, hold, stop): at least as many steps as were still made, every bin from there on.

A hold ends a run: what came before it is of the last kind even when the episode succeeds, so nothing is counted across runs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from takeover.data.episode_labels import EpisodeLabels
from takeover.data.schema import EpisodeEnd, EpisodeStart, Outcome, OutcomeSource, Step
from takeover.policies import nets
from takeover.policies.base import FloatArray
from takeover.policies.flat import Layout
from takeover.policies.step_authority import is_held

MAX_BINS = 50
PREFIX = "steps_to_go"

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Bins:
    """``count`` bins of ``width`` steps each over 0..limit, and one more for "not within the limit"."""

    limit: int
    width: int
    count: int

    @classmethod
    def of(cls, max_steps: int) -> "Bins":
        """At most `MAX_BINS`, all of one width. Raises `ValueError` for a robot without a step limit."""
        if max_steps < 1:
            raise ValueError(f"max_steps = {max_steps}; steps to go needs an episode's step limit of 1 or more")
        width = -(-(max_steps + 1) // MAX_BINS)
        return cls(max_steps, width, -(-(max_steps + 1) // width))

    @property
    def never(self) -> int:
        """Index of the last bin."""
        return self.count

    def index(self, steps: npt.ArrayLike) -> Ints:
        """Remaining steps (N,) -> the index of their bin (N,); more than the limit is in the last ordinary bin."""
        found = np.asarray(steps, np.int64) // self.width
        return np.clip(found, 0, self.count - 1)

    def values(self) -> Tensor:
        """(count + 1,) float32: the middle of each bin in steps; the last counts as the limit."""
        middles = torch.arange(self.count, dtype=torch.float32) * self.width + (self.width - 1) / 2.0
        return torch.cat([middles.clamp_max(self.limit), torch.tensor([float(self.limit)])])


@dataclass(frozen=True)
class Targets:
    """Of an episode, N rows: ``low`` and ``high`` are the first and last bin a row allows, ``remaining`` the steps to go (-1: unknown)."""

    episode_id: str
    success: bool
    human: bool  # whether a person drove any of it
    observations: FloatArray  # (N, D)
    low: Ints
    high: Ints
    remaining: Ints
    episode_step: Ints

    def __len__(self) -> int:
        return len(self.low)


def targets_of(start: EpisodeStart, steps: Sequence[Step], end: EpisodeEnd, bins: Bins, labels: EpisodeLabels | None = None) -> Targets:
    """What one episode teaches, held steps and those that labels leave out are no rows. Raises `ValueError` naming the step for an
    observation that is not finite."""
    outcome, event, source = end.outcome, end.event_step, end.outcome_source
    if labels is not None and labels.relabelled:
        outcome, event, source = labels.outcome, labels.event_step, OutcomeSource.LABEL
    driven = [step for step in steps if not is_held(step)]
    event = event if event >= 0 else len(driven) - 1
    ended = outcome in (Outcome.SUCCESS, Outcome.FAILURE) and source != OutcomeSource.LIMIT
    driven = [step for step in driven if not (ended and step.episode_step > event)]
    last_run = driven[-1].run_id if driven else -1
    ends = {step.run_id: step.episode_step for step in driven}
    rows, low, high, remaining = [], [], [], []
    for step in driven:
        if labels is not None and not labels.counts(step.episode_step):
            continue
        left = ends[step.run_id] - step.episode_step + 1  # this one included
        known = ended and step.run_id == last_run
        first = bins.never if known and outcome == Outcome.FAILURE else int(bins.index(left))
        rows.append(step)
        low.append(first)
        high.append(first if known else bins.never)
        remaining.append(left if known and outcome == Outcome.SUCCESS else -1)
    observations = np.asarray([step.observation for step in rows], np.float32).reshape(len(rows), start.spec.observation.size)
    if not np.isfinite(observations).all():
        row, column = np.argwhere(~np.isfinite(observations))[0]
        name = start.spec.observation.names[column]
        raise ValueError(f"episode {start.episode_id}, step {rows[row].episode_step}: observation {name!r} is not finite; exclude it")
    return Targets(
        start.episode_id,
        outcome == Outcome.SUCCESS,
        end.human_steps > 0,
        observations,
        np.asarray(low, np.int64),
        np.asarray(high, np.int64),
        np.asarray(remaining, np.int64),
        np.asarray([step.episode_step for step in rows], np.int64),
    )


def interval_loss(logits: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Mean of -log P(low <= bin <= high), (B, bins) logits and (B,) indices: cross-entropy where both are one bin."""
    bins = torch.arange(logits.shape[1], device=logits.device)
    allowed = (bins >= low.unsqueeze(1)) & (bins <= high.unsqueeze(1))
    inside = logits.masked_fill(~allowed, -torch.inf).logsumexp(1)
    return (logits.logsumexp(1) - inside).mean()


def layout_of(observation_size: int, hidden: int, bins: Bins) -> Layout:
    """The head's parameters: an MLP with one output per bin."""
    return Layout(nets.mlp_layout(PREFIX, observation_size, hidden, bins.count + 1))


class Head:
    """A fitted head. ``mean`` and ``scale`` (D,) normalise observations; ``flat`` is a vector of `layout_of`."""

    def __init__(self, bins: Bins, hidden: int, flat: Tensor, mean: Tensor, scale: Tensor) -> None:
        self.bins, self.hidden = bins, hidden
        self.mean, self.scale = mean, scale
        self.flat = flat.detach()
        self._views = layout_of(len(mean), hidden, bins).views(self.flat)
        self._values = bins.values()

    @torch.inference_mode()
    def predict(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D) float32 -> d in steps (N,) and its standard deviation (N,), both float32."""
        logits = nets.mlp(self._views, PREFIX, nets.normalise(observations, self.mean, self.scale))
        shares = logits.softmax(1)
        d = shares @ self._values
        variance = (shares @ self._values.square() - d.square()).clamp_min(0.0)
        return d, variance.sqrt()

    def of(self, observations: FloatArray) -> tuple[FloatArray, FloatArray]:
        """`predict` in numpy. Raises `ValueError` for observations of another size."""
        rows = np.asarray(observations, np.float32)
        if rows.ndim != 2 or rows.shape[1] != len(self.mean):
            raise ValueError(f"observations of shape {rows.shape}; this head needs (N, {len(self.mean)})")
        d, spread = self.predict(torch.from_numpy(rows))
        return d.numpy(), spread.numpy()

    def tensors(self) -> dict[str, Tensor]:
        """Flat vector and normaliser, by name."""
        return {f"{PREFIX}.flat": self.flat.clone(), f"{PREFIX}.mean": self.mean.clone(), f"{PREFIX}.scale": self.scale.clone()}


def stacked(episodes: Iterable[Targets], observation_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Observations (N, D) float32, low and high (N,) int64 of all episodes."""
    found = [episode for episode in episodes if len(episode)]
    if not found:
        return torch.zeros(0, observation_size), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    return (
        torch.from_numpy(np.concatenate([episode.observations for episode in found])),
        torch.from_numpy(np.concatenate([episode.low for episode in found])),
        torch.from_numpy(np.concatenate([episode.high for episode in found])),
    )
