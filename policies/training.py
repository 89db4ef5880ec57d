"""A learner's run over the committed stream: waiting for demonstrations, cloning them, training, publishing. No transport, no files.

Lockstep: every training step is ingested, then exactly the updates due are made, then it counts as finished. Real time: steps are
ingested between updates and the updates owed are worked off one by one.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from takeover.data.schema import (
    EpisodeEnd,
    EpisodeKind,
    EpisodeStart,
    Event,
    LearnerStatus,
    OutcomeChange,
    RobotSpec,
    RunConfig,
    Step,
)
from takeover.policies.base import Learner, PolicyWeights
from takeover.policies.corrections import CorrectionClock
from takeover.policies.manifest import correction_name
from takeover.policies.registry import make_learner
from takeover.policies.replay import is_held

CommittedRecord = EpisodeStart | Step | Event | OutcomeChange | EpisodeEnd
VERSIONS_SHOWN = 50


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

    ``publish`` returns the version it became (another one where the number was taken); when it raises, nothing counts as published.
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
        self._publish = publish
        self._on_update = on_update
        self._cloning: Iterator[float] | None = None
        self._progress = 0.0
        self._episode: EpisodeStart | None = None
        self._skipping = ""  # an episode that cannot be used
        self._kinds: dict[str, EpisodeKind] = {}
        self._episodes = 0
        self._published_updates = 0
        self._corrections: list[str] = []  # first in a batch since the last version
        self._published_at = 0.0
        self._rate = _Rate()
        self._replaying = False

    # --- the committed stream ---

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
            self.learner.relabel(record.episode_id, record.outcome, record.event_step)

    def _begin_session(self, session: str) -> None:
        """Training steps count from 0 in every session of the bridge; weights known before act from its first step."""
        self.session = session
        self.finished_train_step = -1
        self.versions = [(version, 0) for version, _ in self.versions[-1:]]
        self._episode = None

    def _begin_episode(self, start: EpisodeStart) -> None:
        if self.learner is None:
            self.spec = start.spec
            self.learner = make_learner(self.config.learner, start.spec, self.config.seed, dict(self.config.learner_parameters))
        self._episode = start
        self._kinds[start.episode_id] = start.kind
        self.learner.begin_episode(start)

    def _step(self, step: Step) -> None:
        if self.learner is None or self._episode is None or step.episode_id != self._episode.episode_id:
            return  # the tail of an episode whose beginning was not recorded
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
        self.learner.end_episode(end)
        self._episodes += 1
        self._episode = None
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
            progress = next(cloning, None)
            if progress is None:
                self._cloning = None
                self.publish(0)
                return
            self._progress = progress

    def _update(self, train_step: int) -> None:
        learner = self._need_learner()
        metrics = learner.update()
        self.metrics |= metrics
        self._rate.tick()
        used = learner.corrections_used()
        self._corrections += [correction_name(*correction) for correction in used]
        if not self.lockstep:
            self.clock.on_used(used, learner.updates, time.monotonic_ns())
        if self._on_update is not None:
            self._on_update(learner.updates, metrics)
        if self.lockstep and learner.updates - self._published_updates >= self.config.publish_every_updates:
            self.publish(train_step + self.config.lockstep_lag + 1)

    def _publication_due(self) -> bool:
        learner = self._need_learner()
        if not learner.cloned or learner.updates <= self._published_updates:
            return False
        return time.monotonic() - self._published_at >= self.config.publish_every_s

    def publish(self, acts_from_train_step: int) -> None:
        """Hand the present weights out as the next version."""
        learner = self._need_learner()
        version = self._publish(
            Publication(
                version=self.next_version,
                parent=self.versions[-1][0] if self.versions else 0,
                acts_from_train_step=acts_from_train_step,
                weights=learner.weights(),
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
        self._corrections = []
        self.next_version = version + 1
        self.versions = [*self.versions, (version, acts_from_train_step)][-VERSIONS_SHOWN:]
        self.versions_published += 1
        self._published_updates = learner.updates
        self._published_at = time.monotonic()
        self.clock.on_published(version)

    def _need_learner(self) -> Learner:
        if self.learner is None:
            raise RuntimeError("no episode was seen yet, so there is no learner")
        return self.learner

    # --- what others see ---

    def status(self) -> LearnerStatus:
        """A message for everyone."""
        learner = self.learner
        demonstrations = learner.demonstration_episodes if learner is not None else 0
        recent = [] if self.lockstep else self.clock.recent()
        return LearnerStatus(
            learner=self.config.learner,
            phase=self.phase,
            progress=self._phase_progress(demonstrations),
            text=self._text(demonstrations),
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
        learner = self._need_learner()
        wanted = self._learning_starts()
        if learner.updates == 0 and learner.train_steps < wanted:
            return f"Learning begins after {wanted} steps: {learner.train_steps} so far"
        return f"Training: {learner.updates} updates, {learner.human_steps} human steps"

    def _learning_starts(self) -> int:
        return int(getattr(getattr(self.learner, "parameters", None), "learning_starts", 0))

    # --- checkpoints ---

    def state(self) -> dict[str, Any]:
        """The learner's state and the run's own counters."""
        state = self._need_learner().state()
        run = {
            "next_version": self.next_version,
            "versions": self.versions,
            "versions_published": self.versions_published,
            "published_updates": self._published_updates,
            "corrections": self._corrections,
            "finished_train_step": self.finished_train_step,
            "session": self.session,
        }
        return state | {"run": run}

    def restore(self, state: dict[str, Any]) -> None:
        """After the same records were replayed."""
        self._need_learner().restore(state)
        run = state["run"]
        self.next_version = run["next_version"]
        self.versions = [(int(v), int(s)) for v, s in run["versions"]]
        self.versions_published = run["versions_published"]
        self._published_updates, self._corrections = run["published_updates"], list(run.get("corrections", []))
        self.session, self.finished_train_step = run["session"], run["finished_train_step"]


class _Rate:
    """Updates per second over the last five seconds."""

    def __init__(self, window_s: float = 5.0) -> None:
        self._window_s = window_s
        self._times: list[float] = []

    def tick(self) -> None:
        self._times.append(time.monotonic())
        if len(self._times) > 4000:
            self._trim()

    def per_second(self) -> float:
        self._trim()
        return len(self._times) / self._window_s

    def _trim(self) -> None:
        cut = time.monotonic() - self._window_s
        self._times = [t for t in self._times if t >= cut]
