"""The learner on disk, in this process: labels reach the replay, gaps are read from the store, bad checkpoints are passed over."""

from collections.abc import Callable
from typing import Any

import pytest

from takeover.data.labels import Labels
from takeover.data.recorder import Recorder
from takeover.data.schema import Committed, ControlMode, EpisodeKind, Outcome
from takeover.policies.checkpoint import newest_checkpoint
from takeover.policies.hil_serl import HilSerlLearner
from takeover.policies.learner_run import LearnerRun
from takeover.policies.publish import published_versions
from takeover.policies.resume import OtherSettings

from .conftest import FAST


def commit(recorder: Recorder, records: list[Any]) -> list[Committed]:
    """On disk; the announcements, closed episodes included."""
    for record in records:
        recorder.accept(record)
    synced = recorder.sync()
    return [m for m in (synced.committed, *synced.closed) if m is not None]


def take(run: LearnerRun, messages: list[Committed]) -> None:
    for message in messages:
        for _ in run.committed(message):
            pass
    while run.training.phase == "cloning":
        run.work()


def demonstration(script: Any) -> list[Any]:
    return [script.start(EpisodeKind.DEMONSTRATION), *(script.step(ControlMode.HUMAN) for _ in range(10)), script.end()]


def policy_episode(script: Any, outcome: Outcome = Outcome.FAILURE) -> list[Any]:
    modes = [ControlMode.POLICY] * 5 + [ControlMode.HUMAN] * 5
    return [script.start(), *(script.step(mode) for mode in modes), script.end(outcome)]


def replay_of(run: LearnerRun) -> Any:
    assert isinstance(run.training.learner, HilSerlLearner)
    return run.training.learner.replay


def test_labels_reach_the_replay_at_once(recorder: Recorder, make_run: Callable[..., LearnerRun], make_script: Callable[..., Any]) -> None:
    run, script = make_run(), make_script()
    for records in (demonstration(script), policy_episode(script), policy_episode(script)):
        take(run, commit(recorder, records))
    recorder.close()  # its worker has entered every episode in the catalog
    replay = replay_of(run)
    assert (replay.online.size, replay.demonstrations.size) == (20, 20)
    run.reread_labels()
    with_labels = Labels(recorder.workspace)
    try:
        with_labels.add_label("e001", "exclude", True, "lab-01")
        with_labels.add_label("e002", "outcome", "success", "lab-01")
        run.reread_labels()
    finally:
        with_labels.close()
    assert (replay.online.size, replay.demonstrations.size) == (10, 15)
    assert replay.online.rows[:10, replay.columns.reward].tolist() == [0.0] * 9 + [1.0]
    assert replay.online.rows[9, replay.columns.mask].item() == 0.0

    again = make_run()  # a learner that starts now sees the same
    again.resume()
    fresh = replay_of(again)
    assert (fresh.online.size, fresh.demonstrations.size) == (10, 15)
    assert fresh.online.rows[9, fresh.columns.reward].item() == 1.0


def test_what_acts_as_before_is_no_new_version(
    recorder: Recorder, make_run: Callable[..., LearnerRun], make_script: Callable[..., Any]
) -> None:
    run, script = make_run(learner_parameters=FAST | {"actor_delay": 12}, publish_every_updates=1), make_script()
    take(run, commit(recorder, demonstration(script)))
    seen = []
    for _ in range(3):
        take(run, commit(recorder, policy_episode(script)))
        status = run.training.status()
        seen.append((status.updates, status.metrics["actor_waits"], status.versions_published))
    assert seen == [(5, 8.0, 1), (15, 0.0, 4), (25, 0.0, 14)]  # version 2 is of update 13


def test_a_missed_announcement_is_read_from_the_store(
    recorder: Recorder, make_run: Callable[..., LearnerRun], make_script: Callable[..., Any]
) -> None:
    run, script = make_run(), make_script()
    take(run, commit(recorder, demonstration(script)))
    missed = policy_episode(script)
    commit(recorder, missed[:6])
    take(run, commit(recorder, missed[6:]))
    assert run.gaps_read == 1
    assert replay_of(run).train_steps == 10
    assert run.training.finished_train_step == 9
    take(run, [Committed(session="session-a", first=0, cursor=missed[-1].rec_seq, records=missed)])  # announced twice: counted once
    assert replay_of(run).train_steps == 10


