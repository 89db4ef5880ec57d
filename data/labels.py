"""Labels: append-only events with author, time and previous value. Undo is an event. The next query already sees it."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, insert, select, update
from ulid import ULID

from takeover.data.catalog import Catalog
from takeover.data.catalog_tables import LabelEvent, LabelUse, episodes, label_events, meta, segments
from takeover.data.label_fields import FIELDS, Extent, check, check_steps
from takeover.data.label_log import LabelError, LabelLog, open_log, read_log
from takeover.data.label_store import Standing, enter, event_of, event_query, find_event, known_ids, standing
from takeover.data.schema import Outcome
from takeover.data.training_labels import label_uses_of
from takeover.data.workspace import Workspace

__all__ = ["FIELDS", "LabelError", "LabelEvent", "Labels", "read_log"]

_PAGE = 200


@dataclass(frozen=True)
class _Writing:
    """One transaction: the catalog's and the log's."""

    connection: Connection
    log: LabelLog


class Labels:
    """Writes labels for one workspace: to ``labels.jsonl`` first, then to the catalog, so they survive the catalog's loss.

    ``person`` authors must be pseudonyms. Threads may share one; several processes may label at once (the file is locked). What the
    log has beyond the catalog (a process was killed in between) is entered before anything else; what it has lost is written again.
    """

    def __init__(self, workspace: Workspace | Path | str, catalog: Catalog | None = None) -> None:
        self.workspace = workspace if isinstance(workspace, Workspace) else Workspace(workspace)
        self.catalog = catalog or Catalog.open(self.workspace)
        self._owns_catalog = catalog is None
        self._noted = "labels:" + hashlib.sha256(str(self.workspace.labels_path).encode()).hexdigest()[:24]

    def close(self) -> None:
        if self._owns_catalog:
            self.catalog.close()

    # --- writing ---

    def add_label(self, target: str, field: str, value: str | bool | int, author: str, wall_ns: int = 0, blind: bool = False) -> LabelEvent:
        """Set ``field`` of a segment or an episode. Raises `LabelError`.

        The same press twice is one event. ``blind``: a second labeler's opinion, which changes nothing but the agreement.
        """
        text = str(value).lower() if isinstance(value, bool) else str(value)
        check(target, field, text, author)
        with self._writing() as writing:
            episode_id, extent = extent_of(writing.connection, target)
            check_steps(target, field, text, extent)
            now = standing(writing.connection, target, field, author if blind else "")
            if now.event_id and (now.value, now.author) == (text, author):
                event = find_event(writing.connection, now.event_id)
                if event is not None:
                    return event
            return self._append(writing, now, target, episode_id, field, text, author, wall_ns, blind=blind)

    def add_outcome(self, episode_id: str, outcome: Outcome | None, author: str, wall_ns: int, event_step: int = -1) -> LabelEvent | None:
        """An operator's late outcome from the stream; the episode may not be in the catalog yet. Twice is once.

        It counts from when it was given: a label set since then stands. ``event_step``: the step it is dated back to, -1 for none.
        ``outcome`` None: what was recorded holds again.
        """
        value = "" if outcome is None else f"{outcome.value}@{event_step}" if event_step >= 0 else outcome.value
        with self._writing() as writing:
            same = select(label_events.c.id).where(
                label_events.c.target == episode_id, label_events.c.field == "outcome", label_events.c.wall_ns == wall_ns
            )
            if writing.connection.execute(same).first() is not None:
                return None
            now = standing(writing.connection, episode_id, "outcome")
            return self._append(writing, now, episode_id, episode_id, "outcome", value, author, wall_ns, late=True)

    def undo(self, author: str) -> LabelEvent:
        """Take back the author's newest label that stands. Raises `LabelError` when there is none or somebody has changed it since."""
        return self._step(author, "undo")

    def redo(self, author: str) -> LabelEvent:
        """Set again what the author's newest undo took back."""
        return self._step(author, "redo")

    def enter_events(self, events: Sequence[LabelEvent]) -> int:
        """Events made elsewhere, ids and times kept; returns how many were new. Checked by `takeover.data.label_exchange`."""
        with self._writing() as writing:
            known = known_ids(writing.connection, [event.id for event in events])
            new = list({event.id: event for event in events if event.id not in known}.values())
            if new:
                writing.log.append(new)
                enter(writing.connection, new)
            return len(new)

    def replay_log(self) -> int:
        """Enter every event of ``labels.jsonl`` that the catalog lacks; returns how many. Done when a recorder starts."""
        if not self.workspace.labels_path.exists():
            return 0
        with self.catalog.writing() as connection, open_log(self.workspace.labels_path) as log:
            count = enter(connection, log.read())
            self._note(connection, log.size)
        return count

    @contextmanager
    def _writing(self) -> Iterator[_Writing]:
        with self.catalog.writing() as connection, open_log(self.workspace.labels_path) as log:
            noted = connection.execute(select(meta.c.value).where(meta.c.name == self._noted)).scalar()
            if noted != log.size:
                self._agree(connection, log, noted)
            yield _Writing(connection, log)
            self._note(connection, log.size)

    def _agree(self, connection: Connection, log: LabelLog, noted: int | None) -> None:
        """Log and catalog have come apart: enter what only the log has, and write again what it has lost."""
        if noted is None or log.size > noted:
            try:
                events = log.read(noted or 0)
            except LabelError:
                events = log.read()  # it was written anew: no line begins where one did
            enter(connection, events)
            return
        logged = log.read()
        enter(connection, logged)
        ids = {event.id for event in logged}
        query = event_query().order_by(label_events.c.wall_ns, label_events.c.id)
        lost = [event for event in map(event_of, connection.execute(query)) if event.id not in ids]
        if lost:
            log.append(lost)

    def _note(self, connection: Connection, size: int) -> None:
        if connection.execute(update(meta).where(meta.c.name == self._noted).values(value=size)).rowcount == 0:
            connection.execute(insert(meta), [{"name": self._noted, "value": size}])

    def _append(
        self,
        writing: _Writing,
        now: Standing,
        target: str,
        episode_id: str,
        field: str,
        value: str,
        author: str,
        wall_ns: int = 0,
        action: str = "set",
        refers_to: str = "",
        blind: bool = False,
        late: bool = False,
    ) -> LabelEvent:
        dated = wall_ns or time.time_ns()
        made = LabelEvent(
            id=str(ULID()).lower(),
            target=target,
            episode_id=episode_id,
            field=field,
            value=value,
            previous=now.value,
            author=author,
            wall_ns=dated if late else max(dated, now.wall_ns + 1),
            action=action,
            refers_to=refers_to,
            blind=blind,
        )
        writing.log.append([made])
        enter(writing.connection, [made])
        return made

    def _step(self, author: str, action: str) -> LabelEvent:
        with self._writing() as writing:
            original = _newest(writing.connection, author, action)
            if original is None:
                raise LabelError(f"there is nothing of {author} to {action}")
            expected, value = (original.value, original.previous) if action == "undo" else (original.previous, original.value)
            now = standing(writing.connection, original.target, original.field, author if original.blind else "")
            if now.value != expected:
                raise LabelError(f"{original.field} of {original.target} was changed to {now.value!r} since; set it again instead")
            about = (original.target, original.episode_id, original.field, value, author)
            return self._append(writing, now, *about, action=action, refers_to=original.id, blind=original.blind)

    # --- reading ---

    def current(self, target: str) -> dict[str, str]:
        """Current labels of a segment or episode: {field: value}."""
        return self.catalog.labels([target]).get(target, {})

    def history(self, target: str) -> list[LabelEvent]:
        """Every event of a segment or episode, oldest first."""
        return self._events(label_events.c.target == target)

    def events_since(self, wall_ns: int, author: str = "") -> list[LabelEvent]:
        """Events from ``wall_ns`` on, oldest first (done today, seconds per segment)."""
        conditions = [label_events.c.wall_ns >= wall_ns]
        return self._events(*conditions, *([label_events.c.author == author] if author else []))

    def uses(self, target: str) -> list[LabelUse]:
        """Which update of which learner was the first to use each label of a segment or episode, oldest first."""
        return label_uses_of(self.catalog, [target]).get(target, [])

    def _events(self, *conditions: object) -> list[LabelEvent]:
        query = event_query().where(*conditions).order_by(label_events.c.wall_ns, label_events.c.id)  # type: ignore[arg-type]
        with self.catalog.engine.connect() as connection:
            return [event_of(row) for row in connection.execute(query)]


