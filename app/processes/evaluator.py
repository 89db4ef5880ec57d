"""The evaluator process: policies alone on the held-out starts, in a simulator of its own, niced; never the live robot."""

import logging
import os
import time

from takeover.app.processes.common import ProcessContext, StartupError, leave, run_process
from takeover.data.catalog import Catalog
from takeover.data.schema import Evaluate, EvaluateReply, EvaluatorStatus
from takeover.data.seeding import HELDOUT_STARTS, heldout_start
from takeover.policies.base import PolicyRefused
from takeover.policies.evaluation import EvaluationCancelled, evaluate
from takeover.policies.publish import load_policy, published_versions, version_folder
from takeover.policies.torch_setup import configure
from takeover.robot_bridge.protocol import Endpoints, Publisher, Router
from takeover.robot_bridge.robots.base import Robot, RobotError
from takeover.robot_bridge.robots.registry import make_simulator

log = logging.getLogger("evaluator")

NICE = 10
STATUS_PERIOD_S = 0.4
AUTOMATIC_PERIOD_S = 30.0
AUTOMATIC_STARTS = 50
RESULTS_SHOWN = 200


def main(context: ProcessContext) -> None:
    """Answer `Evaluate` requests; in real time also look at the newest version from time to time."""
    os.nice(NICE)
    configure(1)
    try:
        robot = make_simulator(context.config)
        robot.connect()
    except RobotError as error:
        raise StartupError(str(error)) from error
    endpoints = Endpoints.of(context.config)
    try:
        with (
            Router[Evaluate, EvaluateReply](endpoints, "evaluate", Evaluate, EvaluateReply) as requests,
            Publisher[EvaluatorStatus](endpoints, "evaluator_status", EvaluatorStatus) as status,
        ):
            context.ready()
            _Evaluator(context, robot, requests, status).run()
    finally:
        robot.close()


class _Evaluator:
    def __init__(
        self, context: ProcessContext, robot: Robot, requests: Router[Evaluate, EvaluateReply], status: Publisher[EvaluatorStatus]
    ) -> None:
        self._context = context
        self._robot = robot
        self._requests = requests
        self._status = status
        self._workspace = context.config.workspace
        self._results: list[dict[str, float]] = []
        self._error = ""
        self._next_status = 0.0
        self._next_automatic = time.monotonic() + 5.0
        self._evaluated = 0

    def run(self) -> None:
        automatic = self._context.config.clock == "realtime" and self._robot.spec.simulated
        while not self._context.stop.is_set():
            received = self._requests.receive(0.1)
            if received is not None:
                peer, request = received
                self._answer(peer, request)
            elif automatic and time.monotonic() >= self._next_automatic:
                self._evaluate_newest()
                self._next_automatic = time.monotonic() + AUTOMATIC_PERIOD_S
            self._tell(False, 0, 0, 0)

    def _answer(self, peer: bytes, request: Evaluate) -> None:
        started = time.monotonic()
        outcomes: list[bool] = []
        error = ""
        try:
            outcomes = self._run(request.version, request.starts)
        except (PolicyRefused, EvaluationCancelled, ValueError) as problem:
            error = str(problem)
            log.warning("evaluation of version %d: %s", request.version, error)
        self._requests.send(
            peer,
            EvaluateReply(
                request_id=request.request_id,
                version=request.version,
                successes=sum(outcomes),
                n=len(outcomes),
                outcomes=outcomes,
                wall_s=time.monotonic() - started,
                error=error,
            ),
        )

    def _evaluate_newest(self) -> None:
        newest = max(published_versions(self._workspace), default=0)
        if newest <= self._evaluated:
            return
        try:
            self._run(newest, AUTOMATIC_STARTS)
            self._error = ""
        except EvaluationCancelled:
            return
        except PolicyRefused as error:
            self._error = f"version {newest}: {error}"
        self._evaluated = newest

    def _run(self, version: int, starts: int) -> list[bool]:
        """Evaluate one version; the result is stored in the catalog. Raises `PolicyRefused`, `ValueError`, `EvaluationCancelled`."""
        if not 1 <= starts <= HELDOUT_STARTS:
            raise ValueError(f"{starts} starts; there are {HELDOUT_STARTS} held-out ones")
        loaded = load_policy(version_folder(self._workspace, version), self._robot.spec)
        started = time.monotonic()

        def on_progress(done: int) -> bool:
            self._tell(True, version, done, starts)
            return not self._context.stop.is_set()

        found = evaluate(loaded.policy, self._robot, [heldout_start(i) for i in range(starts)], on_progress)
        outcomes = [outcome.success for outcome in found]
        result: dict[str, float] = {"version": version, "successes": sum(outcomes), "n": starts}
        self._results = [*self._results, result][-RESULTS_SHOWN:]
        with Catalog.open(self._workspace) as catalog:
            catalog.add_evaluation(
                session_id=loaded.manifest.data_session,
                policy_version=version,
                policy_sha256=loaded.manifest.sha256,
                task_id=loaded.manifest.task_id,
                protocol="heldout",
                successes=sum(outcomes),
                n=starts,
                wall_s=time.monotonic() - started,
            )
        return outcomes

    def _tell(self, busy: bool, version: int, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self._next_status:
            return
        self._next_status = now + STATUS_PERIOD_S
        self._status.send(EvaluatorStatus(busy=busy, version=version, done=done, total=total, results=self._results, error=self._error))


if __name__ == "__main__":
    leave(run_process("evaluator", main))
