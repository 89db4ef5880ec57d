"""`takeover policy` and `evaluate`: thin over `takeover.data` and the evaluator."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

import tyro

from takeover.app.commands.data_options import Where, existing, opened_catalog
from takeover.app.commands.options import StationOptions, make_config
from takeover.app.commands.progress import listing, print_table, progress_display
from takeover.app.commands.run import stops_on_signals
from takeover.app.launcher import Launcher
from takeover.app.processes.common import StartupError
from takeover.app.supervisor import RunPlan, Supervisor
from takeover.data.seeding import HELDOUT_STARTS
from takeover.data.workspace import Workspace


@dataclass(frozen=True)
class Policy:
    """What has been learned: `takeover policy ls`."""

    action: Annotated[Literal["ls"], tyro.conf.Positional]
    """List the published versions with their held-out success."""
    workspace: Where = ""


@dataclass(frozen=True)
class Evaluate(StationOptions):
    """A published policy alone, deterministic, on the held-out starts."""

    version: int = 0
    """0: the newest."""
    starts: int = HELDOUT_STARTS
    """How many of the held-out starts."""


def policy(command: Policy) -> int:
    workspace = existing(command.workspace)
    table = listing(str(workspace.path))
    for column in ("session", "version", "created (UTC)", "learner", "task", "updates", "held-out", "sha256"):
        table.add_column(column, no_wrap=True)
    with opened_catalog(workspace) as catalog:
        results = {(row.session_id, row.policy_version): f"{row.successes} of {row.n}" for row in catalog.evaluations()}
        for row in catalog.policies():
            created = datetime.fromtimestamp(row.created_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")
            held_out = results.get((row.session_id, row.version), "")
            cells = (
                row.session_id[-6:],
                str(row.version),
                created,
                row.learner,
                row.task_id,
                f"{row.updates:,}",
                held_out,
                row.sha256[:16],
            )
            table.add_row(*cells)
    print_table(table)
    return 0


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
    config = make_config(command, operator="none", cameras=False)
    with progress_display() as display, Launcher(config, ["evaluator"], display.note) as launcher, stops_on_signals(launcher):
        supervisor = Supervisor(config, launcher, RunPlan(episodes=0, evaluation_starts=command.starts), display.show)
        try:
            launcher.wait_ready(60.0)
            reply = supervisor.evaluate("", version)
        finally:
            supervisor.close()
    print(f"version {version}: {reply.successes} of {reply.n}")
    return 0
