"""Options that several commands share, and how they become a `RunConfig`."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro
from ulid import ULID

from takeover.app.operators.scripted import operator_parameters
from takeover.app.processes.common import StartupError
from takeover.data.schema import RunConfig
from takeover.data.station import ID_ALLOWED, Station, StationError, default_station_text, is_id, line_of, load_station
from takeover.data.workspace import Workspace, WorkspaceError, runtime_folder
from takeover.policies.registry import KNOWN_LEARNERS, check_parameters
from takeover.robot_bridge.probe_schedule import ProbeSchedule
from takeover.robot_bridge.protocol import KeyProblem, KeyRefused, LinkProblem, RequestTimeout, check_link, greet_bridge
from takeover.robot_bridge.robots.base import RobotError
from takeover.robot_bridge.robots.registry import KNOWN_ROBOTS, check_clock, split_robot

NO_LEARNER = "none"
Operator = Literal["scripted", "console", "none"]
Clock = Literal["realtime", "lockstep"]


@dataclass(frozen=True)
class StationOptions:
    """What a station is. Options that are not given come from the workspace's ``station.toml``, then from the defaults."""

    workspace: Annotated[str, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = ""
    """Folder that holds everything recorded (default: the user data folder)."""
    robot: Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = ""
    """`sim`, or with its task: `sim:peg-insert`, `sim:pick-lift`, `sim:sort-two`; `sim-server`: the same arm in a process of its own."""
    robot_address: Annotated[str, tyro.conf.arg(metavar="ADDRESS", help_behavior_hint="")] = ""
    """Of a robot that is reached over a link (`sim-server`): HOST:PORT or the path of a UNIX socket."""
    control_hz: Annotated[float, tyro.conf.arg(metavar="HZ", help_behavior_hint="")] = 0.0
    """Control rate of robot `sim`: 20, 50 or 100 (default: 20, for which tasks are made). Versions act at the rate of their training."""
    task: Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = ""
    """`peg-insert`, `pick-lift`, `pick-lift-pictures` or `sort-two` on the simulated robot."""
    connect: Annotated[str, tyro.conf.arg(metavar="tcp://HOST:PORT", help_behavior_hint="")] = ""
    """The bridge is another computer's, which runs `takeover bridge --listen` (docs/remote.md); robot and task must be the same there."""
    learner: Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = ""
    """`hil-serl`, `sirius`, `iwr`, `hg-dagger`, `bc` or `none`."""
    person: Annotated[str, tyro.conf.arg(metavar="ID", help_behavior_hint="")] = ""
    """Pseudonym of who operates."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Every random stream derives from it."""
    demonstrations: Annotated[int, tyro.conf.arg(metavar="N", help_behavior_hint="")] = 0
    """How many demonstrations are cloned into policy version 1 (default: 20)."""
    policy_cameras: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = ()
    """Cameras whose pictures the policy is shown, for `--set learner.observations=pictures`: `front wrist` on the simulated robot."""
    gate: Literal["on", "off"] = "on"
    """In real time the evaluator compares new versions with the trusted one, and rolls back from a worse one; `off`: people decide."""
    probe_share: float = 0.0
    """Share of the policy's episodes that become no-help probes, by chance: `takeover policy probes` reads them (docs/gate.md)."""
    probe_versions: tuple[int, ...] = ()
    """Who drives in them: one version, or the candidate and the trusted one in turn (default: whichever acts)."""
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="GROUP.NAME=VALUE", help_behavior_hint="")] = ()
    """Parameters, GROUP one of task, learner, operator: `--set task.clearance_m=0.002 operator.style=slow`."""