def test_a_broken_checkpoint_is_passed_over_for_the_one_before(
    recorder: Recorder, make_run: Callable[..., LearnerRun], make_script: Callable[..., Any]
) -> None:
    run, script = make_run(), make_script()
    take(run, commit(recorder, demonstration(script)))
    take(run, commit(recorder, policy_episode(script)))
    run.close()
    (first, second) = sorted(run.folder.glob("checkpoint-*"))
    (second / "state.safetensors").write_bytes((second / "state.safetensors").read_bytes()[:-1])
    state, problems = newest_checkpoint(run.folder)
    assert state is not None
    assert state["values"]["updates"] == 0  # the one after cloning
    assert first.name != second.name
    assert len(problems) == 1
    assert "hash" in problems[0]


def test_a_damaged_checkpoint_is_said_and_learning_goes_on_from_the_one_before(
    recorder: Recorder, make_run: Callable[..., LearnerRun], make_script: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    run, script = make_run(), make_script()
    take(run, commit(recorder, demonstration(script)))
    take(run, commit(recorder, policy_episode(script)))
    run.close()
    newest = max(run.folder.glob("checkpoint-*"))
    for name in ("state.safetensors", "state.json"):
        whole = (newest / name).read_bytes()
        changed = bytearray(whole)
        changed[len(whole) // 2] ^= 1
        (newest / name).write_bytes(changed)
        state, problems = newest_checkpoint(run.folder)
        assert state is not None
        assert (state["values"]["updates"], len(problems)) == (0, 1), f"one bit of {name}"
        (newest / name).write_bytes(whole)
    (newest / "state.safetensors").write_bytes(b"")
    recorder.close()
    again = make_run()
    again.resume()
    assert "passed over" in caplog.text
    assert "a checkpoint is damaged" in again.training.status().text
    assert "the one before it counts" in again.training.status().text
    assert again.training.status().updates == 5, "the same updates made again"


def test_a_checkpoint_of_other_settings_ends_the_learner_with_their_names(
    recorder: Recorder, make_run: Callable[..., LearnerRun], make_script: Callable[..., Any]
) -> None:
    run, script = make_run(clock="realtime"), make_script()
    take(run, commit(recorder, demonstration(script)))
    take(run, commit(recorder, policy_episode(script)))
    run.close()
    before = sorted(run.folder.glob("checkpoint-*"))
    versions = published_versions(run.workspace)
    other = make_run(clock="realtime", learner_parameters=FAST | {"hidden": 24, "discount": 0.9})
    with pytest.raises(OtherSettings) as refusal:
        other.resume()
    for part in ("hidden was 16 and is 24", "discount was 0.97 and is 0.9", str(run.folder), "move that folder away"):
        assert part in str(refusal.value)
    assert "batch" not in str(refusal.value)
    other.close()
    assert (sorted(run.folder.glob("checkpoint-*")), published_versions(run.workspace)) == (before, versions), (
        "nothing written or published"
    )

    run.folder.rename(run.folder.with_name("kept"))
    recorder.close()
    anew = make_run(clock="realtime", learner_parameters=FAST | {"hidden": 24, "discount": 0.9})
    anew.resume()
    while anew.training.phase == "cloning":
        anew.work()
    assert anew.training.versions == [(versions[-1] + 1, 0)], "never over a version that is there"
    assert replay_of(anew).train_steps == 10


def test_with_every_episode_left_out_it_goes_on_with_what_it_learned(
    recorder: Recorder, make_run: Callable[..., LearnerRun], make_script: Callable[..., Any]
) -> None:
    run, script = make_run(), make_script()
    take(run, commit(recorder, demonstration(script)))
    take(run, commit(recorder, policy_episode(script)))
    run.close()
    recorder.close()
    labels = Labels(recorder.workspace)
    for name in ("e000", "e001"):
        labels.add_label(name, "exclude", True, "lab-01")
    labels.close()
    again = make_run()
    again.resume()
    assert not again.work()
    assert again.training.status().updates == run.training.status().updates == 5
    assert (again.training.phase, again.training.status().demonstrations) == ("training", 0)
