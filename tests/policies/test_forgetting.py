"""The forgetting suite: earlier conditions from the gate's own decisions, a drop said in its evidence, what cannot be compared named."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from takeover.data.schema import RobotSpec, RunConfig
from takeover.data.seeding import stream
from takeover.policies.base import PolicyWeights
from takeover.policies.decisions import Decision, decide, read_decisions
from takeover.policies.evaluation import EvaluationCancelled
from takeover.policies.forgetting import CONDITIONS, STARTS, earlier_conditions, parameters_of
from takeover.policies.gating import gate
from takeover.policies.outcomes import Outcomes, conditions_of
from takeover.policies.publish import WEIGHTS_NAME, Manifest, make_manifest, publish, read_manifest, version_folder, weights_bytes
from takeover.policies.registry import make_learner
from takeover.robot_bridge.robots.registry import make_variant

SEEDS = list(range(200))


class Course:
    """One step decides: a start of difficulty h in (0, 1) is passed by action ``axis`` of at least 2 h - 1."""

    def __init__(self, spec: RobotSpec, axis: float = 0.0) -> None:
        self.spec = spec
        self.runs = 0
        self._axis = int(axis)

    def reset(self, seed: int) -> None:
        self.runs += 1
        self._needed = 2.0 * float(stream(seed, "course").random()) - 1.0
        self._passed = False

    def read(self) -> Any:
        return SimpleNamespace(observation=np.zeros(3))

    def apply(self, action: np.ndarray) -> None:
        self._passed = float(action[self._axis]) >= self._needed

    def advance(self) -> None:
        pass

    def evaluate(self) -> Any:
        return SimpleNamespace(success=self._passed, terminated=True)


class Place:
    """A workspace; the course's parameter ``axis`` says which action counts. 0 is the nominal one."""

    def __init__(self, folder: Path, spec: RobotSpec) -> None:
        self.folder, self.spec = folder, spec
        self.made: list[Course] = []

    def make(self, parameters: dict[str, float]) -> Course:
        if set(parameters) - {"axis"}:
            raise ValueError(f"the course has no parameter {', '.join(parameters)}")
        self.made.append(Course(self.spec, **parameters))
        return self.made[-1]

    def put(self, version: int, *qualities: float) -> Manifest:
        """A policy that passes ``qualities[i]`` of all starts where action i counts."""
        weights = make_learner("hil-serl", self.spec, version, {"hidden": 16}).weights()
        bias = torch.tensor([*(math.atanh(2.0 * quality - 1.0) for quality in qualities), 0.0, 0.0])
        made = PolicyWeights(weights.architecture, weights.config, weights.tensors | {"actor.w2": torch.zeros(16, 4), "actor.b2": bias})
        data = weights_bytes(made)
        fields: dict[str, Any] = {"version": version, "parent": version - 1, "learner": "hil-serl", "swap": "step"}
        publish(self.folder, make_manifest(made, data, self.spec, **fields), data)
        return read_manifest(version_folder(self.folder, version))

    def gate(self, version: int, on_progress: Any = None, **parameters: float) -> Any:
        outcomes = Outcomes(self.folder, conditions_of("toy", "reach", 20.0, parameters))
        return gate(self.folder, version, self.make(parameters), SEEDS, outcomes, on_progress=on_progress, make_environment=self.make)


@pytest.fixture
def place(tmp_path: Path, make_robot_spec: Callable[..., Any]) -> Place:
    """Version 1, good at everything, promoted where action 1 counts."""
    made = Place(tmp_path, make_robot_spec())
    made.put(1, 0.9, 0.9)
    assert made.gate(1, axis=1.0).verdict == "first"
    return made


def test_a_candidate_that_forgot_is_promoted_and_its_evidence_says_so(place: Place) -> None:
    place.put(2, 0.9, 0.2)
    result = place.gate(2)
    assert result.verdict == "not worse"
    (row,) = result.numbers["forgetting"]
    assert (row["conditions"], row["against"], row["verdict"], row["forgotten"]) == ("toy:reach@20 axis=1.0", 1, "worse", True)
    assert row["candidate_successes"] < row["trusted_successes"] <= row["pairs"] <= STARTS
    decision = read_decisions(place.folder)[-1]
    assert (decision.kind, decision.evidence["forgetting"]) == ("promoted", [row])
    assert "forgotten: under toy:reach@20 axis=1.0 it is worse than version 1" in decision.reason
    assert "forgotten: under" in result.text


