"""The `Robot` interface: what the control loop needs of any robot, simulated or real."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from takeover.data.robot_error import RobotError as RobotError
from takeover.data.schema import RobotSpec

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """One reading of the robot, all from the same instant. Positions m, angles rad, forces N, base frame."""

    t_ns: int  # when it was measured, not when it was asked for: this computer's monotonic clock
    observation: FloatArray  # (D,) float64, in the order of RobotSpec.observation.names
    tool_position: FloatArray  # (3,)
    tool_velocity: FloatArray  # (3,) m/s
    tool_yaw: float
    gripper_width_m: float
    force_n: FloatArray  # (3,) contact force at the tool
    joints: FloatArray  # (J,) rad
    gripper_force_n: float = -1.0  # with which it grips; -1: not measured


@dataclass(frozen=True)
class Evaluation:
    """What a task says of the present reading."""

    reward: float
    success: bool
    terminated: bool


NOT_JUDGED = Evaluation(reward=0.0, success=False, terminated=False)
"""Of a task whose outcome others say: operators by key, or a learned reward."""


@dataclass(frozen=True)
class Picture:
    """A camera picture as taken: RGB uint8 (H, W, 3), source time, frame counter."""

    camera: str
    counter: int
    t_source_ns: int
    rgb: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Advice:
    """Simulators only: the truth and what a perfect operator would do."""

    values: dict[str, list[float]] = field(default_factory=dict)
    expert_action: list[float] = field(default_factory=list)


@runtime_checkable
class Robot(Protocol):
    """Lifecycle: connect, then (reset, then read/apply/advance ...)*, close. `stop` may be called from any thread at any time.

    Actions are canonical: float64 (A,) in [-1, 1], already through the safety filter.
    """

    @property
    def spec(self) -> RobotSpec: ...

    def connect(self) -> None: ...

    def read(self) -> Reading: ...

    def apply(self, action: FloatArray) -> None:
        """Set the command for the coming period."""

    def advance(self) -> None:
        """Simulators: simulate one control period. Real robots: return at once."""

    def stop(self) -> None:
        """Zero velocity now; thread-safe; later `apply` calls are ignored until `clear`."""

    def clear(self) -> None: ...

    def reset(self, seed: int) -> None:
        """Put task and robot into the start state that is a function of ``seed``."""

    def evaluate(self) -> Evaluation: ...

    def save(self) -> bytes:
        """Exact state: constant length, a multiple of 8. Empty for real robots."""

    def restore(self, state: bytes) -> None: ...

    def advice(self) -> Advice: ...

    def inject(self, fault: str, value: float) -> None:
        """Simulator faults by name; raises `RobotError` naming the known ones."""

    def close(self) -> None: ...


@runtime_checkable
class MovesToStart(Protocol):
    """Offered in addition by a robot that has to travel to its start pose: the bridge drives it there through the safety filter, slowly.

    STOP and Hold work on the way. `Robot.reset` with the same seed follows on arrival and must not move the robot any more.
    """

    def start_action(self, reading: Reading, seed: int) -> FloatArray | None:
        """The next action (A,) on the way to the start state of ``seed``; None on arrival."""
