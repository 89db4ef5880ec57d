"""The control loop: one `tick` per control period, the same for both clocks.

Read the robot, act on requests, complete the step before with what came of it, publish the observation, take the answers, decide
(arbitration), limit (safety), apply, advance. `realtime` and `lockstep` say when a tick happens and how long answers are waited for.
"""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from takeover.data.schema import (
    ControlMode,
    EpisodeKind,
    HoldReason,
    Mode,
    Observation,
    Outcome,
    OutcomeSource,
    Privileged,
    RunConfig,
    SafetyBit,
    Source,
)
from takeover.robot_bridge import answers
from takeover.robot_bridge.arbitration import Decision, Human, PolicyChoice, control_mode_of_hold, decide
from takeover.robot_bridge.camera_thread import CameraThread
from takeover.robot_bridge.chunks import Chunk
from takeover.robot_bridge.control_base import ControlBase
from takeover.robot_bridge.episode import EpisodeBook, PendingStep
from takeover.robot_bridge.io import BridgeIO
from takeover.robot_bridge.modes import ModeEvent
from takeover.robot_bridge.requests import RequestHandler
from takeover.robot_bridge.robots.base import NOT_JUDGED, Reading, Robot, RobotError
from takeover.robot_bridge.safety import SafetyResult

log = logging.getLogger("bridge.control")

HELD_RECORDED_S = 10.0  # a hold is recorded step by step for this long, then once a second: a night on hold must not fill a disk
UNATTENDED_HOLD_S = 1.0  # with nobody there to resume, a hold ends the episode after this
CAMERA_GONE_S = 0.7  # held without a camera that the policy needs: the episode ends, within a second of the loss
RECONNECT_S = 1.0


