"""Thin typed ZMQ sockets over the topic table. A socket belongs to the thread that created it.

Traps dealt with here, once: CONFLATE is per socket and keeps only the last part, so every stream has its own socket and every
message is one part ``topic NUL payload``; LINGER is 0; PUSH uses IMMEDIATE and drops instead of queueing for a peer that is
gone; every receive has a deadline.
"""

import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import zmq

from takeover.robot_bridge.protocol.codec import MAX_MESSAGE_BYTES, BadMessage, Codec
from takeover.robot_bridge.protocol.endpoints import BoundAddress, EndpointError, Endpoints
from takeover.robot_bridge.protocol.link import Gatekeeper, LinkProblem, secure_client
from takeover.robot_bridge.protocol.topics import topic as topic_entry

T = TypeVar("T")

NETWORK_BUFFER_BYTES = 64 * 1024
MAX_SUBSCRIPTION_BYTES = 1024  # all that a subscriber sends: names of streams, heartbeats, and CURVE's INITIATE: 300, with an identity 550
QUEUE = 64  # messages a peer may have waiting at least


class Socket(Generic[T]):
    """Base: owns one ZMQ socket; usable as a context manager."""

    def __init__(self, kind: int, name: str, type_: Any, max_bytes: int = 0) -> None:
        """``max_bytes``: of one message, in place of the table's; 0: the table's."""
        self.name = name
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
        self.socket.setsockopt(zmq.LINGER, 0)
        entry = topic_entry(name)
        self._limit = max_bytes or entry.max_bytes if kind not in (zmq.DEALER, zmq.PUB) else MAX_MESSAGE_BYTES
        # what is larger is refused by ZMQ before it is read, and its sender disconnected without a word: hence room for the common mistake
        self.socket.setsockopt(zmq.MAXMSGSIZE, self._limit * (2 if kind in (zmq.PULL, zmq.ROUTER) else 1))
        self.codec: Codec[T] = Codec(type_, self._limit)
        self.bad_messages = 0
        self.on_bad: Callable[[BadMessage, bytes], None] = lambda error, peer: (
            None
        )  # told of each of them; peer: of a ROUTER, if it is known
        self.on_revoked: Callable[[str], None] = lambda public_key: None  # told of each message of a key that is not admitted any more
        self.user = ""  # over a network: public key of who sent the newest message
        self._gatekeeper: Gatekeeper | None = None
        self._bound: BoundAddress | None = None
        self._prefix = name.encode() + b"\0"

    def close(self) -> None:
        self.socket.close(0)
        if self._bound is not None:
            self._bound.release()
            self._bound = None

    def _bind(self, endpoints: Endpoints) -> None:
        """Raises `EndpointError`, with nothing left open."""
        try:
            self._bound = BoundAddress(self.socket, endpoints, self.name)
        except EndpointError:
            self.socket.close(0)
            raise
        if endpoints.over_network(self.name):
            self._gatekeeper = endpoints.gatekeeper

    def _connect(self, endpoints: Endpoints) -> None:
        """Raises `EndpointError`, with nothing left open."""
        if link := endpoints.over_network(self.name):
            try:
                secure_client(self.socket, link)
            except LinkProblem as error:
                self.socket.close(0)
                raise EndpointError(str(error)) from error
        self.socket.connect(endpoints.address(self.name))

    def _parts(self) -> list[bytes] | None:
        """The parts of the next message; None when its sender's key is not admitted any more. Raises `zmq.Again`."""
        if self._gatekeeper is None:
            return self.socket.recv_multipart(zmq.NOBLOCK)
        frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
        self.user = str(frames[-1].get("User-Id"))
        if self._gatekeeper.permits(self.user, self.name):
            return [frame.bytes for frame in frames]
        self.on_revoked(self.user)
        return None

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _frame(self, message: T) -> bytes:
        return self._prefix + self.codec.encode(message)

    def _unframe(self, data: bytes) -> T:
        if len(data) > self._limit:
            raise BadMessage(f"message of {len(data)} bytes; the limit is {self._limit}")
        if not data.startswith(self._prefix):
            raise BadMessage(f"expected topic {self.name!r}")
        return self.codec.decode(memoryview(data)[len(self._prefix) :])

    def bad(self, error: BadMessage, peer: bytes = b"") -> None:
        """Count a message that cannot be read, and tell who watches."""
        self.bad_messages += 1
        self.on_bad(error, peer)

    def _receive(self, timeout_s: float) -> T | None:
        """The next good message, or None after ``timeout_s``. Bad ones are counted and skipped, but not for longer than that: others
        wait for whoever receives."""
        deadline = time.monotonic() + timeout_s
        while True:
            wait_ms = max(0, int((deadline - time.monotonic()) * 1000 + 0.999))
            if not self.socket.poll(wait_ms):
                return None
            try:
                parts = self._parts()
                if parts is not None:
                    return self._unframe(parts[-1] if len(parts) == 1 else b"")
            except BadMessage as error:
                self.bad(error)
            except zmq.Again:
                return None
            if time.monotonic() >= deadline:
                return None


