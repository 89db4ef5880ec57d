"""Follow the decisions file while it changes, cheaply enough to ask between two control steps."""

import os

from takeover.policies.decisions import DecisionError, Standing, current_standing, decisions_path


class DecisionWatch:
    """What the decisions say of one robot and task now. Reads the file only when it changed."""

    def __init__(self, workspace: str | os.PathLike[str], robot_id: str, task_id: str) -> None:
        self.workspace = workspace
        self.standing = Standing()
        self.error = ""  # why the file cannot be followed; ``standing`` is the last one that could be read
        self._about = (robot_id, task_id)
        self._seen: tuple[int, int, int] | None = (0, 0, 0)

    def poll(self) -> bool:
        """True when ``standing`` or ``error`` changed."""
        path = decisions_path(self.workspace)
        try:
            status = os.stat(path)
            seen = (status.st_ino, status.st_size, status.st_mtime_ns)
        except OSError:
            seen = (0, 0, 0)
        if seen == self._seen:
            return False
        before = (self.standing, self.error)
        try:
            self.standing, self.error = current_standing(self.workspace, *self._about), ""
        except DecisionError as error:
            self.error = str(error)
        self._seen = seen
        return (self.standing, self.error) != before
