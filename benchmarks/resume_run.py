"""A real learner process for `benchmarks.resume`: fed from a recorder's stream, and killed at chosen moments."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.resume_streams import Record
from takeover.data.labels import Labels
from takeover.data.schema import EpisodeKind, LearnerStatus, RobotSpec
from takeover.data.training_labels import label_uses_of
from takeover.policies.checkpoint import newest_checkpoint
from takeover.policies.learner_run import LearnerRun
from takeover.policies.publish import load_policy, published_versions, read_manifest, version_folder
from tests.policies.test_learner_process import Station

LEARNING, WRITING, STARTING, RESUMING, CLONING = "learning", "writing a checkpoint", "starting", "resuming", "cloning"
MOMENTS = (LEARNING, WRITING, LEARNING, STARTING, LEARNING, WRITING, RESUMING)
PATIENCE_S = 180.0
LABELER = "lab-01"
ENCODES = 0.7  # the progress of cloning from pictures while what was kept is encoded


class Run:
    """A learner process, and the stream it is fed."""

    def __init__(self, folder: Path, learner: str, parts: Sequence[list[Record]], settings: dict[str, Any], **config: Any) -> None:
        usual = {"checkpoint_every_updates": 7, "publish_every_updates": 25}
        named = {"learner": learner, "learner_parameters": settings}
        self.station = Station(folder / "w", folder / "s", **(usual | named | config))
        self.workspace = folder / "w"
        self.parts, self.part = [list(part) for part in parts], 0
        self.spec: RobotSpec = self.parts[0][0].spec
        self.sent = 0  # of the part
        self.folder = self.workspace / "learner" / f"reach-{learner}"
        self.moments: Counter[str] = Counter()
        self.went_on_from: list[int] = []  # after each kill: updates of the newest checkpoint, -1: there was none
        self.encoding = 0  # kills while pictures that were kept were encoded
        self.torn = 0  # kills that left a checkpoint half-written under its temporary name

    # --- the stream ---

    @property
    def records(self) -> list[Record]:
        """Those of the part that is fed now."""
        return self.parts[self.part]

    def feed(self, count: int, heard: bool = True, at_once: bool = False) -> None:
        """The next ``count`` records of the part, one by one or ``at_once``; ``heard``: whether they are announced."""
        records = self.records[self.sent : self.sent + count]
        for some in [records] if at_once and records else [[record] for record in records]:
            self.station.commit(some, announce=heard)
        self.sent += len(records)

    def wait_for(self, done: Callable[[LearnerStatus], bool]) -> LearnerStatus:
        """The first status with which it is; what was missed is announced again, as a recorder does."""

        def look() -> LearnerStatus | None:
            self.station.publisher.send(self.station.recorder.position())
            status = self.station.statuses.receive(0.05)
            return status if status is not None and done(status) else None

        found: LearnerStatus = self.station.until(look, PATIENCE_S)
        return found

    def learned(self) -> None:
        """Wait until everything that was fed is learned from."""
        last = max(getattr(record, "train_step", -1) for record in self.records[: self.sent])
        self.wait_for(lambda status: status.finished_train_step >= last)

    def finish_part(self) -> None:
        """Feed the rest of the part, have it learned from, end the learner as a launcher does, and go to the next part."""
        self.feed(len(self.records))
        self.learned()
        if status := self.station.stop_learner(signal.SIGTERM):
            raise RuntimeError(f"the learner ended with {status}")
        self._wait_closed()
        if self.part + 1 < len(self.parts):
            self.part, self.sent = self.part + 1, 0

    def _wait_closed(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self.station.recorder.pending:
            assert time.monotonic() < deadline, "episodes are not closed"
            time.sleep(0.01)

    def last_state(self) -> dict[str, Any]:
        state, problems = newest_checkpoint(self.folder)
        assert state is not None, problems
        return state

    # --- kills ---

    def kill_once(self, moment: str, rng: random.Random) -> None:
        """At ``moment``, or at the next best one where it does not come."""
        if moment == STARTING:
            self.station.launch_learner()
            time.sleep(rng.uniform(0.0, 2.5))
        elif moment == RESUMING:
            self.station.launch_learner()
            if self._until_it_reads():
                time.sleep(rng.uniform(0.0, 0.5))
        elif moment == CLONING:
            self._begin_cloning(rng)
        elif moment == LEARNING:
            self.station.start_learner()
            self.feed(rng.randrange(4, 24))
            time.sleep(rng.uniform(0.0, 0.2))
        else:
            self.station.start_learner()
            for _ in range(4):  # a checkpoint is due after every few updates
                self.feed(8)
                if self._sees_writing(0.5):
                    break
            time.sleep(rng.uniform(0.0, 0.003))
        self.kill()
        self.torn += self._writing()
        state, _ = newest_checkpoint(self.folder)
        self.went_on_from.append(-1 if state is None else int(state["values"]["updates"]))
        self.moments[LEARNING if moment == CLONING and state is not None else moment] += 1  # it was done with cloning

    def _begin_cloning(self, rng: random.Random) -> None:
        """The first time demonstrations come while it listens, and it says how far it is; the next times it clones before it is ready."""
        last_shown = max(i for i, record in enumerate(self.records) if getattr(record, "kind", None) == EpisodeKind.DEMONSTRATION)
        if self.sent > last_shown:
            self.station.launch_learner()
            self._until_it_reads()
            time.sleep(rng.uniform(0.2, 2.0))
            return
        self.station.start_learner()
        self.feed(last_shown + 2 - self.sent)  # its end, too
        if self.spec.policy_cameras:
            found = self.wait_for(lambda s: s.phase == "training" or (s.phase == "cloning" and s.progress >= ENCODES))
            self.encoding += found.phase == "cloning" and found.progress < ENCODES + 1e-6
        else:
            self.wait_for(lambda status: status.phase != "waiting")
            time.sleep(rng.uniform(0.0, 0.2))

    def _until_it_reads(self) -> bool:
        """Wait until the process has the workspace's catalog open, which is the first thing that going on from a checkpoint does."""
        process, deadline = self.station.process, time.monotonic() + PATIENCE_S
        assert process is not None
        files, wanted = Path(f"/proc/{process.pid}/fd"), str(self.workspace / "catalog")
        while time.monotonic() < deadline:
            for entry in files.iterdir():
                try:
                    if os.readlink(entry).startswith(wanted):
                        return True
                except FileNotFoundError:  # closed just now
                    continue
            time.sleep(0.002)
        return False

    def _sees_writing(self, for_s: float) -> bool:
        """Whether a checkpoint is being written now; looks all the time."""
        deadline = time.monotonic() + for_s
        while time.monotonic() < deadline:
            if self._writing():
                return True
        return False

    def _writing(self) -> bool:
        """Whether there is a checkpoint that is not in place yet."""
        return self.folder.is_dir() and any(entry.name.endswith(".tmp") for entry in os.scandir(self.folder))

    def kill(self) -> None:
        process = self.station.process
        assert process is not None
        process.kill()
        process.wait(10.0)

    # --- what came of it ---

    def half_written(self) -> list[str]:
        """Checkpoints and policies under their final names that are not whole, after a kill."""
        _, problems = newest_checkpoint(self.folder)
        for version in published_versions(self.workspace):
            try:
                load_policy(version_folder(self.workspace, version), self.spec)
            except ValueError as error:
                problems.append(str(error))
        return problems

    def versions(self) -> list[str]:
        """Hashes of the published weights, oldest first."""
        return [read_manifest(version_folder(self.workspace, version)).sha256 for version in published_versions(self.workspace)]

    def label_uses(self) -> list[tuple[str, str, str, int, int]]:
        """(target, field, value, update, version) of every label that people gave by `Labels`: who used it first."""
        catalog = self.station.recorder.catalog
        given = {event.id: event for event in Labels(self.workspace, catalog).events_since(0, LABELER)}
        used = label_uses_of(catalog, sorted({event.target for event in given.values()}))
        found = [(given[use.event_id], use) for some in used.values() for use in some if use.event_id in given]
        return sorted((event.target, event.field, event.value, use.update_number, use.policy_version) for event, use in found)

    def again(self) -> LearnerRun:
        """The learner once more, in this process, as it goes on from its last checkpoint; to be closed."""
        run = LearnerRun(self.station.config)
        run.resume()
        return run
