"""An episode that was thrown away, while it ran or when it had ended, is in no batch; taken back, it is; and a resumed learner agrees."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from takeover.data.schema import ControlMode, Outcome, OutcomeChange, OutcomeSource
from takeover.policies.imitation_episodes import counted
from takeover.policies.learner_run import LearnerRun

from .test_quarantine import LEARNERS, feed, make_training
from .test_resume import Stream, demonstration, differences, episode, make_run, numbers, state_of, take

__all__ = ["make_run"]  # a fixture


def drawn(training: Any, name: str) -> int:
    """Steps of an episode that a batch may hold."""
    learner = training.learner
    if training.config.learner == "hil-serl":
        key = learner.replay._keys.get(name, -1)
        return len(learner.replay.online.of_episode(key)) + len(learner.replay.demonstrations.of_episode(key))
    return sum(len(stored.actions) for stored in counted([learner._episodes[name]]))


def ended_by_next(script: Any, rng: np.random.Generator, *, discarded: bool) -> list[Any]:
    """An episode with a correction that somebody ended early."""
    modes = [ControlMode.POLICY] * 6 + [ControlMode.HUMAN] * 4
    steps = [script.start(), *(script.step(mode, **numbers(rng)) for mode in modes)]
    return [*steps, script.end(Outcome.ABORTED, OutcomeSource.NEXT, discarded=discarded)]


def change(script: Any, name: str, outcome: Outcome) -> OutcomeChange:
    return OutcomeChange(
        **script._next(), episode_id=name, outcome=outcome, previous=Outcome.SUCCESS, event_step=15, author="op-01", wall_ns=0
    )


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_policy_episode_that_is_thrown_away_while_it_runs(learner: str, make_script: Callable[..., Any]) -> None:
    training, _ = make_training(learner)
    script, rng = make_script(), np.random.default_rng(3)
    feed(training, [*demonstration(script, rng), *episode(script, rng)])
    thrown = ended_by_next(script, rng, discarded=True)
    feed(training, thrown[:-1])
    assert drawn(training, "e002") > 0
    feed(training, thrown[-1:])
    assert (drawn(training, "e001") > 0, drawn(training, "e002")) == (True, 0)
    feed(training, ended_by_next(script, rng, discarded=False))
    assert drawn(training, "e003") > 0, "cut short, but not thrown away: it happened"


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_last_episode_is_thrown_away_and_taken_back(learner: str, make_script: Callable[..., Any]) -> None:
    training, published = make_training(learner, demonstrations=2)
    script, rng = make_script(), np.random.default_rng(3)
    feed(training, demonstration(script, rng))
    assert training.learner is not None
    assert training.learner.demonstration_episodes == 1
    feed(training, [change(script, "e000", Outcome.ABORTED)])
    assert (training.learner.demonstration_episodes, drawn(training, "e000")) == (0, 0)
    feed(training, demonstration(script, rng))
    assert published.made == [], "cloning waits for two that count"
    feed(training, demonstration(script, rng))
    assert [one.version for one in published.made] == [1]
    feed(training, episode(script, rng))
    before = drawn(training, "e003")
    feed(training, [change(script, "e003", Outcome.ABORTED)])
    assert drawn(training, "e003") == 0
    feed(training, [change(script, "e003", Outcome.SUCCESS), change(script, "e000", Outcome.SUCCESS)])
    assert drawn(training, "e003") == before
    assert training.learner.demonstration_episodes == 3


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_learner_that_resumes_has_thrown_away_the_same(
    learner: str, tmp_path: Path, make_run: Callable[..., LearnerRun], make_script: Callable[..., Any]
) -> None:
    def stream_of(script: Any) -> list[Any]:
        rng = np.random.default_rng(7)
        records = [*demonstration(script, rng), *episode(script, rng)]
        return [*records, *ended_by_next(script, rng, discarded=True), *episode(script, rng)]

    plain, stream = make_run(tmp_path / "plain", learner), Stream(tmp_path / "plain")
    take(plain, stream.commit(stream_of(make_script())))
    stream.recorder.close()

    folder, records = tmp_path / "restarted", stream_of(make_script())
    run, stream = make_run(folder, learner), Stream(folder)
    cut = len(records) - 10  # after the one that was thrown away
    take(run, stream.commit(records[:cut]))
    stream.wait_closed(3)
    run.checkpoint()
    run.close()
    run = make_run(folder, learner)
    run.resume()
    take(run, stream.commit(records[cut:]))
    stream.recorder.close()
    assert drawn(plain.training, "e002") == 0
    assert differences(state_of(plain), state_of(run)) == []
