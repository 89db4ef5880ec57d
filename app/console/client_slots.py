"""What the console knows of the station: slots that the link thread replaces and the GUI reads when it paints."""

import time
from collections import deque
from dataclasses import dataclass

from takeover.data.schema import (
    ActorStatus,
    CameraFrame,
    Committed,
    ControlRequest,
    EpisodeEnd,
    EpisodeStart,
    EvaluatorStatus,
    LearnerStatus,
    Lease,
    ProcessStatus,
    RobotSpec,
    State,
    ViewReport,
)
from takeover.robot_bridge.protocol import SAY_HELLO


@dataclass(frozen=True)
class Notice:
    """Something to tell the person: a refused or unanswered request."""

    t_ns: int
    text: str
    refused: bool = True


def refusal_text(request: ControlRequest, error: str) -> str:
    """A refusal as the person reads it; "" of none, and of what is asked again by itself once the connection is known."""
    if error != SAY_HELLO:
        return error
    if isinstance(request, Lease | ViewReport):
        return ""
    return f"{type(request).__name__}: the connection to the bridge was lost and is back; this was not done"


@dataclass(frozen=True)
class FinishedEpisode:
    """From the recorder's stream: an episode that ended and is on disk."""

    episode_id: str
    number: int
    kind: str
    steps: int
    human_steps: int
    takeovers: int
    outcome: str
    autonomous: bool
    discarded: bool


class StationSlots:
    """Slots are replaced whole, so reading them needs no lock."""

    def __init__(self) -> None:
        self.state: State | None = None
        self.state_ns = 0  # arrival
        self.spec: RobotSpec | None = None
        self.session = ""
        self.learner: LearnerStatus | None = None
        self.learner_ns = 0
        self.actor: ActorStatus | None = None
        self.actor_ns = 0
        self.evaluator: EvaluatorStatus | None = None
        self.processes: ProcessStatus | None = None
        self.frames: dict[str, CameraFrame] = {}
        self.frames_ns: dict[str, int] = {}  # when each arrived here
        self.frames_missed: dict[str, int] = {}  # pictures that were taken and never seen here, by their counters
        self.states: deque[State] = deque(maxlen=512)
        self.episodes: deque[FinishedEpisode] = deque(maxlen=200)
        self.notices: deque[Notice] = deque(maxlen=32)
        self._numbers: dict[str, tuple[int, str]] = {}

    def state_age_ms(self, now_ns: int | None = None) -> float:
        """Since the last State arrived here; infinite when there was none."""
        if not self.state_ns:
            return float("inf")
        return ((time.monotonic_ns() if now_ns is None else now_ns) - self.state_ns) / 1e6

    # --- the link thread ---

    def _on_frame(self, message: CameraFrame) -> None:
        before = self.frames.get(message.camera)
        if before is not None and before.session == message.session and message.counter > before.counter:
            self.frames_missed[message.camera] = self.frames_missed.get(message.camera, 0) + message.counter - before.counter - 1
        self.frames[message.camera] = message
        self.frames_ns[message.camera] = time.monotonic_ns()

    def _on_learner(self, message: LearnerStatus) -> None:
        self.learner, self.learner_ns = message, time.monotonic_ns()

    def _on_actor(self, message: ActorStatus) -> None:
        self.actor, self.actor_ns = message, time.monotonic_ns()

    def _on_evaluator(self, message: EvaluatorStatus) -> None:
        self.evaluator = message

    def _on_processes(self, message: ProcessStatus) -> None:
        self.processes = message

    def _on_committed(self, message: Committed) -> None:
        for record in message.records:
            if isinstance(record, EpisodeStart):
                self._numbers[record.episode_id] = (record.number, record.kind.value)
            elif isinstance(record, EpisodeEnd):
                number, kind = self._numbers.pop(record.episode_id, (-1, ""))
                self.episodes.append(
                    FinishedEpisode(
                        episode_id=record.episode_id,
                        number=number,
                        kind=kind,
                        steps=record.steps,
                        human_steps=record.human_steps,
                        takeovers=record.takeovers,
                        outcome=record.outcome.value,
                        autonomous=record.autonomous,
                        discarded=record.discarded,
                    )
                )
