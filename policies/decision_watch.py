"""Follow the decisions file while it grows, cheaply enough to ask between two control steps however long it is."""

import os
from pathlib import Path

from takeover.policies.decisions import DecisionError, Standing, Tally, decisions_path, parse

_State = tuple[int, int, int]  # inode, size, mtime


class DecisionWatch:
    """What the decisions say of one robot and task now. Reads only what was appended; everything when the file was changed otherwise."""

    def __init__(self, workspace: str | os.PathLike[str], robot_id: str, task_id: str) -> None:
        self.standing = Standing()
        self.error = ""  # why the file cannot be followed; ``standing`` is the last one that could be read
        self._path = decisions_path(workspace)
        self._about = (robot_id, task_id)
        self._seen: _State = (0, 0, 0)
        self._tally = Tally(*self._about)
        self._end = 0  # of what the tally has

    def poll(self) -> bool:
        """True when ``standing`` or ``error`` changed."""
        seen = _state(self._path)
        if seen == self._seen:
            return False
        before = (self.standing, self.error)
        if seen[0] != self._seen[0] or seen[1] < self._end or self.error:
            self._tally, self._end = Tally(*self._about), 0
        try:
            self._read_again_if_changed()
            self.standing, self.error = self._tally.standing, ""
        except DecisionError as error:
            self.error = str(error)
        except OSError as error:
            self.error = f"cannot read {self._path}: {error.strerror}"
        self._seen = seen
        return (self.standing, self.error) != before

    def _read_again_if_changed(self) -> None:
        try:
            self._read()
        except DecisionError:
            if not self._end:
                raise
            self._tally, self._end = Tally(*self._about), 0  # what stood before it may have been changed too
            self._read()

    def _read(self) -> None:
        try:
            with self._path.open("rb") as file:
                file.seek(self._end)
                data = file.read()
        except FileNotFoundError:
            return
        found, end = parse(self._path, data, self._tally.standing.last)
        for decision in found:
            self._tally.add(decision)
        self._end += end


def _state(path: Path) -> _State:
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_ino, status.st_size, status.st_mtime_ns)
