"""The lease on the segment that is open in Review: taken when it is opened, renewed while it is, given back on leaving it."""

import time

from takeover.app.console.models.review_items import Hold
from takeover.data.catalog import Catalog
from takeover.data.claims import LEASE_S, Claim, ClaimError, Claims

RENEW_BELOW = 0.8  # of the lease: renewed when less is left


class Lease:
    """One console's hold on one segment. Called from the page's worker thread only."""

    def __init__(self, catalog: Catalog, person: str, lease_s: float = LEASE_S) -> None:
        self.person = person
        self._claims = Claims(catalog, lease_s)
        self._lease_ns = int(lease_s * 1e9)
        self._mine: Claim | None = None

    @property
    def segment_id(self) -> str:
        """The segment this console has, "" for none."""
        return self._mine.segment_id if self._mine else ""

    def take(self, segment_id: str, blind: bool) -> Hold:
        """Have this segment instead of the one before. The answer is not ``mine`` when somebody else has it: then none is had."""
        leave, self._mine = self.segment_id, None
        try:
            self._mine = self._claims.claim(segment_id, self.person, blind, leave=leave)
        except ClaimError:
            other = self._claims.held([segment_id]).get(segment_id)
            if other is None or other.person == self.person:  # given back just now: try once more
                self._mine = self._claims.claim(segment_id, self.person, blind)
            else:
                return Hold(other.person, other.expires_ns)
        return Hold(self.person, self._mine.expires_ns, True)

    def keep(self, segment_id: str) -> None:
        """Before a label is written: the segment must not be somebody else's. Raises `ClaimError` saying whose it is and how long."""
        other = self._claims.held([segment_id]).get(segment_id)
        if other is not None and other.person != self.person:
            if segment_id == self.segment_id:
                self._mine = None  # it ran out, and somebody was there
            minutes = max(1, round((other.expires_ns - time.time_ns()) / 60e9))
            raise ClaimError(f"not saved: {other.person} has this segment, for {minutes} min more; go on to another one")

    def renew(self) -> None:
        """Extend the lease when part of it has run. One that somebody else has taken meanwhile is given up."""
        if self._mine is None or self._mine.expires_ns - time.time_ns() > RENEW_BELOW * self._lease_ns:
            return
        try:
            self._mine = self._claims.claim(self._mine.segment_id, self.person, self._mine.blind)
        except ClaimError:
            self._mine = None

    def leave(self) -> None:
        """Give back what is had."""
        if self._mine is not None:
            self._claims.release(self._mine.segment_id, self.person)
            self._mine = None

    def held(self) -> dict[str, Hold]:
        """Every running lease, by segment."""
        return {key: Hold(one.person, one.expires_ns, one.person == self.person) for key, one in self._claims.running().items()}


__all__ = ["ClaimError", "Lease"]
