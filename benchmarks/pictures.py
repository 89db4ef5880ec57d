"""hil-serl from two 128x128 cameras and what the arm feels, no object's pose: success against steps and time.

The in-process loop runs `pick-lift-pictures` with the rules of lockstep and the scripted expert (which sees the truth); the newest policy
is evaluated alone, deterministic, on validation starts (neither training nor held-out ones) at the warm start and every ``--every`` steps.
One JSON file per seed; a finished seed is not run again, one stopped by ``--budget-s`` goes on with the same numbers:

    python -m benchmarks.pictures run --out out --seeds 0 1 2 3 4 --steps 25000 --every 2500 --starts 200
    python -m benchmarks.pictures run --out out --budget-s 100        (again and again; exit status 3: there is more to do)
    python -m benchmarks.pictures table --out out
"""

import argparse
import functools
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.inprocess_loop import _settings
from benchmarks.no_dip_run import so_far, write
from benchmarks.pictures_run import advance
from takeover.data.schema import RunConfig
from takeover.data.statistics import wilson
from takeover.policies.torch_setup import configure


def config_of(seed: int, demonstrations: int, settings: dict[str, Any], task: str = "pick-lift-pictures") -> RunConfig:
    """The run that is made."""
    return RunConfig(
        session_id="bench",
        workspace="",
        sockets="",
        task=task,
        learner="hil-serl",
        operator="scripted",
        clock="lockstep",
        seed=seed,
        demonstrations=demonstrations,
        policy_cameras=["front", "wrist"],
        learner_parameters={"observations": "pictures"} | settings,
    )


def results(out: Path) -> list[dict[str, Any]]:
    """Of every seed, finished or not, in order."""
    found = []
    for path in sorted([*out.glob("seed-*.json"), *out.glob("seed-*.part")]):
        result = json.loads(path.read_text()) if path.suffix == ".json" else so_far(path)
        if result is not None:
            found.append(result | {"seed": int(path.stem.removeprefix("seed-"))})
    return found


def table(out: Path) -> str:
    """Markdown: a row per evaluated point, with Wilson's interval and what it took to get there."""
    found = results(out)
    if not found:
        raise SystemExit(f"{out} holds no results; run `python -m benchmarks.pictures run --out {out}` first")
    lines = ["| seed | steps | human steps | success | of | 95 % |", "|---|---|---|---|---|---|"]
    for result in found:
        for point in result["points"]:
            k, n = point["outcomes"].count("1"), len(point["outcomes"])
            if n:
                low, high = wilson(k, n)
                cells = [
                    result["seed"],
                    point["steps"],
                    point["human_steps"],
                    f"{100 * k / n:.0f} %",
                    n,
                    f"{100 * low:.0f}-{100 * high:.0f}",
                ]
                lines.append("| " + " | ".join(map(str, cells)) + " |")
    for result in found:
        done, steps = len(result["episodes"]), sum(episode["steps"] for episode in result["episodes"])
        lines.append(
            f"\nSeed {result['seed']}: {result['demonstration_steps']} demonstration steps, cloned in {result['clone_cpu_s']:.0f} s; "
            f"{steps} steps in {done} episodes; {result['cpu_s']:.0f} s of processor time and {result['wall_s']:.0f} s in all"
            f"{'' if result['complete'] else ', not finished'}."
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run")
    runs.add_argument("--out", type=Path, required=True)
    runs.add_argument("--seeds", nargs="*", type=int, default=[0])
    runs.add_argument("--demonstrations", type=int, default=20)
    runs.add_argument("--steps", type=int, default=25_000)
    runs.add_argument("--every", type=int, default=2500)
    runs.add_argument("--starts", type=int, default=100)
    runs.add_argument("--set", nargs="*", default=[], help="learner settings, key=value")
    runs.add_argument("--budget-s", type=float, default=float("inf"), help="processor time after which to stop; exit status 3")
    shown = commands.add_parser("table")
    shown.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    if arguments.command == "table":
        print(table(arguments.out))
        return
    configure(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = _settings(arguments.set)
    for seed in arguments.seeds:
        path = arguments.out / f"seed-{seed}.json"
        if path.exists():
            continue
        config = config_of(seed, arguments.demonstrations, settings)
        part = path.with_suffix(".part")
        say = functools.partial(_say, seed)
        result = advance(config, arguments.steps, arguments.every, arguments.starts, part, arguments.budget_s, say)
        if not result["complete"]:
            _say(seed, "stopped; run the same command to go on")
            sys.exit(3)
        write(path, result | {"demonstrations": arguments.demonstrations, "settings": settings})


def _say(seed: int, text: str) -> None:
    print(f"seed {seed}: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
