"""Low-dimensional replay with the demonstration / online split of RLPD with corrections.

What goes where: human steps (not ramps) of policy episodes into both buffers, policy and ramp steps only into the online one,
demonstrations into the demonstration one. The applied action is stored. Held steps are skipped. The next observation is the
step's own, so nothing is read across a run. Only success and failure end the future (mask 0); timeouts and holds bootstrap.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from takeover.data.schema import ControlMode, EpisodeEnd, EpisodeKind, EpisodeStart, Outcome, OutcomeSource, RobotSpec, Source, Step

HELD = (ControlMode.PAUSED, ControlMode.SAFETY_HOLD)
NO_CORRECTION = -1


def is_held(step: Step) -> bool:
    """Paused or held for safety: never trained on, not among an episode's steps."""
    return step.control_mode in HELD


def is_human(step: Step) -> bool:
    """A step a person drove, ramp-in excluded: an imitation target."""
    return step.control_mode == ControlMode.HUMAN and Source.HUMAN in step.source


def gripper_index(value: float) -> int:
    """Canonical gripper command -> 0 close, 1 keep, 2 open."""
    return 0 if value < -0.5 else 2 if value > 0.5 else 1


class GripperCost:
    """Toggle penalty: charged only when a command would change the state that was commanded last."""

    def __init__(self, spec: RobotSpec, penalty: float) -> None:
        group = next((g for g in spec.action.groups if g.name == "gripper"), None)
        self._index = group.start if spec.action.gripper == "discrete" and group is not None else -1
        self._penalty = penalty
        self._open = True

    def begin_episode(self) -> None:
        """Episodes start with an open gripper."""
        self._open = True

    def of(self, action: Sequence[float]) -> float:
        """Cost of ``action`` (A,) in reward units, >= 0."""
        if self._index < 0:
            return 0.0
        command = gripper_index(action[self._index])
        if command == 1 or (command == 2) == self._open:
            return 0.0
        self._open = command == 2
        return self._penalty


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
    def of(cls, observation_size: int, action_size: int) -> "Columns":
        d, a = observation_size, action_size
        return cls(slice(0, d), slice(d, 2 * d), slice(2 * d, 2 * d + a), 2 * d + a, 2 * d + a + 1, 2 * d + a + 2)


class TransitionBuffer:
    """Ring of packed float32 rows with the episode, step and correction each came from."""

    def __init__(self, capacity: int, width: int) -> None:
        self._capacity = capacity
        self.rows = torch.zeros(min(capacity, 4096), width)
        self.episode = np.full(len(self.rows), -1, np.int64)
        self.step = np.zeros(len(self.rows), np.int64)
        self.correction = torch.full((len(self.rows),), NO_CORRECTION, dtype=torch.int64)
        self.size = 0
        self.newest = -1
        self._next = 0

    def add(self, row: torch.Tensor, episode: int, step: int, correction: int = NO_CORRECTION) -> None:
        """Append; the oldest row goes when the ring is full."""
        if self._next == len(self.rows) and self.size == len(self.rows) and self.size < self._capacity:
            self._grow()
        i = self._next % len(self.rows) if self.size == len(self.rows) else self._next
        self.rows[i] = row
        self.episode[i] = episode
        self.step[i] = step
        self.correction[i] = correction
        self.newest = i
        self._next = i + 1
        self.size = min(self.size + 1, len(self.rows))

    def _grow(self) -> None:
        extra = min(self._capacity, 2 * len(self.rows)) - len(self.rows)
        self.rows = torch.cat([self.rows, torch.zeros(extra, self.rows.shape[1])])
        self.episode = np.concatenate([self.episode, np.full(extra, -1, np.int64)])
        self.step = np.concatenate([self.step, np.zeros(extra, np.int64)])
        self.correction = torch.cat([self.correction, torch.full((extra,), NO_CORRECTION, dtype=torch.int64)])

    def indices(self, count: int, generator: torch.Generator, *, newest: bool = False) -> torch.Tensor:
        """(count,) uniform with replacement; ``newest``: the first is the row added last."""
        chosen = torch.randint(self.size, (count,), generator=generator)
        if newest and self.newest >= 0:
            chosen[0] = self.newest
        return chosen

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
        self.episode[n:] = -1
        self.size = self._next = n
        self.newest = n - 1
        return len(order) - n


