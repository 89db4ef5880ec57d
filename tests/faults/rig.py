"""A station of real processes for one fault: started by the real launcher, watched from outside, every figure from its own records."""

import contextlib
import json
import os
import signal
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from takeover.app.launcher import Launcher
from takeover.data.schema import (
    Clear,
    Committed,
    ControlRequest,
    EpisodeKind,
    Event,
    Finish,
    HoldReason,
    Mode,
    Observation,
    Resume,
    Role,
    RunConfig,
    Start,
    State,
    Step,
)
from takeover.robot_bridge.protocol import ControlClient, Endpoints, Subscriber, wait
from tests.robot_bridge.station import Actor, Operator

HOOKS = Path(__file__).parent / "hooks"
PERIOD_MS = 50.0
BUSY = (
    *(HoldReason.LEASE_LAPSED, HoldReason.POLICY_LATE, HoldReason.COMMAND_STALE, HoldReason.CONTROL_LATE, HoldReason.RECORDER_LOST),
    HoldReason.CAMERA_FROZEN,  # rendering waits for a processor
)


class Watch(threading.Thread):
    """Everything the bridge and the recorder say, with the time it arrived."""

    def __init__(self, endpoints: Endpoints) -> None:
        super().__init__(daemon=True)
        self._endpoints = endpoints
        self.states: list[tuple[int, State]] = []
        self.steps: list[Step] = []
        self.events: list[Event] = []
        self.committed: dict[str, set[int]] = defaultdict(set)  # of steps, by episode
        self._closing = threading.Event()
        self.start()

    def run(self) -> None:
        with (
            Subscriber[State](self._endpoints, "state", State, latest=False) as states,
            Subscriber[Committed](self._endpoints, "committed", Committed, latest=False) as committed,
        ):
            while not self._closing.is_set():
                wait([states, committed], 0.05)
                while (state := states.receive()) is not None:
                    self.states.append((time.monotonic_ns(), state))
                while (message := committed.receive()) is not None:
                    for record in message.records:
                        if isinstance(record, Step):
                            self.steps.append(record)
                            self.committed[record.episode_id].add(record.rec_seq)
                        elif isinstance(record, Event):
                            self.events.append(record)

    @property
    def state(self) -> State | None:
        return self.states[-1][1] if self.states else None

    def close(self) -> None:
        self._closing.set()
        self.join(5.0)


