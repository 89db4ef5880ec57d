"""``hil-serl``: SAC from demonstrations, corrections and own experience (RLPD with corrections), on state observations.

Update in loop order: two critic updates on fresh batches, then one actor and temperature update. The recipe and what mattered
for it are in docs/learning.md. All randomness comes from one generator that is part of the state.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from takeover.data.episode_labels import EpisodeLabels
from takeover.data.schema import EpisodeEnd, EpisodeStart, Outcome, RobotSpec, Step
from takeover.data.seeding import stream
from takeover.policies import nets
from takeover.policies.base import LearnerError, PolicyWeights
from takeover.policies.flat import Adam, Layout
from takeover.policies.frames import Frames
from takeover.policies.gripper_critic import gather_command, gripper_columns, margin_loss
from takeover.policies.hil_serl_parameters import HilSerlParameters
from takeover.policies.inference import split_action
from takeover.policies.normaliser import fit_normaliser
from takeover.policies.parameters import parse_parameters
from takeover.policies.progress_reward import ProgressReward
from takeover.policies.replay import CorrectionReplay
from takeover.policies.residual import residual_gaussian, residual_start
from takeover.policies.takeover_marks import TakeoverMarks
from takeover.policies.warm_start import Anchor, actor_waits, anchor_weight, published_rate

NAME = "hil-serl"


class HilSerlLearner:
    """See the module. Construct with `make`."""

    name = NAME
    swap = "step"

    def __init__(self, spec: RobotSpec, seed: int, parameters: HilSerlParameters) -> None:
        self.spec = spec
        self.parameters = parameters
        p = parameters
        self.discrete_gripper = spec.action.gripper == "discrete"
        self._arm, self._gripper = split_action(spec)
        d, a = spec.observation.size, len(self._arm)
        self._actor_layout = Layout(nets.mlp_layout("actor", d, p.hidden, 2 * a))
        self._critic_layout = Layout(nets.critic_layout(d + a, p.hidden, 3 if self.discrete_gripper else 1, p.ensemble))
        self.generator = torch.Generator().manual_seed(int(stream(seed, "learner").integers(2**62)))
        self._actor = nets.initialise(self._actor_layout, self.generator, last_scale=0.1).requires_grad_()
        self._critic = nets.initialise(self._critic_layout, self.generator).requires_grad_()
        self._target = self._critic.detach().clone()
        self._published = self._actor.detach().clone()
        self._anchor = Anchor(self._actor_layout)
        self._temperature = torch.tensor([math.log(math.expm1(p.initial_temperature))])  # inverse softplus
        self._actor_optimiser = Adam(self._actor_layout.size, p.learning_rate)
        self._critic_optimiser = Adam(self._critic_layout.size, p.learning_rate)
        self._temperature_optimiser = Adam(1, p.learning_rate)
        self._mean = torch.zeros(d)
        self._scale = torch.ones(d)
        self._base: Tensor | None = None  # the frozen actor below a residual
        self._frames = Frames.of(spec, p.relative_pose, p.ee_frame)
        self.replay = CorrectionReplay(
            spec,
            capacity=p.replay_capacity,
            gripper_penalty=p.gripper_penalty,
            marks=TakeoverMarks(p.takeover_reward, p.pre_takeover_weight, round(p.pre_takeover_s * spec.control_hz)),
            task_reward=p.task_reward,
            both_buffers=p.both_buffers,
            frames=self._frames,
        )
        self._progress = ProgressReward(spec, p.progress_reward, seed, self._frames)
        self.updates = 0
        self.cloned = False
        self.skipped = 0  # updates refused because a loss or gradient was not finite
        self._skipped_in_a_row = 0
        self._good: dict[str, Any] | None = None

    @classmethod
    def make(cls, spec: RobotSpec, seed: int, parameters: Mapping[str, Any]) -> "HilSerlLearner":
        return cls(spec, seed, parse_parameters(HilSerlParameters, dict(parameters), name=NAME))

    # --- ingestion ---

    def begin_episode(self, start: EpisodeStart) -> None:
        self.replay.begin_episode(start)
        self._progress.begin_episode(start)

    def ingest(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self.replay.add(step)
        self._progress.ingest(steps)

    def end_episode(self, end: EpisodeEnd) -> None:
        self.replay.end_episode(end)
        self._progress.end_episode(end)

    def exclude(self, episode_id: str) -> None:
        self.replay.exclude(episode_id)
        self._progress.exclude(episode_id)

    def relabel(self, episode_id: str, outcome: Outcome, event_step: int) -> None:
        self.replay.relabel(episode_id, outcome, event_step)
        self._progress.relabel(episode_id, outcome, event_step)

    def apply_labels(self, labels: EpisodeLabels) -> bool:
        self._progress.apply_labels(labels)
        return self.replay.apply_labels(labels)

    @property
    def demonstration_episodes(self) -> int:
        return self.replay.demonstration_episodes

    @property
    def train_steps(self) -> int:
        return self.replay.train_steps

    @property
    def human_steps(self) -> int:
        return self.replay.human_steps

    def corrections_used(self) -> list[tuple[str, int]]:
        return self.replay.corrections_used()

    # --- learning ---

    def clone_demonstrations(self) -> Iterator[float]:
        """Fit the observation normaliser and the actor, then warm the critics up on the demonstrations. Yields progress."""
        if self.replay.demonstrations.size == 0:
            raise LearnerError("no demonstrations to clone; record some first")
        p = self.parameters
        self._fit_normaliser()
        for _ in self._progress.fit():
            yield 0.0
        optimiser = Adam(self._actor_layout.size, p.clone_learning_rate)
        total = p.clone_updates + p.critic_warmup
        for i in range(p.clone_updates):
            optimiser.learning_rate = p.clone_learning_rate * (0.1 + 0.9 * 0.5 * (1.0 + math.cos(math.pi * i / p.clone_updates)))
            self._clone_update(optimiser)
            if i % 10 == 9:
                yield (i + 1) / total
        if p.residual_scale:
            self._base = self._actor.detach().clone()
            with torch.no_grad():
                self._actor.copy_(residual_start(self._actor_layout, self.generator, math.log(p.clone_std)))
        for i in range(p.critic_warmup):
            self._critic_update(*self._batch(demonstrations_only=True))
            if i % 10 == 9:
                yield (p.clone_updates + i + 1) / total
        self._published.copy_(self._actor.detach())
        self._anchor.take(self._actor)
        self.cloned = True
        self._remember_good()
        yield 1.0

    def updates_due(self) -> int:
        p = self.parameters
        if not self.cloned or not (self.replay.demonstrations.size or self.replay.online.size):
            return 0  # labels may leave nothing to learn from
        return max(0, int((self.replay.train_steps - p.learning_starts) * p.updates_per_step) - self.updates)

    def update(self) -> dict[str, float]:
        """Critics, actor, temperature once; a non-finite loss is skipped, five in a row restore the last good state."""
        self.updates += 1
        metrics: dict[str, float] = {}
        finite = True
        for _ in range(self.parameters.critic_updates):
            loss, value = self._critic_update(*self._batch())
            finite = finite and math.isfinite(loss)
            metrics |= {"critic_loss": loss, "q_mean": value}
        if not actor_waits(self.parameters, self.updates):
            actor_metrics = self._actor_update(*self._batch())
            finite = finite and all(math.isfinite(x) for x in actor_metrics.values())
            metrics |= actor_metrics
        self._guard(finite)
        metrics["skipped"] = float(self.skipped)
        return metrics

    def _batch(self, demonstrations_only: bool = False) -> tuple[Tensor, int]:
        p = self.parameters
        if demonstrations_only:
            buffer = self.replay.demonstrations
            return self._progress.shape(buffer.rows[buffer.indices(p.batch, self.generator)], self.replay.columns), p.batch
        rows, demonstrations = self.replay.sample(p.batch, self.generator)
        return self._progress.shape(rows, self.replay.columns), demonstrations

    def _normalised(self, observation: Tensor) -> Tensor:
        return nets.normalise(observation, self._mean, self._scale)

    def _gaussian(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """What the actor would do at normalised observations (B, D): mean and log std before the tanh."""
        views = self._actor_layout.views(self._actor)
        if self._base is None:
            return nets.gaussian(views, observation)
        return residual_gaussian(views, self._actor_layout.views(self._base), self.parameters.residual_scale, observation)

    def _noise(self, batch: int) -> Tensor:
        return torch.randn(batch, len(self._arm), generator=self.generator)

    def _critic_update(self, rows: Tensor, demonstrations: int) -> tuple[float, float]:
        """One TD step of all critics and their targets; returns loss and mean value."""
        p, c = self.parameters, self.replay.columns
        with torch.no_grad():
            observation = self._normalised(rows[:, c.observation])
            following = self._normalised(rows[:, c.next_observation])
            action = rows[:, c.action]
            arm = action[:, self._arm]
            views = self._critic_layout.views(self._critic)
            mean, log_std = self._gaussian(following)
            next_arm, _ = nets.squashed_sample(mean, log_std, self._noise(len(rows)))
            next_input = torch.cat([following, next_arm], 1)
            next_values = nets.critics(self._critic_layout.views(self._target), next_input)  # (E, B, G)
            if self.discrete_gripper:
                # double Q: the online critics choose the gripper, the targets value it
                choice = nets.critics(views, next_input).mean(0).argmax(-1)
                next_value = next_values.gather(2, choice.expand(p.ensemble, -1).unsqueeze(-1)).squeeze(-1).amin(0)
                command = gripper_columns(action[:, self._gripper])
            else:
                next_value = next_values.squeeze(-1).amin(0)
            target = rows[:, c.reward] + p.discount * rows[:, c.mask] * next_value  # no entropy in the backup
        values = nets.critics(self._critic_layout.views(self._critic), torch.cat([observation, arm], 1))
        chosen = values.squeeze(-1) if not self.discrete_gripper else gather_command(values, command)
        loss = (chosen - target).square().mean()
        objective = loss
        if self.discrete_gripper and demonstrations:
            cloning = margin_loss(values[:, :demonstrations], command[:demonstrations], p.gripper_margin)
            objective = loss + p.gripper_bc_weight * p.gripper_bc_decay**self.updates * cloning
        self._step(self._critic, self._critic_optimiser, objective)
        with torch.no_grad():
            self._target.lerp_(self._critic, p.target_rate)
        return float(loss.detach()), float(chosen.detach().mean())

    def _actor_update(self, rows: Tensor, demonstrations: int) -> dict[str, float]:
        p, c = self.parameters, self.replay.columns
        observation = self._normalised(rows[:, c.observation])
        mean, log_std = self._gaussian(observation)
        arm, log_density = nets.squashed_sample(mean, log_std, self._noise(len(rows)))
        values = nets.critics(self._critic_layout.views(self._critic.detach()), torch.cat([observation, arm], 1))
        value = values.mean(0).amax(-1)  # mean of the critics; the gripper takes its best command
        temperature = float(torch.nn.functional.softplus(self._temperature))
        loss = (temperature * log_density - value).mean()
        metrics = {"temperature": temperature}
        objective = loss
        anchor = anchor_weight(p, self.updates)
        if demonstrations:
            demonstrated = rows[:demonstrations, c.action][:, self._arm]
            cloning = (mean[:demonstrations].tanh() - demonstrated).square().sum(-1).mean()
            objective = loss + (self._bc_weight() + anchor) * cloning
            metrics["bc_loss"] = float(cloning.detach())
        if anchor and demonstrations < len(rows):
            objective = objective + anchor * self._anchor.loss(observation[demonstrations:], mean[demonstrations:])
        self._step(self._actor, self._actor_optimiser, objective)
        self._published.lerp_(self._actor.detach(), published_rate(p))
        entropy = -float(log_density.detach().mean())
        excess = entropy - p.target_entropy_per_action * len(self._arm)
        if math.isfinite(excess):
            gradient = torch.sigmoid(self._temperature) * excess
            self._temperature_optimiser.step(self._temperature, gradient)
        return metrics | {"actor_loss": float(loss.detach()), "entropy": entropy, "bc_weight": self._bc_weight()}

    def _clone_update(self, optimiser: Adam) -> float:
        """Mean towards the demonstrated action, std towards `clone_std`."""
        rows, _ = self._batch(demonstrations_only=True)
        c = self.replay.columns
        observation = self._normalised(rows[:, c.observation])
        mean, log_std = nets.gaussian(self._actor_layout.views(self._actor), observation)
        error = (mean.tanh() - rows[:, c.action][:, self._arm]).square().sum(-1).mean()
        loss = error + 0.1 * (log_std - math.log(self.parameters.clone_std)).square().mean()
        self._step(self._actor, optimiser, loss)
        with torch.no_grad():
            self._actor.mul_(1.0 - optimiser.learning_rate * self.parameters.clone_weight_decay)
        return float(error.detach())

    def _step(self, flat: Tensor, optimiser: Adam, loss: Tensor) -> None:
        """Gradient step; left out when the gradient is not finite, so that moments and weights stay clean."""
        (gradient,) = torch.autograd.grad(loss, [flat])
        if math.isfinite(float(gradient.sum())):
            optimiser.step(flat, gradient)

    def _bc_weight(self) -> float:
        return self.parameters.bc_weight * self.parameters.bc_decay**self.updates

    def _fit_normaliser(self) -> None:
        buffer = self.replay.demonstrations
        observations = buffer.rows[: buffer.size, self.replay.columns.observation]
        self._mean, self._scale = fit_normaliser(observations, self.spec.observation.units)

    # --- faults, state, weights ---

    def _guard(self, finite: bool) -> None:
        if finite:
            self._skipped_in_a_row = 0
            if self.updates % 500 == 0:
                self._remember_good()
            return
        self.skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= 5 and self._good is not None:
            self._restore_tensors(self._good)
            self._skipped_in_a_row = 0

    def _remember_good(self) -> None:
        if all(bool(torch.isfinite(flat).all()) for flat in (self._actor, self._critic, self._target)):
            self._good = self._state_tensors()

    def weights(self) -> PolicyWeights:
        """The acting network: actor, the critics too where they choose the gripper, and the normaliser."""
        flat = self._actor_layout.views(self._published)
        if self.discrete_gripper:
            flat = flat | self._critic_layout.views(self._critic.detach())
        tensors = {name: tensor.clone() for name, tensor in flat.items()}
        tensors |= {"normaliser.mean": self._mean.clone(), "normaliser.scale": self._scale.clone()}
        config: dict[str, Any] = {"hidden": self.parameters.hidden, "ensemble": self.parameters.ensemble if self.discrete_gripper else 0}
        if self._frames is not None:
            config["frames"] = self._frames.config
        if self._base is not None:
            config["residual_scale"] = self.parameters.residual_scale
            tensors |= {name.replace("actor.", "base."): view.clone() for name, view in self._actor_layout.views(self._base).items()}
        return PolicyWeights("squashed_gaussian", config, tensors, metrics={})

    def _state_tensors(self) -> dict[str, Tensor]:
        tensors = {
            "actor": self._actor.detach().clone(),
            "published": self._published.clone(),
            "clone": self._anchor.clone.clone(),
            "critic": self._critic.detach().clone(),
            "target": self._target.clone(),
            "temperature": self._temperature.clone(),
            "mean": self._mean.clone(),
            "scale": self._scale.clone(),
        }
        if self._base is not None:
            tensors["base"] = self._base.clone()
        for name, optimiser in self._optimisers().items():
            tensors |= {f"{name}.{key}": value for key, value in optimiser.state().items()}
        return tensors

    def _optimisers(self) -> dict[str, Adam]:
        return {"adam_actor": self._actor_optimiser, "adam_critic": self._critic_optimiser, "adam_temperature": self._temperature_optimiser}

    def _restore_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            self._actor.copy_(tensors["actor"])
            self._published.copy_(tensors["published"])
            self._anchor.clone.copy_(tensors["clone"])
            self._critic.copy_(tensors["critic"])
            self._target.copy_(tensors["target"])
            self._temperature.copy_(tensors["temperature"])
            self._mean.copy_(tensors["mean"])
            self._scale.copy_(tensors["scale"])
            self._base = tensors["base"].clone() if "base" in tensors else None
        for name, optimiser in self._optimisers().items():
            optimiser.restore({key: tensors[f"{name}.{key}"] for key in ("count", "moment1", "moment2")})

    def state(self) -> dict[str, Any]:
        """``tensors`` and JSON-able ``values``; the replay is rebuilt from the store."""
        tensors = self._state_tensors() | {"generator": self.generator.get_state()} | self._progress.tensors()
        values = {
            "learner": NAME,
            "parameters": asdict(self.parameters),
            "updates": self.updates,
            "cloned": self.cloned,
            "skipped": self.skipped,
            "steps": [self.train_steps, self.human_steps],
            "unused_corrections": self.replay.unused_corrections(),
        }
        return {"tensors": tensors, "values": values}

    def restore(self, state: Mapping[str, Any]) -> None:
        """After the same steps were ingested again. Raises `LearnerError` for a state of another learner or other settings."""
        values, tensors = state["values"], state["tensors"]
        if values["learner"] != NAME or values["parameters"] != asdict(self.parameters):
            raise LearnerError(f"the saved state is of {values['learner']} with other settings; use a new workspace or the same settings")
        self._restore_tensors(tensors)
        self._progress.restore(tensors)
        self.generator.set_state(tensors["generator"])
        self.updates, self.cloned, self.skipped = values["updates"], values["cloned"], values["skipped"]
        # as many updates are due as were: episodes that labels leave out by now were not ingested again
        self.replay.train_steps, self.replay.human_steps = values.get("steps", (self.train_steps, self.human_steps))
        self.replay.restore_unused_corrections(values["unused_corrections"])
        self._remember_good()
