"""What the control loop knows, and the acts that change its mode: resets, holds, ends of episodes and blocks. Control thread only."""

import logging
import time
from dataclasses import replace

import msgspec
import numpy as np

from takeover.data import audit
from takeover.data.limits import LIMIT_RANGES
from takeover.data.schema import EpisodeKind, HoldReason, Mode, Outcome, OutcomeSource, RunConfig, SafetyLimits, Source
from takeover.robot_bridge.arbitration import Authority, Rules, command_life_s, ramp_steps, stale_steps
from takeover.robot_bridge.camera_thread import CameraThread
from takeover.robot_bridge.changed_commands import ChangedCommands
from takeover.robot_bridge.chunks import AnswerLatency
from takeover.robot_bridge.episode import Episode, PendingStep
from takeover.robot_bridge.episode_book import EpisodeBook
from takeover.robot_bridge.inbox import Refused
from takeover.robot_bridge.io import BridgeIO
from takeover.robot_bridge.modes import ModeEvent, ModeState, transition
from takeover.robot_bridge.robots.base import FloatArray, Reading, Robot
from takeover.robot_bridge.safety import SafetyFilter, SafetyResult, SafetyState
from takeover.robot_bridge.sight import SEES, camera_trouble, pictures_alone

log = logging.getLogger("bridge.control")

FAULTS_TO_OFFLINE = 3
POLICY_SILENT_S = 1.0


