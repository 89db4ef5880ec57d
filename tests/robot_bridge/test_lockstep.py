"""Lockstep: waits for whom it must, and gives the same steps twice."""

import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from takeover.data.schema import (
    EpisodeKind,
    Finish,
    LearnerStatus,
    Mode,
    Observation,
    OutcomeSource,
    Privileged,
    Resume,
    Source,
    Start,
    Step,
)
from takeover.data.seeding import heldout_start
from takeover.robot_bridge.protocol import Publisher

from .station import eventually, station

CLOCKS = {"t_observation_ns", "t_decision_ns", "t_applied_ns", "wall_ns", "session", "rec_seq", "episode_id", "command_age_ms"}


def drive(privileged: Privileged) -> tuple[bool, list[float]]:
    """Demonstrations by hand; in policy episodes the second half of the way."""
    if privileged.episode_kind is EpisodeKind.DEMONSTRATION or 10 < privileged.episode_step < 40:
        return True, privileged.expert_action
    return False, [0.0] * 4


def act(observation: Observation) -> list[float]:
    """A function of the observation alone, wandering a little."""
    return [float(value) for value in (0.3, -0.2, -0.4, 0.1)] if observation.episode_step % 2 else [-0.1, 0.2, -0.3, 0.0]


def run(folder: Path, seed: int) -> tuple[list[dict[str, Any]], list[Any]]:
    with station(folder, clock="lockstep", operator="scripted", seed=seed) as made:
        recorder = made.recorder()
        made.actor(act)
        operator = made.operator("operator", "scripted")
        operator.answer = drive
        operator.take_lease()
        made.start(operator, EpisodeKind.DEMONSTRATION, 2)
        made.until(lambda state: state.block_done == 2 and state.mode is Mode.READY)
        made.start(operator, EpisodeKind.POLICY, 3)
        made.until(lambda state: state.block_done == 3 and state.mode is Mode.READY and not state.episode_id)
        assert eventually(lambda: len(recorder.ends) == 5)
        steps = [{key: value for key, value in msgspec.to_builtins(step).items() if key not in CLOCKS} for step in recorder.steps]
        return steps, [(end.outcome, end.steps, end.human_steps, end.takeovers) for end in recorder.ends]


def test_the_same_seed_gives_the_same_steps(tmp_path: Path) -> None:
    first, ends = run(tmp_path / "a", 3)
    second, again = run(tmp_path / "b", 3)
    assert first == second
    assert ends == again
    assert ends[0][2] == ends[0][1]
    assert sum(end[3] for end in ends) >= 3
    other, _ = run(tmp_path / "c", 4)
    assert other[0]["observation"] != first[0]["observation"]
    policy = [step for step in first if step["kind"] == "policy"]
    assert [step["train_step"] for step in policy] == list(range(len(policy)))


def test_steps_wait_for_the_learners_lag_and_name_the_version(tmp_path: Path) -> None:
    required: list[tuple[int, int]] = []

    def note(observation: Observation) -> list[float]:
        required.append((observation.train_step, observation.required_version))
        return [0.0] * 4

    with station(tmp_path, clock="lockstep", operator="none", learner="hil-serl", lockstep_lag=4) as made:
        recorder = made.recorder()
        made.actor(note)
        with Publisher[LearnerStatus](made.endpoints, "learner_status", LearnerStatus) as learner:

            def finished(step: int) -> None:
                learner.send(
                    LearnerStatus(
                        learner="hil-serl",
                        phase="training",
                        progress=0.0,
                        text="",
                        updates=0,
                        updates_per_s=0.0,
                        demonstrations=0,
                        finished_train_step=step,
                        backlog_steps=0,
                        newest_version=3,
                        versions=[(1, 0), (2, 6), (3, 12)],
                        versions_published=3,
                    )
                )

            client = made.operator()
            assert eventually(lambda: (finished(-1), client.state is not None and not client.state.gate["learner"])[1]), (
                "the bridge hears it"
            )
            assert eventually(lambda: client.ask(Start(sender="console", kind=EpisodeKind.POLICY)).error == "")
            made.until(lambda state: state.train_steps == 4)
            threading.Event().wait(0.2)
            assert made.state().train_steps == 4
            finished(5)
            made.until(lambda state: state.train_steps == 10)
            finished(8)
            made.until(lambda state: state.train_steps == 13)
            client.ask(Finish(sender="console", now=True))
            made.until_mode(Mode.READY)
        asked = dict(pair for pair in required if pair[0] >= 0)
        assert [asked[step] for step in (0, 5, 6, 11, 12)] == [1, 1, 2, 2, 3]
        assert eventually(lambda: len(recorder.ends) == 1)
        assert recorder.ends[0].outcome_source is OutcomeSource.NEXT


