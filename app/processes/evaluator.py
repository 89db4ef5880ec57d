"""The evaluator process: policies alone on the held-out starts, in a simulator of its own, niced; never the live robot.

With the gate on a new version meets the trusted one first, since it may already act; what was run for that counts in the look at it.
Beside that it keeps a learned reward up (`evaluator_reward`), and it measures the absorption of every version
(`evaluator_absorption`).
"""

import logging
import os
import time

from takeover.app.processes.common import ProcessContext, StartupError, leave, run_process
from takeover.app.processes.evaluator_absorption import AFTER_FAULT_S, BETWEEN_STARTS, SHARE, EveryVersion
from takeover.app.processes.evaluator_reward import RewardKeeper
from takeover.app.processes.evaluator_stock import take_stock
from takeover.data.catalog import Catalog
from takeover.data.catalog_errors import CATALOG_FAILURES, reason_of
from takeover.data.schema import Evaluate, EvaluateReply, EvaluatorStatus
from takeover.data.seeding import HELDOUT_STARTS, heldout_start
from takeover.policies.base import PolicyRefused, of_version
from takeover.policies.decisions import DecisionConflict, DecisionError
from takeover.policies.evaluation import EvaluationCancelled, evaluate
from takeover.policies.forgetting import said
from takeover.policies.gating import gate, gate_is_due, run_start
from takeover.policies.manifest import Manifest, newest_for
from takeover.policies.outcomes import Outcomes, conditions_of
from takeover.policies.publish import load_policy, version_folder
from takeover.policies.torch_setup import configure
from takeover.robot_bridge.protocol import Endpoints, Publisher, Router
from takeover.robot_bridge.robots.base import Robot, RobotError
from takeover.robot_bridge.robots.registry import make_simulator, make_variant

log = logging.getLogger("evaluator")

NICE = 10
STATUS_PERIOD_S = 0.4
FIRST_LOOK_S = 5.0
NOTHING_YET_S = 1.0  # until it is looked again whether there is a version
RESULTS_SHOWN = 200


