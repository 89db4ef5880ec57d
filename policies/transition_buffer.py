"""A ring of transitions, packed as rows of one tensor."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

NO_CORRECTION = -1


@dataclass(frozen=True)
class Columns:
    """Slices of a packed transition row."""

    observation: slice
    next_observation: slice
    action: slice
    reward: int
    mask: int
    width: int

    @classmethod
    def of(cls, observation_size: int, action_size: int, extra: int = 0) -> "Columns":
        """``extra`` columns at the end are whoever's asked for them."""
        d, a = observation_size, action_size
        return cls(slice(0, d), slice(d, 2 * d), slice(2 * d, 2 * d + a), 2 * d + a, 2 * d + a + 1, 2 * d + a + 2 + extra)


class TransitionBuffer:
    """Ring of packed float32 rows with the episode, step and correction each came from."""

    def __init__(self, capacity: int, width: int) -> None:
        self._capacity = capacity
        self.rows = torch.zeros(min(capacity, 4096), width)
        self.episode = np.full(len(self.rows), -1, np.int64)
        self.step = np.zeros(len(self.rows), np.int64)
        self.correction = torch.full((len(self.rows),), NO_CORRECTION, dtype=torch.int64)
        self.restored = np.zeros(len(self.rows), bool)  # rows that came back as the oldest, whatever their age
        self.size = 0
        self.newest = -1
        self._next = 0
        self.passed = -1  # the youngest episode of which a full ring has let a row go in its turn

    def add(self, row: torch.Tensor, episode: int, step: int, correction: int = NO_CORRECTION) -> None:
        """Append; the oldest row goes when the ring is full."""
        if self._next == len(self.rows) and self.size == len(self.rows) and self.size < self._capacity:
            self._grow()
        i = self._next % len(self.rows) if self.size == len(self.rows) else self._next
        if self.size == len(self.rows) and not self.restored[i]:  # one that came back goes first: its elders may still be here
            self.passed = max(self.passed, int(self.episode[i]))
        self.rows[i] = row
        self.episode[i] = episode
        self.step[i] = step
        self.correction[i] = correction
        self.restored[i] = False
        self.newest = i
        self._next = i + 1
        self.size = min(self.size + 1, len(self.rows))

    def clear(self) -> None:
        """Let every row go, in nobody's turn."""
        self.size = self._next = 0
        self.newest = -1

    def places(self) -> torch.Tensor:
        """(R, 5) int64: stretches of rows in the order in which they lie here, one after the other steps of one episode.

        Each with its episode, first step, how many, correction, and whether they came back. For `lay_out`.
        """
        n = self.size
        episode, step, correction, restored = self.episode[:n], self.step[:n], self.correction[:n].numpy(), self.restored[:n]
        begins = np.ones(n, bool)  # learning waits for this: nothing is copied that need not be
        if n:
            begins[1:] = episode[1:] != episode[:-1]
            begins[1:] |= step[1:] - step[:-1] != 1
            begins[1:] |= correction[1:] != correction[:-1]
            begins[1:] |= restored[1:] != restored[:-1]
        first = np.flatnonzero(begins)
        counts = np.diff(np.append(first, n))
        return torch.from_numpy(np.stack([episode[first], step[first], counts, correction[first], restored[first]], 1))

    def position(self) -> list[int]:
        """For `lay_out`: how many rows there is room for now, where the next one goes, the newest, and `passed`."""
        return [len(self.rows), self._next, self.newest, self.passed]

    def lay_out(self, places: torch.Tensor, position: Sequence[int]) -> None:
        """As the buffer was that gave `places` and `position`, but for the rows themselves: they are zero."""
        room, self._next, self.newest, self.passed = position
        episode, first, counts, correction, restored = places.numpy().T
        self.size = n = int(counts.sum())
        self.rows = torch.zeros(room, self.rows.shape[1])
        self.episode = np.full(room, -1, np.int64)
        self.step = np.zeros(room, np.int64)
        self.correction = torch.full((room,), NO_CORRECTION, dtype=torch.int64)
        self.restored = np.zeros(room, bool)
        self.episode[:n] = np.repeat(episode, counts)
        self.step[:n] = np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(n)
        self.correction[:n] = torch.from_numpy(np.repeat(correction, counts))
        self.restored[:n] = np.repeat(restored, counts)

    def _grow(self) -> None:
        extra = min(self._capacity, 2 * len(self.rows)) - len(self.rows)
        self.rows = torch.cat([self.rows, torch.zeros(extra, self.rows.shape[1])])
        self.episode = np.concatenate([self.episode, np.full(extra, -1, np.int64)])
        self.step = np.concatenate([self.step, np.zeros(extra, np.int64)])
        self.correction = torch.cat([self.correction, torch.full((extra,), NO_CORRECTION, dtype=torch.int64)])
        self.restored = np.concatenate([self.restored, np.zeros(extra, bool)])

    def indices(self, count: int, generator: torch.Generator, *, newest: bool = False) -> torch.Tensor:
        """(count,) uniform with replacement; ``newest``: the first is the row added last."""
        chosen = torch.randint(self.size, (count,), generator=generator)
        if newest and self.newest >= 0:
            chosen[0] = self.newest
        return chosen

    def oldest(self, count: int) -> np.ndarray:
        """Indices of the ``count`` rows that were added first."""
        start = self._next % self.size if self.size and self.size == len(self.rows) else 0
        return (start + np.arange(min(count, self.size))) % max(1, self.size)

    def of_episode(self, episode: int) -> np.ndarray:
        """Indices of an episode's rows, oldest first."""
        found = np.flatnonzero(self.episode[: self.size] == episode)
        return found[np.argsort(self.step[found], kind="stable")]

    def drop(self, remove: np.ndarray) -> int:
        """Remove the rows with these indices at once; returns how many. The order of the others is kept."""
        if len(remove) == 0:
            return 0
        start = self._next % self.size if self.size == len(self.rows) else 0
        order = np.roll(np.arange(self.size), -start)
        keep = order[~np.isin(order, remove)]
        index = torch.from_numpy(keep)
        n = len(keep)
        self.rows[:n] = self.rows[index]
        self.episode[:n] = self.episode[keep]
        self.step[:n] = self.step[keep]
        self.correction[:n] = self.correction[index]
        self.restored[:n] = self.restored[keep]
        self.episode[n:] = -1
        self.size = self._next = n
        self.newest = n - 1
        return len(order) - n

    def restore(self, rows: torch.Tensor, episode: int, steps: Sequence[int], corrections: Sequence[int]) -> None:
        """Put rows (k, width) back that were dropped, as the oldest there are; a full ring takes none.

        They do not raise `passed` when they go.
        """
        k = min(len(rows), self._capacity - self.size)
        if k <= 0:
            return
        start = self._next % self.size if self.size and self.size == len(self.rows) else 0
        order = np.roll(np.arange(self.size), -start)
        total = self.size + k
        while len(self.rows) < total:
            self._grow()
        index = torch.from_numpy(order)
        self.rows[:total] = torch.cat([rows[-k:], self.rows[index]])
        self.episode[:total] = np.concatenate([np.full(k, episode, np.int64), self.episode[order]])
        self.step[:total] = np.concatenate([np.asarray(steps[-k:], np.int64), self.step[order]])
        self.correction[:total] = torch.cat([torch.tensor(corrections[-k:], dtype=torch.int64), self.correction[index]])
        self.restored[:total] = np.concatenate([np.ones(k, bool), self.restored[order]])
        self.size = self._next = total
        self.newest = total - 1
