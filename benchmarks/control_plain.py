"""The alternative that `benchmarks.control` is compared with: one plain Python process that does the same work at the same rate.

Simulated robot, scripted operator, policy inference and safety filter in the control loop; beside it the real recorder, two cameras
rendered and encoded, the learner with as many updates per step, evaluation on held-out starts every 30 s, a window with the console's
pictures and strip. Two styles: ``threads``, a thread for each, and ``interleaved``, one thread that does everything in turn (the
evaluation between episodes, while the robot stands still). ``--load none``: control and recording only.
"""

import argparse
import json
import os
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.control_plain_work import Evaluating, Learning, Pictures, Recording, Window, state_of
from benchmarks.inprocess_driver import Driver
from benchmarks.inprocess_loop import Loop
from takeover.data.schema import AnyRecord, EpisodeEnd, EpisodeKind, EpisodeStart, Outcome, OutcomeSource, RunConfig, Source, Step
from takeover.data.seeding import start_seed
from takeover.policies.torch_setup import configure
from takeover.robot_bridge.robots.sim import SimRobot

DEMONSTRATIONS = 3
LEARNER = {"clone_updates": 20.0, "actor_delay": 0.0}  # the actor learns, and is published, from the first update on
ENDED = threading.Event()
LONGEST_WAIT_S = 0.001  # of a thread that looks for work


class Work(Protocol):
    period_s: float

    def turn(self) -> None: ...


class PacedLoop(Loop):
    """`Loop` in real time, with what a station also does."""

    def __init__(self, config: RunConfig, hz: float, load: str, pictures: bool, folder: Path) -> None:
        super().__init__(config)
        self.robot = SimRobot(config.task, config.task_parameters, hz)
        self.spec = self.robot.spec
        self.period_s = 1.0 / hz
        self.recording = Recording(folder)
        self.pictures = Pictures(self.robot, self.recording) if pictures else None
        self.learning = Learning(self.training) if load == "full" else None
        self.evaluating = Evaluating(config, self.policies) if load == "full" else None
        self.window = Window(self.pictures) if load == "full" else None
        self.in_threads = False
        self.lateness_s: list[float] = []
        self.to_action_s: list[float] = []
        self.stood_s = 0.0  # between episodes, for evaluation
        self._due: dict[int, float] = {}

    def beside(self) -> Sequence[Work]:
        """Everything but the window and the evaluation."""
        return [work for work in (self.recording, self.pictures, self.learning) if work is not None]

    def work_in_threads(self) -> None:
        self.in_threads = True
        for work in [*self.beside(), *([self.evaluating] if self.evaluating else [])]:
            threading.Thread(target=_turns, args=(work,), daemon=True).start()

    def paced(self, seconds: float) -> None:
        """Policy episodes at the control rate; like a control loop, a period that was missed whole is dropped."""
        end = time.monotonic() + seconds
        number = 0
        while time.monotonic() < end:
            self.robot.reset(start_seed(self.config.seed, EpisodeKind.POLICY, number))
            self._paced_episode(number, end)
            number += 1
            if not self.in_threads and self.evaluating is not None:
                began = time.monotonic()
                self._turn_if_due(self.evaluating)
                self.stood_s += time.monotonic() - began

    def _tell(self, record: AnyRecord) -> None:
        self.recording.put(record)
        if self.learning is not None:
            self.learning.put(record)

    def _paced_episode(self, number: int, end: float) -> None:
        identity = f"policy-{number}"
        kind = EpisodeKind.POLICY if self.learning is not None else EpisodeKind.DEMONSTRATION
        driver = Driver(self, kind, number, identity)
        start = EpisodeStart(
            session="bench",
            rec_seq=0,
            episode_id=identity,
            number=number,
            kind=kind,
            spec=self.spec,
            station_id="bench",
            operator="scripted",
            start_seed=0,
            policy_version=0,
            policy_sha256="",
            config_sha256="",
            wall_ns=time.time_ns(),
            t_ns=time.monotonic_ns(),
        )
        self._tell(start)
        deadline = time.monotonic()
        human = steps = 0
        success = False
        for step in range(self.spec.max_steps):
            time.sleep(max(0.0, deadline - time.monotonic()))
            began = time.monotonic()
            if step:
                self.lateness_s.append(began - deadline)
            record, success = driver.step(step)
            self.to_action_s.append(time.monotonic() - began)
            message = Step(session="bench", rec_seq=0, **record)
            steps, human = steps + 1, human + (Source.HUMAN in message.source)
            self._tell(message)
            if self.window is not None:
                self.window.put(state_of(message, start, self.seq))
            if self.pictures is not None:
                self.pictures.capture(identity, message.seq)
            if not self.in_threads:
                for work in [*self.beside(), *([self.window] if self.window else [])]:
                    self._turn_if_due(work)
            deadline += self.period_s
            if time.monotonic() > deadline + self.period_s:
                deadline = time.monotonic()
            if success or time.monotonic() > end:
                break
        self._tell(
            EpisodeEnd(
                session="bench",
                rec_seq=0,
                episode_id=identity,
                outcome=Outcome.SUCCESS if success else Outcome.FAILURE,
                outcome_source=OutcomeSource.TASK if success else OutcomeSource.LIMIT,
                event_step=steps - 1,
                steps=steps,
                human_steps=human,
                takeovers=int(human > 0),
                autonomous=human == 0,
                t_ns=time.monotonic_ns(),
                wall_ns=time.time_ns(),
            )
        )

    def _turn_if_due(self, work: Work) -> None:
        if time.monotonic() >= self._due.get(id(work), 0.0):
            self._due[id(work)] = time.monotonic() + work.period_s
            work.turn()