def test_one_that_kept_it_has_nothing_said_against_it(place: Place) -> None:
    place.put(2, 0.9, 0.9)
    result = place.gate(2)
    (row,) = result.numbers["forgetting"]
    assert (row["verdict"], row["forgotten"]) == ("not worse", False)
    assert "forgotten" not in result.text + read_decisions(place.folder)[-1].reason


def test_it_meets_the_version_that_was_good_there_also_when_the_trusted_one_forgot_too(place: Place) -> None:
    """Otherwise a loss that is promoted once would never be seen again."""
    place.put(2, 0.9, 0.2)
    place.gate(2)
    place.put(3, 0.9, 0.2 + 1e-3)
    (row,) = place.gate(3).numbers["forgetting"]
    assert (row["against"], row["forgotten"]) == (1, True)


def test_a_worse_candidate_is_refused_without_looking_back(place: Place) -> None:
    place.put(2, 0.2, 0.2)
    made = len(place.made)
    result = place.gate(2)
    assert result.verdict == "worse"
    assert "forgetting" not in result.numbers
    assert len(place.made) == made + 1


def test_one_that_was_stopped_goes_on_and_runs_nothing_twice(place: Place) -> None:
    place.put(2, 0.9, 0.899)
    with pytest.raises(EvaluationCancelled, match=r"under toy:reach@20 axis=1\.0"):
        place.gate(2, on_progress=lambda done, total: not (total == STARTS and done == 7))
    assert len(read_decisions(place.folder)) == 1
    before = [course.runs for course in place.made]
    (row,) = place.gate(2).numbers["forgetting"]
    again = [course.runs for course in place.made[len(before) :]]
    assert before[-1] == 14
    assert again == [0, 2 * row["pairs"] - 14]


def test_what_cannot_be_compared_is_named(place: Place) -> None:
    place.put(2, 0.9, 0.9)
    first = read_decisions(place.folder)[0]
    manifest = read_manifest(version_folder(place.folder, 1))
    for conditions in ("toy:reach@20 gone=3.0", "toy:reach@50 axis=1.0", "toy:reach@20 torn"):
        decide(place.folder, [("promoted", manifest)], author="gate", reason="", evidence={"conditions": conditions})
    errors = [row["error"] for row in place.gate(2).numbers["forgetting"]]
    assert len(errors) == CONDITIONS
    for error, said in zip(errors, ("name no parameters", "this simulator makes toy:reach@20", "no parameter gone"), strict=True):
        assert said in error
    assert first.evidence == {"conditions": "toy:reach@20 axis=1.0"}


def test_weights_that_are_damaged_are_named(place: Place) -> None:
    place.put(2, 0.9, 0.9)
    place.put(3, 0.9, 0.9)
    place.gate(2)
    path = version_folder(place.folder, 1) / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    (row,) = place.gate(3).numbers["forgetting"]
    assert "sha256" in row["error"]
    assert row["forgotten"] is False


def test_which_conditions_are_looked_back_on() -> None:
    def promoted(number: int, version: int, conditions: str, kind: Any = "promoted", task: str = "reach") -> Decision:
        return Decision(
            number=number,
            kind=kind,
            version=version,
            sha256=f"{version:064d}",
            robot_id="toy",
            task_id=task,
            trusted_before=0,
            author="gate",
            reason="",
            wall_ns=0,
            group_end=number,
            evidence={"conditions": conditions} if conditions else {},
        )

    decisions = [
        promoted(1, 1, "a"),
        promoted(2, 2, "a"),
        promoted(3, 3, "b"),
        promoted(4, 4, "now"),
        promoted(5, 5, "b", kind="passed"),
        promoted(6, 6, ""),
        promoted(7, 7, "c", task="other"),
        promoted(8, 8, "d"),
        promoted(9, 8, "now", kind="refused"),
    ]
    found = [(one.conditions, one.version) for one in earlier_conditions(decisions, "toy", "reach", "now")]
    assert found == [("b", 3), ("a", 2)]


def test_conditions_are_read_back() -> None:
    for parameters in ({}, {"clearance_m": 0.0012}, {"clearance_m": 0.0012, "friction": 1e-05}):
        assert parameters_of(conditions_of("sim", "peg-insert", 20.0, parameters)) == parameters


def test_the_real_simulator_makes_the_variant(tmp_path: Path) -> None:
    config = RunConfig(session_id="s", workspace=str(tmp_path), sockets="", task_parameters={"friction": 0.6})
    robot = make_variant(config, {"clearance_m": 0.0012})
    assert (robot.parameters["clearance_m"], robot.parameters["friction"]) == (0.0012, 0.3)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="wear"):
        make_variant(config, {"wear": 1.0})
