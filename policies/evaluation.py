"""Evaluation of a policy alone: fixed starts, deterministic actions, no person, pictures only for a policy that needs them."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from takeover.data.robot_error import RobotError
from takeover.data.schema import PolicyImage, RobotSpec
from takeover.policies.base import Policy, SeesPictures
from takeover.policies.frames import begin_episode

log = logging.getLogger("evaluation")


class Environment(Protocol):
    """What evaluation needs of a robot; every simulated robot has it."""

    @property
    def spec(self) -> RobotSpec: ...

    def reset(self, seed: int) -> None: ...

    def read(self) -> Any:
        """An object with ``observation`` (D,)."""

    def apply(self, action: np.ndarray) -> None: ...

    def advance(self) -> None: ...

    def evaluate(self) -> Any:
        """An object with ``success`` and ``terminated``."""


@runtime_checkable
class GivesPictures(Protocol):
    """An `Environment` with cameras."""

    def policy_images(self) -> list[PolicyImage]:
        """The pictures of the present state, of every camera of the policy."""


@dataclass(frozen=True)
class EpisodeOutcome:
    """One evaluated start."""

    start: int
    success: bool
    steps: int


class EvaluationCancelled(RuntimeError):
    """Asked to stop between two starts."""


def evaluate(
    policy: Policy, environment: Environment, starts: Sequence[int], on_progress: Callable[[int], bool] | None = None
) -> list[EpisodeOutcome]:
    """Run ``policy`` from each start until success, failure or the step limit.

    ``on_progress(done)`` is called after every start; returning False raises `EvaluationCancelled`.
    """
    outcomes = []
    for done, start in enumerate(starts, 1):
        outcomes.append(run_episode(policy, environment, start))
        if on_progress is not None and not on_progress(done):
            raise EvaluationCancelled(f"stopped after {done} of {len(starts)} starts")
    return outcomes


def run_episode(policy: Policy, environment: Environment, start: int) -> EpisodeOutcome:
    """One start, deterministic actions."""
    environment.reset(start)
    success, steps = drive(policy, environment, environment.spec.max_steps)
    return EpisodeOutcome(start, success, steps)


def drive(policy: Policy, environment: Environment, limit: int, first: np.ndarray | None = None) -> tuple[bool, int]:
    """(success, steps) from where the environment is, for at most ``limit`` steps, deterministic actions.

    ``first`` (D,): the first observation of the episode that goes on; None: it begins here. A command that the robot refuses, or under
    which the simulation becomes unstable, is the policy's failure.
    """
    for step in range(1, limit + 1):
        observation = np.asarray(environment.read().observation, np.float32)
        if step == 1:
            begin_episode(policy, observation if first is None else first)
        if isinstance(policy, SeesPictures):
            policy.look(_pictures(environment, policy))
        decision = policy.act(observation, sample=False)
        try:
            environment.apply(np.asarray(decision.actions[0], np.float64))
            environment.advance()
        except RobotError as error:
            log.warning("the policy fails in step %d: %s", step, error)
            return False, step
        result = environment.evaluate()
        if result.success or result.terminated:
            return bool(result.success), step
    return False, limit


def _pictures(environment: Environment, policy: SeesPictures) -> list[PolicyImage]:
    if not isinstance(environment, GivesPictures):
        raise ValueError(f"this policy needs pictures of {', '.join(policy.cameras)}; this environment has no cameras")
    return environment.policy_images()
