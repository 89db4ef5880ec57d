"""Where everything beside hil-serl's own networks is trained: batches go where the network is, and what comes back is on the CPU.

Without a GPU forward and backward passes run on the device "meta", on which tensors have shapes and no numbers; `Apart` refuses it together
with the CPU in one operation, as a GPU does. What needs a real one is skipped where there is none.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from takeover.data.schema import ControlMode, EpisodeKind, Outcome, OutcomeSource, PolicyImage, RobotSpec
from takeover.policies import nets
from takeover.policies.device import sent
from takeover.policies.flat import Layout
from takeover.policies.imitation import ImitationLearner
from takeover.policies.picture_cloning import CloningSet, CloningSettings, clone_encoder, outputs_of
from takeover.policies.picture_encoder import EncoderShape, initialise_encoder
from takeover.policies.picture_hil_serl import PictureHilSerlLearner
from takeover.policies.picture_trained import TrainedPictureLearner
from takeover.policies.reward_fit import Examples, fit, head_loss, training_device
from takeover.policies.reward_model import RewardConfig, encoder_shapes
from takeover.policies.reward_pictures import encoder_loss
from takeover.policies.reward_settings import RewardError, RewardSettings
from takeover.policies.sac_autograd import AutogradUpdate
from takeover.policies.sac_batches import Stage
from takeover.policies.steps_to_go import Bins, Targets, layout_of
from takeover.policies.steps_to_go_fit import FitSettings, batch_loss
from takeover.policies.steps_to_go_fit import fit as fit_head

AWAY = torch.device("meta")
SMALL = {"hidden": 16, "batch": 32, "clone_updates": 20, "learning_starts": 5}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Apart(TorchDispatchMode):
    """Two devices in one operation are an error, but for copies; what comes back from afar is zeros."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default:
            away = args[0].device == AWAY and kwargs.get("device", AWAY) != AWAY
            return torch.zeros(args[0].shape, dtype=args[0].dtype) if away else func(*args, **kwargs)
        devices = {leaf.device for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.dim()}
        if len(devices) > 1 and func is not torch.ops.aten.copy_.default:
            raise RuntimeError(f"{func}: tensors on {', '.join(sorted(map(str, devices)))}")
        return func(*args, **kwargs)


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> Apart:
    """No memory is locked: there is no GPU that could read it."""
    monkeypatch.setattr(Tensor, "pin_memory", lambda batch: batch)
    return Apart()


def pulled(loss: Tensor, flat: Tensor) -> bool:
    """Whether a loss and its gradient are where the parameters are."""
    (gradient,) = torch.autograd.grad(loss, [flat])
    return loss.device == gradient.device == flat.device == AWAY and loss.dim() == 0


def parameters(layout: Layout) -> Tensor:
    return torch.zeros(layout.size, device=AWAY).requires_grad_()


@pytest.fixture
def spec(make_robot_spec: Callable[..., Any]) -> RobotSpec:
    return make_robot_spec(observation=4, arm=2, gripper=True)


def teach(learner: Any, script: Any, **more: Any) -> None:
    """A demonstration and an episode of the policy with a correction; every step has ``more``."""
    for kind, mode in ((EpisodeKind.DEMONSTRATION, ControlMode.HUMAN), (EpisodeKind.POLICY, ControlMode.POLICY)):
        learner.begin_episode(script.start(kind))
        for i in range(12):
            own = ControlMode.HUMAN if i > 8 else mode
            learner.ingest([script.step(own, observation=[0.1 * i] * 4, action=[0.5, -0.1, float(i % 3 - 1)], **more)])
        learner.end_episode(script.end(outcome=Outcome.SUCCESS, source=OutcomeSource.TASK))


# --- without a GPU ---


def test_a_batch_stays_on_the_cpu_or_goes_through_page_locked_memory(apart: Apart, monkeypatch: pytest.MonkeyPatch) -> None:
    locked: list[Tensor] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda batch: locked.append(batch) or batch)
    batch = torch.ones(3)
    assert sent(batch, torch.device("cpu")) is batch
    assert locked == []
    with apart:
        there = sent(batch, AWAY)
        assert there.device == AWAY
        assert len(locked) == 1
        assert sent(there, AWAY) is there


