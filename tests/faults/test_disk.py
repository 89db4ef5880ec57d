"""Row 30: the disk becomes read-only or slow while an episode is recorded. The recorder's own system calls are made to fail or wait."""

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from takeover.data.schema import EpisodeKind, HoldReason

from .rig import PERIOD_MS, Rig, rig
from .test_recorder import lost

Bound = Callable[[float, float, str], None]
READ_ONLY = "pwrite64,fdatasync,fsync,ftruncate,rename,unlink,mkdir:error=EROFS"
SLOW = "fdatasync,fsync:delay_enter=200000"  # us: a tired SD card
pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


@contextlib.contextmanager
def disk(station: Rig, fault: str) -> Iterator[int]:
    """The recorder's disk with a fault; gives when it began (ns). Afterwards it is as before."""
    calls = fault.partition(":")[0]
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={fault}"]
    recorder = station.launcher.pids()["recorder"]
    tracer = subprocess.Popen([*command, "-p", str(recorder)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 10.0
    while f"TracerPid:\t{tracer.pid}" not in Path(f"/proc/{recorder}/status").read_text():
        if tracer.poll() is not None:
            pytest.skip(f"strace may not look at other processes here: {tracer.stderr.read().decode().strip()}")
        assert time.monotonic() < deadline
        time.sleep(0.005)
    try:
        yield time.monotonic_ns()
    finally:
        tracer.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            tracer.wait(2)
        tracer.kill()  # it may wait for threads of a recorder that was killed; without it they end
        tracer.wait(10)
        tracer.stderr.close()


def longest_pause_ms(station: Rig, since_ns: int) -> float:
    """Between two states of the bridge: the control loop says one in every period."""
    times = [since_ns, *(state.t_ns for _, state in station.watch.states if state.t_ns > since_ns)]
    return max(b - a for a, b in pairwise(times)) / 1e6


def resume(station: Rig, operator: object) -> None:
    station.until(lambda s: not s.gate["recorder"], "the recorder is well")
    deadline = time.monotonic() + 10
    while error := station.ask_resume(operator):
        assert time.monotonic() < deadline, error
        time.sleep(0.05)


def test_row_30_read_only(bound: Bound) -> None:
    with rig(cameras=True) as station:
        station.actor(lambda _: [0.1, 0.0, 0.0, 0.0])
        operator = station.operator()
        station.begin(operator, EpisodeKind.POLICY)
        station.policy_runs(operator, 15)
        restarts = station.launcher.restarts()["recorder"]
        with disk(station, READ_ONLY) as fault:
            state, after_ms = station.held(fault, [HoldReason.DISK_FULL])
            assert "Read-only file system" in state.hold_detail + str(state.gate)
            bound(after_ms, 500.0, "ms")  # synced every 100 ms, said every 100 ms, a step
            time.sleep(1.5)
            bound(longest_pause_ms(station, fault), 2 * PERIOD_MS, "ms")
        resume(station, operator)
        station.policy_runs(operator, 15)
        station.end_block()
        time.sleep(0.5)
        assert station.launcher.restarts()["recorder"] == restarts
        assert sum(len(numbers) for numbers in station.watch.committed.values()) > 30
        bound(float(lost(station)), 0.0, "steps")


def test_row_30_slow(bound: Bound) -> None:
    with rig(cameras=True) as station:
        station.actor(lambda _: [0.1, 0.0, 0.0, 0.0])
        operator = station.operator()
        station.begin(operator, EpisodeKind.POLICY)
        station.policy_runs(operator, 15)
        with disk(station, SLOW) as fault:
            for _ in range(3):
                station.policy_runs(operator, 14)
            bound(longest_pause_ms(station, fault), 2 * PERIOD_MS, "ms")
            slow = [state for _, state in station.watch.states if state.t_ns > fault]
            assert not [state for state in slow if state.hold_reason is HoldReason.DISK_FULL]  # slow is not full
            station.kill("recorder", signal.SIGKILL)  # in the middle of a sync
        station.replace("recorder")
        resume(station, operator)
        station.policy_runs(operator, 5)
        station.end_block()
        time.sleep(0.5)
        assert sum(len(numbers) for numbers in station.watch.committed.values()) > 50
        bound(float(lost(station)), 0.0, "steps")
