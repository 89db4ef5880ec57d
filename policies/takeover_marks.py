"""What a takeover says about the policy's steps just before it, for reinforcement learning.

Two options of ``hil-serl``, both off unless asked for. RLIF ("RLIF: Interactive Imitation Learning as Reinforcement Learning", 2023):
the policy's last step before a person takes over is punished, and with ``task_reward`` off that is all the reward there is. Down-weighting:
batches take the policy's steps of the last moments before a takeover with a smaller chance.

Everything is a function of the recorded steps, so a learner that starts again ends up with the same marks.
"""

import numpy as np
import torch

from takeover.data.schema import Step
from takeover.policies.transition_buffer import TransitionBuffer

_STEPS = 1 << 24  # more than any episode has
_ROUNDS = 8
_NO_STEP = -(1 << 62)  # of no row


class TakeoverMarks:
    """Follows the steps of policy episodes. Call `begin_episode`, then `saw` for every step before its row is stored."""

    def __init__(self, takeover_reward: float = 0.0, weight: float = 1.0, steps_before: int = 0) -> None:
        """``takeover_reward`` <= 0 is added to the last step before a takeover; the ``steps_before`` steps before it are drawn with
        ``weight`` in [0, 1] of the usual chance."""
        self.takeover_reward, self._weight, self._steps_before = takeover_reward, weight, steps_before
        self._down: set[int] = set()
        self._array: np.ndarray | None = None
        self._run = -1
        self._before: list[int] = []  # steps that the policy drove since the run began or a person let go

    @property
    def marked(self) -> int:
        """How many steps are drawn with a smaller chance."""
        return len(self._down)

    def restore(self, marked: bool) -> None:
        """After steps were seen again, but not those of rows that are gone; ``marked``: whether there were marks, on whatever rows.

        As long as there are any, batches draw with them."""
        if marked and not self._down:
            self._down, self._array = {_NO_STEP}, None

    @property
    def active(self) -> bool:
        """Whether takeovers say anything."""
        return bool(self.takeover_reward) or self._weight < 1.0

    def begin_episode(self) -> None:
        self._run, self._before = -1, []

    def saw(self, key: int, step: Step, driven: bool, online: TransitionBuffer, reward_column: int) -> int:
        """One step of episode ``key``; ``driven``: a person has authority over it, ramps included. At an onset the row of the step
        before gets the reward, as long as it is in ``online``. Returns the step that got it, -1: none."""
        punished = -1
        if step.run_id != self._run:
            self._run, self._before = step.run_id, []
        if not driven:
            self._before.append(step.episode_step)
            return punished
        if self._before:
            punished = self._punish(key, self._before[-1], online, reward_column)
            if self._weight < 1.0 and self._steps_before:
                self._down |= {key * _STEPS + before for before in self._before[-self._steps_before :]}
                self._array = None
        self._before = []
        return punished

    def _punish(self, key: int, before: int, online: TransitionBuffer, reward_column: int) -> int:
        i = online.newest
        if self.takeover_reward and i >= 0 and online.size and (online.episode[i], online.step[i]) == (key, before):
            online.rows[i, reward_column] += self.takeover_reward
            return before
        return -1

    def thin(self, buffer: TransitionBuffer, chosen: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """(n,) rows of ``buffer`` as drawn -> (n,): a marked row is kept with the weight's chance, else another one is drawn until it is
        not marked (a few times; where nearly all are marked, some stay)."""
        if not self._down:
            return chosen
        index = chosen.numpy().copy()
        drop = self._marked(buffer, index) & (torch.rand(len(index), generator=generator).numpy() >= self._weight)
        for _ in range(_ROUNDS):
            count = int(drop.sum())
            if count == 0:
                break
            index[drop] = torch.randint(buffer.size, (count,), generator=generator).numpy()
            drop[drop] = self._marked(buffer, index[drop])
        return torch.from_numpy(index)

    def _marked(self, buffer: TransitionBuffer, index: np.ndarray) -> np.ndarray:
        if self._array is None:
            self._array = np.fromiter(self._down, np.int64, len(self._down))
        return np.isin(buffer.episode[index] * _STEPS + buffer.step[index], self._array)
