"""`takeover data verify`: every episode file against its seal, its own counts and clocks, and the catalog. Long, so it can be resumed."""

import contextlib
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from takeover.data.catalog import Catalog
from takeover.data.catalog_compare import differences, recorded_row
from takeover.data.catalog_tables import EpisodeRow
from takeover.data.damaged import inspect, is_sealed
from takeover.data.entry import entry_of_file
from takeover.data.episode_file import verify_file
from takeover.data.hdf5_image import USER_BLOCK_BYTES, DamagedFile, sealed_digest
from takeover.data.selection import EpisodeFilter, select_episodes
from takeover.data.verify_rest import Problem, problems_around
from takeover.data.workspace import Workspace

STATE_MAX_AGE_S = 7 * 24 * 3600.0
"""An unfinished pass older than this is begun anew."""
Progress = Callable[[int, int], None]


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """Result of `verify_workspace`. ``remembered``: of ``checked``, those an interrupted pass had found whole before."""

    checked: int
    remembered: int
    total: int
    bytes: int
    seconds: float
    problems: list[Problem]

    @property
    def whole(self) -> bool:
        """Everything that was asked for was checked, and nothing is wrong."""
        return not self.problems and self.checked == self.total


class _Noted(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the state file: a file that was found whole, and what it was then."""

    path: str
    sha256: str
    mtime_ns: int
    size: int
    wall_ns: int


class _State:
    """Files found whole in a pass that was interrupted. A file that has changed since is checked again."""

    def __init__(self, path: Path, restart: bool) -> None:
        self.path = path
        self._noted: dict[str, _Noted] = {}
        if restart:
            path.unlink(missing_ok=True)
        self._read()
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError:
            pass  # a read-only copy can be verified too, only not resumed

    def _read(self) -> None:
        oldest = time.time_ns() - int(STATE_MAX_AGE_S * 1e9)
        decoder = msgspec.json.Decoder(_Noted)
        for line in self.path.read_bytes().split(b"\n") if self.path.exists() else []:
            try:
                noted = decoder.decode(line)
            except (msgspec.DecodeError, msgspec.ValidationError):
                continue  # cut off: that file is checked again
            if noted.wall_ns >= oldest:
                self._noted[noted.path] = noted

    def knows(self, path: str, sha256: str, status: os.stat_result) -> bool:
        noted = self._noted.get(path)
        return noted is not None and (noted.sha256, noted.mtime_ns, noted.size) == (sha256, status.st_mtime_ns, status.st_size)

    def note(self, path: str, sha256: str, status: os.stat_result) -> None:
        if self._fd >= 0:
            noted = _Noted(path=path, sha256=sha256, mtime_ns=status.st_mtime_ns, size=status.st_size, wall_ns=time.time_ns())
            try:
                os.write(self._fd, msgspec.json.encode(noted) + b"\n")
            except OSError:  # a full disk: what is checked from here on is checked again if this is interrupted
                os.close(self._fd)
                self._fd = -1

    def close(self, finished: bool) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        if finished:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)


def state_path(workspace: Workspace, filters: EpisodeFilter) -> Path:
    """Where a pass over these episodes notes how far it is: another selection is another pass."""
    return workspace.logs / f"verify-{zlib.crc32(repr(filters).encode()):08x}.jsonl"


def verify_workspace(
    workspace: Workspace,
    catalog: Catalog,
    filters: EpisodeFilter | None = None,
    progress: Progress | None = None,
    cancelled: threading.Event | None = None,
    restart: bool = False,
) -> VerifyReport:
    """Check the episodes that pass ``filters`` (all when left out); with all of them also that catalog and files are the same set.

    Each problem names its episode, and the step where there is one. Reads only. When it is interrupted or ``cancelled``, the next
    call goes on: files found whole are noted by hash, size and time of change in ``logs/verify-*.jsonl`` until a pass is complete.
    ``restart`` forgets that. ``progress`` is called with (episodes done, total).
    """
    began = time.monotonic()
    filters = filters or EpisodeFilter()
    rows = select_episodes(catalog, filters, limit=None, oldest_first=True)
    problems = list(problems_around(workspace, catalog, rows)) if filters.empty else []
    state = _State(state_path(workspace, filters), restart)
    checked = remembered = size = 0
    finished = False
    try:
        for row in rows:
            if progress is not None:
                progress(checked, len(rows))
            if cancelled is not None and cancelled.is_set():
                break
            found, known, read = _verify_row(workspace, catalog, row, state)
            problems += [Problem(episode=row.id, path=row.path, text=text) for text in found]
            checked, remembered, size = checked + 1, remembered + known, size + read
        if progress is not None:
            progress(checked, len(rows))
        finished = checked == len(rows)
    finally:
        state.close(finished)
    seconds = time.monotonic() - began
    return VerifyReport(checked=checked, remembered=remembered, total=len(rows), bytes=size, seconds=seconds, problems=problems)


def _verify_row(workspace: Workspace, catalog: Catalog, row: EpisodeRow, state: _State) -> tuple[list[str], bool, int]:
    """(what is wrong, whether it was known to be whole, bytes read)."""
    path = workspace.path / row.path
    try:
        status = path.stat()
    except OSError as error:
        return [f"{path}: the catalog has this episode, its file cannot be read: {error.strerror}"], False, 0
    if state.knows(row.path, row.sha256, status):
        return [], True, 0
    found = verify_file(path)
    if found and not is_sealed(path):
        found += inspect(path)
    if not found:
        found = list(_catalog_differences(workspace, catalog, row, path))
    if not found:
        state.note(row.path, row.sha256, status)
    return found, False, status.st_size


def _catalog_differences(workspace: Workspace, catalog: Catalog, row: EpisodeRow, path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as stream:
            digest = sealed_digest(stream.read(USER_BLOCK_BYTES))  # `verify_file` has just found it right
        entry = entry_of_file(workspace, path, digest)
    except (DamagedFile, OSError, ValueError) as error:
        yield str(error)
        return
    noted = recorded_row(catalog, row.id)
    for column, here, stored in differences(entry, noted) if noted is not None else []:
        yield f"{path}: the catalog says {column} {here!r}, the file {stored!r}; `takeover data repair` enters it again"
