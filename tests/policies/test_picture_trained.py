"""``hil-serl`` from pictures whose encoder goes on learning: whose gradient it is, what is drawn, what is kept, and an exact resume."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from takeover.data.episode_labels import EpisodeLabels
from takeover.data.schema import ControlMode, EpisodeKind, Outcome, RobotSpec
from takeover.policies import nets
from takeover.policies.base import LearnerError, SeesPictures
from takeover.policies.inference import build_policy
from takeover.policies.picture_encoder import encode
from takeover.policies.picture_hil_serl import PictureHilSerlLearner
from takeover.policies.picture_replay import AFTER, OBSERVED
from takeover.policies.picture_trained import TrainedPictureLearner
from takeover.policies.registry import check_parameters, make_learner
from takeover.policies.sac_batches import Batches
from takeover.policies.sac_networks import SacNetworks

from .test_picture_hil_serl import CAMERAS, SETTINGS, Filler, cloned, feed, images, made

TRAINED = {"encoder": "trained", "batch": 8}
FRAME = 2 * 128 * 128 * 3


@pytest.fixture
def spec(make_robot_spec: Callable[..., RobotSpec]) -> RobotSpec:
    return msgspec.structs.replace(make_robot_spec(arm=1, gripper=True), policy_cameras=CAMERAS)


@pytest.fixture
def make_fill(spec: RobotSpec, make_script: Callable[..., Any]) -> Callable[..., Filler]:
    return lambda **settings: Filler(made(spec, **TRAINED | settings), make_script(spec))


def learner_of(fill: Filler, episodes: int = 3) -> TrainedPictureLearner:
    """Cloned, with two episodes of the policy: 12 steps in all."""
    learner = cloned(fill, episodes)
    for _ in range(2):
        fill.episode(EpisodeKind.POLICY, steps=6)
    assert isinstance(learner, TrainedPictureLearner)
    return learner


def test_the_warm_start_is_that_of_a_frozen_encoder(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    """The same encoder, normaliser and actor, to the bit."""
    found = []
    for encoder in ("frozen", "trained"):
        fill = Filler(made(spec, **TRAINED | {"encoder": encoder, "written_gradients": False}), make_script(spec))
        found.append(cloned(fill).weights())
    assert found[0].architecture == found[1].architecture == "picture_gaussian"
    assert found[0].config == found[1].config
    assert [name for name, tensor in found[0].tensors.items() if not torch.equal(tensor, found[1].tensors[name])] == []


def test_updates_train_the_encoder_and_what_is_published_sees_through_it(make_fill: Callable[..., Filler]) -> None:
    learner = learner_of(make_fill(actor_average=1.0))
    before, acting = learner._encoder.clone(), learner.weights().tensors
    assert learner.updates_due() > 5
    while learner.updates_due() > 0:
        assert all(np.isfinite(value) for value in learner.update().values())
    moved = (learner._encoder - before).abs()
    assert 1e-4 < float(moved.max()) < 1e-4 * 2 * learner.updates * 1.1, "Adam moves no weight by much more than its rate"
    assert float((moved > 0).float().mean()) > 0.5
    assert torch.equal(learner._cloned_encoder, before)
    behind = (learner._target_encoder - before).abs()
    assert 0 < float(behind.max()) < float(moved.max()), "the target encoder follows"
    weights = learner.weights()
    assert not torch.equal(weights.tensors["encoder.front.c0"], acting["encoder.front.c0"])
    policy = build_policy(weights, learner.robot_spec)
    assert isinstance(policy, SeesPictures)
    policy.look(images(0.3))
    views = {name: tensor for name, tensor in weights.tensors.items() if name.startswith("encoder.")}
    pictures = np.stack([np.frombuffer(image.data, np.uint8).reshape(128, 128, 3) for image in images(0.3)])
    own = encode(learner.shape, views, torch.from_numpy(pictures).unsqueeze(0))[0]
    np.testing.assert_allclose(policy._features, own.numpy(), atol=1e-5)  # type: ignore[attr-defined]
    assert np.isfinite(policy.act(np.zeros(3, np.float32), sample=False).actions).all()


def losses(learner: TrainedPictureLearner, batch: Batches, arm: torch.Tensor, encoder: torch.Tensor, pictures: torch.Tensor) -> float:
    """The critics' loss and the gripper's cloning term, written down once more in float64, as a function of the encoder."""
    p, n, each = learner.parameters, batch.demonstrations[0], torch.arange(batch.size)
    online, target = (learner._critic_layout.views(flat.double()) for flat in (learner._critic, learner._target))
    observation = learner._seen(batch.observation.detach().double(), encoder, pictures)
    values = nets.critics(online, torch.cat([observation, batch.arm], 1))
    assert batch.command is not None
    assert batch.target_following is not None
    seen, following = (torch.cat([one.double(), arm], 1) for one in (batch.target_following, batch.following))
    choice = nets.critics(online, following).mean(0).argmax(-1)
    next_value = nets.critics(target, seen)[:, each, choice].amin(0)
    chosen = values[:, each, batch.command]
    loss = (chosen - batch.reward - batch.bootstrap * next_value).square().mean()
    others = values[:, :n] + p.gripper_margin * (1 - torch.nn.functional.one_hot(batch.command[:n], 3))
    return float(loss + p.gripper_bc_weight * (others.amax(-1) - chosen[:, :n]).mean())


def test_the_encoders_gradient_is_that_of_the_critics_loss_and_of_the_grippers_term(make_fill: Callable[..., Filler]) -> None:
    """Against differences of the loss, with a target encoder that is another one; along the gradient and along a random direction."""
    learner = learner_of(make_fill())
    p, generator = learner.parameters, torch.Generator().manual_seed(1)
    learner._target_encoder += 0.05 * torch.randn(learner._encoder.shape, generator=generator)
    state = learner.generator.get_state()
    batch = learner._pictured(learns=True, more=False)
    learner.generator.set_state(state)
    _, now, after = learner._drawn(more=False)
    with torch.no_grad():
        assert torch.equal(batch.following, learner._seen(batch.following, learner._encoder, after))
        assert batch.target_following is not None
        assert torch.equal(batch.target_following, learner._seen(batch.following, learner._target_encoder, after))
        assert not torch.equal(batch.target_following, batch.following)
        arm = learner._propose(batch, 1).arm
    whole = batch.for_critics(0, arm, cloning=p.gripper_bc_weight, margin=p.gripper_margin)
    with pytest.raises(ValueError, match="written-out passes know no encoder that learns"):
        SacNetworks._make_gradients(learner).critics(whole)
    learner._autograd.critics(whole)
    gradient = learner._autograd.encoder_gradient
    assert gradient is not None
    with torch.no_grad():
        encoder = learner._encoder.double()
        for direction in (gradient / gradient.norm(), torch.randn(gradient.shape, generator=generator) / gradient.numel() ** 0.5):
            sides = [losses(learner, batch, arm, encoder + sign * 1e-6 * direction, now) for sign in (1.0, -1.0)]
            assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(float(gradient @ direction), rel=1e-3, abs=1e-5 * float(gradient.norm()))


def test_the_actor_pushes_nothing_into_the_encoder_and_is_held_to_what_the_clone_saw(make_fill: Callable[..., Filler]) -> None:
    learner = learner_of(make_fill(keep_warm_start=True, actor_delay=0))
    with torch.no_grad():
        learner._encoder += 0.02
    before = learner._encoder.clone()
    batch = learner._pictured_for_actor()
    assert not batch.observation.requires_grad
    expected = learner._seen(batch.observation[3:], learner._cloned_encoder, learner._looked_at[3:])
    assert torch.equal(learner._clone_sees(batch.observation, 3), expected)
    assert not torch.equal(expected, batch.observation[3:])
    assert np.isfinite(learner._actor_update(batch, 0, learner._propose(batch, 0))["actor_loss"])
    assert torch.equal(learner._encoder, before)


def test_while_the_actor_waits_so_does_the_encoder(make_fill: Callable[..., Filler]) -> None:
    learner = learner_of(make_fill(keep_warm_start=True, actor_delay=3))
    before, weights, critic = learner._encoder.clone(), learner.weights().tensors, learner._critic.clone()
    for _ in range(3):
        learner.update()
    assert torch.equal(learner._encoder, before)
    assert not torch.equal(learner._critic, critic)
    assert all(torch.equal(weights[name], tensor) for name, tensor in learner.weights().tensors.items() if not name.startswith("critic"))
    learner.update()
    assert not torch.equal(learner._encoder, before)


@pytest.mark.parametrize("store", ["raw", "jpeg"])
def test_batches_hold_the_pictures_of_their_steps_each_with_a_crop_of_its_own(make_fill: Callable[..., Filler], store: str) -> None:
    """The bar stands where the step's action says; half of the batch is demonstrations and corrections."""
    learner = learner_of(make_fill(batch=32, picture_store=store))
    fill_column = learner.replay.columns.action.start
    learner.generator.manual_seed(3)
    batches = [learner._pictures.sample_pictures(32, learner.generator, more=False) for _ in range(2)]
    learner.generator.manual_seed(3)
    again = learner._pictures.sample_pictures(32, learner.generator, more=False)
    assert batches[1].demonstrations == 16
    assert torch.equal(again.rows, batches[0].rows), "crops and steps follow from the learner's generator"
    shifts = set()
    frames = learner._pictures.frames
    for row, seen, after in zip(again.rows, again.observation, again.following, strict=True):
        found = []
        for number, picture in ((row[OBSERVED], seen), (row[AFTER], after)):
            still = np.empty((1, *frames.shape), np.uint8)
            frames.copy(np.array([int(number)]), np.zeros((1, 2), np.int64), still)
            bright = [np.argwhere(one[0, :, :, 0] > 150) for one in (still[0][:, :, :, :], picture.numpy())]
            found.append(tuple((bright[1].mean(0) - bright[0].mean(0)).round().astype(int)))
            if number == row[OBSERVED]:
                column = (float(row[fill_column]) + 1) / 2 * 104
                assert abs(bright[0][:, 1].min() - column) <= 1.5
        shifts.add(tuple(found))
    assert len(shifts) > 20
    assert sum(a != b for a, b in shifts) > 15


