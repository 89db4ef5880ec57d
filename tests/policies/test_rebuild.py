"""A learner that starts again reads what its replay still holds and nothing else, and is what it was to the bit, labels and all."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from takeover.data import store
from takeover.data.catalog import Catalog
from takeover.data.episode_labels import EpisodeLabels
from takeover.data.hdf5_image import DamagedFile
from takeover.data.labels import Labels
from takeover.data.schema import ControlMode, EpisodeKind, Outcome, OutcomeSource
from takeover.data.training_labels import training_labels
from takeover.policies.learner_run import LearnerRun
from takeover.policies.transition_buffer import TransitionBuffer

from .conftest import make_spec
from .test_resume import Stream, differences, state_of, take

SMALLEST = 1000  # rows, of a ring that a learner takes
STEPS = 40
P, H = ControlMode.POLICY, ControlMode.HUMAN
FAST: dict[str, dict[str, Any]] = {
    "hil-serl": {
        "updates_per_step": 0.25,
        "clone_updates": 20,
        "critic_warmup": 5,
        "learning_starts": 1400,
        "hidden": 16,
        "batch": 32,
        "actor_delay": 5,
        "replay_capacity": SMALLEST,
    },
    "sirius": {
        "updates_per_step": 0.25,
        "clone_updates": 20,
        "learning_starts": 1400,
        "hidden": 16,
        "batch": 32,
        "memory_steps": SMALLEST,
        "memory": "fifo",
    },
}
FAST["hil-serl, takeovers marked"] = FAST["hil-serl"] | {"takeover_reward": -0.5, "pre_takeover_weight": 0.5, "pre_takeover_s": 0.1}
EPISODES = 40  # of which the last 25 fill a ring


@pytest.fixture
def make_run(make_run: Callable[..., LearnerRun]) -> Callable[..., LearnerRun]:
    """The shared one, by workspace and by the settings here."""

    def make(workspace: Path, learner: str = "hil-serl", **changes: Any) -> LearnerRun:
        named = {"learner": learner.partition(",")[0], "publish_every_updates": 50, "learner_parameters": FAST[learner]}
        return make_run(**({"workspace": str(workspace)} | named | changes))

    return make


@pytest.fixture
def script(make_script: Callable[..., Any]) -> Any:
    return make_script(make_spec(gripper=True))


def numbers(rng: np.random.Generator) -> dict[str, Any]:
    observation = rng.normal(size=3)
    action = [*np.clip(observation[:2], -1, 1).tolist(), float(rng.integers(-1, 2))]
    return {"observation": observation.tolist(), "next_observation": (observation + 0.1).tolist(), "action": action}


def demonstration(script: Any, rng: np.random.Generator, **end: Any) -> list[Any]:
    return [script.start(EpisodeKind.DEMONSTRATION), *(script.step(H, **numbers(rng)) for _ in range(12)), script.end(**end)]


def episode(script: Any, rng: np.random.Generator, helped: bool, **end: Any) -> list[Any]:
    modes = [P] * 20 + ([ControlMode.TRANSITION] * 2 + [H] * 4 if helped else [P] * 6) + [P] * (STEPS - 27)
    steps = [script.start(), *(script.step(mode, **numbers(rng)) for mode in modes)]
    return [*steps, script.step(P, **numbers(rng), reward=1.0, terminated=True), script.end(**end)]


def stream_of(script: Any) -> list[list[Any]]:
    """A demonstration and policy episodes; a person helps in every fifth of the last ones."""
    rng = np.random.default_rng(7)
    late = range(EPISODES - 20, EPISODES + 2)
    return [demonstration(script, rng), *(episode(script, rng, helped=i in late and i % 5 == 0) for i in range(EPISODES + 2))]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the episode files that are read, from now on."""
    found: list[str] = []

    def counting(inner: Any) -> Callable[..., Any]:
        def reading(path: Path, *arguments: Any, **options: Any) -> Any:
            found.append(path.stem)
            return inner(path, *arguments, **options)

        return reading

    for name in ("read_records", "read_block"):
        monkeypatch.setattr(store, name, counting(getattr(store, name)))
    return found


