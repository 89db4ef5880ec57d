"""Pages of episodes by task, operator, version, outcome, cause, kind, date, session or name, for `takeover data ls` and the like."""

from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Select, exists, or_, select

from takeover.data.catalog_queries import Place, after, aside
from takeover.data.catalog_tables import episodes, segments


class EpisodeFields(Protocol):
    """What a filter of episodes has; "" and -1 do not filter. Times are wall clock in ns, of the start: from <= start < to."""

    @property
    def task(self) -> str: ...
    @property
    def operator(self) -> str: ...
    @property
    def policy_version(self) -> int: ...
    @property
    def outcome(self) -> str:
        """The current one."""

    @property
    def cause(self) -> str:
        """Of any segment."""

    @property
    def kind(self) -> str: ...
    @property
    def has_intervention(self) -> bool: ...
    @property
    def session(self) -> str: ...
    @property
    def name(self) -> str:
        """An id, its beginning or its end."""

    @property
    def from_ns(self) -> int: ...
    @property
    def to_ns(self) -> int: ...


@dataclass(frozen=True)
class EpisodeChoice:
    """See `EpisodeFields`."""

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


def episode_conditions(filters: EpisodeFields, place: Place | None = None, newest_first: bool = True) -> list[ColumnElement[bool]]:
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
    filters: EpisodeFields, limit: int | None = 50, offset: int = 0, place: Place | None = None, newest_first: bool = True
) -> Select[Any]:
    """Rows for `catalog_queries.episode_row`; ``place`` is the last row of the page before, cheaper than an offset."""
    conditions = episode_conditions(filters, place, newest_first)
    if place is not None:
        conditions.append(after(episodes, place, newest_first))
    order = (episodes.c.started_ns, episodes.c.id)
    query = select(episodes).where(*conditions).limit(limit).offset(offset)
    return query.order_by(*(column.desc() for column in order)) if newest_first else query.order_by(*order)
