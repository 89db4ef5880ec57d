"""A learner that runs for days forgets what it knew of episodes whose last row has left, and nothing else."""

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
import torch

from takeover.data.episode_labels import EpisodeLabels
from takeover.data.schema import ControlMode, EpisodeKind, Outcome, OutcomeSource, RobotSpec, RunConfig
from takeover.policies.correction_use import CorrectionUse
from takeover.policies.corrections import REMEMBERED, CorrectionClock
from takeover.policies.publish import weights_bytes
from takeover.policies.registry import make_learner
from takeover.policies.replay import CorrectionReplay
from takeover.policies.training import Training

from .conftest import Script, make_spec

P, H = ControlMode.POLICY, ControlMode.HUMAN
FAST = {"hidden": 16, "batch": 32, "clone_updates": 10, "critic_warmup": 5, "learning_starts": 5, "actor_delay": 0}
CAPACITY = 100
SMALLEST = 1000  # that a learner takes
STEPS = 5


@pytest.fixture
def spec() -> RobotSpec:
    return make_spec(gripper=True)


def policy_episode(script: Script, name: str, **end: Any) -> list[Any]:
    """Five steps, the last two driven by a person who closes the gripper; the operator says how it ended."""
    start = script.start(episode_id=name)
    steps = [script.step(mode, action=[0.25, 0.25, -1.0 if mode == H else 0.0]) for mode in (P, P, P, H, H)]
    return [start, *steps, script.end(**({"outcome": Outcome.SUCCESS, "source": OutcomeSource.OPERATOR} | end))]


def ingest(target: Any, records: list[Any]) -> None:
    start, *steps, end = records
    target.begin_episode(start)
    for step in steps:
        target.add(step) if isinstance(target, CorrectionReplay) else target.ingest([step])
    target.end_episode(end)


def named(script: Script, count: int, **end: Any) -> list[list[Any]]:
    """Episodes with names as long as the recorded ones."""
    return [policy_episode(script, f"2026-11-22T10-00-00-{script.number:09d}", **end) for _ in range(count)]


