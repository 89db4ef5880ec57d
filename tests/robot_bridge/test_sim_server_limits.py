"""Every refusal and timeout of the simulator server alone: the server without its threads, stepped by the test."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from takeover.robot_bridge.robots import sim_server, sim_wire
from takeover.robot_bridge.robots.base import RobotError
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.robots.sim_server import SimServer
from takeover.robot_bridge.robots.sim_wire import Request, ServerReply

SECOND = 1_000_000_000


class Held:
    """A server and the session that commands it."""

    def __init__(self, folder: Path) -> None:
        self.server = SimServer(SimRobot("pick-lift"), str(folder / "s"), 1.0)
        self.seq = 0
        self.session = self.ask(op="hello").session

    def ask(self, **fields: Any) -> ServerReply:
        return self.server._answer(Request(**fields))

    def command(self, x: float = 1.0, age_s: float = 0.0, **changes: Any) -> str:
        self.seq += 1
        fields: dict[str, Any] = {"session": self.session, "seq": self.seq, "action": [x, x, x, 0.0, 0.0]}
        return self.ask(op="command", t_ns=time.monotonic_ns() - int(age_s * SECOND), **(fields | changes)).error

    def silent(self, seconds: float) -> None:
        self.server._fed_ns -= int(seconds * SECOND)

    @property
    def speed(self) -> float:
        return float(np.abs(self.server._action).max())

    @property
    def counts(self) -> dict[str, int]:
        return self.server.monitor.counts


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    made = Held(tmp_path)
    yield made
    made.server.close()


@pytest.mark.parametrize("watchdog_s", [0.0, 0.04, 1.1, float("nan"), float("inf")])
def test_the_watchdog_cannot_be_switched_off(tmp_path: Path, watchdog_s: float) -> None:
    with pytest.raises(RobotError, match=r"allowed 0\.05 to 1 s"):
        SimServer(SimRobot("peg-insert"), str(tmp_path / "s"), watchdog_s)


def test_silence_decelerates_stands_and_latches(held: Held) -> None:
    assert held.command() == ""
    held.silent(0.5)
    held.server._step()
    assert held.server._latched == ""
    held.silent(0.5)
    held.server._step()
    assert held.server._latched == "watchdog"
    speeds = [held.speed]
    for _ in range(10):
        held.server._step()
        speeds.append(held.speed)
    assert 0.0 < speeds[0] < 1.0, "not at once"
    assert speeds == sorted(speeds, reverse=True)
    assert speeds[-1] == 0.0
    assert len(held.server.monitor.trips) == 1
    assert held.command() == ""
    held.server._step()
    assert held.speed == 0.0, "only a clear ends it"
    assert held.counts == {"while_stopped": 1}


def test_rotation_stops_at_once(held: Held) -> None:
    assert held.command(action=[1.0, 1.0, 1.0, 1.0, 0.0]) == ""
    held.silent(1.1)
    held.server._step()
    assert held.server._action[3] == 0.0
    assert held.server._action[0] > 0.0


def test_one_commander(held: Held) -> None:
    assert held.command() == ""
    assert "another bridge drives" in held.ask(op="hello").error
    assert held.ask(op="hello", session=held.session).error == "", "itself may begin anew"
    held.session = held.server._session
    for op in ("command", "reset", "restore", "inject"):
        assert "another session" in held.ask(op=op, session="foreign", t_ns=time.monotonic_ns(), action=[0.0] * 5, seq=99).error
    assert held.counts == {"second_commander": 1, "foreign_session": 4}
    held.seq = 0
    assert held.command() == ""
    held.silent(1.1)
    assert held.ask(op="hello").error == "", "who fell silent drives no more"
    assert "another session" in held.command()


def test_stop_is_anybodys_and_latches(held: Held) -> None:
    assert held.command() == ""
    assert held.ask(op="stop").error == ""
    assert held.speed == 0.0
    assert held.command() == ""
    assert held.speed == 0.0
    held.session = held.ask(op="hello").session
    held.seq = 0
    assert held.command() == ""
    assert held.speed == 1.0


def test_a_command_from_before_a_stop_does_not_count(held: Held) -> None:
    assert held.command() == ""
    assert held.ask(op="stop").error == ""
    assert held.command(age_s=0.5) == "", "its sender could not know"
    assert held.counts == {"overtaken": 1}
    assert held.command() == ""
    assert held.counts == {"overtaken": 1, "while_stopped": 1}
    assert held.speed == 0.0


def test_a_new_session_inherits_nothing(held: Held) -> None:
    assert held.command() == ""
    held.silent(1.1)
    held.server._step()
    assert held.speed > 0.0
    held.session = held.ask(op="hello").session
    assert held.speed == 0.0
    assert held.command(seq=0) == "", "numbers begin anew"


@pytest.mark.parametrize("op", ["reset", "restore"])
def test_a_new_start_state_stands(held: Held, op: str) -> None:
    assert held.command() == ""
    assert held.ask(op=op, session=held.session, seed=1, state=held.server.robot.save()).error == ""
    assert held.speed == 0.0
    assert held.server._fed_ns == 0, "nothing is awaited before the first command"


@pytest.mark.parametrize(
    ("change", "why", "count"),
    [
        ({"seq": 1}, "old sequence", "old_sequence"),
        ({"seq": 0}, "old sequence", "old_sequence"),
        ({"age_s": 1.1}, "a command lives", "late"),
        ({"age_s": -1.0}, "a command lives", "late"),
        ({"action": [float("nan"), 0.0, 0.0, 0.0, 0.0]}, "not what this robot", "not_finite"),
        ({"action": [0.0] * 3}, "not what this robot", "shape"),
        ({"action": [1.5, 0.0, 0.0, 0.0, 0.0]}, "not what this robot", "range"),
    ],
)
def test_commands_that_are_not_executed(held: Held, change: dict[str, Any], why: str, count: str) -> None:
    assert held.command() == ""
    fed = held.server._fed_ns
    assert why in held.command(**({"x": 0.5} | change))
    assert held.speed == 1.0
    assert held.server._fed_ns == fed, "and they do not feed the watchdog"
    assert held.counts[count] == 1


def test_connections_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim_server, "MAX_CONNECTIONS", 2)
    server = SimServer(SimRobot("peg-insert"), str(tmp_path / "s"))
    threading.Thread(target=server._accept, daemon=True).start()
    streams = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    try:
        for stream in streams:
            stream.settimeout(5.0)
            stream.connect(str(tmp_path / "s"))
        assert streams[2].recv(1) == b"", "closed at once"
        sim_wire.send(streams[0], b"\xc1")
        assert streams[0].recv(1) == b"", "junk ends its connection"
    finally:
        for stream in streams:
            stream.close()
        server.close()
    assert (tmp_path / "s").exists() is False


def test_the_socket_is_its_owners(held: Held) -> None:
    assert held.server._path is not None
    assert held.server._path.stat().st_mode & 0o777 == 0o600
