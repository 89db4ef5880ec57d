"""What a perfect operator does in `sort-two`, and how far the way still is: pure functions of the task's truth, without memory."""

import numpy as np
import numpy.typing as npt

from takeover.robot_bridge.tasks.base import nearest_quarter_turn

FloatArray = npt.NDArray[np.float64]
Truth = dict[str, list[float]]

STEP_M = 0.015
STEP_RAD = 0.12
_CRUISE = 0.85  # the expert's speed, of the largest
_CARRY_M = 0.042  # height of a carried cube above the table, more than the height of one that lies there
_FUNNEL = 0.8  # towards the mark it may sink by this much per metre
_ON_MARK_M = 0.010  # the expert sets down within this of the mark's middle
_CLEAR_M = 0.060  # height of the tool above the table at which it may travel
_GRASP_M = 0.02  # what closing the fingers counts for, in path to go
_CUBES = ("first_cube_pose", "second_cube_pose")
_MARKS = ("first_mark", "second_mark")


def action(truth: Truth) -> list[float]:
    """The canonical action (5,) of a perfect operator who knows ``truth`` (see `SortTwo.truth`)."""
    tool, half = np.array(truth["tool_pose"]), truth["cube_half"][0]
    width, command, *gripped = truth["gripper"]
    if command > 0 and width < 2 * half + 0.012 and _any_near(truth, 0.03):
        return [0.0, 0.0, 0.0, 0.0, 1.0]  # let it go before moving
    due = int(truth["on_mark"][0] > 0.5)
    cube, mark, other = np.array(truth[_CUBES[due]]), np.array(truth[_MARKS[due]]), np.array(truth[_CUBES[1 - due]])
    if gripped[due]:
        return _carry(cube, mark, half)
    if gripped[1 - due]:
        return _put_back(other, truth)
    return _fetch(tool, cube, other, width, command, half)


def _carry(cube: FloatArray, mark: FloatArray, half: float) -> list[float]:
    aside, lift = mark - cube[:2], float(cube[2]) - half
    over = float(np.hypot(*aside))
    if over < _ON_MARK_M and lift < 0.004:
        return [0.0, 0.0, 0.0, 0.0, 1.0]
    wanted = -0.002 if over < _ON_MARK_M else min(_CARRY_M, 0.006 + _FUNNEL * over)
    up = float(np.clip(0.75 * (wanted - lift) / STEP_M, -_CRUISE, _CRUISE))
    lifted = 1.0 if over < 0.02 else float(np.clip(lift / 0.015, 0.0, 1.0))
    lateral = lifted * aside * min(_CRUISE, 0.5 * over / STEP_M) / max(over, 1e-9)
    return [float(lateral[0]), float(lateral[1]), up, 0.0, -1.0]


def _put_back(cube: FloatArray, truth: Truth) -> list[float]:
    """The wrong cube is in the hand: set it down, but on no mark."""
    lift = float(cube[2]) - truth["cube_half"][0]
    free = min(float(np.abs(cube[:2] - np.array(truth[mark])).max()) for mark in _MARKS) > truth["tolerance"][0] + 0.015
    if not free:
        return [-_CRUISE, 0.0, float(np.clip(0.6 * (_CARRY_M - lift) / STEP_M, -_CRUISE, _CRUISE)), 0.0, -1.0]
    if lift < 0.003:
        return [0.0, 0.0, 0.0, 0.0, 1.0]
    return [0.0, 0.0, -0.7 if lift > 0.015 else -0.4, 0.0, -1.0]


def _fetch(tool: FloatArray, cube: FloatArray, other: FloatArray, width: float, command: float, half: float) -> list[float]:
    aside, turn = cube[:2] - tool[:2], nearest_quarter_turn(cube[3] - tool[3])
    distance = float(np.hypot(*aside))
    yaw = float(np.clip(0.45 * turn / STEP_RAD, -_CRUISE, _CRUISE))
    if float(np.hypot(*(other[:2] - tool[:2]))) < 0.06 and tool[2] < _CLEAR_M - 0.005 and distance > 0.03:
        return [0.0, 0.0, _CRUISE, 0.0, 1.0]  # off the other cube before moving aside
    closing = command < 0 and width > 2 * half + 0.002
    level = abs(float(tool[2] - cube[2])) < 0.010
    if level and distance < 0.02 and (closing or (command > 0 and distance < 0.006 and abs(turn) < 0.15)):
        return [0.0, 0.0, 0.0, 0.0, -1.0]
    lateral = aside * min(_CRUISE, 0.5 * distance / STEP_M) / max(distance, 1e-9)
    hover = 0.0 if distance < 0.008 and abs(turn) < 0.2 else 0.040 + 0.3 * distance
    down = float(np.clip(0.6 * (cube[2] + hover - tool[2]) / STEP_M, -_CRUISE, _CRUISE))
    return [float(lateral[0]), float(lateral[1]), down, yaw, 1.0]


def path_to_go(truth: Truth) -> float:
    """Metres over both cubes: shrinks all along the way of `action`, and grows when a cube is dropped or carried away."""
    tool, half = np.array(truth["tool_pose"]), truth["cube_half"][0]
    done = truth["on_mark"]
    cubes, marks = [np.array(truth[name]) for name in _CUBES], [np.array(truth[name]) for name in _MARKS]
    to_go = 0.0
    if not done[0]:
        to_go += _reach(tool, cubes[0]) if not truth["gripper"][2] else 0.0
        to_go += _carrying(cubes[0], marks[0], half)
        rise = np.array([marks[0][0], marks[0][1], half])  # from where the first is set down
        return to_go + _reach(rise, cubes[1]) + _carrying(cubes[1], marks[1], half)
    if not done[1]:
        to_go += _reach(tool, cubes[1]) if not truth["gripper"][3] else 0.0
        to_go += _carrying(cubes[1], marks[1], half)
    return to_go


def _reach(tool: FloatArray, cube: FloatArray) -> float:
    """From the tool to a cube that is not in the hand, up over what lies between, and closing the fingers."""
    aside = float(np.hypot(*(cube[:2] - tool[:2])))
    return _GRASP_M + (max(0.0, _CLEAR_M - float(tool[2])) if aside > 0.05 else 0.0) + float(np.linalg.norm(cube[:3] - tool[:3]))


def _carrying(cube: FloatArray, mark: FloatArray, half: float) -> float:
    """From where a cube is: up, along, down, and opening the fingers."""
    over, lift = float(np.hypot(*(mark - cube[:2]))), float(cube[2]) - half
    height = min(_CARRY_M, _FUNNEL * over)
    return _GRASP_M + over + max(0.0, height - lift) + max(height, lift)


def _any_near(truth: Truth, distance: float) -> bool:
    tool = np.array(truth["tool_pose"][:3])
    return any(float(np.linalg.norm(np.array(truth[name][:3]) - tool)) < distance for name in _CUBES)
