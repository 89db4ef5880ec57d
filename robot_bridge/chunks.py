"""The policy's answers as the control loop uses them: chunks of actions, checked whole on arrival, looked up by step.

A chunk answers observation ``from_seq``: row i is meant for step ``from_seq + i``. A newer chunk replaces an older one from its row on;
a flush (takeover, hold, hand-back, new episode) makes every chunk inferred before it count for nothing.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from takeover.data.schema import PolicyAction
from takeover.robot_bridge.arbitration import PolicyChoice

FloatArray = npt.NDArray[np.float64]

MAX_ROWS = 1024
MAX_PLAN_S = 3.0  # of a chunk's rows, from its observation on: nobody who has not looked for longer drives
MAX_PATIENCE_S = 1.0  # for a slow actor's first answer after a flush
SPARE_STEPS = 2  # beyond the latency measured so far
REMEMBERED_STEPS = 256


@dataclass(frozen=True)
class Chunk:
    """An answer as it arrived. ``rows`` (H, A) finite float64, or ``fault`` says what is wrong with it."""

    answer: PolicyAction
    arrival_ns: int
    rows: FloatArray | None
    fault: str = ""

    def covers(self, seq: int, flushed_at: int, repeats: int, plan: int = MAX_ROWS) -> bool:
        """Whether it says what to do at step ``seq``. Rows beyond the first ``plan`` count for nothing; the last that counts is repeated
        ``repeats`` times, while still valid.

        One that was refused covers every step until it is replaced: a slow actor's fault must not pass for an answer that is missing.
        """
        if not flushed_at <= self.answer.from_seq <= seq:
            return False
        return self.rows is None or (
            seq <= self.answer.valid_until_seq and seq - self.answer.from_seq < min(len(self.rows), plan) + repeats
        )

    def choice(self, seq: int, plan: int = MAX_ROWS) -> PolicyChoice:
        """The row for step ``seq``, of the first ``plan``."""
        if self.rows is None:
            return PolicyChoice(None, self.fault)
        row = min(max(seq - self.answer.from_seq, 0), min(len(self.rows), plan) - 1)
        return PolicyChoice(self.rows[row], planned=self.answer.from_seq < seq)


def received(answer: PolicyAction, action_size: int, arrival_ns: int) -> Chunk:
    """Check every row at once: a chunk with one bad row is refused whole, before any of it can move the robot."""

    def refused(why: str) -> Chunk:
        return Chunk(answer, arrival_ns, None, f"policy version {answer.policy_version}: {why}")

    count = len(answer.actions)
    if not 1 <= count <= MAX_ROWS:
        return refused(f"{count} rows in the chunk, allowed 1 to {MAX_ROWS}")
    for i, row in enumerate(answer.actions):
        if len(row) != action_size:
            return refused(f"shape of row {i} is ({len(row)},), expected ({action_size},)")
    rows = np.array(answer.actions, dtype=np.float64)
    if not np.isfinite(rows).all():
        row, column = np.argwhere(~np.isfinite(rows))[0]
        return refused(f"row {row}, component {column} is not finite")
    return Chunk(answer, arrival_ns, rows)


@dataclass
class AnswerLatency:
    """How long the actor takes from an observation to its answer, on the bridge's clock. Control thread only."""

    published_ns: dict[int, int] = field(default_factory=dict)
    latest_s: float = -1.0  # -1: not known yet
    rows: int = 0  # of the newest chunk
    _seen: Chunk | None = None

    def published(self, seq: int, now_ns: int) -> None:
        self.published_ns[seq] = now_ns
        self.published_ns.pop(seq - REMEMBERED_STEPS, None)

    def heard(self, chunk: Chunk | None) -> None:
        """Note the newest chunk, once."""
        if chunk is None or chunk is self._seen:
            return
        self._seen = chunk
        self.rows = len(chunk.answer.actions)
        asked_ns = self.published_ns.get(chunk.answer.from_seq)
        if asked_ns is not None:
            self.latest_s = max(0.0, (chunk.arrival_ns - asked_ns) / 1e9)

    def patience_steps(self, period_s: float) -> int:
        """Steps after a flush in which an actor that answers chunks cannot have answered yet; 0 for one that answers every step.

        Its inference may just have begun on an observation from before the flush: it then takes twice its latency.
        """
        if self.rows <= 1 or self.latest_s < 0:
            return 0
        return math.ceil(min(2.0 * self.latest_s, MAX_PATIENCE_S) / period_s) + SPARE_STEPS
