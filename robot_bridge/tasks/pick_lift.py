"""`pick-lift`: grasp a cube that lies somewhere on the table and lift it. The tutorial task.

The cube's place is measured with 2 mm of bias; its yaw is random, and the opening leaves one centimetre on each side.
"""

import mujoco
import numpy as np
import numpy.typing as npt

from takeover.data.schema import ActionGroup, ActionSpec, ObservationSpec, ParameterSpec
from takeover.robot_bridge.robots import sim_looks
from takeover.robot_bridge.robots.base import Evaluation
from takeover.robot_bridge.robots.sim_model import ARM_JOINTS, FINGERTIP_M, TaskScene
from takeover.robot_bridge.tasks.base import COMMON_PARAMETERS, Sense, nearest_quarter_turn
from takeover.robot_bridge.tasks.cubes import cube_body, cube_pose, gripper_health, lying_cube

FloatArray = npt.NDArray[np.float64]

OPENING_M = 0.060
SUCCESS_LIFT_M = 0.08
_PAD_M = 0.010  # tool point (middle of the pads) above the fingertips
_STEP_M = 0.012
_STEP_RAD = 0.08
_START_HEIGHT_M = 0.15
_CRUISE = 0.7  # the expert's speed, of the largest
_GRIP_FORCE_N = 25.0
_FINGER = ARM_JOINTS  # index of the first finger joint
_CUBE = ARM_JOINTS + 2  # index of the cube's free joint, in qpos and in qvel


