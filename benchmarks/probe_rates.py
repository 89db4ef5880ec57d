"""The tables of docs/gate.md on probes: how often each answer comes, by simulation with a fixed seed.

Run it as ``python -m benchmarks.probe_rates``.
"""

import numpy as np

from takeover.policies.probes import INSUFFICIENT, Probe, ProbeSettings, interval, judge

RUNS = 300
RATES = ((0.9, 0.9), (0.97, 0.97), (0.8, 0.9), (0.6, 0.9), (0.3, 0.9))
BUDGETS = (60, 200)
TRIED = (10, 20, 50, 100)


def probes(generator: np.random.Generator, candidate: float, trusted: float, blocks: int) -> list[Probe]:
    """Blocks of one probe of version 2 (the candidate) and one of version 1 in random order."""
    made = []
    for block in range(blocks):
        order = [(2, candidate), (1, trusted)] if generator.random() < 0.5 else [(1, trusted), (2, candidate)]
        for version, rate in order:
            made.append(Probe("", str(block), version, "succeeded alone" if generator.random() < rate else "failed"))
    return made


def main() -> None:
    """Print both tables."""
    print("| success of candidate, trusted | budget | worse | passes | insufficient | probes used, median |\n|---|---|---|---|---|---|")
    for candidate, trusted in RATES:
        for budget in BUDGETS:
            generator = np.random.default_rng(1)
            verdicts, used = [], []
            for _ in range(RUNS):
                found = judge(probes(generator, candidate, trusted, budget // 2), 2, 1, ProbeSettings(budget=budget))
                verdicts.append(found.comparison.verdict if found.comparison else "")
                used.append(found.used)
            worse, none = (verdicts.count(name) / RUNS for name in ("worse", INSUFFICIENT))
            cells = f"{worse:.2f} | {max(0.0, 1 - worse - none):.2f} | {none:.2f} | {np.median(used):.0f}"
            print(f"| {candidate:.2f}, {trusted:.2f} | {budget} | {cells} |")
    print("\n| probes | all succeeded alone | 9 of 10 did | half did |\n|---|---|---|---|")
    for n in TRIED:
        rows = [interval(round(share * n), n) for share in (1.0, 0.9, 0.5)]
        print(f"| {n} | " + " | ".join(f"{100 * low:.0f} to {100 * high:.0f} %" for low, high in rows) + " |")


if __name__ == "__main__":
    main()
