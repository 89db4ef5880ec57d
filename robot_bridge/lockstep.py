"""The loop as fast as its partners answer: step k waits for the policy's and the operator's answers to k, and for the learner's lag.

Nothing that decides counts wall time: ramps and holds count steps, a command is fresh when it answers this very step. The control
thread owns the sockets itself, so that an answer wakes it without a detour through another thread.
"""

import logging
import time
from collections.abc import Callable

from takeover.data.schema import EpisodeKind, HoldReason, Mode
from takeover.robot_bridge import answers
from takeover.robot_bridge.chunks import Chunk
from takeover.robot_bridge.control import ControlLoop
from takeover.robot_bridge.modes import ModeEvent

log = logging.getLogger("bridge.lockstep")

RESEND_S = 0.3
REPORT_S = 10.0
IDLE_S = 0.02
HELD_STEP_S = 0.25
PROBE_S = 0.2  # while idle: an observation with seq -1, so that an actor can show that it has a policy
MAX_UNACKNOWLEDGED = 512  # records
PROBE_SEQ = -1


class LockstepLoop(ControlLoop):
    """Reproducible: the same seed and the same partners give the same steps."""

    lockstep = True
    _probe_due_s = 0.0

    def run(self, stopped: Callable[[], bool]) -> None:
        self._stopped = stopped
        while not stopped():
            self.guarded_tick()
            if self.mode.mode is Mode.OFFLINE or (self.mode.mode is Mode.HOLD and self.config.operator != "none"):
                self._wait_for_people()

    def _wait_for_people(self) -> None:
        """A held robot waits for a key: long enough that the one pressed at this step counts before the next, in every run alike."""
        until = time.monotonic() + HELD_STEP_S
        while not self.io.inbox.requests and self.io.inbox.stop_reason is None and not self._stopped():
            left = until - time.monotonic()
            if left <= 0:
                return
            self.io.pump(left)

    def idle(self) -> None:
        """Between blocks nothing steps: only the state goes out, and a probe now and then."""
        now = time.monotonic()
        if now >= self._probe_due_s and self.reading is not None and self.mode.mode is Mode.READY:
            self._probe_due_s = now + PROBE_S
            self.io.publish(self.observation_message(self.reading, PROBE_SEQ))
        self.io.pump(IDLE_S)

    def required_version(self) -> int:
        return self.book.probe_version or answers.required_version(self.io.inbox.learner, self.book.train_step())

    def supervise(self) -> None:
        if self.mode.mode in (Mode.POLICY, Mode.TAKEOVER) and self.io.records.error:
            self.change(ModeEvent.HOLD, HoldReason.DISK_FULL, self.io.records.error)

    def asks_policy(self) -> bool:
        """Not in demonstrations before the first version: an answer that may or may not come in time would differ from run to run."""
        episode = self.book.episode
        if episode is not None and episode.kind is EpisodeKind.DEMONSTRATION:
            return self.message is not None and self.message.required_version > 0
        return True

    def answered_by(self, chunk: Chunk) -> bool:
        return chunk.answer.from_seq == self.seq

    def before_step(self) -> bool:
        """The learner has finished its updates for the step ``lockstep_lag`` before this one: only then is it known who must answer."""
        due = self.book.train_step() - self.config.lockstep_lag
        if due < 0 or self.config.learner == "none" or self.mode.mode not in (Mode.POLICY, Mode.TAKEOVER):
            return True
        inbox = self.io.inbox
        return self._wait(lambda: "" if inbox.learner is not None and inbox.learner.finished_train_step >= due else "the learner")

    def await_answers(self) -> bool:
        scripted, needs_policy = self.config.operator == "scripted", self.asks_policy()
        inbox, records, seq = self.io.inbox, self.io.records, self.seq

        def missing() -> str:
            if needs_policy and (inbox.policy is None or inbox.policy.from_seq != seq):
                return "the policy"
            if scripted and (inbox.command is None or inbox.command.command.for_step_seq != seq):
                return "the operator"
            if records.backlog > MAX_UNACKNOWLEDGED:
                return "the recorder"
            return ""

        return self._wait(missing, ask_again=True)

    def _wait(self, missing: Callable[[], str], *, ask_again: bool = False) -> bool:
        """Until nothing is ``missing``. False: stopped, or the episode ends. Never gives up, but says for whom it waits."""
        began = time.monotonic()
        asked, report_at = began, began + REPORT_S
        while who := missing():
            self.io.pump(min(RESEND_S, 0.1))
            if self.io.inbox.requests:
                self.requests.handle_all()
            left = self.mode.mode not in (Mode.POLICY, Mode.TAKEOVER, Mode.HOLD) and not self.waiting_for_press
            if left or self._stopped() or self.io.inbox.stop_reason is not None or self.end_request is not None:
                return False
            now = time.monotonic()
            if ask_again and now - asked >= RESEND_S:
                asked = now
                for message in (self.message, self.privileged):
                    if message is not None:
                        self.io.publish(message)
            if now >= report_at:
                report_at = now + REPORT_S
                log.warning("step %d waits for %s for %.0f s", self.seq, who, now - began)
                self.io.event("waiting", f"step {self.seq} waits for {who}", value=now - began)
        return True
