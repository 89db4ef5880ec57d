"""What the driver of the simulator server does not believe, and what the link does not carry: one refusal at a time."""

import itertools
import math
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np
import pytest
from msgspec import structs

from takeover.data.schema import ControlEnvelope, Hold, HoldReason, Mode, Role
from takeover.robot_bridge.protocol import BadMessage, Codec, ControlClient, Endpoints, KeyFolder, KeyProblem, KeyRefused, Pull
from takeover.robot_bridge.robots import sim_wire
from takeover.robot_bridge.robots.base import Reading, RobotError
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.robots.sim_camera_geometry import project
from takeover.robot_bridge.robots.sim_remote import RemoteSimRobot
from takeover.robot_bridge.robots.sim_server import SimServer
from takeover.robot_bridge.robots.sim_wire import MAX_FRAME_BYTES, Request, ServerReply

from .by_hand import by_hand


class Direct:
    """In the link's place: asks the server without a socket; ``change`` is done to its answers."""

    def __init__(self, server: SimServer) -> None:
        self.server = server
        self.change: dict[str, Any] = {}
        self.snapshot: dict[str, Any] = {}

    def ask(self, request: Request, timeout_s: float) -> ServerReply:
        reply = self.server._answer(request)
        if reply.error:
            raise RobotError(reply.error)
        if reply.snapshot is not None and self.snapshot:
            reply = structs.replace(reply, snapshot=structs.replace(reply.snapshot, **self.snapshot))
        return structs.replace(reply, **self.change)

    def close(self) -> None:
        pass


@pytest.fixture
def driven(tmp_path: Path) -> Iterator[tuple[RemoteSimRobot, Direct]]:
    server = SimServer(SimRobot("peg-insert"), str(tmp_path / "s"), 1.0)
    robot = RemoteSimRobot("peg-insert", str(tmp_path / "s"))
    link: Any = Direct(server)
    robot._link = robot._stop_link = link
    yield robot, link
    robot.close()
    server.close()


# --- the driver ---


def test_an_address_is_needed() -> None:
    with pytest.raises(RobotError, match="robot sim-server needs an address: --robot-address"):
        RemoteSimRobot("peg-insert", "")


@pytest.mark.parametrize("other", ["no spec", "task", "action", "parameters"])
def test_a_server_with_another_robot_is_refused(driven: tuple[RemoteSimRobot, Direct], other: str) -> None:
    robot, link = driven
    robot.connect()
    spec = robot.spec
    link.change = {
        "no spec": {"spec": None},
        "task": {"spec": structs.replace(spec, task_id="pick-lift")},
        "action": {"spec": structs.replace(spec, action=structs.replace(spec.action, scale=[2.0] * 4))},
        "parameters": {"parameters": {"friction": 0.1}},
    }[other]
    with pytest.raises(RobotError, match="other task parameters" if other == "parameters" else "start both with the same task"):
        robot.connect()


