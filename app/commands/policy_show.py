"""`takeover policy ls` and `show`."""

import sys
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from takeover.app.commands import policy_absorb
from takeover.app.commands.data_options import Where, existing, opened_catalog, print_json
from takeover.app.commands.policy_options import Json, Version, decision_rows, decisions_of, manifest_of, manifests, marks
from takeover.app.commands.policy_parameters import text_of
from takeover.app.commands.policy_rate import trained_at
from takeover.app.commands.progress import listing, print_table
from takeover.app.processes.common import StartupError
from takeover.data.catalog_place import has_catalog
from takeover.data.statistics import wilson

if TYPE_CHECKING:
    from takeover.data.catalog_tables import EvaluationRow
    from takeover.data.workspace import Workspace
    from takeover.policies.absorption_file import Absorption

HELDOUT = "heldout"


@dataclass(frozen=True)
class Ls:
    """List the published versions: held-out success, what is trusted, refused, pinned, and which one acts.

    A learner in real time prunes the weights of old versions that nothing refers to: of those the manifest is left, they are marked
    "weights pruned", and they can be shown but not run (docs/learning.md).
    """

    json: Json = False
    workspace: Where = ""


@dataclass(frozen=True)
class Show:
    """One version: where it comes from, every evaluation of it, and what was decided about it."""

    version: Version
    """Its number in `takeover policy ls`."""
    json: Json = False
    workspace: Where = ""


def ls(command: Ls) -> int:
    """Returns 0; what cannot be read is said on stderr."""
    workspace = existing(command.workspace)
    found, problems = manifests(workspace)
    decided = decisions_of(workspace)
    results = _evaluations(workspace)
    of_robot: dict[tuple[str, str], list[int]] = defaultdict(list)
    for manifest in found:
        of_robot[manifest.robot_id, manifest.task_id].append(manifest.version)
    rows: list[dict[str, Any]] = []
    for manifest in found:
        tried = [row for row in results[manifest.sha256] if row.protocol == HELDOUT]
        rows.append(
            {
                "session": manifest.session_id,
                "version": manifest.version,
                "created_ns": manifest.wall_ns,
                "learner": manifest.learner,
                "robot": manifest.robot_id,
                "task": manifest.task_id,
                "updates": manifest.counters.get("updates", 0),
                "successes": tried[-1].successes if tried else None,
                "n": tried[-1].n if tried else None,
                "marks": marks(decided, manifest, of_robot[manifest.robot_id, manifest.task_id]) + _pruned(workspace, manifest.version),
                "sha256": manifest.sha256,
            }
        )
    for problem in problems:
        print(f"takeover: {problem}", file=sys.stderr)
    if command.json:
        print_json({"workspace": str(workspace.path), "policies": rows})
        return 0
    table = listing(str(workspace.path))
    for column in ("session", "version", "created (UTC)", "learner", "task", "updates", "held-out", "decided", "sha256"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        held_out = "" if row["n"] is None else f"{row['successes']} of {row['n']}"
        cells = (row["session"][-6:], str(row["version"]), _moment(row["created_ns"]), row["learner"], row["task"], f"{row['updates']:,}")
        table.add_row(*cells, held_out, ", ".join(row["marks"]), row["sha256"][:16])
    print_table(table)
    return 0


def show(command: Show) -> int:
    """Returns 0."""
    workspace = existing(command.workspace)
    manifest = manifest_of(workspace, command.version)
    decided = decisions_of(workspace)
    published = [m.version for m in manifests(workspace)[0] if (m.robot_id, m.task_id) == (manifest.robot_id, manifest.task_id)]
    held = marks(decided, manifest, published) + _pruned(workspace, manifest.version)
    about = [decision for decision in decided if (decision.version, decision.sha256) == (manifest.version, manifest.sha256)]
    results = _evaluations(workspace)[manifest.sha256]
    if command.json:
        evaluations = [msgspec.to_builtins(row) | {"interval": wilson(row.successes, row.n)} for row in results]
        content: dict[str, Any] = {"manifest": manifest, "marks": held, "evaluations": evaluations, "decisions": decision_rows(about)}
        content["absorption"] = _absorption(workspace, manifest.version)
        print_json(content)
        return 0
    table = listing(f"version {manifest.version}: {', '.join(held) or 'nothing was decided'}")
    table.add_column("")
    table.add_column("")
    data, counters = manifest.data, manifest.counters
    for name, value in (
        ("robot, task", f"{manifest.robot_id}, {manifest.task_id}"),
        ("task parameters", "not noted" if manifest.task_parameters is None else text_of(manifest.task_parameters)),
        ("control rate", trained_at(manifest)),
        ("learner, parent", f"{manifest.learner}, {manifest.parent or 'none'}"),
        ("created (UTC)", _moment(manifest.wall_ns)),
        ("data", ", ".join(f"{key} {value:,}" for key, value in data.items())),
        ("counters", ", ".join(f"{key} {value:,}" for key, value in counters.items())),
        ("sha256", manifest.sha256),
    ):
        table.add_row(name, value)
    for row in results:
        low, high = wilson(row.successes, row.n)
        shown = f"{row.successes} of {row.n} ({100 * low:.0f} to {100 * high:.0f} %), {_moment(row.created_ns)}"
        table.add_row(row.protocol, shown)
    if absorbed := _absorption(workspace, manifest.version):
        for number, line in enumerate(policy_absorb.lines(absorbed)):
            table.add_row("" if number else "absorption", line)
    for decision in about:
        reason = f": {decision.reason}" if decision.reason else ""
        table.add_row(decision.kind.replace("_", " "), f"{_moment(decision.wall_ns)} by {decision.author}{reason}")
    print_table(table)
    return 0


def _pruned(workspace: "Workspace", version: int) -> list[str]:
    """A mark for a version of which only the manifest is left."""
    from takeover.policies.manifest import is_pruned, version_folder

    return ["weights pruned"] if is_pruned(version_folder(workspace.path, version)) else []


def _absorption(workspace: "Workspace", version: int) -> "Absorption | None":
    """What `takeover policy absorb` kept. Raises `StartupError` when it is damaged."""
    from takeover.policies.absorption_file import read_absorption

    try:
        return read_absorption(workspace.path, version)
    except ValueError as error:
        raise StartupError(str(error)) from error


def _evaluations(workspace: "Workspace") -> "dict[str, list[EvaluationRow]]":
    """By the weights' hash, oldest first; empty where there is no catalog."""
    found: dict[str, list[Any]] = defaultdict(list)
    if has_catalog(workspace):
        with opened_catalog(workspace) as catalog:
            for row in catalog.evaluations():
                found[row.policy_sha256].append(row)
    return found


def _moment(wall_ns: int) -> str:
    return datetime.fromtimestamp(wall_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S") if wall_ns else "unknown"