@pytest.mark.parametrize(("store", "delay"), [("raw", 2), ("jpeg", 2), ("jpeg", 5)])
@pytest.mark.parametrize("prepared", [True, False])
def test_a_restored_learner_goes_on_bit_for_bit(
    make_fill: Callable[..., Filler], spec: RobotSpec, prepared: bool, store: str, delay: int
) -> None:
    """Saved while the encoder learns, and while it waits; with a correction in no batch yet, and right after an update."""
    how = {"picture_store": store, "keep_warm_start": True, "actor_delay": delay}
    fill = make_fill(**how)
    learner = learner_of(fill)
    for _ in range(4):
        learner.update()
    if store == "raw":
        fill.episode(EpisodeKind.POLICY, mode=ControlMode.HUMAN)
    state = learner.state()
    assert len(state["values"]["unused_corrections"]) == (store == "raw")
    again = made(spec, **TRAINED, **how)
    if prepared:
        again.prepare(state)
    for record in fill.records:
        feed(again, record)
    again.restore(state)
    for one in (learner, again):
        for _ in range(3):
            one.update()
    first, second = learner.state()["tensors"], again.state()["tensors"]
    assert {"encoder", "encoder_target", "encoder_published", "encoder_clone", "adam_encoder.moment1", "generator"} <= first.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert learner.corrections_used() == again.corrections_used() == ([("e005", 0)] if store == "raw" else [])


