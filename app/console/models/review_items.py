"""The rows of Review's queue: what is shown of a segment, which rows a filter leaves, which one comes next. Pure, no Qt, no files."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec
import numpy as np

from takeover.data.schema import Cause, EpisodeKind, InterventionKind, Outcome

CAUSES: tuple[tuple[Cause, str], ...] = (
    (Cause.VISION, "did not see it right"),
    (Cause.PLANNING, "wrong move chosen"),
    (Cause.TIMING, "right move, wrong moment"),
    (Cause.FORCE, "too much or too little"),
    (Cause.WEAR, "gripper or part worn"),
    (Cause.ASSUMPTION, "the scene had changed"),
    (Cause.OPERATOR, "person caused it"),
)
KINDS = [str(kind) for kind in InterventionKind]
OUTCOMES = [str(outcome) for outcome in Outcome]
QUALITIES = ["good", "different", "bad"]  # "different" is fine: another way than the labeler's, not a worse one

REASONS = {"takeover": ("hand", "Takeover"), "failure": ("xcirc", "Failure"), "safety": ("shield", "Safety hold")}
FILTERS = (("", "All"), ("takeover", "Takeover"), ("failure", "Failure"), ("safety", "Safety"))
LEAST_DOUBLES = 10  # below it a kappa says nothing
LEAST_KAPPA = 0.6  # below it labelers should talk


class ReviewItem(msgspec.Struct, frozen=True, kw_only=True, gc=False):  # thousands at once; none refers to itself
    """A row of the queue. ``start_step`` to ``end_step`` (exclusive) are among the episode's N steps.

    ``blind``: the person is to give a second opinion; ``labels`` are then only their own. ``second``: what they said blind, once done.
    """

    segment_id: str
    episode_id: str
    reason: str  # takeover, failure, safety
    episode_number: int
    start_step: int
    end_step: int
    control_hz: float
    policy_version: int
    operator: str
    started: str  # wall time of the episode, local, "12:31"
    task: str = ""
    kind: str = ""  # episode kind
    outcome: str = ""  # of the episode, as recorded or relabelled
    has_pictures: bool = False
    session_id: str = ""
    labels: dict[str, str] = {}  # field -> current value
    blind: bool = False
    second: dict[str, str] = {}

    @property
    def icon(self) -> str:
        return "dice" if self.blind else REASONS[self.reason][0]

    @property
    def title(self) -> str:
        return REASONS[self.reason][1]

    @property
    def at_s(self) -> float:
        return self.start_step / self.control_hz

    @property
    def detail(self) -> str:
        """Second line of the row."""
        place = f"at step {self.end_step}" if self.reason == "failure" else f"{self.at_s:.2f} s"
        alone = " · alone" if self.kind == EpisodeKind.EVALUATION else ""  # an evaluation or a no-help probe: not trained on
        return f"ep {self.episode_number}, {place}" + (f" · v{self.policy_version}" if self.policy_version else "") + alone

    @property
    def state(self) -> str:
        """Right side of the row: what was decided, else empty."""
        if self.labels.get("exclude") == "true":
            return "excluded"
        if self.labels.get("cause"):
            return self.labels["cause"]
        if self.blind and not self.labels.get("review"):
            return "blind"
        return {"submitted": "done"}.get(self.labels.get("review", ""), self.labels.get("review", ""))

    @property
    def open(self) -> bool:
        """Nobody has decided yet; a skipped or flagged one stays open. A blind one is open until its second opinion is given."""
        if self.blind:
            return True
        return self.labels.get("review", "") not in ("submitted", "unsure") and self.labels.get("exclude") != "true"

    @property
    def flagged(self) -> bool:
        return self.labels.get("review") == "flagged"

    @property
    def tags(self) -> list[str]:
        return sorted(name[4:] for name, value in self.labels.items() if name.startswith("tag:") and value == "true")

    @property
    def trim(self) -> tuple[int, int]:
        """(first, last) step that counts, both included; the whole segment where it is not trimmed."""
        first, _, last = self.labels.get("trim", "").partition("-")
        return (int(first), int(last)) if first and last else (self.start_step, self.end_step - 1)

    @property
    def onset(self) -> int:
        """The step at which the reason began; the segment's first where nobody has moved it."""
        return int(self.labels.get("onset", self.start_step))


