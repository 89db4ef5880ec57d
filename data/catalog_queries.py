"""The catalog's longer queries, as pure functions that build SQLAlchemy statements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, exists, func, or_, select

from takeover.data.catalog_tables import EpisodeRow, episodes, label_state, segments

_EPISODE_COLUMNS = [column.name for column in episodes.columns]


@dataclass(frozen=True)
class SegmentFilter:
    """Which segments a queue shows. Empty fields do not filter.

    ``state``: "open" (not submitted), "labeled" (has a cause), "done" (submitted). ``text`` is looked for in episode id, hold
    reason and label values (cause, note).
    """

    kinds: tuple[str, ...] = ()
    text: str = ""
    state: str = ""
    cause: str = ""
    session_id: str = ""
    task_id: str = ""
    episode_ids: tuple[str, ...] = ()
    policy_version: int = -1
    started_from_ns: int = 0
    started_to_ns: int = 0


def labels_of(connection: Connection, targets: Sequence[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for first in range(0, len(targets), 500):
        part = list(targets[first : first + 500])
        query = select(label_state.c.target, label_state.c.field, label_state.c.value)
        for row in connection.execute(query.where(label_state.c.target.in_(part), label_state.c.value != "")):
            found.setdefault(row.target, {})[row.field] = row.value
    return found


def episode_query() -> Select[Any]:
    corrected, excluded = label_state.alias("corrected"), label_state.alias("excluded_label")
    return (
        select(episodes, corrected.c.value.label("label_outcome"), excluded.c.value.label("label_exclude"))
        .outerjoin(corrected, (corrected.c.target == episodes.c.id) & (corrected.c.field == "outcome"))
        .outerjoin(excluded, (excluded.c.target == episodes.c.id) & (excluded.c.field == "exclude"))
    )


def episode_row(row: Mapping[str, Any]) -> EpisodeRow:
    fields = {name: row[name] for name in _EPISODE_COLUMNS}
    recorded = fields["outcome"]
    if row["label_outcome"]:
        fields["outcome"], fields["outcome_source"] = row["label_outcome"], "label"
    label = row["label_exclude"] or ("true" if fields["discarded"] else "")
    return EpisodeRow(**fields, recorded_outcome=recorded, excluded=label == "true")


def _has_label(field: str, *conditions: Any) -> Any:
    return exists().where(label_state.c.target == segments.c.id, label_state.c.field == field, label_state.c.value != "", *conditions)


def filtered(query: Select[Any], filters: SegmentFilter | None) -> Select[Any]:
    if filters is None:
        return query
    if filters.kinds:
        query = query.where(segments.c.kind.in_(filters.kinds))
    if filters.session_id:
        query = query.where(episodes.c.session_id == filters.session_id)
    if filters.task_id:
        query = query.where(episodes.c.task_id == filters.task_id)
    if filters.episode_ids:
        query = query.where(segments.c.episode_id.in_(filters.episode_ids))
    if filters.policy_version >= 0:
        query = query.where(segments.c.policy_version == filters.policy_version)
    if filters.started_from_ns:
        query = query.where(segments.c.started_ns >= filters.started_from_ns)
    if filters.started_to_ns:
        query = query.where(segments.c.started_ns < filters.started_to_ns)
    if filters.cause:
        query = query.where(_has_label("cause", label_state.c.value == filters.cause))
    if filters.state == "open":
        query = query.where(~_has_label("review", label_state.c.value == "submitted"))
    elif filters.state == "labeled":
        query = query.where(_has_label("cause"))
    elif filters.state == "done":
        query = query.where(_has_label("review", label_state.c.value == "submitted"))
    elif filters.state:
        raise ValueError(f"unknown state {filters.state!r}; known: open, labeled, done")
    if filters.text:
        escaped = filters.text.lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        like = f"%{escaped}%"
        in_labels = exists().where(label_state.c.target == segments.c.id, func.lower(label_state.c.value).like(like, escape="\\"))
        plain = [func.lower(column).like(like, escape="\\") for column in (segments.c.episode_id, segments.c.detail, segments.c.kind)]
        query = query.where(or_(in_labels, *plain))
    return query
