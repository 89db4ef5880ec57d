"""The whole loop in one process: simulated robot, scripted operator, learner; the same rules as the processes in lockstep.

For trying learner settings over many seeds: no sockets, no files, no pictures. Needs numpy, torch, mujoco and msgspec only.

    python -m benchmarks.inprocess_loop --task peg-insert --learner hil-serl --seed 0 --episodes 380 --json out.json \\
        [--set bc_weight=0.5] [--operator reaction_steps=4] [--starts 200] [--evaluate-every 50]
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.inprocess_driver import Driver
from takeover.app.operators.scripted import ScriptedOperator, operator_parameters
from takeover.data.schema import (
    EpisodeEnd,
    EpisodeKind,
    EpisodeStart,
    Outcome,
    OutcomeSource,
    PolicyImage,
    RunConfig,
    Source,
    Step,
)
from takeover.data.seeding import heldout_start, start_seed
from takeover.data.statistics import wilson
from takeover.policies.base import Policy
from takeover.policies.evaluation import evaluate
from takeover.policies.frames import begin_episode
from takeover.policies.inference import build_policy
from takeover.policies.torch_setup import configure
from takeover.policies.training import Publication, Training
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.robots.sim_seeing import SeeingSimRobot
from takeover.robot_bridge.safety import SafetyFilter

TRIES_PER_DEMONSTRATION = 20


class Loop:
    """One run. Episodes are dicts as in the summary of a headless run."""

    def __init__(self, config: RunConfig, redo_failed: bool = False) -> None:
        """``redo_failed``: a demonstration that failed is discarded, as a person who records them would."""
        self.config = config
        self.redo_failed = redo_failed
        self.robot = make_robot(config)
        self.spec = self.robot.spec
        self.filter = SafetyFilter(self.spec, config.limits)
        self.operator = ScriptedOperator(operator_parameters(config.operator_parameters), config.seed)
        self.policies: dict[int, Policy] = {}
        self.training = Training(config, self._publish)
        self.first: np.ndarray | None = None  # of the episode that runs
        self.train_step = 0
        self.seq = 0
        self.records = 0
        self.holds = 0
        self.update_s = self.update_cpu_s = 0.0  # of the learner: by the clock, of the processor
        self._generator = torch.Generator()

    def _publish(self, publication: Publication) -> int:
        self.policies[publication.version] = build_policy(publication.weights, self.spec)
        if self.first is not None:
            begin_episode(self.policies[publication.version], self.first)
        for old in sorted(self.policies)[:-60]:
            del self.policies[old]
        return publication.version

    def _feed(self, record_type: type[Any], /, **fields: Any) -> None:
        record = record_type(session="bench", rec_seq=self.records, **fields)
        self.records += 1
        started, started_cpu = time.perf_counter(), time.thread_time()
        self.training.handle(record)
        while self.training.phase == "training" and self.training.blocks_ingestion:  # updates while the robot is reset
            self.training.work()
        self.update_s += time.perf_counter() - started
        self.update_cpu_s += time.thread_time() - started_cpu

    def images(self) -> list[PolicyImage]:
        """The policy's pictures of the present state; none where it sees no camera."""
        return self.robot.policy_images() if isinstance(self.robot, SeeingSimRobot) else []

    def _version(self) -> int:
        return max((v for v, acts_from in self.training.versions if acts_from <= self.train_step), default=0)

    def episode(self, kind: EpisodeKind, number: int) -> dict[str, Any]:
        """One episode, fed to the learner step by step."""
        identity = f"{kind}-{number}"
        seed = start_seed(self.config.seed, kind, number)
        self.robot.reset(seed)
        version = self._version()
        self._feed(
            EpisodeStart,
            episode_id=identity,
            number=number,
            kind=kind,
            spec=self.spec,
            station_id="bench",
            operator="scripted",
            start_seed=seed,
            policy_version=version,
            policy_sha256="",
            config_sha256="",
            wall_ns=0,
            t_ns=0,
        )
        driver = Driver(self, kind, number, identity)
        steps = human = takeovers = 0
        success = ended = False
        was_human = False
        for step in range(self.spec.max_steps):
            record, success = driver.step(step)
            self._feed(Step, **record)
            steps += 1
            driven = Source.HUMAN in record["source"]
            human += driven
            takeovers += driven and not was_human
            was_human = driven
            ended = success or bool(record["terminated"])  # a task may end in failure
            if ended:
                break
        outcome = Outcome.SUCCESS if success else Outcome.FAILURE
        self._feed(
            EpisodeEnd,
            episode_id=identity,
            outcome=outcome,
            outcome_source=OutcomeSource.TASK if ended else OutcomeSource.LIMIT,
            event_step=steps - 1,
            steps=steps,
            human_steps=human,
            takeovers=takeovers,
            autonomous=human == 0,
            discarded=self.redo_failed and kind == EpisodeKind.DEMONSTRATION and not success,
            t_ns=0,
            wall_ns=0,
        )
        return {
            "success": success,
            "autonomous": human == 0,
            "outcome": str(outcome),
            "steps": steps,
            "human_steps": human,
            "takeovers": takeovers,
            "policy_version": version,
        }

    def demonstrate(self) -> list[dict[str, Any]]:
        """Until the learner has as many as it wants, which those that fail are not. Raises `RuntimeError` when they hardly ever succeed."""
        found: list[dict[str, Any]] = []
        while self.training.phase == "waiting":
            if len(found) >= TRIES_PER_DEMONSTRATION * self.config.demonstrations:
                raise RuntimeError(f"{len(found)} demonstrations tried: {self.training.status().text}")
            found.append(self.episode(EpisodeKind.DEMONSTRATION, len(found)))
        return found

    def evaluate(self, starts: int) -> dict[str, Any]:
        """Newest policy alone on held-out starts."""
        newest = self.training.versions[-1][0]
        found = evaluate(self.policies[newest], self.robot, [heldout_start(i) for i in range(starts)])
        successes = sum(o.success for o in found)
        low, high = wilson(successes, starts)
        return {"version": newest, "successes": successes, "n": starts, "rate": successes / starts, "interval": [low, high]}


