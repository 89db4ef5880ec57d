"""What a learner ingests again after a restart: the committed stream as it lies in the store, cut where its checkpoint was.

The episode that runs counts too: its steps are in a journal, not in a closed file. Left out, they would come a second time over the
wire and be counted twice, while the checkpoint's counters already hold them. One episode at a time is in memory.
"""

import json
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from takeover.data.catalog_tables import EpisodeRow
from takeover.data.episode_block import StepBlock
from takeover.data.hdf5_image import DamagedFile
from takeover.data.journal import read_journal
from takeover.data.schema import EpisodeEnd, EpisodeKind, EpisodeStart, Event, OutcomeChange, Step
from takeover.data.store import closed_episodes, iter_episode_records, open_records, read_closed, read_closed_block
from takeover.data.workspace import Workspace
from takeover.policies.quarantine import LARGEST_READING

CommittedRecord = EpisodeStart | Step | Event | OutcomeChange | EpisodeEnd
TRAINED_KINDS = (EpisodeKind.DEMONSTRATION, EpisodeKind.POLICY)
_Key = tuple[int, bool]  # rec_seq, and whether it is an end that was made up and comes after the last record there is
_Keyed = list[tuple[_Key, CommittedRecord | StepBlock]]


class _Closed(NamedTuple):
    """An episode in a file, with its first and last rec_seq."""

    first: int
    last: int
    episode_id: str
    kind: str
    path: str


