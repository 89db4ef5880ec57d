"""What the control loop knows, and what it asks of it: who may drive, by which rules and limits. Control thread only."""

import math
import time

import msgspec
import numpy as np

from takeover.data.limits import LIMIT_RANGES
from takeover.data.schema import EpisodeKind, HoldReason, Mode, Outcome, OutcomeSource, RunConfig, SafetyLimits, Source
from takeover.robot_bridge.arbitration import Authority, Rules, command_life_s, ramp_steps, stale_steps
from takeover.robot_bridge.camera_thread import CameraThread
from takeover.robot_bridge.changed_commands import ChangedCommands
from takeover.robot_bridge.chunks import MAX_PLAN_S, AnswerLatency
from takeover.robot_bridge.episode import Episode, PendingStep
from takeover.robot_bridge.episode_book import EpisodeBook
from takeover.robot_bridge.io import BridgeIO
from takeover.robot_bridge.modes import ModeState
from takeover.robot_bridge.robots.base import FloatArray, Reading, Robot
from takeover.robot_bridge.safety import SafetyFilter, SafetyResult, SafetyState
from takeover.robot_bridge.sight import SEES, camera_trouble, pictures_alone

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


class ControlState:
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
        self.plan_steps = math.floor(MAX_PLAN_S / self.period_s)  # of a chunk that count
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
        self.stops_taken = 0  # of those pressed, that the loop has seen
        self.holds = 0  # that have begun or been asked for
        self.asked_to_hold = False  # by a person, in the hold that lasts
        self.robot_faults = 0
        self.robot_stopped = False  # by this bridge: it stands and does not do what it is told until it is cleared

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

    def driven(self) -> tuple[str, bool]:
        """The running episode ("": none), and whether the robot is held in it. Any thread."""
        return str(self.where()["episode_id"]), self.mode.mode is Mode.HOLD

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
            scripts=self.spec.simulated,
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
