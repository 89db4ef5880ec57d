"""What may not be done with episodes, and how far a key or a learned reward reaches back: the book alone, then the loop by hand."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from takeover.data.schema import (
    AnyRecord,
    ControlMode,
    EpisodeEnd,
    EpisodeKind,
    EpisodeStart,
    Finish,
    LearnerStatus,
    Mode,
    Next,
    Outcome,
    OutcomeChange,
    OutcomeSource,
    PolicyAction,
    RunConfig,
    SafetyBit,
    SetOutcome,
    Source,
    Start,
    UndoOutcome,
)
from takeover.robot_bridge import chunks
from takeover.robot_bridge.ended_episodes import REMEMBERED_EPISODES
from takeover.robot_bridge.episode import EpisodeError, PendingStep
from takeover.robot_bridge.episode_book import EpisodeBook
from takeover.robot_bridge.probe_schedule import ProbeSchedule
from takeover.robot_bridge.protocol import Codec
from takeover.robot_bridge.record_log import RecordLog
from takeover.robot_bridge.robots.base import Evaluation, Reading

from .by_hand import SECOND, ByHand, by_hand
from .specs import SPEC

READING = Reading(1, np.zeros(SPEC.observation.size), np.zeros(3), np.zeros(3), 0.0, 0.0, np.zeros(3), np.zeros(0))


def pending(seq: int) -> PendingStep:
    """A step that the policy drove."""
    return PendingStep(
        seq=seq,
        reading=READING,
        mode=Mode.POLICY,
        control_mode=ControlMode.POLICY,
        hold_reason="",
        held=False,
        source=(Source.POLICY,),
        policy=None,
        policy_action=None,
        human=None,
        human_action=None,
        asked=np.zeros(SPEC.action.size),
        action=np.zeros(SPEC.action.size),
        safety_bits=SafetyBit(0),
        t_decision_ns=0,
        t_applied_ns=0,
        wall_ns=0,
        picture_age_ms=-1.0,
        sim_state=b"",
    )


class Kept:
    """A book and what it has written, decoded."""

    def __init__(self, **config: Any) -> None:
        self.codec: Codec[AnyRecord] = Codec(AnyRecord)
        self.log = RecordLog("s", self.codec.encode, lambda: None)
        self.book = EpisodeBook(RunConfig(session_id="s", workspace="", sockets="", **config), SPEC, self.log, "test")
        self._records: list[AnyRecord] = []

    def of(self, kind: type) -> list[Any]:
        while frames := self.log.unsent():
            self._records += [self.codec.decode(frame) for frame in frames]
        return [record for record in self._records if isinstance(record, kind)]

    def episode(
        self,
        outcome: Outcome,
        source: OutcomeSource,
        steps: int = 20,
        *,
        discarded: bool = False,
        seqs: Sequence[int] = (),
        held_steps: int = 0,
    ) -> EpisodeEnd:
        """Made of ``steps`` steps, or of those ``seqs``, ended ``held_steps`` after the last; its record."""
        if self.book.block is None:
            self.book.start_block(EpisodeKind.POLICY, 0)
        self.book.prepare()
        self.book.open(1, "")
        assert self.book.episode is not None
        for seq in seqs or range(steps):
            self.book.record(pending(seq), READING, 0.0, "none", terminated=False, truncated=False)
        self.book.episode.ended_by = "op-02" if source is OutcomeSource.OPERATOR else ""
        self.book.end(outcome, source, discarded=discarded, held_steps=held_steps)
        end: EpisodeEnd = self.of(EpisodeEnd)[-1]
        return end

    def corrected(self, outcome: Outcome, seconds_later: float = 0.0) -> int:
        """Event step of the last episode after it was given ``outcome`` so long after its end."""
        last = self.book.ended.last
        assert last is not None
        last.ended_ns -= int(seconds_later * SECOND)
        self.book.ended.relabel(outcome, "op-02")
        step: int = self.of(OutcomeChange)[-1].event_step
        return step


# --- blocks and episodes ---


def test_blocks_that_cannot_be() -> None:
    book = Kept().book
    with pytest.raises(EpisodeError, match="manual reset is not started"):
        book.start_block(EpisodeKind.MANUAL_RESET, 1)
    with pytest.raises(EpisodeError, match="-1 episodes; ask for 0"):
        book.start_block(EpisodeKind.POLICY, -1)
    assert book.block is None
    book.start_block(EpisodeKind.POLICY, 0)
    with pytest.raises(EpisodeError, match="a block of policy episodes is running"):
        book.start_block(EpisodeKind.POLICY, 1)


def test_without_a_block_or_an_episode_nothing_is_recorded() -> None:
    kept = Kept()
    with pytest.raises(EpisodeError, match="no block of episodes is running"):
        kept.book.prepare()
    for act in (lambda: kept.book.open(1, ""), lambda: kept.book.end(Outcome.SUCCESS, OutcomeSource.TASK)):
        with pytest.raises(EpisodeError, match="no episode is running"):
            act()
    assert kept.of(EpisodeStart) == kept.of(EpisodeEnd) == []


def test_an_episode_that_was_never_opened_leaves_no_record() -> None:
    kept = Kept()
    kept.book.start_block(EpisodeKind.POLICY, 0)
    kept.book.prepare()
    kept.book.end(Outcome.ABORTED, OutcomeSource.NEXT)
    assert kept.of(EpisodeEnd) == []
    prepared = kept.book.prepare()
    kept.book.forget_prepared()
    again = kept.book.prepare()
    assert (again.number, again.start_seed) == (prepared.number, prepared.start_seed)
    kept.book.open(1, "")
    kept.book.forget_prepared()
    assert kept.book.episode is again, "what is recorded is not forgotten"


def test_a_block_counts_what_is_not_discarded_and_its_failures() -> None:
    kept = Kept()
    kept.episode(Outcome.SUCCESS, OutcomeSource.TASK)
    block = kept.book.block
    assert block is not None
    assert (block.done, block.failures) == (1, 0)
    kept.episode(Outcome.FAILURE, OutcomeSource.LIMIT)
    assert (block.done, block.failures) == (2, 1)
    kept.episode(Outcome.ABORTED, OutcomeSource.NEXT, discarded=True)
    assert (block.done, block.failures) == (2, 1)


def test_only_the_last_episode_of_the_running_block_is_discarded_and_once() -> None:
    kept = Kept()
    book = kept.book
    with pytest.raises(EpisodeError, match="no episode of this block"):
        book.discard_last("op-02")
    book.start_block(EpisodeKind.POLICY, 0)
    with pytest.raises(EpisodeError, match="no episode of this block"):
        book.discard_last("op-02")
    kept.episode(Outcome.SUCCESS, OutcomeSource.TASK)
    book.discard_last("op-02")
    assert book.block is not None
    assert (book.block.done, book.block_done) == (0, 0)
    with pytest.raises(EpisodeError, match="no episode of this block"):
        book.discard_last("op-02")
    kept.episode(Outcome.SUCCESS, OutcomeSource.TASK)
    book.end_block()
    with pytest.raises(EpisodeError, match="no episode of this block"):
        book.discard_last("op-02")
    book.start_block(EpisodeKind.POLICY, 0)
    with pytest.raises(EpisodeError, match="no episode of this block"):
        book.discard_last("op-02")
    assert len(kept.of(OutcomeChange)) == 1


def test_outcomes_are_corrected_among_the_last_episodes_only() -> None:
    kept = Kept()
    ended = kept.book.ended
    with pytest.raises(EpisodeError, match="no episode has ended yet"):
        ended.relabel(Outcome.SUCCESS, "op-02")
    with pytest.raises(EpisodeError, match="left to undo"):
        ended.undo("op-02")
    first = kept.episode(Outcome.FAILURE, OutcomeSource.LIMIT).episode_id
    ended.relabel(Outcome.SUCCESS, "op-02", first)
    ended.undo("op-02")
    assert [(change.previous, change.outcome) for change in kept.of(OutcomeChange)] == [("failure", "success"), ("success", "failure")]
    with pytest.raises(EpisodeError, match="left to undo"):
        ended.undo("op-02")
    for _ in range(REMEMBERED_EPISODES):
        kept.episode(Outcome.FAILURE, OutcomeSource.LIMIT)
    with pytest.raises(EpisodeError, match=f"episode {first} is not among the last"):
        ended.relabel(Outcome.SUCCESS, "op-02", first)


@pytest.mark.parametrize("source", [OutcomeSource.LIMIT, OutcomeSource.CLASSIFIER, OutcomeSource.TASK])
def test_what_is_taken_back_leaves_what_was_recorded_by_what_recorded_it(source: OutcomeSource) -> None:
    kept = Kept(reward="keys", key_delay_s=0.5)
    ended = kept.book.ended
    recorded = kept.episode(Outcome.FAILURE, source).event_step
    ended.relabel(Outcome.SUCCESS, "op-02")
    ended.relabel(Outcome.FAILURE, "lab-01")
    ended.undo("lab-01")
    assert kept.of(OutcomeChange)[-1].source is OutcomeSource.OPERATOR, "the success of the other one stands"
    ended.undo("op-02")
    newest = kept.of(OutcomeChange)[-1]
    assert (newest.outcome, newest.event_step, newest.source) == (Outcome.FAILURE, recorded, source)
    assert ended.last is not None
    assert (ended.last.outcome, ended.last.event_step, ended.last.source) == (Outcome.FAILURE, recorded, source)


def test_what_was_thrown_away_as_it_ended_is_so_by_a_person_once_more() -> None:
    kept = Kept()
    kept.episode(Outcome.ABORTED, OutcomeSource.NEXT, discarded=True)
    kept.book.ended.relabel(Outcome.SUCCESS, "op-02")
    kept.book.ended.undo("op-02")
    assert kept.of(OutcomeChange)[-1].source is OutcomeSource.OPERATOR


def test_who_undoes_takes_back_their_own_outcome() -> None:
    kept = Kept(reward="keys")
    ended = kept.book.ended
    first = kept.episode(Outcome.SUCCESS, OutcomeSource.OPERATOR).episode_id
    second = kept.episode(Outcome.SUCCESS, OutcomeSource.OPERATOR).episode_id
    ended.relabel(Outcome.FAILURE, "lab-01", first)
    ended.undo("op-02")
    with pytest.raises(EpisodeError, match=f"lab-01 has made episode {first} failure since"):
        ended.undo("op-02")
    with pytest.raises(EpisodeError, match="no outcome given by lab-02 is left to undo"):
        ended.undo("lab-02")
    ended.undo("lab-01")
    ended.undo("op-02")
    changes = [(change.episode_id, change.previous, change.outcome, change.author) for change in kept.of(OutcomeChange)]
    assert changes == [
        (first, "success", "failure", "lab-01"),
        (second, "success", "unknown", "op-02"),
        (first, "failure", "success", "lab-01"),
        (first, "success", "unknown", "op-02"),
    ]


def test_what_is_no_longer_thrown_away_counts_in_its_block_again() -> None:
    kept = Kept(reward="keys")
    book = kept.book
    kept.episode(Outcome.SUCCESS, OutcomeSource.OPERATOR)
    block = book.block
    assert block is not None
    for take_back in (book.ended.undo, lambda who: book.ended.relabel(Outcome.SUCCESS, who)):
        for _ in range(3):
            book.discard_last("op-02")
            assert (block.done, book.block_done) == (0, 0)
            take_back("op-02")
            assert (block.done, book.block_done) == (1, 1)
    book.ended.undo("op-02")
    assert kept.of(OutcomeChange)[-1].outcome is Outcome.ABORTED, "the correction is taken back, thrown away it stays"
    assert book.block_done == 0


def test_a_discard_is_taken_back_in_its_own_block_only() -> None:
    kept = Kept(reward="keys")
    book = kept.book
    kept.episode(Outcome.SUCCESS, OutcomeSource.OPERATOR)
    book.discard_last("op-02")
    book.end_block()
    book.start_block(EpisodeKind.POLICY, 0)
    book.ended.undo("op-02")
    assert book.block_done == 0


def test_an_episode_that_was_thrown_away_as_it_ended_stays_so() -> None:
    """Its record says it, and no learner takes it whatever it is called later."""
    kept = Kept()
    kept.episode(Outcome.ABORTED, OutcomeSource.NEXT, discarded=True)
    kept.book.ended.relabel(Outcome.SUCCESS, "op-02")
    assert kept.book.block_done == 0
    with pytest.raises(EpisodeError, match="no episode of this block"):
        kept.book.discard_last("op-02")


def test_a_key_that_is_pressed_twice_is_undone_once() -> None:
    kept = Kept(reward="keys", key_delay_s=0.5)
    ended = kept.book.ended
    kept.episode(Outcome.SUCCESS, OutcomeSource.OPERATOR)
    ended.relabel(Outcome.SUCCESS, "op-02")
    assert kept.of(OutcomeChange) == []
    ended.undo("op-02")
    assert kept.of(OutcomeChange)[-1].outcome is Outcome.UNKNOWN
    ended.relabel(Outcome.SUCCESS, "op-02")
    ended.relabel(Outcome.SUCCESS, "lab-01")
    assert [change.author for change in kept.of(OutcomeChange)][-2:] == ["op-02", "lab-01"], "somebody else says so too"
    ended.relabel(Outcome.FAILURE, "lab-01")
    assert kept.of(OutcomeChange)[-1].outcome is Outcome.FAILURE, "another outcome is none pressed twice"


def test_a_block_whose_last_episode_counts_again_is_done(tmp_path: Path) -> None:
    """Two demonstrations were asked for: a third is not made because one of them was thrown away for a while."""
    with by_hand(tmp_path) as hand:
        book = hand.control.book
        hand.control.reset_pause_s = 0.0
        book.start_block(EpisodeKind.DEMONSTRATION, 2)
        hand.control.begin_reset()
        for first in (True, False):
            hand.deadman = False
            hand.tick(4)
            hand.deadman = True
            hand.tick(2)
            assert hand.mode is Mode.TAKEOVER
            assert hand.ask(SetOutcome(sender="console", outcome=Outcome.SUCCESS)) == ""
            hand.deadman = False
            hand.tick(4)
            assert book.block_done == 1
            if first:
                assert hand.ask(Next(sender="console", discard=True)) == ""
        for _ in range(2):  # the second one's outcome, then the discard of the first
            assert book.block is not None
            assert hand.ask(UndoOutcome(sender="console")) == ""
        assert book.block_done == 2
        assert book.block is None
        assert hand.mode is Mode.READY
        hand.deadman = True
        hand.tick(3)
        assert hand.mode is Mode.READY, "no press makes another"


def test_as_many_outcomes_can_be_taken_back_as_episodes_are_remembered() -> None:
    kept = Kept(reward="keys")
    for _ in range(REMEMBERED_EPISODES + 3):
        kept.episode(Outcome.SUCCESS, OutcomeSource.OPERATOR)
    for _ in range(REMEMBERED_EPISODES):
        kept.book.ended.undo("op-02")
    with pytest.raises(EpisodeError, match="left to undo"):
        kept.book.ended.undo("op-02")


# --- how far back ---


@pytest.mark.parametrize(
    ("source", "steps", "event_step"),
    [
        (OutcomeSource.TASK, 20, 19),
        (OutcomeSource.LIMIT, 20, 19),
        (OutcomeSource.CLASSIFIER, 20, 18),
        (OutcomeSource.OPERATOR, 20, 9),
        (OutcomeSource.OPERATOR, 4, 0),
        (OutcomeSource.CLASSIFIER, 1, 0),
    ],
)
def test_an_outcome_belongs_to_the_step_that_its_source_has_seen(source: OutcomeSource, steps: int, event_step: int) -> None:
    assert Kept(reward="keys", key_delay_s=0.5).episode(Outcome.SUCCESS, source, steps).event_step == event_step


@pytest.mark.parametrize(
    ("seqs", "held_steps", "event_step"),
    [
        (range(20), 4, 13),
        (range(20), 10, 19),
        (range(20), 600, 19),
        ([*range(10), *range(16, 26)], 0, 9),  # held for six steps in between
        ([*range(15), *range(20, 25)], 0, 14),
        ([*range(15), *range(20, 25)], 6, 15),
    ],
)
def test_a_key_is_dated_back_by_time_and_nothing_is_done_in_a_hold(seqs: Sequence[int], held_steps: int, event_step: int) -> None:
    kept = Kept(reward="keys", key_delay_s=0.5)
    assert kept.episode(Outcome.SUCCESS, OutcomeSource.OPERATOR, seqs=seqs, held_steps=held_steps).event_step == event_step


@pytest.mark.parametrize(("held_steps", "steps_back"), [(0, 6), (4, 2), (30, 0)])
def test_a_person_who_lets_go_and_then_presses_success_loses_no_steps(tmp_path: Path, held_steps: int, steps_back: int) -> None:
    with by_hand(tmp_path, reward="keys", key_delay_s=0.3) as hand:
        hand.run(EpisodeKind.DEMONSTRATION)
        hand.deadman = True
        hand.tick(16)
        hand.deadman = False
        hand.tick(held_steps)
        assert hand.ask(SetOutcome(sender="console", outcome=Outcome.SUCCESS)) == ""
        hand.tick(1)
        (end,) = [record for record in hand.records if isinstance(record, EpisodeEnd)]
        assert end.steps > 8
        assert end.steps - 1 - end.event_step == steps_back


@pytest.mark.parametrize(("seconds_later", "event_step"), [(0.0, 9), (0.25, 14), (0.5, 19), (60.0, 19)])
def test_a_key_after_the_time_limit_is_dated_back_from_when_it_came_and_never_beyond_the_end(seconds_later: float, event_step: int) -> None:
    kept = Kept(reward="keys", key_delay_s=0.5)
    kept.episode(Outcome.FAILURE, OutcomeSource.LIMIT)
    assert kept.corrected(Outcome.SUCCESS, seconds_later) == event_step


def test_a_correction_moves_the_event_of_no_key_and_of_no_task() -> None:
    kept = Kept(reward="keys", key_delay_s=0.5)
    kept.episode(Outcome.SUCCESS, OutcomeSource.OPERATOR)
    assert kept.corrected(Outcome.FAILURE, 60.0) == 9, "the key was dated back when it was pressed"
    kept = Kept(reward="task", key_delay_s=0.5)
    kept.episode(Outcome.FAILURE, OutcomeSource.LIMIT)
    assert kept.corrected(Outcome.SUCCESS) == 19


# --- probes ---


@pytest.mark.parametrize("share", [float("nan"), float("inf"), 1.001])
def test_a_share_is_a_number_from_0_to_1(share: float) -> None:
    with pytest.raises(ValueError, match="probe share"):
        ProbeSchedule(share=share)


def test_a_probe_keeps_the_version_that_it_began_with() -> None:
    kept = Kept(probe_share=1.0)
    kept.book.start_block(EpisodeKind.POLICY, 0)
    kept.book.prepare()
    assert kept.book.probe_version == 0
    kept.book.open(5, "")
    assert kept.book.probe_version == 5
    kept = Kept(probe_share=1.0, probe_versions=[7])
    kept.book.start_block(EpisodeKind.POLICY, 0)
    kept.book.prepare()
    kept.book.open(5, "")
    assert kept.book.probe_version == 7, "the version that is due, whichever acts"


def test_the_actor_is_asked_for_the_version_that_is_due(tmp_path: Path) -> None:
    with by_hand(tmp_path, probe_share=1.0, probe_versions=[7]) as hand:
        hand.run()
        message = hand.control.message
        assert message is not None
        assert message.required_version == 7


# --- learned rewards ---


def answers(hand: ByHand, steps_ago: int, *, success: bool) -> None:
    """The policy's answer to the coming step, or to one so many steps before it."""
    seq = hand.control.seq + 1 - steps_ago
    made = PolicyAction(
        session=hand.io.session, from_seq=seq, actions=[[0.0] * 4] * 20, valid_until_seq=seq + 19, policy_version=1, success=success
    )
    hand.answers = None
    hand.io.inbox.chunk = chunks.received(made, 4, time.monotonic_ns())


