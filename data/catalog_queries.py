"""The catalog's pages, as pure functions that build SQLAlchemy statements.

A page of segments reads one table in the order of one index: the filter that leaves least *leads*, and the others are written so that
no planner takes their index instead. Episodes and labels of the rows are fetched by their keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, false, func, or_, select

from takeover.data.catalog_current import padded, parts
from takeover.data.catalog_narrow import like_of
from takeover.data.catalog_tables import EpisodeRow, episodes, label_state, segments

_KEPT = ("current_outcome", "current_source", "current_step", "excluded")
_EPISODE_COLUMNS = [column.name for column in episodes.columns if column.name not in _KEPT]
Place = tuple[int, str]
"""(started_ns, id) of a row: the next page begins after it."""


@dataclass(frozen=True)
class SegmentFilter:
    """Which segments a queue shows. Empty fields do not filter.

    ``state``: "open" (not submitted), "labeled" (has a cause), "done" (submitted). ``tag`` is a label "tag:<tag>". ``text`` is looked
    for in episode id, hold reason and label values (cause, note).
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
    operator: str = ""
    tag: str = ""


def labels_of(connection: Connection, targets: Sequence[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    query = select(label_state.c.target, label_state.c.field, label_state.c.value)
    for part in parts(targets):
        for target, field, value in connection.execute(query.where(label_state.c.target.in_(part), label_state.c.value != "")):
            found.setdefault(target, {})[field] = value
    return found


def episode_query() -> Select[Any]:
    return select(episodes)


def episode_row(row: Mapping[str, Any]) -> EpisodeRow:
    """With what holds now in place of what was recorded; a row written without it is as recorded."""
    fields = {name: row[name] for name in _EPISODE_COLUMNS}
    recorded, excluded = fields["outcome"], row["excluded"]
    if row["current_outcome"]:
        fields |= {"outcome": row["current_outcome"], "outcome_source": row["current_source"], "event_step": row["current_step"]}
    else:
        excluded = excluded or fields["discarded"]
    return EpisodeRow(**fields, recorded_outcome=recorded, excluded=bool(excluded))


def aside(column: Any) -> Any:
    """``column`` for a condition that must not choose the index."""
    return func.coalesce(column, {int: -1, str: ""}.get(column.type.python_type, false()))


def has_label(table: Any, field: str, *conditions: Any) -> ColumnElement[bool]:
    """Whether a row of ``table`` (segments or episodes) has the label now."""
    return exists().where(label_state.c.target == table.c.id, label_state.c.field == field, label_state.c.value != "", *conditions)


def after(table: Any, place: Place, newest_first: bool = True) -> ColumnElement[bool]:
    """Rows that come after ``place`` in the order of (started_ns, id)."""
    started, key, (at_ns, at_id) = table.c.started_ns, table.c.id, place
    if newest_first:
        return and_(started <= at_ns, or_(started < at_ns, key < at_id))
    return and_(started >= at_ns, or_(started > at_ns, key > at_id))


def segment_conditions(filters: SegmentFilter, few: Sequence[ColumnElement[bool]] = ()) -> tuple[str, list[ColumnElement[bool]]]:
    """(name of what leads, conditions). ``few``: see `catalog_narrow.few_with`; it leads. Raises `ValueError` for an unknown state."""
    columns = segments.c
    plain: list[tuple[str, Any, Any]] = [
        ("episodes", columns.episode_id, filters.episode_ids),
        ("session", columns.session_id, filters.session_id),
        ("version", columns.policy_version, filters.policy_version if filters.policy_version >= 0 else ""),
        ("operator", columns.operator, filters.operator),
        ("cause", columns.cause, filters.cause),
        ("task", columns.task_id, filters.task_id),
        ("kinds", columns.kind, filters.kinds),
        ("state", *_state(filters.state)),
    ]
    lead, found = "few" if few else "", list(few)
    for name, column, value in plain:
        if value in ("", ()) or (name == "state" and filters.cause and filters.state == "labeled"):
            continue
        beside = name == "state" and lead in ("cause", "kinds")  # one index has both
        column, lead = (column, lead or name) if beside or not lead else (aside(column), lead)
        if not isinstance(value, tuple):
            found.append(column == value)
        else:
            found.append(column.in_(padded(value)) if len(value) > 1 else column == value[0])
    if filters.started_from_ns:
        found.append(columns.started_ns >= filters.started_from_ns)
    if filters.started_to_ns:
        found.append(columns.started_ns < filters.started_to_ns)
    if filters.tag:
        found.append(has_label(segments, f"tag:{filters.tag}"))
    if filters.text:
        found.append(_text(filters.text))
    return lead, found


def _state(state: str) -> tuple[Any, Any]:
    known = {"": (segments.c.done, ""), "open": (segments.c.done, False), "done": (segments.c.done, True)}
    known["labeled"] = (segments.c.labeled, True)
    if state not in known:
        raise ValueError(f"unknown state {state!r}; known: open, labeled, done")
    return known[state]


def _text(text: str) -> ColumnElement[bool]:
    like = like_of(text)
    in_labels = exists().where(label_state.c.target == segments.c.id, func.lower(label_state.c.value).like(like, escape="\\"))
    plain = [func.lower(column).like(like, escape="\\") for column in (segments.c.episode_id, segments.c.detail, segments.c.kind)]
    return or_(in_labels, *plain)


def segment_pages(
    filters: SegmentFilter | None,
    limit: int | None,
    offset: int = 0,
    place: Place | None = None,
    few: Sequence[ColumnElement[bool]] = (),
) -> list[Select[Any]]:
    """Statements whose rows, merged newest first, are the page; ``offset`` is applied here only when there is one statement.

    Several kinds that lead make a statement each: one index cannot give two kinds in one order.
    """
    filters = filters or SegmentFilter()
    if place is not None and filters.started_to_ns > place[0]:
        filters = replace(filters, started_to_ns=0)  # of two ends an index can only begin at one
    lead, conditions = segment_conditions(filters, few)
    if place is not None:
        conditions.append(after(segments, place))
    order = (segments.c.started_ns.desc(), segments.c.id.desc())
    if lead == "kinds" and len(filters.kinds) > 1:
        most = None if limit is None else limit + offset
        rest = conditions[1:]
        return [select(segments).where(segments.c.kind == kind, *rest).order_by(*order).limit(most) for kind in sorted(set(filters.kinds))]
    return [select(segments).where(*conditions).order_by(*order).limit(limit).offset(offset)]


def segment_count(filters: SegmentFilter | None, at_most: int | None = None, few: Sequence[ColumnElement[bool]] = ()) -> Select[Any]:
    """How many segments; with ``at_most`` counting ends there, so that it costs no more than a page."""
    _, conditions = segment_conditions(filters or SegmentFilter(), few)
    if at_most is None:
        return select(func.count()).select_from(segments).where(*conditions)
    some = select(segments.c.id).where(*conditions).limit(at_most).subquery()
    return select(func.count()).select_from(some)
