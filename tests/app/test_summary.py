"""Figures of the summary against hand-computed ones; the log of committed episodes under repeats, gaps and corrections."""

import msgspec
import pytest

from takeover.app.stream import EpisodeLog, FinishedEpisode
from takeover.app.summary import intervention_rate, percentiles, summarise, without_times
from takeover.data.schema import (
    Committed,
    EpisodeEnd,
    EpisodeKind,
    EpisodeStart,
    EvaluateReply,
    LearnerStatus,
    Outcome,
    OutcomeChange,
    OutcomeSource,
    RunConfig,
)
from takeover.data.store import GapError
from takeover.robot_bridge.robots.registry import make_robot

CONFIG = RunConfig(session_id="s", workspace="/w", sockets="/s", clock="realtime")


@pytest.fixture(scope="module")
def spec():
    return make_robot(CONFIG).spec


def start(spec, number: int, rec_seq: int, kind: EpisodeKind = EpisodeKind.POLICY) -> EpisodeStart:
    return EpisodeStart(
        session="s",
        rec_seq=rec_seq,
        episode_id=f"e{number}",
        number=number,
        kind=kind,
        spec=spec,
        station_id="local",
        operator="op-01",
        start_seed=number,
        policy_version=number + 1,
        policy_sha256="",
        config_sha256="",
        wall_ns=0,
        t_ns=0,
    )


def end(number: int, rec_seq: int, steps: int = 50, human: int = 10, discarded: bool = False) -> EpisodeEnd:
    return EpisodeEnd(
        session="s",
        rec_seq=rec_seq,
        episode_id=f"e{number}",
        outcome=Outcome.SUCCESS,
        outcome_source=OutcomeSource.TASK,
        event_step=steps - 1,
        steps=steps,
        human_steps=human,
        takeovers=int(human > 0),
        autonomous=human == 0,
        discarded=discarded,
        t_ns=0,
        wall_ns=0,
    )


def committed(*records) -> Committed:
    return Committed(session="s", first=records[0].rec_seq, cursor=records[-1].rec_seq, records=list(records))


def test_repeats_change_nothing(spec, tmp_path):
    log = EpisodeLog(str(tmp_path))
    first, second = committed(start(spec, 0, 0), end(0, 1)), committed(start(spec, 1, 2), end(1, 3))
    for announcement in (first, first, second, first, second):
        log.add(announcement)
    assert [episode.start.number for episode in log.finished] == [0, 1]


def test_an_overlapping_announcement_adds_only_what_is_new(spec, tmp_path):
    log = EpisodeLog(str(tmp_path))
    log.add(committed(start(spec, 0, 0)))
    log.add(committed(start(spec, 0, 0), end(0, 1)))
    assert len(log.finished) == 1


def test_a_gap_that_the_store_cannot_fill_is_an_error(spec, tmp_path, monkeypatch):
    monkeypatch.setattr("takeover.app.stream.read_gap", lambda *_: (_ for _ in ()).throw(GapError("records 1 to 4 are missing")))
    log = EpisodeLog(str(tmp_path))
    log.add(committed(start(spec, 0, 0)))
    with pytest.raises(GapError):
        log.add(committed(end(1, 5)))


def test_discarded_demonstrations_do_not_count_and_late_outcomes_do(spec, tmp_path):
    log = EpisodeLog(str(tmp_path))
    demonstration = EpisodeKind.DEMONSTRATION
    log.add(committed(start(spec, 0, 0, demonstration), end(0, 1, discarded=True), start(spec, 1, 2, demonstration), end(1, 3)))
    change = OutcomeChange(
        session="s", rec_seq=4, episode_id="e1", outcome=Outcome.FAILURE, previous=Outcome.SUCCESS, author="op-01", event_step=7, wall_ns=0
    )
    log.add(committed(change))
    (episode,) = log.of_kind(demonstration)
    assert (episode.start.number, episode.end.outcome, episode.end.event_step) == (1, Outcome.FAILURE, 7)


