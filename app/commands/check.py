"""`takeover bridge check` and `takeover actor check`: does a peer keep to the protocol? For those who write one, in any language."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from takeover.app.commands.keys import keys_folder
from takeover.app.commands.options import known_link
from takeover.app.processes.common import StartupError
from takeover.data.schema import RunConfig
from takeover.robot_bridge.conformance.report import Failed, Result, Status, as_json, line, not_looked_at, summary
from takeover.robot_bridge.protocol import EndpointError, Endpoints

JSON_TO_STDOUT = "-"


@dataclass(frozen=True)
class BridgeCheck:
    """Try a running bridge against the protocol (also: `takeover bridge check`). Give it no robot that people stand beside."""

    address: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER|ADDRESS")]
    """Folder of the bridge's sockets; or tcp://HOST:PORT, with the keys of the workspace: admit yours as operator and learner."""
    workspace: Annotated[str, tyro.conf.arg(metavar="DIR")] = ""
    """Where the keys are, for tcp:// (default: the user data folder)."""
    drive: bool = False
    """Also make the checks that move the robot: it needs an idle bridge without actor, recorder and operator."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = ()
    """Make these checks only, and what they build on."""
    json: Annotated[str, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = ""
    """Write the results there (`-`: to standard output, instead of the table)."""


@dataclass(frozen=True)
class ActorCheck:
    """Try an actor against the protocol (also: `takeover actor check`), playing the bridge."""

    actor: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="COMMAND|FOLDER")]
    """A command line with `{sockets}` where the folder of the sockets belongs; or a folder, for an actor that you start yourself."""
    spec: Annotated[str, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = ""
    """What robot to be (a RobotSpec as JSON); default: a point on a table, A = 2, D = 4, 20 Hz."""
    start_s: Annotated[float, tyro.conf.arg(metavar="S")] = 30.0
    """How long the actor may take to say hello, and to load its policy after that."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = ()
    """Make these checks only, and what they build on."""
    json: Annotated[str, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = ""
    """Write the results there (`-`: to standard output, instead of the table)."""


def bridge_check(command: BridgeCheck) -> int:
    """Exit status 0: it conforms; 1: it does not; 2: there is none."""
    from takeover.robot_bridge.conformance.bridge import NOT_LOOKED_AT, check_bridge

    def run(told: Callable[[Result], None]) -> list[Result]:
        return check_bridge(_endpoints(command), drive=command.drive, only=command.only, told=told)

    return _report(command.address, command.json, run, NOT_LOOKED_AT)


def _endpoints(command: BridgeCheck) -> Endpoints:
    """Raises `EndpointError` or `StartupError`."""
    if not command.address.startswith("tcp://"):
        return Endpoints(command.address)
    keys = str(keys_folder(command.workspace).path)
    known_link(command.address, keys)
    return Endpoints.of(RunConfig(session_id="check", workspace="", sockets="", connect=command.address, keys=keys))


def actor_check(command: ActorCheck) -> int:
    """Exit status 0: it conforms; 1: it does not; 2: it cannot be started."""
    from takeover.robot_bridge.conformance.actor import check_actor, load_spec

    def run(told: Callable[[Result], None]) -> list[Result]:
        return check_actor(command.actor, load_spec(command.spec), start_s=command.start_s, only=command.only, told=told)

    return _report(command.actor, command.json, run)


def _report(peer: str, path: str, run: Callable[[Callable[[Result], None]], list[Result]], beyond: Sequence[str] = ()) -> int:
    """``beyond``: what the checks say nothing about."""

    def told(result: Result) -> None:
        if path != JSON_TO_STDOUT:
            print(line(result), flush=True)

    try:
        results = run(told)
    except (Failed, EndpointError) as error:
        raise StartupError(str(error)) from error
    document = as_json(peer, results, beyond)
    if path == JSON_TO_STDOUT:
        sys.stdout.write(document)
    else:
        if beyond:
            print(not_looked_at(beyond))
        print(summary(results))
        if path:
            _write(path, document)
    return int(any(result.status is Status.FAIL for result in results))


def _write(path: str, document: str) -> None:
    try:
        Path(path).write_text(document, encoding="utf-8")
    except OSError as error:
        raise StartupError(f"cannot write {path}: {error.strerror}") from error
