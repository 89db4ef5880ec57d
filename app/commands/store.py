"""`takeover data`, `policy` and `evaluate`: thin over `takeover.data` and the evaluator."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.table import Table

from takeover.app.commands.options import StationOptions, make_config
from takeover.app.commands.progress import listing, print_table, progress_display
from takeover.app.commands.run import stops_on_signals
from takeover.app.launcher import Launcher
from takeover.app.processes.common import StartupError
from takeover.app.supervisor import RunPlan, Supervisor
from takeover.data.seeding import HELDOUT_STARTS
from takeover.data.workspace import Workspace

Where = Annotated[str, tyro.conf.arg(metavar="DIR", help_behavior_hint="", help="Workspace folder (default: the user data folder).")]


@dataclass(frozen=True)
class Data:
    """What has been recorded: `takeover data ls`, `data show EPISODE`, `data verify`."""

    action: Annotated[Literal["ls", "show", "verify"], tyro.conf.Positional]
    """List episodes, show one, or check the files against their seals."""
    episode: Annotated[str, tyro.conf.Positional] = ""
    """Id of an episode, or its beginning or end (show, verify)."""
    workspace: Where = ""


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


def _existing(path: str) -> Workspace:
    workspace = Workspace(path) if path else Workspace.default()
    if not workspace.catalog_path.exists():
        raise StartupError(f"{workspace.path} is not a workspace with recordings; choose one with --workspace")
    return workspace


def data(command: Data) -> int:
    """Returns 0; 1 when `verify` found damage."""
    workspace = _existing(command.workspace)
    if command.action == "ls":
        return _list_episodes(workspace)
    from takeover.data.catalog import Catalog

    with Catalog.open(workspace) as catalog:
        rows = [row for row in catalog.episodes() if row.id.startswith(command.episode) or row.id.endswith(command.episode)]
    if command.episode and not rows:
        raise StartupError(f"no episode {command.episode!r} in {workspace.path}; `takeover data ls` lists them")
    if command.action == "verify":
        return _verify([workspace.path / row.path for row in rows])
    if len(rows) != 1:
        raise StartupError(f"{len(rows)} episodes are called {command.episode!r}; name one")
    table = Table(show_header=False)
    for name in rows[0].__struct_fields__:
        table.add_row(name, str(getattr(rows[0], name)))
    print_table(table)
    return 0


def _list_episodes(workspace: Workspace) -> int:
    from takeover.data.catalog import Catalog

    table = listing(str(workspace.path))
    for column in ("episode", "started (UTC)", "task", "kind", "n", "version", "steps", "human", "takeovers", "outcome"):
        table.add_column(column, no_wrap=True)
    with Catalog.open(workspace) as catalog:
        for row in catalog.episodes():
            started = datetime.fromtimestamp(row.started_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")
            outcome = row.outcome + (" (excluded)" if row.excluded else "") + (" alone" if row.success and row.autonomous else "")
            cells = (row.number, row.policy_version, row.steps, row.human_steps, row.takeovers)
            table.add_row(row.id[-10:], started, row.task_id, row.kind, *(str(cell) for cell in cells), outcome)
    print_table(table)
    return 0


def _verify(paths: Sequence[Path]) -> int:
    from takeover.data.episode_file import verify_file

    problems = [problem for path in paths for problem in verify_file(path)]
    for problem in problems:
        print(problem)
    print(f"{len(paths)} episodes checked, {len(problems)} problems", file=sys.stderr)
    return 1 if problems else 0


def policy(command: Policy) -> int:
    from takeover.data.catalog import Catalog

    workspace = _existing(command.workspace)
    table = listing(str(workspace.path))
    for column in ("session", "version", "created (UTC)", "learner", "task", "updates", "held-out", "sha256"):
        table.add_column(column, no_wrap=True)
    with Catalog.open(workspace) as catalog:
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
