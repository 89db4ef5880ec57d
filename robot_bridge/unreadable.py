"""What can be said about a control request that cannot be read: which one it is, and whether its sender speaks another version."""

import contextlib
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from takeover.data.schema import PROTOCOL_VERSION
from takeover.robot_bridge.protocol import BadMessage


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    protocol: int
    sender: Any = ""


class _Numbered(msgspec.Struct, frozen=True, kw_only=True):
    request_id: int


class _Envelope(_Numbered, frozen=True, kw_only=True):
    request: _Request


class _Stop(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["stop"]
    sender: Any = ""


class _Stopping(msgspec.Struct, frozen=True, kw_only=True):
    request: _Stop


def version_refusal(protocol: int) -> str:
    """Why a hello for ``protocol`` is refused: names both versions; empty when it is ours."""
    return "" if protocol == PROTOCOL_VERSION else f"protocol {protocol} asked for, this bridge speaks {PROTOCOL_VERSION}"


@dataclass(frozen=True)
class Unreadable:
    """With what to answer a frame that was refused. ``request_id`` -1: it has none."""

    request_id: int
    error: str
    protocol: int | None = None  # the other version that it asks for, being a hello; None: it is no such hello
    sender: str = ""  # of that hello, or STOP
    stops: bool = False  # it is a STOP all the same


def refusal_of(frame: bytes, error: BadMessage) -> Unreadable:
    """What can be said about a ``frame`` that was refused as ``error``.

    A hello of another version is told both versions, also when it has fields that this one does not know. A STOP with whatever is wrong
    with it is refused and still one: not to stop is the worse mistake.
    """
    body = frame.partition(b"\0")[2]
    try:
        envelope = msgspec.msgpack.decode(body, type=_Envelope)
        request = envelope.request
        if request.type == "hello" and (refusal := version_refusal(request.protocol)):
            sender = request.sender if isinstance(request.sender, str) else ""
            return Unreadable(envelope.request_id, refusal, request.protocol, sender)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass  # a request without a version, or nothing that can be read at all
    number, stop = -1, None
    with contextlib.suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        number = msgspec.msgpack.decode(body, type=_Numbered).request_id
    with contextlib.suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        stop = msgspec.msgpack.decode(body, type=_Stopping).request
    sender = stop.sender if stop is not None and isinstance(stop.sender, str) else ""
    return Unreadable(number, f"bad request: {error}", sender=sender, stops=stop is not None)
