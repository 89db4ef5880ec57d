"""Learners x operators x tasks x seeds in lockstep: success on held-out starts against human steps, environment steps and wall time.

Every cell of the grid is one run of the whole loop in one process. A finished cell is one JSON file under OUT/cells, so the
same command goes on where it was stopped (Ctrl+C loses the running cells only); a cell that fails is said, and the others go on. Two
commands may share one OUT: a cell is run once. Writes OUT/report.md, OUT/report.json and a picture of the curves per task and operator.
The operators are scripted: no people are tested.

    takeover bench sample-efficiency --quick
    takeover bench sample-efficiency --seeds 0 1 2 3 4 [--learners hil-serl hg-dagger] [--operators expert slow] [--tasks peg-insert]
                                     [--ablations] [--steps 15000] [--jobs 8]
                                     [--set learner.batch=128 operator.noise=0.2 task.clearance_m=0.0012]
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.result_text import commit, machine
from benchmarks.sample_efficiency_cells import CellError, cell_path, load, load_all, outdated
from benchmarks.sample_efficiency_chart import draw
from benchmarks.sample_efficiency_goals import goals
from benchmarks.sample_efficiency_jobs import Ran, run_cells
from benchmarks.sample_efficiency_plan import ABLATIONS, LEARNERS, VARIANTS, Cell, Grid, PlanError
from benchmarks.sample_efficiency_report import NOBODY, markdown, picture_name, summarise
from takeover.app.commands.options import _number, _scalar, parse_parameters
from takeover.app.commands.progress import progress_display
from takeover.app.operators.scripted import STYLES
from takeover.app.processes.common import EXIT_BAD_INPUT, StartupError
from takeover.policies.torch_setup import configure
from takeover.robot_bridge.robots.base import RobotError
from takeover.robot_bridge.robots.sim import SimRobot

MOST_JOBS = 256
QUICK = {"learners": ["hil-serl", "hg-dagger"], "operators": ["expert"], "tasks": ["peg-insert"], "steps": 2000, "points": 4, "starts": 50}
FULL = {"learners": list(LEARNERS), "operators": ["expert"], "tasks": ["peg-insert"], "steps": 15_000, "points": 6, "starts": 200}


def grid_of(arguments: argparse.Namespace) -> Grid:
    """Raises `PlanError` or `StartupError` for what cannot be run, before anything runs."""
    defaults = QUICK if arguments.quick else FULL
    chosen = {name: getattr(arguments, name) if getattr(arguments, name) is not None else value for name, value in defaults.items()}
    settings = parse_parameters(tuple(arguments.set))
    task = {name: _number(f"task.{name}", value) for name, value in settings["task"].items()}
    grid = Grid(
        variants=[*chosen["learners"], *(ABLATIONS if arguments.ablations else ())],
        operators=chosen["operators"],
        tasks=chosen["tasks"],
        seeds=arguments.seeds,
        steps=chosen["steps"],
        points=chosen["points"],
        starts=chosen["starts"],
        demonstrations=arguments.demonstrations,
        learner={name: _scalar(value) for name, value in settings["learner"].items()},
        operator={name: _scalar(value) for name, value in settings["operator"].items()},
        task=task,
    )
    grid.cells()
    if not 1 <= arguments.jobs <= MOST_JOBS:
        raise PlanError(f"jobs = {arguments.jobs}; allowed 1..{MOST_JOBS}")
    for name in grid.tasks:
        try:
            SimRobot(name, dict(task))
        except RobotError as error:
            raise PlanError(f"{name}: {error}") from error
    return grid


def run_grid(cells: Sequence[Cell], folder: Path, jobs: int, most: int | None) -> tuple[list[dict[str, Any]], Ran]:
    """Run what is missing, ``jobs`` cells at once, at most ``most`` of them; every finished result in the order of ``cells``."""
    missing = [cell for cell in cells if load(cell_path(folder, cell), cell) is None]
    with progress_display() as display:
        ran = run_cells(missing, folder, jobs, most, {"commit": _commit(), "machine": machine()}, display.show)
    found = (load(cell_path(folder, cell), cell) for cell in cells if cell.name not in ran.failed)
    return [result for result in found if result is not None], ran


def _commit() -> str:
    """With a + when the tree has changes of its own; empty outside a checkout."""
    try:
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True).stdout.strip()
        return commit() + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def write_report(
    grid: Grid, cells: Sequence[Cell], results: Sequence[dict[str, Any]], also: Sequence[dict[str, Any]], folder: Path, command: str
) -> dict[str, Any]:
    """report.json, report.md and the pictures; returns what report.json holds. ``also``: cells of other grids, for the goals alone; those
    that a learner made which is another one by now do not count, and are named."""
    counted = [result for result in also if not outdated(result)]
    done = {result["settings"]["seed"]: None for result in results}
    finished = {(r["settings"]["task"], r["settings"]["operator"], r["settings"]["variant"], r["settings"]["seed"]) for r in results}
    groups = summarise(results)
    summary = {
        "note": NOBODY.replace("**", ""),
        "command": command,
        "commits": sorted({result["commit"] for result in results if result.get("commit")}),
        "without_recipe": sorted({result["settings"]["variant"] for result in [*results, *counted] if "recipe" not in result}),
        "also_left_out": sorted(text for result in also if (text := outdated(result))),
        "machines": sorted({result["machine"] for result in results}),
        "settings": {"steps": grid.steps, "points": grid.points, "starts": grid.starts, "demonstrations": grid.demonstrations}
        | {"learner": dict(grid.learner), "operator": dict(grid.operator), "task": dict(grid.task), "seeds": sorted(done)},
        "hz": {task: SimRobot(task).spec.control_hz for task in grid.tasks},
        "missing": [cell.name for cell in cells if (cell.task, cell.operator, cell.variant, cell.seed) not in finished],
        "goals": goals([*results, *counted]),
        "groups": groups,
    }
    folder.mkdir(parents=True, exist_ok=True)
    note = f"{grid.demonstrations} demonstrations before; points are means over seeds. Commit {', '.join(summary['commits']) or 'unknown'}."
    for group in summary["groups"]:
        draw(group, folder / picture_name(group["task"], group["operator"]), note)
    for name, text in (("report.json", json.dumps(summary, indent=1)), ("report.md", markdown(summary))):
        temporary = folder / f".{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, folder / name)
    return summary


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="takeover bench sample-efficiency"
    )
    parser.add_argument("--learners", nargs="+", metavar="NAME", help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("--ablations", action="store_true", help=f"also {', '.join(ABLATIONS)}")
    parser.add_argument("--operators", nargs="+", metavar="NAME", help=f"of {', '.join(STYLES)}")
    parser.add_argument("--tasks", nargs="+", metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, help="environment steps of the loop (default 15000)")
    parser.add_argument("--points", type=int, help="evaluations after the warm start (default 6)")
    parser.add_argument("--starts", type=int, help="held-out starts per evaluation (default 200)")
    parser.add_argument("--demonstrations", type=int, default=20)
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="GROUP.NAME=VALUE", help="learner., operator. or task. settings of every cell"
    )
    parser.add_argument("--out", type=Path, help="default docs/results/sample-efficiency, with --quick ./sample-efficiency-quick")
    parser.add_argument(
        "--also",
        nargs="+",
        type=Path,
        default=[],
        metavar="OUT",
        help="other grids' folders: their finished cells count for the goals, but for those of learners whose defaults were others",
    )
    parser.add_argument("--quick", action="store_true", help="two learners, one seed, 2,000 steps, 50 starts: a few minutes")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="cells at once, each in a process of its own (default 1)")
    parser.add_argument("--cells", type=int, metavar="N", help="run at most N of the missing cells now; 0: only the report")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    configure(1)
    folder = arguments.out or Path("sample-efficiency-quick" if arguments.quick else "docs/results/sample-efficiency")
    try:
        grid = grid_of(arguments)
        cells = grid.cells()
        also = [result for other in arguments.also for result in load_all(other)]
        results, ran = run_grid(cells, folder, arguments.jobs, arguments.cells)
        for name, text in (ran.failed | ran.busy).items():
            print(f"sample-efficiency: {name}: {text}", file=sys.stderr)
        if not results and ran.failed:
            return 1
        if not results:
            raise PlanError(f"no cell is finished in {folder}: nothing to report; leave --cells out to run some")
        given = sys.argv[1:] if argv is None else argv
        summary = write_report(grid, cells, results, also, folder, shlex.join(["takeover", "bench", "sample-efficiency", *given]))
    except (PlanError, StartupError) as error:
        print(f"sample-efficiency: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except CellError as error:
        print(f"sample-efficiency: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("sample-efficiency: stopped; the same command goes on with the next unfinished cell", file=sys.stderr)
        return 130
    finals = {
        f"{group['task']}.{group['operator']}.{row['variant']}": [row["final"]["successes"], row["final"]["n"]]
        for group in summary["groups"]
        for row in group["learners"]
    }
    said = {"note": summary["note"], "report": str(folder / "report.md"), "missing": len(summary["missing"]), "failed": sorted(ran.failed)}
    print(json.dumps(said | {"final": finals}))
    return 1 if ran.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
