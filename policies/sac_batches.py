"""From drawn rows to what an update of hil-serl computes with: unpacked, normalised, on the learner's device."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from takeover.policies import nets
from takeover.policies.gripper_critic import gripper_columns
from takeover.policies.sac_update import CriticBatch
from takeover.policies.transition_buffer import Columns


@dataclass(frozen=True)
class Batches:
    """The batches of one update, one behind the other: M = batches x ``size`` rows on the learner's device."""

    size: int
    demonstrations: list[int]  # of each batch, its first rows
    observation: Tensor  # (M, D), normalised
    following: Tensor  # (M, D), normalised
    arm: Tensor  # (M, A)
    command: Tensor | None  # (M,) int64: 0 close, 1 keep, 2 open; None without a discrete gripper
    reward: Tensor  # (M,)
    bootstrap: Tensor  # (M,): discount, 0 where the future ends
    noise: Tensor  # (M, A)
    target_following: Tensor | None = None  # (M, D) and (P,), as in `CriticBatch`
    encoder: Tensor | None = None

    def at(self, i: int) -> slice:
        """Rows of batch ``i``."""
        return slice(i * self.size, (i + 1) * self.size)

    def for_critics(self, i: int, following_arm: Tensor, *, cloning: float, margin: float, subset: Tensor | None = None) -> CriticBatch:
        """Batch ``i``; ``following_arm`` (M, A): what the actor would do next; ``subset`` as in `CriticBatch`."""
        at, command, seen = self.at(i), self.command, self.target_following
        return CriticBatch(
            self.observation[at],
            self.arm[at],
            self.following[at],
            following_arm[at],
            self.reward[at],
            self.bootstrap[at],
            None if command is None else command[at],
            self.demonstrations[i],
            cloning,
            margin,
            subset,
            None if seen is None else seen[at],
            self.encoder,
        )


class Stage:
    """Unpacks rows. To a GPU they go through one piece of page-locked memory, which the next call overwrites: the copy is over once an
    update has read a loss of it."""

    def __init__(self, columns: Columns, arm: Sequence[int], gripper: int | None, device: torch.device) -> None:
        """``arm``, ``gripper``: indices into an action; ``gripper`` is None where it is no discrete one."""
        self._columns, self._gripper, self._device = columns, gripper, device
        self._arm = torch.tensor(list(arm), device=device)
        self._locked: dict[int, Tensor] = {}

    def rows(self, parts: Sequence[Tensor]) -> Tensor:
        """Parts (n, W) of rows on the CPU -> (M, W) on the device."""
        if self._device.type == "cpu":
            return torch.cat(list(parts))
        width = parts[0].shape[1]
        if width not in self._locked or len(self._locked[width]) < sum(map(len, parts)):
            self._locked[width] = torch.empty(sum(map(len, parts)), width, dtype=parts[0].dtype, pin_memory=True)
        locked = self._locked[width][: sum(map(len, parts))]
        torch.cat(list(parts), out=locked)
        return locked.to(self._device, non_blocking=True)

    def actions(self, rows: Tensor) -> Tensor:
        """Continuous actions (M, A) of rows (M, W) on the device."""
        return rows[:, self._columns.action].index_select(1, self._arm)

    def batches(
        self, drawn: Sequence[tuple[Tensor, int]], noise: Sequence[Tensor], mean: Tensor, scale: Tensor, discount: float
    ) -> Batches:
        """``drawn``: rows (B, W) and how many of the first are demonstrations, for each batch; ``noise`` (B, A) for each."""
        c = self._columns
        rows = self.rows([part for part, _ in drawn])
        both = nets.normalise(rows[:, : c.next_observation.stop].unflatten(1, (2, -1)), mean, scale)
        return Batches(
            size=len(drawn[0][0]),
            demonstrations=[n for _, n in drawn],
            observation=both[:, 0],
            following=both[:, 1],
            arm=self.actions(rows),
            command=None if self._gripper is None else gripper_columns(rows[:, c.action][:, self._gripper]),
            reward=rows[:, c.reward],
            bootstrap=rows[:, c.mask] * discount,
            noise=self.rows(noise),
        )
