"""Watches a running station from outside: what the recorder committed, and what the processes say of themselves."""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from takeover import __version__
from takeover.data.schema import (
    Committed,
    ControlRequest,
    EpisodeEnd,
    EpisodeKind,
    EpisodeStart,
    EvaluatorStatus,
    Event,
    LearnerStatus,
    Outcome,
    OutcomeChange,
    Reply,
    Role,
    State,
)
from takeover.data.store import read_gap
from takeover.robot_bridge.protocol import ControlClient, Endpoints, RequestTimeout, Subscriber, wait


@dataclass(frozen=True)
class FinishedEpisode:
    start: EpisodeStart
    end: EpisodeEnd


@dataclass
class EpisodeLog:
    """Finished episodes in order, from the committed records; what was missed (a recorder that restarted) is read from the store."""

    workspace: str
    finished: list[FinishedEpisode] = field(default_factory=list)
    ends_asked: list[str] = field(default_factory=list)  # who asked for the end of a block, in order
    _started: dict[str, EpisodeStart] = field(default_factory=dict)
    _cursor: dict[str, int] = field(default_factory=dict)

    def add(self, committed: Committed) -> None:
        """One announcement of the recorder. Repeated ones change nothing. Raises `GapError` when the store misses records."""
        seen = self._cursor.get(committed.session, committed.first - 1)
        if committed.first > seen + 1:
            for record in read_gap(self.workspace, committed.session, seen + 1, committed.first - 1):
                self._add_record(record)
        for record in committed.records:
            if record.rec_seq > seen:
                self._add_record(record)
        self._cursor[committed.session] = max(seen, committed.cursor)

    def _add_record(self, record: Any) -> None:
        if isinstance(record, EpisodeStart):
            self._started[record.episode_id] = record
        elif isinstance(record, EpisodeEnd):
            start = self._started.pop(record.episode_id, None)
            if start is not None:
                self.finished.append(FinishedEpisode(start, record))
        elif isinstance(record, Event) and record.kind == "finish_asked" and record.source == "bridge":
            self.ends_asked.append(record.text)
        elif isinstance(record, OutcomeChange):
            for index, episode in enumerate(self.finished):
                if episode.end.episode_id == record.episode_id:
                    end = msgspec.structs.replace(episode.end, outcome=record.outcome, event_step=record.event_step)
                    self.finished[index] = FinishedEpisode(episode.start, end)

    def of_kind(self, kind: EpisodeKind) -> list[FinishedEpisode]:
        """Discarded ones left out."""
        return [episode for episode in self.finished if episode.start.kind == kind and not episode.end.discarded]

    def counted(self, kind: EpisodeKind) -> int:
        """How many that were asked for are there: a demonstration that failed, or that a fault has cut short, is none, as learners see it
        too."""
        complete = [one for one in self.of_kind(kind) if kind != EpisodeKind.DEMONSTRATION or one.end.outcome == Outcome.SUCCESS]
        return len(complete)


class StationLink:
    """Newest status of every process, the committed episodes, and requests to the bridge. One thread only."""

    def __init__(self, endpoints: Endpoints, sender: str, workspace: str) -> None:
        self.sender = sender
        self.state: State | None = None
        self.learner: LearnerStatus | None = None
        self.evaluator: EvaluatorStatus | None = None
        self.log = EpisodeLog(workspace)
        self.client = ControlClient(endpoints, sender, Role.OPERATOR)
        self._states: Subscriber[State] = Subscriber(endpoints, "state", State)
        self._learner: Subscriber[LearnerStatus] = Subscriber(endpoints, "learner_status", LearnerStatus)
        self._evaluator: Subscriber[EvaluatorStatus] = Subscriber(endpoints, "evaluator_status", EvaluatorStatus)
        self._committed: Subscriber[Committed] = Subscriber(endpoints, "committed", Committed, latest=False)
        self._greeted = ""
        self._steps_before = {"total": 0, "dropped": 0, "late": 0}  # of earlier bridge sessions of this run

    def update(self, timeout_s: float) -> None:
        """Receive what is there; wait at most ``timeout_s`` for something."""
        wait([self._states, self._learner, self._evaluator, self._committed], timeout_s)
        if (state := self._states.receive()) is not None:
            if self.state is not None and state.session != self.state.session:
                for name, value in self._own_steps().items():
                    self._steps_before[name] += value
            self.state = state
            self.client.newest_state_seq = state.seq
        self.learner = self._learner.receive() or self.learner
        self.evaluator = self._evaluator.receive() or self.evaluator
        while (committed := self._committed.receive()) is not None:
            self.log.add(committed)

    def _own_steps(self) -> dict[str, int]:
        if self.state is None:
            return {"total": 0, "dropped": 0, "late": 0}
        return {"total": self.state.steps_total, "dropped": self.state.steps_dropped, "late": self.state.steps_late}

    def steps(self) -> dict[str, int]:
        """Control steps of the whole run, bridge restarts included."""
        return {name: value + self._steps_before[name] for name, value in self._own_steps().items()}

    def hello(self) -> Reply | None:
        """None when the bridge did not answer."""
        try:
            reply = self.client.hello(f"takeover {__version__}")
        except RequestTimeout:
            return None
        self._greeted = reply.session
        return reply

    def ask(self, request: ControlRequest) -> str:
        """What was refused and why; empty when done. A bridge that was started anew is greeted first."""
        self.update(0.0)  # the bridge shall see that this is asked now
        if self.state is not None and self.state.session != self._greeted and self.hello() is None:
            return "the bridge does not answer"
        try:
            return self.client.ask(request).error
        except RequestTimeout as error:
            return str(error)

    def close(self) -> None:
        for item in (self.client, self._states, self._learner, self._evaluator, self._committed):
            item.close()
