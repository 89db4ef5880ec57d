"""What the `takeover policy` commands share: versions by number, whether their weights may act on this station's robot, their standing."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from takeover.app.commands.data_options import Where
from takeover.app.commands.options import known_robot, station_of
from takeover.app.commands.policy_rate import station_hz
from takeover.app.processes.common import StartupError
from takeover.data.schema import RunConfig
from takeover.data.workspace import Workspace

if TYPE_CHECKING:
    from takeover.policies.decisions import Decision, Standing
    from takeover.policies.manifest import Manifest
    from takeover.policies.publish import LoadedPolicy

Version = Annotated[int, tyro.conf.Positional, tyro.conf.arg(metavar="VERSION")]
Json = Annotated[bool, tyro.conf.arg(help="One JSON document on stdout.")]


@dataclass(frozen=True)
class Deciding:
    """Who decides, and for which robot."""

    by: Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="", help="Who decides (default: the station's person).")] = ""
    reason: Annotated[str, tyro.conf.arg(metavar="TEXT", help_behavior_hint="", help="Why, for the record.")] = ""
    robot: Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="", help="As in `takeover run` (default: the station's).")] = ""
    json: Json = False
    workspace: Where = ""


def manifest_of(workspace: Workspace, version: int) -> "Manifest":
    """Raises `StartupError` for a version that is not published, naming those that are, and for one whose manifest is damaged."""
    from takeover.policies.base import PolicyRefused
    from takeover.policies.manifest import published_versions, read_manifest, version_folder

    known = published_versions(workspace.path)
    if version not in known:
        listed = f"{known[0]} to {known[-1]}" if len(known) > 1 else str(known[0]) if known else "none"
        raise StartupError(f"no policy version {version} in {workspace.path}; published: {listed}")
    try:
        return read_manifest(version_folder(workspace.path, version))
    except PolicyRefused as error:
        raise StartupError(str(error)) from error


def runnable(workspace: Workspace, version: int) -> "Manifest":
    """`manifest_of` a version that is to be run. Raises `StartupError` for one whose weights were pruned, too."""
    from takeover.policies.base import PolicyRefused
    from takeover.policies.manifest import refuse_pruned, version_folder

    manifest = manifest_of(workspace, version)
    try:
        refuse_pruned(version_folder(workspace.path, version))
    except PolicyRefused as error:
        raise StartupError(str(error)) from error
    return manifest


def other_of(workspace: Workspace, manifest: "Manifest", against: str) -> "Manifest | None":
    """What ``--against`` names, a number or ``trusted``, if there is one. Raises `StartupError` for a number that cannot be run."""
    from takeover.policies.decisions import standing

    if against.isdigit():
        return runnable(workspace, int(against)) if int(against) else None
    if against != "trusted":
        return None
    trusted = standing(decisions_of(workspace), manifest.robot_id, manifest.task_id).trusted
    try:
        return manifest_of(workspace, trusted) if trusted else None
    except StartupError:
        return None  # what runs it says what is wrong


def manifests(workspace: Workspace) -> "tuple[list[Manifest], list[str]]":
    """Every published version's manifest, ascending, and what is wrong with those that cannot be read."""
    from takeover.policies.base import PolicyRefused
    from takeover.policies.manifest import published_versions, read_manifest, version_folder

    found, problems = [], []
    for version in published_versions(workspace.path):
        try:
            found.append(read_manifest(version_folder(workspace.path, version)))
        except PolicyRefused as error:
            problems.append(str(error))
    return found, problems


def decisions_of(workspace: Workspace) -> "list[Decision]":
    """Raises `StartupError` when they cannot be read."""
    from takeover.policies.decisions import DecisionError, read_decisions

    try:
        return read_decisions(workspace.path)
    except DecisionError as error:
        raise StartupError(str(error)) from error


