"""Whether an episode that comes in fits those of its task: a learner trains on all of them, so they must be alike."""

from pathlib import Path

import h5py

from takeover.data.catalog import Catalog
from takeover.data.episode_build import DEMO
from takeover.data.episode_read import open_episode, read_bounds
from takeover.data.exchange.errors import ExchangeError
from takeover.data.schema import RobotSpec
from takeover.data.spaces import differences, spaces_of
from takeover.data.workspace import Workspace

Pictures = dict[str, tuple[int, ...]]
"""The policy's cameras: {name: (height, width, 3)}."""


class TaskFit:
    """Compares with the newest episode of each task, or the first that came in. One import's."""

    def __init__(self, workspace: Workspace, catalog: Catalog) -> None:
        self._workspace, self._catalog = workspace, catalog
        self._tasks: dict[str, tuple[str, RobotSpec, Pictures]] = {}

    def check(self, where: str, episode_id: str, spec: RobotSpec, pictures: Pictures | None = None, ways: str = "") -> None:
        """Raises `ExchangeError` naming both episodes and what differs. ``pictures``: None where they may differ.

        ``ways``: what else the caller offers, put before "import into another workspace".
        """
        task = spec.task_id
        if task not in self._tasks:
            self._tasks[task] = self._newest(task) or (episode_id, spec, pictures or {})
        other, known, shown = self._tasks[task]
        for name, one, two in (
            *differences(spaces_of(known), spaces_of(spec)),
            ("pictures", shown, shown if pictures is None else pictures),
        ):
            if one != two:
                raise ExchangeError(
                    f"{where}: {name} {_short(two)}; episode {other} of task {task!r} in the workspace has {_short(one)}: "
                    f"import {ways}into another workspace"
                )

    def _newest(self, task: str) -> tuple[str, RobotSpec, Pictures] | None:
        rows = self._catalog.episodes(task_id=task, newest_first=True, limit=1)
        if not rows:
            return None
        spec, pictures = head_of(self._workspace.path / rows[0].path)
        return rows[0].id, spec, pictures


def head_of(path: Path, sealed: bool = False) -> tuple[RobotSpec, Pictures]:
    """What an episode file is of. ``sealed``: its seal was just checked. Raises `DamagedFile`, `FileNotFoundError`."""
    with open_episode(path, sealed=sealed) as file:
        demo: h5py.Group = file[DEMO]
        found = {name: tuple(demo["obs"][name].shape[1:]) for name in demo["obs"] if name != "state"}
        return read_bounds(demo)[0].spec, found


def _short(value: object) -> str:
    text = str(value or "none")
    return text if len(text) <= 60 else f"{text[:57]}..."
