"""What Insights asks of the catalog: one snapshot per session, made on the page's worker thread."""

import datetime
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from takeover.app.console.insights_absorption import AbsorptionReader
from takeover.app.console.models.absorption import AbsorptionView, Run
from takeover.app.console.models.insights import (
    Curve,
    EpisodePoint,
    HeldOut,
    Proportion,
    SuccessWindow,
    VersionMark,
    VersionRow,
    cumulative_steps,
    effort_curve,
    rate_curve,
    rows_wanted,
    success_windows,
    version_marks,
    version_rows,
    window_of,
)
from takeover.app.console.models.review_items import CAUSES
from takeover.data.catalog import Catalog
from takeover.data.catalog_tables import EpisodeRow, EvaluationRow, SessionRow
from takeover.data.queue_rows import flagged_of
from takeover.data.schema import EpisodeKind, Outcome
from takeover.data.workspace import Workspace

MOST_SEGMENTS = 50_000
MOST_VERSIONS = 14  # rows of the table; more are joined


@dataclass(frozen=True)
class SessionChoice:
    """One entry of the run selector."""

    session_id: str
    text: str


@dataclass(frozen=True)
class Segments:
    """Flagged segments of a session as the panels need them."""

    ids: list[str] = field(default_factory=list)
    episode_ids: list[str] = field(default_factory=list)
    takeover_s: list[float] = field(default_factory=list)  # seconds from the episode's start
    causes: dict[str, int] = field(default_factory=dict)
    flagged: int = 0  # takeovers and failures
    safety: int = 0


@dataclass(frozen=True)
class Insights:
    """Everything the page shows of one session; ``points`` are its policy episodes in order, excluded ones left out."""

    session_id: str
    robot: str
    task: str
    points: list[EpisodePoint]
    steps: list[int]  # running total after each episode
    rate: Curve
    windows: list[SuccessWindow]
    versions: list[VersionRow]
    marks: list[VersionMark]
    effort: Curve
    heldout: list[HeldOut]
    segments: Segments
    excluded: int
    demonstrations: int
    operators: list[str]  # pseudonyms; "scripted" is no person, and the page says so
    human_s: float  # driven by them, policy episodes
    watched_s: float  # driven by the policy
    alone: int = 0  # evaluations and no-help probes: in no figure here


@dataclass(frozen=True)
class Snapshot:
    sessions: list[SessionChoice]
    shown: Insights | None
    against: Insights | None


class InsightsStore:
    """Reads the catalog of a workspace; called from one worker thread only."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = Workspace(workspace)
        self._catalog: Catalog | None = None
        self._absorption = AbsorptionReader(workspace)
        self._key: tuple[int, str, str] | None = None
        self._snapshot: Snapshot | None = None

    def close(self) -> None:
        if self._catalog is not None:
            self._catalog.close()
            self._catalog = None

    def snapshot(self, session_id: str = "", against: str = "") -> Snapshot:
        """The chosen session (empty: the newest with policy episodes) and another to compare with. Cheap when nothing has changed."""
        if self._catalog is None:
            self.workspace.path.mkdir(parents=True, exist_ok=True)
            self._catalog = Catalog.open(self.workspace)
        key = (self._catalog.change_counter(), session_id, against)
        if self._snapshot is None or key != self._key:
            rows = [row for row in self._catalog.sessions() if row.episodes]
            choices = [SessionChoice(row.id, _session_text(row)) for row in rows]
            shown = session_id or _newest(self._catalog, rows)
            known = {row.id for row in rows}
            self._snapshot = Snapshot(
                choices,
                insights_of(self._catalog, shown) if shown in known else None,
                insights_of(self._catalog, against) if against in known else None,
            )
            self._key = key
        return self._snapshot

    def absorption(self, shown: Insights) -> AbsorptionView:
        """What is known of the absorption of a run's versions after reading on for some ms; while ``unread``, ask again.

        Apart from `snapshot`: results come without a change of the catalog, and the first look at thousands takes seconds.
        """
        self._absorption.look()
        return self._absorption.view(Run(shown.session_id, shown.robot, shown.task))


def _newest(catalog: Catalog, rows: list[SessionRow]) -> str:
    for row in rows:
        if catalog.episodes(session_id=row.id, kind=EpisodeKind.POLICY, limit=1):
            return row.id
    return rows[0].id if rows else ""


def _session_text(row: SessionRow) -> str:
    started = datetime.datetime.fromtimestamp(row.started_ns / 1e9).astimezone()
    return f"{started:%d %b %H:%M}, {row.task_id}, {row.episodes} ep."


def point_of(row: EpisodeRow) -> EpisodePoint:
    return EpisodePoint(row.id, row.steps, row.human_steps, row.takeovers, row.success, row.outcome == Outcome.ABORTED, row.policy_version)


def insights_of(catalog: Catalog, session_id: str) -> Insights:
    """Compute one session's figures from the catalog."""
    rows = catalog.episodes(session_id=session_id)
    policy = [row for row in rows if row.kind == EpisodeKind.POLICY and not row.excluded and row.steps]
    points = [point_of(row) for row in policy]
    human_s = sum(row.human_steps / row.control_hz for row in policy)
    return Insights(
        session_id=session_id,
        robot=rows[0].robot_id if rows else "",
        task=rows[0].task_id if rows else "",
        points=points,
        steps=cumulative_steps(points),
        rate=rate_curve(points),
        windows=success_windows(points, window_of(len(points))),
        versions=version_rows(points, rows_wanted(points, MOST_VERSIONS)),
        marks=version_marks(points),
        effort=effort_curve(points),
        heldout=_heldout(catalog, session_id),
        segments=_segments(catalog, session_id, {row.id: row for row in policy}),
        excluded=sum(1 for row in rows if row.kind == EpisodeKind.POLICY and row.excluded),
        demonstrations=sum(1 for row in rows if row.kind == EpisodeKind.DEMONSTRATION and not row.excluded),
        operators=sorted({row.operator for row in policy}),
        human_s=human_s,
        watched_s=sum(row.steps / row.control_hz for row in policy) - human_s,
        alone=sum(1 for row in rows if row.kind == EpisodeKind.EVALUATION),
    )


def _heldout(catalog: Catalog, session_id: str) -> list[HeldOut]:
    """One result per version, in their order: the evaluation with most starts, the newest of equals."""
    best: dict[int, EvaluationRow] = {}
    for row in catalog.evaluations(session_id):
        if row.n and (row.policy_version not in best or row.n >= best[row.policy_version].n):
            best[row.policy_version] = row
    return [HeldOut(version, Proportion(row.successes, row.n)) for version, row in sorted(best.items())]


def _segments(catalog: Catalog, session_id: str, episodes: dict[str, EpisodeRow]) -> Segments:
    rows = [row for row in flagged_of(catalog, session_id, MOST_SEGMENTS) if row.episode_id in episodes]
    kept = [row for row in rows if not row.excluded]
    flagged = [row for row in kept if row.kind in ("takeover", "failure")]
    causes = Counter(row.cause for row in flagged)
    return Segments(
        ids=[row.id for row in rows],
        episode_ids=[row.episode_id for row in rows],
        takeover_s=[row.start_step / episodes[row.episode_id].control_hz for row in kept if row.kind == "takeover"],
        causes={str(cause): causes[str(cause)] for cause, _ in CAUSES},
        flagged=len(flagged),
        safety=sum(1 for row in kept if row.kind == "safety"),
    )
