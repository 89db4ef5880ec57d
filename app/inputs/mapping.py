"""From a device's twist to the robot's canonical action, in the control frame that the operator chose.

A device's twist is (x right, y away from the person, z up, and rotations about these, counter-clockwise from above for yaw):

* ``view``: as seen in the front camera: right is right in the picture, away is into the picture;
* ``base``: x and y are the robot's base axes;
* ``tool``: x and y turn with the tool's yaw.
"""

import math
from typing import Literal

from takeover.app.inputs.base import DeviceReading
from takeover.data.schema import RobotSpec
from takeover.robot_bridge.robots.sim_camera_geometry import view_axes

Frame = Literal["view", "base", "tool"]
FRAMES: tuple[Frame, ...] = ("view", "base", "tool")
FINE_FACTOR = 0.3
GRIPPER_THRESHOLD = 0.5
_VIEW_RIGHT = view_axes()[0]
VIEW_YAW = math.atan2(float(_VIEW_RIGHT[1]), float(_VIEW_RIGHT[0]))  # rad; from the view frame to the base frame
TWIST_INDEX = {"x": 0, "y": 1, "z": 2, "roll": 3, "pitch": 4, "yaw": 5}


def to_canonical(reading: DeviceReading, spec: RobotSpec, frame: Frame, speed: float, tool_yaw: float) -> list[float]:
    """Canonical action in [-1, 1]^A. ``speed`` in (0, 1] scales the motion, not the gripper; ``tool_yaw`` in rad, base frame.

    Raises ValueError for an unknown frame or an action that a twist cannot drive (a joint robot).
    """
    twist = list(reading.twist)
    angle = _frame_yaw(frame, tool_yaw)
    if angle:
        twist[0:2] = rotate(twist[0], twist[1], angle)
        twist[3:5] = rotate(twist[3], twist[4], angle)
    factor = speed * (FINE_FACTOR if reading.fine else 1.0)
    action = []
    for name in spec.action.names:
        if name == "gripper":
            action.append(_gripper(reading.gripper, spec.action.gripper))
        elif name in TWIST_INDEX:
            action.append(min(1.0, max(-1.0, twist[TWIST_INDEX[name]] * factor)))
        else:
            raise ValueError(f"robot {spec.robot_id!r}: a twist cannot drive action {name!r}; known: {', '.join(TWIST_INDEX)}, gripper")
    return action


def rotate(x: float, y: float, angle: float) -> tuple[float, float]:
    """Turned by ``angle`` (rad) and shortened, direction kept, so that neither part exceeds 1: clipping would bend the motion."""
    turned_x = math.cos(angle) * x - math.sin(angle) * y
    turned_y = math.sin(angle) * x + math.cos(angle) * y
    longest = max(1.0, abs(turned_x), abs(turned_y))
    return turned_x / longest, turned_y / longest


def _frame_yaw(frame: str, tool_yaw: float) -> float:
    if frame == "view":
        return VIEW_YAW
    if frame == "base":
        return 0.0
    if frame == "tool":
        return tool_yaw
    raise ValueError(f"unknown control frame {frame!r}; known: {', '.join(FRAMES)}")


def _gripper(command: float, kind: str) -> float:
    if kind == "discrete":
        return 0.0 if abs(command) < GRIPPER_THRESHOLD else math.copysign(1.0, command)
    return min(1.0, max(-1.0, command))
