"""Strikes at a running station, one event after the other, and looks at what came of each."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.torture_events import HALTED, MOVING, ROBOT, STANDSTILL_MS, WATCHDOG_MS, Strike, motion, moved_while_held
from benchmarks.torture_robot import TortureRobot
from benchmarks.whole_station import WholeStation
from takeover.data.schema import State

BACK_S = 60.0  # by then it must go on by itself
STEPS_AGAIN = 10
SLACK_MS = 500.0  # a busy computer; every figure over its bound is counted, over bound and slack it is a failure


class NotBack(RuntimeError):
    """The station does not go on by itself."""


class Torturer:
    """One station and its robot. One thread."""

    def __init__(self, station: WholeStation, robot: TortureRobot) -> None:
        self._station = station
        self._rig = station.rig
        self._robot = robot
        self.pids: set[int] = set()  # of every process that was ever there

    # --- waiting ---

    def _wait(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self._station.worker.error:
                raise NotBack(f"the run ended: {self._station.worker.error}")
            if time.monotonic() > deadline:
                state = self._rig.watch.state
                said = (str(state.mode), str(state.hold_reason), state.hold_detail, state.gate) if state is not None else None
                raise NotBack(f"{what}: not within {timeout_s:.0f} s; the bridge says {said}, processes {self._rig.launcher.states()}")
            time.sleep(0.01)

    def _newest(self) -> State | None:
        """None when the bridge has not spoken for a while."""
        states = self._rig.watch.states
        if not states or time.monotonic_ns() - states[-1][0] > 3e8:
            return None
        return states[-1][1]

    def _moves(self) -> bool:
        state = self._newest()
        return state is not None and state.mode in MOVING and state.episode_step > 2

    def _all_up(self) -> bool:
        self.pids |= {pid for pid in self._rig.launcher.pids().values() if pid}
        return all(state == "up" for state in self._rig.launcher.states().values())

    def drives_again(self) -> None:
        """All processes up and the robot driven for some steps. Raises `NotBack`."""
        begun: tuple[str, int] | None = None

        def driven() -> bool:
            nonlocal begun
            state = self._newest()
            if state is None or not self._all_up():
                return False
            if begun is None or begun[0] != state.session:
                begun = (state.session, state.steps_total)
            return state.steps_total >= begun[1] + STEPS_AGAIN and state.mode in MOVING

        self._wait(driven, BACK_S, "driving again")

    # --- one event ---

    def event(self, struck: Strike) -> dict[str, Any]:
        """Strike, judge, wait until all is well again. Raises `NotBack`."""
        self._station.forget()
        self._wait(self._moves, BACK_S, "motion before the event")
        time.sleep(struck.wait_s)
        self._wait(self._moves, BACK_S, "motion before the event")
        before = self._robot.monitor()
        state = self._rig.watch.state
        fault_ns, end_ns = self._strike(struck)
        with contextlib.suppress(NotBack):  # a run of steps may end with the episode; what is there is judged
            self._wait(lambda: any(step.t_applied_ns > end_ns for step in self._rig.watch.steps[-1:]), 5.0, "steps after the outage")
        result = self._judge(struck, fault_ns, end_ns, before) | {"mode": str(state.mode) if state is not None else ""}
        self.drives_again()
        return result | {"back_s": round((time.monotonic_ns() - end_ns) / 1e9, 2)}

    def _strike(self, struck: Strike) -> tuple[int, int]:
        """When it began and when what was struck was (about to be) there again, ns."""
        launcher = self._rig.launcher
        if struck.do == "stick":
            fault_ns = self._rig.hook(struck.process, "stick", struck.thread, struck.seconds)
            time.sleep(struck.seconds)
            return fault_ns, fault_ns + int(struck.seconds * 1e9)
        if struck.do == "stop":
            pid = self._robot.pid if struck.process == ROBOT else launcher.pids()[struck.process]
            fault_ns = time.monotonic_ns()
            os.kill(pid, signal.SIGSTOP)
            try:
                time.sleep(struck.seconds)
            finally:
                end_ns = time.monotonic_ns()
                os.kill(pid, signal.SIGCONT)
            return fault_ns, end_ns
        if struck.process == ROBOT:
            fault_ns = self._robot.kill()
            try:
                time.sleep(struck.seconds)
            finally:
                self._robot.start()
            return fault_ns, time.monotonic_ns()
        before = launcher.restarts()[struck.process]
        fault_ns = self._rig.kill(struck.process, signal.SIGKILL)
        self._wait(
            lambda: launcher.restarts()[struck.process] > before and launcher.states()[struck.process] == "up", BACK_S, "started again"
        )
        return fault_ns, time.monotonic_ns()

    def _judge(self, struck: Strike, fault_ns: int, end_ns: int, before: dict[str, Any]) -> dict[str, Any]:
        steps = self._rig.watch.steps[:]
        states = [state for _, state in self._rig.watch.states[:]]
        problems = []
        result: dict[str, Any] = {"outage_ms": round((end_ns - fault_ns) / 1e6), "measured_ms": None, "limit_ms": None}
        if struck.by_watchdog:
            problems += self._judge_watchdog(struck, fault_ns, end_ns, before, result)
        else:
            moved = motion(struck, fault_ns, end_ns, steps, states)
            if moved.judged:
                result |= {"measured_ms": round(moved.last_ms), "limit_ms": moved.limit_ms}
                if moved.last_ms > moved.limit_ms + SLACK_MS:
                    problems.append(f"motion {moved.last_ms:.0f} ms after the fault, the limit is {moved.limit_ms:.0f} ms")
        if count := moved_while_held([step for step in steps if step.t_applied_ns > fault_ns]):
            problems.append(f"{count} held steps with a command other than zero")
        now = self._robot.monitor()
        if now["violations"] != before["violations"]:
            problems.append(f"{now['violations'] - before['violations']} violations: {now['counts']} {now['first'][-3:]}")
        halted = next((state for state in states if state.t_ns > fault_ns and state.mode in HALTED), None)
        return result | {"halted": f"{halted.mode} {halted.hold_reason}".strip() if halted is not None else "", "problems": problems}

    def _judge_watchdog(self, struck: Strike, fault_ns: int, end_ns: int, before: dict[str, Any], result: dict[str, Any]) -> list[str]:
        """The robot's own watchdog must have stopped it; and nothing moved while nobody drove."""
        if (end_ns - fault_ns) / 1e6 <= STANDSTILL_MS:
            return []
        trips = self._robot.monitor()["watchdog_trips"][len(before["watchdog_trips"]) :]
        result["limit_ms"] = STANDSTILL_MS
        if not trips:
            return ["the robot's watchdog did not stop it"]
        result["measured_ms"] = round(trips[0]["standstill_ms"])
        problems = []
        if not 0 <= trips[0]["standstill_ms"] <= STANDSTILL_MS + SLACK_MS or trips[0]["after_ms"] > WATCHDOG_MS + SLACK_MS:
            problems.append(f"the robot stood after {trips[0]['standstill_ms']:.0f} ms, its watchdog waited {trips[0]['after_ms']:.0f} ms")
        latest_ns = end_ns if struck.do != "kill" else fault_ns + int(3e8)  # a killed one is another, with a start of its own
        between = [step for step in self._rig.watch.steps[:] if fault_ns + 1e8 < step.t_applied_ns < latest_ns and any(step.action)]
        if len(between) > 1:
            problems.append(f"{len(between)} steps moved while the bridge hung")
        return problems


def left_behind(pids: set[int], sockets: Path) -> list[str]:
    """What a station that has ended has left."""
    problems = [f"process {pid} still runs" for pid in sorted(pids) if Path(f"/proc/{pid}").exists()]
    if sockets.exists() and (files := sorted(path.name for path in sockets.iterdir())):
        problems.append(f"left in the socket folder: {', '.join(files)}")
    return problems
