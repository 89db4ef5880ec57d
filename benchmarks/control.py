"""How punctual the bridge is: lateness, age of commands, observation to action, STOP, hop by hop, idle and under full load.

Real processes: bridge, recorder, a virtual gamepad on the real device thread; under full load also actor, learner, evaluator, scripted
operator and console (a real window where there is a display). At 20 Hz with two cameras, at 100 Hz without. In the same run a plain
Python process does the same work at the same rate (`benchmarks.control_plain`). Beside each runs a process that does nothing but wake
up on time (`benchmarks.control_floor`): what the machine itself adds. Prints JSON.

    xvfb-run -a -s "-screen 0 1680x1050x24" takeover bench control [--hz 20 100] [--load none full] [--seconds 60] [--out FILE]
"""

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.control_floor import bare_timer
from benchmarks.control_plain import DEMONSTRATIONS, LEARNER, quantiles
from benchmarks.result_text import commit, machine
from benchmarks.virtual_pad import VirtualPad
from takeover.app.commands.options import StationOptions, make_config
from takeover.app.device_operator import DeviceOperator
from takeover.app.launcher import Launcher
from takeover.app.supervisor import RunPlan, Supervisor
from takeover.data.schema import Clear, Command, Committed, EpisodeKind, LearnerStatus, Mode, RunConfig, Source, Start, State, Step, Stop
from takeover.robot_bridge.protocol import ControlClient, Endpoints, Subscriber

FULL = ["bridge", "recorder", "actor", "learner", "evaluator", "operator", "console"]
IDLE = ["bridge", "recorder"]
STOPS = 40
LEAST_SEGMENT = 20  # steps: the grid of deadlines is estimated from a run of steps at least this long
TARGETS = {
    "lateness p99.9": "half a period",
    "command age p99": "a period and 10 ms",
    "STOP p99": "60 ms",
    "against the plain process": 5.0,
}


class Watch(threading.Thread):
    """What anybody can see from outside: every state, every step with the time at which it was known to be on disk."""

    def __init__(self, endpoints: Endpoints) -> None:
        super().__init__(daemon=True)
        self._endpoints = endpoints
        self.state: State | None = None
        self.stopped_ns = 0  # when a state that says STOPPED came, the first since it was set to 0
        self.steps: list[Step] = []
        self.to_disk_s: list[float] = []
        self.beats_s: list[float] = []
        self.policy_latency_s: list[float] = []
        self.updates = 0  # of the learner, so far
        self.closing = threading.Event()
        self.start()

    def run(self) -> None:
        last = 0
        with (
            Subscriber[State](self._endpoints, "state", State, latest=False) as states,
            Subscriber[Committed](self._endpoints, "committed", Committed, latest=False) as committed,
            Subscriber[LearnerStatus](self._endpoints, "learner_status", LearnerStatus) as learner,
        ):
            while not self.closing.is_set():
                state = states.receive(0.01)
                while state is not None:
                    now = time.monotonic_ns()
                    self.beats_s += [(now - last) / 1e9] if last else []
                    last, self.state = now, state
                    if state.mode is Mode.STOPPED and not self.stopped_ns:
                        self.stopped_ns = now
                    if state.mode is Mode.POLICY and state.policy_latency_ms >= 0:
                        self.policy_latency_s.append(state.policy_latency_ms / 1000.0)
                    state = states.receive(0.0)
                if (status := learner.receive()) is not None:
                    self.updates = status.updates
                while (message := committed.receive()) is not None:
                    now = time.monotonic_ns()
                    steps = [record for record in message.records if isinstance(record, Step)]
                    self.steps += steps
                    self.to_disk_s += [(now - step.t_applied_ns) / 1e9 for step in steps]

    def forget(self) -> None:
        self.steps, self.to_disk_s, self.beats_s, self.policy_latency_s = [], [], [], []


