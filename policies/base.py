"""The `Learner` and `Policy` interfaces. Pure torch: no transport, no files but weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from takeover.data.episode_labels import EpisodeLabels
from takeover.data.schema import EpisodeEnd, EpisodeStart, Outcome, PolicyImage, RobotSpec, Step

if TYPE_CHECKING:
    import torch  # the interfaces must be importable where torch is not installed

    from takeover.data.episode_block import StepBlock

FloatArray = npt.NDArray[np.float32]


class LearnerError(RuntimeError):
    """A learner cannot be made, fed or restored; says what to do."""


class PolicyRefused(ValueError):
    """Weights that must not act: wrong hash, shape, robot or a number that is not finite. The text says which."""


def of_version(version: int, error: Exception) -> str:
    """What is wrong with a version, naming it once."""
    text = str(error)
    return text if text.startswith(f"version {version} ") else f"version {version}: {text}"


@dataclass(frozen=True)
class PolicyWeights:
    """What is published: flat tensors plus everything needed to rebuild the network."""

    architecture: str  # name in policies.nets' registry
    config: dict[str, Any]  # JSON-able constructor arguments, normalisation included
    tensors: "dict[str, torch.Tensor]"
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """``actions`` (H, A) canonical float32; spread: disagreement or entropy of the policy, 0 where unknown."""

    actions: FloatArray
    spread: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)


class Policy(Protocol):
    """Deterministic unless asked to sample; `reset` drops history at every flush."""

    def act(self, observation: FloatArray, *, sample: bool, generator: "torch.Generator | None" = None) -> Decision: ...

    def reset(self) -> None: ...


@runtime_checkable
class LooksBack(Protocol):
    """A `Policy` that says how far: what it does follows from the newest ``history`` observations of the run.

    1: from the last alone; None: from all of them."""

    @property
    def history(self) -> int | None: ...


@runtime_checkable
class SeesPictures(Protocol):
    """A `Policy` that wants the pictures of an observation before it acts on it.

    It has no memory beside them: what it does follows from one observation and its pictures, so it can be asked at any recorded step.
    """

    @property
    def cameras(self) -> tuple[str, ...]: ...

    def look(self, images: Sequence[PolicyImage]) -> None:
        """Raises `ValueError` naming the camera whose picture is missing or has another size."""


ALL_LEFT_OUT = "every demonstration was left out while they were cloned; record others"


@runtime_checkable
class Encodes(Protocol):
    """A `Learner` that, in the midst of cloning, makes what was ingested into something else."""

    @property
    def encoding(self) -> bool:
        """Whether it is at that: until `clone_demonstrations` goes on beyond it, nothing may be ingested, left out or relabelled."""


class Learner(Protocol):
    """Trains on committed steps. Ingestion happens only between updates. All randomness derives from the seed it was made with."""

    name: str
    swap: str  # "step": new weights act at once (online RL); "episode": from the next episode on (imitation)
    updates: int
    extra_updates: int  # of them: those beyond the held ratio, made while the robot was reset
    cloned: bool

    def begin_episode(self, start: EpisodeStart) -> None: ...

    def ingest(self, steps: Sequence[Step]) -> None:
        """Committed steps of the running episode, in order, held ones included (they are skipped)."""

    def end_episode(self, end: EpisodeEnd) -> None: ...

    def exclude(self, episode_id: str) -> None:
        """Forget an episode at once."""

    def relabel(self, episode_id: str, outcome: Outcome, event_step: int) -> None:
        """An outcome that was corrected after the episode, or taken back (``unknown``: it ended with nothing)."""

    def apply_labels(self, labels: EpisodeLabels) -> bool:
        """The present labels of an episode, from the next batch on; False when none of its steps is here. What a label took out
        comes back when the label is taken back."""

    def holds(self, episode_id: str) -> bool:
        """Whether labels of the episode would find steps of it here."""

    def corrections_used(self) -> list[tuple[str, int]]:
        """(episode id, intervention id) of corrections of which a batch held a step for the first time since the last call."""

    @property
    def demonstration_episodes(self) -> int:
        """Complete ones that are followed: those that failed are not."""

    @property
    def failed_demonstrations(self) -> int:
        """Complete ones that do not count since they failed."""

    @property
    def train_steps(self) -> int:
        """Non-held steps of policy episodes ingested."""

    @property
    def human_steps(self) -> int: ...

    @property
    def can_learn(self) -> bool:
        """Whether labels have left anything to learn from."""

    def clone_demonstrations(self) -> Any:
        """Iterator over progress in [0, 1]; afterwards the policy imitates the demonstrations."""

    def updates_due(self) -> int:
        """Updates owed under the held updates-to-data ratio."""

    def update(self, extra: bool = False) -> dict[str, float]:
        """One update, an ``extra`` one or one of those that are due; returns its metrics."""

    def weights(self) -> PolicyWeights: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class Prepares(Protocol):
    """A `Learner` that reads what it will be restored to before the recorded steps are ingested again."""

    def prepare(self, state: dict[str, Any]) -> None:
        """Before the first step. A state that does not fit changes nothing; `Learner.restore` says why."""


@runtime_checkable
class TakesBlocks(Protocol):
    """A `Learner` that can take in whole policy episodes as arrays: those it has seen before, when it starts again."""

    @property
    def takes_blocks(self) -> bool:
        """Whether it can now; some need `Prepares.prepare`, some settings leave it out."""

    def ingest_block(self, block: "StepBlock") -> None:
        """As `Learner.ingest` for all driven steps of the running policy episode."""


class LearnerFactory(Protocol):
    def __call__(self, spec: RobotSpec, seed: int, parameters: dict[str, Any]) -> Learner: ...
