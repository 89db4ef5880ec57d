"""The settings against the dip: the actor waits, then is held; published as trained, resumed exactly; and how the dip is measured."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import no_dip
from benchmarks.no_dip_run import validation_start
from takeover.data.schema import ControlMode, EpisodeKind, Outcome, RobotSpec
from takeover.data.seeding import DEMONSTRATION_BASE, HELDOUT_BASE, start_seed
from takeover.policies import nets
from takeover.policies.hil_serl import HilSerlLearner
from takeover.policies.hil_serl_parameters import HilSerlParameters, paced
from takeover.policies.publish import load_policy, make_manifest, publish, version_folder, weights_bytes
from takeover.policies.warm_start import actor_waits, anchor_weight, cloning_share, published_rate, updates_to_wait

QUICK = {"clone_updates": 60, "critic_warmup": 10, "hidden": 32, "batch": 64, "learning_starts": 20, "keep_warm_start": False}
HELD = QUICK | {"keep_warm_start": True, "actor_delay": 30, "anchor_weight": 2.0, "anchor_decay": 0.99}


@pytest.fixture
def spec(make_robot_spec: Callable[..., Any]) -> RobotSpec:
    return make_robot_spec(observation=5, arm=2, max_steps=25)


def episode(learner: HilSerlLearner, script: Any, kind: EpisodeKind, seed: int) -> None:
    """25 steps of random observations; a demonstration answers with a function of them, a policy at random. Odd seeds succeed."""
    rng, spec = np.random.default_rng(seed), script.spec
    demonstration = kind == EpisodeKind.DEMONSTRATION
    success = demonstration or seed % 2 == 1
    learner.begin_episode(script.start(kind, f"{kind}-{seed}"))
    rows = rng.uniform(-1, 1, (26, 5))
    for i in range(25):
        action = [*(rows[i, :2] if demonstration else rng.uniform(-1, 1, 2)), *([0.0] * (spec.action.size - 2))]
        step = script.step(
            ControlMode.HUMAN if demonstration else ControlMode.POLICY,
            observation=rows[i].tolist(),
            next_observation=rows[i + 1].tolist(),
            action=action,
            reward=float(success and i == 24),
            terminated=success and i == 24,
            truncated=not success and i == 24,
        )
        learner.ingest([step])
        while learner.updates_due() > 0:
            learner.update()
    learner.end_episode(script.end(Outcome.SUCCESS if success else Outcome.FAILURE))


def fed(spec: RobotSpec, script: Any, settings: dict[str, Any], seed: int = 1, episodes: int = 4, learns: bool = True) -> HilSerlLearner:
    """A learner after three demonstrations, cloning and some episodes."""
    learner = HilSerlLearner.make(spec, seed, settings)
    if not learns:
        learner.updates_due = lambda: 0  # type: ignore[method-assign]  # the same steps again, without learning from them
    for demonstration in range(3):
        episode(learner, script, EpisodeKind.DEMONSTRATION, demonstration)
    if learns:
        for _ in learner.clone_demonstrations():
            pass
    for number in range(100, 100 + episodes):
        episode(learner, script, EpisodeKind.POLICY, number)
    return learner


def test_the_actor_waits_while_the_critics_learn(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner = fed(spec, make_script(spec), HELD | {"actor_delay": 1000})
    assert learner.updates > 50
    assert torch.equal(learner._published, learner._anchor.clone)
    assert torch.equal(learner._actor.detach(), learner._anchor.clone)
    before = learner._critic.detach().clone()
    assert "actor_loss" not in learner.update()
    assert not torch.equal(learner._critic.detach(), before)
    learner.updates = 1000
    assert np.isfinite(learner.update()["actor_loss"])
    assert not torch.equal(learner._published, learner._anchor.clone)


def test_a_heavier_anchor_holds_the_actor_nearer_its_clone(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    distances = []
    for weight in (0.0, 50.0):
        learner = fed(
            spec,
            make_script(spec),
            HELD | {"actor_delay": 0, "anchor_weight": weight, "anchor_decay": 1.0, "bc_weight": 0.0, "kept_average": 0.02},
            episodes=6,
        )
        rows = learner.replay.online.rows[: learner.replay.online.size, learner.replay.columns.observation]
        observation = learner._normalised(rows)
        mean, _ = nets.gaussian(learner._actor_layout.views(learner._actor.detach()), observation)
        distances.append(float(learner._anchor.loss(observation, mean)))
    assert distances[1] < 0.5 * distances[0], distances


def test_the_anchor_decays_from_the_end_of_the_wait() -> None:
    parameters = HilSerlParameters(keep_warm_start=True, actor_delay=10, anchor_weight=2.0, anchor_decay=0.5)
    assert [anchor_weight(parameters, u) for u in (1, 10, 11, 12)] == [2.0, 2.0, 1.0, 0.5]
    assert [actor_waits(parameters, u) for u in (1, 10, 11)] == [True, True, False]
    assert [updates_to_wait(parameters, u) for u in (1, 10, 11, 12)] == [10, 1, 0, 0]
    assert updates_to_wait(HilSerlParameters(residual_scale=0.5), 1) == 0  # it starts from its clone anyway
    plain = HilSerlParameters(keep_warm_start=False, actor_delay=10, anchor_weight=2.0)
    assert anchor_weight(plain, 1) == 0.0
    assert not actor_waits(plain, 1)
    assert published_rate(plain) == plain.actor_average > published_rate(parameters) == parameters.kept_average


def test_longer_episodes_stretch_what_is_given_for_a_hundred_steps() -> None:
    given = HilSerlParameters(discount=0.97, bc_decay=0.9998, anchor_decay=0.999, actor_delay=2500)
    assert paced(given, 100) is given
    assert paced(given, 25) is given
    twice = paced(given, 200)
    assert twice.discount == pytest.approx(0.985)
    assert twice.bc_decay**2 == pytest.approx(0.9998)
    assert twice.anchor_decay**2 == pytest.approx(0.999)
    assert twice.gripper_bc_decay**2 == pytest.approx(given.gripper_bc_decay)
    assert twice.actor_delay == 5000
    assert paced(HilSerlParameters(horizon=200), 100) == paced(HilSerlParameters(horizon=200), 400)
    assert paced(HilSerlParameters(horizon=100, discount=0.99), 400).discount == 0.99


def test_what_people_still_correct_is_still_cloned(make_robot_spec: Callable[..., Any], make_script: Callable[..., Any]) -> None:
    assert [cloning_share(0.5, 2, help_share, 0.25) for help_share in (0.0, 0.1, 0.25, 1.0)] == [0.25, 0.4, 1.0, 1.0]
    assert cloning_share(0.5, 2, 1.0, 0.0) == 0.25
    spec = make_robot_spec(observation=5, arm=2, max_steps=200)
    script = make_script(spec)
    learner = fed(spec, script, QUICK | {"bc_decay": 0.9, "bc_weight": 0.5})
    assert learner.parameters.discount == pytest.approx(0.985)
    assert learner.replay.help_share == 0.0  # demonstrations are no help
    assert learner.update()["bc_weight"] < 0.01
    learner.begin_episode(script.start(EpisodeKind.POLICY, "helped"))
    for _ in range(150):
        learner.ingest([script.step(ControlMode.HUMAN, observation=[0.1] * 5, next_observation=[0.1] * 5, intervention_id="t1")])
    share = 1.0 - 0.999**150
    assert learner.replay.help_share == pytest.approx(share)
    assert learner.update()["bc_weight"] == pytest.approx(0.5 * share / 0.25)
    again = HilSerlLearner.make(spec, 1, QUICK | {"bc_decay": 0.9, "bc_weight": 0.5})
    again.restore(learner.state())
    assert again.replay.help_share == learner.replay.help_share  # though nothing was ingested again here


def acting_error(learner: HilSerlLearner) -> float:
    """Squared distance of what is published from what was demonstrated."""
    columns, buffer = learner.replay.columns, learner.replay.demonstrations
    rows = buffer.rows[: buffer.size]
    mean, _ = nets.gaussian(learner._actor_layout.views(learner._published), learner._normalised(rows[:, columns.observation]))
    return float((mean.tanh() - rows[:, columns.action][:, :2]).square().sum(-1).mean())


def test_a_strong_cloning_term_keeps_the_acting_policy_with_the_person(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    weak, strong = (
        acting_error(fed(spec, make_script(spec), QUICK | {"bc_weight": weight, "actor_average": 0.1}, episodes=6)) for weight in (0.0, 4.0)
    )
    assert strong < 0.7 * weak, (strong, weak)


def test_published_weights_act_as_trained(spec: RobotSpec, make_script: Callable[..., Any], tmp_path: Path) -> None:
    learner = fed(spec, make_script(spec), HELD)
    assert not actor_waits(learner.parameters, learner.updates)
    weights = learner.weights()
    content = weights_bytes(weights)
    publish(tmp_path, make_manifest(weights, content, spec, version=1, parent=0, learner=learner.name, swap=learner.swap), content)
    policy = load_policy(version_folder(tmp_path, 1), spec).policy
    observations = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    mean, _ = nets.gaussian(learner._actor_layout.views(learner._published), learner._normalised(torch.from_numpy(observations)))
    acted = np.concatenate([policy.act(o, sample=False).actions for o in observations])
    np.testing.assert_allclose(acted, mean.tanh().numpy(), atol=1e-6)


@pytest.mark.parametrize("episodes", [1, 4])  # within the actor's wait, and after it
def test_resume_is_exact_while_the_actor_waits_and_while_it_is_held(
    spec: RobotSpec, make_script: Callable[..., Any], episodes: int
) -> None:
    learner = fed(spec, make_script(spec), HELD, episodes=episodes)
    assert actor_waits(learner.parameters, learner.updates) == (episodes == 1)
    twin = fed(spec, make_script(spec), HELD, seed=99, episodes=episodes, learns=False)
    twin.restore(learner.state())
    for _ in range(60):
        learner.update()
        twin.update()
    assert weights_bytes(twin.weights()) == weights_bytes(learner.weights())
    ours, theirs = learner.state()["tensors"], twin.state()["tensors"]
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_seed_decides(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    found = [weights_bytes(fed(spec, make_script(spec), HELD, seed=seed, episodes=2).weights()) for seed in (1, 1, 2)]
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_the_arm_and_the_gripper_have_cloning_terms_of_their_own(
    make_robot_spec: Callable[..., Any], make_script: Callable[..., Any]
) -> None:
    spec = make_robot_spec(observation=5, arm=2, gripper=True, max_steps=25)
    settings: list[dict[str, Any]] = [{}, {"bc_weight": 4.0}, {"gripper_bc_weight": 4.0}]
    critics = [fed(spec, make_script(spec), QUICK | changed, episodes=0)._critic.detach() for changed in settings]
    assert torch.equal(critics[0], critics[1])
    assert not torch.equal(critics[0], critics[2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bc_weight": -1.0}, "bc_weight = -1.0; allowed 0..1000"),
        ({"bc_help": 1.5}, "bc_help = 1.5; allowed 0..1"),
        ({"horizon": -1}, "horizon = -1; allowed 0 .the task's step limit. to 100000 steps"),
        ({"bc_decay": 1.5}, "bc_decay = 1.5; allowed above 0, up to 1"),
        ({"actor_delay": -1}, "actor_delay = -1; allowed 0..1000000"),
        ({"anchor_weight": -0.5}, "anchor_weight = -0.5; allowed 0..1000"),
        ({"anchor_decay": 1.5}, "anchor_decay = 1.5; allowed above 0, up to 1"),
        ({"kept_average": 0.0}, "kept_average = 0.0; allowed above 0, up to 1"),
        ({"gripper_bc_decay": 0.0}, "gripper_bc_decay = 0.0; allowed above 0, up to 1"),
    ],
)
def test_bad_settings_say_what_is_allowed(spec: RobotSpec, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HilSerlLearner.make(spec, 0, settings)


def test_validation_starts_are_neither_training_nor_heldout_ones() -> None:
    starts = [validation_start(i) for i in range(100)]
    assert starts == [validation_start(i) for i in range(100)]
    assert len(set(starts)) == 100
    assert all(DEMONSTRATION_BASE <= start < HELDOUT_BASE for start in starts)
    assert all(start_seed(0, kind, i) < DEMONSTRATION_BASE for kind in EpisodeKind for i in range(100))


def test_the_dip_benchmark_stops_and_goes_on_with_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arm = "tiny:clone_updates=10,critic_warmup=10,hidden=16,batch=16,learning_starts=20"
    results = []
    for name, budget in (("whole", "1e9"), ("parts", "0")):
        arguments = ["run", "--out", str(tmp_path / name), "--arm", arm, "--seeds", "0", "--steps", "150", "--every", "50", "--starts", "1"]
        monkeypatch.setattr("sys.argv", ["no_dip", *arguments, "--budget-s", budget])
        stops = 0
        while not (tmp_path / name / "tiny-0.json").exists():
            with contextlib.suppress(SystemExit):  # status 3: stopped
                no_dip.main()
            stops += not (tmp_path / name / "tiny-0.json").exists()
            assert stops < 10
        assert (stops > 0) == (budget == "0")
        assert [path.name for path in (tmp_path / name).iterdir()] == ["tiny-0.json"]
        results.append(json.loads((tmp_path / name / "tiny-0.json").read_text()))
        del results[-1]["cpu_s"]
    assert results[0] == results[1]
    assert [point["steps"] for point in results[0]["points"]] == [0, 50, 100, 150]


def test_the_table_says_where_the_acting_policy_fell_below_its_warm_start(tmp_path: Path) -> None:
    for seed, successes in ((0, (40, 34, 60)), (1, (40, 35, 90))):
        points = [{"steps": 1000 * i, "successes": k, "n": 100} for i, k in enumerate(successes)]
        (tmp_path / f"an-arm-{seed}.json").write_text(json.dumps({"points": points}))
    lines = no_dip.table(tmp_path).splitlines()
    assert lines[2] == "| an-arm | 0 | 40 | 34 | 60 | -6 (dip) |"
    assert lines[3] == "| an-arm | 1 | 40 | 35 | 90 | -5 |"
    assert lines[4] == "| an-arm | all | 40 (33-47, n=200) | 34 (28-41, n=200) | 75 (69-80, n=200) | |"
    with pytest.raises(SystemExit, match="holds no results"):
        no_dip.table(tmp_path / "nothing")