def make_config(options: StationOptions, *, operator: Operator, clock: Clock = "realtime", cameras: bool = True) -> RunConfig:
    """Validate everything that can be before anything starts. Raises `StartupError` with one line saying what to change.

    The socket folder exists afterwards; the launcher removes it.
    """
    place, station = station_of(options.workspace)
    if not options.robot:
        with found_in(place, "robot" if station.robot.partition(":")[0] not in KNOWN_ROBOTS else "task"):
            known_robot(station.robot, station.task)
    robot, task = known_robot(options.robot or station.robot, options.task or (station.task if not options.robot else None))
    try:
        check_clock(robot, clock)
    except RobotError as error:
        raise StartupError(str(error)) from error
    known_rate(options.control_hz, robot)
    if not options.learner:
        with found_in(place, "learner"):
            known_learner(station.learner)
    learner = known_learner(options.learner or station.learner)
    known_link(options.connect, str(place.path.absolute() / "keys"))
    if options.person and not is_id(options.person):
        raise StartupError(f"--person {options.person!r}: allowed: {ID_ALLOWED}")
    if options.demonstrations < 0:
        raise StartupError(f"--demonstrations {options.demonstrations}: at least 1")
    known_probes(place, options.probe_share, options.probe_versions)
    groups = parse_parameters(options.set)
    operator_values = {name: _number_or_text(value) for name, value in groups["operator"].items()}
    try:
        operator_parameters(operator_values)
    except ValueError as error:
        raise StartupError(str(error)) from error
    task_parameters = task_numbers(groups["task"])
    known_settings(place, learner, station.learner_parameters, groups["learner"])
    learner_parameters = station.learner_parameters | {name: _scalar(value) for name, value in groups["learner"].items()}
    wants_pictures = learner_parameters.get("observations") == "pictures"
    policy_cameras = known_cameras(place, station.policy_cameras, options.policy_cameras, wants_pictures, clock if not cameras else "")
    session = str(ULID()).lower()
    try:
        sockets = runtime_folder(session)
    except (WorkspaceError, OSError) as error:
        raise StartupError(f"no folder for sockets: {error}") from error
    return RunConfig(
        session_id=session,
        workspace=str(place.path),
        sockets=str(sockets),
        connect=options.connect,
        keys=str(place.path.absolute() / "keys") if options.connect else "",
        station_id=station.station_id,
        person=options.person or station.person,
        consent_version=station.consent_version if options.person in ("", station.person) else "",
        robot=robot,
        robot_address=options.robot_address or station.robot_address,
        task=task,
        control_hz=options.control_hz,
        learner=learner,
        operator=operator,
        clock=clock,
        cameras=cameras,
        seed=options.seed,
        demonstrations=options.demonstrations or station.demonstrations,
        gate=options.gate == "on",
        probe_share=options.probe_share,
        probe_versions=list(options.probe_versions),
        hold_to_run=station.hold_to_run,
        line_of_sight=station.line_of_sight,
        reward=station.reward,
        key_delay_s=station.key_delay_s,
        retrain_reward_after=station.retrain_reward_after,
        devices=station.devices.allowed(),
        policy_cameras=policy_cameras,
        limits=station.limits,
        task_parameters=task_parameters,
        operator_parameters=operator_values,
        learner_parameters=learner_parameters,
    )


def known_probes(place: Workspace, share: float, versions: tuple[int, ...]) -> None:
    """Raises `StartupError` for shares and versions that cannot be probed."""
    from takeover.policies.base import PolicyRefused
    from takeover.policies.manifest import refuse_pruned

    try:
        ProbeSchedule(share=share, versions=versions)
    except ValueError as error:
        raise StartupError(f"--probe-share, --probe-versions: {error}") from error
    if versions and not share:
        raise StartupError("--probe-versions needs --probe-share: how many of the policy's episodes become probes")
    for version in versions:
        if not (place.policies / str(version) / "manifest.json").is_file():
            raise StartupError(f"--probe-versions {version}: {place.policies} has no such version; `takeover policy ls` lists them")
        try:
            refuse_pruned(place.policies / str(version))
        except PolicyRefused as error:
            raise StartupError(f"--probe-versions {version}: {error}") from error


def station_of(workspace: str) -> tuple[Workspace, Station]:
    """Workspace and station file; a new workspace gets one with every field at its default, to be edited. Raises `StartupError`."""
    place = Workspace(workspace or Workspace.default().path)
    try:
        place.prepare()
        if not place.station_path.exists():
            place.station_path.write_text(default_station_text(), encoding="utf-8")
        return place, load_station(place.station_path)
    except (WorkspaceError, StationError) as error:
        raise StartupError(str(error)) from error
    except OSError as error:
        raise StartupError(f"{place.station_path}: cannot be written: {error.strerror}") from error


@contextmanager
def found_in(place: Workspace, field: str) -> Iterator[None]:
    """A name that the station file gets wrong is reported with its line there."""
    try:
        yield
    except (StartupError, ValueError) as error:
        line = line_of(place.station_path.read_text(encoding="utf-8"), field)
        raise StartupError(f"{place.station_path}, line {line}: {field}: {error}") from error


