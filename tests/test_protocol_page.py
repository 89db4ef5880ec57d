"""docs/protocol.md against the code: every message and field with type and default, streams, enumerations, examples in bytes."""

import enum
import json
import re
import types
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from takeover.data.schema import Command, ControlEnvelope, PolicyAction, enums, messages, records, requests, specs
from takeover.robot_bridge.protocol import TOPICS, Codec, topic
from takeover.robot_bridge.protocol.link import port_offset

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "protocol.md").read_text(encoding="utf-8")
BASES = {messages.Telemetry, messages.Strict, records.Record, specs.SafetyLimits}  # no messages themselves
STRUCTS = {
    item.__name__: item
    for module in (messages, records, requests, specs)
    for item in vars(module).values()
    if isinstance(item, type) and issubclass(item, msgspec.Struct) and item.__module__ == module.__name__ and item not in BASES
}
ON_THE_WIRE = ["Mode", "HoldReason", "Source", "ControlMode", "Outcome", "OutcomeSource", "EpisodeKind", "Role", "SafetyBit"]
KIB = 1024


def wire_type(kind: Any) -> str:
    """How the page writes a type."""
    arguments = typing.get_args(kind)
    match typing.get_origin(kind):
        case typing.Union | types.UnionType:
            return " or ".join(wire_type(item) for item in arguments)
        case typing.Literal:
            return " or ".join(f'`"{item}"`' for item in arguments)
        case origin if origin is list:
            return f"[{wire_type(arguments[0])}]"
        case origin if origin is tuple:
            return f"({', '.join(wire_type(item) for item in arguments)})"
        case origin if origin is dict:
            return f"{{{wire_type(arguments[0])}: {wire_type(arguments[1])}}}"
    return {type(None): "nil", bytes: "bin"}.get(kind, kind.__name__)


def default(field: msgspec.structs.FieldInfo) -> str:
    """How the page writes what stands for a field that was left out."""
    if field.required:
        return ""
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if value is None or isinstance(value, bool):
        return {None: "nil", True: "true", False: "false"}[value]
    if isinstance(value, bytes | list | dict):
        assert not value
        return "empty"
    return f'"{value}"' if isinstance(value, str) else str(value)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def rows_below(heading: str) -> list[list[str]]:
    """The first table below a heading."""
    match = re.search(rf"^{heading}$", PAGE, re.MULTILINE)
    assert match is not None, f"no heading {heading!r} in the page"
    found: list[list[str]] = []
    for line in PAGE[match.end() :].splitlines():
        if line.startswith("|"):
            found.append(cells(line))
        elif found or line.startswith("#"):
            break
    return found[2:]


def test_the_lists_are_not_empty():
    assert len(STRUCTS) > 45
    assert {"State", "Command", "PolicyAction", "Observation", "Step", "Hello", "RobotSpec", "RecordAck"} <= set(STRUCTS)


@pytest.mark.parametrize("name", sorted(STRUCTS))
def test_every_field_is_on_the_page(name):
    struct = STRUCTS[name]
    tag = struct.__struct_config__.tag
    heading = f"### {name}" + (rf' \(`"{tag}"`\)' if tag else "")
    rows = rows_below(heading)
    expected = [[f"`{field.name}`", wire_type(field.type), default(field)] for field in msgspec.structs.fields(struct)]
    assert [row[:3] for row in rows] == expected
    assert [row[0] for row in rows if not row[3]] == [], "fields without a meaning"


def test_no_message_is_on_the_page_that_is_not_in_the_code():
    reference = PAGE[PAGE.index("\n# Reference\n") :]
    assert sorted(re.findall(r"^### (\w+)", reference, re.MULTILINE)) == sorted(STRUCTS)


def test_strict_messages_are_called_strict():
    for name in ("Command", "Evaluate", "LauncherRequest", "ControlEnvelope", "Hello"):
        assert STRUCTS[name].__struct_config__.forbid_unknown_fields
        section = PAGE[re.search(rf"^### {name} ?\(", PAGE, re.MULTILINE).end() :]
        assert "**Strict**" in section.split("\n|", 1)[0].replace("**Strict.**", "**Strict**")
    for name in ("State", "Observation", "PolicyAction", "RecordAck"):
        assert not STRUCTS[name].__struct_config__.forbid_unknown_fields


def test_the_streams_are_those_of_the_table():
    written = {row[0].strip("`"): row[1:] for row in rows_below("## Streams")}
    assert set(written) == {*TOPICS, "camera/<name>"}
    for name, (binder, pattern, _, stale, limit, _) in written.items():
        entry = topic(name)
        size = f"{entry.max_bytes // KIB} KiB" if entry.max_bytes < KIB * KIB else f"{entry.max_bytes // KIB**2} MiB"
        assert (binder, pattern, stale, limit) == (entry.binder, entry.pattern.value.upper(), f"{entry.stale_after_s:g} s", size), name


def test_the_ports_are_those_of_the_code():
    for name in (entry.name for entry in TOPICS.values() if entry.binder == "bridge"):
        assert re.search(rf"\b{port_offset(name)}\s+`{name}`", PAGE), name


def test_the_enumerations_are_complete():
    written = {row[0]: row[1] for row in rows_below("## Enumerations")}
    assert set(written) == set(ON_THE_WIRE)
    for name in ON_THE_WIRE:
        for member in getattr(enums, name).__members__.values():
            assert isinstance(member, enum.Enum)
            text = f"{member.value} {member.name.lower()}" if isinstance(member.value, int) else f"`{member.value or chr(34) * 2}`"
            assert text in written[name], f"{name}.{member.name}"


@pytest.mark.parametrize(
    ("name", "stream", "kind"),
    [("Hello", "control", ControlEnvelope), ("Command", "command", Command), ("PolicyAction", "policy_action", PolicyAction)],
)
def test_the_bytes_say_what_stands_below_them(name, stream, kind):
    match = re.search(rf"^### {name}\n`{stream}`, (\d+) bytes:\n```hex\n(.*?)```\n```json\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    assert match is not None
    data, content = bytes.fromhex(match[2]), json.loads(match[3])
    assert len(data) == int(match[1])
    topic_name, _, body = data.partition(b"\0")
    assert topic_name.decode() == stream
    assert msgspec.msgpack.decode(body) == content
    decoded = Codec[Any](kind).decode(body)
    assert msgspec.to_builtins(decoded) | content == msgspec.to_builtins(decoded)


def test_the_prose_spells_the_first_bytes_as_they_are():
    hello = re.search(r"^### Hello\n`control`, \d+ bytes:\n```hex\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    prose = re.search(r"^The first bytes of the `Hello`: (.*?)\. The third", PAGE, re.MULTILINE | re.DOTALL)
    assert hello is not None
    assert prose is not None
    spelled = re.findall(r"`((?:[0-9a-f]{2} )*[0-9a-f]{2})`", prose[1])
    assert len(spelled) >= 8
    assert bytes.fromhex(hello[1]).startswith(bytes.fromhex(" ".join(spelled)))
    assert bytes.fromhex(hello[1]).endswith(b"newest_state_seq\xff")
