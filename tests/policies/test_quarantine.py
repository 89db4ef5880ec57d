"""What must not be learned from is left out and said, and the learner goes on."""

import math
import re
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from takeover.data.schema import ActionGroup, ControlMode, EpisodeKind, Outcome, OutcomeChange, RunConfig
from takeover.policies.training import Publication, Training

from .conftest import make_spec
from .test_resume import FAST, demonstration, episode

LEARNERS = ("hil-serl", "sirius")


class Publications:
    def __init__(self) -> None:
        self.made: list[Publication] = []

    def __call__(self, publication: Publication) -> int:
        self.made.append(publication)
        return publication.version


def make_training(learner: str, demonstrations: int = 1) -> tuple[Training, Publications]:
    published = Publications()
    config = RunConfig(
        session_id="run-a",
        workspace="",
        sockets="",
        task="reach",
        clock="lockstep",
        learner=learner,
        demonstrations=demonstrations,
        learner_parameters=FAST[learner],
        publish_every_updates=10,
    )
    return Training(config, published), published


def feed(training: Training, records: list[Any]) -> None:
    for record in records:
        training.handle(record)
        while training.phase == "cloning":
            training.work()


def rows_of(training: Training, name: str) -> int:
    """Steps of episode ``name`` that a batch may hold."""
    learner: Any = training.learner
    if training.config.learner == "hil-serl":
        key = learner.replay._keys.get(name, -1)
        return len(learner.replay.online.of_episode(key)) + len(learner.replay.demonstrations.of_episode(key))
    stored = learner._episodes.get(name)
    return 0 if stored is None or (stored.labels is not None and stored.labels.excluded) else len(stored.actions)


def finite(training: Training) -> bool:
    learner: Any = training.learner
    return all(bool(tensor.isfinite().all()) for tensor in learner.state()["tensors"].values() if tensor.is_floating_point())


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("observation", [0.0, math.nan, 0.0], "step 3: observation[o1] is nan"),
        ("next_observation", [0.0, 0.0, math.inf], "step 3: next_observation[o2] is inf"),
        ("action", [-math.inf, 0.0], "step 3: action[a0] is -inf"),
        ("action", [0.0, 1e300], "step 3: action[a1] is 1e+300"),
        ("reward", math.nan, "step 3: reward is nan"),
        ("observation", [0.0], "step 3: observation has 1 numbers instead of 3"),
        ("observation", [0.0, 1e30, 0.0], "step 3: observation[o1] is 1e+30"),
        ("next_observation", [0.0, 0.0, -2e6], "step 3: next_observation[o2] is -2000000.0"),
    ],
)
def test_bad_numbers_leave_their_episode_out_and_say_where(
    learner: str, field: str, value: Any, said: str, make_script: Callable[..., Any]
) -> None:
    training, _ = make_training(learner)
    script, rng = make_script(), np.random.default_rng(3)
    feed(training, [*demonstration(script, rng), *episode(script, rng)])
    bad = episode(script, rng)
    bad[4] = msgspec.structs.replace(bad[4], **{field: value})
    feed(training, bad)
    assert training.finished_train_step == 31, "the bridge does not wait for what is left out"
    assert training.status().text.endswith(f"1 episode is left out: e002: {said}")
    assert (rows_of(training, "e001") > 0, rows_of(training, "e002")) == (True, 0)
    feed(training, episode(script, rng))
    assert rows_of(training, "e003") > 0
    assert training.phase == "training"
    assert finite(training)


@pytest.mark.parametrize("learner", LEARNERS)
def test_bad_numbers_in_a_demonstration(learner: str, make_script: Callable[..., Any]) -> None:
    training, published = make_training(learner)
    script, rng = make_script(), np.random.default_rng(3)
    bad = demonstration(script, rng)
    bad[5] = msgspec.structs.replace(bad[5], observation=[math.nan] * 3)
    feed(training, bad)
    assert (training.phase, published.made) == ("waiting", [])
    assert "e000: step 4: observation[o0] is nan" in training.status().text
    feed(training, demonstration(script, rng))
    assert [one.version for one in published.made] == [1]
    assert finite(training)


