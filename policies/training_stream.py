"""The committed stream as a learner's run takes it in: sessions, episodes, steps, outcomes; what cannot be learned from is left out."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from takeover.data.episode_block import StepBlock
from takeover.data.episode_labels import JUDGED, EpisodeLabels
from takeover.data.schema import EpisodeEnd, EpisodeKind, EpisodeStart, Outcome, OutcomeChange, OutcomeSource, RobotSpec, RunConfig, Step
from takeover.policies.base import Learner, Prepares, TakesBlocks
from takeover.policies.corrections import CorrectionClock
from takeover.policies.ingestion_log import CommittedRecord
from takeover.policies.quarantine import NO_OUTCOME, Quarantine, wrong_start, wrong_step
from takeover.policies.registry import make_learner
from takeover.policies.step_authority import is_held

log = logging.getLogger("learner")


class TrainingStream(ABC):
    """Feeds the learner with committed records in order (`handle`). `training.Training` adds what is done with what was learned."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.lockstep = config.clock == "lockstep"
        self.learner: Learner | None = None
        self.spec: RobotSpec | None = None
        self.task_parameters: dict[str, float] | None = None  # of the newest episode, where not the task's own; None: none was seen
        self.clock = CorrectionClock()
        self.versions: list[tuple[int, int]] = []
        self.finished_train_step = -1
        self.session = ""
        self.quarantine = Quarantine()
        self._cloning: Iterator[float] | None = None
        self._progress = 0.0
        self._episode: EpisodeStart | None = None
        self._ingests = False  # what the running episode brings
        self._episodes = 0
        self._extra_left = 0  # updates that may still be made while the robot is reset
        self._replaying = False
        self._expected: dict[str, Any] | None = None

    @abstractmethod
    def _update(self, train_step: int) -> None:
        """One update that is due at ``train_step``."""

    def expect(self, state: dict[str, Any]) -> None:
        """Before the first `replay`: what `restore` will be given."""
        self._expected = state

    @property
    def takes_blocks(self) -> bool:
        """Whether `replay` can be given the steps of a policy episode as one block."""
        return isinstance(self.learner, TakesBlocks) and self.learner.takes_blocks

    def replay(self, record: CommittedRecord | StepBlock) -> None:
        """Ingest again what a checkpoint had already learned from: no updates, no clocks."""
        self._replaying = True
        try:
            if not isinstance(record, StepBlock):
                self.handle(record)
            elif self._ingests and isinstance(self.learner, TakesBlocks):
                self.learner.ingest_block(record)
        finally:
            self._replaying = False

    def handle(self, record: CommittedRecord) -> None:
        """One committed record, in order."""
        if record.session != self.session:
            self._begin_session(record.session)
        if isinstance(record, Step):
            self._step(record)
        elif isinstance(record, EpisodeStart):
            self._begin_episode(record)
        elif isinstance(record, EpisodeEnd):
            self._end_episode(record)
        elif isinstance(record, OutcomeChange) and self.learner is not None:
            self._change_outcome(record, self.learner)
            if not self._replaying:
                self.clone_when_enough()  # a demonstration that did not fail after all may be the last one

    def _begin_session(self, session: str) -> None:
        """Training steps count from 0 in every session of the bridge; weights known before act from its first step."""
        self._end_cut_off()
        self.session = session
        self.finished_train_step = -1
        self.versions = [(version, 0) for version, _ in self.versions[-1:]]
        self._episode = None

    def make_learner(self, spec: RobotSpec | dict[str, Any]) -> None:
        """For this robot, unless there is one already; ``spec`` as `state` has it, or the robot's own."""
        if self.learner is None:
            self.spec = msgspec.convert(spec, RobotSpec) if isinstance(spec, dict) else spec
            self.learner = make_learner(self.config.learner, self.spec, self.config.seed, dict(self.config.learner_parameters))
            if self._expected is not None and isinstance(self.learner, Prepares):
                self.learner.prepare(self._expected)
            self._expected = None

    def _begin_episode(self, start: EpisodeStart) -> None:
        self._end_cut_off()
        self._episode, self._ingests, self._extra_left = start, False, 0
        if start.spec.task_id != self.config.task:
            self.quarantine.leave_out(start.episode_id, f"it is of task {start.spec.task_id}, the learner's is {self.config.task}")
            return
        self.make_learner(start.spec)
        if start.kind in (EpisodeKind.DEMONSTRATION, EpisodeKind.POLICY):
            own = {parameter.name: parameter.nominal for parameter in start.spec.parameters}
            self.task_parameters = {name: value for name, value in start.parameters.items() if own.get(name) != value}
        if self.spec is not None and (problem := wrong_start(start, self.spec)):
            self._leave_out(start, problem)
        else:
            self._ingests = self._taken_in(start, lambda: self.need_learner().begin_episode(start))

    def _taken_in(self, start: EpisodeStart, take_in: Callable[[], None]) -> bool:
        """Whether the learner could do so; an episode with what it cannot use (a picture that is missing) is left out."""
        try:
            take_in()
        except ValueError as error:
            self._leave_out(start, str(error))
            return False
        return True

    def _end_cut_off(self) -> None:
        """An episode whose end never came: its bridge was killed."""
        if self._episode is not None:
            self._leave_out(self._episode, NO_OUTCOME)
            self._episode = None

    def _leave_out(self, start: EpisodeStart, reason: str) -> None:
        if self.learner is None or start.kind not in (EpisodeKind.DEMONSTRATION, EpisodeKind.POLICY):
            return
        episode_id = start.episode_id
        if episode_id not in self.quarantine.reasons:
            log.warning("episode %s is left out: %s", episode_id, reason)
        self.quarantine.leave_out(episode_id, reason)
        self.learner.exclude(episode_id)

    def _change_outcome(self, change: OutcomeChange, learner: Learner) -> None:
        name, taken_back = change.episode_id, change.outcome is Outcome.UNKNOWN
        if change.source is not OutcomeSource.OPERATOR and not taken_back:  # what was recorded holds again
            judged = change.source in JUDGED
            labels = EpisodeLabels(episode_id=name, outcome=change.outcome, event_step=change.event_step, relabelled=judged)
            learner.apply_labels(self.quarantine.amend(labels))
            return
        waits = self.quarantine.unjudged(name) if taken_back else self.quarantine.lacks_outcome(name)
        if change.outcome is not Outcome.ABORTED and not waits:
            learner.relabel(name, change.outcome, change.event_step)
            return
        given = change.outcome is not Outcome.UNKNOWN
        labels = EpisodeLabels(episode_id=name, outcome=change.outcome, event_step=change.event_step, relabelled=given)
        learner.apply_labels(self.quarantine.amend(labels))

    def ingest_again(self, start: EpisodeStart, steps: Sequence[Step], end: EpisodeEnd) -> None:
        """A whole episode that was left out when the learner started and counts again."""
        learner, spec = self.need_learner(), self.spec or start.spec
        problem = wrong_start(start, spec) or next((p for step in steps if not is_held(step) and (p := wrong_step(step, spec))), "")
        if problem:
            self._leave_out(start, problem)
            return

        def take_in() -> None:
            learner.begin_episode(start)
            learner.ingest(steps)

        if not self._taken_in(start, take_in):
            return
        learner.end_episode(end)
        if end.outcome is Outcome.UNKNOWN:
            self._leave_out(start, NO_OUTCOME)

    def _step(self, step: Step) -> None:
        if self.learner is None or self._episode is None or step.episode_id != self._episode.episode_id:
            return  # the tail of an episode whose beginning was not recorded
        if self._ingests and self.spec is not None and not is_held(step) and (problem := wrong_step(step, self.spec)):
            self._leave_out(self._episode, problem)
            self._ingests = False
        if self._ingests:
            learner = self.learner
            self._ingests = self._taken_in(self._episode, lambda: learner.ingest([step]))
        if is_held(step) or step.kind != EpisodeKind.POLICY:
            return
        if not self.lockstep and not self._replaying:
            self.clock.on_step(step, self._episode.number)
        if self.lockstep and not self._replaying:
            while self.learner.updates_due() > 0:
                self._update(step.train_step)
        self.finished_train_step = max(self.finished_train_step, step.train_step)

    def _end_episode(self, end: EpisodeEnd) -> None:
        if self.learner is None or self._episode is None or end.episode_id != self._episode.episode_id:
            return
        start, self._episode = self._episode, None
        if not self._ingests:
            return
        self.learner.end_episode(end)
        self._episodes += 1
        if end.discarded:
            self.learner.exclude(end.episode_id)
        elif end.outcome is Outcome.UNKNOWN:
            self._leave_out(start, NO_OUTCOME)
        if not self._replaying:
            self.clone_when_enough()
            if start.kind == EpisodeKind.POLICY:
                self._extra_left = int(getattr(getattr(self.learner, "parameters", None), "reset_updates", 0))

    def clone_when_enough(self) -> None:
        """Begin to clone once as many demonstrations count as are wanted: one that a label gave back may be the last."""
        learner = self.learner
        if learner is not None and not learner.cloned and learner.demonstration_episodes >= self.config.demonstrations:
            self.start_cloning()

    def start_cloning(self) -> None:
        """Clone the demonstrations ingested so far; `work` carries it on."""
        if self.learner is not None and not self.learner.cloned and self._cloning is None:
            self._progress = 0.0
            self._cloning = self.learner.clone_demonstrations()

    @property
    def episode_runs(self) -> bool:
        """Whether an episode has begun and not ended."""
        return self._episode is not None

    def need_learner(self) -> Learner:
        """The learner. Raises `RuntimeError` as long as no episode was seen."""
        if self.learner is None:
            raise RuntimeError("no episode was seen yet, so there is no learner")
        return self.learner
