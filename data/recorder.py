"""The recorder without its sockets: takes records, makes them durable, acknowledges, closes episodes in a worker thread."""

import logging
from dataclasses import dataclass, field
from enum import Enum

import psutil
from sqlalchemy.exc import SQLAlchemyError

from takeover.data.catalog import Catalog, CatalogError, damage_of
from takeover.data.coverage import Coverage
from takeover.data.finalise import Finaliser
from takeover.data.journal import JournalError
from takeover.data.open_episode import OpenEpisode, SessionJournal, belongs_to_episode
from takeover.data.recovery import coverage_of, left_over_journals, reconcile, session_of, set_aside_journals, started_ns
from takeover.data.schema import (
    AnyRecord,
    CameraFrame,
    Committed,
    EpisodeEnd,
    EpisodeStart,
    Event,
    OutcomeChange,
    RecordAck,
    RecorderHello,
    Step,
)
from takeover.data.workspace import MAX_EPISODE_BYTES, Workspace, WorkspaceError

MIN_FREE_BYTES = 256 * 1024**2
MIN_EPISODE_BYTES = 64 * 1024**2
log = logging.getLogger("recorder")


def episode_memory_bytes() -> int:
    """How large one episode may grow here: a quarter of the free memory (it is built in memory), 512 MiB at most.

    Raises `WorkspaceError` when that is too little for any.
    """
    allowed = min(MAX_EPISODE_BYTES, psutil.virtual_memory().available // 4)
    if allowed < MIN_EPISODE_BYTES:
        raise WorkspaceError(
            f"too little memory to record: {allowed * 4 // 1024**2} MiB free, {MIN_EPISODE_BYTES * 4 // 1024**2} MiB needed"
        )
    return allowed


class Accepted(Enum):
    """What became of a record."""

    TAKEN = "taken"
    DUPLICATE = "duplicate"
    GAP = "gap"  # an earlier one is missing: not taken, ask for it again with `Recorder.hello`


@dataclass
class Synced:
    """Result of `Recorder.sync`: what to announce. ``error`` as in `RecordAck`."""

    committed: Committed | None = None
    closed: list[Committed] = field(default_factory=list)
    error: str = ""


class Recorder:
    """Records one workspace. One thread calls it; a worker thread of its own closes episodes.

    At its start it finishes what an earlier recorder left. An unfinished episode of the newest session stays open, since its
    bridge may still be running and send the rest; it is closed as *recovered* as soon as another episode or session begins.
    """

    def __init__(self, workspace: Workspace, max_episode_bytes: int = MAX_EPISODE_BYTES, min_free_bytes: int = MIN_FREE_BYTES) -> None:
        self.workspace = workspace.prepare()
        self._lock = workspace.lock("recorder")
        self._max_episode_bytes = max_episode_bytes
        self._min_free_bytes = min_free_bytes
        try:
            self.catalog = Catalog.open(workspace)
            self.problems = self._reconcile()
        except BaseException:
            self._lock.release()
            raise
        self.session = ""
        self._covered = Coverage()
        self._expected = 0
        self._acked = -1
        self._open: dict[str, OpenEpisode] = {}
        self._session_journal: SessionJournal | None = None
        self._fresh: list[EpisodeStart | Step | Event | OutcomeChange | EpisodeEnd] = []
        self._first_fresh = 0
        self._error = ""
        self._refused = ""  # why the newest record offered could not be taken
        self._finaliser = Finaliser(workspace, self.catalog)
        self._take_over()

    def _reconcile(self) -> list[str]:
        try:
            return reconcile(self.workspace, self.catalog)
        except Exception as error:
            damage = damage_of(self.catalog.engine)
            self.catalog.close()
            if damage:
                where = self.workspace.catalog_path
                raise CatalogError(f"{where} is damaged ({damage}); `takeover data repair` makes a new one of the files") from error
            raise

    def _take_over(self) -> None:
        left, set_aside = left_over_journals(self.workspace), set_aside_journals(self.workspace)
        unfinished = [episode for episode in left if not episode.ended and episode.has_start]
        newest = max(unfinished, key=started_ns, default=None)
        rows = self.catalog.episodes(newest_first=True, limit=1)
        closed = [(row.started_ns, row.session_id) for row in rows] + [(started_ns(episode), session_of(episode)) for episode in set_aside]
        self.session = session_of(newest) if newest else session_of(left[-1]) if left else max(closed, default=(0, ""))[1]
        self._begin([*left, *set_aside])
        for episode in left:
            if episode is newest and session_of(episode) == self.session:
                self._open[episode.episode_id] = episode
            else:
                self._finaliser.submit(episode)
        for episode in set_aside:  # once more, after all others: a newer version may know better
            self._finaliser.submit(episode)

    def _begin(self, journals: list[OpenEpisode]) -> None:
        self._covered = coverage_of(self.workspace, self.catalog, self.session, journals) if self.session else Coverage()
        self._acked = self._covered.contiguous
        self._expected = self._acked + 1
        self._first_fresh = self._expected
        self._session_journal = SessionJournal(self.workspace, self.session) if self.session else None

    def hello(self) -> RecorderHello:
        """What to send on connection, after a gap, and when the session changed."""
        return RecorderHello(session=self.session, acked_rec_seq=self._acked)

    def accept(self, record: AnyRecord) -> Accepted:
        """Take one record of the stream. Durable, and counted by `sync`, only after that. Duplicates are dropped.

        Raises `JournalError` when no journal can be opened (disk full): the record was not taken and can be offered again.
        """
        try:
            if record.session != self.session:
                self._change_session(record.session)
            number = record.rec_seq
            if number in self._covered:
                return Accepted.DUPLICATE
            if number > self._expected:
                return Accepted.GAP
            self._place(record)
        except JournalError as error:
            self._refused = str(error)
            raise
        self._refused = ""
        self._covered.add(number)
        while self._expected in self._covered:
            self._expected += 1
        if not isinstance(record, CameraFrame):
            self._fresh.append(record)
        return Accepted.TAKEN

    def skip_to(self, rec_seq: int) -> None:
        """Give up on records before ``rec_seq`` that the bridge no longer has (it was used with another workspace before)."""
        log.error("records %d..%d of session %s never came", self._expected, rec_seq - 1, self.session)
        self._covered.add_range(0, rec_seq - 1)
        self._expected = max(self._expected, self._covered.contiguous + 1)

    def _change_session(self, session: str) -> None:
        try:
            self.sync()
        finally:
            self._close_all(recovered=True)
        if self._session_journal is not None:
            self._session_journal.close()
        self.session = session
        self._fresh = []
        self._begin(set_aside_journals(self.workspace))

    def _place(self, record: AnyRecord) -> None:
        if isinstance(record, EpisodeStart):
            self._close_all(recovered=True)
            started = OpenEpisode(self.workspace, record.episode_id)
            started.add(record)
            self._open[record.episode_id] = started
            return
        episode = self._open.get(getattr(record, "episode_id", ""))
        if episode is not None and belongs_to_episode(record):
            episode.add(record)
            return
        if isinstance(record, Step):
            log.error("step %d names episode %s, which is not running; it is kept in the session's journal", record.seq, record.episode_id)
        if self._session_journal is None:
            self._session_journal = SessionJournal(self.workspace, self.session)
        self._session_journal.add(record)

    def _close_all(self, recovered: bool) -> None:
        """Raises `JournalError`; an episode whose journal cannot be written stays open, so that nothing after it is acknowledged."""
        for episode_id, episode in list(self._open.items()):
            episode.close_journal()
            if recovered and not episode.ended:
                log.warning("episode %s has no end; it is closed as recovered", episode_id)
            del self._open[episode_id]
            self._finaliser.submit(episode)

    def sync(self) -> Synced:
        """Make everything taken durable and return what to announce. On an error nothing new is acknowledged."""
        try:
            for episode in self._open.values():
                episode.sync()
            if self._session_journal is not None:
                self._session_journal.sync()
        except JournalError as error:
            self._error = str(error)
            return Synced(closed=self._take_closed(), error=self.error())
        self._error = ""
        committed = self._commit()
        for episode in [episode for episode in self._open.values() if episode.ended]:
            del self._open[episode.episode_id]
            try:
                episode.close_journal()
            except JournalError as error:
                log.warning("%s", error)  # its records are durable; only the file's end is missing
            self._finaliser.submit(episode)
        return Synced(committed=committed, closed=self._take_closed(), error=self.error())

    def _commit(self) -> Committed | None:
        self._acked = self._expected - 1
        if self._acked < self._first_fresh:
            return None
        for record in self._fresh:
            if isinstance(record, OutcomeChange):
                self._finaliser.submit(record)
        made = Committed(session=self.session, first=self._first_fresh, cursor=self._acked, records=self._fresh)
        self._fresh = []
        self._first_fresh = self._acked + 1
        return made

    def _take_closed(self) -> list[Committed]:
        return [self._announcement(session, closed) for session, closed in self._finaliser.take_closed()]

    def _announcement(self, session: str, closed: str = "") -> Committed:
        return Committed(session=self.session, first=self._acked + 1, cursor=self._acked, records=[], closed_episode=closed)

    def position(self) -> Committed:
        """A Committed without records: how far the stream is, for readers that joined late."""
        return self._announcement(self.session)

    def take_closed(self) -> list[Committed]:
        """Announcements of episodes closed since the last call."""
        return self._take_closed()

    def ack(self) -> RecordAck:
        """The acknowledgement and heartbeat."""
        return RecordAck(
            session=self.session,
            acked_rec_seq=self._acked,
            disk_free_bytes=self.workspace.free_bytes(),
            episodes_closed=self._finaliser.closed_count,
            error=self.error(),
            notice=self._finaliser.notice,
        )

    def error(self) -> str:
        """Why the robot should be held, or empty: disk full, episode too long for memory, episodes that cannot be closed."""
        if self._error or self._refused:
            return self._error or self._refused
        if (free := self.workspace.free_bytes()) < self._min_free_bytes:
            return f"the disk is full: {free // 1024**2} MiB free in {self.workspace.path}"
        for episode in self._open.values():
            if episode.size_bytes > self._max_episode_bytes:
                return f"episode {episode.episode_id} has reached the memory limit of {self._max_episode_bytes // 1024**2} MiB; end it"
        return self._finaliser.error

    @property
    def pending(self) -> int:
        """Finished episodes that are not closed yet."""
        return self._finaliser.pending

    def close(self) -> Synced:
        """Sync, close finished episodes, rebuild the index, let go of the workspace. An episode without its end stays in the journal:
        the next recorder goes on with it or closes it as recovered."""
        synced = self.sync()
        for episode in self._open.values():
            try:
                episode.close_journal()
            except JournalError:
                log.exception("journal %s", episode.episode_id)
        if self._session_journal is not None:
            self._session_journal.close()
        self._finaliser.close()
        synced.closed += self._take_closed()
        try:
            self.catalog.close()
        except SQLAlchemyError:
            log.exception("catalog")
        self._lock.release()
        return synced
