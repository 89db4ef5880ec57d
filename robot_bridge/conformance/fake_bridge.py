"""A bridge without a robot, for the check of an actor: answers the handshake, publishes observations, keeps the answers."""

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import msgspec

from takeover.data.schema import (
    PROTOCOL_VERSION,
    ControlEnvelope,
    Hello,
    HoldReason,
    Mode,
    Observation,
    PolicyAction,
    Reply,
    ReplyEnvelope,
    RobotSpec,
    State,
)
from takeover.robot_bridge.protocol import BadMessage, Endpoints, Publisher, Pull, Router, wait
from takeover.robot_bridge.recordable import answer_bytes

STATE_PERIOD_S = 0.02


@dataclass(frozen=True)
class Answered:
    """An answer, and when it came (monotonic s)."""

    t_s: float
    answer: PolicyAction


class FakeBridge(threading.Thread):
    """Binds the sockets that an actor uses. Attributes are replaced whole by the thread that makes the checks."""

    def __init__(self, endpoints: Endpoints, spec: RobotSpec) -> None:
        super().__init__(daemon=True, name="fake bridge")
        endpoints.prepare()
        self.spec = spec
        self.session = "01check1"
        self.refuse = ""  # the error that answers a hello
        self.pace_hz = 0.0  # observations are published at this rate; 0: only those that are asked for
        self.mode = Mode.READY
        self.hellos: list[Hello] = []
        self.errors: list[str] = []  # what could not be read
        self.answers: deque[Answered] = deque(maxlen=20_000)
        self.sent: dict[int, float] = {}  # seq -> monotonic s, of this session
        self.seq = -1
        self._flush = False
        self._extra: deque[bytes] = deque()
        self._closing = threading.Event()
        self._state: Publisher[State] = Publisher(endpoints, "state", State)
        self._observation: Publisher[Observation] = Publisher(endpoints, "observation", Observation)
        self._control: Router[ControlEnvelope, ReplyEnvelope] = Router(endpoints, "control", ControlEnvelope, ReplyEnvelope)
        self._policy: Pull[PolicyAction] = Pull(endpoints, "policy_action", PolicyAction, answer_bytes(spec.action.size))

    def close(self) -> None:
        self._closing.set()
        if self.is_alive():
            self.join(5.0)
        for socket in (self._state, self._observation, self._control, self._policy):
            socket.close()

    def restart(self, session: str) -> None:
        """Become another session, as after a restart of the bridge."""
        self.session, self.seq, self.sent = session, -1, {}

    def flush(self) -> None:
        """The next observation says flush."""
        self._flush = True

    def send_raw(self, data: bytes) -> None:
        self._extra.append(data)

    def observation(self, **changes: Any) -> Observation:
        """The next observation in mode ``mode``; the point is half-way to its goal and does not move."""
        self.seq += 1
        flush, self._flush = self._flush, False
        fields: dict[str, Any] = {
            "session": self.session,
            "seq": self.seq,
            "t_robot_ns": time.monotonic_ns(),
            "mode": self.mode,
            "episode_id": "01checkepisode",
            "episode_step": self.seq,
            "run_id": 0,
            "observation": [0.05] * self.spec.observation.size,
            "flush": flush,
        }
        return Observation(**(fields | changes))

    def publish(self, observation: Observation) -> None:
        """From the thread that makes the checks, while ``pace_hz`` is 0."""
        self.sent[observation.seq] = time.monotonic()
        self.send_raw(b"observation\0" + msgspec.msgpack.encode(observation))

    def run(self) -> None:
        next_state = next_observation = 0.0
        state_seq = 0
        while not self._closing.is_set():
            wait([self._control, self._policy], 0.002)
            now = time.monotonic()
            while (received := self._control.receive_raw()) is not None:
                self._answer(*received)
            while (answer := self._policy.receive()) is not None:
                self.answers.append(Answered(time.monotonic(), answer))
            while self._extra:
                self._observation.socket.send(self._extra.popleft())
            if self.pace_hz and now >= next_observation:
                next_observation = max(next_observation + 1.0 / self.pace_hz, now)
                observation = self.observation()
                self.sent[observation.seq] = now
                self._observation.send(observation)
            if now >= next_state:
                next_state = now + STATE_PERIOD_S
                self._state.send(self._composed(state_seq))
                state_seq += 1

    def _answer(self, peer: bytes, data: bytes) -> None:
        request_id, error = -1, "only hello is answered here"
        spec = None
        try:
            envelope = self._control.decode(data)
            request_id = envelope.request_id
            if isinstance(envelope.request, Hello):
                self.hellos.append(envelope.request)
                wrong = envelope.request.protocol != PROTOCOL_VERSION
                error = self.refuse or (f"protocol {envelope.request.protocol}, this speaks {PROTOCOL_VERSION}" if wrong else "")
                spec = None if error else self.spec
        except BadMessage as bad:
            error = f"bad request: {bad}"
            self.errors.append(error)
        self._control.send(peer, ReplyEnvelope(request_id=request_id, reply=Reply(session=self.session, error=error, spec=spec)))

    @property
    def bad_answers(self) -> int:
        """Messages on `policy_action` that could not be read."""
        return self._policy.bad_messages

    def _composed(self, seq: int) -> State:
        size, now_ns = self.spec.action.size, time.monotonic_ns()
        return State(
            session=self.session,
            seq=seq,
            t_ns=now_ns,
            mode=self.mode,
            mode_since_ns=0,
            hold_reason=HoldReason.NONE,
            hold_detail="",
            step_seq=self.seq,
            source=[0] * len(self.spec.action.groups),
            observation=[0.05] * self.spec.observation.size,
            tool_position=[0.0] * 3,
            tool_velocity=[0.0] * 3,
            tool_yaw=0.0,
            gripper_width_m=0.0,
            force_n=[0.0] * 3,
            action=[0.0] * size,
            human_action=None,
            policy_action=None,
            commander="",
            device_id="",
            command_age_ms=-1.0,
            policy_age_ms=-1.0,
            picture_age_ms={},
            speed_scale=1.0,
            episode_id="",
            episode_kind=None,
            episode_number=-1,
            episode_step=0,
            episode_max_steps=self.spec.max_steps,
            episode_time_s=0.0,
            intervention_id=-1,
            block_done=0,
            block_size=0,
            last_outcome=None,
            last_outcome_episode="",
            policy_version=0,
            lateness_p99_ms=0.0,
            safety_counts={},
            record_backlog=0,
            recorder_age_ms=-1.0,
            disk_free_bytes=-1,
            steps_total=0,
            steps_dropped=0,
            steps_late=0,
            train_steps=0,
            takeovers=0,
            human_steps=0,
            resumes=0,
        )
