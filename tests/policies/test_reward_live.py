"""The classifier beside an acting policy: followed from disk, scored per observation, never in the way of the policy."""

import msgspec
import numpy as np
import torch

from takeover.data.schema import Mode, Observation, PolicyImage
from takeover.policies import nets
from takeover.policies.acting import Acting
from takeover.policies.publish import make_manifest, publish, weights_bytes
from takeover.policies.registry import make_learner
from takeover.policies.reward_live import RewardWatch
from takeover.policies.reward_model import MEAN, SCALE, RewardConfig, RewardModel
from takeover.policies.reward_store import load_reward, rewards_folder, write_reward

ABOUT = {"snapshot": "", "label_log_bytes": 0, "data": {}, "metrics": {}, "ends": {}, "trained_on": [], "held_out": [], "settings": {}}


def write(folder, spec, cameras=(), threshold=0.8):
    """A classifier whose logit is 10 times the first number (and 0 from any picture)."""
    config = RewardConfig(
        observation_size=spec.observation.size,
        inputs=(0,),
        cameras=cameras,
        hidden=4,
        members=1,
        features=4,
        picture_size=16,
        threshold=threshold,
        checks=((1, -1.0, 1.0),),
    )
    tensors = {name: torch.zeros(shape) for name, shape in config.head_layout().shapes.items()}
    tensors |= {name: torch.zeros(shape) for name, shape in config.encoder_layout().shapes.items()}
    tensors["critic.w0"][0, 0, :2] = torch.tensor([1.0, -1.0])  # LayerNorm keeps the sign of the number
    tensors["critic.w1"][0, :2, :2] = torch.eye(2)
    tensors["critic.w2"][0, :2, 0] = torch.tensor([5.0, -5.0])
    tensors |= {MEAN: torch.zeros(config.width), SCALE: torch.ones(config.width)}
    about = {"parent": 0, "robot_id": spec.robot_id, "task_id": spec.task_id, "observation_names": list(spec.observation.names)}
    return write_reward(folder, RewardModel(config, tensors), **ABOUT, **about)


def observation(values, seq=0, images=()):
    fields = {"session": "s", "seq": seq, "t_robot_ns": 0, "mode": Mode.POLICY, "episode_id": "e", "episode_step": seq, "run_id": 0}
    return Observation(**fields, observation=list(values), images=list(images))


def test_an_actor_says_the_probability_and_whether_it_passes(tmp_path, make_robot_spec):
    spec = make_robot_spec()
    weights = make_learner("hil-serl", spec, 1, {"hidden": 16}).weights()
    data = weights_bytes(weights)
    publish(tmp_path, make_manifest(weights, data, spec, version=1, parent=0, learner="hil-serl", swap="step"), data)
    alone = Acting(tmp_path, spec, 0)
    alone.offer(1)
    without = alone.answer(observation([1.0, 0.0, 0.0]))
    assert (without.scores, without.success, without.reward_version) == ({}, False, 0)
    write(tmp_path, spec)
    acting = Acting(tmp_path, spec, 0)
    acting.offer(1)
    high, low, checked = (acting.answer(observation(v, i)) for i, v in enumerate(([1.0, 0, 0], [-1.0, 0, 0], [1.0, 2.0, 0])))
    assert high.success
    assert high.scores["success"] > 0.8
    assert high.reward_version == 1
    assert not low.success
    assert low.scores["success"] < 0.2
    assert (checked.success, checked.scores["success"]) == (False, 0.0)  # outside of the range that success has
    assert high.actions == without.actions  # it is no part of the policy


def test_a_newer_one_is_taken_a_broken_one_is_named_and_the_old_one_goes_on(tmp_path, make_robot_spec):
    spec = make_robot_spec()
    watch = RewardWatch(tmp_path, spec)
    assert not watch.poll(0.0)
    assert watch.score(observation([1.0, 0.0, 0.0])) is None
    write(tmp_path, spec)
    assert not watch.poll(1.0)  # not so soon
    assert watch.poll(3.0)
    assert watch.version == 1
    write(tmp_path, spec)
    (rewards_folder(tmp_path) / "2" / "weights.safetensors").write_bytes(b"nothing")
    assert not watch.poll(6.0)
    assert watch.version == 1
    assert "sha256" in watch.error
    assert watch.score(observation([1.0, 0.0, 0.0])) > 0.8
    other = msgspec.structs.replace(spec, task_id="another")
    assert not RewardWatch(tmp_path, other).poll(9.0)


def test_without_its_pictures_it_says_nothing(tmp_path, make_robot_spec):
    spec = make_robot_spec()
    write(tmp_path, spec, cameras=("front",))
    watch = RewardWatch(tmp_path, spec)
    assert watch.poll(0.0)
    assert watch.score(observation([1.0, 0.0, 0.0])) is None
    picture = PolicyImage(camera="front", height=20, width=30, data=bytes(20 * 30 * 3))
    assert watch.score(observation([1.0, 0.0, 0.0], images=[picture])) > 0.8
    assert not watch.passes(None)


def test_the_smallest_of_the_members_counts(make_robot_spec):
    config = RewardConfig(observation_size=1, inputs=(0,), cameras=(), hidden=4, members=2, features=4, picture_size=16, threshold=0.7)
    tensors = {name: torch.zeros(shape) for name, shape in config.head_layout().shapes.items()} | {
        MEAN: torch.zeros(1),
        SCALE: torch.ones(1),
    }
    tensors["critic.b2"][:, 0, 0] = torch.tensor([3.0, -1.0])
    found = RewardModel(config, tensors).probabilities(np.zeros((2, 1), np.float32))
    assert np.allclose(found, 1 / (1 + np.exp(1.0)), atol=1e-6)
    assert nets.critics(tensors, torch.zeros(2, 1)).shape == (2, 2, 1)


def test_what_was_written_is_what_is_loaded(tmp_path, make_robot_spec):
    spec = make_robot_spec()
    made = write(tmp_path, spec)
    model, manifest = load_reward(tmp_path, made.version, spec)
    assert manifest == made
    assert model.config == RewardConfig.of(made.config)
