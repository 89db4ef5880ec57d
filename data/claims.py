"""Leases on segments, so that two labelers do not review the same one, and blind doubles: a second opinion without sight of the first."""

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from takeover.data.catalog import Catalog, SegmentFilter
from takeover.data.catalog_current import parts
from takeover.data.catalog_tables import SegmentRow, claims, episodes, label_events, segments
from takeover.data.label_store import event_of, event_query

LEASE_S = 1800.0
BLIND_PERCENT = 15  # of the segments that are done, chosen by their id
_PAGE = 200
_MOST = 20_000


class ClaimError(ValueError):
    """A segment that cannot be claimed: somebody else has it, or there is none of that id."""


@dataclass(frozen=True)
class Claim:
    """Who has a segment until when (wall clock, ns)."""

    segment_id: str
    person: str
    expires_ns: int
    blind: bool = False


class Claims:
    """Leases of one catalog. They are no labels: they run out, and do not survive a catalog's loss."""

    def __init__(self, catalog: Catalog, lease_s: float = LEASE_S) -> None:
        if not 1.0 <= lease_s <= 86_400.0:
            raise ValueError(f"lease_s = {lease_s}; allowed 1 to 86400")
        self.catalog = catalog
        self._lease_ns = int(lease_s * 1e9)

    def claim(self, segment_id: str, person: str, blind: bool = False, now_ns: int = 0, leave: str = "") -> Claim:
        """Take or renew the lease of one segment, and give back the one to ``leave``, which is given back in any case.

        Raises `ClaimError` while somebody else has the segment.
        """
        now = now_ns or time.time_ns()
        if leave and leave != segment_id:
            self.release(leave, person)
        with self.catalog.writing("claims") as connection:
            if connection.execute(select(segments.c.id).where(segments.c.id == segment_id)).first() is None:
                raise ClaimError(f"there is no segment {segment_id!r}")
            other = _live(connection, [segment_id], now).get(segment_id)
            if other is not None and other.person != person:
                left_s = (other.expires_ns - now) / 1e9
                raise ClaimError(f"{other.person} has {segment_id}, for {left_s:.0f} s more; take another")
            return self._take(connection, segment_id, person, blind, now)

    def next(self, person: str, filters: SegmentFilter | None = None, now_ns: int = 0) -> SegmentRow | None:
        """Claim the newest open segment that nobody else has; among the newest, one's own claim that still runs comes first.

        None when there is none among the newest 20,000.
        """
        now = now_ns or time.time_ns()
        for rows in self._pages(replace(filters or SegmentFilter(), state="open")):
            taken = self.held([row.id for row in rows], now)
            free = [row for row in rows if row.id not in taken or taken[row.id].person == person]
            for row in sorted(free, key=lambda row: row.id not in taken):
                if self._took(row.id, person, False, now):
                    return row
        return None

    def next_blind(
        self, person: str, filters: SegmentFilter | None = None, percent: int = BLIND_PERCENT, now_ns: int = 0
    ) -> SegmentRow | None:
        """Claim a segment that somebody else has submitted, for a second opinion; None when there is none.

        The row has nobody's labels but the person's own second opinion, and the outcome as recorded. ``percent`` of all segments are
        doubled, the same ones for everyone. Each is doubled once. The newest 20,000 segments are looked through.
        """
        now = now_ns or time.time_ns()
        for rows in self._pages(replace(filters or SegmentFilter(), state="done")):
            chosen = [row for row in rows if zlib.crc32(row.id.encode()) % 100 < percent]
            ids = [row.id for row in chosen]
            with self.catalog.engine.connect() as connection:
                taken, seen = _live(connection, ids, now), _concerned(connection, ids, person)
            for row in chosen:
                if row.id not in seen and (row.id not in taken or taken[row.id].person == person) and self._took(row.id, person, True, now):
                    return hidden(self.catalog, row, person)
        return None

    def release(self, segment_id: str, person: str) -> None:
        """Give a segment back; nothing happens when the person does not have it."""
        with self.catalog.writing("claims") as connection:
            connection.execute(delete(claims).where(claims.c.segment_id == segment_id, claims.c.person == person))

    def renew(self, person: str, now_ns: int = 0) -> int:
        """Extend all leases of a person that still run; returns how many."""
        now = now_ns or time.time_ns()
        with self.catalog.writing("claims") as connection:
            mine = (claims.c.person == person) & (claims.c.expires_ns > now)
            return connection.execute(update(claims).where(mine).values(expires_ns=now + self._lease_ns)).rowcount

    def held(self, segment_ids: Sequence[str], now_ns: int = 0) -> dict[str, Claim]:
        """{segment: who has it now}."""
        with self.catalog.engine.connect() as connection:
            return _live(connection, segment_ids, now_ns or time.time_ns())

    def running(self, now_ns: int = 0) -> dict[str, Claim]:
        """{segment: who has it now} of every lease there is: a few per labeler."""
        with self.catalog.engine.connect() as connection:
            query = select(claims).where(claims.c.expires_ns > (now_ns or time.time_ns()))
            return {row.segment_id: Claim(row.segment_id, row.person, row.expires_ns, bool(row.blind)) for row in connection.execute(query)}

    def _took(self, segment_id: str, person: str, blind: bool, now: int) -> bool:
        """Take it unless somebody was faster. The search is done before, so that nobody waits for it."""
        with self.catalog.writing("claims") as connection:
            other = _live(connection, [segment_id], now).get(segment_id)
            if other is not None and other.person != person:
                return False
            self._take(connection, segment_id, person, blind, now)
        return True

    def _take(self, connection: Connection, segment_id: str, person: str, blind: bool, now: int) -> Claim:
        made = Claim(segment_id, person, now + self._lease_ns, blind)
        connection.execute(delete(claims).where((claims.c.segment_id == segment_id) | (claims.c.expires_ns <= now)))  # few rows for ever
        connection.execute(insert(claims), [vars(made)])
        return made

    def _pages(self, filters: SegmentFilter) -> "_Pages":
        return _Pages(self.catalog, filters)


