"""One control step: publish the observation, decide (arbitration), limit (safety), apply, advance. What is left of it is recorded later."""

import time
from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np

from takeover.data.schema import ControlMode, HoldReason, Mode, Observation, Privileged, RunConfig, Source
from takeover.robot_bridge import answers
from takeover.robot_bridge.arbitration import Decision, PolicyChoice, control_mode_of_hold, decide
from takeover.robot_bridge.camera_thread import CameraThread
from takeover.robot_bridge.chunks import Chunk
from takeover.robot_bridge.control_base import ControlBase
from takeover.robot_bridge.episode import PendingStep
from takeover.robot_bridge.episode_book import EpisodeBook
from takeover.robot_bridge.io import BridgeIO
from takeover.robot_bridge.modes import ModeEvent
from takeover.robot_bridge.robots.base import Reading, Robot
from takeover.robot_bridge.safety import SafetyResult


class ControlStep(ControlBase, ABC):
    """What is published before a step, and the step itself; `ControlLoop` says when."""

    def __init__(self, config: RunConfig, robot: Robot, io: BridgeIO, book: EpisodeBook, cameras: CameraThread | None) -> None:
        super().__init__(config, robot, io, book, cameras)
        self.message: Observation | None = None  # of the newest step
        self.privileged: Privileged | None = None

    # --- what the clocks decide ---

    def idle(self) -> None:
        """No episode runs."""

    def required_version(self) -> int:
        """That must answer; 0: whichever acts."""
        return self.book.probe_version

    def asks_policy(self) -> bool:
        """Whether the policy's answer belongs into this step."""
        return True

    @abstractmethod
    def answered_by(self, chunk: Chunk) -> bool:
        """Whether ``chunk`` says what to do at this step."""

    # --- questions ---

    def _in_episode(self) -> bool:
        """Whether a hold interrupts an episode. Without one (READY, on the way to a start pose) nothing can go on."""
        return self.book.episode is not None and self.book.episode.recorded

    def _policy_sees(self, now_ns: int) -> bool:
        """Whether an answer was made from pictures that are new (real time; in mode POLICY the loop holds without them)."""
        return self.lockstep or self.mode.mode is Mode.POLICY or self.camera_trouble(now_ns)[0] is HoldReason.NONE

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
        if chunk is not None and not (self.asks_policy() and self.answered_by(chunk) and self._policy_sees(t_decision_ns)):
            chunk = None
        choice: PolicyChoice | None = chunk.choice(self.seq, self.plan_steps) if chunk is not None else None
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
        if decision.event is ModeEvent.RELEASE and choice is not None and choice.planned:
            chunk = choice = None  # planned in the takeover: it neither drives nor counts as what the policy wanted
        self._enact(decision)
        if self.mode.mode is Mode.READY:
            self.idle()
            return
        result, decision = self._limit(decision, reading)
        if Source.HUMAN in decision.source and human is not None and self._in_episode():
            self.book.driven_by(self.who_drives(human.person, human.command.device_kind), self.seq)
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
            safety_bits=result.bits | answers.fault_bits(human if drives else None, choice),
            t_decision_ns=t_decision_ns,
            t_applied_ns=t_applied_ns,
            wall_ns=time.time_ns(),
            images=self.message.images if self.message is not None else [],
            picture_age_ms=self.cameras.worst_age_ms() if self.cameras is not None else -1.0,
            sim_state=sim_state,
        )
        if self._in_episode():
            self.changed.count(self.pending.safety_bits)
        else:
            self.changed.count(self.pending.safety_bits & ~result.bits)
            self.note_change(decision.asked, result)
        self.last_action = result.action
        self.last_source = decision.source
        self.last_policy = wanted if Source.POLICY in decision.source else None
        self.robot.advance()
        self.robot_faults = 0

    def _enact(self, decision: Decision) -> None:
        """Mode and episode follow what arbitration decided."""
        if decision.flush:
            self.flush = True
        if decision.event is None:
            return
        if decision.event is ModeEvent.TAKE:
            continues = self.mode.mode is Mode.HOLD
            if self.mode.mode is Mode.READY:
                self.open_episode()
            self.attend()
            if continues:
                self.clear_robot()
            self.book.take_over(continues=continues)
        elif decision.event is ModeEvent.RELEASE:
            self.book.hand_back()
        self.change(decision.event, decision.reason, decision.detail)

    def _limit(self, decision: Decision, reading: Reading) -> tuple[SafetyResult, Decision]:
        """Through the safety filter; too many gross clamps of the policy in a row turn the step into a hold."""
        driver = Source.POLICY if decision.control_mode is ControlMode.POLICY else Source.HUMAN
        state, scale = self.safety_state, self.active_speed_scale()
        result = self.filtered(state, decision.asked, reading, driver, scale)
        if driver is Source.HUMAN and Source.POLICY in decision.source:
            result = self._judged(decision, result, reading)
        if result.hold:
            names = ", ".join(bit.name.lower() for bit in result.bits if bit.name)
            self.change(ModeEvent.HOLD, HoldReason.REPEATED_CLAMP, f"{names}: {result.hold}")
            decision = replace(decision, asked=np.zeros(self.spec.action.size), source=(Source.NONE,) * len(decision.source))
            held = self.filtered(state, decision.asked, reading, Source.NONE, scale)
            result = replace(held, bits=held.bits | result.bits)
        self.safety_state = result.state
        return result, decision

    def _judged(self, decision: Decision, result: SafetyResult, reading: Reading) -> SafetyResult:
        """Where a person drives some groups only, the policy's part is judged as if it drove alone."""
        part = np.zeros(self.spec.action.size)
        for group, source in zip(self.spec.action.groups, decision.source, strict=True):
            if source is Source.POLICY:
                part[group.start : group.stop] = decision.asked[group.start : group.stop]
        alone = self.filtered(self.safety_state, part, reading, Source.POLICY, self.active_speed_scale())
        state = replace(result.state, clamps_in_a_row=alone.state.clamps_in_a_row, mistakes=alone.state.mistakes)
        return replace(result, state=state, hold=alone.hold)
