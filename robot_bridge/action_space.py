"""What the safety filter must know of a robot's action space and limits: checked when the bridge starts, before the first command."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from takeover.data.schema import RobotSpec

FloatArray = npt.NDArray[np.float64]

LENGTH, ANGLE, NO_UNIT = "m", "rad", ("", "1")
GRIPPER = "gripper"  # how the name of a gripper's group ends


@dataclass(frozen=True)
class Axes:
    """Which action components move the tool (index, Cartesian axis), turn it, and drive grippers; full scale per component."""

    translation: tuple[int, ...]
    cartesian: tuple[int, ...]
    rotation: tuple[int, ...]
    gripper: tuple[int, ...]
    scale: FloatArray


def axes_of(spec: RobotSpec) -> Axes:
    """Raises `ValueError`, naming component and unit, for whatever the filter would have to let pass unlimited."""
    robot, action = f"robot {spec.robot_id!r}", spec.action
    if action.kind != "ee_delta" or action.frame != "base":
        raise ValueError(f"{robot}: actions {action.kind!r} in frame {action.frame!r}; the filter knows ee_delta in the base frame")
    if not len(action.names) == len(action.units) == len(action.scale):
        raise ValueError(f"{robot}: action of {len(action.names)} names, {len(action.units)} units, {len(action.scale)} scales")
    in_groups = [i for group in action.groups for i in range(group.start, group.stop)]
    if in_groups != list(range(action.size)):
        raise ValueError(f"{robot}: action groups hold components {in_groups}, expected each of 0 to {action.size - 1} once, in order")
    gripper = tuple(i for group in action.groups if group.name.endswith(GRIPPER) for i in range(group.start, group.stop))
    if (action.gripper != "none") != bool(gripper):
        raise ValueError(f"{robot}: gripper {action.gripper!r}, but {len(gripper)} components in groups named *{GRIPPER}")
    for i, (name, unit, scale) in enumerate(zip(action.names, action.units, action.scale, strict=True)):
        what = f"{robot}: action component {i}, {name!r}"
        if unit not in (NO_UNIT if i in gripper else (LENGTH, ANGLE)):
            raise ValueError(f"{what}: unit {unit!r}; allowed: 'm' or 'rad' for what moves the tool, '' or '1' in groups named *{GRIPPER}")
        if unit == LENGTH and name[-1:] not in ("x", "y", "z"):
            raise ValueError(f"{what}: moves the tool by metres along no axis; its name must end in x, y or z")
        if not (np.isfinite(scale) and scale > 0.0):
            raise ValueError(f"{what}: scale {scale}; allowed: above 0")
    translation = tuple(i for i, unit in enumerate(action.units) if unit == LENGTH)
    cartesian = tuple("xyz".index(action.names[i][-1]) for i in translation)
    if len(set(cartesian)) != len(cartesian):
        raise ValueError(f"{robot}: two action components move the same axis: {action.names}")
    rotation = tuple(i for i, unit in enumerate(action.units) if unit == ANGLE)
    return Axes(translation, cartesian, rotation, gripper, np.asarray(action.scale, dtype=np.float64))


def joint_limits_of(spec: RobotSpec) -> tuple[FloatArray, FloatArray]:
    """``joint_low``, ``joint_high`` (J,) rad; both empty where the robot does not tell them. Raises `ValueError`."""
    low, high = np.array(spec.joint_low, dtype=np.float64), np.array(spec.joint_high, dtype=np.float64)
    if low.shape != high.shape or not (low < high).all():  # false for NaN too
        raise ValueError(
            f"robot {spec.robot_id!r}: joint_low {spec.joint_low} and joint_high {spec.joint_high}: one below the other, per joint"
        )
    return low, high
