"""`sort-two`: put two cubes on their marks, the first one first. Several objects in a fixed order.

A green cube and a violet one lie somewhere on the table, on either side and turned; the green one goes on the green mark, then the
violet one on the violet mark. Setting the violet one down on its mark while the green one is not on its own, or a cube on the other's
mark, ends the episode as a failure; anything else can be put right. Which of these states the table is in is seen from where the cubes
lie and whether the fingers hold them, never remembered: a saved state says it all.
"""

import mujoco
import numpy as np
import numpy.typing as npt

from takeover.data.schema import ActionGroup, ActionSpec, ObservationSpec, ParameterSpec
from takeover.robot_bridge.robots import sim_looks
from takeover.robot_bridge.robots.base import Evaluation
from takeover.robot_bridge.robots.sim_model import ARM_JOINTS, FINGERTIP_M, TaskScene
from takeover.robot_bridge.tasks import sort_two_expert
from takeover.robot_bridge.tasks.base import COMMON_PARAMETERS, Sense, nearest_quarter_turn
from takeover.robot_bridge.tasks.cubes import cube_body, cube_pose, gripper_health, lying_cube

FloatArray = npt.NDArray[np.float64]

OPENING_M = 0.060
LYING_M = 0.005  # a cube lower than this above the table lies on it
RELEASED_M = 0.004  # fingers further apart than a cube by this have let it go
NEAR_M = 0.02  # between tool point and cube: nearer, the fingers can hold it
CAUSES = ("none", "wrong order", "wrong place")
_PAD_M = 0.010  # tool point (middle of the pads) above the fingertips
_START_HEIGHT_M = 0.11
_CUBES_M = (-0.045, 0.055)  # x of both, y of one and minus y of the other
_MARKS_M = (0.06, 0.055)
_GRIP_FORCE_N = 25.0
_FINGER = ARM_JOINTS  # index of the first finger joint
_QPOS = (ARM_JOINTS + 2, ARM_JOINTS + 9)  # of the cubes' free joints
_QVEL = (ARM_JOINTS + 2, ARM_JOINTS + 8)
_NAMES = ("first", "second")


