"""What must not end a learner: a damaged file, a full disk, a missing picture, another task's episodes; nor keep it waiting."""

import errno
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from takeover.data.labels import Labels
from takeover.data.recorder import Recorder
from takeover.data.schema import ControlMode, EpisodeKind, RunConfig
from takeover.policies import label_reading
from takeover.policies.learner_run import LearnerRun
from takeover.policies.training import Training

from .conftest import FAST
from .test_learner_run import commit, demonstration, policy_episode, replay_of, take
from .test_picture_hil_serl import CAMERAS, SETTINGS, images


def test_a_damaged_episode_is_left_out_and_said(
    recorder: Recorder, make_run: Callable[..., LearnerRun], make_script: Callable[..., Any]
) -> None:
    script = make_script()
    for records in (demonstration(script), policy_episode(script), policy_episode(script)):
        commit(recorder, records)
    recorder.close()
    path = next(recorder.workspace.path.rglob("*e001*.hdf5"))
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    run = make_run(clock="realtime")
    run.resume()
    assert replay_of(run).train_steps == 10, "of the two policy episodes one"
    status = run.training.status()
    assert "1 episode is left out: e001: its file is damaged" in status.text
    assert "takeover data verify" in status.text


def test_labels_whose_use_cannot_be_noted_are_noted_later(
    recorder: Recorder, make_run: Callable[..., LearnerRun], make_script: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, script = make_run(clock="realtime"), make_script()
    take(run, commit(recorder, demonstration(script)))
    take(run, commit(recorder, policy_episode(script)))
    recorder.close()
    labels = Labels(recorder.workspace)
    labels.add_label("e001", "outcome", "success", "lab-01")
    labels.close()
    noted, full = [], [True]

    def note(catalog: Any, learner: str, events: list[tuple[str, str]], *rest: Any) -> None:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        noted.extend(events)

    monkeypatch.setattr(label_reading, "note_uses", note)
    run.reread_labels()
    run._on_update(7, {})
    assert "labels are learned from (1), but that cannot be noted: No space left on device" in run.training.status().text
    full[0] = False
    run._on_update(8, {})
    assert len(noted) == 1
    assert "cannot be noted" not in run.training.status().text


def test_a_demonstration_that_a_label_gives_back_may_be_the_last_that_was_wanted(
    recorder: Recorder, make_run: Callable[..., LearnerRun], make_script: Callable[..., Any]
) -> None:
    run, script = make_run(clock="realtime", demonstrations=2), make_script()
    first, second = (commit(recorder, demonstration(script)) for _ in range(2))
    recorder.close()  # its worker has entered both in the catalog
    take(run, first)
    labels = Labels(recorder.workspace)
    labels.add_label("e000", "exclude", True, "lab-01")
    run.reread_labels()
    take(run, second)
    assert (run.training.phase, run.training.status().demonstrations) == ("waiting", 1)
    labels.undo("lab-01")
    labels.close()
    run.reread_labels()
    assert run.training.phase == "cloning"


def test_another_tasks_episodes_are_left_out(make_script: Callable[..., Any]) -> None:
    config = RunConfig(
        session_id="run-a", workspace="", sockets="", task="reach", clock="realtime", demonstrations=1, learner_parameters=FAST
    )
    training = Training(config, lambda publication: publication.version)
    script = make_script()
    records = demonstration(script)
    other = msgspec.structs.replace(records[0].spec, task_id="shelf")
    for record in [msgspec.structs.replace(records[0], spec=other), *records[1:]]:
        training.handle(record)
    assert training.learner is None, "nor is a learner made for it"
    assert "e000: it is of task shelf, the learner's is reach" in training.status().text
    for record in demonstration(script):
        training.handle(record)
    assert training.need_learner().demonstration_episodes == 1


@pytest.mark.parametrize("lacks", ["one camera", "every picture"])
def test_an_episode_without_a_picture_is_left_out_and_said(make_robot_spec: Any, make_script: Callable[..., Any], lacks: str) -> None:
    spec = msgspec.structs.replace(make_robot_spec(arm=1, gripper=True), policy_cameras=CAMERAS)
    config = RunConfig(
        session_id="run-a", workspace="", sockets="", task=spec.task_id, clock="realtime", demonstrations=9,
        policy_cameras=CAMERAS, learner_parameters=SETTINGS,
    )  # fmt: skip
    training = Training(config, lambda publication: publication.version)
    script = make_script(spec)

    def episode(without: int) -> None:
        training.handle(script.start(EpisodeKind.DEMONSTRATION))
        for i in range(4):
            shown = images(0.1 * i)
            seen = shown if i != without else shown[:1] if lacks == "one camera" else []
            training.handle(script.step(ControlMode.HUMAN, images=seen, next_images=images(0.1 * i + 0.1)))
        training.handle(script.end())

    episode(without=-1)
    episode(without=2)
    episode(without=-1)
    assert training.need_learner().demonstration_episodes == 2
    assert "1 episode is left out: e001: " in training.status().text
