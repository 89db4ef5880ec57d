"""Settings and errors of the reward classifier. Importing this loads neither torch nor the store."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from takeover.policies.parameters import check_device, parse_parameters, require

AUTHOR = "reward-v"
"""Outcomes that a classifier gave are labels by ``reward-v<version>``; a person's outcome always stands against them."""
POSITIVE_MARK, NEGATIVE_MARK = "success", "not success"
"""Texts of marks that a person sets while an episode runs: what the robot shows now is, or is not, success."""
THRESHOLDS = tuple(round(0.70 + 0.01 * i, 2) for i in range(16))


def version_of(author: str) -> int:
    """Of the classifier that signs as ``author``; 0: it is none."""
    number = author.removeprefix(AUTHOR)
    return int(number) if author.startswith(AUTHOR) and number.isdecimal() else 0


class RewardError(ValueError):
    """A reward classifier cannot be trained, read or used; says what is wrong, where, and what to do."""


@dataclass(frozen=True)
class RewardSettings:
    """Settings of a reward classifier (`takeover reward train --set NAME=VALUE`)."""

    hidden: int = 64
    """Units of each of the two layers of every member."""
    members: int = 3
    """Networks, each from its own start; the smallest of their probabilities counts, so that one doubt is enough."""
    updates: int = 1500
    """Training batches."""
    batch: int = 128
    """Half positives, half negatives; half of the negatives are hard ones (vetoed) as soon as there are any."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    """Decoupled, times the learning rate."""
    noise: float = 0.02
    """Normal noise on the normalised state while training, in standard deviations of the data."""
    smoothing: float = 0.03
    """Labels are this and 1 minus this: about as many keys are wrong."""
    held_out: float = 0.2
    """Share of the episodes that is never trained on: positives and negatives each."""
    key_delay_min_s: float = 0.3
    """An operator's key comes at least this long after what it is about: the steps since then are positives."""
    key_delay_max_s: float = 1.0
    """And at most this long: the steps before are negatives, those between count as neither."""
    min_positives: int = 10
    """Fewer positive steps for training are refused; about 200 are good."""
    min_negatives: int = 50
    """Fewer negative steps for training are refused; about 1,000 are good."""
    min_episodes: int = 5
    """Fewer episodes with a positive are refused."""
    picture_size: int = 64
    """Pixels per side to which pictures are reduced."""
    features: int = 32
    """Numbers per camera that the picture encoder makes."""
    encoder_updates: int = 300
    """Batches with which a new picture encoder is trained; afterwards it is frozen and its features are kept."""
    seed: int = 0
    device: str = "auto"
    """Where it is trained: cuda, cuda:N or cpu; auto: on the first CUDA device, on the CPU where there is none."""

    def __post_init__(self) -> None:
        _within("hidden", self.hidden, 4, 1024)
        _within("members", self.members, 1, 16)
        _within("updates", self.updates, 1, 100_000)
        _within("batch", self.batch, 8, 4096)
        _within("learning_rate", self.learning_rate, 1e-6, 0.1)
        _within("weight_decay", self.weight_decay, 0.0, 1.0)
        _within("noise", self.noise, 0.0, 1.0)
        _within("smoothing", self.smoothing, 0.0, 0.2)
        _within("held_out", self.held_out, 0.05, 0.5)
        _within("key_delay_min_s", self.key_delay_min_s, 0.0, 5.0)
        _within("key_delay_max_s", self.key_delay_max_s, self.key_delay_min_s, 10.0)
        _within("min_positives", self.min_positives, 2, 10_000)
        _within("min_negatives", self.min_negatives, 2, 10_000)
        _within("min_episodes", self.min_episodes, 2, 1000)
        _within("picture_size", self.picture_size, 16, 128)
        _within("features", self.features, 4, 256)
        _within("encoder_updates", self.encoder_updates, 1, 100_000)
        _within("seed", self.seed, 0, 2**31 - 1)
        check_device(self.device)


def _within(name: str, value: float, low: float, high: float) -> None:
    require(low <= value <= high, f"reward.{name} = {value:g}; allowed {low:g} to {high:g}")


def parse_settings(given: Mapping[str, Any]) -> RewardSettings:
    """Settings over their defaults. Raises `RewardError` naming the setting and what is allowed."""
    try:
        return parse_parameters(RewardSettings, dict(given), name="reward")
    except ValueError as error:
        raise RewardError(str(error).replace("learner 'reward'", "the reward classifier")) from None
