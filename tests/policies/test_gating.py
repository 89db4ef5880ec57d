"""The gate on real files and weights: what each verdict leads to, what holds it up, and that a stopped comparison goes on."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from takeover.data.schema import RobotSpec
from takeover.data.seeding import stream
from takeover.policies.acting import Acting
from takeover.policies.base import PolicyRefused, PolicyWeights
from takeover.policies.decisions import GATE, DecisionConflict, current_standing, decide, read_decisions
from takeover.policies.evaluation import EvaluationCancelled
from takeover.policies.gating import gate, gate_is_due, order_of
from takeover.policies.outcomes import POLICIES_HELD, Outcomes, conditions_of
from takeover.policies.publish import (
    WEIGHTS_NAME,
    Manifest,
    load_policy,
    make_manifest,
    publish,
    read_manifest,
    version_folder,
    weights_bytes,
)
from takeover.policies.registry import make_learner

STARTS = list(range(200))


class Course:
    """One step decides: a start of difficulty h in (0, 1) is passed by an action of at least 2 h - 1."""

    def __init__(self, spec: RobotSpec) -> None:
        self.spec = spec
        self.runs = 0
        self._passed = False

    def reset(self, seed: int) -> None:
        self.runs += 1
        self._needed = 2.0 * float(stream(seed, "course").random()) - 1.0
        self._passed = False

    def read(self) -> Any:
        return SimpleNamespace(observation=np.zeros(3))

    def apply(self, action: np.ndarray) -> None:
        self._passed = float(action[0]) >= self._needed

    def advance(self) -> None:
        pass

    def evaluate(self) -> Any:
        return SimpleNamespace(success=self._passed, terminated=True)


@pytest.fixture
def course(make_robot_spec: Callable[..., Any]) -> Course:
    return Course(make_robot_spec())


@pytest.fixture
def outcomes(tmp_path: Path, course: Course) -> Outcomes:
    return Outcomes(tmp_path, conditions_of("toy", "reach", 20.0, {}))


def put(workspace: Path, spec: RobotSpec, version: int, quality: float) -> Manifest:
    """A policy that passes ``quality`` of all starts."""
    weights = make_learner("hil-serl", spec, version, {"hidden": 16}).weights()
    bias = torch.tensor([math.atanh(2.0 * quality - 1.0), 0.0, 0.0, 0.0])
    made = PolicyWeights(weights.architecture, weights.config, weights.tensors | {"actor.w2": torch.zeros(16, 4), "actor.b2": bias})
    data = weights_bytes(made)
    publish(workspace, make_manifest(made, data, spec, version=version, parent=version - 1, learner="hil-serl", swap="step"), data)
    return read_manifest(version_folder(workspace, version))


def decided(workspace: Path) -> list[tuple[str, int]]:
    return [(decision.kind, decision.version) for decision in read_decisions(workspace)]


@pytest.fixture
def trusted(tmp_path: Path, course: Course, outcomes: Outcomes) -> Manifest:
    """Version 1, right in 80 %, the first that the gate saw."""
    manifest = put(tmp_path, course.spec, 1, 0.8)
    assert gate(tmp_path, 1, course, STARTS, outcomes).verdict == "first"
    assert course.runs == 0
    return manifest


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("quality", "starts", "verdict", "kinds"),
    [
        (0.98, 200, "not worse", [("promoted", 2)]),
        (0.8, 200, "not worse", [("promoted", 2)]),
        (0.78, 200, "not worse", [("passed", 2)]),
        (0.4, 200, "worse", [("refused", 2), ("rolled_back", 1)]),
        (0.8, 10, "insufficient evidence", [("undecided", 2)]),
    ],
)
def test_every_verdict_has_its_decision_with_its_numbers(
    tmp_path: Path, course: Course, outcomes: Outcomes, quality: float, starts: int, verdict: str, kinds: list[tuple[str, int]]
) -> None:
    put(tmp_path, course.spec, 2, quality)
    assert gate_is_due(tmp_path, 2)
    result = gate(tmp_path, 2, course, STARTS[:starts], outcomes)
    assert (result.verdict, decided(tmp_path)[1:]) == (verdict, kinds)
    assert not gate_is_due(tmp_path, 2)
    decision = read_decisions(tmp_path)[1]
    numbers = decision.evidence
    assert (decision.author, numbers["against"], numbers["verdict"]) == (GATE, 1, verdict)
    assert numbers["pairs"] <= starts
    assert numbers["only_candidate"] - numbers["only_trusted"] == numbers["candidate_successes"] - numbers["trusted_successes"]
    low, high = numbers["candidate_interval"]
    assert low <= numbers["candidate_successes"] / numbers["pairs"] <= high


@pytest.mark.usefixtures("trusted")
def test_a_worse_version_leaves_the_robot_until_a_good_one_passes(tmp_path: Path, course: Course, outcomes: Outcomes) -> None:
    acting = Acting(tmp_path, course.spec, 0)
    put(tmp_path, course.spec, 2, 0.3)
    acting.follow_decisions()
    acting.offer(acting.newest_on_disk())
    assert acting.version == 2
    gate(tmp_path, 2, course, STARTS, outcomes)
    assert acting.follow_decisions()
    assert (acting.version, acting.pinned) == (1, 1)
    put(tmp_path, course.spec, 3, 0.3)
    gate(tmp_path, 3, course, STARTS, outcomes)
    assert decided(tmp_path)[-1] == ("refused", 3)  # the robot is back already
    put(tmp_path, course.spec, 4, 0.95)
    gate(tmp_path, 4, course, STARTS, outcomes)
    acting.follow_decisions()
    acting.offer(acting.newest_on_disk())
    assert (acting.version, acting.pinned) == (4, 0)


def test_the_gate_never_ends_a_persons_rollback(tmp_path: Path, course: Course, outcomes: Outcomes, trusted: Manifest) -> None:
    for version, quality in ((2, 0.95), (3, 0.3)):
        put(tmp_path, course.spec, version, quality)
    decide(tmp_path, [("rolled_back", trusted)], author="op-01", reason="it scratches")
    gate(tmp_path, 2, course, STARTS, outcomes)
    gate(tmp_path, 3, course, STARTS, outcomes)
    now = current_standing(tmp_path, "toy", "reach")
    assert (now.trusted, now.pinned, now.refused) == (2, 1, frozenset({3}))


def test_what_a_person_fled_is_never_trusted_without_a_comparison(tmp_path: Path, course: Course, outcomes: Outcomes) -> None:
    """Rolled back to a version older than every promotion, so that nothing is trusted any more."""
    for version, quality in ((1, 0.8), (2, 0.9), (3, 0.3), (4, 0.98)):
        put(tmp_path, course.spec, version, quality)
    assert gate(tmp_path, 2, course, STARTS, outcomes).verdict == "first"
    decide(tmp_path, [("rolled_back", read_manifest(version_folder(tmp_path, 1)))], author="op-01", reason="it scratches")
    assert current_standing(tmp_path, "toy", "reach").trusted == 0
    assert not gate_is_due(tmp_path, 1)
    assert gate_is_due(tmp_path, 3)
    assert gate(tmp_path, 3, course, STARTS, outcomes).verdict == "worse"
    assert not gate_is_due(tmp_path, 3)
    now = current_standing(tmp_path, "toy", "reach")
    assert (now.trusted, now.pinned, now.pinned_by, now.refused) == (0, 1, "op-01", frozenset({3}))
    result = gate(tmp_path, 4, course, STARTS, outcomes)
    assert (result.trusted, result.numbers["against"], decided(tmp_path)[-1]) == (1, 1, ("promoted", 4))
    assert current_standing(tmp_path, "toy", "reach").pinned == 1, "until the person says otherwise"


@pytest.mark.usefixtures("trusted")
def test_the_gate_leaves_a_person_who_holds_the_robot_to_the_very_candidate(tmp_path: Path, course: Course, outcomes: Outcomes) -> None:
    decide(tmp_path, [("rolled_back", put(tmp_path, course.spec, 2, 0.3))], author="op-01", reason="I want to see it")
    assert gate(tmp_path, 2, course, STARTS, outcomes).verdict == "worse"
    now = current_standing(tmp_path, "toy", "reach")
    assert (now.trusted, now.pinned, now.pinned_by, now.refused) == (1, 2, "op-01", frozenset({2}))


@pytest.mark.usefixtures("trusted")
def test_a_stopped_comparison_decides_nothing_and_goes_on_where_it_was(tmp_path: Path, course: Course, outcomes: Outcomes) -> None:
    put(tmp_path, course.spec, 2, 0.79)
    with pytest.raises(EvaluationCancelled, match="10 of 200"):
        gate(tmp_path, 2, course, STARTS, outcomes, on_progress=lambda done, total: done < 10)
    assert len(decided(tmp_path)) == 1
    before = course.runs
    candidate = load_policy(version_folder(tmp_path, 2), course.spec).manifest.sha256
    outcomes.path.write_bytes(outcomes.path.read_bytes() + f'{{"sha256": "{candidate}", "con'.encode())
    again = Outcomes(tmp_path, outcomes.conditions)
    result = gate(tmp_path, 2, course, STARTS, again)
    assert again.unreadable == 1
    assert before == 20
    assert course.runs == 2 * result.numbers["pairs"]  # no start was run twice
    assert Outcomes(tmp_path, "another robot").get(result.decisions[0].sha256, 0) is None


def test_outcomes_of_many_policies_do_not_fill_the_memory(outcomes: Outcomes) -> None:
    names = [f"{i:064x}" for i in range(3 * POLICIES_HELD)]
    for start in range(3):
        for name in names:
            outcomes.put(name, start, success=True, steps=start)
    assert len(outcomes._held) == POLICIES_HELD
    found = [[outcomes.get(name, start) for start in range(4)] for name in names]
    assert all([one and one.steps for one in row] == [0, 1, 2, None] for row in found)
    assert len(outcomes.path.read_bytes().splitlines()) == 3 * len(names)


@pytest.mark.usefixtures("trusted")
def test_a_decision_in_the_meantime_wins(tmp_path: Path, course: Course, outcomes: Outcomes) -> None:
    manifest = put(tmp_path, course.spec, 2, 0.3)

    def person_promotes(done: int, total: int) -> bool:
        if done == 5:
            decide(tmp_path, [("promoted", manifest)], author="op-01", reason="")
        return True

    with pytest.raises(DecisionConflict):
        gate(tmp_path, 2, course, STARTS, outcomes, on_progress=person_promotes)
    assert decided(tmp_path) == [("promoted", 1), ("promoted", 2)]


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(("version", "said"), [(1, "the trusted version 1 cannot be compared with"), (2, "sha256")])
def test_damaged_weights_on_either_side_decide_nothing(tmp_path: Path, course: Course, outcomes: Outcomes, version: int, said: str) -> None:
    put(tmp_path, course.spec, 2, 0.9)
    path = version_folder(tmp_path, version) / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(PolicyRefused, match=said):
        gate(tmp_path, 2, course, STARTS, outcomes)
    assert len(decided(tmp_path)) == 1


@pytest.mark.usefixtures("trusted")
def test_the_trusted_one_is_not_compared_with_itself(tmp_path: Path, course: Course, outcomes: Outcomes) -> None:
    assert not gate_is_due(tmp_path, 1)
    with pytest.raises(ValueError, match="itself"):
        gate(tmp_path, 1, course, STARTS, outcomes)


def test_two_policies_meet_in_an_order_of_their_own() -> None:
    here, again, other = order_of(STARTS, "a" * 64, "b" * 64), order_of(STARTS, "a" * 64, "b" * 64), order_of(STARTS, "c" * 64, "b" * 64)
    assert here == again != other
    assert sorted(here) == sorted(other) == STARTS
    assert len(set(here[:60]) & set(other[:60])) < 40  # 18 of 60 by chance; in one fixed order all


@pytest.mark.usefixtures("trusted")
def test_no_few_starts_decide_every_comparison(tmp_path: Path, course: Course, outcomes: Outcomes) -> None:
    used: list[set[int]] = []
    for version in range(2, 6):
        put(tmp_path, course.spec, version, 0.8 + version / 1000)
        before = {start for start in STARTS if outcomes.get(read_manifest(version_folder(tmp_path, 1)).sha256, start) is not None}
        gate(tmp_path, version, course, STARTS, outcomes)
        sha256 = read_manifest(version_folder(tmp_path, version)).sha256
        used.append({start for start in STARTS if outcomes.get(sha256, start) is not None})
        assert version == 2 or used[-1] - before
    assert len(set.intersection(*used)) < min(len(one) for one in used) / 2
