"""``hil-serl`` from pictures: cloned and frozen encoder, features in replay, policies that look, and what is refused."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from takeover.data.episode_labels import EpisodeLabels
from takeover.data.schema import ControlMode, EpisodeKind, PolicyImage, RobotSpec
from takeover.policies.base import LearnerError, PolicyRefused, PolicyWeights, SeesPictures
from takeover.policies.inference import build_policy
from takeover.policies.picture_hil_serl import PictureHilSerlLearner
from takeover.policies.registry import make_learner

CAMERAS = ["front", "wrist"]
SETTINGS: dict[str, Any] = {
    **{"observations": "pictures", "camera_features": 8, "crops": 3, "encoder_updates": 12, "encoder_batch": 16, "hidden": 16},
    **{"batch": 16, "clone_updates": 20, "critic_warmup": 5, "learning_starts": 2, "keep_warm_start": False},
}
SIZE = 128


def picture(camera: str, place: float) -> PolicyImage:
    """A bright bar whose column says where the goal is: ``place`` in [-1, 1]."""
    data = np.full((SIZE, SIZE, 3), 30 if camera == "front" else 60, np.uint8)
    column = round((place + 1) / 2 * (SIZE - 24))
    data[40:90, column : column + 24] = 220
    return PolicyImage(camera=camera, height=SIZE, width=SIZE, data=data.tobytes())


def images(place: float) -> list[PolicyImage]:
    return [picture(camera, place) for camera in CAMERAS]


@pytest.fixture
def spec(make_robot_spec: Callable[..., RobotSpec]) -> RobotSpec:
    return msgspec.structs.replace(make_robot_spec(arm=1, gripper=True), policy_cameras=CAMERAS)


class Filler:
    """Episodes in which the action is the place of the bar, and nothing in the numbers tells it."""

    def __init__(self, learner: PictureHilSerlLearner, script: Any, seed: int = 0) -> None:
        self.learner, self.script, self.random = learner, script, np.random.default_rng(seed)
        self.records: list[Any] = []

    def episode(self, kind: EpisodeKind, steps: int = 5, mode: ControlMode | None = None, **end: Any) -> str:
        mode = mode or (ControlMode.HUMAN if kind == EpisodeKind.DEMONSTRATION else ControlMode.POLICY)
        self._feed(self.script.start(kind))
        place = float(self.random.uniform(-1, 1))
        for i in range(steps):
            action, now = [place, 1.0 if place > 0 else -1.0], images(place)
            place = float(self.random.uniform(-1, 1))
            after = images(place) if i == steps - 1 else []
            zeros = [0.0] * self.script.spec.observation.size
            self._feed(self.script.step(mode, images=now, next_images=after, observation=zeros, next_observation=zeros, action=action))
        self._feed(self.script.end(**end))
        return str(self.script.episode_id)

    def _feed(self, record: Any) -> None:
        self.records.append(record)
        feed(self.learner, record)


def feed(learner: Any, record: Any) -> None:
    kind = type(record).__name__
    if kind == "Step":
        learner.ingest([record])
    elif kind == "EpisodeStart":
        learner.begin_episode(record)
    else:
        learner.end_episode(record)


def made(spec: RobotSpec, **settings: Any) -> PictureHilSerlLearner:
    learner = make_learner("hil-serl", spec, 0, SETTINGS | settings)
    assert isinstance(learner, PictureHilSerlLearner)
    return learner


@pytest.fixture
def fill(spec: RobotSpec, make_script: Callable[..., Any]) -> Filler:
    return Filler(made(spec), make_script(spec))


def cloned(fill: Filler, episodes: int = 4) -> PictureHilSerlLearner:
    for _ in range(episodes):
        fill.episode(EpisodeKind.DEMONSTRATION)
    progress = list(fill.learner.clone_demonstrations())
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    return fill.learner


def test_before_the_encoder_is_cloned_steps_count_and_nothing_is_due(fill: Filler) -> None:
    fill.episode(EpisodeKind.DEMONSTRATION)
    fill.episode(EpisodeKind.POLICY)
    learner = fill.learner
    assert (learner.demonstration_episodes, learner.train_steps, learner.updates_due(), learner.frozen) == (1, 5, 0, False)


def test_cloning_freezes_the_encoder_and_keeps_features_in_the_place_of_pictures(fill: Filler) -> None:
    learner = cloned(fill)
    assert learner.frozen
    assert learner.replay.demonstrations.size == 20
    encoder = learner._encoder.clone()
    fill.episode(EpisodeKind.POLICY, steps=20)
    while learner.updates_due() > 0:
        assert np.isfinite(learner.update()["critic_loss"])
    assert learner.updates > 20
    assert torch.equal(encoder, learner._encoder)


def test_features_are_those_of_the_picture_seen_and_of_the_one_after_it(fill: Filler) -> None:
    learner = cloned(fill)
    fill.episode(EpisodeKind.POLICY, steps=3)
    rows, c, f = learner.replay.online.rows[:3], learner.replay.columns, 2 * SETTINGS["camera_features"]
    now, after = rows[:, c.observation][:, -f:], rows[:, c.next_observation][:, -f:]
    assert torch.equal(after[:2], now[1:])
    assert not torch.equal(now[0], now[1])
    policy = build_policy(learner.weights(), learner.robot_spec)
    assert isinstance(policy, SeesPictures)
    steps = [record for record in fill.records if type(record).__name__ == "Step"][-3:]
    policy.look(steps[0].images)
    np.testing.assert_allclose(policy._features, now[0].numpy(), atol=1e-4)  # type: ignore[attr-defined]


def test_batches_take_every_crop_on_its_own_for_both_observations(fill: Filler) -> None:
    learner = cloned(fill)
    c, f = learner.replay.columns, 2 * SETTINGS["camera_features"]
    for demonstrations_only in (True, False):
        pairs = set()
        for _ in range(20):
            rows, _ = learner._batch(demonstrations_only)
            width = c.width - learner._features.extra_columns
            first = learner.replay.demonstrations.rows[: learner.replay.demonstrations.size]
            for row in rows:
                own = first[(first[:, width:] == row[width:]).all(1)][0]
                others = own[width:].view(2, SETTINGS["crops"] - 1, f)
                found = []
                for i, place in enumerate((c.observation, c.next_observation)):
                    crops = [own[place.stop - f : place.stop], *others[i]]
                    found.append(next(j for j, crop in enumerate(crops) if torch.equal(crop, row[place.stop - f : place.stop])))
                pairs.add(tuple(found))
        assert pairs == {(i, j) for i in range(3) for j in range(3)}


def test_a_cloned_policy_acts_on_what_it_sees_alone(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner = made(spec, encoder_updates=150, clone_updates=300, hidden=32)
    cloned(Filler(learner, make_script(spec)), episodes=12)
    policy = build_policy(learner.weights(), spec)
    assert isinstance(policy, SeesPictures)
    acted = []
    places = np.linspace(-0.8, 0.8, 9)
    for place in places:
        policy.look(images(float(place)))
        acted.append(policy.act(np.zeros(3, np.float32), sample=False).actions[0])
    error = np.abs(np.array(acted)[:, 0] - places)
    assert error.mean() < 0.2, error


def test_a_policy_needs_the_pictures_of_this_very_observation(fill: Filler) -> None:
    policy = build_policy(cloned(fill).weights(), fill.learner.robot_spec)
    assert isinstance(policy, SeesPictures)
    with pytest.raises(ValueError, match="without pictures; this policy needs those of front, wrist"):
        policy.act(np.zeros(3, np.float32), sample=False)
    policy.look(images(0.3))
    policy.act(np.zeros(3, np.float32), sample=False)
    with pytest.raises(ValueError, match="without pictures"):
        policy.act(np.zeros(3, np.float32), sample=False)
    with pytest.raises(ValueError, match=r"observation: no picture of camera 'wrist' \(there: front\)"):
        policy.look(images(0.3)[:1])


def test_the_same_seed_and_pictures_give_the_same_weights(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    found = []
    for _ in range(2):
        fill = Filler(made(spec), make_script(spec))
        learner = cloned(fill)
        fill.episode(EpisodeKind.POLICY, steps=12)
        while learner.updates_due() > 0:
            learner.update()
        found.append(learner.weights().tensors)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("prepared", [True, False])
def test_a_restored_learner_goes_on_bit_for_bit(fill: Filler, spec: RobotSpec, prepared: bool) -> None:
    """``prepared``: it knows its encoder before it ingests again, and keeps no picture."""
    learner = cloned(fill)
    fill.episode(EpisodeKind.POLICY, steps=12)
    for _ in range(5):
        learner.update()
    state = learner.state()
    again = made(spec)
    if prepared:
        again.prepare(state)
    assert again.frozen == prepared
    for record in fill.records:
        feed(again, record)
    again.restore(state)
    for one in (learner, again):
        for _ in range(5):
            one.update()
    first, second = learner.weights().tensors, again.weights().tensors
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_state_of_another_device_and_without_newer_settings_is_taken(fill: Filler, spec: RobotSpec) -> None:
    state = cloned(fill).state()
    state["values"]["parameters"] |= {"device": "cuda", "written_gradients": False}
    del state["values"]["parameters"]["ee_frame"]
    other = made(spec)
    other.prepare(state)
    assert other.frozen
    assert torch.equal(other._encoder, state["tensors"]["encoder"])


def test_a_state_of_other_cameras_or_settings_is_refused(fill: Filler, spec: RobotSpec) -> None:
    state = cloned(fill).state()
    for other in (made(spec, crops=2), made(msgspec.structs.replace(spec, policy_cameras=["front"]))):
        with pytest.raises(LearnerError, match="other settings or cameras"):
            other.restore(state)
        assert not other.frozen


def test_labels_given_before_and_after_cloning_hold(fill: Filler) -> None:
    bad = fill.episode(EpisodeKind.DEMONSTRATION)
    fill.learner.exclude(bad)
    learner = cloned(fill)
    assert learner.replay.demonstrations.size == 20
    late = fill.episode(EpisodeKind.POLICY)
    assert learner.replay.online.size == 5
    assert learner.apply_labels(EpisodeLabels(episode_id=late, left_out=((0, 1),)))
    assert learner.replay.online.size == 3
    assert learner.apply_labels(EpisodeLabels(episode_id=late))
    assert learner.replay.online.size == 5


def test_the_last_step_before_a_crash_is_left_out(fill: Filler) -> None:
    learner = cloned(fill)
    learner.begin_episode(fill.script.start())
    learner.ingest([fill.script.step(images=images(0.0), action=[0.0, 0.0]), fill.script.step(images=images(0.1), action=[0.0, 0.0])])
    fill.episode(EpisodeKind.POLICY)
    assert (learner.steps_left_out, learner.replay.online.size) == (1, 6)


def test_no_camera_for_the_policy_is_refused(make_robot_spec: Callable[..., RobotSpec]) -> None:
    with pytest.raises(LearnerError, match=r"policy_cameras is empty; name some of the station's cameras \(none\)"):
        made(make_robot_spec())


def test_an_episode_with_other_cameras_is_refused_with_its_name(fill: Filler, spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    other = make_script(msgspec.structs.replace(spec, policy_cameras=["front"]))
    with pytest.raises(ValueError, match="episode e000: the policy saw front; this learner needs wrist"):
        fill.learner.begin_episode(other.start())


def test_a_picture_of_another_size_is_refused_with_its_place(fill: Filler) -> None:
    fill.learner.begin_episode(fill.script.start())
    small = [PolicyImage(camera=camera, height=64, width=64, data=bytes(64 * 64 * 3)) for camera in CAMERAS]
    with pytest.raises(ValueError, match=r"episode e000, step 0, images: camera 'front' gives 64x64 in 12288 bytes; expected 128x128"):
        fill.learner.ingest([fill.script.step(images=small, next_images=small), fill.script.step(images=small)])


@pytest.mark.parametrize("bad", ["missing", "shape", "nan", "camera"])
def test_weights_that_do_not_fit_are_refused(fill: Filler, bad: str) -> None:
    weights, spec = cloned(fill).weights(), fill.learner.robot_spec
    tensors, name = dict(weights.tensors), "encoder.wrist.w"
    if bad == "missing":
        del tensors[name]
    elif bad == "shape":
        tensors[name] = tensors[name][:, :4]
    elif bad == "nan":
        tensors[name] = tensors[name] * float("nan")
    else:
        spec = msgspec.structs.replace(spec, policy_cameras=["front"])
    with pytest.raises(PolicyRefused, match="wrist"):
        build_policy(PolicyWeights(weights.architecture, weights.config, tensors), spec)


@pytest.mark.parametrize(("name", "value"), [("observations", "photos"), ("crops", 9), ("camera_features", 1), ("encoder_updates", 0)])
def test_settings_out_of_range_are_refused_by_name(spec: RobotSpec, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} = "):
        make_learner("hil-serl", spec, 0, SETTINGS | {name: value} if name != "observations" else {name: value})


@pytest.mark.parametrize("switch", [{"keep_warm_start": True, "actor_delay": 3}, {"residual_scale": 0.5}, {"takeover_reward": -1.0}])
def test_the_switches_of_hil_serl_work_from_pictures_too(spec: RobotSpec, make_script: Callable[..., Any], switch: dict[str, Any]) -> None:
    fill = Filler(made(spec, **switch), make_script(spec))
    learner = cloned(fill)
    fill.episode(EpisodeKind.POLICY, steps=12)
    while learner.updates_due() > 0:
        assert np.isfinite(learner.update()["critic_loss"])
    policy = build_policy(learner.weights(), spec)
    assert isinstance(policy, SeesPictures)
    policy.look(images(0.5))
    assert np.isfinite(policy.act(np.zeros(3, np.float32), sample=False).actions).all()
