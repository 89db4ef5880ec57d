"""`peg-insert`: put a square peg, held with a hidden grasp offset, into a square hole with little clearance.

The policy sees the hole with half a millimetre of bias and never sees the grasp offset (up to 3 mm, twice the clearance): it has to
feel. Force and torque at the tool say on which side the peg stands on the plate. The peg collides through eight small spheres on
its edges, so its lower edges are rounded by `EDGE_RADIUS_M` and a contact costs little to compute.
"""

import mujoco
import numpy as np
import numpy.typing as npt

from takeover.data.schema import ActionGroup, ActionSpec, ObservationSpec, ParameterSpec
from takeover.robot_bridge.robots import sim_looks
from takeover.robot_bridge.robots.base import Evaluation
from takeover.robot_bridge.robots.sim_model import FINGERTIP_M, TaskScene
from takeover.robot_bridge.tasks.base import COMMON_PARAMETERS, Sense, nearest_quarter_turn

FloatArray = npt.NDArray[np.float64]

PLATE_TOP_M = 0.035
PLATE_HALF_M = 0.055
HOLE_DEPTH_M = 0.020
SUCCESS_DEPTH_M = 0.015
PEG_BELOW_FINGERS_M = 0.050
EDGE_RADIUS_M = 0.0022  # rounded so far that cloned demonstrations alone succeed in 25 to 55 % of the starts
_UPPER_SPHERES_M = 0.014  # height of the second ring of contact spheres above the tip
_STEP_M = 0.005
_STEP_RAD = 0.08
_CRUISE = 0.7  # the expert's speed, of the largest
_START_HEIGHT_M = 0.090  # of the tip above the plate


