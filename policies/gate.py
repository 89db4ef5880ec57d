"""The gate's test: a candidate against the trusted policy on the same starts, in pairs, looked at after every pair.

Testing by betting (A. Waudby-Smith, A. Ramdas: Estimating means of bounded random variables by betting, JRSS-B 86, 2024). Pair i
gives d_i in {-1, 0, 1}: the candidate's success minus the trusted policy's from one start. A hypothesis "the mean of d is at most m" is
bet against with wealth prod(1 + b (d_i - m)), averaged over a grid of fixed bets b >= 0. While it is true the wealth is a
non-negative supermartingale that starts at 1, so it ever reaches 1/alpha with a probability of at most alpha (Ville), however often one
looks and whenever one stops. With m = 0 only discordant pairs move it.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from takeover.data.statistics import wilson

Verdict = Literal["better", "not worse", "worse", "insufficient evidence"]
ALPHA = 0.05
MARGIN = 0.10
_BETS = 24  # of the grid, from 0.04 of the largest one that cannot lose everything to 0.98 of it


@dataclass(frozen=True)
class GateSettings:
    """Error rates and the margin. Raises `ValueError` for ones that cannot be."""

    alpha_worse: float = ALPHA
    """Chance at most, over all looks, to call a candidate worse that is not: a needless rollback."""
    alpha_pass: float = ALPHA
    """Chance at most, over all looks, that a candidate worse by the margin passes as not worse; of one no better, that it passes as
    better. The two nulls are nested, so one that is worse by the margin passes with at most twice this chance."""
    margin: float = MARGIN
    """Of the success rate, in (0, 1): a candidate passes as not worse when it was shown to lose less than this."""
    seek_better: bool = False
    """Go on after *not worse* until *better* is shown or the pairs end. A candidate much better is shown not worse long before."""

    def __post_init__(self) -> None:
        for name in ("alpha_worse", "alpha_pass", "margin"):
            value = getattr(self, name)
            if not 0.0 < value < 1.0:
                raise ValueError(f"gate: {name} = {value:g}; more than 0 and less than 1 is needed")


class _Wealth:
    """Wealth against "the mean of d is at most ``bound``", for d in [-1, 1] and ``bound`` in (-1, 0]."""

    def __init__(self, bound: float) -> None:
        bets = np.linspace(0.04, 0.98, _BETS) / (1.0 + bound)  # 1 + b (-1 - bound) stays positive
        self._factors = {difference: np.log1p(bets * (difference - bound)) for difference in (-1, 0, 1)}
        self._still = bound == 0.0  # a pair that agrees changes nothing
        self._log = np.zeros(_BETS)
        self.highest = 0.0  # log of the largest ever

    def add(self, difference: int) -> None:
        if self._still and not difference:
            return
        self._log += self._factors[difference]
        top = float(self._log.max())
        self.highest = max(self.highest, top + math.log(float(np.exp(self._log - top).mean())))

    @property
    def p_value(self) -> float:
        """Valid at any time: 1 over the largest wealth so far."""
        return math.exp(-self.highest)


class PairedTest:
    """Feed it pairs; it may be asked after each. When `add` gives True the verdict is final and later pairs are refused."""

    def __init__(self, settings: GateSettings | None = None) -> None:
        self.settings = settings or GateSettings()
        self.candidate_successes = self.trusted_successes = self.pairs = 0
        self.wins = self.losses = 0  # discordant pairs, as the candidate sees them
        self.verdict: Verdict = "insufficient evidence"
        self._final = False
        self._better, self._worse = _Wealth(0.0), _Wealth(0.0)
        self._not_worse = _Wealth(-self.settings.margin)

    def add(self, candidate: bool, trusted: bool) -> bool:
        """One pair; whether the verdict is final now. Raises `RuntimeError` when it was before."""
        if self._final:
            raise RuntimeError(f"the verdict {self.verdict!r} is final; make a new test")
        difference = int(candidate) - int(trusted)
        self.pairs += 1
        self.candidate_successes += candidate
        self.trusted_successes += trusted
        self.wins += difference > 0
        self.losses += difference < 0
        self._better.add(difference)
        self._worse.add(-difference)
        self._not_worse.add(difference)
        settings = self.settings
        if self.verdict == "insufficient evidence" and self._worse.p_value <= settings.alpha_worse:
            self.verdict, self._final = "worse", True
        elif self._better.p_value <= settings.alpha_pass:
            self.verdict, self._final = "better", True
        elif self._not_worse.p_value <= settings.alpha_pass:
            self.verdict, self._final = "not worse", not settings.seek_better
        return self._final

    @property
    def numbers(self) -> dict[str, Any]:
        """Everything the verdict rests on, as plain JSON values."""
        n = self.pairs
        return {
            "test": "betting on paired differences",
            "verdict": self.verdict,
            "pairs": n,
            "candidate_successes": self.candidate_successes,
            "candidate_interval": list(wilson(self.candidate_successes, n)),
            "trusted_successes": self.trusted_successes,
            "trusted_interval": list(wilson(self.trusted_successes, n)),
            "only_candidate": self.wins,
            "only_trusted": self.losses,
            "p_worse": self._worse.p_value,
            "p_better": self._better.p_value,
            "p_not_worse": self._not_worse.p_value,
            "alpha_worse": self.settings.alpha_worse,
            "alpha_pass": self.settings.alpha_pass,
            "margin": self.settings.margin,
        }
