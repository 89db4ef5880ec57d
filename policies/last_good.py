"""The newest state that was finite, for a learner whose losses or gradients are not: it skips updates, and after some goes back to it."""

from collections.abc import Mapping

from torch import Tensor

REMEMBER_EVERY = 500  # updates
SKIPS_IN_A_ROW = 5  # that bring it back
_PREFIX = "good."


class LastGood:
    """``skipped``: updates that were refused; ``in_a_row``: how many of them since the last one that counted."""

    def __init__(self) -> None:
        self.skipped = 0
        self.in_a_row = 0
        self.state: dict[str, Tensor] | None = None  # on the learner's device; nobody changes these tensors

    def counted(self, updates: int) -> bool:
        """An update was made, the ``updates``-th; whether the state after it is to be remembered if it is finite."""
        self.in_a_row = 0
        return updates % REMEMBER_EVERY == 0

    def skip(self) -> dict[str, Tensor] | None:
        """An update was refused. Returns the state to go back to, None: it is not time yet, or there is none."""
        self.skipped += 1
        self.in_a_row += 1
        if self.in_a_row < SKIPS_IN_A_ROW or self.state is None:
            return None
        self.in_a_row = 0
        return self.state

    def values(self) -> dict[str, int]:
        """For a checkpoint, beside `tensors`."""
        return {"skipped": self.skipped, "skipped_in_a_row": self.in_a_row}

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint, on the CPU; none as long as nothing was remembered."""
        return {f"{_PREFIX}{name}": tensor.cpu() for name, tensor in (self.state or {}).items()}

    def restore(self, skipped: int, in_a_row: int, tensors: Mapping[str, Tensor]) -> None:
        """``tensors``: what `tensors` gave, among others."""
        self.skipped, self.in_a_row = skipped, in_a_row
        self.state = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items() if name.startswith(_PREFIX)} or None
