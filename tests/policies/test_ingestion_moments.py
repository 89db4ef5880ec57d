"""What is ingested at awkward moments: while pictures are encoded, after a cut, behind a key, and once more after it was left out."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from takeover.data.labels import Labels
from takeover.data.schema import EpisodeKind, Outcome, OutcomeSource, RobotSpec, RunConfig
from takeover.policies.imitation_episodes import counted
from takeover.policies.learner_run import LearnerRun
from takeover.policies.training import Training

from .test_picture_hil_serl import SETTINGS, Filler, made, spec  # noqa: F401
from .test_quarantine import LEARNERS, Publications, feed, make_training, rows_of
from .test_resume import Stream, demonstration, episode, make_run, take  # noqa: F401
from .test_taken_back_outcomes import change

IMITATES = [learner for learner in LEARNERS if learner != "hil-serl"]


def test_nothing_comes_in_while_pictures_are_encoded(spec: RobotSpec, make_script: Callable[..., Any]) -> None:  # noqa: F811
    """In real time a person goes on recording while what was recorded is cloned."""
    filler = Filler(made(spec), make_script(spec))
    for _ in range(4):
        filler.episode(EpisodeKind.DEMONSTRATION)
    shown = len(filler.records)
    filler.episode(EpisodeKind.DEMONSTRATION, steps=8)
    config = RunConfig(
        session_id="run-a", workspace="", sockets="", task="reach", learner="hil-serl", demonstrations=4, learner_parameters=SETTINGS
    )
    training = Training(config, Publications())
    for record in filler.records[:shown]:
        training.handle(record)
    learner: Any = training.learner
    assert training.phase == "cloning"
    training._cloning = one_by_one(learner.clone_demonstrations())
    waiting, blocked = list(filler.records[shown:]), 0
    while training.phase == "cloning":
        blocked += training.blocks_ingestion
        if not training.blocks_ingestion and waiting:
            training.handle(waiting.pop(0))
        training._progress = next(training._cloning, 2.0)  # type: ignore[arg-type]
        if training._progress > 1.0:
            training._cloning = None
    assert blocked > 10, "it takes a while"
    for record in waiting:
        training.handle(record)
    assert learner.replay.demonstrations.size == 4 * 5 + 8
    assert training.quarantine.reasons == {}


def one_by_one(progress: Any) -> Any:
    yield from progress


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_demonstration_that_was_cut_off_counts_once_somebody_gives_it_an_outcome(learner: str, make_script: Callable[..., Any]) -> None:
    training, _ = make_training(learner, demonstrations=2)
    script, rng = make_script(), np.random.default_rng(3)
    feed(training, [*demonstration(script, rng), *demonstration(script, rng)[:-1]])
    again = make_script(session="session-b")
    again.number = 1
    feed(training, [again.start(EpisodeKind.POLICY)])
    assert (rows_of(training, "e001"), training.status().demonstrations) == (0, 1)
    feed(training, [again.end(), change(again, "e001", Outcome.SUCCESS, 11)])
    assert (rows_of(training, "e001"), training.status().demonstrations) == (12, 2)
    assert training.status().versions_published == 1
    feed(training, [change(again, "e001", Outcome.FAILURE, 11)])
    assert training.status().demonstrations == 1
    if learner == "hil-serl":
        replay = training.learner.replay  # type: ignore[union-attr]
        assert len(replay.online.of_episode(replay._keys["e001"])) == 12, "experience, but no example"


@pytest.mark.parametrize("kind", [EpisodeKind.POLICY, EpisodeKind.DEMONSTRATION])
@pytest.mark.parametrize("source", [OutcomeSource.OPERATOR, OutcomeSource.CLASSIFIER])
@pytest.mark.parametrize("learner", IMITATES)
def test_what_came_after_a_key_is_not_imitated_with_labels_or_without(
    learner: str, source: OutcomeSource, kind: EpisodeKind, make_script: Callable[..., Any]
) -> None:
    training, _ = make_training(learner)
    script, rng = make_script(), np.random.default_rng(3)
    make = episode if kind is EpisodeKind.POLICY else demonstration
    records = make(script, rng)
    end = msgspec.structs.replace(records[-1], outcome_source=source, event_step=7)
    feed(training, [*demonstration(script, rng), *records[:-1], end])
    imitation: Any = training.learner
    left = [stored.steps for stored in counted([imitation._episodes["e000"]])]
    assert left == [list(range(8))]
    feed(training, [change(script, "e000", Outcome.UNKNOWN)])
    feed(training, [change(script, "e000", Outcome.SUCCESS, 7, source)])
    assert [stored.steps for stored in counted([imitation._episodes["e000"]])] == left


@pytest.mark.parametrize("learner", LEARNERS)
def test_what_is_left_out_before_a_restart_and_comes_back_after_it_is_counted_once(
    learner: str,
    tmp_path: Path,
    make_run: Callable[..., LearnerRun],  # noqa: F811
    make_script: Callable[..., Any],
) -> None:
    script, rng = make_script(), np.random.default_rng(3)
    run, stream = make_run(tmp_path, learner, clock="realtime"), Stream(tmp_path)
    take(run, stream.commit([*demonstration(script, rng), *episode(script, rng), *episode(script, rng)]))
    stream.wait_closed(3)
    while run.training.phase != "training" or run.training.need_learner().updates_due():
        run.work()
    before = (run.training.need_learner().train_steps, run.training.need_learner().human_steps)
    run.checkpoint(wait=True)
    with contextlib.closing(Labels(tmp_path)) as labels:
        labels.add_label("e001", "exclude", True, "lab-01")
    run.close()
    for _ in range(2):  # a second restart remembers it, too
        run = make_run(tmp_path, learner, clock="realtime")
        run.resume()
        run.checkpoint(wait=True)
        run.close()
    run = make_run(tmp_path, learner, clock="realtime")
    run.resume()
    assert rows_of(run.training, "e001") == 0
    with contextlib.closing(Labels(tmp_path)) as labels:
        labels.add_label("e001", "exclude", False, "lab-01")
    run.reread_labels()
    stream.recorder.close()
    assert rows_of(run.training, "e001") > 0
    assert (run.training.need_learner().train_steps, run.training.need_learner().human_steps) == before
    run.close()
