"""The learner process: trains on committed steps only, publishes weights, and says how far it is.

One thread: ingestion happens between updates, so an update (some ms) is the longest a step waits.
"""

import logging
import time

from takeover import __version__
from takeover.app.processes.common import ProcessContext, StartupError, leave, run_process
from takeover.data.schema import Committed, LearnerStatus, Role
from takeover.policies.base import LearnerError
from takeover.policies.learner_run import LearnerRun
from takeover.policies.registry import KNOWN_LEARNERS, check_parameters
from takeover.policies.resume import OtherSettings
from takeover.policies.torch_setup import configure
from takeover.robot_bridge.protocol import ControlClient, Endpoints, Publisher, RequestTimeout, Subscriber, wait

log = logging.getLogger("learner")

STATUS_PERIOD_S = 0.15
CATCH_UP_TRIES = 3


def main(context: ProcessContext) -> None:
    """Ingest, update, publish until told to stop."""
    config = context.config
    if config.learner not in KNOWN_LEARNERS:
        raise StartupError(f"unknown learner {config.learner!r}; known: {', '.join(KNOWN_LEARNERS)}, none")
    try:
        check_parameters(config.learner, config.learner_parameters)
    except ValueError as error:
        raise StartupError(str(error)) from error
    configure(config.torch_threads)
    endpoints = Endpoints.of(config)
    with (
        Subscriber[Committed](endpoints, "committed", Committed, latest=False) as committed,
        Publisher[LearnerStatus](endpoints, "learner_status", LearnerStatus) as status,
    ):
        run = LearnerRun(config)
        loop = _Loop(context, run, committed, status)
        try:
            run.resume()
            _catch_up(context, run, endpoints)
            context.ready()
            loop.run()
        except OtherSettings as error:
            loop.fail(error)
            raise StartupError(str(error)) from error
        except (LearnerError, ValueError) as error:
            loop.fail(error)
            raise
        finally:
            run.close()


def _catch_up(context: ProcessContext, run: LearnerRun, endpoints: Endpoints) -> None:
    """After a restart in mid-run: what was committed meanwhile is on disk, and in lockstep the bridge waits for it."""
    client = ControlClient(endpoints, "learner", Role.LEARNER)
    try:
        for _ in range(CATCH_UP_TRIES):
            if context.stop.is_set():
                return
            try:
                session = client.hello(f"takeover {__version__}", timeout_s=0.3).session
            except RequestTimeout:
                continue
            if found := run.catch_up(session):
                log.info("caught up with %d records of session %s", found, session)
            return
    finally:
        client.close()


class _Loop:
    def __init__(
        self, context: ProcessContext, run: LearnerRun, committed: Subscriber[Committed], status: Publisher[LearnerStatus]
    ) -> None:
        self._context = context
        self._learner = run
        self._committed = committed
        self._status = status
        self._lockstep = context.config.clock == "lockstep"
        self._next_status = 0.0
        self._reported = (-1, -1)

    def run(self) -> None:
        while not self._context.stop.is_set():
            busy = self._ingest()
            busy = self._learner.work() or busy
            self._tell()
            if not busy:
                wait([self._committed], 0.05)

    def _ingest(self) -> bool:
        """Everything that is committed and waiting."""
        did = False
        while not self._learner.training.blocks_ingestion and not self._context.stop.is_set():
            message = self._committed.receive()
            if message is None:
                break
            for _ in self._learner.committed(message):
                did = True
                self._tell()
                if self._context.stop.is_set() and (not self._lockstep or self._learner.training.blocks_ingestion):
                    break
        return did

    def _tell(self) -> None:
        """Status at >= 5 Hz, and at once in lockstep when a step is finished or a version is out."""
        training = self._learner.training
        progress = (training.finished_train_step, training.next_version)
        now = time.monotonic()
        if now >= self._next_status or (progress != self._reported and (self._lockstep or progress[1] != self._reported[1])):
            self._next_status = now + STATUS_PERIOD_S
            self._reported = progress
            self._status.send(training.status())

    def fail(self, error: Exception) -> None:
        """Say why before the process ends."""
        self._learner.training.error = str(error)
        self._status.send(self._learner.training.status())


if __name__ == "__main__":
    leave(run_process("learner", main))
