"""What an imitation learner draws from: the steps of episodes, their classes, and what labels leave of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from takeover.data.episode_labels import EpisodeLabels
from takeover.data.schema import ControlMode, EpisodeKind, Outcome, Step
from takeover.policies.class_weights import StepClass, relabel_before_onsets, weights
from takeover.policies.replay import gripper_index, is_human


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

    made: "tuple[tuple[int, int, int], EpisodeLabels | None, Piece] | None" = None  # what `piece_of` made of it last


@dataclass(frozen=True)
class Piece:
    """The rows of one episode as tensors: observations (N, H, D), actions (N, A), corrections, classes and gripper commands (N,)."""

    observations: Tensor
    actions: Tensor
    corrections: Tensor
    classes: Tensor
    gripper: Tensor


def piece_of(stored: Stored, before: int, gripper: int) -> Piece:
    """Made once for every state of an episode: tables are made anew after each step, of episodes that mostly have not changed."""
    key = (len(stored.actions), before, gripper)
    if stored.made is not None and stored.made[0] == key and stored.made[1] is stored.labels:
        return stored.made[2]
    piece = Piece(
        torch.from_numpy(np.stack(stored.observations)),
        torch.tensor(stored.actions, dtype=torch.float32),
        torch.tensor(stored.corrections, dtype=torch.int64),
        torch.tensor([int(c) for c in _relabelled(stored, before)]),
        torch.tensor([gripper_index(a[gripper]) for a in stored.actions] if gripper >= 0 else []),
    )
    stored.made = (key, stored.labels, piece)
    return piece


def driven_steps(stored: Stored) -> int:
    """Steps that a person drove, ramps included."""
    return stored.classes.count(StepClass.INTERVENTION) + stored.classes.count(StepClass.TRANSITION)


class Table:
    """All usable steps as tensors, grouped by class."""

    def __init__(self, episodes: Sequence[Stored], before: int, gripper: int) -> None:
        """``before``: how many steps before an onset count as what went wrong; ``gripper``: its place in an action, -1 for none."""
        pieces = [piece_of(stored, before, gripper) for stored in episodes if stored.actions]
        self.observations = torch.cat([p.observations for p in pieces]) if pieces else torch.zeros(0)
        self.actions = torch.cat([p.actions for p in pieces]) if pieces else torch.zeros(0)
        self.corrections = torch.cat([p.corrections for p in pieces]) if pieces else torch.zeros(0, dtype=torch.int64)
        if gripper >= 0:
            self.gripper = torch.cat([p.gripper for p in pieces]) if pieces else torch.zeros(0, dtype=torch.int64)
        labels = torch.cat([p.classes for p in pieces]) if pieces else torch.zeros(0, dtype=torch.int64)
        self._members = {c: torch.nonzero(labels == int(c)).flatten() for c in StepClass}
        self.counts: dict[StepClass, int] = {c: len(members) for c, members in self._members.items()}

    def sample(self, count: int, shares: Mapping[StepClass, float], generator: torch.Generator) -> Tensor:
        """(count,) rows: classes by their shares, uniform within a class."""
        kinds = [c for c in StepClass if shares[c] > 0.0]
        probabilities = torch.tensor([shares[c] for c in kinds], dtype=torch.float64)
        drawn = torch.multinomial(probabilities, count, replacement=True, generator=generator)
        parts = []
        for i, c in enumerate(kinds):
            members = self._members[c]
            parts.append(members[torch.randint(len(members), (int((drawn == i).sum()),), generator=generator)])
        return torch.cat(parts)


def _relabelled(stored: Stored, before: int) -> list[StepClass]:
    """Pre-intervention labels within each run; a labelled onset moves the beginning of its correction's."""
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


def counted(episodes: Iterable[Stored]) -> list[Stored]:
    """What the labels leave of the episodes. Steps that are no example keep their place, for the windows around them, but are not drawn."""
    found = []
    for stored in episodes:
        labels = stored.labels
        if labels is None:
            found.append(stored)
            continue
        if labels.thrown_away or (stored.kind == EpisodeKind.DEMONSTRATION and labels.outcome in (Outcome.FAILURE, Outcome.ABORTED)):
            continue  # nothing to imitate
        if labels.changes_nothing:
            found.append(stored)
            continue
        kept = [i for i, step in enumerate(stored.steps) if labels.counts(step)]
        human = (StepClass.INTERVENTION, StepClass.DEMONSTRATION)
        classes = [
            StepClass.TRANSITION if stored.classes[i] in human and not labels.imitated(stored.steps[i]) else stored.classes[i] for i in kept
        ]
        found.append(
            Stored(
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
            )
        )
    return found


def weights_or_none(counts: Mapping[StepClass, int], scheme: str) -> dict[StepClass, float]:
    """`class_weights.weights`, all 0 where no step is usable."""
    try:
        return weights(counts, scheme)
    except ValueError:
        return dict.fromkeys(StepClass, 0.0)


def class_of(step: Step) -> StepClass:
    if step.control_mode == ControlMode.TRANSITION:
        return StepClass.TRANSITION
    if step.kind == EpisodeKind.DEMONSTRATION:
        return StepClass.DEMONSTRATION if is_human(step) else StepClass.TRANSITION
    return StepClass.INTERVENTION if is_human(step) else StepClass.POLICY
