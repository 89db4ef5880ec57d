"""The hardware gate: what randomised no-help probes in normal work say of a policy on a real robot. Pure: no files, no clock.

A probe is an episode, drawn at random out of normal work, in which the policy drives alone; it succeeds only if nobody took over and
the outcome is a success. Two things are asked, both whenever one likes and as often as one likes:

- how often does one version succeed alone? `RateSequence`: the beta-binomial mixture. Against a rate p one bets with wealth
  B(s + 1/2, f + 1/2) / B(1/2, 1/2) / (p^s (1 - p)^f) after s successes and f failures; under p it is a martingale that starts at 1,
  so the p with wealth below 1/alpha hold the true rate at all times together with a probability of at least 1 - alpha (Ville).
- is a candidate worse than the trusted version? Probes come in blocks of two, one of each in random order; a finished block is a pair
  for `gate.PairedTest`, so what changes slowly (light, wear, the operator's day) meets both alike.

*Insufficient evidence* is an answer, and what is left when the budget of probes is spent.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from takeover.policies.gate import ALPHA, MARGIN, GateSettings, PairedTest

BUDGET = 200
INSUFFICIENT = "insufficient evidence"
Answer = Literal["meets the target", "misses the target", "insufficient evidence"]
End = Literal["succeeded alone", "taken over", "failed", "aborted"]
ENDS: tuple[End, ...] = ("succeeded alone", "taken over", "failed", "aborted")


@dataclass(frozen=True)
class Probe:
    """One probe as it was recorded. ``block``: which two belong together, unique over sessions."""

    episode_id: str
    block: str
    version: int
    end: End  # everything but "succeeded alone" is a failure

    @property
    def success(self) -> bool:
        return self.end == "succeeded alone"


@dataclass(frozen=True)
class ProbeSettings:
    """Error rates, the margin, and how many probes may be spent. Raises `ValueError` for what cannot be."""

    alpha: float = ALPHA
    """Of each answer and of each interval, over all looks."""
    margin: float = MARGIN
    """A candidate passes as not worse when it was shown to lose less than this of the success rate."""
    target: float = 0.0
    """Success rate that is asked for, in (0, 1); 0: none is asked."""
    budget: int = BUDGET
    """Probes of both versions together; what comes later is not looked at."""

    def __post_init__(self) -> None:
        GateSettings(self.alpha, self.alpha, self.margin)
        if not 0.0 <= self.target < 1.0:
            raise ValueError(f"probes: target = {self.target:g}; 0 (none) or a success rate below 1 is needed")
        if self.budget < 1:
            raise ValueError(f"probes: budget = {self.budget}; 1 or more is needed")


class RateSequence:
    """Success rate of one version with an interval that holds at all times together. Feed it outcomes in their order."""

    def __init__(self, alpha: float = ALPHA) -> None:
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"alpha = {alpha:g}; more than 0 and less than 1 is needed")
        self.alpha = alpha
        self.successes = self.n = 0
        self.low, self.high = 0.0, 1.0  # the tightest so far: every earlier interval holds, too

    def add(self, success: bool) -> None:
        self.successes += success
        self.n += 1
        low, high = interval(self.successes, self.n, self.alpha)
        self.low, self.high = max(self.low, low), min(self.high, high)

    @property
    def drifted(self) -> bool:
        """Two intervals of the past exclude each other: no single rate fits, so the robot or its work changed."""
        return self.low > self.high


@lru_cache(maxsize=16384)
def interval(successes: int, n: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Time-uniform interval of a success rate after ``successes`` of ``n``; (0, 1) for n = 0. Raises `ValueError`."""
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}; 0 <= successes <= n is needed")
    if n == 0:
        return 0.0, 1.0
    failures = n - successes
    bound = math.log(1.0 / alpha) - _log_beta(successes + 0.5, failures + 0.5) + _log_beta(0.5, 0.5)

    def inside(p: float) -> bool:
        cost = (successes * math.log(p) if successes else 0.0) + (failures * math.log1p(-p) if failures else 0.0)
        return -cost < bound

    middle = min(max(successes / n, 1e-12), 1.0 - 1e-12)
    return (_edge(inside, middle, 0.0) if successes else 0.0), (_edge(inside, middle, 1.0) if failures else 1.0)


