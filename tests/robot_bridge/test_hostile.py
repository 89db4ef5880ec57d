"""Peers that mean harm, or are badly broken, with a key that is admitted: the bridge's process neither grows nor falters."""

import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import msgspec
import psutil
import pytest
import zmq

from takeover.data.schema import PROTOCOL_VERSION, ControlEnvelope, Hello, RecorderHello, Role, State
from takeover.robot_bridge.protocol import Endpoints, KeyFolder, Subscriber
from takeover.robot_bridge.protocol.link import Link, port_offset, secure_client
from tests.faults.network import BridgeProcess

MEGABYTE = 1 << 20
LIMIT_MB = 64.0


@pytest.fixture(scope="module")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Attacker"]:
    with socket.create_server(("127.0.0.2", 0)) as probe:
        port = 10_000 + probe.getsockname()[1] % 20_000
    bridge = BridgeProcess(tmp_path_factory.mktemp("hostile"), port)
    try:
        yield Attacker(bridge)
    finally:
        bridge.close()


class Attacker:
    """Raw sockets with an admitted key; watches the bridge's memory meanwhile."""

    def __init__(self, bridge: BridgeProcess) -> None:
        self.bridge = bridge
        workspace = bridge.desk("desk", "operator", "learner", "labeler")
        bridge.wait(workspace)
        self.endpoints: Endpoints = bridge.endpoints(workspace)
        self.link = Link("127.0.0.2", bridge.port, False, KeyFolder(workspace / "keys"))
        self.process = psutil.Process(bridge.process.pid)
        time.sleep(1.0)
        self.before = self.peak = self.process.memory_info().rss  # of the whole series: what one leaves behind counts for the next

    def socket(self, kind: int, stream: str) -> "zmq.Socket[bytes]":
        made: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
        made.setsockopt(zmq.LINGER, 0)
        secure_client(made, self.link)
        made.connect(self.link.address(stream))
        assert made.poll(5000, zmq.POLLOUT)
        return made

    def look(self) -> None:
        self.peak = max(self.peak, self.process.memory_info().rss)

    def grown_mb(self) -> float:
        self.look()
        return (self.peak - self.before) / MEGABYTE

    def assert_unharmed(self) -> None:
        assert self.bridge.process.poll() is None
        assert self.grown_mb() < LIMIT_MB
        with Subscriber[State](self.endpoints, "state", State) as states:
            first = states.receive(5.0)
            assert first is not None
            time.sleep(0.5)
            second = states.receive(1.0)
            assert second is not None
            assert second.seq > first.seq


def send(peer: "zmq.Socket[bytes]", data: bytes) -> bool:
    try:
        peer.send(data, zmq.NOBLOCK)
    except zmq.Again:
        return False
    return True


def test_who_never_reads_its_answers(attacker: Attacker) -> None:
    hello = Hello(protocol=PROTOCOL_VERSION, sender="x", role=Role.OPERATOR, software="")
    frame = b"control\0" + msgspec.msgpack.encode(ControlEnvelope(request_id=1, request=hello))
    with attacker.socket(zmq.DEALER, "control") as peer:
        peer.setsockopt(zmq.RCVHWM, 1)
        end = time.monotonic() + 5.0
        while time.monotonic() < end:
            for _ in range(500):
                send(peer, frame)
            time.sleep(0.002)
            attacker.look()
    attacker.assert_unharmed()


def test_a_recorder_that_asks_for_everything_again_and_again(attacker: Attacker) -> None:
    frame = b"record\0" + msgspec.msgpack.encode(RecorderHello(session="", acked_rec_seq=-1))
    events = b"event\0" + msgspec.msgpack.encode(
        {"type": "event", "session": "", "rec_seq": -1, "kind": "note", "text": "x" * 20_000, "t_ns": 0, "wall_ns": 0, "source": "x"}
    )
    with attacker.socket(zmq.DEALER, "record") as peer, attacker.socket(zmq.PUSH, "event") as notes:
        peer.setsockopt(zmq.RCVHWM, 1)
        for number in range(4000):
            send(notes, events)
            if number % 20 == 0:
                time.sleep(0.01)
        end = time.monotonic() + 4.0
        while time.monotonic() < end:
            send(peer, frame)
            attacker.look()
            time.sleep(0.001)
    attacker.assert_unharmed()


def test_messages_that_swell_when_they_are_decoded(attacker: Attacker) -> None:
    """A byte of MessagePack becomes up to 32 of Python: an array of zeros, as long as the stream lets through."""
    for stream, field, size in (("policy_action", "actions", 4 * MEGABYTE - 300), ("command", "action", 60_000)):
        zeros = b"\xdd" + struct.pack(">I", size) + b"\0" * size
        rows = b"\x91" + zeros if field == "actions" else zeros
        kind = b"policy_action" if stream == "policy_action" else b"command"
        body = b"\x82\xa4type" + bytes([0xA0 + len(kind)]) + kind + bytes([0xA0 + len(field)]) + field.encode() + rows
        with attacker.socket(zmq.PUSH, stream) as peer:
            for _ in range(20):
                send(peer, stream.encode() + b"\0" + body)
                time.sleep(0.05)
                attacker.look()
    attacker.assert_unharmed()


STUCK = """
import time, zmq
from takeover.robot_bridge.protocol.link import _tcp_options
context = zmq.Context.instance()
reader = context.socket(zmq.PULL)
reader.setsockopt(zmq.RCVHWM, 64)
_tcp_options(reader)
port = reader.bind_to_random_port("tcp://127.0.0.1")
writer = context.socket(zmq.PUSH)
writer.setsockopt(zmq.LINGER, 0)
_tcp_options(writer)
writer.connect(f"tcp://127.0.0.1:{port}")
end = time.monotonic() + 4.5
while time.monotonic() < end:
    try:
        writer.send(b"x" * 1000, zmq.NOBLOCK)
    except zmq.Again:
        time.sleep(0.0005)
writer.close(0)
time.sleep(1.5)
print("alive", flush=True)
context.destroy(0)
"""


def test_a_reader_that_is_stuck_survives_a_writer_that_leaves() -> None:
    """With ZMQ's heartbeats on the writer libzmq 4.3.5 mostly aborts the reader's process here."""
    result = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=30)
    assert result.stdout == "alive\n", result.stderr


def test_who_floods_and_leaves_at_once(attacker: Attacker) -> None:
    """The bridge stops reading from a peer whose queue is full; that peer's going away is no reason to fall over."""
    junk = {"command": b"command\0" + b"x" * 50, "event": b"event\0" + b"x" * 50, "policy_action": b"policy_action\0" + b"x" * 50}
    for _ in range(3):
        for stream, frame in junk.items():
            with attacker.socket(zmq.PUSH, stream) as peer:
                for _ in range(20_000):
                    send(peer, frame)
            time.sleep(0.2)
    time.sleep(1.5)  # a heartbeat would be due
    attacker.assert_unharmed()


def test_strangers_that_only_speak_tcp(attacker: Attacker) -> None:
    """Rubbish, half a greeting, silence, and a thousand connections, without any key."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(15) + b"\x00" + bytes(31)
    open_ones = []
    for number in range(400):
        for name in ("control", "state"):
            stranger = socket.create_connection(("127.0.0.2", attacker.bridge.port + port_offset(name)), timeout=2.0)
            stranger.sendall((greeting, greeting[:20], b"GET / HTTP/1.1\r\n\r\n", b"", b"\xff" * 4096)[number % 5])
            open_ones.append(stranger)
        attacker.look()
    time.sleep(1.0)
    attacker.assert_unharmed()
    for stranger in open_ones:
        stranger.close()
