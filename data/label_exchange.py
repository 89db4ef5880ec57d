"""Labels from and to other workspaces, as JSON lines. An event keeps its id and time, so importing a file twice is importing it once."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from sqlalchemy import Connection, select

from takeover.data.catalog_current import parts
from takeover.data.catalog_tables import LabelEvent, episodes, label_events
from takeover.data.label_fields import check, check_steps
from takeover.data.label_log import LabelError
from takeover.data.label_store import event_of, event_query, find_event
from takeover.data.labels import Labels, extent_of
from takeover.data.workspace import fsync_folder

MAX_LINE = 65_536
_ID = re.compile(r"[0-9A-Za-z_-]{1,32}")
_TARGET = re.compile(r"([0-9A-Za-z_-]{1,64})(:[0-9a-z_-]{1,15})?")
_BATCH = 1000
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Imported:
    """``added`` events are new, ``known`` were here before; ``waiting`` of the new ones are of episodes that are not in the catalog yet."""

    added: int
    known: int
    waiting: int


def export_labels(labels: Labels, path: Path, progress: Progress | None = None) -> int:
    """Write every event, oldest first, to ``path``; returns how many. Nothing is left under that name when it fails."""
    labels.replay_log()
    temporary = path.with_name(f"{path.name}.partial-{os.getpid()}")
    encoder, count = msgspec.json.Encoder(), 0
    try:
        with labels.catalog.engine.connect() as connection, temporary.open("wb") as file:
            rows = connection.execute(event_query().order_by(label_events.c.wall_ns, label_events.c.id)).all()
            for row in rows:
                file.write(encoder.encode(event_of(row)) + b"\n")
                count += 1
                if progress is not None and (count % _BATCH == 0 or count == len(rows)):
                    progress(count, len(rows))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.absolute().parent)
    return count


def import_labels(labels: Labels, path: Path, progress: Progress | None = None) -> Imported:
    """Enter the events of a file. Checked whole before the first is entered: raises `LabelError` naming the line.

    A job that is stopped goes on where it was when it is run again.
    """
    events = _read(path)
    _check_known(labels, path, events)
    added = waiting = 0
    present = _present(labels, events)
    for first in range(0, len(events), _BATCH):
        batch = events[first : first + _BATCH]
        known = _known(labels, batch)
        added += labels.enter_events(batch)
        waiting += sum(event.id not in known and event.episode_id not in present for event in batch)
        if progress is not None:
            progress(first + len(batch), len(events))
    return Imported(added, len(events) - added, waiting)


def _read(path: Path) -> list[LabelEvent]:
    decoder = msgspec.json.Decoder(LabelEvent)
    found: dict[str, LabelEvent] = {}
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), start=1):
            where = f"{path}, line {number}"
            if len(line) > MAX_LINE:
                raise LabelError(f"{where}: longer than {MAX_LINE} bytes; this is no label event")
            if not line.strip():
                continue
            try:
                event = decoder.decode(line)
                _check(event)
            except (msgspec.DecodeError, UnicodeDecodeError, LabelError) as error:
                raise LabelError(f"{where}: {error}") from error
            if found.setdefault(event.id, event) != event:
                raise LabelError(f"{where}: event {event.id} was in the file before and said something else")
    for number, event in enumerate(found.values(), start=1):
        if event.action != "set" and event.refers_to in found:
            _check_pair(f"{path}, event {number}", event, found[event.refers_to])
    return list(found.values())


def _check(event: LabelEvent) -> None:
    """Raises `LabelError` for an event no labeler could have made."""
    target = _TARGET.fullmatch(event.target)
    if not _ID.fullmatch(event.id):
        raise LabelError(f"{event.id!r} is not an id: letters, digits, - and _, at most 32")
    if target is None or target[1] != event.episode_id:
        raise LabelError(f"target {event.target!r} and episode {event.episode_id!r} do not belong together")
    if event.action not in ("set", "undo", "redo") or (event.action == "set") != (event.refers_to == ""):
        raise LabelError(f"action {event.action!r} that refers to {event.refers_to!r}; known: set, and undo and redo of an event")
    if not 0 < event.wall_ns < 1 << 62:
        raise LabelError(f"wall_ns {event.wall_ns} is no time")
    if len(event.author) > 64:
        raise LabelError(f"the author has {len(event.author)} characters; at most 64")
    check(event.target, event.field, event.value, event.author)
    check(event.target, event.field, event.previous, event.author)


def _check_pair(where: str, event: LabelEvent, original: LabelEvent) -> None:
    same = (event.target, event.field, event.author, event.blind) == (original.target, original.field, original.author, original.blind)
    if not same or original.action != "set":
        raise LabelError(f"{where}: {event.action} {event.id} refers to {original.id}, which is not a label of the same target and author")


def _check_known(labels: Labels, path: Path, events: list[LabelEvent]) -> None:
    """Against what the catalog has: the same id says the same, and what is undone is there."""
    inside = {event.id for event in events}
    known = _known(labels, events)
    with labels.catalog.engine.connect() as connection:
        for event in events:
            if event.id in known and known[event.id] != event:
                raise LabelError(f"{path}: event {event.id} says something else than the one of that id in {labels.workspace.path}")
            _check_there(connection, path, event)
            if event.action != "set" and event.refers_to not in inside:
                original = find_event(connection, event.refers_to)
                if original is None:
                    raise LabelError(f"{path}: {event.action} {event.id} refers to {event.refers_to}, which is neither there nor here")
                _check_pair(str(path), event, original)


def _check_there(connection: Connection, path: Path, event: LabelEvent) -> None:
    """That a label points at steps its target has, where the target is here."""
    if event.field in ("onset", "trim", "outcome"):
        try:
            _, extent = extent_of(connection, event.target)
        except LabelError:
            return  # its episode may come later
        try:
            check_steps(event.target, event.field, event.value, extent)
        except LabelError as error:
            raise LabelError(f"{path}: event {event.id}: {error}") from error


def _known(labels: Labels, events: list[LabelEvent]) -> dict[str, LabelEvent]:
    found = {}
    with labels.catalog.engine.connect() as connection:
        for part in parts([event.id for event in events]):
            for event in map(event_of, connection.execute(event_query().where(label_events.c.id.in_(part)))):
                found[event.id] = event
    return found


def _present(labels: Labels, events: list[LabelEvent]) -> set[str]:
    found: set[str] = set()
    with labels.catalog.engine.connect() as connection:
        for part in parts(sorted({event.episode_id for event in events})):
            found.update(connection.execute(select(episodes.c.id).where(episodes.c.id.in_(part))).scalars())
    return found