class PegInsert:
    name = "peg-insert"
    prompt = "Insert the square peg into the hole"
    max_steps = 100
    action = ActionSpec(
        kind="ee_delta",
        frame="base",
        names=["x", "y", "z", "yaw"],
        units=["m", "m", "m", "rad"],
        scale=[_STEP_M, _STEP_M, _STEP_M, _STEP_RAD],
        groups=[ActionGroup(name="arm", start=0, stop=4)],
        gripper="none",
    )
    observation = ObservationSpec(
        names=[
            *("tool_x", "tool_y", "tool_z", "tool_yaw"),  # relative to the episode's start
            *("velocity_x", "velocity_y", "velocity_z", "yaw_rate"),
            "gripper_width",
            *("hole_x", "hole_y", "hole_z", "hole_yaw"),  # as measured, relative to the start
            *("to_hole_x", "to_hole_y", "to_hole_z", "to_hole_yaw"),  # as measured, from the tool point
            *("force_x", "force_y", "force_z", "torque_x", "torque_y"),
        ],
        units=[*("m", "m", "m", "rad"), *("m/s", "m/s", "m/s", "rad/s"), "m", *("m", "m", "m", "rad") * 2, *("N", "N", "N", "N m", "N m")],
    )
    parameters: tuple[ParameterSpec, ...] = (
        ParameterSpec(name="hole_range_m", unit="m", nominal=0.06, low=0.0, high=0.08),
        ParameterSpec(name="hole_yaw_range_rad", unit="rad", nominal=0.4, low=0.0, high=0.6),
        ParameterSpec(name="peg_width_m", unit="m", nominal=0.020, low=0.014, high=0.026),
        ParameterSpec(name="peg_mass_kg", unit="kg", nominal=0.08, low=0.01, high=0.5),
        ParameterSpec(name="friction", unit="1", nominal=0.3, low=0.05, high=1.0),
        ParameterSpec(name="clearance_m", unit="m", nominal=0.0015, low=0.0005, high=0.004),
        ParameterSpec(name="grasp_offset_m", unit="m", nominal=0.003, low=0.0, high=0.006),
        ParameterSpec(name="observation_bias_m", unit="m", nominal=0.0005, low=0.0, high=0.005),
        ParameterSpec(name="observation_noise_m", unit="m", nominal=0.0002, low=0.0, high=0.003),
        *COMMON_PARAMETERS,
    )
    variable_names: tuple[str, ...] = (
        "hole_x",
        "hole_y",
        "hole_yaw",
        "grasp_x",
        "grasp_y",
        "grasp_tilt",
        "bias_x",
        "bias_y",
        "bias_z",
        "bias_yaw",
    )
    workspace_low: tuple[float, float, float] = (-0.13, -0.13, 0.002)
    workspace_high: tuple[float, float, float] = (0.13, 0.13, 0.20)
    faults: tuple[str, ...] = ("slip", "lost_grasp", "bumped_object")

    def scene(self, parameters: dict[str, float]) -> TaskScene:
        peg_half, friction = parameters["peg_width_m"] / 2, parameters["friction"]
        return TaskScene(
            world=_plate(peg_half + parameters["clearance_m"], friction),
            hand=_peg(peg_half, parameters["peg_mass_kg"], friction),
            tool_point_m=FINGERTIP_M + PEG_BELOW_FINGERS_M,
            movable_fingers=False,
            finger_gap_m=parameters["peg_width_m"],
        )

    def draw(self, rng: np.random.Generator, parameters: dict[str, float]) -> tuple[FloatArray, FloatArray]:
        reach, turn, grasp = parameters["hole_range_m"], parameters["hole_yaw_range_rad"], parameters["grasp_offset_m"]
        bias = parameters["observation_bias_m"]
        hole = rng.uniform((-reach, -reach, -turn), (reach, reach, turn))
        offset = rng.uniform(-grasp, grasp, 2)
        biases = rng.normal(0.0, 1.0, 4) * (bias, bias, bias, 20.0 * bias)
        start = rng.uniform((-0.01, -0.01, -0.01, -0.05), (0.01, 0.01, 0.01, 0.05))
        start[2] += PLATE_TOP_M + _START_HEIGHT_M
        return np.concatenate([hole, offset, [0.0], biases]), start

    def install(self, model: mujoco.MjModel, data: mujoco.MjData, variables: FloatArray) -> None:
        x, y, yaw, grasp_x, grasp_y, tilt = variables[:6]
        data.mocap_pos[0] = (x, y, 0.0)
        data.mocap_quat[0] = (np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))
        peg = model.body("peg").id
        model.body_pos[peg, :2] = (grasp_x, grasp_y)
        model.body_quat[peg] = (np.cos(tilt / 2), np.sin(tilt / 2), 0.0, 0.0)

    def place(self, model: mujoco.MjModel, data: mujoco.MjData, variables: FloatArray) -> None:
        """Nothing is loose in this task."""

    def observe(self, data: mujoco.MjData, sense: Sense, variables: FloatArray, parameters: dict[str, float]) -> FloatArray:
        noise = parameters["observation_noise_m"] * sense.noise * (1.0, 1.0, 1.0, 10.0)
        hole = np.array([variables[0], variables[1], PLATE_TOP_M, variables[2]]) + variables[6:10] + noise
        tool = np.array([*sense.position, sense.yaw])
        width = sense.gripper_width
        return np.concatenate(
            [tool - sense.start, sense.velocity, [sense.yaw_rate, width], hole - sense.start, hole - tool, sense.force, sense.torque[:2]]
        )

    def evaluate(self, data: mujoco.MjData, sense: Sense, variables: FloatArray) -> Evaluation:
        tip = data.site("peg_tip").xpos
        aside = float(np.hypot(tip[0] - variables[0], tip[1] - variables[1]))
        success = bool(PLATE_TOP_M - tip[2] >= SUCCESS_DEPTH_M and aside < 0.006)
        return Evaluation(reward=float(success), success=success, terminated=success)

    def surface_height(self, tool: FloatArray, variables: FloatArray) -> float:
        x, y, yaw = tool[0] - variables[0], tool[1] - variables[1], variables[2]
        across, along = abs(np.cos(yaw) * x + np.sin(yaw) * y), abs(np.cos(yaw) * y - np.sin(yaw) * x)
        return PLATE_TOP_M if max(across, along) < PLATE_HALF_M else 0.0

    def truth(self, data: mujoco.MjData, sense: Sense, variables: FloatArray) -> dict[str, list[float]]:
        return {
            "tool_pose": [*sense.position.tolist(), sense.yaw],
            "tip": data.site("peg_tip").xpos.tolist(),
            "hole_pose": [float(variables[0]), float(variables[1]), PLATE_TOP_M, float(variables[2])],
            "grasp_offset": variables[3:5].tolist(),
            "force": sense.force.tolist(),
            # what progress is measured by: path still to go, metres
            "distance": [_distance(data.site("peg_tip").xpos, variables)],
        }

    def expert(self, truth: dict[str, list[float]]) -> list[float]:
        tip, hole = np.array(truth["tip"]), np.array(truth["hole_pose"])
        turn = nearest_quarter_turn(hole[3] - truth["tool_pose"][3])
        aside = hole[:2] - tip[:2]
        distance, height = float(np.hypot(*aside)), float(tip[2] - hole[2])
        lateral = aside * min(_CRUISE, 0.35 * distance / _STEP_M) / max(distance, 1e-9)
        aligned = distance < 0.0008 and abs(turn) < 0.08
        if height < -0.003:
            down = -_CRUISE  # inside: the walls guide
        elif aligned:
            down = -_CRUISE
        elif height < 0.002:
            down = 0.6  # standing on the plate: lift before moving aside
        else:
            # a funnel: hover a few millimetres above until aligned
            down = float(np.clip(0.5 * (0.005 + 0.4 * distance - height) / _STEP_M, -_CRUISE, 0.5))
        yaw = float(np.clip(0.35 * turn / _STEP_RAD, -_CRUISE, _CRUISE))
        return [float(lateral[0]), float(lateral[1]), down, yaw]

    def fault(self, name: str, value: float, data: mujoco.MjData, variables: FloatArray, rng: np.random.Generator) -> None:
        direction = rng.uniform(-np.pi, np.pi)
        shift = value * 0.01 * np.array([np.cos(direction), np.sin(direction)])
        if name == "slip":
            variables[3:5] += 0.4 * shift
        elif name == "bumped_object":
            variables[0:2] += shift
        else:  # lost_grasp: the peg hangs askew and cannot go in
            variables[5] = 0.5 * value


