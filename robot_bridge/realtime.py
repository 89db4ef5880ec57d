"""The loop against the wall clock: absolute monotonic deadlines, lateness counted, answers awaited for part of the period only."""

import contextlib
import gc
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from takeover.data.schema import HoldReason, Mode, RunConfig
from takeover.robot_bridge import answers
from takeover.robot_bridge.arbitration import command_life_s, watch
from takeover.robot_bridge.camera_thread import CameraThread
from takeover.robot_bridge.chunks import Chunk
from takeover.robot_bridge.control import ControlLoop
from takeover.robot_bridge.episode_book import EpisodeBook
from takeover.robot_bridge.io import BridgeIO
from takeover.robot_bridge.modes import ModeEvent, moves
from takeover.robot_bridge.robots.base import Robot

log = logging.getLogger("bridge.realtime")

RESET_PAUSE_S = 0.4
POLICY_WAIT = 0.7  # of the period, in POLICY; later than that is late
RECORD_WAIT = 0.2  # of the period, in other modes: only what the policy would have done is at stake
LATE = 0.5  # of the period: a wake-up later than this is counted
LATE_WINDOW = 20  # steps
LATE_TO_HOLD = 10  # late ones among them
STUCK_S = 0.5  # without a tick for this long the I/O side stops the robot
SLEPT_S = 0.5  # the computer was suspended for longer: nobody may be there any more, and nothing else notices
SILENT_S, SILENT_PERIODS = 0.1, 2  # without a tick for the longer of the two: no heartbeat
LOCK_SHARERS, LOCK_SHARERS_NICE = ("io",), -5  # not the cameras: rendering is heavy and would take the machine from the others
REAL_TIME_PRIORITY = 20
COLLECT_S = 5.0