class IngestionLog:
    """Records of trained episodes of one task, sessions in the order they were recorded, each in the order of its stream.

    `seen` is what lies up to ``cursors`` (newest rec_seq of each session), `rest` what came after. It ends with the last closed episode;
    what runs beyond it is read as a gap of the stream.
    """

    def __init__(
        self,
        workspace: Path,
        task: str,
        cursors: Mapping[str, int],
        *,
        relabelled: Container[str] = (),
        on_damaged: Callable[[str, DamagedFile], None] | None = None,
        images: bool = False,
        again: Container[str] | None = None,
        as_streamed: bool = False,
    ) -> None:
        """Late outcomes of ``relabelled`` episodes are left to their labels; episodes that labels leave out are in neither part.

        ``as_streamed``: nothing but what a learner that listened all the time was told. Discarded episodes are there until their end, and
        those that were cut off have none.

        ``again``: of what was seen, read these episodes alone, whatever labels say of them. ``images``: steps of closed episodes with their
        pictures. A damaged file is told to ``on_damaged`` and passed over; without it raises `DamagedFile` naming the file.
        """
        self._workspace, self._task, self._cursors = workspace, task, dict(cursors)
        self._again, self._images, self._on_damaged, self._as_streamed = again, images, on_damaged, as_streamed
        self._sessions: dict[str, list[_Closed]] = {}
        self._waiting: dict[str, list[CommittedRecord]] = {}
        waiting = open_records(workspace)  # before the files: an episode that is just being closed is in one or the other
        for row in closed_episodes(workspace, task):
            self._add(row)
        for episodes in self._sessions.values():
            episodes.sort()
        for record in _trained(waiting, task):
            if not (isinstance(record, OutcomeChange) and record.episode_id in relabelled):  # else its label says what holds now
                self._sessions.setdefault(record.session, [])
                self._waiting.setdefault(record.session, []).append(record)

    def _add(self, row: EpisodeRow) -> None:
        """What is needed of the episode, if anything."""
        if row.kind not in TRAINED_KINDS:
            return
        closed = _Closed(row.first_rec_seq, json.loads(row.rec_ranges)[-1][1], row.id, row.kind, row.path)
        again = self._again is not None and row.id in self._again
        before = self._again is not None and closed.last <= self._cursor(row.session_id)
        left_out = row.excluded and not (self._as_streamed and row.discarded)
        if again or not (left_out or before):
            self._sessions.setdefault(row.session_id, []).append(closed)

    def _cursor(self, session: str) -> int:
        return self._cursors.get(session, -1)

    def readable(self, episode_ids: list[str]) -> set[str]:
        """Which of these files that were damaged are whole by now."""
        if not episode_ids:
            return set()
        found = iter_episode_records(self._workspace, self._task, episode_ids=episode_ids, on_damaged=lambda *_: None)
        return {start.episode_id for start, _, _ in found}

    def seen(self, blocks: Callable[[], bool] = lambda: False, whole: Container[str] = ()) -> Iterator[CommittedRecord | StepBlock]:
        """What a checkpoint had seen, of the episodes that are wanted.

        ``blocks``, asked before each policy episode: its steps as one block, where all of them are in a file and can be learned from; not
        those of ``whole`` episodes.
        """
        for session, episodes in self._sessions.items():
            cursor = self._cursor(session)
            numbers = [record.rec_seq for record in self._waiting.get(session, [])]
            wanted = [closed for closed in episodes if closed.first <= cursor]
            as_blocks = {
                closed.episode_id
                for closed in wanted
                if closed.kind == EpisodeKind.POLICY and closed.last <= cursor and closed.episode_id not in whole
                if bisect_left(numbers, closed.first) == bisect_right(numbers, closed.last)  # nothing of it lies in a journal
            }
            for key, record in self._merged(session, wanted, as_blocks, blocks):
                if key[0] <= cursor and (self._again is None or getattr(record, "episode_id", "") in self._again):
                    yield record

    def rest(self) -> Iterator[CommittedRecord]:
        """What came after."""
        for session, episodes in self._sessions.items():
            cursor = self._cursor(session)
            for key, record in self._merged(session, [closed for closed in episodes if closed.last > cursor]):
                if key[0] > cursor and not isinstance(record, StepBlock):
                    yield record

    def _merged(
        self, session: str, episodes: Iterable[_Closed], as_blocks: Container[str] = (), blocks: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[_Key, CommittedRecord | StepBlock]]:
        """Records of these episodes and those that lie in journals, in order; what is in both comes from the file."""
        waiting = deque(self._pictured(self._waiting.get(session, [])))
        last = self._cursor(session)
        for closed in episodes:
            for key, record in self._records(closed, closed.episode_id in as_blocks and blocks()):
                while waiting and (waiting[0].rec_seq, False) <= key:
                    earlier = waiting.popleft()
                    if (earlier.rec_seq, False) != key:
                        yield (earlier.rec_seq, False), earlier
                yield key, record
                last = max(last, key[0])
        for record in waiting:
            if record.rec_seq <= last:
                yield (record.rec_seq, False), record

    def _records(self, closed: _Closed, as_block: bool) -> _Keyed:
        """Of an episode that may be damaged."""
        if as_block and (whole := read_closed_block(self._workspace, closed.path)) is not None and whole[1].within(LARGEST_READING):
            return self._keyed(whole[0], [whole[1]], whole[2])
        found = read_closed(self._workspace, closed.episode_id, closed.path, self._images, self._on_damaged)
        if found is None:
            return []
        return self._keyed(*found)

    def _keyed(self, start: EpisodeStart, steps: Sequence[Step | StepBlock], end: EpisodeEnd) -> _Keyed:
        records: list[CommittedRecord | StepBlock] = [start, *steps]
        keyed = [((record.rec_seq, False), record) for record in records]
        if end.rec_seq >= 0:
            return [*keyed, ((end.rec_seq, False), end)]
        # the end of an episode that was cut off was never in the stream
        return keyed if self._as_streamed else [*keyed, ((records[-1].rec_seq, True), end)]

    def _pictured(self, records: Iterable[CommittedRecord]) -> Iterable[CommittedRecord]:
        """Steps from journals with their pictures, where the episode was closed meanwhile."""
        pictured: dict[int, Step] = {}
        for record in records:
            if isinstance(record, EpisodeStart) and self._images:
                ids = [record.episode_id]
                found = iter_episode_records(self._workspace, self._task, images=True, episode_ids=ids, on_damaged=self._on_damaged)
                pictured = {step.rec_seq: step for _, steps, _ in found for step in steps}
            yield pictured.get(record.rec_seq, record) if isinstance(record, Step) else record


def _trained(records: Iterable[CommittedRecord], task: str) -> Iterator[CommittedRecord]:
    """Those of episodes of the task that are trained on, and outcomes that came late."""
    episodes: set[str] = set()
    for record in records:
        if isinstance(record, EpisodeStart) and record.spec.task_id == task and record.kind in TRAINED_KINDS:
            episodes.add(record.episode_id)
        if isinstance(record, OutcomeChange) or getattr(record, "episode_id", "") in episodes:
            yield record


def streamed_outcomes(workspace: Path) -> list[OutcomeChange]:
    """Outcomes that were given in the stream after their episodes had ended; of all sessions there are."""
    found: list[OutcomeChange] = []
    for path in sorted(Workspace(workspace).sessions.glob("*.mcap")):
        found += [record for record in read_journal(path).records if isinstance(record, OutcomeChange)]
    return found
