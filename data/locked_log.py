"""Files of lines that several processes append to, and that may be replaced as a whole: the lock for both."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from takeover.data.workspace import fsync_folder

DECISIONS_FILE = "decisions.jsonl"
"""What was decided about policies; in the workspace's folder of policies. What it means: `takeover.policies.decisions`."""
GATE = "gate"
"""The author of what the evaluator decides by itself: no person."""


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """The log's descriptor while this process holds its lock; nothing is read or dropped. Raises `OSError`."""
    fd = _lock(path)
    try:
        yield fd
    finally:
        os.close(fd)


def _lock(path: Path) -> int:
    """Another file may have been put in the log's place while its lock was waited for: then that one's is taken."""
    while True:
        new = not path.exists()
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if new:
                fsync_folder(path.parent)
            with suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(fd)):
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
