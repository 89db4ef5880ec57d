"""Intervals that every reported figure carries: Wilson for proportions, the bootstrap over episodes for ratios of sums."""

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

Z_95 = 1.959963984540054


def wilson(k: float, n: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson score interval of ``k`` successes in ``n`` trials, as (low, high) in [0, 1]; (0, 1) when nothing was tried.

    ``k`` may be a fraction: the sum of success rates of ``n`` cases. Raises ValueError unless 0 <= k <= n.
    """
    if not 0 <= k <= n:
        raise ValueError(f"{k} successes in {n} trials; 0 <= successes <= trials is needed")
    if n == 0:
        return 0.0, 1.0
    p = k / n
    denominator = 1.0 + z * z / n
    centre = (p + z * z / (2 * n)) / denominator
    radius = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / denominator
    return (0.0 if k == 0 else centre - radius), (1.0 if k == n else centre + radius)


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> float:
    """Sum over sum; NaN when the denominator's sum is zero."""
    total = float(np.sum(denominator))
    return float(np.sum(numerator)) / total if total else math.nan


def bootstrap_ratio_band(
    numerator: npt.ArrayLike, denominator: npt.ArrayLike, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of ``sum(numerator) / sum(denominator)`` when whole episodes are drawn again with replacement.

    Steps of one episode are not independent, so the episode is the unit: arrays are (E,), one entry per episode. Deterministic
    in ``seed``. Returns (NaN, NaN) for an empty window or one without a step; raises ValueError for arrays of unequal length.
    """
    over, under = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    if over.shape != under.shape or over.ndim != 1:
        raise ValueError(f"numerator {over.shape} and denominator {under.shape} must be (E,), one entry per episode")
    if not over.size or not under.sum():
        return math.nan, math.nan
    draws = np.random.default_rng(seed).integers(0, over.size, (resamples, over.size))
    sums = under[draws].sum(axis=1)
    values = over[draws].sum(axis=1)[sums > 0] / sums[sums > 0]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def cumulative_ratio_band(
    numerator: npt.ArrayLike,
    denominator: npt.ArrayLike,
    ends: npt.ArrayLike,
    *,
    resamples: int = 100,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(value, low, high), each (len(ends),): the ratio of sums over episodes 0 to ``end``, inclusive, with a bootstrap band.

    Each resample draws a Poisson(1) weight per episode, which equals drawing with replacement and needs one pass. NaN where the
    denominator is still zero.
    """
    over, under = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    if over.shape != under.shape or over.ndim != 1:
        raise ValueError(f"numerator {over.shape} and denominator {under.shape} must be (E,), one entry per episode")
    places = np.asarray(ends, np.int64)
    weights = np.random.default_rng(seed).poisson(1.0, (resamples, over.size))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.cumsum(over)[places] / np.cumsum(under)[places]
        drawn = np.cumsum(weights * over, axis=1)[:, places] / np.cumsum(weights * under, axis=1)[:, places]
    drawn[~np.isfinite(drawn)] = np.nan
    value[~np.isfinite(value)] = np.nan
    low, high = np.full(places.size, np.nan), np.full(places.size, np.nan)
    known = np.isfinite(drawn).any(axis=0)
    if known.any():
        low[known], high[known] = np.nanquantile(drawn[:, known], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return value, low, high
