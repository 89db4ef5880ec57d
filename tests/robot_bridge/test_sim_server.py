"""The simulator server: a robot that lives in a process of its own, watches its bridge, and tells what it was asked to do."""

import contextlib
import itertools
import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from takeover.data.schema import RobotSpec
from takeover.robot_bridge.robots import sim_wire
from takeover.robot_bridge.robots.base import RobotError
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.robots.sim_monitor import Bounds, Monitor
from takeover.robot_bridge.robots.sim_remote import RemoteSimRobot, _Link
from takeover.robot_bridge.robots.sim_server import SimServer
from takeover.robot_bridge.robots.sim_wire import Request, Snapshot

PERIOD_S = 0.05
PATIENT_S = 1.0  # a watchdog that a busy test machine does not trip; tests of the watchdog itself choose their own


class Server:
    """A `takeover sim-server` process."""

    def __init__(self, folder: Path, task: str = "peg-insert", address: str = "", watchdog_s: float = 0.15) -> None:
        self.address = address or str(folder / "robot.sock")
        self.report_path = folder / "monitor.json"
        command = [sys.executable, "-m", "takeover.app.cli", "sim-server", "--robot", f"sim:{task}", "--address", self.address]
        self.process = subprocess.Popen(
            [*command, "--watchdog-s", str(watchdog_s), "--report", str(self.report_path)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith(f"sim-server: {task} on "), line
        self.address = line.split(" on ")[1].strip()

    def report(self) -> dict[str, object]:
        """Ends the server; what its monitor saw."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(10) == 0
        return dict(json.loads(self.report_path.read_text()))

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path, watchdog_s=PATIENT_S)
    yield made
    made.close()


@pytest.fixture
def brisk(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path, watchdog_s=0.5)
    yield made
    made.close()


def patient(address: str) -> RemoteSimRobot:
    """A driver whose deadlines a busy test machine does not miss."""
    robot = RemoteSimRobot("peg-insert", address)
    robot._deadline_s = PATIENT_S
    return robot


@pytest.fixture
def robot(server: Server) -> Iterator[RemoteSimRobot]:
    made = patient(server.address)
    made.connect()
    yield made
    made.close()


def drive(robot: RemoteSimRobot, action: list[float], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        robot.read()
        robot.apply(np.array(action))
        time.sleep(PERIOD_S)


def test_it_is_the_same_robot(robot: RemoteSimRobot) -> None:
    own = SimRobot("peg-insert")
    own.reset(7)
    robot.reset(7)
    assert isinstance(robot.spec, RobotSpec)
    assert robot.spec == structs.replace(own.spec, has_watchdog=False), "its own is a patient one"
    robot.restore(own.save())
    assert robot.save() == own.save()
    before = robot.read()
    drive(robot, [0.0, 1.0, 0.0, 0.0], 0.5)
    after = robot.read()
    assert after.tool_position[1] - before.tool_position[1] > 0.02
    assert robot.advice().expert_action
    assert not robot.evaluate().terminated
    robot.inject("frozen_camera", 1.0)
    robot.read()
    assert robot.mirror.camera_frozen
    np.testing.assert_allclose(robot.mirror.data.qpos[:7], robot.read().joints, atol=0.05)
    with pytest.raises(RobotError, match="unknown fault"):
        robot.inject("earthquake", 1.0)


def test_silence_trips_its_watchdog_and_only_a_clear_ends_that(brisk: Server) -> None:
    robot = patient(brisk.address)
    robot.connect()
    robot.reset(3)
    drive(robot, [0.0, 0.8, 0.0, 0.0], 0.4)
    time.sleep(0.9)
    with pytest.raises(RobotError, match="watchdog"):
        robot.read()
    robot.apply(np.array([0.0, 0.8, 0.0, 0.0]))
    with pytest.raises(RobotError, match="watchdog"):
        robot.read()
    robot.clear()
    start = robot.read().tool_position
    drive(robot, [0.0, 0.8, 0.0, 0.0], 0.3)
    assert robot.read().tool_position[1] - start[1] > 0.01
    robot.close()
    report = brisk.report()
    trips = report["watchdog_trips"]
    assert isinstance(trips, list)
    assert 500 <= trips[0]["after_ms"] < 1500
    assert 500 <= trips[0]["standstill_ms"] < 2000
    assert report["counts"] == {"while_stopped": 1}, "that command came while it stood"


def test_what_was_decided_before_its_process_hung_is_not_done(brisk: Server) -> None:
    """Stopped between reading and command: the watchdog has stopped the robot meanwhile, the old decision is late, no violation."""
    robot = patient(brisk.address)
    robot.connect()
    robot.reset(3)
    drive(robot, [0.0, 0.8, 0.0, 0.0], 0.3)
    robot.read()
    time.sleep(0.9)
    with pytest.raises(RobotError, match="a command lives"):
        robot.apply(np.array([0.0, 0.8, 0.0, 0.0]))
    with pytest.raises(RobotError, match="watchdog"):
        robot.read()
    robot.close()
    report = brisk.report()
    assert report["counts"] == {"late": 1}
    assert report["violations"] == 0


def _twice(link: _Link) -> Iterator[Snapshot]:
    for _ in range(2):
        snapshot = link.ask(Request(op="read"), 1.0).snapshot
        assert snapshot is not None
        yield snapshot
        time.sleep(0.15)


def test_command_that_a_stop_has_overtaken_is_no_violation_and_moves_nothing(server: Server, robot: RemoteSimRobot) -> None:
    robot.reset(3)
    drive(robot, [0.0, 0.8, 0.0, 0.0], 0.3)
    robot.read()
    with contextlib.closing(_Link(server.address)) as other:
        other.ask(Request(op="stop"), 1.0)  # anyone may; this driver does not know
    robot.apply(np.array([0.0, 0.8, 0.0, 0.0]))
    time.sleep(0.2)
    with contextlib.closing(_Link(server.address)) as other:
        stood, later = (np.array(snapshot.tool_position) for snapshot in _twice(other))
    assert np.linalg.norm(later - stood) < 0.002
    with pytest.raises(RobotError, match="not by this bridge"):
        robot.read()
    robot.apply(np.array([0.0, 0.8, 0.0, 0.0]))  # and now it knew
    report = server.report()
    assert report["counts"] == {"overtaken": 1, "while_stopped": 1}
    assert report["violations"] == 1


def test_stop_goes_another_way_and_holds(robot: RemoteSimRobot) -> None:
    robot.reset(3)
    drive(robot, [0.0, 0.8, 0.0, 0.0], 0.3)
    robot.stop()
    time.sleep(0.2)
    stood = robot.read().tool_position
    drive(robot, [0.0, 0.8, 0.0, 0.0], 0.3)
    assert np.linalg.norm(robot.read().tool_position - stood) < 0.002


def test_a_new_session_makes_the_old_one_a_stranger(server: Server, robot: RemoteSimRobot) -> None:
    other = RemoteSimRobot("peg-insert", server.address)
    other.connect()
    with pytest.raises(RobotError, match="another session"):
        robot.apply(np.zeros(4))
    other.apply(np.zeros(4))
    other.close()


def test_a_robot_that_is_driven_has_one_commander(server: Server, robot: RemoteSimRobot) -> None:
    """Nobody takes it over while commands come, or resets it; who asks may still read and stop."""
    other = RemoteSimRobot("peg-insert", server.address)
    drive(robot, [0.0, 0.0, 0.0, 0.0], 0.2)
    with pytest.raises(RobotError, match="another bridge drives"):
        other.connect()
    with pytest.raises(RobotError, match="another session"):
        other.reset(1)
    other.read()
    other.stop()
    robot.clear()
    robot.apply(np.zeros(4))
    time.sleep(PATIENT_S + 0.3)  # the watchdog has let go of it
    other.connect()
    other.close()
    counts = server.report()["counts"]
    assert counts == {"second_commander": 1, "foreign_session": 1}


def in_process(tmp_path: Path) -> tuple[SimServer, Callable[[float], None]]:
    """A server without its threads, and how to send it a command of that age (s)."""
    server = SimServer(SimRobot("pick-lift"), str(tmp_path / "s"))
    session = server._answer(Request(op="hello")).session
    seq = itertools.count()

    def command(age_s: float) -> None:
        sent = time.monotonic_ns() - int(age_s * 1e9)
        error = server._answer(Request(op="command", session=session, seq=next(seq), t_ns=sent, action=[1.0, 1.0, 1.0, 0.0, 0.0])).error
        if error:
            raise RobotError(error)

    return server, command


def tripped(tmp_path: Path) -> tuple[SimServer, Callable[[float], None]]:
    """A server whose watchdog has just begun to decelerate."""
    server, command = in_process(tmp_path)
    command(0.0)
    server._step()
    server._fed_ns -= 10**9
    server._step()
    assert server._latched == "watchdog"
    assert np.abs(server._action).max() > 0.1, "still decelerating"
    return server, command


def test_a_session_begun_while_it_decelerates_inherits_no_motion(tmp_path: Path) -> None:
    """With what was left of the old motion, and a watchdog that waits for the first command, it would run on for ever."""
    server, _ = tripped(tmp_path)
    server._answer(Request(op="hello"))
    for _ in range(10):
        server._step()
    position = server.robot.read().tool_position
    for _ in range(10):
        server._step()
    assert np.linalg.norm(server.robot.read().tool_position - position) < 0.001
    server.close()


def test_the_time_to_standstill_is_counted_from_the_silence(tmp_path: Path) -> None:
    """Not from the commands of a bridge that is back before it stands, and does not know yet."""
    server, command = tripped(tmp_path)
    silent_since = server._silent_since_ns
    command(0.0)
    for _ in range(20):
        server._step()
    assert not server._action.any()
    assert 1000.0 < server.monitor.trips[0]["standstill_ms"] <= (time.monotonic_ns() - silent_since) / 1e6
    server.close()


@pytest.mark.parametrize("age_s", [0.3, 1e6, -1.0])
def test_a_command_that_waited_is_not_executed(tmp_path: Path, age_s: float) -> None:
    """It lay in the socket of a server that hung, or its time cannot be."""
    server, command = in_process(tmp_path)
    with pytest.raises(RobotError, match="a command lives"):
        command(age_s)
    assert not server._action.any()
    assert server.monitor.counts == {"late": 1}
    command(0.01)
    server.close()


def test_a_server_that_dribbles_does_not_outlast_the_deadline(tmp_path: Path) -> None:
    """Each byte within its own timeout, the answer never: the control thread waits for the deadline and no longer."""
    address = str(tmp_path / "slow")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(1)

        def dribble() -> None:
            stream, _ = listener.accept()
            with stream, contextlib.suppress(OSError):
                for byte in struct.pack(">I", 1000) + bytes(60):
                    stream.sendall(bytes([byte]))
                    time.sleep(0.05)

        threading.Thread(target=dribble, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(RobotError, match="in time"):
            _Link(address).ask(Request(op="read"), 0.1)
        assert time.monotonic() - began < 1.0


def test_a_frozen_server_is_noticed_and_a_new_one_is_found(server: Server, robot: RemoteSimRobot, tmp_path: Path) -> None:
    robot.read()
    robot._deadline_s = RemoteSimRobot("peg-insert", server.address)._deadline_s
    assert robot._deadline_s == 2 * PERIOD_S
    os.kill(server.process.pid, signal.SIGSTOP)
    status = Path(f"/proc/{server.process.pid}/stat")
    deadline = time.monotonic() + 5.0
    while status.read_text().rsplit(")", 1)[1].split()[0] != "T":
        assert time.monotonic() < deadline
    asked = time.monotonic()
    with pytest.raises(RobotError, match="did not answer in time"):
        robot.read()
    assert time.monotonic() - asked < 2 * PERIOD_S + 0.5
    os.kill(server.process.pid, signal.SIGCONT)
    server.close()
    with pytest.raises(RobotError, match="is not there"):
        robot.read()
    again = Server(tmp_path, address=server.address)
    try:
        robot.connect()
        robot.read()
    finally:
        again.close()


def test_what_cannot_be_is_refused_and_counted(server: Server, robot: RemoteSimRobot) -> None:
    link = _Link(server.address)
    session = link.ask(Request(op="hello"), 1.0).session
    start = robot.read().tool_position.tolist()
    for seq, action in enumerate([[math.nan, 0.0, 0.0, 0.0], [0.0] * 7, [3.0, 0.0, 0.0, 0.0]]):
        with pytest.raises(RobotError, match="not what this robot can execute"):
            link.ask(Request(op="command", session=session, seq=seq, t_ns=time.monotonic_ns(), action=action), 1.0)
    with pytest.raises(RobotError, match="old sequence"):
        link.ask(Request(op="command", session=session, seq=1, t_ns=time.monotonic_ns(), action=[0.0] * 4), 1.0)
    time.sleep(0.2)
    assert np.linalg.norm(np.subtract(robot.read().tool_position, start)) < 0.002
    link.close()
    counts = server.report()["counts"]
    assert isinstance(counts, dict)
    assert counts["not_finite"] == counts["shape"] == counts["range"] == counts["old_sequence"] == 1


@pytest.mark.parametrize(
    "junk", [b"\xff\xff\xff\xff", struct.pack(">I", 4) + b"\xc1\xc1\xc1\xc1", b"\x00", struct.pack(">I", 2) + b"\x91" * 2]
)
def test_junk_ends_the_connection_and_nothing_else(server: Server, robot: RemoteSimRobot, junk: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(server.address)
        stream.sendall(junk)
        stream.settimeout(0.3)
        if junk != b"\x00":
            assert stream.recv(10) == b""
    robot.read()


@pytest.mark.parametrize("address", ["", "here", "10.0.0.1:5000", "127.0.0.1:x", "127.0.0.1:70000"])
def test_addresses_that_are_none_or_would_be_open_to_others(address: str) -> None:
    with pytest.raises(RobotError, match="address"):
        RemoteSimRobot("peg-insert", address)


def test_another_task_or_other_parameters_are_refused(server: Server) -> None:
    with pytest.raises(RobotError, match="peg-insert"):
        RemoteSimRobot("pick-lift", server.address).connect()
    with pytest.raises(RobotError, match="parameters"):
        RemoteSimRobot("peg-insert", server.address, {"clearance_m": 0.0021}).connect()


def test_tcp_on_loopback(tmp_path: Path) -> None:
    server = Server(tmp_path, address="127.0.0.1:0")
    try:
        robot = RemoteSimRobot("peg-insert", server.address)
        robot.connect()
        assert robot.read().observation.size == robot.spec.observation.size
        robot.close()
    finally:
        server.close()


BOUNDS = Bounds((0.01, 0.01, 0.01, 0.1), (0, 1, 2), 0.05, (-0.1, -0.1, 0.0), (0.1, 0.1, 0.2), max_step_m=0.012, max_speed_m_s=0.22)


@pytest.mark.parametrize(
    ("actions", "position", "found"),
    [
        ([[0.5, 0.5, 0.0, 0.0], [0.6, 0.5, 0.0, 0.0]], (0.0, 0.0, 0.1), set()),
        ([[0.9, 0.9, 0.0, 0.0]], (0.0, 0.0, 0.1), {"step", "speed"}),
        ([[1.1, 0.0, 0.0, 0.0]], (0.0, 0.0, 0.1), {"range"}),
        ([["x", 0.0, 0.0, 0.0]], (0.0, 0.0, 0.1), {"shape"}),
        ([[math.inf, 0.0, 0.0, 0.0]], (0.0, 0.0, 0.1), {"not_finite"}),
        ([[0.5, 0.0, 0.0, 0.0]], (0.13, 0.0, 0.1), {"outside"}),
        ([[-0.5, 0.0, 0.0, 0.0]], (0.13, 0.0, 0.1), set()),
    ],
)
def test_the_monitor_judges(actions: list[list[object]], position: tuple[float, ...], found: set[str]) -> None:
    monitor = Monitor(BOUNDS)
    for action in actions:
        monitor.command(action, position, stopped=False)
    assert set(monitor.counts) == found
    assert monitor.violations == sum(monitor.counts.values())


def test_the_monitor_judges_acceleration_standstill_and_gaps() -> None:
    monitor = Monitor(Bounds((0.01, 0.01, 0.01), (0, 1, 2), 0.05, (-1, -1, -1), (1, 1, 1), max_acceleration_m_s2=3.0))
    monitor.command([0.5, 0.0, 0.0], (0, 0, 0), stopped=False, now_ns=1)
    monitor.command([-0.5, 0.0, 0.0], (0, 0, 0), stopped=False, now_ns=80_000_001)
    assert set(monitor.counts) == {"acceleration"}
    monitor.standstill()
    monitor.command([0.5, 0.0, 0.0], (0, 0, 0), stopped=False, now_ns=100_000_001)
    assert monitor.counts == {"acceleration": 1}
    monitor.command([0.1, 0.0, 0.0], (0, 0, 0), stopped=True, now_ns=100_000_002)
    assert monitor.counts["while_stopped"] == 1
    assert monitor.report()["gap_ms"]["max"] == 80.0


def test_a_bad_frame_length_is_refused_before_it_is_read() -> None:
    one, two = socket.socketpair()
    with one, two:
        one.sendall(struct.pack(">I", sim_wire.MAX_FRAME_BYTES + 1))
        with pytest.raises(ConnectionError, match="limit"):
            sim_wire.receive(two)


def test_nothing_moves_before_the_first_command(robot: RemoteSimRobot) -> None:
    start = robot.read().tool_position
    time.sleep(0.4)
    assert np.linalg.norm(robot.read().tool_position - start) < 0.001
