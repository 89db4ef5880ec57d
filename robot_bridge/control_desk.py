"""Control requests: who may ask, in whose name, for what; the lease. STOP is acted on here, at once; what passes waits for the loop."""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from takeover.data.drivers import Driver
from takeover.data.schema import (
    PROTOCOL_VERSION,
    ControlEnvelope,
    ControlRequest,
    Hello,
    Hold,
    Lease,
    Mark,
    Reply,
    ReplyEnvelope,
    RobotSpec,
    Role,
    SetOutcome,
    Stop,
    UndoOutcome,
    ViewReport,
)
from takeover.data.station import ID_ALLOWED, is_id
from takeover.robot_bridge import names
from takeover.robot_bridge.inbox import MAX_REQUEST_AGE_NS, Inbox, PendingRequest, StateShown
from takeover.robot_bridge.lease import LeaseRefused, LeaseTable
from takeover.robot_bridge.mark_rate import MARKS_PER_S, MarkRate
from takeover.robot_bridge.peers import Peer, Peers
from takeover.robot_bridge.protocol import SAY_HELLO, BadMessage, Router, turn
from takeover.robot_bridge.protocol.link import Gatekeeper
from takeover.robot_bridge.record_log import MAX_EVENT_BACKLOG_BYTES, RecordLog
from takeover.robot_bridge.refusals import Refusal, Refusals, asked, shown
from takeover.robot_bridge.unreadable import refusal_of

MAX_REQUESTS = 256
REMEMBERED_STOPS = 64


