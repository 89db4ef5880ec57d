"""Modes of the bridge: an enum and a transition table, pure in (state, event, time)."""

from dataclasses import dataclass
from enum import StrEnum

from takeover.data.schema import HoldReason, Mode


class ModeEvent(StrEnum):
    """What can happen to the mode. `TRANSITIONS` says where each leads."""

    CONNECT = "connect"  # the robot answers
    LOSE = "lose"  # it does not any more
    RESET = "reset"  # a start state is being made
    BEGIN = "begin"  # reset done: the policy starts
    STAND_BY = "stand_by"  # reset done, or block done: wait for a person
    TAKE = "take"  # deadman pressed
    RELEASE = "release"  # deadman released
    HOLD = "hold"
    RESUME = "resume"
    STOP = "stop"
    CLEAR = "clear"


class IllegalTransition(ValueError):
    """The event has no meaning in this mode; says both."""


@dataclass(frozen=True)
class ModeState:
    """Mode, why it is held, and since when (ns of the control clock)."""

    mode: Mode = Mode.OFFLINE
    reason: HoldReason = HoldReason.NONE
    detail: str = ""
    since_ns: int = 0


_MOVING = (Mode.POLICY, Mode.TAKEOVER)
_CONNECTED = (Mode.READY, Mode.POLICY, Mode.TAKEOVER, Mode.HOLD, Mode.RESETTING)

TRANSITIONS: dict[tuple[Mode, ModeEvent], Mode] = {
    (Mode.OFFLINE, ModeEvent.CONNECT): Mode.READY,
    (Mode.RESETTING, ModeEvent.BEGIN): Mode.POLICY,
    (Mode.TAKEOVER, ModeEvent.RELEASE): Mode.POLICY,
    (Mode.HOLD, ModeEvent.RESUME): Mode.POLICY,
    (Mode.STOPPED, ModeEvent.CLEAR): Mode.READY,
    (Mode.READY, ModeEvent.TAKE): Mode.TAKEOVER,
    (Mode.POLICY, ModeEvent.TAKE): Mode.TAKEOVER,
    (Mode.HOLD, ModeEvent.TAKE): Mode.TAKEOVER,
    **{(mode, ModeEvent.RESET): Mode.RESETTING for mode in _CONNECTED},
    **{(mode, ModeEvent.STAND_BY): Mode.READY for mode in _CONNECTED},
    **{(mode, ModeEvent.HOLD): Mode.HOLD for mode in _CONNECTED},
    **{(mode, ModeEvent.STOP): Mode.STOPPED for mode in Mode},
    **{(mode, ModeEvent.LOSE): Mode.OFFLINE for mode in Mode if mode is not Mode.STOPPED},
}


def transition(state: ModeState, event: ModeEvent, now_ns: int, reason: HoldReason = HoldReason.NONE, detail: str = "") -> ModeState:
    """The next state. The first reason for a hold stays until the hold ends. Raises `IllegalTransition`."""
    target = TRANSITIONS.get((state.mode, event))
    if target is None:
        raise IllegalTransition(f"{event} is not possible in {state.mode}")
    if event is ModeEvent.HOLD and reason is HoldReason.NONE:
        raise IllegalTransition("a hold needs a reason")
    if target is state.mode:
        return state
    if target is not Mode.HOLD:
        reason = HoldReason.NONE
    return ModeState(target, reason, detail, now_ns)


def moves(mode: Mode) -> bool:
    """Whether the robot may be commanded to move for an episode in ``mode``."""
    return mode in _MOVING