class Hand(DeviceOperator):
    """The real device thread; remembers when the reading behind each command was taken."""

    def __init__(self, endpoints: Endpoints) -> None:
        super().__init__(endpoints, kinds=["gamepad"])
        self.taken_ns: dict[tuple[float, ...], int] = {}

    def _command(self, *arguments: Any) -> Command:
        command = super()._command(*arguments)
        if self.reading is not None and command.deadman:
            self.taken_ns.setdefault(tuple(command.action), self.reading.t_ns)
        return command


def lateness_s(steps: list[Step], period_s: float) -> list[float]:
    """Of each step's reading against the grid that the earliest steps of its run lie on: the loop's deadlines, seen from outside."""
    found: list[float] = []
    run: list[int] = []

    def close() -> None:
        if len(run) >= LEAST_SEGMENT:
            offsets = [t - i * period_s * 1e9 for i, t in enumerate(run)]
            earliest = min(offsets)
            found.extend((offset - earliest) / 1e9 for offset in offsets)
        run.clear()

    for before, step in itertools.pairwise([None, *steps]):
        gap = before is not None and step is not None and step.t_observation_ns - before.t_observation_ns > 1.5 * period_s * 1e9
        if before is None or step is None or gap or step.seq != before.seq + 1 or step.episode_id != before.episode_id:
            close()
        if step is not None:
            run.append(step.t_observation_ns)
    close()
    return found


def figures(watch: Watch, hand: Hand | None, period_s: float) -> dict[str, Any]:
    """Everything about the steps that were recorded since `Watch.forget`."""
    steps = [step for step in watch.steps if step.mode in (Mode.POLICY, Mode.TAKEOVER)]
    late = lateness_s(steps, period_s)
    found: dict[str, Any] = {
        "lateness_ms": quantiles(late),
        "late_by_more_than_half_a_period": sum(value > period_s / 2 for value in late),
        "observation_to_action_ms": quantiles([(step.t_applied_ns - step.t_observation_ns) / 1e9 for step in steps]),
        "hops_ms": {
            "observation sent to answer received": quantiles(watch.policy_latency_s),
            "observation to decision": quantiles([(step.t_decision_ns - step.t_observation_ns) / 1e9 for step in steps]),
            "decision to robot": quantiles([(step.t_applied_ns - step.t_decision_ns) / 1e9 for step in steps]),
            "robot to disk": quantiles(watch.to_disk_s),
            "between heartbeats": quantiles(watch.beats_s),
        },
    }
    if hand is not None:
        # at rest all readings are alike, and the stick moves only while it drives
        moving = [step for step in steps if step.human_action is not None and any(step.human_action) and Source.HUMAN in step.source]
        driven = [step for step in moving if tuple(step.human_action or ()) in hand.taken_ns]
        found["command_age_ms"] = quantiles([(step.t_applied_ns - hand.taken_ns[tuple(step.human_action or ())]) / 1e9 for step in driven])
    return found


