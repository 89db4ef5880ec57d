"""The catalog: what was recorded, learned, evaluated and labelled, for queries. Never in the control path; rebuilt from the files."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, delete, event, func, insert, select, update
from sqlalchemy.exc import DatabaseError, IntegrityError

from takeover.data.catalog_queries import SegmentFilter, episode_query, episode_row, filtered, labels_of
from takeover.data.catalog_tables import (
    CATALOG_VERSION,
    EpisodeRow,
    EvaluationRow,
    PolicyRow,
    SegmentRow,
    SessionRow,
    episodes,
    evaluations,
    label_state,
    meta,
    metadata,
    policies,
    segments,
    sessions,
)
from takeover.data.workspace import Workspace


class CatalogError(RuntimeError):
    """The catalog cannot be opened or does not fit this version; says what to do."""


def _sqlite_settings(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


class Catalog:
    """One connection pool to the catalog database. Threads may share it. Use as a context manager or call `close`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine: Engine = create_engine(url)
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine, "connect", _sqlite_settings)
        try:
            self._create()
        except DatabaseError as error:
            raise CatalogError(
                f"cannot open the catalog {url}: {error.orig}; move the file away: the recorder makes a new one of the episodes"
            ) from error

    @classmethod
    def open(cls, workspace: Workspace | Path | str, url: str = "") -> "Catalog":
        """The workspace's own catalog, or the one at an SQLAlchemy ``url`` that several stations share."""
        where = workspace if isinstance(workspace, Workspace) else Workspace(workspace)
        return cls(url or where.catalog_url)

    def _create(self) -> None:
        try:
            metadata.create_all(self.engine)
            with self.engine.begin() as connection:
                if connection.execute(select(meta.c.value).where(meta.c.name == "version")).scalar() is None:
                    connection.execute(insert(meta), [{"name": "version", "value": CATALOG_VERSION}, {"name": "changes", "value": 0}])
        except (IntegrityError, DatabaseError):
            metadata.create_all(self.engine)  # another process made it at the same moment
        with self.engine.connect() as connection:
            version = connection.execute(select(meta.c.value).where(meta.c.name == "version")).scalar()
        if version != CATALOG_VERSION:
            raise CatalogError(
                f"catalog {self.url} has version {version}, needed is {CATALOG_VERSION}; move it away: the recorder makes a new one"
            )

    def close(self) -> None:
        self.engine.dispose()

    def __enter__(self) -> "Catalog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that counts as a change for everyone who polls `change_counter`."""
        with self.engine.begin() as connection:
            # first, so that SQLite takes its write lock before anything is read
            connection.execute(update(meta).where(meta.c.name == "changes").values(value=meta.c.value + 1))
            yield connection

    def change_counter(self) -> int:
        """Grows with every change, labels included: cheap to poll."""
        with self.engine.connect() as connection:
            return int(connection.execute(select(meta.c.value).where(meta.c.name == "changes")).scalar() or 0)

    # --- written by the recorder, the learner and the evaluator ---

    def add_episode(self, session: Mapping[str, Any], episode: Mapping[str, Any], segment_rows: Sequence[Mapping[str, Any]]) -> None:
        """Enter (or enter again) one closed episode with its segments, and its session when new. One transaction."""
        with self.writing() as connection:
            if connection.execute(select(sessions.c.id).where(sessions.c.id == session["id"])).first() is None:
                connection.execute(insert(sessions), [dict(session)])
            connection.execute(delete(segments).where(segments.c.episode_id == episode["id"]))
            connection.execute(delete(episodes).where(episodes.c.id == episode["id"]))
            connection.execute(insert(episodes), [dict(episode)])
            if segment_rows:
                connection.execute(insert(segments), [dict(row) for row in segment_rows])

    def remove_episodes(self, ids: Sequence[str]) -> None:
        """Forget episodes whose files are gone. Their labels stay."""
        with self.writing() as connection:
            for table, column in ((segments, segments.c.episode_id), (episodes, episodes.c.id)):
                connection.execute(delete(table).where(column.in_(list(ids))))

    def add_policy(
        self,
        *,
        session_id: str,
        version: int,
        sha256: str,
        learner: str,
        task_id: str,
        parent: int = 0,
        updates: int = 0,
        train_step: int = -1,
        metrics: Mapping[str, float] | None = None,
        created_ns: int = 0,
    ) -> None:
        """Note a published policy version; the same (session, version) again replaces it."""
        row = {
            "session_id": session_id,
            "version": version,
            "sha256": sha256,
            "parent": parent,
            "learner": learner,
            "task_id": task_id,
            "created_ns": created_ns or time.time_ns(),
            "updates": updates,
            "train_step": train_step,
            "metrics": json.dumps(dict(metrics or {})),
        }
        with self.writing() as connection:
            connection.execute(delete(policies).where(policies.c.session_id == session_id, policies.c.version == version))
            connection.execute(insert(policies), [row])

    def add_evaluation(
        self,
        *,
        session_id: str,
        policy_version: int,
        policy_sha256: str,
        task_id: str,
        protocol: str,
        successes: int,
        n: int,
        wall_s: float = 0.0,
    ) -> None:
        """Note one finished held-out evaluation."""
        row = {
            "session_id": session_id,
            "policy_version": policy_version,
            "policy_sha256": policy_sha256,
            "task_id": task_id,
            "protocol": protocol,
            "successes": successes,
            "n": n,
            "created_ns": time.time_ns(),
            "wall_s": wall_s,
        }
        with self.writing() as connection:
            connection.execute(insert(evaluations), [row])

    # --- read by everyone ---

    def episodes(
        self,
        session_id: str = "",
        kind: str = "",
        task_id: str = "",
        ids: Sequence[str] | None = None,
        newest_first: bool = False,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[EpisodeRow]:
        """Episodes in the order of their starts, with current outcome and exclusion (labels over the record)."""
        query = episode_query()
        for value, column in ((session_id, episodes.c.session_id), (kind, episodes.c.kind), (task_id, episodes.c.task_id)):
            if value:
                query = query.where(column == value)
        if ids is not None:
            query = query.where(episodes.c.id.in_(list(ids)))
        order = (episodes.c.started_ns, episodes.c.id)
        query = query.order_by(*(column.desc() for column in order)) if newest_first else query.order_by(*order)
        with self.engine.connect() as connection:
            return [episode_row(dict(row._mapping)) for row in connection.execute(query.limit(limit).offset(offset))]

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

    def segments(self, filters: SegmentFilter | None = None, limit: int | None = 200, offset: int = 0) -> list[SegmentRow]:
        """Segments newest first, with their labels."""
        corrected = label_state.alias("corrected")
        on = (corrected.c.target == episodes.c.id) & (corrected.c.field == "outcome") & (corrected.c.value != "")
        query = (
            select(
                segments,
                episodes.c.number.label("episode_number"),
                episodes.c.kind.label("episode_kind"),
                episodes.c.session_id,
                episodes.c.task_id,
                func.coalesce(corrected.c.value, episodes.c.outcome).label("episode_outcome"),
                episodes.c.has_pictures,
            )
            .join(episodes, episodes.c.id == segments.c.episode_id)
            .outerjoin(corrected, on)
        )
        query = filtered(query, filters).order_by(segments.c.started_ns.desc(), segments.c.id.desc()).limit(limit).offset(offset)
        with self.engine.connect() as connection:
            rows = [dict(row._mapping) for row in connection.execute(query)]
            labels = labels_of(connection, [row["id"] for row in rows])
        return [SegmentRow(**row, labels=labels.get(row["id"], {})) for row in rows]

    def count_segments(self, filters: SegmentFilter | None = None) -> int:
        query = filtered(select(func.count()).select_from(segments.join(episodes, episodes.c.id == segments.c.episode_id)), filters)
        with self.engine.connect() as connection:
            return int(connection.execute(query).scalar() or 0)

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
        counts = select(episodes.c.session_id, func.count().label("n"), func.sum(episodes.c.steps).label("steps")).group_by(
            episodes.c.session_id
        )
        per_session = counts.subquery()
        query = (
            select(sessions, per_session.c.n, per_session.c.steps)
            .outerjoin(per_session, per_session.c.session_id == sessions.c.id)
            .order_by(sessions.c.started_ns.desc(), sessions.c.id.desc())
        )
        names = [column.name for column in sessions.columns]
        with self.engine.connect() as connection:
            rows = [row._mapping for row in connection.execute(query)]
        return [SessionRow(**{n: row[n] for n in names}, episodes=int(row["n"] or 0), steps=int(row["steps"] or 0)) for row in rows]

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
        ids = [target for target, value in self._targets("exclude").items() if value == "true" and ":" in target]
        wanted = {target.split(":")[0] for target in ids}
        rows = self.segments(SegmentFilter(episode_ids=tuple(wanted)), limit=None) if wanted else []
        return [row for row in rows if row.id in set(ids)]

    def reviewed_episode_ids(self) -> set[str]:
        """Episodes of which a person has submitted a segment or named a cause."""
        query = select(label_state.c.episode_id).where(label_state.c.field.in_(("review", "cause")), label_state.c.value != "").distinct()
        with self.engine.connect() as connection:
            return set(connection.execute(query).scalars())

    def outcome_overrides(self) -> dict[str, str]:
        """{episode id: outcome} where a label changed it. Rewards follow."""
        return {target: value for target, value in self._targets("outcome").items() if ":" not in target}
