"""The catalog: what was recorded, learned, evaluated and labelled, for queries. Never in the control path; rebuilt from the files."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, delete, insert, inspect, select, update
from sqlalchemy.exc import DatabaseError

from takeover.data import catalog_log
from takeover.data.catalog_current import parts, refresh_episodes, refresh_sessions
from takeover.data.catalog_migrate import migrate
from takeover.data.catalog_place import CatalogError, claim, engine_of, shown, url_of
from takeover.data.catalog_queries import SegmentFilter
from takeover.data.catalog_read import CatalogReading
from takeover.data.catalog_rows import EvaluationRow, PolicyRow
from takeover.data.catalog_tables import CATALOG_VERSION, episodes, evaluations, meta, metadata, policies, segments, sessions
from takeover.data.workspace import Workspace

__all__ = ["Catalog", "CatalogError", "SegmentFilter", "catalog_of", "damage_of"]

COUNTERS = ("changes", "claims", "uses")
_ATTEMPTS = 6


_DAMAGED = (DatabaseError, UnicodeDecodeError)  # the latter from sqlite3 itself, when what it wants to say is damaged


def _said(error: Exception) -> str:
    """In one line that can be printed."""
    text = " ".join(str(getattr(error, "orig", "") or "it cannot be read").split())
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def damage_of(engine: Engine) -> str:
    """What is wrong inside a SQLite file, "" when nothing is; other databases look after themselves. Reads all of it."""
    if engine.dialect.name != "sqlite":
        return ""
    try:
        with engine.connect() as connection:
            said = str(connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar())
    except _DAMAGED as error:
        return _said(error)
    return "" if said == "ok" else " ".join(said.split())


class Catalog(CatalogReading):
    """One connection pool to the catalog database. Threads may share it. Use as a context manager or call `close`.

    ``log_path``: where what no other file knows is written as well (`takeover.data.catalog_log`); None: nowhere.
    """

    def __init__(self, url: str, log_path: Path | None = None) -> None:
        """Raises `CatalogError`."""
        self.url = shown(url)
        self.log_path = log_path
        self.engine: Engine = engine_of(url)
        self.on_server = self.engine.dialect.name != "sqlite"
        try:
            self._create()
        except _DAMAGED as error:
            self.close()
            raise CatalogError(f"cannot open the catalog {self.url}: {_said(error)}; {self._remedy()}") from error
        except CatalogError:
            self.close()
            raise

    @classmethod
    def open(cls, workspace: Workspace | Path | str, url: str = "") -> "Catalog":
        """The workspace's catalog, on the server that its station file names if it does; or that at ``url``. Raises `CatalogError`."""
        where = workspace if isinstance(workspace, Workspace) else Workspace(workspace)
        catalog = cls(url or url_of(where), where.learning_path)
        if catalog.on_server:
            try:
                claim(catalog.engine, where)
            except _DAMAGED as error:
                catalog.close()
                raise CatalogError(f"cannot open the catalog {catalog.url}: {_said(error)}; {catalog._remedy()}") from error
            except CatalogError:
                catalog.close()
                raise
        return catalog

    def _remedy(self) -> str:
        if self.on_server:
            return "is the server up, and may this user make tables there?"
        return "move the file away: the recorder makes a new one of the episodes"

    def _create(self) -> None:
        """Make the tables, or bring those of an earlier version up to date."""
        version = self._version() if inspect(self.engine).has_table(meta.name) else None
        for attempt in range(_ATTEMPTS):
            if version is not None:
                break
            try:
                self._make()
            except DatabaseError:  # another process makes it at this very moment
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(0.05 * 2**attempt)
            version = self._version() if inspect(self.engine).has_table(meta.name) else None
        try:
            if version is not None and version < CATALOG_VERSION:
                with self.engine.begin() as connection:
                    migrate(connection, version)
                version = self._version()
        except ValueError as error:
            raise CatalogError(f"catalog {self.url}: {error}; {self._other()}") from error
        if version != CATALOG_VERSION:
            raise CatalogError(
                f"catalog {self.url} has version {version}, this program knows {CATALOG_VERSION}; "
                f"use the program that wrote it, or {self._other()}"
            )

    def _other(self) -> str:
        return ("name an empty database" if self.on_server else "move it away") + ": the recorder makes a new one"

    def _make(self) -> None:
        """Tables, version and counters in one transaction, where the server can."""
        with self.engine.begin() as connection:
            metadata.create_all(connection)
            if connection.execute(select(meta.c.value).where(meta.c.name == "version")).scalar() is None:
                counters = [{"name": name, "value": 0} for name in COUNTERS]
                connection.execute(insert(meta), [{"name": "version", "value": CATALOG_VERSION}, *counters])

    def _version(self) -> int | None:
        with self.engine.connect() as connection:
            return connection.execute(select(meta.c.value).where(meta.c.name == "version")).scalar()

    def close(self) -> None:
        self.engine.dispose()

    def __enter__(self) -> "Catalog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def writing(self, counter: str = "changes") -> Iterator[Connection]:
        """A transaction that counts as a change for everyone who polls `change_counter`; one writer per counter at a time.

        ``counter``: "changes"; "claims" for leases and "uses" for what the learner notes, which change no page.
        """
        with self.engine.begin() as connection:
            # first, so that SQLite takes its write lock before anything is read, and a server the row's
            if connection.execute(update(meta).where(meta.c.name == counter).values(value=meta.c.value + 1)).rowcount == 0:
                connection.execute(insert(meta), [{"name": counter, "value": 1}])
            yield connection

    def change_counter(self, counter: str = "changes") -> int:
        """Grows with every change, labels included: cheap to poll."""
        with self.engine.connect() as connection:
            return int(connection.execute(select(meta.c.value).where(meta.c.name == counter)).scalar() or 0)

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
                owner = {"session_id": episode["session_id"], "task_id": episode["task_id"]}
                connection.execute(insert(segments), [{**row, **owner} for row in segment_rows])
            refresh_episodes(connection, [episode["id"]])  # its labels may be older than its row
            refresh_sessions(connection, [session["id"]])

    def remove_episodes(self, ids: Sequence[str]) -> None:
        """Forget episodes whose files are gone. Their labels stay."""
        with self.writing() as connection:
            for part in parts(ids):
                owners = set(connection.execute(select(episodes.c.session_id).where(episodes.c.id.in_(part))).scalars())
                for table, column in ((segments, segments.c.episode_id), (episodes, episodes.c.id)):
                    connection.execute(delete(table).where(column.in_(part)))
                refresh_sessions(connection, sorted(owners))

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
        row = PolicyRow(
            session_id=session_id,
            version=version,
            sha256=sha256,
            parent=parent,
            learner=learner,
            task_id=task_id,
            created_ns=created_ns or time.time_ns(),
            updates=updates,
            train_step=train_step,
            metrics=dict(metrics or {}),
        )
        with self.writing() as connection:
            catalog_log.append(self.log_path, [row])
            connection.execute(delete(policies).where(policies.c.session_id == session_id, policies.c.version == version))
            connection.execute(insert(policies), [msgspec.structs.asdict(row) | {"metrics": json.dumps(row.metrics)}])

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
        row = EvaluationRow(
            session_id=session_id,
            policy_version=policy_version,
            policy_sha256=policy_sha256,
            task_id=task_id,
            protocol=protocol,
            successes=successes,
            n=n,
            created_ns=time.time_ns(),
            wall_s=wall_s,
        )
        with self.writing() as connection:
            catalog_log.append(self.log_path, [row])
            connection.execute(insert(evaluations), [msgspec.structs.asdict(row)])


def catalog_of(workspace: Workspace, catalog: Catalog | None) -> AbstractContextManager[Catalog]:
    """The one that is open already, which stays open, or one to be opened."""
    return Catalog.open(workspace) if catalog is None else nullcontext(catalog)