def test_a_state_of_the_other_kind_of_encoder_is_refused_by_name(make_fill: Callable[..., Filler], spec: RobotSpec) -> None:
    states = [cloned(make_fill(encoder=encoder), 2).state() for encoder in ("trained", "frozen")]
    for state, (was, now) in zip(states, (("trained", "frozen"), ("frozen", "trained")), strict=True):
        other = made(spec, **TRAINED | {"encoder": now})
        other.prepare(state)
        assert not other.frozen
        with pytest.raises(LearnerError, match=rf"\(encoder was {was} and is {now}\); use a new workspace or the same settings"):
            other.restore(state)


def test_labels_hold_in_the_next_batch_and_what_they_take_back_comes_back(make_fill: Callable[..., Filler]) -> None:
    fill = make_fill()
    learner = learner_of(fill)
    name = fill.episode(EpisodeKind.POLICY, steps=4)
    assert learner.replay.online.size == 16
    learner.exclude(name)
    assert learner.replay.online.size == 12
    assert learner.apply_labels(EpisodeLabels(episode_id=name, left_out=((0, 1),)))
    assert learner.replay.online.size == 14
    learner.relabel(name, Outcome.SUCCESS, 3)
    rewards = learner.replay.online.rows[: learner.replay.online.size, learner.replay.columns.reward]
    assert float(rewards.max()) == pytest.approx(1.0 - learner.parameters.gripper_penalty)
    learner.update()


def test_a_loss_that_is_no_number_changes_nothing(make_fill: Callable[..., Filler]) -> None:
    learner = learner_of(make_fill())
    learner.update()
    rows, column = learner.replay.online.rows, learner.replay.columns.reward
    good = rows[:, column].clone()
    before = [held.clone() for held in (learner._encoder, learner._critic, learner._encoder_optimiser.moment1)]
    rows[:, column] = float("nan")
    assert learner.update()["skipped"] == 1.0
    after = (learner._encoder, learner._critic, learner._encoder_optimiser.moment1)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    with torch.no_grad():
        learner._encoder.fill_(float("nan"))
    for _ in range(4):
        learner.update()
    assert torch.isfinite(learner._encoder).all(), "five in a row bring the last good state back, encoder included"
    rows[:, column] = good
    assert learner.update()["skipped"] == 5.0


