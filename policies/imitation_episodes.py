"""The episodes that an imitation learner has seen, step by step, and what labels leave of each."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from takeover.data.episode_block import StepBlock
from takeover.data.episode_labels import EpisodeLabels
from takeover.data.schema import ControlMode, EpisodeKind, Outcome, Step
from takeover.policies.class_weights import StepClass, relabel_before_onsets
from takeover.policies.step_authority import human_in, is_human

NO_EXAMPLE = (Outcome.FAILURE, Outcome.ABORTED)
"""How a demonstration ends that is none to follow."""


@dataclass
class Stored:
    """Rows of one episode: stacked observations (N, H, D), actions (N, A), class, run, correction, step and intervention of each."""

    kind: EpisodeKind
    observations: list[np.ndarray] = field(default_factory=list)
    actions: list[list[float]] = field(default_factory=list)
    classes: list[StepClass] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    corrections: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    interventions: list[int] = field(default_factory=list)
    complete: bool = False  # a demonstration that ended well or badly, but did end
    labels: EpisodeLabels | None = None
    ended: Outcome | None = None  # as it was recorded; None: it still runs
    whole: "Stored | None" = None  # that of which labels left this

    @property
    def outcome(self) -> Outcome | None:
        """A person's where there is one, or else the recorded one."""
        return self.labels.outcome if self.labels is not None and self.labels.relabelled else self.ended


def class_of(step: Step) -> StepClass:
    if step.control_mode == ControlMode.TRANSITION:
        return StepClass.TRANSITION
    if step.kind == EpisodeKind.DEMONSTRATION:
        return StepClass.DEMONSTRATION if is_human(step) else StepClass.TRANSITION
    return StepClass.INTERVENTION if is_human(step) else StepClass.POLICY


def classes_in(block: StepBlock) -> list[StepClass]:
    """(N,): `class_of` of each step of a policy episode."""
    ramps = (block.modes == ControlMode.TRANSITION).tolist()
    return [
        StepClass.TRANSITION if ramp else StepClass.INTERVENTION if human else StepClass.POLICY
        for ramp, human in zip(ramps, human_in(block).tolist(), strict=True)
    ]


def histories(observations: np.ndarray, runs: np.ndarray, length: int) -> np.ndarray:
    """(N, D) -> (N, length, D): each with those of its run before it, oldest first; before a run's first one, that one again."""
    here = np.arange(len(runs))
    first = np.maximum.accumulate(np.where(np.diff(runs, prepend=-1) != 0, here, 0))
    found: np.ndarray = observations[np.maximum(here[:, None] - np.arange(length)[::-1], first[:, None])]
    return found


def driven_steps(stored: Stored) -> int:
    """Steps that a person drove, ramps included."""
    return stored.classes.count(StepClass.INTERVENTION) + stored.classes.count(StepClass.TRANSITION)


def view_of(stored: Stored) -> Stored | None:
    """What the labels leave of an episode: itself, fewer of its steps, or None for nothing. A demonstration counts once it has ended.

    Steps that are no example keep their place, for the windows around them, but are not drawn.
    """
    labels = stored.labels
    if labels is None:
        return None if stored.kind == EpisodeKind.DEMONSTRATION else stored
    if labels.thrown_away or (stored.kind == EpisodeKind.DEMONSTRATION and labels.outcome in NO_EXAMPLE):
        return None
    if labels.changes_nothing:
        return stored
    kept = [i for i, step in enumerate(stored.steps) if labels.counts(step)]
    human = (StepClass.INTERVENTION, StepClass.DEMONSTRATION)
    classes = [
        StepClass.TRANSITION if stored.classes[i] in human and not labels.imitated(stored.steps[i]) else stored.classes[i] for i in kept
    ]
    return Stored(
        stored.kind,
        observations=[stored.observations[i] for i in kept],
        actions=[stored.actions[i] for i in kept],
        classes=classes,
        runs=[stored.runs[i] for i in kept],
        corrections=[stored.corrections[i] for i in kept],
        steps=[stored.steps[i] for i in kept],
        interventions=[stored.interventions[i] for i in kept],
        complete=stored.complete,
        labels=labels,
        ended=stored.ended,
        whole=stored,
    )


def demonstrated(episodes: Iterable[Stored]) -> tuple[int, int]:
    """How many complete demonstrations count, and how many do not because they failed."""
    ended = [stored for stored in episodes if stored.complete and not (stored.labels and stored.labels.thrown_away)]
    failed = sum(stored.labels is not None and stored.labels.outcome in NO_EXAMPLE for stored in ended)
    return len(ended) - failed, failed


def counted(episodes: Iterable[Stored]) -> list[Stored]:
    """What the labels leave of the episodes; those of which nothing is left are not among them."""
    return [view for stored in episodes if (view := view_of(stored)) is not None]


def classes_of(stored: Stored, before: int) -> list[StepClass]:
    """Of each step, with the ``before`` steps of the policy before an onset as what went wrong: within each run, and a labelled onset moves
    the beginning of its correction's."""
    found: list[StepClass] = []
    for run in dict.fromkeys(stored.runs):
        found += relabel_before_onsets([c for c, r in zip(stored.classes, stored.runs, strict=True) if r == run], before)
    for intervention, onset in (stored.labels.onsets if stored.labels is not None else {}).items():
        if intervention not in stored.interventions:
            continue
        begin = stored.interventions.index(intervention)
        for i in range(begin - 1, -1, -1):
            if stored.runs[i] != stored.runs[begin] or found[i] not in (StepClass.POLICY, StepClass.PRE_INTERVENTION):
                break
            found[i] = StepClass.PRE_INTERVENTION if stored.steps[i] >= onset - before else StepClass.POLICY
    return found


def finished_alone(stored: Stored, classes: Sequence[StepClass]) -> list[StepClass]:
    """``classes`` (`classes_of`), where of the policy's steps only those are examples that it finished: nobody took over after them, and
    the episode did not fail. Those before a labelled onset are, too: there a person has said until when it went well.
    """
    whole, labels = stored.whole or stored, stored.labels
    last = labels.last_step if labels is not None else None
    human = (StepClass.INTERVENTION, StepClass.TRANSITION)
    taken = [
        (step, intervention)
        for step, c, intervention in zip(whole.steps, whole.classes, whole.interventions, strict=True)
        if c in human and (last is None or step <= last)
    ]
    ends_well = stored.outcome not in (None, *NO_EXAMPLE)
    onsets = labels.onsets if labels is not None else {}
    found = list(classes)
    for i, c in enumerate(classes):
        if c in (StepClass.POLICY, StepClass.PRE_INTERVENTION):
            after = bisect_right(taken, stored.steps[i], key=lambda one: one[0])
            finished = ends_well if after == len(taken) else taken[after][1] in onsets
            found[i] = StepClass.POLICY if finished and c == StepClass.POLICY else StepClass.UNFINISHED
    return found
