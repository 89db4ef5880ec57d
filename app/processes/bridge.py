"""The bridge process: owns the robot, the clock, the mode and the authority."""

from takeover import __version__
from takeover.app.processes.common import ProcessContext, StartupError, run_process
from takeover.robot_bridge.bridge import Bridge
from takeover.robot_bridge.protocol import EndpointError
from takeover.robot_bridge.robots.base import RobotError
from takeover.robot_bridge.robots.registry import make_cameras, make_robot


def main(context: ProcessContext) -> None:
    """Build robot and cameras, bind, say ready, run until told to stop."""
    try:
        robot = make_robot(context.config)
        cameras = make_cameras(context.config, robot)
        bridge = Bridge(context.config, robot, cameras, software=f"takeover {__version__}")
    except (RobotError, EndpointError, ValueError) as error:
        raise StartupError(str(error)) from error
    bridge.own_garbage()
    bridge.run(context.stop.is_set, context.ready)


if __name__ == "__main__":
    raise SystemExit(run_process("bridge", main))
