"""``sirius``, ``iwr``, ``hg-dagger``, ``bc``: cloning with class weights, a Gaussian mixture over a short history.

The same record, interface and published form as ``hil-serl``, so that learners can be compared at equal human effort. Steps and labels
come in through `imitation_ingestion`.
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
from takeover.policies.base import ALL_LEFT_OUT, LearnerError, PolicyWeights
from takeover.policies.class_weights import SCHEMES, StepClass, target_shares, weights
from takeover.policies.device import choose_device, sent
from takeover.policies.flat import Adam, Layout
from takeover.policies.imitation_ingestion import ImitationIngestion
from takeover.policies.imitation_parameters import ImitationParameters
from takeover.policies.imitation_table import Table, weights_or_none
from takeover.policies.last_good import LastGood
from takeover.policies.normaliser import fit_normaliser
from takeover.policies.parameters import parse_parameters
from takeover.policies.same_settings import differing
from takeover.policies.weight_average import WeightAverage


class ImitationLearner(ImitationIngestion):
    """Weighted cloning; network and optimiser are on ``device``, steps on the CPU. Construct with `make`."""

    swap = "episode"

    def __init__(self, name: str, spec: RobotSpec, seed: int, parameters: ImitationParameters) -> None:
        super().__init__(spec, parameters)
        self.name = name
        p = parameters
        self.device = choose_device(p.device)
        outputs = nets.mixture_outputs(len(self._arm), p.modes, self._gripper >= 0)
        self._layout = Layout(nets.mlp_layout("policy", spec.observation.size * p.history, p.hidden, outputs))
        self.generator = torch.Generator().manual_seed(int(stream(seed, "learner").integers(2**62)))
        self._flat = nets.initialise(self._layout, self.generator, last_scale=0.1).to(self.device).requires_grad_()
        self._average = WeightAverage(self._flat, p.average_horizon)
        self._optimiser = Adam(self._layout.size, p.learning_rate, device=self.device)
        self._mean = torch.zeros(spec.observation.size, device=self.device)
        self._scale = torch.ones(spec.observation.size, device=self.device)
        self.updates = self.extra_updates = 0
        self.cloned = False
        self._last_good = LastGood()

    @classmethod
    def make(cls, name: str, spec: RobotSpec, seed: int, parameters: Mapping[str, Any]) -> "ImitationLearner":
        if name not in SCHEMES:
            raise LearnerError(f"unknown imitation learner {name!r}; known: {', '.join(SCHEMES)}")
        return cls(name, spec, seed, parse_parameters(ImitationParameters, dict(parameters), name=name))

    # --- learning ---

    def clone_demonstrations(self) -> Iterator[float]:
        """Fit normaliser and policy to the demonstrations. Yields progress."""
        table = self._steps()
        if not table.counts[StepClass.DEMONSTRATION]:
            raise LearnerError("no demonstrations to clone; record some first")
        mean, scale = fit_normaliser(table.observations[:, -1], self.spec.observation.units)
        self._mean.copy_(mean)
        self._scale.copy_(scale)
        total = self.parameters.clone_updates
        for i in range(total):
            if not self._steps().counts[StepClass.DEMONSTRATION]:
                raise LearnerError(ALL_LEFT_OUT)
            self._optimiser.learning_rate = self.parameters.learning_rate * (0.1 + 0.45 * (1.0 + math.cos(math.pi * i / total)))
            self._step("bc")
            if i % 10 == 9:
                yield (i + 1) / total
        self._optimiser.learning_rate = 0.3 * self.parameters.learning_rate
        self._average.begin()
        self.cloned = True
        self._last_good.state = self._state_tensors()
        yield 1.0

    def updates_due(self) -> int:
        p = self.parameters
        if not self.cloned:
            return 0
        held = self.updates - self.extra_updates
        due = max(0, int((self.train_steps - p.learning_starts) * p.updates_per_step) - held)
        return due if due and self.can_learn else 0

    def update(self, extra: bool = False) -> dict[str, float]:
        """One weighted cloning step; skipped where loss or gradient is not finite, and five in a row restore the last good state."""
        self.updates += 1
        self.extra_updates += extra
        metrics, taken = self._step(self.name)
        if taken:
            self._average.follow()
            if self._last_good.counted(self.updates) and bool(self._flat.isfinite().all()):
                self._last_good.state = self._state_tensors()
        elif (good := self._last_good.skip()) is not None:
            self._restore_tensors(good)
        return metrics | {"skipped": float(self._last_good.skipped)}

    def _step(self, scheme: str) -> tuple[dict[str, float], bool]:
        """Metrics, and whether the weights were changed."""
        table = self._steps()
        shares = target_shares(table.counts, scheme)
        index = table.sample(self.parameters.batch, shares, self.generator)
        if self._corrections:
            self._corrections.seen(table.corrections[index].tolist())
        loss = self._loss(table, index)
        (gradient,) = torch.autograd.grad(loss, [self._flat])
        taken = math.isfinite(float(loss.detach())) and math.isfinite(float(gradient.sum()))
        if taken:
            norm = float(gradient.norm())
            self._optimiser.step(self._flat, gradient * min(1.0, 10.0 / max(norm, 1e-9)))
            with torch.no_grad():
                self._flat.mul_(1.0 - self._optimiser.learning_rate * self.parameters.weight_decay)
        found = {f"weight_{c.name.lower()}": w for c, w in weights(table.counts, scheme).items() if c != StepClass.TRANSITION}
        return {"cloning_loss": float(loss.detach())} | found, taken

    def _loss(self, table: Table, index: Tensor) -> Tensor:
        """Of the batch of rows ``index`` (B,)."""
        p, device = self.parameters, self.device
        observation = nets.normalise(sent(table.observations[index], device), self._mean, self._scale).flatten(1)
        outputs = nets.mlp(self._layout.views(self._flat), "policy", observation)
        logits, means, log_stds, gripper = nets.split_mixture(outputs, len(self._arm), p.modes, p.min_std)
        loss = -nets.mixture_log_density(logits, means, log_stds, sent(table.actions[index][:, self._arm], device)).mean()
        if self._gripper >= 0:
            loss = loss + torch.nn.functional.cross_entropy(gripper, sent(table.gripper[index], device))
        return loss

    @property
    def can_learn(self) -> bool:
        """Whether labels have left anything to learn from."""
        return any(weights_or_none(self._steps().counts, self.name).values())

    # --- state, weights ---

    def weights(self) -> PolicyWeights:
        """On the CPU."""
        flat = self._layout.views(self._average.weights) | {"normaliser.mean": self._mean, "normaliser.scale": self._scale}
        tensors = {name: tensor.clone().cpu() for name, tensor in flat.items()}
        p = self.parameters
        return PolicyWeights("gaussian_mixture", {"hidden": p.hidden, "modes": p.modes, "history": p.history}, tensors)

    def _state_tensors(self) -> dict[str, Tensor]:
        tensors = {"policy": self._flat.detach().clone(), "mean": self._mean.clone(), "scale": self._scale.clone()}
        return tensors | self._average.state() | {f"adam.{key}": value for key, value in self._optimiser.state().items()}

    def _restore_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self._average.restore(tensors)
        with torch.no_grad():
            self._flat.copy_(tensors["policy"])
            self._mean.copy_(tensors["mean"])
            self._scale.copy_(tensors["scale"])
        self._optimiser.restore({key: tensors[f"adam.{key}"] for key in ("count", "moment1", "moment2")})

    def state(self) -> dict[str, Any]:
        """``tensors`` (on the CPU) and JSON-able ``values``; the steps are read from the store again."""
        values = {
            "learner": self.name,
            "parameters": asdict(self.parameters),
            "updates": self.updates,
            "extra_updates": self.extra_updates,
            "cloned": self.cloned,
            **self._last_good.values(),
            "steps": [self.train_steps, self.human_steps],
            "learning_rate": self._optimiser.learning_rate,
            "unused_corrections": self._corrections.state(),
        }
        values["counted"] = sorted(self._counted_ever())
        if self.parameters.memory_steps:
            values["again"] = list(self._episodes)  # the others are let go of for good
        tensors = {name: tensor.cpu() for name, tensor in self._state_tensors().items()} | self._last_good.tensors()
        return {"tensors": tensors | {"generator": self.generator.get_state()}, "values": values}

    def restore(self, state: Mapping[str, Any]) -> None:
        """After the same steps were ingested again. Raises `LearnerError` for a state of another learner or other settings."""
        values = state["values"]
        differ = differing(values["parameters"], asdict(self.parameters))
        if values["learner"] != self.name or differ:
            why = f" ({'; '.join(differ)})" if differ else ""
            raise LearnerError(
                f"the saved state is of {values['learner']} with other settings{why}; use a new workspace or the same settings"
            )
        if "again" in values:
            self._keep_only(values["again"])
        self._restore_tensors(state["tensors"])
        self.generator.set_state(state["tensors"]["generator"])
        self._optimiser.learning_rate = values["learning_rate"]
        self.updates, self.cloned = values["updates"], values["cloned"]
        self.extra_updates = values.get("extra_updates", 0)
        self.train_steps, self.human_steps = values.get("steps", (self.train_steps, self.human_steps))
        self._counted = frozenset(values.get("counted", ())) - self._episodes.keys()  # excluded since: they may come back
        self._corrections.restore(values["unused_corrections"])
        self._last_good.restore(values["skipped"], values["skipped_in_a_row"], state["tensors"])
