"""`takeover bridge` and the other single processes: for another computer, a debugger, or a supervisor of one's own."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import tyro

from takeover.app.commands.keys import keys_folder
from takeover.app.commands.options import StationOptions, make_config
from takeover.app.launcher import RUN_FILE
from takeover.app.processes.common import StartupError, run_process
from takeover.robot_bridge.protocol import EndpointError, Endpoints, KeyProblem, LinkProblem, check_link


@dataclass(frozen=True)
class ProcessOptions(StationOptions):
    config: Annotated[str, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = ""
    """Run configuration of a station that is already running (`run.json` in its socket folder); the other options are then not used."""
    operator: Literal["scripted", "console", "none"] = "console"
    clock: Literal["realtime", "lockstep"] = "realtime"
    sockets: Annotated[str, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = ""
    """Folder of the sockets, made if it is not there; an existing one must be yours alone (default: a new one; its path is printed)."""


@dataclass(frozen=True)
class Bridge(ProcessOptions):
    """One process: the robot, its clock, mode, authority and safety."""

    listen: Annotated[str, tyro.conf.arg(metavar="tcp://HOST:PORT", help_behavior_hint="")] = ""
    """Let other computers reach it, with keys only (docs/remote.md): HOST is an address of this computer, or *."""


@dataclass(frozen=True)
class Actor(ProcessOptions):
    """One process: the policy; observation in, action out."""


@dataclass(frozen=True)
class Recorder(ProcessOptions):
    """One process: journal, episode files, catalog."""


@dataclass(frozen=True)
class Learner(ProcessOptions):
    """One process: trains on what was recorded and publishes weights."""


@dataclass(frozen=True)
class Evaluator(ProcessOptions):
    """One process: held-out evaluation in its own simulator."""


@dataclass(frozen=True)
class Operator(ProcessOptions):
    """One process: the scripted operator."""


def run_one(command: ProcessOptions) -> int:
    """Run the process that the command's class is named after, until SIGTERM or Ctrl+C."""
    name = type(command).__name__.lower()
    path = command.config or _write_config(command)
    main = importlib.import_module(f"takeover.app.processes.{name}").main
    return run_process(name, main, ["--config", str(path)])


def _write_config(command: ProcessOptions) -> Path:
    config = make_config(command, operator=command.operator, clock=command.clock)
    if isinstance(command, Bridge) and command.listen:
        keys = keys_folder(config.workspace).path
        try:
            check_link(command.listen, str(keys), listens=True)
        except (LinkProblem, KeyProblem) as error:
            raise StartupError(str(error)) from error
        config = msgspec.structs.replace(config, listen=command.listen, keys=str(keys), learner="none")
    if command.sockets:
        config = msgspec.structs.replace(config, sockets=str(Path(command.sockets).absolute()))
    try:
        Endpoints(config.sockets).prepare()
        path = Path(config.sockets) / RUN_FILE
        path.write_bytes(msgspec.json.format(msgspec.json.encode(config)))
    except EndpointError as error:
        raise StartupError(str(error)) from error
    except OSError as error:
        raise StartupError(f"cannot prepare the socket folder {config.sockets}: {error.strerror}") from error
    print(f"run configuration for the other processes: --config {path}", flush=True)
    return path
