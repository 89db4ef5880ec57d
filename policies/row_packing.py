"""A step as the row of a replay: observation, next observation, action, reward, mask, in the frames that are learned in.

One by one as steps arrive, or a whole episode at once as a learner that starts again reads it: the same numbers. The applied action is
stored. The next observation is the step's own, so nothing is read across a run. Only success and failure end the future (mask 0).
"""

import numpy as np
import torch

from takeover.data.episode_block import StepBlock
from takeover.data.schema import RobotSpec, Step
from takeover.policies.frames import Frames
from takeover.policies.gripper_cost import GripperCost
from takeover.policies.quarantine import wrong_observation


class RowPacking:
    """Of the steps of one episode after the other: `begin_episode`, then `saw` for each of its steps and `row` for those that count."""

    def __init__(self, spec: RobotSpec, gripper_penalty: float, task_reward: bool, frames: Frames | None) -> None:
        """``task_reward`` off: the task's reward counts as 0, ends stay ends; ``frames``: of the rows, None: the robot's own."""
        self._spec, self._task_reward, self._frames = spec, task_reward, frames
        self._cost = GripperCost(spec, gripper_penalty)
        self._first: list[float] = []

    @property
    def relative(self) -> bool:
        """Whether a row depends on its episode's first observation, so that `rows` cannot make it."""
        return self._frames is not None

    def begin_episode(self) -> None:
        self._first = []
        self._cost.begin_episode()

    def saw(self, step: Step) -> None:
        """A step of the episode, a held one too: the first observation that is a reading is what frames are relative to."""
        if not self._first and not wrong_observation(step.observation, self._spec):
            self._first = step.observation

    def row(self, step: Step) -> tuple[torch.Tensor, float]:
        """(width,) float32, and the cost that its reward is less by."""
        cost = self._cost.of(step.action)
        reward = (step.reward if self._task_reward else 0.0) - cost
        mask = 0.0 if step.terminated else 1.0
        observation, following, action = step.observation, step.next_observation, step.action
        if self._frames is not None:
            action = self._frames.action_to(action, observation).tolist()
            observation, following = (self._frames.observation(one, self._first).tolist() for one in (observation, following))
        return torch.tensor([*observation, *following, *action, reward, mask], dtype=torch.float32), cost

    def rows(self, block: StepBlock) -> tuple[torch.Tensor, np.ndarray]:
        """(N, width) float32 and the costs (N,), as `row` for each step of the episode."""
        costs = self._cost.of_all(block.actions)
        rewards = (block.rewards if self._task_reward else np.zeros(len(costs))) - costs
        numbers = [block.observations, block.following, block.actions, rewards[:, None], np.where(block.terminated, 0.0, 1.0)[:, None]]
        return torch.from_numpy(np.concatenate(numbers, 1).astype(np.float32)), costs