def marks(decided: "list[Decision]", manifest: "Manifest", published: list[int]) -> list[str]:
    """What holds for a version, of: trusted, refused, pinned, acts. ``published``: versions for the same robot and task."""
    from takeover.policies.decisions import standing

    now = standing(decided, manifest.robot_id, manifest.task_id)
    version = manifest.version
    found = {
        "trusted": (version, manifest.sha256) == (now.trusted, now.trusted_sha256),
        "refused": version in now.refused,
        "pinned": version == now.pinned,
        "acts": version == now.may_act(published),
    }
    return [name for name, holds in found.items() if holds]


def config_of(workspace: Workspace, robot_option: str) -> RunConfig:
    """The station's robot, or the one that was named, for a simulator of one's own; nothing is started. Raises `StartupError`."""
    place, station = station_of(str(workspace.path))
    robot, task = known_robot(robot_option or station.robot, station.task if not robot_option else None)
    return RunConfig(
        session_id="policy",
        workspace=str(place.path),
        sockets="",
        robot=robot,
        task=task,
        person=station.person,
        policy_cameras=station.policy_cameras,
    )


def robot_id_of(robot: str) -> str:
    """The name that a robot's records have; every simulated one calls itself sim."""
    return "sim" if robot in ("sim", "sim-server") else robot


def with_cameras(config: RunConfig, manifest: "Manifest") -> RunConfig:
    """``config`` with the cameras that the version looks through, if it does."""
    import msgspec

    cameras = [str(name) for name in manifest.config.get("cameras", [])]
    return msgspec.structs.replace(config, policy_cameras=cameras or config.policy_cameras)


def check_policy(manifest: "Manifest", config: RunConfig) -> "LoadedPolicy":
    """See that a version's weights may act on the robot of ``config``, at the control rate at which it recorded last: while the result is
    held they stay on disk.

    Raises `StartupError` with the reason.
    """
    import msgspec

    from takeover.policies.base import PolicyRefused
    from takeover.policies.publish import load_policy, version_folder
    from takeover.robot_bridge.robots.base import RobotError
    from takeover.robot_bridge.robots.registry import make_simulator

    hz = station_hz(Workspace(config.workspace), manifest.robot_id, config.task)
    try:
        simulator = make_simulator(msgspec.structs.replace(with_cameras(config, manifest), control_hz=hz))
    except RobotError as error:
        raise StartupError(str(error)) from error
    spec = simulator.spec
    simulator.close()
    if (manifest.robot_id, manifest.task_id) != (spec.robot_id, spec.task_id):
        raise StartupError(
            f"version {manifest.version} is for {manifest.robot_id}:{manifest.task_id}, this station's robot is "
            f"{spec.robot_id}:{spec.task_id}; name another with --robot"
        )
    try:
        return load_policy(version_folder(config.workspace, manifest.version), spec)
    except PolicyRefused as error:
        raise StartupError(f"version {manifest.version} must not act: {error}") from error


def author_of(by: str, person: str) -> str:
    """Who decides. Raises `StartupError` for the gate's own name: its decisions never end a pin that a person set."""
    from takeover.policies.decisions import GATE

    author = by or person
    if author == GATE:
        raise StartupError(f"--by {author}: that is what the gate signs with; name the person")
    return author


def decision_rows(decided: "list[Decision]") -> list[dict[str, Any]]:
    """As plain values for JSON."""
    import msgspec

    return [msgspec.to_builtins(decision) for decision in decided]


def trusted_of(now: "Standing") -> int:
    """The trusted version. Raises `StartupError` where none is, naming what can be compared with."""
    if now.trusted:
        return now.trusted
    if now.pinned:
        raise StartupError(
            f"no version is trusted; the robot is held to version {now.pinned}, by {now.pinned_by}: compare with it by its number,"
            f" or `takeover policy promote {now.pinned}`"
        )
    raise StartupError("no version is trusted; name one to compare with, or `takeover policy promote` one")