def test_an_imitation_learner_is_where_it_was_told_to_be(
    apart: Apart, spec: RobotSpec, make_script: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("takeover.policies.imitation.choose_device", lambda wanted: AWAY)
    with apart:
        learner = ImitationLearner.make("sirius", spec, 0, SMALL)
    teach(learner, make_script(spec))
    held = [learner._flat, learner._mean, learner._scale, learner._optimiser.moment1, learner._optimiser.moment2]
    assert {tensor.device for tensor in held} == {AWAY}
    table = learner._steps()
    with apart:
        assert pulled(learner._loss(table, torch.arange(8)), learner._flat)
        learner._last_good.state = learner._state_tensors()
        state = learner.state()["tensors"]
        assert {tensor.device.type for tensor in state.values()} == {"cpu"}
        assert {tensor.device.type for tensor in learner.weights().tensors.values()} == {"cpu"}
        learner._restore_tensors({name: tensor for name, tensor in state.items() if not name.startswith("good.")})
        assert {tensor.device for tensor in held} == {AWAY}


def test_batches_of_the_reward_classifier_go_where_it_is(apart: Apart) -> None:
    config = RewardConfig(4, (0, 1, 3), (), 8, 2, 4, 16, 0.8)
    cameras = ("front", "wrist")
    encoder = Layout(encoder_shapes(cameras, 4, 16) | {"top.w": (8, 1), "top.b": (1,)})
    with apart:
        head = parameters(config.head_layout())
        assert pulled(head_loss(config.head_layout(), head, torch.zeros(6, 3), torch.ones(6)), head)
        pictures = [torch.zeros(6, 3, 16, 16) for _ in cameras]
        flat = parameters(encoder)
        assert pulled(encoder_loss(encoder, flat, pictures, torch.ones(6)), flat)


def test_batches_of_steps_to_go_go_where_the_head_is(apart: Apart) -> None:
    layout = layout_of(4, 8, Bins.of(60))
    with apart:
        some = torch.zeros(6, dtype=torch.int64)
        flat = parameters(layout)
        assert pulled(batch_loss(layout, flat, torch.zeros(6, 4), some, some + 2), flat)


def test_batches_of_the_picture_encoder_go_where_it_is(
    apart: Apart, make_robot_spec: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = EncoderShape(("front", "wrist"), 16, 16, 4)
    head = Layout(nets.mlp_layout("head", 3 + shape.size, 8, 5))
    with apart:
        views = tuple(layout.views(torch.zeros(layout.size, device=AWAY)) for layout in (shape.layout(), head))
        assert outputs_of(shape, views, torch.zeros(6, 3), torch.zeros(6, *shape.frame, dtype=torch.uint8)).device == AWAY  # type: ignore[arg-type]
        monkeypatch.setattr("takeover.policies.hil_serl.choose_device", lambda wanted: AWAY)
        seeing = msgspec.structs.replace(make_robot_spec(arm=1, gripper=True), policy_cameras=["front"])
        learner = PictureHilSerlLearner.make(seeing, 0, {"observations": "pictures", "camera_features": 4, "hidden": 8})
        assert learner._encoder.device == AWAY
        assert {tensor.device.type for tensor in learner.weights().tensors.values()} == {"cpu"}
        assert {tensor.device.type for tensor in learner.state()["tensors"].values()} == {"cpu"}


def test_pictures_of_an_update_go_where_the_encoder_is_that_they_train(
    apart: Apart, make_robot_spec: Callable[..., Any], make_script: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the copy of the rows themselves, through page-locked memory that only a GPU has."""
    monkeypatch.setattr("takeover.policies.hil_serl.choose_device", lambda wanted: AWAY)
    monkeypatch.setattr(Stage, "rows", lambda stage, parts: sent(torch.cat(list(parts)), AWAY))
    monkeypatch.setattr(AutogradUpdate, "_quick", lambda update: nullcontext())  # there is no autocast for "meta"
    settings = {"observations": "pictures", "encoder": "trained", "camera_features": 4, "hidden": 8, "batch": 4}
    with apart:
        seeing = msgspec.structs.replace(make_robot_spec(observation=4, arm=2, gripper=True), policy_cameras=["front"])
        learner = TrainedPictureLearner.make(seeing, 0, settings)
        for _ in learner._freeze():
            pass
        pictures = [PolicyImage(camera="front", height=128, width=128, data=bytes(128 * 128 * 3))]
        teach(learner, make_script(seeing), images=pictures, next_images=pictures)
        batch = learner._pictured(learns=True, more=False)
        arm = learner._propose(batch, 1).arm
        loss, _ = learner._autograd.critics(batch.for_critics(0, arm, cloning=0.5, margin=0.1))
        acting = learner._pictured_for_actor()
        held = [learner._autograd.encoder_gradient, batch.target_following, acting.observation, learner._clone_sees(acting.observation, 2)]
        held += [loss, *learner._held().values(), learner._encoder_optimiser.moment1]
        assert {tensor.device for tensor in held if tensor is not learner._temperature and tensor is not None} == {AWAY}
        assert len(learner.weights().tensors) > 0
        assert {tensor.device.type for tensor in learner.weights().tensors.values()} == {"cpu"}
        assert {tensor.device.type for tensor in learner.state()["tensors"].values()} == {"cpu"}


# --- settings ---


def test_a_device_that_is_none_or_not_there_is_refused_by_name(spec: RobotSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    for make in (
        lambda: ImitationLearner.make("bc", spec, 0, {"device": "gpu"}),
        lambda: RewardSettings(device="gpu"),
        lambda: FitSettings(device="gpu"),
    ):
        with pytest.raises(ValueError, match="device = 'gpu'; allowed auto, cpu, cuda, cuda:N"):
            make()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RewardError, match="device = 'cuda', but this machine has 0 CUDA devices; set device=auto or device=cpu"):
        training_device(RewardSettings(device="cuda"))


# --- on a real one ---


def imitated(spec: RobotSpec, script: Any, device: str) -> ImitationLearner:
    learner = ImitationLearner.make("sirius", spec, 0, SMALL | {"device": device})
    teach(learner, script)
    for _ in learner.clone_demonstrations():
        pass
    return learner


@needs_gpu
def test_imitation_on_a_gpu_learns_alike_and_either_machine_goes_on(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    there, here = (imitated(spec, make_script(spec), device) for device in ("cuda", "cpu"))
    assert there.update()["cloning_loss"] == pytest.approx(here.update()["cloning_loss"], rel=0.05, abs=0.05)
    for source, target in (("cuda", "cpu"), ("cpu", "cuda")):
        learner, other = (imitated(spec, make_script(spec), device) for device in (source, target))
        other.restore(learner.state())
        assert other.update()["cloning_loss"] == pytest.approx(learner.update()["cloning_loss"], rel=0.05, abs=0.05)


@needs_gpu
def test_reward_and_steps_to_go_fitted_on_a_gpu_are_alike_and_on_the_cpu() -> None:
    noise = np.random.default_rng(0)
    states = torch.from_numpy(noise.normal(size=(200, 4)).astype(np.float32))
    examples = Examples(states, torch.zeros(200, 0), (states[:, 0] > 0).float(), torch.zeros(200, dtype=torch.bool))
    config = RewardConfig(4, (0, 1, 2, 3), (), 16, 2, 4, 16, 0.8)
    found = [
        fit(config, examples, ["m"] * 4, RewardSettings(updates=20, hidden=16, members=2, device=device), lambda *at: True)
        for device in ("cuda", "cpu")
    ]
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], rtol=0.05, atol=0.01)
    rows = noise.normal(size=(8, 4)).astype(np.float32)
    episodes = [Targets(f"e{i}", True, False, rows, *[np.arange(8)] * 4) for i in range(5)]
    heads = [fit_head(episodes, Bins.of(60), ["m"] * 4, FitSettings(hidden=16, updates=20, batch=16, device=d)) for d in ("cuda", "cpu")]
    np.testing.assert_allclose(heads[0].of(rows)[0], heads[1].of(rows)[0], atol=0.5)


@needs_gpu
def test_the_encoder_cloned_on_a_gpu_is_alike(make_robot_spec: Callable[..., Any]) -> None:
    noise = np.random.default_rng(0)
    shape, spec = EncoderShape(("front",), 16, 16, 4), make_robot_spec(arm=1, gripper=True)
    data = CloningSet(torch.zeros(12, 3), noise.integers(0, 255, (12, *shape.frame), np.uint8), torch.zeros(12, 2))
    losses = []
    for device in ("cuda", "cpu"):
        generator = torch.Generator().manual_seed(0)
        encoder = initialise_encoder(shape, generator).to(device)
        losses.append([loss for _, loss in clone_encoder(spec, shape, encoder, data, CloningSettings(8, 8, 1e-3, 0.1, 16), generator)])
    assert losses[0] == pytest.approx(losses[1], rel=0.05, abs=0.01)