class ControlDesk:
    """The part of `takeover.robot_bridge.io.BridgeIO` that answers on ``control``; that class makes everything named here."""

    session: str
    inbox: Inbox
    lease: LeaseTable
    records: RecordLog
    refusals: Refusals
    refused_requests: int
    on_view_report: Callable[[str, float, str], None]  # whose, age in ms, who drives
    event: Callable[..., None]
    where: Callable[[], dict[str, Any]]
    _spec: RobotSpec
    _lockstep: bool
    _gatekeeper: Gatekeeper | None
    _stop_robot: Callable[[], None]
    _control: Router[ControlEnvelope, ReplyEnvelope]
    _peers: Peers
    _command_seq: int
    _lease_peer: bytes  # connection that the lease was granted to
    lease_user: str  # public key that the lease was granted to
    _state_due_ns: int
    _state_times: dict[int, int]
    _marks: MarkRate
    _stops_done: deque[tuple[str, int, int]]  # the newest ones, each as key, request id and state seen
    states_shown: dict[int, StateShown]  # by the number of the state; of those in `_state_times`

    def _on_control(self) -> None:
        for peer, data in turn(self._control.receive_raw):
            try:
                envelope = self._control.decode(data)
            except BadMessage as error:
                unread = refusal_of(data, error)
                if unread.stops:
                    self._stop(self._who_asks(peer, unread.sender))
                if unread.protocol is None:
                    self._control.bad(error, peer)
                else:  # a hello of another version: refused like one without fields that this version does not know
                    who = self._who_asks(peer, unread.sender)
                    self._note(Refusal(who, "Hello", unread.error, {"protocol": unread.protocol}))
                self._answer(peer, unread.request_id, unread.error)
                continue
            self._request(peer, envelope)
        self.inbox.notify()

    def _request(self, peer: bytes, envelope: ControlEnvelope) -> None:
        request, now = envelope.request, time.monotonic_ns()
        if isinstance(request, Stop):
            if not self._is_repeated(peer, envelope):
                who = self._who_asks(peer, request.sender)
                self._stop(f"{who}: {request.reason}" if request.reason else who)
            self._answer(peer, envelope.request_id)
            return
        if isinstance(request, Hello):
            self._hello(peer, envelope.request_id, request)
            return
        known = self._peers.at(peer)
        sender, role, user = known.sender, known.role, known.user
        if not sender or user != self._control.user or not self._granted(role):
            self._deny(peer, envelope.request_id, request, SAY_HELLO)
            return
        self._peers.heard(peer)
        if request.sender != sender and not isinstance(request, Hold):
            error = f"sender {request.sender!r}: this connection said hello as {sender!r}"
            self._deny(peer, envelope.request_id, request, error)
            return
        if isinstance(request, ViewReport):
            if not 0.0 <= request.age_ms < math.inf:
                self._deny(peer, envelope.request_id, request, "age_ms: a finite number of ms, at least 0")
                return
            driven = self.lease.holder(now) and not self.lease.scripted(now)
            driver = f"{self.lease.sender}/{self._lease_peer.hex()}" if driven else ""
            self.on_view_report(f"{sender}/{peer.hex()}", request.age_ms, driver)
            self._answer(peer, envelope.request_id)
            return
        if isinstance(request, Lease):
            self._lease_request(peer, envelope.request_id, request, sender, role, now)
            return
        if not isinstance(request, Hold) and (age := self._request_age(envelope.newest_state_seq, now)):
            self._deny(peer, envelope.request_id, request, f"{type(request).__name__} was asked {age}: not done")
            return
        if limit := self._mark_limit(peer, request, now):
            self._deny(peer, envelope.request_id, request, limit)
            return
        if len(self.inbox.requests) >= MAX_REQUESTS:
            self._deny(peer, envelope.request_id, request, f"too many requests are waiting, at most {MAX_REQUESTS}")
            return
        signed = replace(request, sender=names.author(self._gatekeeper, user, sender))
        shown = self._shown(envelope)
        stops = self.inbox.stops if shown is None else shown.stops
        self.inbox.requests.append(
            PendingRequest(peer, envelope.request_id, signed, sender, role, self._owner(peer), stops, now, user, shown)
        )

    def _is_repeated(self, peer: bytes, envelope: ControlEnvelope) -> bool:
        """Whether this STOP was acted on already: copies that were under way when its answer came must undo nobody's Clear.

        Only over a network, after a hello and from who says what it saw. In doubt it is a new one: to stop once more is harmless.
        """
        copy = (self._control.user, envelope.request_id, envelope.newest_state_seq)
        if copy not in self._stops_done:
            self._stops_done.append(copy)
            return False
        return bool(self._control.user) and self._greeted(peer) and envelope.newest_state_seq >= 0

    def _stop(self, reason: str) -> None:
        """Latched first: a driver's stop takes its time, and no step may move the robot again meanwhile."""
        self.inbox.stop(reason)
        self._stop_robot()
        self._state_due_ns = 0

    def _who_asks(self, peer: bytes, claimed: str) -> str:
        """The author of a request: by the name of the connection's hello, never in another's."""
        sender = self._peers.at(peer).sender if self._greeted(peer) else names.claimed(claimed)
        return names.author(self._gatekeeper, self._control.user, sender)

    def _greeted(self, peer: bytes) -> bool:
        """Whether hello was said on this connection, with the key that the newest request came with."""
        known = self._peers.at(peer)
        return bool(known.sender) and known.user == self._control.user

    def _request_age(self, state_seq: int, now_ns: int) -> str:
        """Why a request is too old: neither a link that hung nor a bridge that stood still may deliver what somebody wanted then.

        On one computer a client that watches no state says none. In lockstep nothing that decides counts wall time.
        """
        if self._lockstep or (state_seq < 0 and self._gatekeeper is None):
            return ""
        seen_ns = self._state_times.get(state_seq)
        if seen_ns is None:
            return "without a recent state in view"
        return "more than a second ago" if now_ns - seen_ns > MAX_REQUEST_AGE_NS else ""

    def _mark_limit(self, peer: bytes, request: ControlRequest, now_ns: int) -> str:
        """Why nothing more is kept for ever for this peer now. In lockstep nothing that decides counts wall time."""
        if isinstance(request, Mark) and self.records.bytes > MAX_EVENT_BACKLOG_BYTES:
            return f"nobody may fill the memory with words: {self.records.bytes} bytes wait, at most {MAX_EVENT_BACKLOG_BYTES}"
        kept = isinstance(request, Mark | SetOutcome | UndoOutcome) and not self._lockstep
        if kept and not self._marks.permits(self._control.user.encode() or peer, now_ns):
            return f"at most {MARKS_PER_S:g} marks and outcomes a second"
        return ""

    def _shown(self, envelope: ControlEnvelope) -> StateShown | None:
        """What the asker had in view. In lockstep states come by wall time and episodes do not: what arrives is for what runs."""
        return None if self._lockstep else self.states_shown.get(envelope.newest_state_seq)

    def _owner(self, peer: bytes) -> bytes:
        """Whose connection the newest request came over: a connection's name can be chosen, the key it came with cannot."""
        return peer + self._control.user.encode()

    def _granted(self, role: Role) -> bool:
        """Whether the key of the newest request may still have that role."""
        if self._gatekeeper is None:
            return True
        client = self._gatekeeper.client(self._control.user)
        return client is not None and role in client.roles

    def _hello(self, peer: bytes, request_id: int, hello: Hello) -> None:
        if hello.protocol != PROTOCOL_VERSION:
            self._deny(peer, request_id, hello, f"protocol {hello.protocol} asked for, this bridge speaks {PROTOCOL_VERSION}")
            return
        if limit := names.sender_limit(hello.sender):
            self._deny(peer, request_id, hello, f"sender {shown(hello.sender)}: {limit}")
            return
        if refusal := self._role_refusal(hello):
            self._deny(peer, request_id, hello, refusal)
            return
        self._peers.greet(peer, Peer(hello.sender, hello.role, self._control.user), kept=self._lease_peer)
        reply = Reply(session=self.session, spec=self._spec, t_ns=time.monotonic_ns(), names_people=True)
        self._control.send(peer, ReplyEnvelope(request_id=request_id, reply=reply))

    def _role_refusal(self, hello: Hello) -> str:
        """Over a network the role is bound to the key: nobody may ask for more than the list gives."""
        if self._gatekeeper is None:
            return ""
        client = self._gatekeeper.client(self._control.user)
        if client is None or hello.role not in client.roles:
            name, roles = (client.name, ", ".join(sorted(client.roles))) if client is not None else ("this key", "nothing")
            return f"role {hello.role} is not granted to {name}; granted: {roles}"
        return ""

    def _lease_request(self, peer: bytes, request_id: int, lease: Lease, sender: str, role: Role, now_ns: int) -> None:
        if role is not Role.OPERATOR:
            self._deny(peer, request_id, lease, f"role {role} may not command")
            return
        if lease.release:
            self.lease.release(sender, self._owner(peer))
            self._answer(peer, request_id)
            return
        for field, value in (("person", lease.person), ("consent_version", lease.consent_version)):
            if value and not is_id(value):
                self._deny(peer, request_id, lease, f"{field} {shown(value)}: {ID_ALLOWED}")
                return
        person, gone = Driver(lease.person, lease.consent_version), False
        if sender == self.lease.sender and peer != self._lease_peer and self._control.user == self.lease_user:
            note = Reply(session=self.session, error=f"{sender} asks for the lease on another connection", t_ns=now_ns)
            gone = not self._control.reaches(self._lease_peer, ReplyEnvelope(request_id=-1, reply=note))  # then this is itself, come back
        before = self.lease.grants
        try:
            token = self.lease.ask(sender, self._owner(peer), lease.device_kind, now_ns, gone=gone, person=person)
        except LeaseRefused as error:
            self._deny(peer, request_id, lease, str(error))
            return
        if self.lease.grants != before:
            # a new grant: nothing that was commanded before counts any more
            self._command_seq = -1
            self.inbox.command = None
            self._lease_peer, self.lease_user = peer, self._control.user
            who = names.author(self._gatekeeper, self.lease_user, sender)
            self.event("lease", f"granted to {who}{', person ' if person.name else ''}{person.name}", **self.where())
        self._control.send(peer, ReplyEnvelope(request_id=request_id, reply=Reply(session=self.session, lease=token)))

    def _reply(self, request: PendingRequest, error: str) -> None:
        if error:
            self._note_request(request.request.sender, request.request, error)
        self._answer(request.peer, request.request_id, error)

    def _deny(self, peer: bytes, request_id: int, request: ControlRequest, error: str) -> None:
        """Answer why not, count it and tell of it."""
        self._note_request(self._who_asks(peer, request.sender), request, error)
        self._answer(peer, request_id, error)

    def _note_request(self, who: str, request: ControlRequest, error: str) -> None:
        """Count a control request that was answered with ``error``, and tell of it."""
        self._note(Refusal(who, type(request).__name__, error, asked(request)))

    def _note(self, refusal: Refusal) -> None:
        self.refused_requests += 1
        self.refusals.note("request_refused", refusal, time.monotonic_ns())

    def _answer(self, peer: bytes, request_id: int, error: str = "") -> None:
        reply = Reply(session=self.session, error=error, t_ns=time.monotonic_ns())
        self._control.send(peer, ReplyEnvelope(request_id=request_id, reply=reply))
