"""An imitation learner that starts again takes policy episodes in as arrays, and is what it is when it reads them step by step."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from takeover.data import store
from takeover.data.catalog import Catalog
from takeover.data.labels import Labels
from takeover.data.schema import ControlMode, EpisodeKind, Outcome, Source
from takeover.policies.class_weights import StepClass
from takeover.policies.imitation import ImitationLearner
from takeover.policies.imitation_episodes import Stored, histories
from takeover.policies.imitation_ingestion import ImitationIngestion
from takeover.policies.learner_run import LearnerRun

from .conftest import make_spec
from .test_imitation_table import contents
from .test_resume import Stream, differences, state_of, take

P, H, RAMP, PAUSED, HELD = (ControlMode(mode) for mode in range(5))
SMALL: dict[str, Any] = {"hidden": 16, "batch": 32, "clone_updates": 20, "learning_starts": 40, "updates_per_step": 0.5, "history": 3}
MEMORIES: dict[str, dict[str, Any]] = {"everything": {}, "a full memory": {"memory_steps": 200, "memory": "lfi"}}
EPISODES = 24  # of the policy
WITHOUT_OUTCOME, BAD = 7, 15  # of these


class Recording:
    """Random episodes: takeovers with ramps, holds that end a run, a hand on one action group alone, a number that is none."""

    def __init__(self, folder: Path, script: Any) -> None:
        self.stream, self.script, self.rng = Stream(folder), script, np.random.default_rng(11)
        self.episodes = [self.demonstration(), *(self.policy(number) for number in range(EPISODES)), self.demonstration()]

    def numbers(self) -> dict[str, Any]:
        seen = self.rng.normal(size=3)
        action = [*self.rng.uniform(-1, 1, 2).tolist(), float(self.rng.integers(-1, 2))]
        return {"observation": seen.tolist(), "next_observation": (seen + 0.1).tolist(), "action": action}

    def demonstration(self) -> list[Any]:
        script = self.script
        return [script.start(EpisodeKind.DEMONSTRATION), *(script.step(H, **self.numbers()) for _ in range(12)), script.end()]

    def policy(self, number: int) -> list[Any]:
        script, rng, records = self.script, self.rng, [self.script.start()]
        run, intervention, mode = 0, -1, P
        steps = 20 if number == BAD else int(rng.integers(1, 40))
        while script.count < steps:
            before = mode
            if rng.random() < 0.2:
                mode = (P, H, RAMP, PAUSED, HELD)[rng.integers(5)]
            intervention += mode == H and before != H
            run += mode in (PAUSED, HELD)
            changes: dict[str, Any] = {"run_id": run, "intervention_id": max(intervention, 0) if mode in (H, RAMP) else -1}
            if mode == H and rng.random() < 0.3:
                changes["source"] = [int(Source.POLICY), int(Source.HUMAN if rng.random() < 0.5 else Source.POLICY)]
            if number == BAD and script.count == 9:
                changes["observation"] = [float("nan"), 0.0, 0.0]
            records.append(script.step(mode, **(self.numbers() | changes)))
            if mode in (PAUSED, HELD):
                mode = P
        return [*records, script.end(Outcome.UNKNOWN if number == WITHOUT_OUTCOME else Outcome.SUCCESS)]

    @property
    def names(self) -> list[str]:
        return [records[0].episode_id for records in self.episodes]


@pytest.fixture
def recording(tmp_path: Path, make_script: Callable[..., Any]) -> Any:
    made = Recording(tmp_path, make_script(make_spec(gripper=True)))
    yield made
    made.stream.recorder.close()


@pytest.fixture
def make_sirius(tmp_path: Path, make_run: Callable[..., LearnerRun]) -> Callable[[str], LearnerRun]:
    def make(memory: str) -> LearnerRun:
        return make_run(workspace=str(tmp_path), learner="sirius", publish_every_updates=50, learner_parameters=SMALL | MEMORIES[memory])

    return make


@pytest.fixture
def resumed(make_sirius: Callable[[str], LearnerRun], monkeypatch: pytest.MonkeyPatch) -> Callable[..., LearnerRun]:
    """A learner that goes on from the checkpoint; ``blocks`` off: step by step."""

    def resume(memory: str, blocks: bool) -> LearnerRun:
        run = make_sirius(memory)
        with monkeypatch.context() as patched:
            if not blocks:
                patched.setattr(ImitationIngestion, "takes_blocks", property(lambda self: False))
            run.resume()
        return run

    return resume


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names of the episode files that are read from now on, by how."""
    found: dict[str, list[str]] = {"read_records": [], "read_block": []}

    def counting(how: str, inner: Any) -> Callable[..., Any]:
        def reading(path: Path, *arguments: Any, **options: Any) -> Any:
            found[how].append(path.stem)
            return inner(path, *arguments, **options)

        return reading

    for how in found:
        monkeypatch.setattr(store, how, counting(how, getattr(store, how)))
    return found


