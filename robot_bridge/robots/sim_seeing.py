"""The simulated robot with its own cameras, for evaluation and benchmarks in one process: pictures of the present state when asked."""

from collections.abc import Sequence

import msgspec

from takeover.data.schema import PolicyImage, RobotSpec
from takeover.robot_bridge.policy_images import policy_images
from takeover.robot_bridge.robots.base import RobotError
from takeover.robot_bridge.robots.sim import CONTROL_HZ, SimRobot
from takeover.robot_bridge.robots.sim_cameras import SimCameras


class SeeingSimRobot(SimRobot):
    """`SimRobot` and `policy_images`. Raises `RobotError` for an unknown camera and where there is no OpenGL. Not thread-safe."""

    def __init__(
        self, task: str, cameras: Sequence[str], parameters: dict[str, float] | None = None, control_hz: float = CONTROL_HZ
    ) -> None:
        super().__init__(task, parameters, control_hz)
        self._eyes = SimCameras(self)
        known = [camera.name for camera in self._eyes.specs]
        if unknown := [camera for camera in cameras if camera not in known]:
            raise RobotError(f"policy_cameras: {', '.join(unknown)} is no camera of the simulated robot; known: {', '.join(known)}")
        self._policy_cameras = list(cameras)

    @property
    def spec(self) -> RobotSpec:
        return msgspec.structs.replace(super().spec, policy_cameras=self._policy_cameras)

    def policy_images(self) -> list[PolicyImage]:
        """The pictures of the state as it is now, as the bridge makes them of its cameras' frames."""
        return policy_images(self._eyes.pictures(self._eyes.capture()), self._policy_cameras)

    def close(self) -> None:
        self._eyes.close()
        super().close()
