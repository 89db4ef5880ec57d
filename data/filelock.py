"""A lock that a living process holds on a file: gone with the process however it ends."""

import contextlib
import fcntl
import os
from pathlib import Path


class Locked(OSError):
    """Somebody else has the lock. ``holder``: the process that said so, or "unknown"."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is locked by process {holder}")
        self.holder = holder


class FileLock:
    """An flock on ``path``, which is made. Released by `release`, by leaving a ``with`` block, or by the process' death.

    Raises `Locked`, or `OSError` when the file cannot be made. A second lock in the same process is refused too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        while True:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(self._fd, 64).decode("utf-8", "replace").strip() or "unknown"
                os.close(self._fd)
                raise Locked(path, holder) from None
            # the holder unlinks the file when it lets go: a lock on an unlinked file protects nothing
            if os.fstat(self._fd).st_nlink:
                break
            os.close(self._fd)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Give the lock back. Twice is harmless."""
        if self._fd >= 0:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> "FileLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
