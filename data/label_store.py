"""Label events in the catalog. What holds is a function of the set of events alone, in whatever order they came: the newest wins.

Newest is the greatest (wall_ns, id). Whoever sets a label dates it after the one that stands, so a clock that went back loses nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, delete, insert, select

from takeover.data.catalog_current import parts, refresh_episodes
from takeover.data.catalog_tables import LabelEvent, label_events, label_state
from takeover.data.label_fields import outcome_of

_COLUMNS = [label_events.c[name] for name in LabelEvent.__struct_fields__]


@dataclass(frozen=True)
class Standing:
    """What holds for one field of one target; ``value`` as it was set ("failure@17"), "" when there is none."""

    value: str = ""
    author: str = ""
    wall_ns: int = 0
    event_id: str = ""


def event_query() -> Select[Any]:
    """Columns in the order of `event_of`."""
    return select(*_COLUMNS)


def event_of(row: Any) -> LabelEvent:
    return LabelEvent(**dict(zip(LabelEvent.__struct_fields__, row, strict=True)))


def standing(connection: Connection, target: str, field: str, blind_author: str = "") -> Standing:
    """The shared label, or ``blind_author``'s own second opinion."""
    if blind_author:
        query = event_query().where(label_events.c.target == target, label_events.c.field == field, label_events.c.blind.is_(True))
        query = query.where(label_events.c.author == blind_author)
        row = connection.execute(query.order_by(label_events.c.wall_ns.desc(), label_events.c.id.desc()).limit(1)).first()
        if row is None:
            return Standing()
        event = event_of(row)
        return Standing(event.value, event.author, event.wall_ns, event.id)
    found = connection.execute(select(label_state).where(label_state.c.target == target, label_state.c.field == field)).first()
    if found is None:
        return Standing()
    return Standing(full_value(found.value, found.step), found.author, found.wall_ns, found.event_id)


def full_value(value: str, step: int) -> str:
    """An outcome with its date; anything else as it is."""
    return f"{value}@{step}" if value and step >= 0 else value


def find_event(connection: Connection, event_id: str) -> LabelEvent | None:
    row = connection.execute(event_query().where(label_events.c.id == event_id)).first()
    return None if row is None else event_of(row)


def known_ids(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Those of ``ids`` that the catalog has."""
    found: set[str] = set()
    for part in parts(ids):
        found.update(connection.execute(select(label_events.c.id).where(label_events.c.id.in_(part))).scalars())
    return found


def enter(connection: Connection, events: Iterable[LabelEvent]) -> int:
    """Enter the events that are not known yet and make what follows from them hold; returns how many were new."""
    wanted = {event.id: event for event in events}
    known = known_ids(connection, list(wanted))
    new = [event for event in wanted.values() if event.id not in known]
    if not new:
        return 0
    connection.execute(insert(label_events), [msgspec.structs.asdict(event) for event in new])
    newest: dict[tuple[str, str], LabelEvent] = {}
    for event in new:
        key = (event.target, event.field)
        if not event.blind and (key not in newest or _order(event) > _order(newest[key])):
            newest[key] = event
    held = _held(connection, sorted({target for target, _ in newest}))
    winners = [event for key, event in newest.items() if key not in held or _order(event) > held[key]]
    for event in winners:
        if (event.target, event.field) in held:
            connection.execute(delete(label_state).where(label_state.c.target == event.target, label_state.c.field == event.field))
    if winners:
        connection.execute(insert(label_state), [_state(event) for event in winners])
        refresh_episodes(connection, sorted({event.episode_id for event in winners}))
    return len(new)


def _order(event: LabelEvent) -> tuple[int, str]:
    return event.wall_ns, event.id


def _held(connection: Connection, targets: Sequence[str]) -> dict[tuple[str, str], tuple[int, str]]:
    query = select(label_state.c.target, label_state.c.field, label_state.c.wall_ns, label_state.c.event_id)
    found = {}
    for part in parts(targets):
        for target, field, wall_ns, event_id in connection.execute(query.where(label_state.c.target.in_(part))):
            found[(target, field)] = (wall_ns, event_id)
    return found


def _state(event: LabelEvent) -> dict[str, Any]:
    value, step = outcome_of(event.value) if event.field == "outcome" else (event.value, -1)
    return {
        "target": event.target,
        "field": event.field,
        "episode_id": event.episode_id,
        "value": value,
        "step": step,
        "author": event.author,
        "wall_ns": event.wall_ns,
        "event_id": event.id,
    }
