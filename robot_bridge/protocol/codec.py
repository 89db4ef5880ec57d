"""MessagePack encoding of the schema's structs, with a size limit and one exception for everything that is wrong with a message."""

from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")

MAX_MESSAGE_BYTES = 64 * 1024 * 1024


class BadMessage(ValueError):
    """A message that cannot be decoded: too large, truncated, an unknown type or field, a wrong value."""


class Codec(Generic[T]):
    """Encodes and decodes one struct type or tagged union. Not thread-safe: one per thread."""

    def __init__(self, type_: Any, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(type_)
        self._max_bytes = max_bytes

    def encode(self, message: T) -> bytes:
        return self._encoder.encode(message)

    def decode(self, data: bytes | memoryview) -> T:
        if len(data) > self._max_bytes:
            raise BadMessage(f"message of {len(data)} bytes; the limit is {self._max_bytes}")
        try:
            return self._decoder.decode(data)
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeDecodeError) as error:
            raise BadMessage(str(error)) from error
