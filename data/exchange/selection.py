"""Which episodes leave the house, and which of their steps."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from takeover.data.catalog import Catalog
from takeover.data.catalog_current import parts
from takeover.data.catalog_queries import SegmentFilter
from takeover.data.catalog_tables import EpisodeRow, LabelEvent, SegmentRow
from takeover.data.episode_pages import EpisodeFilter
from takeover.data.exchange.errors import ExchangeError
from takeover.data.hdf5_image import DamagedFile, check_seal
from takeover.data.labels import Labels
from takeover.data.selection import select_episodes
from takeover.data.training_labels import training_labels
from takeover.data.workspace import Workspace

ANONYMOUS = "anonymous"
DATED_BY = ("operator", "label")  # sources of an outcome that a person gave to a step


@dataclass(frozen=True)
class Selection:
    """What to export: the episodes that pass ``filters``; with ``ids`` (whole, their beginnings or ends) only those."""

    filters: EpisodeFilter = field(default_factory=EpisodeFilter)
    ids: tuple[str, ...] = ()
    include_excluded: bool = False
    """Also excluded episodes, excluded segments and what was trimmed off; they get sample weight 0."""
    people: bool = True
    """Keep the pseudonyms of operators and labelers."""


@dataclass(frozen=True)
class Source:
    """An episode to export with what was said about it.

    ``left_out``: inclusive step ranges that do not count: excluded segments, and what labels trimmed off the episode or a segment.
    ``reviewed``: a person has looked at it.
    """

    row: EpisodeRow
    path: Path
    segments: tuple[SegmentRow, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    events: tuple[LabelEvent, ...] = ()
    left_out: tuple[tuple[int, int], ...] = ()
    operator: str = ""
    people: bool = True  # whether pseudonyms are kept
    reviewed: bool = False

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

    def weights(self, count: int) -> np.ndarray:
        """(count,) f8: 0 for steps that labels leave out, 1 for all others."""
        made = np.full(count, 0.0 if self.row.excluded else 1.0)
        for first, last in self.left_out:
            made[first : last + 1] = 0.0
        return made

    def kept(self, count: int, keep_excluded: bool = False) -> np.ndarray:
        """(count,) bool: the steps to export. Those after an outcome that a person dated are never among them."""
        ended = np.arange(count) <= self.last_step
        return ended if keep_excluded else ended & (self.weights(count) > 0)

    def identity(self) -> list[Any]:
        """JSON that changes when the file, its labels or what is left out of it change."""
        return [self.row.id, self.row.sha256, self.row.outcome, self.row.excluded, [event.id for event in self.events], list(self.left_out)]


def plan_export(workspace: Workspace, form: str, selection: Selection, options: Any = None) -> tuple[list[Source], dict[str, Any]]:
    """(what to export, the plan that an interrupted export is known by). ``options``: a dataclass, or none. Raises as `select`."""
    with Catalog.open(workspace) as catalog:
        sources = select(workspace, catalog, selection)
    plan = {"format": form, "selection": asdict(selection), "sources": [source.identity() for source in sources]}
    return sources, plan if options is None else plan | {"options": asdict(options)}


def select(workspace: Workspace, catalog: Catalog, selection: Selection) -> list[Source]:
    """Episodes with at least one step that counts, in the order of their starts.

    Raises `ExchangeError` when none is left, an id names none, or a file is gone.
    """
    found = {row.id: row for name in selection.ids or ("",) for row in _named(workspace, catalog, selection.filters, name)}
    rows = [row for row in found.values() if row.steps > 0 and (selection.include_excluded or not row.excluded)]
    rows.sort(key=lambda row: (row.started_ns, row.id))
    if not rows:
        raise ExchangeError(f"{workspace.path}: no episode fits the selection; `takeover data ls` lists them")
    for row in rows:
        if not (workspace.path / row.path).is_file():
            raise ExchangeError(f"{workspace.path / row.path}: the file of episode {row.id} is gone; `takeover data verify` says more")
    ids = [row.id for row in rows]
    segments: dict[str, list[SegmentRow]] = {}
    for part in parts(ids):
        for segment in catalog.segments(SegmentFilter(episode_ids=tuple(part)), limit=None):
            segments.setdefault(segment.episode_id, []).append(segment)
    labels, training, reviewed = catalog.labels(ids), training_labels(catalog, ids), catalog.reviewed_episode_ids()
    events: dict[str, list[LabelEvent]] = {}
    for event in Labels(workspace, catalog).events_since(0):
        events.setdefault(event.episode_id, []).append(event if selection.people else _without_author(event))
    sources = [
        Source(
            row=row,
            path=workspace.path / row.path,
            segments=tuple(sorted(segments.get(row.id, ()), key=lambda segment: (segment.start_step, segment.id))),
            labels=labels.get(row.id, {}),
            events=tuple(events.get(row.id, ())),
            left_out=tuple(sorted(training[row.id].left_out)),
            operator=row.operator if selection.people else ANONYMOUS,
            people=selection.people,
            reviewed=row.id in reviewed,
        )
        for row in rows
    ]
    kept = [source for source in sources if source.kept(source.row.steps, selection.include_excluded).any()]
    if not kept:
        raise ExchangeError(f"{workspace.path}: labels leave every step of the selected episodes out; nothing to export")
    return kept


def _named(workspace: Workspace, catalog: Catalog, filters: EpisodeFilter, name: str) -> list[EpisodeRow]:
    found = select_episodes(catalog, replace(filters, name=name) if name else filters, limit=None, oldest_first=True)
    if name and not found:
        raise ExchangeError(f"{workspace.path}: no episode {name!r} fits the selection; `takeover data ls` lists them")
    return found


def check_source(source: Source) -> None:
    """See that the file is the one that was recorded, every bit of it. Raises `DamagedFile`, `OSError`."""
    if check_seal(source.path) != source.row.sha256:
        raise DamagedFile(f"{source.path}: not the file the catalog knows as episode {source.row.id}; `takeover data verify` says more")


def _without_author(event: LabelEvent) -> LabelEvent:
    return msgspec.structs.replace(event, author=ANONYMOUS)
