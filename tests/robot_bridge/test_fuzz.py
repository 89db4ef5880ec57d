"""Every decoder takes anything: what is no message raises `BadMessage`, nothing else, and never takes long."""

import os
import random
import struct
import time
from typing import Any

import msgspec
import pytest

from takeover.data.schema import (
    AnyRecord,
    Command,
    ControlEnvelope,
    Evaluate,
    Event,
    LauncherRequest,
    LearnerStatus,
    PolicyAction,
    RecorderMessage,
    ReplyEnvelope,
    State,
)
from takeover.robot_bridge.protocol import BadMessage, Codec

MESSAGES = int(os.environ.get("FUZZ_MESSAGES", "2000"))  # `make fuzz` sets more
SEED = int(os.environ.get("FUZZ_SEED", "1"))
SAMPLES: dict[str, tuple[Any, list[Any]]] = {
    "command": (
        Command,
        [
            {
                "type": "command",
                "session": "s",
                "sender": "x",
                "seq": 1,
                "lease": "l",
                "device_id": "d",
                "device_kind": "gamepad",
                "device_alive": True,
                "deadman": True,
                "neutral": False,
                "focused": True,
                "gui_alive": True,
                "action": [0.1, -0.2, 0.0, 1.0],
                "authority": ["arm"],
                "newest_state_seq": 5,
            }
        ],
    ),
    "control": (
        ControlEnvelope,
        [
            {"request_id": 1, "request": {"type": "hello", "protocol": 1, "sender": "x", "role": "operator", "software": "y"}},
            {"request_id": 2, "request": {"type": "stop", "sender": "x", "reason": "r"}, "newest_state_seq": 4},
            {"request_id": 3, "request": {"type": "speed_scale", "sender": "x", "scale": 0.5}},
            {"request_id": 4, "request": {"type": "start", "sender": "x", "kind": "policy", "episodes": 3}},
            {"request_id": 5, "request": {"type": "set_outcome", "sender": "x", "outcome": "success", "episode_id": "e"}},
        ],
    ),
    "policy_action": (
        PolicyAction,
        [{"type": "policy_action", "session": "s", "from_seq": 1, "actions": [[0.0] * 4] * 8, "valid_until_seq": 9, "policy_version": 1}],
    ),
    "event": (Event, [{"type": "event", "session": "s", "rec_seq": 1, "kind": "k", "text": "t", "t_ns": 1, "wall_ns": 2, "source": "x"}]),
    "recorder": (RecorderMessage, [{"type": "recorder_hello", "session": "s", "acked_rec_seq": 4}]),
    "record": (AnyRecord, [{"type": "event", "session": "s", "rec_seq": 1, "kind": "k", "text": "t", "t_ns": 1, "wall_ns": 2}]),
    "reply": (ReplyEnvelope, [{"request_id": 1, "reply": {"type": "reply", "session": "s", "error": "", "t_ns": 4}}]),
    "evaluate": (Evaluate, [{"type": "evaluate", "request_id": 1, "version": 2, "starts": 3}]),
    "launcher": (LauncherRequest, [{"type": "launcher_request", "request_id": 1, "action": "restart", "process": "actor"}]),
    "state": (State, [{"type": "state", "session": "s", "seq": 1, "t_ns": 2, "mode": "hold"}]),
    "learner_status": (LearnerStatus, [{"type": "learner_status", "learner": "x", "phase": "training", "progress": 0.5}]),
}
EVIL: list[Any] = [
    None,
    True,
    -1,
    2**63,
    -(2**63),
    float("nan"),
    float("inf"),
    1e308,
    "",
    "x" * 5000,
    b"\0" * 100,
    [],
    {},
    [[[[]]]],
    {"type": 1},
]
HEADS = (b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9")  # array, map, bytes, text, extension, each with a length of 32 bits


def mutated(chance: random.Random, samples: list[Any]) -> bytes:
    """One message: rubbish, or a good one with something wrong."""
    how = chance.randrange(7)
    if how == 0:
        return chance.randbytes(chance.randrange(300))
    if how == 1:
        return chance.choice(HEADS) + struct.pack(">I", chance.choice((0, 1, 1000, 2**31 - 1, 2**32 - 1))) + chance.randbytes(20)
    if how == 2:
        return chance.choice((b"\x91", b"\x81\xa1a", b"\xd9\x01a", b"\x81\xa7request")) * chance.randrange(1, 20_000)
    value = msgspec.msgpack.decode(msgspec.msgpack.encode(chance.choice(samples)))
    if how in (3, 4):
        field = chance.choice(list(value))
        inner = value[field] if isinstance(value[field], dict) and value[field] and how == 4 else value
        inner[chance.choice(list(inner))] = chance.choice(EVIL)
        if chance.random() < 0.2:
            inner["unknown"] = chance.choice(EVIL)
        return msgspec.msgpack.encode(value)
    data = bytearray(msgspec.msgpack.encode(value))
    if how == 5:
        return bytes(data[: chance.randrange(len(data))])
    for _ in range(chance.randrange(1, 6)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_decoder_takes_anything(name: str) -> None:
    type_, samples = SAMPLES[name]
    codec: Codec[Any] = Codec(type_)
    chance = random.Random(f"{SEED} {name}")
    refused, slowest_s = 0, 0.0
    for _ in range(MESSAGES):
        data = mutated(chance, samples)
        began = time.monotonic()
        try:
            codec.decode(data)
        except BadMessage:
            refused += 1
        slowest_s = max(slowest_s, time.monotonic() - began)
    assert refused > MESSAGES // 2, "most of them are no messages"
    assert slowest_s < 1.0


@pytest.mark.parametrize("name", ["command", "control", "policy_action", "event", "recorder", "reply", "evaluate", "launcher"])
def test_the_samples_are_messages(name: str) -> None:
    """Else the mutations would begin with something that is refused anyway."""
    type_, samples = SAMPLES[name]
    for sample in samples:
        Codec(type_).decode(msgspec.msgpack.encode(sample))
