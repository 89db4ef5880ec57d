"""A station in one test: the real bridge on real sockets, with the smallest recorder, actor and operator that speak the protocol."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from takeover.data.schema import (
    AnyRecord,
    Clear,
    Command,
    ControlRequest,
    EpisodeEnd,
    EpisodeKind,
    EpisodeStart,
    Event,
    Lease,
    Mode,
    Next,
    Observation,
    PolicyAction,
    Privileged,
    Ready,
    RecordAck,
    RecorderHello,
    RecorderMessage,
    Reply,
    Resume,
    RobotSpec,
    Role,
    RunConfig,
    SetOutcome,
    Start,
    State,
    Step,
)
from takeover.robot_bridge.bridge import Bridge
from takeover.robot_bridge.protocol import ControlClient, Dealer, Endpoints, Push, Subscriber, wait
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.robots.sim_cameras import SimCameras
from tests.patience import patient


class Peer:
    """A thread that owns its sockets."""

    def __init__(self, run: Callable[[threading.Event], None]) -> None:
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=run, args=(self.stopping,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self._thread.join(patient(5.0))


class Recorder:
    """Acknowledges at once, keeps everything in memory. ``acknowledge`` False: silent."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.records: list[AnyRecord] = []
        self.received = 0
        self.acknowledge = True
        self.error = ""
        self._endpoints = endpoints
        self.peer = Peer(self._run)

    def _run(self, stopping: threading.Event) -> None:
        with Dealer[RecorderMessage, AnyRecord](self._endpoints, "record", RecorderMessage, AnyRecord) as dealer:
            session, acked = "", -1
            dealer.send(RecorderHello(session=session, acked_rec_seq=acked))
            beat = 0.0
            while not stopping.is_set():
                record = dealer.receive(0.05)
                while record is not None:
                    self.received += 1
                    if record.session != session:
                        session = record.session
                        acked = max((r.rec_seq for r in self.records if r.session == session), default=-1)
                        dealer.send(RecorderHello(session=session, acked_rec_seq=acked))
                    if record.rec_seq == acked + 1:
                        self.records.append(record)
                        acked += 1
                        beat = 0.0
                    record = dealer.receive(0.0)
                if self.acknowledge and time.monotonic() >= beat:
                    beat = time.monotonic() + 0.1
                    dealer.send(
                        RecordAck(session=session, acked_rec_seq=acked, disk_free_bytes=10**11, episodes_closed=0, error=self.error)
                    )

    def of(self, kind: type) -> list[Any]:
        return [record for record in list(self.records) if isinstance(record, kind)]

    @property
    def steps(self) -> list[Step]:
        return self.of(Step)

    @property
    def newest_mode(self) -> Mode | None:
        """Mode of the newest step; None before the first."""
        steps = self.steps
        return steps[-1].mode if steps else None

    @property
    def starts(self) -> list[EpisodeStart]:
        return self.of(EpisodeStart)

    @property
    def ends(self) -> list[EpisodeEnd]:
        return self.of(EpisodeEnd)

    @property
    def events(self) -> list[Event]:
        return self.of(Event)


class Actor:
    """Answers every observation with ``act(observation)`` (A,), at once."""

    def __init__(self, endpoints: Endpoints, act: Callable[[Observation], list[float]], latest: bool = True) -> None:
        self.act = act
        self.silent = False
        self.more: Callable[[Observation], dict[str, Any]] = lambda _: {}  # other fields of an answer
        self._endpoints = endpoints
        self._latest = latest
        self.peer = Peer(self._run)

    def _run(self, stopping: threading.Event) -> None:
        with (
            Subscriber[Observation](self._endpoints, "observation", Observation, latest=self._latest) as observations,
            Push[PolicyAction](self._endpoints, "policy_action", PolicyAction) as answers,
        ):
            while not stopping.is_set():
                observation = observations.receive(0.05)
                if observation is None or self.silent:
                    continue
                answers.send(
                    PolicyAction(
                        session=observation.session,
                        from_seq=observation.seq,
                        actions=[self.act(observation)],
                        valid_until_seq=observation.seq,
                        policy_version=max(1, observation.required_version),
                        **self.more(observation),
                    )
                )


