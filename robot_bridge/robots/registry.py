"""Robots by name. Real vendors' modules are imported only when asked for."""

import msgspec

from takeover.data.schema import RunConfig
from takeover.robot_bridge.cameras import CameraSource
from takeover.robot_bridge.robots.base import Robot, RobotError

KNOWN_ROBOTS = ("sim", "sim-server")
SIM_TASKS = ("peg-insert", "pick-lift", "pick-lift-pictures", "sort-two")


def split_robot(name: str, task: str | None = None) -> tuple[str, str]:
    """``sim:peg-insert`` -> (``sim``, ``peg-insert``). Raises `RobotError` listing the known ones."""
    robot, _, suffix = name.partition(":")
    chosen = suffix or task or SIM_TASKS[0]
    if robot not in KNOWN_ROBOTS:
        raise RobotError(f"unknown robot {robot!r}; known: {', '.join(KNOWN_ROBOTS)}")
    if chosen not in SIM_TASKS:
        raise RobotError(f"unknown task {chosen!r} for robot {robot!r}; known: {', '.join(SIM_TASKS)}")
    return robot, chosen


def make_robot(config: RunConfig) -> Robot:
    """The robot of ``config``, not yet connected."""
    robot, task = split_robot(config.robot, config.task)
    if robot == "sim":
        from takeover.robot_bridge.robots.sim import CONTROL_HZ, SimRobot

        return SimRobot(task, config.task_parameters, config.control_hz or CONTROL_HZ)
    if robot == "sim-server":
        check_clock(robot, config.clock)
        from takeover.robot_bridge.robots.sim_remote import RemoteSimRobot

        return RemoteSimRobot(task, config.robot_address, config.task_parameters)
    raise RobotError(f"unknown robot {robot!r}; known: {', '.join(KNOWN_ROBOTS)}")


def check_clock(robot: str, clock: str) -> None:
    """Raises `RobotError` for a robot with a clock of its own in a run that must not depend on one."""
    if clock == "lockstep" and robot != "sim":
        raise RobotError(f"robot {robot!r} lives by its own clock: lockstep needs robot 'sim'")


def make_simulator(config: RunConfig) -> Robot:
    """A simulated robot of one's own with the task and parameters of ``config``, never the station's; it has eyes where the policy's
    cameras are named. Raises `RobotError`."""
    from takeover.robot_bridge.robots.sim import CONTROL_HZ, SimRobot

    task = split_robot(config.robot, config.task)[1]
    if config.policy_cameras:
        from takeover.robot_bridge.robots.sim_seeing import SeeingSimRobot

        return SeeingSimRobot(task, config.policy_cameras, config.task_parameters, config.control_hz or CONTROL_HZ)
    return SimRobot(task, config.task_parameters, config.control_hz or CONTROL_HZ)


def make_variant(config: RunConfig, parameters: dict[str, float]) -> Robot:
    """`make_simulator` with other task parameters. Raises `ValueError` for ones that the task does not have or allow."""
    try:
        return make_simulator(msgspec.structs.replace(config, task_parameters=parameters))
    except RobotError as error:
        raise ValueError(str(error)) from error


def make_cameras(config: RunConfig, robot: Robot) -> CameraSource | None:
    """The cameras of ``config``; None when it says no cameras. Raises `RobotError` when there is no OpenGL."""
    if not config.cameras:
        return None
    from takeover.robot_bridge.robots.sim import SimRobot
    from takeover.robot_bridge.robots.sim_cameras import SimCameras
    from takeover.robot_bridge.robots.sim_remote import RemoteSimRobot

    if isinstance(robot, RemoteSimRobot):
        return SimCameras(robot.mirror)
    if not isinstance(robot, SimRobot):
        raise RobotError(f"no cameras are known for robot {config.robot!r}")
    return SimCameras(robot)
