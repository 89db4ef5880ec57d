"""Reading what was recorded: whole episodes for a learner that starts, and gaps in the committed stream."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from takeover.data.catalog import Catalog
from takeover.data.catalog_place import has_catalog
from takeover.data.catalog_tables import EpisodeRow
from takeover.data.coverage import Coverage
from takeover.data.episode_block import StepBlock
from takeover.data.episode_build import DEMO
from takeover.data.episode_file import open_episode, read_bounds, read_events, read_records
from takeover.data.episode_read import read_block
from takeover.data.hdf5_image import DamagedFile
from takeover.data.journal import read_journal
from takeover.data.schema import AnyRecord, CameraFrame, EpisodeEnd, EpisodeStart, Event, OutcomeChange, Step
from takeover.data.workspace import Workspace

MAX_REC_SEQ = 2**62
LearnerRecord = EpisodeStart | Step | Event | OutcomeChange | EpisodeEnd


class GapError(RuntimeError):
    """Records that were announced as committed are not in the store."""


def _workspace(workspace: Workspace | Path | str) -> Workspace:
    return workspace if isinstance(workspace, Workspace) else Workspace(workspace)


def iter_episode_records(
    workspace: Workspace | Path | str,
    task_id: str = "",
    session_id: str = "",
    images: bool = False,
    include_excluded: bool = False,
    episode_ids: list[str] | None = None,
    on_damaged: Callable[[str, DamagedFile], None] | None = None,
) -> Iterator[tuple[EpisodeStart, list[Step], EpisodeEnd]]:
    """Closed episodes in the order they were recorded, as they came over the wire; excluded ones are left out.

    The catalog says which there are (the recorder enters every file when it starts). Rewards are the recorded ones: apply
    `Catalog.outcome_overrides` on top. A file that is damaged is told to ``on_damaged`` (episode id, error) and passed over; without it
    raises `DamagedFile` naming the file.
    """
    where = _workspace(workspace)
    if not has_catalog(where):
        return
    with Catalog.open(where) as catalog:
        rows = catalog.episodes(task_id=task_id, session_id=session_id, ids=episode_ids)
    for row in rows:
        if include_excluded or not row.excluded:
            records = read_closed(where, row.id, row.path, images, on_damaged)
            if records is not None:
                yield records


def closed_episodes(workspace: Workspace | Path | str, task_id: str, page: int = 500) -> Iterator[EpisodeRow]:
    """What the catalog says of every episode of a task in the order of their starts, excluded ones too, ``page`` rows at a time."""
    where = _workspace(workspace)
    if not has_catalog(where):
        return
    with Catalog.open(where) as catalog:
        place: tuple[int, str] | None = None
        while rows := catalog.episodes(task_id=task_id, limit=page, place=place):
            yield from rows
            place = (rows[-1].started_ns, rows[-1].id)


def read_closed(
    workspace: Workspace | Path | str,
    episode_id: str,
    path: str,
    images: bool = False,
    on_damaged: Callable[[str, DamagedFile], None] | None = None,
) -> tuple[EpisodeStart, list[Step], EpisodeEnd] | None:
    """One episode at ``path``, as the catalog has it; None when it is damaged. Otherwise as of `iter_episode_records`."""
    try:
        return read_records(_workspace(workspace).path / path, images=images)
    except DamagedFile as error:
        if on_damaged is None:
            raise
        on_damaged(episode_id, error)
        return None


def read_closed_block(workspace: Workspace | Path | str, path: str) -> tuple[EpisodeStart, StepBlock, EpisodeEnd] | None:
    """One episode at ``path`` with its steps as arrays; None when it is damaged: `read_closed` says how."""
    try:
        return read_block(_workspace(workspace).path / path)
    except DamagedFile:
        return None


def open_records(workspace: Workspace | Path | str) -> list[LearnerRecord]:
    """What lies in journals: episodes that run, that wait to be closed, and late outcomes; by session and record, pictures left out.

    Read it before the closed episodes: an episode moves from the first to the second.
    """
    where = _workspace(workspace)
    found: dict[tuple[str, int], LearnerRecord] = {}
    for folder in (where.sessions, where.journal):
        for path in sorted(folder.glob("*.mcap")):
            try:
                contents = read_journal(path)
            except FileNotFoundError:
                continue  # closed just now
            found.update(((r.session, r.rec_seq), r) for r in contents.records if not isinstance(r, CameraFrame))
    return [found[key] for key in sorted(found)]


def session_records(workspace: Workspace, session: str) -> list[AnyRecord]:
    """What is in the session's own journal: marks while idle, late outcomes."""
    records: dict[int, AnyRecord] = {}
    for path in sorted(workspace.sessions.glob(f"{session}.*.mcap")):
        records.update((record.rec_seq, record) for record in read_journal(path).records)
    return [records[number] for number in sorted(records)]


def read_gap(workspace: Workspace | Path | str, session: str, first: int, last: int, timeout_s: float = 5.0) -> list[LearnerRecord]:
    """Records ``first..last`` (rec_seq, both included) of a session, in order, camera pictures left out.

    Looks in closed episodes and open journals; an episode that is just being closed is found in one or the other. Raises `GapError`
    when some are still missing after ``timeout_s``.
    """
    where = _workspace(workspace)
    deadline = time.monotonic() + timeout_s
    while True:
        found, covered = _collect(where, session, first, last)
        missing = covered.missing(first, last)
        if not missing:
            return [found[number] for number in sorted(found)]
        if time.monotonic() > deadline:
            raise GapError(
                f"session {session}: {len(missing)} of records {first}..{last} are not in {where.path} (the first is {missing[0]})"
            )
        time.sleep(0.05)


def read_since(workspace: Workspace | Path | str, session: str, first: int = 0) -> list[LearnerRecord]:
    """Everything of a session that is on disk without a gap from record ``first`` on, in order; empty when ``first`` is not there."""
    found, covered = _collect(_workspace(workspace), session, first, MAX_REC_SEQ)
    end = next((last for low, last in covered.ranges() if low == first), first - 1)
    return [found[number] for number in sorted(found) if number <= end]


def _collect(workspace: Workspace, session: str, first: int, last: int) -> tuple[dict[int, LearnerRecord], Coverage]:
    found: dict[int, LearnerRecord] = {}
    covered = Coverage()

    def take(record: AnyRecord) -> None:
        if record.session == session and first <= record.rec_seq <= last:
            covered.add(record.rec_seq)
            if not isinstance(record, CameraFrame):
                found[record.rec_seq] = record

    # journals before files: an episode moves from the first to the second, or is set aside
    for folder, pattern in ((workspace.sessions, f"{session}.*.mcap"), (workspace.journal, "*.mcap"), (workspace.unreadable, "*.mcap")):
        for path in sorted(folder.glob(pattern)):
            try:
                contents = read_journal(path)
            except FileNotFoundError:
                continue
            for record in contents.records:
                take(record)
    if (first, last) in covered.ranges() or not has_catalog(workspace):
        return found, covered
    with Catalog.open(workspace) as catalog:
        rows = catalog.episodes(session_id=session)
    for row in rows:
        ranges = [(low, high) for low, high in json.loads(row.rec_ranges) if low <= last and high >= first]
        if not ranges:
            continue
        path = workspace.path / row.path
        start, steps, end = read_records(path, images=True)
        with open_episode(path, sealed=True) as file:
            events = read_events(file[DEMO], read_bounds(file[DEMO])[0])
        stored: list[AnyRecord] = [start, *steps, *events, end]
        for record in stored:
            take(record)
        for low, high in ranges:
            covered.add_range(max(low, first), min(high, last))
    return found, covered