class Operator:
    """A person at a device: set attributes, they are sent at 50 Hz. In lockstep ``answer`` decides per privileged observation."""

    def __init__(self, endpoints: Endpoints, name: str = "console", kind: str = "gamepad", lockstep: bool = False) -> None:
        self.client = ControlClient(endpoints, name, Role.OPERATOR)
        hello = self.client.hello("test", 5.0)
        assert hello.spec is not None
        self.spec: RobotSpec = hello.spec
        self.session = hello.session
        self.name = name
        self.kind = kind
        self.lease = ""
        self.deadman = False
        self.alive = self.focused = self.gui_alive = True
        self.action = [0.0] * self.spec.action.size
        self.sending = True
        self.frozen_state_seq = -1
        self.state: State | None = None
        self.answer: Callable[[Privileged], tuple[bool, list[float]]] | None = None
        self._lockstep = lockstep
        self._endpoints = endpoints
        self._seq = 0
        self.peer = Peer(self._run)

    def ask(self, request: ControlRequest) -> Reply:
        asked_ns = time.monotonic_ns()
        while (
            isinstance(request, SetOutcome | Next | Clear | Start | Resume | Ready) and time.monotonic_ns() - asked_ns < 2e8
        ):  # of what a test has just seen elsewhere
            if self.state is not None and self.state.t_ns > asked_ns:
                break
            time.sleep(0.002)
        self.client.newest_state_seq = self.state.seq if self.state is not None else -1
        return self.client.ask(request, 5.0)

    def take_lease(self) -> Reply:
        reply = self.ask(Lease(sender=self.name, device_kind=self.kind))
        self.lease = reply.lease or self.lease
        return reply

    def drive(self, action: list[float], until: Callable[[State], bool], timeout_s: float = 20.0) -> bool:
        """Press the deadman and drive until it is so; let go and press again if the robot was held, as a person would."""
        deadline, pressed_s = time.monotonic() + timeout_s, 0.0
        while time.monotonic() < deadline:
            state = self.state
            if state is not None and until(state):
                return True
            if (state is None or state.mode is not Mode.TAKEOVER) and time.monotonic() > pressed_s + 2.0:
                self.deadman, self.action = False, [0.0] * len(action)
                time.sleep(0.25)
                self.action, self.deadman, pressed_s = action, True, time.monotonic()
            time.sleep(0.02)
        return False

    def command(self, for_step_seq: int = -1, **changes: Any) -> Command:
        self._seq += 1
        fields: dict[str, Any] = {
            "session": self.session,
            "sender": self.name,
            "seq": self._seq,
            "lease": self.lease,
            "device_id": f"{self.kind}-0",
            "device_kind": self.kind,
            "device_alive": self.alive,
            "deadman": self.deadman and self.alive,
            "neutral": not self.deadman and not any(self.action),
            "focused": self.focused,
            "gui_alive": self.gui_alive,
            "action": list(self.action),
            "authority": self.spec.action.group_names,
            "newest_state_seq": self.state.seq if self.state is not None and self.frozen_state_seq < 0 else self.frozen_state_seq,
            "for_step_seq": for_step_seq,
        }
        return Command(**(fields | changes))

    def _run(self, stopping: threading.Event) -> None:
        with (
            Subscriber[State](self._endpoints, "state", State) as states,
            Subscriber[Privileged](self._endpoints, "privileged", Privileged, latest=False) as privileged,
            Push[Command](self._endpoints, "command", Command) as commands,
        ):
            while not stopping.is_set():
                wait([privileged] if self._lockstep else [states], 0.02)
                self.state = states.receive() or self.state
                while (truth := privileged.receive()) is not None:
                    if self._lockstep and self.answer is not None and self.sending:
                        self.deadman, self.action = self.answer(truth)
                        commands.send(self.command(truth.seq))
                if not self._lockstep and self.sending and self.lease:
                    commands.send(self.command())
                    time.sleep(0.01)

    def close(self) -> None:
        self.peer.stop()
        self.client.close()