class Bench:
    """One station at one rate under one load."""

    def __init__(self, config: RunConfig, launcher: Launcher, full: bool, period_s: float) -> None:
        self.config, self.launcher, self.full, self.period_s = config, launcher, full, period_s
        self.endpoints = Endpoints(config.sockets)
        self.watch = Watch(self.endpoints)
        self.client = ControlClient(self.endpoints, "bench")
        self.client.hello("bench", 5.0)

    def policy(self, seconds: float) -> dict[str, Any]:
        """The policy drives, the scripted operator corrects it."""
        self.watch.forget()
        before = self.watch.updates
        time.sleep(seconds)
        return figures(self.watch, None, self.period_s) | {"updates": self.watch.updates - before}

    def by_hand(self, seconds: float) -> dict[str, Any]:
        """A hand on a virtual pad drives, its stick never at rest, so that every reading is another one."""
        with Hand(self.endpoints) as hand:
            time.sleep(1.0)
            pad = VirtualPad()
            end = time.monotonic() + seconds
            self.watch.forget()
            pressed_s = 0.0
            for i in itertools.count():
                now = time.monotonic()
                if now > end:
                    break
                state = self.watch.state
                drives = state is not None and state.mode is Mode.TAKEOVER
                if not self.full and state is not None and state.mode is Mode.READY and not state.block_running:
                    self.client.ask(Start(sender="bench", kind=EpisodeKind.DEMONSTRATION), 2.0)
                if not drives and now - pressed_s > 0.8:  # let go, rest, press again
                    pad.button("rb", False)
                    pad.axis("left_x", 0.0)
                    pad.axis("left_y", 0.0)
                    time.sleep(0.3)
                    pad.button("rb", True)
                    pressed_s = time.monotonic()
                if drives:
                    pad.axis("left_x", 0.2 + 0.6 * (i % 20000) / 20000.0)  # one unit of 16 bits more each time
                    pad.axis("left_y", 0.3 if i // 500 % 2 else -0.3)
                time.sleep(0.004)
            pad.unplug()
            time.sleep(0.5)
            return figures(self.watch, hand, self.period_s)

    def stops(self, *, frozen: bool) -> dict[str, Any]:
        """STOP sent to robot stopped and said so; with ``frozen`` the console is SIGSTOPped meanwhile."""
        console = self.launcher.pids().get("console") if frozen else None
        answered, shown = [], []
        for _ in range(STOPS):
            if console:
                os.kill(console, signal.SIGSTOP)
            self.watch.stopped_ns = 0
            asked = time.monotonic_ns()
            self.client.ask(Stop(sender="bench", reason="benchmark"), 5.0)
            answered.append((time.monotonic_ns() - asked) / 1e9)
            deadline = time.monotonic() + 2.0
            while not self.watch.stopped_ns and time.monotonic() < deadline:
                time.sleep(0.0005)
            shown.append((self.watch.stopped_ns - asked) / 1e9)
            if console:
                os.kill(console, signal.SIGCONT)
            while self.client.ask(Clear(sender="bench"), 5.0).error and time.monotonic() < deadline + 5.0:
                time.sleep(0.05)  # whoever holds the lease must let it lapse first
            time.sleep(0.05)
        return {"robot_stopped_and_answered_ms": quantiles(answered), "shown_as_stopped_ms": quantiles(shown)}

    def close(self) -> None:
        self.watch.closing.set()
        self.watch.join(2.0)
        self.client.close()


@contextmanager
def station(hz: float, load: str) -> Iterator[tuple[RunConfig, Launcher]]:
    """Everything up, under full load the first policy cloned and at work."""
    full = load == "full"
    with tempfile.TemporaryDirectory(prefix="takeover-control-") as folder:
        options = StationOptions(
            workspace=str(Path(folder) / "workspace"), demonstrations=DEMONSTRATIONS, learner="hil-serl" if full else "none"
        )
        config = make_config(options, operator="scripted" if full else "none", cameras=hz <= 20)
        config = msgspec.structs.replace(config, control_hz=hz, learner_parameters=dict(LEARNER) if full else {})
        with Launcher(config, FULL if full else IDLE) as launcher:
            launcher.wait_ready(120)
            if full:
                supervisor = Supervisor(config, launcher, RunPlan(episodes=1_000_000), lambda progress: None)
                supervisor.prepare()
                threading.Thread(target=_work, args=(supervisor,), daemon=True).start()
                time.sleep(3.0)
            yield config, launcher


def _work(supervisor: Supervisor) -> None:
    try:
        supervisor.work()
    except Exception as error:  # noqa: BLE001 - the station is stopped under it; the figures stand
        print(f"the loop ended: {error}", file=sys.stderr)


def measure(hz: float, load: str, seconds: float) -> dict[str, Any]:
    """One station, and the plain process at the same rate."""
    full = load == "full"
    found: dict[str, Any] = {"hz": hz, "load": load, "pictures": hz <= 20}
    with station(hz, load) as (config, launcher):
        bench = Bench(config, launcher, full, 1.0 / hz)
        try:
            if full:
                with bare_timer(hz, floor := {}):
                    found["policy and scripted operator"] = bench.policy(seconds)
                found["policy and scripted operator"] |= floor
            with bare_timer(hz, floor := {}):
                found["by hand"] = bench.by_hand(seconds)
            found["by hand"] |= floor
            state = bench.watch.state
            found["dropped"] = state.steps_dropped if state is not None else None
            found["stop"] = bench.stops(frozen=False)
            if full:
                found["stop, console frozen"] = bench.stops(frozen=True)
        finally:
            bench.close()
    for style in ("threads", "interleaved"):
        command = [
            sys.executable,
            "-m",
            "benchmarks.control_plain",
            "--hz",
            str(hz),
            "--seconds",
            str(seconds),
            "--load",
            load,
            "--style",
            style,
        ]
        with bare_timer(hz, floor := {}):
            done = plain([*command, *(["--pictures"] if full and hz <= 20 else [])])
        found[f"plain process, {style}"] = done | floor
    return found | {"verdict": verdict(found, 1.0 / hz)}


def plain(command: list[str]) -> dict[str, Any]:
    """What `benchmarks.control_plain` printed. It fails when a part of its work does; then it is tried once more."""
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return dict(json.loads(done.stdout.splitlines()[-1]))
        print(done.stderr, file=sys.stderr)
    raise SystemExit(f"failed twice: {' '.join(command)}")


def verdict(found: dict[str, Any], period_s: float) -> dict[str, Any]:
    """The targets, each with what was measured."""
    runs = [found[name] for name in ("policy and scripted operator", "by hand") if name in found]
    worst = max(run["lateness_ms"].get("p99.9", float("inf")) for run in runs)
    stops = [found[name]["robot_stopped_and_answered_ms"]["p99"] for name in ("stop", "stop, console frozen") if name in found]
    age = found["by hand"]["command_age_ms"].get("p99", float("inf"))
    plain = {style: found[f"plain process, {style}"]["lateness_ms"]["p99.9"] for style in ("threads", "interleaved")}
    same_work = runs[0]["lateness_ms"].get("p99.9", float("inf"))  # nobody's hand drives the plain process
    return {
        "lateness p99.9 ms": worst,
        "of a bare timer beside it, p99.9 ms": max(run["bare timer beside it, lateness_ms"].get("p99.9", float("inf")) for run in runs),
        "lateness within half a period": worst <= period_s * 500.0,
        "times better than threads": round(plain["threads"] / same_work, 2),
        "times better than interleaved": round(plain["interleaved"] / same_work, 2),
        "five times better": min(plain.values()) >= TARGETS["against the plain process"] * same_work,
        "no step dropped": found["dropped"] == 0,
        "command age p99 ms": age,
        "command age within a period and 10 ms": age <= period_s * 1000.0 + 10.0,
        "STOP p99 ms": max(stops),
        "STOP within 60 ms": max(stops) <= 60.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hz", type=float, nargs="+", default=[20.0, 100.0], choices=[20.0, 50.0, 100.0])
    parser.add_argument("--load", nargs="+", default=["none", "full"], choices=["none", "full"])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each part")
    parser.add_argument("--out", default="", help="write the JSON there too")
    arguments = parser.parse_args()
    if not os.environ.get("DISPLAY"):
        os.environ["QT_QPA_PLATFORM"] = "offscreen"
    said: dict[str, Any] = {"commit": commit(), "machine": machine(), "seconds": arguments.seconds, "targets": TARGETS, "results": []}
    for hz, load in itertools.product(arguments.hz, arguments.load):
        said["results"].append(measure(hz, load, arguments.seconds))
        if arguments.out:  # after each, so that an interrupted run leaves what it has
            Path(arguments.out).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(said, indent=1))


if __name__ == "__main__":
    main()