class _Pages:
    """All segments of a filter, newest first, a page at a time."""

    def __init__(self, catalog: Catalog, filters: SegmentFilter) -> None:
        self._catalog, self._filters = catalog, filters
        self._place: tuple[int, str] | None = None
        self._seen = 0

    def __iter__(self) -> "_Pages":
        return self

    def __next__(self) -> list[SegmentRow]:
        rows = self._catalog.segments(self._filters, limit=_PAGE, place=self._place)
        if not rows or self._seen >= _MOST:
            raise StopIteration
        self._seen += len(rows)
        self._place = (rows[-1].started_ns, rows[-1].id)
        return rows


def hidden(catalog: Catalog, row: SegmentRow, person: str) -> SegmentRow:
    """A segment as a second labeler may see it."""
    with catalog.engine.connect() as connection:
        recorded = connection.execute(select(episodes.c.outcome).where(episodes.c.id == row.episode_id)).scalar()
        query = event_query().where(label_events.c.target == row.id, label_events.c.author == person, label_events.c.blind.is_(True))
        own = [event_of(found) for found in connection.execute(query.order_by(label_events.c.wall_ns, label_events.c.id))]
    labels = {event.field: event.value for event in own}
    shown = {field: value for field, value in labels.items() if value}
    return msgspec.structs.replace(row, labels=shown, episode_outcome=str(recorded))


def _live(connection: Connection, ids: Sequence[str], now: int) -> dict[str, Claim]:
    found = {}
    for part in parts(ids):
        query = select(claims).where(claims.c.segment_id.in_(part), claims.c.expires_ns > now)
        for row in connection.execute(query):
            found[row.segment_id] = Claim(row.segment_id, row.person, row.expires_ns, bool(row.blind))
    return found


def _concerned(connection: Connection, ids: Sequence[str], person: str) -> set[str]:
    """Segments that the person has labelled, or that have their second opinion already."""
    found: set[str] = set()
    for part in parts(ids):
        query = select(label_events.c.target).where(
            label_events.c.target.in_(part), (label_events.c.author == person) | (label_events.c.blind.is_(True))
        )
        found.update(connection.execute(query).scalars())
    return found
