"""The dip: how good the acting policy is, alone, while hil-serl learns its first thousands of steps in front of the operator.

The in-process loop runs with the rules of lockstep; the policy that acts at training step 0, 1000, ... is evaluated, deterministic, on
validation starts (a random stream of their own: neither training nor held-out starts). One JSON file per arm and seed; what is there is
not run again. An arm is a name and learner settings:

    python -m benchmarks.no_dip run --out out --seeds 0 1 2 3 4 --steps 5000 --every 1000 --arm plain --arm gated:remedy=value
    python -m benchmarks.no_dip table --out out
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.inprocess_loop import Loop, _settings
from takeover.data.schema import EpisodeKind, RunConfig, Step
from takeover.data.seeding import DEMONSTRATION_BASE, HELDOUT_BASE, stream
from takeover.data.statistics import wilson
from takeover.policies.base import Policy
from takeover.policies.evaluation import evaluate
from takeover.policies.torch_setup import configure
from takeover.robot_bridge.robots.sim import SimRobot

ALLOWED_DROP = 0.05
"""How far below the warm start the acting policy may be."""


def validation_start(index: int) -> int:
    """Start ``index`` of the stream named ``validation``: above the training starts, below the held-out ones."""
    return int(stream(0, "validation", index).integers(DEMONSTRATION_BASE, HELDOUT_BASE))


class SnapshotLoop(Loop):
    """Keeps the policy that acts at each training step in ``wanted``."""

    def __init__(self, config: RunConfig, wanted: list[int]) -> None:
        super().__init__(config)
        self.wanted = wanted
        self.snapshots: dict[int, tuple[int, Policy]] = {}
        self.human_until: dict[int, int] = {}
        self.human_steps = 0

    def _feed(self, record_type: type[Any], /, **fields: Any) -> None:
        super()._feed(record_type, **fields)
        if record_type is Step and fields["kind"] == EpisodeKind.POLICY:
            self.human_steps += fields["human_action"] is not None
            self.snapshot(fields["train_step"] + 1)

    def snapshot(self, steps: int) -> None:
        if steps in self.wanted:
            version = max(v for v, acts_from in self.training.versions if acts_from <= steps)
            self.snapshots[steps] = (version, self.policies[version])
            self.human_until[steps] = self.human_steps


def run_arm(seed: int, settings: dict[str, Any], task: str, steps: int, every: int, starts: int) -> dict[str, Any]:
    """One seed of one arm."""
    config = RunConfig(
        session_id="bench",
        workspace="",
        sockets="",
        task=task,
        learner="hil-serl",
        operator="scripted",
        clock="lockstep",
        seed=seed,
        demonstrations=20,
        learner_parameters=settings,
    )
    began = time.perf_counter()
    loop = SnapshotLoop(config, list(range(0, steps + 1, every)))
    for number in range(config.demonstrations):
        loop.episode(EpisodeKind.DEMONSTRATION, number)
    while loop.training.phase == "cloning":
        loop.training.work()
    loop.snapshot(0)
    episodes = []
    while loop.train_step < steps:
        episodes.append(loop.episode(EpisodeKind.POLICY, len(episodes)))
    trained = time.perf_counter()
    robot = SimRobot(task, {})
    seeds = [validation_start(i) for i in range(starts)]
    points = []
    for at, (version, policy) in sorted(loop.snapshots.items()):
        found = [outcome.success for outcome in evaluate(policy, robot, seeds)]
        points.append({"steps": at, "version": version, "human_steps": loop.human_until[at], "n": starts, "successes": sum(found)})
        points[-1]["outcomes"] = "".join("1" if success else "0" for success in found)
    return {
        "task": task,
        "seed": seed,
        "settings": settings,
        "points": points,
        "episodes": [{"steps": e["steps"], "human_steps": e["human_steps"], "success": e["success"]} for e in episodes],
        "train_s": trained - began,
        "evaluate_s": time.perf_counter() - trained,
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Under its final name only when whole."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content))
    os.replace(temporary, path)


def table(out: Path) -> str:
    """Markdown: a row per arm and seed, successes per evaluated step, Wilson intervals of the pooled ones, the largest drop."""
    arms: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(out.glob("*.json")):
        arms.setdefault(path.stem.rpartition("-")[0], []).append(json.loads(path.read_text()))
    if not arms:
        raise SystemExit(f"{out} holds no results; run `python -m benchmarks.no_dip run --out {out}` first")
    lines = []
    for arm, runs in arms.items():
        columns = [point["steps"] for point in runs[0]["points"]]
        lines += ["", "| arm | seed | " + " | ".join(str(c) for c in columns) + " | lowest against step 0 |", "|---" * (len(columns) + 3) + "|"]
        for result in runs:
            rates = [point["successes"] / point["n"] for point in result["points"]]
            drop = min(rates[1:], default=rates[0]) - rates[0]
            verdict = "" if drop >= -ALLOWED_DROP - 1e-9 else " (dip)"
            lines.append(
                f"| {arm} | {result['seed']} | " + " | ".join(f"{100 * r:.0f}" for r in rates) + f" | {100 * drop:+.0f}{verdict} |"
            )
        pooled = []
        for i in range(len(columns)):
            k, n = (sum(r["points"][i][key] for r in runs if len(r["points"]) > i) for key in ("successes", "n"))
            low, high = wilson(k, n)
            pooled.append(f"{100 * k / n:.0f} ({100 * low:.0f}-{100 * high:.0f})")
        lines.append(f"| {arm} | all | " + " | ".join(pooled) + " | |")
    return "\n".join(lines[1:])


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
            result = run_arm(seed, chosen, arguments.task, arguments.steps, arguments.every, arguments.starts)
            write(path, result)
            rates = " ".join(f"{p['steps']}:{p['successes']}" for p in result["points"])
            print(f"{name} seed {seed}: {rates}; {result['train_s']:.0f} + {result['evaluate_s']:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
