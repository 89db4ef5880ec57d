"""What a recorder does first: take over what an earlier one left, and see that catalog and files agree."""

import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy.exc import DataError

from takeover.data.catalog import Catalog
from takeover.data.catalog_log import agree
from takeover.data.catalog_place import CatalogError, server_of, shown
from takeover.data.coverage import Coverage
from takeover.data.entry import entry_of_file
from takeover.data.hdf5_image import DamagedFile
from takeover.data.labels import Labels
from takeover.data.open_episode import OpenEpisode
from takeover.data.people import note_operators
from takeover.data.schema import EpisodeStart
from takeover.data.store import session_records
from takeover.data.workspace import Workspace

_IS_PART = re.compile(r"[0-9A-Za-z_-]{1,64}\.[0-9]+\.mcap")
log = logging.getLogger("recorder")


def left_over_journals(workspace: Workspace) -> list[OpenEpisode]:
    """Episodes whose journals were not turned into files, in the order of their starts. Journals without a record are removed."""
    found = _read(workspace, workspace.journal.glob("*.mcap"))
    for episode in found:
        if not episode.records:
            episode.remove_journal()  # it was never synced: nothing in it was acknowledged
    return _by_start(found)


def set_aside_journals(workspace: Workspace) -> list[OpenEpisode]:
    """Episodes no earlier recorder could make of their journals, in the order of their starts. What is no journal is left where it is."""
    return _by_start(_read(workspace, (path for path in workspace.unreadable.glob("*.mcap") if _IS_PART.fullmatch(path.name))))


def _read(workspace: Workspace, paths: Iterable[Path]) -> list[OpenEpisode]:
    found: dict[str, OpenEpisode] = {}
    for path in sorted(paths, key=_part):
        episode_id = path.name.rsplit(".", 2)[0]
        found.setdefault(episode_id, OpenEpisode(workspace, episode_id)).read_part(path)
    for episode in found.values():
        for problem in episode.problems:
            log.warning("journal %s", problem)
    return list(found.values())


def _by_start(episodes: list[OpenEpisode]) -> list[OpenEpisode]:
    return sorted((episode for episode in episodes if episode.records), key=lambda episode: episode.records[0].rec_seq)


def _part(path: Path) -> tuple[str, int]:
    name, part, _ = path.name.rsplit(".", 2)
    return name, int(part)


def session_of(episode: OpenEpisode) -> str:
    return episode.records[0].session


def started_ns(episode: OpenEpisode) -> int:
    """Wall time of the start; 0 when the start is missing."""
    return next((record.wall_ns for record in episode.records if isinstance(record, EpisodeStart)), 0)


def coverage_of(workspace: Workspace, catalog: Catalog, session: str, journals: list[OpenEpisode]) -> Coverage:
    """Which records of a session's stream are durable."""
    covered = Coverage()
    for row in catalog.episodes(session_id=session):
        for first, last in json.loads(row.rec_ranges):
            covered.add_range(first, last)
    for record in session_records(workspace, session):
        covered.add(record.rec_seq)
    for episode in journals:
        for record in episode.records:
            if record.session == session:
                covered.add(record.rec_seq)
    return covered


def reconcile(workspace: Workspace, catalog: Catalog) -> list[str]:
    """Make the catalog agree with the files; returns what could not be repaired (damaged files: named, not entered)."""
    for stray in workspace.episodes.glob("*/*.tmp"):
        stray.unlink()
    on_disk = {path.relative_to(workspace.path).as_posix() for path in workspace.episodes.glob("*/*.hdf5")}
    rows = catalog.paths()
    problems = []
    for relative in sorted(on_disk - rows.keys()):
        try:
            entry = entry_of_file(workspace, workspace.path / relative)
            catalog.add_episode(entry.session, entry.episode, entry.segments)
        except DamagedFile as error:
            problems.append(str(error))
            continue
        except (OverflowError, DataError) as error:  # a number or text that the catalog has no room for must not keep the others out
            problems.append(f"{relative} cannot be entered: {error}"[:300])
            continue
        note_operators(catalog, entry)
        log.info("entered %s", relative)
    gone = [rows[relative] for relative in rows.keys() - on_disk]
    if gone:
        catalog.remove_episodes(gone)
        problems.append(f"{len(gone)} episode files are gone from {workspace.episodes}: {', '.join(sorted(gone)[:5])}")
    Labels(workspace, catalog).replay_log()
    problems += agree(catalog).broken
    for problem in problems:
        log.error("%s", problem)
    return problems


def rebuild_catalog(workspace: Workspace) -> list[str]:
    """A new catalog from the files and the logs of labels and learning, the old one kept beside it. Returns what could not be entered.

    Raises `CatalogError` for one on a server.
    """
    if server := server_of(workspace):
        raise CatalogError(f"{shown(server)} is a server's: name an empty database, and the recorder or `takeover data repair` fills it")
    for suffix in ("", "-wal", "-shm"):
        old = workspace.catalog_path.with_name(workspace.catalog_path.name + suffix)
        if old.exists():
            old.replace(old.with_name(old.name.replace("catalog.sqlite", "catalog.old.sqlite")))
    with Catalog.open(workspace) as catalog:
        return reconcile(workspace, catalog)