def _newest(connection: Connection, author: str, action: str) -> LabelEvent | None:
    """The event that the author's next undo (redo) takes back (sets again): found by walking back from the newest."""
    settled: set[str] = set()  # events whose newest undo or redo was met
    for event in _walk_back(connection, author):
        key = event.id if event.action == "set" else event.refers_to
        if event.action == "set" and action == "redo":
            return None  # a new label forgets what could be redone
        if key in settled:
            continue
        settled.add(key)
        if event.action == "set":
            return event
        if event.action == "redo" if action == "undo" else event.action == "undo":
            return find_event(connection, key)
    return None


def _walk_back(connection: Connection, author: str) -> Iterator[LabelEvent]:
    order = (label_events.c.wall_ns.desc(), label_events.c.id.desc())
    query = event_query().where(label_events.c.author == author).order_by(*order)
    page = [event_of(row) for row in connection.execute(query.limit(_PAGE))]
    while page:
        yield from page
        last = page[-1]
        older = (label_events.c.wall_ns < last.wall_ns) | ((label_events.c.wall_ns == last.wall_ns) & (label_events.c.id < last.id))
        page = [event_of(row) for row in connection.execute(query.where(label_events.c.wall_ns <= last.wall_ns, older).limit(_PAGE))]


def extent_of(connection: Connection, target: str) -> tuple[str, Extent]:
    """(episode, where the target lies). Raises `LabelError` when there is no such segment or episode."""
    if ":" in target:
        query = select(segments.c.episode_id, segments.c.start_step, segments.c.end_step, episodes.c.steps)
        found = connection.execute(query.join(episodes, episodes.c.id == segments.c.episode_id).where(segments.c.id == target)).first()
        if found is not None:
            return str(found.episode_id), Extent(found.start_step, found.end_step, found.steps)
    else:
        steps = connection.execute(select(episodes.c.steps).where(episodes.c.id == target)).scalar()
        if steps is not None:
            return target, Extent(0, steps - 1, steps)
    raise LabelError(f"there is no segment or episode {target!r}")
