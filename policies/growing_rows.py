"""Rows of one tensor that more rows are appended to all the time, without copying what is there."""

import torch
from torch import Tensor


class GrowingRows:
    """Room for more rows than there are; it grows by half when they no longer fit."""

    def __init__(self, like: Tensor) -> None:
        """``like`` (n, ...): shape and kind of a row; its rows are not taken."""
        self._room = torch.empty((0, *like.shape[1:]), dtype=like.dtype)
        self.size = 0

    @property
    def rows(self) -> Tensor:
        """(size, ...): a view, which `write` changes."""
        return self._room[: self.size]

    def write(self, at: int, rows: Tensor) -> None:
        """``rows`` (k, ...) in the place of those from ``at`` on, and behind the last one. ``at`` is at most `size`."""
        end = at + len(rows)
        if end > len(self._room):
            room = self._room.new_empty((end + end // 2, *self._room.shape[1:]))
            room[: self.size] = self.rows
            self._room = room
        self._room[at:end] = rows
        self.size = max(self.size, end)

    def cut(self, size: int) -> None:
        """Only the first ``size`` rows stay."""
        self.size = size
