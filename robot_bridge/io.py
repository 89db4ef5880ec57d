"""The bridge's sockets: one owner, either its own thread (real time) or the control thread itself (lockstep).

STOP is acted on here, at once; everything else is checked, counted and put where the control thread finds it.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from takeover.data.schema import (
    AnyRecord,
    Command,
    ControlEnvelope,
    Event,
    LearnerStatus,
    Observation,
    PolicyAction,
    Privileged,
    RecorderMessage,
    ReplyEnvelope,
    RobotSpec,
    State,
)
from takeover.robot_bridge import chunks, names, recordable
from takeover.robot_bridge.answer_source import AnswerSource
from takeover.robot_bridge.arbitration import command_life_s
from takeover.robot_bridge.control_desk import REMEMBERED_STOPS, ControlDesk
from takeover.robot_bridge.inbox import Inbox, PendingRequest, ReceivedCommand, StateShown
from takeover.robot_bridge.lease import LEASE_LIFE_NS, LeaseTable
from takeover.robot_bridge.mark_rate import MarkRate
from takeover.robot_bridge.peers import Peers
from takeover.robot_bridge.protocol import BadMessage, Endpoints, PollSet, Publisher, Pull, Router, Subscriber, Wakeup, turn
from takeover.robot_bridge.record_desk import RecordDesk
from takeover.robot_bridge.record_log import MAX_EVENT_BACKLOG_BYTES, RecordLog
from takeover.robot_bridge.refusals import Refusal, Refusals
from takeover.robot_bridge.safety import UnsafeAction, checked

log = logging.getLogger("bridge.io")

STATE_PERIOD_NS = 20_000_000
REMEMBERED_STATES = 128  # 2.5 s of them: enough to judge any command that could still be fresh
MAX_EVENT_NAME = 96  # characters of its kind and its source
MAX_EVENT_TEXT = 4000


class BridgeIO(ControlDesk, RecordDesk):
    """All sockets but the cameras'. `pump` and `close` only in the owning thread; `publish`, `reply` and `event` from any."""

    def __init__(self, endpoints: Endpoints, session: str, spec: RobotSpec, stop_robot: Callable[[], None], *, lockstep: bool) -> None:
        self.session = session
        self._gatekeeper = endpoints.gatekeeper
        self.inbox = Inbox()
        self.actor = AnswerSource(self.inbox)
        self.lease = LeaseTable(lapses=not lockstep)
        self.compose_state: Callable[[int, int], State | None] = lambda seq, now_ns: None
        self.on_view_report: Callable[[str, float, str], None] = lambda sender, age_ms, driver: None
        self.refused_commands = 0
        self.refused_connections = 0
        self.bad_messages = 0
        self.refused_requests = 0
        self.where: Callable[[], dict[str, Any]] = dict  # the running episode, for the events of refusals
        self.refusals = Refusals(lambda kind, text, value: self.event(kind, text, value=value, **self.where()))
        self._spec = spec
        self._lockstep = lockstep
        self._command_life_s = command_life_s(1.0 / spec.control_hz)
        self._observation_seq = -1
        self._stop_robot = stop_robot
        self._wakeup = Wakeup()
        self._outbox: deque[Callable[[], None]] = deque()
        self._peers = Peers()
        self._recorder: bytes | None = None
        self._recorder_user = ""
        self._record_key: str | None = None
        self._rewound_ns = 0
        self._served_ns = 0
        self._command_seq = -1
        self._lease_peer = b""  # connection that the lease was granted to
        self.lease_user = ""  # public key that the lease was granted to
        self._state_seq = 0
        self._state_due_ns = 0
        self._state_times: dict[int, int] = {}
        self._marks = MarkRate()
        self._stops_done: deque[tuple[str, int, int]] = deque(maxlen=REMEMBERED_STOPS)
        self.states_shown: dict[int, StateShown] = {}

        self._sockets: list[Any] = []
        self._state: Publisher[State] = self._own(Publisher(endpoints, "state", State))
        self._observation: Publisher[Observation] = self._own(Publisher(endpoints, "observation", Observation))
        self._privileged: Publisher[Privileged] = self._own(Publisher(endpoints, "privileged", Privileged))
        largest = recordable.answer_bytes(spec.action.size)
        self._policy: Pull[PolicyAction] = self._own(Pull(endpoints, "policy_action", PolicyAction, largest))
        self._command: Pull[Command] = self._own(Pull(endpoints, "command", Command))
        self._event: Pull[Event] = self._own(Pull(endpoints, "event", Event))
        self._control: Router[ControlEnvelope, ReplyEnvelope] = self._own(Router(endpoints, "control", ControlEnvelope, ReplyEnvelope))
        self._record: Router[RecorderMessage, AnyRecord] = self._own(Router(endpoints, "record", RecorderMessage, AnyRecord))
        self._learner: Subscriber[LearnerStatus] = self._own(Subscriber(endpoints, "learner_status", LearnerStatus))
        self.records = RecordLog(session, self._record.encode, self._wakeup.set)
        receivers = [self._policy, self._command, self._event, self._control, self._record, self._learner]
        self._poll = PollSet(receivers, self._wakeup)
        for socket in receivers:
            socket.on_bad = partial(self._bad_message, socket)
            socket.on_revoked = partial(self.connection_refused, socket.name)
        self._handlers: dict[int, Callable[[], None]] = {
            id(self._policy): self._on_policy,
            id(self._command): self._on_command,
            id(self._event): self._on_event,
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
        self._outbox.append(lambda: self._reply(request, error))
        self._wakeup.set()

    def event(self, kind: str, text: str = "", **fields: Any) -> None:
        """Record an event of the bridge's own."""
        fields.setdefault("source", "bridge")
        text = text[:MAX_EVENT_TEXT]  # a mark's too
        self.records.append(
            lambda session, rec_seq: Event(
                session=session, rec_seq=rec_seq, kind=kind, text=text, t_ns=time.monotonic_ns(), wall_ns=time.time_ns(), **fields
            )
        )

    def connection_refused(self, stream: str, public_key: str) -> None:
        """Count a connection, or a message, without an admitted key."""
        self.refused_connections += 1
        refusal = Refusal(public_key, f"connection to {stream}", "its key is not admitted to that stream")
        self.refusals.note("client_refused", refusal, time.monotonic_ns())

    def state_now(self) -> None:
        """Publish the state at the next opportunity instead of at its next turn."""
        self._state_due_ns = 0
        self._wakeup.set()

    # --- owning thread ---

    def pump(self, timeout_s: float) -> None:
        """Send what waits, then handle whatever arrives within ``timeout_s`` (one wait), then send what came of it.

        Requests come first and once more after each other stream: a STOP waits for one turn, not for all of them.
        """
        self._flush()
        until_state = (self._state_due_ns - time.monotonic_ns()) / 1e9
        ready = self._poll.wait(max(0.0, min(timeout_s, until_state)))
        if ready:
            self._on_control()
        for socket in ready:
            if socket is not self._control:
                self._handlers[id(socket)]()
                self._on_control()
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
                self.states_shown.pop(self._state_seq - REMEMBERED_STATES, None)
                self._state_seq += 1

    def _on_policy(self) -> None:
        for message in turn(self._policy.receive):
            now, who = time.monotonic_ns(), names.author(self._gatekeeper, self._policy.user, "actor")
            if refusal := self._answer_refusal(message, who, now):
                self._refuse(refusal, now)
                continue
            if changed := self.actor.took(message, self._policy.user, who):
                self.event("actor", changed, value=message.policy_version, **self.where())
            self.inbox.chunk = chunks.received(message, self._spec.action.size, now)
            if self.inbox.chunk.fault:
                self._refuse(Refusal(who, "actions of the answer", self.inbox.chunk.fault), now)
        self.inbox.notify()

    def _answer_refusal(self, answer: PolicyAction, who: str, now_ns: int) -> Refusal | None:
        """Why an answer does not count: of another session or actor, overtaken by a newer one, or to what was never asked."""
        if answer.session != self.session:
            return Refusal(who, "session of the answer", f"made for another session than {self.session}", answer.session)
        if refusal := recordable.answer_refusal(answer, who):
            return refusal
        newest = self.inbox.policy
        if self._lockstep:
            return None  # only the answer to the very step counts there
        if refusal := self.actor.refusal(answer, self._policy.user, who, now_ns):
            return refusal
        if newest is not None and answer.from_seq < newest.from_seq:
            return Refusal(who, "from_seq of the answer", f"older than the newest answer, to {newest.from_seq}", answer.from_seq)
        if answer.from_seq > self._observation_seq:
            limit = f"to an observation that was never sent; the newest is {self._observation_seq}"
            return Refusal(who, "from_seq of the answer", limit, answer.from_seq)
        return None

    def _on_learner(self) -> None:
        for message in turn(self._learner.receive):
            self.inbox.learner = message
            self.inbox.learner_arrival_ns = time.monotonic_ns()
        self.inbox.notify()

    def _on_event(self) -> None:
        for message in turn(self._event.receive):
            source = names.source(self._gatekeeper, self._event.user, message.source[:MAX_EVENT_NAME])
            if self.records.bytes > MAX_EVENT_BACKLOG_BYTES:
                limit = f"nobody may fill the memory with words: {self.records.bytes} bytes wait, at most {MAX_EVENT_BACKLOG_BYTES}"
                self._refuse(Refusal(source, "event", limit, message.kind), time.monotonic_ns())
                continue
            if refusal := recordable.event_refusal(message, source):
                self._refuse(refusal, time.monotonic_ns())
                continue
            self.event(message.kind[:MAX_EVENT_NAME], message.text, source=source, value=message.value)

    def _on_command(self) -> None:
        for command in turn(self._command.receive):
            now = time.monotonic_ns()
            refusal = self._refusal(command, now)
            if refusal:
                self._refuse(refusal, now)
                continue
            self._command_seq = command.seq
            try:
                checked(command.action, self._spec.action.size, "command")
            except UnsafeAction as error:  # it holds the robot all the same: whoever sends it drives
                who = names.author(self._gatekeeper, self._command.user, command.sender)
                self._refuse(Refusal(who, "action of the command", str(error), command.action), now)
            received = ReceivedCommand(command, now, self._state_times.get(command.newest_state_seq, 0), self.lease.person)
            age_s = 0.0 if self._lockstep else received.age_s(now)
            in_time = age_s <= self._command_life_s  # who commands too late to take over watches nothing
            self.lease.heard(command.device_kind, now, age_s=age_s, present=command.gui_alive and in_time)
            self.inbox.command = received
        self.inbox.notify()

    def _refusal(self, command: Command, now_ns: int) -> Refusal | None:
        """Why a command does not count; the token itself is never told."""

        def refused(field: str, limit: str, value: object = None) -> Refusal:
            return Refusal(names.author(self._gatekeeper, self._command.user, command.sender), f"{field} of the command", limit, value)

        if command.session != self.session:
            return refused("session", f"made for another session than {self.session}", command.session)
        if not self.lease.token or command.lease != self.lease.token or command.sender != self.lease.sender:
            return refused("lease", f"sender does not hold the lease; {self.lease.holder(now_ns) or 'nobody'} does")
        if self._command.user != self.lease_user:
            return refused("lease", "sender does not hold the lease: it was granted to another key")
        if not self.lease.holder(now_ns):
            return refused("lease", f"the lease has lapsed: silent for more than {LEASE_LIFE_NS / 1e9} s")
        if command.seq <= self._command_seq:
            return refused("seq", f"old sequence number, only above {self._command_seq}", command.seq)
        if limit := recordable.device_limit(command):
            return refused("device_id", limit, command.device_id)
        unknown = set(command.authority) - set(self._spec.action.group_names)
        if command.deadman and not command.authority:
            limit = f"the deadman is pressed for no action group; known: {', '.join(self._spec.action.group_names)}"
            return refused("authority", limit, command.authority)
        if unknown:
            limit = f"unknown action group {', '.join(sorted(unknown))}; known: {', '.join(self._spec.action.group_names)}"
            return refused("authority", limit, command.authority)
        return None

    def _refuse(self, refusal: Refusal, now_ns: int) -> None:
        """Count a refused command, answer, event or message of the recorder, and tell of it."""
        self.refused_commands += 1
        self.refusals.note("command_refused", refusal, now_ns)

    def _bad_message(self, socket: Any, error: BadMessage, peer: bytes) -> None:
        """Count a message that cannot be read. Nothing in it is believed, its sender's name neither."""
        self.bad_messages += 1
        sender = (self._peers.at(peer).sender if socket is self._control else "") or "somebody"
        field = f"{error.field} of the message on {socket.name}" if error.field else f"message on {socket.name}"
        refusal = Refusal(names.author(self._gatekeeper, socket.user, sender), field, error.reason, error.value)
        self.refusals.note("bad_message", refusal, time.monotonic_ns())