class Publisher(Socket[T]):
    """Binds and publishes; subscribers that are slow or absent lose messages. ``queue`` 0: unlimited (lossless streams).

    Over a network a subscriber whose key was revoked receives nothing more: ZMQ cannot end one connection of a socket, so all of them are
    ended, and those that are still admitted are back within a fraction of a second.
    """

    def __init__(self, endpoints: Endpoints, name: str, type_: Any, queue: int | None = None) -> None:
        super().__init__(zmq.PUB, name, type_)
        self._endpoints, self._queue = endpoints, queue
        self._set_options()
        self._bind(endpoints)
        self._narrowed = self._gatekeeper.narrowed() if self._gatekeeper is not None else 0

    def _set_options(self) -> None:
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_SUBSCRIPTION_BYTES)  # ZMQ keeps each with 45 times its size for as long as it stands
        self.socket.setsockopt(zmq.SNDHWM, 1000 if self._queue is None else self._queue)
        if self._endpoints.over_network(self.name) and self._queue:
            self.socket.setsockopt(zmq.SNDBUF, NETWORK_BUFFER_BYTES)  # what waits in the system's buffers is old when it arrives

    def send(self, message: T) -> None:
        if self._gatekeeper is not None and self._gatekeeper.narrowed() != self._narrowed and not self._admit_again(self._gatekeeper):
            return
        self.socket.send(self._frame(message), zmq.NOBLOCK)

    def _admit_again(self, gatekeeper: Gatekeeper) -> bool:
        """End every connection and listen again. False: the port is not free yet, which takes ZMQ a moment; ask again."""
        if not self.socket.closed:
            self.socket.close(0)
        self.socket = zmq.Context.instance().socket(zmq.PUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        self._set_options()
        narrowed = gatekeeper.narrowed()
        try:
            self._bind(self._endpoints)
        except EndpointError:
            return False
        self._narrowed = narrowed
        return True


class Subscriber(Socket[T]):
    """Connects. ``latest``: only the newest message is kept (CONFLATE); otherwise all, in order."""

    def __init__(self, endpoints: Endpoints, name: str, type_: Any, latest: bool = True) -> None:
        super().__init__(zmq.SUB, name, type_)
        self.socket.setsockopt(zmq.SUBSCRIBE, self._prefix)
        if latest:
            self.socket.setsockopt(zmq.CONFLATE, 1)
        else:
            self.socket.setsockopt(zmq.RCVHWM, 0)
        self._connect(endpoints)

    def receive(self, timeout_s: float = 0.0) -> T | None:
        return self._receive(timeout_s)


class Push(Socket[T]):
    """Connects and sends; returns False instead of queueing when the peer is gone or slow."""

    def __init__(self, endpoints: Endpoints, name: str, type_: Any) -> None:
        super().__init__(zmq.PUSH, name, type_)
        self._open(endpoints)

    def _open(self, endpoints: Endpoints) -> None:
        self.socket.setsockopt(zmq.IMMEDIATE, 1)
        self.socket.setsockopt(zmq.SNDHWM, topic_entry(self.name).queue)
        self._connect(endpoints)

    def renew(self, endpoints: Endpoints) -> None:
        """A new connection instead of the old one. Raises `EndpointError`, and the old one stays."""
        old, self.socket = self.socket, zmq.Context.instance().socket(zmq.PUSH)
        self.socket.setsockopt(zmq.LINGER, 0)
        try:
            self._open(endpoints)
        except EndpointError:
            self.socket = old
            raise
        old.close(0)

    def send(self, message: T, timeout_s: float = 0.0) -> bool:
        if timeout_s and not self.socket.poll(int(timeout_s * 1000), zmq.POLLOUT):
            return False
        try:
            self.socket.send(self._frame(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True


class Pull(Socket[T]):
    """Binds and receives from any number of `Push`. ``max_bytes`` as in `Socket`."""

    def __init__(self, endpoints: Endpoints, name: str, type_: Any, max_bytes: int = 0) -> None:
        super().__init__(zmq.PULL, name, type_, max_bytes)
        self.socket.setsockopt(zmq.RCVHWM, max(QUEUE, topic_entry(name).queue))
        self._bind(endpoints)

    def receive(self, timeout_s: float = 0.0) -> T | None:
        return self._receive(timeout_s)
