"""The actor lends itself to the version that a probe asks for, and goes back to what acts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from takeover.data.schema import Mode, Observation, RobotSpec
from takeover.policies.acting import Acting
from takeover.policies.decisions import decide
from takeover.policies.publish import make_manifest, publish, read_manifest, version_folder, weights_bytes
from takeover.policies.registry import make_learner


@pytest.fixture
def spec(make_robot_spec: Callable[..., Any]) -> RobotSpec:
    return make_robot_spec()  # type: ignore[no-any-return]


def put(workspace: Path, spec: RobotSpec, version: int, learner: str) -> Any:
    weights = make_learner(learner, spec, version, {"hidden": 16}).weights()
    data = weights_bytes(weights)
    swap = "step" if learner == "hil-serl" else "episode"
    publish(workspace, make_manifest(weights, data, spec, version=version, parent=version - 1, learner=learner, swap=swap), data)
    return read_manifest(version_folder(workspace, version))


def drove(acting: Acting, episode: str, seqs: range, required: int = 0) -> list[int]:
    """Versions that answered; the actor looks for newer ones and for decisions between steps, as its process does."""
    found = []
    for seq in seqs:
        observation = Observation(
            session="s",
            seq=seq,
            t_robot_ns=0,
            mode=Mode.POLICY,
            episode_id=episode,
            episode_step=seq - seqs[0],
            run_id=0,
            observation=[0.0] * 3,
            train_step=-1,
            required_version=required,
        )
        answer = acting.answer(observation)
        found.append(answer.policy_version if answer is not None else 0)
        acting.follow_decisions()
        acting.offer(acting.newest_on_disk())
    return found


@pytest.mark.parametrize("learner", ["hil-serl", "bc"])
def test_a_probe_is_driven_by_the_version_that_is_due_alone(tmp_path: Path, spec: RobotSpec, learner: str) -> None:
    for version in (1, 2):
        put(tmp_path, spec, version, learner)
    acting = Acting(tmp_path, spec, 0)
    acting.offer(2)
    assert drove(acting, "work-1", range(0, 3)) == [2, 2, 2]
    assert drove(acting, "probe", range(3, 6), required=1) == [1, 1, 1]
    put(tmp_path, spec, 3, learner)
    assert drove(acting, "probe", range(6, 9), required=1) == [1, 1, 1], "nothing newer breaks into a probe"
    assert drove(acting, "work-2", range(9, 12)) == [3, 3, 3]
    assert not acting.refused


def test_a_version_that_may_not_act_does_not_act_in_a_probe(tmp_path: Path, spec: RobotSpec) -> None:
    manifests = {version: put(tmp_path, spec, version, "hil-serl") for version in (1, 2)}
    acting = Acting(tmp_path, spec, 0)
    acting.offer(2)
    assert drove(acting, "probe-1", range(0, 2), required=2) == [2, 2]
    decide(tmp_path, [("refused", manifests[2]), ("rolled_back", manifests[1])], author="op-01", reason="it scratches")
    acting.follow_decisions()
    assert drove(acting, "probe-1", range(2, 4), required=2) == [1, 1], "a rollback holds in the middle of a probe, too"
    assert "version 2 was asked for and may not act; version 1 goes on" in acting.refused
    assert drove(acting, "work", range(4, 6)) == [1, 1]


def test_a_version_that_is_not_there_gives_no_answer_and_the_work_goes_on(tmp_path: Path, spec: RobotSpec) -> None:
    put(tmp_path, spec, 1, "hil-serl")
    acting = Acting(tmp_path, spec, 0)
    acting.offer(1)
    assert drove(acting, "probe", range(0, 2), required=9) == [0, 0]
    assert "version 9" in acting.refused
    assert drove(acting, "work", range(2, 4)) == [1, 1]
