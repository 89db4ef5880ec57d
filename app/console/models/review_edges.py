"""The edges of a segment that a labeler can move: what counts of it (trim), and when its reason began (onset). Pure."""

from dataclasses import dataclass, replace

from takeover.app.console.models.review_items import ReviewItem

BEFORE_S = 0.75  # of the policy's steps before an early onset count as what went wrong


@dataclass(frozen=True)
class Edges:
    """A segment of steps ``start`` to ``end``, of which ``first`` to ``last`` count (all included); ``onset`` is None where there is none
    to move: only a takeover has one."""

    start: int
    end: int
    first: int
    last: int
    onset: int | None

    @classmethod
    def of(cls, item: ReviewItem) -> "Edges":
        """As the labels say. A blind segment has none to move."""
        first, last = item.trim
        return cls(item.start_step, item.end_step - 1, first, last, item.onset if item.reason == "takeover" else None)

    def moved(self, grip: str, step: int) -> "Edges":
        """With ``grip`` ("first", "last", "onset") at ``step`` or as near as it can go. Raises `ValueError` for another name."""
        if grip == "first":
            return replace(self, first=min(self.last, max(self.start, step)))
        if grip == "last":
            return replace(self, last=max(self.first, min(self.end, step)))
        if grip == "onset":
            return self if self.onset is None else replace(self, onset=min(self.end, max(0, step)))
        raise ValueError(f"no grip {grip!r}; known: first, last, onset")

    @property
    def trimmed(self) -> bool:
        return (self.first, self.last) != (self.start, self.end)

    def label(self, grip: str) -> tuple[str, str]:
        """(field, value) that says where ``grip`` is; "" where it is as recorded."""
        if grip == "onset":
            return "onset", "" if self.onset in (None, self.start) else str(self.onset)
        return "trim", f"{self.first}-{self.last}" if self.trimmed else ""
