"""Outcomes after the end: what people correct once an episode is over, and what they take back."""

import time
from collections import deque
from dataclasses import dataclass

from takeover.data.schema import Outcome, OutcomeChange, OutcomeSource, RunConfig
from takeover.robot_bridge.episode import Block, EpisodeError
from takeover.robot_bridge.record_log import RecordLog

REMEMBERED_EPISODES = 200


@dataclass
class EndedEpisode:
    """What is remembered of an episode so that its outcome can be corrected."""

    id: str
    outcome: Outcome
    event_step: int
    by_operator: bool
    block: Block | None  # which counts it; None: thrown away as it ended
    ended_ns: int = 0  # monotonic
    last_step: int = 0
    source: OutcomeSource = OutcomeSource.NONE
    author: str = ""  # who ended it by its outcome
    discarded: bool = False  # after its end

    @property
    def counted(self) -> bool:
        """By its block: not when it was thrown away and has no other outcome since."""
        return not (self.discarded and self.outcome is Outcome.ABORTED)


@dataclass(frozen=True, eq=False)
class GivenOutcome:
    """That a person gave an outcome: of which episode, who, and what it was before: by ``source``, at ``event_step``."""

    ended: EndedEpisode
    author: str
    before: Outcome
    event_step: int
    source: OutcomeSource


class EndedEpisodes:
    """The last episodes of a session. Every change is written to the record log at once; a key is dated back by the station's delay."""

    def __init__(self, config: RunConfig, control_hz: float, log: RecordLog) -> None:
        self.config = config
        self.control_hz = control_hz
        self.log = log
        self._ended: deque[EndedEpisode] = deque(maxlen=REMEMBERED_EPISODES)
        self._changes: deque[GivenOutcome] = deque(maxlen=REMEMBERED_EPISODES)  # oldest first, those taken back left out

    @property
    def last(self) -> EndedEpisode | None:
        return self._ended[-1] if self._ended else None

    def add(self, ended: EndedEpisode) -> None:
        """An episode has just ended."""
        self._ended.append(ended)
        if ended.by_operator:
            self._changes.append(GivenOutcome(ended, ended.author, Outcome.UNKNOWN, ended.event_step, OutcomeSource.OPERATOR))

    def dated_back(self, since_s: float = 0.0) -> int:
        """Steps by which a key that is pressed ``since_s`` after the last step is dated back from that step."""
        return max(0, round((self.config.key_delay_s - since_s) * self.control_hz))

    def relabel(self, outcome: Outcome, author: str, episode_id: str = "") -> None:
        """Correct the outcome of a finished episode (the last one by default). Raises `EpisodeError`."""
        found = next((e for e in reversed(self._ended) if not episode_id or e.id == episode_id), None)
        if found is None:
            raise EpisodeError(
                f"episode {episode_id} is not among the last ones of this session" if episode_id else "no episode has ended yet"
            )
        newest = next((change for change in reversed(self._changes) if change.ended is found), None)
        if newest is not None and newest.author == author and found.outcome is outcome:
            return  # pressed twice: nothing changes, and one undo takes it back
        # what was thrown away as it ended stays so, whatever else its record says
        source = found.source if found.block is not None else OutcomeSource.OPERATOR
        self._changes.append(GivenOutcome(found, author, found.outcome, found.event_step, source))
        if not found.by_operator and outcome in (Outcome.SUCCESS, Outcome.FAILURE) and self.config.reward != "task":
            since_s = (time.monotonic_ns() - found.ended_ns) / 1e9  # a key that comes after the time limit
            found.event_step = max(0, found.last_step - self.dated_back(since_s))
        self._change(found, outcome, author)

    def discard(self, ended: EndedEpisode, author: str) -> None:
        """Throw it away: its block does not count it until it is given another outcome, by undo too."""
        ended.discarded = True
        self.relabel(Outcome.ABORTED, author, ended.id)

    def undo(self, author: str) -> None:
        """Take back the last outcome that ``author`` gave: what was before holds again, a time limit as a time limit.

        Raises `EpisodeError` when there is none or somebody has changed it since.
        """
        given = next((change for change in reversed(self._changes) if change.author == author), None)
        if given is None:
            raise EpisodeError(f"no outcome given by {author} is left to undo")
        newest = next(change for change in reversed(self._changes) if change.ended is given.ended)
        if newest is not given:
            raise EpisodeError(f"{newest.author} has made episode {given.ended.id} {given.ended.outcome} since; set it again instead")
        self._changes.remove(given)
        given.ended.event_step = given.event_step
        self._change(given.ended, given.before, author, given.source)

    def _change(self, ended: EndedEpisode, outcome: Outcome, author: str, source: OutcomeSource = OutcomeSource.OPERATOR) -> None:
        previous, before = ended.outcome, ended.counted
        ended.outcome = outcome
        ended.source = source
        if ended.block is not None:
            ended.block.done += ended.counted - before
        self.log.append(
            lambda session, rec_seq: OutcomeChange(
                session=session,
                rec_seq=rec_seq,
                episode_id=ended.id,
                outcome=outcome,
                previous=previous,
                author=author,
                event_step=ended.event_step,
                source=source,
                wall_ns=time.time_ns(),
            )
        )
