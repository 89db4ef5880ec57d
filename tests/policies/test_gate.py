"""The gate's test: its error rates while peeking after every pair, by simulation with fixed seeds; its power; its numbers."""

import numpy as np
import pytest

from takeover.policies.gate import GateSettings, PairedTest

RUNS = 300
PAIRS = 200
TOLERANCE = 0.03  # 2.4 standard errors of a rate of 0.05 in 300 runs


def simulate(
    candidate: float, trusted: float, settings: GateSettings, shared: float = 0.5, runs: int = RUNS, seed: int = 1
) -> dict[str, float]:
    """Share of runs per verdict, looking after every pair; in ``shared`` of the starts both draw the same luck."""
    generator = np.random.default_rng(seed)
    counts: dict[str, int] = {}
    pairs = []
    for _ in range(runs):
        test = PairedTest(settings)
        luck = generator.random((PAIRS, 3))
        for own, other, same in luck:
            if test.add(bool(own < candidate), bool((own if same < shared else other) < trusted)):
                break
        counts[test.verdict] = counts.get(test.verdict, 0) + 1
        pairs.append(test.pairs)
    return {verdict: count / runs for verdict, count in counts.items()} | {"median_pairs": float(np.median(pairs))}


@pytest.mark.parametrize(("rate", "shared"), [(0.5, 0.0), (0.9, 0.5)])
def test_equal_policies_are_seldom_called_worse_or_better(rate: float, shared: float) -> None:
    found = simulate(rate, rate, GateSettings(alpha_worse=0.05, alpha_pass=0.05, seek_better=True), shared)
    assert found.get("worse", 0.0) <= 0.05 + TOLERANCE
    assert found.get("better", 0.0) <= 0.05 + TOLERANCE


def test_the_error_rate_is_the_one_that_was_asked_for() -> None:
    strict = simulate(0.6, 0.6, GateSettings(alpha_worse=0.01, alpha_pass=0.01, seek_better=True), 0.0)
    assert strict.get("worse", 0.0) <= 0.01 + 0.015
    loose = simulate(0.6, 0.6, GateSettings(alpha_worse=0.4, alpha_pass=0.01), 0.0)
    assert loose.get("worse", 0.0) > 0.1  # so that the bound above is one that could be broken


@pytest.mark.parametrize("trusted", [0.6, 0.95])
def test_one_that_is_worse_by_the_margin_seldom_passes(trusted: float) -> None:
    found = simulate(trusted - 0.1, trusted, GateSettings(margin=0.1))
    assert found.get("not worse", 0.0) + found.get("better", 0.0) <= 0.05 + TOLERANCE


def test_clear_differences_are_found_with_few_pairs() -> None:
    worse = simulate(0.6, 0.9, GateSettings(), runs=100)
    assert worse["worse"] >= 0.97
    assert worse["median_pairs"] <= 40
    better = simulate(0.9, 0.6, GateSettings(seek_better=True), runs=100)
    assert better["better"] >= 0.97
    equal = simulate(0.95, 0.95, GateSettings(), shared=1.0, runs=20)
    assert equal == {"not worse": 1.0, "median_pairs": equal["median_pairs"]}
    assert equal["median_pairs"] <= 60


def test_too_few_pairs_give_no_verdict_and_all_numbers_are_there() -> None:
    test = PairedTest()
    for _ in range(6):
        assert not test.add(False, True)
    numbers = test.numbers
    assert (numbers["verdict"], numbers["pairs"], numbers["only_trusted"], numbers["only_candidate"]) == ("insufficient evidence", 6, 6, 0)
    assert numbers["p_worse"] > 0.05
    assert test.add(False, True)
    assert (test.verdict, test.pairs) == ("worse", 7)  # no fewer than seven, all lost, at 5 %
    with pytest.raises(RuntimeError, match="final"):
        test.add(True, True)


def test_concordant_pairs_move_only_the_margin_test() -> None:
    test = PairedTest(GateSettings(margin=0.05))
    for _ in range(20):
        test.add(True, True)
        test.add(False, False)
    assert (test.numbers["p_better"], test.numbers["p_worse"]) == (1.0, 1.0)
    assert test.numbers["p_not_worse"] < 1.0


@pytest.mark.parametrize("wrong", [{"alpha_worse": 0.0}, {"alpha_pass": 1.0}, {"margin": 0.0}, {"margin": float("nan")}])
def test_settings_that_cannot_be_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GateSettings(**wrong)  # type: ignore[arg-type]
