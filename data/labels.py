"""Labels: append-only events with author, time and previous value. Undo is an event. The next query already sees it."""

import fcntl
import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from sqlalchemy import Connection, delete, insert, select
from ulid import ULID

from takeover.data.catalog import Catalog
from takeover.data.catalog_tables import LabelEvent, episodes, label_events, label_state, segments
from takeover.data.schema import Cause, InterventionKind, Outcome
from takeover.data.workspace import Workspace

FIELDS: dict[str, tuple[str, ...]] = {
    "cause": tuple(cause.value for cause in Cause),
    "kind": tuple(kind.value for kind in InterventionKind),
    "outcome": tuple(outcome.value for outcome in Outcome),
    "quality": ("good", "different", "bad"),  # "different but fine" is not "bad"
    "exclude": ("true", "false"),
    "review": ("submitted", "skipped", "unsure", "flagged"),
    "note": (),  # free text
    "onset": (),  # step number of the labelled onset
}
"""Fields and their allowed values; "" takes a label back. On an episode: outcome, exclude, quality, note."""

_EPISODE_FIELDS = ("outcome", "exclude", "quality", "note")


class LabelError(ValueError):
    """A label that cannot be: unknown field, value or target, or nothing to undo. Says what is allowed."""


class Labels:
    """Writes labels for one workspace: to ``labels.jsonl`` first, then to the catalog, so they survive the catalog's loss.

    ``person`` authors must be pseudonyms. Threads may share one; several processes may label at once (the file is locked).
    """

    def __init__(self, workspace: Workspace | Path | str, catalog: Catalog | None = None) -> None:
        self.workspace = workspace if isinstance(workspace, Workspace) else Workspace(workspace)
        self.catalog = catalog or Catalog.open(self.workspace)
        self._owns_catalog = catalog is None

    def close(self) -> None:
        if self._owns_catalog:
            self.catalog.close()

    def add_label(self, target: str, field: str, value: str | bool | int, author: str, wall_ns: int = 0) -> LabelEvent:
        """Set ``field`` of a segment or an episode. Raises `LabelError`."""
        text = str(value).lower() if isinstance(value, bool) else str(value)
        _check(target, field, text, author)
        with self.catalog.writing() as connection:
            episode_id = _episode_of(connection, target)
            return self._append(connection, target, episode_id, field, text, author, wall_ns)

    def add_outcome(self, episode_id: str, outcome: Outcome, author: str, wall_ns: int) -> LabelEvent | None:
        """An operator's late outcome from the stream; the episode may not be in the catalog yet. Twice is once."""
        with self.catalog.writing() as connection:
            same = select(label_events.c.id).where(
                label_events.c.target == episode_id, label_events.c.field == "outcome", label_events.c.wall_ns == wall_ns
            )
            if connection.execute(same).first() is not None:
                return None
            return self._append(connection, episode_id, episode_id, "outcome", outcome.value, author, wall_ns)

    def undo(self, author: str) -> LabelEvent:
        """Take back the author's newest label that stands. Raises `LabelError` when there is none or somebody has changed it since."""
        return self._step(author, "undo")

    def redo(self, author: str) -> LabelEvent:
        """Set again what the author's newest undo took back."""
        return self._step(author, "redo")

    def _step(self, author: str, action: str) -> LabelEvent:
        with self.catalog.writing() as connection:
            query = select(label_events).where(label_events.c.author == author).order_by(label_events.c.number)
            stacks: dict[str, list[LabelEvent]] = {"undo": [], "redo": []}
            events = {row.id: _event(row) for row in connection.execute(query)}
            for item in events.values():
                if item.action == "set":
                    stacks["undo"].append(item)
                    stacks["redo"].clear()
                else:
                    original = events[item.refers_to]
                    stacks[item.action].remove(original)
                    stacks["redo" if item.action == "undo" else "undo"].append(original)
            if not stacks[action]:
                raise LabelError(f"there is nothing of {author} to {action}")
            original = stacks[action][-1]
            expected, value = (original.value, original.previous) if action == "undo" else (original.previous, original.value)
            current = _current(connection, original.target, original.field)
            if current != expected:
                raise LabelError(f"{original.field} of {original.target} was changed to {current!r} since; set it again instead")
            return self._append(connection, original.target, original.episode_id, original.field, value, author, 0, action, original.id)

    def current(self, target: str) -> dict[str, str]:
        """Current labels of a segment or episode: {field: value}."""
        return self.catalog.labels([target]).get(target, {})

    def history(self, target: str) -> list[LabelEvent]:
        """Every event of a segment or episode, oldest first."""
        with self.catalog.engine.connect() as connection:
            query = select(label_events).where(label_events.c.target == target).order_by(label_events.c.number)
            return [_event(row) for row in connection.execute(query)]

    def events_since(self, wall_ns: int, author: str = "") -> list[LabelEvent]:
        """Events from ``wall_ns`` on, oldest first (done today, seconds per segment)."""
        query = select(label_events).where(label_events.c.wall_ns >= wall_ns).order_by(label_events.c.number)
        if author:
            query = query.where(label_events.c.author == author)
        with self.catalog.engine.connect() as connection:
            return [_event(row) for row in connection.execute(query)]

    def _append(
        self,
        connection: Connection,
        target: str,
        episode_id: str,
        field: str,
        value: str,
        author: str,
        wall_ns: int,
        action: str = "set",
        refers_to: str = "",
    ) -> LabelEvent:
        made = LabelEvent(
            id=str(ULID()).lower(),
            target=target,
            episode_id=episode_id,
            field=field,
            value=value,
            previous=_current(connection, target, field),
            author=author,
            wall_ns=wall_ns or time.time_ns(),
            action=action,
            refers_to=refers_to,
        )
        _log(self.workspace.labels_path, made)
        _store(connection, made)
        return made

    def adopt(self, events: Sequence[LabelEvent]) -> int:
        """Enter events from elsewhere as they are, for episodes that were imported; known ones are left out. Raises `LabelError`."""
        for item in events:
            _check(item.target, item.field, item.value, item.author)
            if item.target.partition(":")[0] != item.episode_id or item.action not in ("set", "undo", "redo"):
                raise LabelError(f"label event {item.id}: {item.action!r} of {item.target!r} is not of episode {item.episode_id!r}")
        with self.catalog.writing() as connection:
            known = set(connection.execute(select(label_events.c.id).where(label_events.c.id.in_([item.id for item in events]))).scalars())
            new = [item for item in events if item.id not in known]
            for item in new:
                _log(self.workspace.labels_path, item)
                _store(connection, item)
        return len(new)

    def replay_log(self) -> int:
        """Enter every event of ``labels.jsonl`` that the catalog lacks; returns how many. Done when a recorder starts."""
        logged = read_log(self.workspace.labels_path)
        if not logged:
            return 0
        with self.catalog.engine.connect() as connection:
            known = set(connection.execute(select(label_events.c.id)).scalars())
        missing = [item for item in logged if item.id not in known]
        if missing:
            with self.catalog.writing() as connection:
                for item in missing:
                    _store(connection, item)
        return len(missing)


