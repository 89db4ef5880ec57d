"""``takeover run``: the whole loop without a window."""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from takeover.app.commands.options import NO_LEARNER, StationOptions, make_config
from takeover.app.commands.progress import progress_display, summary_table
from takeover.app.launcher import Launcher
from takeover.app.processes.common import StartupError
from takeover.app.report import learning_curves_png
from takeover.app.supervisor import RunPlan, Supervisor
from takeover.data.schema import RunConfig
from takeover.data.seeding import HELDOUT_STARTS
from takeover.data.workspace import Workspace

FIRST_LOOK_EPISODES = 120


@dataclass(frozen=True)
class Run(StationOptions):
    """The whole loop without a window: demonstrations, cloning, the policy drives and is corrected, held-out evaluation, summary."""

    headless: bool = False
    """Said for clarity: this command never opens a window."""
    clock: Literal["realtime", "lockstep"] = "realtime"
    """`lockstep`: as fast as the processes keep up, and reproducible."""
    operator: Literal["scripted", "none"] = "scripted"
    """Who makes the demonstrations and the corrections."""
    episodes: Annotated[int, tyro.conf.arg(metavar="N")] = FIRST_LOOK_EPISODES
    """Episodes of the loop, after the demonstrations."""
    evaluation_starts: Annotated[int, tyro.conf.arg(metavar="N")] = HELDOUT_STARTS
    """Held-out starts before and after the loop."""
    cameras: bool = False
    """Render and record pictures in lockstep too; in real time that is the default."""
    no_cameras: bool = False
    """No pictures in real time either."""
    summary: Annotated[str, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = ""
    """Write the summary as JSON to this file."""
    picture: Annotated[str, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = ""
    """Draw the learning curves into this PNG (default: in the workspace)."""


def run(command: Run) -> int:
    """Returns the exit status."""
    _check(command)
    cameras = not command.no_cameras and (command.cameras or command.clock == "realtime")
    config = make_config(command, operator=command.operator, clock=command.clock, cameras=cameras)
    return run_headless(config, command.episodes, command.evaluation_starts, command.summary, command.picture)


def first_look() -> int:
    """What `takeover` does without a display: a modest lockstep run in a workspace of its own."""
    place = Workspace.default().path.parent / "runs" / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    print(
        f"No display: running the loop headless with the scripted operator, {FIRST_LOOK_EPISODES} episodes. Workspace: {place}",
        file=sys.stderr,
    )
    config = make_config(StationOptions(workspace=str(place)), operator="scripted", clock="lockstep", cameras=False)
    return run_headless(config, FIRST_LOOK_EPISODES, HELDOUT_STARTS, str(place / "summary.json"), "")


def _check(command: Run) -> None:
    if command.episodes < 1:
        raise StartupError(f"--episodes {command.episodes}: at least 1")
    if not 1 <= command.evaluation_starts <= HELDOUT_STARTS:
        raise StartupError(f"--evaluation-starts {command.evaluation_starts}: there are 1 to {HELDOUT_STARTS} held-out starts")
    for name in (command.summary, command.picture):
        folder = Path(name).absolute().parent
        if name and not os.access(folder, os.W_OK):
            raise StartupError(f"{name}: the folder {folder} does not exist or is not writable")


def run_headless(config: RunConfig, episodes: int, starts: int, summary_path: str, picture_path: str) -> int:
    """All processes, the supervisor on top; prints the summary. Returns the exit status."""
    summary = _supervise(config, RunPlan(episodes=episodes, evaluation_starts=starts))
    if summary_path:
        write_json(Path(summary_path), summary)
    summary_table(summary)
    picture = learning_curves_png(summary, picture_path or Path(config.workspace) / "learning_curves.png")
    print(f"learning curves: {picture}")
    if summary_path:
        print(f"summary: {Path(summary_path).absolute()}")
    return 0


def processes_of(config: RunConfig) -> list[str]:
    """Without a learner there is still an actor: a policy of an earlier run may drive."""
    names = ["bridge", "recorder", "actor"]
    if config.learner != NO_LEARNER:
        names += ["learner", "evaluator"]
    if config.operator == "scripted":
        names.append("operator")
    return names


def _supervise(config: RunConfig, plan: RunPlan) -> dict[str, Any]:
    with progress_display() as display, Launcher(config, processes_of(config), display.note) as launcher, stops_on_signals(launcher):
        supervisor = Supervisor(config, launcher, plan, display.show)
        try:
            return supervisor.run()
        finally:
            supervisor.close()


@contextmanager
def stops_on_signals(launcher: Launcher) -> Iterator[None]:
    """Ctrl+C, SIGTERM and a closed terminal ask the launcher to stop; the work in the foreground notices."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: launcher.shutdown()) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Atomically: a reader never sees half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, path)