class SortTwo:
    name = "sort-two"
    prompt = "Put the green cube on the green mark, then the violet cube on the violet mark"
    max_steps = 200
    action = ActionSpec(
        kind="ee_delta",
        frame="base",
        names=["x", "y", "z", "yaw", "gripper"],
        units=["m", "m", "m", "rad", "1"],
        scale=[*(sort_two_expert.STEP_M,) * 3, sort_two_expert.STEP_RAD, 1.0],
        groups=[ActionGroup(name="arm", start=0, stop=4), ActionGroup(name="gripper", start=4, stop=5)],
        gripper="discrete",
    )
    observation = ObservationSpec(
        names=[
            *("tool_x", "tool_y", "tool_z", "tool_yaw"),  # relative to the episode's start
            *("velocity_x", "velocity_y", "velocity_z", "yaw_rate"),
            *("gripper_width", "gripper_speed", "gripper_command"),
            *("to_first_x", "to_first_y", "to_first_z", "to_first_yaw"),  # as measured, from the tool point
            *("to_second_x", "to_second_y", "to_second_z", "to_second_yaw"),
            *("to_first_mark_x", "to_first_mark_y", "to_second_mark_x", "to_second_mark_y"),
            "first_on_mark",  # 1 where the measured cube lies on its mark and the fingers have let it go
            *("force_x", "force_y", "force_z", "height"),
        ],
        units=[
            *("m", "m", "m", "rad"),
            *("m/s", "m/s", "m/s", "rad/s"),
            *("m", "m/s", "1"),
            *("m", "m", "m", "rad") * 2,
            *("m", "m", "m", "m"),
            "1",
            *("N", "N", "N", "m"),
        ],
    )
    parameters: tuple[ParameterSpec, ...] = (
        ParameterSpec(name="cube_range_m", unit="m", nominal=0.025, low=0.0, high=0.04),
        ParameterSpec(name="cube_yaw_range_rad", unit="rad", nominal=0.6, low=0.0, high=0.78),
        ParameterSpec(name="mark_range_m", unit="m", nominal=0.010, low=0.0, high=0.015),
        ParameterSpec(name="tolerance_m", unit="m", nominal=0.020, low=0.005, high=0.025),
        ParameterSpec(name="cube_width_m", unit="m", nominal=0.036, low=0.025, high=0.045),
        ParameterSpec(name="cube_mass_kg", unit="kg", nominal=0.10, low=0.02, high=1.0),
        ParameterSpec(name="friction", unit="1", nominal=0.8, low=0.1, high=1.5),
        ParameterSpec(name="gripper_wear", unit="1", nominal=0.0, low=0.0, high=1.0),
        ParameterSpec(name="observation_bias_m", unit="m", nominal=0.002, low=0.0, high=0.01),
        ParameterSpec(name="observation_noise_m", unit="m", nominal=0.0005, low=0.0, high=0.005),
        *COMMON_PARAMETERS,
    )
    variable_names: tuple[str, ...] = (
        *("first_x", "first_y", "first_yaw", "second_x", "second_y", "second_yaw"),
        *("first_mark_x", "first_mark_y", "second_mark_x", "second_mark_y"),
        *("cube_half", "tolerance"),
        *("first_bias_x", "first_bias_y", "first_bias_z", "first_bias_yaw"),
        *("second_bias_x", "second_bias_y", "second_bias_z", "second_bias_yaw"),
    )
    workspace_low: tuple[float, float, float] = (-0.15, -0.15, 0.012)
    workspace_high: tuple[float, float, float] = (0.15, 0.15, 0.20)
    faults: tuple[str, ...] = ("slip", "lost_grasp", "bumped_object")

    def scene(self, parameters: dict[str, float]) -> TaskScene:
        health, half = gripper_health(parameters), parameters["cube_width_m"] / 2
        objects = "".join(
            cube_body(name, parameters, sim_looks.sorted_cube(half, name), aside_m)
            for name, aside_m in zip(_NAMES, (0.1, -0.1), strict=True)
        )
        marks = "".join(
            f'<body name="{name}_mark" mocap="true">{sim_looks.mark(half + parameters["tolerance_m"], name)}</body>' for name in _NAMES
        )
        return TaskScene(
            world=objects + marks,
            hand="",
            tool_point_m=FINGERTIP_M - _PAD_M,
            movable_fingers=True,
            finger_gap_m=OPENING_M,
            pad_friction=max(parameters["friction"], 1.0) * health,
            grip_force_n=_GRIP_FORCE_N * health,
            stiffness_n_m=2800.0,  # longer steps than pick-lift's, so softer: a push ends at 50 N
        )

    def draw(self, rng: np.random.Generator, parameters: dict[str, float]) -> tuple[FloatArray, FloatArray]:
        """Cubes at least 7 cm apart, so that the fingers fit between. Which lies on which side is drawn; the marks' sides are fixed."""
        reach, turn, spread = parameters["cube_range_m"], parameters["cube_yaw_range_rad"], parameters["mark_range_m"]
        side = 1.0 if rng.random() < 0.5 else -1.0
        off = rng.uniform(-1.0, 1.0, (2, 3)) * (reach, 0.5 * reach, turn)
        cubes = off + np.array([[_CUBES_M[0], side * _CUBES_M[1], 0.0], [_CUBES_M[0], -side * _CUBES_M[1], 0.0]])
        marks = rng.uniform(-spread, spread, (2, 2)) + np.array([[_MARKS_M[0], _MARKS_M[1]], [_MARKS_M[0], -_MARKS_M[1]]])
        bias = parameters["observation_bias_m"]
        biases = rng.normal(0.0, 1.0, (2, 4)) * (bias, bias, 0.25 * bias, 10.0 * bias)
        start = rng.uniform((-0.02, -0.02, -0.02, -0.1), (0.02, 0.02, 0.02, 0.1))
        start[2] += _START_HEIGHT_M
        sizes = [parameters["cube_width_m"] / 2, parameters["tolerance_m"]]
        return np.concatenate([cubes.reshape(-1), marks.reshape(-1), sizes, biases.reshape(-1)]), start

    def install(self, model: mujoco.MjModel, data: mujoco.MjData, variables: FloatArray) -> None:
        """The cubes' poses are part of MuJoCo's state; the marks are painted on the table."""
        for i in range(2):
            data.mocap_pos[i] = (*variables[6 + 2 * i : 8 + 2 * i], 0.0)

    def place(self, model: mujoco.MjModel, data: mujoco.MjData, variables: FloatArray) -> None:
        for i, start in enumerate(_QPOS):
            x, y, yaw = variables[3 * i : 3 * i + 3]
            data.qpos[start : start + 7] = lying_cube(x, y, yaw, variables[10])

    def observe(self, data: mujoco.MjData, sense: Sense, variables: FloatArray, parameters: dict[str, float]) -> FloatArray:
        noise = parameters["observation_noise_m"] * sense.noise
        first = cube_pose(data, _NAMES[0]) + variables[12:16] + noise * (1.0, 1.0, 1.0, 10.0)
        second = cube_pose(data, _NAMES[1]) + variables[16:20] + noise[[1, 0, 3, 2]] * (1.0, 1.0, 1.0, 10.0)
        tool = np.array([*sense.position, sense.yaw])
        ways = first - tool, second - tool
        for way in ways:
            way[3] = nearest_quarter_turn(way[3])
        gripper = [sense.gripper_width, data.qvel[_FINGER] + data.qvel[_FINGER + 1], sense.gripper_command]
        marks = (variables[6:10].reshape(2, 2) - tool[:2]).reshape(-1)
        return np.concatenate(
            [
                *(tool - sense.start, sense.velocity, [sense.yaw_rate], gripper, *ways, marks),
                *([float(_lies_on(first, 0, sense, variables))], sense.force, sense.position[2:]),
            ]
        )

    def evaluate(self, data: mujoco.MjData, sense: Sense, variables: FloatArray) -> Evaluation:
        cubes = cube_pose(data, _NAMES[0]), cube_pose(data, _NAMES[1])
        success = all(_lies_on(cube, i, sense, variables) for i, cube in enumerate(cubes))
        failed = not success and _cause(cubes, sense, variables) > 0
        return Evaluation(reward=float(success), success=success, terminated=success or failed)

    def surface_height(self, tool: FloatArray, variables: FloatArray) -> float:
        return 0.0

    def truth(self, data: mujoco.MjData, sense: Sense, variables: FloatArray) -> dict[str, list[float]]:
        """``failure``: index of `CAUSES`. ``on_mark``: of each cube, 1 where it lies released on its own mark."""
        cubes, half = (cube_pose(data, _NAMES[0]), cube_pose(data, _NAMES[1])), float(variables[10])
        gripped = [float(_held(cube, sense, half) and sense.gripper_command < 0) for cube in cubes]
        known = {
            "tool_pose": [*sense.position.tolist(), sense.yaw],
            "first_cube_pose": cubes[0].tolist(),
            "second_cube_pose": cubes[1].tolist(),
            "first_mark": variables[6:8].tolist(),
            "second_mark": variables[8:10].tolist(),
            "gripper": [sense.gripper_width, sense.gripper_command, *gripped],
            "on_mark": [float(_lies_on(cube, i, sense, variables)) for i, cube in enumerate(cubes)],
            "cube_half": [half],
            "tolerance": [float(variables[11])],
            "force": sense.force.tolist(),
            "failure": [float(_cause(cubes, sense, variables))],
        }
        return known | {"distance": [sort_two_expert.path_to_go(known)]}

    def expert(self, truth: dict[str, list[float]]) -> list[float]:
        return sort_two_expert.action(truth)

    def fault(self, name: str, value: float, data: mujoco.MjData, variables: FloatArray, rng: np.random.Generator) -> None:
        """slip and lost_grasp happen to the cube nearest to the tool, bumped_object to the other one."""
        direction = rng.uniform(-np.pi, np.pi)
        shift = 0.02 * value * np.array([np.cos(direction), np.sin(direction)])
        tool = data.site("tool").xpos
        ways = [float(np.linalg.norm(data.body(cube).xpos - tool)) for cube in _NAMES]
        nearest = int(ways[1] < ways[0])
        if name == "slip":
            data.qvel[_QVEL[nearest] + 2] -= 0.5 * value
            return
        hit = nearest if name == "lost_grasp" else 1 - nearest
        data.qpos[_QPOS[hit] : _QPOS[hit] + 2] += shift
        if name == "lost_grasp":
            data.qpos[_QPOS[hit] + 2] = variables[10]
            data.qvel[_QVEL[hit] : _QVEL[hit] + 6] = 0.0


def _held(cube: FloatArray, sense: Sense, half: float) -> bool:
    """Whether the fingers are on it: it is between them, and they are no further apart than it is wide."""
    near = float(np.linalg.norm(cube[:3] - sense.position)) < NEAR_M
    return near and abs(sense.gripper_width - 2 * half) < RELEASED_M


def _lies_on(cube: FloatArray, mark: int, sense: Sense, variables: FloatArray) -> bool:
    """Whether ``cube`` (4,) lies on the table within the tolerance of ``mark`` (0 or 1) and the fingers have let it go."""
    half, tolerance = float(variables[10]), float(variables[11])
    aside = np.abs(cube[:2] - variables[6 + 2 * mark : 8 + 2 * mark])
    return bool(aside.max() < tolerance and cube[2] - half < LYING_M) and not _held(cube, sense, half)


def _cause(cubes: tuple[FloatArray, FloatArray], sense: Sense, variables: FloatArray) -> int:
    """Index of `CAUSES`: what cannot be put right any more."""
    if _lies_on(cubes[0], 1, sense, variables) or _lies_on(cubes[1], 0, sense, variables):
        return 2
    return int(_lies_on(cubes[1], 1, sense, variables) and not _lies_on(cubes[0], 0, sense, variables))
