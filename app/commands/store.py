"""`takeover evaluate`: thin over the evaluator."""

from dataclasses import dataclass

from takeover.app.commands.options import StationOptions, make_config
from takeover.app.commands.progress import progress_display
from takeover.app.commands.run import stops_on_signals
from takeover.app.launcher import Launcher
from takeover.app.processes.common import StartupError
from takeover.app.supervisor import RunPlan, Supervisor
from takeover.data.seeding import HELDOUT_STARTS
from takeover.data.workspace import Workspace


@dataclass(frozen=True)
class Evaluate(StationOptions):
    """A published policy alone, deterministic, on the held-out starts."""

    version: int = 0
    """0: the newest."""
    starts: int = HELDOUT_STARTS
    """How many of the held-out starts."""


def evaluate(command: Evaluate) -> int:
    """Starts the evaluator alone; prints successes of n."""
    if not 1 <= command.starts <= HELDOUT_STARTS:
        raise StartupError(f"--starts {command.starts}: there are 1 to {HELDOUT_STARTS} held-out starts")
    workspace = Workspace(command.workspace or Workspace.default().path)
    versions = sorted(int(path.name) for path in workspace.policies.glob("[0-9]*") if path.name.isdigit())
    version = command.version or max(versions, default=0)
    if version not in versions:
        known = f"{versions[0]} to {versions[-1]}" if versions else "none"
        raise StartupError(f"no policy version {command.version or ''} in {workspace.path}; published: {known}")
    config = make_config(command, operator="none")
    with progress_display() as display, Launcher(config, ["evaluator"], display.note) as launcher, stops_on_signals(launcher):
        supervisor = Supervisor(config, launcher, RunPlan(episodes=0, evaluation_starts=command.starts), display.show)
        try:
            launcher.wait_ready(60.0)
            reply = supervisor.evaluate("", version)
        finally:
            supervisor.close()
    print(f"version {version}: {reply.successes} of {reply.n}")
    return 0
