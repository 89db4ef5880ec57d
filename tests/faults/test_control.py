"""Rows 9-11 and 17: the control loop itself, restarts, a second commander, and wall clocks that jump."""

import itertools
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from takeover.data.schema import Command, EpisodeKind, Hold, HoldReason, Lease, Mode, Next, Resume, Source, Stop
from takeover.robot_bridge.protocol import Push
from tests.robot_bridge.station import Operator

from .rig import PERIOD_MS, Rig, rig

Bound = Callable[[float, float, str], None]


@pytest.fixture(scope="module")
def shared() -> Iterator[Rig]:
    with rig() as made:
        made.actor(lambda _: [0.1, 0.0, 0.0, 0.0])
        yield made


@pytest.fixture
def running(shared: Rig) -> Iterator[tuple[Rig, Operator]]:
    operator = shared.operator()
    shared.begin(operator, EpisodeKind.POLICY)
    shared.policy_runs(operator)
    yield shared, operator
    operator.close()
    shared.end_block()


def test_row_09_control_loop_late(running: tuple[Rig, Operator], bound: Bound) -> None:
    """Every step of the loop takes 85 ms from now on: counted, then held. The bound: ten late steps and two."""
    station, _ = running
    before = station.watch.state
    assert before is not None
    fault = station.hook("bridge", "stick", "control", 0.085, count=30)
    _, after_ms = station.held(fault, [HoldReason.CONTROL_LATE])
    bound(after_ms, 12 * 85.0, "ms")
    state = station.watch.state
    assert state is not None
    assert state.steps_late + state.steps_dropped > before.steps_late + before.steps_dropped


def test_row_09_control_thread_stuck(running: tuple[Rig, Operator], bound: Bound) -> None:
    """A stuck step moves nothing, and the console sees the heartbeat end: the robot is stopped by the I/O thread."""
    station, _ = running
    fault = station.hook("bridge", "stick", "control", 1.5)
    time.sleep(0.2)
    station.held(fault, [HoldReason.CONTROL_LATE], 8.0)
    arrivals = [t for t, s in station.watch.states if t > fault]
    silence = max(b - a for a, b in itertools.pairwise(arrivals)) / 1e6
    assert silence > 500, "nobody may believe that it is alive"
    began = next(a for a, b in itertools.pairwise(arrivals) if b - a > 5e8)
    bound((began - fault) / 1e6, 500.0 + PERIOD_MS + 40.0, "ms")


def test_row_10_restart_in_mid_takeover(running: tuple[Rig, Operator], bound: Bound) -> None:
    station, operator = running
    station.drive(operator)
    old = [operator.command() for _ in range(50)]
    session = operator.session
    station.replace("bridge")  # the old operator goes on pressing, with the commands of its session
    station.until(lambda s: s.session != session and s.mode is Mode.READY, "the new bridge stands ready")
    restarted = time.monotonic_ns()
    with Push[Command](station.endpoints, "command", Command) as commands:
        for command in old:
            commands.send(command, 1.0)
    time.sleep(0.5)
    state = station.watch.state
    assert state is not None
    assert state.mode is Mode.READY
    assert state.commander == ""
    assert state.refused_commands >= 50
    moved = [step for step in station.steps_since(restarted) if any(step.action)]
    bound(float(len(moved)), 0.0, "steps")


def test_row_11_second_commander(running: tuple[Rig, Operator], bound: Bound) -> None:
    station, operator = running
    other = station.operator("other")
    station.drive(operator)
    refusal = other.take_lease().error
    assert "console holds the lease" in refusal
    other.lease, other.action, other.deadman = operator.lease, [-1.0, 0.0, 0.0, 0.0], True  # and now with a stolen token
    since = time.monotonic_ns()
    before = station.watch.state
    assert before is not None
    time.sleep(0.5)
    state = station.watch.state
    assert state is not None
    assert state.refused_commands > before.refused_commands + 5
    taken = [step for step in station.steps_since(since) if step.human_action is not None and step.human_action[0] < 0]
    bound(float(len(taken)), 0.0, "steps")
    other.sending = False


def test_row_11_second_commander_of_the_same_name(running: tuple[Rig, Operator], bound: Bound) -> None:
    """Two consoles of one person: the second is refused by its connection, whatever it calls itself."""
    station, operator = running
    other = station.operator(operator.name)
    station.drive(operator)
    since = time.monotonic_ns()
    other.lease, other.action, other.deadman = "0123456789abcdef", [-1.0, 0.0, 0.0, 0.0], True
    for _ in range(10):
        refused = other.take_lease()
        assert (refused.lease, refused.error) == ("", "console on another connection holds the lease")
        assert "on another connection" in other.ask(Next(sender=other.name)).error
        assert other.ask(Lease(sender=other.name, release=True)).error == "", "it gives back what it has: nothing"
        time.sleep(0.03)
    state = station.watch.state
    assert state is not None
    assert state.commander == operator.name
    assert operator.take_lease().lease == operator.lease, "and the first one's is as it was"
    taken = [step for step in station.steps_since(since) if step.human_action is not None and step.human_action[0] < 0]
    bound(float(len(taken)), 0.0, "steps")
    other.sending = False


