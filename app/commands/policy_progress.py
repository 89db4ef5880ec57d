"""`takeover policy steps-to-go`: fit the head that says how far a run is from success, and say how far off it is."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from takeover.app.commands.data_options import Where, existing, print_json
from takeover.app.commands.policy_options import Json, config_of, robot_id_of
from takeover.app.commands.progress import listing, print_table, progress_display
from takeover.app.processes.common import StartupError
from takeover.app.supervisor import Progress

if TYPE_CHECKING:
    from takeover.policies.steps_to_go_store import Made


@dataclass(frozen=True)
class StepsToGo:
    """Fit the steps-to-go head to what was recorded, report its error on held-out episodes, and let actors use it from the next episode."""

    task: str = ""
    """Task (default: the station's)."""
    dry_run: bool = False
    """Report only, keep nothing."""
    updates: int = 1000
    """Batches of 256 steps."""
    seed: int = 0
    success_steps: float = 3.0
    """Success is offered where at most this many steps are said to be left."""
    alpha: float = 0.2
    """Share of unassisted successes in which the stall detector may cry once or more."""
    robot: Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="", help="As in `takeover run` (default: the station's).")] = ""
    json: Json = False
    workspace: Where = ""


def steps_to_go(command: StepsToGo) -> int:
    """Returns 0 when a head was fitted."""
    from takeover.data.hdf5_image import DamagedFile
    from takeover.policies.steps_to_go_fit import FitSettings
    from takeover.policies.steps_to_go_store import make_head
    from takeover.policies.torch_setup import configure

    workspace = existing(command.workspace)
    config = config_of(workspace, command.robot)
    configure(1)
    started_s = time.monotonic()
    with progress_display() as display:

        def show(done: int, total: int) -> bool:
            display.show(Progress("reading" if total != command.updates else "fitting", done, total, ""))
            return True

        try:
            made = make_head(
                workspace,
                command.task or config.task,
                robot_id_of(config.robot),
                FitSettings(updates=command.updates, seed=command.seed),
                success_steps=command.success_steps,
                alpha=command.alpha,
                keep=not command.dry_run,
                on_progress=show,
            )
        except (ValueError, DamagedFile) as error:
            raise StartupError(str(error)) from error
        except OSError as error:
            raise StartupError(f"{error.filename or workspace.path}: {error.strerror or error}") from error
    _print(command, made, time.monotonic() - started_s)
    return 0


def _print(command: StepsToGo, made: "Made", wall_s: float) -> None:
    manifest = made.manifest
    if command.json:
        kept = "" if command.dry_run else str(made.path)
        print_json({"path": kept, "wall_s": wall_s, "manifest": manifest})
        return
    report = manifest.report
    table = listing(f"{manifest.robot_id}:{manifest.task_id}, held-out episodes")
    for column in ("true steps to go", "steps", "true mean", "said mean", "mean absolute error"):
        table.add_column(column, no_wrap=True)
    for row in report["by_range"]:
        cells = (f"{row['mean_true']:.1f}", f"{row['mean_said']:.1f}", f"{row['mean_absolute_error_steps']:.1f}")
        table.add_row(f"{row['from']} to {row['to']}", str(row["steps"]), *cells)
    print_table(table)
    for title, name in (
        ("mean absolute error", "held_out"),
        ("of the best constant", "constant"),
        ("on what it learned from", "learned_from"),
    ):
        print(f"{title}: {_error(report[name])}")
    print(_offer(report["success_offer"]))
    print(_stall(report["stall"]))
    print(f"fitted to {manifest.episodes} episodes in {wall_s:.0f} s; " + ("nothing kept" if command.dry_run else f"kept as {made.path}"))


def _error(found: dict[str, Any]) -> str:
    if not found["steps"]:
        return "unknown: no such held-out episode succeeded"
    low, high = found["interval"]
    n = f"{found['steps']} steps of {found['episodes']} episodes"
    return f"{found['mean_absolute_error_steps']:.1f} steps ({low:.1f} to {high:.1f}, over episodes), n = {n}"


def _offer(found: dict[str, Any]) -> str:
    return (
        f"success offered at {found['success_steps']:g} steps or fewer: near the end of {found['offered_near_the_end']} of "
        f"{found['successes']} successes, too early in {found['offered_too_early']}, in {found['offered_without_success']} of "
        f"{found['others']} other episodes"
    )


def _stall(found: dict[str, Any]) -> str:
    if found["threshold_spread_steps"] is None:
        runs = found["unassisted_successes"]
        promised = 100 * found["promised_false_alarms"]
        return f"stall: off; {runs} held-out unassisted successes are too few to promise {promised:.0f} % false alarms"
    alarms = f"{found['false_alarms']} of {found['unassisted_successes']}"
    return (
        f"stall above a spread of {found['threshold_spread_steps']:.1f} steps: {alarms} "
        f"unassisted successes ({100 * found['promised_false_alarms']:.0f} % promised), {found['alarms_in_helped_or_failed']} of "
        f"{found['helped_or_failed']} helped or failed episodes"
    )
