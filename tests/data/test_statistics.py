"""Intervals against scipy's."""

import numpy as np
import pytest
from scipy import stats

from takeover.data.statistics import bootstrap_ratio_band, cumulative_ratio_band, ratio, sliding_ratio_bands, wilson


@pytest.mark.parametrize(("k", "n"), [(0, 20), (1, 20), (13, 20), (20, 20), (168, 200), (1, 1)])
def test_wilson_equals_scipy(k: int, n: int) -> None:
    expected = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="5 successes in 3 trials"):
        wilson(5, 3)


def test_bootstrap_band_agrees_with_scipy() -> None:
    generator = np.random.default_rng(1)
    steps = generator.integers(20, 100, 40).astype(float)
    human = np.floor(steps * generator.random(40) * 0.5)
    low, high = bootstrap_ratio_band(human, steps, resamples=4000)
    reference = stats.bootstrap(
        (human, steps), lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis), paired=True, method="percentile", n_resamples=4000, rng=2
    ).confidence_interval
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=0.012)
    assert low < ratio(human, steps) < high


def test_band_is_a_point_when_all_episodes_are_equal_and_refuses_unequal_lengths() -> None:
    assert bootstrap_ratio_band([5, 5, 5], [20, 20, 20]) == pytest.approx((0.25, 0.25))
    assert all(np.isnan(bootstrap_ratio_band([], [])))
    with pytest.raises(ValueError, match="one entry per episode"):
        bootstrap_ratio_band([1.0], [1.0, 2.0])


def test_cumulative_band_ends_at_the_ratio_of_all() -> None:
    generator = np.random.default_rng(3)
    successes = (generator.random(60) < 0.7).astype(float)
    human = generator.integers(0, 12, 60).astype(float)
    human[:3] = 0.0
    value, low, high = cumulative_ratio_band(successes, human, range(60), resamples=400)
    assert np.isnan(value[:3]).all()
    assert value[-1] == pytest.approx(successes.sum() / human.sum())
    expected = bootstrap_ratio_band(successes, human, resamples=4000)
    assert (low[-1], high[-1]) == pytest.approx(expected, abs=0.03)


def test_all_windows_at_once_have_the_bands_of_each():
    rng = np.random.default_rng(3)
    steps = rng.integers(20, 200, 60).astype(float)
    human = np.floor(steps * rng.random(60))
    steps[30:50] = human[30:50] = 0.0  # windows without a step, and with draws of none
    ends = [0, 3, 19, 20, 35, 49, 50, 59]
    low, high = sliding_ratio_bands(human, steps, ends, 20, resamples=200)
    for index, end in enumerate(ends):
        part = slice(max(0, end + 1 - 20), end + 1)
        expected = bootstrap_ratio_band(human[part], steps[part], resamples=200)
        assert (low[index], high[index]) == pytest.approx(expected, nan_ok=True)
    assert np.isnan(low[5]), "nobody drove in episodes 30 to 49"
    with pytest.raises(ValueError, match="one entry per episode"):
        sliding_ratio_bands([1.0], [1.0, 2.0], [0], 1)
