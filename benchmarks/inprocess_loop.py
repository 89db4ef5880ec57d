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


class _Driver:
    """Reads, decides and applies one step at a time, with ramp-in and the safety filter."""

    def __init__(self, loop: Loop, kind: EpisodeKind, number: int, identity: str) -> None:
        self.loop, self.kind, self.number, self.identity = loop, kind, number, identity
        self.reading = loop.robot.read()
        self.images = loop.images()
        self.safety = SafetyState()
        self.last = np.zeros(loop.spec.action.size)
        self.last_policy: list[float] | None = None
        self.ramp = 0
        self.ramp_from = self.last
        self.driving = False
        self.interventions = 0
        self._reset_policies()

    def _reset_policies(self) -> None:
        self.loop.first = self.reading.observation
        for policy in list(self.loop.policies.values()):
            begin_episode(policy, self.loop.first)

    def step(self, step: int) -> tuple[dict[str, Any], bool]:
        loop, robot = self.loop, self.loop.robot
        reading, images = self.reading, self.images
        version, policy_action, spread = self._ask_policy(reading.observation)
        decision = loop.operator.decide(self._privileged(step))
        asked, mode, source = self._arbitrate(decision.deadman, np.asarray(decision.action), policy_action)
        result = loop.filter.apply(self.safety, asked, reading.tool_position, reading.force_n, source)
        self.safety = result.state
        loop.holds += bool(result.hold)
        robot.apply(result.action)
        robot.advance()
        self.reading = robot.read()
        self.images = loop.images()
        evaluation = robot.evaluate()
        ends = evaluation.terminated or step + 1 == loop.spec.max_steps
        self.last = result.action
        self.last_policy = policy_action.tolist() if policy_action is not None else None
        groups = len(loop.spec.action.groups)
        is_policy_kind = self.kind == EpisodeKind.POLICY
        record = {
            "seq": loop.seq,
            "episode_id": self.identity,
            "episode_step": step,
            "train_step": loop.train_step if is_policy_kind else -1,
            "run_id": 0,
            "kind": self.kind,
            "t_observation_ns": 0,
            "t_decision_ns": 0,
            "t_applied_ns": 0,
            "wall_ns": 0,
            "mode": Mode.TAKEOVER if source == Source.HUMAN else Mode.POLICY,
            "control_mode": mode,
            "observation": reading.observation.tolist(),
            "next_observation": self.reading.observation.tolist(),
            "images": images,
            "next_images": self.images if ends else [],
            "source": [int(source)] * groups,
            "policy_action": self.last_policy,
            "policy_from_seq": loop.seq,
            "policy_version": version,
            "human_action": list(decision.action) if decision.deadman else None,
            "asked_action": asked.tolist(),
            "action": result.action.tolist(),
            "intervention_id": self.interventions - 1 if source == Source.HUMAN else -1,
            "spread": spread,
            "reward": evaluation.reward,
            "terminated": evaluation.terminated,
            "truncated": not evaluation.terminated and step + 1 == loop.spec.max_steps,
        }
        loop.seq += 1
        loop.train_step += is_policy_kind
        return record, evaluation.success

    def _ask_policy(self, observation: np.ndarray) -> tuple[int, np.ndarray | None, float]:
        loop = self.loop
        version = loop._version()
        if version == 0 or self.kind == EpisodeKind.DEMONSTRATION:
            return version, None, 0.0
        sample = loop.training.learner is not None and loop.training.learner.swap == "step"
        if sample:
            loop._generator.manual_seed(int(stream(loop.config.seed, "actor", loop.train_step).integers(2**62)))
        policy = loop.policies[version]
        if isinstance(policy, SeesPictures):
            policy.look(self.images)
        found = policy.act(observation.astype(np.float32), sample=sample, generator=loop._generator if sample else None)
        return version, found.actions[0].astype(np.float64), found.spread

    def _arbitrate(self, deadman: bool, human: np.ndarray, policy: np.ndarray | None) -> tuple[np.ndarray, ControlMode, Source]:
        if not deadman:
            self.driving = False
            return (policy if policy is not None else np.zeros_like(self.last)), ControlMode.POLICY, Source.POLICY
        if not self.driving:
            self.driving = True
            self.interventions += 1
            self.ramp = RAMP_STEPS if self.kind == EpisodeKind.POLICY else 0
            self.ramp_from = self.last
        if self.ramp == 0:
            return human, ControlMode.HUMAN, Source.HUMAN
        weight = 1.0 - self.ramp / (RAMP_STEPS + 1.0)
        self.ramp -= 1
        blended = (1.0 - weight) * self.ramp_from + weight * human
        if self.loop.spec.action.gripper == "discrete":
            gripper = next(g.start for g in self.loop.spec.action.groups if g.name == "gripper")
            blended[gripper] = human[gripper]
        return blended, ControlMode.TRANSITION, Source.HUMAN

    def _privileged(self, step: int) -> Privileged:
        loop = self.loop
        advice = loop.robot.advice()
        return Privileged(
            session="bench",
            seq=loop.seq,
            mode=Mode.TAKEOVER if self.driving else (Mode.READY if self.kind == EpisodeKind.DEMONSTRATION else Mode.POLICY),
            hold_reason=HoldReason.NONE,
            episode_id=self.identity,
            episode_kind=self.kind,
            episode_number=self.number,
            episode_step=step,
            intervention_id=self.interventions - 1 if self.driving else -1,
            observation=self.reading.observation.tolist(),
            tool_velocity=self.reading.tool_velocity.tolist(),
            values=advice.values,
            expert_action=advice.expert_action,
            policy_action=self.last_policy,
            lockstep=True,
        )


def run(config: RunConfig, episodes: int, starts: int, evaluate_every: int) -> dict[str, Any]:
    """Demonstrations, cloning, evaluation, the loop, evaluation."""
    loop = Loop(config)
    began = time.perf_counter()
    demonstrations = [loop.episode(EpisodeKind.DEMONSTRATION, i) for i in range(config.demonstrations)]
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