class PickLift:
    name = "pick-lift"
    prompt = "Pick up the cube and lift it"
    max_steps = 100
    action = ActionSpec(
        kind="ee_delta",
        frame="base",
        names=["x", "y", "z", "yaw", "gripper"],
        units=["m", "m", "m", "rad", "1"],
        scale=[_STEP_M, _STEP_M, _STEP_M, _STEP_RAD, 1.0],
        groups=[ActionGroup(name="arm", start=0, stop=4), ActionGroup(name="gripper", start=4, stop=5)],
        gripper="discrete",
    )
    observation = ObservationSpec(
        names=[
            *("tool_x", "tool_y", "tool_z", "tool_yaw"),  # relative to the episode's start
            *("velocity_x", "velocity_y", "velocity_z", "yaw_rate"),
            *("gripper_width", "gripper_speed", "gripper_command"),
            *("cube_x", "cube_y", "cube_z", "cube_yaw"),  # as measured, relative to the start
            *("to_cube_x", "to_cube_y", "to_cube_z", "to_cube_yaw"),  # as measured, from the tool point
            *("force_x", "force_y", "force_z", "height"),
        ],
        units=[
            *("m", "m", "m", "rad"),
            *("m/s", "m/s", "m/s", "rad/s"),
            *("m", "m/s", "1"),
            *("m", "m", "m", "rad") * 2,
            *("N", "N", "N", "m"),
        ],
    )
    parameters: tuple[ParameterSpec, ...] = (
        ParameterSpec(name="cube_range_m", unit="m", nominal=0.08, low=0.0, high=0.10),
        ParameterSpec(name="cube_yaw_range_rad", unit="rad", nominal=0.75, low=0.0, high=0.78),
        ParameterSpec(name="cube_width_m", unit="m", nominal=0.040, low=0.025, high=0.050),
        ParameterSpec(name="cube_mass_kg", unit="kg", nominal=0.10, low=0.02, high=1.0),
        ParameterSpec(name="friction", unit="1", nominal=0.8, low=0.1, high=1.5),
        ParameterSpec(name="gripper_wear", unit="1", nominal=0.0, low=0.0, high=1.0),
        ParameterSpec(name="observation_bias_m", unit="m", nominal=0.002, low=0.0, high=0.01),
        ParameterSpec(name="observation_noise_m", unit="m", nominal=0.0005, low=0.0, high=0.005),
        *COMMON_PARAMETERS,
    )
    variable_names: tuple[str, ...] = ("cube_x", "cube_y", "cube_yaw", "cube_half", "bias_x", "bias_y", "bias_z", "bias_yaw")
    workspace_low: tuple[float, float, float] = (-0.15, -0.15, 0.012)
    workspace_high: tuple[float, float, float] = (0.15, 0.15, 0.24)
    faults: tuple[str, ...] = ("slip", "lost_grasp", "bumped_object")

    def scene(self, parameters: dict[str, float]) -> TaskScene:
        health = gripper_health(parameters)
        return TaskScene(
            world=cube_body("cube", parameters, sim_looks.cube(parameters["cube_width_m"] / 2)),
            hand="",
            tool_point_m=FINGERTIP_M - _PAD_M,
            movable_fingers=True,
            finger_gap_m=OPENING_M,
            pad_friction=max(parameters["friction"], 1.0) * health,
            grip_force_n=_GRIP_FORCE_N * health,
            stiffness_n_m=3500.0,  # longer steps than peg-insert's, so softer: a push ends at 50 N
        )

    def draw(self, rng: np.random.Generator, parameters: dict[str, float]) -> tuple[FloatArray, FloatArray]:
        reach, turn, bias = parameters["cube_range_m"], parameters["cube_yaw_range_rad"], parameters["observation_bias_m"]
        cube = rng.uniform((-reach, -reach, -turn), (reach, reach, turn))
        biases = rng.normal(0.0, 1.0, 4) * (bias, bias, 0.25 * bias, 10.0 * bias)
        start = rng.uniform((-0.02, -0.02, -0.02, -0.1), (0.02, 0.02, 0.02, 0.1))
        start[2] += _START_HEIGHT_M
        return np.concatenate([cube, [parameters["cube_width_m"] / 2], biases]), start

    def install(self, model: mujoco.MjModel, data: mujoco.MjData, variables: FloatArray) -> None:
        """The cube's pose is part of MuJoCo's state; nothing else varies within a model."""

    def place(self, model: mujoco.MjModel, data: mujoco.MjData, variables: FloatArray) -> None:
        x, y, yaw, half = variables[:4]
        data.qpos[_CUBE : _CUBE + 7] = lying_cube(x, y, yaw, half)

    def observe(self, data: mujoco.MjData, sense: Sense, variables: FloatArray, parameters: dict[str, float]) -> FloatArray:
        noise = parameters["observation_noise_m"] * sense.noise * (1.0, 1.0, 1.0, 10.0)
        cube = cube_pose(data, "cube") + variables[4:8] + noise
        tool = np.array([*sense.position, sense.yaw])
        from_start, from_tool = cube - sense.start, cube - tool
        from_start[3], from_tool[3] = nearest_quarter_turn(from_start[3]), nearest_quarter_turn(from_tool[3])
        gripper = [sense.gripper_width, data.qvel[_FINGER] + data.qvel[_FINGER + 1], sense.gripper_command]
        return np.concatenate(
            [tool - sense.start, sense.velocity, [sense.yaw_rate], gripper, from_start, from_tool, sense.force, sense.position[2:]]
        )

    def evaluate(self, data: mujoco.MjData, sense: Sense, variables: FloatArray) -> Evaluation:
        cube = cube_pose(data, "cube")
        near = float(np.linalg.norm(cube[:3] - sense.position)) < 0.03
        success = bool(near and cube[2] - variables[3] >= SUCCESS_LIFT_M)
        return Evaluation(reward=float(success), success=success, terminated=success)

    def surface_height(self, tool: FloatArray, variables: FloatArray) -> float:
        return 0.0

    def truth(self, data: mujoco.MjData, sense: Sense, variables: FloatArray) -> dict[str, list[float]]:
        cube = cube_pose(data, "cube")
        half = float(variables[3])
        holding = sense.gripper_command < 0 and abs(sense.gripper_width - 2 * half) < 0.004 and _near(cube, sense)
        return {
            "tool_pose": [*sense.position.tolist(), sense.yaw],
            "cube_pose": cube.tolist(),
            "gripper": [sense.gripper_width, sense.gripper_command, float(holding)],
            "cube_half": [half],
            "force": sense.force.tolist(),
            "distance": [_distance(cube, sense, holding, half)],
        }

    def expert(self, truth: dict[str, list[float]]) -> list[float]:
        tool, cube = np.array(truth["tool_pose"]), np.array(truth["cube_pose"])
        width, command, holding = truth["gripper"]
        aside = cube[:2] - tool[:2]
        distance, turn = float(np.hypot(*aside)), nearest_quarter_turn(cube[3] - tool[3])
        if holding:
            return [0.0, 0.0, _CRUISE, 0.0, -1.0]
        closing = command < 0 and width > 2 * truth["cube_half"][0] + 0.002
        level = abs(float(tool[2] - cube[2])) < 0.010
        if level and (closing or (command > 0 and distance < 0.006 and abs(turn) < 0.15)):
            return [0.0, 0.0, 0.0, 0.0, -1.0]
        lateral = aside * min(_CRUISE, 0.4 * distance / _STEP_M) / max(distance, 1e-9)
        inside = distance < 0.008 and abs(turn) < 0.2
        hover = 0.0 if inside else 0.05 + 0.3 * distance
        down = float(np.clip(0.5 * (cube[2] + hover - tool[2]) / _STEP_M, -_CRUISE, _CRUISE))
        yaw = float(np.clip(0.35 * turn / _STEP_RAD, -_CRUISE, _CRUISE))
        return [float(lateral[0]), float(lateral[1]), down, yaw, 1.0]

    def fault(self, name: str, value: float, data: mujoco.MjData, variables: FloatArray, rng: np.random.Generator) -> None:
        direction = rng.uniform(-np.pi, np.pi)
        shift = 0.02 * value * np.array([np.cos(direction), np.sin(direction)])
        if name == "slip":
            data.qvel[_CUBE + 2] -= 0.5 * value
            return
        data.qpos[_CUBE : _CUBE + 2] += shift
        if name == "lost_grasp":
            data.qpos[_CUBE + 2] = variables[3]
            data.qvel[_CUBE : _CUBE + 6] = 0.0


def _near(cube: FloatArray, sense: Sense) -> bool:
    return float(np.linalg.norm(cube[:3] - sense.position)) < 0.02


def _distance(cube: FloatArray, sense: Sense, holding: bool, half: float) -> float:
    """Path still to go (m): to the cube, then up."""
    to_lift = max(0.0, SUCCESS_LIFT_M - float(cube[2] - half))
    return to_lift if holding else to_lift + 0.02 + float(np.linalg.norm(cube[:3] - sense.position))
