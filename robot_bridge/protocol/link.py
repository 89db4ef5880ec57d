"""A bridge over a network: TCP, only with CURVE, and only for keys on the allow-list.

The bridge's streams have a port each: the base port plus the position in the topic table, cameras plus a number made of their name. The
bridge runs a ZAP handler, so that every connection of every socket is checked against the list, by the roles of its stream.
"""

import logging
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import zmq
from zmq.auth.thread import ThreadAuthenticator

from takeover.data.schema import Role, RunConfig
from takeover.robot_bridge.protocol.keys import AllowList, Client, KeyFolder, KeyProblem
from takeover.robot_bridge.protocol.topics import TOPICS, topic

log = logging.getLogger("bridge.link")

PORTS = 128  # a bridge takes this many, from its base port
_FIRST_CAMERA = 16
_ADDRESS = re.compile(r"tcp://(\[[0-9a-fA-F:.]+\]|[0-9A-Za-z_.-]+|\*):(\d{1,5})")
_HEARTBEAT_MS, _TIMEOUT_MS = 1000, 3000  # end half-open connections; liveness is judged by the data


class LinkProblem(ValueError):
    """An address or a key that cannot be used; says what to do."""


def port_offset(name: str) -> int:
    """Of stream ``name`` from the base port: 0 to 15 in the order of the table's streams that the bridge binds; cameras 16 to 127."""
    if name.startswith("camera/"):
        return _FIRST_CAMERA + zlib.crc32(name.encode()) % (PORTS - _FIRST_CAMERA)
    return [entry.name for entry in TOPICS.values() if entry.binder == "bridge"].index(name)


def check_ports(cameras: Iterable[str]) -> None:
    """That these cameras' streams have a port each. Raises `LinkProblem` naming two that do not."""
    used: dict[int, str] = {}
    for camera in cameras:
        offset = port_offset(f"camera/{camera}")
        if offset in used:
            raise LinkProblem(f"the names of cameras {used[offset]!r} and {camera!r} lead to the same port (+{offset}); rename one of them")
        used[offset] = camera


@dataclass(frozen=True)
class Link:
    """Where a bridge listens or is found, and with which keys. ``listens``: this is the bridge."""

    host: str
    port: int
    listens: bool
    keys: KeyFolder
    own: str = ""  # name of the key pair; "": the only one
    bridge: str = ""  # name of the bridge's card; "": the only one

    @classmethod
    def of(cls, config: RunConfig) -> "Link | None":
        """The link of a run, None for a station on one computer. Raises `LinkProblem`."""
        address = config.listen or config.connect
        if not address:
            return None
        if config.listen and config.connect:
            raise LinkProblem("a bridge that listens does not connect to another one: give --listen or --connect, not both")
        host, port = parse(address, listens=bool(config.listen))
        return cls(host, port, bool(config.listen), KeyFolder(config.keys), config.own_key, config.bridge_key)

    def address(self, name: str) -> str:
        return f"tcp://{self.host}:{self.port + port_offset(name)}"

    def serves(self, name: str) -> bool:
        """Whether stream ``name`` goes over the network: those that the bridge binds."""
        return topic(name).binder == "bridge"


def parse(address: str, *, listens: bool) -> tuple[str, int]:
    """``tcp://HOST:PORT`` -> (host, base port). Raises `LinkProblem`."""
    found = _ADDRESS.fullmatch(address)
    if found is None or (found[1] == "*" and not listens):
        raise LinkProblem(f"address {address!r}: expected tcp://HOST:PORT")
    port = int(found[2])
    if not 1024 <= port <= 65535 - PORTS:
        raise LinkProblem(f"address {address!r}: the base port must be 1024 to {65535 - PORTS}; the {PORTS} ports from it on are used")
    return found[1], port


def check_link(address: str, keys: str, *, listens: bool) -> None:
    """Raises `LinkProblem` or `KeyProblem` when ``address`` cannot be used with what is in the folder ``keys``."""
    parse(address, listens=listens)
    folder = KeyFolder(keys)
    folder.own()
    if listens:
        folder.allowed()
    else:
        folder.bridge()


