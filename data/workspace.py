"""The folder that holds everything a station records: paths, lock, space. Knows nothing of what is in the files."""

import os
import re
import shutil
import tempfile
from pathlib import Path

import platformdirs

from takeover.data.filelock import FileLock, Locked

MAX_EPISODE_BYTES = 512 * 1024**2  # memory and file size an episode may take; the recorder stops one that grows beyond
RESERVE_BYTES = 1024**3
START_BYTES = 2 * MAX_EPISODE_BYTES + RESERVE_BYTES
_NAME = re.compile(r"[0-9A-Za-z_-]{1,64}")


class WorkspaceError(OSError):
    """The workspace cannot be used: not writable, locked by another station, or too little space."""


class Workspace:
    """Paths of one workspace. Making one touches nothing; `prepare` creates the folders."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser().absolute()

    @classmethod
    def default(cls) -> "Workspace":
        """The platform's user data folder."""
        return cls(Path(platformdirs.user_data_dir("takeover", appauthor=False)) / "workspace")

    @property
    def journal(self) -> Path:
        return self.path / "journal"

    @property
    def episodes(self) -> Path:
        return self.path / "episodes"

    @property
    def unreadable(self) -> Path:
        """Journals no episode could be made of. Each is tried once more whenever a recorder starts."""
        return self.journal / "unreadable"

    @property
    def sessions(self) -> Path:
        """Journals of what belongs to no running episode (marks while idle, late outcomes), kept as they are."""
        return self.path / "sessions"

    @property
    def policies(self) -> Path:
        return self.path / "policies"

    @property
    def learner(self) -> Path:
        return self.path / "learner"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def catalog_path(self) -> Path:
        return self.path / "catalog.sqlite"

    @property
    def catalog_url(self) -> str:
        return f"sqlite:///{self.catalog_path}"

    @property
    def labels_path(self) -> Path:
        return self.path / "labels.jsonl"

    @property
    def learning_path(self) -> Path:
        """What no other file knows: policies, evaluations, uses of labels. See `takeover.data.catalog_log`."""
        return self.path / "learning.jsonl"

    @property
    def index_path(self) -> Path:
        return self.path / "index.hdf5"

    @property
    def station_path(self) -> Path:
        return self.path / "station.toml"

    def prepare(self) -> "Workspace":
        """Create the folders and see that they can be written. Raises `WorkspaceError`."""
        try:
            for folder in (self.journal, self.episodes, self.sessions, self.policies, self.learner, self.logs):
                folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise WorkspaceError(f"workspace {self.path} is not writable: {error.strerror}; choose another with --workspace") from error
        return self

    def lock(self, name: str = "station") -> FileLock:
        """Take the lock ``name`` or raise `WorkspaceError` naming the process that has it."""
        try:
            return FileLock(self.path / f"{name}.lock")
        except Locked as error:
            raise WorkspaceError(
                f"workspace {self.path} is in use by another station (process {error.holder}); stop it or choose another"
            ) from None
        except OSError as error:
            raise WorkspaceError(f"workspace {self.path} is not writable: {error.strerror}; choose another with --workspace") from error

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.path).free

    def require_space(self, needed_bytes: int = START_BYTES) -> None:
        """Raise `WorkspaceError` when less than ``needed_bytes`` are free (default: two maximal episodes and 1 GiB)."""
        free = self.free_bytes()
        if free < needed_bytes:
            raise WorkspaceError(
                f"the disk of workspace {self.path} is almost full: {free / 1024**3:.1f} GiB free, {needed_bytes / 1024**3:.1f} GiB needed"
            )

    def episode_path(self, episode_id: str, date: str) -> Path:
        """``episodes/<date>/<episode>.hdf5``; refuses an id that is not a plain name."""
        return self.episodes / date / f"{plain_name(episode_id)}.hdf5"


def plain_name(name: str) -> str:
    """``name`` if it can be part of a file name, else `ValueError`: ids come from other processes."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not an id: letters, digits, - and _, at most 64")
    return name


def runtime_folder(session_id: str) -> Path:
    """A folder of mode 0700 for the ipc sockets of one run: under XDG_RUNTIME_DIR, else under the temporary folder.

    Socket paths are limited to 107 bytes, so the folder is short. Raises `WorkspaceError` if someone else owns it.
    """
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    root = Path(base) / "takeover" if base and os.access(base, os.W_OK) else Path(tempfile.gettempdir()) / f"takeover-{os.getuid()}"
    folder = root / plain_name(session_id)[-12:]
    if len(str(folder)) > 80:
        folder = Path("/tmp") / f"takeover-{os.getuid()}" / folder.name
    for part in (folder.parent, folder):
        part.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = part.lstat()
        if status.st_uid != os.getuid() or not part.is_dir() or part.is_symlink():
            raise WorkspaceError(f"{part} belongs to somebody else; remove it or set XDG_RUNTIME_DIR")
        if status.st_mode & 0o077:
            part.chmod(0o700)
    return folder


def fsync_folder(folder: Path) -> None:
    """Make renames and new names in ``folder`` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
