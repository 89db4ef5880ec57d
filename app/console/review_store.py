"""What Review asks of the catalog and writes to it. Called from the page's worker thread only."""

import datetime
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from takeover.app.console.models.review_episode import LoadedEpisode, load_episode
from takeover.app.console.models.review_items import (
    CAUSES,
    LEAST_DOUBLES,
    Doubles,
    Hold,
    KappaCell,
    Names,
    ReviewItem,
    ReviewTotals,
    median_gap_s,
)
from takeover.app.console.review_lease import ClaimError, Lease
from takeover.data.agreement import Agreement, by_class, cohen_kappa, doubled
from takeover.data.blind import SecondOpinion, second_opinions
from takeover.data.catalog import Catalog
from takeover.data.catalog_tables import LabelEvent
from takeover.data.claims import BLIND_PERCENT, LEASE_S
from takeover.data.label_fields import AGREEMENT_FIELDS, TRAINING_FIELDS
from takeover.data.label_names import known_subtasks, known_tags
from takeover.data.labels import LabelError, Labels
from takeover.data.queue_rows import NO_LABELS, QueueEpisode, QueueSegment, decisions_since, queue_rows
from takeover.data.workspace import Workspace

MOST_ROWS = 2000  # newest segments the queue holds
MOST_DOUBLES = 2000  # newest blind labels that the agreement is of
BLIND_FIELDS = (*AGREEMENT_FIELDS, "review", "note")  # what a second opinion is about


@dataclass(frozen=True)
class Queue:
    """Everything the page shows of the catalog at one moment. ``held``: who has which segment now."""

    items: list[ReviewItem]
    totals: ReviewTotals
    episodes: int  # recorded in the workspace, whether flagged or not
    held: dict[str, Hold] = field(default_factory=dict)


@dataclass(frozen=True)
class Undone:
    """What undo or redo changed, for the message and to go there. ``target`` is a segment or an episode."""

    target: str
    episode_id: str
    text: str


