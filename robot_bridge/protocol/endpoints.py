"""Addresses of a station's streams: who binds where, on one computer or over a network."""

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

import zmq

from takeover.data.filelock import FileLock, Locked
from takeover.data.schema import RunConfig
from takeover.robot_bridge.protocol.link import Gatekeeper, Link, LinkProblem, check_ports
from takeover.robot_bridge.protocol.topics import topic as topic_entry

MAX_IPC_PATH_BYTES = 107


class EndpointError(OSError):
    """An address cannot be bound or is too long."""


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
        """Make the folder, with mode 0700. Raises `EndpointError` for one that is there already and open to others, or not one's own.

        It is never changed: whoever names /tmp by mistake must not close it to everybody else.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = self.folder.stat()
        advice = "name one that does not exist yet (it is made), or one that only you can enter (mode 0700)"
        if status.st_uid != os.geteuid():
            raise EndpointError(f"socket folder {self.folder} belongs to somebody else: {advice}")
        if status.st_mode & 0o077:
            raise EndpointError(f"socket folder {self.folder} is open to others (mode {stat.S_IMODE(status.st_mode):04o}): {advice}")

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


class BoundAddress:
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
