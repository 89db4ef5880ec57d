"""Rows 19, 35 and 37: messages of the wrong type, huge, nested, truncated, of another version."""

import random
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
import zmq

from takeover.data.schema import PROTOCOL_VERSION, EpisodeKind, Hello, Mode, RobotSpec, Role
from takeover.robot_bridge.conformance.peers import RawClient
from takeover.robot_bridge.protocol import ControlClient, topic
from takeover.robot_bridge.robots.base import FloatArray
from takeover.robot_bridge.robots.sim import SimRobot
from tests.robot_bridge.station import Operator, station

from .rig import Rig, rig

Bound = Callable[[float, float, str], None]
STREAMS = {"command": zmq.PUSH, "policy_action": zmq.PUSH, "event": zmq.PUSH, "control": zmq.DEALER, "record": zmq.DEALER}
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def shared() -> Iterator[Rig]:
    with rig() as made:
        made.actor(lambda _: [0.1, 0.0, 0.0, 0.0])
        yield made


@pytest.fixture
def running(shared: Rig) -> Iterator[tuple[Rig, Operator]]:
    operator = shared.operator()
    shared.begin(operator, EpisodeKind.POLICY)
    shared.policy_runs(operator)
    yield shared, operator
    operator.close()
    shared.end_block()


def hostile(station: Rig, operator: Operator) -> Iterator[bytes]:
    """Payloads that no decoder may fall for."""
    valid = msgspec.msgpack.encode(operator.command())
    chance = random.Random(7)
    yield b""
    yield b"\xc1" * 100  # never used in MessagePack
    yield b"\x91" * 200_000 + b"\xc0"  # lists in lists in lists
    yield b"\x81\xa1a" * 100_000 + b"\xc0"  # maps in maps in maps
    yield b"\xdd" + struct.pack(">I", 0xFFFFFFFF)  # an array that claims four thousand million elements
    yield b"\xc6" + struct.pack(">I", 0xFFFFFFFF)  # bytes that claim 4 GB
    yield b"\xdb" + struct.pack(">I", 0x7FFFFFFF) + b"x"
    yield msgspec.msgpack.encode({"type": "command", "action": [0.0] * 500_000})
    yield msgspec.msgpack.encode({"type": "policy_action", "actions": [[0.0] * 100] * 5000})
    for _ in range(200):
        yield valid[: chance.randrange(len(valid))]
        flipped = bytearray(valid)
        flipped[chance.randrange(len(valid))] ^= 1 << chance.randrange(8)
        yield bytes(flipped)
        yield chance.randbytes(chance.randrange(400))


UNITS = {"mm": ["mm", "mm", "mm", "rad"], "deg": ["m", "m", "m", "deg"], "none": ["", "", "", ""]}


@pytest.mark.parametrize("units", UNITS.values(), ids=UNITS)
def test_row_19_unit_refused_at_load(tmp_path: Path, bound: Bound, units: list[str]) -> None:
    """A robot whose actions are not in metres and radians: no bridge comes up, so nothing is commanded."""
    commands: list[object] = []

    class Foreign(SimRobot):
        @property
        def spec(self) -> RobotSpec:
            spec = super().spec
            return msgspec.structs.replace(spec, action=msgspec.structs.replace(spec.action, units=units))

        def apply(self, action: FloatArray) -> None:
            commands.append(action)
            super().apply(action)

    with pytest.raises(ValueError, match="allowed: 'm' or 'rad'"), station(tmp_path, hardware=Foreign()):
        raise AssertionError("a bridge came up")
    bound(float(len(commands)), 0.0, "commands")
    assert not list(tmp_path.rglob("*.sock")), "and nobody could have asked for one"


def counted(station: Rig, name: str, count: int) -> int:
    """How many of ``count`` messages that are somewhat too large for stream ``name`` the bridge counts as unreadable."""
    before = station.until(lambda s: True, "a state").bad_messages
    with zmq.Context.instance().socket(STREAMS[name]) as socket:
        socket.linger = 0
        socket.connect(station.endpoints.address(name))
        for _ in range(count):
            socket.send(name.encode() + b"\0" + b"\xc1" * topic(name).max_bytes)
        deadline = time.monotonic() + 10.0
        while (found := station.until(lambda s: True, "a state").bad_messages - before) < count and time.monotonic() < deadline:
            time.sleep(0.05)
    return found


