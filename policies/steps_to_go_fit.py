"""Fitting and judging a steps-to-go head: which episodes it learns from, which it is tested on, and what it is off by."""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from takeover.data.statistics import bootstrap_ratio_band, wilson
from takeover.policies import nets
from takeover.policies.device import choose_device, sent
from takeover.policies.flat import Adam, Layout
from takeover.policies.normaliser import fit_normaliser
from takeover.policies.parameters import check_device, require
from takeover.policies.steps_to_go import PREFIX, Bins, Head, Targets, interval_loss, layout_of, stacked

HELD_OUT_EVERY = 5
LEAST_SUCCESSES = 5
Progress = Callable[[int, int], bool]


class FitCancelled(RuntimeError):
    """Asked to stop; nothing was written."""


@dataclass(frozen=True)
class FitSettings:
    """How a head is fitted."""

    hidden: int = 64
    updates: int = 1000
    batch: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 0.3
    """Decoupled, times the learning rate."""
    seed: int = 0
    device: str = "auto"
    """Where it is fitted: cuda, cuda:N or cpu; auto: on the first CUDA device, on the CPU where there is none."""

    def __post_init__(self) -> None:
        require(8 <= self.hidden <= 1024, f"hidden = {self.hidden}; allowed 8..1024")
        require(1 <= self.updates <= 100_000, f"updates = {self.updates}; allowed 1..100000")
        require(8 <= self.batch <= 4096, f"batch = {self.batch}; allowed 8..4096")
        require(0.0 < self.learning_rate < 1.0, f"learning_rate = {self.learning_rate}; allowed between 0 and 1")
        require(0.0 <= self.weight_decay <= 100.0, f"weight_decay = {self.weight_decay}; allowed 0..100")
        check_device(self.device)


def split(episodes: Sequence[Targets]) -> tuple[list[Targets], list[Targets]]:
    """(learned from, held out): every fifth success and every fifth of the others, in the order of recording, is held out."""
    learned: list[Targets] = []
    held: list[Targets] = []
    counts = {True: 0, False: 0}
    for episode in episodes:
        counts[episode.success] += 1
        (held if counts[episode.success] % HELD_OUT_EVERY == 0 else learned).append(episode)
    return learned, held


def fit(episodes: Sequence[Targets], bins: Bins, units: Sequence[str], settings: FitSettings, on_progress: Progress | None = None) -> Head:
    """A head fitted to ``episodes``, on the CPU; on one kind of device a function of them and the settings. ``units`` (D): of the
    observations.

    Raises what `fitting` raises; `FitCancelled` when ``on_progress(done, total)`` returns False.
    """
    work = fitting(episodes, bins, units, settings)
    while True:
        try:
            done = next(work)
        except StopIteration as finished:
            head: Head = finished.value
            return head
        if on_progress is not None and not on_progress(done, settings.updates):
            raise FitCancelled(f"stopped after {done} of {settings.updates} updates")


def fitting(episodes: Sequence[Targets], bins: Bins, units: Sequence[str], settings: FitSettings) -> Generator[int, None, Head]:
    """`fit` in short pieces: yields the updates done every 50 and at the end, returns the head.

    Raises `ValueError` for fewer than `LEAST_SUCCESSES` successes, whose last steps alone say what "nearly there" is; `LearnerError` for
    a device that is not there.
    """
    device = choose_device(settings.device)
    successes = sum(bool((episode.remaining >= 0).any()) for episode in episodes)  # labels may have left nothing of one
    if successes < LEAST_SUCCESSES:
        raise ValueError(f"{successes} successful episodes; steps to go needs {LEAST_SUCCESSES} or more")
    observations, low, high = stacked(episodes, len(units))
    if not len(observations):
        raise ValueError("labels leave no step of these episodes to learn from")
    mean, scale = fit_normaliser(observations, units)
    rows = nets.normalise(observations, mean, scale)
    generator = torch.Generator().manual_seed(settings.seed)
    layout = layout_of(len(units), settings.hidden, bins)
    flat = nets.initialise(layout, generator, last_scale=0.1).to(device).requires_grad_()
    optimiser = Adam(layout.size, settings.learning_rate, device=device)
    for done in range(1, settings.updates + 1):
        optimiser.learning_rate = settings.learning_rate * (0.1 + 0.9 * 0.5 * (1.0 + math.cos(math.pi * (done - 1) / settings.updates)))
        chosen = torch.randint(len(rows), (settings.batch,), generator=generator)
        (gradient,) = torch.autograd.grad(batch_loss(layout, flat, rows[chosen], low[chosen], high[chosen]), [flat])
        if not math.isfinite(float(gradient.sum())):
            raise ValueError(f"steps to go: the gradient of update {done} is not finite")
        optimiser.step(flat, gradient)
        with torch.no_grad():
            flat.mul_(1.0 - optimiser.learning_rate * settings.weight_decay)
        if done % 50 == 0 or done == settings.updates:
            yield done
    return Head(bins, settings.hidden, flat.detach().cpu(), mean, scale)