def test_asks_again_when_an_answer_is_lost(tmp_path: Path) -> None:
    dropped: list[int] = []
    with station(tmp_path, clock="lockstep", operator="none") as made:
        recorder = made.recorder()
        actor = made.actor()

        def lossy(observation: Observation) -> list[float]:
            if observation.seq == 5 and not dropped:
                dropped.append(observation.seq)
                actor.silent = True
                threading.Timer(0.1, lambda: setattr(actor, "silent", False)).start()
            return [0.0] * 4

        actor.act = lossy
        client = made.operator()
        made.start(client, EpisodeKind.POLICY, 1)
        made.until(lambda state: state.block_done == 1)
        assert dropped == [5]
        assert eventually(lambda: len(recorder.ends) == 1)


def test_evaluation_uses_the_held_out_starts(tmp_path: Path) -> None:
    with station(tmp_path, clock="lockstep", operator="none") as made:
        recorder = made.recorder()
        made.actor()
        client = made.operator()
        made.start(client, EpisodeKind.EVALUATION, 2)
        made.until(lambda state: state.block_done == 2)
        assert eventually(lambda: len(recorder.ends) == 2)
        assert [start.start_seed for start in recorder.starts] == [heldout_start(0), heldout_start(1)]
        assert all(isinstance(step, Step) and step.train_step == -1 for step in recorder.steps)


def test_a_hold_in_lockstep_is_resumed_alike_in_every_run(tmp_path: Path) -> None:
    """The policy asks for what must be clamped; the script resumes at the second held step."""

    def wild(observation: Observation) -> list[float]:
        return [3.0 if observation.episode_step == 8 or 20 <= observation.episode_step < 23 else 0.1, 0.0, 0.0, 0.0]

    def held(folder: Path) -> list[tuple[Any, ...]]:
        with station(folder, clock="lockstep", operator="scripted") as made:
            recorder = made.recorder()
            made.actor(wild)
            operator = made.operator("operator", "scripted")
            holds: list[int] = []

            def answer(privileged: Privileged) -> tuple[bool, list[float]]:
                if privileged.mode is Mode.HOLD:
                    holds.append(privileged.seq)
                    if len(holds) % 2 == 0:
                        operator.client.send(Resume(sender="operator"))
                return False, [0.0] * 4

            operator.answer = answer
            operator.take_lease()
            made.start(operator, EpisodeKind.POLICY, 1)
            made.until(lambda state: state.block_done == 1 or len(holds) > 8, 20.0)
            assert eventually(lambda: len(recorder.ends) == 1)
            return [(step.seq, step.mode, step.run_id, step.observation, step.action) for step in recorder.steps]

    first = held(tmp_path / "a")
    assert first == held(tmp_path / "b")
    assert sum(step[1] is Mode.HOLD for step in first) >= 2
    assert first[-1][2] >= 1


def test_with_nobody_to_resume_a_hold_ends_the_episode(tmp_path: Path) -> None:
    with station(tmp_path, clock="lockstep", operator="none") as made:
        recorder = made.recorder()
        made.actor(lambda observation: [float("nan")] * 4 if observation.episode_step == 3 else [0.0] * 4)
        client = made.operator()
        made.start(client, EpisodeKind.POLICY, 1)
        made.until(lambda state: state.block_done == 1, 20.0)
        assert eventually(lambda: len(recorder.ends) == 1)
        assert (recorder.ends[0].outcome_source, recorder.ends[0].steps) == (OutcomeSource.FAULT, 3)


def test_a_restarted_operator_inherits_nothing(tmp_path: Path) -> None:
    """The operator's process is replaced in the middle of a takeover; the new one holds the deadman down from its first answer."""
    with station(tmp_path, clock="lockstep", operator="scripted") as made:
        recorder = made.recorder()
        made.actor(lambda _: [0.1, 0.0, 0.0, 0.0])
        first = made.operator("operator", "scripted")

        def take(privileged: Privileged) -> tuple[bool, list[float]]:
            time.sleep(0.03 if privileged.episode_step > 3 else 0.0)  # long enough in the takeover to be replaced in it
            return (True, [-0.5, 0.0, 0.0, 0.0]) if privileged.episode_step >= 3 else (False, [0.0] * 4)

        first.answer = take
        first.take_lease()
        made.start(first, EpisodeKind.POLICY, 1)
        made.until(lambda state: state.human_steps > 3, 20.0)
        first.close()
        made.closers.remove(first.close)
        second = made.operator("operator", "scripted")

        def answer(privileged: Privileged) -> tuple[bool, list[float]]:
            return (False, [0.0] * 4) if privileged.episode_step == 60 else (True, [-0.5, 0.0, 0.0, 0.0])

        second.answer = answer
        assert eventually(lambda: second.take_lease().error == "")
        made.until(lambda state: state.block_done == 1 or state.episode_step > 70, 20.0)
        assert eventually(lambda: len(recorder.steps) > 70)
        steps = list(recorder.steps)
        driven = [step.episode_step for step in steps if Source.HUMAN in step.source]
        handed = max(number for number in driven if number < 60)
        assert 3 < handed < 59  # the takeover ended with the process
        assert min(number for number in driven if number > handed) == 61  # and the next began with a fresh press
