"""Control requests with a deadline: what the console, the operator and the launcher use to ask the bridge for something."""

import itertools
import time
from collections import deque

from msgspec.structs import replace

from takeover.data.drivers import UNNAMED, Driver
from takeover.data.schema import (
    PROTOCOL_VERSION,
    ControlEnvelope,
    ControlRequest,
    Hello,
    Hold,
    Lease,
    Reply,
    ReplyEnvelope,
    Role,
    State,
    Stop,
)
from takeover.robot_bridge.protocol.asking import Dealer
from takeover.robot_bridge.protocol.endpoints import Endpoints
from takeover.robot_bridge.protocol.kept_hold import KeptHold
from takeover.robot_bridge.protocol.kept_stop import REPEAT_NS, KeptStop
from takeover.robot_bridge.protocol.keys import KeyFolder
from takeover.robot_bridge.protocol.link import Link, parse

MAX_WAITING = 256  # requests whose times are remembered
STOP_AT_CLOSE_S = 1.0
STATE_LIFE_NS = 500_000_000  # without a state for so long nobody here sees what a command would do
DRIFT_NS = 5_000_000  # of two clocks against each other, while a sample is remembered
SAY_HELLO = "say hello first"  # what a bridge answers on a connection that it does not know


class RequestTimeout(TimeoutError):
    """The bridge did not answer in time; whether it acted is unknown."""


class KeyRefused(RequestTimeout):
    """The bridge does not admit this key, or is not the one whose key is known."""


class ClockOffset:
    """How far the bridge's monotonic clock is ahead of this computer's, from request and reply times as in NTP (RFC 5905, section 8).

    The sample with the shortest round trip of the latest ones counts: its error is at most half of that round trip. One that cannot be
    true together with it shows that a clock has jumped (a computer slept, the bridge's was started again): what was known is forgotten.
    """

    def __init__(self, remembered: int = 50) -> None:
        self._samples: deque[tuple[int, int]] = deque(maxlen=remembered)  # (round trip, offset) in ns

    def heard(self, sent_ns: int, bridge_ns: int, received_ns: int) -> None:
        if not (sent_ns and bridge_ns):
            return
        round_trip, offset = received_ns - sent_ns, bridge_ns - (sent_ns + received_ns) // 2
        if self._samples:
            best_trip, best_offset = min(self._samples)
            if abs(offset - best_offset) > (round_trip + best_trip) // 2 + DRIFT_NS:
                self.forget()
        self._samples.append((round_trip, offset))

    def forget(self) -> None:
        """Another bridge, whose clock is its own."""
        self._samples.clear()

    @property
    def offset_ns(self) -> int:
        return min(self._samples)[1] if self._samples else 0

    @property
    def error_ns(self) -> int:
        """Half of the best round trip; -1: nothing is known yet."""
        return min(self._samples)[0] // 2 if self._samples else -1