def batch_loss(layout: Layout, flat: Tensor, rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Of the head ``flat``, on its device, for normalised rows (B, D) and their ranges of bins (B,) from the CPU."""
    logits = nets.mlp(layout.views(flat), PREFIX, sent(rows, flat.device))
    return interval_loss(logits, sent(low, flat.device), sent(high, flat.device))


def conformal(scores: Sequence[float], alpha: float) -> float:
    """The ceil((n + 1) (1 - alpha))-th smallest of n calibration scores; infinite where n is too small to promise ``alpha``."""
    rank = math.ceil((len(scores) + 1) * (1.0 - alpha))
    return sorted(scores)[rank - 1] if 1 <= rank <= len(scores) else math.inf


def _largest_spread(head: Head, episode: Targets) -> float:
    return float(head.of(episode.observations)[1].max())


def _stall(head: Head, episodes: Sequence[Targets], alpha: float) -> dict[str, Any]:
    """Split conformal over the largest spread of each unassisted success: a new one passes it with probability ``alpha`` at most.

    The realised rate leaves one run out at a time: each is judged by the threshold of the others.
    """
    some = [episode for episode in episodes if len(episode)]
    scores = [_largest_spread(head, episode) for episode in some if episode.success and not episode.human]
    troubled = [_largest_spread(head, episode) for episode in some if not episode.success or episode.human]
    threshold = conformal(scores, alpha)
    alarms = sum(score > conformal(scores[:i] + scores[i + 1 :], alpha) for i, score in enumerate(scores))
    return {
        "threshold_spread_steps": threshold if math.isfinite(threshold) else None,
        "promised_false_alarms": alpha,
        "unassisted_successes": len(scores),
        "false_alarms": alarms,
        "false_alarm_interval": list(wilson(alarms, len(scores))),
        "helped_or_failed": len(troubled),
        "alarms_in_helped_or_failed": sum(score > threshold for score in troubled),
    }


def _error(head: Head, episodes: Sequence[Targets], guess: float | None = None) -> dict[str, Any]:
    """Mean absolute error in steps over the rows whose steps to go are known; ``guess``: of this constant instead of the head."""
    errors, counts = [], []
    for episode in episodes:
        known = episode.remaining >= 0
        if known.any():
            d = head.of(episode.observations[known])[0] if guess is None else np.full(int(known.sum()), guess)
            errors.append(float(np.abs(d - episode.remaining[known]).sum()))
            counts.append(int(known.sum()))
    if not counts:
        return {"mean_absolute_error_steps": None, "interval": None, "steps": 0, "episodes": 0}
    return {
        "mean_absolute_error_steps": sum(errors) / sum(counts),
        "interval": list(bootstrap_ratio_band(errors, counts)),
        "steps": sum(counts),
        "episodes": len(counts),
    }


def _by_range(head: Head, episodes: Sequence[Targets], width: int = 10) -> list[dict[str, Any]]:
    """True steps to go in groups of ``width``: how many rows, what the head says on average, how far it is off."""
    known = [(episode.remaining[at], head.of(episode.observations[at])[0]) for episode in episodes if (at := episode.remaining >= 0).any()]
    if not known:
        return []
    true, d = (np.concatenate(parts) for parts in zip(*known, strict=True))
    found = []
    for first in range(0, int(true.max()) + 1, width):
        here = (true >= first) & (true < first + width)
        if here.any():
            error = float(np.abs(d[here] - true[here]).mean())
            row = {"from": first, "to": first + width - 1, "steps": int(here.sum()), "mean_true": float(true[here].mean())}
            found.append(row | {"mean_said": float(d[here].mean()), "mean_absolute_error_steps": error})
    return found


def _offers(head: Head, episodes: Sequence[Targets], success_steps: float) -> dict[str, Any]:
    """How the offer "success: d <= s" does: offered within the last steps of successes, and in episodes that did not succeed."""
    near, early, succeeded, wrong, others = 0, 0, 0, 0, 0
    for episode in episodes:
        if not len(episode):
            continue
        offered = np.flatnonzero(head.of(episode.observations)[0] <= success_steps)
        if episode.success:
            succeeded += 1
            left = episode.remaining[offered]
            near += bool((left >= 0).any() and left[left >= 0].min() <= 2 * success_steps)
            early += bool(len(left) and left.max() > 4 * success_steps)
        else:
            others += 1
            wrong += bool(len(offered))
    return {
        "success_steps": success_steps,
        "successes": succeeded,
        "offered_near_the_end": near,
        "offered_too_early": early,
        "others": others,
        "offered_without_success": wrong,
    }


def report(head: Head, learned: Sequence[Targets], held: Sequence[Targets], success_steps: float, alpha: float) -> dict[str, Any]:
    """Everything that is said of a head, on held-out episodes alone; plain values."""
    known = np.concatenate([episode.remaining[episode.remaining >= 0] for episode in learned] or [np.zeros(0, np.int64)])
    return {
        "held_out": _error(head, held),
        "unassisted": _error(head, [episode for episode in held if not episode.human]),
        "constant": _error(head, held, float(np.median(known)) if known.size else 0.0),
        "learned_from": _error(head, learned),
        "by_range": _by_range(head, held),
        "success_offer": _offers(head, held, success_steps),
        "stall": _stall(head, held, alpha),
    }
