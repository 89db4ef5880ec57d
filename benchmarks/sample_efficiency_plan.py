"""What `sample-efficiency` runs: variants of learners, operators, tasks and seeds, as cells that can be run in any order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from takeover.app.operators.scripted import STYLES, operator_parameters
from takeover.data.schema import RunConfig
from takeover.data.seeding import HELDOUT_STARTS
from takeover.policies.registry import check_parameters
from takeover.robot_bridge.robots.registry import SIM_TASKS

NEVER_TAKES_OVER = {"stall_steps": 1000.0, "opposite_steps": 1000.0}  # longer than any episode: demonstrates, then only watches
LONG_TAKEOVERS = {"correct_min_steps": 40.0, "correct_max_steps": 90.0}


class PlanError(ValueError):
    """A grid that cannot be run; the text says what to change."""


@dataclass(frozen=True)
class Variant:
    """A learner with what differs from its defaults; ``operator`` is put on top of every operator's style."""

    learner: str
    says: str
    learner_parameters: Mapping[str, Any] = field(default_factory=dict)
    operator: Mapping[str, float] = field(default_factory=dict)
    ablation: bool = False
    size: bool = False  # the same learner with other networks, to choose by learning per second

    @property
    def takes_help(self) -> bool:
        """Whether anybody ever takes over."""
        return dict(self.operator) != NEVER_TAKES_OVER


AS_PUBLISHED = {"policy_examples": "all"}
VARIANTS: dict[str, Variant] = {
    "hil-serl": Variant("hil-serl", "as it ships"),
    "hil-serl-alone": Variant("hil-serl", "the same demonstrations, but nobody ever takes over", operator=NEVER_TAKES_OVER),
    "sirius": Variant("sirius", "as it ships"),
    "iwr": Variant("iwr", "as it ships"),
    "hg-dagger": Variant("hg-dagger", "as it ships"),
    "bc": Variant("bc", "demonstrations alone; nobody takes over, since it would not learn from it", operator=NEVER_TAKES_OVER),
    "hil-serl-pre-weight": Variant(
        "hil-serl", "steps of the last 0.75 s before a takeover are drawn a fifth as often", {"pre_takeover_weight": 0.2}, ablation=True
    ),
    "hil-serl-one-buffer": Variant("hil-serl", "human steps in the demonstration buffer alone", {"both_buffers": False}, ablation=True),
    "hil-serl-rlif": Variant(
        "hil-serl", "-1 before a takeover is the only reward", {"takeover_reward": -1.0, "task_reward": False}, ablation=True
    ),
    "hil-serl-residual": Variant("hil-serl", "learns a residual on the frozen warm start", {"residual_scale": 1.0}, ablation=True),
    "hil-serl-long-takeovers": Variant("hil-serl", "corrections of 40 to 90 steps", operator=LONG_TAKEOVERS, ablation=True),
    "hg-dagger-long-takeovers": Variant("hg-dagger", "corrections of 40 to 90 steps", operator=LONG_TAKEOVERS, ablation=True),
    "sirius-no-pre": Variant("sirius", "all of its own steps", {**AS_PUBLISHED, "pre_intervention_s": 0.0}, ablation=True),
    "sirius-long-pre": Variant("sirius", "the same but the last 1.5 s", {**AS_PUBLISHED, "pre_intervention_s": 1.5}, ablation=True),
    "hil-serl-256": Variant("hil-serl", "two layers of 256 units in the place of 128", {"hidden": 256}, size=True),
    "sirius-published": Variant("sirius", "all of its own steps but the last 0.75 s before a takeover", {**AS_PUBLISHED}, ablation=True),
    "iwr-published": Variant("iwr", "all of its own steps", {**AS_PUBLISHED}, ablation=True),
}
LEARNERS = tuple(name for name, variant in VARIANTS.items() if not (variant.ablation or variant.size))
ABLATIONS = tuple(name for name, variant in VARIANTS.items() if variant.ablation)


