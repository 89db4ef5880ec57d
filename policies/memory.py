"""Which episodes an imitation learner lets go of when its memory is full, as pure functions.

The unit is the episode. Demonstrations are never asked about: they stay. Strategies by what goes **first**:

- ``fifo``: the oldest; ``filo``: the newest, so that the first ones stay
- ``lfi``: the least intervened, since a policy that was left alone has shown what it can do already; ``mfi``: the most intervened

How much an episode was intervened in is the share of its steps that a person drove. Equal shares: the oldest first. (The code released
with Sirius sorts the other way round and drops the most intervened under the name of the least; this follows the definition.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

STRATEGIES = ("fifo", "filo", "lfi", "mfi")


@dataclass(frozen=True)
class Remembered:
    """A policy episode in memory: how many steps it has, and how many of them a person drove."""

    episode_id: str
    steps: int
    human_steps: int

    @property
    def intervened(self) -> float:
        """Share of the steps that a person drove, in [0, 1]."""
        return self.human_steps / self.steps if self.steps else 0.0


def to_evict(episodes: Sequence[Remembered], keep_steps: int, strategy: str) -> list[str]:
    """Ids of the episodes to let go of, in that order, so that at most ``keep_steps`` steps remain.

    ``episodes`` are in the order in which they were recorded. The last one that is left stays, however long it is. Raises
    `ValueError` for an unknown strategy or a negative number of steps.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown memory strategy {strategy!r}; known: {', '.join(STRATEGIES)}")
    if keep_steps < 0:
        raise ValueError(f"keep_steps = {keep_steps}; must not be negative")
    left = sum(episode.steps for episode in episodes)
    gone: list[str] = []
    for episode in _order(episodes, strategy)[:-1]:
        if left <= keep_steps:
            break
        gone.append(episode.episode_id)
        left -= episode.steps
    return gone


def _order(episodes: Sequence[Remembered], strategy: str) -> list[Remembered]:
    """First to go first. Sorting is stable: among equals the oldest goes first."""
    if strategy == "fifo":
        return list(episodes)
    if strategy == "filo":
        return list(reversed(episodes))
    return sorted(episodes, key=lambda episode: episode.intervened if strategy == "lfi" else -episode.intervened)
