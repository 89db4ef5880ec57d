"""MJCF of the simulated arm and its table, built from primitives; tasks add their objects and what the gripper holds.

Two models come from one description: the *physics* model has only what collides (few geoms, quick to step); the *visual* one adds
everything that is there to be looked at. Their joints, bodies and mocap bodies are the same, so a state of one fits the other.

Base frame = world: origin on the table top in the middle of the work area, x away from the arm's base, z up. Metres, radians, kg.
"""

import re
from dataclasses import dataclass

import mujoco

from takeover.robot_bridge.robots import sim_looks
from takeover.robot_bridge.robots.sim_camera_geometry import FRONT_FOVY_DEG, FRONT_POSITION_M, front_axes

TIMESTEP_S = 0.0025
ARM_JOINTS = 6
HOME = (0.0, 0.05, -2.45, 0.0, 2.5, 0.785)
BASE_X_M = -0.5
FINGERTIP_M = 0.112  # hand frame to the fingertips
DAMPING_TIME_S = 0.035  # damping over stiffness at the tool; also the lead by which a moving target is fed forward
_TILT_STIFFNESS = 120.0  # N m / rad
_YAW_STIFFNESS = 60.0
_RANGES = ((-2.8, 2.8), (-1.7, 1.7), (-3.05, -0.1), (-2.8, 2.8), (0.0, 3.7), (-2.8, 2.8))
_FRAMES = (  # proportions of a common seven-joint research arm whose third joint is locked
    ("0 0 0.333", "1 0 0 0"),
    ("0 0 0", "1 -1 0 0"),
    ("0.0825 -0.316 0", "0 1 0 0"),
    ("-0.0825 0.384 0", "1 -1 0 0"),
    ("0 0 0", "1 1 0 0"),
    ("0.088 0 0", "1 1 0 0"),
)
_INERTIALS = (  # light: the arm is moved by ideal motors, and low inertia keeps contacts gentle
    ("0 0 -0.07", 0.8, 0.004),
    ("0 -0.15 0.0", 0.8, 0.006),
    ("-0.04 0.05 0.0", 0.5, 0.003),
    ("0 0 -0.12", 0.5, 0.003),
    ("0.04 0 0", 0.4, 0.001),
    ("0 0 0.06", 0.3, 0.0006),
)
_WRIST_CAMERA = '<camera name="wrist" pos="0.075 0 0.034" xyaxes="0 1 0 0.937 0 0.35" fovy="60"/>'
_ARMATURE = (0.05, 0.05, 0.05, 0.01, 0.01, 0.005)


@dataclass(frozen=True)
class TaskScene:
    """What a task adds: MJCF of objects in the world and of what is fixed to the hand, and where its tool point is."""

    world: str
    hand: str
    tool_point_m: float  # from the hand frame along the tool axis
    movable_fingers: bool
    finger_gap_m: float  # between the pads; the initial one where fingers move
    pad_friction: float = 1.0
    grip_force_n: float = 25.0
    stiffness_n_m: float = 4500.0  # of the tool; times the reach of the target it bounds the force


def build_model(scene: TaskScene, *, visual: bool, light: float = 1.0) -> mujoco.MjModel:
    """Compile the arm on its table with ``scene``; ``visual`` adds everything that is there to be looked at."""
    return mujoco.MjModel.from_xml_string(_xml(scene, visual, light))


def _xml(scene: TaskScene, visual: bool, light: float) -> str:
    cameras = f"{sim_looks.room(light)}{_camera()}" if visual else ""
    bodies = f"{cameras}{_arm(scene, visual)}{scene.world}{sim_looks.drop_shadow() if visual else ''}"
    if not visual:
        bodies = re.sub(r'<geom class="look"[^>]*/>', "", bodies)
    return f"""
<mujoco model="takeover_arm">
  <compiler angle="radian" inertiafromgeom="auto"/>
  <option timestep="{TIMESTEP_S}" integrator="implicitfast" cone="elliptic" iterations="50" ls_iterations="20" tolerance="1e-8"
          jacobian="dense"><flag eulerdamp="disable"/></option>
  <size memory="4M"/>
  <default>
    <geom contype="0" conaffinity="0" mass="0" solref="0.006 1" solimp="0.95 0.99 0.0005"/>
    <default class="environment"><geom contype="1" conaffinity="0" group="3"/></default>
    <default class="tool"><geom contype="0" conaffinity="1" group="3"/></default>
    <default class="look"><geom group="1"/></default>
  </default>
  {sim_looks.assets(bodies) if visual else ""}
  <worldbody>
    <geom name="table" class="environment" type="plane" size="1 1 0.1" pos="0 0 0"/>
    <site name="reference" quat="0 1 0 0" group="4"/>
    {bodies}
  </worldbody>
  <actuator>
    {_actuators(scene)}
  </actuator>
</mujoco>"""