def held(run: LearnerRun) -> dict[str, Any]:
    """Everything in the rings, row by row; episodes by name."""
    replay: Any = run.training.learner.replay  # type: ignore[union-attr]
    names = {key: name for name, key in replay._keys.items()}
    made = {}
    for place, ring in (("demonstrations", replay.demonstrations), ("online", replay.online)):
        n = ring.size
        made[place] = (
            [names[key] for key in ring.episode[:n].tolist()],
            ring.step[:n].tolist(),
            ring.correction[:n].tolist(),
            ring.restored[:n].tolist(),
            ring.rows[:n].tolist(),
            ring.position(),
        )
    out = [
        {(names[key], step): (row.tolist(), number) for key, kept in place.items() for step, (row, number) in kept.items()}
        for place in replay._labelled._out
    ]
    waits = (replay._corrections.waiting(), replay._corrections._count, replay._corrections._newest)
    return made | {"out": out, "waits": waits, "complete": replay._complete, "keys": replay._keys, "next": replay._next_key}


@pytest.mark.parametrize("learner", list(FAST))
@pytest.mark.parametrize("cut", [0, 7], ids=["between episodes", "in mid-episode"])
def test_what_the_ring_has_dropped_is_not_read_and_the_bits_are_the_same(
    tmp_path: Path, make_run: Callable[..., LearnerRun], script: Any, read: list[str], learner: str, cut: int
) -> None:
    stream, run = Stream(tmp_path), make_run(tmp_path, learner)
    episodes = stream_of(script)
    for records in episodes[: EPISODES + 1]:
        take(run, stream.commit(records))
    if cut:
        take(run, stream.commit(episodes[EPISODES + 1][:cut]))
    stream.wait_closed(EPISODES + 1)
    run.checkpoint(wait=True)
    read.clear()
    again = make_run(tmp_path, learner)
    again.resume()
    demonstration_and_ring = [episodes[0], *episodes[EPISODES + 1 - SMALLEST // STEPS : EPISODES + 1]]
    assert read == [records[0].episode_id for records in demonstration_and_ring]
    assert differences(state_of(run), state_of(again)) == []
    assert run.training.state()["values"]["updates"] > 0
    if learner.startswith("hil-serl"):
        assert held(run) == held(again)
    last = stream.commit(episodes[EPISODES + 1][cut:])
    for one in (run, again):
        one.training._publish = lambda publication: publication.version
        take(one, last)
    assert differences(state_of(run), state_of(again)) == [], "and it learns on with the same batches"
    stream.recorder.close()


def test_one_episode_at_a_time_is_in_memory(
    tmp_path: Path, make_run: Callable[..., LearnerRun], script: Any, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, rng = Stream(tmp_path), np.random.default_rng(7)
    for _ in range(3):
        stream.commit(demonstration(script, rng))
    stream.recorder.close()
    run = make_run(tmp_path, demonstrations=9)
    begun: list[int] = []
    inner = run.training._begin_episode

    def counting(start: Any) -> None:
        begun.append(len(read))
        inner(start)

    monkeypatch.setattr(run.training, "_begin_episode", counting)
    run.resume()
    assert begun == [1, 2, 3], "an episode is learned from before the next is read"


class Labelled:
    """A learner in real time with labels of every kind that move rows."""

    def __init__(self, folder: Path, script: Any, make_run: Callable[..., LearnerRun], learner: str) -> None:
        self.folder, self.make_run, self.script = folder, make_run, script
        self.stream = Stream(folder)
        self.fields = {"clock": "realtime", "publish_every_s": 1000.0, "checkpoint_every_s": 1000.0, "learner": learner}
        self.run = make_run(folder, **self.fields)
        rng = np.random.default_rng(3)
        self.names = []
        self.commit(demonstration(script, rng))
        while self.run.training.phase != "training":
            self.run.work()
        self.commit(demonstration(script, rng))
        for i in range(EPISODES):
            how = {"outcome": Outcome.FAILURE, "source": OutcomeSource.OPERATOR} if i % 4 == 0 else {}
            self.commit(episode(script, rng, helped=i % 2 == 0, **how))
        self.commit(episode(script, rng, helped=True, discarded=True))
        self.commit(
            [
                script.start(),
                *(script.step(P, **numbers(rng)) for _ in range(5)),
                script.step(P, observation=[float("nan")] * 3),
                script.end(),
            ]
        )
        self.commit(episode(script, rng, helped=True, outcome=Outcome.UNKNOWN))
        self.stream.wait_closed(len(self.names))
        self.catalog = Catalog.open(folder)
        self.labels = Labels(folder, self.catalog)

    def commit(self, records: list[Any], work: bool = True) -> None:
        self.names.append(records[0].episode_id)
        take(self.run, self.stream.commit(records))
        while work and self.run.training.phase == "training" and self.run.training.learner.updates_due() > 0:  # type: ignore[union-attr]
            self.run.work()

    def label(self, number: int, field: str, value: Any) -> None:
        self.stream.wait_closed(len(self.names))
        self.labels.add_label(self.names[number], field, value, "lab-01")
        self.run.reread_labels()

    def restarted(self) -> LearnerRun:
        self.run.checkpoint(wait=True)
        again = self.make_run(self.folder, **self.fields)
        again.resume()
        return again

    def close(self) -> None:
        self.catalog.close()
        self.stream.recorder.close()


@pytest.fixture(params=["hil-serl", "hil-serl, takeovers marked"])
def labelled(tmp_path: Path, script: Any, make_run: Callable[..., LearnerRun], request: pytest.FixtureRequest) -> Iterator[Labelled]:
    made = Labelled(tmp_path, script, make_run, request.param)
    yield made
    made.close()


def test_with_labels_of_every_kind_it_is_what_it_was(labelled: Labelled) -> None:
    """Rows that labels took out, brought back and changed; an episode that was discarded, one with bad data, one without an outcome."""
    rng = np.random.default_rng(5)
    labelled.label(EPISODES - 3, "exclude", True)
    labelled.label(EPISODES - 5, "exclude", True)
    labelled.label(EPISODES - 5, "exclude", False)  # back, as the oldest
    labelled.label(EPISODES - 6, "outcome", "success")
    labelled.label(EPISODES - 8, "outcome", "failure")
    labelled.label(1, "outcome", "failure")  # a demonstration is experience
    labelled.label(EPISODES - 9, "trim", "3-30")
    for _ in range(2):  # with corrections that no batch has held yet
        labelled.commit(episode(labelled.script, rng, helped=True), work=False)
    labelled.label(EPISODES + 5, "exclude", True)
    run, again = labelled.run, labelled.restarted()
    before, after = held(run), held(again)
    for what in before:
        assert before[what] == after[what], what
    assert differences(state_of(run), state_of(again)) == []
    assert again.training.quarantine.reasons == run.training.quarantine.reasons
    assert len(run.training.quarantine.reasons) == 2
    assert list(before["waits"][0].values()) == [(labelled.names[EPISODES + 6], 0)]
    assert len(before["out"][1]) > 2 * STEPS
    assert any(before["online"][3]), "some came back"
    for one in (run, again):
        for number in (EPISODES - 3, EPISODES + 5):
            one.training.learner.apply_labels(counted(labelled, number))  # type: ignore[union-attr]
    assert held(run) == held(again), "what a label left out comes back as it was"


def counted(labelled: Labelled, number: int) -> EpisodeLabels:
    """The labels of an episode without its exclusion."""
    name = labelled.names[number]
    return msgspec.structs.replace(training_labels(labelled.catalog, [name])[name], excluded=False)


def test_labels_given_while_it_was_down_count(labelled: Labelled) -> None:
    run = labelled.run
    run.checkpoint(wait=True)
    for number, field, value in (
        (EPISODES - 3, "exclude", True),
        (EPISODES - 7, "outcome", "success"),
        (EPISODES + 4, "outcome", "success"),
    ):
        labelled.labels.add_label(labelled.names[number], field, value, "lab-01")
    again = labelled.make_run(labelled.folder, **labelled.fields)
    again.resume()
    run.reread_labels()
    before, after = held(run), held(again)
    for place in ("demonstrations", "online"):
        columns = [sorted(map(str, zip(*found[place][:5], strict=True))) for found in (before, after)]
        assert columns[0] == columns[1], "the same rows with the same rewards"
    assert before["out"] == after["out"]
    assert again.training.quarantine.reasons == run.training.quarantine.reasons


def test_an_episode_that_counts_again_is_read_with_all_the_others(
    tmp_path: Path, make_run: Callable[..., LearnerRun], script: Any, read: list[str]
) -> None:
    """It was excluded when the learner started, so no checkpoint names it; taken back while the learner was down it has to come."""
    stream = Stream(tmp_path)
    episodes = stream_of(script)[:4]
    for records in episodes:
        stream.commit(records)
    stream.wait_closed(len(episodes))
    stream.recorder.close()
    name = episodes[2][0].episode_id
    with Catalog.open(tmp_path) as catalog:
        labels = Labels(tmp_path, catalog)
        labels.add_label(name, "exclude", True, "lab-01")
        for start in ("first", "again", "taken back"):
            if start == "taken back":
                labels.add_label(name, "exclude", False, "lab-01")
            run = make_run(tmp_path)
            read.clear()
            run.resume()
            counts = start == "taken back"
            assert (run.training.learner.holds(name), name in read) == (counts, counts)  # type: ignore[union-attr]
            run.checkpoint(wait=True)


@pytest.mark.parametrize("lost", ["damaged", "another step"])
def test_what_cannot_be_read_again_has_it_read_everything(
    tmp_path: Path, make_run: Callable[..., LearnerRun], script: Any, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    stream, run = Stream(tmp_path), make_run(tmp_path)
    episodes = stream_of(script)[: EPISODES + 1]
    for records in episodes:
        take(run, stream.commit(records))
    stream.recorder.close()
    run.checkpoint(wait=True)
    name = episodes[-3][0].episode_id
    path = next(tmp_path.glob(f"episodes/*/{name}.hdf5"))
    if lost == "damaged":
        whole = path.read_bytes()
        path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    else:
        inner = store.read_records

        def shorter(path: Path, *arguments: Any, **options: Any) -> Any:
            start, steps, end = inner(path, *arguments, **options)
            return (start, steps[:-1], end) if path.stem == name else (start, steps, end)

        monkeypatch.setattr(store, "read_records", shorter)
        monkeypatch.setattr(store, "read_block", lambda path: (_ for _ in ()).throw(DamagedFile("no block")))
    again = make_run(tmp_path)
    again.resume()
    replay: Any = again.training.learner.replay  # type: ignore[union-attr]
    assert again.training.state()["values"]["updates"] == run.training.state()["values"]["updates"]
    assert replay.online.size == SMALLEST
    assert replay._labelled.rebuild is None
    assert (name in again.training.quarantine.reasons) == (lost == "damaged")
    if lost == "damaged":
        again.checkpoint(wait=True)
        path.write_bytes(whole)
        mended = make_run(tmp_path)
        mended.resume()
        assert name not in mended.training.quarantine.reasons
        assert name in held(mended)["online"][0], "what can be read by now comes back"


def test_a_ring_is_laid_out_as_it_was() -> None:
    rng = np.random.default_rng(0)
    for trial in range(30):
        ring = TransitionBuffer(60, 1)
        for step in range(int(rng.integers(0, 200))):
            ring.add(torch.tensor([float(step)]), episode=step // 9, step=step % 9, correction=step // 9 if step % 9 > 5 else -1)
            if rng.random() < 0.05:
                leaving = ring.of_episode(int(rng.integers(0, step // 9 + 1)))
                rows, key = ring.rows[leaving].clone(), int(ring.episode[leaving[0]]) if len(leaving) else -1
                steps, numbers_ = ring.step[leaving].tolist(), ring.correction[leaving].tolist()
                ring.drop(leaving)
                if rng.random() < 0.5 and steps:
                    ring.restore(rows, key, steps, numbers_)
        other = TransitionBuffer(60, 1)
        other.lay_out(ring.places(), json.loads(json.dumps(ring.position())))
        n = ring.size
        assert other.size == n, trial
        assert other.position() == ring.position()
        assert other.episode[:n].tolist() == ring.episode[:n].tolist()
        assert other.step[:n].tolist() == ring.step[:n].tolist()
        assert other.correction[:n].tolist() == ring.correction[:n].tolist()
        assert other.restored[:n].tolist() == ring.restored[:n].tolist()
        assert len(ring.places()) <= n
        other.rows[:n] = ring.rows[:n]
        for step in range(70):
            for one in (ring, other):
                one.add(torch.tensor([-1.0 - step]), episode=99, step=step)
        assert torch.equal(ring.rows, other.rows)