def _check(target: str, field: str, value: str, author: str) -> None:
    if field not in FIELDS:
        raise LabelError(f"unknown label field {field!r}; known: {', '.join(FIELDS)}")
    if ":" not in target and field not in _EPISODE_FIELDS:
        raise LabelError(f"an episode has no {field!r}; it has {', '.join(_EPISODE_FIELDS)}")
    allowed = FIELDS[field]
    if value and allowed and value not in allowed:
        raise LabelError(f"{field} cannot be {value!r}; allowed: {', '.join(allowed)}")
    if value and field == "onset" and not value.isdecimal():
        raise LabelError(f"onset must be a step number, not {value!r}")
    if not author:
        raise LabelError("a label needs an author")


def _episode_of(connection: Connection, target: str) -> str:
    if ":" in target:
        found = connection.execute(select(segments.c.episode_id).where(segments.c.id == target)).scalar()
    else:
        found = connection.execute(select(episodes.c.id).where(episodes.c.id == target)).scalar()
    if found is None:
        raise LabelError(f"there is no segment or episode {target!r}")
    return str(found)


def _current(connection: Connection, target: str, field: str) -> str:
    query = select(label_state.c.value).where(label_state.c.target == target, label_state.c.field == field)
    return connection.execute(query).scalar() or ""


def _event(row: object) -> LabelEvent:
    return LabelEvent(**{name: getattr(row, name) for name in LabelEvent.__struct_fields__})


def _store(connection: Connection, item: LabelEvent) -> None:
    connection.execute(insert(label_events), [msgspec.structs.asdict(item)])
    connection.execute(delete(label_state).where(label_state.c.target == item.target, label_state.c.field == item.field))
    state = {
        "target": item.target,
        "field": item.field,
        "episode_id": item.episode_id,
        "value": item.value,
        "author": item.author,
        "wall_ns": item.wall_ns,
        "event_id": item.id,
    }
    connection.execute(insert(label_state), [state])


def _log(path: Path, item: LabelEvent) -> None:
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        _drop_torn_line(fd)
        os.write(fd, msgspec.json.encode(item) + b"\n")
        os.fdatasync(fd)
    finally:
        os.close(fd)


def _drop_torn_line(fd: int) -> None:
    """Cut off what a process killed in the middle of a line left behind; it was never acknowledged."""
    size = os.fstat(fd).st_size
    tail = os.pread(fd, 1 << 16, max(0, size - (1 << 16)))
    if tail and not tail.endswith(b"\n"):
        os.ftruncate(fd, size - len(tail) + tail.rfind(b"\n") + 1)


def read_log(path: Path) -> list[LabelEvent]:
    """Events of a label log; a last line that was cut off is left out. Raises `LabelError` naming any other broken line."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    decoder = msgspec.json.Decoder(LabelEvent)
    found = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            found.append(decoder.decode(line))
        except msgspec.DecodeError as error:
            if number == len(lines):
                break
            raise LabelError(f"{path}, line {number}: {error}") from error
    return found