class Rig:
    """Bridge and recorder as processes (and whatever else is named); peers in this process on the same real sockets."""

    def __init__(self, launcher: Launcher, config: RunConfig, hooks: Path) -> None:
        self.launcher = launcher
        self.config = config
        self.endpoints = Endpoints(config.sockets)
        self.watch = Watch(self.endpoints)
        self.client = ControlClient(self.endpoints, "test", Role.OPERATOR)
        self.closers: list[Callable[[], None]] = [self.watch.close, self.client.close]
        self._hooks = hooks

    # --- peers ---

    def actor(self, act: Callable[[Observation], list[float]] | None = None) -> Actor:
        made = Actor(self.endpoints, act or (lambda _: [0.0] * 4))
        self.closers.append(made.peer.stop)
        return made

    def operator(self, name: str = "console", kind: str = "gamepad") -> Operator:
        made = Operator(self.endpoints, name, kind)
        self.closers.append(made.close)
        return made

    def ask(self, request: ControlRequest) -> str:
        """What was refused and why; a bridge that was started anew is greeted first."""
        error = self.client.ask(request, 5.0).error
        if "hello" in error:
            self.client.hello("test", 5.0)
            error = self.client.ask(request, 5.0).error
        return error

    def ask_until_done(self, make: Callable[[str], ControlRequest], timeout_s: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_s
        while error := self.ask(make("test")):
            assert time.monotonic() < deadline, error
            time.sleep(0.05)

    def end_block(self) -> None:
        """To READY, without a block. Only the holder of the lease clears a STOP: a console that has it must lose it."""
        state = self.watch.state
        if state is not None and state.mode is Mode.STOPPED:
            console = self.launcher.pids().get("console")
            if console is not None:
                os.kill(console, signal.SIGSTOP)
            self.ask_until_done(lambda name: Clear(sender=name))
            if console is not None:
                os.kill(console, signal.SIGCONT)
        else:
            self.ask(Finish(sender="test", now=True))
        self.until(lambda s: s.mode is Mode.READY and not s.block_running, "the block has ended")

    def ask_resume(self, operator: Operator) -> str:
        """Resume as ``operator``; "" when nothing is held any more."""
        state = self.watch.state
        return operator.ask(Resume(sender=operator.name)).error if state is not None and state.mode is Mode.HOLD else ""

    # --- faults ---

    def hook(self, process: str, do: str, where: str = "", seconds: float = 0.0, count: int = 1, **more: Any) -> int:
        """Have ``process`` do something to one of its threads; returns when that was asked (ns)."""
        path = self._hooks / f"{process}-{self.launcher.pids()[process]}"
        order = {"do": do, "where": where, "seconds": seconds, "count": count} | more
        with open(path, "w") as fifo:
            asked_ns = time.monotonic_ns()
            fifo.write(json.dumps(order) + "\n")
        return asked_ns

    def kill(self, process: str, number: int) -> int:
        """Send signal ``number``; returns when (ns)."""
        pid = self.launcher.pids()[process]
        now = time.monotonic_ns()
        os.kill(pid, number)
        return now

    def replace(self, process: str) -> None:
        """Kill it and wait until the launcher has started another one."""
        before = self.launcher.restarts()[process]
        self.kill(process, signal.SIGKILL)
        deadline = time.monotonic() + 30.0
        while self.launcher.restarts()[process] == before or self.launcher.states()[process] != "up":
            assert time.monotonic() < deadline, f"{process} was not started again"
            time.sleep(0.02)

    # --- waiting; busy machines have real holds of their own ---

    def until(self, condition: Callable[[State], bool], what: str, timeout_s: float = 20.0) -> State:
        """The first new state for which ``condition`` holds."""
        deadline = time.monotonic() + timeout_s
        seen = max(0, len(self.watch.states) - 1)
        while time.monotonic() < deadline:
            while seen < len(self.watch.states):
                state = self.watch.states[seen][1]
                seen += 1
                if condition(state):
                    return state
            time.sleep(0.002)
        last = self.watch.state
        said = (last.mode, last.hold_reason, last.hold_detail, last.gate) if last is not None else None
        raise AssertionError(f"{what}: not within {timeout_s} s; the bridge says {said}")

    def begin(self, operator: Operator, kind: EpisodeKind = EpisodeKind.DEMONSTRATION, episodes: int = 0) -> None:
        """Take the lease and start a block as soon as the bridge's partners are there."""
        deadline = time.monotonic() + 20.0
        while error := operator.take_lease().error or operator.ask(Start(sender=operator.name, kind=kind, episodes=episodes)).error:
            assert time.monotonic() < deadline, error
            time.sleep(0.05)
        if kind is EpisodeKind.DEMONSTRATION:
            self.until(lambda s: s.mode is Mode.READY and s.episode_kind is kind, "a demonstration waits")
        else:
            self.until(lambda s: s.mode in (Mode.POLICY, Mode.HOLD), "the policy drives")

    def drive(self, operator: Operator, action: Sequence[float] = (0.3, 0.0, 0.0, 0.0)) -> State:
        """Press the deadman (again, if the first press came late) and drive for some steps."""
        for _ in range(6):
            operator.deadman, operator.action = False, [0.0] * 4
            time.sleep(0.25)
            operator.action, operator.deadman = list(action), True
            with contextlib.suppress(AssertionError):
                state = self.until(lambda s: s.mode is Mode.TAKEOVER, "the press takes over", 2.0)
                return self.until(lambda s, begun=state.human_steps: s.human_steps >= begun + 5, "it drives", 2.0)
        raise AssertionError("six presses did not take over")

    def policy_runs(self, operator: Operator, steps: int = 5) -> State:
        """Until the policy has driven for some steps; resumes what a busy machine has held."""
        deadline = time.monotonic() + 20.0
        while time.monotonic() < deadline:
            state = self.watch.state
            if state is not None and state.mode is Mode.HOLD and state.hold_reason in BUSY:
                if state.hold_reason is HoldReason.LEASE_LAPSED:  # the busy machine kept our commands back for too long
                    operator.take_lease()
                operator.ask(Resume(sender=operator.name))
            if state is not None and state.mode is Mode.POLICY:
                with contextlib.suppress(AssertionError):
                    done = state.steps_total + steps
                    return self.until(lambda s, done=done: s.mode is Mode.POLICY and s.steps_total >= done, "the policy goes on", 1.0)
            time.sleep(0.02)
        raise AssertionError(f"the policy does not drive: {self.watch.state}")

    # --- what came of it ---

    def held(self, since_ns: int, reasons: Sequence[HoldReason], timeout_s: float = 5.0) -> tuple[State, float]:
        """The state in which the bridge first said HOLD for one of ``reasons`` after ``since_ns``, and after how many ms it said so."""
        state = self.until(
            lambda s: s.t_ns > since_ns and s.mode is Mode.HOLD and s.hold_reason in reasons, f"a hold for {reasons}", timeout_s
        )
        first = next(s for _, s in self.watch.states if s.t_ns > since_ns and s.mode is Mode.HOLD and s.hold_reason in reasons)
        return state, (first.t_ns - since_ns) / 1e6

    def moved_for_ms(self, since_ns: int, settle_s: float = 0.4) -> float:
        """How long after ``since_ns`` a command other than zero was still applied, by the recorded steps."""
        time.sleep(settle_s)
        until = time.monotonic_ns()
        deadline = time.monotonic() + 10.0
        while not (self.watch.steps and self.watch.steps[-1].t_applied_ns > until - int(2e8)) and time.monotonic() < deadline:
            time.sleep(0.02)
        moved = [step.t_applied_ns for step in list(self.watch.steps) if step.t_applied_ns > since_ns and any(step.action)]
        return (max(moved) - since_ns) / 1e6 if moved else 0.0

    def steps_since(self, since_ns: int) -> list[Step]:
        return [step for step in list(self.watch.steps) if step.t_applied_ns > since_ns]

    def close(self) -> None:
        for close in reversed(self.closers):
            close()


@contextlib.contextmanager
def rig(processes: Sequence[str] = ("bridge", "recorder"), **config: Any) -> Iterator[Rig]:
    """A running station; closed with everything that was made for it."""
    with tempfile.TemporaryDirectory(prefix="tk") as folder:
        hooks = Path(folder) / "h"
        hooks.mkdir()
        before = {name: os.environ.get(name) for name in ("PYTHONPATH", "TAKEOVER_TEST_HOOKS")}
        os.environ["PYTHONPATH"] = os.pathsep.join(part for part in (str(HOOKS), before["PYTHONPATH"]) if part)
        os.environ["TAKEOVER_TEST_HOOKS"] = str(hooks)
        defaults = {
            "session_id": "faults",
            "workspace": str(Path(folder) / "w"),
            "sockets": str(Path(folder) / "s"),
            "learner": "none",
            "cameras": False,
        }
        try:
            made = RunConfig(**(defaults | config))
            with Launcher(made, processes) as launcher:
                launcher.wait_ready(60)
                station = Rig(launcher, made, hooks)
                try:
                    yield station
                finally:
                    station.close()
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
