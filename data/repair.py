"""`takeover data repair`: recovers what can be recovered and deletes nothing. What it takes out of the way lies in ``set-aside/``."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from sqlalchemy import create_engine, insert, select
from sqlalchemy.exc import SQLAlchemyError

from takeover.data.catalog import Catalog, CatalogError, damage_of
from takeover.data.catalog_compare import differences, recorded_row
from takeover.data.catalog_place import has_catalog, server_of
from takeover.data.catalog_tables import evaluations, people, policies
from takeover.data.entry import Entry, entry_of_file
from takeover.data.episode_migrate import NewerFile
from takeover.data.hdf5_image import DamagedFile, check_seal, write_durably
from takeover.data.index import indexed_episodes, rebuild_index
from takeover.data.label_repair import repair_label_log, repair_learning_log
from takeover.data.labels import Labels
from takeover.data.people import note_operators
from takeover.data.workspace import Workspace, fsync_folder

Progress = Callable[[int, int], None]


class RepairReport(msgspec.Struct, kw_only=True):
    """``done``: what was repaired; ``left``: what could not be, and why. A line each, naming file or episode."""

    done: list[str] = msgspec.field(default_factory=list)
    left: list[str] = msgspec.field(default_factory=list)


class Repair:
    """One repair of one workspace: where things are set aside, and what to tell."""

    def __init__(self, workspace: Workspace, progress: Progress | None = None, cancelled: threading.Event | None = None) -> None:
        self.workspace = workspace
        self.report = RepairReport()
        self.folder = workspace.path / "set-aside" / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        self._progress = progress
        self._cancelled = cancelled

    def step(self, done: int, total: int) -> bool:
        """Show how far it is; False when it shall stop."""
        if self._progress is not None:
            self._progress(done, total)
        return self._cancelled is None or not self._cancelled.is_set()

    def set_aside(self, path: Path) -> Path:
        """Move a file out of the way, below ``set-aside/<time>`` under its own relative path. Returns where it is now."""
        target = self.folder / path.relative_to(self.workspace.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        fsync_folder(target.parent)
        return target

    def keep(self, path: Path) -> Path:
        """Keep what a file holds now, as `set_aside` would; the file stays. Returns where the copy is."""
        target = self.folder / path.relative_to(self.workspace.path)
        write_durably(target, path.read_bytes())
        return target

    def name(self, path: Path) -> str:
        """As told to the user: relative to the workspace."""
        return path.relative_to(self.workspace.path).as_posix()


def repair(workspace: Workspace, progress: Progress | None = None, cancelled: threading.Event | None = None) -> RepairReport:
    """Bring a workspace in order: half-written files, left-over and unreadable journals, labels, catalog rows, the index.

    Nothing is deleted. Needs the workspace for itself: raises `WorkspaceError` while a station or recorder uses it. It can be stopped
    and called again at any time. ``progress`` is called with (files done, total).
    """
    from takeover.data.journal_repair import repair_journals

    work = Repair(workspace.prepare(), progress, cancelled)
    with workspace.lock("station"), workspace.lock("recorder"):
        _half_written(work)
        repair_label_log(work)
        catalog = _catalog(work)
        with catalog:
            repair_journals(work, catalog, with_start=True)
            _rows(work, catalog)
            repair_journals(work, catalog, with_start=False)  # these look at the episodes beside them
            _labels(work, catalog)
            repair_learning_log(work, catalog)
            _index(work, catalog)
    return work.report


def _half_written(work: Repair) -> None:
    """A temporary file that is whole is put under its name; any other is set aside (its journal is still there)."""
    strays = [*work.workspace.episodes.glob("*/*.hdf5.tmp"), *work.workspace.episodes.glob("*/*.resealed*")]
    for path in sorted(strays):
        target = path.with_name(path.name.removesuffix(".tmp"))
        try:
            check_seal(path)
            whole = target.suffix == ".hdf5" and not target.exists()
        except (DamagedFile, OSError):
            whole = False
        if whole:
            path.rename(target)
            fsync_folder(target.parent)
            work.report.done.append(f"{work.name(target)}: was written whole but not named; named it")
        else:
            name = work.name(path)
            work.report.done.append(f"{name}: half-written or superfluous; moved to {work.name(work.set_aside(path))}")


def _catalog(work: Repair) -> Catalog:
    existed = has_catalog(work.workspace)
    path = work.workspace.catalog_path
    if server_of(work.workspace):
        return Catalog.open(work.workspace)  # nothing can be set aside there: the error says what to do
    try:
        catalog = Catalog.open(work.workspace)
        if damage := damage_of(catalog.engine):
            catalog.close()
            raise CatalogError(f"damaged ({damage})")
    except CatalogError as error:
        parts = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]
        old, *_ = [work.set_aside(part) for part in parts if part.exists()]  # with what was not yet moved into it
        catalog = Catalog.open(work.workspace)
        carried = _carry_over(old, catalog)
        work.report.done.append(f"catalog.sqlite: {error}; making a new one of files and labels{carried}; the old one is {work.name(old)}")
        return catalog
    if not existed:
        work.report.done.append("catalog.sqlite: was missing; made a new one")
    return catalog


def _carry_over(old: Path, catalog: Catalog) -> str:
    """Rows that are in no file, where there is no log of them: policies, evaluations, people. What became of them, for the report."""
    if catalog.log_path is not None and catalog.log_path.exists():
        return ""
    engine = create_engine(f"sqlite:///{old}")
    carried = []
    try:
        with engine.connect() as source, catalog.writing() as target:
            for table in (policies, evaluations, people):
                rows = [dict(row._mapping) for row in source.execute(select(table))]
                if rows:
                    target.execute(insert(table), rows)
                carried.append(f"{len(rows)} {table.name}")
    except SQLAlchemyError:
        return ", without its policies, evaluations and people, which cannot be read"
    finally:
        engine.dispose()
    return f", with {', '.join(carried)} of the old one"


def _rows(work: Repair, catalog: Catalog) -> None:
    """Every whole file has its row and every row its file."""
    workspace = work.workspace
    paths = sorted(workspace.episodes.glob("*/*.hdf5"))
    rows = {row.id: row for row in catalog.episodes()}
    by_path = {row.path: row.id for row in rows.values()}
    seen: dict[str, str] = {}
    damaged: set[str] = set()
    for index, path in enumerate(paths):
        if not work.step(index, len(paths)):
            work.report.left.append("stopped before every file was compared with the catalog; call repair again")
            return
        name = work.name(path)
        try:
            entry = entry_of_file(workspace, path)
        except (DamagedFile, OSError, ValueError) as error:
            damaged.add(by_path.get(name, path.stem))
            kept = "it is left where it is" if isinstance(error, NewerFile) else "it is left where it is, its row in the catalog too"
            work.report.left.append(f"{error}; {kept}")
            continue
        episode_id = entry.episode["id"]
        if episode_id in seen:
            work.report.left.append(f"{name}: is episode {episode_id} like {seen[episode_id]}; move one of them out of episodes/")
            continue
        seen[episode_id] = name
        _enter(work, catalog, entry)
    work.step(len(paths), len(paths))
    gone = sorted(row_id for row_id in rows if row_id not in seen and row_id not in damaged)
    if gone:
        catalog.remove_episodes(gone)
        work.report.done += [
            f"{rows[row_id].path}: the file is gone; took episode {row_id} out of the catalog, its labels stay" for row_id in gone
        ]
        work.report.left += [f"{rows[row_id].path}: the file is gone; put it back from a copy and call repair again" for row_id in gone]


def _enter(work: Repair, catalog: Catalog, entry: Entry) -> None:
    name, row = entry.episode["path"], recorded_row(catalog, entry.episode["id"])
    wrong = [found.column for found in differences(entry, row)] if row is not None else []
    if row is not None and not wrong:
        return
    catalog.add_episode(entry.session, entry.episode, entry.segments)
    note_operators(catalog, entry)
    what = f"the catalog was wrong about {', '.join(wrong)}; entered it again" if wrong else "was not in the catalog; entered it"
    work.report.done.append(f"{name}: {what}")


def _labels(work: Repair, catalog: Catalog) -> None:
    entered = Labels(work.workspace, catalog).replay_log()
    if entered:
        work.report.done.append(f"labels.jsonl: {entered} events were not in the catalog; entered them")


def _index(work: Repair, catalog: Catalog) -> None:
    path = work.workspace.index_path
    rows = [row for row in catalog.episodes() if row.steps > 0]
    why = "was missing"
    if path.exists():
        try:
            linked = indexed_episodes(path)
            if linked == [row.id for row in rows] and not work.report.done:
                return
            why = "was not of these episodes"
        except (OSError, DamagedFile):
            why = "could not be read"
    elif not rows:
        return
    try:
        count = rebuild_index(work.workspace, catalog)
    except (DamagedFile, OSError, KeyError) as error:
        work.report.left.append(f"index.hdf5: {why} and cannot be made: {error}")
        return
    work.report.done.append(f"index.hdf5: {why}; made it of {count} episodes")
