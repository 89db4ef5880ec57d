"""What tasks with cubes and a two-finger gripper share: the cube's body, its pose, how worn the gripper is."""

import mujoco
import numpy as np
import numpy.typing as npt

from takeover.robot_bridge.kinematics import yaw_of
from takeover.robot_bridge.tasks.base import nearest_quarter_turn

FloatArray = npt.NDArray[np.float64]


def gripper_health(parameters: dict[str, float]) -> float:
    """Share of a new gripper's force and of its pads' friction: 1, for a worn one (``gripper_wear`` 1) a fifth."""
    return 1.0 - 0.8 * parameters["gripper_wear"]


def cube_body(name: str, parameters: dict[str, float], look: str, aside_m: float = 0) -> str:
    """MJCF of a free cube of ``cube_width_m``, ``cube_mass_kg`` and ``friction``; ``look``: its geoms to be looked at."""
    half = parameters["cube_width_m"] / 2
    return f"""<body name="{name}" pos="0 {aside_m} {half}"><freejoint name="{name}"/>
          <geom name="{name}" class="environment" conaffinity="1" type="box" size="{half} {half} {half}" mass="{parameters["cube_mass_kg"]}"
                condim="4" friction="{parameters["friction"]} 0.005 0.0001"/>{look}</body>"""


def lying_cube(x: float, y: float, yaw: float, half: float) -> tuple[float, ...]:
    """(7,) of the free joint of a cube of half width ``half`` that lies on the table."""
    return (x, y, half, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))


def cube_pose(data: mujoco.MjData, name: str) -> FloatArray:
    """x, y, z in m and yaw in rad (4,), base frame; yaw within an eighth of a turn either way."""
    found = data.body(name)
    return np.array([*found.xpos, nearest_quarter_turn(yaw_of(found.xmat))])