def ends(hand: ByHand) -> list[OutcomeSource]:
    return [record.outcome_source for record in hand.records if isinstance(record, EpisodeEnd)]


@pytest.fixture
def judged(tmp_path: Path) -> Iterator[ByHand]:
    with by_hand(tmp_path, reward="classifier") as hand:
        hand.run()
        hand.tick(3)
        yield hand


def test_a_learned_reward_ends_the_episode_of_the_very_step_it_saw(judged: ByHand) -> None:
    answers(judged, 0, success=False)
    judged.tick(3)
    answers(judged, 1, success=True)
    judged.tick(3)
    assert ends(judged) == [], "it speaks of a state that has passed"
    assert judged.mode is Mode.POLICY
    answers(judged, 0, success=True)
    judged.tick(2)
    assert ends(judged) == [OutcomeSource.CLASSIFIER]


@pytest.mark.parametrize("reward", ["task", "keys"])
def test_it_ends_nothing_elsewhere_and_with_keys_the_task_is_silent(tmp_path: Path, reward: str) -> None:
    with by_hand(tmp_path, reward=reward) as hand:
        hand.run()
        answers(hand, 0, success=True)
        hand.tick(3)
        assert ends(hand) == []
        hand.robot.evaluate = lambda: Evaluation(1.0, True, True)
        hand.tick(2)
        assert ends(hand) == ([OutcomeSource.TASK] if reward == "task" else [])