class CorrectionReplay:
    """Demonstration and online buffers, filled from committed steps."""

    def __init__(self, spec: RobotSpec, *, capacity: int = 200_000, gripper_penalty: float = 0.0) -> None:
        self.spec = spec
        self.columns = Columns.of(spec.observation.size, spec.action.size)
        self.demonstrations = TransitionBuffer(capacity, self.columns.width)
        self.online = TransitionBuffer(capacity, self.columns.width)
        self.train_steps = 0  # non-held steps of policy episodes ever ingested
        self.human_steps = 0  # of those, driven by a person
        self.demonstration_episodes = 0
        self._cost = GripperCost(spec, gripper_penalty)
        self._keys: dict[str, int] = {}
        self._pending_demonstration: list[tuple[torch.Tensor, int]] = []
        self._corrections: list[tuple[str, int]] = []
        self._unused: set[int] = set()  # corrections of which no batch has held a step yet
        self._used: list[tuple[str, int]] = []
        self._episode = ""
        self._kind = EpisodeKind.POLICY

    def begin_episode(self, start: EpisodeStart) -> None:
        """Raises `ValueError` when the robot's observation or action space is another one."""
        if start.spec.observation.names != self.spec.observation.names or start.spec.action.names != self.spec.action.names:
            raise ValueError(f"episode {start.episode_id} has another observation or action space than this learner's")
        self._episode = start.episode_id
        self._kind = start.kind
        self._keys.setdefault(start.episode_id, len(self._keys))
        self._pending_demonstration = []
        self._cost.begin_episode()

    def trains(self) -> bool:
        """Whether the running episode is of a kind that is trained on."""
        return self._kind in (EpisodeKind.DEMONSTRATION, EpisodeKind.POLICY)

    def add(self, step: Step) -> bool:
        """One committed step of the running episode; False when it is of no use to training (held, evaluation)."""
        if not self.trains() or is_held(step):
            return False
        if step.episode_id != self._episode:
            raise ValueError(f"step {step.seq} belongs to episode {step.episode_id}; {self._episode or 'none'} is running")
        row = self._row(step)
        key = self._keys[step.episode_id]
        if self._kind == EpisodeKind.DEMONSTRATION:
            if is_human(step):
                self._pending_demonstration.append((row, step.episode_step))
            else:
                self.online.add(row, key, step.episode_step)
            return True
        self.train_steps += 1
        correction = NO_CORRECTION
        if is_human(step):
            self.human_steps += 1
            correction = self._correction_key(step.episode_id, step.intervention_id)
            self.demonstrations.add(row, key, step.episode_step, correction)
        self.online.add(row, key, step.episode_step, correction)
        return True

    def end_episode(self, end: EpisodeEnd) -> None:
        """A demonstration counts once it is complete; a late or operator's outcome is written into the stored rows."""
        if self._kind == EpisodeKind.DEMONSTRATION:
            key = self._keys.get(end.episode_id, -1)
            if end.discarded or end.outcome == Outcome.ABORTED:
                self.exclude(end.episode_id)
            else:
                self.demonstration_episodes += 1
                for row, step in self._pending_demonstration:
                    if end.outcome == Outcome.FAILURE:
                        self.online.add(row, key, step)  # experience, but nothing to imitate
                    else:
                        self.demonstrations.add(row, key, step)
            self._pending_demonstration = []
        if end.outcome_source in (OutcomeSource.OPERATOR, OutcomeSource.LABEL):
            self.relabel(end.episode_id, end.outcome, end.event_step)
        self._episode = ""

    def exclude(self, episode_id: str) -> int:
        """Drop an episode's rows from both buffers at once; returns how many."""
        key = self._keys.get(episode_id, -1)
        return sum(buffer.drop(buffer.of_episode(key)) for buffer in (self.demonstrations, self.online))

    def relabel(self, episode_id: str, outcome: Outcome, event_step: int) -> None:
        """Success: reward 1 and the end at ``event_step``; failure: reward 0 and the end; steps after it are dropped."""
        if outcome not in (Outcome.SUCCESS, Outcome.FAILURE):
            return
        key = self._keys.get(episode_id, -1)
        for buffer in (self.demonstrations, self.online):
            found = buffer.of_episode(key)
            for i in found[buffer.step[found] == event_step]:
                buffer.rows[i, self.columns.reward] = 1.0 if outcome == Outcome.SUCCESS else 0.0
                buffer.rows[i, self.columns.mask] = 0.0
            buffer.drop(found[buffer.step[found] > event_step])

    def sample(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, int]:
        """(count, width) rows, the first ``n`` of them from the demonstration buffer, and ``n``.

        Half from each; all from one while the other is empty. The newest human step is always in, so that a correction is in
        a batch one update after it was committed. Raises `ValueError` when both are empty.
        """
        if self.demonstrations.size == 0 and self.online.size == 0:
            raise ValueError("nothing to sample: no demonstration and no online step was ingested")
        n = 0 if self.demonstrations.size == 0 else count if self.online.size == 0 else count // 2
        parts = []
        if n:
            chosen = self.demonstrations.indices(n, generator, newest=bool(self._unused))
            self._mark_used(self.demonstrations.correction[chosen])
            parts.append(self.demonstrations.rows[chosen])
        if count > n:
            chosen = self.online.indices(count - n, generator)
            self._mark_used(self.online.correction[chosen])
            parts.append(self.online.rows[chosen])
        return (parts[0] if len(parts) == 1 else torch.cat(parts)), n

    def corrections_used(self) -> list[tuple[str, int]]:
        """(episode id, intervention id) of corrections that were first in a batch since the last call."""
        used, self._used = self._used, []
        return used

    def unused_corrections(self) -> list[int]:
        """For a checkpoint: which corrections no batch has held yet."""
        return sorted(self._unused)

    def restore_unused_corrections(self, unused: Sequence[int]) -> None:
        """After re-ingesting what a checkpoint had seen."""
        self._unused = set(unused)
        self._used = []

    def _correction_key(self, episode_id: str, intervention_id: int) -> int:
        identity = (episode_id, intervention_id)
        if not self._corrections or self._corrections[-1] != identity:
            self._corrections.append(identity)
            self._unused.add(len(self._corrections) - 1)
        return len(self._corrections) - 1

    def _mark_used(self, corrections: torch.Tensor) -> None:
        if not self._unused:
            return
        for key in sorted(self._unused.intersection(corrections.tolist())):
            self._unused.discard(key)
            self._used.append(self._corrections[key])

    def _row(self, step: Step) -> torch.Tensor:
        reward = step.reward - self._cost.of(step.action)
        mask = 0.0 if step.terminated else 1.0
        return torch.tensor([*step.observation, *step.next_observation, *step.action, reward, mask], dtype=torch.float32)
