"""Which episodes an imitation learner lets go of, and that it learns from those that arrive while they arrive."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from takeover.data.episode_labels import EpisodeLabels
from takeover.data.schema import ControlMode, EpisodeKind, Outcome, RobotSpec
from takeover.policies.memory import STRATEGIES, Remembered, to_evict
from takeover.policies.publish import weights_bytes
from takeover.policies.registry import make_learner

P, H = ControlMode.POLICY, ControlMode.HUMAN
SMALL = {"hidden": 16, "batch": 32, "clone_updates": 20, "learning_starts": 5, "history": 1}
# as recorded: 10, 50, 0 and 30 % of the steps driven by a person
FOUR = [Remembered("a", 100, 10), Remembered("b", 100, 50), Remembered("c", 100, 0), Remembered("d", 100, 30)]


@pytest.mark.parametrize(("strategy", "order"), [("fifo", "abc"), ("filo", "dcb"), ("lfi", "cad"), ("mfi", "bda")])
def test_strategies_as_defined(strategy: str, order: str) -> None:
    assert "".join(to_evict(FOUR, 100, strategy)) == order
    assert to_evict(FOUR, 399, strategy) == [order[0]]
    assert to_evict(FOUR, 400, strategy) == []


def test_least_intervened_first_keeps_what_people_corrected_most() -> None:
    """The released code keeps the opposite under this name."""
    gone = to_evict(FOUR, 200, "lfi")
    kept = [episode for episode in FOUR if episode.episode_id not in gone]
    assert min(episode.intervened for episode in kept) > max(e.intervened for e in FOUR if e.episode_id in gone)
    long = [Remembered("long", 1000, 100), Remembered("short", 10, 5)]  # more steps driven, but a smaller share
    assert to_evict(long, 100, "lfi") == ["long"]


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 300)), max_size=20), st.integers(0, 2000), st.sampled_from(STRATEGIES))
def test_no_more_goes_than_must(sizes: list[tuple[int, int]], keep: int, strategy: str) -> None:
    episodes = [Remembered(str(i), steps, min(steps, human)) for i, (steps, human) in enumerate(sizes)]
    gone = to_evict(episodes, keep, strategy)
    steps = {episode.episode_id: episode.steps for episode in episodes}
    left = sum(steps.values()) - sum(steps[name] for name in gone)
    assert len(set(gone)) == len(gone)
    assert left <= keep or len(gone) == max(0, len(episodes) - 1)
    assert not gone or left + steps[gone[-1]] > keep


def test_bad_arguments_name_the_known_ones(make_robot_spec: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="unknown memory strategy 'lru'; known: fifo, filo, lfi, mfi"):
        to_evict(FOUR, 10, "lru")
    with pytest.raises(ValueError, match="must not be negative"):
        to_evict(FOUR, -1, "lfi")
    for settings, message in (({"memory": "lru"}, "memory = 'lru'; known"), ({"memory_steps": 20}, "0 .all., or at least 100")):
        with pytest.raises(ValueError, match=message):
            make_learner("sirius", make_robot_spec(), 0, settings)


@pytest.fixture
def spec(make_robot_spec: Callable[..., Any]) -> RobotSpec:
    return make_robot_spec(observation=4, arm=2)


def episode(learner: Any, script: Any, kind: EpisodeKind, modes: list[ControlMode], end: Outcome = Outcome.FAILURE) -> None:
    learner.begin_episode(script.start(kind))
    learner.ingest([script.step(mode) for mode in modes])
    learner.end_episode(script.end(Outcome.SUCCESS if kind == EpisodeKind.DEMONSTRATION else end))


def run(spec: RobotSpec, script: Any, **parameters: Any) -> Any:
    """e000 is a demonstration; e001 to e004 are policy episodes of 50 steps with 10, 25, 0 and 15 driven by a person."""
    learner = make_learner("sirius", spec, 0, SMALL | parameters)
    episode(learner, script, EpisodeKind.DEMONSTRATION, [H] * 120)
    for _ in learner.clone_demonstrations():
        pass
    for human in (10, 25, 0, 15):
        episode(learner, script, EpisodeKind.POLICY, [P] * (50 - human) + [H] * human)
    return learner


def remembered(learner: Any) -> dict[str, int]:
    return {name: len(stored.actions) for name, stored in learner._episodes.items() if stored.actions}


@pytest.mark.parametrize(
    ("memory", "kept"), [("fifo", {"e003", "e004"}), ("filo", {"e001", "e002"}), ("lfi", {"e002", "e004"}), ("mfi", {"e001", "e003"})]
)
def test_a_full_memory_lets_go_of_policy_episodes_and_never_of_demonstrations(
    memory: str, kept: set[str], spec: RobotSpec, make_script: Callable[..., Any]
) -> None:
    learner = run(spec, make_script(spec), memory=memory, memory_steps=100)
    assert set(remembered(learner)) == {"e000"} | kept
    assert remembered(learner)["e000"] == 120
    learner.update()
    assert len(learner._table.actions) == 220
    assert learner.train_steps == 200  # what was seen is not what is remembered


def test_labels_of_a_forgotten_episode_find_nothing(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner = run(spec, make_script(spec), memory="fifo", memory_steps=100)
    assert learner.holds("e003")
    assert not learner.holds("e001")
    assert not learner.apply_labels(EpisodeLabels(episode_id="e001", onsets={0: 3}))
    learner.relabel("e001", Outcome.FAILURE, 3)
    learner.update()
    assert len(learner._table.actions) == 220


def test_a_resumed_learner_has_forgotten_the_same(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    settings = {"memory": "lfi", "memory_steps": 100}
    first, second = run(spec, make_script(spec), **settings), run(spec, make_script(spec), **settings)
    for _ in range(10):
        first.update()
    second.restore(first.state())
    for _ in range(10):
        first.update()
        second.update()
    assert weights_bytes(first.weights()) == weights_bytes(second.weights())
    assert remembered(first) == remembered(second)


@pytest.mark.parametrize("name", ["sirius", "iwr", "hg-dagger"])
def test_a_correction_is_learned_from_while_its_episode_runs(name: str, spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner, script = make_learner(name, spec, 0, SMALL), make_script(spec)
    episode(learner, script, EpisodeKind.DEMONSTRATION, [H] * 20)
    for _ in learner.clone_demonstrations():
        pass
    learner.begin_episode(script.start())
    before = 0
    for i, mode in enumerate([P] * 8 + [H] * 4):
        learner.ingest([script.step(mode)])
        due = learner.updates_due()
        assert due == max(0, i + 1 - 5 - before)
        for _ in range(due):
            learner.update()
            before += 1
            assert len(learner._table.actions) == 20 + i + 1  # the running episode, up to this step
    assert learner.corrections_used() == [("e001", 0)]
    assert before == 12 - 5
