"""Weights in use: who has them loaded holds a lock (flock) on their file, so that `pruning` leaves them there.

The kernel ends a lock with its process, however that one ends: nothing is left behind.
"""

import contextlib
import fcntl
import os
from pathlib import Path


class Lease:
    """Shared, until this object is gone. Raises `OSError` when ``path`` cannot be read; a file system without locks gives none."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._fd = -1
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            fcntl.flock(self._fd, fcntl.LOCK_SH)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


class Unused:
    """Exclusive, of the files among ``paths`` that nobody has loaded, until `close`; who wants to load one meanwhile waits.

    ``busy``: the others, also those that are gone, cannot be read, or lie where there are no locks.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.busy: set[Path] = set()
        self._held: list[int] = []
        for path in paths:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self.busy.add(path)
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self.busy.add(path)
                os.close(fd)
            else:
                self._held.append(fd)

    def close(self) -> None:
        while self._held:
            os.close(self._held.pop())
