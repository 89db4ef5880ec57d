"""Rows 14, 15 and 34: commands lost, delayed, in the wrong order, silent for long, or sent a second time."""

import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from takeover.data.schema import Command, EpisodeKind, HoldReason, Mode, Resume, Source
from takeover.robot_bridge.protocol import Push
from tests.robot_bridge.station import Operator

from .rig import Rig, rig

Bound = Callable[[float, float, str], None]
OUTAGE_S = float(os.environ.get("TAKEOVER_FAULTS_OUTAGE_S", "2"))  # `make faults` says 10


class BadLine(threading.Thread):
    """Stands between an operator and the bridge: loses, delays and swaps its commands. Keeps every command that it was given."""

    def __init__(self, station: Rig, operator: Operator, loss: float = 0.0, delay_s: float = 0.0, jitter_s: float = 0.0) -> None:
        super().__init__(daemon=True)
        self._station, self._operator = station, operator
        self.loss, self.delay_s, self.jitter_s = loss, delay_s, jitter_s
        self.kept: list[Command] = []
        self.closing = threading.Event()
        operator.sending = False  # its own line is cut
        self.start()

    def run(self) -> None:
        chance = random.Random(0)
        waiting: list[tuple[float, Command]] = []
        with Push[Command](self._station.endpoints, "command", Command) as commands:
            while not self.closing.wait(0.02):
                now = time.monotonic()
                command = self._operator.command()
                self.kept.append(command)
                if chance.random() >= self.loss:
                    waiting.append((now + self.delay_s + chance.random() * self.jitter_s, command))
                for item in [item for item in waiting if item[0] <= now]:
                    waiting.remove(item)
                    commands.send(item[1])

    def close(self) -> None:
        self.closing.set()
        self.join(2.0)


@pytest.fixture(scope="module")
def shared() -> Iterator[Rig]:
    with rig() as made:
        made.actor()
        yield made


@pytest.fixture
def running(shared: Rig) -> Iterator[tuple[Rig, Operator]]:
    operator = shared.operator()
    shared.begin(operator, EpisodeKind.POLICY)
    shared.policy_runs(operator)
    yield shared, operator
    operator.close()
    shared.end_block()


def jump(station: Rig, since_ns: int) -> float:
    """The largest change of the applied action from one step to the next, while a person drives."""
    steps = station.steps_since(since_ns)
    pairs = [(a, b) for a, b in itertools.pairwise(steps) if Source.HUMAN in a.source and Source.HUMAN in b.source]
    return max((float(np.max(np.abs(np.subtract(b.action, a.action)))) for a, b in pairs), default=0.0)


@pytest.mark.parametrize("loss", [0.05, 0.3])
def test_row_14_loss_and_reordering(running: tuple[Rig, Operator], bound: Bound, loss: float) -> None:
    """Commands that swing slowly, of which many get lost and others arrive in the wrong order: old ones are dropped, nothing jumps back."""
    station, operator = running
    line = BadLine(station, operator, loss, 0.0, 0.05)
    try:
        before = station.watch.state
        station.drive(operator, [0.0] * 4)
        since = time.monotonic_ns()
        began = time.monotonic()
        while time.monotonic() - began < 2.0:
            operator.action = [0.5 * float(np.sin(2.0 * (time.monotonic() - began))), 0.0, 0.0, 0.0]
            time.sleep(0.01)
        state = station.watch.state
        assert state is not None
        assert before is not None
        assert state.refused_commands > before.refused_commands, "some arrived in the wrong order"
        # the command swings by at most 1.0 a second; a command may be T_cmd old
        bound(jump(station, since), 1.0 * (0.05 + 0.15), "of full scale per step")
    finally:
        line.close()


def test_row_14_delay(running: tuple[Rig, Operator], bound: Bound) -> None:
    """200 ms late is too late to drive: held, and no press drives while it lasts."""
    station, operator = running
    station.drive(operator)
    line = BadLine(station, operator, 0.0, 0.2, 0.0)
    try:
        since = time.monotonic_ns()
        station.held(since, [HoldReason.COMMAND_STALE])
        operator.deadman = False
        time.sleep(0.5)
        pressed = time.monotonic_ns()
        operator.action, operator.deadman = [0.5, 0.0, 0.0, 0.0], True
        time.sleep(0.8)
        driven = [step for step in station.steps_since(pressed) if Source.HUMAN in step.source]
        bound(float(len(driven)), 0.0, "steps")
    finally:
        line.close()


def test_row_15_outage(running: tuple[Rig, Operator], bound: Bound) -> None:
    """Held during it; what was commanded meanwhile comes all at once afterwards and drives nothing."""
    station, operator = running
    station.drive(operator)
    operator.sending = False
    fault = time.monotonic_ns()
    station.held(fault, [HoldReason.COMMAND_STALE, HoldReason.LEASE_LAPSED])
    kept = []
    while time.monotonic_ns() - fault < OUTAGE_S * 1e9:
        kept.append(operator.command())
        time.sleep(0.02)
    back = time.monotonic_ns()
    with Push[Command](station.endpoints, "command", Command) as commands:
        for command in kept:
            commands.send(command, 1.0)
    operator.sending = True  # the deadman is still down
    time.sleep(0.5)
    moved = [step for step in station.steps_since(back) if any(step.action)]
    bound(float(len(moved)), 0.0, "steps")
    state = station.watch.state
    assert state is not None
    assert state.mode is Mode.HOLD
    operator.deadman, operator.action = False, [0.0] * 4
    time.sleep(0.1)
    operator.take_lease()
    time.sleep(0.2)
    assert operator.ask(Resume(sender="console")).error == ""


def test_row_34_replayed_commands(running: tuple[Rig, Operator], bound: Bound) -> None:
    """Commands that were valid once, sent again by whoever listened: not one is executed, before or after the lease changes hands."""
    station, operator = running
    station.drive(operator, (0.3, 0.0, 0.0, 0.0))
    kept = [operator.command(action=[0.9, 0.0, 0.0, 0.0]) for _ in range(30)]
    time.sleep(0.2)  # the operator's own, which are newer, arrive
    operator.deadman, operator.action = False, [0.0] * 4
    station.until(lambda s: s.mode is Mode.POLICY, "handed back")
    before = station.watch.state
    assert before is not None
    since = time.monotonic_ns()
    with Push[Command](station.endpoints, "command", Command) as commands:
        for command in kept:
            commands.send(command, 1.0)
        time.sleep(0.3)
        operator.close()
        other = station.operator("console")  # the same name, another connection: another lease
        time.sleep(0.6)
        assert other.take_lease().error == ""
        for command in kept:
            commands.send(command, 1.0)
        time.sleep(0.3)
    moved = [step for step in station.steps_since(since) if step.action[0] > 0]
    bound(float(len(moved)), 0.0, "steps")
    state = station.watch.state
    assert state is not None
    assert state.refused_commands >= before.refused_commands + 2 * len(kept)
    other.close()
