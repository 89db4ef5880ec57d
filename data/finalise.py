"""The recorder's worker: turns finished episodes into files and catalog rows, keeps labels up to date, makes the index at its end."""

import logging
import queue
import threading
import time

from sqlalchemy.exc import DataError, SQLAlchemyError

from takeover.data.catalog import Catalog
from takeover.data.entry import Entry, entry_of, entry_of_file
from takeover.data.episode_file import episode_path, write_episode
from takeover.data.episode_schema import EpisodeError, EpisodeRecords
from takeover.data.hdf5_image import DamagedFile
from takeover.data.index import fresh_index
from takeover.data.labels import LabelError, Labels
from takeover.data.open_episode import OpenEpisode
from takeover.data.people import note_operators
from takeover.data.schema import OutcomeChange, OutcomeSource
from takeover.data.workspace import Workspace

RETRY_AFTER_S = 5.0
MAX_WHY = 300  # characters
WHAT_TO_DO = "it is tried again when the recorder starts, and by `takeover data repair`"
log = logging.getLogger("recorder")


class Finaliser:
    """A thread that closes one episode after the other. A journal is removed only when file and catalog have the episode.

    Whatever goes wrong with one episode, the thread goes on with the next. ``error`` is empty, or says why episodes cannot be closed now
    (they are tried again; their journals stay). ``notice`` is empty, or names the newest episode that could not be closed.
    """

    def __init__(self, workspace: Workspace, catalog: Catalog) -> None:
        self.workspace = workspace
        self.catalog = catalog
        self.labels = Labels(workspace, catalog)
        self.error = ""
        self.notice = ""
        self.closed_count = 0
        self._jobs: queue.Queue[OpenEpisode | OutcomeChange | None] = queue.Queue()
        self._closed: queue.Queue[tuple[str, str]] = queue.Queue()
        self._waiting: list[tuple[float, OpenEpisode | OutcomeChange]] = []
        self._thread = threading.Thread(target=self._run, name="finalise", daemon=True)
        self._thread.start()

    def submit(self, job: OpenEpisode | OutcomeChange) -> None:
        self._jobs.put(job)

    def take_closed(self) -> list[tuple[str, str]]:
        """(session, id) of episodes closed since the last call."""
        found = []
        while True:
            try:
                found.append(self._closed.get_nowait())
            except queue.Empty:
                return found

    @property
    def pending(self) -> int:
        """Episodes and labels not yet done."""
        return self._jobs.unfinished_tasks + len(self._waiting)

    def close(self, timeout_s: float = 30.0) -> None:
        """Finish what was submitted, make the index if it is stale, end the thread."""
        self._jobs.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.warning("%d episodes are still in the journal; they are closed at the next start", self.pending)

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=1.0)
            except queue.Empty:
                self._retry(time.monotonic())
                continue
            if job is None:
                self._retry(float("inf"))
                self._index()
                self._jobs.task_done()
                return
            self._do(job)
            self._jobs.task_done()
            self._retry(time.monotonic())

    def _retry(self, now: float) -> None:
        for item in [item for item in self._waiting if item[0] <= now]:
            self._do(item[1])
            self._waiting.remove(item)  # after it was done, so that `pending` never misses it

    def _do(self, job: OpenEpisode | OutcomeChange) -> None:
        try:
            if isinstance(job, OutcomeChange):
                outcome = job.outcome if job.source is OutcomeSource.OPERATOR else None
                self.labels.add_outcome(job.episode_id, outcome, job.author, job.wall_ns, job.event_step)
            else:
                self._close_episode(job)
            self.error = ""
        except DataError as error:  # waiting does not help
            log.exception("the catalog has no room for it")
            self._set_aside(job, str(error.orig))
        except (OSError, DamagedFile, SQLAlchemyError, LabelError) as error:
            log.exception("will be tried again")
            self.error = f"an episode cannot be closed: {error}"
            self._waiting.append((time.monotonic() + RETRY_AFTER_S, job))
        except Exception as error:
            # not a matter of waiting, nor a reason to hold the robot: the journal is kept for repair, recording goes on
            log.exception("%s cannot be done", type(job).__name__)
            self._set_aside(job, str(error) if isinstance(error, EpisodeError) else f"{type(error).__name__}: {error}")

    def _set_aside(self, job: OpenEpisode | OutcomeChange, why: str) -> None:
        """Keep it, say so, and go on without it: one record must not keep all others from being closed."""
        if isinstance(job, OutcomeChange):
            self.notice = f"the outcome {job.outcome} of episode {job.episode_id} is no label ({why[:MAX_WHY]}); label it by hand"
            log.error("%s", self.notice)
            return
        kept = f"its journal is kept in journal/unreadable: {WHAT_TO_DO}"
        self.notice = f"episode {job.episode_id} cannot be closed ({why[:MAX_WHY]}); {kept}"
        log.error("%s", self.notice)
        try:
            self.workspace.unreadable.mkdir(exist_ok=True)
            for path in job.paths:
                if path.exists():
                    path.rename(self.workspace.unreadable / path.name)
        except OSError:
            log.exception("the journal of %s stays where it is", job.episode_id)

    def _close_episode(self, job: OpenEpisode) -> None:
        episode = job.gather()
        entry = self._existing(episode)
        if entry is None:
            path, sha256, size = write_episode(self.workspace, episode)
            entry = entry_of(episode, path.relative_to(self.workspace.path).as_posix(), sha256, size)
        self.catalog.add_episode(entry.session, entry.episode, entry.segments)
        note_operators(self.catalog, entry)
        job.remove_journal()
        self.closed_count += 1
        self._closed.put((episode.start.session, episode.episode_id))

    def _existing(self, episode: EpisodeRecords) -> Entry | None:
        """The rows of a file that an earlier recorder closed without coming to remove the journal; closed files are never rewritten."""
        path = episode_path(self.workspace, episode.start)
        if not path.exists():
            return None
        try:
            return entry_of_file(self.workspace, path)
        except DamagedFile:
            log.exception("the journal is still there: the file is made again")
            return None

    def _index(self) -> None:
        """At the end only: its cost grows with the episodes there are, that of an episode must not."""
        try:
            fresh_index(self.workspace, self.catalog)
        except (OSError, DamagedFile, SQLAlchemyError):
            log.exception("index.hdf5 was not made; `takeover data index` makes it")