def known_settings(place: Workspace, learner: str, of_station: Mapping[str, Any], of_command: Mapping[str, str]) -> None:
    """Raises `StartupError` for settings that the learner cannot have, before anything starts; the place of the one that is wrong.

    Some are right only beside another, as no reward of the task with one for takeovers: so together first, and one by one for the place.
    """
    if learner == NO_LEARNER:
        return
    try:
        check_parameters(learner, dict(of_station) | {name: _scalar(value) for name, value in of_command.items()})
        return
    except ValueError as error:
        together = StartupError(f"learner settings: {error}")
    for name, value in of_station.items():
        with found_in(place, f"learner_parameters.{name}"):
            check_parameters(learner, {name: value})
    for name, value in of_command.items():
        try:
            check_parameters(learner, {name: _scalar(value)})
        except ValueError as error:
            raise StartupError(f"--set learner.{name}={value}: {error}") from error
    raise together


def known_rate(hz: float, robot: str) -> None:
    """Raises `StartupError` for a control rate that ``robot`` does not offer. 0: its own."""
    if not hz:
        return
    if robot != "sim":
        raise StartupError(f"--control-hz {hz:g}: robot {robot!r} has a rate of its own; leave out --control-hz")
    from takeover.robot_bridge.robots.sim import CONTROL_RATES_HZ  # MuJoCo is not loaded for nothing

    if hz not in CONTROL_RATES_HZ:
        raise StartupError(f"--control-hz {hz:g}: robot {robot!r} runs at {', '.join(f'{rate:g}' for rate in CONTROL_RATES_HZ)} Hz")


def known_cameras(
    place: Workspace, of_station: list[str], of_command: tuple[str, ...], wants_pictures: bool, blind: Clock | Literal[""]
) -> list[str]:
    """The policy's. ``blind``: the clock of a run without cameras, "" for one that has them.

    Raises `StartupError` where a policy that is to be shown pictures would get none.
    """
    names = list(of_command) or of_station
    how = "give --cameras, without --no-cameras" if blind == "lockstep" else "leave out --no-cameras"
    if blind and wants_pictures:
        raise StartupError(f"learner.observations=pictures, but this run has no cameras; {how}, or learn without pictures")
    if wants_pictures and not names:
        raise StartupError("learner.observations=pictures, but no camera is the policy's; give --policy-cameras front wrist")
    if blind and names:
        lack = f"{' '.join(names)}: the policy is to see these, but this run has no cameras; {how}, or name none for the policy"
        if of_command:
            raise StartupError(f"--policy-cameras {lack}")
        with found_in(place, "policy_cameras"):
            raise StartupError(lack)
    return names


def known_link(connect: str, keys: str) -> None:
    """Raises `StartupError` when the bridge could not be reached with what is known: before anything starts."""
    if not connect:
        return
    try:
        check_link(connect, keys, listens=False)
        greet_bridge(connect, keys)
    except (LinkProblem, KeyProblem, KeyRefused) as error:
        raise StartupError(str(error)) from error
    except RequestTimeout:
        print(f"takeover: no bridge answers at {connect} yet; waiting for it", file=sys.stderr, flush=True)


def known_robot(robot: str, task: str | None) -> tuple[str, str]:
    try:
        return split_robot(robot, task)
    except RobotError as error:
        raise StartupError(str(error)) from error


def known_learner(name: str) -> str:
    if name not in (*KNOWN_LEARNERS, NO_LEARNER):
        raise StartupError(f"unknown learner {name!r}; known: {', '.join((*KNOWN_LEARNERS, NO_LEARNER))}")
    return name


def parse_parameters(pairs: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """``("task.clearance_m=0.002",)`` -> {"task": {"clearance_m": "0.002"}, ...}."""
    groups: dict[str, dict[str, str]] = {"task": {}, "learner": {}, "operator": {}}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        group, dot, name = key.partition(".")
        if not (equals and dot and name and value) or group not in groups:
            raise StartupError(f"--set {pair}: expected GROUP.NAME=VALUE with GROUP one of {', '.join(groups)}")
        groups[group][name] = value
    return groups


def task_numbers(given: Mapping[str, str]) -> dict[str, float]:
    """The group ``task`` of `parse_parameters`. Raises `StartupError`."""
    return {name: _number(f"task.{name}", value) for name, value in given.items()}


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise StartupError(f"--set {name}={value}: a number is expected") from None


def _number_or_text(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


def _scalar(value: str) -> float | str | bool:
    return {"true": True, "false": False}.get(value.lower(), _number_or_text(value))
