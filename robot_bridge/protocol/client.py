"""Control requests with a deadline: what the console, the operator and the launcher use to ask the bridge for something."""

import itertools
import time
from collections import deque

from takeover.data.schema import PROTOCOL_VERSION, ControlEnvelope, ControlRequest, Hello, Reply, ReplyEnvelope, Role
from takeover.robot_bridge.protocol.keys import KeyFolder
from takeover.robot_bridge.protocol.link import Link, parse
from takeover.robot_bridge.protocol.sockets import Dealer, Endpoints

MAX_WAITING = 256  # requests whose times are remembered


class RequestTimeout(TimeoutError):
    """The bridge did not answer in time; whether it acted is unknown."""


class KeyRefused(RequestTimeout):
    """The bridge does not admit this key, or is not the one whose key is known."""


class ClockOffset:
    """How far the bridge's monotonic clock is ahead of this computer's, from request and reply times as in NTP (RFC 5905, section 8).

    The sample with the shortest round trip of the latest ones counts: its error is at most half of that round trip.
    """

    def __init__(self, remembered: int = 50) -> None:
        self._samples: deque[tuple[int, int]] = deque(maxlen=remembered)  # (round trip, offset) in ns

    def heard(self, sent_ns: int, bridge_ns: int, received_ns: int) -> None:
        if sent_ns and bridge_ns:
            self._samples.append((received_ns - sent_ns, bridge_ns - (sent_ns + received_ns) // 2))

    @property
    def offset_ns(self) -> int:
        return min(self._samples)[1] if self._samples else 0

    @property
    def error_ns(self) -> int:
        """Half of the best round trip; -1: nothing is known yet."""
        return min(self._samples)[0] // 2 if self._samples else -1


class ControlClient:
    """One DEALER to the bridge's ``control`` socket. Replies are matched by request id; late ones are dropped. One thread only."""

    def __init__(self, endpoints: Endpoints, sender: str, role: Role = Role.OPERATOR) -> None:
        self.sender = sender
        self.role = role
        self._ids = itertools.count(time.monotonic_ns())
        self._dealer: Dealer[ControlEnvelope, ReplyEnvelope] = Dealer(endpoints, "control", ControlEnvelope, ReplyEnvelope)
        self.clock = ClockOffset()
        self._sent_ns: dict[int, int] = {}

    def send(self, request: ControlRequest) -> int:
        """Send without waiting; returns the request id."""
        request_id = next(self._ids)
        self._sent_ns[request_id] = time.monotonic_ns()
        if len(self._sent_ns) > MAX_WAITING:
            del self._sent_ns[next(iter(self._sent_ns))]
        self._dealer.send(ControlEnvelope(request_id=request_id, request=request))
        return request_id

    def poll(self, timeout_s: float = 0.0) -> ReplyEnvelope | None:
        """The next reply to anything sent. Every one also tells the bridge's clock."""
        envelope = self._dealer.receive(timeout_s)
        if envelope is not None:
            self.clock.heard(self._sent_ns.pop(envelope.request_id, 0), envelope.reply.t_ns, time.monotonic_ns())
        return envelope

    def ask(self, request: ControlRequest, timeout_s: float = 1.0) -> Reply:
        """Send and wait. Raises `RequestTimeout`; a refusal is in ``Reply.error``."""
        request_id = self.send(request)
        deadline = time.monotonic() + timeout_s
        while (remaining := deadline - time.monotonic()) > 0:
            envelope = self.poll(remaining)
            if envelope is not None and envelope.request_id == request_id:
                return envelope.reply
        if refusal := self._dealer.refusal():
            raise KeyRefused(refusal)
        raise RequestTimeout(f"{type(request).__name__} was not answered within {timeout_s} s")

    def hello(self, software: str, timeout_s: float = 1.0) -> Reply:
        """Handshake: the reply has the session id and the robot's spec."""
        return self.ask(Hello(protocol=PROTOCOL_VERSION, sender=self.sender, role=self.role, software=software), timeout_s)

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
