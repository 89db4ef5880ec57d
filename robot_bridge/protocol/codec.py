"""MessagePack encoding of the schema's structs, with a size limit and one exception for everything that is wrong with a message."""

import re
from typing import Any, Generic, TypeVar

import msgspec

from takeover.robot_bridge.protocol.allowed import allowed_at

T = TypeVar("T")

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_LOOKED_INTO_BYTES = 4096  # of a bad message that is decoded once more, for the value that was wrong: commands have a few hundred
MAX_WORDS = 100  # characters of what msgspec says, which has the whole value in it: what is allowed shall not be cut off behind it
SECRET = "lease"  # of no field of this name the value is told
_PATH = re.compile(r" - at `\$\.?([^`]*)`$")
_STEP = re.compile(r"(\w+)|\[(\d+)\]")


class BadMessage(ValueError):
    """A message that cannot be decoded: too large, truncated, an unknown type or field, a wrong value.

    ``reason``: in words, without the place. ``field``: where, ``action[2]``; "": not known. ``value``: what is there; None: not known.
    """

    def __init__(self, why: str, field: str = "", value: object = None) -> None:
        super().__init__(why)
        self.reason, self.field, self.value = why, field, value

    @classmethod
    def of(cls, error: Exception, data: bytes | memoryview, kind: Any = None) -> "BadMessage":
        """Of what msgspec says of ``data``, which should have been a ``kind``."""
        found = _PATH.search(str(error))
        if found is None:
            return cls(str(error))
        reason, place = str(error)[: found.start()], found[0]
        known = kind is not None and reason.startswith("Invalid ")  # a word that is none of those
        words = allowed_at(kind, found[1], lambda path: _value_at(data, path)) if known else []
        if words:
            reason = f"{reason[:MAX_WORDS]}; allowed: {', '.join(words)}"
        made = cls(reason + place, found[1], _value_at(data, found[1]))
        made.reason = reason
        return made


def _value_at(data: bytes | memoryview, path: str) -> object:
    """What ``data`` has at ``path``; None where that is secret, or not to be found out with little work."""
    if len(data) > MAX_LOOKED_INTO_BYTES or path.rpartition(".")[2] == SECRET or "..." in path:
        return None
    try:
        value = msgspec.msgpack.decode(data)
        for name, index in _STEP.findall(path):
            value = value[name] if name else value[int(index)]
    except (ValueError, TypeError, LookupError, RecursionError):  # ValueError: msgspec's own and that of UTF-8 too
        return None
    return value


class Codec(Generic[T]):
    """Encodes and decodes one struct type or tagged union. Not thread-safe: one per thread."""

    def __init__(self, type_: Any, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(type_)
        self._max_bytes = max_bytes
        self._type = type_

    def encode(self, message: T) -> bytes:
        return self._encoder.encode(message)

    def decode(self, data: bytes | memoryview) -> T:
        if len(data) > self._max_bytes:
            raise BadMessage(f"message of {len(data)} bytes; the limit is {self._max_bytes}")
        try:
            return self._decoder.decode(data)
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeDecodeError) as error:
            raise BadMessage.of(error, data, self._type) from error
