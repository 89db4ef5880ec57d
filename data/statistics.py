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


def sliding_ratio_bands(
    numerator: npt.ArrayLike,
    denominator: npt.ArrayLike,
    ends: npt.ArrayLike,
    window: int,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[FloatArray, FloatArray]:
    """(low, high), each (len(ends),): `bootstrap_ratio_band` of the ``window`` episodes up to each end, inclusive, all full ones at once.

    Windows of one length draw the same episodes, so one product with how often each is drawn does for all. An end with fewer episodes
    before it takes those there are. Raises ValueError for arrays of unequal length.
    """
    over, under = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    if over.shape != under.shape or over.ndim != 1:
        raise ValueError(f"numerator {over.shape} and denominator {under.shape} must be (E,), one entry per episode")
    places = np.asarray(ends, np.int64)
    low, high = np.full(places.size, np.nan), np.full(places.size, np.nan)
    for index in np.flatnonzero(places + 1 < window):
        part = slice(0, places[index] + 1)
        low[index], high[index] = bootstrap_ratio_band(over[part], under[part], resamples=resamples, level=level, seed=seed)
    full = np.flatnonzero(places + 1 >= window)
    if not full.size:
        return low, high
    draws = np.random.default_rng(seed).integers(0, window, (resamples, window))
    times = np.zeros((resamples, window))
    np.add.at(times, (np.arange(resamples)[:, None], draws), 1.0)
    episodes = places[full] + 1 - window + np.arange(window)[:, None]  # (window, full windows)
    drawn, total = (np.einsum("rw,wf->rf", times, part[episodes]) for part in (over, under))  # small: no threads wanted
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where(total > 0, drawn / total, np.nan)
    known = under[episodes].sum(axis=0) > 0
    low[full[known]], high[full[known]] = _quantiles(values[:, known], level)
    return low, high


def _quantiles(drawn: FloatArray, level: float) -> FloatArray:
    """(2, n): both ends of the middle ``level`` of each column of (resamples, n), NaN left out; every column has a number."""
    shares = [(1 - level) / 2, (1 + level) / 2]
    made = np.empty((2, drawn.shape[1]))
    whole = np.isfinite(drawn).all(axis=0)
    if whole.any():
        made[:, whole] = np.quantile(drawn[:, whole], shares, axis=0)
    if not whole.all():  # many times slower
        made[:, ~whole] = np.nanquantile(drawn[:, ~whole], shares, axis=0)
    return made


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
        low[known], high[known] = _quantiles(drawn[:, known], level)
    return value, low, high