def _edge(inside: Any, inner: float, outer: float) -> float:
    """Where ``inside`` ends between a point that is inside and one that is not; on the safe side."""
    for _ in range(60):
        middle = (inner + outer) / 2
        if middle in (inner, outer):
            break
        if inside(middle):
            inner = middle
        else:
            outer = middle
    return outer


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


@dataclass
class VersionRate:
    """What the probes of one version say."""

    version: int
    rate: RateSequence
    ends: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ENDS, 0))
    answer: Answer = "insufficient evidence"  # to the target; stays once it was given

    def add(self, probe: Probe, target: float) -> None:
        self.rate.add(probe.success)
        self.ends[probe.end] += 1
        if target and self.answer == INSUFFICIENT:
            if self.rate.low >= target:
                self.answer = "meets the target"
            elif self.rate.high < target:
                self.answer = "misses the target"

    @property
    def numbers(self) -> dict[str, Any]:
        """Plain JSON values."""
        rate = self.rate
        return {
            "version": self.version,
            "successes": rate.successes,
            "n": rate.n,
            "interval": [rate.low, rate.high],
            "drifted": rate.drifted,
            "ends": dict(self.ends),
        }


@dataclass
class ProbeFindings:
    """Everything the probes say; ``comparison`` is None where no second version was asked for."""

    settings: ProbeSettings
    rates: list[VersionRate]
    used: int  # probes within the budget
    unused: int  # recorded after the budget was spent, or after the answer
    unpaired: int  # probes of unfinished blocks: in the rates, not in the comparison
    comparison: PairedTest | None

    @property
    def budget_spent(self) -> bool:
        return self.used >= self.settings.budget

    @property
    def numbers(self) -> dict[str, Any]:
        """Plain JSON values."""
        settings = self.settings
        asked = {"alpha": settings.alpha, "margin": settings.margin, "target": settings.target or None, "budget": settings.budget}
        rows = [row.numbers | ({"answer": row.answer} if settings.target else {}) for row in self.rates]
        counts = {"used": self.used, "unused": self.unused, "unpaired": self.unpaired, "budget_spent": self.budget_spent}
        return asked | counts | {"versions": rows, "comparison": self.comparison.numbers if self.comparison else None}


def judge(probes: Sequence[Probe], candidate: int, trusted: int = 0, settings: ProbeSettings | None = None) -> ProbeFindings:
    """What ``probes``, in the order in which they were made, say of the candidate, and of it against the trusted one (0: no comparison).

    Probes of other versions are passed over. The comparison stops with its first final answer (the tests are sequential: looking on and
    choosing afterwards would void the error rates), the whole with the budget. Raises `ValueError` for a version against itself.
    """
    settings = settings or ProbeSettings()
    if candidate == trusted:
        raise ValueError(f"version {candidate} against itself says nothing; name another")
    rows = {version: VersionRate(version, RateSequence(settings.alpha)) for version in (candidate, trusted) if version}
    test = PairedTest(GateSettings(settings.alpha, settings.alpha, settings.margin)) if trusted else None
    waiting: dict[str, Probe] = {}
    used, final, seen = 0, False, 0
    for probe in probes:
        if probe.version not in rows:
            continue
        seen += 1
        if used >= settings.budget or final:
            continue
        used += 1
        rows[probe.version].add(probe, settings.target)
        partner = waiting.pop(probe.block, None)
        if test is None:
            continue
        if partner is None:
            waiting[probe.block] = probe
        elif partner.version != probe.version:
            own, other = (probe, partner) if probe.version == candidate else (partner, probe)
            final = test.add(own.success, other.success)
    return ProbeFindings(settings, list(rows.values()), used, seen - used, len(waiting), test)
