"""A whole station in real time that runs by itself until it is told to stop: for long trials that watch it, or strike at it."""

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from takeover.app.launcher import Interrupted
from takeover.app.supervisor import RunPlan, Supervisor
from tests.faults.rig import Rig, rig

PROCESSES = ("bridge", "recorder", "actor", "learner", "evaluator", "operator", "console")
FOR_EVER = 1_000_000  # episodes


class Worker(threading.Thread):
    """Supervises the corrected loop; ``error`` says why it ended before it was told to."""

    def __init__(self, supervisor: Supervisor) -> None:
        super().__init__(name="supervisor", daemon=True)
        self._supervisor = supervisor
        self.error = ""

    def run(self) -> None:
        try:
            self._supervisor.work()
        except Interrupted:
            pass
        except Exception as error:  # noqa: BLE001 - whatever ended it is a finding, and is told as one
            self.error = f"{type(error).__name__}: {error}"


@dataclass
class WholeStation:
    """The running station, seen from outside (``rig``), and what keeps its episodes coming (``worker``)."""

    rig: Rig
    worker: Worker

    @property
    def workspace(self) -> Path:
        return Path(self.rig.config.workspace)

    def forget(self) -> None:
        """Let go of the old states and steps; only between two looks at them."""
        del self.rig.watch.states[:-200]
        del self.rig.watch.steps[:-200]
        del self.rig.watch.events[:-200]


@contextlib.contextmanager
def whole_station(workspace: Path, session: str, seed: int, **config: Any) -> Iterator[WholeStation]:
    """Every process, cameras, the window (offscreen), the scripted operator; three demonstrations cloned, then the loop without an end."""
    platform = os.environ.get("QT_QPA_PLATFORM")
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    settings: dict[str, Any] = {
        "session_id": session,
        "workspace": str(workspace),
        "operator": "scripted",
        "learner": "hil-serl",
        "learner_parameters": {"clone_updates": 200},
        "demonstrations": 3,
        "cameras": True,
        "gate": True,
        "seed": seed,
    }
    try:
        with rig(PROCESSES, **(settings | config)) as made:
            supervisor = Supervisor(made.config, made.launcher, RunPlan(episodes=FOR_EVER), lambda progress: None)
            worker = Worker(supervisor)
            try:
                supervisor.prepare()
                worker.start()
                yield WholeStation(made, worker)
            finally:
                made.launcher.shutdown()
                if worker.ident is not None:
                    worker.join(20.0)
                supervisor.close()
    finally:
        if platform is None:
            os.environ.pop("QT_QPA_PLATFORM", None)
        else:
            os.environ["QT_QPA_PLATFORM"] = platform
