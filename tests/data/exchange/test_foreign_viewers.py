"""Our MCAP files as others see them: Foxglove's published schemas, and Rerun's own converter where it is installed."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from takeover.data.exchange.mcap_export import IMAGE, LOG, export_mcap
from takeover.data.exchange.selection import Selection

# (number, FieldDescriptorProto.Type, type) of every field, from foxglove-schemas-protobuf 0.4.0 and foxglove-sdk 0.30.3
PUBLISHED = {
    "CompressedImage": {
        "timestamp": (1, 11, ".google.protobuf.Timestamp"),
        "data": (2, 12, ""),
        "format": (3, 9, ""),
        "frame_id": (4, 9, ""),
    },
    "Log": {
        "timestamp": (1, 11, ".google.protobuf.Timestamp"),
        "level": (2, 14, ".foxglove.Log.Level"),
        "message": (3, 9, ""),
        "name": (4, 9, ""),
        "file": (5, 9, ""),
        "line": (6, 7, ""),
    },
}
LEVELS = {"UNKNOWN": 0, "DEBUG": 1, "INFO": 2, "WARNING": 3, "ERROR": 4, "FATAL": 5}
RERUN = os.environ.get("TAKEOVER_RERUN", "") or shutil.which("rerun") or ""


@pytest.mark.parametrize("kind", [IMAGE, LOG], ids=lambda kind: kind.name)
def test_messages_are_those_that_foxglove_publishes(kind):
    files = descriptor_pb2.FileDescriptorSet.FromString(kind.descriptor_set()).file
    assert [file.name for file in files] == ["google/protobuf/timestamp.proto", f"foxglove/{kind.name}.proto"]
    (message,) = files[1].message_type
    assert {field.name: (field.number, field.type, field.type_name) for field in message.field} == PUBLISHED[kind.name]
    levels = {enum.name: {value.name: value.number for value in enum.value} for enum in message.enum_type}
    assert levels == ({"Level": LEVELS} if kind is LOG else {})
    assert not files[1].enum_type


@pytest.mark.skipif(not RERUN, reason="Rerun is not installed; name its program with TAKEOVER_RERUN (docs/exchange.md)")
def test_rerun_finds_pictures_texts_and_numbers(recorded, workspace, tmp_path):
    export_mcap(workspace, tmp_path / "out", Selection(ids=("ep0001",)))
    (file,) = (tmp_path / "out").iterdir()
    run("mcap", "convert", str(file), "-o", str(tmp_path / "a.rrd"))
    run("rrd", "verify", str(tmp_path / "a.rrd"))
    printed = run("rrd", "print", "-vv", str(tmp_path / "a.rrd"))
    chunks = re.findall(r"Chunk\(\w+\) with (\d+) rows? .*? - (/\S+) (.*?)(?=\nChunk\(|\Z)", printed, re.S)
    rows: dict[tuple[str, str], int] = {}
    for count, path, text in chunks:
        for component in re.findall(r"component: (EncodedImage:blob|TextLog:text|takeover\.\w+:message)", text):
            rows[(path, component)] = rows.get((path, component), 0) + int(count)
    held = 4  # two holds of two steps
    assert rows.pop(("/events", "TextLog:text")) >= 4
    assert rows.pop(("/human_action", "takeover.HumanAction:message")) == 10
    assert rows.pop(("/policy_action", "takeover.PolicyAction:message")) > 30
    assert rows == {
        ("/camera/front", "EncodedImage:blob"): 40,
        ("/action", "takeover.Action:message"): 40 + held,
        ("/asked_action", "takeover.AskedAction:message"): 40 + held,
        ("/observation", "takeover.Observation:message"): 40 + held,
        ("/step", "takeover.Step:message"): 40 + held,
    }


def run(*arguments: str) -> str:
    environment = os.environ | {"NO_COLOR": "1", "HOME": str(Path(arguments[-1]).parent)}
    done = subprocess.run([RERUN, *arguments], capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not re.search(r"WARN|ERROR", re.sub(r".*Application ID.*", "", done.stderr)), done.stderr[-2000:]
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
