"""A learner's run over the committed stream: waiting for demonstrations, cloning them, training, publishing. No transport, no files.

Lockstep: every training step is ingested, then exactly the updates due are made, then it counts as finished. Real time: steps are
ingested between updates and the updates owed are worked off one by one.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from takeover.data.schema import LearnerStatus, RunConfig
from takeover.policies.base import Encodes, Learner, LearnerError, PolicyWeights
from takeover.policies.manifest import correction_name
from takeover.policies.rate import Rate
from takeover.policies.training_stream import CommittedRecord, TrainingStream

__all__ = ["CommittedRecord", "Publication", "Training"]
VERSIONS_SHOWN = 50
RECOVERED_AFTER = 100  # updates in a row with finite losses
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


class Training(TrainingStream):
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
        super().__init__(config)
        self.next_version = first_version
        self.versions_published = 0
        self.error = ""
        self.metrics: dict[str, float] = {}
        self.notices: dict[str, str] = {}  # what everyone should know, by topic; empty when all is well
        self._publish = publish
        self._on_update = on_update
        self._published_updates = 0
        self._corrections: list[str] = []  # first in a batch since the last version
        self._published_at = 0.0
        self._unpublished = False  # weights that could not be written wait to be
        self._skipped_last = False  # the last update: nothing is published before one that counts
        self._counted_since = 0  # updates since one was skipped
        self._acts_as_before = False  # the last update changed nothing of what acts, nor will the next: no version for that
        self._rate = Rate()

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
        """In lockstep nothing is ingested while cloning or before extra updates are made, so that what comes of it is a function of the
        stream; nor while pictures are encoded."""
        encoding = isinstance(self.learner, Encodes) and self.learner.encoding
        return (self._cloning is not None and (self.lockstep or encoding)) or (self.lockstep and self._extra_wanted())

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
        elif self._extra_wanted():
            self._extra_left -= 1
            # the bridge may have heard that this step is finished, and be at the first of which it would hear too late
            self._update(self.finished_train_step + 1, extra=True)
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

    def _extra_wanted(self) -> bool:
        """Whether one more update is to be made while the robot is reset: after the first one that was due, as long as no episode runs."""
        learner = self.learner
        return self._extra_left > 0 and learner is not None and learner.updates > 0 and not self.episode_runs and learner.can_learn

    def _update(self, train_step: int, extra: bool = False) -> None:
        learner = self.need_learner()
        skipped = self.metrics.get("skipped", 0.0)
        metrics = learner.update(extra)
        self._skipped_last = metrics.get("skipped", 0.0) > skipped
        self._acts_as_before = metrics.get("actor_waits", 0.0) > 0.0
        self._watch_losses(metrics.get("skipped", 0.0), learner.updates)
        self.metrics |= metrics
        self._rate.tick()
        used = learner.corrections_used()
        self._corrections += [correction_name(*correction) for correction in used]
        if not self.lockstep:
            self.clock.on_used(used, learner.updates, time.monotonic_ns())
        if self._on_update is not None:
            self._on_update(learner.updates, metrics)
        due = learner.updates - self._published_updates >= self.config.publish_every_updates
        if self.lockstep and due and not (self._skipped_last or self._acts_as_before):
            self.publish(train_step + self.config.lockstep_lag + 1)

    def _watch_losses(self, skipped: float, updates: int) -> None:
        """Says that updates are skipped, and no longer once the learner has recovered."""
        if self._skipped_last:
            self._counted_since = 0
            said = f"{skipped:.0f} of {updates} updates were skipped: their loss or gradient was not finite"
            self.notices["loss"] = f"{said}; if that goes on, lower learning_rate"
            return
        self._counted_since += 1
        if self._counted_since == RECOVERED_AFTER and self.notices.get("loss"):
            log.info("%d updates in a row count again, after %.0f that were skipped", RECOVERED_AFTER, skipped)
            self.notices["loss"] = ""

    def _publication_due(self) -> bool:
        learner = self.need_learner()
        if not learner.cloned or (learner.updates <= self._published_updates and not self._unpublished) or self._skipped_last:
            return False
        if self._acts_as_before and not self._unpublished:
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
                    counters={"updates": learner.updates} | ({"extra_updates": learner.extra_updates} if learner.extra_updates else {}),
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
            extra_updates=learner.extra_updates if learner is not None else 0,
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
            correction_to_batch_s=list(self.clock.to_batch_s),
            correction_to_acting_s=list(self.clock.to_acting_s),
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
            failed = self.learner.failed_demonstrations if self.learner is not None else 0
            others = f" (failed, not counted: {failed})" if failed else ""
            return f"Waiting for demonstrations: {demonstrations} of {self.config.demonstrations}{others}"
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
            "corrections": list(self._corrections),
            "finished_train_step": self.finished_train_step,
            "extra_left": self._extra_left,
            "session": self.session,
            "spec": msgspec.to_builtins(self.spec),
            "metrics": dict(self.metrics),
            "episodes": self._episodes,
            "running": self._episode.episode_id if self._episode is not None else "",
            "quarantine": self.quarantine.state(),
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
        self._episodes = run.get("episodes", self._episodes)
        self._extra_left = run.get("extra_left", 0)
        if self._episode is not None and self._episode.episode_id != run.get("running", self._episode.episode_id):
            self._end_cut_off()  # by episodes that were not ingested again
