"""The actor process: an observation in, the policy's action out, in every mode. New weights are checked, then swapped between steps."""

import logging
import time

from takeover import __version__
from takeover.app.processes.common import ProcessContext, leave, run_process
from takeover.data.schema import ActorStatus, LearnerStatus, Observation, PolicyAction, RobotSpec, Role, State
from takeover.policies.acting import Acting
from takeover.policies.torch_setup import configure
from takeover.robot_bridge.protocol import ControlClient, Endpoints, Publisher, RequestTimeout, Subscriber, WatchedPush, wait

log = logging.getLogger("actor")

STATUS_PERIOD_S = 0.4
SCAN_PERIOD_S = 1.0  # for weights that nobody announces


def main(context: ProcessContext) -> None:
    """Answer observations until told to stop."""
    config = context.config
    configure(config.torch_threads)
    endpoints = Endpoints.of(config)
    with (
        Subscriber[Observation](endpoints, "observation", Observation, latest=config.clock == "realtime") as observations,
        Subscriber[LearnerStatus](endpoints, "learner_status", LearnerStatus) as learner,
        Subscriber[State](endpoints, "state", State) as states,
        WatchedPush[PolicyAction](endpoints, "policy_action", PolicyAction) as answers,
        Publisher[ActorStatus](endpoints, "actor_status", ActorStatus) as status,
    ):
        context.ready()
        spec = _handshake(context, endpoints)
        if spec is None:
            return
        _serve(context, Acting(config.workspace, spec, config.seed), observations, learner, states, answers, status)


def _handshake(context: ProcessContext, endpoints: Endpoints) -> RobotSpec | None:
    """Ask the bridge what robot this is, until it answers; None when told to stop."""
    client = ControlClient(endpoints, "actor", Role.LEARNER)
    try:
        while not context.stop.is_set():
            try:
                reply = client.hello(f"takeover {__version__}", timeout_s=0.5)
            except RequestTimeout:
                continue
            if reply.spec is not None:
                return reply.spec
            log.warning("the bridge answered the handshake without a robot: %s", reply.error)
            context.stop.wait(0.5)
        return None
    finally:
        client.close()


def _serve(
    context: ProcessContext,
    acting: Acting,
    observations: Subscriber[Observation],
    learner: Subscriber[LearnerStatus],
    states: Subscriber[State],
    answers: WatchedPush[PolicyAction],
    status: Publisher[ActorStatus],
) -> None:
    lockstep = context.config.clock == "lockstep"
    next_status = next_scan = 0.0
    answered, since = 0, time.monotonic()
    rate_hz = 0.0
    while not context.stop.is_set():
        wait([observations, learner], 0.1)
        swapped = False
        if not lockstep and (state := states.receive()) is not None:
            answers.arrived(state.policy_age_ms)
        if (observation := observations.receive()) is not None:
            before = acting.version
            answer = acting.answer(observation)
            swapped = acting.version != before
            if answer is not None:
                if answers.send(answer):
                    answered += 1
                else:
                    log.warning("the bridge took no action for step %d", observation.seq)
        now = time.monotonic()
        # in lockstep a version is loaded when a step requires it, but the first one must be known before any is required
        news = learner.receive()
        if not lockstep or acting.version == 0:
            if scan := now >= next_scan:
                next_scan = now + SCAN_PERIOD_S
                if not lockstep:  # in lockstep the one that was there at the start stays: a run is a function of its seed
                    acting.reward.poll()
                swapped |= not lockstep and acting.follow_decisions()
            if news is not None:
                swapped |= acting.offer(news.newest_version)
            if scan:
                swapped |= acting.offer(acting.newest_on_disk())
        if now >= next_status or (swapped and not lockstep):
            rate_hz = answered / max(now - since, 1e-3) if now - since >= 0.2 else rate_hz
            answered, since, next_status = 0, now, now + STATUS_PERIOD_S
            status.send(
                ActorStatus(
                    version=acting.version,
                    sha256=acting.sha256,
                    since_ns=acting.since_ns,
                    rate_hz=rate_hz,
                    inference_ms=acting.inference_ms,
                    refused=acting.refused or acting.waiting or acting.progress.problem,
                    pinned=acting.pinned,
                )
            )


if __name__ == "__main__":
    leave(run_process("actor", main))
