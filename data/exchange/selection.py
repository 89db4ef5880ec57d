"""Which episodes leave the house, and which of their steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from takeover.data.catalog import Catalog
from takeover.data.catalog_queries import SegmentFilter
from takeover.data.catalog_tables import EpisodeRow, LabelEvent, SegmentRow
from takeover.data.exchange.errors import ExchangeError
from takeover.data.hdf5_image import DamagedFile, check_seal
from takeover.data.labels import Labels
from takeover.data.workspace import Workspace

ANONYMOUS = "anonymous"
DATED_BY = ("operator", "label")  # sources of an outcome that a person gave to a step


@dataclass(frozen=True)
class Selection:
    """What to export. Empty fields do not filter; times are UTC wall nanoseconds."""

    session_id: str = ""
    task_id: str = ""
    kinds: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    """Episode ids, whole or their endings."""
    started_from_ns: int = 0
    started_to_ns: int = 0
    include_excluded: bool = False
    """Also excluded episodes and segments; they get sample weight 0."""
    people: bool = True
    """Keep the pseudonyms of operators and labelers."""


@dataclass(frozen=True)
class Source:
    """An episode to export with what was said about it. ``left_out``: inclusive step ranges of excluded segments."""

    row: EpisodeRow
    path: Path
    segments: tuple[SegmentRow, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    events: tuple[LabelEvent, ...] = ()
    left_out: tuple[tuple[int, int], ...] = ()
    operator: str = ""

    @property
    def cause(self) -> str:
        """Causes named on its segments, the failure's first; several are joined with a comma."""
        causes = [
            s.labels["cause"] for s in sorted(self.segments, key=lambda s: (s.kind != "failure", s.start_step)) if s.labels.get("cause")
        ]
        return ",".join(dict.fromkeys(causes))

    @property
    def last_step(self) -> int:
        """The last step that counts: a person who dates the outcome back cuts off what came after."""
        dated = self.row.outcome_source in DATED_BY and self.row.outcome in ("success", "failure")
        return min(self.row.steps - 1, self.row.event_step) if dated and self.row.event_step >= 0 else self.row.steps - 1

    def identity(self) -> list[Any]:
        """JSON that changes when the file, its labels or what is left out of it change."""
        return [self.row.id, self.row.sha256, self.row.outcome, self.row.excluded, [event.id for event in self.events], list(self.left_out)]


def select(workspace: Workspace, catalog: Catalog, selection: Selection) -> list[Source]:
    """Episodes with at least one step, in the order of their starts. Raises `ExchangeError` when none is left, or a file is gone."""
    rows = [row for row in catalog.episodes(session_id=selection.session_id, task_id=selection.task_id) if _wanted(row, selection)]
    if not rows:
        raise ExchangeError(f"{workspace.path}: no episode fits the selection; `takeover data ls` lists them")
    for row in rows:
        if not (workspace.path / row.path).is_file():
            raise ExchangeError(f"{workspace.path / row.path}: the file of episode {row.id} is gone; `takeover data verify` says more")
    segments: dict[str, list[SegmentRow]] = {}
    for first in range(0, len(rows), 500):
        ids = tuple(row.id for row in rows[first : first + 500])
        for segment in catalog.segments(SegmentFilter(episode_ids=ids), limit=None):
            segments.setdefault(segment.episode_id, []).append(segment)
    labels = catalog.labels([row.id for row in rows])
    events: dict[str, list[LabelEvent]] = {}
    for event in Labels(workspace, catalog).events_since(0):
        events.setdefault(event.episode_id, []).append(event)
    return [_source(workspace, row, segments.get(row.id, []), labels.get(row.id, {}), events.get(row.id, []), selection) for row in rows]


def check_source(source: Source) -> None:
    """See that the file is the one that was recorded, every bit of it. Raises `DamagedFile`, `OSError`."""
    if check_seal(source.path) != source.row.sha256:
        raise DamagedFile(f"{source.path}: not the file the catalog knows as episode {source.row.id}; `takeover data verify` says more")


def _wanted(row: EpisodeRow, selection: Selection) -> bool:
    if row.steps == 0 or (row.excluded and not selection.include_excluded):
        return False
    for value, allowed in ((row.kind, selection.kinds), (row.outcome, selection.outcomes), (row.operator, selection.operators)):
        if allowed and value not in allowed:
            return False
    if selection.ids and not any(row.id.endswith(wanted) for wanted in selection.ids):
        return False
    return row.started_ns >= selection.started_from_ns and (not selection.started_to_ns or row.started_ns < selection.started_to_ns)


def _source(
    workspace: Workspace,
    row: EpisodeRow,
    segments: Sequence[SegmentRow],
    labels: dict[str, str],
    events: Sequence[LabelEvent],
    selection: Selection,
) -> Source:
    ranges = sorted((s.start_step, s.end_step) for s in segments if s.labels.get("exclude") == "true")
    return Source(
        row=row,
        path=workspace.path / row.path,
        segments=tuple(sorted(segments, key=lambda segment: (segment.start_step, segment.id))),
        labels=labels,
        events=tuple(event if selection.people else _without_author(event) for event in events),
        left_out=tuple(ranges),
        operator=row.operator if selection.people else ANONYMOUS,
    )


def _without_author(event: LabelEvent) -> LabelEvent:
    fields = {name: getattr(event, name) for name in LabelEvent.__struct_fields__}
    return LabelEvent(**{**fields, "author": ANONYMOUS})
