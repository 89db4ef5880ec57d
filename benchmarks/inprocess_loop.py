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