def make_robot(config: RunConfig) -> SimRobot:
    """The simulated robot of ``config``, with eyes where the policy needs them."""
    if config.policy_cameras:
        return SeeingSimRobot(config.task, config.policy_cameras, config.task_parameters)
    return SimRobot(config.task, config.task_parameters)


def run(config: RunConfig, episodes: int, starts: int, evaluate_every: int) -> dict[str, Any]:
    """Demonstrations, cloning, evaluation, the loop, evaluation."""
    loop = Loop(config)
    began = time.perf_counter()
    demonstrations = loop.demonstrate()
    cloning = time.perf_counter()
    while loop.training.phase == "cloning":
        loop.training.work()
    cloned = time.perf_counter()
    before = loop.evaluate(starts)
    say(f"seed {config.seed}: clone {cloned - cloning:.1f} s, warm start {before['rate']:.3f}")
    loop_began = time.perf_counter()
    loop.update_s = 0.0
    found: list[dict[str, Any]] = []
    curve: list[dict[str, Any]] = []
    for number in range(episodes):
        found.append(loop.episode(EpisodeKind.POLICY, number))
        if evaluate_every and (number + 1) % evaluate_every == 0 and number + 1 < episodes:
            curve.append({"episode": number + 1, "steps": loop.train_step} | loop.evaluate(min(starts, 100)))
            recent = found[-evaluate_every:]
            say(
                f"seed {config.seed}: episode {number + 1} steps {loop.train_step} autonomous {curve[-1]['rate']:.2f} "
                f"rate {rate(recent):.3f} success {np.mean([e['success'] for e in recent]):.2f} "
                f"{ {k: round(v, 3) for k, v in loop.training.metrics.items()} }"
            )
    loop_s = time.perf_counter() - loop_began
    after = loop.evaluate(starts)
    learner = loop.training.learner
    say(f"seed {config.seed}: after {after['rate']:.3f} first {rate(found[:20]):.3f} last {rate(found[-20:]):.3f} loop {loop_s:.0f} s")
    return {
        "task": config.task,
        "learner": config.learner,
        "seed": config.seed,
        "parameters": config.learner_parameters,
        "operator": config.operator_parameters,
        "demonstration_success": float(np.mean([e["success"] for e in demonstrations])),
        "before": before,
        "after": after,
        "curve": curve,
        "first_20": rate(found[:20]),
        "last_20": rate(found[-20:]),
        "train_steps": loop.train_step,
        "human_steps": sum(e["human_steps"] for e in found),
        "updates": learner.updates if learner is not None else 0,
        "safety_holds": loop.holds,
        "clone_s": cloned - cloning,
        "loop_s": loop_s,
        "learning_s": loop.update_s,
        "wall_s": time.perf_counter() - began,
        "episodes": found,
    }


def rate(episodes: list[dict[str, Any]]) -> float:
    """Intervention rate: human steps over steps."""
    return sum(e["human_steps"] for e in episodes) / max(1, sum(e["steps"] for e in episodes))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _settings(pairs: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise SystemExit(f"{pair!r}: expected key=value")
        try:
            values[key] = json.loads(value)
        except json.JSONDecodeError:
            values[key] = value
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="peg-insert")
    parser.add_argument("--learner", default="hil-serl")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=380)
    parser.add_argument("--demonstrations", type=int, default=20)
    parser.add_argument("--starts", type=int, default=200)
    parser.add_argument("--evaluate-every", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--set", nargs="*", default=[], help="learner settings, key=value")
    parser.add_argument("--operator", nargs="*", default=[], help="operator parameters, key=value")
    parser.add_argument("--task-parameter", nargs="*", default=[], help="simulator parameters, key=value")
    arguments = parser.parse_args()
    configure(1)
    config = RunConfig(
        session_id="bench",
        workspace="",
        sockets="",
        task=arguments.task,
        learner=arguments.learner,
        operator="scripted",
        clock="lockstep",
        seed=arguments.seed,
        demonstrations=arguments.demonstrations,
        learner_parameters=_settings(arguments.set),
        operator_parameters=_settings(arguments.operator),
        task_parameters=_settings(arguments.task_parameter),
    )
    summary = run(config, arguments.episodes, arguments.starts, arguments.evaluate_every)
    if arguments.json:
        arguments.json.write_text(json.dumps(summary, indent=1))
    print(json.dumps({k: v for k, v in summary.items() if k not in ("episodes", "curve")}))


if __name__ == "__main__":
    main()
