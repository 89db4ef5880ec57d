"""`takeover data ls`."""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import tyro

from takeover.app.commands.data_options import Filters, Where, existing, filter_of, opened_catalog, print_json
from takeover.app.commands.progress import listing, print_table
from takeover.app.processes.common import StartupError

COLUMNS = ("episode", "started (UTC)", "task", "kind", "n", "operator", "version", "steps", "human", "takeovers", "outcome")


@dataclass(frozen=True)
class Ls(Filters):
    """List recorded episodes, newest first."""

    limit: int = 50
    """How many; 0: all."""
    oldest_first: bool = False
    json: Annotated[bool, tyro.conf.arg(help="One JSON document on stdout.")] = False
    workspace: Where = ""


def ls(command: Ls) -> int:
    """Returns 0."""
    from takeover.data.selection import count_episodes, select_episodes

    if command.limit < 0:
        raise StartupError(f"--limit {command.limit}: 1 or more, or 0 for all")
    workspace, filters = existing(command.workspace), filter_of(command)
    with opened_catalog(workspace) as catalog:
        total = count_episodes(catalog, filters)
        rows = select_episodes(catalog, filters, command.limit or None, oldest_first=command.oldest_first)
    if command.json:
        print_json({"workspace": str(workspace.path), "total": total, "episodes": rows})
        return 0
    table = listing(str(workspace.path))
    for column in COLUMNS:
        table.add_column(column, no_wrap=True)
    for row in rows:
        started = datetime.fromtimestamp(row.started_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")
        outcome = row.outcome + (" (excluded)" if row.excluded else "") + (" alone" if row.success and row.autonomous else "")
        cells = (row.number, row.operator, row.policy_version, row.steps, row.human_steps, row.takeovers)
        table.add_row(row.id[-10:], started, row.task_id, row.kind, *(str(cell) for cell in cells), outcome)
    print_table(table)
    if len(rows) < total:
        print(f"{len(rows)} of {total} episodes; --limit 0 shows all", file=sys.stderr)
    return 0
