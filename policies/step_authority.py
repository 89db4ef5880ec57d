"""Whose a step is, as training has it: nobody's while the robot is held, a person's, or the policy's and the ramp's."""

import numpy as np

from takeover.data.episode_block import StepBlock
from takeover.data.episode_schema import is_held
from takeover.data.schema import ControlMode, Source, Step

__all__ = ["human_in", "is_held", "is_human"]


def is_human(step: Step) -> bool:
    """A step a person drove, ramp-in excluded: an imitation target."""
    return step.control_mode == ControlMode.HUMAN and Source.HUMAN in step.source


def human_in(block: StepBlock) -> np.ndarray:
    """(N,) bool: `is_human` of each step."""
    found: np.ndarray = (block.modes == ControlMode.HUMAN) & block.human
    return found
