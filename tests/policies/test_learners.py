"""Learners on a small reaching task: they improve, they are reproducible, they resume, they survive bad numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from takeover.data.schema import ControlMode, EpisodeKind, Outcome, OutcomeSource, RobotSpec
from takeover.policies.base import LearnerError
from takeover.policies.evaluation import EvaluationCancelled, evaluate
from takeover.policies.gripper_critic import gripper_columns
from takeover.policies.hil_serl import HilSerlLearner
from takeover.policies.inference import build_policy
from takeover.policies.normaliser import fit_normaliser
from takeover.policies.publish import weights_bytes
from takeover.policies.registry import KNOWN_LEARNERS, make_learner

QUICK = {"clone_updates": 150, "hidden": 32, "batch": 64, "learning_starts": 20}


@dataclass
class Evaluation:
    success: bool
    terminated: bool
    reward: float


@dataclass
class Reading:
    observation: np.ndarray


class Reach:
    """A point in the plane must come within 0.1 of a goal; with a gripper, close it there. Observation: position, offset to the goal."""

    def __init__(self, spec: RobotSpec) -> None:
        self.spec = spec
        self.gripper = spec.action.gripper == "discrete"

    def reset(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.position, self.goal = rng.uniform(-1, 1, 2), rng.uniform(-1, 1, 2)
        self.closed = False

    def read(self) -> Reading:
        return Reading(np.concatenate([self.position, self.goal - self.position, [float(self.closed)]]))

    def apply(self, action: np.ndarray) -> None:
        self.action = action

    def advance(self) -> None:
        self.position = self.position + 0.15 * self.action[:2]
        if self.gripper and self.action[2] < -0.5:
            self.closed = True

    def evaluate(self) -> Evaluation:
        near = bool(np.linalg.norm(self.goal - self.position) < 0.1)
        success = near and (self.closed or not self.gripper)
        failed = self.gripper and self.closed and not near
        return Evaluation(success, success or failed, float(success))

    def expert(self) -> list[float]:
        offset = self.goal - self.position
        move = np.clip(offset / 0.15, -1, 1)
        near = np.linalg.norm(offset - 0.15 * move) < 0.05
        return [*move.tolist(), *([-1.0 if near else 0.0] if self.gripper else [])]


@pytest.fixture
def spec(make_robot_spec: Callable[..., Any]) -> RobotSpec:
    return make_robot_spec(observation=5, arm=2, max_steps=25)


@pytest.fixture
def gripper_spec(make_robot_spec: Callable[..., Any]) -> RobotSpec:
    return make_robot_spec(observation=5, arm=2, gripper=True, max_steps=25)


def feed(learner: Any, script: Any, environment: Reach, kind: EpisodeKind, act: Callable[[np.ndarray], Any], seed: int) -> bool:
    """One episode into the learner; returns success."""
    environment.reset(seed)
    learner.begin_episode(script.start(kind, f"{kind}-{seed}"))
    mode = ControlMode.HUMAN if kind == EpisodeKind.DEMONSTRATION else ControlMode.POLICY
    result = Evaluation(False, False, 0.0)
    for step in range(environment.spec.max_steps):
        observation = environment.read().observation
        action = np.asarray(act(observation), np.float64)
        environment.apply(action)
        environment.advance()
        result = environment.evaluate()
        record = script.step(
            mode,
            observation=observation.tolist(),
            next_observation=environment.read().observation.tolist(),
            action=action.tolist(),
            reward=result.reward,
            terminated=result.terminated,
            truncated=not result.terminated and step == environment.spec.max_steps - 1,
        )
        learner.ingest([record])
        while learner.updates_due() > 0:
            learner.update()
        if result.terminated:
            break
    outcome = Outcome.SUCCESS if result.success else Outcome.FAILURE
    learner.end_episode(script.end(outcome, OutcomeSource.TASK))
    return result.success


def demonstrate(learner: Any, script: Any, environment: Reach, count: int, noise: float = 0.0) -> None:
    rng = np.random.default_rng(0)

    def act(_: np.ndarray) -> np.ndarray:
        wanted = np.array(environment.expert())
        wanted[:2] = np.clip(wanted[:2] + noise * rng.normal(size=2), -1, 1)
        return wanted

    for seed in range(count):
        feed(learner, script, environment, EpisodeKind.DEMONSTRATION, act, seed)
    for _ in learner.clone_demonstrations():
        pass


def success_rate(learner: Any, environment: Reach, n: int = 60) -> float:
    policy = build_policy(learner.weights(), environment.spec)
    return float(np.mean([o.success for o in evaluate(policy, environment, range(10_000, 10_000 + n))]))


@pytest.mark.parametrize("name", KNOWN_LEARNERS)
def test_cloning_imitates_the_demonstrations(name: str, spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner = make_learner(
        name, spec, 0, QUICK | {"clone_updates": 800} | ({"critic_warmup": 10, "actor_delay": 5} if name == "hil-serl" else {})
    )
    before = success_rate(learner, Reach(spec))
    demonstrate(learner, make_script(spec), Reach(spec), 15)
    assert learner.demonstration_episodes == 15
    assert success_rate(learner, Reach(spec)) > max(0.6, before + 0.3)


def test_hil_serl_improves_on_its_own_experience(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    settings = {"clone_updates": 150, "critic_warmup": 100, "updates_per_step": 2, "actor_average": 0.02, "keep_warm_start": False}
    learner = make_learner("hil-serl", spec, 0, QUICK | settings)
    environment, script = Reach(spec), make_script(spec)
    demonstrate(learner, script, environment, 6, noise=0.2)
    before = success_rate(learner, environment)
    generator = torch.Generator().manual_seed(0)
    for seed in range(100, 200):
        policy = build_policy(learner.weights(), spec)

        def act(observation: np.ndarray, policy: Any = policy) -> np.ndarray:
            return policy.act(observation.astype(np.float32), sample=True, generator=generator).actions[0]  # type: ignore[no-any-return]

        feed(learner, script, environment, EpisodeKind.POLICY, act, seed)
    after = success_rate(learner, environment)
    assert after > max(before + 0.15, 0.55), (before, after)


def test_the_gripper_is_cloned_through_the_critics(gripper_spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    rates = []
    for warmup in (0, 1200):
        learner = make_learner("hil-serl", gripper_spec, 0, QUICK | {"clone_updates": 800, "critic_warmup": warmup})
        demonstrate(learner, make_script(gripper_spec), Reach(gripper_spec), 20, noise=0.1)
        rates.append(success_rate(learner, Reach(gripper_spec)))
    assert rates[0] < 0.1  # the motion alone succeeds at nothing
    assert rates[1] > 0.35, rates


def train_a_little(name: str, seed: int, spec: RobotSpec, script: Any) -> Any:
    learner = make_learner(name, spec, seed, QUICK | ({"critic_warmup": 10, "actor_delay": 5} if name == "hil-serl" else {}))
    environment = Reach(spec)
    demonstrate(learner, script, environment, 3)
    rng = np.random.default_rng(5)
    for episode in range(100, 104):
        feed(learner, script, environment, EpisodeKind.POLICY, lambda _: rng.uniform(-1, 1, spec.action.size), episode)
    return learner


@pytest.mark.parametrize("name", ["hil-serl", "sirius"])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    name: str, gripper_spec: RobotSpec, make_script: Callable[..., Any]
) -> None:
    found = [weights_bytes(train_a_little(name, seed, gripper_spec, make_script(gripper_spec)).weights()) for seed in (1, 1, 2)]
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.mark.parametrize("name", ["hil-serl", "iwr"])
def test_a_restored_learner_continues_bit_for_bit(name: str, spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner = train_a_little(name, 1, spec, make_script(spec))
    twin = make_learner(name, spec, 99, QUICK | ({"critic_warmup": 10, "actor_delay": 5} if name == "hil-serl" else {}))
    script, environment = make_script(spec), Reach(spec)
    twin.updates_due = lambda: 0  # type: ignore[method-assign]  # the same steps again, without learning from them
    rng = np.random.default_rng(5)
    for seed in range(3):
        feed(twin, script, environment, EpisodeKind.DEMONSTRATION, lambda _: environment.expert(), seed)
    for episode in range(100, 104):
        feed(twin, script, environment, EpisodeKind.POLICY, lambda _: rng.uniform(-1, 1, 2), episode)
    twin.restore(learner.state())
    for _ in range(20):
        learner.update()
        twin.update()
    assert weights_bytes(twin.weights()) == weights_bytes(learner.weights())
    assert twin.updates == learner.updates


def test_a_state_of_other_settings_is_refused(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner = train_a_little("hil-serl", 1, spec, make_script(spec))
    with pytest.raises(LearnerError, match="other settings"):
        make_learner("hil-serl", spec, 1, {"hidden": 64}).restore(learner.state())
    with pytest.raises(LearnerError, match="hil-serl"):
        make_learner("bc", spec, 1).restore(learner.state())


def test_the_ratio_of_updates_to_steps_is_held(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner = train_a_little("hil-serl", 0, spec, make_script(spec))
    assert learner.updates == int((learner.train_steps - 20) * learner.parameters.updates_per_step)
    assert learner.updates_due() == 0


def test_bad_numbers_are_skipped_and_repeated_ones_restore_the_last_good_state(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner = train_a_little("hil-serl", 0, spec, make_script(spec))
    assert isinstance(learner, HilSerlLearner)
    healthy = weights_bytes(learner.weights())
    reward = learner.replay.columns.reward
    kept = [buffer.rows[:, reward].clone() for buffer in (learner.replay.demonstrations, learner.replay.online)]
    for buffer in (learner.replay.demonstrations, learner.replay.online):
        buffer.rows[:, reward] = float("nan")
    metrics = learner.update()
    assert metrics["skipped"] == 1.0
    for buffer, values in zip((learner.replay.demonstrations, learner.replay.online), kept, strict=True):
        buffer.rows[:, reward] = values
    assert np.isfinite(learner.update()["critic_loss"])
    assert weights_bytes(learner.weights()) != healthy  # one bad batch does not stop learning
    with torch.no_grad():
        learner._critic[0] = float("nan")  # a state that no skipping can heal
    for _ in range(6):
        learner.update()
    assert all(bool(torch.isfinite(t).all()) for t in learner.weights().tensors.values())
    assert np.isfinite(learner.update()["critic_loss"])


def test_the_discrete_gripper_is_a_choice_of_the_critics(gripper_spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner = train_a_little("hil-serl", 0, gripper_spec, make_script(gripper_spec))
    weights = learner.weights()
    policy = build_policy(weights, gripper_spec)
    for best, command in ((0, -1.0), (1, 0.0), (2, 1.0)):
        bias = torch.zeros_like(weights.tensors["critic.b2"])
        bias[..., best] = 100.0
        weights.tensors["critic.b2"].copy_(bias)
        assert policy.act(np.zeros(5, np.float32), sample=False).actions[0, 2] == command
    assert gripper_columns(torch.tensor([-1.0, -0.2, 0.0, 0.2, 1.0])).tolist() == [0, 1, 1, 1, 2]


def test_cloning_without_demonstrations_says_so(spec: RobotSpec) -> None:
    for name in ("hil-serl", "bc"):
        with pytest.raises(LearnerError, match="no demonstrations"):
            next(iter(make_learner(name, spec, 0).clone_demonstrations()))


def test_history_does_not_cross_a_run(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner = make_learner("sirius", spec, 0, {"history": 3})
    script = make_script(spec)
    learner.begin_episode(script.start())
    learner.ingest([script.step(), script.step(), script.step(ControlMode.PAUSED), script.step(run_id=1), script.step(run_id=1)])
    stored = learner._episodes["e000"].observations  # type: ignore[attr-defined]
    assert [stack[:, 0].tolist() for stack in stored] == [[0, 0, 0], [0, 0, 1], [3, 3, 3], [3, 3, 4]]


def test_an_excluded_episode_is_forgotten_by_imitation_too(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner = train_a_little("hg-dagger", 0, spec, make_script(spec))
    learner.exclude("demonstration-0")
    learner.update()
    table = learner._table
    left = {name: len(stored.actions) for name, stored in learner._episodes.items() if name != "demonstration-0"}
    assert len(left) == len(learner._episodes) - 1
    assert len(table.actions) == sum(left.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"no_such": 1}, "no setting 'no_such'; known: actor_average, actor_delay, anchor_decay"),
        ({"hidden": 4}, "allowed 8..2048"),
        ({"discount": "high"}, "expected float"),
        ({"learning_rate": "nan"}, "hil-serl.learning_rate = 'nan'; expected float"),
        ({"initial_temperature": float("inf")}, "expected float"),
        ({"replay_capacity": float("inf")}, "expected int"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0; must be positive"),
        ({"clone_std": 0.0}, "clone_std = 0.0; allowed 0.001..1"),
        ({"clone_updates": -5}, "clone_updates = -5; allowed 1.."),
        ({"gripper_penalty": -5.0}, "gripper_penalty = -5.0; allowed 0..10"),
        ({"learning_starts": -100}, "learning_starts = -100; allowed 0.."),
    ],
)
def test_bad_settings_say_what_is_allowed(spec: RobotSpec, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_learner("hil-serl", spec, 0, settings)


@pytest.mark.parametrize(
    ("settings", "message"), [({"learning_rate": "nan"}, "expected float"), ({"weight_decay": -1.0}, "allowed 0..100")]
)
def test_bad_settings_of_imitation_say_what_is_allowed(spec: RobotSpec, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_learner("sirius", spec, 0, settings)


def test_evaluation_counts_successes_and_can_be_cancelled(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner = train_a_little("hil-serl", 0, spec, make_script(spec))
    environment = Reach(spec)
    policy = build_policy(learner.weights(), spec)
    first = evaluate(policy, environment, range(20))
    assert [o.start for o in first] == list(range(20))
    assert first == evaluate(policy, environment, range(20))  # deterministic
    assert all(o.steps == spec.max_steps for o in first if not o.success)
    with pytest.raises(EvaluationCancelled):
        evaluate(policy, environment, range(20), lambda done: done < 3)


@pytest.mark.parametrize("wild", [1e30, -1e30, 20_000.0])
def test_one_wild_reading_does_not_kill_its_input(wild: float) -> None:
    rows = torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) * 0.1
    units = ["m", "N", "widget"]
    clean = fit_normaliser(rows, units)
    assert torch.equal(clean[0], rows.double().mean(0).float()), "all count as long as none is wild"
    hit = rows.clone()
    hit[17] = wild
    for fitted, expected in zip(fit_normaliser(hit, units), clean, strict=True):
        assert torch.allclose(fitted, expected, rtol=0.05)
    assert float(((rows - fit_normaliser(hit, units)[0]) * fit_normaliser(hit, units)[1])[:, 0].std()) > 0.5


def test_what_differs_in_few_rows_is_no_wild_reading() -> None:
    rows = torch.zeros(500, 2)
    rows[3] = torch.tensor([40.0, 1.0])  # a contact, a switch
    mean, scale = fit_normaliser(rows, ["N", "widget"])
    assert mean.tolist() == pytest.approx([0.08, 0.002])
    assert scale[1].item() == pytest.approx(1.0 / rows[:, 1].std(correction=0).item(), rel=1e-4)


def test_small_spreads_are_not_magnified_beyond_what_matters_for_their_unit() -> None:
    rows = torch.tensor([[0.0, 0.0, 5.0, 0.0], [0.2, 0.0, 5.0, 100.0]])
    mean, scale = fit_normaliser(rows, ["N", "N m", "widget", "m"])
    assert mean.tolist() == pytest.approx([0.1, 0.0, 5.0, 50.0])
    # 0.1 N of spread counts as 5 N, no torque as 0.05 N m, a constant of an unknown unit stays as it is, 50 m is divided by its spread
    assert scale.tolist() == pytest.approx([0.2, 20.0, 1.0, 0.02])
    contact = (torch.tensor([30.0, 0.2, 5.0, 0.0]) - mean) * scale
    assert contact.abs().max() < 10.0  # felt, not clipped
