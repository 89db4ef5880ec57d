"""For how long a key whose meaning has changed under the finger does what is harmless."""

import pytest
from peer import make_state

from takeover.app.console import just_now
from takeover.app.console.just_now import ENDED_S, HELD_S, JustNow
from takeover.data.schema import Mode


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(just_now.time, "monotonic", lambda: now[0])
    return now


def test_a_hold_is_new_for_a_moment_and_the_next_one_again(clock):
    seen = JustNow()
    seen.see(None)
    seen.see(make_state(mode=Mode.POLICY))
    assert not seen.held
    for since_ns in (1, 2):  # the policy drove between two looks
        for _ in range(2):
            seen.see(make_state(mode=Mode.HOLD, mode_since_ns=since_ns))
            assert seen.held
            clock[0] += HELD_S - 0.01
        seen.see(make_state(mode=Mode.HOLD, mode_since_ns=since_ns))
        assert not seen.held
    seen.see(make_state(mode=Mode.HOLD, mode_since_ns=3))
    seen.see(make_state(mode=Mode.POLICY, mode_since_ns=4))
    assert not seen.held


def test_an_episode_is_just_over_for_a_second(clock):
    seen = JustNow()
    seen.see(make_state(last_outcome_episode="before the window was opened"))
    assert not seen.ended
    for name in ("e1", "e2"):
        seen.see(make_state(last_outcome_episode=name))
        assert seen.ended
        clock[0] += ENDED_S - 0.01
        seen.see(make_state(last_outcome_episode=name))
        assert seen.ended
        clock[0] += 0.02
        assert not seen.ended
    seen.see(make_state(session="a new bridge", last_outcome_episode=""))
    assert not seen.ended
    seen.see(make_state(session="a new bridge", last_outcome_episode="e3"))
    assert seen.ended
