"""The real-time bridge without its threads: real sockets, the real loop, the real simulator; a test makes every step itself.

What is tested so depends on no scheduler: silence is made by setting what was heard last back in time.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from takeover.data.schema import Command, ControlRequest, EpisodeKind, Event, Mode, PolicyAction, Reply, Role, RunConfig, Step
from takeover.robot_bridge import chunks
from takeover.robot_bridge.bridge import Bridge
from takeover.robot_bridge.inbox import PendingRequest, ReceivedCommand
from takeover.robot_bridge.modes import ModeEvent
from takeover.robot_bridge.protocol import ControlClient
from takeover.robot_bridge.realtime import RealTimeLoop
from takeover.robot_bridge.robots.sim import SimRobot

SECOND = 1_000_000_000


class ByHand:
    """`tick` is one control step; before it the policy answers, the person commands and the recorder acknowledges, unless told not to."""

    def __init__(self, folder: Path, robot: Any = None, cameras: Any = None, **config: Any) -> None:
        defaults: dict[str, Any] = {"cameras": False, "learner": "none", "workspace": str(folder), "sockets": str(folder / "s")}
        self.config = RunConfig(session_id="test", **(defaults | config))
        self.robot = robot or SimRobot(self.config.task)
        self.bridge = Bridge(self.config, self.robot, cameras, "test")
        self.io = self.bridge.io
        control = self.bridge.control
        assert isinstance(control, RealTimeLoop)
        self.control = control
        control.reading = self.robot.read()
        control.change(ModeEvent.CONNECT)
        self.answers: list[list[float]] | None = [[0.0] * 4]
        self.commands = True
        self.deadman = False
        self.action = [0.0] * 4
        self.kind = "gamepad"
        self.authority = control.spec.action.group_names
        self.age_s = 0.0
        self.recorder = True
        self.records: list[Any] = []
        self.errors: list[str] = []
        self._seq = 0
        self.token = self.io.lease.ask("console", b"console", "gamepad", time.monotonic_ns())
        self.io.reply = lambda request, error="": self.errors.append(error)  # type: ignore[method-assign]
        append = self.io.records.append

        def kept(make: Any) -> int:
            self.records.append(make("", 0))
            return append(make)

        self.io.records.append = kept  # type: ignore[method-assign]

    @property
    def mode(self) -> Mode:
        return self.control.mode.mode

    @property
    def steps(self) -> list[Step]:
        return [record for record in self.records if isinstance(record, Step)]

    def events(self, kind: str) -> list[Event]:
        return [record for record in self.records if isinstance(record, Event) and record.kind == kind]

    def command(self, **changes: Any) -> Command:
        self._seq += 1
        fields: dict[str, Any] = {
            "session": self.io.session,
            "sender": "console",
            "seq": self._seq,
            "lease": self.token,
            "device_id": "pad",
            "device_kind": self.kind,
            "device_alive": True,
            "deadman": self.deadman,
            "neutral": not self.deadman and not any(self.action),
            "focused": True,
            "gui_alive": True,
            "action": list(self.action),
            "authority": self.authority,
            "newest_state_seq": 0,
        }
        return Command(**(fields | changes))

    def answer(self, from_seq: int, rows: list[list[float]]) -> None:
        made = PolicyAction(
            session=self.io.session, from_seq=from_seq, actions=rows, valid_until_seq=from_seq + len(rows) - 1, policy_version=1
        )
        self.io.inbox.chunk = chunks.received(made, self.control.spec.action.size, time.monotonic_ns())

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            now = time.monotonic_ns()
            if self.recorder:
                self.io.records.heard_ns = now
                self.io.records.unsent(1 << 30)
                self.io.records.acknowledge(self.io.records.sent - 1)
            if self.answers is not None:
                self.answer(self.control.seq + 1, self.answers)
            if self.commands:
                self.io.lease.heard("gamepad", now)
                then = now - int(self.age_s * SECOND)
                self.io.inbox.command = ReceivedCommand(self.command(), then, then, self.io.lease.person)
            self.control._deadline = time.monotonic_ns()
            self.control.guarded_tick()

    def ask(self, request: ControlRequest, role: Role = Role.OPERATOR, sender: str = "console") -> str:
        """What the control thread answers, within one tick; "" when it did what was asked."""
        self.io.inbox.requests.append(PendingRequest(b"x", 1, request, sender, role, sender.encode()))
        before = len(self.errors)
        self.tick()
        assert len(self.errors) == before + 1
        return self.errors[-1]

    def run(self, kind: EpisodeKind = EpisodeKind.POLICY) -> None:
        """Until the policy drives (or a demonstration waits for its press)."""
        self.control.book.start_block(kind, 0)
        self.control.begin_reset()
        self.tick(3)
        assert self.mode is (Mode.READY if kind is EpisodeKind.DEMONSTRATION else Mode.POLICY)

    def take_over(self) -> None:
        self.tick()
        self.deadman, self.action = True, [0.5, 0.0, 0.0, 0.0]
        self.tick()
        assert self.mode is Mode.TAKEOVER

    # --- over the sockets ---

    def client(self, name: str = "console", role: Role = Role.OPERATOR) -> ControlClient:
        return ControlClient(self.bridge._endpoints, name, role)

    def pump(self, seconds: float = 0.1) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.io.pump(min(left, 0.02))

    def pump_until(self, condition: Callable[[], object], timeout_s: float = 5.0) -> bool:
        """Whether ``condition`` became true in time."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                return False
            self.io.pump(0.01)
        return True

    def answered(self, client: ControlClient, request: ControlRequest) -> Reply:
        """The I/O side's answer to ``request``."""
        number = client.send(request)
        for _ in range(200):
            self.io.pump(0.01)
            while (envelope := client.poll()) is not None:
                if envelope.request_id == number:
                    return envelope.reply
        raise TimeoutError(f"no answer to {request}")

    def close(self) -> None:
        self.io.close()
        self.bridge._endpoints.close()
        self.robot.close()


@contextmanager
def by_hand(folder: Path, **config: Any) -> Iterator[ByHand]:
    made = ByHand(folder, **config)
    try:
        yield made
    finally:
        made.close()
