"""The slope of a slowly varying, autocorrelated series, with an interval that does not pretend its samples were independent."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z95 = 1.96


@dataclass(frozen=True)
class Trend:
    """Least-squares slope (unit per hour) and its 95 % interval; ``n`` samples."""

    slope: float
    low: float
    high: float
    n: int

    def below(self, limit: float) -> bool:
        """Whether the slope is under ``limit``; a wide interval excuses nothing."""
        return self.slope < limit


def trend(t_s: Sequence[float], values: Sequence[float], lag_s: float = 60.0) -> Trend:
    """Ordinary least squares of ``values`` over time; Newey-West standard error (Bartlett kernel, samples up to ``lag_s`` apart).

    Raises ValueError with fewer than 8 samples or without time passing.
    """
    t, y = np.asarray(t_s, np.float64) / 3600.0, np.asarray(values, np.float64)
    if len(t) != len(y) or len(t) < 8 or np.ptp(t) <= 0:
        raise ValueError(f"a trend needs 8 samples or more over some time; there are {len(t)}")
    x = t - t.mean()
    spread = float(x @ x)
    slope = float(x @ (y - y.mean())) / spread
    score = x * (y - y.mean() - slope * x)
    lags = min(len(t) // 3, max(1, round(lag_s / (3600.0 * float(np.median(np.diff(t)))))))
    variance = float(score @ score)
    for lag in range(1, lags + 1):
        variance += 2.0 * (1.0 - lag / (lags + 1)) * float(score[lag:] @ score[:-lag])
    error = float(np.sqrt(max(variance, 0.0) * len(t) / (len(t) - 2))) / spread
    return Trend(slope, slope - Z95 * error, slope + Z95 * error, len(t))
