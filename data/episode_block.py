"""The driven steps of a closed episode as arrays: for whoever needs a few numbers of each and no `Step`."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class StepBlock:
    """All N driven steps of one episode, held ones left out; ``rec_seq``: of its last step, held or not."""

    session: str
    rec_seq: int
    episode_id: str
    steps: np.ndarray  # (N,) number of the step in its episode
    observations: np.ndarray  # (N, D)
    following: np.ndarray  # (N, D) after each step
    actions: np.ndarray  # (N, A) applied, canonical
    rewards: np.ndarray  # (N,)
    terminated: np.ndarray  # (N,) bool
    runs: np.ndarray  # (N,) run of each step
    modes: np.ndarray  # (N,) `ControlMode`
    human: np.ndarray  # (N,) bool: a person has authority over some action group, ramps included
    interventions: np.ndarray  # (N,) which of the episode's, -1: nobody took over
    versions: tuple[int, ...]  # of the policies in its steps, held ones too, each once

    def within(self, largest: float) -> bool:
        """Whether every number lies in [-largest, largest]."""
        numbers = (self.observations, self.following, self.actions, self.rewards)
        return all(bool((np.abs(values) <= largest).all()) for values in numbers)  # nor is one that is none