# --- requests ---


def test_requests_about_episodes_out_of_place_are_refused(tmp_path: Path) -> None:
    with by_hand(tmp_path) as hand:
        assert "no block of episodes" in hand.ask(Finish(sender="console"))
        assert "no episode is running" in hand.ask(Next(sender="console"))
        assert "no episode of this block" in hand.ask(Next(sender="console", discard=True))
        assert "is not started as a block" in hand.ask(Start(sender="console", kind=EpisodeKind.MANUAL_RESET))


def test_lockstep_starts_with_an_answered_version_and_a_scripted_operator(tmp_path: Path) -> None:
    with by_hand(tmp_path) as hand:
        hand.control.lockstep = True
        hand.answers = None
        hand.io.inbox.learner = LearnerStatus(
            learner="l",
            phase="training",
            progress=1.0,
            text="",
            updates=0,
            updates_per_s=0.0,
            demonstrations=0,
            finished_train_step=-1,
            backlog_steps=0,
            newest_version=1,
            versions=[(1, 0)],
            versions_published=1,
        )
        assert "the actor has not answered yet" in hand.ask(Start(sender="console", kind=EpisodeKind.POLICY))
        assert "need the scripted operator" in hand.ask(Start(sender="console", kind=EpisodeKind.DEMONSTRATION))
        hand.control.lockstep = False
        assert hand.control.book.block is None
