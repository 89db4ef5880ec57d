"""A STOP that its sender keeps until the bridge is known to have it: a link that has died without a word takes it and loses it."""

import time

from takeover.data.schema import ControlEnvelope, Mode, State

REPEAT_NS = 200_000_000  # what was lost is sent again after this long


class KeptStop:
    """The newest STOP of one client.

    Its own reply confirms it. On one computer a `State` of mode ``stopped`` does too that is newer than the newest one seen at the press;
    over a network that one may have waited since before the press, and show a STOP that is cleared by now. One that is confirmed is
    never sent again: it would undo somebody else's Clear.
    """

    def __init__(self, may_lose: bool) -> None:
        """``may_lose``: over a network. On one computer a message is lost only with the process that had it, which the states show; to
        repeat it blindly would heap it up before a bridge that hangs."""
        self.pressed_ns = 0  # 0: none is kept
        self._envelope: ControlEnvelope | None = None
        self._may_lose = may_lose
        self._left_ns = 0  # 0: it could not be sent yet
        self._session = self._pressed_session = ""
        self._lives = False  # a state was heard since it left

    def keep(self, envelope: ControlEnvelope) -> None:
        """The person has pressed STOP."""
        self._envelope, self.pressed_ns = envelope, time.monotonic_ns()
        self._left_ns, self._pressed_session = 0, self._session

    def left(self, envelope: ControlEnvelope) -> None:
        """``envelope`` was given to the socket."""
        if self._envelope is not None and envelope.request_id == self._envelope.request_id:
            self._left_ns, self._lives = time.monotonic_ns(), False

    def due(self) -> ControlEnvelope | None:
        """What is to be sent now, again or for the first time."""
        if self._left_ns and not (self._may_lose or self._lives):
            return None
        return self._envelope if not self._left_ns or time.monotonic_ns() - self._left_ns > REPEAT_NS else None

    def answered(self, request_id: int) -> None:
        if self._envelope is not None and request_id == self._envelope.request_id:
            self._confirm()

    def saw(self, state: State) -> None:
        self._session, self._lives = state.session, True
        if self._may_lose or self._envelope is None or state.mode is not Mode.STOPPED:
            return
        if state.session != self._pressed_session or state.seq > self._envelope.newest_state_seq:
            self._confirm()

    def _confirm(self) -> None:
        self._envelope, self.pressed_ns = None, 0
