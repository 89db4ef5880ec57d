"""Sockets of the streams on which peers are answered one by one: `Router` binds and answers, `Dealer` connects and asks."""

import contextlib
import errno
from typing import Any, Generic, TypeVar

import zmq
from zmq.utils.monitor import parse_monitor_message

from takeover.robot_bridge.protocol.codec import BadMessage, Codec
from takeover.robot_bridge.protocol.endpoints import Endpoints
from takeover.robot_bridge.protocol.sockets import QUEUE, Socket
from takeover.robot_bridge.protocol.topics import topic as topic_entry

T = TypeVar("T")
R = TypeVar("R")

ANSWERS = 512  # to one peer, not read yet


class PeerGone(ConnectionError):
    """Nobody is connected under that name any more."""


class Router(Socket[T], Generic[T, R]):
    """Binds; receives ``T`` with the peer's identity, sends ``R`` to an identity."""

    def __init__(self, endpoints: Endpoints, name: str, receive_type: Any, send_type: Any) -> None:
        super().__init__(zmq.ROUTER, name, receive_type)
        # whoever does not read its answers loses them; on a lossless stream the sender is told and sends them later
        self.socket.setsockopt(zmq.SNDHWM, ANSWERS)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, int(topic_entry(name).lossless))
        self.socket.setsockopt(zmq.RCVHWM, max(QUEUE, topic_entry(name).queue))
        self._send_codec: Codec[R] = Codec(send_type)
        self._bind(endpoints)

    def receive(self, timeout_s: float = 0.0) -> tuple[bytes, T] | None:
        """The next good message and who sent it; None also where the next one is bad, which is counted."""
        received = self.receive_raw(timeout_s)
        if received is None:
            return None
        peer, data = received
        try:
            return peer, self._unframe(data)
        except BadMessage as error:
            self.bad(error, peer)
        return None

    def receive_raw(self, timeout_s: float = 0.0) -> tuple[bytes, bytes] | None:
        """Undecoded, for answering bad messages with what was wrong. None also where the next one's key is not admitted any more."""
        if not self.socket.poll(int(timeout_s * 1000)):
            return None
        parts = self._parts()
        return (parts[0], parts[-1]) if parts is not None else None

    def decode(self, data: bytes) -> T:
        """Raises `BadMessage`."""
        return self._unframe(data)

    def encode(self, message: R) -> bytes:
        """The frame that `send_encoded` takes: encode once, send as often as needed."""
        return self._prefix + self._send_codec.encode(message)

    def send_encoded(self, peer: bytes, frame: bytes) -> bool:
        """Lossless streams: False when the peer does not keep up. Raises `PeerGone` when it is not there any more."""
        try:
            self.socket.send_multipart([peer, frame], zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            raise PeerGone(self.name) from error
        return True

    def reaches(self, peer: bytes, message: R) -> bool:
        """Send, and say whether that connection is still there."""
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            self.send_encoded(peer, self.encode(message))
        except PeerGone:
            return False
        finally:
            self.socket.setsockopt(zmq.ROUTER_MANDATORY, int(topic_entry(self.name).lossless))
        return True

    def send(self, peer: bytes, message: R) -> None:
        """An answer; nobody waits for it when the peer has gone."""
        with contextlib.suppress(PeerGone):
            self.send_encoded(peer, self.encode(message))


class Dealer(Socket[R], Generic[T, R]):
    """Connects to a `Router`: sends ``T``, receives ``R``. Reconnects by itself."""

    def __init__(self, endpoints: Endpoints, name: str, send_type: Any, receive_type: Any) -> None:
        super().__init__(zmq.DEALER, name, receive_type)
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self._send_codec: Codec[T] = Codec(send_type)
        self._monitor: zmq.Socket[bytes] | None = None
        if endpoints.over_network(name):
            self.socket.setsockopt(zmq.IMMEDIATE, 1)  # what waited for a connection would be acted on out of time
            self._monitor = self.socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
        self._connect(endpoints)

    def refusal(self) -> str:
        """Why the other side lets nobody in, as far as its refusals show; "" when it did not refuse since the last call."""
        seen = ""
        while self._monitor is not None and self._monitor.poll(0):
            event = parse_monitor_message(self._monitor.recv_multipart())
            known = event["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH
            seen = "it does not admit this key" if known else "the handshake fails: is its card the right one?"
        return f"{self.socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip(chr(0))}: {seen}" if seen else ""

    def writable(self, timeout_s: float) -> bool:
        """Whether a message would leave now; over a network: whether there is a connection."""
        return bool(self.socket.poll(int(timeout_s * 1000), zmq.POLLOUT))

    def close(self) -> None:
        if self._monitor is not None:
            self.socket.disable_monitor()
            self._monitor = None
        super().close()

    def send(self, message: T) -> bool:
        try:
            self.socket.send(self._prefix + self._send_codec.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self, timeout_s: float = 0.0) -> R | None:
        return self._receive(timeout_s)
