"""Which recorded episodes are meant: filters that the catalog answers with its indexes, names and dates from the command line."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select

from takeover.data.catalog import Catalog
from takeover.data.catalog_queries import episode_row
from takeover.data.catalog_tables import EpisodeRow, episodes
from takeover.data.episode_pages import EpisodeFilter as EpisodeFilter
from takeover.data.episode_pages import SelectionError as SelectionError
from takeover.data.episode_pages import episode_conditions, episode_page

DEFAULT_LIMIT = 50


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
