"""Thin typed ZMQ sockets over the topic table. A socket belongs to the thread that created it.

Traps dealt with here, once: CONFLATE is per socket and keeps only the last part, so every stream has its own socket and every
message is one part ``topic NUL payload``; LINGER is 0; PUSH uses IMMEDIATE and drops instead of queueing for a peer that is
gone; every receive has a deadline.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import zmq
from zmq.utils.monitor import parse_monitor_message

from takeover.data.filelock import FileLock, Locked
from takeover.data.schema import RunConfig
from takeover.robot_bridge.protocol.codec import MAX_MESSAGE_BYTES, BadMessage, Codec
from takeover.robot_bridge.protocol.link import Gatekeeper, Link, LinkProblem, check_ports, secure_client
from takeover.robot_bridge.protocol.topics import topic as topic_entry

T = TypeVar("T")
R = TypeVar("R")

MAX_IPC_PATH_BYTES = 107
NETWORK_BUFFER_BYTES = 64 * 1024
QUEUE = 64  # messages a peer may have waiting at least
ANSWERS = 512  # to one peer, not read yet


class EndpointError(OSError):
    """An address cannot be bound or is too long."""


class PeerGone(ConnectionError):
    """Nobody is connected under that name any more."""


class Endpoints:
    """Addresses of all streams of one station: ipc sockets in a private folder; with a ``link`` the bridge's over the network."""

    def __init__(self, folder: str | os.PathLike[str], link: Link | None = None) -> None:
        self.folder = Path(folder)
        self.link = link
        self.gatekeeper: Gatekeeper | None = None

    @classmethod
    def of(cls, config: RunConfig) -> "Endpoints":
        """Those of a run. Raises `EndpointError`."""
        try:
            return cls(config.sockets, Link.of(config))
        except LinkProblem as error:
            raise EndpointError(str(error)) from error

    def listen(self, on_refused: Callable[[str, str], None]) -> None:
        """The bridge, before it binds: where it is reached over the network, nobody without a known key is. Raises `EndpointError`."""
        if self.link is not None and self.link.listens:
            try:
                self.gatekeeper = Gatekeeper(self.link, on_refused)
            except LinkProblem as error:
                raise EndpointError(str(error)) from error

    def close(self) -> None:
        """After every socket was closed."""
        if self.gatekeeper is not None:
            self.gatekeeper.close()
            self.gatekeeper = None

    def over_network(self, name: str) -> Link | None:
        """The link that stream ``name`` goes over; None for a local one."""
        return self.link if self.link is not None and self.link.serves(name) else None

    def check_cameras(self, names: Iterable[str]) -> None:
        """Over a network every camera has a port made of its name. Raises `EndpointError` when two have the same."""
        try:
            check_ports(names if self.over_network("state") else ())
        except LinkProblem as error:
            raise EndpointError(str(error)) from error

    def prepare(self) -> None:
        """Create the folder with mode 0700; refuse one that others can enter."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.folder.stat().st_mode & 0o077:
            self.folder.chmod(0o700)

    def path(self, name: str) -> Path:
        return self.folder / (name.replace("/", "-") + ".sock")

    def address(self, name: str) -> str:
        topic_entry(name)
        if link := self.over_network(name):
            return link.address(name)
        path = str(self.path(name))
        if len(path.encode()) > MAX_IPC_PATH_BYTES:
            raise EndpointError(f"socket path {path} is longer than {MAX_IPC_PATH_BYTES} bytes; choose a shorter runtime folder")
        return f"ipc://{path}"


class _Bound:
    """An address that one living socket binds. ZMQ takes an ipc path from whoever has it without a word: hence the lock beside it."""

    def __init__(self, socket: "zmq.Socket[bytes]", endpoints: Endpoints, name: str) -> None:
        address, self._path = endpoints.address(name), endpoints.path(name)
        self._lock: FileLock | None = None
        if endpoints.over_network(name):
            if endpoints.gatekeeper is None:
                raise EndpointError(f"{address}: nothing listens on a network without keys")
            endpoints.gatekeeper.guard(socket, name)
            self._bind(socket, address)
            return
        try:
            self._lock = FileLock(self._path.with_suffix(".lock"))
        except Locked as error:
            binder = topic_entry(name).binder
            raise EndpointError(
                f"{self._path} is in use by process {error.holder}: only one {binder} can run on these sockets; stop it first"
            ) from None
        except OSError as error:
            raise EndpointError(f"cannot use the socket folder {endpoints.folder}: {error.strerror}") from error
        self._bind(socket, address)

    def _bind(self, socket: "zmq.Socket[bytes]", address: str) -> None:
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            if self._lock is not None:
                self._lock.release()
            raise EndpointError(f"cannot bind {address}: {error.strerror}") from error

    def release(self) -> None:
        """After the socket was closed; ZMQ leaves the path behind."""
        if self._lock is not None:
            self._path.unlink(missing_ok=True)
            self._lock.release()


class _Socket(Generic[T]):
    """Base: owns one ZMQ socket; usable as a context manager."""

    def __init__(self, kind: int, name: str, type_: Any) -> None:
        self.name = name
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
        self.socket.setsockopt(zmq.LINGER, 0)
        entry = topic_entry(name)
        # what is larger is refused by ZMQ before it is read, and its sender disconnected
        limit = entry.max_bytes if kind not in (zmq.DEALER, zmq.PUB) else MAX_MESSAGE_BYTES
        self.socket.setsockopt(zmq.MAXMSGSIZE, limit)
        self.codec: Codec[T] = Codec(type_, limit)
        self.bad_messages = 0
        self.last_bad = ""  # what was wrong with the newest of them
        self.user = ""  # over a network: public key of who sent the newest message
        self._gatekeeper: Gatekeeper | None = None
        self._bound: _Bound | None = None
        self._prefix = name.encode() + b"\0"

    def close(self) -> None:
        self.socket.close(0)
        if self._bound is not None:
            self._bound.release()
            self._bound = None

    def _bind(self, endpoints: Endpoints) -> None:
        """Raises `EndpointError`, with nothing left open."""
        try:
            self._bound = _Bound(self.socket, endpoints, self.name)
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
        return [frame.bytes for frame in frames] if self._gatekeeper.permits(self.user, self.name) else None

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _frame(self, message: T) -> bytes:
        return self._prefix + self.codec.encode(message)

    def _unframe(self, data: bytes) -> T:
        if not data.startswith(self._prefix):
            raise BadMessage(f"expected topic {self.name!r}")
        return self.codec.decode(memoryview(data)[len(self._prefix) :])

    def _bad(self, error: BadMessage) -> None:
        self.bad_messages += 1
        self.last_bad = str(error)

    def _receive(self, timeout_s: float) -> T | None:
        """The next good message, or None after ``timeout_s``. Bad ones are counted and skipped."""
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
                self._bad(error)
            except zmq.Again:
                return None


class Publisher(_Socket[T]):
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


class Subscriber(_Socket[T]):
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


class Push(_Socket[T]):
    """Connects and sends; returns False instead of queueing when the peer is gone or slow."""

    def __init__(self, endpoints: Endpoints, name: str, type_: Any) -> None:
        super().__init__(zmq.PUSH, name, type_)
        self.socket.setsockopt(zmq.IMMEDIATE, 1)
        self.socket.setsockopt(zmq.SNDHWM, topic_entry(name).queue)
        self._connect(endpoints)

    def send(self, message: T, timeout_s: float = 0.0) -> bool:
        if timeout_s and not self.socket.poll(int(timeout_s * 1000), zmq.POLLOUT):
            return False
        try:
            self.socket.send(self._frame(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True


class Pull(_Socket[T]):
    """Binds and receives from any number of `Push`."""

    def __init__(self, endpoints: Endpoints, name: str, type_: Any) -> None:
        super().__init__(zmq.PULL, name, type_)
        self.socket.setsockopt(zmq.RCVHWM, max(QUEUE, topic_entry(name).queue))
        self._bind(endpoints)

    def receive(self, timeout_s: float = 0.0) -> T | None:
        return self._receive(timeout_s)


class Router(_Socket[T], Generic[T, R]):
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
        """The next good message and who sent it."""
        received = self.receive_raw(timeout_s)
        while received is not None:
            peer, data = received
            try:
                return peer, self._unframe(data)
            except BadMessage as error:
                self._bad(error)
            received = self.receive_raw(0.0)
        return None

    def receive_raw(self, timeout_s: float = 0.0) -> tuple[bytes, bytes] | None:
        """Undecoded, for answering bad messages with what was wrong."""
        if not self.socket.poll(int(timeout_s * 1000)):
            return None
        parts = self._parts()
        while parts is None:
            if not self.socket.poll(0):
                return None
            parts = self._parts()
        return parts[0], parts[-1]

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

    def send(self, peer: bytes, message: R) -> None:
        """An answer; nobody waits for it when the peer has gone."""
        with contextlib.suppress(PeerGone):
            self.send_encoded(peer, self.encode(message))


class Dealer(_Socket[R], Generic[T, R]):
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


def wait(sockets: Sequence[_Socket[Any]], timeout_s: float) -> list[_Socket[Any]]:
    """Those of ``sockets`` that have something to receive within ``timeout_s``."""
    poller = zmq.Poller()
    for item in sockets:
        poller.register(item.socket, zmq.POLLIN)
    ready = {raw for raw, _ in poller.poll(int(timeout_s * 1000))}
    return [item for item in sockets if item.socket in ready]
