"""The whole station in real time: every process, both cameras, the window, the scripted operator at work.

Prints JSON: lateness of the control loop, dropped steps, age of the pictures as a viewer has them, correction to first batch and to
first acting weights, CPU of every process. Needs a display (``xvfb-run -a -s "-screen 0 1680x1050x24" python -m benchmarks.realtime``).

The station itself has no alternative to be compared with here: the figures are held against the targets in the same JSON.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from takeover import __version__
from takeover.app.commands.options import StationOptions, make_config
from takeover.app.launcher import Launcher
from takeover.app.supervisor import RunPlan, Supervisor
from takeover.data.schema import CameraFrame, LearnerStatus, ProcessStatus, State
from takeover.robot_bridge.protocol import Endpoints, Subscriber

PROCESSES = ["bridge", "recorder", "actor", "learner", "evaluator", "operator", "console"]
SAMPLE_S = 1 / 60
TARGETS = {"lateness_p99_ms": 10.0, "picture_age_p95_ms": 120.0, "to_batch_p95_s": 1.0, "to_acting_p95_s": 5.0, "steps_dropped": 0}


class Watch:
    """What a viewer beside the console sees. One thread."""

    def __init__(self, sockets: str, cameras: list[str]) -> None:
        endpoints = Endpoints(sockets)
        self.state: Subscriber[State] = Subscriber(endpoints, "state", State)
        self.learner: Subscriber[LearnerStatus] = Subscriber(endpoints, "learner_status", LearnerStatus)
        self.processes: Subscriber[ProcessStatus] = Subscriber(endpoints, "process_status", ProcessStatus)
        self.cameras: dict[str, Subscriber[CameraFrame]] = {name: Subscriber(endpoints, f"camera/{name}", CameraFrame) for name in cameras}
        self.newest_ns: dict[str, int] = {}
        self.ages_ms: dict[str, list[float]] = {name: [] for name in cameras}
        self.lateness_p99_ms: list[float] = []  # each of the latest 2,000 steps
        self.states: list[State] = []
        self.last_learner: LearnerStatus | None = None
        self.cpu: dict[str, psutil.Process] = {}
        self.restarts: dict[str, int] = {}

    def run(self, seconds: float) -> None:
        """Sample for ``seconds``; the ages are of the newest picture at the moment of sampling."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, subscriber in self.cameras.items():
                while (frame := subscriber.receive()) is not None:
                    self.newest_ns[name] = frame.t_source_ns
                if name in self.newest_ns:
                    self.ages_ms[name].append((time.monotonic_ns() - self.newest_ns[name]) / 1e6)
            if (state := self.state.receive()) is not None:
                self.states = [*self.states[:1], state]
                self.lateness_p99_ms.append(state.lateness_p99_ms)
            self.last_learner = self.learner.receive() or self.last_learner
            if (status := self.processes.receive()) is not None:
                self.restarts = status.restarts
                for name, pid in status.pids.items():
                    if name not in self.cpu and psutil.pid_exists(pid):
                        self.cpu[name] = psutil.Process(pid)
                        self.cpu[name].cpu_percent()
            time.sleep(SAMPLE_S)

    def result(self, seconds: float) -> dict[str, Any]:
        first, last = self.states[0], self.states[-1]
        learner = self.last_learner
        ages = np.concatenate([np.array(ages) for ages in self.ages_ms.values()])
        return {
            "seconds": seconds,
            "steps": last.steps_total - first.steps_total,
            "steps_dropped": last.steps_dropped,
            "steps_late": last.steps_late - first.steps_late,
            "lateness_p99_ms": {"median": float(np.median(self.lateness_p99_ms)), "worst_100_s": max(self.lateness_p99_ms)},
            "picture_age_ms": {"p50": float(np.quantile(ages, 0.5)), "p95": float(np.quantile(ages, 0.95)), "n": len(ages)},
            "correction_to_batch_s": _quantiles(learner.correction_to_batch_s if learner else []),
            "correction_to_acting_s": _quantiles(learner.correction_to_acting_s if learner else []),
            "updates_per_s": learner.updates_per_s if learner else 0.0,
            "backlog_steps": learner.backlog_steps if learner else 0,
            "policy_version": last.policy_version,
            "restarts": self.restarts,
            "cpu_percent_of_one_core": {name: process.cpu_percent() for name, process in self.cpu.items() if process.is_running()},
        }


def _quantiles(values: list[float]) -> dict[str, float | int | None]:
    if not values:
        return {"p50": None, "p95": None, "n": 0}
    return {"p50": float(np.quantile(values, 0.5)), "p95": float(np.quantile(values, 0.95)), "n": len(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the corrected loop, after the demonstrations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--robot", default="sim:peg-insert")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="takeover-realtime-") as folder:
        options = StationOptions(workspace=str(Path(folder) / "workspace"), robot=arguments.robot, seed=arguments.seed)
        config = make_config(options, operator="scripted")
        with Launcher(config, PROCESSES) as launcher:
            supervisor = Supervisor(config, launcher, RunPlan(episodes=1_000_000), lambda progress: None)
            spec = supervisor.prepare()
            worker = threading.Thread(target=_work, args=(supervisor,), daemon=True)
            worker.start()
            watch = Watch(config.sockets, [camera.name for camera in spec.cameras])
            seconds = arguments.minutes * 60
            watch.run(seconds)
            result = watch.result(seconds)
    result |= {"targets": TARGETS, "cores": os.cpu_count(), "takeover": __version__}
    print(json.dumps(result, indent=1))


def _work(supervisor: Supervisor) -> None:
    """Until the station is stopped under it, which is how this benchmark ends."""
    try:
        supervisor.work()
    except Exception as error:  # noqa: BLE001 - whatever ended it is told; the figures stand
        print(f"the loop ended: {error}", flush=True)


if __name__ == "__main__":
    main()
