"""Checkpoints: written while learning goes on, whole or not there, the last good one never removed."""

import resource
import shutil
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import takeover.policies.checkpoint as checkpoint
from takeover.data.recorder import Recorder
from takeover.data.schema import RunConfig
from takeover.data.workspace import Workspace
from takeover.policies.checkpoint import CheckpointWriter, newest_checkpoint, save_checkpoint
from takeover.policies.learner_run import LearnerRun
from takeover.policies.registry import make_learner
from tests.patience import patient

from .test_learner_run import commit, policy_episode, take
from .test_learner_run import demonstration as recorded_demonstration
from .test_resume import FAST, demonstration, episode


def state(updates: int) -> dict[str, Any]:
    return {"tensors": {"w": torch.full((1000,), float(updates))}, "values": {"updates": updates}}


def updates_in(folder: Path) -> int:
    found, _ = newest_checkpoint(folder)
    return -1 if found is None else int(found["values"]["updates"])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def numbers(folder: Path) -> list[int]:
    return sorted(int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*"))


def test_two_whole_ones_are_kept_and_damaged_ones_do_not_count(tmp_path: Path) -> None:
    for number in range(1, 4):
        save_checkpoint(tmp_path, state(number))
    assert numbers(tmp_path) == [2, 3]
    flip(tmp_path / "checkpoint-00000003" / "state.safetensors")
    save_checkpoint(tmp_path, state(4))
    assert numbers(tmp_path) == [2, 3, 4], "of the newest two one is damaged, so the whole one before stays"
    flip(tmp_path / "checkpoint-00000004" / "state.json")
    assert updates_in(tmp_path) == 2
    save_checkpoint(tmp_path, state(5))
    save_checkpoint(tmp_path, state(6))
    assert numbers(tmp_path) == [5, 6]


def test_learning_does_not_wait_for_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushes that take a second: handing a state over takes none of it, and what waits is the newest."""
    slow = threading.Event()
    original = checkpoint.os.fsync

    def fsync(descriptor: int) -> None:
        slow.wait(10.0)
        original(descriptor)

    monkeypatch.setattr("takeover.policies.checkpoint.os.fsync", fsync)
    writer = CheckpointWriter(tmp_path)
    began = time.monotonic()
    for number in range(1, 20):
        writer.submit(state(number))
    assert time.monotonic() - began < 0.5
    assert numbers(tmp_path) == []
    slow.set()
    writer.close()
    assert updates_in(tmp_path) == 19
    assert writer.written <= 3, "those in between were not written late"


@pytest.mark.parametrize("learner", ["hil-serl", "sirius"])
def test_updates_are_made_while_a_checkpoint_is_being_written(
    learner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_script: Callable[..., Any]
) -> None:
    """A disk that does not finish flushing: the learner that made the checkpoint after cloning takes in an episode and learns from it."""
    released, flushing, original = threading.Event(), threading.Event(), checkpoint.os.fsync

    def fsync(descriptor: int) -> None:
        if ".checkpoint-" in checkpoint.os.readlink(f"/proc/self/fd/{descriptor}"):  # and nothing else that is written
            flushing.set()
            released.wait(10.0)
        original(descriptor)

    monkeypatch.setattr("takeover.policies.checkpoint.os.fsync", fsync)
    quick = {"updates_per_step": 1, "clone_updates": 30, "learning_starts": 5, "hidden": 16, "batch": 32}
    quick |= {"critic_warmup": 10} if learner == "hil-serl" else {}
    fields: dict[str, Any] = {"session_id": "run-a", "workspace": str(tmp_path), "sockets": "", "task": "reach", "clock": "realtime"}
    run = LearnerRun(RunConfig(**fields, demonstrations=1, learner=learner, learner_parameters=quick))
    recorder, script = Recorder(Workspace(tmp_path)), make_script()
    try:
        take(run, commit(recorder, recorded_demonstration(script)))
        assert flushing.wait(10.0)
        take(run, commit(recorder, policy_episode(script)))
        while run.work():
            pass
        assert run.training.status().updates == 5
        assert numbers(run.folder) == [], "it is still being written"
    finally:
        released.set()
        run.close()
        recorder.close()
    assert len(numbers(run.folder)) == 2
    shutil.rmtree(run.folder / f"checkpoint-{numbers(run.folder)[-1]:08d}")
    assert updates_in(run.folder) == 0, "what was being written is the state of then"


@pytest.mark.parametrize("learner", ["hil-serl", "sirius"])
def test_a_state_is_a_copy(learner: str, make_script: Callable[..., Any]) -> None:
    """What a thread writes does not change under it while the learner goes on."""
    import numpy as np

    script, rng = make_script(), np.random.default_rng(3)
    made = make_learner(learner, script.spec, 0, FAST[learner])
    for record in demonstration(script, rng) + episode(script, rng):
        if hasattr(record, "spec"):
            made.begin_episode(record)
        elif hasattr(record, "outcome"):
            made.end_episode(record)
        else:
            made.ingest([record])
    list(made.clone_demonstrations())
    saved = made.state()
    before = {name: tensor.clone() for name, tensor in saved["tensors"].items()}
    for _ in range(5):
        made.update()
    changed = [name for name, tensor in before.items() if not torch.equal(tensor, saved["tensors"][name])]
    assert changed == []
    assert any(not torch.equal(tensor, before[name]) for name, tensor in made.state()["tensors"].items())


def test_a_full_disk_is_said_the_old_one_kept_and_it_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """The kernel refuses to make a file longer than the limit, as a full disk does in the middle of a file."""
    writer = CheckpointWriter(tmp_path)
    writer.submit(state(1))
    until(lambda: writer.written == 1)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, unlimited[1]))
    try:
        writer.submit(state(2))
        until(lambda: bool(writer.problem))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert "File too large" in writer.problem
    assert "the one before is kept" in writer.problem
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00000001"], "nothing half-written under any name"
    assert updates_in(tmp_path) == 1
    writer.submit(state(3))
    until(lambda: not writer.problem)
    writer.close()
    assert updates_in(tmp_path) == 3


def test_memory_that_is_short_ends_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = CheckpointWriter(tmp_path)

    def no_memory(*_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("takeover.policies.checkpoint.save_checkpoint", no_memory)
        writer.submit(state(1))
        until(lambda: bool(writer.problem))
    assert "not written: MemoryError" in writer.problem
    writer.submit(state(2))
    until(lambda: not writer.problem)
    writer.close()
    assert updates_in(tmp_path) == 2


def test_what_a_killed_writer_left_goes_and_nothing_else(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(1))
    left = tmp_path / ".checkpoint-00000002.4194999.tmp"  # no process has a number that high
    shutil.copytree(tmp_path / "checkpoint-00000001", left)
    assert updates_in(tmp_path) == 1
    CheckpointWriter(tmp_path).close()
    assert numbers(tmp_path) == [1]
    assert not left.exists()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + patient(20.0)
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_written_state_is_not_kept_until_the_next_one(tmp_path: Path) -> None:
    tensor = torch.zeros(1000)
    seen, writer = weakref.ref(tensor), CheckpointWriter(tmp_path)
    writer.submit({"tensors": {"policy": tensor}})
    del tensor
    writer.flush()
    assert writer.written == 1
    assert seen() is None
    writer.close()
