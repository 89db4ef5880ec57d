"""As much of Protocol Buffers as MCAP files need: messages of numbers, texts and bytes, and the descriptors that say what is in them.

The wire format and descriptor.proto are stable since 2008; a library for this handful of fields would be one more dependency.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["double", "int32", "int64", "fixed32", "string", "bytes", "time", "enum"]
# FieldDescriptorProto.Type
_TYPES = {"double": 1, "int64": 3, "int32": 5, "fixed32": 7, "string": 9, "bytes": 12, "time": 11, "enum": 14}
_OPTIONAL = 1
_TIME_FILE, _TIME_TYPE = "google/protobuf/timestamp.proto", ".google.protobuf.Timestamp"


@dataclass(frozen=True)
class Field:
    """A field of a message. ``type_name``: of an enum, with a leading dot."""

    name: str
    number: int
    kind: Kind
    type_name: str = ""


@dataclass(frozen=True)
class MessageType:
    """``package.name`` with its fields, and enums {name: {value name: number}} within it."""

    package: str
    name: str
    fields: tuple[Field, ...]
    enums: Mapping[str, Mapping[str, int]] | None = None

    @property
    def full_name(self) -> str:
        return f"{self.package}.{self.name}"

    def descriptor_set(self) -> bytes:
        """A FileDescriptorSet with Timestamp's file and this message's: what MCAP keeps as schema data."""
        time = _message("Timestamp", (Field("seconds", 1, "int64"), Field("nanos", 2, "int32")))
        first = _text(1, _TIME_FILE) + _text(2, "google.protobuf") + _nested(4, time) + _text(12, "proto3")
        own = _text(1, f"{self.package}/{self.name}.proto") + _text(2, self.package) + _text(3, _TIME_FILE)
        message = _message(self.name, self.fields)
        for name, values in (self.enums or {}).items():
            listed = b"".join(_nested(2, _text(1, value) + _whole(2, number)) for value, number in values.items())
            message += _nested(4, _text(1, name) + listed)
        own += _nested(4, message)
        return _nested(1, first) + _nested(1, own + _text(12, "proto3"))

    def encode(self, values: Sequence[float | int | str | bytes]) -> bytes:
        """One message; ``values`` in the order of the fields, times as nanoseconds."""
        parts = []
        for field, value in zip(self.fields, values, strict=True):
            if field.kind == "double":
                parts.append(_varint(field.number << 3 | 1) + struct.pack("<d", value))
            elif field.kind == "fixed32":
                parts.append(_varint(field.number << 3 | 5) + struct.pack("<I", value))
            elif field.kind == "time":
                seconds, nanos = divmod(int(value), 1_000_000_000)
                parts.append(_nested(field.number, _whole(1, seconds) + _whole(2, nanos)))
            elif field.kind in ("string", "bytes"):
                parts.append(_nested(field.number, value.encode() if isinstance(value, str) else bytes(value)))  # type: ignore[arg-type]
            else:
                parts.append(_whole(field.number, int(value)))
        return b"".join(parts)


def _message(name: str, fields: Sequence[Field]) -> bytes:
    """A DescriptorProto."""
    out = _text(1, name)
    for field in fields:
        type_name = _TIME_TYPE if field.kind == "time" else field.type_name
        entry = _text(1, field.name) + _whole(3, field.number) + _whole(4, _OPTIONAL) + _whole(5, _TYPES[field.kind])
        out += _nested(2, entry + (_text(6, type_name) if type_name else b""))
    return out


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers are ten bytes of two's complement
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _whole(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _nested(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _text(number: int, value: str) -> bytes:
    return _nested(number, value.encode())
