"""What an evaluated policy began with and earned, beside what its critics promised: the alarm for values that are too high.

A start-state value is the mean of the critics at an episode's first observation; the realised return is the discounted reward from
there, less what the learner takes for toggling a gripper. Over one is too hopeful; up to 1.6 and down to 0.5 is healthy at the end.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from takeover.data.schema import RobotSpec
from takeover.policies.base import Learner
from takeover.policies.gripper_cost import GripperCost
from takeover.policies.hil_serl import HilSerlLearner
from takeover.robot_bridge.robots.sim import SimRobot


class WatchedRobot:
    """The robot, for `evaluate`; notes first observations (D,) and discounted returns, one per start. Changes nothing."""

    def __init__(self, robot: SimRobot, discount: float, gripper_penalty: float) -> None:
        self._robot, self._discount = robot, discount
        self._cost = GripperCost(robot.spec, gripper_penalty)
        self._weight = 1.0
        self._begins = False
        self.first: list[npt.NDArray[np.float32]] = []
        self.returns: list[float] = []

    @property
    def spec(self) -> RobotSpec:
        return self._robot.spec

    def reset(self, seed: int) -> None:
        self._robot.reset(seed)
        self._cost.begin_episode()
        self._begins, self._weight = True, 1.0
        self.returns.append(0.0)

    def read(self) -> Any:
        reading = self._robot.read()
        if self._begins:
            self._begins = False
            self.first.append(np.array(reading.observation, np.float32))
        return reading

    def apply(self, action: npt.NDArray[np.float64]) -> None:
        self.returns[-1] -= self._weight * self._cost.of(action.tolist())
        self._robot.apply(action)

    def advance(self) -> None:
        self._robot.advance()

    def evaluate(self) -> Any:
        result = self._robot.evaluate()
        self.returns[-1] += self._weight * result.reward
        self._weight *= self._discount
        return result


def valued(learner: Learner | None) -> HilSerlLearner | None:
    """The learner, if it has critics whose values are of the task's own reward and nothing else."""
    if not isinstance(learner, HilSerlLearner):
        return None
    p = learner.parameters
    plain = p.observations == "state" and p.task_reward and not p.takeover_reward and not p.progress_reward
    return learner if plain else None


def promised_and_earned(learner: HilSerlLearner, robot: WatchedRobot) -> dict[str, float]:
    """Means over the starts that ``robot`` has seen: ``start_value`` and ``start_return``."""
    values = learner.start_values(np.array(robot.first))
    return {"start_value": float(np.mean(values)), "start_return": float(np.mean(robot.returns))}
