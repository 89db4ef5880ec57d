"""Which recorded episodes are meant: filters that the catalog answers with its indexes, names and dates from the command line."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select

from takeover.data.catalog import Catalog
from takeover.data.catalog_queries import episode_row
from takeover.data.catalog_tables import EpisodeRow, episodes
from takeover.data.episode_pages import episode_conditions, episode_page
from takeover.data.schema import Cause, EpisodeKind, Outcome

DEFAULT_LIMIT = 50
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


def day_range(since: str, until: str) -> tuple[int, int]:
    """(from_ns, to_ns) of two dates or times (ISO, UTC unless they say otherwise); a date as ``until`` counts to its end. "": open.

    Raises `SelectionError`.
    """
    first = _moment(since)[0] if since else 0
    if not until:
        return first, 0
    last, whole_day = _moment(until)
    return first, last + (timedelta(days=1) // timedelta(microseconds=1) * 1000 if whole_day else 0)


def _moment(text: str) -> tuple[int, bool]:
    """Nanoseconds since 1970 and whether ``text`` is a date without a time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SelectionError(f"{text!r} is not a date; write 2026-05-31 or 2026-05-31T14:30 (UTC)") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000, len(text) <= len("2026-05-31")


def select_episodes(
    catalog: Catalog, filters: EpisodeFilter, limit: int | None = DEFAULT_LIMIT, offset: int = 0, oldest_first: bool = False
) -> list[EpisodeRow]:
    """Episodes that pass, newest first unless asked otherwise, with current outcome and exclusion."""
    query = episode_page(filters, limit, offset, newest_first=not oldest_first)
    with catalog.engine.connect() as connection:
        return [episode_row(dict(row._mapping)) for row in connection.execute(query)]


def count_episodes(catalog: Catalog, filters: EpisodeFilter) -> int:
    """How many pass."""
    query = select(func.count()).select_from(episodes).where(*episode_conditions(filters))
    with catalog.engine.connect() as connection:
        return int(connection.execute(query).scalar() or 0)