def test_the_last_step_before_a_crash_is_left_out_and_counted(make_fill: Callable[..., Filler]) -> None:
    fill = make_fill()
    learner = learner_of(fill)
    learner.begin_episode(fill.script.start())
    learner.ingest([fill.script.step(images=images(0.0), action=[0.0, 0.0]), fill.script.step(images=images(0.1), action=[0.0, 0.0])])
    fill.episode(EpisodeKind.POLICY)
    assert (learner.steps_left_out, learner.replay.online.size) == (1, 12 + 6)


def test_a_frame_is_kept_once_and_the_bound_on_bytes_holds(make_fill: Callable[..., Filler], spec: RobotSpec) -> None:
    """3 demonstrations of 5 steps are 18 frames; with room for 40 the oldest episodes of the policy go, corrections too."""
    fill = make_fill(picture_bytes=40 * FRAME)
    learner = learner_of(fill)
    assert learner.picture_bytes == (18 + 14) * FRAME
    names = [fill.episode(EpisodeKind.POLICY, mode=mode) for mode in [ControlMode.HUMAN, *[ControlMode.POLICY] * 4]]
    keys = learner.replay._keys
    for buffer in (learner.replay.demonstrations, learner.replay.online):
        assert keys[names[0]] not in buffer.episode[: buffer.size].tolist()
    assert learner.replay.demonstrations.size == 15
    assert set(learner.replay.online.episode[: learner.replay.online.size].tolist()) == {keys[name] for name in names[-3:]}
    assert learner.picture_bytes <= 40 * FRAME
    for _ in range(3):
        learner.update()
    state = learner.state()
    again = made(spec, **TRAINED, picture_bytes=40 * FRAME)
    again.prepare(state)
    wanted = {*state["values"]["again"]}
    for record in fill.records:
        if record.episode_id in wanted:
            feed(again, record)
    again.restore(state)
    assert not wanted & set(names[:2])
    less = made(spec, **TRAINED, picture_bytes=30 * FRAME)  # somebody whose memory ran out
    less.prepare(state)
    for record in fill.records:
        if record.episode_id in wanted:
            feed(less, record)
    less.restore(state)
    assert 18 * FRAME <= less.picture_bytes <= 30 * FRAME
    assert less.replay.demonstrations.size == 15
    less.update()
    for one in (learner, again):
        one.update()
    first, second = learner.state()["tensors"], again.state()["tensors"]
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_an_excluded_episode_goes_with_its_age_and_room_for_demonstrations_alone_is_refused(make_fill: Callable[..., Filler]) -> None:
    fill = make_fill(picture_bytes=40 * FRAME)
    learner = learner_of(fill)
    learner.exclude("e003")  # the first of the policy's
    for _ in range(3):
        fill.episode(EpisodeKind.POLICY)
    assert list(learner.replay._labelled.rows_out()) == []
    for _ in range(2):
        fill.episode(EpisodeKind.DEMONSTRATION)
    with pytest.raises(LearnerError, match=r"no room for the pictures of episode e\d+, step \d+: all .* bytes .*learner.picture_bytes"):
        fill.episode(EpisodeKind.DEMONSTRATION, steps=30)


def test_the_same_seed_gives_the_same_weights(make_fill: Callable[..., Filler]) -> None:
    found = []
    for _ in range(2):
        learner = learner_of(make_fill())
        for _ in range(3):
            learner.update()
        found.append(learner.weights().tensors)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_what_does_not_go_together_is_refused(spec: RobotSpec) -> None:
    for settings, said in (
        ({"residual_scale": 0.5}, "residual_scale needs encoder = 'frozen'"),
        ({"encoder": "free"}, "encoder = 'free'; allowed: frozen, trained"),
        ({"picture_store": "png"}, "picture_store = 'png'; allowed: raw, jpeg"),
        ({"picture_bytes": 999}, "picture_bytes = 999; allowed 1000000 to"),
        ({"encoder_critic_rate": 0.0}, r"encoder_critic_rate = 0\.0"),
    ):
        with pytest.raises(ValueError, match=said):
            make_learner("hil-serl", spec, 0, SETTINGS | TRAINED | settings)
    with pytest.raises(LearnerError, match="encoder = 'trained' needs observations = 'pictures'"):
        make_learner("hil-serl", spec, 0, TRAINED)
    check_parameters("hil-serl", {"encoder": "trained"})  # as the command line does, one at a time
    assert type(made(spec)) is PictureHilSerlLearner