def practice_limits(limits: SafetyLimits) -> SafetyLimits:
    """Tighter ones, for when nobody watches: half the forces, half the mistakes, held after one gross clamp less."""
    low = {name: bounds[0] for name, bounds in LIMIT_RANGES.items()}
    return msgspec.structs.replace(
        limits,
        max_force_n=max(low["max_force_n"], limits.max_force_n / 2),
        max_gripper_force_n=max(low["max_gripper_force_n"], limits.max_gripper_force_n / 2),
        clamps_to_hold=max(1, limits.clamps_to_hold - 1),
        mistakes_per_episode=max(1, limits.mistakes_per_episode // 2),
    )


class ControlBase:
    """Shared by both clocks."""

    lockstep = False
    reset_pause_s = 0.0  # the arm rests this long at the end of an episode, so that people see how it ended

    def __init__(self, config: RunConfig, robot: Robot, io: BridgeIO, book: EpisodeBook, cameras: CameraThread | None) -> None:
        self.config = config
        self.robot = robot
        self.io = io
        self.book = book
        self.cameras = cameras
        self.spec = book.spec
        self.watched = pictures_alone(config, self.spec)
        self.period_s = 1.0 / self.spec.control_hz
        self.filter = SafetyFilter(self.spec, config.limits)
        self.practice_filter = SafetyFilter(self.spec, practice_limits(config.limits))
        self.speed_scale = 1.0

        self.mode = ModeState()
        self.authority = Authority()
        self.safety_state = SafetyState()
        self.seq = -1  # of the newest control step
        self.flushed_at = 0  # policy chunks made before this step do not count
        self.flush = True
        self.latency = AnswerLatency()
        self.pending: PendingStep | None = None
        self.reading: Reading | None = None
        self.end_request: tuple[Outcome, OutcomeSource, bool] | None = None  # outcome, source, discard
        self.reset_due_ns = 0
        self.waiting_for_press = False  # a demonstration's start state is made
        self.waiting_for_next = False  # a real robot waits for a person before the next episode
        self.way_to_start: Episode | None = None  # whose start pose the robot is travelling to
        self.start_steps = 0  # on that way
        self.held_steps = 0
        self.asked_to_hold = False  # by a person, in the hold that lasts
        self.robot_faults = 0

        self.resumes = 0
        self.steps_total = 0
        self.steps_late = 0
        self.steps_dropped = 0
        self.lateness_p99_ms = 0.0
        self.changed = ChangedCommands()
        self.last_action = np.zeros(self.spec.action.size)
        self.last_source: tuple[Source, ...] = (Source.NONE,) * len(self.spec.action.groups)
        self.last_human: list[float] | None = None
        self.last_policy: list[float] | None = None

    # --- questions ---

    def policy_present(self) -> bool:
        """Whether the actor has answered with a policy, or (lockstep) the learner has published one that it must load."""
        learner = self.io.inbox.learner
        return self.io.inbox.policy is not None or (self.lockstep and learner is not None and learner.newest_version > 0)

    def actor_silent(self, now_ns: int) -> bool:
        """Real time: whether the newest answer is older than `POLICY_SILENT_S`."""
        heard_ns = self.io.inbox.chunk.arrival_ns if self.io.inbox.chunk is not None else 0
        return not self.lockstep and now_ns - heard_ns > POLICY_SILENT_S * 1e9

    def recorder_trouble(self) -> str:
        return self.io.records.error or self.io.records.trouble(time.monotonic_ns())

    def camera_trouble(self, now_ns: int) -> tuple[HoldReason, str]:
        """What the policy cannot do without: a camera of its that never gave a picture, failed, or gives no new one."""
        return camera_trouble(self.cameras, self.spec.policy_cameras, now_ns)

    def blind(self, now_ns: int) -> tuple[HoldReason, str]:
        """Why people do not see what they would drive. In lockstep time stands while pictures are made."""
        return SEES if self.lockstep else camera_trouble(self.cameras, self.watched, now_ns)

    def lacking(self, now_ns: int) -> tuple[HoldReason, str]:
        """Why nobody may drive, a person neither: nothing would be recorded, or people do not see what they would drive."""
        reason, detail = self.unrecorded(now_ns)
        return (reason, detail) if reason is not HoldReason.NONE else self.blind(now_ns)

    def unrecorded(self, now_ns: int) -> tuple[HoldReason, str]:
        """Why nothing would be recorded now. In lockstep the recorder is waited for."""
        if self.lockstep:
            return HoldReason.NONE, ""
        if self.io.records.error:
            return HoldReason.DISK_FULL, self.io.records.error
        trouble = self.io.records.trouble(now_ns)
        return (HoldReason.RECORDER_LOST, trouble) if trouble else (HoldReason.NONE, "")

    def watch_hands(self) -> None:
        """Note whether the deadman is let go (real time; in lockstep only the answer to a step says it)."""

    @property
    def on_way_to_start(self) -> bool:
        """Whether the robot moves although no episode runs."""
        return self.mode.mode is Mode.RESETTING and self.start_steps > 0

    def where(self) -> dict[str, str | int]:
        """Episode and step, for an event."""
        episode = self.book.episode
        return {"episode_id": episode.id if episode is not None and episode.recorded else "", "seq": self.seq}

    def rules(self) -> Rules:
        episode = self.book.episode
        return Rules(
            spec=self.spec.action,
            command_life_s=command_life_s(self.period_s),
            ramp_steps=ramp_steps(self.spec.control_hz),
            hold_to_run=self.config.hold_to_run,
            stale_steps=stale_steps(self.spec.control_hz),
            policy_drives=episode is None or episode.kind is not EpisodeKind.DEMONSTRATION,
            policy_awaited=self.policy_awaited(),
            lacking=self.lacking(time.monotonic_ns()),
            attended=not self.unattended,
        )

    def policy_awaited(self) -> bool:
        """Real time: the actor cannot have answered: one that answers chunks just after a flush, any when this step itself is late."""
        return False

    def active_speed_scale(self) -> float:
        """A robot that cannot stop by itself, or that nobody watches, moves slowly whatever is asked."""
        slow = self.unattended or not self.spec.has_watchdog
        return min(self.speed_scale, self.config.limits.slow_scale) if slow else self.speed_scale

    @property
    def unattended(self) -> bool:
        """Whether a block of practice runs with nobody there."""
        return self.book.block is not None and self.book.block.max_failures > 0

    @property
    def max_steps(self) -> int:
        """Of an episode: who must go slowly gets the time for it."""
        return round(self.spec.max_steps / self.config.limits.slow_scale) if self.unattended else self.spec.max_steps

    def attend(self) -> None:
        """A person has taken over: the rest of the block is attended."""
        block = self.book.block
        if block is not None and block.max_failures:
            block.max_failures = 0
            self.io.event("unattended_ended", "a person took over", **self.where())

    def filtered(self, state: SafetyState, asked: FloatArray, reading: Reading, driver: Source, scale: float) -> SafetyResult:
        """``asked`` (A,) through the safety filter, as the robot is now."""
        return (self.practice_filter if self.unattended else self.filter).apply(
            state,
            asked,
            reading.tool_position,
            reading.force_n,
            driver,
            scale,
            joints=reading.joints,
            gripper_force_n=reading.gripper_force_n,
        )

    def stand(self, reading: Reading) -> None:
        """Command zero velocity, decelerating within the limits: in every mode in which nothing drives."""
        zero = np.zeros(self.spec.action.size)
        result = self.filtered(self.safety_state, zero, reading, Source.NONE, self.active_speed_scale())
        self.safety_state = result.state
        self.note_change(zero, result)
        self.last_action = result.action
        self.robot.apply(result.action)

    def note_change(self, asked: FloatArray, result: SafetyResult) -> None:
        """Count and report what the filter changed where no step is recorded that says it."""
        if text := self.changed.note(asked, result, time.monotonic_ns()):
            self.io.event("command_changed", text, value=float(result.bits), **self.where())

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
        self.robot.clear()
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
        reason = self.io.inbox.stop_reason
        if reason is None or self.mode.mode is Mode.STOPPED:
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
        try:
            self.robot.stop()
        except Exception:
            log.exception("the robot's own stop failed")

    def fault(self, error: Exception) -> bool:
        """The robot or the loop itself failed: stand still, say so, hold; offline when it goes on, or when no episode runs to be held.

        Returns whether it was said: the first ones and then one in a second, as a robot that is off must fill neither log nor record.
        """
        self.stop_robot()
        self.pending = None
        self.robot_faults += 1
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
        self.robot.reset(episode.start_seed)
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
        self.book.operator = "scripted" if self.io.lease.device_kind == "scripted" else ""
        self.book.open(version, sha256)
        self.waiting_for_press = False

    def acting_policy(self) -> tuple[int, str]:
        """Version and hash of the policy that answers; (0, "") when there is none."""
        newest = self.io.inbox.policy
        return (newest.policy_version, newest.policy_sha256) if newest is not None else (0, "")

    def end_episode(self, outcome: Outcome, source: OutcomeSource, discard: bool = False) -> None:
        """Record the end and go on as the block asks."""
        self.book.end(outcome, source, discarded=discard)
        self.end_request = None
        self.pending = None
        block = self.book.block
        if block is not None and block.max_failures and block.failures >= block.max_failures and not block.finishing:
            block.finishing = True
            self.io.event("practice_stopped", f"{block.failures} failures in {block.done} episodes", value=float(block.failures))
        if self.mode.mode in (Mode.STOPPED, Mode.READY) or block is None:  # ready: STOP was cleared before this step was complete
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
