"""What is read from the catalog: pages of episodes and segments, sessions, versions, evaluations, current labels."""

import heapq
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, func, select

from takeover.data.catalog_current import PART, padded, parts
from takeover.data.catalog_narrow import few_with
from takeover.data.catalog_queries import (
    Place,
    SegmentFilter,
    after,
    aside,
    episode_query,
    episode_row,
    labels_of,
    segment_count,
    segment_pages,
)
from takeover.data.catalog_tables import (
    EpisodeRow,
    EvaluationRow,
    PolicyRow,
    SegmentRow,
    SessionRow,
    episodes,
    evaluations,
    label_state,
    policies,
    segments,
    sessions,
)
from takeover.data.schema import EpisodeKind

_FOLLOWING = ("cause", "labeled", "done", "excluded")  # columns of a segment that follow from its labels
_SEGMENT_COLUMNS = [column.name for column in segments.columns]
_EPISODE_COLUMNS = [column.name for column in episodes.columns]
_ID, _EPISODE, _STARTED = (_SEGMENT_COLUMNS.index(name) for name in ("id", "episode_id", "started_ns"))


class CatalogReading:
    """The reading half of `takeover.data.catalog.Catalog`."""

    url: str
    engine: Engine

    def episodes(
        self,
        session_id: str = "",
        kind: str = "",
        task_id: str = "",
        ids: Sequence[str] | None = None,
        newest_first: bool = False,
        limit: int | None = None,
        offset: int = 0,
        place: Place | None = None,
        helped: bool = False,
    ) -> list[EpisodeRow]:
        """Episodes in the order of their starts, with current outcome and exclusion (labels over the record).

        ``helped``: only those in which somebody took over.
        ``place``: (started_ns, id) of the last row of the page before; costs the same at any depth, an ``offset`` does not.
        """
        query, led = episode_query(), False
        for value, column in ((session_id, episodes.c.session_id), (task_id, episodes.c.task_id), (kind, episodes.c.kind)):
            if value:
                query, led = query.where((aside(column) if led else column) == value), True
        if helped:
            query = query.where(aside(episodes.c.takeovers) > 0)
        if place is not None:
            query = query.where(after(episodes, place, newest_first))
        order = [episodes.c.started_ns, episodes.c.id]
        query = query.order_by(*(column.desc() for column in order)) if newest_first else query.order_by(*order)
        with self.engine.connect() as connection:
            if ids is None or len(ids) <= PART:
                query = query if ids is None else query.where(episodes.c.id.in_(padded(list(ids))))
                return [_episode(row) for row in connection.execute(query.limit(limit).offset(offset))]
            found = [_episode(row) for part in parts(sorted(set(ids))) for row in connection.execute(query.where(episodes.c.id.in_(part)))]
        found.sort(key=lambda row: (row.started_ns, row.id), reverse=newest_first)
        return found[offset:] if limit is None else found[offset : offset + limit]

    def newest_counted(
        self, task_id: str, robot_id: str, kinds: Sequence[str], page: int = 100, helped: bool = False
    ) -> Iterator[EpisodeRow]:
        """Episodes that are neither excluded nor discarded, newest first, read ``page`` rows at a time; ``helped``: as `episodes`.

        Whoever stops early has read little, whoever goes on holds little.
        """
        place: Place | None = None
        while True:
            rows = self.episodes(task_id=task_id, newest_first=True, limit=page, place=place, helped=helped)
            yield from (r for r in rows if r.robot_id == robot_id and r.kind in kinds and not (r.excluded or r.discarded))
            if len(rows) < page:
                return
            place = (rows[-1].started_ns, rows[-1].id)

    def count_episodes(self, task_id: str, robot_id: str, kinds: Sequence[str]) -> int:
        """How many are recorded, excluded and discarded ones included."""
        columns = episodes.c
        query = select(func.count()).where(columns.task_id == task_id, aside(columns.robot_id) == robot_id, aside(columns.kind).in_(kinds))
        with self.engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def episode(self, episode_id: str) -> EpisodeRow:
        """Raises `KeyError` when there is none of that id."""
        found = self.episodes(ids=[episode_id])
        if not found:
            raise KeyError(f"no episode {episode_id!r} in the catalog {self.url}")
        return found[0]

    def paths(self) -> dict[str, str]:
        """{path in the workspace: episode id} of every episode."""
        with self.engine.connect() as connection:
            return {row.path: row.id for row in connection.execute(select(episodes.c.path, episodes.c.id))}

    def segments(
        self, filters: SegmentFilter | None = None, limit: int | None = 200, offset: int = 0, place: Place | None = None
    ) -> list[SegmentRow]:
        """Segments newest first, with their labels.

        ``place``: (started_ns, id) of the last row of the page before; costs the same at any depth, an ``offset`` does not.
        """
        made: list[SegmentRow] = []
        with self.engine.connect() as connection:
            pages = segment_pages(filters, limit, offset, place, self._few(connection, filters))
            found: Iterable[Sequence[Any]]
            if len(pages) == 1:
                found = connection.execute(pages[0])
            else:
                merged = heapq.merge(*(connection.execute(page).all() for page in pages), key=_place_of, reverse=True)
                found = itertools.islice(merged, offset, None if limit is None else offset + limit)
            rows = iter(found)
            while part := list(itertools.islice(rows, PART)):  # few at once: thousands would wake the garbage collector
                made += self._segment_rows(connection, part)
        return made

    def _segment_rows(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> Iterator[SegmentRow]:
        owners = self._owners(connection, sorted({row[_EPISODE] for row in rows}))
        labels = labels_of(connection, [row[_ID] for row in rows])
        for row in rows:
            if row[_EPISODE] not in owners:
                continue  # it was removed between the two queries
            fields = dict(zip(_SEGMENT_COLUMNS, row, strict=True))
            for name in _FOLLOWING:
                del fields[name]
            yield SegmentRow(**fields, **owners[row[_EPISODE]], labels=labels.get(row[_ID], {}))

    def _owners(self, connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What a segment shows of its episode."""
        columns = episodes.c
        names = ("episode_number", "episode_kind", "has_pictures", "episode_outcome")
        query = select(columns.id, columns.number, columns.kind, columns.has_pictures, columns.outcome, columns.current_outcome)
        found = {}
        for part in parts(ids):
            for key, number, kind, has_pictures, recorded, current in connection.execute(query.where(columns.id.in_(part))):
                found[key] = dict(zip(names, (number, kind, has_pictures, current or recorded), strict=True))
        return found

    def count_segments(self, filters: SegmentFilter | None = None, at_most: int | None = None) -> int:
        """How many; with ``at_most`` counting stops there, so that it costs no more than a page."""
        with self.engine.connect() as connection:
            return int(connection.execute(segment_count(filters, at_most, self._few(connection, filters))).scalar() or 0)

    def _few(self, connection: Connection, filters: SegmentFilter | None) -> list[ColumnElement[bool]]:
        return few_with(connection, filters.tag, filters.text) if filters is not None and (filters.tag or filters.text) else []

    def segment(self, segment_id: str) -> SegmentRow:
        """Raises `KeyError`."""
        with self.engine.connect() as connection:
            owner = connection.execute(select(segments.c.episode_id).where(segments.c.id == segment_id)).scalar()
        for row in self.segments(SegmentFilter(episode_ids=(owner,)), limit=None) if owner else []:
            if row.id == segment_id:
                return row
        raise KeyError(f"no segment {segment_id!r} in the catalog {self.url}")

    def sessions(self) -> list[SessionRow]:
        """Newest first, with counts of episodes and steps."""
        query = select(sessions).order_by(sessions.c.started_ns.desc(), sessions.c.id.desc())
        with self.engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        return [SessionRow(episodes=row.pop("episode_count"), steps=row.pop("step_count"), **row) for row in rows]

    def policies(self, session_id: str = "") -> list[PolicyRow]:
        """Published versions, oldest first."""
        query = select(policies).order_by(policies.c.created_ns, policies.c.version)
        if session_id:
            query = query.where(policies.c.session_id == session_id)
        with self.engine.connect() as connection:
            rows = [dict(row._mapping) for row in connection.execute(query)]
        return [PolicyRow(**{**row, "metrics": json.loads(row["metrics"])}) for row in rows]

    def evaluations(self, session_id: str = "") -> list[EvaluationRow]:
        """Held-out evaluations, oldest first."""
        query = select(*(column for column in evaluations.columns if column.name != "id")).order_by(evaluations.c.id)
        if session_id:
            query = query.where(evaluations.c.session_id == session_id)
        with self.engine.connect() as connection:
            return [EvaluationRow(**row._mapping) for row in connection.execute(query)]

    def versions_referred_to(self, first: int, last: int) -> set[int]:
        """Those from ``first`` to ``last`` that were evaluated, that drove alone (in probes), or that drove when a person took over."""
        evaluated, drove = evaluations.c.policy_version, segments.c.policy_version
        with self.engine.connect() as connection:
            found = set(connection.execute(select(evaluated).where(evaluated.between(first, last)).distinct()).scalars())
            taken_over = select(drove).where(segments.c.kind == "takeover", drove.between(first, last)).distinct()
            alone = episodes.c.kind == EpisodeKind.EVALUATION.value
            drove_alone = select(episodes.c.policy_version).where(alone, episodes.c.policy_version.between(first, last)).distinct()
            return found.union(connection.execute(taken_over).scalars(), connection.execute(drove_alone).scalars())

    # --- labels as the learner and the index need them; written by `takeover.data.labels` ---

    def labels(self, targets: Sequence[str]) -> dict[str, dict[str, str]]:
        """Current labels of segments or episodes: {target: {field: value}}; taken back ones are left out."""
        with self.engine.connect() as connection:
            return labels_of(connection, targets)

    def _targets(self, field: str) -> dict[str, str]:
        query = select(label_state.c.target, label_state.c.value).where(label_state.c.field == field, label_state.c.value != "")
        with self.engine.connect() as connection:
            return {row.target: row.value for row in connection.execute(query)}

    def excluded_episode_ids(self) -> set[str]:
        """Episodes nobody may train on: labelled so, or discarded by their maker and not taken back in."""
        labelled = self._targets("exclude")
        with self.engine.connect() as connection:
            discarded = set(connection.execute(select(episodes.c.id).where(episodes.c.discarded)).scalars())
        marked = {target for target, value in labelled.items() if value == "true" and ":" not in target}
        return {episode_id for episode_id in discarded if labelled.get(episode_id) != "false"} | marked

    def excluded_segments(self) -> list[SegmentRow]:
        """Segments labelled *exclude*: their steps are not trained on."""
        with self.engine.connect() as connection:
            query = select(segments.c.id, segments.c.episode_id).where(segments.c.excluded.is_(True))
            wanted = {row.id: row.episode_id for row in connection.execute(query)}
        found = [
            row
            for part in parts(sorted(set(wanted.values())))
            for row in self.segments(SegmentFilter(episode_ids=tuple(part)), limit=None)
            if row.id in wanted
        ]
        return sorted(found, key=lambda row: (row.started_ns, row.id), reverse=True)

    def reviewed_episode_ids(self) -> set[str]:
        """Episodes of which a person has submitted a segment or named a cause."""
        query = select(label_state.c.episode_id).where(label_state.c.field.in_(("review", "cause")), label_state.c.value != "").distinct()
        with self.engine.connect() as connection:
            return set(connection.execute(query).scalars())

    def outcome_overrides(self) -> dict[str, str]:
        """{episode id: outcome} where a label changed it. Rewards follow."""
        return {target: value for target, value in self._targets("outcome").items() if ":" not in target}


def _place_of(row: Sequence[Any]) -> Place:
    return row[_STARTED], row[_ID]


def _episode(row: Sequence[Any]) -> EpisodeRow:
    return episode_row(dict(zip(_EPISODE_COLUMNS, row, strict=True)))
