"""A learner that goes on from a checkpoint, in this process, with the real store: every moment of the stream, the same bits."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from takeover.data.recorder import Recorder
from takeover.data.schema import Committed, ControlMode, EpisodeKind
from takeover.data.workspace import Workspace
from takeover.policies.learner_run import LearnerRun
from tests.patience import patient

FAST = {
    "hil-serl": {
        "updates_per_step": 1,
        "clone_updates": 30,
        "critic_warmup": 10,
        "learning_starts": 5,
        "hidden": 16,
        "batch": 32,
        "actor_delay": 5,
    },
    "sirius": {"updates_per_step": 1, "clone_updates": 30, "learning_starts": 5, "hidden": 16, "batch": 32},
}
STEPS = 16


class Stream:
    """A recorder and the messages it announces."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recorder = Recorder(Workspace(folder))

    def commit(self, records: list[Any]) -> Committed:
        for record in records:
            self.recorder.accept(record)
        message = self.recorder.sync().committed
        assert message is not None
        return message

    def wait_closed(self, count: int) -> None:
        deadline = time.monotonic() + patient(20.0)
        while len(list(self.folder.glob("episodes/*/*.hdf5"))) < count or self.recorder.pending:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def numbers(rng: np.random.Generator) -> dict[str, Any]:
    observation = rng.normal(size=3)
    return {
        "observation": observation.tolist(),
        "next_observation": (observation + 0.1).tolist(),
        "action": np.clip(observation[:2], -1, 1).tolist(),
    }


def demonstration(script: Any, rng: np.random.Generator) -> list[Any]:
    return [script.start(EpisodeKind.DEMONSTRATION), *(script.step(ControlMode.HUMAN, **numbers(rng)) for _ in range(12)), script.end()]


def episode(script: Any, rng: np.random.Generator) -> list[Any]:
    modes = [ControlMode.POLICY] * 6 + [ControlMode.TRANSITION] * 2 + [ControlMode.HUMAN] * 4 + [ControlMode.POLICY] * (STEPS - 12)
    return [script.start(), *(script.step(mode, **numbers(rng)) for mode in modes), script.end()]


@pytest.fixture
def make_run(make_run: Callable[..., LearnerRun]) -> Callable[..., LearnerRun]:
    """The shared one, by workspace and by the settings here."""

    def make(workspace: Path, learner: str = "hil-serl", **changes: Any) -> LearnerRun:
        named = {"learner": learner, "publish_every_updates": 10, "learner_parameters": FAST[learner]}
        return make_run(**({"workspace": str(workspace)} | named | changes))

    return make


def take(run: LearnerRun, message: Committed) -> None:
    for _ in run.committed(message):
        pass


def state_of(run: LearnerRun) -> dict[str, Any]:
    return run.training.state() | {"cursors": dict(run.cursors)}


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """What differs between two states; tensors to the bit."""
    wrong = [name for name in a["tensors"] | b["tensors"] if not torch.equal(a["tensors"][name], b["tensors"][name])]
    return wrong + [key for key in ("values", "run", "cursors") if a[key] != b[key]]


def stream_of(script: Any) -> list[Any]:
    rng = np.random.default_rng(7)
    return demonstration(script, rng) + episode(script, rng) + episode(script, rng)


DEMONSTRATION = 14  # records


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "in journals"])
@pytest.mark.parametrize("learner", ["hil-serl", "sirius"])
def test_saved_in_mid_episode_it_goes_on_to_the_same_bits(
    tmp_path: Path,
    make_run: Callable[..., LearnerRun],
    make_script: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    learner: str,
    closed: bool,
) -> None:
    """Saved and started anew after 2 and 10 records of the first episode, and after one step of the second.

    Steps that were learned from but lay in no closed file were counted twice. How many files are closed at that moment is luck, so both
    ends of it are tried."""
    if not closed:  # a machine so busy that nothing is closed before the end
        monkeypatch.setattr("takeover.data.finalise.Finaliser.submit", lambda self, job: None)
    plain, stream = make_run(tmp_path / "plain", learner), Stream(tmp_path / "plain")
    take(plain, stream.commit(stream_of(make_script())))
    stream.recorder.close()

    folder, records = tmp_path / "restarted", stream_of(make_script())
    run, stream = make_run(folder, learner), Stream(folder)
    cuts = [0, DEMONSTRATION + 2, DEMONSTRATION + 10, DEMONSTRATION + STEPS + 4, len(records)]
    for first, last in itertools.pairwise(cuts):
        take(run, stream.commit(records[first:last]))
        if last < len(records):
            if closed:
                stream.wait_closed(1 + (last > DEMONSTRATION + STEPS + 2))
            run.checkpoint()
            run.close()
            run = make_run(folder, learner)
            run.resume()
    stream.recorder.close()
    assert run.training.state()["values"]["updates"] == 2 * STEPS - 5
    assert differences(state_of(plain), state_of(run)) == []


@pytest.mark.parametrize("learner", ["hil-serl", "sirius"])
def test_a_record_that_failed_in_the_middle_is_handled_once_more_and_counted_once(
    tmp_path: Path, make_run: Callable[..., LearnerRun], make_script: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, learner: str
) -> None:
    """A version that cannot be made: the step before it has been ingested, and its record is not done with."""
    plain, stream = make_run(tmp_path / "plain", learner), Stream(tmp_path / "plain")
    take(plain, stream.commit(stream_of(make_script())))
    stream.recorder.close()

    def no_memory(*_: Any) -> None:
        raise RuntimeError("not enough memory")

    folder, records = tmp_path / "failed", stream_of(make_script())
    run, stream = make_run(folder, learner), Stream(folder)
    take(run, stream.commit(records[: DEMONSTRATION + 2]))
    run.checkpoint(wait=True)
    with monkeypatch.context() as patch:
        patch.setattr("takeover.policies.learner_run.write_version", no_memory)
        with pytest.raises(RuntimeError, match="not enough memory"):
            take(run, stream.commit(records[DEMONSTRATION + 2 :]))
    run.close()
    run = make_run(folder, learner)
    run.resume()
    run.catch_up(records[0].session)
    stream.recorder.close()
    assert differences(state_of(plain), state_of(run)) == []


def test_a_saved_state_shares_no_list_with_the_learner(
    tmp_path: Path, make_run: Callable[..., LearnerRun], make_script: Callable[..., Any]
) -> None:
    """Which corrections were first used since the last version: a thread writes it while the learner goes on."""
    run, stream = make_run(tmp_path, publish_every_updates=10_000), Stream(tmp_path)
    records = stream_of(make_script())
    take(run, stream.commit(records[: DEMONSTRATION + 3]))
    saved = run.training.state()["run"]["corrections"]
    take(run, stream.commit(records[DEMONSTRATION + 3 :]))
    stream.recorder.close()
    assert saved == []
    assert run.training.state()["run"]["corrections"] != []