def _turns(work: Work) -> None:
    try:
        while True:
            began = time.monotonic()
            work.turn()
            time.sleep(max(LONGEST_WAIT_S, began + work.period_s - time.monotonic()))
    except Exception:  # noqa: BLE001 - whatever ended it, the figures would be wrong
        if not ENDED.is_set():  # its folder goes away then
            traceback.print_exc()
            os._exit(1)  # without this work the comparison means nothing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hz", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--load", choices=["none", "full"], default="full")
    parser.add_argument("--style", choices=["interleaved", "threads"], default="threads")
    parser.add_argument("--pictures", action="store_true")
    arguments = parser.parse_args()
    configure(1)
    with tempfile.TemporaryDirectory(prefix="takeover-plain-", ignore_cleanup_errors=True) as folder:
        config = RunConfig(
            session_id="bench",
            workspace=folder,
            sockets=folder,
            operator="scripted",
            clock="lockstep",
            demonstrations=DEMONSTRATIONS,
            learner_parameters=dict(LEARNER),
        )
        loop = PacedLoop(config, arguments.hz, arguments.load, arguments.pictures, Path(folder))
        if arguments.load == "full":
            for number in range(DEMONSTRATIONS):
                loop.episode(EpisodeKind.DEMONSTRATION, number)
            while loop.training.phase == "cloning":
                loop.training.work()
        run(loop, arguments.seconds, arguments.style)
        ENDED.set()
    learner = loop.training.learner
    found = {"updates": learner.updates if learner is not None else 0, "stood_still_s": round(loop.stood_s, 1)}
    print(
        json.dumps({"lateness_ms": quantiles(loop.lateness_s), "observation_to_action_ms": quantiles(loop.to_action_s)} | found), flush=True
    )
    os._exit(0)  # the threads never end


def run(loop: PacedLoop, seconds: float, style: str) -> None:
    """Qt wants the main thread: with threads, the control loop is in one of its own."""
    if style == "interleaved":
        loop.paced(seconds)
        return
    loop.work_in_threads()
    control = threading.Thread(target=loop.paced, args=(seconds,))
    control.start()
    while control.is_alive():
        began = time.monotonic()
        if loop.window is not None:
            loop.window.turn()
        time.sleep(max(LONGEST_WAIT_S, began + 1.0 / 60.0 - time.monotonic()))


def quantiles(seconds: list[float]) -> dict[str, Any]:
    """Milliseconds at p50, p99, p99.9 and the largest, with n."""
    if not seconds:
        return {"n": 0}
    values = np.array(seconds) * 1000.0
    named = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    return {name: round(float(np.quantile(values, q)), 3) for name, q in named.items()} | {
        "max": round(float(values.max()), 3),
        "n": len(values),
    }


if __name__ == "__main__":
    main()
