"""`takeover sim-server`: the simulated robot as a process of its own, with its own clock, watchdog and monitor."""

import json
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from takeover.app.commands.options import known_robot, parse_parameters
from takeover.app.processes.common import StartupError
from takeover.robot_bridge.robots.base import RobotError


@dataclass(frozen=True)
class SimServer:
    """The simulated robot as a process of its own; drive it with `--robot sim-server --robot-address ADDRESS`."""

    robot: Annotated[str, tyro.conf.arg(metavar="NAME")] = "sim:peg-insert"
    """`sim:peg-insert`, `sim:pick-lift` or `sim:sort-two`."""
    address: Annotated[str, tyro.conf.arg(metavar="ADDRESS")] = "127.0.0.1:0"
    """HOST:PORT on this computer (port 0: any free one, printed), or the absolute path of a UNIX socket."""
    watchdog_s: Annotated[float, tyro.conf.arg(metavar="S")] = 0.15
    """Without a command for this long it stops by itself (0.05 to 1); with more than 0.15 a bridge drives it slowly."""
    report: Annotated[str, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = ""
    """Write the monitor's report there at the end (JSON)."""
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="task.NAME=VALUE", help_behavior_hint="")] = ()
    """Task parameters, as for the other commands."""


def sim_server(command: SimServer) -> int:
    """Serve until SIGTERM or Ctrl+C."""
    from takeover.robot_bridge.robots.sim import SimRobot
    from takeover.robot_bridge.robots.sim_server import SimServer as Server

    _, task = known_robot(command.robot, None)
    values = {name: float(value) for name, value in parse_parameters(command.set)["task"].items()}
    try:
        server = Server(SimRobot(task, values), command.address, command.watchdog_s)
    except RobotError as error:
        raise StartupError(str(error)) from error
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    print(f"sim-server: {task} on {server.address}", flush=True)
    try:
        server.run(stop.is_set)
    finally:
        server.close()
        text = json.dumps(server.monitor.report(), indent=1)
        if command.report:
            Path(command.report).write_text(text + "\n", encoding="utf-8")
        else:
            print(text, file=sys.stderr, flush=True)
    return 0
