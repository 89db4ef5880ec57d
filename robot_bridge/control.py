"""The control loop: one `tick` per control period, the same for both clocks.

Read the robot, act on requests, complete the step before with what came of it, publish the observation, take the answers, decide
(arbitration), limit (safety), apply, advance. `realtime` and `lockstep` say when a tick happens and how long answers are waited for.
"""

import logging
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from takeover.data.schema import EpisodeKind, HoldReason, Mode, Outcome, OutcomeSource, RunConfig, Source
from takeover.robot_bridge.camera_thread import CameraThread
from takeover.robot_bridge.control_step import ControlStep
from takeover.robot_bridge.episode import PendingStep
from takeover.robot_bridge.episode_book import EpisodeBook
from takeover.robot_bridge.io import BridgeIO
from takeover.robot_bridge.modes import ModeEvent
from takeover.robot_bridge.requests import RequestHandler
from takeover.robot_bridge.robots.base import NOT_JUDGED, MovesToStart, Reading, Robot, RobotError
from takeover.robot_bridge.safety import checked

log = logging.getLogger("bridge.control")

HELD_RECORDED_S = 10.0  # a hold is recorded step by step for this long, then once a second: a night on hold must not fill a disk
UNATTENDED_HOLD_S = 1.0  # with nobody there to resume, a hold ends the episode after this
CAMERA_GONE_S = 0.7  # held without a camera that the policy, or who drives, needs: the episode ends, within a second of the loss
RECONNECT_S = 1.0
MAX_READING_AGE = 2.0  # periods: what moves on an older one does not know where the tool is
WAY_TO_START_S = 30.0  # a start pose that is not reached by then is not reached


