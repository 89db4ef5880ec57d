"""Our own episodes in, from another workspace or as single files: byte for byte, with the labels that are about them."""

import os
import shutil
from pathlib import Path

from takeover.data.catalog import Catalog
from takeover.data.catalog_tables import LabelEvent
from takeover.data.entry import entry_of_file
from takeover.data.episode_build import DEMO
from takeover.data.episode_file import episode_path, verify_file
from takeover.data.episode_read import open_episode, read_bounds
from takeover.data.exchange.adopt import Imported, refresh_index
from takeover.data.exchange.errors import ExchangeError, Progress, silent
from takeover.data.exchange.fits import TaskFit, head_of
from takeover.data.exchange.target import write_with
from takeover.data.hdf5_image import DamagedFile, check_seal
from takeover.data.label_exchange import adopt
from takeover.data.labels import Labels, read_log
from takeover.data.schema import EpisodeStart
from takeover.data.workspace import MAX_EPISODE_BYTES, Workspace, fsync_folder


def import_own(workspace: Workspace, source: Path | str, progress: Progress = silent) -> Imported:
    """Copy the episodes of another workspace, of a folder of episode files, or one file. Those that are here are skipped.

    Each file's seal is checked before and after. Raises `ExchangeError` (no episodes, another episode of the same id, a name that is
    not the file's episode, one that does not fit the others of its task here), `DamagedFile`; those before it stay.
    """
    root = Path(source).expanduser().absolute()
    paths = _episode_files(root)
    events = _events_of(root)
    workspace.prepare()
    workspace.require_space(2 * MAX_EPISODE_BYTES)
    result = Imported()
    with Catalog.open(workspace) as catalog:
        labels, fit = Labels(workspace, catalog), TaskFit(workspace, catalog)
        progress(0, len(paths))
        for number, path in enumerate(paths, start=1):
            start = _start(path)
            new = _copy(workspace, catalog, path, start, result, fit)
            adopt(labels, root / "labels.jsonl", events.get(start.episode_id, []))
            result.made += new
            result.present += not new
            progress(number, len(paths))
        refresh_index(workspace, catalog)
    return result


def _episode_files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    paths = sorted((root / "episodes").glob("*/*.hdf5")) or sorted(root.glob("*.hdf5"))
    if not paths:
        raise ExchangeError(f"{root}: no episode file, neither in episodes/<date>/ nor in the folder itself")
    return paths


def _events_of(root: Path) -> dict[str, list[LabelEvent]]:
    found: dict[str, list[LabelEvent]] = {}
    for event in read_log(root / "labels.jsonl") if root.is_dir() else []:
        found.setdefault(event.episode_id, []).append(event)
    return found


def _start(path: Path) -> EpisodeStart:
    problems = verify_file(path)
    if problems:
        raise DamagedFile(f"{problems[0]}; `takeover data verify` says more")
    with open_episode(path) as file:
        start, _ = read_bounds(file[DEMO])
    return start


def _copy(workspace: Workspace, catalog: Catalog, path: Path, start: EpisodeStart, result: Imported, fit: TaskFit) -> bool:
    """Whether the episode is new here."""
    try:
        target = episode_path(workspace, start)
    except ValueError as error:
        raise ExchangeError(f"{path}: {error}") from None
    sha256 = check_seal(path)
    known = catalog.episodes(ids=[start.episode_id])
    if known and known[0].sha256 != sha256:
        raise ExchangeError(f"{path}: the workspace has another episode {start.episode_id} already; one of the two must go")
    if known and target.exists():
        return False
    fit.check(f"{path}, episode {start.episode_id}", start.episode_id, *head_of(path, sealed=True))
    if not target.exists():
        write_with(target, lambda temporary: shutil.copyfile(path, temporary))
        fsync_folder(target.parent)
        fsync_folder(target.parent.parent)
    elif check_seal(target) != sha256:
        raise ExchangeError(f"{path}: {target} is another episode of that id; one of the two must go")
    entry = entry_of_file(workspace, target)
    os.chmod(target, 0o644)
    catalog.add_episode(entry.session, entry.episode, entry.segments)
    result.steps += int(entry.episode["steps"])
    return True


def known_format(path: Path) -> str:
    """What a path looks like: "lerobot", "takeover" or "robomimic". Raises `ExchangeError`."""
    if (path / "meta/info.json").exists():
        return "lerobot"
    if path.is_dir() and ((path / "episodes").is_dir() or any(path.glob("*.hdf5"))):
        return "takeover"
    if path.is_file():
        with path.open("rb") as stream:
            return "takeover" if stream.read(16) == b"takeover-episode" else "robomimic"
    if not path.exists():
        raise ExchangeError(f"{path} does not exist")
    raise ExchangeError(f"{path}: neither a LeRobotDataset v3 (meta/info.json) nor a workspace (episodes/) nor a folder of episode files")