@pytest.mark.parametrize("learner", LEARNERS)
def test_another_action_space_is_left_out_and_nothing_of_it_published(learner: str, make_script: Callable[..., Any]) -> None:
    training, published = make_training(learner)
    script, other, rng = make_script(), make_script(make_spec(arm=3)), np.random.default_rng(3)
    feed(training, [*demonstration(script, rng), *episode(script, rng)])
    versions = len(published.made)
    other.rec_seq, other.number = script.rec_seq, script.number
    feed(training, [other.start(EpisodeKind.DEMONSTRATION), *(other.step(ControlMode.HUMAN) for _ in range(5)), other.end()])
    assert "e002: its actions are (a0, a1, a2), the learner's (a0, a1)" in training.status().text
    assert (len(published.made), training.phase, rows_of(training, "e002")) == (versions, "training", 0)


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize(
    ("action", "robot", "said"),
    [
        ({"scale": [0.1, 0.1]}, {}, "its action scale is (0.1, 0.1), the learner's (0.01, 0.01)"),
        ({"units": ["rad", "rad"]}, {}, "its action units are (rad, rad), the learner's (m, m)"),
        ({"kind": "joint_delta"}, {}, "its action kind is joint_delta, the learner's ee_delta"),
        ({"frame": "tool"}, {}, "its action frame is tool, the learner's base"),
        ({"groups": [ActionGroup(name="arm", start=0, stop=1)]}, {}, "its action groups are (arm 0:1), the learner's (arm 0:2)"),
        ({"gripper": "discrete"}, {}, "its gripper is discrete, the learner's continuous"),
        ({}, {"control_hz": 5.0}, "its control_hz is 5, the learner's 20"),
    ],
)
def test_the_same_names_that_mean_something_else_are_left_out(
    learner: str, action: dict[str, Any], robot: dict[str, Any], said: str, make_script: Callable[..., Any]
) -> None:
    """A demonstration of another robot, and the learner's own method, which guards itself."""
    training, _ = make_training(learner)
    spec, rng = make_spec(), np.random.default_rng(3)
    script = make_script(spec)
    other = make_script(msgspec.structs.replace(spec, action=msgspec.structs.replace(spec.action, **action), **robot))
    feed(training, [*demonstration(script, rng), *episode(script, rng)])
    other.rec_seq, other.number = script.rec_seq, script.number
    demonstrations = training.need_learner().demonstration_episodes
    feed(training, demonstration(other, rng))
    assert f"e002: {said}" in training.status().text
    assert (rows_of(training, "e002"), training.need_learner().demonstration_episodes) == (0, demonstrations)
    with pytest.raises(ValueError, match=re.escape(said)):
        training.need_learner().begin_episode(other.start())


@pytest.mark.parametrize("learner", LEARNERS)
def test_what_an_import_does_not_know_is_not_held_against_it(learner: str, make_script: Callable[..., Any]) -> None:
    """Units, groups and a gripper that is none; a scale that went through 32 bits."""
    training, _ = make_training(learner)
    spec, rng = make_spec(), np.random.default_rng(3)
    script = make_script(spec)
    neutral = {
        "units": ["", ""],
        "groups": [ActionGroup(name="all", start=0, stop=2)],
        "gripper": "continuous",
        "scale": [float(np.float32(0.01))] * 2,
    }
    imported = msgspec.structs.replace(spec, action=msgspec.structs.replace(spec.action, **neutral))
    other = make_script(imported)
    feed(training, [*demonstration(script, rng), *episode(script, rng)])
    other.rec_seq, other.number = script.rec_seq, script.number
    feed(training, demonstration(other, rng))
    assert training.quarantine.reasons == {}
    assert rows_of(training, "e002") == 12
    script.number = other.number
    feed(training, episode(script, rng))
    assert rows_of(training, "e003") > 0


@pytest.mark.parametrize("learner", LEARNERS)
def test_without_an_outcome_it_waits_for_one(learner: str, make_script: Callable[..., Any]) -> None:
    training, _ = make_training(learner)
    script, rng = make_script(), np.random.default_rng(3)
    feed(training, demonstration(script, rng))
    unknown = episode(script, rng)
    feed(training, [*unknown[:-1], msgspec.structs.replace(unknown[-1], outcome=Outcome.UNKNOWN)])
    assert rows_of(training, "e001") == 0
    assert "1 episode is left out: e001: no outcome" in training.status().text
    for outcome, counts in ((Outcome.SUCCESS, True), (Outcome.UNKNOWN, False), (Outcome.FAILURE, True)):
        feed(training, [_change(script, "e001", outcome)])
        assert (rows_of(training, "e001") > 0) == counts, outcome
        assert ("left out" in training.status().text) != counts


