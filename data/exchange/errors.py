"""What can be wrong with an export or an import."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""``(done, total)`` in episodes. Raise `Cancelled` from it to stop: what is done stays, the next call goes on from there."""


class ExchangeError(ValueError):
    """A file or a selection that cannot be exchanged. Names the file, the key and the step, and says what to do."""


class Cancelled(RuntimeError):
    """Raised by a progress callback to stop a long job."""


def silent(done: int, total: int) -> None:
    """A progress callback that does nothing."""
