"""What the simulator server and its driver say to each other: length-prefixed MessagePack over a stream socket.

A frame is a big-endian uint32 length and that many bytes. Every request gets one reply, in order. docs/adding-a-robot.md describes it.
"""

import socket
import struct
import time
from typing import Any, Literal

import msgspec

from takeover.data.schema import RobotSpec
from takeover.robot_bridge.robots.base import RobotError

MAX_FRAME_BYTES = 1 << 20
_LENGTH = struct.Struct(">I")


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    op: Literal["hello", "read", "command", "stop", "reset", "restore", "inject", "monitor"]
    session: str = ""  # as `hello` returned it; a command of another one is refused
    seq: int = 0  # of commands: increasing
    t_ns: int = 0  # of commands: monotonic clock of this computer when the reading was asked for that it was decided on
    action: list[float] = []  # canonical
    seed: int = 0
    state: bytes = b""
    name: str = ""  # of the fault
    value: float = 0.0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The robot at one instant: reading, what the task says, the truth, the exact state, what cameras need."""

    tick: int  # control periods since the server began
    stopped: str  # "", "stop" or "watchdog"
    observation: list[float]
    tool_position: list[float]  # m, base frame
    tool_velocity: list[float]  # m/s
    tool_yaw: float
    gripper_width_m: float
    force_n: list[float]
    joints: list[float]
    gripper_force_n: float  # -1: not measured
    reward: float
    success: bool
    terminated: bool
    truth: dict[str, list[float]]
    expert_action: list[float]
    state: bytes
    qpos: list[float]
    variables: list[float]
    camera_offset: list[float]
    camera_frozen: bool


class ServerReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    error: str = ""
    session: str = ""
    watchdog_s: float = 0.0
    parameters: dict[str, float] = {}
    spec: RobotSpec | None = None
    snapshot: Snapshot | None = None
    monitor: dict[str, Any] | None = None


def parse_address(address: str) -> tuple[int, Any]:
    """``HOST:PORT`` or the path of a UNIX socket -> (family, address). Raises `RobotError`: this link has no authentication."""
    if address.startswith("/"):
        return socket.AF_UNIX, address
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise RobotError(f"robot address {address!r}: expected HOST:PORT or the absolute path of a UNIX socket")
    if host != "localhost" and not host.startswith("127."):
        raise RobotError(f"robot address {address!r}: this link is neither encrypted nor authenticated; only 127.x.x.x is allowed")
    return socket.AF_INET, (host, int(port))


def send(stream: socket.socket, payload: bytes) -> None:
    stream.sendall(_LENGTH.pack(len(payload)) + payload)


def receive(stream: socket.socket, until: float | None = None) -> bytes:
    """One frame, by the time ``until`` (`time.monotonic`) or whenever it comes.

    Raises `TimeoutError`, or `ConnectionError` at the end of the stream or when the frame is too large.
    """
    (size,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size, until))
    if size > MAX_FRAME_BYTES:
        raise ConnectionError(f"frame of {size} bytes; the limit is {MAX_FRAME_BYTES}")
    return _exactly(stream, size, until)


def _exactly(stream: socket.socket, count: int, until: float | None) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        if until is not None:
            # a deadline for the whole frame: a socket's own timeout begins anew with every byte
            if (left := until - time.monotonic()) <= 0:
                raise TimeoutError("no whole answer in time")
            stream.settimeout(left)
        part = stream.recv(min(65536, count - len(parts)))
        if not part:
            raise ConnectionError("the other side closed the connection")
        parts += part
    return bytes(parts)