def test_row_35_hostile_messages(running: tuple[Rig, Operator], bound: Bound) -> None:
    station, operator = running
    bridge = psutil.Process(station.launcher.pids()["bridge"])
    before = bridge.memory_info().rss
    peak = before
    payloads = list(hostile(station, operator))
    for name in STREAMS:
        bound(float(10 - counted(station, name, 10)), 0.0, "messages that are too large and not counted")
    huge = b"\xc6" + struct.pack(">I", 40 * MEGABYTE) + b"\0" * (40 * MEGABYTE)
    for name, kind in STREAMS.items():
        with zmq.Context.instance().socket(kind) as socket:
            socket.linger = 0
            socket.sndtimeo = 1000
            socket.connect(station.endpoints.address(name))
            for payload in payloads:
                socket.send(name.encode() + b"\0" + payload)
            for _ in range(3):
                socket.send(huge)
                time.sleep(0.1)
                peak = max(peak, bridge.memory_info().rss)
            socket.send_multipart([b"a", b"b", b"c"] * 50)
            time.sleep(0.1)
            peak = max(peak, bridge.memory_info().rss)
    bound((peak - before) / MEGABYTE, 64.0, "MB")
    assert station.launcher.restarts()["bridge"] == 0
    operator.take_lease()
    station.policy_runs(operator)
    state = station.watch.state
    assert state is not None
    assert state.mode is Mode.POLICY


@pytest.mark.parametrize(
    "change",
    [{"action": "up"}, {"action": [1, 2, "x", 4]}, {"deadman": "yes"}, {"seq": 1.5}, {"extra": 1}, {"device_kind": "joystick"}],
)
def test_row_19_wrong_types_and_unknown_fields(running: tuple[Rig, Operator], bound: Bound, change: dict[str, object]) -> None:
    station, operator = running
    operator.sending = False
    since = time.monotonic_ns()
    with zmq.Context.instance().socket(zmq.PUSH) as socket:
        socket.connect(station.endpoints.address("command"))
        for _ in range(10):
            fields = msgspec.to_builtins(operator.command(deadman=True, neutral=False, action=[0.9, 0.0, 0.0, 0.0]))
            socket.send(b"command\0" + msgspec.msgpack.encode(fields | change))
            time.sleep(0.02)
    station.until(lambda s: s.bad_messages > 0, "what cannot be read is counted")
    assert any(event.kind == "bad_message" and "message on command" in event.text for event in station.watch.events)
    driven = [step for step in station.steps_since(since) if step.human_action is not None]
    bound(float(len(driven)), 0.0, "steps")
    operator.sending = True


@pytest.mark.parametrize("version", [0, PROTOCOL_VERSION + 1])
def test_row_37_version_mismatch_with_a_field_that_only_that_version_has(running: tuple[Rig, Operator], bound: Bound, version: int) -> None:
    station, _ = running
    hello = {"type": "hello", "protocol": version, "sender": "newcomer", "role": "operator", "software": "test", "mood": "good"}
    with RawClient(station.endpoints) as client:
        envelope = client.ask(hello, 5.0)
    assert envelope is not None
    reply = envelope.reply
    assert (reply.spec, envelope.request_id > 0) == (None, True)
    named = [str(number) in reply.error for number in (version, PROTOCOL_VERSION)]
    bound(float(named.count(False)), 0.0, "versions not shown")


@pytest.mark.parametrize("version", [0, PROTOCOL_VERSION + 1])
def test_row_37_version_mismatch(running: tuple[Rig, Operator], bound: Bound, version: int) -> None:
    station, _ = running
    client = ControlClient(station.endpoints, "newcomer", Role.OPERATOR)
    try:
        reply = client.ask(Hello(protocol=version, sender="newcomer", role=Role.OPERATOR, software="test"), 5.0)
        assert str(version) in reply.error
        assert str(PROTOCOL_VERSION) in reply.error
        assert reply.spec is None
        refused = client.ask(Hello(protocol=version, sender="newcomer", role=Role.OPERATOR, software="test"), 5.0).error
        bound(0.0 if refused else 1.0, 0.0, "accepted")
    finally:
        client.close()
