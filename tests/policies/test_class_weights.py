"""Class weights: the definition, and the two traps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from takeover.policies.class_weights import SCHEMES, StepClass, relabel_before_onsets, target_shares, weights

DEMO, POLICY, HUMAN = StepClass.DEMONSTRATION, StepClass.POLICY, StepClass.INTERVENTION
PRE, RAMP, UNFINISHED = StepClass.PRE_INTERVENTION, StepClass.TRANSITION, StepClass.UNFINISHED


def test_sirius_as_defined() -> None:
    counts = {DEMO: 200, POLICY: 400, HUMAN: 100, PRE: 100, RAMP: 50, UNFINISHED: 200}
    found = weights(counts, "sirius")
    # P*(I) = 1/2, P*(D) = P(D) = 0.2, P*(pre) = 0, P*(P) = 0.3
    # what the policy did not finish is of the data and never drawn; transitions are outside of everything
    assert found == pytest.approx({DEMO: 1.0, POLICY: 0.75, HUMAN: 5.0, PRE: 0.0, RAMP: 0.0, UNFINISHED: 0.0})


def test_sirius_with_mostly_demonstrations_has_no_negative_weight() -> None:
    counts = {DEMO: 900, POLICY: 50, HUMAN: 50}
    found = target_shares(counts, "sirius")
    # wanted 0.5 and 0.9 with -0.4 for the policy: the policy gets nothing and the others are scaled to 1
    assert found[POLICY] == 0.0
    assert found[HUMAN] == pytest.approx(0.5 / 1.4)
    assert found[DEMO] == pytest.approx(0.9 / 1.4)


def test_empty_classes_divide_nothing_by_zero() -> None:
    for scheme in ("sirius", "iwr", "hg-dagger"):
        assert weights({DEMO: 100}, scheme)[HUMAN] == 0.0
        assert target_shares({DEMO: 100}, scheme)[DEMO] == 1.0
    assert target_shares({DEMO: 0, POLICY: 100, HUMAN: 10}, "sirius") == pytest.approx(
        {DEMO: 0.0, POLICY: 0.5, HUMAN: 0.5, PRE: 0.0, RAMP: 0.0, UNFINISHED: 0.0}
    )


def test_other_schemes_as_defined() -> None:
    counts = {DEMO: 100, POLICY: 200, HUMAN: 50, PRE: 50, RAMP: 10}
    assert target_shares(counts, "iwr") == pytest.approx(
        {DEMO: 0.5 * 100 / 350, POLICY: 0.5 * 200 / 350, HUMAN: 0.5, PRE: 0.5 * 50 / 350, RAMP: 0.0, UNFINISHED: 0.0}
    )
    assert target_shares(counts, "hg-dagger") == pytest.approx(
        {DEMO: 2 / 3, POLICY: 0.0, HUMAN: 1 / 3, PRE: 0.0, RAMP: 0.0, UNFINISHED: 0.0}
    )
    assert target_shares(counts, "bc") == pytest.approx({DEMO: 1.0, POLICY: 0.0, HUMAN: 0.0, PRE: 0.0, RAMP: 0.0, UNFINISHED: 0.0})


@given(st.fixed_dictionaries({c: st.integers(0, 5000) for c in StepClass}), st.sampled_from(SCHEMES))
def test_shares_are_a_distribution_over_what_there_is(counts: dict[StepClass, int], scheme: str) -> None:
    imitated = {"bc": (DEMO,), "hg-dagger": (DEMO, HUMAN), "iwr": (DEMO, HUMAN, POLICY, PRE), "sirius": (DEMO, HUMAN, POLICY)}[scheme]
    if not any(counts[c] for c in imitated):
        with pytest.raises(ValueError, match="no step is usable"):
            target_shares(counts, scheme)
        return
    found = target_shares(counts, scheme)
    assert sum(found.values()) == pytest.approx(1.0)
    assert all(share >= 0.0 for share in found.values())
    assert all(share == 0.0 for c, share in found.items() if counts[c] == 0)
    assert found[RAMP] == 0.0
    usable = sum(n for c, n in counts.items() if c != RAMP)
    drawn = sum(weights(counts, scheme)[c] * counts[c] / usable for c in StepClass)
    assert drawn == pytest.approx(1.0)  # weights times data shares give the wanted shares


def test_unknown_scheme_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="known: sirius, iwr, hg-dagger, bc"):
        target_shares({DEMO: 1}, "dagger")


def test_steps_before_an_onset_are_relabelled_up_to_the_previous_human_step() -> None:
    before = [POLICY, POLICY, POLICY, POLICY, RAMP, HUMAN, HUMAN, POLICY, POLICY, RAMP, HUMAN]
    assert relabel_before_onsets(before, 3) == [POLICY, PRE, PRE, PRE, RAMP, HUMAN, HUMAN, PRE, PRE, RAMP, HUMAN]
    assert relabel_before_onsets([RAMP, HUMAN, POLICY], 3) == [RAMP, HUMAN, POLICY]
    assert relabel_before_onsets([POLICY, HUMAN], 0) == [POLICY, HUMAN]