class RealTimeLoop(ControlLoop):
    """One tick per period; a period that was missed whole is dropped, never caught up."""

    reset_pause_s = RESET_PAUSE_S

    def __init__(self, config: RunConfig, robot: Robot, io: BridgeIO, book: EpisodeBook, cameras: CameraThread | None) -> None:
        super().__init__(config, robot, io, book, cameras)
        self.ticked_ns = 0  # when the newest tick ended
        self.tripped = False  # the I/O side has stopped the robot because no tick came
        self.collects_garbage = False  # this process has left it to the loop, see `Bridge.own_garbage`
        self._collected_s = 0.0
        self._asleep_ns = asleep_ns()
        self._deadline = 0
        self._late: deque[bool] = deque(maxlen=LATE_WINDOW)
        self._lateness_s: deque[float] = deque(maxlen=2000)

    def run(self, stopped: Callable[[], bool]) -> None:
        raise_priority()
        period_ns = int(self.period_s * 1e9)
        deadline = time.monotonic_ns()
        while not stopped():
            now = time.monotonic_ns()
            if now < deadline:
                time.sleep((deadline - now) / 1e9)
            self._count_lateness((time.monotonic_ns() - deadline) / 1e9)
            resetting = self.mode.mode is Mode.RESETTING
            self._deadline = deadline
            self.guarded_tick()
            if self.collects_garbage:
                self._collect(resetting)
            self.ticked_ns = time.monotonic_ns()
            deadline = self._deadline + period_ns
            missed = (time.monotonic_ns() - deadline) // period_ns
            if missed >= 0 and (resetting or missed >= 1):
                # making a start state may take longer than a period: nothing was commanded meanwhile
                if not resetting and moves(self.mode.mode):
                    self.steps_dropped += int(missed)
                    self._late.append(True)  # the next step will begin in time, but a whole one was not made
                deadline = time.monotonic_ns()

    def tick(self) -> None:
        self._notice_sleep()
        super().tick()

    def _notice_sleep(self) -> bool:
        """Hold when the computer was suspended since this was asked last: the clock by which everything else here ages stood still."""
        before, self._asleep_ns = self._asleep_ns, asleep_ns()
        slept_s = (self._asleep_ns - before) / 1e9
        if slept_s > SLEPT_S and self.mode.mode in (Mode.POLICY, Mode.TAKEOVER, Mode.RESETTING):
            self.stop_robot()
            self.stood_still()
            self.change(ModeEvent.HOLD, HoldReason.CONTROL_LATE, f"the computer was suspended for {slept_s:.1f} s")
        return slept_s > SLEPT_S

    def _collect(self, resetting: bool) -> None:
        """Garbage is collected where a pause costs nothing: after a start state was made, and now and then while nothing drives."""
        now = time.monotonic()
        idle = not moves(self.mode.mode) and now - self._collected_s > COLLECT_S
        if resetting or idle:
            gc.collect()
            self._collected_s = now

    def check_alive(self, now_ns: int) -> bool:
        """I/O thread: stop the robot when the control thread does not tick any more; False while it does not."""
        if not self.ticked_ns or now_ns - self.ticked_ns < STUCK_S * 1e9:
            return True
        if not self.tripped:
            self.tripped = self.robot_stopped = True
            self.robot.stop()
            log.error("no control step for %.1f s: robot stopped", (now_ns - self.ticked_ns) / 1e9)
        return False

    def heartbeat_due(self, now_ns: int) -> bool:
        """I/O thread: whether a state may go out. People shall see within half a second that the loop hangs.

        A start state takes its time, and so does the way back to a robot that is away.
        """
        silent_s = (now_ns - self.ticked_ns) / 1e9 if self.ticked_ns else 0.0
        return self.mode.mode in (Mode.RESETTING, Mode.OFFLINE) or silent_s <= max(SILENT_S, SILENT_PERIODS * self.period_s)

    def _count_lateness(self, late_s: float) -> None:
        late = late_s > LATE * self.period_s
        self._late.append(late and moves(self.mode.mode))
        self._lateness_s.append(late_s)
        if late and moves(self.mode.mode):
            self.steps_late += 1
        if self.seq % 20 == 0:
            self.lateness_p99_ms = float(np.quantile(np.array(self._lateness_s), 0.99)) * 1000.0

    def period_begins(self) -> None:
        self._deadline = time.monotonic_ns()

    def idle(self) -> None:
        """Stand still, live: people watch the pictures, and the actor shows that it answers."""
        self._forget_stall()
        if self.reading is None:
            return
        if not self.waiting_for_press:
            self.seq += 1
            self._publish(self.reading)
        self.stand(self.reading)
        self.robot.advance()
        self.robot_faults = 0

    def answered_by(self, chunk: Chunk) -> bool:
        repeats = math.floor(command_life_s(self.period_s) / self.period_s)
        return chunk.covers(self.seq, self.flushed_at, repeats, self.plan_steps)

    def policy_awaited(self) -> bool:
        late_myself = bool(self._late) and self._late[-1]  # the loop's own lateness is counted as such, not as the actor's
        return late_myself or self.seq - self.flushed_at < self.latency.patience_steps(self.period_s)

    def watch_hands(self) -> None:
        human = answers.newest_human(self.io.inbox, self.spec.action.size, time.monotonic_ns(), None)
        self.authority = watch(self.mode.mode, self.authority, human, self.rules())

    def supervise(self) -> None:
        if self.mode.mode not in (Mode.POLICY, Mode.TAKEOVER) and not self.on_way_to_start:
            self._forget_stall()
            return
        reason, detail = self._missing(time.monotonic_ns())
        if reason is not HoldReason.NONE:
            self._late.clear()
            self.change(ModeEvent.HOLD, reason, detail)

    def _forget_stall(self) -> None:
        """Nothing was to move while no step came: no reason to hold later. The robot, which the I/O side stopped, stands by again."""
        if not self.tripped:
            return
        self.tripped = False
        self.stood_still()
        if self.mode.mode in (Mode.READY, Mode.RESETTING):
            self.clear_robot()  # from HOLD, STOPPED and OFFLINE whatever leads out does that

    def _missing(self, now_ns: int) -> tuple[HoldReason, str]:
        """What a moving robot relies on and does not have."""
        if self.tripped:
            self.tripped = False
            self.stood_still()
            return HoldReason.CONTROL_LATE, f"no control step for {STUCK_S} s"
        if sum(self._late) >= LATE_TO_HOLD:
            return HoldReason.CONTROL_LATE, f"{sum(self._late)} of {LATE_WINDOW} steps late"
        reason, detail = self.unrecorded(now_ns)
        if reason is not HoldReason.NONE:
            return reason, detail
        if self.mode.mode is Mode.TAKEOVER:
            return HoldReason.NONE, ""
        reason, detail = self._nobody_there(now_ns)
        if reason is not HoldReason.NONE:
            return reason, detail
        return self.camera_trouble(now_ns) if self.mode.mode is Mode.POLICY else (HoldReason.NONE, "")

    def _nobody_there(self, now_ns: int) -> tuple[HoldReason, str]:
        """Nothing but a person drives where nobody is who can take over or stop: who holds the lease, at a window that lives."""
        lease = self.io.lease
        if self.unattended:
            return HoldReason.NONE, ""
        if not lease.holder(now_ns):
            return HoldReason.LEASE_LAPSED if lease.grants else HoldReason.NOT_PRESENT, "nobody holds the lease"
        absence = lease.absence(now_ns, scripts=self.spec.simulated)
        return HoldReason.NOT_PRESENT if absence else HoldReason.NONE, absence

    def await_answers(self) -> bool:
        """False when the computer was suspended meanwhile: reading, command and answer are of before, though they look young."""
        self._await_policy()
        return not self._notice_sleep()

    def _await_policy(self) -> None:
        """The policy's answer for this step, for part of the period; the newest human command is taken as it is."""
        share = POLICY_WAIT if self.mode.mode is Mode.POLICY else RECORD_WAIT
        until = self._deadline / 1e9 + share * self.period_s
        inbox = self.io.inbox
        slow = self.latency.rows > 1 and self.latency.latest_s > POLICY_WAIT * self.period_s
        if slow or (inbox.chunk is None and self.mode.mode is not Mode.POLICY):
            return  # an actor slower than the period answers ahead; waiting would only make this step late
        with inbox.arrived:
            while not (inbox.chunk is not None and self.answered_by(inbox.chunk)):
                left = until - time.monotonic()
                if left <= 0 or inbox.stop_reason is not None:
                    break
                inbox.arrived.wait(left)


def asleep_ns() -> int:
    """How long the computer has been suspended since it was started, give or take a constant."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()


def raise_priority() -> None:
    """Real-time priority for the calling thread, best effort; the log says what was obtained.

    The bridge's other threads hold Python's lock in turns, and one that is preempted while it holds it keeps this one waiting, whatever
    its priority: they go before the processes that use what is left of the machine.
    """
    try:
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_FIFO, os.sched_param(REAL_TIME_PRIORITY))
    except (PermissionError, OSError):
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -10)
        except (PermissionError, OSError):
            obtained = "no priority (not permitted)"
        else:
            obtained = "nice -10"
    else:
        obtained = f"SCHED_FIFO {REAL_TIME_PRIORITY}"
    for thread in threading.enumerate():
        if thread.name in LOCK_SHARERS and thread.native_id is not None:
            with contextlib.suppress(OSError):  # not permitted, or it has just ended
                os.setpriority(os.PRIO_PROCESS, thread.native_id, LOCK_SHARERS_NICE)
    log.info("control thread: %s", obtained)