class ControlLoop(ControlBase, ABC):
    """`tick` and its parts; `await_answers`, `supervise`, `idle` and `run` differ between the clocks."""

    def __init__(self, config: RunConfig, robot: Robot, io: BridgeIO, book: EpisodeBook, cameras: CameraThread | None) -> None:
        super().__init__(config, robot, io, book, cameras)
        self.requests = RequestHandler(self)
        self.message: Observation | None = None  # of the newest step
        self.privileged: Privileged | None = None
        self._reconnect_ns = 0

    # --- what the clocks decide ---

    def before_step(self) -> bool:
        """Wait for what must be known before an observation is published; False: no step now."""
        return True

    @abstractmethod
    def await_answers(self) -> bool:
        """Wait for what must or should be known before the step is decided; False: abandon it."""

    def supervise(self) -> None:
        """Hold when something that a moving robot relies on is missing."""

    def idle(self) -> None:
        """No episode runs."""

    def period_begins(self) -> None:
        """A start state was just made, which took part of a period: the first step gets a whole one."""

    def required_version(self) -> int:
        """That must answer; 0: whichever acts."""
        return self.book.probe_version

    def asks_policy(self) -> bool:
        """Whether the policy's answer belongs into this step."""
        return True

    @abstractmethod
    def answered_by(self, chunk: Chunk) -> bool:
        """Whether ``chunk`` says what to do at this step."""

    @abstractmethod
    def run(self, stopped: Callable[[], bool]) -> None:
        """Tick until ``stopped()``."""

    # --- the tick ---

    def guarded_tick(self) -> None:
        """A tick whose failure stands the robot still and is reported; the loop itself never dies."""
        try:
            self.tick()
        except Exception as error:
            if self.fault(error):
                log.exception("control step %d failed (%d in a row)", self.seq, self.robot_faults)

    def tick(self) -> None:
        self.take_stop()
        if self.mode.mode is Mode.OFFLINE:
            self._reconnect()
            return
        reading = self._read()
        self.requests.handle_all()
        self._complete(reading)
        if self.mode.mode is Mode.RESETTING and time.monotonic_ns() >= self.reset_due_ns:
            self.supervise()
            if self.mode.mode is Mode.RESETTING and self.travels_to_start(reading):
                self._offer_pictures()
                return
        if self.mode.mode is Mode.RESETTING and time.monotonic_ns() >= self.reset_due_ns:
            self.reset_now()
            self.period_begins()
            reading = self._read()
        self._offer_pictures()
        episode_runs = self.mode.mode in (Mode.POLICY, Mode.TAKEOVER, Mode.HOLD)
        if not episode_runs and not (self.mode.mode is Mode.READY and self.waiting_for_press):
            self.idle()
            return
        self.supervise()
        if not self.before_step():
            return
        self.seq += 1
        self._publish(reading)
        if self.await_answers():
            self._step(reading)

    def _offer_pictures(self) -> None:
        if self.cameras is not None:
            episode = self.book.episode
            recorded = episode is not None and episode.recorded and not self._held_too_long()
            self.cameras.offer(episode.id if recorded and episode is not None else "", self.seq + 1)

    def _reconnect(self) -> None:
        now = time.monotonic_ns()
        self.requests.handle_all()
        if now < self._reconnect_ns:
            return
        self._reconnect_ns = now + int(RECONNECT_S * 1e9)
        self.robot.connect()
        self.robot.clear()
        self._read()
        self.robot_faults = 0
        self.change(ModeEvent.CONNECT)

    def _read(self) -> Reading:
        reading = self.robot.read()
        numbers = (reading.observation, reading.tool_position, reading.tool_velocity, reading.force_n)
        if not all(np.isfinite(part).all() for part in numbers):
            raise RobotError("the robot's reading is not finite")
        self.reading = reading
        return reading

    def _complete(self, reading: Reading) -> None:
        """The step before is a whole transition now: record it, and end the episode if that was its last."""
        pending, self.pending = self.pending, None
        request = self.end_request
        if pending is None or pending.held:
            if pending is not None and self._in_episode() and self._records_held():
                self.book.record(pending, reading, 0.0, "task", terminated=False, truncated=False)
            if request is not None and self.book.episode is not None:
                self.end_episode(*request)
            elif self._nobody_resumes():
                self.end_episode(Outcome.ABORTED, OutcomeSource.FAULT)
            elif self._camera_is_gone():
                if self.book.block is not None:
                    self.book.block.finishing = True  # the next episode could not begin either
                self.end_episode(Outcome.ABORTED, OutcomeSource.FAULT)
            return
        episode = self.book.episode
        if episode is None:
            return
        evaluation = self.robot.evaluate() if self.config.reward == "task" else NOT_JUDGED
        reward, reward_source = evaluation.reward, "task"
        terminated = truncated = False
        end: tuple[Outcome, OutcomeSource, bool] | None = None
        if evaluation.terminated:
            terminated = True
            end = (Outcome.SUCCESS if evaluation.success else Outcome.FAILURE, OutcomeSource.TASK, False)
        elif request is not None:
            end = request
            terminated = request[1] is OutcomeSource.OPERATOR
            truncated = not terminated
            if terminated:
                reward, reward_source = (1.0 if request[0] is Outcome.SUCCESS else 0.0), "operator"
        elif self._learned_success(pending):
            truncated, reward_source = True, "classifier"
            end = (Outcome.SUCCESS, OutcomeSource.CLASSIFIER, False)
        elif episode.steps + 1 >= self.max_steps:
            truncated = True
            end = (Outcome.FAILURE, OutcomeSource.LIMIT, False)
        last = self.cameras.policy_images_now() if self.cameras is not None and end is not None else []
        self.book.record(pending, reading, reward, reward_source, terminated=terminated, truncated=truncated, next_images=last)
        self.steps_total += 1
        if end is not None:
            self.end_episode(*end)

    def _learned_success(self, step: PendingStep) -> bool:
        """Whether a learned reward called the state before ``step`` success, where the station lets it end episodes."""
        policy = step.policy
        return self.config.reward == "classifier" and policy is not None and policy.success and policy.from_seq == step.seq

    def _in_episode(self) -> bool:
        """Whether a hold interrupts an episode. Without one (READY, on the way to a start pose) nothing can go on."""
        return self.book.episode is not None and self.book.episode.recorded

    def _held_too_long(self) -> bool:
        return self.mode.mode is Mode.HOLD and self.held_steps > HELD_RECORDED_S * self.spec.control_hz

    def _records_held(self) -> bool:
        return not self._held_too_long() or self.held_steps % round(self.spec.control_hz) == 0

    def _nobody_resumes(self) -> bool:
        episode = self.book.episode
        unattended = (
            self.unattended
            or (self.config.operator == "none" and not self.io.lease.grants)  # nor has anybody come by a network or with a device
            or (self.config.operator == "scripted" and episode is not None and episode.kind is EpisodeKind.EVALUATION)
        )
        return (
            unattended
            and self.mode.mode is Mode.HOLD
            and self.mode.reason is not HoldReason.OPERATOR
            and episode is not None
            and episode.recorded
            and self.held_steps * self.period_s >= UNATTENDED_HOLD_S
        )

    def _camera_is_gone(self) -> bool:
        """A camera that the policy needs is not frozen but gone, and not back after a while: this episode cannot be finished."""
        episode = self.book.episode
        return (
            self.mode.mode is Mode.HOLD
            and self.mode.reason is HoldReason.CAMERA_MISSING
            and episode is not None
            and episode.recorded
            and self.held_steps * self.period_s >= CAMERA_GONE_S
            and self.camera_trouble(time.monotonic_ns())[0] is HoldReason.CAMERA_MISSING
        )

    # --- publishing ---

    def observation_message(self, reading: Reading, seq: int) -> Observation:
        episode = self.book.episode
        return Observation(
            session=self.io.session,
            seq=seq,
            t_robot_ns=reading.t_ns,
            mode=self.mode.mode,
            episode_id=episode.id if episode is not None else "",
            episode_step=episode.steps if episode is not None else 0,
            run_id=episode.run_id if episode is not None else 0,
            observation=reading.observation.tolist(),
            images=self.cameras.newest_policy_images() if self.cameras is not None else [],
            flush=self.flush,
            train_step=self.book.train_step(),
            required_version=self.required_version(),
            lockstep=self.lockstep,
        )

    def privileged_message(self, reading: Reading, seq: int) -> Privileged:
        episode = self.book.episode
        advice = self.robot.advice()
        return Privileged(
            session=self.io.session,
            seq=seq,
            mode=self.mode.mode,
            hold_reason=self.mode.reason,
            episode_id=episode.id if episode is not None else "",
            episode_kind=episode.kind if episode is not None else None,
            episode_number=episode.number if episode is not None else -1,
            episode_step=episode.steps if episode is not None else 0,
            intervention_id=episode.intervention_id if episode is not None and episode.intervention_open else -1,
            observation=reading.observation.tolist(),
            tool_velocity=reading.tool_velocity.tolist(),
            values=advice.values,
            expert_action=advice.expert_action,
            policy_action=self.last_policy,
            lockstep=self.lockstep,
        )

    def _publish(self, reading: Reading) -> None:
        if self.flush:
            self.flushed_at = self.seq
        message = self.observation_message(reading, self.seq)
        self.latency.heard(self.io.inbox.chunk)
        self.latency.published(self.seq, time.monotonic_ns())
        self.message = message
        self.flush = False
        self.io.publish(message)
        if self.spec.simulated:
            self.privileged = self.privileged_message(reading, self.seq)
            self.io.publish(self.privileged)

    # --- one step ---

    def _step(self, reading: Reading) -> None:
        """Decide, limit, apply, advance."""
        if self.io.inbox.stop_reason is not None:
            return
        size = self.spec.action.size
        t_decision_ns = time.monotonic_ns()
        human = answers.newest_human(self.io.inbox, size, t_decision_ns, self.seq if self.lockstep else None)
        if self.mode.mode is Mode.HOLD and not self._in_episode():
            human = None  # no takeover: only Resume leads out
        chunk = self.io.inbox.chunk
        if chunk is not None and not (self.asks_policy() and self.answered_by(chunk)):
            chunk = None
        choice: PolicyChoice | None = chunk.choice(self.seq) if chunk is not None else None
        rules = self.rules()
        decision = decide(
            self.mode.mode,
            self.mode.reason,
            self.authority,
            human,
            choice,
            self.last_action,
            rules,
            waiting_for_press=self.waiting_for_press,
        )
        self.authority = decision.authority
        self._enact(decision)
        if self.mode.mode is Mode.READY:
            self.idle()
            return
        result, decision = self._limit(decision, reading)
        sim_state = self.robot.save() if self.spec.simulated else b""
        self.robot.apply(result.action)
        t_applied_ns = time.monotonic_ns()
        held = self.mode.mode is Mode.HOLD
        self.held_steps = self.held_steps + 1 if held else 0
        drives = human is not None and human.command.deadman
        self.last_human = human.action.tolist() if drives and human is not None and human.action is not None else None
        wanted = choice.action.tolist() if choice is not None and choice.action is not None else None
        self.pending = PendingStep(
            seq=self.seq,
            reading=reading,
            mode=self.mode.mode,
            control_mode=control_mode_of_hold(self.mode.reason) if held else decision.control_mode,
            hold_reason=self.mode.reason.value,
            held=held,
            source=decision.source,
            policy=chunk.answer if chunk is not None else None,
            policy_action=wanted,
            human=human,
            human_action=self.last_human,
            asked=decision.asked,
            action=result.action,
            safety_bits=result.bits | _fault_bits(human if drives else None, choice),
            t_decision_ns=t_decision_ns,
            t_applied_ns=t_applied_ns,
            wall_ns=time.time_ns(),
            images=self.message.images if self.message is not None else [],
            picture_age_ms=self.cameras.worst_age_ms() if self.cameras is not None else -1.0,
            sim_state=sim_state,
        )
        for bit in self.pending.safety_bits:
            self.safety_counts[bit.name.lower() if bit.name else str(int(bit))] += 1
        self.last_action = result.action
        self.last_source = decision.source
        self.last_policy = wanted if Source.POLICY in decision.source else None
        self.robot.advance()
        self.robot_faults = 0

    def _enact(self, decision: Decision) -> None:
        """Mode and episode follow what arbitration decided."""
        if decision.event is None:
            return
        if decision.event is ModeEvent.TAKE:
            continues = self.mode.mode is Mode.HOLD
            if self.mode.mode is Mode.READY:
                self.open_episode()
            self.attend()
            if continues:
                self.robot.clear()
            self.book.take_over(continues=continues)
        elif decision.event is ModeEvent.RELEASE:
            self.book.hand_back()
        self.change(decision.event, decision.reason, decision.detail)

    def _limit(self, decision: Decision, reading: Reading) -> tuple[SafetyResult, Decision]:
        """Through the safety filter; too many gross clamps of the policy in a row turn the step into a hold."""
        driver = Source.POLICY if decision.control_mode is ControlMode.POLICY else Source.HUMAN
        state, scale = self.safety_state, self.active_speed_scale()
        result = self.filtered(state, decision.asked, reading, driver, scale)
        if result.hold:
            names = ", ".join(bit.name.lower() for bit in result.bits if bit.name)
            self.change(ModeEvent.HOLD, HoldReason.REPEATED_CLAMP, f"{names}: {result.hold}")
            decision = replace(decision, asked=np.zeros(self.spec.action.size), source=(Source.NONE,) * len(decision.source))
            held = self.filtered(state, decision.asked, reading, Source.NONE, scale)
            result = replace(held, bits=held.bits | result.bits)
        self.safety_state = result.state
        return result, decision


def _fault_bits(human: Human | None, choice: PolicyChoice | None) -> SafetyBit:
    """NON_FINITE or SHAPE where somebody's action was refused."""
    bits = SafetyBit.NONE
    for fault in (human.fault if human is not None else "", choice.fault if choice is not None else ""):
        if fault:
            bits |= SafetyBit.NON_FINITE if "finite" in fault else SafetyBit.SHAPE
    return bits
