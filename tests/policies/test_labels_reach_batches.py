"""Labels and the very next batch: the real recorder, catalog, labels, learner run and replay."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from takeover.data.catalog import Catalog
from takeover.data.labels import Labels
from takeover.data.recorder import Recorder
from takeover.data.schema import Committed, ControlMode, EpisodeKind, Outcome, RunConfig
from takeover.data.workspace import Workspace
from takeover.policies.class_weights import StepClass
from takeover.policies.imitation import ImitationLearner
from takeover.policies.learner_run import LearnerRun
from takeover.policies.transition_buffer import TransitionBuffer

HIL = {
    "updates_per_step": 1,
    "clone_updates": 20,
    "critic_warmup": 5,
    "learning_starts": 5,
    "hidden": 16,
    "batch": 64,
    "keep_warm_start": False,
}
SIRIUS = {"clone_updates": 20, "learning_starts": 5, "hidden": 16, "batch": 64, "pre_intervention_s": 0.1, "history": 1}
P, H = ControlMode.POLICY, ControlMode.HUMAN


class Bench:
    """A learner that has seen a demonstration (e000) and two policy episodes (e001, e002), each with a takeover at steps 4 to 6."""

    def __init__(self, folder: Path, script: Any, learner: str, settings: dict[str, Any]) -> None:
        self.script = script
        self.recorder = Recorder(Workspace(folder))
        self.messages: list[Committed] = []
        parameters = (HIL if learner == "hil-serl" else SIRIUS) | settings
        fields = {"session_id": "run-a", "workspace": str(folder), "sockets": "", "task": "reach", "clock": "realtime"}
        config = RunConfig(**fields, demonstrations=1, learner=learner, learner_parameters=parameters, publish_every_s=0.0)
        self.config = config
        self.run = LearnerRun(config)
        self.commit([script.start(EpisodeKind.DEMONSTRATION), *(script.step(H) for _ in range(6)), script.end()])
        while self.run.training.phase != "training":
            self.run.work()
        for _ in range(2):
            self.commit([script.start(), *(script.step(mode) for mode in [P] * 4 + [H] * 3 + [P] * 3), script.end(Outcome.FAILURE)])
        self.recorder.close()  # its worker has entered every episode in the catalog
        self.catalog = Catalog.open(folder)
        self.labels = Labels(folder, self.catalog)

    def commit(self, records: list[Any]) -> None:
        for record in records:
            self.recorder.accept(record)
        synced = self.recorder.sync()
        for message in (synced.committed, *synced.closed):
            if isinstance(message, Committed):
                self.messages.append(message)
                for _ in self.run.committed(message):
                    pass

    @property
    def learner(self) -> Any:
        return self.run.training.learner

    def batch(self) -> dict[str, set[tuple[int, int]]]:
        """Make one update, and return which (episode, step) its batches could hold, by place."""
        assert self.learner.updates_due() > 0
        before = self.learner.weights().tensors
        assert self.run.work()
        after = self.learner.weights().tensors
        assert any(not torch.equal(before[name], after[name]) for name in before)
        return {"demonstrations": rows(self.learner.replay.demonstrations), "online": rows(self.learner.replay.online)}

    def close(self) -> None:
        self.catalog.close()
        self.run.close()


def rows(buffer: TransitionBuffer) -> set[tuple[int, int]]:
    return set(zip(buffer.episode[: buffer.size].tolist(), buffer.step[: buffer.size].tolist(), strict=True))


def steps(found: set[tuple[int, int]], episode: int) -> list[int]:
    return sorted(step for number, step in found if number == episode)


@pytest.fixture
def make_bench(tmp_path: Path, make_script: Callable[..., Any]) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(learner: str = "hil-serl", **settings: Any) -> Bench:
        made.append(Bench(tmp_path / "w", make_script(), learner, settings))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def test_an_excluded_segment_leaves_the_next_batch_and_comes_back_with_undo(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    assert (steps(bench.batch()["demonstrations"], 1), steps(bench.batch()["online"], 1)) == ([4, 5, 6], list(range(10)))
    bench.labels.add_label("e001:t0", "exclude", True, "lab-01")
    found = bench.batch()
    assert (steps(found["demonstrations"], 1), steps(found["online"], 1)) == ([], [0, 1, 2, 3, 7, 8, 9])
    assert steps(found["demonstrations"], 2) == [4, 5, 6]
    bench.labels.undo("lab-01")
    found = bench.batch()
    assert (steps(found["demonstrations"], 1), steps(found["online"], 1)) == ([4, 5, 6], list(range(10)))


def test_an_excluded_episode_leaves_and_comes_back_in_the_next_batch(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.labels.add_label("e001", "exclude", True, "lab-01")
    found = bench.batch()
    assert steps(found["demonstrations"] | found["online"], 1) == []
    bench.labels.add_label("e001", "exclude", False, "lab-01")
    assert steps(bench.batch()["online"], 1) == list(range(10))


def test_trims_and_a_later_onset_leave_steps_out(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.labels.add_label("e001:t0", "trim", "4-5", "lab-01")
    bench.labels.add_label("e002", "trim", "2-7", "lab-01")
    bench.labels.add_label("e002:t0", "onset", 5, "lab-01")
    found = bench.batch()
    assert (steps(found["demonstrations"], 1), steps(found["online"], 1)) == ([4, 5], [0, 1, 2, 3, 4, 5, 7, 8, 9])
    assert (steps(found["demonstrations"], 2), steps(found["online"], 2)) == ([5, 6], [2, 3, 4, 5, 6, 7])


def test_a_bad_correction_is_experience_and_no_example(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.labels.add_label("e001:t0", "quality", "bad", "lab-01")
    found = bench.batch()
    assert (steps(found["demonstrations"], 1), steps(found["online"], 1)) == ([], list(range(10)))


def test_an_outcome_dated_back_changes_reward_end_and_length_and_undo_restores_them(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    online, columns = bench.learner.replay.online, bench.learner.replay.columns

    def values(episode: int) -> list[tuple[float, float]]:
        found = online.of_episode(episode)
        return [(online.rows[i, columns.reward].item(), online.rows[i, columns.mask].item()) for i in found]

    recorded = values(1)
    bench.labels.add_label("e001", "outcome", "success@6", "lab-01")
    assert steps(bench.batch()["online"], 1) == list(range(7))
    assert values(1) == [*recorded[:6], (1.0, 0.0)]
    bench.labels.add_label("e001", "outcome", "failure@8", "lab-01")
    assert steps(bench.batch()["online"], 1) == list(range(9))
    assert values(1) == [*recorded[:8], (0.0, 0.0)]
    bench.labels.undo("lab-01")
    bench.labels.undo("lab-01")
    assert steps(bench.batch()["online"], 1) == list(range(10))
    assert values(1) == recorded


def test_a_demonstration_labelled_a_failure_is_no_longer_imitated(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    assert steps(bench.batch()["demonstrations"], 0) == list(range(6))
    bench.labels.add_label("e000", "outcome", "failure", "lab-01")
    found = bench.batch()
    assert (steps(found["demonstrations"], 0), steps(found["online"], 0)) == ([], list(range(6)))
    bench.labels.undo("lab-01")
    found = bench.batch()
    assert (steps(found["demonstrations"], 0), steps(found["online"], 0)) == (list(range(6)), [])


def test_a_label_shows_which_update_and_version_first_used_it(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.batch()
    first = bench.labels.add_label("e001:t0", "exclude", True, "lab-01")
    bench.labels.add_label("e001:t0", "note", "no matter to the learner", "lab-01")
    assert bench.labels.uses("e001:t0") == []
    changes = bench.catalog.change_counter()
    bench.batch()
    (use,) = bench.labels.uses("e001:t0")
    assert (use.event_id, use.learner, use.update_number) == (first.id, "run-a/hil-serl", bench.learner.updates)
    assert bench.catalog.change_counter() - changes <= 1  # a published version at most: noting a use is no change to look at
    bench.batch()
    (again,) = bench.labels.uses("e001:t0")
    assert again.update_number == use.update_number
    assert again.policy_version == bench.run.training.versions[-2][0] or again.policy_version == bench.run.training.versions[-1][0]


@pytest.mark.parametrize("seen", [True, False], ids=["held when it was saved", "never taken in"])
def test_a_learner_that_starts_sees_the_labels_and_takes_in_what_was_excluded(make_bench: Callable[..., Bench], seen: bool) -> None:
    bench = make_bench()
    bench.labels.add_label("e001", "exclude", True, "lab-01")
    bench.labels.add_label("e002:t0", "exclude", True, "lab-01")
    bench.batch()
    if seen:
        bench.run.checkpoint(wait=True)  # otherwise it goes on from the one after cloning
    trained = (bench.learner.train_steps, bench.learner.human_steps, bench.learner.updates)
    again = LearnerRun(bench.config)
    try:
        again.resume()
        learner: Any = again.training.learner
        if seen:
            assert (learner.train_steps, learner.human_steps, learner.updates) == trained
        first, second = (1, 2) if seen else (2, 1)  # its episodes in the order in which they came
        assert rows(learner.replay.online) == {(second, step) for step in (0, 1, 2, 3, 7, 8, 9)}
        bench.labels.add_label("e001", "exclude", False, "lab-01")
        again.reread_labels()
        assert steps(rows(learner.replay.online), first) == list(range(10))
        again.reread_labels()
        assert learner.replay.online.size == 17  # once
    finally:
        again.close()


@pytest.mark.parametrize("learner", ["sirius", "hg-dagger"])
def test_imitation_draws_from_what_labels_leave(make_bench: Callable[..., Bench], learner: str) -> None:
    bench = make_bench(learner, policy_examples="all")
    imitation: ImitationLearner = bench.learner

    def counts() -> dict[StepClass, int]:
        bench.run.reread_labels()
        assert bench.run.work()
        return {c: n for c, n in imitation._steps().counts.items() if n}

    demonstrations = StepClass.DEMONSTRATION
    policy, human, before, aside = StepClass.POLICY, StepClass.INTERVENTION, StepClass.PRE_INTERVENTION, StepClass.TRANSITION
    assert counts() == {demonstrations: 6, policy: 10, human: 6, before: 4}
    bench.labels.add_label("e001:t0", "exclude", True, "lab-01")
    assert counts() == {demonstrations: 6, policy: 12, human: 3, before: 2}
    bench.labels.undo("lab-01")
    bench.labels.add_label("e001:t0", "onset", 3, "lab-01")  # it began to go wrong a step before the person took over
    assert counts() == {demonstrations: 6, policy: 9, human: 6, before: 5}
    bench.labels.add_label("e001:t0", "onset", 5, "lab-01")
    assert counts() == {demonstrations: 6, policy: 11, human: 5, before: 3, aside: 1}
    bench.labels.add_label("e002", "outcome", "failure@5", "lab-01")
    assert counts() == {demonstrations: 6, policy: 8, human: 4, before: 3, aside: 1}
    bench.labels.add_label("e002", "exclude", True, "lab-01")
    bench.labels.add_label("e000", "outcome", "failure", "lab-01")
    assert counts() == {policy: 6, human: 2, before: 1, aside: 1}


@pytest.mark.parametrize("learner", ["sirius", "iwr"])
def test_what_the_policy_did_not_finish_is_no_example(make_bench: Callable[..., Bench], learner: str) -> None:
    bench = make_bench(learner)
    imitation: ImitationLearner = bench.learner

    def counts() -> dict[StepClass, int]:
        bench.run.reread_labels()
        assert bench.run.work()
        return {c: n for c, n in imitation._steps().counts.items() if n}

    demonstrations, policy, human = StepClass.DEMONSTRATION, StepClass.POLICY, StepClass.INTERVENTION
    unfinished, aside = StepClass.UNFINISHED, StepClass.TRANSITION
    assert counts() == {demonstrations: 6, human: 6, unfinished: 14}  # until a takeover, and from there until it failed
    bench.labels.add_label("e002", "outcome", "success@8", "lab-01")
    assert counts() == {demonstrations: 6, human: 6, policy: 2, unfinished: 11}
    bench.labels.add_label("e002", "outcome", "success@3", "lab-01")  # nobody took over before it had succeeded
    assert counts() == {demonstrations: 6, human: 3, policy: 4, unfinished: 7}
    bench.labels.undo("lab-01")
    bench.labels.undo("lab-01")
    bench.labels.add_label("e001:t0", "exclude", True, "lab-01")  # the correction is no example, and what it ended is none either
    assert counts() == {demonstrations: 6, human: 3, unfinished: 14}
    bench.labels.undo("lab-01")
    bench.labels.add_label("e001:t0", "onset", 3, "lab-01")  # before the two steps in front of it all went well
    assert counts() == {demonstrations: 6, human: 6, policy: 1, unfinished: 13}
    bench.labels.add_label("e001:t0", "onset", 5, "lab-01")
    assert counts() == {demonstrations: 6, human: 5, policy: 3, unfinished: 11, aside: 1}
    bench.labels.add_label("e002", "exclude", True, "lab-01")
    bench.labels.add_label("e001", "outcome", "success", "lab-01")
    assert counts() == {demonstrations: 6, human: 2, policy: 6, unfinished: 1, aside: 1}


def test_what_still_runs_is_no_example_until_it_has_ended(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("sirius")
    table = bench.learner._steps
    before = table().counts[StepClass.UNFINISHED]
    bench.learner.begin_episode(bench.script.start())
    bench.learner.ingest([bench.script.step(P) for _ in range(5)])
    assert (table().counts[StepClass.POLICY], table().counts[StepClass.UNFINISHED]) == (0, before + 5)
    bench.learner.end_episode(bench.script.end(Outcome.UNKNOWN))  # nobody took over, and nobody said that it failed
    assert (table().counts[StepClass.POLICY], table().counts[StepClass.UNFINISHED]) == (5, before)


@pytest.mark.parametrize("learner", ["hil-serl", "sirius"])
def test_excluding_everything_stops_the_updates_and_not_the_learner(make_bench: Callable[..., Bench], learner: str) -> None:
    bench = make_bench(learner)
    for episode in ("e000", "e001", "e002"):
        bench.labels.add_label(episode, "exclude", True, "lab-01")
    bench.run.reread_labels()
    assert bench.learner.updates_due() == 0
    assert bench.learner.demonstration_episodes == 0
    bench.labels.undo("lab-01")
    bench.run.reread_labels()
    assert bench.learner.updates_due() > 0


def test_labels_of_episodes_that_have_not_come_yet_wait_for_them(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.labels.add_label("e001:t0", "exclude", True, "lab-01")
    late = LearnerRun(bench.config)
    try:
        for message in bench.messages:
            for _ in late.committed(message):
                late.reread_labels()  # finds the label long before the episode
        learner: Any = late.training.learner
        assert steps(rows(learner.replay.online), 1) == [0, 1, 2, 3, 7, 8, 9]
        assert steps(rows(learner.replay.online), 2) == list(range(10))
    finally:
        late.close()


def test_rows_that_come_back_are_the_oldest_and_a_full_ring_takes_none() -> None:
    buffer = TransitionBuffer(5, 1)
    for i in range(5):
        buffer.add(torch.tensor([float(i)]), episode=i % 2, step=i)
    buffer.drop(buffer.of_episode(0))
    buffer.restore(torch.tensor([[0.0], [2.0], [4.0]]), 0, [0, 2, 4], [-1, 7, -1])
    assert buffer.rows[: buffer.size, 0].tolist() == [0.0, 2.0, 4.0, 1.0, 3.0]
    assert (buffer.newest, buffer.rows[buffer.newest, 0].item()) == (4, 3.0)
    assert buffer.correction.tolist()[:5] == [-1, 7, -1, -1, -1]
    buffer.add(torch.tensor([9.0]), episode=3, step=9)
    assert buffer.rows[:5, 0].tolist() == [9.0, 2.0, 4.0, 1.0, 3.0]
    buffer.restore(torch.tensor([[0.0]]), 0, [0], [-1])
    assert buffer.size == 5
    assert sorted(buffer.rows[:5, 0].tolist()) == [1.0, 2.0, 3.0, 4.0, 9.0]
