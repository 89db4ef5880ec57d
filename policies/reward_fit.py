"""Fitting a reward classifier: balanced batches, a split by episode, and a threshold by one rule."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from takeover.policies import nets
from takeover.policies.base import LearnerError
from takeover.policies.device import choose_device, sent
from takeover.policies.flat import Adam, Layout
from takeover.policies.normaliser import fit_normaliser
from takeover.policies.reward_data import RewardEpisode
from takeover.policies.reward_model import MEAN, SCALE, RewardConfig, RewardModel, first_success
from takeover.policies.reward_settings import THRESHOLDS, RewardError, RewardSettings

Progress = Callable[[int, int], bool]
"""(done, total) -> whether to go on."""
CHECK_MARGIN = 0.5  # of the width of the range of the positives, on each side


class RewardCancelled(RuntimeError):
    """The progress callback said stop; nothing was written."""


@dataclass(frozen=True)
class Examples:
    """``states`` (n, D), ``features`` (n, F) or (n, 0), ``labels`` (n,) of 0 and 1, ``hard`` (n,)."""

    states: Tensor
    features: Tensor
    labels: Tensor
    hard: Tensor

    @property
    def positives(self) -> int:
        return int(self.labels.sum())

    @property
    def negatives(self) -> int:
        return len(self.labels) - self.positives


def gather(episodes: Sequence[RewardEpisode], features: dict[str, Tensor] | None) -> Examples:
    """Every judged step of ``episodes``. ``features``: {episode: (N, F)}, NaN where a step has no pictures: those are left out."""
    states, extra, labels, hard = [], [], [], []
    for episode in episodes:
        judged = torch.from_numpy(episode.evidence.labels.copy())
        keep = judged >= 0
        own = torch.zeros(len(judged), 0) if features is None else features[episode.episode_id]
        keep &= own.isfinite().all(1)
        states.append(torch.from_numpy(episode.states)[keep])
        extra.append(own[keep])
        labels.append(judged[keep].float())
        hard.append(torch.from_numpy(episode.evidence.hard)[keep])
    if not states:
        return Examples(torch.zeros(0, 1), torch.zeros(0, 0), torch.zeros(0), torch.zeros(0, dtype=torch.bool))
    return Examples(torch.cat(states), torch.cat(extra), torch.cat(labels), torch.cat(hard))


def check_enough(training: Sequence[RewardEpisode], settings: RewardSettings) -> None:
    """Raises `RewardError` with the counts when there is too little, or one class only."""
    labels = [episode.evidence.labels for episode in training]
    positives, negatives = (sum(int((label == value).sum()) for label in labels) for value in (1, 0))
    with_positive = sum(episode.has_positive for episode in training)
    without = sum(not episode.has_positive and bool((episode.evidence.labels == 0).any()) for episode in training)
    said = f"{positives} positive and {negatives} negative steps in {with_positive} episodes with success and {without} without"
    if not positives or not negatives:
        kind, key = ("success", "success key") if not positives else ("no success", "failure key")
        raise RewardError(f"one class only: {said}. Record steps that are {kind} (end episodes with the {key}, or set marks)")
    if positives < settings.min_positives or with_positive < settings.min_episodes:
        raise RewardError(
            f"too few positives: {said}; {settings.min_positives} in {settings.min_episodes} episodes are needed, 200 are good"
        )
    if negatives < settings.min_negatives:
        raise RewardError(f"too few negatives: {said}; {settings.min_negatives} are needed, 1,000 are good")


def training_device(settings: RewardSettings) -> torch.device:
    """Raises `RewardError` for one that is not there."""
    try:
        return choose_device(settings.device)
    except LearnerError as error:
        raise RewardError(str(error)) from error


def fit(config: RewardConfig, examples: Examples, units: Sequence[str], settings: RewardSettings, progress: Progress) -> dict[str, Tensor]:
    """Train the head on ``examples``: its tensors and the normaliser, on the CPU. On one kind of device a function of its arguments alone.

    Raises `RewardCancelled`, `RewardError` for a loss that is not finite and a device that is not there.
    """
    device = training_device(settings)
    generator = torch.Generator().manual_seed(settings.seed)
    x, mean, scale = _normalised(config, examples, units)
    layout = config.head_layout()
    flat = nets.initialise(layout, generator).to(device).requires_grad_()
    optimiser = Adam(layout.size, settings.learning_rate, device=device)
    target = examples.labels * (1.0 - 2.0 * settings.smoothing) + settings.smoothing
    positives, negatives = (torch.nonzero(examples.labels == value).squeeze(1) for value in (1.0, 0.0))
    hard = torch.nonzero(examples.hard & (examples.labels == 0.0)).squeeze(1)
    noise = torch.zeros(x.shape[1])
    noise[: len(config.inputs)] = settings.noise
    for update in range(settings.updates):
        chosen = balanced(positives, negatives, hard, settings.batch, generator)
        batch = x[chosen] + noise * torch.randn(len(chosen), x.shape[1], generator=generator)
        (gradient,) = torch.autograd.grad(head_loss(layout, flat, batch, target[chosen]), [flat])
        if not bool(torch.isfinite(gradient).all()):
            raise RewardError(f"the loss is not finite at update {update}; look for wild numbers in the observations")
        optimiser.step(flat, gradient)
        with torch.no_grad():
            flat.mul_(1.0 - settings.learning_rate * settings.weight_decay)
        if update % 50 == 49 and not progress(update + 1, settings.updates):
            raise RewardCancelled("stopped; nothing was written")
    tensors = {name: tensor.detach().clone().cpu() for name, tensor in layout.views(flat).items()}
    return tensors | {MEAN: mean, SCALE: scale}


def head_loss(layout: Layout, flat: Tensor, batch: Tensor, target: Tensor) -> Tensor:
    """Of the head ``flat``, on its device, for a batch (B, width) and its targets (B,) from the CPU."""
    logits = nets.critics(layout.views(flat), sent(batch, flat.device)).squeeze(-1)
    return F.binary_cross_entropy_with_logits(logits, sent(target, flat.device).expand_as(logits))


def _normalised(config: RewardConfig, examples: Examples, units: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    mean, scale = fit_normaliser(examples.states, list(units))
    inputs = list(config.inputs)
    width = examples.features.shape[1]
    mean = torch.cat([mean[inputs], torch.zeros(width)])
    scale = torch.cat([scale[inputs], torch.ones(width)])
    x = torch.cat([examples.states[:, inputs], examples.features], 1)
    return nets.normalise(x, mean, scale), mean, scale


def balanced(positives: Tensor, negatives: Tensor, hard: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices (count,): half positives, half negatives, of these half hard ones where there are any."""
    wanted = [(positives, count // 2)]
    rest = count - count // 2
    wanted += [(hard, rest // 2), (negatives, rest - rest // 2)] if len(hard) else [(negatives, rest)]
    return torch.cat([group[torch.randint(len(group), (n,), generator=generator)] for group, n in wanted])


@dataclass(frozen=True)
class Quality:
    """Counts on held-out episodes at one threshold. Steps that are not known are left out; an episode is judged by its first success."""

    threshold: float
    true_steps: int
    false_steps: int
    positive_steps: int
    negative_steps: int
    found: int  # episodes with success in which it was seen, not too early
    early: int  # seen at a step that was no success yet
    missed: int
    false: int  # episodes without success in which one was seen
    clean: int  # and in which none was

    @property
    def precision(self) -> float:
        """Of episodes in which success was seen."""
        seen = self.found + self.early + self.false
        return self.found / seen if seen else 0.0

    @property
    def recall(self) -> float:
        """Of episodes with success."""
        there = self.found + self.early + self.missed
        return self.found / there if there else 0.0


def quality(model: RewardModel, episodes: Sequence[RewardEpisode], features: dict[str, Tensor] | None, threshold: float) -> Quality:
    """At one threshold."""
    return _quality(_probabilities(model, episodes, features), threshold)


def _probabilities(
    model: RewardModel, episodes: Sequence[RewardEpisode], features: Mapping[str, Tensor] | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    found = []
    for episode in episodes:
        own = features[episode.episode_id] if features is not None else None
        found.append((model.probabilities(episode.states, own), episode.evidence.labels))
    return found


def _quality(scored: list[tuple[np.ndarray, np.ndarray]], threshold: float) -> Quality:
    counts = dict.fromkeys(
        ("true_steps", "false_steps", "positive_steps", "negative_steps", "found", "early", "missed", "false", "clean"), 0
    )
    for probabilities, labels in scored:
        passing = probabilities >= threshold
        counts["true_steps"] += int((passing & (labels == 1)).sum())
        counts["false_steps"] += int((passing & (labels == 0)).sum())
        counts["positive_steps"] += int((labels == 1).sum())
        counts["negative_steps"] += int((labels == 0).sum())
        if judged := _verdict(probabilities, labels, threshold):
            counts[judged] += 1
    return Quality(threshold=threshold, **counts)


def verdicts(model: RewardModel, episodes: Sequence[RewardEpisode], features: Mapping[str, Tensor] | None) -> list[str]:
    """How each episode is judged at the model's own threshold: the name of a count of `Quality`, "" where nothing is known of it."""
    return [_verdict(*scored, model.config.threshold) for scored in _probabilities(model, episodes, features)]


def _verdict(probabilities: np.ndarray, labels: np.ndarray, threshold: float) -> str:
    seen = first_success(probabilities, threshold)
    if (labels == 1).any():
        return "missed" if seen < 0 else "early" if labels[seen] == 0 else "found"
    if (labels == 0).any():
        return "false" if seen >= 0 and labels[seen] == 0 else "clean"
    return ""


def choose_threshold(
    model: RewardModel, episodes: Sequence[RewardEpisode], features: dict[str, Tensor] | None
) -> tuple[RewardModel, Quality, dict[str, dict[str, float]]]:
    """The rule: of 0.70 to 0.85 the one with the fewest held-out episodes in which success is seen wrongly (early or false); of those
    the one that finds most; of those the lowest. Returns the model with it, its quality, and the quality at both ends."""
    scored = _probabilities(model, episodes, features)
    tried = [_quality(scored, threshold) for threshold in THRESHOLDS]
    best = min(tried, key=lambda q: (q.early + q.false, -q.found, q.threshold))
    ends = {f"{q.threshold:.2f}": dict(asdict(q)) for q in (tried[0], tried[-1])}
    return RewardModel(replace(model.config, threshold=best.threshold), model.tensors), best, ends


def checks_of(names: Sequence[str], observed: Sequence[str], examples: Examples) -> tuple[tuple[int, float, float], ...]:
    """The range of the training positives for each named number, wider by half on each side. Raises `RewardError` for an unknown name."""
    made = []
    for name in names:
        if name not in observed:
            raise RewardError(f"no observation {name!r} to check; there are {', '.join(observed)}")
        index = list(observed).index(name)
        values = examples.states[examples.labels == 1.0, index]
        low, high = float(values.min()), float(values.max())
        margin = CHECK_MARGIN * (high - low)
        made.append((index, low - margin, high + margin))
    return tuple(made)
