"""A target that is either whole under its final name or not there at all, and that an interrupted export can go on with.

Everything is written into ``<target>.partial``, beside the target. Its ``plan.json`` says what is being exported; every finished piece
is synced and noted as a line of ``done.jsonl``. `PartialTarget.finish` removes both, syncs, and renames the folder, or its one
file, to the final name.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from takeover.data.exchange.errors import ExchangeError
from takeover.data.filelock import FileLock, Locked
from takeover.data.workspace import fsync_folder

PLAN = "plan.json"
DONE = "done.jsonl"
LOCK = "export.lock"
_OURS = (PLAN, DONE, LOCK)


class PartialTarget:
    """One export under way. A context manager: leaving it early keeps the partial folder, for the next try.

    ``plan`` is JSON that says what is exported and how. A partial folder of another plan is refused. ``done`` holds what was noted
    by `note`, oldest first. Raises `ExchangeError` when the target exists, or another process writes it.
    """

    def __init__(self, target: Path | str, plan: dict[str, Any]) -> None:
        self.target = Path(target).expanduser().absolute()
        self.folder = self.target.with_name(self.target.name + ".partial")
        if self.target.exists() or self.target.is_symlink():
            raise ExchangeError(f"{self.target} exists; choose another name or move it away")
        self._plan = json.dumps(plan, sort_keys=True)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.folder / LOCK)
        except Locked as error:
            raise ExchangeError(f"{self.target} is being written by process {error.holder}") from None
        except OSError as error:
            raise ExchangeError(f"cannot write {self.target}: {error.strerror}; choose another place") from error
        self.done: list[dict[str, Any]] = []
        try:
            self._begin_or_go_on()
        except BaseException:
            self._lock.release()
            raise

    def _begin_or_go_on(self) -> None:
        digest = hashlib.sha256(self._plan.encode()).hexdigest()
        path = self.folder / PLAN
        if not path.exists():
            strangers = sorted(entry.name for entry in self.folder.iterdir() if entry.name not in _OURS and entry.name != f"{PLAN}.tmp")
            if strangers:
                raise ExchangeError(f"{self.folder} holds {strangers[0]!r}, which is of no export; move the folder away")
            write_file(path, json.dumps({"sha256": digest, "plan": json.loads(self._plan)}).encode())
            return
        try:
            noted = json.loads(path.read_bytes())["sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise ExchangeError(f"{path} cannot be read ({error}); remove {self.folder} and export again") from error
        if noted != digest:
            raise ExchangeError(
                f"{self.folder} is an unfinished export of other episodes, labels or options; finish that one or remove the folder"
            )
        self.done = _read_lines(self.folder / DONE)

    def note(self, piece: dict[str, Any]) -> None:
        """Note a piece whose files are synced: it is not made again. Durable when this returns."""
        fd = os.open(self.folder / DONE, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            data = json.dumps(piece).encode() + b"\n"
            while data:
                data = data[os.write(fd, data) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        self.done.append(piece)

    def finish(self, single_file: str = "") -> Path:
        """Sync everything and rename: the folder, or only ``single_file`` of it. Returns the target."""
        for path in sorted(self.folder.rglob("*")):
            if path.is_dir():
                fsync_folder(path)
        fsync_folder(self.folder)
        if self.target.exists():
            raise ExchangeError(f"{self.target} has come into being meanwhile; the export is whole in {self.folder}")
        if single_file:
            (self.folder / single_file).rename(self.target)
            shutil.rmtree(self.folder)
        else:
            self.folder.rename(self.target)  # our own notes are removed after that: killed in between, the target is whole all the same
            for name in _OURS:
                (self.target / name).unlink(missing_ok=True)
            fsync_folder(self.target)
        self._lock.release()
        fsync_folder(self.target.parent)
        return self.target

    def __enter__(self) -> "PartialTarget":
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines; what a killed process left of a line is cut off, so that the next line is not appended to it."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) != len(data):
        os.truncate(path, len(whole))
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise ExchangeError(f"{path} is damaged ({error}); remove {path.parent} and export again") from error


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole: temporary name, fsync, rename."""
    write_with(path, lambda temporary: temporary.write_bytes(data))


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a temporary file, then sync it and give it its name. On an error nothing is left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        write(temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
