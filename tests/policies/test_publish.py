"""Published policies: what is written is what is loaded, and everything that is wrong is refused with its reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from takeover.policies.base import PolicyRefused, PolicyWeights
from takeover.policies.inference import build_policy
from takeover.policies.publish import (
    MANIFEST_NAME,
    WEIGHTS_NAME,
    load_policy,
    make_manifest,
    publish,
    published_versions,
    version_folder,
    weights_bytes,
)
from takeover.policies.registry import make_learner


@pytest.fixture
def spec(make_robot_spec: Callable[..., Any]) -> Any:
    return make_robot_spec(gripper=True)


@pytest.fixture
def weights(spec: Any) -> PolicyWeights:
    return make_learner("hil-serl", spec, 3, {"hidden": 16}).weights()


def write(workspace: Path, spec: Any, weights: PolicyWeights, version: int = 1) -> Path:
    data = weights_bytes(weights)
    return publish(
        workspace, make_manifest(weights, data, spec, version=version, parent=version - 1, learner="hil-serl", swap="step"), data
    )


def test_a_published_policy_acts_as_the_one_it_was_made_from(tmp_path: Path, spec: Any, weights: PolicyWeights) -> None:
    folder = write(tmp_path, spec, weights)
    loaded = load_policy(folder, spec)
    own = build_policy(weights, spec)
    for seed in range(5):
        observation = np.random.default_rng(seed).normal(size=3).astype(np.float32)
        assert np.array_equal(loaded.policy.act(observation, sample=False).actions, own.act(observation, sample=False).actions)
    assert published_versions(tmp_path) == [1]
    assert (
        loaded.manifest.sha256 == make_manifest(weights, weights_bytes(weights), spec, version=9, parent=0, learner="x", swap="step").sha256
    )


def test_an_unfinished_version_does_not_count(tmp_path: Path, spec: Any, weights: PolicyWeights) -> None:
    write(tmp_path, spec, weights)
    (tmp_path / "policies" / ".2.77.tmp").mkdir()
    (tmp_path / "policies" / "3").mkdir()
    assert published_versions(tmp_path) == [1]


def test_a_version_is_never_overwritten_by_other_weights(tmp_path: Path, spec: Any, weights: PolicyWeights) -> None:
    write(tmp_path, spec, weights)
    write(tmp_path, spec, weights)  # the same again is recognised
    other = make_learner("hil-serl", spec, 4, {"hidden": 16}).weights()
    with pytest.raises(FileExistsError, match="never overwritten"):
        write(tmp_path, spec, other)


@pytest.mark.parametrize("position", [0, 8, 200, -1])
def test_flipped_bits_are_refused(tmp_path: Path, spec: Any, weights: PolicyWeights, position: int) -> None:
    path = write(tmp_path, spec, weights) / WEIGHTS_NAME
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(PolicyRefused, match="sha256"):
        load_policy(path.parent, spec)


@pytest.mark.parametrize("keep", [0, 7, 100])
def test_torn_weights_and_manifests_are_refused(tmp_path: Path, spec: Any, weights: PolicyWeights, keep: int) -> None:
    folder = write(tmp_path, spec, weights)
    for name in (WEIGHTS_NAME, MANIFEST_NAME):
        path = folder / name
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(PolicyRefused):
            load_policy(folder, spec)


def test_missing_files_are_refused(tmp_path: Path, spec: Any) -> None:
    with pytest.raises(PolicyRefused, match="cannot read"):
        load_policy(version_folder(tmp_path, 5), spec)


def changed(weights: PolicyWeights, **tensors: torch.Tensor | None) -> PolicyWeights:
    kept = {n: t for n, t in (weights.tensors | tensors).items() if t is not None}
    return PolicyWeights(weights.architecture, weights.config, kept)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("actor.w0", torch.full((3, 16), float("nan")), "not finite"),
        ("critic.b1", torch.full((2, 1, 16), float("inf")), "not finite"),
        ("actor.w0", torch.zeros(4, 16), "shape"),
        ("actor.b0", None, "missing"),
        ("actor.extra", torch.zeros(1), "unknown tensors"),
        ("actor.b0", torch.zeros(16, dtype=torch.float64), "float32"),
    ],
)
def test_wrong_weights_are_refused_with_the_reason(
    tmp_path: Path, spec: Any, weights: PolicyWeights, name: str, value: torch.Tensor | None, reason: str
) -> None:
    folder = write(tmp_path, spec, changed(weights, **{name: value}))
    with pytest.raises(PolicyRefused, match=reason):
        load_policy(folder, spec)


def test_another_robot_is_refused(tmp_path: Path, spec: Any, weights: PolicyWeights, make_robot_spec: Callable[..., Any]) -> None:
    folder = write(tmp_path, spec, weights)
    with pytest.raises(PolicyRefused, match="other observations"):
        load_policy(folder, make_robot_spec(observation=4, gripper=True))
    with pytest.raises(PolicyRefused, match="another action space"):
        load_policy(folder, make_robot_spec(arm=3, gripper=True))


@pytest.mark.parametrize(
    ("action", "robot", "reason"),
    [
        ({"scale": [0.1, 0.1, 0.1]}, {}, r"trained with action scale \(0.01, 0.01, 0.01\), this robot's: \(0.1, 0.1, 0.1\)"),
        ({"kind": "joint_delta"}, {}, "action kind ee_delta, this robot's: joint_delta"),
        ({"frame": "tool"}, {}, "action frame base, this robot's: tool"),
        ({"units": ["rad", "m", "m"]}, {}, "action units"),
        ({}, {"control_hz": 100.0}, "control_hz 20, this robot's: 100"),
    ],
)
def test_weights_of_a_robot_that_means_other_actions_are_refused(
    tmp_path: Path, spec: Any, weights: PolicyWeights, action: dict[str, Any], robot: dict[str, Any], reason: str
) -> None:
    folder = write(tmp_path, spec, weights)
    other = msgspec.structs.replace(spec, action=msgspec.structs.replace(spec.action, **action), **robot)
    with pytest.raises(PolicyRefused, match=reason):
        load_policy(folder, other)


def test_what_an_older_manifest_lacks_is_not_compared(tmp_path: Path, spec: Any, weights: PolicyWeights) -> None:
    folder = write(tmp_path, spec, weights)
    path = folder / MANIFEST_NAME
    older = msgspec.json.decode(path.read_bytes())
    assert older["spaces"]["action_scale"] == [0.01, 0.01, 0.01]
    faster = msgspec.structs.replace(spec, action=msgspec.structs.replace(spec.action, scale=[0.1] * 3), control_hz=100.0)
    older["spaces"] = {"control_hz": 20.0}  # as far as it knows
    path.write_bytes(msgspec.json.encode(older))
    with pytest.raises(PolicyRefused, match="control_hz 20"):
        load_policy(folder, faster)
    del older["spaces"]
    path.write_bytes(msgspec.json.encode(older))
    assert load_policy(folder, faster).manifest.version == 1


def test_unknown_architectures_and_learners_name_the_known_ones(spec: Any, weights: PolicyWeights) -> None:
    with pytest.raises(PolicyRefused, match="known: squashed_gaussian"):
        build_policy(PolicyWeights("transformer", {}, {}), spec)
    with pytest.raises(PolicyRefused, match="lacks"):
        build_policy(PolicyWeights("squashed_gaussian", {}, weights.tensors), spec)


def test_acting_takes_well_below_a_control_period(spec: Any, weights: PolicyWeights) -> None:
    import time

    policy = build_policy(weights, spec)
    observation = np.zeros(3, np.float32)
    policy.act(observation, sample=False)
    times = []
    for _ in range(50):
        started = time.perf_counter()
        policy.act(observation, sample=False)
        times.append(time.perf_counter() - started)
    assert sorted(times)[25] < 0.01
