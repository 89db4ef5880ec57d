"""The bridge's sockets: one owner, either its own thread (real time) or the control thread itself (lockstep).

STOP is acted on here, at once; everything else is checked, counted and put where the control thread finds it.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from takeover.data.schema import (
    PROTOCOL_VERSION,
    AnyRecord,
    Command,
    ControlEnvelope,
    Event,
    Hello,
    Hold,
    LearnerStatus,
    Lease,
    Observation,
    PolicyAction,
    Privileged,
    RecorderHello,
    RecorderMessage,
    Reply,
    ReplyEnvelope,
    RobotSpec,
    Role,
    State,
    Stop,
    ViewReport,
)
from takeover.robot_bridge import chunks
from takeover.robot_bridge.inbox import Inbox, PendingRequest, ReceivedCommand
from takeover.robot_bridge.lease import LeaseRefused, LeaseTable
from takeover.robot_bridge.protocol import SAY_HELLO, BadMessage, Endpoints, PeerGone, PollSet, Publisher, Pull, Router, Subscriber, Wakeup
from takeover.robot_bridge.record_log import RecordLog

log = logging.getLogger("bridge.io")

STATE_PERIOD_NS = 20_000_000
REMEMBERED_STATES = 128  # 2.5 s of them: enough to judge any command that could still be fresh
MAX_PEERS = 256
MAX_REQUESTS = 256
REFUSAL_EVENT_NS = 1_000_000_000
MAX_REQUEST_AGE_NS = 1_000_000_000
MAX_EVENT_TEXT = 4000
MAX_EVENT_BACKLOG_BYTES = 8 * 1024 * 1024
MAX_NAME = 96  # characters of a sender's name
REWIND_NS = 100_000_000  # a recorder may ask for everything again ten times a second, not more
RECORDER_LIFE_NS = 2_000_000_000  # a recorder with another key is let in when the present one was silent for so long


class BridgeIO:
    """All sockets but the cameras'. `pump` and `close` only in the owning thread; `publish`, `reply` and `event` from any."""

    def __init__(self, endpoints: Endpoints, session: str, spec: RobotSpec, stop_robot: Callable[[], None], *, lockstep: bool) -> None:
        self.session = session
        self._gatekeeper = endpoints.gatekeeper
        self.inbox = Inbox()
        self.lease = LeaseTable(lapses=not lockstep)
        self.compose_state: Callable[[int, int], State | None] = lambda seq, now_ns: None
        self.on_view_report: Callable[[str, float], None] = lambda sender, age_ms: None
        self.refused_commands = 0
        self.refused_connections = 0
        self.bad_messages = 0
        self._bad_seen: dict[str, int] = {}
        self._spec = spec
        self._lockstep = lockstep
        self._observation_seq = -1
        self._stop_robot = stop_robot
        self._wakeup = Wakeup()
        self._outbox: deque[Callable[[], None]] = deque()
        self._peers: dict[bytes, tuple[str, Role, str]] = {}  # sender, role, public key ("": one computer)
        self._recorder: bytes | None = None
        self._recorder_user = ""
        self._rewound_ns = 0
        self._command_seq = -1
        self._state_seq = 0
        self._state_due_ns = 0
        self._state_times: dict[int, int] = {}
        self._refusals: dict[tuple[str, str], int] = {}

        self._sockets: list[Any] = []
        self._state: Publisher[State] = self._own(Publisher(endpoints, "state", State))
        self._observation: Publisher[Observation] = self._own(Publisher(endpoints, "observation", Observation))
        self._privileged: Publisher[Privileged] = self._own(Publisher(endpoints, "privileged", Privileged))
        self._policy: Pull[PolicyAction] = self._own(Pull(endpoints, "policy_action", PolicyAction))
        self._command: Pull[Command] = self._own(Pull(endpoints, "command", Command))
        self._event: Pull[Event] = self._own(Pull(endpoints, "event", Event))
        self._control: Router[ControlEnvelope, ReplyEnvelope] = self._own(Router(endpoints, "control", ControlEnvelope, ReplyEnvelope))
        self._record: Router[RecorderMessage, AnyRecord] = self._own(Router(endpoints, "record", RecorderMessage, AnyRecord))
        self._learner: Subscriber[LearnerStatus] = self._own(Subscriber(endpoints, "learner_status", LearnerStatus))
        self.records = RecordLog(session, self._record.encode, self._wakeup.set)
        receivers = [self._policy, self._command, self._event, self._control, self._record, self._learner]
        self._poll = PollSet(receivers, self._wakeup)
        self._handlers: dict[int, Callable[[], None]] = {
            id(self._policy): self._on_policy,
            id(self._command): self._on_command,
            id(self._event): self._on_event,
            id(self._control): self._on_control,
            id(self._record): self._on_record,
            id(self._learner): self._on_learner,
        }

    def _own(self, socket: Any) -> Any:
        self._sockets.append(socket)
        return socket

    # --- from any thread ---

    def publish(self, message: Observation | Privileged) -> None:
        """Send as soon as the owner of the sockets gets to it, which is at once."""
        socket: Publisher[Any] = self._privileged
        if isinstance(message, Observation):
            socket, self._observation_seq = self._observation, message.seq
        self._outbox.append(lambda: socket.send(message))
        self._wakeup.set()

    def reply(self, request: PendingRequest, error: str = "") -> None:
        self._outbox.append(lambda: self._answer(request.peer, request.request_id, error))
        self._wakeup.set()

    def event(self, kind: str, text: str = "", **fields: Any) -> None:
        """Record an event of the bridge's own."""
        fields.setdefault("source", "bridge")
        self.records.append(
            lambda session, rec_seq: Event(
                session=session, rec_seq=rec_seq, kind=kind, text=text, t_ns=time.monotonic_ns(), wall_ns=time.time_ns(), **fields
            )
        )

    def connection_refused(self, stream: str, public_key: str) -> None:
        """Count a connection without an admitted key; at most one event a second for each key and stream."""
        self.refused_connections += 1
        self._note_refusal("client_refused", public_key, stream, time.monotonic_ns())

    def state_now(self) -> None:
        """Publish the state at the next opportunity instead of at its next turn."""
        self._state_due_ns = 0
        self._wakeup.set()

    # --- owning thread ---

    def pump(self, timeout_s: float) -> None:
        """Send what waits, then handle whatever arrives within ``timeout_s`` (one wait), then send what came of it."""
        self._flush()
        until_state = (self._state_due_ns - time.monotonic_ns()) / 1e9
        for socket in self._poll.wait(max(0.0, min(timeout_s, until_state))):
            self._handlers[id(socket)]()
            if socket.bad_messages != self._bad_seen.get(socket.name, 0):
                self.bad_messages += socket.bad_messages - self._bad_seen.get(socket.name, 0)
                self._bad_seen[socket.name] = socket.bad_messages
                self._note_refusal("bad_message", socket.name, socket.last_bad, time.monotonic_ns())
        self._flush()

    def close(self) -> None:
        for socket in self._sockets:
            socket.close()
        self._wakeup.close()

    def _flush(self) -> None:
        while self._outbox:
            self._outbox.popleft()()
        self._send_records()
        now = time.monotonic_ns()
        if now >= self._state_due_ns:
            self._state_due_ns = now + STATE_PERIOD_NS
            state = self.compose_state(self._state_seq, now)
            if state is not None:
                self._state.send(state)
                self._state_times[self._state_seq] = now
                self._state_times.pop(self._state_seq - REMEMBERED_STATES, None)
                self._state_seq += 1

    def _send_records(self) -> None:
        """As many as the recorder takes; what it does not take now waits here, where its size is watched."""
        if self._gatekeeper is not None and not self._gatekeeper.permits(self._recorder_user, self._record.name):
            return  # revoked since, or none yet
        while self._recorder is not None and (frames := self.records.unsent()):
            sent = 0
            try:
                while sent < len(frames) and self._record.send_encoded(self._recorder, frames[sent]):
                    sent += 1
            except PeerGone:
                self._recorder = None  # whoever comes back says how far it got
            self.records.give_back(len(frames) - sent)
            if sent < len(frames):
                return

    def _on_policy(self) -> None:
        while (message := self._policy.receive()) is not None:
            if refusal := self._answer_refusal(message):
                self._refuse("actor", f"answer: {refusal}", time.monotonic_ns())
                continue
            self.inbox.chunk = chunks.received(message, self._spec.action.size, time.monotonic_ns())
        self.inbox.notify()

    def _answer_refusal(self, answer: PolicyAction) -> str:
        """Why an answer does not count: of another session, overtaken by a newer one, or to what was never asked."""
        if answer.session != self.session:
            return "made for another session"
        newest = self.inbox.policy
        if self._lockstep:
            return ""  # only the answer to the very step counts there
        if newest is not None and answer.from_seq < newest.from_seq:
            return "older than the newest answer"
        if answer.from_seq > self._observation_seq:
            return "to an observation that was never sent"
        return ""

    def _on_learner(self) -> None:
        while (message := self._learner.receive()) is not None:
            self.inbox.learner = message
            self.inbox.learner_arrival_ns = time.monotonic_ns()
        self.inbox.notify()

    def _on_event(self) -> None:
        while (message := self._event.receive()) is not None:
            if self.records.bytes > MAX_EVENT_BACKLOG_BYTES:
                self.refused_commands += 1  # nobody may fill the memory with words
                continue
            self.event(message.kind[:MAX_NAME], message.text[:MAX_EVENT_TEXT], source=message.source[:MAX_NAME], value=message.value)

    def _on_command(self) -> None:
        while (command := self._command.receive()) is not None:
            now = time.monotonic_ns()
            refusal = self._refusal(command, now)
            if refusal:
                self._refuse(command.sender, refusal, now)
                continue
            self._command_seq = command.seq
            self.lease.heard(command.device_kind, now)
            self.inbox.command = ReceivedCommand(command, now, self._state_times.get(command.newest_state_seq, 0))
        self.inbox.notify()

    def _refusal(self, command: Command, now_ns: int) -> str:
        if command.session != self.session:
            return "made for another session"
        if not self.lease.token or command.lease != self.lease.token or command.sender != self.lease.sender:
            return "sender does not hold the lease"
        if not self.lease.holder(now_ns):
            return "the lease has lapsed"
        if command.seq <= self._command_seq:
            return "old sequence number"
        unknown = set(command.authority) - set(self._spec.action.group_names)
        if unknown:
            return f"unknown action group {', '.join(sorted(unknown))}"
        return ""

    def _refuse(self, sender: str, why: str, now_ns: int) -> None:
        """Count every refused command; record at most one event a second for each sender and reason."""
        self.refused_commands += 1
        self._note_refusal("command_refused", sender, why, now_ns)

    def _note_refusal(self, kind: str, sender: str, why: str, now_ns: int) -> None:
        key = (sender[:64], why)
        if now_ns - self._refusals.get(key, -REFUSAL_EVENT_NS) >= REFUSAL_EVENT_NS:
            if len(self._refusals) >= MAX_PEERS:
                self._refusals.clear()
            self._refusals[key] = now_ns
            self.event(kind, f"{key[0]}: {why}")

    def _on_control(self) -> None:
        while (received := self._control.receive_raw()) is not None:
            peer, data = received
            try:
                envelope = self._control.decode(data)
            except BadMessage as error:
                self._control.bad_messages, self._control.last_bad = self._control.bad_messages + 1, str(error)
                self._answer(peer, -1, f"bad request: {error}")
                continue
            self._request(peer, envelope)
        self.inbox.notify()

    def _request(self, peer: bytes, envelope: ControlEnvelope) -> None:
        request, now = envelope.request, time.monotonic_ns()
        if isinstance(request, Stop):
            self._stop_robot()
            self.inbox.stop_reason = f"{request.sender}: {request.reason}" if request.reason else request.sender
            self._state_due_ns = 0
            self._answer(peer, envelope.request_id)
            return
        if isinstance(request, Hello):
            self._hello(peer, envelope.request_id, request)
            return
        sender, role, user = self._peers.get(peer, ("", Role.OBSERVER, ""))
        if not sender or user != self._control.user or not self._granted(role):
            self._answer(peer, envelope.request_id, SAY_HELLO)
            return
        if isinstance(request, ViewReport):
            self.on_view_report(f"{sender}/{peer.hex()}", request.age_ms)
            self._answer(peer, envelope.request_id)
            return
        if isinstance(request, Lease):
            self._lease_request(peer, envelope.request_id, request, sender, role, now)
            return
        if self._gatekeeper is not None and not isinstance(request, Hold) and (age := self._request_age(envelope.newest_state_seq, now)):
            self._answer(peer, envelope.request_id, f"{type(request).__name__} was asked {age}: not done")
            return
        if len(self.inbox.requests) >= MAX_REQUESTS:
            self._answer(peer, envelope.request_id, "too many requests are waiting")
            return
        self.inbox.requests.append(PendingRequest(peer, envelope.request_id, request, sender, role))

    def _request_age(self, state_seq: int, now_ns: int) -> str:
        """Why a request over a network is too old: a link that hung must not deliver what somebody wanted then."""
        seen_ns = self._state_times.get(state_seq)
        if seen_ns is None:
            return "without a recent state in view"
        return "more than a second ago" if now_ns - seen_ns > MAX_REQUEST_AGE_NS else ""

    def _granted(self, role: Role) -> bool:
        """Whether the key of the newest request may still have that role."""
        if self._gatekeeper is None:
            return True
        client = self._gatekeeper.client(self._control.user)
        return client is not None and role in client.roles

    def _hello(self, peer: bytes, request_id: int, hello: Hello) -> None:
        if hello.protocol != PROTOCOL_VERSION:
            self._answer(peer, request_id, f"protocol {hello.protocol} asked for, this bridge speaks {PROTOCOL_VERSION}")
            return
        if not 1 <= len(hello.sender) <= MAX_NAME or not hello.sender.isprintable():
            self._answer(peer, request_id, f"sender: 1 to {MAX_NAME} printable characters")
            return
        if refusal := self._role_refusal(hello):
            self._answer(peer, request_id, refusal)
            return
        while len(self._peers) >= MAX_PEERS:
            self._peers.pop(next(iter(self._peers)))
        self._peers[peer] = (hello.sender, hello.role, self._control.user)
        reply = Reply(session=self.session, spec=self._spec, t_ns=time.monotonic_ns())
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
            self._answer(peer, request_id, f"role {role} may not command")
            return
        if lease.release:
            self.lease.release(sender)
            self._answer(peer, request_id)
            return
        before = self.lease.grants
        try:
            token = self.lease.ask(sender, peer, lease.device_kind, now_ns)
        except LeaseRefused as error:
            self._answer(peer, request_id, str(error))
            return
        if self.lease.grants != before:
            # a new grant: nothing that was commanded before counts any more
            self._command_seq = -1
            self.inbox.command = None
            self.event("lease", f"granted to {sender}")
        self._control.send(peer, ReplyEnvelope(request_id=request_id, reply=Reply(session=self.session, lease=token)))

    def _answer(self, peer: bytes, request_id: int, error: str = "") -> None:
        reply = Reply(session=self.session, error=error, t_ns=time.monotonic_ns())
        self._control.send(peer, ReplyEnvelope(request_id=request_id, reply=reply))

    def _on_record(self) -> None:
        while (received := self._record.receive()) is not None:
            peer, message = received
            now = time.monotonic_ns()
            if self._record.user != self._recorder_user and 0 <= self.records.heartbeat_age_ns(now) < RECORDER_LIFE_NS:
                self._refuse("recorder", "another one is at work", now)
                continue
            self._recorder_user = self._record.user
            self.records.heard_ns = now
            ours = message.session == self.session
            if peer != self._recorder or (isinstance(message, RecorderHello) and now - self._rewound_ns > REWIND_NS):
                self._recorder, self._rewound_ns = peer, now
                self.records.rewind(message.acked_rec_seq if ours else -1)
            if not isinstance(message, RecorderHello):
                self.records.disk_free_bytes = message.disk_free_bytes
                self.records.error = message.error
            if ours:
                self.records.acknowledge(message.acked_rec_seq)
        self.inbox.notify()
