"""A `Training` on disk: publishes versions, saves checkpoints, writes event files, and resumes from the store after a restart."""

import itertools
import logging
import time
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from takeover.data.catalog import Catalog
from takeover.data.catalog_errors import CATALOG_FAILURES, reason_of
from takeover.data.episode_block import StepBlock
from takeover.data.episode_labels import EpisodeLabels
from takeover.data.hdf5_image import DamagedFile
from takeover.data.schema import Committed, EpisodeEnd, RunConfig
from takeover.data.store import GapError, read_gap, read_since
from takeover.policies.checkpoint import CheckpointWriter, newest_checkpoint
from takeover.policies.event_files import EventFile
from takeover.policies.ingestion_log import IngestionLog, streamed_outcomes
from takeover.policies.label_reading import LabelReading
from takeover.policies.manifest import newest_version
from takeover.policies.pruning import Pruner
from takeover.policies.publication import enter_version, write_version
from takeover.policies.quarantine import DAMAGED
from takeover.policies.rebuild import Incomplete, episodes_again, for_everything
from takeover.policies.resume import check_same_settings, kept_settings
from takeover.policies.training import CommittedRecord, Publication, Training

log = logging.getLogger("learner")

SCALARS_EVERY_UPDATES = 50


class LearnerRun:
    """One learner of one workspace. ``committed`` takes messages, `work` does a short piece of work between them."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.workspace = Path(config.workspace)
        self.folder = self.workspace / "learner" / f"{config.task}-{config.learner}"
        # a lockstep run that starts over makes the same versions again; they are recognised by their hash
        self._first_version = 1 if config.clock == "lockstep" else newest_version(self.workspace) + 1
        self.training = self._nothing_learned()
        self.cursors: dict[str, int] = {}
        self.gaps_read = 0
        self.longest_pause_ms = 0.0  # of learning, for a checkpoint
        self._checkpoints = CheckpointWriter(self.folder)
        self._events = EventFile(self.folder / "tb")
        self._saved_at = time.monotonic()
        self._saved_updates = 0
        self._half_done = False  # a record is being handled, or could not be
        self._kept: dict[str, Any] = {}  # settings of the version that began this, which nobody gave
        self._catalog = Catalog.open(self.workspace)
        self._pruner = Pruner(self.workspace, self._catalog, config.probe_versions)
        self._labels = LabelReading(self._catalog, f"{config.session_id}/{config.learner}", config.task, self._amend)

    def _nothing_learned(self) -> Training:
        return Training(self.config, self._publish, self._on_update, first_version=self._first_version)

    def _amend(self, labels: EpisodeLabels) -> EpisodeLabels:
        return self.training.quarantine.amend(labels)

    # --- start ---

    def resume(self) -> None:
        """Take up where the last checkpoint was: ingest again what it had seen, restore it, then go on with what came after.

        Raises `OtherSettings` when that checkpoint is of another configuration; nothing is published then.
        """
        state, problems = newest_checkpoint(self.folder)
        for problem in problems:
            log.warning("passed over %s", problem)
        if problems:
            instead = (
                "the one before it counts" if state is not None else "there is no other, so learning begins anew from the recorded episodes"
            )
            self.training.notices["resume"] = f"a checkpoint is damaged ({problems[0]}); {instead}"
        if state is None:
            self._events.set_aside()
        # in lockstep all that is learned is a function of the stream: what was said in it counts where it was said
        self._labels.begin(streamed_outcomes(self.workspace) if self.training.lockstep else ())
        if state is None:
            records = self._log({}).rest()
        else:
            self._kept = kept_settings(self.config, state)
            parameters = dict(self.config.learner_parameters) | self._kept
            self.config = self.training.config = msgspec.structs.replace(self.config, learner_parameters=parameters)
            try:
                records = self._take_up(state)
            except Incomplete as error:
                log.warning("%s; reading all that there is", error)
                notices, self.training, self.cursors = self.training.notices, self._nothing_learned(), {}
                self.training.notices |= notices
                records = self._take_up(for_everything(state))
        for record in records:
            for _ in self._settled(record):
                pass
        self.training.clone_when_enough()

    def _log(self, cursors: dict[str, int], again: Container[str] | None = None) -> IngestionLog:
        how = {"images": bool(self.config.policy_cameras), "as_streamed": self.training.lockstep}
        relabelled = self._labels.relabelled
        return IngestionLog(self.workspace, self.config.task, cursors, relabelled=relabelled, on_damaged=self._damaged, again=again, **how)

    def _take_up(self, state: dict[str, Any]) -> Iterator[CommittedRecord]:
        """Be as the run was that made the checkpoint ``state``; returns what it had not seen.

        Raises `Incomplete` when the store lacks some of what that run held, and `OtherSettings`.
        """
        training, cursors, again = self.training, state["cursors"], episodes_again(state)
        stored = self._log(cursors, again)
        if again is not None:
            left_out = state["run"]["quarantine"]
            if back := self._labels.taken_back(state["labels"]) | stored.readable(training.quarantine.damaged(left_out)):
                raise Incomplete(f"{len(back)} episodes that were left out count by now")
            training.quarantine.restore(left_out)
        training.expect(state)
        if again is not None:
            training.make_learner(state["run"]["spec"])
        late: list[CommittedRecord] = []
        for record in stored.seen(lambda: training.takes_blocks, whole={*training.quarantine.reasons, state["run"].get("running", "")}):
            if again is not None and isinstance(record, EpisodeEnd) and record.rec_seq < 0 and record.episode_id == state["run"]["running"]:
                late.append(record)  # cut off since: it ran then, and what becomes of its steps is in no ring yet
            else:
                self._replay(record)
        self.cursors |= {session: max(cursor, self.cursors.get(session, -1)) for session, cursor in cursors.items()}
        training.make_learner(state["run"]["spec"])  # where labels leave nothing to ingest
        if training.spec is not None:
            check_same_settings(self.folder, state, training.need_learner(), training.spec)
        training.restore(state)
        if again is not None:
            self._labels.amend_all(training.quarantine.reasons.keys() - again)
        self._labels.restore(state["labels"], training.need_learner())
        self._saved_updates = self._updates()
        log.info("resumed at update %d, version %d", self._updates(), training.next_version - 1)
        return itertools.chain(late, stored.rest())

    def _damaged(self, episode_id: str, error: DamagedFile) -> None:
        log.error("episode %s is left out: %s", episode_id, error)
        self.training.quarantine.leave_out(episode_id, f"{DAMAGED} ({error}); `takeover data verify` says more")

    def _replay(self, record: CommittedRecord | StepBlock) -> None:
        self.training.replay(record)
        self._labels.on_record(record, self.training.learner)
        self._count([record])

    def catch_up(self, session: str) -> int:
        """Read what the running session has on disk beyond what was ingested; returns how many records."""
        found = read_since(self.workspace, session, self.cursors.get(session, -1) + 1)
        for record in found:
            for _ in self._settled(record):
                pass
        return len(found)

    # --- the stream ---

    def committed(self, message: Committed) -> Iterable[None]:
        """Handle a message record by record, yielding after each so that progress can be told. Gaps are read from the store."""
        cursor = self.cursors.get(message.session, -1)
        if message.first > cursor + 1:
            self.gaps_read += 1
            for record in self._gap(message.session, cursor + 1, message.first - 1):
                yield from self._settled(record)
                yield
        for record in message.records:
            yield from self._settled(record)
            yield
        self.cursors[message.session] = max(self.cursors.get(message.session, -1), message.cursor)

    def _gap(self, session: str, first: int, last: int) -> list[CommittedRecord]:
        try:
            return list(read_gap(self.workspace, session, first, last))
        except GapError as error:
            # lost for good (a recorder that was away): steps of episodes without a beginning are left out by the training itself
            log.error("%s; going on without them", error)
            return [record for record in read_since(self.workspace, session, first) if record.rec_seq <= last]

    def _handle(self, record: CommittedRecord) -> None:
        made_up = isinstance(record, EpisodeEnd) and record.rec_seq < 0  # of an episode that was cut off
        if record.rec_seq <= self.cursors.get(record.session, -1) and not made_up:
            return
        self._half_done = True
        self.training.handle(record)
        self._labels.on_new_record(record, self.training.learner)
        self._count([record])
        self._half_done = False

    def _settled(self, record: CommittedRecord) -> Iterator[None]:
        """Handle a record once what blocks it is done; in lockstep also all that it began (cloning, which takes minutes from pictures, or
        extra updates), yielding after each piece."""
        yield from self._unblocked()
        self._handle(record)
        yield from self._unblocked()

    def _unblocked(self) -> Iterator[None]:
        while self.training.blocks_ingestion:
            self.work()
            yield

    def _count(self, records: Iterable[CommittedRecord | StepBlock]) -> None:
        for record in records:
            self._pruner.saw(record)
            self.cursors[record.session] = max(self.cursors.get(record.session, -1), record.rec_seq)

    # --- between messages ---

    def work(self) -> bool:
        """One short piece of work; False when idle."""
        cloning = self.training.phase == "cloning"
        if not self.training.lockstep and not cloning:
            self.reread_labels()  # one number when nothing has changed
        did = self.training.work()
        if cloning and self.training.phase == "training":
            self.checkpoint()
        self._checkpoint_when_due()
        return self._prune() or did

    def _prune(self) -> bool:
        """A piece of it, some ms for every 50 versions; in lockstep, where a run has all its versions to the end, none."""
        settings = getattr(self.training.learner, "parameters", None)
        spec = self.training.spec
        if self.training.lockstep or settings is None or spec is None:
            return False
        pruned = self._pruner.work(settings.keep_versions, settings.keep_every, (spec.robot_id, spec.task_id))
        self.training.notices["prune"] = self._pruner.problem
        return pruned

    def reread_labels(self) -> None:
        """Labels since the last look are in the next batch: what they leave out leaves the replay, what they take back comes back."""
        training = self.training
        if training.phase == "cloning":
            return  # what is being cloned stays what it was; the first update afterwards has the labels
        if training.learner is None:
            return
        counted = training.learner.demonstration_episodes
        if self._labels.reread(training.learner, episode_runs=training.episode_runs):
            for start, steps, end in self._labels.come_back(self.workspace, self._damaged):
                training.ingest_again(start, steps, end)
                self._labels.on_record(end, training.learner)
        if training.learner.demonstration_episodes > counted:
            training.clone_when_enough()
        if self._labels.reward_version:  # in real time only: a checkpoint of a lockstep run does not depend on it
            training.metrics["reward_version"] = float(self._labels.reward_version)

    def _checkpoint_when_due(self) -> None:
        learner = self.training.learner
        self.training.notices |= {"checkpoint": self._checkpoints.problem, "curves": self._events.problem}
        if learner is None or not learner.cloned or learner.updates == self._saved_updates:
            return
        if self.training.lockstep:
            due = learner.updates - self._saved_updates >= self.config.checkpoint_every_updates
        else:
            due = time.monotonic() - self._saved_at >= self.config.checkpoint_every_s
        if due:
            self.checkpoint()

    def checkpoint(self, wait: bool = False) -> None:
        """Have the present state saved: copied here, written by a thread; ``wait``: until it is."""
        began = time.monotonic()
        state = self.training.state() | {"cursors": dict(self.cursors), "labels": self._labels.state()}
        if self._kept:
            state["kept"] = dict(self._kept)
        self._checkpoints.submit(state)
        self._saved_at = time.monotonic()
        self._saved_updates = self._updates()
        self.longest_pause_ms = max(self.longest_pause_ms, 1000.0 * (self._saved_at - began))
        if wait:
            self._checkpoints.flush()

    def close(self) -> None:
        """Save what is not saved yet; not where a record failed in the middle: the next start handles all of it once more."""
        learner = self.training.learner
        if learner is not None and learner.cloned and learner.updates > self._saved_updates and not self._half_done:
            self.checkpoint()
        self._checkpoints.close()
        self._events.close()
        self._catalog.close()

    def _updates(self) -> int:
        return self.training.learner.updates if self.training.learner is not None else 0

    def _on_update(self, updates: int, metrics: dict[str, float]) -> None:
        self._labels.on_update(updates)
        self.training.notices["labels"] = self._labels.problem
        if updates % SCALARS_EVERY_UPDATES == 0:
            learner = self.training.learner
            steps = {"steps/train": float(learner.train_steps), "steps/human": float(learner.human_steps)} if learner else {}
            steps["checkpoint_pause_ms"] = self.longest_pause_ms
            if learner is not None and learner.extra_updates:
                steps["learner/extra_updates"] = float(learner.extra_updates)
            if self._labels.reward_version:
                steps["reward/version"] = float(self._labels.reward_version)
            self._events.scalars(updates, {f"learner/{name}": value for name, value in metrics.items()} | steps)

    def _publish(self, publication: Publication) -> int:
        manifest = write_version(self.workspace, publication, self.training)
        self._pruner.published(manifest.version)
        try:
            enter_version(self._catalog, manifest, publication, self.training)
            self._labels.on_published(manifest.version)
            self.training.notices["catalog"] = ""
        except CATALOG_FAILURES as error:  # a full disk; the version itself is whole
            self.training.notices["catalog"] = f"version {manifest.version} is not in the catalog: {reason_of(error)}"
            log.error("%s", self.training.notices["catalog"])
        return manifest.version
