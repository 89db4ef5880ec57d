"""What a simulated task is: its scene, its random starts, what is observed, when it is done, and what an expert would do.

Tasks are stateless. What an episode draws at random is a vector of named *variables*; what is measured at the tool is a `Sense`.
"""

from dataclasses import dataclass
from typing import Protocol

import mujoco
import numpy as np
import numpy.typing as npt

from takeover.data.schema import ActionSpec, ObservationSpec, ParameterSpec
from takeover.robot_bridge.robots.base import Evaluation
from takeover.robot_bridge.robots.sim_model import TaskScene

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sense:
    """The tool at one instant, base frame, SI units."""

    position: FloatArray  # (3,)
    yaw: float
    velocity: FloatArray  # (3,)
    yaw_rate: float
    gripper_width: float
    gripper_command: float  # -1 closing, +1 opening
    force: FloatArray  # (3,) N, of the environment on the tool, mean over the period
    torque: FloatArray  # (3,) N m, about the tool point
    start: FloatArray  # (4,) x, y, z, yaw of the tool at the episode's start
    noise: FloatArray  # (4,) standard normal draws of this step


class SimTask(Protocol):
    """One task of the simulated robot. ``variables`` below is a float64 vector in the order of `variable_names`."""

    name: str
    prompt: str
    max_steps: int
    action: ActionSpec
    observation: ObservationSpec
    parameters: tuple[ParameterSpec, ...]
    variable_names: tuple[str, ...]
    workspace_low: tuple[float, float, float]
    workspace_high: tuple[float, float, float]
    faults: tuple[str, ...]

    def scene(self, parameters: dict[str, float]) -> TaskScene:
        """Objects, hand and tool point; geometry and masses are compiled from ``parameters``."""

    def draw(self, rng: np.random.Generator, parameters: dict[str, float]) -> tuple[FloatArray, FloatArray]:
        """A random start: (variables, tool start pose (4,) x, y, z, yaw)."""

    def install(self, model: mujoco.MjModel, data: mujoco.MjData, variables: FloatArray) -> None:
        """Write what the variables say into model and data; called after a reset, a restore and a fault."""

    def place(self, model: mujoco.MjModel, data: mujoco.MjData, variables: FloatArray) -> None:
        """Put free objects to their start pose; called after a reset only."""

    def observe(self, data: mujoco.MjData, sense: Sense, variables: FloatArray, parameters: dict[str, float]) -> FloatArray:
        """The observation, (D,) float64."""

    def evaluate(self, data: mujoco.MjData, sense: Sense, variables: FloatArray) -> Evaluation: ...

    def surface_height(self, tool: FloatArray, variables: FloatArray) -> float:
        """Height (m) of what lies below ``tool`` (3,): where its shadow falls."""

    def truth(self, data: mujoco.MjData, sense: Sense, variables: FloatArray) -> dict[str, list[float]]:
        """Privileged values that never enter an observation."""

    def expert(self, truth: dict[str, list[float]]) -> list[float]:
        """The canonical action of a perfect operator who knows the truth; a pure function."""

    def fault(self, name: str, value: float, data: mujoco.MjData, variables: FloatArray, rng: np.random.Generator) -> None:
        """Change ``variables`` or ``data`` in place as fault ``name`` says."""


COMMON_PARAMETERS = (
    ParameterSpec(name="latency_steps", unit="steps", nominal=0.0, low=0.0, high=5.0),
    ParameterSpec(name="actuator_gain", unit="1", nominal=1.0, low=0.5, high=1.5),
    ParameterSpec(name="camera_jitter_m", unit="m", nominal=0.0, low=0.0, high=0.03),
    ParameterSpec(name="light", unit="1", nominal=1.0, low=0.3, high=1.5),
)
"""Parameters that every task has."""


def nearest_quarter_turn(angle: float) -> float:
    """``angle`` (rad) modulo a quarter turn, in [-pi/4, pi/4): squares look alike four times a turn."""
    return float((angle + np.pi / 4) % (np.pi / 2) - np.pi / 4)