class Station:
    """The bridge in a thread of this process, and its peers."""

    def __init__(self, folder: Path, hardware: Any = None, *, link: bool = True, **config: Any) -> None:
        """``link`` False: its state is not watched from here (a bridge on a network shows it to admitted keys only)."""
        folder.mkdir(parents=True, exist_ok=True)
        defaults: dict[str, Any] = {
            "session_id": "test",
            "workspace": str(folder),
            "sockets": str(folder / "s"),
            "cameras": False,
            "learner": "none",
        }
        self.config = RunConfig(**(defaults | config))
        self.endpoints = Endpoints(self.config.sockets)
        self.robot: Any = hardware or SimRobot(self.config.task)
        cameras = SimCameras(self.robot) if self.config.cameras else None
        self.bridge = Bridge(self.config, self.robot, cameras, "test")
        self._stop = threading.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self.bridge.run, args=(self._stop.is_set, self._started.set), daemon=True)
        self._thread.start()
        assert self._started.wait(10.0)
        self.closers: list[Callable[[], None]] = []
        if link:
            self._states: Subscriber[State] = Subscriber(self.endpoints, "state", State)
            self.closers.append(self._states.close)

    def recorder(self) -> Recorder:
        recorder = Recorder(self.endpoints)
        self.closers.append(recorder.peer.stop)
        return recorder

    def actor(self, act: Callable[[Observation], list[float]] | None = None) -> Actor:
        size = self.robot.spec.action.size
        actor = Actor(self.endpoints, act or (lambda _: [0.0] * size), latest=self.config.clock == "realtime")
        self.closers.append(actor.peer.stop)
        return actor

    def operator(self, name: str = "console", kind: str = "gamepad") -> Operator:
        operator = Operator(self.endpoints, name, kind, lockstep=self.config.clock == "lockstep")
        self.closers.append(operator.close)
        return operator

    def state(self, timeout_s: float = 2.0) -> State:
        """The next state; raises when the heartbeat is missing."""
        state = self._states.receive(patient(timeout_s))
        if state is None:
            raise TimeoutError("no state from the bridge")
        return state

    def until(self, condition: Callable[[State], bool], timeout_s: float = 8.0) -> State:
        deadline = time.monotonic() + patient(timeout_s)
        while True:
            state = self.state()
            if condition(state):
                return state
            if time.monotonic() > deadline:
                raise TimeoutError(f"condition not met; last state: {state.mode} {state.hold_reason} {state.hold_detail} gate {state.gate}")

    def until_mode(self, mode: Mode, timeout_s: float = 8.0) -> State:
        return self.until(lambda state: state.mode is mode, timeout_s)

    def start(self, operator: Operator, kind: EpisodeKind = EpisodeKind.POLICY, episodes: int = 0) -> None:
        """Start a block as soon as the bridge's partners are there."""
        deadline = time.monotonic() + patient(8.0)
        while error := operator.ask(Start(sender=operator.name, kind=kind, episodes=episodes)).error:
            if time.monotonic() > deadline:
                raise TimeoutError(error)
            time.sleep(0.05)

    def drive(self, operator: Operator, action: list[float]) -> None:
        """Press the deadman and drive; again if a busy machine made the press late."""
        for _ in range(8):
            operator.deadman, operator.action = False, [0.0] * len(action)
            time.sleep(0.25)
            operator.action, operator.deadman = action, True
            with contextlib.suppress(TimeoutError):
                self.until_mode(Mode.TAKEOVER, 3.0)
                return
        raise TimeoutError("eight presses did not take over")

    def close(self) -> None:
        for close in self.closers:
            close()
        self._stop.set()
        self._thread.join(patient(5.0))
        assert not self._thread.is_alive()


def eventually(condition: Callable[[], bool], timeout_s: float = 8.0) -> bool:
    """Whether ``condition`` becomes true in time."""
    deadline = time.monotonic() + patient(timeout_s)
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@contextlib.contextmanager
def station(folder: Path, **config: Any) -> Iterator[Station]:
    """A running bridge; closed with everything that was made for it."""
    made = Station(folder, **config)
    try:
        yield made
    finally:
        made.close()