def remembered(run: LearnerRun) -> dict[str, Any]:
    """Everything an imitation learner has of the episodes it took in, number by number, with the kinds of numbers."""
    learner: Any = run.training.learner
    episodes = {}
    for name, stored in learner._episodes.items():
        made = {field.name: getattr(stored, field.name) for field in fields(Stored)}
        assert len({len(made[column]) for column in ("observations", "actions", "classes", "runs", "corrections", "steps")}) == 1
        made["observations"] = [(one.dtype, one.shape, one.tobytes()) for one in stored.observations]
        made["kinds"] = [{type(one) for one in made[column]} for column in ("actions", "classes", "runs", "corrections", "interventions")]
        episodes[name] = made
    table = {name: (values.dtype, values.tolist()) for name, values in contents(learner._steps()).items()}
    waits = (learner._corrections.waiting(), learner._corrections._count, learner._corrections._newest)
    steps = (learner.train_steps, learner.human_steps)
    return {"episodes": episodes, "order": list(episodes), "table": table, "waits": waits, "steps": steps}


def check_same(one: LearnerRun, other: LearnerRun) -> None:
    found, expected = remembered(one), remembered(other)
    for name, stored in expected["episodes"].items():
        for column, values in stored.items():
            assert found["episodes"][name][column] == values, f"{name}: {column}"
    for what in expected:
        assert found[what] == expected[what], what
    assert differences(state_of(one), state_of(other)) == []
    assert one.training.quarantine.reasons == other.training.quarantine.reasons


@pytest.mark.parametrize("memory", list(MEMORIES))
@pytest.mark.parametrize("cut", [0, 7], ids=["between episodes", "in mid-episode"])
def test_in_blocks_it_is_what_it_is_step_by_step(
    recording: Recording,
    make_sirius: Callable[[str], LearnerRun],
    resumed: Callable[..., LearnerRun],
    read: dict[str, list[str]],
    memory: str,
    cut: int,
) -> None:
    run, stream = make_sirius(memory), recording.stream
    last = recording.policy(0)
    for records in recording.episodes:
        take(run, stream.commit(records))
    if cut:
        take(run, stream.commit(last[:cut]))
    stream.wait_closed(len(recording.episodes))
    run.checkpoint(wait=True)
    names = recording.names
    held = [name for name in names if name in run.training.learner._episodes]  # type: ignore[union-attr]

    read["read_records"].clear()
    slow = resumed(memory, blocks=False)
    assert read["read_records"] == held
    assert read["read_block"] == []
    read["read_records"].clear()
    fast = resumed(memory, blocks=True)
    one_by_one = {names[0], names[-1], names[1 + BAD]}  # nothing of it can be taken as it is
    left_out = {*fast.training.quarantine.reasons} if memory != "everything" else set()  # known before they are read
    assert set(read["read_records"]) == {name for name in held if name in one_by_one | left_out}
    assert set(read["read_block"]) == {name for name in held if name not in {names[0], names[-1]} | left_out}
    assert len(read["read_block"]) > 3

    check_same(fast, slow)
    assert differences(state_of(fast), state_of(run)) == []
    assert len(fast.training.quarantine.reasons) == 2
    classes = {c for stored in fast.training.learner._episodes.values() for c in stored.classes}  # type: ignore[union-attr]
    assert classes == {StepClass.DEMONSTRATION, StepClass.POLICY, StepClass.INTERVENTION, StepClass.TRANSITION}
    assert run.training.state()["values"]["updates"] > 50
    message = stream.commit(last[cut:])
    for one in (run, slow, fast):
        one.training._publish = lambda publication: publication.version
        take(one, message)
    check_same(fast, slow)
    assert differences(state_of(fast), state_of(run)) == [], "and it learns on with the same batches"


