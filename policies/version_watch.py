"""Follow which versions are published while they come, cheaply enough to ask between two control steps however many there are.

Publishing counts up, so the next number is looked for by its name. What comes otherwise (a gap, a folder that was copied in or taken
away) is found by a walk over the names, some of them at a look. A walk begins whenever the folder has changed since the last one, and
once more when no change of before can have the same time any longer: some file systems count whole seconds.
"""

import heapq
import itertools
import os
import time
from collections.abc import Iterator

from takeover.policies.manifest import is_published, policies_folder, version_numbers

HELD = 200  # the newest; older ones are not followed
WALKED = 1000  # names at a look
SETTLED_S = 3.0  # an mtime that was first seen this long ago is of no tick that still goes on: 2 s on FAT, 1 s on some others
_State = tuple[int, int]  # inode, mtime of the folder


class VersionWatch:
    """The newest `HELD` published versions; `poll` brings them up to date. The first one is whole when this is made."""

    def __init__(self, workspace: str | os.PathLike[str]) -> None:
        self._workspace = workspace
        self._folder = policies_folder(workspace)
        self._seen, self._seen_at = self._state(), time.monotonic()
        self._known: set[int] = set()
        self._empty: set[int] = set()  # folders without a manifest: somebody may be copying it in
        self._adopt(version_numbers(workspace))
        self._walked = False  # nothing can have changed since the last walk began
        self._walk: Iterator[os.DirEntry[str]] | None = None
        self._found: list[int] = []
        self._of: tuple[_State, bool] = (self._seen, False)  # when the walk began: the folder, and whether its mtime was settled

    @property
    def newest_first(self) -> list[int]:
        return sorted(self._known, reverse=True)

    def poll(self) -> None:
        """Some stats, and a part of a walk where one is due."""
        for version in [version for version in self._empty if is_published(self._workspace, version)]:
            self._empty.discard(version)
            self._known.add(version)
        for version in itertools.islice(itertools.count(max(self._known, default=0) + 1), WALKED):
            if not is_published(self._workspace, version):
                break
            self._known.add(version)
        self._forget_old()
        self._walk_on()

    def _walk_on(self) -> None:
        state, now = self._state(), time.monotonic()
        if state != self._seen:
            self._seen, self._seen_at, self._walked = state, now, False
        if self._walk is None:
            if self._walked:
                return
            try:
                self._walk = os.scandir(self._folder)
            except OSError:
                self._adopt([])
                return
            self._found, self._of = [], (state, now - self._seen_at >= SETTLED_S)
        names = list(itertools.islice(self._walk, WALKED))
        self._found += [int(entry.name) for entry in names if entry.name.isdecimal()]
        self._found = heapq.nlargest(HELD, self._found)
        if len(names) < WALKED:
            self._walk = None
            self._adopt(self._found, keep=max(self._found, default=0))
            self._walked = self._of == (self._seen, True)

    def _adopt(self, numbers: list[int], keep: int | None = None) -> None:
        """What a walk found, and what came with numbers above ``keep`` while it went on."""
        newest = heapq.nlargest(HELD, numbers)
        later = {version for version in self._known if keep is not None and version > keep and is_published(self._workspace, version)}
        self._known = later | {version for version in newest if version in self._known or is_published(self._workspace, version)}
        self._empty = set(newest) - self._known
        self._forget_old()

    def _forget_old(self) -> None:
        if len(self._known) > HELD:
            self._known = set(heapq.nlargest(HELD, self._known))

    def _state(self) -> _State:
        try:
            status = os.stat(self._folder)
        except OSError:
            return (0, 0)
        return (status.st_ino, status.st_mtime_ns)
