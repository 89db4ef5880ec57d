"""A key for the outcome of one episode is never taken for the next: it is for what its sender saw."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from takeover.app.outcome_episode import episode_meant
from takeover.data.schema import (
    PROTOCOL_VERSION,
    ControlRequest,
    EpisodeEnd,
    EpisodeKind,
    Hello,
    Mode,
    Next,
    Outcome,
    OutcomeChange,
    OutcomeSource,
    Role,
    SetOutcome,
    Stop,
)
from takeover.robot_bridge.inbox import PendingRequest, StateShown
from takeover.robot_bridge.io import REMEMBERED_STATES

from .by_hand import ByHand, by_hand

FAILURE = SetOutcome(sender="console", outcome=Outcome.FAILURE)
NEXT = Next(sender="console")
DISCARD = Next(sender="console", discard=True)


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[ByHand]:
    with by_hand(tmp_path) as made:
        made.control.reset_pause_s = 0.0
        yield made


def asked(hand: ByHand, request: ControlRequest, shown: StateShown | None) -> str:
    """What is answered to a request of somebody who saw ``shown``."""
    now = time.monotonic_ns()
    hand.io.inbox.requests.append(PendingRequest(b"x", 1, request, "console", Role.OPERATOR, b"console", 0, now, "", shown))
    hand.tick()
    return hand.errors[-1]


def running(hand: ByHand) -> str:
    episode = hand.control.book.episode
    return episode.id if episode is not None and episode.recorded else ""


def two_episodes(hand: ByHand, kind: EpisodeKind = EpisodeKind.POLICY) -> tuple[str, str]:
    """The ids of one that has ended as a success, and of the next, which runs (or waits for its press)."""
    hand.run(kind)
    if kind is EpisodeKind.DEMONSTRATION:
        press(hand)
    first = running(hand)
    assert first
    assert asked(hand, SetOutcome(sender="console", outcome=Outcome.SUCCESS), StateShown(first, "")) == ""
    hand.deadman = False
    hand.tick(4)
    episode = hand.control.book.episode
    assert episode is not None
    assert episode.id != first
    return first, episode.id


def press(hand: ByHand) -> None:
    hand.deadman = False
    hand.tick(2)
    hand.deadman = True
    hand.tick(2)
    assert hand.mode is Mode.TAKEOVER


def outcomes(hand: ByHand) -> list[tuple[str, Outcome]]:
    """Of the ends and changes on record, in order."""
    return [(one.episode_id, one.outcome) for one in hand.records if isinstance(one, EpisodeEnd | OutcomeChange)]


@pytest.mark.parametrize("seen", ["running", "pause"])
def test_a_key_for_the_episode_before_corrects_that_one(hand: ByHand, seen: str) -> None:
    first, second = two_episodes(hand)
    assert asked(hand, FAILURE, StateShown(first, "") if seen == "running" else StateShown("", first)) == ""
    assert running(hand) == second
    assert outcomes(hand) == [(first, Outcome.SUCCESS), (first, Outcome.FAILURE)]


def test_a_key_that_names_its_episode_needs_nothing_seen(hand: ByHand) -> None:
    first, second = two_episodes(hand)
    for shown in (None, StateShown(second, first)):
        assert asked(hand, SetOutcome(sender="console", outcome=Outcome.FAILURE, episode_id=first), shown) == ""
        assert running(hand) == second
    assert asked(hand, SetOutcome(sender="console", outcome=Outcome.FAILURE, episode_id=second), StateShown("", first)) == ""
    hand.tick(2)
    assert outcomes(hand)[-1] == (second, Outcome.FAILURE)


@pytest.mark.parametrize("known", [True, False])
def test_a_key_for_the_episode_that_runs_ends_it(hand: ByHand, known: bool) -> None:
    first, second = two_episodes(hand)
    assert asked(hand, FAILURE, StateShown(second, first) if known else None) == ""
    hand.tick(2)
    assert outcomes(hand) == [(first, Outcome.SUCCESS), (second, Outcome.FAILURE)]


def test_who_saw_no_episode_meant_none(hand: ByHand) -> None:
    hand.run()
    assert "no episode was in view" in asked(hand, FAILURE, StateShown("", ""))
    assert running(hand)


def test_while_a_demonstration_waits_a_key_is_for_the_one_before(hand: ByHand) -> None:
    first, second = two_episodes(hand, EpisodeKind.DEMONSTRATION)
    assert running(hand) == ""
    assert asked(hand, SetOutcome(sender="console", outcome=Outcome.FAILURE, episode_id=second), None) == ""
    assert outcomes(hand)[-1] == (first, Outcome.FAILURE)


def test_next_ends_no_episode_that_its_sender_had_not_seen(hand: ByHand) -> None:
    first, second = two_episodes(hand)
    for shown in (StateShown(first, ""), StateShown("", first)):
        assert "has begun or ended since" in asked(hand, NEXT, shown)
        assert running(hand) == second
    assert asked(hand, NEXT, StateShown(second, first)) == ""
    hand.tick(2)
    assert outcomes(hand)[-1] == (second, Outcome.ABORTED)


def test_next_for_an_episode_that_has_ended_makes_no_other_start(hand: ByHand) -> None:
    """Where a reset is made by hand the robot would move before it is done."""
    first, second = two_episodes(hand, EpisodeKind.DEMONSTRATION)
    assert "has begun or ended since" in asked(hand, NEXT, StateShown(first, ""))
    hand.tick(3)
    episode = hand.control.book.episode
    assert episode is not None
    assert episode.id == second
    assert asked(hand, NEXT, StateShown("", first)) == ""


def test_what_is_thrown_away_is_what_was_seen(hand: ByHand) -> None:
    first, second = two_episodes(hand, EpisodeKind.DEMONSTRATION)
    press(hand)
    assert running(hand) == second
    assert "another episode has ended since" in asked(hand, DISCARD, StateShown("", "long ago"))
    assert asked(hand, DISCARD, StateShown("", first)) == ""
    assert running(hand) == second
    assert outcomes(hand) == [(first, Outcome.SUCCESS), (first, Outcome.ABORTED)]
    assert asked(hand, DISCARD, StateShown(second, first)) == ""
    hand.tick(2)
    assert [(one.episode_id, one.discarded) for one in hand.records if isinstance(one, EpisodeEnd)] == [(first, False), (second, True)]


def test_a_demonstration_that_waits_is_not_shown_as_running(hand: ByHand) -> None:
    first, _ = two_episodes(hand, EpisodeKind.DEMONSTRATION)
    state = hand.bridge._board.compose(7, time.monotonic_ns())
    assert state is not None
    assert state.episode_id
    assert hand.io.states_shown[7] == StateShown("", first)


@pytest.mark.parametrize("ticks", [0, 3])
def test_a_key_at_a_stop_is_not_for_the_episode_before(hand: ByHand, ticks: int) -> None:
    """Until the next step ends it the state says stopped and names the episode. ``ticks``: before the key arrives."""
    hand.io.compose_state = hand.bridge._board.compose
    first, second = two_episodes(hand)
    client = hand.client("console")
    assert hand.answered(client, Hello(protocol=PROTOCOL_VERSION, sender="console", role=Role.OPERATOR, software="test")).error == ""
    assert hand.answered(client, Stop(sender="console")).error == ""
    hand.io.lease.release("console", b"console")
    state = hand.bridge._board.compose(hand.io._state_seq, time.monotonic_ns())
    assert state is not None
    assert (state.mode, state.episode_id, state.last_outcome_episode) == (Mode.STOPPED, second, first)
    hand.io._state_times[state.seq] = time.monotonic_ns()
    hand.tick(ticks)
    client.newest_state_seq = state.seq
    client.send(SetOutcome(sender="console", outcome=Outcome.FAILURE, episode_id=episode_meant(state)))
    assert hand.pump_until(lambda: hand.io.inbox.requests)
    hand.commands = False
    hand.tick(3)
    if ticks:
        assert hand.errors[-1] == ""
        assert outcomes(hand)[1:] == [(second, Outcome.ABORTED), (second, Outcome.FAILURE)]
    else:
        assert hand.errors[-1] == "STOP ends this episode"
        assert outcomes(hand)[1:] == [(second, Outcome.ABORTED)]
    client.close()


def test_a_key_at_a_stop_of_a_waiting_demonstration_is_for_the_one_before(hand: ByHand) -> None:
    first, second = two_episodes(hand, EpisodeKind.DEMONSTRATION)
    hand.io.inbox.stop("console")
    state = hand.bridge._board.compose(hand.io._state_seq, time.monotonic_ns())
    assert state is not None
    assert (state.mode, state.episode_id) == (Mode.STOPPED, second)
    key = SetOutcome(sender="console", outcome=Outcome.FAILURE, episode_id=episode_meant(state))
    assert asked(hand, key, hand.io.states_shown[state.seq]) == ""
    assert outcomes(hand) == [(first, Outcome.SUCCESS), (first, Outcome.FAILURE)]


def test_the_bridge_remembers_what_its_states_showed(hand: ByHand) -> None:
    """Over real sockets: the key of who saw the first episode arrives when the second runs."""
    hand.io.compose_state = hand.bridge._board.compose

    def seen() -> int:
        """The number of a state that is sent now."""
        hand.io._state_due_ns = 0
        hand.io.pump(0.0)
        return hand.io._state_seq - 1

    hand.run()
    first = running(hand)
    saw_first = seen()
    assert hand.io.states_shown[saw_first] == StateShown(first, "")
    client = hand.client("desk", Role.LABELER)
    hello = Hello(protocol=PROTOCOL_VERSION, sender="desk", role=Role.LABELER, software="test")
    assert hand.answered(client, hello).error == ""
    assert asked(hand, SetOutcome(sender="console", outcome=Outcome.SUCCESS), None) == ""
    hand.tick(3)
    second = running(hand)
    assert second not in ("", first)
    client.newest_state_seq = saw_first
    client.send(SetOutcome(sender="desk", outcome=Outcome.FAILURE))
    assert hand.pump_until(lambda: hand.io.inbox.requests)
    hand.tick(2)
    assert running(hand) == second
    assert outcomes(hand)[-1] == (first, Outcome.FAILURE)
    assert [one.outcome_source for one in hand.records if isinstance(one, EpisodeEnd)] == [OutcomeSource.OPERATOR]
    for _ in range(REMEMBERED_STATES + 10):
        seen()
    assert list(hand.io.states_shown) == list(hand.io._state_times), "no more than can be asked by"
    client.close()
