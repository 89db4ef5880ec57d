"""`takeover data forget PERSON`: takes an identity out of files, catalog and labels and keeps every step."""

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from takeover.data import audit
from takeover.data.catalog import Catalog
from takeover.data.catalog_tables import LabelEvent
from takeover.data.decision_people import decision_authors, forget_in_decisions
from takeover.data.entry import entry_of_file
from takeover.data.episode_restore import read_episode, reseal
from takeover.data.episode_schema import EpisodeRecords
from takeover.data.hdf5_image import USER_BLOCK_BYTES, DamagedFile, sealed_digest, write_durably
from takeover.data.journal import JournalWriter, read_journal
from takeover.data.label_log import lines_of, open_log
from takeover.data.labels import LabelError, Labels, read_log
from takeover.data.people import (
    FORGOTTEN,
    FREE_TEXT,
    NOBODY,
    PeopleError,
    files_that_mention,
    forget_in_catalog,
    holds,
    list_people,
    replaced,
)
from takeover.data.people import next_forgotten as next_name
from takeover.data.schema import AnyRecord, Event, OutcomeChange
from takeover.data.workspace import Workspace, fsync_folder

PENDING_FILE = "forget.json"
"""Who is being forgotten under which name; there only while that is not finished."""
Progress = Callable[[int, int], None]


class ForgetReport(msgspec.Struct, kw_only=True):
    """What was done, and what is ``left`` to do. ``remains``: files of the workspace that still have the pseudonym, to be looked at."""

    name: str
    episodes: int = 0
    journals: int = 0
    label_events: int = 0
    decisions: int = 0
    finished: bool = False
    left: list[str] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)
    remains: list[str] = msgspec.field(default_factory=list)


def forget(
    workspace: Workspace, person: str, by: str, progress: Progress | None = None, cancelled: threading.Event | None = None
) -> ForgetReport:
    """Replace a pseudonym by ``forgotten-<n>`` wherever this workspace keeps it, and note in the audit log that ``by`` did so.

    Closed episode files are immutable, so each one that has it is made anew without it, compared step by step, and put in the old
    one's place whole. Stopped at any time, the next call goes on under the same name. Raises `PeopleError`; `WorkspaceError` while a
    station or recorder uses the workspace.
    """
    workspace.prepare()
    with workspace.lock("station"), workspace.lock("recorder"), Catalog.open(workspace) as catalog:
        _refuse(workspace, catalog, person)
        report = ForgetReport(name=_name(workspace, catalog, person))
        if not _files(workspace, catalog, person, report, progress, cancelled):
            report.left.append("stopped before every file was looked at; the same command goes on")
            return report
        _session_journals(workspace, person, report)
        _label_log(workspace, catalog, person, report)
        forget_in_catalog(catalog, person, report.name)
        report.decisions, unread = forget_in_decisions(workspace, person, report.name)
        report.left += unread
        Labels(workspace, catalog).replay_log()  # log and catalog agree again, in length too
    report.finished = not report.left
    counts = {"name": report.name, "episodes": report.episodes, "label_events": report.label_events, "decisions": report.decisions}
    audit.append(workspace.path, by, "person_forgotten" if report.finished else "person_partly_forgotten", **counts)
    if report.finished:
        (workspace.path / PENDING_FILE).unlink(missing_ok=True)
    skip = {workspace.path / PENDING_FILE, workspace.episodes, workspace.sessions, workspace.labels_path, workspace.catalog_path}
    report.remains = [path.relative_to(workspace.path).as_posix() for path in files_that_mention(workspace.path, person, skip)]
    return report


def _refuse(workspace: Workspace, catalog: Catalog, person: str) -> None:
    pending = _pending(workspace)
    if pending and pending["person"] != person:
        raise PeopleError(f"forgetting somebody else was interrupted; finish that first (see {workspace.path / PENDING_FILE})")
    if person in NOBODY or person.startswith(FORGOTTEN):
        raise PeopleError(f"{person!r} is no person")
    if not pending and person not in {item.id for item in list_people(catalog, decision_authors(workspace))}:
        raise PeopleError(f"nobody is called {person!r} in {workspace.path}; `takeover data people` lists who is")
    left = [path.name for path in sorted(workspace.journal.rglob("*.mcap"))]
    if left:
        raise PeopleError(f"journals are left over ({', '.join(left[:3])}); call `takeover data repair` first")
    try:
        read_log(workspace.labels_path)
    except LabelError as error:
        raise PeopleError(str(error)) from error