def test_demonstration_that_failed_or_was_cut_short_is_asked_for_again_a_failed_policy_episode_is_not(spec, tmp_path):
    """As learners count: otherwise a run waits for ever for the demonstration that a fault has ended."""
    log, demonstration = EpisodeLog(str(tmp_path)), EpisodeKind.DEMONSTRATION
    kinds = [(demonstration, Outcome.SUCCESS), (demonstration, Outcome.FAILURE), (demonstration, Outcome.ABORTED)]
    for number, (kind, outcome) in enumerate([*kinds, (EpisodeKind.POLICY, Outcome.FAILURE), (EpisodeKind.POLICY, Outcome.ABORTED)]):
        ended = msgspec.structs.replace(end(number, 2 * number + 1), outcome=outcome)
        log.add(committed(start(spec, number, 2 * number, kind), ended))
    assert len(log.of_kind(demonstration)) == 3
    assert log.counted(demonstration) == 1
    assert log.counted(EpisodeKind.POLICY) == 2


def test_intervention_rate_is_steps_over_steps_not_a_mean_of_rates(spec):
    episodes = [FinishedEpisode(start(spec, 0, 0), end(0, 1, 100, 0)), FinishedEpisode(start(spec, 1, 2), end(1, 3, 20, 20))]
    assert intervention_rate(episodes) == pytest.approx(20 / 120)
    assert intervention_rate([]) == 0.0


def test_percentiles_are_values_that_occurred():
    assert percentiles([]) is None
    assert percentiles([3.0]) == {"p50": 3.0, "p95": 3.0}
    assert percentiles([float(i) for i in range(1, 101)]) == {"p50": 50.0, "p95": 95.0}
    assert percentiles([2.0, 1.0]) == {"p50": 1.0, "p95": 2.0}


def summary_of(spec, config: RunConfig):
    episodes = [FinishedEpisode(start(spec, i, 2 * i), end(i, 2 * i + 1, 50, 50 if i < 20 else 5)) for i in range(40)]
    learner = LearnerStatus(
        learner="hil-serl",
        phase="training",
        progress=1.0,
        text="",
        updates=1900,
        updates_per_s=0.0,
        demonstrations=20,
        finished_train_step=1999,
        backlog_steps=0,
        newest_version=39,
        versions=[],
        versions_published=39,
        correction_to_batch_s=[0.5, 0.7],
    )
    reply = EvaluateReply(request_id=1, version=39, successes=180, n=200, outcomes=[], wall_s=1.0)
    return summarise(
        config=config,
        episodes=episodes,
        before=None,
        after=reply,
        learner=learner,
        steps={"total": 2000, "dropped": 0, "late": 3},
        weights_sha256="ab",
        wall_s={"demonstrations": 1.0, "loop": 2.0, "evaluation": 3.0},
        control_hz=20.0,
        operator={"kind": "scripted"},
    )


def test_summary_fields(spec):
    summary = summary_of(spec, CONFIG)
    assert summary["intervention_rate"] == {"first_20": 1.0, "last_20": 0.1}
    assert summary["heldout_success"] == {"before": None, "after": {"successes": 180, "n": 200}}
    assert summary["learner"] == {"updates": 1900, "extra_updates": 0, "versions_published": 39}
    assert summary["correction_to_batch_s"] == {"p50": 0.5, "p95": 0.7}
    assert summary["correction_to_acting_s"] is None, "none was measured"
    assert summary["simulated_s"] == 100.0
    assert summary["episodes"][0] == {
        "success": True,
        "autonomous": False,
        "outcome": "success",
        "steps": 50,
        "human_steps": 50,
        "takeovers": 1,
        "policy_version": 1,
    }


def test_lockstep_has_no_latencies_and_times_are_left_out_of_comparisons(spec):
    lockstep = msgspec.structs.replace(CONFIG, clock="lockstep")
    summary = summary_of(spec, lockstep)
    assert summary["correction_to_batch_s"] is None
    slower = summary | {"wall_s": {}, "workspace": "/elsewhere", "software": {}}
    assert without_times(summary) == without_times(slower)
    assert without_times(summary) != without_times(summary | {"weights_sha256": "cd"})