class Gatekeeper:
    """The bridge's ZAP handler: admits keys of the allow-list, by stream. One per process; made before any socket is bound."""

    def __init__(self, link: Link, on_refused: Callable[[str, str], None]) -> None:
        """``on_refused(stream, public key)`` is called in the authenticator's thread. Raises `LinkProblem`."""
        try:
            self.key = link.keys.own(link.own)
            link.keys.allowed()
        except KeyProblem as error:
            raise LinkProblem(str(error)) from error
        self._list = AllowList(link.keys)
        self._on_refused = on_refused
        self._lock = threading.Lock()
        self._authenticator = _started(ThreadAuthenticator(zmq.Context.instance()))
        self._domains: set[str] = set()

    def guard(self, socket: Any, name: str) -> None:
        """Make ``socket`` a CURVE server for stream ``name``, before it is bound."""
        if name not in self._domains:
            # a named domain is only matched by its own provider, never by "*"
            self._authenticator.configure_curve_callback(name, credentials_provider=_Provider(self, name))
            self._domains.add(name)
        socket.setsockopt(zmq.ZAP_DOMAIN, name.encode())
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.key.secret_key.encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.key.public_key.encode())
        _tcp_options(socket)

    def client(self, public_key: str) -> Client | None:
        """Who has this key, now; None after it was revoked."""
        with self._lock:
            return self._list.client(public_key)

    def narrowed(self) -> int:
        """How often somebody on the list lost a role so far."""
        with self._lock:
            self._list.refresh()
            return self._list.narrowed

    def permits(self, public_key: str, name: str) -> bool:
        client = self.client(public_key)
        return client is not None and bool(client.roles & topic(name).roles)

    def admit(self, name: str, public_key: str) -> bool:
        if self.permits(public_key, name):
            return True
        try:
            self._on_refused(name, public_key)
        except Exception:  # it would end the authenticator's thread, and nobody were admitted any more
            log.exception("a refused connection to %s could not be told of", name)
        return False

    def close(self) -> None:
        self._authenticator.stop()


def _started(authenticator: ThreadAuthenticator) -> ThreadAuthenticator:
    """Its address within the process is free again some time after an earlier one was stopped, not at once. Raises `zmq.ZMQError`."""
    for _ in range(40):
        try:
            authenticator.start()
        except zmq.ZMQError:
            authenticator.stop()
            time.sleep(0.05)
        else:
            return authenticator
    authenticator.start()
    return authenticator


class _Provider:
    """What pyzmq's authenticator asks, per domain."""

    def __init__(self, keeper: Gatekeeper, name: str) -> None:
        self._keeper, self._name = keeper, name

    def callback(self, domain: str, key: bytes) -> bool:
        return domain == self._name and self._keeper.admit(self._name, key.decode())


def secure_client(socket: Any, link: Link) -> None:
    """Give ``socket`` its own key and the bridge's, before it connects. Raises `LinkProblem`."""
    try:
        own, bridge = link.keys.own(link.own), link.keys.bridge(link.bridge)
    except KeyProblem as error:
        raise LinkProblem(str(error)) from error
    socket.setsockopt(zmq.CURVE_SERVERKEY, bridge.public_key.encode())
    socket.setsockopt(zmq.CURVE_PUBLICKEY, own.public_key.encode())
    socket.setsockopt(zmq.CURVE_SECRETKEY, own.secret_key.encode())
    _tcp_options(socket)


def roles_of(client: Client | None) -> frozenset[Role]:
    return client.roles if client is not None else frozenset()


def _tcp_options(socket: Any) -> None:
    # When ZMQ has stopped reading from a peer (its queue is full) and that connection breaks, libzmq 4.3.5 may abort the whole process
    # (assertion !_io_error in stream_engine_base.cpp). So nothing here breaks the connection of a reader that is merely slow: no
    # heartbeats on the bridge's side, none from a client that only writes, no TCP_MAXRT (which counts a full window as silence). A
    # connection on which one only writes and that has died without a word is ended by who writes, see `WatchedPush`.
    if socket.type in (zmq.SUB, zmq.DEALER) and not socket.getsockopt(zmq.CURVE_SERVER):
        socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _TIMEOUT_MS)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 2)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
    socket.setsockopt(zmq.CONNECT_TIMEOUT, _TIMEOUT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    socket.setsockopt(zmq.IPV6, 0)