def _distance(tip: FloatArray, variables: FloatArray) -> float:
    aside = float(np.hypot(tip[0] - variables[0], tip[1] - variables[1]))
    return aside + max(0.0, float(tip[2]) - (PLATE_TOP_M - SUCCESS_DEPTH_M))


def _plate(hole_half: float, friction: float) -> str:
    """A mocap body whose origin is on the table below the hole: four walls and a floor."""
    wall = (PLATE_HALF_M - hole_half) / 2
    middle = hole_half + wall
    height, depth = PLATE_TOP_M / 2, (PLATE_TOP_M - HOLE_DEPTH_M) / 2
    boxes = (
        (middle, 0.0, height, wall, PLATE_HALF_M, height),
        (-middle, 0.0, height, wall, PLATE_HALF_M, height),
        (0.0, middle, height, hole_half, wall, height),
        (0.0, -middle, height, hole_half, wall, height),
        (0.0, 0.0, depth, hole_half, hole_half, depth),
    )
    geoms = "".join(
        f'<geom class="environment" type="box" pos="{x} {y} {z}" size="{a} {b} {c}" friction="{friction} 0.005 0.0001"/>'
        for x, y, z, a, b, c in boxes
    )
    return f'<body name="plate" mocap="true">{geoms}{sim_looks.plate(PLATE_HALF_M, PLATE_TOP_M, hole_half, HOLE_DEPTH_M)}</body>'


def _peg(half: float, mass: float, friction: float) -> str:
    """Fixed to the hand; body origin at the nominal tip."""
    length = PEG_BELOW_FINGERS_M + 0.02
    inset = half - EDGE_RADIUS_M
    spheres = "".join(
        f'<geom class="tool" type="sphere" size="{EDGE_RADIUS_M}" pos="{x} {y} {-z}" friction="{friction} 0.005 0.0001"/>'
        for x in (-inset, inset)
        for y in (-inset, inset)
        for z in (EDGE_RADIUS_M, _UPPER_SPHERES_M)
    )
    return f"""<body name="peg" pos="0 0 {FINGERTIP_M + PEG_BELOW_FINGERS_M}" gravcomp="1">
      <inertial pos="0 0 {-length / 2}" mass="{mass}" diaginertia="0.0001 0.0001 0.00005"/>
      <site name="peg_tip" pos="0 0 0" group="4"/>{spheres}{sim_looks.peg(half, length)}</body>"""