@dataclass(frozen=True)
class Hold:
    """Who has a segment, until when (wall clock, ns)."""

    person: str
    expires_ns: int
    mine: bool = False

    def text(self, now_ns: int) -> str:
        """``you, 27 min left``."""
        left = max(0, self.expires_ns - now_ns) / 60e9
        return f"{'you' if self.mine else self.person}, " + (f"{left:.0f} min left" if left >= 1 else "under 1 min left")


def others(held: Mapping[str, Hold]) -> set[str]:
    """Segments that somebody else has."""
    return {key for key, hold in held.items() if not hold.mine}


def matches(item: ReviewItem, reason: str, search: str) -> bool:
    """Filter chip and search words: a number is an episode's number; any other word must occur in reason, cause, person, version, note,
    or a tag's name."""
    if reason and item.reason != reason:
        return False
    if not search:
        return True
    parts = [f"ep episode {item.title}", item.operator, f"v{item.policy_version}", item.episode_id, item.outcome]
    parts += ["blind"] if item.blind else []
    text = " ".join([*parts, *item.labels.values(), *item.tags]).lower()
    return all(int(word) == item.episode_number if word.isdecimal() else word in text for word in search.lower().split())


def counts(items: Sequence[ReviewItem]) -> dict[str, int]:
    """Rows per filter chip ("" is all)."""
    return {reason: sum(1 for item in items if not reason or item.reason == reason) for reason, _ in FILTERS}


def next_index(
    items: Sequence[ReviewItem], current: int, direction: int = 1, only_open: bool = False, decided: Collection[str] = ()
) -> int:
    """The row after (or before) ``current``; with ``only_open`` the next undecided one, wrapping round. ``current`` if there is none.

    ``decided``: segments to pass over: their decision is still being written, or somebody else has them.
    """
    if not items:
        return -1
    if not only_open:
        return min(len(items) - 1, max(0, current + direction))
    for offset in range(1, len(items)):
        index = (current + direction * offset) % len(items)
        if items[index].open and items[index].segment_id not in decided:
            return index
    return current


@dataclass(frozen=True)
class ReviewTotals:
    """Footer: ``done_today`` by this person, ``median_s`` between their decisions (None: too few), all causes given so far."""

    done_today: int
    median_s: float | None
    open: int
    causes: dict[str, int]


@dataclass(frozen=True)
class KappaCell:
    """Agreement on one cause, or on all of them: ``n`` doubles, ``kappa`` None where it is not defined or n is too small to say."""

    name: str
    n: int
    kappa: float | None

    @property
    def low(self) -> bool:
        """Labelers should talk about this one."""
        return self.kappa is not None and self.kappa < LEAST_KAPPA

    @property
    def text(self) -> str:
        return "n too small" if self.kappa is None else f"{self.kappa:.2f}".replace("-", "−")


@dataclass(frozen=True)
class Doubles:
    """Agreement of blind doubles on the cause; ``pairs`` 0: there are none yet."""

    pairs: int = 0
    overall: KappaCell = KappaCell("overall", 0, None)
    causes: list[KappaCell] = field(default_factory=list)


@dataclass(frozen=True)
class Names:
    """Tags and subtasks used so far, for completion."""

    tags: list[str]
    subtasks: list[str]


def median_gap_s(times_s: Sequence[float], longest_s: float = 300.0) -> float | None:
    """Median seconds between consecutive decisions; longer gaps are breaks, not work. None with fewer than two."""
    ordered = sorted(times_s)
    gaps = [after - before for before, after in pairwise(ordered) if after - before <= longest_s]
    return float(np.median(gaps)) if gaps else None
