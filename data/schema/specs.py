"""What a robot, its task, its cameras and its action space are. Sent in the handshake, stored with every episode."""

from typing import Literal

import msgspec


class ActionGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A slice ``[start:stop]`` of the action over which authority is given as a whole (arm, gripper, left_arm, ...)."""

    name: str
    start: int
    stop: int


class ActionSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The canonical action: ``A = len(names)`` numbers in [-1, 1]; ``value * scale`` is in ``units`` (SI)."""

    kind: Literal["ee_delta", "ee_pose", "joint_delta", "joint_position"]
    frame: str
    names: list[str]
    units: list[str]
    scale: list[float]
    groups: list[ActionGroup]
    gripper: Literal["none", "continuous", "discrete"]  # discrete: {-1 close, 0 keep, +1 open}

    @property
    def size(self) -> int:
        return len(self.names)

    @property
    def group_names(self) -> list[str]:
        return [group.name for group in self.groups]


class ObservationSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The low-dimensional observation: ``D = len(names)`` floats, in order."""

    names: list[str]
    units: list[str]

    @property
    def size(self) -> int:
        return len(self.names)


class CameraSpec(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    width: int
    height: int
    rate_hz: float


class ParameterSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A simulator parameter with its nominal value and allowed range."""

    name: str
    unit: str
    nominal: float
    low: float
    high: float


class RobotSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that others must know of a robot on a task. Lengths in metres, angles in radians, forces in newtons."""

    robot_id: str
    task_id: str
    prompt: str
    control_hz: float
    max_steps: int
    action: ActionSpec
    observation: ObservationSpec
    cameras: list[CameraSpec]
    simulated: bool
    has_watchdog: bool
    can_reset: bool
    workspace_low: list[float]  # tool position box, base frame, m
    workspace_high: list[float]
    parameters: list[ParameterSpec] = msgspec.field(default_factory=list)
    policy_cameras: list[str] = msgspec.field(default_factory=list)
    joint_low: list[float] = msgspec.field(default_factory=list)  # rad, of Reading.joints; empty: not known
    joint_high: list[float] = msgspec.field(default_factory=list)


class SafetyLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of the safety filter. Every one has a safe default; none can be switched off."""

    max_step_m: float = 0.025
    max_step_rad: float = 0.15
    max_speed_m_s: float = 0.50
    max_acceleration_m_s2: float = 20.0
    max_force_n: float = 60.0
    max_gripper_force_n: float = 40.0
    force_debounce_steps: int = 3
    joint_margin_rad: float = 0.02  # before a joint's own limit
    slow_speed_m_s: float = 0.25
    slow_scale: float = 0.25
    clamps_to_hold: int = 3
    mistakes_per_episode: int = 50  # gross clamps of the policy
    workspace_low: list[float] = msgspec.field(default_factory=lambda: [-0.30, -0.30, 0.0])
    workspace_high: list[float] = msgspec.field(default_factory=lambda: [0.30, 0.30, 0.50])
