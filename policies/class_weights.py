"""Which steps an imitation learner attends to: classes and their weights, as pure functions.

``w(c) = P*(c) / P(c)`` where P is the share of a class in the data and P* the share it should have in a batch. Two traps, both
handled here: the share left for the policy turns negative once demonstrations exceed half, and an empty class divides by zero.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum


class StepClass(IntEnum):
    """What a step is to an imitation learner."""

    DEMONSTRATION = 0
    POLICY = 1
    INTERVENTION = 2
    PRE_INTERVENTION = 3  # the seconds before a takeover: what went wrong
    TRANSITION = 4  # ramp-in: nobody's intention, always excluded
    UNFINISHED = 5  # what the policy drove until a person took over, until it failed, or up to now: no example


SCHEMES = ("sirius", "iwr", "hg-dagger", "bc")


def target_shares(counts: Mapping[StepClass, int], scheme: str) -> dict[StepClass, float]:
    """P*: the share of a batch each class should have; sums to 1, nothing negative, nothing for empty or excluded classes.

    sirius: interventions 1/2, demonstrations as in the data, pre-intervention 0, the policy takes the rest.
    iwr: interventions 1/2, the rest as in the data. hg-dagger: human steps alone. bc: demonstrations alone.
    Raises `ValueError` for an unknown scheme, negative counts, or when no step is usable.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"unknown weighting {scheme!r}; known: {', '.join(SCHEMES)}")
    if any(count < 0 for count in counts.values()):
        raise ValueError(f"negative counts: {dict(counts)}")
    n = {c: counts.get(c, 0) for c in StepClass}
    total = sum(count for c, count in n.items() if c != StepClass.TRANSITION)
    share = {c: (n[c] / total if total and c != StepClass.TRANSITION else 0.0) for c in StepClass}
    demonstration, policy, intervention, pre = (
        StepClass.DEMONSTRATION,
        StepClass.POLICY,
        StepClass.INTERVENTION,
        StepClass.PRE_INTERVENTION,
    )
    wanted = dict.fromkeys(StepClass, 0.0)
    if scheme == "bc":
        wanted[demonstration] = 1.0
    elif scheme == "hg-dagger":
        wanted[demonstration], wanted[intervention] = share[demonstration], share[intervention]
    elif scheme == "iwr":
        wanted[intervention] = 0.5
        rest = share[demonstration] + share[policy] + share[pre]
        for c in (demonstration, policy, pre):
            wanted[c] = 0.5 * share[c] / rest if rest else 0.0
    else:
        wanted[intervention], wanted[demonstration] = 0.5, share[demonstration]
        wanted[policy] = 0.5 - share[demonstration]
    return _clamped(wanted, n)


def weights(counts: Mapping[StepClass, int], scheme: str) -> dict[StepClass, float]:
    """w(c) = P*(c) / P(c); 0 for empty and excluded classes."""
    shares = target_shares(counts, scheme)
    total = sum(counts.get(c, 0) for c in StepClass if c != StepClass.TRANSITION)
    return {c: shares[c] * total / counts[c] if counts.get(c, 0) else 0.0 for c in StepClass}


def _clamped(wanted: Mapping[StepClass, float], counts: Mapping[StepClass, int]) -> dict[StepClass, float]:
    """Negative shares and empty classes get nothing; the others are scaled to 1."""
    kept = {c: max(0.0, wanted[c]) if counts[c] else 0.0 for c in StepClass}
    total = sum(kept.values())
    if total <= 0.0:
        raise ValueError(f"no step is usable for imitation: { ({c.name.lower(): counts[c] for c in StepClass}) }")
    return {c: share / total for c, share in kept.items()}


def relabel_before_onsets(classes: Sequence[StepClass], steps_before: int) -> list[StepClass]:
    """The ``steps_before`` policy steps before each onset become PRE_INTERVENTION.

    ``classes`` are one run's steps in order; an onset is the first transition or intervention step after a policy step.
    """
    found = list(classes)
    human = (StepClass.INTERVENTION, StepClass.TRANSITION)
    for i, c in enumerate(classes):
        if c in human and i and classes[i - 1] == StepClass.POLICY:
            for j in range(i - 1, max(-1, i - 1 - steps_before), -1):
                if found[j] != StepClass.POLICY:
                    break
                found[j] = StepClass.PRE_INTERVENTION
    return found