@pytest.mark.parametrize("hours", [1, -1])
def test_row_17_wall_clock_jumps(running: tuple[Rig, Operator], bound: Bound, hours: int) -> None:
    station, operator = running
    station.drive(operator)
    since = time.monotonic_ns()
    for process in ("bridge", "recorder"):
        station.hook(process, "clock", seconds=3600.0 * hours)
    time.sleep(1.0)
    steps = station.steps_since(since)
    held = [step for step in steps if step.mode is Mode.HOLD]
    bound(float(len(held)), 0.0, "steps")
    assert len([step for step in steps if Source.HUMAN in step.source]) > 10
    jump = [(b.wall_ns - a.wall_ns) / 1e9 for a, b in itertools.pairwise(station.steps_since(since - int(5e8)))]
    assert any(abs(value - 3600.0 * hours) < 60 for value in jump), "the clock did jump"
    for process in ("bridge", "recorder"):
        station.hook(process, "clock", seconds=-3600.0 * hours)


def test_row_13_stop_while_the_control_thread_is_stuck(running: tuple[Rig, Operator], bound: Bound) -> None:
    """STOP is acted on by the I/O thread: the robot does not wait for the control thread."""
    station, operator = running
    station.hook("bridge", "stick", "control", 0.4)
    time.sleep(0.1)
    asked = time.monotonic_ns()
    assert operator.ask(Stop(sender="console", reason="test")).error == ""
    bound((time.monotonic_ns() - asked) / 1e6, 100.0, "ms")
    station.until(lambda s: s.mode is Mode.STOPPED, "stopped")


def test_row_08_bridge_stopped_and_continued(running: tuple[Rig, Operator], bound: Bound) -> None:
    """SIGSTOP: no step and no heartbeat; on SIGCONT nothing that was commanded before drives."""
    station, operator = running
    station.drive(operator)
    fault = station.kill("bridge", signal.SIGSTOP)
    time.sleep(1.2)
    back = station.kill("bridge", signal.SIGCONT)
    station.until(lambda s: s.t_ns > back and s.mode is Mode.HOLD, "held when it comes back")
    between = [step for step in station.steps_since(fault + int(3e7)) if step.t_applied_ns < back]
    bound(float(len(between)), 1.0, "steps")
    assert not [t for t, s in station.watch.states if fault + int(2e8) < t < back]


@pytest.mark.parametrize("seconds", [0.7, 1.2])
def test_row_08_what_was_asked_of_a_stopped_bridge(running: tuple[Rig, Operator], bound: Bound, seconds: float) -> None:
    """An impatient person takes the lease again and presses Resume while nothing answers: refused when it does, since the press is too
    old, or since nothing was commanded under the new lease yet."""
    station, operator = running
    assert operator.ask(Hold(sender=operator.name)).error == ""
    station.until(lambda s: s.mode is Mode.HOLD, "held")
    time.sleep(0.2)
    station.kill("bridge", signal.SIGSTOP)
    time.sleep(0.1)
    operator.client.send(Lease(sender=operator.name, device_kind=operator.kind))
    operator.client.newest_state_seq = operator.state.seq if operator.state is not None else -1
    asked = operator.client.send(Resume(sender=operator.name))
    time.sleep(seconds - 0.1)
    back = station.kill("bridge", signal.SIGCONT)
    answers = iter(lambda: operator.client.poll(5.0), None)
    refused = next(envelope.reply.error for envelope in answers if envelope.request_id == asked)
    assert ("more than a second ago" if seconds > 1 else "no command of the lease's holder is in time") in refused
    time.sleep(0.5)
    moved = [step for step in station.steps_since(back) if step.mode is not Mode.HOLD or any(step.action)]
    bound(float(len(moved)), 0.0, "steps")


@pytest.mark.parametrize("waits", [True, False])
def test_fault_while_no_episode_runs(shared: Rig, waits: bool) -> None:
    """There is nothing to hold or to resume: offline, and by itself ready again; what waited for a press is asked for anew."""
    operator = shared.operator()
    if waits:
        shared.begin(operator)
    shared.hook("bridge", "fail", "control")
    shared.until(lambda s: s.mode is Mode.OFFLINE and not s.block_running, "offline")
    shared.until(lambda s: s.mode is Mode.READY, "ready again")
    shared.begin(operator)
    shared.drive(operator)
    operator.close()
    shared.end_block()
