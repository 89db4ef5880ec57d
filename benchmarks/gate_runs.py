"""The gate on policies that were really learned: what it says, after how many pairs, and what is true on all of its starts.

For each seed the loop runs in one process (rules of lockstep, scripted operator: no people are tested). The versions that act at some
training steps are published into a workspace under OUT/seed-N. Then (1) they meet the gate one after another, as in a run, and its
decisions count; (2) pairs of them are compared both ways, so that what got better, what got worse and neighbours that are alike are all
there; (3) every one of them runs from all starts, which says what was true. Nothing is run twice; stopped by ``--budget-s`` (exit
status 3) or Ctrl+C, the same command goes on.

    python -m benchmarks.gate_runs run --out out --seeds 0 1 --steps 0 750 3000 6000 6100
    python -m benchmarks.gate_runs table --out out
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.inprocess_loop import _settings
from benchmarks.no_dip_run import SnapshotLoop, config_of, publish_version, write
from benchmarks.result_text import commit, machine
from takeover.data.schema import EpisodeKind, RunConfig
from takeover.data.seeding import HELDOUT_STARTS, heldout_start
from takeover.data.statistics import wilson
from takeover.data.workspace import Workspace
from takeover.policies.decisions import read_decisions
from takeover.policies.evaluation import EvaluationCancelled
from takeover.policies.gate import GateSettings
from takeover.policies.gating import compare, gate, run_start
from takeover.policies.outcomes import Outcomes, conditions_of
from takeover.policies.publish import load_for
from takeover.policies.torch_setup import configure
from takeover.robot_bridge.robots.sim import SimRobot

STEPS = [0, 750, 3000, 6000, 6100]
_RESULT = "result.json"
_LEARNING = "learning"  # where an unfinished run goes on


class Budget:
    """Processor time after which to stop. Something is done in every call, however small it is."""

    def __init__(self, seconds: float) -> None:
        self._end = time.process_time() + seconds
        self._worked = False

    def left(self) -> bool:
        worked, self._worked = self._worked, True
        return not worked or time.process_time() < self._end


def learn(folder: Path, config: RunConfig, wanted: list[int], budget: Budget, say: Callable[[str], None]) -> dict[int, int] | None:
    """{training step: version that acts at it}, each published below ``folder``; None when the budget ended first."""
    loop = SnapshotLoop(config, wanted)
    result = loop.load(folder / _LEARNING)
    if result is None:
        result = {"episodes": 0, "versions": {}}
        loop.demonstrate()
        while loop.training.phase == "cloning":
            loop.training.work()
        loop.note(0)
    while True:
        for steps, version, _ in loop.due:
            result["versions"][str(steps)] = version
            publish_version(folder, loop, version, steps)
            say(f"step {steps}: version {version}")
        loop.due.clear()
        if loop.train_step >= wanted[-1]:
            return {int(steps): version for steps, version in result["versions"].items()}
        if not budget.left():
            loop.save(folder / _LEARNING, result)
            return None
        loop.episode(EpisodeKind.POLICY, result["episodes"])
        result["episodes"] += 1


def judge(folder: Path, versions: dict[int, int], robot: SimRobot, outcomes: Outcomes, starts: int, budget: Budget) -> dict[str, Any]:
    """All that is asked of the gate, and what is true. Raises `EvaluationCancelled` when the budget ends first; what was run is kept."""

    before = _size(outcomes.path)

    def on_progress(done: int, total: int) -> bool:
        return _size(outcomes.path) == before or budget.left()  # what is known already takes no time

    seeds = [heldout_start(index) for index in range(starts)]
    names = list(dict.fromkeys(versions.values()))
    met = {row["candidate"] for row in decided(folder)}
    for version in names:
        if version not in met:  # each once, also when a call goes on
            gate(folder, version, robot, seeds, outcomes, on_progress=on_progress)
    settings = GateSettings(seek_better=True)  # as `takeover policy evaluate` does
    loaded = {version: load_for(folder, version, robot.spec) for version in names}
    pairs = []
    for first, second in pairs_of(names):
        test = compare(loaded[first], loaded[second], robot, seeds, outcomes, settings, on_progress=on_progress)
        pairs.append({"candidate": first, "trusted": second} | test.numbers)
    truth = {}
    for version in names:
        good = 0
        for done, seed in enumerate(seeds, 1):
            good += run_start(loaded[version], robot, seed, outcomes)
            if not on_progress(done, starts):
                raise EvaluationCancelled(f"stopped after {done} of {starts} starts of version {version}")
        truth[str(version)] = {"successes": good, "n": starts}
    return {"chain": decided(folder), "pairs": pairs, "truth": truth}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def decided(folder: Path) -> list[dict[str, Any]]:
    """What the gate wrote down, a row for each candidate."""
    rows: list[dict[str, Any]] = []
    for decision in read_decisions(folder):
        if decision.kind == "rolled_back":
            rows[-1]["decided"].append(f"{decision.kind} to {decision.version}")
            continue
        numbers = decision.evidence
        row = {"candidate": decision.version, "trusted": decision.trusted_before, "decided": [decision.kind]}
        row |= {key: numbers.get(key) for key in ("pairs", "only_candidate", "only_trusted")}
        rows.append(row | {"verdict": numbers.get("verdict", "first")})
    return rows


def pairs_of(versions: list[int]) -> list[tuple[int, int]]:
    """(candidate, trusted): the last against each earlier one and the other way round, neighbours once in their order."""
    last = versions[-1]
    ends = [pair for other in versions[:-1] for pair in ((last, other), (other, last))]
    return list(dict.fromkeys([*ends, *((after, before) for before, after in itertools.pairwise(versions))]))


def run_seed(out: Path, seed: int, arguments: argparse.Namespace, budget: Budget) -> bool:
    """One seed, or as much of it as the budget allows: whether it is whole."""
    folder = out / f"seed-{seed}"
    Workspace(folder).prepare()
    config = config_of(arguments.task, "hil-serl", seed, _settings(arguments.set), _settings(arguments.task_set))

    def say(text: str) -> None:
        print(f"seed {seed}: {text}", file=sys.stderr, flush=True)

    known = folder / "versions.json"
    if known.exists():
        versions = {int(steps): version for steps, version in json.loads(known.read_text()).items()}
    else:
        found = learn(folder, config, sorted(arguments.steps), budget, say)
        if found is None:
            say("learning is not finished")
            return False
        versions = found
        write(known, {str(steps): version for steps, version in versions.items()})
    robot = SimRobot(config.task, config.task_parameters)
    spec = robot.spec
    outcomes = Outcomes(folder, conditions_of(spec.robot_id, spec.task_id, spec.control_hz, config.task_parameters))
    try:
        judged = judge(folder, versions, robot, outcomes, arguments.starts, budget)
    except EvaluationCancelled as cancelled:
        say(str(cancelled))
        return False
    about = {"seed": seed, "task": config.task, "versions": versions, "settings": config.learner_parameters, "starts": arguments.starts}
    write(folder / _RESULT, about | {"task_parameters": config.task_parameters, "commit": commit(), "machine": machine()} | judged)
    return True


def table(out: Path) -> str:
    """Markdown: the chain and the pairs of every finished seed, each with what was true."""
    results = [json.loads(path.read_text()) for path in sorted(out.glob(f"seed-*/{_RESULT}"))]
    if not results:
        raise SystemExit(f"{out} holds no finished seed; run `python -m benchmarks.gate_runs run --out {out}` first")
    lines = ["In a run, one after another:", ""]
    lines += [
        "| seed | candidate (step) | trusted (step) | verdict | pairs | alone | candidate, all starts | trusted, all starts | decided |"
    ]
    lines += ["|" + "---|" * 9]
    lines += [_row(result, one, ", ".join(one["decided"])) for result in results for one in result["chain"]]
    lines += ["", "Pairs, nothing decided, sought on for *better*:", ""]
    lines += ["| seed | candidate (step) | trusted (step) | verdict | pairs | alone | candidate, all starts | trusted, all starts |"]
    lines += ["|" + "---|" * 8]
    lines += [_row(result, one) for result in results for one in result["pairs"]]
    return "\n".join(lines)


def _row(result: dict[str, Any], one: dict[str, Any], *more: str) -> str:
    step_of = {version: steps for steps, version in sorted(result["versions"].items(), key=lambda item: -int(item[0]))}

    def named(version: int) -> str:
        return f"{version} ({step_of[version]})" if version else "none"

    def true(version: int) -> str:
        if not version:
            return ""
        found = result["truth"][str(version)]
        low, high = wilson(found["successes"], found["n"])
        return f"{found['successes']}/{found['n']} ({100 * low:.0f}-{100 * high:.0f} %)"

    alone = "" if one["pairs"] is None else f"{one['only_candidate']} against {one['only_trusted']}"
    pairs = "" if one["pairs"] is None else str(one["pairs"])
    cells = [str(result["seed"]), named(one["candidate"]), named(one["trusted"]), one["verdict"], pairs, alone]
    return "| " + " | ".join([*cells, true(one["candidate"]), true(one["trusted"]), *more]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run")
    runs.add_argument("--out", type=Path, required=True)
    runs.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    runs.add_argument("--steps", nargs="*", type=int, default=STEPS, help="training steps whose acting versions meet the gate")
    runs.add_argument("--starts", type=int, default=HELDOUT_STARTS)
    runs.add_argument("--task", default="peg-insert")
    runs.add_argument("--set", nargs="*", default=[], help="learner settings, key=value")
    runs.add_argument("--task-set", nargs="*", default=[], help="task parameters, key=value")
    runs.add_argument("--budget-s", type=float, default=float("inf"), help="processor time after which to stop; exit status 3")
    shown = commands.add_parser("table")
    shown.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "table":
        print(table(arguments.out))
        return
    if not arguments.steps or min(arguments.steps) < 0 or len(set(arguments.steps)) != len(arguments.steps):
        raise SystemExit(f"--steps {arguments.steps}: at least one, each once, 0 or above")
    if not 1 <= arguments.starts <= HELDOUT_STARTS:
        raise SystemExit(f"--starts {arguments.starts}: there are 1 to {HELDOUT_STARTS} held-out starts")
    configure(1)
    budget = Budget(arguments.budget_s)
    for seed in arguments.seeds:
        if (arguments.out / f"seed-{seed}" / _RESULT).exists():
            continue
        if not run_seed(arguments.out, seed, arguments, budget):
            print("run the same command to go on", file=sys.stderr)
            sys.exit(3)


if __name__ == "__main__":
    main()
