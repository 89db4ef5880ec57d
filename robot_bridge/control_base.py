"""The acts that change the control loop's mode: resets, holds, STOP, faults, ends of episodes and blocks. Control thread only."""

import logging
import time
from dataclasses import replace

import numpy as np

from takeover.data import audit
from takeover.data.drivers import SCRIPT, UNNAMED, Driver
from takeover.data.schema import EpisodeKind, HoldReason, Mode, Outcome, OutcomeSource
from takeover.robot_bridge.arbitration import Authority, command_life_s
from takeover.robot_bridge.control_state import ControlState
from takeover.robot_bridge.inbox import Refused
from takeover.robot_bridge.modes import ModeEvent, transition
from takeover.robot_bridge.safety import SafetyState

log = logging.getLogger("bridge.control")

FAULTS_TO_OFFLINE = 3


class ControlBase(ControlState):
    """Shared by both clocks."""

    # --- mode changes ---

    def change(self, event: ModeEvent, reason: HoldReason = HoldReason.NONE, detail: str = "") -> None:
        """Apply ``event`` and record the change. Raises `IllegalTransition`."""
        before = self.mode
        self.mode = transition(before, event, time.monotonic_ns(), reason, detail)
        if self.mode is before:
            return
        self.flush, self.asked_to_hold = True, False
        text = f"{before.mode} -> {self.mode.mode}"
        if self.mode.mode is Mode.HOLD:
            self.held_steps = 0
            self.holds += 1
            self.authority = replace(self.authority, armed=False, needs_neutral=True, ramp=0, late_answers=0)
            text += f" ({reason}: {detail})" if detail else f" ({reason})"
            log.info("hold: %s %s", reason, detail)
        self.io.event("mode", text, **self.where())
        self.io.state_now()

    def resume(self) -> None:
        """Out of a hold by an explicit act, by somebody who commands, with the device neutral. Raises `Refused`."""
        now, command = time.monotonic_ns(), self.io.inbox.command
        if not self.lockstep and self.io.lease.holder(now):
            if command is None or command.age_s(now) > command_life_s(self.period_s):
                raise Refused("no command of the lease's holder is in time; resume when they arrive")
            if not command.command.neutral:
                raise Refused("centre the device and let go of its deadman first")
        episode = self.book.episode
        running = episode is not None and episode.recorded
        if running and episode is not None and episode.kind is EpisodeKind.DEMONSTRATION:
            raise Refused("press the deadman to go on with the demonstration")
        self.clear_robot()
        self.resumes += 1
        self.safety_state = replace(self.safety_state, mistakes=0)  # a person has looked: the episode's budget begins anew
        if running:
            self.book.hand_back()
            self.change(ModeEvent.RESUME)
        elif self.book.block is not None:
            self.begin_reset()
        else:
            self.change(ModeEvent.STAND_BY)

    def clear_stop(self, sender: str, stops: int) -> None:
        """Deliberately out of STOPPED; nothing drives before it is enabled again. ``stops``: that ``sender`` knew of. Raises `Refused`."""
        self.robot.clear()
        if not self.io.inbox.clear_stop(stops):
            self.stop_robot()
            raise Refused("STOP was pressed after this was asked: not done")
        self.robot_stopped = False
        self.authority = Authority()
        self.safety_state = SafetyState()
        self.change(ModeEvent.CLEAR)
        self.io.event("stop_cleared", sender)
        self.audit(sender, "stop_cleared")

    def audit(self, who: str, what: str, **details: object) -> None:
        """Note it in the workspace's audit log; a log that cannot be written is said, and stops nothing."""
        try:
            audit.append(self.config.workspace, who, what, session=self.io.session, **details)
        except OSError as error:
            log.error("audit log: %s", error)

    def take_stop(self) -> None:
        """Latch a STOP that the I/O side has already acted on."""
        pressed, reason = self.io.inbox.stops, self.io.inbox.stop_reason
        known, self.stops_taken = self.stops_taken, pressed
        if reason is None:
            return
        if self.mode.mode is Mode.STOPPED:
            if pressed != known:  # again, by somebody else perhaps: it refuses a Clear that was asked before it
                self.io.event("stop", reason, **self.where())
            return
        self.stop_robot()
        self.change(ModeEvent.STOP, detail=reason)
        self.io.event("stop", reason, **self.where())
        episode = self.book.episode
        if episode is not None and episode.recorded:
            self.end_request = (Outcome.ABORTED, OutcomeSource.STOP, False)
        else:
            self._abort_block()

    def stop_robot(self) -> None:
        """Also where the driver's own stop fails: the loop lives on and says so, and the robot's watchdog stops it."""
        self.robot_stopped = True
        try:
            self.robot.stop()
        except Exception:
            log.exception("the robot's own stop failed")

    def clear_robot(self) -> None:
        """Let the robot move again; a STOP that comes meanwhile stays. Raises `RobotError`."""
        self.robot.clear()
        self.robot_stopped = False
        if self.io.inbox.stop_reason is not None:
            self.stop_robot()

    def stood_still(self) -> None:
        """The robot was stopped by its own stop: what it was told before is not braked from, nor gone on from, any more."""
        self.safety_state = replace(self.safety_state, velocity=(0.0, 0.0, 0.0))

    def fault(self, error: Exception) -> bool:
        """The robot or the loop itself failed: stand still, say so, hold; offline when it goes on, or when no episode runs to be held.

        Returns whether it was said: the first ones and then one in a second, as a robot that is off must fill neither log nor record.
        """
        self.stop_robot()
        self.stood_still()
        self.pending = None
        self.robot_faults += 1
        if self.end_request is not None and self.end_request[1] is OutcomeSource.STOP:
            self.end_episode(*self.end_request)  # at once: a Clear must not find it still there, to be held and gone on with
        episode = self.book.episode
        if episode is not None:
            episode.run_broken = True
        said = self.robot_faults <= FAULTS_TO_OFFLINE or self.robot_faults % round(self.spec.control_hz) == 0
        if said:
            self.io.event("robot_fault", f"{type(error).__name__}: {error}", **self.where())
        if self.mode.mode in (Mode.STOPPED, Mode.OFFLINE):
            return said
        if self.robot_faults < FAULTS_TO_OFFLINE and episode is not None and episode.recorded:
            self.change(ModeEvent.HOLD, HoldReason.ROBOT_FAULT, str(error))
            return said
        if episode is not None and episode.recorded:
            self.book.end(Outcome.ABORTED, OutcomeSource.FAULT)
        self._abort_block()
        self.change(ModeEvent.LOSE, detail=str(error))
        return said

    # --- episodes ---

    def begin_reset(self) -> None:
        """Go for the next episode of the block."""
        self.book.forget_prepared()
        self.way_to_start, self.start_steps = None, 0
        self.waiting_for_press = self.waiting_for_next = False
        pause_ns = int(self.reset_pause_s * 1e9) if self.book.ended.last is not None else 0
        self.reset_due_ns = time.monotonic_ns() + pause_ns
        self.change(ModeEvent.RESET)

    def reset_now(self) -> None:
        """Make the start state; a policy starts at once, a demonstration waits for the deadman."""
        episode = self.way_to_start or self.book.prepare()
        velocity = self.safety_state.velocity if self.start_steps else (0.0, 0.0, 0.0)
        self.way_to_start, self.start_steps = None, 0
        begun_ns = time.monotonic_ns()
        self.robot.reset(episode.start_seed)
        if self.cameras is not None:
            self.cameras.robot_reset(begun_ns, time.monotonic_ns())
        self.safety_state = SafetyState(velocity=velocity)
        self.authority = replace(self.authority, armed=False, ramp=0, late_answers=0)
        self.watch_hands()
        self.last_action = np.zeros(self.spec.action.size)
        self.last_human = self.last_policy = None
        self.end_request = None
        if episode.kind is EpisodeKind.DEMONSTRATION:
            self.waiting_for_press = True
            self.change(ModeEvent.STAND_BY)
        else:
            self.open_episode()
            self.change(ModeEvent.BEGIN)
        self.flush = True

    def open_episode(self) -> None:
        version, sha256 = self.acting_policy()
        lease = self.io.lease
        self.book.driver = self.who_drives(lease.person if lease.holder(time.monotonic_ns()) else UNNAMED, lease.device_kind)
        self.book.open(version, sha256)
        self.waiting_for_press = False

    def who_drives(self, person: Driver, device_kind: str) -> Driver:
        """As it is recorded: a script as such, and who says no name as the station's own person."""
        if device_kind == "scripted":
            return SCRIPT
        return person if person.name else Driver(self.config.person, self.config.consent_version)

    def acting_policy(self) -> tuple[int, str]:
        """Version and hash of the policy that answers; (0, "") when there is none."""
        newest = self.io.inbox.policy
        return (newest.policy_version, newest.policy_sha256) if newest is not None else (0, "")

    def end_episode(self, outcome: Outcome, source: OutcomeSource, discard: bool = False) -> None:
        """Record the end and go on as the block asks."""
        self.book.end(outcome, source, discarded=discard, held_steps=self.held_steps)
        self.end_request = None
        self.pending = None
        block = self.book.block
        if block is not None and block.max_failures and block.failures >= block.max_failures and not block.finishing:
            block.finishing = True
            self.io.event("practice_stopped", f"{block.failures} failures in {block.done} episodes", value=float(block.failures))
        stopped = source is OutcomeSource.STOP  # whatever the mode has become since
        if stopped or self.mode.mode in (Mode.STOPPED, Mode.READY) or block is None:  # ready: cleared before this step was complete
            self._abort_block()
        elif block.complete:
            self.finish_block()
        elif self.spec.simulated and self.spec.can_reset:
            self.begin_reset()
        else:
            self.waiting_for_next = True
            self.change(ModeEvent.STAND_BY)

    def finish_block(self) -> None:
        """The block is done: stand by."""
        block = self.book.block
        if block is not None:
            self.io.event("block_finished", f"{block.kind}: {block.done} episodes", value=float(block.done))
        self._abort_block()
        if self.mode.mode is not Mode.READY:
            self.change(ModeEvent.STAND_BY)

    def _abort_block(self) -> None:
        self.book.forget_prepared()
        self.book.end_block()
        self.waiting_for_press = self.waiting_for_next = False
