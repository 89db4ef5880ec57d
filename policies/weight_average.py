"""An average of the weights of the last updates, to act with where single updates go to and fro: imitation at a learning rate that still
learns never settles. Whether it helps is another question (docs/learning.md).
"""

from collections.abc import Mapping

from torch import Tensor


class WeightAverage:
    """The exponential average of a flat vector over about ``horizon`` updates, from what it is when that begins; 0: the vector itself."""

    def __init__(self, flat: Tensor, horizon: int) -> None:
        self._flat, self._horizon = flat.detach(), horizon
        self._average = self._flat.clone() if horizon else self._flat

    @property
    def weights(self) -> Tensor:
        """(size,): what acts."""
        return self._average

    def begin(self) -> None:
        """From the present weights on, as if they had been there all the time."""
        if self._horizon:
            self._average.copy_(self._flat)

    def follow(self) -> None:
        """After an update of the vector."""
        if self._horizon:
            self._average.lerp_(self._flat, 1.0 / self._horizon)

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint: empty where nothing is averaged."""
        return {"average": self._average.clone()} if self._horizon else {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """What `state` gave, among others."""
        if self._horizon:
            self._average.copy_(tensors["average"])
