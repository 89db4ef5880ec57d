"""What was measured of every version, read from `absorption.json` a stretch at a time: the newest first, then whatever changes.

Called from one worker thread. A look costs about the same however many versions there are: each file is opened once, then the newest are
looked at each time and of the others some in turn, by their names and times alone.
"""

import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated

import msgspec

from takeover.app.console.models.absorption import AbsorptionView, Run, VersionAbsorption, view_of
from takeover.policies.absorption_file import FILE, read_absorption
from takeover.policies.base import PolicyRefused
from takeover.policies.manifest import MANIFEST_NAME, policies_folder, read_manifest, version_folder, version_numbers
from takeover.policies.version_watch import VersionWatch

LOOK_S = 0.05  # of reading at a look; who chose another run waits no longer
REST = 20  # times as long as it took to make a view none is made, where it took `LONG_S`: of very many versions
LONG_S = 0.01
AGAIN = 1000  # older versions whose files are looked at again at a look: some ms
_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Totals(msgspec.Struct, frozen=True):
    """What is shown of `Absorption.totals`; only the counts are there where no correction counts."""

    segments: _Count
    in_no_batch_yet: _Count = 0
    steps: _Count = 0
    closer: _Count = 0
    farther: _Count = 0
    before: float | None = None
    after: float | None = None
    change_interval: tuple[float, float] | None = None
    retested: _Count = 0
    retests_passed: _Count = 0


class AbsorptionReader:
    """Of one workspace; `look` reads on, `view` says what is known."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._folder = str(policies_folder(workspace))
        self._known: dict[int, tuple[int, VersionAbsorption]] = {}  # with what its files looked like
        self._unread: list[int] | None = None  # ascending; the last is the next
        self._watch: VersionWatch | None = None
        self._round: Iterator[int] = iter(())
        self._changes = 0
        self._order: tuple[int, list[VersionAbsorption]] = (-1, [])
        self._rest_until = 0.0
        self._shown: tuple[tuple[int, int, Run], AbsorptionView] | None = None

    def look(self, budget_s: float = LOOK_S) -> int:
        """Read for ``budget_s`` seconds at most, at least one version; how many are left to be read for the first time."""
        if self._unread is None or self._watch is None:
            self._watch = VersionWatch(self._workspace)
            self._unread = version_numbers(self._workspace)
        end = time.monotonic() + budget_s
        if self._unread:
            self._read_on(end)
            return len(self._unread)
        self._watch.poll()
        for version in self._watch.newest_first:
            self._read(version)
        some = list(islice(self._round, AGAIN))
        for version in some:
            self._read(version)
        if len(some) < AGAIN:
            self._begin_round()
            self._read_on(end)
        return len(self._unread)

    def view(self, run: Run) -> AbsorptionView:
        """Of the versions that were read so far; the same object while nothing has changed, or nothing new is shown yet."""
        unread = len(self._unread or ())
        key = (self._changes, unread, run)
        began = time.monotonic()
        if self._shown is not None and (self._shown[0] == key or (run == self._shown[0][2] and began < self._rest_until)):
            return self._shown[1]
        if self._order[0] != self._changes:
            self._order = (self._changes, [self._known[version][1] for version in sorted(self._known)])
        made = view_of(run, self._order[1], unread)
        self._shown = (key, made)
        took = time.monotonic() - began
        self._rest_until = began + (REST * took if took >= LONG_S else 0.0)
        return made

    def _read_on(self, end: float) -> None:
        while self._unread:
            self._read(self._unread.pop())
            if time.monotonic() >= end:
                return

    def _begin_round(self) -> None:
        """All names once more: what was copied in is new, what was taken away goes."""
        numbers = version_numbers(self._workspace)
        gone = self._known.keys() - set(numbers)
        for version in gone:
            del self._known[version]
        self._changes += bool(gone)
        self._unread = [version for version in numbers if version not in self._known]
        self._round = iter([version for version in numbers if version in self._known])

    def _read(self, version: int) -> None:
        state = _state_of(f"{self._folder}/{version}")
        before = self._known.get(version)
        if state is None:
            if before is not None:
                del self._known[version]
                self._changes += 1
        elif before is None or before[0] != state:
            self._known[version] = (state, version_absorption(self._workspace, version))
            self._changes += 1


def _state_of(folder: str) -> int | None:
    """A number that is another one when a file was; None: not published."""
    try:
        manifest = os.stat(f"{folder}/{MANIFEST_NAME}")
    except OSError:
        return None
    try:
        result = os.stat(f"{folder}/{FILE}")
    except OSError:
        return hash((manifest.st_ino, manifest.st_mtime_ns))
    return hash((manifest.st_ino, manifest.st_mtime_ns, result.st_ino, result.st_mtime_ns, result.st_size))


def version_absorption(workspace: Path, version: int) -> VersionAbsorption:
    """What is known of a version's absorption; nothing is raised for files that cannot be read, ``problem`` says so."""
    try:
        manifest = read_manifest(version_folder(workspace, version))
    except PolicyRefused as error:
        return VersionAbsorption(version, problem=str(error))
    bare = VersionAbsorption(
        version,
        session=sys.intern(manifest.data_session or manifest.session_id),  # of thousands of versions they are the same few
        robot=sys.intern(manifest.robot_id),
        task=sys.intern(manifest.task_id),
        learner=sys.intern(manifest.learner),
    )
    try:
        return _measured(workspace, bare)
    except OSError as error:
        path = error.filename or version_folder(workspace, version) / FILE
        return replace(bare, problem=f"cannot read {path}: {error.strerror or error}")
    except (ValueError, PolicyRefused) as error:
        return replace(bare, problem=str(error))


def _measured(workspace: Path, bare: VersionAbsorption) -> VersionAbsorption:
    """Raises `ValueError` for a damaged file, naming it, `OSError`."""
    found = read_absorption(workspace, bare.version)
    if found is None:
        return bare
    path = version_folder(workspace, bare.version) / FILE
    again = f"measure it again with `takeover policy absorb {bare.version}`"
    try:
        totals = msgspec.convert(found.totals, _Totals)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path}: totals: {error}; {again}") from error
    if totals.closer + totals.farther > totals.segments or totals.retests_passed > totals.retested:
        raise ValueError(f"{path}: totals: more corrections closer, farther or retested than there are; {again}")
    return replace(
        bare,
        measured=True,
        closer=totals.closer,
        farther=totals.farther,
        corrections=totals.segments,
        steps=totals.steps,
        in_no_batch=totals.in_no_batch_yet,
        before=math.nan if totals.before is None else totals.before,
        after=math.nan if totals.after is None else totals.after,
        change=totals.change_interval,
        retested=totals.retested,
        retests_passed=totals.retests_passed,
    )
