"""One episode of `inprocess_loop`, step by step: reads, asks policy and operator, decides, filters, applies."""

from typing import TYPE_CHECKING, Any

import numpy as np

from takeover.data.schema import ControlMode, EpisodeKind, HoldReason, Mode, Privileged, Source
from takeover.data.seeding import stream
from takeover.policies.base import SeesPictures
from takeover.policies.frames import begin_episode
from takeover.robot_bridge.safety import SafetyState

if TYPE_CHECKING:
    from benchmarks.inprocess_loop import Loop

RAMP_STEPS = 3


class Driver:
    """Reads, decides and applies one step at a time, with ramp-in and the safety filter."""

    def __init__(self, loop: "Loop", kind: EpisodeKind, number: int, identity: str) -> None:
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