@pytest.mark.parametrize("learner", ["hil-serl", "sirius"])
@pytest.mark.parametrize("discarded", [False, True])
def test_memory_does_not_grow_with_episodes(spec: RobotSpec, learner: str, discarded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("takeover.policies.corrections.REMEMBERED", 100)
    settings: dict[str, dict[str, Any]] = {
        "hil-serl": FAST | {"replay_capacity": SMALLEST},
        "sirius": {"memory_steps": CAPACITY, "hidden": 16, "history": 1},
    }
    config = RunConfig(
        session_id="run-a", workspace="", sockets="", task="reach", clock="realtime", learner=learner, learner_parameters=settings[learner]
    )
    training = Training(config, lambda publication: publication.version)
    script = Script(spec)

    def run(count: int) -> None:
        for _ in range(count):
            for record in [*named(script, 1)[0], *(named(script, 1, discarded=True)[0] if discarded else [])]:
                training.handle(record)

    tracemalloc.start()
    run(600)  # the ring of what people drove is full
    before, _ = tracemalloc.get_traced_memory()
    run(600)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    looks = {"hil-serl": 600, "sirius": 100}[learner]  # what hil-serl knows goes up and down with its looks
    assert (after - before) / 600 < looks, "bytes per episode"


def test_labels_find_what_is_there_and_nothing_else(spec: RobotSpec) -> None:
    script, replay = Script(spec), CorrectionReplay(spec, capacity=CAPACITY)
    demonstration = [script.start(EpisodeKind.DEMONSTRATION), *(script.step(H) for _ in range(STEPS)), script.end()]
    ingest(replay, demonstration)
    episodes = named(script, 500)
    for records in episodes:
        ingest(replay, records)
    newest, oldest = episodes[-1][0].episode_id, episodes[0][0].episode_id
    assert len(replay._keys) < 150
    assert replay.demonstration_episodes == 1
    assert replay.holds(demonstration[0].episode_id), "what was shown is counted for ever"
    assert replay.holds(newest)
    assert not replay.holds(oldest)
    assert not replay.apply_labels(EpisodeLabels(episode_id=oldest, excluded=True))
    assert replay.exclude(oldest) == 0
    replay.relabel(oldest, Outcome.FAILURE, STEPS - 1)
    assert replay.online.size == CAPACITY, "of the forgotten there is nothing to take out"
    assert replay.apply_labels(EpisodeLabels(episode_id=newest, excluded=True))
    assert replay.online.size == CAPACITY - STEPS
    assert replay.apply_labels(EpisodeLabels(episode_id=newest))
    assert replay.online.size == CAPACITY, "and it comes back"


def test_an_episode_that_labels_keep_out_is_remembered_until_the_ring_has_passed_it(spec: RobotSpec) -> None:
    script, replay = Script(spec), CorrectionReplay(spec, capacity=10_000)
    first, *others = named(script, 300)
    ingest(replay, first)
    replay.exclude(first[0].episode_id)
    for records in others:
        ingest(replay, records)
    assert replay.online.size == 299 * STEPS, "a ring that is not full has passed nothing"
    assert replay.apply_labels(EpisodeLabels(episode_id=first[0].episode_id))
    assert replay.online.size == 300 * STEPS


def test_one_that_came_back_as_the_oldest_says_nothing_about_its_elders_when_it_goes(spec: RobotSpec) -> None:
    script, replay = Script(spec), CorrectionReplay(spec, capacity=CAPACITY)
    count = CAPACITY // STEPS

    def alone(number: int) -> list[list[Any]]:
        """Episodes nobody took over: all of them in one ring."""
        return [[script.start(), *(script.step(P) for _ in range(STEPS)), script.end()] for _ in range(number)]

    episodes = alone(count)
    ids = [records[0].episode_id for records in episodes]
    for records in episodes:
        ingest(replay, records)
    kept_out, toggled, room = ids[12], ids[-1], ids[5]
    replay.exclude(kept_out)
    replay.exclude(toggled)
    assert replay.apply_labels(EpisodeLabels(episode_id=toggled)), "back, as the oldest"
    for records in alone(3):
        ingest(replay, records)
    replay._look_at = 0  # as from time to time
    replay._forget_gone_episodes()
    assert [replay.holds(name) for name in (toggled, ids[0], ids[1])] == [False, False, True], "it went first, as the oldest"
    assert replay.holds(kept_out), "its elders are still here, and so is what labels keep out"
    replay.exclude(room)
    assert replay.apply_labels(EpisodeLabels(episode_id=kept_out))
    assert replay.online.size == CAPACITY, "it comes back"
    for records in alone(count):
        ingest(replay, records)
    replay._look_at = 0
    replay._forget_gone_episodes()
    assert not replay.holds(room), "what the ring has passed in its turn is forgotten"


def test_a_correction_is_named_once_whatever_was_forgotten(spec: RobotSpec) -> None:
    script, replay = Script(spec), CorrectionReplay(spec, capacity=CAPACITY)
    used = []
    generator = torch.Generator().manual_seed(0)
    episodes = named(script, 300)
    for records in episodes:
        ingest(replay, records)
        replay.sample(64, generator)
        used += replay.corrections_used()
    assert used == [(records[0].episode_id, 0) for records in episodes]
    assert replay.unused_corrections() == []


def test_corrections_that_wait_are_known_by_name_whatever_is_ingested_again(spec: RobotSpec) -> None:
    script = Script(spec)
    corrections = CorrectionUse()
    steps = [step for records in named(script, 4) for step in records[1:-1] if step.intervention_id >= 0]
    assert [corrections.number_of(step.episode_id, step.intervention_id) for step in steps] == [0, 0, 1, 1, 2, 2, 3, 3]
    corrections.seen([2, 2, 0, -1])
    assert [name for name, _ in corrections.take_used()] == [steps[0].episode_id, steps[4].episode_id]
    waiting = json.loads(json.dumps(corrections.state()))
    assert waiting == [[steps[2].episode_id, 0], [steps[6].episode_id, 0]]
    for leaves_out, left in (("nothing", waiting), (steps[0].episode_id, waiting), (steps[2].episode_id, waiting[1:])):
        again = CorrectionUse()
        for step in steps:
            if step.episode_id != leaves_out:
                again.number_of(step.episode_id, step.intervention_id)
        again.restore(waiting)
        assert again.state() == left
        again.seen(range(4))
        assert [list(identity) for identity in again.take_used()] == left
        assert not again


def test_corrections_of_a_checkpoint_that_knew_their_numbers_alone(spec: RobotSpec) -> None:
    script = Script(spec)
    corrections = CorrectionUse()
    steps = [step for records in named(script, 4) for step in records[1:-1] if step.intervention_id >= 0]
    for step in steps:
        corrections.number_of(step.episode_id, step.intervention_id)
    corrections.restore([1, 3, 99])  # one whose steps labels left out since
    assert corrections.state() == [[steps[2].episode_id, 0], [steps[6].episode_id, 0]]


@pytest.mark.parametrize("learner", ["hil-serl", "sirius"])
def test_one_that_starts_again_learns_the_same_bits_after_forgetting(spec: RobotSpec, learner: str) -> None:
    settings: dict[str, Any] = {"hil-serl": FAST | {"replay_capacity": SMALLEST}}.get(
        learner, {"memory_steps": CAPACITY, "hidden": 16, "history": 1, "clone_updates": 10, "learning_starts": 5, "batch": 32}
    )
    script = Script(spec)
    demonstration = [script.start(EpisodeKind.DEMONSTRATION), *(script.step(H) for _ in range(STEPS)), script.end()]
    episodes = named(script, 700)

    def fresh() -> Any:
        made = make_learner(learner, spec, 0, settings)
        ingest(made, demonstration)
        return made

    def follow(target: Any, records: list[Any], update: Callable[[], Any]) -> None:
        ingest(target, records)
        update()

    undisturbed = fresh()
    for _ in undisturbed.clone_demonstrations():
        pass
    for records in episodes[:500]:
        follow(undisturbed, records, undisturbed.update)
    resumed = fresh()
    for records in episodes[:500]:
        ingest(resumed, records)
    resumed.restore(undisturbed.state())
    for records in episodes[500:]:
        follow(undisturbed, records, undisturbed.update)
        follow(resumed, records, resumed.update)
    assert weights_bytes(resumed.weights()) == weights_bytes(undisturbed.weights())
    assert resumed.corrections_used()[-100:] == undisturbed.corrections_used()[-100:]
    assert resumed.holds(episodes[-1][0].episode_id)
    assert not resumed.holds(episodes[100][0].episode_id)


def test_times_of_corrections_are_those_of_the_newest() -> None:
    clock, script = CorrectionClock(), Script(make_spec())
    for i in range(REMEMBERED + 50):
        script.start()
        step = script.step(H)
        clock.on_step(step, i)
        clock.on_used([(step.episode_id, step.intervention_id)], i, step.t_applied_ns + i)
    assert len(clock.to_batch_s) == len(clock._all) == REMEMBERED
    assert clock.to_batch_s[-1] == pytest.approx((REMEMBERED + 49) / 1e9)
