"""A success that a person vetoes, or that a later classifier no longer sees: experience without reward and end, nothing is thrown away."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from takeover.data.schema import Outcome, OutcomeChange, OutcomeSource
from takeover.policies.learner_run import LearnerRun
from takeover.policies.training import Training

from .test_labels_reach_batches import Bench, make_bench  # noqa: F401
from .test_quarantine import feed, make_training, rows_of
from .test_resume import Stream, demonstration, differences, episode, make_run, state_of, take  # noqa: F401

SEEN = 13  # the step that the classifier took for success, of 16; a person drove 8 to 11
LEARNERS = ("hil-serl", "sirius")


def change(
    script: Any, name: str, outcome: Outcome, event_step: int = SEEN, source: OutcomeSource = OutcomeSource.OPERATOR
) -> OutcomeChange:
    script.rec_seq += 1
    fields: dict[str, Any] = {"previous": Outcome.SUCCESS, "author": "op-01", "event_step": event_step, "source": source, "wall_ns": 0}
    return OutcomeChange(session=script.session, rec_seq=script.rec_seq, episode_id=name, outcome=outcome, **fields)


def by_classifier(records: list[Any], event_step: int = SEEN) -> list[Any]:
    """As the bridge writes it: the episode is truncated at its last step and dated back."""
    end = msgspec.structs.replace(records[-1], outcome_source=OutcomeSource.CLASSIFIER, event_step=event_step)
    return [*records[:-2], msgspec.structs.replace(records[-2], truncated=True), end]


def found(training: Training, name: str) -> dict[int, tuple[float, float]]:
    """{step: (reward, mask)} of an episode in the online buffer."""
    learner: Any = training.learner
    replay, buffer = learner.replay, learner.replay.online
    at = buffer.of_episode(replay._keys[name])
    return {int(buffer.step[i]): tuple(buffer.rows[i, [replay.columns.reward, replay.columns.mask]].tolist()) for i in at}


def human_steps(training: Training, name: str) -> list[int]:
    replay = training.learner.replay  # type: ignore[union-attr]
    buffer = replay.demonstrations
    return sorted(int(step) for step in buffer.step[buffer.of_episode(replay._keys[name])])


def test_a_veto_keeps_every_step_and_the_false_success_earns_nothing(make_script: Callable[..., Any]) -> None:
    training, _ = make_training("hil-serl")
    script, rng = make_script(), np.random.default_rng(3)
    feed(training, [*demonstration(script, rng), *by_classifier(episode(script, rng))])
    assert found(training, "e001") == dict.fromkeys(range(SEEN), (0.0, 1.0)) | {SEEN: (1.0, 0.0)}
    feed(training, [change(script, "e001", Outcome.UNKNOWN)])
    assert found(training, "e001") == dict.fromkeys(range(16), (0.0, 1.0))  # 13 too, and what came after it
    assert human_steps(training, "e001") == [8, 9, 10, 11]
    assert "left out" not in training.status().text
    updates = training.status().updates
    feed(training, episode(script, rng))
    assert training.status().updates == updates + 16
    feed(training, [change(script, "e001", Outcome.SUCCESS)])  # after all
    assert found(training, "e001") == dict.fromkeys(range(SEEN), (0.0, 1.0)) | {SEEN: (1.0, 0.0)}


def test_the_tasks_own_success_can_be_taken_back(make_script: Callable[..., Any]) -> None:
    training, _ = make_training("hil-serl")
    script, rng = make_script(), np.random.default_rng(3)
    shown, records = demonstration(script, rng), episode(script, rng)
    records[-2] = msgspec.structs.replace(records[-2], reward=1.0, terminated=True)
    feed(training, [*shown, *records])
    assert found(training, "e001")[15] == (1.0, 0.0)
    feed(training, [change(script, "e001", Outcome.UNKNOWN, 15)])
    assert found(training, "e001") == dict.fromkeys(range(16), (0.0, 1.0))


@pytest.mark.parametrize("given", [Outcome.SUCCESS, Outcome.ABORTED])
@pytest.mark.parametrize("source", [OutcomeSource.LIMIT, OutcomeSource.FAULT])
def test_a_time_limit_is_one_again_once_a_persons_outcome_is_taken_back(
    given: Outcome, source: OutcomeSource, make_script: Callable[..., Any]
) -> None:
    """No end of anything, and no step is lost: a timeout must not become a failure that ends the future."""
    training, _ = make_training("hil-serl")
    script, rng = make_script(), np.random.default_rng(3)
    shown, records = demonstration(script, rng), episode(script, rng)
    outcome = Outcome.FAILURE if source is OutcomeSource.LIMIT else Outcome.ABORTED
    records[-2] = msgspec.structs.replace(records[-2], reward=0.0, terminated=False, truncated=True)
    records[-1] = msgspec.structs.replace(records[-1], outcome=outcome, outcome_source=source, event_step=15)
    feed(training, [*shown, *records])
    recorded = found(training, "e001")
    assert recorded == dict.fromkeys(range(16), (0.0, 1.0))
    feed(training, [change(script, "e001", given)])
    assert found(training, "e001") != recorded
    feed(training, [change(script, "e001", outcome, 15, source)])
    assert found(training, "e001") == recorded


def test_a_classifiers_success_is_its_own_again_once_a_veto_is_taken_back(make_script: Callable[..., Any]) -> None:
    training, _ = make_training("hil-serl")
    script, rng = make_script(), np.random.default_rng(3)
    feed(training, [*demonstration(script, rng), *by_classifier(episode(script, rng))])
    recorded = found(training, "e001")
    feed(training, [change(script, "e001", Outcome.UNKNOWN)])
    feed(training, [change(script, "e001", Outcome.SUCCESS, SEEN, OutcomeSource.CLASSIFIER)])
    assert found(training, "e001") == recorded


@pytest.mark.parametrize("learner", LEARNERS)
def test_imitation_goes_on_with_what_was_vetoed(learner: str, make_script: Callable[..., Any]) -> None:
    training, _ = make_training(learner)
    script, rng = make_script(), np.random.default_rng(3)
    shown = by_classifier(demonstration(script, rng), 9)
    feed(training, [*shown, *by_classifier(episode(script, rng))])
    made: Any = training.learner
    before = made.demonstration_episodes, rows_of(training, "e001")
    feed(training, [change(script, name, Outcome.UNKNOWN, 9) for name in ("e000", "e001")])
    assert (made.demonstration_episodes, rows_of(training, "e000")) == (1, 12)
    assert rows_of(training, "e001") >= before[1] > 0
    assert made.updates_due() == 0
    feed(training, episode(script, rng))
    assert training.status().updates == 27  # 32 training steps, of which 5 come first


def test_what_was_recorded_without_an_outcome_still_waits_for_one(make_script: Callable[..., Any]) -> None:
    training, _ = make_training("hil-serl")
    script, rng = make_script(), np.random.default_rng(3)
    shown, records = demonstration(script, rng), episode(script, rng)
    feed(training, [*shown, *records[:-1], msgspec.structs.replace(records[-1], outcome=Outcome.UNKNOWN)])
    for outcome, count in ((Outcome.SUCCESS, 14), (Outcome.UNKNOWN, 0), (Outcome.ABORTED, 0), (Outcome.UNKNOWN, 0)):
        feed(training, [change(script, "e001", outcome)])
        assert len(found(training, "e001")) == count, outcome


@pytest.mark.parametrize("author", ["op-01", "reward-v2"])
def test_a_veto_and_a_new_score_by_labels_reach_the_batches_of_a_run(make_bench: Callable[..., Bench], author: str) -> None:  # noqa: F811
    """Real recorder, catalog, labels and learner: scored as a success at step 5, then not any more."""
    bench = make_bench()
    training = bench.run.training
    bench.labels.add_label("e001", "outcome", "success@5", "reward-v1")
    bench.run.reread_labels()
    assert found(training, "e001") == dict.fromkeys(range(5), (0.0, 1.0)) | {5: (1.0, 0.0)}
    bench.labels.add_label("e001:t0", "trim", "4-5", "lab-01")
    bench.labels.add_label("e001", "outcome", "unknown", author)
    bench.batch()
    kept = [0, 1, 2, 3, 4, 5, 7, 8, 9]
    assert found(training, "e001") == dict.fromkeys(kept, (0.0, 1.0))
    assert human_steps(training, "e001") == [4, 5]
    assert "left out" not in training.status().text
    bench.run.checkpoint(wait=True)
    again = LearnerRun(bench.config)
    try:
        again.resume()
        assert found(again.training, "e001") == dict.fromkeys(kept, (0.0, 1.0))
        assert human_steps(again.training, "e001") == [4, 5]
    finally:
        again.close()


@pytest.mark.parametrize("learner", LEARNERS)
def test_killed_after_a_veto_it_ends_at_the_same_bits(
    tmp_path: Path,
    make_run: Callable[..., LearnerRun],  # noqa: F811
    make_script: Callable[..., Any],
    learner: str,
) -> None:
    """Lockstep; saved and started anew before the veto, in the episode that runs after it, and at the end."""

    def records() -> list[Any]:
        script, rng = make_script(), np.random.default_rng(7)
        shown, first, second = demonstration(script, rng), by_classifier(episode(script, rng)), episode(script, rng)
        return [*shown, *first, *second, change(script, "e001", Outcome.UNKNOWN), *episode(script, rng)]

    plain, stream = make_run(tmp_path / "plain", learner), Stream(tmp_path / "plain")
    take(plain, stream.commit(records()))
    stream.recorder.close()
    folder, script = tmp_path / "restarted", records()
    run, stream = make_run(folder, learner), Stream(folder)
    cuts = [0, 14 + 18 + 5, 14 + 36 + 1 + 4, len(script)]
    for (first, last), closed in zip(itertools.pairwise(cuts), (2, 3, 4), strict=True):
        take(run, stream.commit(script[first:last]))
        stream.wait_closed(closed)
        run.checkpoint()
        run.close()
        run = make_run(folder, learner)
        run.resume()
    stream.recorder.close()
    assert differences(state_of(plain), state_of(run)) == []
    assert run.training.learner is not None
    assert run.training.learner.updates == 3 * 16 - 5
    if learner == "hil-serl":
        assert found(run.training, "e001") == found(plain.training, "e001") == dict.fromkeys(range(16), (0.0, 1.0))
        a, b = (one.training.learner.replay.online for one in (plain, run))  # type: ignore[union-attr]
        assert torch.equal(a.rows[: a.size], b.rows[: b.size])


def test_a_demonstration_whose_success_was_taken_back_is_still_shown(make_script: Callable[..., Any]) -> None:
    training, _ = make_training("hil-serl")
    script, rng = make_script(), np.random.default_rng(3)
    feed(training, by_classifier(demonstration(script, rng), 9))
    assert human_steps(training, "e000") == list(range(10))
    feed(training, [change(script, "e000", Outcome.UNKNOWN, 9)])
    assert human_steps(training, "e000") == list(range(12))
    buffer: Any = training.learner.replay.demonstrations  # type: ignore[union-attr]
    columns = training.learner.replay.columns  # type: ignore[union-attr]
    assert float(buffer.rows[: buffer.size, columns.reward].abs().sum()) == 0.0
    assert float(buffer.rows[: buffer.size, columns.mask].min()) == 1.0
