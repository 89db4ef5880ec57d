"""The table of docs/gate.md: how often the gate's test gives each answer, by simulation. ``python -m benchmarks.gate_rates``."""

import numpy as np

from takeover.policies.gate import PairedTest

RUNS, PAIRS, SHARED = 300, 200, 0.5
RATES = ((0.9, 0.9), (0.97, 0.97), (0.8, 0.9), (0.85, 0.95), (0.6, 0.9), (0.5, 0.6))


def main() -> None:
    """Print one row per pair of success rates; in half of the starts both policies draw the same luck."""
    print("| success of candidate, trusted | worse | passes | insufficient | pairs, median |\n|---|---|---|---|---|")
    for candidate, trusted in RATES:
        generator = np.random.default_rng(1)
        verdicts, pairs = [], []
        for _ in range(RUNS):
            test = PairedTest()
            for own, other, same in generator.random((PAIRS, 3)):
                if test.add(bool(own < candidate), bool((own if same < SHARED else other) < trusted)):
                    break
            verdicts.append(test.verdict)
            pairs.append(test.pairs)
        worse, none = (verdicts.count(name) / RUNS for name in ("worse", "insufficient evidence"))
        print(f"| {candidate:.2f}, {trusted:.2f} | {worse:.2f} | {1 - worse - none:.2f} | {none:.2f} | {np.median(pairs):.0f} |")


if __name__ == "__main__":
    main()
