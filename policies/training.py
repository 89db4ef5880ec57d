"""A learner's run over the committed stream: waiting for demonstrations, cloning them, training, publishing. No transport, no files.

Lockstep: every training step is ingested, then exactly the updates due are made, then it counts as finished. Real time: steps are
ingested between updates and the updates owed are worked off one by one.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from takeover.data.episode_labels import EpisodeLabels
from takeover.data.schema import (
    EpisodeEnd,
    EpisodeKind,
    EpisodeStart,
    Event,
    LearnerStatus,
    Outcome,
    OutcomeChange,
    RobotSpec,
    RunConfig,
    Step,
)
from takeover.policies.base import Learner, LearnerError, PolicyWeights, Prepares
from takeover.policies.corrections import CorrectionClock
from takeover.policies.manifest import correction_name
from takeover.policies.quarantine import NO_OUTCOME, Quarantine, wrong_start, wrong_step
from takeover.policies.rate import Rate
from takeover.policies.registry import make_learner
from takeover.policies.replay import is_held

CommittedRecord = EpisodeStart | Step | Event | OutcomeChange | EpisodeEnd
VERSIONS_SHOWN = 50
NOTHING_LEFT = "Training stands still: nothing is left to learn from, every step is left out"
log = logging.getLogger("learner")


@dataclass(frozen=True)
class Publication:
    """New weights to be written, with what a manifest needs."""

    version: int
    parent: int
    acts_from_train_step: int
    weights: PolicyWeights
    learner: Learner
    data: dict[str, int]
    counters: dict[str, int]
    metrics: dict[str, float]
    corrections: list[str]  # first in a batch since the parent


class Training:
    """Feed it committed records in order (`handle`) and let it `work`; it calls ``publish`` with new weights.

    ``publish`` returns the version it became (another one where the number was taken); when it raises, nothing counts as published, and in
    real time an `OSError` (a full disk) is said and tried again.
    ``on_update(updates, metrics)`` follows every update.
    """

    def __init__(
        self,
        config: RunConfig,
        publish: Callable[[Publication], int],
        on_update: Callable[[int, dict[str, float]], None] | None = None,
        first_version: int = 1,
    ) -> None:
        self.config = config
        self.lockstep = config.clock == "lockstep"
        self.learner: Learner | None = None
        self.spec: RobotSpec | None = None
        self.clock = CorrectionClock()
        self.next_version = first_version
        self.versions: list[tuple[int, int]] = []
        self.versions_published = 0
        self.finished_train_step = -1
        self.session = ""
        self.error = ""
        self.metrics: dict[str, float] = {}
        self.quarantine = Quarantine()
        self.notices: dict[str, str] = {}  # what everyone should know, by topic; empty when all is well
        self._publish = publish
        self._on_update = on_update
        self._cloning: Iterator[float] | None = None
        self._progress = 0.0
        self._episode: EpisodeStart | None = None
        self._ingests = False  # what the running episode brings
        self._kinds: dict[str, EpisodeKind] = {}
        self._episodes = 0
        self._published_updates = 0
        self._corrections: list[str] = []  # first in a batch since the last version
        self._published_at = 0.0
        self._unpublished = False  # weights that could not be written wait to be
        self._skipped_last = False  # the last update: nothing is published before one that counts
        self._rate = Rate()
        self._replaying = False
        self._expected: dict[str, Any] | None = None

    # --- the committed stream ---

    def expect(self, state: dict[str, Any]) -> None:
        """Before the first `replay`: what `restore` will be given."""
        self._expected = state

    def replay(self, record: CommittedRecord) -> None:
        """Ingest again what a checkpoint had already learned from: no updates, no clocks."""
        self._replaying = True
        try:
            self.handle(record)
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
        self.make_learner(start.spec)
        self._episode = start
        self._kinds[start.episode_id] = start.kind
        if self.spec is not None and (problem := wrong_start(start, self.spec)):
            self._leave_out(start.episode_id, problem)
            self._ingests = False
        else:
            self.need_learner().begin_episode(start)
            self._ingests = True

    def _end_cut_off(self) -> None:
        """An episode whose end never came: its bridge was killed."""
        if self._episode is not None:
            self._leave_out(self._episode.episode_id, NO_OUTCOME)
            self._episode = None

    def _leave_out(self, episode_id: str, reason: str) -> None:
        if self.learner is None or self._kinds.get(episode_id) not in (EpisodeKind.DEMONSTRATION, EpisodeKind.POLICY):
            return
        if episode_id not in self.quarantine.reasons:
            log.warning("episode %s is left out: %s", episode_id, reason)
        self.quarantine.leave_out(episode_id, reason)
        self.learner.exclude(episode_id)

    def _change_outcome(self, change: OutcomeChange, learner: Learner) -> None:
        name = change.episode_id
        if change.outcome is not Outcome.UNKNOWN and not self.quarantine.lacks_outcome(name):
            learner.relabel(name, change.outcome, change.event_step)
            return
        given = change.outcome in (Outcome.SUCCESS, Outcome.FAILURE)
        labels = EpisodeLabels(episode_id=name, outcome=change.outcome, event_step=change.event_step, relabelled=given)
        learner.apply_labels(self.quarantine.amend(labels))

    def ingest_again(self, start: EpisodeStart, steps: Sequence[Step], end: EpisodeEnd) -> None:
        """A whole episode that was left out when the learner started and counts again."""
        learner, spec = self.need_learner(), self.spec or start.spec
        self._kinds[start.episode_id] = start.kind
        problem = wrong_start(start, spec) or next((p for step in steps if not is_held(step) and (p := wrong_step(step, spec))), "")
        if problem:
            self._leave_out(start.episode_id, problem)
            return
        learner.begin_episode(start)
        learner.ingest(steps)
        learner.end_episode(end)
        if end.outcome is Outcome.UNKNOWN:
            self._leave_out(end.episode_id, NO_OUTCOME)

    def _step(self, step: Step) -> None:
        if self.learner is None or self._episode is None or step.episode_id != self._episode.episode_id:
            return  # the tail of an episode whose beginning was not recorded
        if self._ingests and self.spec is not None and not is_held(step) and (problem := wrong_step(step, self.spec)):
            self._leave_out(step.episode_id, problem)
            self._ingests = False
        if self._ingests:
            self.learner.ingest([step])
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
        self._episode = None
        if not self._ingests:
            return
        self.learner.end_episode(end)
        self._episodes += 1
        if end.outcome is Outcome.UNKNOWN and not end.discarded:
            self._leave_out(end.episode_id, NO_OUTCOME)
        enough = self.learner.demonstration_episodes >= self.config.demonstrations
        if enough and not self.learner.cloned and self._cloning is None and not self._replaying:
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

    # --- work between records ---

    @property
    def phase(self) -> str:
        if self.error:
            return "error"
        if self._cloning is not None:
            return "cloning"
        return "training" if self.learner is not None and self.learner.cloned else "waiting"

    @property
    def blocks_ingestion(self) -> bool:
        """In lockstep nothing is ingested while cloning, so that its result is a function of the stream."""
        return self.lockstep and self._cloning is not None

    def work(self) -> bool:
        """One short piece of work (a few ms); False when there is nothing to do."""
        if self.learner is None:
            return False
        if self._cloning is not None:
            self._clone()
            return True
        did = False
        if not self.lockstep and self.learner.updates_due() > 0:
            self._update(self.finished_train_step)
            did = True
        if not self.lockstep and self._publication_due():
            self.publish(0)
        return did

    def _clone(self) -> None:
        cloning = self._cloning
        if cloning is None:
            return
        deadline = time.monotonic() + 0.05
        while time.monotonic() < deadline:
            try:
                progress = next(cloning, None)
            except LearnerError as error:  # of all the demonstrations none is an example: more may come
                self._cloning = None
                self.notices["cloning"] = f"cannot clone: {error}"
                log.warning("%s", self.notices["cloning"])
                return
            self.notices["cloning"] = ""
            if progress is None:
                self._cloning = None
                self.publish(0)
                return
            self._progress = progress

    def _update(self, train_step: int) -> None:
        learner = self.need_learner()
        skipped = self.metrics.get("skipped", 0.0)
        metrics = learner.update()
        self._skipped_last = metrics.get("skipped", 0.0) > skipped
        if self._skipped_last:
            count = f"{metrics['skipped']:.0f} of {learner.updates} updates were skipped"
            self.notices["loss"] = f"{count}: their loss was not finite; if that goes on, lower learning_rate"
        self.metrics |= metrics
        self._rate.tick()
        used = learner.corrections_used()
        self._corrections += [correction_name(*correction) for correction in used]
        if not self.lockstep:
            self.clock.on_used(used, learner.updates, time.monotonic_ns())
        if self._on_update is not None:
            self._on_update(learner.updates, metrics)
        due = learner.updates - self._published_updates >= self.config.publish_every_updates
        if self.lockstep and due and not self._skipped_last:
            self.publish(train_step + self.config.lockstep_lag + 1)

    def _publication_due(self) -> bool:
        learner = self.need_learner()
        if not learner.cloned or (learner.updates <= self._published_updates and not self._unpublished) or self._skipped_last:
            return False
        return time.monotonic() - self._published_at >= self.config.publish_every_s

    def publish(self, acts_from_train_step: int) -> None:
        """Hand the present weights out as the next version."""
        learner = self.need_learner()
        weights = learner.weights()
        self._published_at = time.monotonic()
        if bad := [name for name, tensor in weights.tensors.items() if not bool(tensor.isfinite().all())]:
            self._published_updates = learner.updates
            self.notices["publish"] = f"not published: {bad[0]} holds numbers that are not finite; the version before acts on"
            log.error("%s", self.notices["publish"])
            return
        try:
            version = self._publish(
                Publication(
                    version=self.next_version,
                    parent=self.versions[-1][0] if self.versions else 0,
                    acts_from_train_step=acts_from_train_step,
                    weights=weights,
                    learner=learner,
                    data={
                        "episodes": self._episodes,
                        "demonstrations": learner.demonstration_episodes,
                        "train_steps": learner.train_steps,
                        "human_steps": learner.human_steps,
                    },
                    counters={"updates": learner.updates},
                    metrics=dict(self.metrics),
                    corrections=self._corrections,
                )
            )
        except OSError as error:
            if self.lockstep:  # the bridge waits for exactly this version: the next learner makes it again
                raise LearnerError(f"version {self.next_version} cannot be written: {error}") from error
            self._unpublished = True
            self.notices["publish"] = f"version {self.next_version} cannot be written ({error}); the one before acts on"
            log.error("%s", self.notices["publish"])
            return
        self._unpublished = False
        self.notices["publish"] = ""
        self._corrections = []
        self.next_version = version + 1
        self.versions = [*self.versions, (version, acts_from_train_step)][-VERSIONS_SHOWN:]
        self.versions_published += 1
        self._published_updates = learner.updates
        self.clock.on_published(version)

    def need_learner(self) -> Learner:
        """The learner. Raises `RuntimeError` as long as no episode was seen."""
        if self.learner is None:
            raise RuntimeError("no episode was seen yet, so there is no learner")
        return self.learner

    # --- what others see ---

    def status(self) -> LearnerStatus:
        """A message for everyone."""
        learner = self.learner
        demonstrations = learner.demonstration_episodes if learner is not None else 0
        recent = [] if self.lockstep else self.clock.recent()
        notices = [notice for notice in (*self.notices.values(), self.quarantine.notice) if notice]
        text = self._text(demonstrations)
        return LearnerStatus(
            learner=self.config.learner,
            phase=self.phase,
            progress=self._phase_progress(demonstrations),
            text="; ".join([text, *notices]),
            updates=learner.updates if learner is not None else 0,
            updates_per_s=0.0 if self.lockstep else self._rate.per_second(),
            demonstrations=demonstrations,
            finished_train_step=self.finished_train_step,
            backlog_steps=learner.updates_due() if learner is not None else 0,
            newest_version=self.versions[-1][0] if self.versions else 0,
            versions=self.versions,
            versions_published=self.versions_published,
            human_steps=learner.human_steps if learner is not None else 0,
            last_correction=recent[-1] if recent else {},
            corrections=recent,
            correction_to_batch_s=self.clock.to_batch_s,
            correction_to_acting_s=self.clock.to_acting_s,
            metrics=self.metrics,
            error=self.error,
            notices=[NOTHING_LEFT, *notices] if text == NOTHING_LEFT else notices,
        )

    def _phase_progress(self, demonstrations: int) -> float:
        if self.phase == "cloning":
            return self._progress
        return 1.0 if self.phase == "training" else min(1.0, demonstrations / max(1, self.config.demonstrations))

    def _text(self, demonstrations: int) -> str:
        if self.error:
            return self.error
        if self.phase == "cloning":
            return f"Cloning {demonstrations} demonstrations"
        if self.phase == "waiting":
            return f"Waiting for demonstrations: {demonstrations} of {self.config.demonstrations}"
        learner = self.need_learner()
        if not learner.can_learn:
            return NOTHING_LEFT
        wanted = self._learning_starts()
        if learner.updates == 0 and learner.train_steps < wanted:
            return f"Learning begins after {wanted} steps: {learner.train_steps} so far"
        return f"Training: {learner.updates} updates, {learner.human_steps} human steps"

    def _learning_starts(self) -> int:
        return int(getattr(getattr(self.learner, "parameters", None), "learning_starts", 0))

    # --- checkpoints ---

    def state(self) -> dict[str, Any]:
        """The learner's state and the run's own counters."""
        state = self.need_learner().state()
        run = {
            "next_version": self.next_version,
            "versions": self.versions,
            "versions_published": self.versions_published,
            "published_updates": self._published_updates,
            "corrections": self._corrections,
            "finished_train_step": self.finished_train_step,
            "session": self.session,
            "spec": msgspec.to_builtins(self.spec),
            "metrics": dict(self.metrics),
        }
        return state | {"run": run}

    def restore(self, state: dict[str, Any]) -> None:
        """After the same records were replayed."""
        self.need_learner().restore(state)
        run = state["run"]
        self.next_version = run["next_version"]
        self.versions = [(int(v), int(s)) for v, s in run["versions"]]
        self.versions_published = run["versions_published"]
        self._published_updates, self._corrections = run["published_updates"], list(run.get("corrections", []))
        self.metrics = dict(run["metrics"])
        self.session, self.finished_train_step = run["session"], run["finished_train_step"]
