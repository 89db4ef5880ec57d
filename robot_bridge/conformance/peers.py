"""The other side of a bridge under test: operator, actor and recorder on one thread, and a control client that can also misbehave."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
import zmq

from takeover.data.schema import (
    AnyRecord,
    Command,
    ControlEnvelope,
    Observation,
    PolicyAction,
    RecordAck,
    RecorderHello,
    RecorderMessage,
    ReplyEnvelope,
    State,
)
from takeover.robot_bridge.protocol import Dealer, Endpoints, Push, Subscriber, wait

COMMAND_PERIOD_S = 0.02
KEPT = 4000  # messages of each kind

Answer = Callable[[Observation], PolicyAction | None]


def raw(topic: str, message: Any) -> bytes:
    """A frame with any content."""
    return topic.encode() + b"\0" + msgspec.msgpack.encode(message)


def padded(topic: str, fields: dict[str, Any], key: str, size: int) -> bytes:
    """A frame of exactly ``size`` bytes, made so long by the text in ``key``; shorter ones (as 0) leave it as it is."""
    frame = raw(topic, fields)
    for _ in range(3):  # the header of a text grows with it
        if len(frame) < size:
            fields = fields | {key: fields[key] + "x" * (size - len(frame))}
        elif len(frame) > size > 0:
            fields = fields | {key: fields[key][: size - len(frame)]}
        frame = raw(topic, fields)
    return frame


class Peers(threading.Thread):
    """Keeps what the bridge says; sends what the attributes say. Attributes are replaced whole, by the thread that makes the checks."""

    def __init__(self, endpoints: Endpoints) -> None:
        super().__init__(daemon=True, name="peers")
        self._endpoints = endpoints
        self._closing = threading.Event()
        self.states: deque[tuple[float, State]] = deque(maxlen=KEPT)
        self.observations: deque[tuple[float, Observation]] = deque(maxlen=KEPT)
        self.records: list[AnyRecord] = []
        self.repeated = 0  # records that came again
        self.out_of_order: list[str] = []
        self.command: dict[str, Any] | None = None  # fields of every command; None: silent
        self.frozen_state_seq: int | None = None
        self.command_seq = 0
        self.answer: Answer | None = None
        self.recorder = False
        self.acknowledge = True
        self.rejoin = False  # the recorder says hello again, as after a reconnect
        self._greet = False  # a hello of the recorder is due
        self.outgoing: deque[tuple[str, bytes]] = deque()
        self._stall_s = 0.0

    def stall_s(self) -> float:
        """The longest that this thread has done nothing since this was last asked, s: a busy computer's doing."""
        longest, self._stall_s = self._stall_s, 0.0
        return longest

    @property
    def state(self) -> State | None:
        return self.states[-1][1] if self.states else None

    @property
    def acked(self) -> int:
        return self.records[-1].rec_seq if self.records else -1

    def close(self) -> None:
        self._closing.set()
        self.join(5.0)

    def run(self) -> None:
        with (
            Subscriber[State](self._endpoints, "state", State, latest=False) as states,
            Subscriber[Observation](self._endpoints, "observation", Observation, latest=False) as observations,
            Push[Command](self._endpoints, "command", Command) as commands,
            Push[PolicyAction](self._endpoints, "policy_action", PolicyAction) as answers,
        ):
            record: Dealer[RecorderMessage, AnyRecord] | None = None
            next_command = next_beat = 0.0
            turned = time.monotonic()
            while not self._closing.is_set():
                wait([states, observations] if record is None else [states, observations, record], 0.005)
                now = time.monotonic()
                self._stall_s, turned = max(self._stall_s, now - turned), now
                while (state := states.receive()) is not None:
                    self.states.append((now, state))
                while (observation := observations.receive()) is not None:
                    self.observations.append((now, observation))
                    answer = self.answer(observation) if self.answer is not None else None
                    if answer is not None:
                        answers.send(answer)
                while self.outgoing:
                    topic, data = self.outgoing.popleft()
                    try:
                        (commands if topic == "command" else answers).socket.send(data, zmq.NOBLOCK)
                    except zmq.Again:
                        continue  # the bridge has closed this connection; what it says of that is what counts
                if self.command is not None and now >= next_command:
                    next_command = now + COMMAND_PERIOD_S
                    commands.send(self.made())
                if (record is not None) != self.recorder or self.rejoin:
                    record = self._reconnected(record)
                if record is not None:
                    if self._greet and self.state is not None:
                        # over a network nothing is sent before the connection is there
                        self._greet = not record.send(RecorderHello(session=self.state.session, acked_rec_seq=self.acked))
                    self._receive(record)
                    if self.acknowledge and now >= next_beat:
                        next_beat = now + 0.1
                        session = self.state.session if self.state is not None else ""
                        record.send(RecordAck(session=session, acked_rec_seq=self.acked, disk_free_bytes=10**12, episodes_closed=0))
            if record is not None:
                record.close()

    def made(self, **changes: Any) -> Command:
        """The next command."""
        self.command_seq += 1
        seen = self.state.seq if self.state is not None else -1
        newest = seen if self.frozen_state_seq is None else self.frozen_state_seq
        return Command(**({**(self.command or {}), "seq": self.command_seq, "newest_state_seq": newest} | changes))

    def _reconnected(self, record: Dealer[RecorderMessage, AnyRecord] | None) -> Dealer[RecorderMessage, AnyRecord] | None:
        if record is not None:
            record.close()
        self.rejoin = False
        if not self.recorder or self.state is None:
            return None
        made: Dealer[RecorderMessage, AnyRecord] = Dealer(self._endpoints, "record", RecorderMessage, AnyRecord)
        self._greet = True
        return made

    def _receive(self, record: Dealer[RecorderMessage, AnyRecord]) -> None:
        while (item := record.receive()) is not None:
            if self.records and item.rec_seq <= self.acked:
                self.repeated += 1
            elif self.records and item.rec_seq != self.acked + 1:
                self.out_of_order.append(f"{item.rec_seq} after {self.acked}")
            else:
                self.records.append(item)


class RawClient:
    """A control connection that sends whatever it is told to."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._dealer: Dealer[ControlEnvelope, ReplyEnvelope] = Dealer(endpoints, "control", ControlEnvelope, ReplyEnvelope)
        self._next = time.monotonic_ns()

    def ask(self, request: dict[str, Any], timeout_s: float = 1.0, /, **envelope: Any) -> ReplyEnvelope | None:
        """Send the request as it is; the reply, or None."""
        self._next += 1
        self.send(raw("control", {"request_id": self._next, "request": request} | envelope))
        return self._dealer.receive(timeout_s)

    def send(self, data: bytes) -> None:
        self._dealer.socket.send(data)

    def receive(self, timeout_s: float) -> ReplyEnvelope | None:
        return self._dealer.receive(timeout_s)

    def close(self) -> None:
        self._dealer.close()

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
