"""The actor follows decisions: pins, refusals, damaged weights, decisions that cannot be read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from takeover.policies.acting import Acting
from takeover.policies.base import PolicyWeights
from takeover.policies.decisions import decide, decisions_path
from takeover.policies.manifest import newest_for
from takeover.policies.publish import WEIGHTS_NAME, Manifest, make_manifest, publish, read_manifest, version_folder, weights_bytes
from takeover.policies.registry import make_learner


@pytest.fixture
def spec(make_robot_spec: Callable[..., Any]) -> Any:
    return make_robot_spec()


def put(
    workspace: Path, spec: Any, version: int, seed: int = 0, learner: str = "hil-serl", weights: PolicyWeights | None = None
) -> Manifest:
    made = weights or make_learner(learner, spec, seed or version, {"hidden": 16}).weights()
    data = weights_bytes(made)
    swap = "step" if learner == "hil-serl" else "episode"
    publish(workspace, make_manifest(made, data, spec, version=version, parent=version - 1, learner=learner, swap=swap), data)
    return read_manifest(version_folder(workspace, version))


def test_a_rollback_takes_the_actor_back_and_holds_it(tmp_path: Path, spec: Any) -> None:
    manifests = {version: put(tmp_path, spec, version) for version in (1, 2, 3)}
    acting = Acting(tmp_path, spec, 0)
    assert not acting.follow_decisions()
    assert acting.offer(acting.newest_on_disk())
    assert acting.version == 3
    decide(tmp_path, [("rolled_back", manifests[1])], author="op-01", reason="it scratches")
    assert acting.follow_decisions()
    assert (acting.version, acting.pinned, acting.newest_on_disk()) == (1, 1, 1)
    put(tmp_path, spec, 4)
    assert not acting.offer(4)
    assert not acting.follow_decisions()
    assert acting.version == 1
    decide(tmp_path, [("released", manifests[1])], author="op-01", reason="repaired")
    assert not acting.follow_decisions()  # the newest comes the usual way
    assert acting.offer(acting.newest_on_disk())
    assert acting.version == 4


def test_a_rollback_behind_more_versions_than_are_kept_loaded(tmp_path: Path, spec: Any) -> None:
    """An hour with the gate: five newer versions had acted meanwhile, and the rollback ended the actor."""
    acting = Acting(tmp_path, spec, 0)
    manifests = {}
    for version in range(1, 8):
        manifests[version] = put(tmp_path, spec, version)
        assert acting.offer(version)
    decide(tmp_path, [("refused", manifests[7]), ("rolled_back", manifests[1])], author="gate", reason="worse")
    assert acting.follow_decisions()
    assert (acting.version, acting.sha256) == (1, manifests[1].sha256)
    loaded = acting.current
    assert acting._load(1) is loaded, "kept loaded, as the newest ones are"
    assert len(acting._cache) == 4


def test_a_new_actor_starts_with_the_pinned_version(tmp_path: Path, spec: Any) -> None:
    manifest = put(tmp_path, spec, 1)
    put(tmp_path, spec, 2)
    decide(tmp_path, [("rolled_back", manifest)], author="op-01", reason="")
    acting = Acting(tmp_path, spec, 0)
    acting.follow_decisions()
    assert not acting.offer(2)
    assert acting.offer(acting.newest_on_disk())
    assert acting.version == 1


def test_a_rollback_does_not_wait_for_the_next_episode_and_drops_what_waited(tmp_path: Path, spec: Any) -> None:
    manifest = put(tmp_path, spec, 1, learner="sirius")
    acting = Acting(tmp_path, spec, 0)
    acting.offer(1)
    put(tmp_path, spec, 2, learner="sirius")
    assert not acting.offer(2)  # waits
    decide(tmp_path, [("rolled_back", manifest)], author="op-01", reason="")
    acting.follow_decisions()
    assert acting._next is None
    assert acting.version == 1


def test_versions_for_another_robot_are_passed_over(tmp_path: Path, spec: Any, make_robot_spec: Callable[..., Any]) -> None:
    put(tmp_path, spec, 1)
    manifest = put(tmp_path, spec, 2)
    put(tmp_path, make_robot_spec(observation=5), 3)
    acting = Acting(tmp_path, spec, 0)
    acting.offer(2)
    decide(tmp_path, [("refused", manifest)], author="gate", reason="worse")
    assert acting.follow_decisions()
    assert acting.version == 1


def test_newer_versions_of_another_task_are_passed_over(tmp_path: Path, spec: Any) -> None:
    """Another task on the same arm has the same spaces: its weights would load, and drive."""
    other = msgspec.structs.replace(spec, task_id="push")
    put(tmp_path, spec, 1)
    for version in (2, 3):
        put(tmp_path, other, version)
    acting = Acting(tmp_path, spec, 0)
    assert acting.newest_on_disk() == 1
    assert acting.offer(acting.newest_on_disk())
    put(tmp_path, other, 4)
    assert acting.newest_on_disk() == 1
    others: set[int] = set()
    assert (newest_for(tmp_path, "toy", "reach", others), others) == (1, {2, 3, 4})
    assert (newest_for(tmp_path, "toy", "push", set()), newest_for(tmp_path, "arm", "push", set())) == (4, 0)
    assert not acting.offer(4)
    assert acting.refused == "version 4 is for toy:push, this robot is toy:reach"
    put(tmp_path, spec, 5)
    assert acting.offer(acting.newest_on_disk())
    assert acting.version == 5


def test_a_rollback_that_could_not_be_read_once_is_tried_again(tmp_path: Path, spec: Any) -> None:
    manifests = {version: put(tmp_path, spec, version) for version in (1, 2)}
    acting = Acting(tmp_path, spec, 0)
    acting.offer(acting.newest_on_disk())
    weights = version_folder(tmp_path, 1) / WEIGHTS_NAME
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1])
    decide(tmp_path, [("refused", manifests[2]), ("rolled_back", manifests[1])], author="op-01", reason="it scratches")
    for _ in range(3):
        assert not acting.follow_decisions()
        assert acting.refused.startswith("version 2 goes on acting: version 1 cannot act instead")
    weights.write_bytes(kept)
    assert acting.follow_decisions()
    assert (acting.version, acting.refused) == (1, "")
    assert not acting.follow_decisions()


def test_a_refused_version_is_left_at_once(tmp_path: Path, spec: Any) -> None:
    manifests = [put(tmp_path, spec, version) for version in (1, 2)]
    acting = Acting(tmp_path, spec, 0)
    acting.offer(2)
    decide(tmp_path, [("refused", manifests[1])], author="gate", reason="worse")
    assert acting.follow_decisions()
    assert acting.version == 1
    decide(tmp_path, [("refused", manifests[0])], author="gate", reason="worse")
    assert not acting.follow_decisions()  # a robot without any policy helps nobody, but it is said
    assert (acting.version, "there is no other version" in acting.refused) == (1, True)


@pytest.mark.parametrize("damage", ["hash", "replaced"])
def test_a_pinned_version_with_bad_weights_leaves_the_acting_one_in_place(tmp_path: Path, spec: Any, damage: str) -> None:
    manifest = put(tmp_path, spec, 1)
    put(tmp_path, spec, 2)
    acting = Acting(tmp_path, spec, 0)
    acting.offer(2)
    if damage == "hash":
        path = version_folder(tmp_path, 1) / WEIGHTS_NAME
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    else:
        manifest = Manifest(**{name: getattr(manifest, name) for name in manifest.__struct_fields__} | {"sha256": "0" * 64})
    decide(tmp_path, [("rolled_back", manifest)], author="op-01", reason="")
    assert not acting.follow_decisions()
    assert acting.version == 2
    assert ("sha256" if damage == "hash" else "not those that were pinned") in acting.refused
    assert "version 2 goes on acting" in acting.refused


def test_decisions_that_cannot_be_read_stop_new_versions_and_are_named(tmp_path: Path, spec: Any) -> None:
    manifest = put(tmp_path, spec, 1)
    acting = Acting(tmp_path, spec, 0)
    acting.offer(1)
    decide(tmp_path, [("promoted", manifest)], author="op-01", reason="")
    whole = decisions_path(tmp_path).read_bytes()
    decisions_path(tmp_path).write_bytes(b"nonsense\n")
    assert not acting.follow_decisions()
    assert "line 1" in acting.refused
    put(tmp_path, spec, 2)
    assert not acting.offer(2)
    decisions_path(tmp_path).write_bytes(whole)
    acting.follow_decisions()
    assert acting.refused == ""
    assert acting.offer(2)
