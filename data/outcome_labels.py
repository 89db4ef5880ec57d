"""Every outcome that episodes were given by labels, also those that no longer stand: what a reward classifier learns from."""

from collections.abc import Collection, Sequence

from sqlalchemy import select

from takeover.data.catalog import Catalog
from takeover.data.catalog_current import parts
from takeover.data.catalog_tables import LabelEvent, label_events, meta
from takeover.data.label_store import event_of, event_query


def outcome_events(catalog: Catalog, ids: Sequence[str]) -> dict[str, list[LabelEvent]]:
    """{episode: its outcome labels, oldest first}, blind opinions left out; episodes without one are left out."""
    query = event_query().where(label_events.c.field == "outcome", label_events.c.blind.is_(False))
    found: dict[str, list[LabelEvent]] = {}
    with catalog.engine.connect() as connection:
        for part in parts(list(ids)):
            rows = connection.execute(query.where(label_events.c.target.in_(part)).order_by(label_events.c.wall_ns, label_events.c.id))
            for event in map(event_of, rows):
                found.setdefault(event.target, []).append(event)
    return found


def outcomes_given_by(catalog: Catalog, changes: Collection[tuple[str, int]]) -> set[str]:
    """Of ``changes``, (episode, wall_ns) of outcomes given in the stream: the episodes whose outcome nobody has labelled besides."""
    found = outcome_events(catalog, sorted({episode_id for episode_id, _ in changes}))
    others = {name for name, events in found.items() if any((name, event.wall_ns) not in changes for event in events)}
    return {episode_id for episode_id, _ in changes} - others


def label_log_bytes(catalog: Catalog) -> int:
    """How much of ``labels.jsonl`` the catalog holds: the place in the log that a snapshot of the labels was taken at."""
    with catalog.engine.connect() as connection:
        return int(max(connection.execute(select(meta.c.value).where(meta.c.name.like("labels:%"))).scalars(), default=0))