@pytest.mark.parametrize("learner", LEARNERS)
def test_an_episode_that_was_cut_off_has_no_outcome(learner: str, make_script: Callable[..., Any]) -> None:
    """The bridge was killed in mid-episode; the next session begins."""
    training, _ = make_training(learner)
    script, rng = make_script(), np.random.default_rng(3)
    feed(training, [*demonstration(script, rng), *episode(script, rng)[:-1]])
    assert rows_of(training, "e001") > 0
    again = make_script(session="session-b")
    again.number = 1
    feed(training, episode(again, rng))
    assert (rows_of(training, "e001"), rows_of(training, "e002") > 0) == (0, True)
    assert "e001: no outcome" in training.status().text


@pytest.mark.parametrize("learner", LEARNERS)
def test_demonstrations_that_all_failed_are_said_and_others_waited_for(learner: str, make_script: Callable[..., Any]) -> None:
    """One class alone: there is nothing to imitate. It used to end the learner, again at every start."""
    training, published = make_training(learner, demonstrations=2)
    script, rng = make_script(), np.random.default_rng(3)
    for _ in range(2):
        records = demonstration(script, rng)
        feed(training, [*records[:-1], msgspec.structs.replace(records[-1], outcome=Outcome.FAILURE)])
    assert (training.phase, published.made) == ("waiting", [])
    assert training.status().text == "Waiting for demonstrations: 0 of 2 (failed, not counted: 2)"
    feed(training, demonstration(script, rng))
    assert (training.phase, training.status().demonstrations) == ("waiting", 1)
    feed(training, demonstration(script, rng))
    assert (training.phase, len(published.made), training.status().demonstrations) == ("training", 1, 2)
    assert published.made[0].data["demonstrations"] == 2
    assert "failed" not in training.status().text


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_demonstration_that_did_not_fail_after_all_counts(learner: str, make_script: Callable[..., Any]) -> None:
    training, published = make_training(learner, demonstrations=2)
    script, rng = make_script(), np.random.default_rng(3)
    records = demonstration(script, rng)
    feed(training, [*demonstration(script, rng), *records[:-1], msgspec.structs.replace(records[-1], outcome=Outcome.FAILURE)])
    assert training.status().demonstrations == 1

    def change(outcome: Outcome) -> OutcomeChange:
        fields = {"previous": Outcome.FAILURE, "event_step": 11, "author": "op-01", "wall_ns": 0}
        return OutcomeChange(**script._next(), episode_id="e000", outcome=outcome, **fields)

    feed(training, [change(Outcome.SUCCESS)])
    assert (training.phase, len(published.made), training.status().demonstrations) == ("training", 1, 2)
    feed(training, [change(Outcome.FAILURE)])
    assert training.status().demonstrations == 1


@pytest.mark.parametrize("learner", LEARNERS)
def test_too_few_demonstrations_are_waited_for(learner: str, make_script: Callable[..., Any]) -> None:
    training, published = make_training(learner, demonstrations=3)
    script, rng = make_script(), np.random.default_rng(3)
    feed(training, [*demonstration(script, rng), *episode(script, rng)])
    assert (training.phase, published.made) == ("waiting", [])
    assert training.status().text == "Waiting for demonstrations: 1 of 3"


@pytest.mark.parametrize("learner", LEARNERS)
def test_with_everything_left_out_it_stops_updating_and_says_so(learner: str, make_script: Callable[..., Any]) -> None:
    training, _ = make_training(learner)
    script, rng = make_script(), np.random.default_rng(3)
    feed(training, [*demonstration(script, rng), *episode(script, rng)])
    updates = training.status().updates
    made: Any = training.learner
    for name in ("e000", "e001"):
        made.exclude(name)
    assert made.updates_due() == 0
    assert not training.work()
    assert training.status().updates == updates
    assert "nothing is left to learn from" in training.status().text


def _change(script: Any, name: str, outcome: Outcome) -> OutcomeChange:
    script.rec_seq += 1
    fields: dict[str, Any] = {"previous": Outcome.UNKNOWN, "author": "op-01", "event_step": 10, "wall_ns": 0}
    return OutcomeChange(session=script.session, rec_seq=script.rec_seq, episode_id=name, outcome=outcome, **fields)
