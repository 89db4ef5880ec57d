"""The hardware gate's statistics: coverage at all times, error rates of each answer by simulation with fixed seeds, budget and blocks."""

import math

import numpy as np
import pytest

from takeover.policies.probes import INSUFFICIENT, Probe, ProbeSettings, RateSequence, interval, judge

PROBES = 100


def coins(generator: np.random.Generator, candidate: float, trusted: float, blocks: int, fall: float = 0.0) -> list[Probe]:
    """Blocks of one probe of version 2 and one of version 1 in random order; both rates fall by ``fall`` from first to last."""
    made = []
    for block in range(blocks):
        order = [(2, candidate), (1, trusted)]
        if generator.random() < 0.5:
            order.reverse()
        for version, rate in order:
            success = generator.random() < rate - fall * block / blocks
            made.append(Probe(f"e{len(made)}", f"s:{block}", version, "succeeded alone" if success else "failed"))
    return made


@pytest.fixture(scope="module")
def intervals() -> np.ndarray:
    """(PROBES + 1, PROBES + 1, 2) by (n, successes)."""
    found = np.zeros((PROBES + 1, PROBES + 1, 2))
    for n in range(PROBES + 1):
        for k in range(n + 1):
            found[n, k] = interval(k, n)
    return found


@pytest.mark.parametrize("rate", [0.02, 0.5, 0.9, 0.99])
def test_the_interval_holds_at_all_times_together(intervals: np.ndarray, rate: float) -> None:
    successes = (np.random.default_rng(3).random((2000, PROBES)) < rate).cumsum(axis=1)
    low, high = np.moveaxis(intervals[np.arange(1, PROBES + 1), successes], -1, 0)
    missed_ever = float(((low > rate) | (high < rate)).any(axis=1).mean())
    fixed_n = np.array([[1.96 * math.sqrt(k / n * (1 - k / n) / n) for k in (n * rate,)] for n in range(1, PROBES + 1)])[:, 0]
    mean = successes / np.arange(1, PROBES + 1)
    naive = float((np.abs(mean - rate) > fixed_n)[:, 9:].any(axis=1).mean())
    assert missed_ever <= 0.05
    assert naive > 0.15, "the test must see that an interval for one look fails when one looks always"


def test_the_interval_is_tight_enough_to_say_something() -> None:
    assert interval(0, 0) == (0.0, 1.0)
    assert interval(0, 20)[0] == 0.0
    assert interval(0, 20)[1] < 0.30
    low, high = interval(18, 20)
    assert 0.55 < low < 0.9 < high < 1.0
    assert interval(5, 10, alpha=0.01)[0] < interval(5, 10)[0]
    mirrored = interval(2, 20)
    assert mirrored == pytest.approx((1 - high, 1 - low))
    for bad in ((3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="0 <= successes <= n"):
            interval(*bad)


def answers(
    candidate: float, trusted: float, settings: ProbeSettings | None = None, runs: int = 120, fall: float = 0.0
) -> dict[str, float]:
    generator = np.random.default_rng(11)
    found = [judge(coins(generator, candidate, trusted, 100, fall), 2, 1, settings).comparison for _ in range(runs)]
    verdicts = [test.verdict for test in found if test is not None]
    return {verdict: verdicts.count(verdict) / runs for verdict in ("better", "not worse", "worse", INSUFFICIENT)}


def test_each_answer_is_wrong_as_rarely_as_promised() -> None:
    equal = answers(0.9, 0.9)
    assert equal["worse"] <= 0.05
    assert equal["better"] <= 0.05
    by_the_margin = answers(0.8, 0.9)
    assert by_the_margin["better"] + by_the_margin["not worse"] <= 0.10
    assert answers(0.4, 0.9)["worse"] >= 0.95
    assert answers(0.97, 0.97)["not worse"] >= 0.75


def test_wear_that_meets_both_alike_is_no_evidence_against_the_candidate() -> None:
    assert answers(0.95, 0.95, fall=0.5)["worse"] <= 0.05


def test_insufficient_evidence_is_an_answer() -> None:
    few = ProbeSettings(budget=10)
    found = judge(coins(np.random.default_rng(1), 0.8, 0.8, 100), 2, 1, few)
    assert found.comparison is not None
    assert (found.comparison.verdict, found.budget_spent, found.used, found.unused) == (INSUFFICIENT, True, 10, 190)
    target = judge(coins(np.random.default_rng(1), 0.8, 0.8, 5), 2, settings=ProbeSettings(target=0.8))
    assert (target.rates[0].answer, target.comparison, target.rates[0].rate.n) == (INSUFFICIENT, None, 5)


@pytest.mark.parametrize(("rate", "answer"), [(1.0, "meets the target"), (0.3, "misses the target")])
def test_a_target_is_met_or_missed(rate: float, answer: str) -> None:
    found = judge(coins(np.random.default_rng(2), rate, 0.9, 100), 2, settings=ProbeSettings(target=0.8))
    assert found.rates[0].answer == answer


def test_a_takeover_is_a_failure_and_every_end_is_counted() -> None:
    ends = ("succeeded alone", "taken over", "failed", "aborted", "taken over")
    found = judge([Probe(f"e{i}", f"s:{i}", 7, end) for i, end in enumerate(ends)], 7)
    numbers = found.numbers["versions"][0]
    assert (numbers["successes"], numbers["n"]) == (1, 5)
    assert numbers["ends"] == {"succeeded alone": 1, "taken over": 2, "failed": 1, "aborted": 1}


def test_half_blocks_and_other_versions_are_no_pairs() -> None:
    def probe(block: str, version: int) -> Probe:
        return Probe(block, block, version, "succeeded alone")

    found = judge([probe("a", 1), probe("b", 2), probe("c", 3), probe("d", 1), probe("d", 1), probe("e", 2), probe("e", 1)], 2, 1)
    assert found.comparison is not None
    assert (found.comparison.pairs, found.unpaired, [row.rate.n for row in found.rates]) == (1, 2, [2, 4])


def test_later_looks_never_take_an_answer_back() -> None:
    probes = coins(np.random.default_rng(4), 0.2, 0.95, 100)
    ends = [judge(probes[:n], 2, 1) for n in range(0, 201, 2)]
    verdicts = [found.comparison.verdict for found in ends if found.comparison is not None]
    first = verdicts.index("worse")
    assert set(verdicts[:first]) == {INSUFFICIENT}
    assert set(verdicts[first:]) == {"worse"}
    assert ends[-1].unused == 200 - 2 * first


def test_a_rate_that_changed_is_said() -> None:
    rate = RateSequence()
    for success in [True] * 100 + [False] * 300:
        rate.add(success)
    assert rate.drifted


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"alpha": 0.0}, "alpha"), ({"margin": 1.5}, "margin"), ({"target": 1.0}, "target"), ({"budget": 0}, "budget")],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ProbeSettings(**settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="against itself"):
        judge([], 2, 2)