class ReviewStore:
    """One person's view of a workspace's segments and labels.

    ``lease_s``: how long a segment stays this person's without a renewal. ``blind_percent``: of what others have submitted, how much is
    offered for a second, blind opinion.
    """

    def __init__(self, workspace: Path, person: str, lease_s: float = LEASE_S, blind_percent: int = BLIND_PERCENT) -> None:
        self.person, self.blind_percent = person, blind_percent
        self.workspace = Workspace(workspace)
        self._lease_s = lease_s
        self._catalog: Catalog | None = None
        self._labels: Labels | None = None
        self._lease: Lease | None = None
        self._episodes: dict[str, QueueEpisode] = {}
        self._changes = -1
        self._queue: Queue | None = None
        self._used: tuple[tuple[int, int, str], str] | None = None

    def _open(self) -> tuple[Catalog, Labels]:
        if self._catalog is None or self._labels is None:
            self.workspace.path.mkdir(parents=True, exist_ok=True)
            self._catalog = Catalog.open(self.workspace)
            self._labels = Labels(self.workspace, self._catalog)
            self._lease = Lease(self._catalog, self.person, self._lease_s)
        return self._catalog, self._labels

    @property
    def lease(self) -> Lease:
        self._open()
        if self._lease is None:
            raise RuntimeError("the catalog is closed")
        return self._lease

    def close(self) -> None:
        """Give the open segment back and close the catalog."""
        if self._catalog is not None:
            try:
                self.lease.leave()
            finally:
                self._catalog.close()
                self._catalog = self._labels = self._lease = None

    def queue(self) -> Queue:
        """Newest first. Costs two numbers and the few leases when nothing has changed since the last call."""
        catalog, _ = self._open()
        changes = catalog.change_counter()
        if self._queue is None or changes != self._changes:
            rows, episodes = queue_rows(catalog, MOST_ROWS)
            self._changes, self._episodes = changes, episodes
            today = datetime.datetime.now().astimezone().date()
            started = {key: _started(row, today) for key, row in episodes.items()}
            done = [row.id for row in rows if row.labels.get("review") == "submitted"]
            seconds = second_opinions(catalog, done, self.person, self.blind_percent)
            items = [_item(row, episodes[row.episode_id], started[row.episode_id], seconds.get(row.id)) for row in rows]
            total = sum(session.episodes for session in catalog.sessions())
            self._queue = Queue(items, self._totals(items), total)
        held = self.lease.held()
        if held != self._queue.held:
            self._queue = replace(self._queue, held=held)
        return self._queue

    def _totals(self, items: Sequence[ReviewItem]) -> ReviewTotals:
        catalog, _ = self._open()
        midnight = datetime.datetime.now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
        decided: dict[str, float] = {}
        for target, value, wall_ns in decisions_since(catalog, int(midnight.timestamp() * 1e9), self.person):
            if value in ("submitted", "unsure"):
                decided[target] = wall_ns / 1e9
            else:
                decided.pop(target, None)
        causes = {str(cause): 0 for cause, _ in CAUSES}
        for item in items:
            given = item.labels.get("cause", "")
            if given in causes:
                causes[given] += 1
        return ReviewTotals(len(decided), median_gap_s(list(decided.values())), sum(1 for item in items if item.open), causes)

    def doubles(self) -> Doubles:
        """How far the newest blind second opinions agree with the first on the cause."""
        catalog, _ = self._open()
        pairs = [pair for some in doubled(catalog, "cause", MOST_DOUBLES).values() for pair in some]
        if not pairs:
            return Doubles()
        classes = by_class(pairs, [str(cause) for cause, _ in CAUSES])
        return Doubles(len(pairs), _cell("overall", cohen_kappa("cause", pairs)), [_cell(name, one) for name, one in classes.items()])

    def names(self) -> Names:
        catalog, _ = self._open()
        return Names(known_tags(catalog), known_subtasks(catalog))

    def used(self, item: ReviewItem) -> str:
        """Which update of a learner was the first with the segment's labels, "" when nothing of it is learned from or it is blind."""
        catalog, labels = self._open()
        key = (catalog.change_counter(), catalog.change_counter("uses"), item.segment_id)
        if self._used is None or self._used[0] != key:
            self._used = (key, "" if item.blind else _used_text(labels, item))
        return self._used[1]

    def used_text(self, shown: ReviewItem, last: ReviewItem | None) -> str:
        """What became of the labels of what is shown; where there is nothing to say, of what was labelled ``last``."""
        text = self.used(shown)
        if text or last is None or last.segment_id == shown.segment_id:
            return text and f"Label {text}"
        text = self.used(last)
        return text and f"Label of ep {last.episode_number} {text}"

    def load(self, episode_id: str) -> LoadedEpisode:
        """The episode's file. Raises KeyError, FileNotFoundError or DamagedFile."""
        catalog, _ = self._open()
        row = self._episodes.get(episode_id) or catalog.episode(episode_id)
        return load_episode(self.workspace.path / row.path)

    def take(self, item: ReviewItem) -> Hold:
        """Have the segment's lease instead of the one before; whose it is when it cannot be had."""
        return self.lease.take(item.segment_id, item.blind)

    def renew(self) -> None:
        """Extend the open segment's lease when part of it has run; called again and again while it is open."""
        self.lease.renew()

    def leave(self) -> None:
        """Give the open segment back."""
        self.lease.leave()

    def label(self, item: ReviewItem, field: str, value: str) -> Queue:
        """One act: one event. An outcome belongs to the episode, everything else to the segment.

        Raises `LabelError`, and `ClaimError` while somebody else has the segment.
        """
        return self.decide(item, [(field, value)], again=True)

    def decide(self, item: ReviewItem, labels: Sequence[tuple[str, str]], again: bool = False) -> Queue:
        """Several labels of one act: they carry the same time, so that undo takes them back together.

        ``again``: also what is so already, as far as was known when the person acted.
        """
        self.lease.keep(item.segment_id)
        now = time.time_ns()
        for name, value in labels:
            if item.blind and name not in BLIND_FIELDS:
                raise LabelError(f"a second opinion has no {name}; it is about {', '.join(AGREEMENT_FIELDS)}")
            if again or item.labels.get(name, "") != value:
                target = item.episode_id if name == "outcome" else item.segment_id
                self._open()[1].add_label(target, name, value, self.person, 0 if again else now, blind=item.blind)
        return self.queue()

    def undo(self) -> tuple[Undone, Queue]:
        """Take back the person's last act. Raises `LabelError` when there is none."""
        return self._step("undo")

    def redo(self) -> tuple[Undone, Queue]:
        return self._step("redo")

    def _step(self, action: str) -> tuple[Undone, Queue]:
        _, labels = self._open()
        step = labels.undo if action == "undo" else labels.redo
        done = [step(self.person)]
        history = {event.id: event for event in labels.history(done[0].target)}
        first = history[done[0].refers_to]
        same_act = [event for event in history.values() if event.action == "set" and _same_act(event, first)]
        for _ in same_act:
            done.append(step(self.person))
        named = [history.get(event.refers_to, event) for event in done]
        text = ", ".join(f"{event.field} {event.value}".strip() for event in named if event.field != "review" or len(named) == 1)
        return Undone(first.target, first.episode_id, f"{action.capitalize()}: {text}"), self.queue()