class ControlClient:
    """One DEALER to the bridge's ``control`` socket. Replies are matched by request id; late ones are dropped. One thread only.

    Give it every `State` (`saw`), or set ``newest_state_seq`` to that of the newest one seen: the bridge refuses what was asked more than
    a second ago, and over a network what does not say. There, while there is no connection nothing but a STOP and a Hold is kept; on a
    new connection the handshake is repeated by itself. `poll` sends a STOP again until it is confirmed, see `KeptStop`, and a Hold for a
    second, see `KeptHold`.
    """

    def __init__(self, endpoints: Endpoints, sender: str, role: Role = Role.OPERATOR, driver: Driver = UNNAMED) -> None:
        """``driver``: in whose name the lease is asked for, for the record; unnamed: the person of the bridge's own station."""
        self.driver = driver
        self._names_people = False  # the bridge takes a name
        self.sender = sender
        self.role = role
        self._ids = itertools.count(time.monotonic_ns())
        self._dealer: Dealer[ControlEnvelope, ReplyEnvelope] = Dealer(endpoints, "control", ControlEnvelope, ReplyEnvelope)
        self.clock = ClockOffset()
        self.newest_state_seq = -1
        self._session = ""
        self._saw_ns = 0
        self._sent_ns: dict[int, int] = {}
        self._hello: Hello | None = None
        may_lose = bool(endpoints.over_network("control"))
        self._stop, self._hold = KeptStop(may_lose), KeptHold(may_lose)

    def send(self, request: ControlRequest) -> int:
        """Send without waiting; returns the request id."""
        envelope = self._envelope(request)
        self._send(envelope)
        return envelope.request_id

    def saw(self, state: State) -> None:
        """The newest state: what is asked from now on is asked by who has seen it, and it may show that a STOP or a Hold was acted on."""
        self.newest_state_seq, self._saw_ns = state.seq, time.monotonic_ns()
        self._stop.saw(state)
        self._hold.saw(state)

    @property
    def unseen(self) -> bool:
        """No state comes: whoever drives neither commands the robot nor keeps it from others (STOP and requests go out all the same)."""
        return time.monotonic_ns() - self._saw_ns > STATE_LIFE_NS

    @property
    def stop_pressed_ns(self) -> int:
        """When the STOP was asked for that is not confirmed yet, monotonic; 0: there is none."""
        return self._stop.pressed_ns

    def _envelope(self, request: ControlRequest) -> ControlEnvelope:
        if isinstance(request, Hello):
            self._hello = request
        if isinstance(request, Lease) and self._names_people and not request.release:
            request = replace(request, person=self.driver.name, consent_version=self.driver.consent_version)
        envelope = ControlEnvelope(request_id=next(self._ids), request=request, newest_state_seq=self.newest_state_seq)
        if isinstance(request, Stop):
            self._stop.keep(envelope)
        if isinstance(request, Hold):
            self._hold.keep(envelope)
        return envelope

    def _send(self, envelope: ControlEnvelope) -> bool:
        self._sent_ns[envelope.request_id] = time.monotonic_ns()
        if len(self._sent_ns) > MAX_WAITING:
            del self._sent_ns[next(iter(self._sent_ns))]
        return self._left(envelope)

    def _left(self, envelope: ControlEnvelope) -> bool:
        sent = self._dealer.send(envelope)
        if sent:
            self._stop.left(envelope)
            self._hold.left(envelope)
        return sent

    def _repeat_kept(self) -> None:
        for envelope in (self._stop.due(), self._hold.due()):
            if envelope is not None:
                self._sent_ns.pop(envelope.request_id, None)  # to which of them the answer is cannot be known: it tells no clock
                self._left(envelope)

    def poll(self, timeout_s: float = 0.0) -> ReplyEnvelope | None:
        """The next reply to anything sent. Every one also tells the bridge's clock."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._repeat_kept()
            envelope = self._dealer.receive(self._until(deadline))
            if envelope is not None and not self._heard(envelope):
                return envelope
            if time.monotonic() >= deadline:
                return None

    def _heard(self, envelope: ReplyEnvelope) -> bool:
        """What a reply tells, whatever it answers; True: it refused what was sent again at once, whose answer is still to come."""
        if envelope.reply.spec is not None:
            self._names_people = envelope.reply.names_people
        self._stop.answered(envelope.request_id)
        if envelope.reply.session != self._session:
            self._session = envelope.reply.session
            self.clock.forget()
        self.clock.heard(self._sent_ns.pop(envelope.request_id, 0), envelope.reply.t_ns, time.monotonic_ns())
        if envelope.reply.error == SAY_HELLO and self._hello is not None:
            self.send(self._hello)
            if (again := self._hold.unknown(envelope.request_id)) is not None:
                self._left(again)
                return True
        self._hold.answered(envelope.request_id)
        return False

    def _until(self, deadline: float) -> float:
        """How long to wait for an answer at once, s: not beyond the time at which a STOP or a Hold is to be sent again."""
        remaining = max(0.0, deadline - time.monotonic())
        return min(remaining, REPEAT_NS / 4e9) if self._stop.pressed_ns or self._hold.waits else remaining

    def ask(self, request: ControlRequest, timeout_s: float = 1.0) -> Reply:
        """Send and wait. Raises `RequestTimeout`; a refusal is in ``Reply.error``."""
        asked = self._envelope(request)
        deadline = time.monotonic() + timeout_s
        sent = self._send(asked)
        while (remaining := deadline - time.monotonic()) > 0:
            if not sent:  # over a network there may be no connection yet
                sent = self._dealer.writable(min(remaining, 0.05)) and self._send(asked)
                continue
            envelope = self.poll(remaining)
            if envelope is not None and envelope.request_id == asked.request_id:
                return envelope.reply
        if refusal := self._dealer.refusal():
            raise KeyRefused(refusal)
        raise RequestTimeout(f"{type(request).__name__} was not answered within {timeout_s} s")

    def hello(self, software: str, timeout_s: float = 1.0) -> Reply:
        """Handshake: the reply has the session id and the robot's spec."""
        return self.ask(Hello(protocol=PROTOCOL_VERSION, sender=self.sender, role=self.role, software=software), timeout_s)

    def finish_stop(self) -> None:
        """Before it is closed: a STOP that is not confirmed yet has a moment for it."""
        deadline = time.monotonic() + STOP_AT_CLOSE_S
        while self._stop.pressed_ns and time.monotonic() < deadline:
            self.poll(0.02)

    def close(self) -> None:
        self._dealer.close()


def greet_bridge(address: str, keys: str, timeout_s: float = 2.0) -> Reply:
    """Shake hands with the bridge at ``address`` as an observer. Raises `RequestTimeout` (`KeyRefused` when it lets this key not in)."""
    host, port = parse(address, listens=False)
    client = ControlClient(Endpoints("", Link(host, port, False, KeyFolder(keys))), "greeting", Role.OBSERVER)
    try:
        return client.hello("takeover", timeout_s)
    finally:
        client.close()
