"""A `Push` over a network whose connection is made anew when what is sent does not arrive although the other side lives.

Only the other side can tell: ZeroMQ's heartbeats would end the connection of a reader that is merely slow, which aborts its process
(libzmq 4.3.5: a PULL whose queue was full for longer than HEARTBEAT_TIMEOUT ends with an assertion). The bridge's states say how old the
newest arrival is, and come from the very thread that reads the queue: while they come, it is not full.
"""

import contextlib
import time
from typing import Any, TypeVar

from takeover.robot_bridge.protocol.endpoints import EndpointError, Endpoints
from takeover.robot_bridge.protocol.sockets import Push

T = TypeVar("T")

ARRIVES_MS = 1000.0  # what arrived within this is no sign of a dead connection
UNHEARD_NS = 2_000_000_000  # sent for so long while nothing arrives: the connection is dead
PAUSE_NS = 5_000_000_000  # from one new connection to the next: a slow network needs its time for the handshake


class WatchedPush(Push[T]):
    """Tell it with every state what of it arrives (`arrived`). On one computer it is a `Push`."""

    def __init__(self, endpoints: Endpoints, name: str, type_: Any) -> None:
        super().__init__(endpoints, name, type_)
        self.renewed = 0
        self._endpoints = endpoints
        self._since_ns = 0  # sent since then, and nothing known to have arrived; 0: neither
        self._not_before_ns = 0

    def send(self, message: T, timeout_s: float = 0.0) -> bool:
        self._since_ns = self._since_ns or time.monotonic_ns()
        return super().send(message, timeout_s)

    def arrived(self, age_ms: float) -> None:
        """By the state that has just come the newest message of this sender arrived ``age_ms`` before it; -1: none ever did."""
        now = time.monotonic_ns()
        if 0.0 <= age_ms <= ARRIVES_MS:
            self._since_ns = 0
        elif self._endpoints.over_network(self.name) and self._since_ns and now - self._since_ns > UNHEARD_NS and now > self._not_before_ns:
            self._since_ns, self._not_before_ns = 0, now + PAUSE_NS
            with contextlib.suppress(EndpointError):  # its keys cannot be read now: the old connection stays
                self.renew(self._endpoints)
                self.renewed += 1
