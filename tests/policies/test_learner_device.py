"""Where and how hil-serl computes: device, bfloat16, torch.compile; and which saved states it goes on from."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from takeover.data.schema import ControlMode, EpisodeKind, Outcome, OutcomeSource, RobotSpec
from takeover.policies import nets
from takeover.policies.base import LearnerError
from takeover.policies.device import choose_device, device_name
from takeover.policies.flat import Layout
from takeover.policies.hil_serl import HilSerlLearner
from takeover.policies.publish import weights_bytes
from takeover.policies.sac_autograd import AutogradUpdate
from takeover.policies.sac_update import CriticBatch, Pull, SacUpdate

SMALL = {"hidden": 16, "batch": 32, "clone_updates": 20, "critic_warmup": 10, "learning_starts": 5, "keep_warm_start": False}
D, A, B = 5, 2, 64


@pytest.fixture
def spec(make_robot_spec: Callable[..., Any]) -> RobotSpec:
    return make_robot_spec(observation=4, arm=2, gripper=True)


def taught(spec: RobotSpec, script: Any, **parameters: Any) -> HilSerlLearner:
    learner = HilSerlLearner.make(spec, 0, SMALL | parameters)
    for kind, mode in ((EpisodeKind.DEMONSTRATION, ControlMode.HUMAN), (EpisodeKind.POLICY, ControlMode.POLICY)):
        learner.begin_episode(script.start(kind))
        learner.ingest([script.step(mode, observation=[0.1 * i] * 4, action=[0.5, -0.1, 0.0]) for i in range(12)])
        learner.end_episode(script.end(outcome=Outcome.SUCCESS, source=OutcomeSource.TASK))
        if kind == EpisodeKind.DEMONSTRATION:
            for _ in learner.clone_demonstrations():
                pass
    return learner


# --- device ---


@pytest.mark.parametrize(
    ("devices", "wanted", "chosen"),
    [(0, "auto", "cpu"), (2, "auto", "cuda:0"), (2, "cpu", "cpu"), (2, "cuda:1", "cuda:1"), (1, "cuda", "cuda")],
)
def test_a_gpu_is_used_where_there_is_one(devices: int, wanted: str, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    assert str(choose_device(wanted)) == chosen


@pytest.mark.parametrize(("devices", "wanted"), [(0, "cuda"), (0, "cuda:0"), (2, "cuda:2")])
def test_a_gpu_that_is_not_there_is_refused(
    devices: int, wanted: str, monkeypatch: pytest.MonkeyPatch, spec: RobotSpec, make_script: Callable[..., Any]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    with pytest.raises(
        LearnerError, match=f"device = '{wanted}', but this machine has {devices} CUDA devices; set device=auto or device=cpu"
    ):
        taught(spec, make_script(spec), device=wanted)


def test_a_device_that_is_none_is_refused(spec: RobotSpec) -> None:
    with pytest.raises(ValueError, match="device = 'gpu'; allowed auto, cpu, cuda, cuda:N"):
        HilSerlLearner.make(spec, 0, {"device": "gpu"})
    assert device_name(torch.device("cpu")) == "cpu"


# --- bfloat16 and torch.compile ---


def both(**how: Any) -> tuple[SacUpdate, AutogradUpdate, CriticBatch, dict[str, torch.Tensor], torch.Tensor]:
    """The written-out update and autograd with ``how``, a batch, and the weights of the critics' last layer."""
    actor_layout = Layout(nets.mlp_layout("actor", D, 32, 2 * A))
    critic_layout = Layout(nets.critic_layout(D + A, 32, 3, 2))
    generator = torch.Generator().manual_seed(2)
    actor, critic, target = (nets.initialise(layout, generator) for layout in (actor_layout, critic_layout, critic_layout))
    vectors = (actor, actor_layout, critic, target, critic_layout)
    row = {name: torch.randn(B, width, generator=generator) for name, width in (("now", D), ("then", D), ("arm", A), ("noise", A))}
    update = SacUpdate(*vectors, B, gripper=True)
    batch = CriticBatch(
        row["now"],
        row["arm"].tanh(),
        row["then"],
        update.propose(row["then"], row["noise"]).arm.clone(),
        torch.rand(B, generator=generator),
        torch.full((B,), 0.97),
        torch.randint(3, (B,), generator=generator),
        demonstrations=20,
        cloning=0.3,
        margin=0.1,
    )
    last = critic_layout.views(critic)["critic.w2"]
    return update, AutogradUpdate(*vectors, gripper=True, **how), batch, row, last


