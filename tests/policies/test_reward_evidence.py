"""What keys, labels, marks and classifiers say of each step, and how the episodes are split."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from takeover.data.catalog_tables import LabelEvent
from takeover.data.schema import EpisodeEnd, Event, Outcome, OutcomeSource
from takeover.policies.reward_data import RewardEpisode, split
from takeover.policies.reward_evidence import Evidence, Judgement, evidence_of, judge, task_judges, with_marks
from takeover.policies.reward_settings import RewardError, RewardSettings, parse_settings

SETTINGS, HZ = RewardSettings(), 20.0


def end(outcome: Outcome, source: OutcomeSource, event_step: int = 49, steps: int = 50) -> EpisodeEnd:
    counts = {"human_steps": 0, "takeovers": 0, "autonomous": True, "t_ns": 0, "wall_ns": 0}
    fields = {"outcome": outcome, "outcome_source": source, "event_step": event_step, "steps": steps}
    return EpisodeEnd(session="s", rec_seq=9, episode_id="e", **fields, **counts)


def label(value: str, author: str, wall_ns: int) -> LabelEvent:
    about = {"target": "e", "episode_id": "e", "field": "outcome", "previous": "", "action": "set", "refers_to": ""}
    return LabelEvent(id=f"{wall_ns:026d}", value=value, author=author, wall_ns=wall_ns, **about)


def spans(evidence: Evidence) -> dict[int, tuple[int, int]]:
    """{label: (first, last) step}."""
    found = {value: np.flatnonzero(evidence.labels == value) for value in (0, -1, 1)}
    return {value: (int(steps[0]), int(steps[-1])) for value, steps in found.items() if steps.size}


def test_the_task_says_it_to_the_step_and_a_key_leaves_room_for_its_delay():
    task = evidence_of(judge(end(Outcome.SUCCESS, OutcomeSource.TASK), []), 50, HZ, SETTINGS)
    assert spans(task) == {0: (0, 48), 1: (49, 49)}
    key = evidence_of(judge(end(Outcome.SUCCESS, OutcomeSource.OPERATOR, event_step=39), []), 50, HZ, SETTINGS)
    assert spans(key) == {0: (0, 28), -1: (29, 42), 1: (43, 49)}  # 1.0 s and 0.3 s before the key
    failed = evidence_of(judge(end(Outcome.FAILURE, OutcomeSource.OPERATOR), []), 50, HZ, SETTINGS)
    assert spans(failed) == {0: (0, 49)}
    aborted = evidence_of(judge(end(Outcome.ABORTED, OutcomeSource.STOP), []), 50, HZ, SETTINGS)
    assert spans(aborted) == {-1: (0, 49)}


def test_every_delay_a_key_may_have_leaves_no_wrong_label():
    for delay in range(6, 21):
        count = 30 + delay + 1  # success at step 30, the key `delay` steps later
        found = evidence_of(judge(end(Outcome.SUCCESS, OutcomeSource.OPERATOR, 0, count), []), count, HZ, SETTINGS).labels
        assert not (found[:30] == 1).any()
        assert not (found[30:] == 0).any()
        assert (found == 1).any()
        assert (found == 0).any()


def test_a_classifier_is_no_evidence_and_a_person_who_disagrees_makes_hard_negatives():
    said = [label("success@20", "reward-v1", 1)]
    assert judge(end(Outcome.FAILURE, OutcomeSource.LIMIT), said, by_task=True) == Judgement(Outcome.FAILURE, "task", 49, ())
    live = end(Outcome.SUCCESS, OutcomeSource.CLASSIFIER, event_step=48)
    assert judge(live, []).by == "nobody"
    assert spans(evidence_of(judge(live, []), 50, HZ, SETTINGS)) == {-1: (0, 49)}
    vetoed = evidence_of(judge(live, [label("unknown", "op-01", 5)]), 50, HZ, SETTINGS)
    assert spans(vetoed) == {0: (0, 49)}
    assert np.flatnonzero(vetoed.hard).tolist() == [46, 47, 48, 49]
    later = judge(end(Outcome.FAILURE, OutcomeSource.LIMIT), [*said, label("success@40", "op-01", 2)])
    assert (later.outcome, later.claims) == (Outcome.SUCCESS, (20,))  # too early is wrong, too
    taken_back = judge(live, [label("unknown", "op-01", 5), label("", "op-01", 6)])
    assert (taken_back.by, taken_back.claims) == ("nobody", ())


def test_the_step_limit_is_a_failure_only_where_the_task_was_asked(make_script):
    limit = end(Outcome.FAILURE, OutcomeSource.LIMIT)
    assert spans(evidence_of(judge(limit, [], by_task=True), 50, HZ, SETTINGS)) == {0: (0, 49)}
    assert judge(limit, []) == Judgement(Outcome.UNKNOWN, "nobody", -1, ())
    assert spans(evidence_of(judge(limit, []), 50, HZ, SETTINGS)) == {-1: (0, 49)}
    keyed = evidence_of(judge(limit, [label("failure", "op-01", 1)]), 50, HZ, SETTINGS)
    assert spans(keyed) == {0: (0, 49)}  # who waited for it says so with a key
    missed = evidence_of(judge(limit, [label("success@40", "op-01", 1)]), 50, HZ, SETTINGS)
    assert spans(missed)[1] == (47, 49)
    script = make_script()
    simulated = script.start()
    real = msgspec.structs.replace(simulated, spec=msgspec.structs.replace(simulated.spec, simulated=False))
    asked, not_asked = [script.step() for _ in range(3)], [script.step(reward_source="none") for _ in range(3)]
    assert task_judges(simulated, asked)
    assert not task_judges(simulated, not_asked)
    assert not task_judges(simulated, [*asked, *not_asked])
    assert not task_judges(real, asked)  # whatever was recorded: no robot judges itself


def test_what_nothing_is_known_of_is_not_held_out():
    nothing = [unjudged(f"n{i:03d}") for i in range(40)]
    known = [episode(f"e{i:03d}", i % 2 == 0) for i in range(20)]
    held_out = split([*nothing, *known], 0.2, [nothing[0].episode_id], ())
    assert len(held_out) == 4
    assert all(name.startswith("e") for name in held_out)


def test_marks_count_for_the_state_they_were_set_at(make_script):
    script = make_script()
    script.start()
    steps = [script.step() for _ in range(10)]
    none = Evidence(np.full(10, -1, np.int8), np.zeros(10, np.bool_))
    fields = {"session": "s", "rec_seq": 0, "kind": "mark", "source": "bridge", "t_ns": 0, "wall_ns": 0}
    marks = [Event(**fields, text=text, seq=steps[at].seq) for text, at in (("success", 5), ("not success", 7), ("a scratch", 8))]
    found = with_marks(none, steps, marks)
    assert found.labels.tolist() == [-1, -1, -1, -1, 1, -1, 0, -1, -1, -1]
    assert np.flatnonzero(found.hard).tolist() == [6]


def episode(name: str, positive: bool, hard: bool = False) -> RewardEpisode:
    labels = np.array([0, 0, int(positive)], np.int8)
    evidence = Evidence(labels, np.array([hard, False, False]))
    return RewardEpisode(name, "", Path(), Judgement(Outcome.UNKNOWN, "task", -1, ()), evidence, np.zeros((3, 2), np.float32))


def unjudged(name: str) -> RewardEpisode:
    nothing = Evidence(np.full(3, -1, np.int8), np.zeros(3, np.bool_))
    return RewardEpisode(name, "", Path(), Judgement(Outcome.UNKNOWN, "nobody", -1, ()), nothing, np.zeros((3, 2), np.float32))


def test_what_is_held_out_stays_held_out_and_what_was_trained_on_never_becomes_it():
    before = [episode(f"e{i:03d}", i % 2 == 0) for i in range(40)]
    first = split(before, 0.2, (), ())
    assert len(first) == 8
    assert sum(int(name[1:]) % 2 == 0 for name in first) == 4
    trained = [e.episode_id for e in before if e.episode_id not in first]
    grown = [*before, *(episode(f"f{i:03d}", i % 2 == 0) for i in range(40))]
    second = split(grown, 0.2, sorted(first), trained)
    assert first < second
    assert not second & set(trained)
    assert len(second) == 16
    vetoed = [episode(name, False, hard=True) if name in first else episode(name, True) for name in (e.episode_id for e in before)]
    assert not split(vetoed, 0.2, sorted(first), ()) & first  # a hard negative is there to be learned


def test_settings_out_of_range_are_refused_by_name():
    with pytest.raises(RewardError, match=r"reward\.held_out = 0\.9; allowed 0\.05 to 0\.5"):
        parse_settings({"held_out": "0.9"})
    with pytest.raises(RewardError, match="the reward classifier has no setting 'heldout'"):
        parse_settings({"heldout": 0.1})
