"""One actor drives at a time, and within an episode one policy under a version's number."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from takeover.data.schema import EpisodeKind, HoldReason, Mode, Outcome, OutcomeSource, PolicyAction
from takeover.robot_bridge.answer_source import ACTOR_LIFE_NS, MAX_HASHES
from takeover.robot_bridge.modes import ModeEvent
from takeover.robot_bridge.protocol import Push

from .by_hand import ByHand, by_hand

TOLD = "answers; another actor may when that one is silent for 2 s, in an episode when the robot is held too"


class TwoDesks:
    """What they answer to the newest observation, over one socket: the key that it comes with is set."""

    def __init__(self, hand: ByHand, push: Push[PolicyAction]) -> None:
        self.hand, self._push = hand, push

    def answer(self, key: str = "a", sha256: str = "aaaa", version: int = 1, session: str = "") -> str:
        """What was refused, "" when it counts."""
        hand, io = self.hand, self.hand.io
        io._policy.user = key
        seq, before, arrived = hand.control.seq, io.refused_commands, io.inbox.chunk
        made = PolicyAction(
            session=session or io.session,
            from_seq=seq,
            actions=[[0.0] * 4] * 20,
            valid_until_seq=seq + 19,
            policy_version=version,
            policy_sha256=sha256,
        )
        assert self._push.send(made, 2.0)
        assert hand.pump_until(lambda: io.inbox.chunk is not arrived or io.refused_commands > before)
        return io.refusals.last if io.refused_commands > before else ""

    def silent(self) -> None:
        """The newest answer that counted came long ago."""
        chunk = self.hand.io.inbox.chunk
        assert chunk is not None
        self.hand.io.inbox.chunk = replace(chunk, arrival_ns=time.monotonic_ns() - ACTOR_LIFE_NS - 1)


@pytest.fixture
def desks(tmp_path: Path) -> Iterator[TwoDesks]:
    with by_hand(tmp_path) as hand, Push[PolicyAction](hand.bridge._endpoints, "policy_action", PolicyAction) as push:
        yield TwoDesks(hand, push)


def begin(desks: TwoDesks) -> None:
    """An episode that the policy drives."""
    control = desks.hand.control
    control.book.start_block(EpisodeKind.POLICY, 0)
    control.begin_reset()
    control.reset_now()
    assert control.driven()[0]
    assert desks.hand.mode is Mode.POLICY


def end(hand: ByHand) -> None:
    """No episode runs."""
    control = hand.control
    control.book.end(Outcome.ABORTED, OutcomeSource.NEXT)
    control.book.end_block()
    control.change(ModeEvent.STAND_BY)
    assert not control.driven()[0]


def test_another_actor_has_to_wait_until_the_first_is_silent(desks: TwoDesks) -> None:
    assert desks.answer("a") == ""
    assert TOLD in desks.answer("b", "bbbb", version=2)
    assert desks.answer("a") == "", "the first goes on"
    desks.silent()
    assert "another session" in desks.answer("b", session="another"), "which counts for nothing"
    assert desks.answer("b", "bbbb") == "", "no episode runs: another policy too"
    assert TOLD in desks.answer("a"), "and now that one has to wait"


def test_within_an_episode_the_robot_must_be_held_too(desks: TwoDesks) -> None:
    assert desks.answer("a") == ""
    begin(desks)
    desks.silent()
    assert TOLD in desks.answer("b"), "somebody else does not go on in its place"
    desks.hand.control.change(ModeEvent.HOLD, HoldReason.POLICY_LATE)
    assert desks.hand.mode is Mode.HOLD
    assert desks.answer("b") == "", "the same policy, says its hash"
    assert TOLD in desks.answer("a"), "it lives, and the robot being held does not change that"


def test_an_episode_says_when_another_actor_answers(desks: TwoDesks) -> None:
    """Its start names one policy, and another desk numbers its versions for itself."""
    hand = desks.hand
    assert desks.answer("a", version=3) == ""
    begin(desks)
    assert desks.answer("a", "bbbb", version=4) == "", "the same actor with a newer policy"
    assert hand.events("actor") == [], "the first one, and what its start and its steps say"
    desks.silent()
    hand.control.change(ModeEvent.HOLD, HoldReason.POLICY_LATE)
    assert desks.answer("b", "cccc", version=7) == ""
    assert desks.answer("b", "cccc", version=7) == ""
    (event,) = hand.events("actor")
    episode, _ = hand.control.driven()
    assert (event.source, event.text, event.value) == ("bridge", "actor: version 7 cccc", 7.0)
    assert (event.episode_id, event.seq) == (episode, hand.control.seq)
    end(hand)
    desks.silent()
    assert desks.answer("a", "dddd") == ""
    assert [one.episode_id for one in hand.events("actor")] == [episode, ""], "between episodes too"


def test_a_version_is_one_policy_within_an_episode(desks: TwoDesks) -> None:
    """On one computer nothing else tells two actors apart."""
    assert desks.answer(sha256="aaaa") == ""
    assert desks.answer(sha256="bbbb") == "", "between episodes another one may be tried"
    assert desks.answer(sha256="aaaa") == ""
    begin(desks)
    told = desks.answer(sha256="bbbb")
    assert "policy_sha256 of the answer 'bbbb': another policy than version 1 of this episode, whose hash is 'aaaa'" in told
    assert desks.answer(sha256="cccc", version=2) == "", "a newer version has another hash"
    assert "whose hash is 'cccc'" in desks.answer(sha256="aaaa", version=2)
    assert desks.answer(sha256="aaaa") == "", "and the older one may still answer"
    end(desks.hand)
    assert desks.answer(sha256="bbbb") == ""
    begin(desks)
    assert desks.answer(sha256="bbbb") == "", "the next episode's record names that one"
    assert "whose hash is 'bbbb'" in desks.answer(sha256="aaaa")
    assert desks.answer(sha256="dddd", version=2) == "", "of the episode before nothing counts"


def test_not_endlessly_many_hashes_are_kept(desks: TwoDesks) -> None:
    assert desks.answer() == ""
    for version in range(2, MAX_HASHES + 20):
        assert desks.answer(version=version) == ""
    assert len(desks.hand.io.actor._hashes) == MAX_HASHES