def _same_act(event: LabelEvent, other: LabelEvent) -> bool:
    return event.id != other.id and event.wall_ns == other.wall_ns and event.author == other.author


def _started(episode: QueueEpisode, today: datetime.date) -> str:
    started = datetime.datetime.fromtimestamp(episode.started_ns / 1e9).astimezone()
    return f"{started:%H:%M}" if started.date() == today else f"{started:%d %b %H:%M}"


def _item(row: QueueSegment, episode: QueueEpisode, started: str, second: SecondOpinion | None) -> ReviewItem:
    blind = second is not None and not second.finished
    return ReviewItem(
        segment_id=row.id,
        episode_id=row.episode_id,
        reason=row.kind,
        episode_number=episode.number,
        start_step=row.start_step,
        end_step=row.end_step + 1,
        control_hz=episode.control_hz,
        policy_version=row.policy_version,
        operator=row.operator,
        started=started,
        task=episode.task_id,
        kind=episode.kind,
        outcome=second.recorded_outcome if second is not None and blind else episode.outcome,
        has_pictures=episode.has_pictures,
        session_id=episode.session_id,
        labels=second.labels if second is not None and blind else row.labels,
        blind=blind,
        second=second.labels if second is not None and not blind else NO_LABELS,
    )


def _cell(name: str, found: Agreement) -> KappaCell:
    known = found.n >= LEAST_DOUBLES and math.isfinite(found.kappa)
    return KappaCell(name, found.n, found.kappa if known else None)


def _used_text(labels: Labels, item: ReviewItem) -> str:
    """``in update 1,240 after 0.8 s``: of the newest label that a learner has used."""
    events = {one.id: one for target in (item.segment_id, item.episode_id) for one in labels.history(target)}
    uses = [one for target in (item.segment_id, item.episode_id) for one in labels.uses(target) if one.event_id in events]
    if uses:
        newest = max(uses, key=lambda one: (events[one.event_id].wall_ns, one.wall_ns))
        after_s = max(0.0, (newest.wall_ns - events[newest.event_id].wall_ns) / 1e9)
        version = f", in v{newest.policy_version}" if newest.policy_version else ""
        return f"in update {newest.update_number:,} after {_span(after_s)}{version}"
    learned = any(one.field in TRAINING_FIELDS and not one.blind for one in events.values())
    return "not in an update yet" if learned else ""


def _span(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


__all__ = ["ClaimError", "LabelError", "Queue", "ReviewStore", "Undone"]
