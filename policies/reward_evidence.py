"""What is known of success at each step of a recorded episode: from the task, from people's keys and labels, from marks. Pure functions.

A step is judged by the state that it led to: 1 success, 0 not, -1 unknown. What a classifier said is no evidence; where a person said
otherwise it is a claim that was wrong, and the steps around it are *hard* negatives. That the step limit came says nothing, unless the task
itself was asked at every step: a success that was missed, or for which nobody pressed a key, would teach the next version to miss it too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from takeover.data.catalog_tables import LabelEvent
from takeover.data.label_fields import outcome_of
from takeover.data.schema import ControlMode, EpisodeEnd, EpisodeStart, Event, Outcome, OutcomeSource, Step
from takeover.policies.reward_settings import AUTHOR, NEGATIVE_MARK, POSITIVE_MARK, RewardSettings

Labels = npt.NDArray[np.int8]
Mask = npt.NDArray[np.bool_]
HARD_STEPS = 2  # before and after a wrong claim


@dataclass(frozen=True)
class Judgement:
    """Who said what of an episode. ``event_step`` -1: no step was named."""

    outcome: Outcome
    by: str  # "person", "operator", "task" or "nobody"
    event_step: int
    claims: tuple[int, ...]  # steps at which a classifier said success, and a person has said otherwise since


@dataclass(frozen=True)
class Evidence:
    """Per driven step: ``labels`` (N,) int8 of 1, 0, -1; ``hard`` (N,) of those that a classifier got wrong."""

    labels: Labels
    hard: Mask


def by_classifier(author: str) -> bool:
    return author.startswith(AUTHOR)


def task_judges(start: EpisodeStart, steps: Sequence[Step]) -> bool:
    """Whether the task said at every step that it was no success yet. Real robots have none that could; a simulator's is not asked where
    keys or a classifier give the reward. ``steps``: the driven ones."""
    return start.spec.simulated and all(step.reward_source == "task" for step in steps)


def judge(end: EpisodeEnd, events: Sequence[LabelEvent], by_task: bool = False) -> Judgement:
    """``events``: the episode's outcome labels, oldest first. People count, then the operator's key, then the task; never a classifier.

    ``by_task``: see `task_judges`; without it an episode that ran to its step limit is not judged.
    """
    claims = [end.event_step] if end.outcome_source == OutcomeSource.CLASSIFIER and end.outcome == Outcome.SUCCESS else []
    said: LabelEvent | None = None
    for event in events:
        value, step = outcome_of(event.value)
        if not by_classifier(event.author):
            said = event if value else None
        elif value == Outcome.SUCCESS:
            claims.append(step if step >= 0 else end.steps - 1)
    if said is not None:
        value, step = outcome_of(said.value)
        outcome = Outcome(value)
        if outcome == end.outcome and step < 0:
            step = end.event_step if end.outcome_source == OutcomeSource.TASK else -1
        true_from = step if outcome == Outcome.SUCCESS and step >= 0 else end.steps
        wrong = tuple(sorted({claim for claim in claims if outcome != Outcome.SUCCESS or claim < true_from}))
        return Judgement(outcome, "person", step, wrong)
    if end.outcome_source == OutcomeSource.OPERATOR:
        return Judgement(end.outcome, "operator", -1, ())
    if end.outcome_source == OutcomeSource.TASK or (end.outcome_source == OutcomeSource.LIMIT and by_task):
        return Judgement(end.outcome, "task", end.event_step, ())
    return Judgement(Outcome.UNKNOWN, "nobody", -1, ())


def count_vetoes(judgement: Judgement, marks: int) -> int:
    """Vetoes in one episode: claims of a classifier that a person took back, and marks *not success*."""
    return len(judgement.claims) + marks


def negative_marks(steps: Sequence[Step], events: Sequence[Event]) -> int:
    """How many marks *not success* count (`with_marks`); ``steps``: the driven ones."""
    later = {step.seq for step in steps[1:]}
    return sum(event.kind == "mark" and event.text == NEGATIVE_MARK and event.seq in later for event in events)


def driven(steps: Sequence[Step]) -> list[Step]:
    """The N steps that are not held, in order."""
    return [step for step in steps if step.control_mode not in (ControlMode.PAUSED, ControlMode.SAFETY_HOLD)]


def evidence_of(judgement: Judgement, count: int, control_hz: float, settings: RewardSettings) -> Evidence:
    """For an episode of ``count`` driven steps.

    Success by the task: negatives before it, positives from there on. Success by a key: positives from the shortest delay before the
    key, negatives until the longest, unknown between; a dated label counts as a key that was dated back by the mean of the two. Failure:
    negatives. Not judged: unknown, but vetoed claims are negatives.
    """
    labels = np.full(count, -1, np.int8)
    earliest, latest = round(settings.key_delay_max_s * control_hz), round(settings.key_delay_min_s * control_hz)
    if judgement.outcome == Outcome.SUCCESS and judgement.by == "task":
        labels[: judgement.event_step] = 0
        labels[judgement.event_step :] = 1
    elif judgement.outcome == Outcome.SUCCESS:  # by a key: after the last step; or dated, halfway between the two delays
        key = count - 1 if judgement.event_step < 0 else judgement.event_step + (earliest + latest) // 2
        labels[: max(0, key - earliest)] = 0
        labels[max(0, min(count - 1, key - latest)) :] = 1
    elif judgement.outcome == Outcome.FAILURE or judgement.claims:
        labels[:] = 0
    hard = np.zeros(count, np.bool_)
    for claim in judgement.claims:
        hard[max(0, claim - HARD_STEPS) : claim + HARD_STEPS + 1] = True
    return Evidence(labels, hard & (labels == 0))


def with_marks(evidence: Evidence, steps: Sequence[Step], events: Sequence[Event]) -> Evidence:
    """Marks that a person set while driving count for the step they were set at (its state before the action: the step before it).

    ``steps``: the driven ones. Other marks, and marks at steps that were held, change nothing. Negative marks are hard.
    """
    rows = {step.seq: index - 1 for index, step in enumerate(steps)}
    labels, hard = evidence.labels.copy(), evidence.hard.copy()
    for event in events:
        row = rows.get(event.seq, -1)
        if event.kind != "mark" or row < 0 or event.text not in (POSITIVE_MARK, NEGATIVE_MARK):
            continue
        positive = event.text == POSITIVE_MARK
        labels[row] = int(positive)
        hard[row] = not positive
    return Evidence(labels, hard)
