"""``hil-serl``: SAC from demonstrations, corrections and own experience (RLPD with corrections), on state observations.

Update in loop order: two critic updates on fresh batches, then one actor and temperature update. The recipe and what mattered
for it are in docs/learning.md. All randomness comes from one generator that is part of the state. Steps and labels come in through
`hil_serl_ingestion`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from takeover.data.schema import RobotSpec
from takeover.data.seeding import stream
from takeover.policies import nets
from takeover.policies.base import ALL_LEFT_OUT, LearnerError
from takeover.policies.device import choose_device
from takeover.policies.flat import Adam
from takeover.policies.hil_serl_ingestion import HilSerlIngestion
from takeover.policies.hil_serl_parameters import HilSerlParameters, paced
from takeover.policies.last_good import LastGood
from takeover.policies.normaliser import fit_normaliser
from takeover.policies.parameters import parse_parameters
from takeover.policies.progress_reward import ProgressReward
from takeover.policies.replay import CorrectionReplay
from takeover.policies.residual import residual_start
from takeover.policies.sac_batches import Batches, Stage
from takeover.policies.sac_networks import SacNetworks
from takeover.policies.sac_update import Pull
from takeover.policies.same_settings import differing
from takeover.policies.takeover_marks import TakeoverMarks
from takeover.policies.warm_start import actor_waits, anchor_weight, cloning_share, published_rate, updates_to_wait

NAME = "hil-serl"


class HilSerlLearner(HilSerlIngestion, SacNetworks):
    """See the module. Construct with `make`."""

    name = NAME
    swap = "step"

    def __init__(self, spec: RobotSpec, seed: int, parameters: HilSerlParameters) -> None:
        p = paced(parameters, spec.max_steps)
        if p.encoder == "trained" and p.observations == "state":  # each alone is a setting that the command line may check
            raise LearnerError("encoder = 'trained' needs observations = 'pictures': there is no encoder for observations = 'state'")
        self.spec = spec
        self.generator = torch.Generator().manual_seed(int(stream(seed, "learner").integers(2**62)))
        super().__init__(spec, self.generator, p, choose_device(p.device))
        self._gradients = self._make_gradients()
        self.replay = CorrectionReplay(
            spec,
            capacity=p.replay_capacity,
            gripper_penalty=p.gripper_penalty,
            marks=TakeoverMarks(p.takeover_reward, p.pre_takeover_weight, round(p.pre_takeover_s * spec.control_hz)),
            task_reward=p.task_reward,
            both_buffers=p.both_buffers,
            frames=self._frames,
        )
        self._columns = self.replay.columns  # of rows that are learned from
        self._stage = Stage(self._columns, self._arm, self._gripper if self.discrete_gripper else None, self.device)
        self._progress = ProgressReward(spec, p.progress_reward, seed, self._frames, p.device)
        self.updates = self.extra_updates = 0
        self.cloned = False
        self._step_left_out = False  # of the update that is made
        self._last_good = LastGood()

    @classmethod
    def make(cls, spec: RobotSpec, seed: int, parameters: Mapping[str, Any]) -> "HilSerlLearner":
        return cls(spec, seed, parse_parameters(HilSerlParameters, dict(parameters), name=NAME))

    # --- learning ---

    def clone_demonstrations(self) -> Iterator[float]:
        """Fit the observation normaliser and the actor, then warm the critics up on the demonstrations. Yields progress."""
        if self.replay.demonstrations.size == 0:
            raise LearnerError("no demonstrations to clone; record some first")
        p = self.parameters
        self._fit_normaliser()
        for _ in self._progress.fit():
            yield 0.0
        optimiser = Adam(self._actor_layout.size, p.clone_learning_rate, device=self.device)
        total = p.clone_updates + p.critic_warmup
        for i in range(p.clone_updates):
            optimiser.learning_rate = p.clone_learning_rate * (0.1 + 0.9 * 0.5 * (1.0 + math.cos(math.pi * i / p.clone_updates)))
            self._clone_update(optimiser)
            if i % 10 == 9:
                yield (i + 1) / total
        if self._base is not None:
            self._base.copy_(self._actor)
            self._actor.copy_(residual_start(self._actor_layout, self.generator, math.log(p.clone_std)))
        for i in range(p.critic_warmup):
            batch = self._prepared(1, demonstrations_only=True)
            self._critic_update(batch, 0, self._propose(batch, 1))
            if i % 10 == 9:
                yield (p.clone_updates + i + 1) / total
        self._published.copy_(self._actor)
        self._anchor.take(self._actor)
        self.cloned = True
        self._remember_good()
        yield 1.0

    @property
    def can_learn(self) -> bool:
        """Whether labels have left anything to learn from."""
        return bool(self.replay.demonstrations.size or self.replay.online.size)

    def updates_due(self) -> int:
        p = self.parameters
        if not self.cloned or not self.can_learn:
            return 0
        return max(0, int((self.replay.train_steps - p.learning_starts) * p.updates_per_step) - self.held_updates)

    @property
    def held_updates(self) -> int:
        """Those of the held ratio: what waits or fades by updates goes by them, so extra ones do not end it sooner."""
        return self.updates - self.extra_updates

    def update(self, extra: bool = False) -> dict[str, float]:
        """Critics, actor, temperature once; a loss or gradient that is not finite is skipped, five in a row restore the last good state."""
        self.updates += 1
        self.extra_updates += extra
        self._step_left_out = False
        metrics: dict[str, float] = {}
        finite = True
        critics, climbs = self.parameters.critic_updates, not actor_waits(self.parameters, self.held_updates)
        for metrics_of_step in self._steps_of_update(critics, climbs):
            finite = finite and all(math.isfinite(x) for x in metrics_of_step.values())
            metrics |= metrics_of_step
        self._guard(finite and not self._step_left_out)
        metrics |= {"skipped": float(self._last_good.skipped), "actor_waits": float(updates_to_wait(self.parameters, self.held_updates))}
        return metrics

    def _steps_of_update(self, critics: int, climbs: bool) -> Iterator[dict[str, float]]:
        """The metrics of ``critics`` critic updates, then, if it ``climbs``, of one of the actor."""
        batch = self._prepared(critics + climbs)
        proposal = self._propose(batch, critics)  # the actor stays as it is until the critics are done
        for i in range(critics):
            yield self._critic_metrics(batch, i, proposal)
        if climbs:
            yield self._actor_update(batch, critics, proposal)

    def _critic_metrics(self, batch: Batches, i: int, proposal: Any) -> dict[str, float]:
        loss, value = self._critic_update(batch, i, proposal)
        return {"critic_loss": loss, "q_mean": value}

    def _batch(self, demonstrations_only: bool = False) -> tuple[Tensor, int]:
        p = self.parameters
        if demonstrations_only:
            buffer = self.replay.demonstrations
            if not buffer.size:
                raise LearnerError(ALL_LEFT_OUT)
            return self._progress.shape(buffer.rows[buffer.indices(p.batch, self.generator)], self.replay.columns), p.batch
        rows, demonstrations = self.replay.sample(p.batch, self.generator)
        return self._progress.shape(rows, self.replay.columns), demonstrations

    def _noise(self, batch: int) -> Tensor:
        return torch.randn(batch, len(self._arm), generator=self.generator)

    def _prepared(self, count: int, demonstrations_only: bool = False) -> Batches:
        """``count`` batches, each drawn with its noise; unpacked and normalised at once."""
        drawn, noise = [], []
        for _ in range(count):
            drawn.append(self._batch(demonstrations_only))
            noise.append(self._noise(self.parameters.batch))
        return self._stage.batches(drawn, noise, self._mean, self._scale, self.parameters.discount)

    def _propose(self, batch: Batches, critics: int) -> Any:
        """What the actor does next in the first ``critics`` batches, and now in the one after them, if there is one."""
        rows = critics * batch.size
        observations = torch.cat([batch.following[:rows], batch.observation[rows:]])
        return self._gradients.propose(observations, batch.noise)

    def _critic_update(self, batch: Batches, i: int, proposal: Any) -> tuple[float, float]:
        """One TD step of all critics and their targets on batch ``i``; returns loss and mean value."""
        p = self.parameters
        cloning = p.gripper_bc_weight * cloning_share(p.gripper_bc_decay, self.held_updates, self.replay.help_share, p.bc_help)
        subset = self._target_critics(self.generator)
        loss, value = self._gradients.critics(batch.for_critics(i, proposal.arm, cloning=cloning, margin=p.gripper_margin, subset=subset))
        self._step(self._critic, self._critic_optimiser, self._gradients.critic_gradient)
        self._target.lerp_(self._critic, p.target_rate)
        return float(loss), float(value)

    def _actor_update(self, batch: Batches, i: int, proposal: Any) -> dict[str, float]:
        """One step of actor and temperature on batch ``i``, the last one of the proposal."""
        p, n = self.parameters, batch.demonstrations[i]
        observation, arm = batch.observation[batch.at(i)], batch.arm[batch.at(i)]
        temperature = float(torch.nn.functional.softplus(self._temperature))
        anchor = anchor_weight(p, self.held_updates)
        pulls = [Pull(slice(0, n), arm[:n], self._bc_weight() + anchor)] if n else []
        if anchor and n < len(arm):
            pulls.append(Pull(slice(n, len(arm)), self._anchor.mode(self._clone_sees(observation, n)), anchor))
        loss, log_density, errors = self._gradients.actor(proposal, observation, temperature, pulls)
        self._step(self._actor, self._actor_optimiser, self._gradients.actor_gradient)
        self._published.lerp_(self._actor, published_rate(p))
        entropy = -float(log_density)
        excess = entropy - p.target_entropy_per_action * len(self._arm)
        if math.isfinite(excess):
            self._temperature_optimiser.step(self._temperature, torch.sigmoid(self._temperature) * excess)
        metrics = {"temperature": temperature, "actor_loss": float(loss), "entropy": entropy, "bc_weight": self._bc_weight()}
        return metrics | ({"bc_loss": float(errors[0])} if n else {})

    def _clone_sees(self, observation: Tensor, first: int) -> Tensor:
        """What the cloned actor is asked at, for rows ``first`` and on of the actor's batch ``observation`` (B, D), normalised."""
        return observation[first:]

    def _clone_update(self, optimiser: Adam) -> float:
        """Mean towards the demonstrated action, std towards `clone_std`."""
        rows = self._stage.rows([self._batch(demonstrations_only=True)[0]])
        observation = self._normalised(rows[:, self._columns.observation])
        flat = self._actor.detach().requires_grad_()
        mean, log_std = nets.gaussian(self._actor_layout.views(flat), observation)
        error = (mean.tanh() - self._stage.actions(rows)).square().sum(-1).mean()
        loss = error + 0.1 * (log_std - math.log(self.parameters.clone_std)).square().mean()
        self._step(self._actor, optimiser, torch.autograd.grad(loss, [flat])[0])
        self._actor.mul_(1.0 - optimiser.learning_rate * self.parameters.clone_weight_decay)
        return float(error.detach())

    def _step(self, flat: Tensor, optimiser: Adam, gradient: Tensor) -> None:
        """Gradient step; left out when the gradient is not finite, so that moments and weights stay clean."""
        if math.isfinite(float(gradient.sum())):
            optimiser.step(flat, gradient)
        else:
            self._step_left_out = True

    def _bc_weight(self) -> float:
        p = self.parameters
        return p.bc_weight * cloning_share(p.bc_decay, self.held_updates, self.replay.help_share, p.bc_help)

    def _fit_normaliser(self) -> None:
        mean, scale = fit_normaliser(self._demonstrated(), self.spec.observation.units)
        self._mean.copy_(mean)
        self._scale.copy_(scale)

    def _demonstrated(self) -> Tensor:
        """(n, D): the observations of what there is to imitate."""
        buffer = self.replay.demonstrations
        return buffer.rows[: buffer.size, self._columns.observation]

    # --- faults, state ---

    def _guard(self, finite: bool) -> None:
        if finite:
            if self._last_good.counted(self.updates):
                self._remember_good()
        elif (good := self._last_good.skip()) is not None:
            self._restore_tensors(good)

    def _remember_good(self) -> None:
        if self._finite():
            self._last_good.state = self._state_tensors()

    def state(self) -> dict[str, Any]:
        """``tensors`` (on the CPU) and JSON-able ``values``; the replay is rebuilt from the store."""
        tensors = {name: tensor.cpu() for name, tensor in self._state_tensors().items()} | {"generator": self.generator.get_state()}
        tensors |= self._progress.tensors() | self._last_good.tensors()
        values = {
            "learner": NAME,
            "parameters": asdict(self.parameters),
            "updates": self.updates,
            "extra_updates": self.extra_updates,
            "cloned": self.cloned,
            **self._last_good.values(),
            "steps": [self.train_steps, self.human_steps],
            "help_share": self.replay.help_share,
            "unused_corrections": self.replay.unused_corrections(),
        }
        if self.cloned:
            replay, places = self.replay.layout()
            values, tensors = values | replay, tensors | places
        return {"tensors": tensors, "values": values}

    def prepare(self, state: Mapping[str, Any]) -> None:
        """Where the rows of a state that fits lie, so that only what it still holds has to be ingested again."""
        values = state["values"]
        if "replay" in values and values["learner"] == NAME and not differing(values["parameters"], asdict(self.parameters)):
            self._progress.restore(state["tensors"])
            self.replay.lay_out(values["replay"], state["tensors"])

    def restore(self, state: Mapping[str, Any]) -> None:
        """After the same steps were ingested again. Raises `LearnerError` for a state of another learner, other settings or an earlier
        version that lacks something. Where and how it was computed (device, precision) may differ."""
        values, tensors = state["values"], state["tensors"]
        if values["learner"] != NAME:
            raise LearnerError(f"the saved state is of learner {values['learner']!r}, not {NAME!r}; use a new workspace")
        if differ := differing(values["parameters"], asdict(self.parameters)):
            raise LearnerError(
                f"the saved state is of {NAME} with other settings ({'; '.join(differ)}); use a new workspace or the same settings"
            )
        unused = values["unused_corrections"]
        if not self.replay.laid_out(values.get("replay", {}), unused):
            self.replay.restore_unused_corrections(unused)
        self._restore_tensors(tensors)
        self._progress.restore(tensors)
        self.generator.set_state(tensors["generator"])
        self.updates, self.cloned = values["updates"], values["cloned"]
        self.extra_updates = values.get("extra_updates", 0)
        # as many updates are due as were: episodes that labels leave out by now were not ingested again
        self.replay.train_steps, self.replay.human_steps = values.get("steps", (self.train_steps, self.human_steps))
        self.replay.help_share = values.get("help_share", self.replay.help_share)
        self._last_good.restore(values["skipped"], values.get("skipped_in_a_row", 0), tensors)
