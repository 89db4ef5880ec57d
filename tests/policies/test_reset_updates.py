"""Extra updates while the robot is reset (`reset_updates`): counted apart, and exact where time is lockstep."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from takeover.data.schema import ControlMode
from takeover.policies.learner_run import LearnerRun
from tests.policies.test_resume import FAST, STEPS, Stream, demonstration, differences, episode, state_of, take

LEARNERS = ["hil-serl", "sirius"]


@pytest.fixture
def make(make_run: Callable[..., LearnerRun]) -> Callable[..., LearnerRun]:
    """A run in ``workspace`` with ``extra`` updates after each episode."""

    def made(workspace: Path, learner: str, extra: int, clock: str = "lockstep", **parameters: Any) -> LearnerRun:
        settings = FAST[learner] | {"reset_updates": extra} | parameters
        return make_run(
            workspace=str(workspace),
            learner=learner,
            learner_parameters=settings,
            clock=clock,
            publish_every_updates=10,
            publish_every_s=3600.0,
            checkpoint_every_s=3600.0,
        )

    return made


def stream_of(script: Any) -> list[Any]:
    rng = np.random.default_rng(7)
    return demonstration(script, rng) + episode(script, rng) + episode(script, rng)


def counted(run: LearnerRun) -> tuple[int, int]:
    status = run.training.status()
    return status.updates, status.extra_updates


@pytest.mark.parametrize("learner", LEARNERS)
def test_in_lockstep_all_are_made_after_each_episode_and_the_ratio_is_held(
    tmp_path: Path, make: Callable[..., LearnerRun], make_script: Callable[..., Any], learner: str
) -> None:
    run, stream = make(tmp_path, learner, 7), Stream(tmp_path)
    records = stream_of(make_script())
    seen = []
    for record in records:
        take(run, stream.commit([record]))
        seen.append(counted(run))
    stream.recorder.close()
    end = 14 + STEPS + 1  # of the first episode of the policy
    assert seen[13] == (0, 0)  # none after a demonstration
    assert seen[end - 1] == (STEPS - 5, 0)
    assert seen[end] == (STEPS - 5 + 7, 7)
    assert seen[end + 1] == seen[end]  # an episode that begins
    assert seen[end + 2] == (STEPS - 4 + 7, 7)  # one step, one update
    assert seen[-1] == (2 * STEPS - 5 + 14, 14)
    assert run.training.need_learner().updates_due() == 0


def test_a_version_made_in_a_reset_acts_from_no_step_that_the_bridge_may_have_begun(
    tmp_path: Path, make: Callable[..., LearnerRun], make_script: Callable[..., Any]
) -> None:
    """After the news that step j is finished the bridge goes on to j + lag + 1, and hears of what was made in the reset only with j + 1."""
    run, stream = make(tmp_path, "sirius", 10), Stream(tmp_path)
    records = stream_of(make_script())
    take(run, stream.commit(records[: 14 + STEPS + 1]))
    before, last = run.training.versions[-1], run.training.finished_train_step
    assert before[1] <= last + run.config.lockstep_lag + 1
    take(run, stream.commit(records[14 + STEPS + 1 : 14 + STEPS + 2]))  # its end: ten extra updates, one version
    stream.recorder.close()
    assert run.training.finished_train_step == last
    assert run.training.versions[-1] == (before[0] + 1, last + run.config.lockstep_lag + 2)


@pytest.mark.parametrize("learner", LEARNERS)
def test_in_real_time_only_while_no_episode_runs_and_no_more_than_asked_for(
    tmp_path: Path, make: Callable[..., LearnerRun], make_script: Callable[..., Any], learner: str
) -> None:
    run, stream, script = make(tmp_path, learner, 9, "realtime"), Stream(tmp_path), make_script()
    rng = np.random.default_rng(7)
    take(run, stream.commit(demonstration(script, rng)))
    while run.work():
        pass
    assert run.training.phase == "training"
    assert counted(run) == (0, 0)
    first, second = episode(script, rng), episode(script, rng)
    take(run, stream.commit(first))
    for _ in range(STEPS - 5):  # what is due comes first
        assert run.work()
    assert counted(run) == (STEPS - 5, 0)
    for _ in range(4):
        assert run.work()
    assert counted(run) == (STEPS - 1, 4)
    take(run, stream.commit(second[:3]))  # the next one begins: the five that are left are not made
    while run.work():
        pass
    assert counted(run) == (STEPS + 1, 4)
    take(run, stream.commit(second[3:]))
    for _ in range(200):
        run.work()
    stream.recorder.close()
    assert counted(run) == (2 * STEPS - 5 + 13, 13)


@pytest.mark.parametrize("learner", LEARNERS)
def test_killed_between_two_of_them_it_goes_on_to_the_same_bits(
    tmp_path: Path, make: Callable[..., LearnerRun], make_script: Callable[..., Any], learner: str
) -> None:
    plain, stream = make(tmp_path / "plain", learner, 6), Stream(tmp_path / "plain")
    take(plain, stream.commit(stream_of(make_script())))
    stream.recorder.close()

    folder, records = tmp_path / "restarted", stream_of(make_script())
    run, stream = make(folder, learner, 6), Stream(folder)
    end = 14 + STEPS + 2
    take(run, stream.commit(records[: end - 1]))
    for made, _ in enumerate(run.committed(stream.commit(records[end - 1 : end]))):
        if made == 3:
            break  # as a signal ends it: between two pieces of work
    assert counted(run) == (STEPS - 5 + 4, 4)
    run.checkpoint()
    run.close()
    run = make(folder, learner, 6)
    run.resume()
    for first, last in itertools.pairwise([end, end + 3, len(records)]):
        take(run, stream.commit(records[first:last]))
    stream.recorder.close()
    assert counted(run) == (2 * STEPS - 5 + 12, 12)
    assert differences(state_of(plain), state_of(run)) == []


def test_what_waits_by_updates_waits_for_those_of_the_held_ratio(
    tmp_path: Path, make: Callable[..., LearnerRun], make_script: Callable[..., Any]
) -> None:
    """Extra updates of the critics do not end the time in which the actor waits for what the critics see of it."""
    run, stream = make(tmp_path, "hil-serl", 50, actor_delay=20), Stream(tmp_path)
    take(run, stream.commit(stream_of(make_script())[: 14 + STEPS + 2]))
    stream.recorder.close()
    assert counted(run) == (STEPS - 5 + 50, 50)
    assert run.training.metrics["actor_waits"] == 20 + 1 - (STEPS - 5)
    assert run.training.status().versions_published == 1  # what acts has not changed


def test_none_before_learning_begins(tmp_path: Path, make: Callable[..., LearnerRun], make_script: Callable[..., Any]) -> None:
    run, stream, script = make(tmp_path, "hil-serl", 5, learning_starts=STEPS), Stream(tmp_path), make_script()
    rng = np.random.default_rng(7)
    take(run, stream.commit([*episode(script, rng), *demonstration(script, rng)]))
    assert counted(run) == (0, 0)
    take(run, stream.commit([script.start(), *(script.step(ControlMode.POLICY) for _ in range(3)), script.end()]))
    stream.recorder.close()
    assert counted(run) == (3 + 5, 5)


def test_none_when_nothing_is_left_to_learn_from(tmp_path: Path, make: Callable[..., LearnerRun], make_script: Callable[..., Any]) -> None:
    run, stream = make(tmp_path, "hil-serl", 5, "realtime"), Stream(tmp_path)
    records = stream_of(make_script())
    take(run, stream.commit(records[:14]))
    while run.training.phase == "cloning":
        run.work()
    take(run, stream.commit(records[14 : 14 + STEPS + 2]))
    stream.recorder.close()
    for _ in range(STEPS - 5 + 2):
        assert run.work()
    assert counted(run) == (STEPS - 5 + 2, 2)
    for name in ("e000", "e001"):
        run.training.need_learner().exclude(name)
    assert not run.work()
    assert counted(run) == (STEPS - 5 + 2, 2)
