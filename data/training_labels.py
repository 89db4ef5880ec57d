"""What the labels of episodes mean to a learner, and which of its updates was the first to use each label."""

import msgspec
from sqlalchemy import select

from takeover.data import catalog_log
from takeover.data.catalog import Catalog
from takeover.data.catalog_current import parts
from takeover.data.catalog_queries import labels_of
from takeover.data.catalog_tables import EpisodeRow, LabelEvent, LabelUse, episodes, label_events, label_uses, segments
from takeover.data.episode_labels import JUDGED, EpisodeLabels
from takeover.data.label_fields import TRAINING_FIELDS, trim_of
from takeover.data.label_store import event_of, event_query
from takeover.data.schema import Outcome


def training_labels(catalog: Catalog, ids: list[str], recorded_outcome: bool = False) -> dict[str, EpisodeLabels]:
    """The labels of these episodes as they are now; episodes that the catalog does not have are left out.

    ``recorded_outcome``: with the outcome that was recorded, whatever labels say of it."""
    rows = {row.id: row for row in catalog.episodes(ids=ids)}
    if recorded_outcome:
        rows = _as_recorded(catalog, rows)
    flagged: dict[str, list[tuple[str, str, int, int, int]]] = {}
    with catalog.engine.connect() as connection:
        query = select(segments.c.id, segments.c.episode_id, segments.c.kind, segments.c.number, segments.c.start_step, segments.c.end_step)
        for part in parts(list(rows)):
            for key, episode_id, *rest in connection.execute(query.where(segments.c.episode_id.in_(part))):
                flagged.setdefault(episode_id, []).append((key, *rest))
        targets = [*rows, *(row[0] for some in flagged.values() for row in some)]
        labels = labels_of(connection, targets)
    made = {}
    for episode_id, row in rows.items():
        left_out, not_imitated, onsets = _outside(labels.get(episode_id, {}).get("trim", ""), 0, row.steps - 1), [], {}
        for key, kind, number, first, last in flagged.get(episode_id, []):
            given = labels.get(key, {})
            if given.get("exclude") == "true":
                left_out.append((first, last))
            left_out += _outside(given.get("trim", ""), first, last)
            if given.get("quality") == "bad" and kind == "takeover":
                not_imitated.append((first, last))
            if "onset" in given and kind == "takeover":
                onsets[number] = int(given["onset"])
                if onsets[number] > first:
                    not_imitated.append((first, onsets[number] - 1))
        made[episode_id] = EpisodeLabels(
            episode_id=episode_id,
            outcome=Outcome(row.outcome),
            event_step=row.event_step if row.event_step >= 0 else row.steps - 1,
            relabelled=row.outcome_source in JUDGED,
            excluded=row.excluded,
            left_out=tuple(left_out),
            not_imitated=tuple(not_imitated),
            onsets=onsets,
        )
    return made


def _as_recorded(catalog: Catalog, rows: dict[str, EpisodeRow]) -> dict[str, EpisodeRow]:
    columns, made = episodes.c, dict[str, EpisodeRow]()
    with catalog.engine.connect() as connection:
        for part in parts(list(rows)):
            query = select(columns.id, columns.outcome, columns.outcome_source, columns.event_step).where(columns.id.in_(part))
            for name, outcome, source, event_step in connection.execute(query):
                made[name] = msgspec.structs.replace(rows[name], outcome=outcome, outcome_source=source, event_step=event_step)
    return made


def _outside(trim: str, first: int, last: int) -> list[tuple[int, int]]:
    """What a trim takes off a stretch."""
    if not trim:
        return []
    low, high = trim_of(trim)
    return [(a, b) for a, b in ((first, low - 1), (high + 1, last)) if a <= b]


def training_events_after(catalog: Catalog, number: int) -> tuple[int, list[LabelEvent]]:
    """(number of the newest event, those after ``number`` that change what is learned), in the order they were entered."""
    query = event_query().add_columns(label_events.c.number).where(label_events.c.number > number).order_by(label_events.c.number)
    found = []
    with catalog.engine.connect() as connection:
        for *row, at in connection.execute(query):
            event, number = event_of(row), at
            if event.field in TRAINING_FIELDS and not event.blind:
                found.append(event)
    return number, found


def labelled_episodes(catalog: Catalog, task_id: str = "") -> list[str]:
    """Episodes with a label that changes what is learned, now or once."""
    query = select(label_events.c.episode_id).where(label_events.c.field.in_(TRAINING_FIELDS)).distinct()
    if task_id:
        query = query.where(label_events.c.episode_id.in_(select(episodes.c.id).where(episodes.c.task_id == task_id)))
    with catalog.engine.connect() as connection:
        return sorted(connection.execute(query).scalars())


def note_uses(catalog: Catalog, learner: str, events: list[tuple[str, str]], update_number: int, wall_ns: int) -> None:
    """Note that ``update_number`` of ``learner`` was the first with these (event id, target). The first note stands."""
    with catalog.writing("uses") as connection:
        known: set[str] = set()
        for part in parts([event_id for event_id, _ in events]):
            query = select(label_uses.c.event_id).where(label_uses.c.learner == learner, label_uses.c.event_id.in_(part))
            known.update(connection.execute(query).scalars())
        rows = [
            LabelUse(event_id=event_id, learner=learner, target=target, update_number=update_number, policy_version=0, wall_ns=wall_ns)
            for event_id, target in dict(events).items()
            if event_id not in known
        ]
        if rows:
            catalog_log.append(catalog.log_path, rows)
            connection.execute(label_uses.insert(), [msgspec.structs.asdict(row) for row in rows])


def note_version(catalog: Catalog, learner: str, policy_version: int) -> None:
    """Note the first published version with what was used and not published yet."""
    with catalog.writing("uses") as connection:
        mine = (label_uses.c.learner == learner) & (label_uses.c.policy_version == 0)
        used = [LabelUse(**row._mapping) for row in connection.execute(select(label_uses).where(mine))]
        catalog_log.append(catalog.log_path, [msgspec.structs.replace(row, policy_version=policy_version) for row in used])
        connection.execute(label_uses.update().where(mine).values(policy_version=policy_version))


def label_uses_of(catalog: Catalog, targets: list[str]) -> dict[str, list[LabelUse]]:
    """{segment or episode: which update of which learner was the first to use each of its labels}, oldest first."""
    query = select(*(label_uses.c[name] for name in LabelUse.__struct_fields__)).order_by(label_uses.c.wall_ns, label_uses.c.event_id)
    found: dict[str, list[LabelUse]] = {}
    with catalog.engine.connect() as connection:
        for part in parts(targets):
            for row in connection.execute(query.where(label_uses.c.target.in_(part))):
                found.setdefault(row.target, []).append(LabelUse(**row._asdict()))
    return found
