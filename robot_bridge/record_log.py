"""Records on their way to the recorder: numbered without gaps, kept until acknowledged, sent again after a reconnect."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from takeover.data.schema import AnyRecord

MAX_BACKLOG_BYTES = 64 * 1024 * 1024
MAX_EVENT_BACKLOG_BYTES = 8 * 1024 * 1024  # beyond it nobody else's words are recorded
MAX_UNACKNOWLEDGED_NS = 1_000_000_000
HEARTBEAT_NS = 500_000_000


@dataclass(frozen=True)
class _Entry:
    rec_seq: int
    frame: bytes
    t_ns: int


class RecordLog:
    """Any thread appends; the I/O thread sends and takes acknowledgements."""

    def __init__(self, session: str, encode: Callable[[AnyRecord], bytes], wake: Callable[[], None]) -> None:
        self.session = session
        self._encode = encode
        self._wake = wake
        self._lock = threading.Lock()
        self._entries: deque[_Entry] = deque()
        self._next_seq = 0
        self._next_send = 0
        self._sent = 0  # before the newest `rewind`
        self.bytes = 0
        self.owner = "recorder"  # who has this session's record, as its doings are recorded
        self.heard_ns = 0  # recorder's last message; 0: never
        self.disk_free_bytes = -1
        self.error = ""
        self.notice = ""  # what the recorder wants known, no reason to hold

    def append(self, make: Callable[[str, int], AnyRecord]) -> int:
        """Number, encode and keep the record that ``make(session, rec_seq)`` builds; returns its rec_seq."""
        with self._lock:
            rec_seq = self._next_seq
            frame = self._encode(make(self.session, rec_seq))
            self._next_seq += 1
            self._entries.append(_Entry(rec_seq, frame, time.monotonic_ns()))
            self.bytes += len(frame)
        self._wake()
        return rec_seq

    def acknowledge(self, rec_seq: int) -> bool:
        """Everything up to ``rec_seq`` is on disk. False, and nothing is forgotten, when that was never sent."""
        with self._lock:
            if rec_seq >= self.sent:
                return False
            while self._entries and self._entries[0].rec_seq <= rec_seq:
                self.bytes -= len(self._entries.popleft().frame)
        return True

    def rewind(self, rec_seq: int) -> None:
        """Send again whatever comes after ``rec_seq``."""
        with self._lock:
            self._sent = self.sent
            self._next_send = min(rec_seq + 1, self._sent)

    def unsent(self, limit: int = 256) -> list[bytes]:
        """The next frames to send, in order; they count as sent."""
        with self._lock:
            if not self._entries:
                return []
            first = self._entries[0].rec_seq
            start = max(0, self._next_send - first)
            if start >= len(self._entries):
                return []
            frames = [self._entries[i].frame for i in range(start, min(start + limit, len(self._entries)))]
            self._next_send = first + start + len(frames)
            return frames

    def give_back(self, count: int) -> None:
        """The last ``count`` frames of `unsent` were not sent after all."""
        with self._lock:
            self._next_send -= count

    @property
    def sent(self) -> int:
        """How many records were sent, once or more often."""
        return max(self._sent, self._next_send)

    @property
    def backlog(self) -> int:
        """Records not yet acknowledged."""
        return len(self._entries)

    def heartbeat_age_ns(self, now_ns: int) -> int:
        """Since the recorder was last heard; -1: never."""
        return now_ns - self.heard_ns if self.heard_ns else -1

    def trouble(self, now_ns: int) -> str:
        """Why the recorder cannot be relied upon now; "" when it can."""
        age = self.heartbeat_age_ns(now_ns)
        if age < 0:
            return "no recorder yet"
        if age > HEARTBEAT_NS:
            return f"{self.owner} silent for {age / 1e6:.0f} ms"
        if self.bytes > MAX_BACKLOG_BYTES:
            return f"{self.bytes >> 20} MB are not on disk yet"
        with self._lock:
            oldest = self._entries[0].t_ns if self._entries else now_ns
        if now_ns - oldest > MAX_UNACKNOWLEDGED_NS:
            return f"a record waits for {(now_ns - oldest) / 1e9:.1f} s to be on disk"
        return ""
