"""Settings of the imitation learners."""

from dataclasses import dataclass

from takeover.policies.memory import STRATEGIES
from takeover.policies.parameters import check_device, check_kept, check_ranges, require

RANGES = {
    "learning_rate": (1e-6, 0.1),
    "weight_decay": (0.0, 100.0),
    "clone_updates": (1, 1_000_000),
    "learning_starts": (0, 1_000_000),
    "reset_updates": (0, 100_000),
    "average_horizon": (0, 1_000_000),
}

FINISHED, ALL = "finished", "all"


@dataclass(frozen=True)
class ImitationParameters:
    """Settings of `ImitationLearner`."""

    hidden: int = 128
    modes: int = 1
    """Of the Gaussian mixture; one learned better than five (docs/learning.md)."""
    min_std: float = 0.05
    """Floor of a mode's standard deviation in learning. Without one the policy's own steps, which it explains to the last digit, outweigh
    people's (docs/learning.md). Acting takes the likeliest mode's mean."""
    history: int = 1
    """Observations the policy sees, the present one included; never across a run. One learned better than two (docs/learning.md)."""
    batch: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    clone_updates: int = 2500
    updates_per_step: float = 1.0
    reset_updates: int = 0
    """Extra updates after each training episode, while the robot is reset, beyond ``updates_per_step`` and counted apart. In real time as
    many as there is time for, in lockstep all of them."""
    learning_starts: int = 100
    pre_intervention_s: float = 0.75
    """How long before a takeover the policy's steps count as what went wrong."""
    policy_examples: str = FINISHED
    """Which of the policy's own steps sirius and iwr learn from. finished: those after which nobody took over and the episode did not
    fail, and those before a labelled onset. all: as published; sirius leaves out `pre_intervention_s` (docs/learning.md has both)."""
    memory_steps: int = 0
    """Most steps of policy episodes that are remembered (`policies.memory`); 0: all. Demonstrations are not counted and stay."""
    memory: str = "lfi"
    """What goes when there are more: fifo, filo, lfi (least intervened first) or mfi."""
    keep_versions: int = 100
    """In real time: of the newest published versions so many keep their weights (`policies.pruning`); 0: all do, none is pruned."""
    keep_every: int = 10
    """Of the older ones those keep them whose number this divides; 0: none, beyond those that are referred to."""
    device: str = "auto"
    """Where it is computed: cuda, cuda:N or cpu; auto: on the first CUDA device, on the CPU where there is none."""
    average_horizon: int = 0
    """Updates over which the published weights are averaged, beginning with the cloned ones; 0: the newest are published."""

    def __post_init__(self) -> None:
        check_ranges(self, RANGES)
        check_kept(self.keep_versions, self.keep_every)
        require(8 <= self.hidden <= 2048, f"hidden = {self.hidden}; allowed 8..2048")
        require(1 <= self.modes <= 50, f"modes = {self.modes}; allowed 1..50")
        require(1 <= self.history <= 20, f"history = {self.history}; allowed 1..20")
        require(2 <= self.batch <= 4096, f"batch = {self.batch}; allowed 2..4096")
        require(0.0 < self.min_std < 1.0, f"min_std = {self.min_std}; allowed between 0 and 1")
        require(0.0 <= self.updates_per_step <= 20.0, f"updates_per_step = {self.updates_per_step}; allowed 0..20")
        require(0.0 <= self.pre_intervention_s <= 10.0, f"pre_intervention_s = {self.pre_intervention_s}; allowed 0..10")
        require(self.memory_steps == 0 or self.memory_steps >= 100, f"memory_steps = {self.memory_steps}; 0 (all), or at least 100")
        check_device(self.device)
        known = (FINISHED, ALL)
        require(self.policy_examples in known, f"policy_examples = {self.policy_examples!r}; known: {', '.join(known)}")
        require(self.memory in STRATEGIES, f"memory = {self.memory!r}; known: {', '.join(STRATEGIES)}")
