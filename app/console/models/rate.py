"""Intervention rate of the last episodes: steps by a person over steps, and episodes with any, with a Wilson interval on episodes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from takeover.data.statistics import wilson

WINDOW = 20


class EpisodeFigures(Protocol):
    @property
    def number(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def steps(self) -> int: ...
    @property
    def human_steps(self) -> int: ...
    @property
    def discarded(self) -> bool: ...


@dataclass(frozen=True)
class Rate:
    """``shares``: per episode, oldest first. ``low``/``high``: 95 % for the share of episodes with a takeover."""

    shares: tuple[float, ...] = ()
    numbers: tuple[int, ...] = ()
    steps: int = 0
    human_steps: int = 0
    with_takeover: int = 0
    low: float = 0.0
    high: float = 1.0

    @property
    def episodes(self) -> int:
        return len(self.shares)

    @property
    def mean(self) -> float:
        """Steps by a person over all steps; NaN when there were none."""
        return self.human_steps / self.steps if self.steps else float("nan")


def intervention_rate(episodes: Sequence[EpisodeFigures]) -> Rate:
    """Over the last 20 policy episodes with at least one step; demonstrations and discarded ones do not count."""
    counted = [e for e in episodes if e.kind == "policy" and e.steps > 0 and not e.discarded][-WINDOW:]
    if not counted:
        return Rate()
    touched = sum(e.human_steps > 0 for e in counted)
    low, high = wilson(touched, len(counted))
    return Rate(
        shares=tuple(e.human_steps / e.steps for e in counted),
        numbers=tuple(e.number for e in counted),
        steps=sum(e.steps for e in counted),
        human_steps=sum(e.human_steps for e in counted),
        with_takeover=touched,
        low=low,
        high=high,
    )