def test_labels_find_the_same_steps(
    tmp_path: Path, recording: Recording, make_sirius: Callable[[str], LearnerRun], resumed: Callable[..., LearnerRun]
) -> None:
    """Given while the learner was down, of every kind that moves rows."""
    run, stream, names = make_sirius("everything"), recording.stream, recording.names
    for records in recording.episodes:
        take(run, stream.commit(records))
    stream.wait_closed(len(names))
    run.checkpoint(wait=True)
    with Catalog.open(tmp_path) as catalog:
        labels = Labels(tmp_path, catalog)
        for number, (field, value) in enumerate((("exclude", True), ("outcome", "failure"), ("trim", "0-0"), ("outcome", "success"))):
            labels.add_label(names[(3, 5, 10, 1 + WITHOUT_OUTCOME)[number]], field, value, "lab-01")
    slow, fast = resumed("everything", blocks=False), resumed("everything", blocks=True)
    check_same(fast, slow)
    assert names[3] not in fast.training.learner._episodes  # type: ignore[union-attr]
    assert names[1 + WITHOUT_OUTCOME] not in fast.training.quarantine.reasons


def test_a_block_counts_as_its_steps_do(recording: Recording, tmp_path: Path) -> None:
    """Without a checkpoint, whose counts would hide what was counted; steps numbered from 5 on."""
    for records in recording.episodes[:4]:
        recording.stream.commit(records)
    recording.stream.wait_closed(4)
    slow, fast = (ImitationLearner.make("sirius", recording.script.spec, 0, SMALL) for _ in range(2))
    for path in sorted(tmp_path.glob("episodes/*/*.hdf5"))[1:]:
        start, steps, end = store.read_records(path)
        block = store.read_block(path)[1]
        for learner in (slow, fast):
            learner.begin_episode(start)
        slow.ingest([msgspec.structs.replace(step, episode_step=step.episode_step + 5) for step in steps])
        fast.ingest_block(replace(block, steps=block.steps + 5))
        for learner in (slow, fast):
            learner.end_episode(end)
    assert (fast.train_steps, fast.human_steps) == (slow.train_steps, slow.human_steps)
    assert min(slow.human_steps, slow.train_steps - slow.human_steps) > 5
    assert [stored.steps for stored in fast._episodes.values()] == [stored.steps for stored in slow._episodes.values()]


def test_a_block_of_another_episode_is_refused(recording: Recording, tmp_path: Path) -> None:
    for records in recording.episodes[:2]:
        recording.stream.commit(records)
    recording.stream.wait_closed(2)
    start, block, _ = store.read_block(next(tmp_path.glob("episodes/*/e001.hdf5")))
    learner = ImitationLearner.make("sirius", start.spec, 0, SMALL)
    with pytest.raises(ValueError, match=r"a block of episode e001; none is running"):
        learner.ingest_block(block)
    learner.begin_episode(msgspec.structs.replace(start, episode_id="other"))
    with pytest.raises(ValueError, match=r"a block of episode e001; other is running"):
        learner.ingest_block(block)
    assert learner.train_steps == 0


@pytest.mark.parametrize("length", [1, 2, 4])
def test_a_history_begins_with_its_run(length: int) -> None:
    seen = np.arange(6.0)[:, None]
    found = histories(seen, np.array([0, 0, 0, 2, 2, 3]), length)[..., 0].tolist()
    first = [0, 0, 0, 3, 3, 5]
    assert found == [[max(i - back, first[i]) for back in reversed(range(length))] for i in range(6)]
    assert histories(np.zeros((0, 3)), np.zeros(0, np.int64), length).shape == (0, length, 3)
