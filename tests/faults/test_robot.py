"""Rows 7 and 8: the bridge dies or hangs while the robot moves. The robot is a process of its own with its own watchdog and monitor."""

import math
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from takeover.data.schema import EpisodeKind, HoldReason, Mode
from takeover.robot_bridge.robots.sim_remote import _Link
from takeover.robot_bridge.robots.sim_wire import Request
from tests.robot_bridge.station import Operator
from tests.robot_bridge.test_sim_server import Server

from .rig import PERIOD_MS, Rig, rig

Bound = Callable[[float, float, str], None]
WATCHDOG_MS = 150.0
STOP_MS = 150.0  # deceleration from 0.1 m/s, and the tool's impedance settling below 2 mm/s


class Hardware:
    """The robot's process and a bridge that drives it."""

    def __init__(self, server: Server, station: Rig) -> None:
        self.server, self.station = server, station
        self._link = _Link(server.address)

    def monitor(self) -> dict[str, Any]:
        report = self._link.ask(Request(op="monitor"), 1.0).monitor
        assert report is not None
        return report


@pytest.fixture(scope="module")
def hardware(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hardware]:
    folder: Path = tmp_path_factory.mktemp("r")
    server = Server(folder)
    try:
        with rig(robot="sim-server", robot_address=server.address) as station:
            yield Hardware(server, station)
    finally:
        server.close()


@pytest.fixture
def driving(hardware: Hardware) -> Iterator[Operator]:
    operator = hardware.station.operator()
    hardware.station.begin(operator, EpisodeKind.DEMONSTRATION)
    hardware.station.drive(operator, (0.0, -0.9, 0.0, 0.0))
    yield operator
    operator.close()
    hardware.station.launcher.wait_ready(60)
    hardware.station.end_block()


def trip(hardware: Hardware, number: int) -> dict[str, float]:
    """The watchdog's trip ``number``, when the robot stands."""
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        trips = hardware.monitor()["watchdog_trips"]
        if len(trips) > number and trips[number]["standstill_ms"] > 0:
            return dict(trips[number])
        time.sleep(0.02)
    raise AssertionError("the robot's watchdog did not stop it")


def test_row_07_bridge_killed(hardware: Hardware, driving: Operator, bound: Bound) -> None:
    before = len(hardware.monitor()["watchdog_trips"])
    restarts = hardware.station.launcher.restarts()["bridge"]
    hardware.station.kill("bridge", signal.SIGKILL)
    stopped = trip(hardware, before)
    bound(stopped["after_ms"], WATCHDOG_MS + PERIOD_MS, "ms")
    bound(stopped["standstill_ms"], WATCHDOG_MS + PERIOD_MS + STOP_MS, "ms")
    deadline = time.monotonic() + 30.0
    while hardware.station.launcher.restarts()["bridge"] == restarts:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["stopped", "control thread stuck"])
def test_row_08_bridge_hangs(hardware: Hardware, driving: Operator, bound: Bound, how: str) -> None:
    station = hardware.station
    before = len(hardware.monitor()["watchdog_trips"])
    fault = station.kill("bridge", signal.SIGSTOP) if how == "stopped" else station.hook("bridge", "stick", "control", 1.2)
    stopped = trip(hardware, before)
    bound(stopped["after_ms"], WATCHDOG_MS + PERIOD_MS, "ms")
    bound(stopped["standstill_ms"], WATCHDOG_MS + PERIOD_MS + STOP_MS, "ms")
    time.sleep(max(0.0, 1.0 - (time.monotonic_ns() - fault) / 1e9))
    assert time.monotonic_ns() - station.watch.states[-1][0] > 3e8, "the console sees that the heartbeat is gone"
    back = station.kill("bridge", signal.SIGCONT) if how == "stopped" else time.monotonic_ns()
    state = station.until(lambda s: s.t_ns > back and s.mode in (Mode.HOLD, Mode.OFFLINE, Mode.READY), "no motion when it is back", 10.0)
    assert state.mode is not Mode.TAKEOVER


def test_robot_gone_and_back(hardware: Hardware, driving: Operator) -> None:
    """The other way round: the robot's process hangs. Held, then offline; back by itself, and nothing drives before it is enabled."""
    station, process = hardware.station, hardware.server.process
    process.send_signal(signal.SIGSTOP)
    try:
        station.until(lambda s: s.mode is Mode.HOLD and s.hold_reason is HoldReason.ROBOT_FAULT, "held", 5.0)
        station.until(lambda s: s.mode is Mode.OFFLINE, "offline", 5.0)
    finally:
        process.send_signal(signal.SIGCONT)
    station.until(lambda s: s.mode is Mode.READY, "connected again", 10.0)


def test_what_reaches_the_robot_is_within_every_limit(hardware: Hardware) -> None:
    """Wild actions through arbitration and filter: the robot's own monitor, which shares no code with them, finds nothing to object to."""
    station = hardware.station
    chance = random.Random(1)
    wild = [0.0, 1.0, -1.0, 2.0, -3.0, 0.3, 1e-9, 1e300]
    actor = station.actor(lambda _: [chance.choice(wild) for _ in range(4)])
    operator = station.operator()
    before = hardware.monitor()
    station.begin(operator, EpisodeKind.POLICY)
    began = time.monotonic()
    while time.monotonic() - began < 4.0:
        state = station.watch.state
        if state is not None and state.mode is Mode.HOLD:
            station.ask_resume(operator)
        if chance.random() < 0.05:
            actor.act = lambda _: [math.nan] * 4
        else:
            actor.act = lambda _: [chance.choice(wild) for _ in range(4)]
        time.sleep(0.02)
    operator.close()
    station.end_block()
    after = hardware.monitor()
    assert after["commands"] > before["commands"] + 40
    assert after["violations"] == before["violations"], after["first"]
