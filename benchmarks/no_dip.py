"""The dip: how good the acting policy is, alone, while hil-serl learns its first thousands of steps in front of the operator.

The in-process loop runs with the rules of lockstep; the policy that acts at training step 0, 1000, ... is evaluated, deterministic, on
validation starts (a random stream of their own: neither training nor held-out starts). One JSON file per arm and seed; what is there is
not run again, and a run stopped by ``--budget-s`` goes on with the same numbers. An arm is a name and learner settings:

    python -m benchmarks.no_dip run --out out --seeds 0 1 2 3 4 --steps 5000 --every 1000 --arm plain:keep_warm_start=false --arm kept
    python -m benchmarks.no_dip table --out out
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.inprocess_loop import _settings
from benchmarks.no_dip_run import advance, config_of, so_far, write
from takeover.data.statistics import wilson
from takeover.policies.torch_setup import configure

ALLOWED_DROP = 0.05
"""How far below the warm start the acting policy may be."""


def run_arm(out: Path, name: str, seed: int, settings: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """One seed of one arm, or as much of it as the processor time allows."""
    config = config_of(arguments.task, arguments.learner, seed, settings, operator=_settings(arguments.operator))
    wanted = list(range(0, arguments.steps + 1, arguments.every))

    def say(text: str) -> None:
        print(f"{name} seed {seed}: {text}", file=sys.stderr, flush=True)

    result = advance(config, wanted, arguments.starts, out / f"{name}-{seed}.part", arguments.budget_s, say)
    asked = {"task": arguments.task, "learner": arguments.learner, "seed": seed, "settings": settings, "operator": arguments.operator}
    return asked | result


def results(out: Path) -> dict[str, list[dict[str, Any]]]:
    """By arm, in the order of seeds: the finished runs, and what unfinished ones have so far."""
    arms: dict[str, list[dict[str, Any]]] = {}
    for path in sorted([*out.glob("*.json"), *out.glob("*.part")]):
        name, _, seed = path.stem.rpartition("-")
        result = json.loads(path.read_text()) if path.suffix == ".json" else so_far(path)
        if result is not None and result["points"]:
            arms.setdefault(name, []).append(result | {"seed": int(seed)})
    return arms


def table(out: Path) -> str:
    """Markdown: a row per arm and seed, successes per evaluated step, Wilson intervals of the pooled ones, the largest drop."""
    arms = results(out)
    if not arms:
        raise SystemExit(f"{out} holds no results; run `python -m benchmarks.no_dip run --out {out}` first")
    steps = sorted({point["steps"] for runs in arms.values() for result in runs for point in result["points"]})
    lines = ["| arm | seed | " + " | ".join(map(str, steps)) + " | lowest |", "|---" * (len(steps) + 3) + "|"]
    for arm, runs in arms.items():
        for result in runs:
            found = {point["steps"]: point["successes"] / point["n"] for point in result["points"]}
            later = [rate for at, rate in found.items() if at > 0]
            drop = min(later) - found[0] if later else 0.0
            cells = [f"{100 * found[at]:.0f}" if at in found else "" for at in steps]
            verdict = " (dip)" if drop < -ALLOWED_DROP - 1e-9 else ""
            lines.append(f"| {arm} | {result['seed']} | " + " | ".join(cells) + f" | {100 * drop:+.0f}{verdict} |")
        if len(runs) > 1:
            lines.append(f"| {arm} | all | " + " | ".join(_pooled(runs, at) for at in steps) + " | |")
    return "\n".join(lines)


def _pooled(runs: list[dict[str, Any]], at: int) -> str:
    """Percent with its interval over the seeds that got as far as ``at``, and how many trials those are."""
    points = [point for result in runs for point in result["points"] if point["steps"] == at]
    k, n = sum(point["successes"] for point in points), sum(point["n"] for point in points)
    if not n:
        return ""
    low, high = wilson(k, n)
    return f"{100 * k / n:.0f} ({100 * low:.0f}-{100 * high:.0f}, n={n})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run")
    runs.add_argument("--out", type=Path, required=True)
    runs.add_argument("--arm", action="append", default=[], help="name or name:setting=value,setting=value")
    runs.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    runs.add_argument("--steps", type=int, default=5000)
    runs.add_argument("--every", type=int, default=1000)
    runs.add_argument("--starts", type=int, default=100)
    runs.add_argument("--task", default="peg-insert")
    runs.add_argument("--learner", default="hil-serl")
    runs.add_argument("--operator", nargs="*", default=[], help="operator parameters, key=value: style=slow")
    runs.add_argument("--budget-s", type=float, default=float("inf"), help="processor time after which to stop; exit status 3")
    shown = commands.add_parser("table")
    shown.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "table":
        print(table(arguments.out))
        return
    configure(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        for arm in arguments.arm or ["plain"]:
            name, _, settings = arm.partition(":")
            path = arguments.out / f"{name}-{seed}.json"
            if path.exists():
                continue
            chosen = _settings([pair for pair in settings.split(",") if pair])
            result = run_arm(arguments.out, name, seed, chosen, arguments)
            if not result["complete"]:
                print(f"{name} seed {seed}: stopped after {arguments.budget_s:.0f} s; run the same command to go on", file=sys.stderr)
                sys.exit(3)
            write(path, result)


if __name__ == "__main__":
    main()