@pytest.mark.parametrize(
    ("watchdog_s", "counts"), [(0.05, True), (0.15, True), (0.16, False), (1.0, False), (0.0, False), (math.nan, False)]
)
def test_a_watchdog_that_waits_longer_than_a_command_lives_counts_as_none(
    driven: tuple[RemoteSimRobot, Direct], watchdog_s: float, counts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    robot, link = driven
    assert not robot.spec.has_watchdog, "it has not said yet"
    link.change = {"watchdog_s": watchdog_s}
    for _ in range(2):
        robot.connect()
        assert robot.spec.has_watchdog is counts
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (not counts), "once"
    assert counts or f"waits {watchdog_s:g} s, a command lives 0.15 s: start it with --watchdog-s 0.15 or less" in said[0]


def test_a_server_that_comes_back_with_a_slower_watchdog_is_refused(driven: tuple[RemoteSimRobot, Direct]) -> None:
    """The bridge has told everybody, and drives at full speed."""
    robot, link = driven
    link.change = {"watchdog_s": 0.15}
    robot.connect()
    link.change = {"watchdog_s": 0.5}
    for again in (robot.connect, robot.clear):
        with pytest.raises(RobotError, match=r"come back slower to stop: its watchdog waits 0\.5 s, a command lives 0\.15 s"):
            again()
    link.change = {"watchdog_s": 0.1}
    robot.connect()


def test_nothing_is_known_before_it_was_read_or_without_a_reading(driven: tuple[RemoteSimRobot, Direct]) -> None:
    robot, link = driven
    robot.connect()
    for ask in (robot.save, robot.evaluate, robot.advice):
        with pytest.raises(RobotError, match="was not read yet"):
            ask()
    link.change = {"snapshot": None}
    with pytest.raises(RobotError, match="answered without a reading"):
        robot.read()


def test_a_robot_that_stands_for_a_reason_not_this_bridges_is_no_robot_to_drive(driven: tuple[RemoteSimRobot, Direct]) -> None:
    robot, link = driven
    robot.connect()
    link.snapshot = {"stopped": "watchdog"}
    with pytest.raises(RobotError, match="own watchdog has stopped it"):
        robot.read()
    link.snapshot = {"stopped": "stop"}
    with pytest.raises(RobotError, match="not by this bridge now"):
        robot.read()
    robot.stop()
    robot.read()  # of its own stop it knows
    link.snapshot = {}
    robot.clear()
    assert robot.read().joints is not None


def test_everything_the_robot_tells_crosses_the_link(tmp_path: Path) -> None:
    server = SimServer(SimRobot("pick-lift"), str(tmp_path / "s"), 1.0)
    robot = RemoteSimRobot("pick-lift", str(tmp_path / "s"))
    link: Any = Direct(server)
    robot._link = robot._stop_link = link
    robot.connect()
    robot.apply(np.array([0.0, 0.5, 0.0, 0.0, -1.0]))
    with server._lock:
        for _ in range(3):
            server._step()
    theirs, ours = server.robot.read(), robot.read()
    assert theirs.gripper_force_n > 0.05, "it closes"
    for field in fields(Reading):
        if field.name != "t_ns":
            np.testing.assert_array_equal(getattr(ours, field.name), getattr(theirs, field.name), field.name)
    robot.close()
    server.close()


def test_a_server_whose_physics_stand_gives_old_readings(driven: tuple[RemoteSimRobot, Direct], tmp_path: Path) -> None:
    robot, link = driven
    robot.connect()
    first = robot.read().t_ns
    assert robot.read().t_ns == first, "answered anew, not measured anew"
    with link.server._lock:
        link.server._step()
    second = robot.read().t_ns
    assert second > first
    robot.reset(3)  # takes its time, in which the server's clock stands
    third = robot.read().t_ns
    assert third > second
    robot.restore(robot.save())
    assert robot.read().t_ns > third


def test_a_bridge_does_not_drive_by_a_server_whose_physics_stand(driven: tuple[RemoteSimRobot, Direct], tmp_path: Path) -> None:
    robot, link = driven
    robot.connect()
    with by_hand(tmp_path / "bridge", robot=robot) as hand:
        stands = False
        ask = link.ask

        def stepped(request: Request, timeout_s: float) -> ServerReply:
            if request.op == "read" and not stands:
                with link.server._lock:
                    link.server._step()
            return ask(request, timeout_s)

        link.ask = stepped  # type: ignore[method-assign]
        hand.run()
        stands = True
        hand.tick()
        assert hand.mode is Mode.POLICY, "read twice in one period of its"
        robot._tick_ns -= int(2.1 * hand.control.period_s * 1e9)
        hand.tick()
        assert (hand.mode, hand.control.mode.reason) == (Mode.HOLD, HoldReason.ROBOT_FAULT)
        times = [step.t_observation_ns for step in hand.steps]
        assert times == sorted(set(times)), "they increase"


def test_what_the_server_refuses_is_no_answer(tmp_path: Path) -> None:
    server = SimServer(SimRobot("peg-insert"), str(tmp_path / "s"), 1.0)
    robot = RemoteSimRobot("peg-insert", str(tmp_path / "s"))
    ours, theirs = socket.socketpair()
    try:
        robot._link._stream = ours
        sim_wire.send(theirs, robot._link._encoder.encode(ServerReply(error="another bridge drives")))
        with pytest.raises(RobotError, match="simulator server: another bridge drives"):
            robot._link.ask(Request(op="read"), 1.0)
    finally:
        theirs.close()
        robot.close()
        server.close()


# --- the link ---


@pytest.mark.parametrize("address", ["7000", "localhost:", "localhost:x", "localhost:70000", "localhost:-1", "relative/path"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(RobotError, match="expected HOST:PORT or the absolute path"):
        sim_wire.parse_address(address)


@pytest.mark.parametrize("address", ["192.168.0.7:7000", "0.0.0.0:7000", "example.org:7000", ":7000", "1127.0.0.1:7000"])
def test_addresses_that_others_could_reach(address: str) -> None:
    with pytest.raises(RobotError, match="neither encrypted nor authenticated"):
        sim_wire.parse_address(address)


def test_frames_have_a_size_an_end_and_a_deadline() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(struct.pack(">I", MAX_FRAME_BYTES + 1))
        with pytest.raises(ConnectionError, match=f"frame of {MAX_FRAME_BYTES + 1} bytes"):
            sim_wire.receive(ours, time.monotonic() + 1.0)
        theirs.sendall(struct.pack(">I", 4) + b"ab")
        with pytest.raises(TimeoutError, match="no whole answer in time"):
            sim_wire.receive(ours, time.monotonic() - 1.0)
        assert sim_wire._exactly(ours, 4, None) == struct.pack(">I", 4)
        theirs.close()
        with pytest.raises(ConnectionError, match="closed the connection"):
            sim_wire._exactly(ours, 4, time.monotonic() + 1.0)


# --- the simulator ---


@pytest.mark.parametrize("harm", ["position", "velocity", "acceleration", "after the last step"])
def test_a_simulation_that_blew_up_is_said(harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo starts anew by itself, in another pose, and only counts a warning."""
    monkeypatch.chdir(tmp_path)  # it writes a log where it is
    robot = SimRobot("peg-insert")
    robot.reset(3)
    if harm == "position":
        robot.data.qpos[0] = np.nan
    elif harm == "velocity":
        robot.data.qvel[0] = 1e12
    elif harm == "acceleration":
        robot.data.qfrc_applied[0] = 1e15
    else:
        step, made = mujoco.mj_step, itertools.count(1)

        def blows_up(model: mujoco.MjModel, data: mujoco.MjData, nstep: int) -> None:
            step(model, data, nstep=nstep)
            if next(made) == robot._blocks:  # the steps of this period are over: MuJoCo would notice in the next one
                data.qpos[0] = np.inf

        monkeypatch.setattr(mujoco, "mj_step", blows_up)
    robot.apply(np.zeros(4))
    with pytest.raises(RobotError, match="became unstable; reset it"):
        robot.advance()


def test_a_start_that_is_out_of_reach_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    robot = SimRobot("peg-insert")
    variables, start = robot.task.draw(np.random.default_rng(0), robot.parameters)
    monkeypatch.setattr(robot.task, "draw", lambda *_: (variables, start + np.array([5.0, 0.0, 0.0, 0.0])))
    with pytest.raises(RobotError, match=r"cannot reach the start pose .* of seed 3"):
        robot.reset(3)


def test_only_the_front_camera_and_what_it_sees_can_be_projected_to() -> None:
    with pytest.raises(ValueError, match="only 'front' has a fixed pose"):
        project("wrist", (0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="lies behind the front camera"):
        project("front", (0.0, -50.0, 50.0))


# --- messages and keys ---


def test_a_message_of_another_stream_is_none(tmp_path: Path) -> None:
    endpoints = Endpoints(tmp_path)
    endpoints.prepare()
    with Pull[ControlEnvelope](endpoints, "command", ControlEnvelope) as pull:
        frame = Codec[Any](ControlEnvelope).encode(ControlEnvelope(request_id=1, request=Hold(sender="x")))
        with pytest.raises(BadMessage, match="expected topic 'command'"):
            pull._unframe(b"control\0" + frame)
        assert pull._unframe(b"command\0" + frame).request_id == 1


def test_a_client_says_that_its_key_was_refused(tmp_path: Path) -> None:
    client = ControlClient(Endpoints(tmp_path), "console", Role.OPERATOR)
    try:
        dealer: Any = SimpleNamespace(
            refusal=lambda: "tcp://h: it does not admit this key",
            writable=lambda _: False,
            send=lambda _: False,
            close=client._dealer.close,
        )
        client._dealer = dealer
        with pytest.raises(KeyRefused, match="does not admit this key"):
            client.ask(Hold(sender="console"), 0.05)
    finally:
        client.close()


def test_who_is_not_admitted_cannot_be_revoked(tmp_path: Path) -> None:
    with pytest.raises(KeyProblem, match="'desk' is not admitted; admitted: nobody"):
        KeyFolder(tmp_path / "keys").revoke("desk")
