"""What the I/O side has received, for the control thread to consume: input threads only *request*, the loop decides."""

import threading
import time
from collections import deque
from dataclasses import dataclass, field

from takeover.data.drivers import UNNAMED, Driver
from takeover.data.schema import Command, ControlRequest, LearnerStatus, PolicyAction, Role
from takeover.robot_bridge.chunks import Chunk

MAX_STOP_REASON = 200  # characters, with who pressed: every `State` carries it, to narrow links too
MAX_REQUEST_AGE_NS = 1_000_000_000  # beyond it nothing is done that somebody wanted then


class Refused(ValueError):
    """A request cannot be done now; says why."""


@dataclass(frozen=True)
class ReceivedCommand:
    """A command from the lease holder. ``state_ns``: when the newest state it had seen was sent; 0: not known any more."""

    command: Command
    arrival_ns: int
    state_ns: int
    person: Driver = UNNAMED  # as that lease says

    def age_s(self, now_ns: int) -> float:
        """Age on the bridge's clock: since it arrived, or since the state its sender had last seen, whichever is longer."""
        if not self.state_ns:
            return float("inf")
        return (now_ns - min(self.arrival_ns, self.state_ns)) / 1e9


@dataclass(frozen=True)
class StateShown:
    """What a `State` showed: the episode that was being recorded, the one that had ended last ("": none), how often STOP had been
    pressed by then, and how often a hold had begun or been asked for."""

    running: str
    last: str
    stops: int = 0
    holds: int = 0

    @property
    def meant(self) -> str:
        """By a key that names none."""
        return self.running or self.last


@dataclass(frozen=True)
class PendingRequest:
    """A control request for the control thread, and whom to answer. ``request.sender`` is the author as recorded, see `names`."""

    peer: bytes
    request_id: int
    request: ControlRequest
    sender: str
    role: Role
    owner: bytes = b""  # the asker's connection, as the lease knows it
    stops: int = 0  # that had been pressed by the newest state that the asker had seen; where it names none, when it came
    arrival_ns: int = field(default_factory=time.monotonic_ns)
    user: str = ""  # public key it came with; empty where nothing goes over a network
    shown: StateShown | None = None  # in the newest state that the asker had seen; None: not known, or in lockstep


@dataclass
class Inbox:
    """Newest messages and waiting requests. Single attributes are replaced whole, so readers never see half of one."""

    command: ReceivedCommand | None = None
    chunk: Chunk | None = None
    learner: LearnerStatus | None = None
    learner_arrival_ns: int = 0
    requests: deque[PendingRequest] = field(default_factory=deque)
    stop_reason: str | None = None  # set by a STOP, taken back by the Clear of somebody who knew of it
    stops: int = 0  # pressed so far
    arrived: threading.Condition = field(default_factory=threading.Condition)
    _latch: threading.Lock = field(default_factory=threading.Lock)

    @property
    def policy(self) -> PolicyAction | None:
        """The policy's newest answer, whether it may be used or not."""
        return self.chunk.answer if self.chunk is not None else None

    def stop(self, reason: str) -> None:
        """Latch a STOP: whatever is waiting was asked before it."""
        with self._latch:
            self.stops += 1
            self.stop_reason = reason[:MAX_STOP_REASON]

    def clear_stop(self, stops: int) -> bool:
        """Take the latch back for who asked when there had been ``stops``; False when another came since, which stays."""
        with self._latch:
            if self.stops == stops:
                self.stop_reason = None
            return self.stops == stops

    def notify(self) -> None:
        with self.arrived:
            self.arrived.notify_all()
