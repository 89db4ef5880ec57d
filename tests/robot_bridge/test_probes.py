"""No-help probes in normal work: drawn by chance beforehand, of the version that is due, recorded as what they are."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from takeover.data.schema import EpisodeKind, Mode, Observation, Privileged, RunConfig, State
from takeover.data.seeding import HELDOUT_BASE
from takeover.robot_bridge.episode_book import EpisodeBook
from takeover.robot_bridge.probe_schedule import ProbeSchedule
from takeover.robot_bridge.robots.sim import SimRobot

from .station import eventually, station


def test_probes_are_drawn_by_chance_and_the_same_again() -> None:
    schedule = ProbeSchedule(seed=3, session="a", share=0.3, versions=(2, 1))
    drawn = [schedule.is_probe(i) for i in range(2000)]
    assert drawn == [ProbeSchedule(seed=3, session="a", share=0.3).is_probe(i) for i in range(2000)]
    assert drawn != [ProbeSchedule(seed=3, session="b", share=0.3).is_probe(i) for i in range(2000)]
    assert 0.25 < sum(drawn) / 2000 < 0.35
    assert not any(ProbeSchedule().is_probe(i) for i in range(100))
    assert all(ProbeSchedule(share=1.0).is_probe(i) for i in range(100))


def test_both_versions_are_in_every_block_in_random_order() -> None:
    schedule = ProbeSchedule(seed=3, session="a", share=0.3, versions=(2, 1))
    blocks = [(schedule.version(2 * i), schedule.version(2 * i + 1)) for i in range(400)]
    assert set(blocks) == {(1, 2), (2, 1)}
    assert 0.4 < blocks.count((2, 1)) / 400 < 0.6
    assert {ProbeSchedule(share=0.3, versions=(7,)).version(i) for i in range(9)} == {7}
    assert {ProbeSchedule(share=0.3).version(i) for i in range(9)} == {0}


@pytest.mark.parametrize("bad", [{"share": 1.5}, {"share": -0.1}, {"versions": (1, 1)}, {"versions": (1, 2, 3)}, {"versions": (0,)}])
def test_what_cannot_be_drawn_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="probe"):
        ProbeSchedule(**bad)


def test_an_episode_that_is_dropped_draws_the_same_again() -> None:
    """Nobody gets rid of a probe by dropping it before its first step."""
    config = RunConfig(session_id="s", workspace="", sockets="", probe_share=0.5, probe_versions=[2, 1])
    book = EpisodeBook(config, SimRobot().spec, None, "test")  # type: ignore[arg-type]  # nothing is recorded here
    seen = []
    for _ in range(30):
        book.start_block(EpisodeKind.POLICY, 1)
        kept = []
        for _ in range(3):
            found = book.prepare()
            kept.append((found.kind, found.number, found.probe, found.probe_version, found.start_seed))
            book.forget_prepared()
        assert len(set(kept)) == 1
        book.prepare()
        seen.append(kept[0])
        book.episode = None
        book.end_block()
    probes = [row for row in seen if row[2] >= 0]
    assert 5 < len(probes) < 25
    assert [row[2] for row in probes] == list(range(len(probes)))
    starts = [row[4] for row in probes]
    assert len(set(starts)) == len(probes)
    assert max(starts) < HELDOUT_BASE, "normal work never begins at a held-out start"
    other = EpisodeBook(msgspec.structs.replace(config, session_id="t"), SimRobot().spec, None, "test")  # type: ignore[arg-type]
    other.start_block(EpisodeKind.POLICY, 0)
    assert not {other.prepare().start_seed for _ in range(60)} & set(starts), "each session has its own, or they would count twice"
    assert {row[0] for row in probes} == {EpisodeKind.EVALUATION}
    assert [row[1] for row in seen if row[2] < 0] == list(range(30 - len(probes)))
    for kind, failures in ((EpisodeKind.DEMONSTRATION, 0), (EpisodeKind.POLICY, 3)):
        book.start_block(kind, 0, failures)  # demonstrations, and practice, which is slow
        for _ in range(20):
            assert book.prepare().probe == -1
            book.episode = None
        book.end_block()


def test_whichever_acts_when_a_probe_begins_drives_to_its_end(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []

    def act(observation: Observation) -> list[float]:
        if observation.episode_id:
            asked.append((observation.episode_step, observation.required_version))
        return [0.0] * 4

    with station(tmp_path, clock="lockstep", operator="none", probe_share=1.0) as made:
        recorder = made.recorder()
        made.actor(act)
        made.start(made.operator(), EpisodeKind.POLICY, 1)
        assert eventually(lambda: len(recorder.ends) == 1, 60.0)
        assert (recorder.starts[0].probe, recorder.starts[0].probe_version) == (0, 1)
    assert len(asked) >= 100
    assert {required for _, required in asked} == {1}


def test_the_bridge_asks_for_the_version_that_is_due_and_records_the_probe(tmp_path: Path) -> None:
    asked: dict[str, set[int]] = {}

    def act(observation: Observation) -> list[float]:
        if observation.episode_id:
            asked.setdefault(observation.episode_id, set()).add(observation.required_version)
        return [0.0, 0.0, -0.2, 0.0]

    def takes_over(privileged: Privileged) -> tuple[bool, list[float]]:
        if 10 < privileged.episode_step < 40 and privileged.episode_number % 2 == 0:
            return True, privileged.expert_action
        return False, [0.0] * 4

    probes = {"probe_share": 0.6, "probe_versions": [2, 1]}
    with station(tmp_path, clock="lockstep", operator="scripted", seed=3, **probes) as made:
        recorder = made.recorder()
        made.actor(act)
        operator = made.operator("operator", "scripted")
        operator.answer = takes_over
        operator.take_lease()
        made.start(operator, EpisodeKind.POLICY, 5)
        told: dict[str, tuple[int, int]] = {}

        def over(state: State) -> bool:
            told[state.episode_id] = (state.probe, state.probe_version)
            return state.block_done == 5 and state.mode is Mode.READY and not state.episode_id

        made.until(over, 60.0)
        assert eventually(lambda: len(recorder.ends) == 5)
        found = [(start, end) for start, end in zip(recorder.starts, recorder.ends, strict=True) if start.probe >= 0]
        work = [start for start in recorder.starts if start.probe < 0]
        steps = {step.episode_id: step for step in recorder.steps}
    assert found
    assert work
    assert told.pop("") == (-1, 0)
    truly = {start.episode_id: (start.probe, start.probe_version) for start in recorder.starts}
    assert len(told) >= 3  # a busy machine may lose some of the states
    assert told.items() <= truly.items()  # whoever watches knows
    schedule = ProbeSchedule(seed=3, share=0.6, versions=(2, 1))
    for start, end in found:
        assert (start.kind, start.probe_version) == (EpisodeKind.EVALUATION, schedule.version(start.probe))
        assert asked[start.episode_id] == {start.probe_version}
        assert steps[start.episode_id].policy_version == start.probe_version
        assert steps[start.episode_id].train_step == -1
        assert end.takeovers == (start.number % 2 == 0), "a person may always take over; it counts as failure"
    assert all(start.kind is EpisodeKind.POLICY and start.probe_version == 0 for start in work)
    assert all(asked[start.episode_id] == {0} for start in work)
