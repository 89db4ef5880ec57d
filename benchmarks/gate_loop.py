"""The gate in the loop: the same run with and without it, where it decides what acts.

One process, the rules of lockstep, the scripted operator (no people are tested). With the gate the newest version meets the trusted one
every ``--every-s`` seconds of driving, as the evaluator does it in a running station, with its own code and files; what was found counts
``--pair-s`` seconds per pair later, which is how long a running station takes. What acts, and the newest version, are evaluated alone on
validation starts, which neither training nor the gate uses. One JSON file per arm and seed; what is there is not run again.

    python -m benchmarks.gate_loop run --out out --seeds 0 1 2 3 4 [--arms off on] [--learner hil-serl] [--steps 15000]
    python -m benchmarks.gate_loop table --out out
"""

import argparse
import json
import math
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.inprocess_loop import _settings, rate
from benchmarks.no_dip_run import config_of, publish_version, validation_start, write
from benchmarks.result_text import commit, machine
from benchmarks.resumable_loop import ResumableLoop
from takeover.data.schema import EpisodeKind, RunConfig, Step
from takeover.data.seeding import HELDOUT_STARTS, heldout_start
from takeover.data.statistics import wilson
from takeover.data.workspace import Workspace
from takeover.policies.decisions import Standing, current_standing
from takeover.policies.evaluation import evaluate
from takeover.policies.gating import GateResult, gate, gate_is_due
from takeover.policies.outcomes import Outcomes, conditions_of
from takeover.policies.torch_setup import configure
from takeover.policies.training import Publication
from takeover.robot_bridge.robots.sim import SimRobot

EVERY_S = 30.0  # `RunConfig.evaluate_every_s`
PAIR_S = 0.2
ARMS = ("off", "on")


class GatedLoop(ResumableLoop):
    """The loop; with ``folder``, a workspace, the gate's decisions say what acts. Counts the steps that another version drove than the
    newest."""

    def __init__(self, config: RunConfig, folder: Path | None, every_s: float = EVERY_S, pair_s: float = PAIR_S) -> None:
        self.standing = Standing()  # what the actor knows of the decisions
        self.looks: list[dict[str, Any]] = []
        self.held_back = 0
        self._natural = 0  # what would have driven the step that was asked for last
        self._coming: tuple[int, Standing] | None = None  # from which training step on the last look's decision is known
        super().__init__(config, redo_failed=True)
        self._folder = folder
        self._every, self._pair = (round(seconds * self.spec.control_hz, 9) for seconds in (every_s, pair_s))
        self._next_look = 0.0
        if folder is not None:
            Workspace(folder).prepare()
            self._judge = SimRobot(config.task, config.task_parameters)
            about = conditions_of(self.spec.robot_id, self.spec.task_id, self.spec.control_hz, config.task_parameters)
            self._outcomes = Outcomes(folder, about)
            self._starts = [heldout_start(index) for index in range(HELDOUT_STARTS)]

    @property
    def newest(self) -> int:
        """The version that would act without a gate."""
        return super()._version()

    def _version(self) -> int:
        self._natural = self.newest
        published = [version for version, acts_from in self.training.versions if acts_from <= self.train_step]
        return self.standing.may_act(published)

    def _publish(self, publication: Publication) -> int:
        coming = self._coming[1] if self._coming is not None else self.standing
        needed = {self.standing.pinned, self.standing.trusted, coming.pinned, coming.trusted}
        kept = {version: policy for version, policy in self.policies.items() if version in needed}
        version = super()._publish(publication)
        self.policies |= kept  # however old
        return version

    def _feed(self, record_type: type[Any], /, **fields: Any) -> None:
        policy_step = record_type is Step and fields["kind"] == EpisodeKind.POLICY
        self.held_back += policy_step and fields["policy_version"] != self._natural
        super()._feed(record_type, **fields)
        if policy_step:
            self.look()

    def look(self) -> None:
        """What the evaluator would do by now."""
        if self._folder is None:
            return
        if self._coming is None and self.train_step >= self._next_look:
            self._next_look = self.train_step + self._every
            self._look(self._folder)
        if self._coming is not None and self.train_step >= self._coming[0]:
            self.standing, self._coming = self._coming[1], None
            self._next_look = self.train_step + self._every

    def _look(self, folder: Path) -> None:
        version = self.training.versions[-1][0]
        publish_version(folder, self, version)
        if not gate_is_due(folder, version):
            return
        found = gate(folder, version, self._judge, self._starts, self._outcomes)
        after = self.train_step + math.ceil(self._pair * found.numbers.get("pairs", 0))
        self._coming = (after, current_standing(folder, self.spec.robot_id, self.spec.task_id))
        self.looks.append(told(found, self.train_step, after))


