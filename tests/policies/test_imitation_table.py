"""The table that imitation learners draw from: kept up to date, it is what it would be if it were made anew, and little is written."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from takeover.data.episode_labels import EpisodeLabels
from takeover.data.schema import ControlMode, EpisodeKind, Outcome, RobotSpec
from takeover.policies.class_weights import StepClass
from takeover.policies.gripper_cost import gripper_index
from takeover.policies.growing_rows import GrowingRows
from takeover.policies.imitation import ImitationLearner
from takeover.policies.imitation_episodes import Stored, classes_of, counted, finished_alone
from takeover.policies.imitation_table import Table
from takeover.policies.memory import STRATEGIES
from takeover.policies.publish import weights_bytes

SMALL: dict[str, Any] = {"hidden": 16, "batch": 32, "clone_updates": 20, "learning_starts": 5, "pre_intervention_s": 0.2}
P, H, RAMP, PAUSED = ControlMode.POLICY, ControlMode.HUMAN, ControlMode.TRANSITION, ControlMode.PAUSED


def made_anew(episodes: Mapping[str, Stored], before: int, gripper: int, finished: bool) -> dict[str, torch.Tensor]:
    """All rows of all episodes one after another, and the rows of each class: the plain way."""
    views = [view for view in counted(episodes.values()) if view.actions]
    found_classes = [(view, classes_of(view, before)) for view in views]
    classes = torch.tensor([int(c) for view, own in found_classes for c in (finished_alone(view, own) if finished else own)])
    found = {
        "observations": torch.from_numpy(np.array([o for view in views for o in view.observations], np.float32)),
        "actions": torch.tensor([a for view in views for a in view.actions], dtype=torch.float32),
        "corrections": torch.tensor([c for view in views for c in view.corrections], dtype=torch.int64),
        "gripper": torch.tensor([gripper_index(a[gripper]) for view in views for a in view.actions], dtype=torch.int64),
    }
    return found | {c.name: torch.nonzero(classes == int(c)).flatten() for c in StepClass}


def contents(table: Table) -> dict[str, torch.Tensor]:
    found = {name: getattr(table, name) for name in ("observations", "actions", "corrections", "gripper")}
    return found | {c.name: table.members(c) for c in StepClass}


def check(learner: ImitationLearner, what: str) -> None:
    table = learner._steps()
    expected = made_anew(learner._episodes, 4, learner._gripper, learner.parameters.policy_examples == "finished")
    found = contents(table)
    wrong = [name for name in expected if not torch.equal(found[name], expected[name]) and len(found[name]) + len(expected[name])]
    assert not wrong, f"{what}: {wrong}"
    assert table.counts == {c: len(expected[c.name]) for c in StepClass}, what
    assert table.size == len(expected["actions"]), what


class Life:
    """Random things that happen to a learner: episodes, labels, what was left out comes back, a memory that is too small."""

    def __init__(self, learner: ImitationLearner, script: Any, seed: int) -> None:
        self.learner, self.script, self.rng = learner, script, np.random.default_rng(seed)
        self.names: list[str] = []
        self.running = False
        self.run_id = self.intervention = 0

    def act(self) -> str:
        acts = [self.label, self.exclude, self.relabel]
        acts += [self.steps] * 6 + [self.end] * 2 if self.running else [self.begin] * 3 + [self.again]
        chosen = acts[self.rng.integers(len(acts))]
        chosen()
        return chosen.__name__

    def begin(self, name: str = "") -> None:
        kinds = (EpisodeKind.DEMONSTRATION, EpisodeKind.POLICY, EpisodeKind.POLICY, EpisodeKind.POLICY, EpisodeKind.EVALUATION)
        start = self.script.start(kinds[self.rng.integers(len(kinds))], name)
        self.learner.begin_episode(start)
        if start.episode_id not in self.names:
            self.names.append(start.episode_id)
        self.running = True

    def again(self) -> None:
        """An episode that is ingested a second time, whether it was forgotten or is there."""
        if self.names:
            self.begin(self.any())

    def steps(self) -> None:
        demonstration = self.script.kind == EpisodeKind.DEMONSTRATION
        mode = [H, H, RAMP, PAUSED, P, P, P][self.rng.integers(4 if demonstration else 7)]
        self.run_id += self.rng.random() < 0.1
        self.intervention += mode == H
        for _ in range(self.rng.integers(1, 8)):
            fields = {"observation": self.rng.normal(size=4).tolist(), "action": self.rng.uniform(-1, 1, 3).tolist(), "run_id": self.run_id}
            human = mode == H and not demonstration
            self.learner.ingest([self.script.step(mode, intervention_id=self.intervention if human else -1, **fields)])

    def end(self) -> None:
        outcome = [Outcome.SUCCESS, Outcome.FAILURE, Outcome.ABORTED][self.rng.integers(3)]
        self.learner.end_episode(self.script.end(outcome, discarded=bool(self.rng.random() < 0.2)))
        self.running = False

    def any(self) -> str:
        """Often the last one, which may still run."""
        return self.names[-1 if self.rng.random() < 0.5 else self.rng.integers(len(self.names))]

    def ranges(self) -> tuple[tuple[int, int], ...]:
        first = int(self.rng.integers(12))
        return ((first, first + int(self.rng.integers(6))),) if self.rng.random() < 0.4 else ()

    def label(self) -> None:
        if self.names:
            onsets = {int(i): int(self.rng.integers(15)) for i in self.rng.integers(1, self.intervention + 2, self.rng.integers(3))}
            labels = EpisodeLabels(episode_id=self.any(), left_out=self.ranges(), not_imitated=self.ranges(), onsets=onsets)
            self.learner.apply_labels(labels)

    def exclude(self) -> None:
        if self.names and self.rng.random() < 0.5:
            self.learner.exclude(self.any())

    def relabel(self) -> None:
        if self.names:
            outcome = [Outcome.SUCCESS, Outcome.FAILURE, Outcome.UNKNOWN][self.rng.integers(3)]
            self.learner.relabel(self.any(), outcome, int(self.rng.integers(-1, 12)))


@pytest.fixture
def spec(make_robot_spec: Callable[..., Any]) -> RobotSpec:
    return make_robot_spec(observation=4, arm=2, gripper=True)


@pytest.mark.parametrize("memory", ["", *STRATEGIES])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("examples", ["finished", "all"])
def test_it_is_what_it_would_be_if_it_were_made_anew(
    memory: str, seed: int, examples: str, spec: RobotSpec, make_script: Callable[..., Any]
) -> None:
    settings = {"policy_examples": examples} | ({"memory": memory, "memory_steps": 100} if memory else {})
    learner = ImitationLearner.make("sirius", spec, 0, SMALL | settings)
    life, largest = Life(learner, make_script(spec), seed), 0
    for number in range(400):
        what = life.act()
        if life.rng.random() < 0.6:  # otherwise several things at once
            check(learner, f"{number}: {what}")
            largest = max(largest, learner._steps().size)
    check(learner, "at the end")
    assert largest > 100


def test_it_learns_to_the_bit_what_it_would_from_one_made_anew(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    def lived(anew: bool) -> bytes:
        learner = ImitationLearner.make("sirius", spec, 0, SMALL | {"memory": "lfi", "memory_steps": 150})
        script = make_script(spec)
        learner.begin_episode(script.start(EpisodeKind.DEMONSTRATION, "first"))
        learner.ingest([script.step(H, observation=[0.1 * i] * 4) for i in range(20)])
        learner.end_episode(script.end())
        for _ in learner.clone_demonstrations():
            pass
        life = Life(learner, script, 7)
        for _ in range(300):
            life.act()
            if anew:
                learner._table, learner._touched = learner._new_table(), dict.fromkeys(learner._episodes)
            while learner.updates_due():
                learner.update()
        assert learner.updates > 100
        return weights_bytes(learner.weights())

    assert lived(anew=False) == lived(anew=True)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows every write wrote."""
    found: list[int] = []
    write = GrowingRows.write

    def counting(self: GrowingRows, at: int, rows: torch.Tensor) -> None:
        found.append(len(rows))
        write(self, at, rows)

    monkeypatch.setattr(GrowingRows, "write", counting)
    return found


