"""A Hold that its sender keeps for a moment: a connection that is lost takes it, and the next one is not known to the bridge yet."""

import time

from takeover.data.schema import ControlEnvelope, HoldReason, Mode, State
from takeover.robot_bridge.protocol.kept_stop import REPEAT_NS

KEPT_NS = 1_000_000_000  # later than this a person who sees the robot move has pressed something else
GREETINGS = 5  # with which one Hold is sent again: a bridge that refuses the hello would refuse for ever


class KeptHold:
    """The newest Hold of one client, until it is answered, a newer `State` shows a robot held by a person or stopped, or a second is over.

    It moves nothing, so it may come late and twice; no other request is kept, for that one might.
    """

    def __init__(self, may_lose: bool) -> None:
        """``may_lose``: over a network. On one computer it is sent again only if it could not be sent, or to a bridge that knows its
        sender no more."""
        self._may_lose = may_lose
        self._envelope: ControlEnvelope | None = None
        self._asked_ns = self._left_ns = 0  # 0: it could not be sent yet
        self._session = self._asked_session = ""
        self._greetings = 0

    def keep(self, envelope: ControlEnvelope) -> None:
        """The person has asked for a hold."""
        self._envelope, self._asked_ns, self._left_ns = envelope, time.monotonic_ns(), 0
        self._asked_session, self._greetings = self._session, GREETINGS

    @property
    def waits(self) -> bool:
        """Whether one is kept still."""
        return self._envelope is not None and time.monotonic_ns() - self._asked_ns <= KEPT_NS

    def left(self, envelope: ControlEnvelope) -> None:
        """``envelope`` was given to the socket."""
        if self._is(envelope.request_id):
            self._left_ns = time.monotonic_ns()

    def due(self) -> ControlEnvelope | None:
        """What is to be sent now, again or for the first time."""
        if not self.waits or (self._left_ns and not self._may_lose):
            return None
        return self._envelope if not self._left_ns or time.monotonic_ns() - self._left_ns > REPEAT_NS else None

    def unknown(self, request_id: int) -> ControlEnvelope | None:
        """The bridge did not know who asked: what is to follow the hello. None: nothing, the refusal stands."""
        if not (self.waits and self._is(request_id) and self._greetings):
            return None
        self._greetings -= 1
        return self._envelope

    def answered(self, request_id: int) -> None:
        if self._is(request_id):
            self._envelope = None

    def saw(self, state: State) -> None:
        self._session = state.session
        stands = state.mode is Mode.STOPPED or (state.mode is Mode.HOLD and state.hold_reason is HoldReason.OPERATOR)
        if self._envelope is None or not stands:
            return
        if state.session != self._asked_session or state.seq > self._envelope.newest_state_seq:
            self._envelope = None

    def _is(self, request_id: int) -> bool:
        return self._envelope is not None and request_id == self._envelope.request_id