@dataclass(frozen=True)
class Cell:
    """One run. Equal `settings` on one machine and one version of the code give an equal result, times apart."""

    variant: str
    operator: str
    task: str
    seed: int
    demonstrations: int
    steps: int
    points: int
    starts: int
    learner_parameters: Mapping[str, Any]
    operator_parameters: Mapping[str, Any]
    task_parameters: Mapping[str, float]

    @property
    def name(self) -> str:
        return f"{self.task}.{self.operator}.{self.variant}.seed{self.seed}"

    @property
    def settings(self) -> dict[str, Any]:
        """JSON-able; every parameter of the operator, and what the variant changes of them."""
        return {
            "variant": self.variant,
            "learner": VARIANTS[self.variant].learner,
            "learner_parameters": dict(self.learner_parameters),
            "operator": self.operator,
            "operator_parameters": operator_parameters(self.operator_parameters).as_dict(),
            "operator_changes": dict(VARIANTS[self.variant].operator),
            "task": self.task,
            "task_parameters": dict(self.task_parameters),
            "seed": self.seed,
            "demonstrations": self.demonstrations,
            "steps": self.steps,
            "points": self.points,
            "starts": self.starts,
        }

    def config(self) -> RunConfig:
        """For the loop. Raises `PlanError` for a setting that the learner, the operator or the task does not have."""
        return RunConfig(
            session_id="bench",
            workspace="",
            sockets="",
            task=self.task,
            learner=VARIANTS[self.variant].learner,
            operator="scripted",
            clock="lockstep",
            seed=self.seed,
            demonstrations=self.demonstrations,
            learner_parameters=dict(self.learner_parameters),
            operator_parameters={**self.operator_parameters, **VARIANTS[self.variant].operator},
            task_parameters=dict(self.task_parameters),
        )


@dataclass(frozen=True)
class Grid:
    """What was asked for. ``learner``, ``operator`` and ``task`` are settings of every cell."""

    variants: Sequence[str]
    operators: Sequence[str]
    tasks: Sequence[str]
    seeds: Sequence[int]
    steps: int = 15_000
    points: int = 6
    starts: int = HELDOUT_STARTS
    demonstrations: int = 20
    learner: Mapping[str, Any] = field(default_factory=dict)
    operator: Mapping[str, Any] = field(default_factory=dict)
    task: Mapping[str, float] = field(default_factory=dict)

    def cells(self) -> list[Cell]:
        """Seed by seed, so that an unfinished grid has something of everything. Raises `PlanError`."""
        self._check()
        return [
            Cell(
                variant=variant,
                operator=operator,
                task=task,
                seed=seed,
                demonstrations=self.demonstrations,
                steps=self.steps,
                points=self.points,
                starts=self.starts,
                learner_parameters={**self.learner, **VARIANTS[variant].learner_parameters},
                operator_parameters={"style": operator, **self.operator},
                task_parameters=dict(self.task),
            )
            for seed in self.seeds
            for task in self.tasks
            for operator in self.operators
            for variant in self.variants
        ]

    def _check(self) -> None:
        for kind, names, known in (
            ("learner", self.variants, tuple(VARIANTS)),
            ("operator", self.operators, tuple(STYLES)),
            ("task", self.tasks, tuple(SIM_TASKS)),
        ):
            for name in names:
                if name not in known:
                    raise PlanError(f"unknown {kind} {name!r}; known: {', '.join(known)}")
            if len(set(names)) != len(names):
                raise PlanError(f"a {kind} is named twice: {', '.join(names)}")
        if not (self.variants and self.operators and self.tasks and self.seeds):
            raise PlanError("an empty grid: name at least one learner, operator, task and seed")
        if len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise PlanError(f"seeds {list(self.seeds)}: each once, 0 or above")
        for name, value, low, high in (
            ("steps", self.steps, 1, 10_000_000),
            ("points", self.points, 1, 100),
            ("starts", self.starts, 1, HELDOUT_STARTS),
            ("demonstrations", self.demonstrations, 1, 1000),
        ):
            if not low <= value <= high:
                raise PlanError(f"{name} = {value}; allowed {low}..{high}")
        if self.points > self.steps:
            raise PlanError(f"{self.points} points in {self.steps} steps; at most one per step")
        for variant in self.variants:
            try:
                check_parameters(VARIANTS[variant].learner, {**self.learner, **VARIANTS[variant].learner_parameters})
                operator_parameters({**self.operator, **VARIANTS[variant].operator})
            except ValueError as error:
                raise PlanError(f"{variant}: {error}") from error
