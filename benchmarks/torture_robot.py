"""The robot of `benchmarks.torture`: a simulator server that can be killed, and what the monitors of all of them have seen."""

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from takeover.robot_bridge.robots.sim_remote import _Link
from takeover.robot_bridge.robots.sim_wire import Request
from tests.robot_bridge.test_sim_server import Server

MONITOR_S = 5.0


def joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What two monitors have seen, one after the other: what `benchmarks.torture` counts and lists."""
    return {
        "commands": one.get("commands", 0) + other.get("commands", 0),
        "violations": one.get("violations", 0) + other.get("violations", 0),
        "counts": dict(Counter(one.get("counts", {})) + Counter(other.get("counts", {}))),
        "first": [*one.get("first", []), *other.get("first", [])],
        "watchdog_trips": [*one.get("watchdog_trips", []), *other.get("watchdog_trips", [])],
    }


class TortureRobot:
    """Always one simulator server on one address. One thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = Server(folder)
        self.address = self._server.address
        self._link = _Link(self.address)
        self._before: dict[str, Any] = {}  # what the monitors of those that were killed had seen

    @property
    def pid(self) -> int:
        return self._server.process.pid

    def monitor(self) -> dict[str, Any]:
        """Since the first server began: a new one's own counts begin anew. Raises `RobotError` when it does not answer."""
        report = self._link.ask(Request(op="monitor"), MONITOR_S).monitor
        if report is None:
            raise RuntimeError("the simulator server did not say what its monitor saw")
        return joined(self._before, report)

    def kill(self) -> int:
        """SIGKILL; returns when (ns). A command in the moment between the monitor's last word and the signal is not counted."""
        self._before = self.monitor()
        killed_ns = time.monotonic_ns()
        os.kill(self.pid, signal.SIGKILL)
        self._server.process.wait(10)
        self._link.close()
        return killed_ns

    def start(self) -> None:
        """Another server in the place of the one that was killed, as soon as it listens."""
        self._server = Server(self._folder, address=self.address)

    def close(self) -> None:
        self._link.close()
        self._server.close()