def long_lived(spec: RobotSpec, script: Any) -> ImitationLearner:
    """e000 is a demonstration of 20 steps; e001 to e040 are policy episodes of 30 steps, the last 10 driven by a person."""
    learner = ImitationLearner.make("sirius", spec, 0, SMALL)
    for kind, modes in [(EpisodeKind.DEMONSTRATION, [H] * 20), *[(EpisodeKind.POLICY, [P] * 20 + [H] * 10)] * 40]:
        learner.begin_episode(script.start(kind))
        learner.ingest([script.step(mode) for mode in modes])
        learner.end_episode(script.end())
    check(learner, "before")
    return learner


def test_a_step_that_arrives_writes_its_row_alone(spec: RobotSpec, make_script: Callable[..., Any], written: list[int]) -> None:
    script = make_script(spec)
    learner = long_lived(spec, script)
    learner.begin_episode(script.start())
    for mode in [P] * 10 + [H] * 3:
        written.clear()
        learner.ingest([script.step(mode)])
        learner._steps()
        # its columns and its class; where a takeover begins, also the 4 steps before it, twice
        assert sum(written) <= 5 + 1 + 4 + 5
    check(learner, "after")


def test_a_label_writes_the_rows_of_its_episode_alone(spec: RobotSpec, make_script: Callable[..., Any], written: list[int]) -> None:
    learner = long_lived(spec, make_script(spec))
    written.clear()
    learner.apply_labels(EpisodeLabels(episode_id="e040", onsets={0: 10}))
    learner._steps()
    assert 0 < sum(written) <= 2 * 30
    check(learner, "an onset")
    written.clear()
    learner.apply_labels(EpisodeLabels(episode_id="e039", left_out=((0, 4),)))
    learner._steps()
    assert 0 < sum(written) <= 6 * 60, "fewer rows: those behind it move up"
    check(learner, "a trim")