def main(context: ProcessContext) -> None:
    """Answer `Evaluate` requests; in real time also look at the newest version from time to time, and measure absorption."""
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
            evaluator = _Evaluator(context, robot, requests, status)
            try:
                evaluator.run()
            finally:
                evaluator.close()
                evaluator.reward.close()
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
        self._gave_way = 0  # the version whose comparison did
        self._gate_notice = ""  # what the gate found wrong with the newest version
        self.reward = RewardKeeper(context.config, robot.spec)
        self._next_status = 0.0
        self._next_automatic = time.monotonic() + min(FIRST_LOOK_S, context.config.evaluate_every_s)
        self._evaluated = 0
        self._others: set[int] = set()  # versions of other robots and tasks
        self._absorption = EveryVersion(self._workspace, robot.spec)
        self._kept: Outcomes | None = None
        self._catalog: Catalog | None = None  # one for the whole run: each new connection pool leaves some memory behind
        self._waiting: tuple[bytes, Evaluate] | None = None  # a request that came during a comparison

    def run(self) -> None:
        config = self._context.config
        automatic = config.clock == "realtime" and self._robot.spec.simulated
        while not self._context.stop.is_set():
            received, self._waiting = self._waiting or self._requests.receive(0.1), None
            if received is not None:
                peer, request = received
                self._answer(peer, request)
            elif automatic and time.monotonic() >= self._next_automatic:
                found = self._look_at_newest()
                self.reward.look(self._goes_on)
                self._next_automatic = time.monotonic() + (config.evaluate_every_s if found else NOTHING_YET_S)
            elif automatic:
                self._absorb(SHARE)
            self._tell(False, 0, 0, 0)

    def close(self) -> None:
        if self._catalog is not None:
            self._catalog.close()
            self._catalog = None

    def _answer(self, peer: bytes, request: Evaluate) -> None:
        started = time.monotonic()
        outcomes: list[bool] = []
        error = ""
        try:
            outcomes = self._run(request.version, request.starts)
        except (PolicyRefused, EvaluationCancelled, RobotError, ValueError) as problem:
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

    def _look_at_newest(self) -> bool:
        """Whether there was a version to look at, and it was. With the gate on it is judged first: it may act already."""
        spec = self._robot.spec
        newest = newest_for(self._workspace, spec.robot_id, spec.task_id, self._others)
        try:
            problem = ""
            if newest and self._context.config.gate:
                if 0 < self._gave_way < newest:
                    self._gate(self._gave_way)  # some of its pairs are there: it is finished before a newer one begins
                self._gave_way = 0
                problem = self._gate(newest)
            self._error = problem or self._error
            if newest > self._evaluated:
                self._run(newest, self._context.config.evaluate_starts, automatic=True)
                self._error = problem
                self._evaluated = newest
                self._take_stock()
        except (EvaluationCancelled, DecisionConflict):
            return False  # what was run is kept, and it is gone on with as soon as nobody asks for something
        except (PolicyRefused, RobotError) as error:
            self._error = of_version(newest, error)
            self._evaluated = newest
            log.warning("%s", self._error)
        except (DecisionError, OSError) as error:
            self._error = f"the gate decides nothing: {error}"
            log.warning("%s", self._error)
        return newest > 0

    def _gate(self, version: int) -> str:
        """Compare with the trusted version if that is due; why it cannot be, "" otherwise."""

        def on_progress(done: int, total: int) -> bool:
            self._tell(True, version, done, total)
            self._absorb(BETWEEN_STARTS)
            return self._undisturbed()

        self._gave_way = version
        starts = [heldout_start(i) for i in range(HELDOUT_STARTS)]
        try:
            if not gate_is_due(self._workspace, version):
                return ""
            result = gate(
                self._workspace, version, self._robot, starts, self._outcomes(), on_progress=on_progress, make_environment=self._variant
            )
        except PolicyRefused as error:  # one of the two is damaged: the newest one is looked at all the same
            return of_version(version, error)
        acts = f"; version {result.trusted} acts" if any(made.kind == "rolled_back" for made in result.decisions) else ""
        dropped = said(result.numbers.get("forgetting", []))
        self._gate_notice = f"gate: {result.text}{acts}" if result.verdict == "worse" or dropped else ""
        log.log(logging.WARNING if self._gate_notice else logging.INFO, "%s", result.text)
        return ""

    def _take_stock(self) -> None:
        try:
            self._catalog = self._catalog or Catalog.open(self._workspace)
            found = take_stock(self._workspace, self._robot.spec, self._catalog, self._undisturbed)
            self._error = found or self._error
        except CATALOG_FAILURES as error:
            self.close()
            log.warning("steps to go were not fitted: %s", reason_of(error))

    def _absorb(self, share: float) -> None:
        """Absorption of versions that are due, until ``share`` of a core is used up; it gives way to a request."""
        if not self._absorption.is_time():
            return
        try:
            self._catalog = self._catalog or Catalog.open(self._workspace)
            while self._absorption.is_time() and self._undisturbed():
                self._absorption.measure(self._catalog, self._undisturbed, share)
            self._error = self._absorption.problem or self._error
        except CATALOG_FAILURES as error:
            self.close()
            self._absorption.wait(AFTER_FAULT_S)
            log.warning("absorption waits: %s", reason_of(error))

    def _variant(self, parameters: dict[str, float]) -> Robot:
        return make_variant(self._context.config, parameters)

    def _goes_on(self) -> bool:
        """As `_undisturbed`, for work that is no evaluation; tells how far the learned reward is."""
        self._tell(True, 0, 0, 0)
        self._absorb(BETWEEN_STARTS)
        return self._undisturbed()

    def _undisturbed(self) -> bool:
        """Whether what nobody asked for may go on: a request comes first."""
        self._waiting = self._waiting or self._requests.receive(0.0)
        return self._waiting is None and not self._context.stop.is_set()

    def _outcomes(self) -> Outcomes:
        if self._kept is None:
            spec, parameters = self._robot.spec, self._context.config.task_parameters
            self._kept = Outcomes(self._workspace, conditions_of(spec.robot_id, spec.task_id, spec.control_hz, parameters))
        return self._kept

    def _run(self, version: int, starts: int, automatic: bool = False) -> list[bool]:
        """Evaluate one version; the result is stored in the catalog. What nobody asked for gives way to a request and is kept by start.

        Raises `PolicyRefused`, `ValueError`, `EvaluationCancelled`; `OSError` when outcomes cannot be kept.
        """
        if not 1 <= starts <= HELDOUT_STARTS:
            raise ValueError(f"{starts} starts; there are {HELDOUT_STARTS} held-out ones")
        loaded = load_policy(version_folder(self._workspace, version), self._robot.spec)
        started = time.monotonic()

        def on_progress(done: int) -> bool:
            self._tell(True, version, done, starts)
            if not automatic:
                return not self._context.stop.is_set()
            self._absorb(BETWEEN_STARTS)
            return self._undisturbed()

        seeds = [heldout_start(i) for i in range(starts)]
        if automatic:
            outcomes = []
            for done, seed in enumerate(seeds, 1):
                outcomes.append(run_start(loaded, self._robot, seed, self._outcomes()))
                if not on_progress(done):
                    raise EvaluationCancelled(f"stopped after {done} of {starts} starts")
        else:
            outcomes = [outcome.success for outcome in evaluate(loaded.policy, self._robot, seeds, on_progress)]
        result: dict[str, float] = {"version": version, "successes": sum(outcomes), "n": starts}
        self._results = [*self._results, result][-RESULTS_SHOWN:]
        self._note(loaded.manifest, sum(outcomes), starts, time.monotonic() - started)
        return outcomes

    def _note(self, manifest: Manifest, successes: int, starts: int, wall_s: float) -> None:
        """Into the catalog; where that fails, the result is still shown, and the next one tries again."""
        try:
            self._catalog = self._catalog or Catalog.open(self._workspace)
            self._catalog.add_evaluation(
                session_id=manifest.data_session,
                policy_version=manifest.version,
                policy_sha256=manifest.sha256,
                task_id=manifest.task_id,
                protocol="heldout",
                successes=successes,
                n=starts,
                wall_s=wall_s,
            )
        except CATALOG_FAILURES as error:
            self.close()
            log.warning("version %d: %d of %d is not in the catalog: %s", manifest.version, successes, starts, reason_of(error))

    def _tell(self, busy: bool, version: int, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self._next_status:
            return
        self._next_status = now + STATUS_PERIOD_S
        self._status.send(
            EvaluatorStatus(
                busy=busy,
                version=version,
                done=done,
                total=total,
                results=self._results,
                error=self._error,
                notices=[text for text in (self._gate_notice, *self.reward.notices) if text],
                reward=dict(self.reward.figures),
            )
        )


if __name__ == "__main__":
    leave(run_process("evaluator", main))
