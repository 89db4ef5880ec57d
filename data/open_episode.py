"""Episodes that are being recorded: their records in memory, their journal on disk."""

from pathlib import Path

from takeover.data.episode_schema import EpisodeRecords, gather, is_held
from takeover.data.journal import JournalWriter, read_journal
from takeover.data.schema import AnyRecord, CameraFrame, EpisodeEnd, EpisodeStart, Event, Step
from takeover.data.workspace import Workspace, plain_name

_STEP_OVERHEAD_BYTES = 2000


class OpenEpisode:
    """One running (or cut-off) episode: parts of a journal and everything in them."""

    def __init__(self, workspace: Workspace, episode_id: str) -> None:
        self.workspace = workspace
        self.episode_id = plain_name(episode_id)
        self.records: list[AnyRecord] = []
        self.paths: list[Path] = []
        self.size_bytes = 0
        self.ended = False
        self.problems: list[str] = []
        self._writer: JournalWriter | None = None

    def read_part(self, path: Path) -> None:
        """Take over a journal part that an earlier recorder left."""
        contents = read_journal(path)
        self.paths.append(path)
        if contents.problem:
            self.problems.append(f"{path.name}: {contents.problem}")
        for record in contents.records:
            self._hold(record)

    def _hold(self, record: AnyRecord) -> None:
        self.records.append(record)
        self.ended = self.ended or isinstance(record, EpisodeEnd)
        self.size_bytes += len(record.jpeg) if isinstance(record, CameraFrame) else _STEP_OVERHEAD_BYTES
        if isinstance(record, Event):
            self.size_bytes += len(record.sim_state) + len(record.text.encode())
        if isinstance(record, Step):
            self.size_bytes += len(record.sim_state) + sum(len(image.data) for image in record.images)

    def add(self, record: AnyRecord) -> None:
        """Journal ``record``, durable after `sync`. Raises `JournalError` when no journal can be opened; then it was not taken."""
        if self._writer is None:
            part = 1 + max((int(path.name.split(".")[-2]) for path in self.paths), default=0)
            path = self.workspace.journal / f"{self.episode_id}.{part}.mcap"
            self._writer = JournalWriter(path)
            self.paths.append(path)
        self._writer.add(record)
        self._hold(record)

    def sync(self) -> None:
        """Raises `JournalError`; nothing is lost then, try again."""
        if self._writer is not None and self._writer.dirty:
            self._writer.sync()

    def close_journal(self) -> None:
        """End the journal part; a later record opens the next one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @property
    def has_start(self) -> bool:
        return any(isinstance(record, EpisodeStart) for record in self.records)

    def gather(self) -> EpisodeRecords:
        """The episode for its file; ``recovered`` when its end never came, or steps that the bridge counted. Raises `EpisodeError`."""
        episode = gather(self.records)
        driven = sum(not is_held(step) for step in episode.steps)
        episode.recovered = episode.end is None or driven < episode.end.steps
        return episode

    def remove_journal(self) -> None:
        """Only after the file is closed and in the catalog."""
        for path in self.paths:
            path.unlink(missing_ok=True)


class SessionJournal:
    """Records of a session that belong to no running episode: marks while idle, late outcomes."""

    def __init__(self, workspace: Workspace, session: str) -> None:
        self.workspace = workspace
        self.session = plain_name(session)
        self._writer: JournalWriter | None = None

    def add(self, record: AnyRecord) -> None:
        if self._writer is None:
            used = [int(path.name.split(".")[-2]) for path in self.workspace.sessions.glob(f"{self.session}.*.mcap")]
            self._writer = JournalWriter(self.workspace.sessions / f"{self.session}.{1 + max(used, default=0)}.mcap")
        self._writer.add(record)

    def sync(self) -> None:
        if self._writer is not None and self._writer.dirty:
            self._writer.sync()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def belongs_to_episode(record: AnyRecord) -> bool:
    """Whether a record goes into the journal of the episode it names (if that is running)."""
    return isinstance(record, EpisodeStart | Step | CameraFrame | EpisodeEnd) or (isinstance(record, Event) and bool(record.episode_id))
