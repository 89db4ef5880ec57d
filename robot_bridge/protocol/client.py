"""Control requests with a deadline: what the console, the operator and the launcher use to ask the bridge for something."""

import itertools
import time

from takeover.data.schema import PROTOCOL_VERSION, ControlEnvelope, ControlRequest, Hello, Reply, ReplyEnvelope, Role
from takeover.robot_bridge.protocol.sockets import Dealer, Endpoints


class RequestTimeout(TimeoutError):
    """The bridge did not answer in time; whether it acted is unknown."""


class ControlClient:
    """One DEALER to the bridge's ``control`` socket. Replies are matched by request id; late ones are dropped. One thread only."""

    def __init__(self, endpoints: Endpoints, sender: str, role: Role = Role.OPERATOR) -> None:
        self.sender = sender
        self.role = role
        self._ids = itertools.count(time.monotonic_ns())
        self._dealer: Dealer[ControlEnvelope, ReplyEnvelope] = Dealer(endpoints, "control", ControlEnvelope, ReplyEnvelope)

    def send(self, request: ControlRequest) -> int:
        """Send without waiting; returns the request id."""
        request_id = next(self._ids)
        self._dealer.send(ControlEnvelope(request_id=request_id, request=request))
        return request_id

    def poll(self, timeout_s: float = 0.0) -> ReplyEnvelope | None:
        """The next reply to anything sent."""
        return self._dealer.receive(timeout_s)

    def ask(self, request: ControlRequest, timeout_s: float = 1.0) -> Reply:
        """Send and wait. Raises `RequestTimeout`; a refusal is in ``Reply.error``."""
        request_id = self.send(request)
        deadline = time.monotonic() + timeout_s
        while (remaining := deadline - time.monotonic()) > 0:
            envelope = self._dealer.receive(remaining)
            if envelope is not None and envelope.request_id == request_id:
                return envelope.reply
        raise RequestTimeout(f"{type(request).__name__} was not answered within {timeout_s} s")

    def hello(self, software: str, timeout_s: float = 1.0) -> Reply:
        """Handshake: the reply has the session id and the robot's spec."""
        return self.ask(Hello(protocol=PROTOCOL_VERSION, sender=self.sender, role=self.role, software=software), timeout_s)

    def close(self) -> None:
        self._dealer.close()
