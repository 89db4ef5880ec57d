"""Which sequence numbers of a stream are here, as ranges: the basis of deduplication and of one-number acknowledgements."""

from bisect import bisect_right
from collections.abc import Iterable


class Coverage:
    """A set of non-negative integers that is cheap while it is nearly contiguous."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._first: list[int] = []
        self._last: list[int] = []
        for first, last in sorted(ranges):
            self.add_range(first, last)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._first, number) - 1
        return at >= 0 and number <= self._last[at]

    def add(self, number: int) -> None:
        self.add_range(number, number)

    def add_range(self, first: int, last: int) -> None:
        """Add first..last, both included."""
        low = bisect_right(self._last, first - 2)  # ranges before that end too early even to touch
        high = bisect_right(self._first, last + 1)
        if low < high:
            first, last = min(first, self._first[low]), max(last, self._last[high - 1])
        self._first[low:high] = [first]
        self._last[low:high] = [last]

    @property
    def contiguous(self) -> int:
        """The largest n with all of 0..n here; -1 when 0 is missing."""
        return self._last[0] if self._first and self._first[0] == 0 else -1

    @property
    def largest(self) -> int:
        """-1 when empty."""
        return self._last[-1] if self._last else -1

    def missing(self, first: int, last: int) -> list[int]:
        """Numbers of first..last that are not here."""
        return [number for number in range(first, last + 1) if number not in self]

    def ranges(self) -> list[tuple[int, int]]:
        return list(zip(self._first, self._last, strict=True))