def told(found: GateResult, looked: int, known: int) -> dict[str, Any]:
    """One comparison, for the file: training steps at which it began and from which on it counted."""
    numbers = {key: found.numbers.get(key) for key in ("pairs", "only_candidate", "only_trusted")}
    kinds = [decision.kind for decision in found.decisions]
    about = {"looked": looked, "known": known, "version": found.version, "trusted": found.trusted}
    return about | {"verdict": found.verdict, "decided": kinds} | numbers


def run_arm(folder: Path | None, config: RunConfig, arguments: argparse.Namespace) -> dict[str, Any]:
    """One whole run; with a gate in ``folder``."""
    began = time.process_time()
    loop = GatedLoop(config, folder, arguments.every_s, arguments.pair_s)
    robot = SimRobot(config.task, config.task_parameters)
    starts = [validation_start(index) for index in range(arguments.starts)]
    loop.demonstrate()
    while loop.training.phase == "cloning":
        loop.training.work()
    loop.look()
    episodes: list[dict[str, Any]] = []
    points: list[dict[str, Any]] = []
    known: dict[int, str] = {}  # version -> outcomes
    for steps in (round(arguments.steps * index / arguments.points) for index in range(arguments.points + 1)):
        while loop.train_step < steps:
            episodes.append(loop.episode(EpisodeKind.POLICY, len(episodes)))
        acting, newest = loop._version(), loop.newest
        for version in {acting, newest} - known.keys():
            known[version] = "".join("01"[one.success] for one in evaluate(loop.policies[version], robot, starts))
        point = {"steps": loop.train_step, "acting": acting, "newest": newest, "human_steps": sum(e["human_steps"] for e in episodes)}
        points.append(point | {"held_back": loop.held_back, "acting_outcomes": known[acting], "newest_outcomes": known[newest]})
        arm = ARMS[folder is not None]
        say(f"{config.learner} seed {config.seed}, gate {arm}: {loop.train_step} steps, acting {known[acting].count('1')}")
    kept = ("steps", "human_steps", "takeovers", "success", "policy_version")
    return {
        "points": points,
        "looks": loop.looks,
        "held_back": loop.held_back,
        "episodes": [{key: episode[key] for key in kept} for episode in episodes],
        "cpu_s": time.process_time() - began,
    }


def table(out: Path) -> str:
    """Markdown: success of what acted, arms beside each other, and what the gate said."""
    results = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    if not results:
        raise SystemExit(f"{out} holds no results; run `python -m benchmarks.gate_loop run --out {out}` first")
    steps = [point["steps"] for point in results[0]["points"]]
    lines = ["Acting policy alone, validation starts:", ""]
    head = ["learner", "gate", "seed", *(f"step {at:,}" for at in steps), "human steps", "rate, first 20", "last 40", "steps held back"]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for result in sorted(results, key=lambda one: (one["learner"], one["arm"], one["seed"])):
        found = [point["acting_outcomes"].count("1") for point in result["points"]]
        runs = result["episodes"]
        cells = [result["learner"], result["arm"], str(result["seed"]), *map(str, found), f"{result['points'][-1]['human_steps']:,}"]
        lines.append("| " + " | ".join([*cells, f"{rate(runs[:20]):.3f}", f"{rate(runs[-40:]):.3f}", f"{result['held_back']:,}"]) + " |")
    lines += ["", *pooled(results), "", "What the gate said:", ""]
    lines += ["| learner | seed | candidate (step) | trusted | verdict | pairs | alone | decided | known at |", "|" + "---|" * 9]
    for result in results:
        lines += [_look_row(result, look) for look in result["looks"]]
    return "\n".join(lines)