class ControlLoop(ControlStep):
    """`tick` and its parts; `await_answers`, `supervise`, `idle` and `run` differ between the clocks."""

    def __init__(self, config: RunConfig, robot: Robot, io: BridgeIO, book: EpisodeBook, cameras: CameraThread | None) -> None:
        super().__init__(config, robot, io, book, cameras)
        self.requests = RequestHandler(self)
        self._reconnect_ns = 0
        self._gone_steps = 0  # in a row, held without a camera
        self.hold_asker = ""  # whose hold outlasts the episode; "": nobody's, or somebody has ended the episode since

    # --- what the clocks decide ---

    def before_step(self) -> bool:
        """Wait for what must be known before an observation is published; False: no step now."""
        return True

    @abstractmethod
    def await_answers(self) -> bool:
        """Wait for what must or should be known before the step is decided; False: abandon it."""

    def supervise(self) -> None:
        """Hold when something that a moving robot relies on is missing."""

    def period_begins(self) -> None:
        """A start state was just made, which took part of a period: the first step gets a whole one."""

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
        self.requests.handle_all()  # answered also while the robot is not
        reading = self._read()
        asker = self.hold_asker if self.asked_to_hold else ""
        self._complete(reading)
        if asker and self.mode.mode is Mode.RESETTING:  # the episode ended in the period in which somebody asked for a hold
            self.change(ModeEvent.HOLD, HoldReason.OPERATOR, asker)
        if self.mode.mode is Mode.RESETTING and self.robot_stopped and not self.on_way_to_start:
            self.clear_robot()  # it had a fault or the loop a stall, and that hold was ended otherwise than by Resume
        if self.mode.mode is Mode.RESETTING and time.monotonic_ns() >= self.reset_due_ns and self.travels_to_start(reading):
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

    def travels_to_start(self, reading: Reading) -> bool:
        """One step on the way to the start pose, through the filter and at slow speed; False when there, held, or none is needed.

        Raises `RobotError` when it takes too long.
        """
        robot = self.robot
        if not isinstance(robot, MovesToStart):
            return False
        if self.way_to_start is None:
            self.way_to_start = self.book.prepare()
        wanted = robot.start_action(reading, self.way_to_start.start_seed)
        if wanted is None:
            return False
        self.start_steps += 1
        if self.start_steps * self.period_s > WAY_TO_START_S:
            raise RobotError(f"the start pose was not reached within {WAY_TO_START_S:.0f} s; clear the way and resume")
        self.supervise()  # from the first step on: after a Resume too
        if self.mode.mode is not Mode.RESETTING:
            return False
        scale = min(self.active_speed_scale(), self.config.limits.slow_scale)
        asked = checked(wanted, self.spec.action.size, "action towards the start pose")
        result = self.filtered(self.safety_state, asked, reading, Source.NONE, scale)
        self.safety_state = result.state
        self.note_change(asked, result)
        self.last_action = result.action
        robot.apply(result.action)
        robot.advance()
        self.robot_faults = 0
        return True

    def _offer_pictures(self) -> None:
        if self.cameras is not None:
            episode = self.book.episode
            recorded = episode is not None and episode.recorded and not self._held_too_long()
            place = self.reading.tool_position.tolist() if self.reading is not None else ()
            self.cameras.offer(episode.id if recorded and episode is not None else "", self.seq + 1, place)

    def _reconnect(self) -> None:
        now = time.monotonic_ns()
        self.requests.handle_all()
        if now < self._reconnect_ns:
            return
        self._reconnect_ns = now + int(RECONNECT_S * 1e9)
        self.robot.connect()
        self.clear_robot()
        self._read()
        self.robot_faults = 0
        self.change(ModeEvent.CONNECT)

    def _read(self) -> Reading:
        """Where the robot is now. Raises `RobotError` for a reading that is old, not finite, or not of this robot's joints."""
        asked_ns = time.monotonic_ns()
        reading = self.robot.read()
        if not self.lockstep:
            self._check_age(reading, asked_ns)
        numbers = (reading.observation, reading.tool_position, reading.tool_velocity, reading.force_n)
        limited_by = (reading.joints, reading.gripper_force_n)
        if not all(np.isfinite(part).all() for part in (*numbers, *limited_by)):
            raise RobotError("the robot's reading is not finite")
        if (limited := len(self.spec.joint_low)) and len(reading.joints) != limited:
            raise RobotError(f"the robot's reading has {len(reading.joints)} joints, its spec limits of {limited}")
        if self.reading is not None and reading.t_ns <= self.reading.t_ns:
            reading = replace(reading, t_ns=self.reading.t_ns + 1)  # measured once, read twice: the times of steps increase
        self.reading = reading
        return reading

    def _check_age(self, reading: Reading, asked_ns: int) -> None:
        """A driver that lost its robot may go on answering what it knew last."""
        age_s, allowed_s = (asked_ns - reading.t_ns) / 1e9, MAX_READING_AGE * self.period_s
        if age_s > allowed_s:
            raise RobotError(f"the robot's newest reading is {age_s:.3f} s old, allowed {allowed_s:g} s: it measures no more")
        if reading.t_ns > time.monotonic_ns():
            raise RobotError("the robot's reading is of a time to come: its driver must give times of this computer's monotonic clock")

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
        reward, reward_source = evaluation.reward, "task" if self.config.reward == "task" else "none"
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
            and not self.asked_to_hold
            and episode is not None
            and episode.recorded
            and self.held_steps * self.period_s >= UNATTENDED_HOLD_S
        )

    def _camera_is_gone(self) -> bool:
        """What is held for a camera waits for one that is gone, and not back after a while: this episode cannot be finished.

        A camera that fails is often silent first, and the first reason of a hold stays. Called once per held step.
        """
        episode, now = self.book.episode, time.monotonic_ns()
        gone = (
            self.mode.mode is Mode.HOLD
            and self.mode.reason in (HoldReason.CAMERA_MISSING, HoldReason.CAMERA_FROZEN)
            and episode is not None
            and episode.recorded
            and HoldReason.CAMERA_MISSING in (self.camera_trouble(now)[0], self.blind(now)[0])
        )
        self._gone_steps = min(self._gone_steps + 1, self.held_steps) if gone else 0
        return gone and self._gone_steps * self.period_s >= CAMERA_GONE_S