def _camera() -> str:
    """The fixed front camera; the wrist camera is part of the hand."""
    right, down, _ = front_axes()
    axes = " ".join(f"{value:.9f}" for value in (*right, *-down))
    position = " ".join(str(value) for value in FRONT_POSITION_M)
    return f'<camera name="front" pos="{position}" xyaxes="{axes}" fovy="{FRONT_FOVY_DEG}"/>'


def _arm(scene: TaskScene, visual: bool) -> str:
    opened, closed = "", ""
    for i in range(ARM_JOINTS):
        (pos, quat), (com, mass, inertia), (low, high) = _FRAMES[i], _INERTIALS[i], _RANGES[i]
        shape = sim_looks.LINKS[i + 1] if visual else ""
        opened += f"""<body name="link{i + 1}" pos="{pos}" quat="{quat}" gravcomp="1">
          <inertial pos="{com}" mass="{mass}" diaginertia="{inertia} {inertia} {inertia}"/>
          <joint name="joint{i + 1}" axis="0 0 1" range="{low} {high}" armature="{_ARMATURE[i]}" damping="0.3"/>{shape}"""
        closed += "</body>"
    base = f'<body name="base" pos="{BASE_X_M} 0 0">{sim_looks.LINKS[0] if visual else ""}'
    return f"{base}{opened}{_hand(scene, visual)}{closed}</body>"


def _hand(scene: TaskScene, visual: bool) -> str:
    fingers = "".join(_finger(scene, visual, side) for side in (1, -1))
    return f"""<body name="hand" pos="0 0 0.107" quat="0.9238795 0 0 -0.3826834" gravcomp="1">
      <inertial pos="0 0 0.04" mass="0.6" diaginertia="0.002 0.002 0.001"/>
      <site name="tool" pos="0 0 {scene.tool_point_m}" group="4"/>
      {sim_looks.HAND + _WRIST_CAMERA if visual else ""}{scene.hand}{fingers}</body>"""


def _finger(scene: TaskScene, visual: bool, side: int) -> str:
    name = "left" if side > 0 else "right"
    shape = sim_looks.finger(side) if visual else ""
    position = f'pos="0 {side * scene.finger_gap_m / 2} {FINGERTIP_M}"'
    if not scene.movable_fingers:
        return f'<body name="{name}_finger" {position}>{shape}</body>'
    # four small spheres per pad: a flat contact patch that resists turning, at a fraction of the cost of box against box
    friction = f"{scene.pad_friction} 0.01 0.001"
    pads = "".join(
        f'<geom class="tool" type="sphere" size="0.004" pos="{x} {side * 0.004} {z}" condim="4" friction="{friction}"/>'
        for x in (-0.007, 0.007)
        for z in (-0.016, -0.004)
    )
    return f"""<body name="{name}_finger" {position} gravcomp="1">
      <inertial pos="0 0 -0.03" mass="0.05" diaginertia="0.0001 0.0001 0.0001"/>
      <joint name="{name}_finger" type="slide" axis="0 {side} 0" range="{-scene.finger_gap_m / 2} 0.004" armature="0.1"/>
      {shape}{pads}</body>"""


def _actuators(scene: TaskScene) -> str:
    """Impedance at the tool: springs and dampers along the base frame's axes and about them, driven by a target pose."""
    axes = (  # gears turn the reference site's axes (x, -y, -z) back into the base frame's
        ("x", "1 0 0 0 0 0", scene.stiffness_n_m),
        ("y", "0 -1 0 0 0 0", scene.stiffness_n_m),
        ("z", "0 0 -1 0 0 0", scene.stiffness_n_m),
        ("yaw", "0 0 0 0 0 -1", _YAW_STIFFNESS),
        ("roll", "0 0 0 1 0 0", _TILT_STIFFNESS),
        ("pitch", "0 0 0 0 1 0", _TILT_STIFFNESS),
    )
    cartesian = "".join(
        f'<position name="{name}" site="tool" refsite="reference" gear="{gear}" kp="{kp}" kv="{kp * DAMPING_TIME_S}"/>'
        for name, gear, kp in axes
    )
    if not scene.movable_fingers:
        return cartesian
    force = scene.grip_force_n
    return cartesian + "".join(
        f'<position name="{name}_finger" joint="{name}_finger" kp="1500" kv="75" forcerange="{-force} {force}"/>'
        for name in ("left", "right")
    )