def _pending(workspace: Workspace) -> dict[str, str]:
    try:
        found = json.loads((workspace.path / PENDING_FILE).read_bytes())
        return {"person": str(found["person"]), "name": str(found["name"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _name(workspace: Workspace, catalog: Catalog, person: str) -> str:
    pending = _pending(workspace)
    if pending:
        return pending["name"]
    name = next_name(catalog, decision_authors(workspace))
    write_durably(workspace.path / PENDING_FILE, json.dumps({"person": person, "name": name}).encode())
    return name


def _files(
    workspace: Workspace, catalog: Catalog, person: str, report: ForgetReport, progress: Progress | None, cancelled: threading.Event | None
) -> bool:
    """Make every episode file anew that has the pseudonym; False when cancelled."""
    paths = sorted(workspace.episodes.glob("*/*.hdf5"))
    anywhere = re.compile(re.escape(person.encode()))  # whether it is the pseudonym, the records say
    noted = {row.path: row.sha256 for row in catalog.episodes()}
    for index, path in enumerate(paths):
        if progress is not None:
            progress(index, len(paths))
        if cancelled is not None and cancelled.is_set():
            return False
        try:
            report.episodes += holds(path, anywhere) and _rewrite(path, person, report.name)
            with path.open("rb") as stream:
                digest = sealed_digest(stream.read(USER_BLOCK_BYTES))
            if noted.get(path.relative_to(workspace.path).as_posix()) != digest:  # made anew now, or in a call that was cut off
                entry = entry_of_file(workspace, path)
                catalog.add_episode(entry.session, entry.episode, entry.segments)
        except (DamagedFile, OSError) as error:
            report.left.append(f"{error}; it still has the pseudonym: repair or remove it, then call this again")
    if progress is not None:
        progress(len(paths), len(paths))
    return True


def _rewrite(path: Path, person: str, name: str) -> bool:
    episode = read_episode(path)
    before = msgspec.msgpack.encode(episode)
    _replace_in(episode, person, name)
    if msgspec.msgpack.encode(episode) == before:
        return False  # these bytes were no pseudonym
    episode.history.append({"what": "person forgotten", "name": name})
    reseal(path, episode)
    return True


def _replace_in(episode: EpisodeRecords, person: str, name: str) -> None:
    if episode.start.operator == person:
        episode.start = msgspec.structs.replace(episode.start, operator=name)
    episode.events = [_event(event, person, name) for event in episode.events]
    episode.history = json.loads(replaced(json.dumps(episode.history, ensure_ascii=False), person, name))


def _event(event: Event, person: str, name: str) -> Event:
    return msgspec.structs.replace(event, source=replaced(event.source, person, name), text=replaced(event.text, person, name))


def _session_journals(workspace: Workspace, person: str, report: ForgetReport) -> None:
    """Late outcomes name their author, marks may name anybody."""
    anywhere = re.compile(re.escape(person.encode()))
    for path in sorted(workspace.sessions.glob("*.mcap")):
        if not holds(path, anywhere):
            continue
        contents = read_journal(path)
        changed = [_record(record, person, report.name) for record in contents.records]
        if changed == contents.records and not contents.problem:
            continue
        beside = path.with_name(path.name + ".new")
        beside.unlink(missing_ok=True)
        writer = JournalWriter(beside)
        for record in changed:
            writer.add(record)
        writer.close()
        if len(read_journal(beside).records) != len(contents.records):
            beside.unlink()
            report.left.append(f"{path}: made again it would not be the same; it still has the pseudonym")
            continue
        beside.replace(path)
        fsync_folder(path.parent)
        report.journals += 1
        if contents.problem:
            report.notes.append(f"{path}: {contents.problem}; kept is what could be read")


def _record(record: AnyRecord, person: str, name: str) -> AnyRecord:
    if isinstance(record, OutcomeChange):
        return msgspec.structs.replace(record, author=replaced(record.author, person, name))
    return _event(record, person, name) if isinstance(record, Event) else record


def _label_log(workspace: Workspace, catalog: Catalog, person: str, report: ForgetReport) -> None:
    """Labelers may be at work meanwhile: they take the catalog and then the log, and so does this."""
    if not workspace.labels_path.exists():
        return
    with catalog.writing(), open_log(workspace.labels_path) as log:
        events = log.read()
        changed = [_label(event, person, report.name) for event in events]
        report.label_events = sum(new != old for new, old in zip(changed, events, strict=True))
        if report.label_events:
            write_durably(workspace.labels_path, lines_of(changed))


def _label(event: LabelEvent, person: str, name: str) -> LabelEvent:
    author = replaced(event.author, person, name)
    if event.field not in FREE_TEXT:
        return msgspec.structs.replace(event, author=author)
    value, previous = replaced(event.value, person, name), replaced(event.previous, person, name)
    return msgspec.structs.replace(event, author=author, value=value, previous=previous)
