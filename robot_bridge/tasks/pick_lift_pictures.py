"""`pick-lift-pictures`: `pick-lift` for a policy that must see the cube. The observation is what the arm feels of itself; nothing in it
tells where the cube is. The task, its random starts and its expert are those of `pick-lift`.
"""

import mujoco
import numpy as np
import numpy.typing as npt

from takeover.data.schema import ObservationSpec
from takeover.robot_bridge.tasks.base import Sense
from takeover.robot_bridge.tasks.pick_lift import PickLift

FloatArray = npt.NDArray[np.float64]

_KEPT = [i for i, name in enumerate(PickLift.observation.names) if "cube" not in name]


class PickLiftPictures(PickLift):
    name = "pick-lift-pictures"
    observation = ObservationSpec(
        names=[PickLift.observation.names[i] for i in _KEPT], units=[PickLift.observation.units[i] for i in _KEPT]
    )

    def observe(self, data: mujoco.MjData, sense: Sense, variables: FloatArray, parameters: dict[str, float]) -> FloatArray:
        """(15,): tool pose relative to the start, velocity, gripper, force, height."""
        return super().observe(data, sense, variables, parameters)[_KEPT]
