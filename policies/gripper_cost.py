"""What toggling the gripper costs a learner: a command that changes nothing is free."""

from collections.abc import Sequence

import numpy as np

from takeover.data.schema import RobotSpec


def gripper_index(value: float) -> int:
    """Canonical gripper command -> 0 close, 1 keep, 2 open."""
    return 0 if value < -0.5 else 2 if value > 0.5 else 1


class GripperCost:
    """Toggle penalty: charged only when a command would change the state that was commanded last."""

    def __init__(self, spec: RobotSpec, penalty: float) -> None:
        group = next((g for g in spec.action.groups if g.name == "gripper"), None)
        self._index = group.start if spec.action.gripper == "discrete" and group is not None else -1
        self._penalty = penalty
        self._open = True

    def begin_episode(self) -> None:
        """Episodes start with an open gripper."""
        self._open = True

    def of(self, action: Sequence[float]) -> float:
        """Cost of ``action`` (A,) in reward units, >= 0."""
        if self._index < 0:
            return 0.0
        command = gripper_index(action[self._index])
        if command == 1 or (command == 2) == self._open:
            return 0.0
        self._open = command == 2
        return self._penalty

    def of_all(self, actions: np.ndarray) -> np.ndarray:
        """(N, A) -> (N,): as `of`, one after the other."""
        costs = np.zeros(len(actions))
        if self._index >= 0:
            for i in np.flatnonzero(np.abs(actions[:, self._index]) > 0.5):  # the others keep it as it is
                costs[i] = self.of(actions[i])
        return costs
