"""The transition table: what is possible, and above all what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from takeover.data.schema import HoldReason, Mode
from takeover.robot_bridge.modes import IllegalTransition, ModeEvent, ModeState, moves, transition


def test_stop_is_possible_everywhere_and_latches() -> None:
    for mode in Mode:
        stopped = transition(ModeState(mode), ModeEvent.STOP, 1)
        assert stopped.mode is Mode.STOPPED
    for event in ModeEvent:
        if event in (ModeEvent.STOP, ModeEvent.CLEAR):
            continue
        with pytest.raises(IllegalTransition):
            transition(ModeState(Mode.STOPPED), event, 2, HoldReason.OPERATOR)


@given(st.lists(st.sampled_from([event for event in ModeEvent if event is not ModeEvent.CLEAR])))
def test_nothing_but_clear_leaves_stopped(events: list[ModeEvent]) -> None:
    state = ModeState(Mode.STOPPED)
    for event in events:
        try:
            state = transition(state, event, 1, HoldReason.OPERATOR)
        except IllegalTransition:
            continue
        assert state.mode is Mode.STOPPED


@given(st.lists(st.sampled_from(list(ModeEvent)), max_size=60))
def test_motion_begins_only_by_an_act(events: list[ModeEvent]) -> None:
    """Into POLICY or TAKEOVER lead only a press, a release, a resume, or a reset that has ended."""
    state = ModeState()
    for event in events:
        before = state
        try:
            state = transition(state, event, 1, HoldReason.OPERATOR)
        except IllegalTransition:
            assert state is before
            continue
        if moves(state.mode) and not moves(before.mode):
            assert event in (ModeEvent.TAKE, ModeEvent.RESUME, ModeEvent.BEGIN)
        if before.mode is Mode.HOLD and state.mode is Mode.HOLD:
            assert state is before
        assert (state.mode is Mode.HOLD) == (state.reason is not HoldReason.NONE)


def test_the_first_reason_of_a_hold_stays() -> None:
    held = transition(ModeState(Mode.POLICY), ModeEvent.HOLD, 5, HoldReason.POLICY_LATE, "late")
    assert transition(held, ModeEvent.HOLD, 9, HoldReason.OPERATOR) == held


def test_a_hold_needs_a_reason() -> None:
    with pytest.raises(IllegalTransition, match="reason"):
        transition(ModeState(Mode.POLICY), ModeEvent.HOLD, 1)
