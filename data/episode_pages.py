"""Pages of episodes by task, operator, version, outcome, cause, kind, date, session or name, for `takeover data ls` and the like."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, or_, select

from takeover.data.catalog_queries import Place, after, aside
from takeover.data.catalog_tables import episodes, segments
from takeover.data.schema import Cause, EpisodeKind, Outcome

_KNOWN = {
    "outcome": tuple(outcome.value for outcome in Outcome),
    "cause": tuple(cause.value for cause in Cause),
    "kind": tuple(kind.value for kind in EpisodeKind),
}


class SelectionError(ValueError):
    """A filter that cannot be: an unknown outcome, cause or kind, a date that is none. Says what is allowed."""


@dataclass(frozen=True)
class EpisodeFilter:
    """Which episodes. Empty fields do not filter; all that are given must hold.

    ``outcome`` is the current one (a label over the record), ``cause`` that of any segment of the episode; ``name`` is an id, its
    beginning or its end. Times are wall clock in nanoseconds, of the episode's start: from <= start < to. Raises `SelectionError`.
    """

    task: str = ""
    operator: str = ""
    policy_version: int = -1
    outcome: str = ""
    cause: str = ""
    kind: str = ""
    has_intervention: bool = False
    session: str = ""
    name: str = ""
    from_ns: int = 0
    to_ns: int = 0

    def __post_init__(self) -> None:
        for field, known in _KNOWN.items():
            value = getattr(self, field)
            if value and value not in known:
                raise SelectionError(f"unknown {field} {value!r}; known: {', '.join(known)}")
        if self.policy_version < -1:
            raise SelectionError(f"policy version {self.policy_version}; 0 (none) or more is needed")
        if self.to_ns and self.to_ns <= self.from_ns:
            raise SelectionError("the end of the time range is not after its beginning")

    @property
    def empty(self) -> bool:
        """Whether every episode is meant."""
        return self == EpisodeFilter()


def episode_conditions(filters: EpisodeFilter, place: Place | None = None, newest_first: bool = True) -> list[ColumnElement[bool]]:
    """What must hold: the filter that leaves least leads, the others choose no index. ``place``: see `episode_page`."""
    columns = episodes.c
    found: list[ColumnElement[bool]] = []
    plain: list[tuple[Any, Any]] = [
        (columns.session_id, filters.session),
        (columns.policy_version, filters.policy_version if filters.policy_version >= 0 else ""),
        (columns.operator, filters.operator),
        (columns.current_outcome, filters.outcome),
        (columns.task_id, filters.task),
        (columns.kind, filters.kind),
    ]
    for column, value in plain:
        if value != "":
            found.append((aside(column) if found else column) == value)
    if filters.has_intervention:
        found += [columns.takeovers > 0, aside(columns.kind) != "demonstration"]
    if filters.cause:
        found.append(exists().where(segments.c.episode_id == columns.id, segments.c.cause == filters.cause))
    # of two ends on one side an index can only begin at one: the place is the nearer
    if filters.from_ns and (place is None or newest_first or filters.from_ns > place[0]):
        found.append(columns.started_ns >= filters.from_ns)
    if filters.to_ns and (place is None or not newest_first or filters.to_ns <= place[0]):
        found.append(columns.started_ns < filters.to_ns)
    if filters.name:
        escaped = filters.name.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        found.append(or_(*(columns.id.like(pattern, escape="\\") for pattern in (f"{escaped}%", f"%{escaped}"))))
    return found


def episode_page(
    filters: EpisodeFilter, limit: int | None = 50, offset: int = 0, place: Place | None = None, newest_first: bool = True
) -> Select[Any]:
    """Rows for `catalog_queries.episode_row`; ``place`` is the last row of the page before, cheaper than an offset."""
    conditions = episode_conditions(filters, place, newest_first)
    if place is not None:
        conditions.append(after(episodes, place, newest_first))
    order = (episodes.c.started_ns, episodes.c.id)
    query = select(episodes).where(*conditions).limit(limit).offset(offset)
    return query.order_by(*(column.desc() for column in order)) if newest_first else query.order_by(*order)
