"""What Review asks of the catalog and writes to it. Called from the page's worker thread only."""

import datetime
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from takeover.app.console.models.review import CAUSES, ReviewItem, ReviewTotals, median_gap_s
from takeover.app.console.models.review_episode import LoadedEpisode, load_episode
from takeover.data.catalog import Catalog
from takeover.data.catalog_tables import EpisodeRow, LabelEvent, SegmentRow
from takeover.data.labels import LabelError, Labels
from takeover.data.workspace import Workspace

MOST_ROWS = 2000  # newest segments the queue holds


@dataclass(frozen=True)
class Queue:
    """Everything the page shows of the catalog at one moment."""

    items: list[ReviewItem]
    totals: ReviewTotals
    episodes: int  # recorded in the workspace, whether flagged or not


@dataclass(frozen=True)
class Undone:
    """What undo or redo changed, for the message and to go there. ``target`` is a segment or an episode."""

    target: str
    episode_id: str
    text: str


class ReviewStore:
    """One person's view of a workspace's segments and labels."""

    def __init__(self, workspace: Path, person: str) -> None:
        self.person = person
        self.workspace = Workspace(workspace)
        self._catalog: Catalog | None = None
        self._labels: Labels | None = None
        self._episodes: dict[str, EpisodeRow] = {}
        self._changes = -1
        self._queue: Queue | None = None

    def _open(self) -> tuple[Catalog, Labels]:
        if self._catalog is None or self._labels is None:
            self.workspace.path.mkdir(parents=True, exist_ok=True)
            self._catalog = Catalog.open(self.workspace)
            self._labels = Labels(self.workspace, self._catalog)
        return self._catalog, self._labels

    def close(self) -> None:
        if self._catalog is not None:
            self._catalog.close()
            self._catalog = self._labels = None

    def queue(self) -> Queue:
        """Newest first. Costs one number when nothing has changed since the last call."""
        catalog, _ = self._open()
        changes = catalog.change_counter()
        if self._queue is None or changes != self._changes:
            self._changes = changes
            rows = catalog.segments(limit=MOST_ROWS)
            ids = sorted({row.episode_id for row in rows})
            self._episodes = {row.id: row for row in catalog.episodes(ids=ids)}
            today = datetime.datetime.now().astimezone().date()
            started = {key: _started(row, today) for key, row in self._episodes.items()}
            items = [_item(row, self._episodes[row.episode_id], started[row.episode_id]) for row in rows]
            total = sum(session.episodes for session in catalog.sessions())
            self._queue = Queue(items, self._totals(items), total)
        return self._queue

    def _totals(self, items: Sequence[ReviewItem]) -> ReviewTotals:
        _, labels = self._open()
        midnight = datetime.datetime.now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
        decided: dict[str, float] = {}
        for event in labels.events_since(int(midnight.timestamp() * 1e9), self.person):
            if event.field == "review":
                if event.value in ("submitted", "unsure"):
                    decided[event.target] = event.wall_ns / 1e9
                else:
                    decided.pop(event.target, None)
        causes = {str(cause): sum(1 for item in items if item.labels.get("cause") == cause) for cause, _ in CAUSES}
        open_count = sum(1 for item in items if item.open)
        return ReviewTotals(len(decided), median_gap_s(list(decided.values())), open_count, causes)

    def load(self, episode_id: str) -> LoadedEpisode:
        """The episode's file. Raises KeyError, FileNotFoundError or DamagedFile."""
        catalog, _ = self._open()
        row = self._episodes.get(episode_id) or catalog.episode(episode_id)
        return load_episode(self.workspace.path / row.path)

    def label(self, item: ReviewItem, field: str, value: str) -> Queue:
        """One act: one event. An outcome belongs to the episode, everything else to the segment."""
        self._open()[1].add_label(item.episode_id if field == "outcome" else item.segment_id, field, value, self.person)
        return self.queue()

    def decide(self, item: ReviewItem, labels: Sequence[tuple[str, str]]) -> Queue:
        """Several labels of one act: they carry the same time, so that undo takes them back together."""
        now = time.time_ns()
        for field, value in labels:
            if item.labels.get(field, "") != value:
                self._open()[1].add_label(item.segment_id, field, value, self.person, now)
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


def _started(episode: EpisodeRow, today: datetime.date) -> str:
    started = datetime.datetime.fromtimestamp(episode.started_ns / 1e9).astimezone()
    return f"{started:%H:%M}" if started.date() == today else f"{started:%d %b %H:%M}"


def _item(row: SegmentRow, episode: EpisodeRow, started: str) -> ReviewItem:
    return ReviewItem(
        segment_id=row.id,
        episode_id=row.episode_id,
        reason=row.kind,
        episode_number=row.episode_number,
        start_step=row.start_step,
        end_step=row.end_step + 1,
        control_hz=episode.control_hz,
        policy_version=row.policy_version,
        operator=row.operator,
        started=started,
        task=row.task_id,
        kind=row.episode_kind,
        outcome=row.episode_outcome,
        has_pictures=row.has_pictures,
        session_id=row.session_id,
        labels=dict(row.labels),
    )


__all__ = ["LabelError", "Queue", "ReviewStore", "Undone"]