def gradients(update: Any, batch: CriticBatch, row: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    update.critics(batch)
    pulls = [Pull(slice(0, 20), batch.arm[:20], 0.5), Pull(slice(20, B), batch.arm[20:] * 0.5, 2.0)]
    update.actor(update.propose(row["now"], row["noise"]), row["now"], 0.05, pulls)
    return [update.critic_gradient.clone(), update.actor_gradient.clone()]


def test_bfloat16_gives_nearly_the_same_gradients_and_leaves_targets_and_proposals_alone() -> None:
    exact, half, batch, row, last = both(bf16=True)
    for wanted, found in zip(gradients(exact, batch, row), gradients(half, batch, row), strict=True):
        assert found.dtype == torch.float32
        assert not torch.equal(found, wanted)  # it was computed otherwise
        assert float((found - wanted).norm() / wanted.norm()) < 0.05
    assert torch.allclose(half.propose(row["then"], row["noise"]).arm, batch.following_arm, atol=1e-6)
    last.zero_()  # what is left of the loss is the target's square
    assert float(half.critics(batch)[0]) == pytest.approx(float(exact.critics(batch)[0]), rel=1e-5)


def test_the_losses_can_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured as graphs; without the code generator, which would take a minute."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager", fullgraph=True))
    written, compiled, batch, row, _ = both(compiled=True)
    for wanted, found in zip(gradients(written, batch, row), gradients(compiled, batch, row), strict=True):
        assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-5)
    torch.compiler.reset()


@pytest.mark.parametrize("how", [{"bf16": True}, {"written_gradients": False}])
def test_a_learner_learns_that_way_too(how: dict[str, Any], spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner = taught(spec, make_script(spec), **how)
    assert isinstance(learner._gradients, AutogradUpdate)
    before = weights_bytes(learner.weights())
    for _ in range(5):
        metrics = learner.update()
    assert metrics["skipped"] == 0.0
    assert weights_bytes(learner.weights()) != before


# --- saved states ---


def test_a_state_of_a_version_without_some_settings_goes_on(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner, other = taught(spec, make_script(spec)), taught(spec, make_script(spec), device="cpu")
    for _ in range(3):
        learner.update()
    state = learner.state()
    for setting in ("device", "compile", "bf16", "written_gradients", "residual_scale"):  # an earlier version knew none of these
        del state["values"]["parameters"][setting]
    other.restore(state)
    for _ in range(5):
        learner.update()
        other.update()
    assert weights_bytes(learner.weights()) == weights_bytes(other.weights())


def test_a_state_that_cannot_be_continued_says_why_and_changes_nothing(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner = taught(spec, make_script(spec))
    before = weights_bytes(learner.weights())
    for change, message in (
        (lambda s: s["tensors"].pop("clone"), "has no 'clone': it is of an earlier version that this one cannot continue"),
        (lambda s: s["tensors"].update(mean=torch.zeros(7)), r"'mean' has shape \(7,\), not \(4,\)"),
        (lambda s: s["values"]["parameters"].update(hidden=64), "other settings .hidden was 64 and is 16."),
        (lambda s: s["values"]["parameters"].update(old=1), "other settings .old was 1 and is no setting of this version."),
        (lambda s: s["values"].update(learner="bc"), "of learner 'bc', not 'hil-serl'"),
    ):
        other = taught(spec, make_script(spec))
        for _ in range(3):
            other.update()
        state = other.state()
        change(state)
        with pytest.raises(LearnerError, match=message):
            learner.restore(state)
        assert weights_bytes(learner.weights()) == before
