"""What the console's queue and figures need of thousands of segments at once: narrow rows, few statements, labels by episode."""

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, select

from takeover.data.catalog import Catalog
from takeover.data.catalog_current import parts
from takeover.data.catalog_tables import episodes, label_events, label_state, segments

NO_LABELS: dict[str, str] = {}  # one for all: thousands of empty ones would wake the garbage collector


def _no_labels() -> dict[str, str]:
    return NO_LABELS


class QueueSegment(msgspec.Struct, gc=False):
    """One flagged stretch, steps ``start_step`` to ``end_step`` (both counted), with its current labels {field: value}."""

    id: str
    episode_id: str
    kind: str
    start_step: int
    end_step: int
    policy_version: int
    operator: str
    labels: dict[str, str] = msgspec.field(default_factory=_no_labels)


class QueueEpisode(msgspec.Struct, frozen=True, gc=False):
    """What the queue shows of an episode. ``outcome`` is the current one."""

    id: str
    session_id: str
    task_id: str
    number: int
    kind: str
    started_ns: int
    control_hz: float
    has_pictures: bool
    path: str
    outcome: str


class Flagged(msgspec.Struct, frozen=True, gc=False):
    """A segment as figures of a session need it."""

    id: str
    episode_id: str
    kind: str
    start_step: int
    cause: str
    excluded: bool


def newest_segments(most: int) -> Select[Any]:
    """Columns in the order of `QueueSegment`, newest first."""
    columns = segments.c
    names = ("id", "episode_id", "kind", "start_step", "end_step", "policy_version", "operator")
    return select(*(columns[name] for name in names)).order_by(columns.started_ns.desc(), columns.id.desc()).limit(most)


def labels_within(episode_ids: list[str]) -> Select[Any]:
    """(target, field, value) of every current label of these episodes and their segments."""
    return select(label_state.c.target, label_state.c.field, label_state.c.value).where(label_state.c.episode_id.in_(episode_ids))


def flagged_within(session_id: str, most: int) -> Select[Any]:
    """Columns in the order of `Flagged`, newest first."""
    columns = segments.c
    query = select(columns.id, columns.episode_id, columns.kind, columns.start_step, columns.cause, columns.excluded)
    return query.where(columns.session_id == session_id).order_by(columns.started_ns.desc(), columns.id.desc()).limit(most)


def reviewed_since(wall_ns: int, author: str) -> Select[Any]:
    """(target, value, wall_ns) of a person's review labels, oldest first."""
    columns = label_events.c
    query = select(columns.target, columns.value, columns.wall_ns).order_by(columns.wall_ns, columns.id)
    return query.where(columns.author == author, columns.wall_ns >= wall_ns, columns.field == "review")


def queue_rows(catalog: Catalog, most: int) -> tuple[list[QueueSegment], dict[str, QueueEpisode]]:
    """The ``most`` newest segments, newest first, and their episodes by id. A segment whose episode is gone is left out."""
    with catalog.engine.connect() as connection:
        rows = [QueueSegment(*row) for row in connection.execute(newest_segments(most))]
        owners = _owners(connection, dict.fromkeys(row.episode_id for row in rows))
        labels = _labels(connection, owners)
    for row in rows:
        row.labels = labels.get(row.id, NO_LABELS)
    return [row for row in rows if row.episode_id in owners], owners


def _owners(connection: Connection, ids: Iterable[str]) -> dict[str, QueueEpisode]:
    columns = episodes.c
    names = ("id", "session_id", "task_id", "number", "kind", "started_ns", "control_hz", "has_pictures", "path")
    query = select(*(columns[name] for name in names), columns.outcome, columns.current_outcome)
    found = {}
    for part in parts(list(ids)):
        for *row, recorded, current in connection.execute(query.where(columns.id.in_(part))):
            row.append(current or recorded)
            found[row[0]] = QueueEpisode(*row)
    return found


def _labels(connection: Connection, ids: Iterable[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for part in parts(list(ids)):
        for target, field, value in connection.execute(labels_within(part)):
            if value:
                found.setdefault(target, {})[field] = value
    return found


def flagged_of(catalog: Catalog, session_id: str, most: int) -> list[Flagged]:
    """The ``most`` newest segments of a session, newest first."""
    with catalog.engine.connect() as connection:
        return [Flagged(*row) for row in connection.execute(flagged_within(session_id, most))]


def decisions_since(catalog: Catalog, wall_ns: int, author: str) -> list[tuple[str, str, int]]:
    """(segment, what was decided, wall time in ns) of every review label of a person from ``wall_ns`` on, oldest first."""
    with catalog.engine.connect() as connection:
        return [(target, value, at) for target, value, at in connection.execute(reviewed_since(wall_ns, author))]