def pooled(results: list[dict[str, Any]]) -> list[str]:
    """At the end, over the seeds that both arms of a learner have; and the lowest point below the warm start."""
    lines = []
    for learner in sorted({result["learner"] for result in results}):
        arms = {arm: {r["seed"]: r for r in results if (r["learner"], r["arm"]) == (learner, arm)} for arm in ARMS}
        seeds = sorted(arms["off"].keys() & arms["on"].keys())
        for arm in ARMS if seeds else ():
            ends = [arms[arm][seed]["points"][-1]["acting_outcomes"] for seed in seeds]
            good, n = sum(end.count("1") for end in ends), sum(len(end) for end in ends)
            low, high = wilson(good, n)
            falls = [
                min(point["acting_outcomes"].count("1") - points[0]["acting_outcomes"].count("1") for point in points)
                for points in (arms[arm][seed]["points"] for seed in seeds)
            ]
            lines.append(
                f"- {learner}, gate {arm}, {len(seeds)} seeds: at the end {good} of {n} ({100 * low:.0f}-{100 * high:.0f} %); "
                f"deepest fall below the warm start, seed by seed: {', '.join(map(str, falls))} of {len(ends[0])}"
            )
    return lines


def _look_row(result: dict[str, Any], look: dict[str, Any]) -> str:
    alone = "" if look["pairs"] is None else f"{look['only_candidate']} against {look['only_trusted']}"
    cells = [result["learner"], result["seed"], f"{look['version']} ({look['looked']:,})", look["trusted"] or "none", look["verdict"]]
    cells += [look["pairs"] or "", alone, ", ".join(look["decided"]), f"{look['known']:,}"]
    return "| " + " | ".join(map(str, cells)) + " |"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run")
    runs.add_argument("--out", type=Path, required=True)
    runs.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    runs.add_argument("--arms", nargs="*", choices=ARMS, default=list(ARMS))
    runs.add_argument("--learner", default="hil-serl")
    runs.add_argument("--task", default="peg-insert")
    runs.add_argument("--steps", type=int, default=15_000)
    runs.add_argument("--points", type=int, default=6, help="evaluations after the warm start")
    runs.add_argument("--starts", type=int, default=200, help="validation starts of each evaluation")
    runs.add_argument("--every-s", type=float, default=EVERY_S, help="seconds of driving between two looks")
    runs.add_argument("--pair-s", type=float, default=PAIR_S, help="seconds of driving that a pair takes the evaluator")
    runs.add_argument("--set", nargs="*", default=[], help="learner settings, key=value")
    runs.add_argument("--task-set", nargs="*", default=[], help="task parameters, key=value")
    shown = commands.add_parser("table")
    shown.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "run":
        for name in ("steps", "points", "starts"):
            if getattr(arguments, name) < 1:
                raise SystemExit(f"--{name} {getattr(arguments, name)}: at least 1")
        for name in ("every_s", "pair_s"):
            if not getattr(arguments, name) >= 0.0:
                raise SystemExit(f"--{name.replace('_', '-')} {getattr(arguments, name)}: at least 0")
    return arguments


def main() -> None:
    arguments = parse()
    if arguments.command == "table":
        print(table(arguments.out))
        return
    configure(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        for arm in arguments.arms:
            path = arguments.out / f"{arguments.learner}-{arm}-{seed}.json"
            if path.exists():
                continue
            folder = arguments.out / f"{path.stem}.workspace" if arm == "on" else None
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped: it begins anew
            config = config_of(arguments.task, arguments.learner, seed, _settings(arguments.set), _settings(arguments.task_set))
            about = {"learner": arguments.learner, "arm": arm, "seed": seed, "task": config.task, "settings": config.learner_parameters}
            about |= {"task_parameters": config.task_parameters, "every_s": arguments.every_s, "pair_s": arguments.pair_s}
            about |= {"commit": commit(), "machine": machine()}
            write(path, about | run_arm(folder, config, arguments))


if __name__ == "__main__":
    main()
