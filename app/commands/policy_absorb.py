"""`takeover policy absorb`: whether a version took up what people corrected."""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import tyro

from takeover.app.commands.data_options import Where, existing, opened_catalog, print_json
from takeover.app.commands.policy_evaluate import prepared
from takeover.app.commands.policy_options import Json, config_of, robot_id_of, runnable, with_cameras
from takeover.app.commands.policy_parameters import Parameters, judged_at
from takeover.app.commands.progress import listing, print_table, progress_display
from takeover.app.processes.common import StartupError
from takeover.app.supervisor import Progress
from takeover.data.schema import RobotSpec, RunConfig
from takeover.data.workspace import Workspace

if TYPE_CHECKING:
    from takeover.policies.absorption_file import Absorption, SegmentAbsorption

DEFAULT_SEGMENTS = 20
DEFAULT_RUNS = 5


@dataclass(frozen=True)
class Absorb:
    """Per correction: does the version act closer to what the person did than the one that acted, and does its retest pass?"""

    version: Annotated[int, tyro.conf.Positional, tyro.conf.arg(metavar="VERSION", help_behavior_hint="")] = 0
    """The version that is asked about."""
    all: bool = False
    """Instead: every version that has weights and no result yet, newest first, without retests. Stopped, it keeps what is done."""
    segments: int = DEFAULT_SEGMENTS
    """How many corrections, newest first; 0: all."""
    runs: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """Retest runs of each policy per correction; 0: no retests (default: 5)."""
    set: Parameters = ()
    robot: Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="", help="As in `takeover run` (default: the station's).")] = ""
    json: Json = False
    workspace: Where = ""


def absorb(command: Absorb) -> int:
    """Returns 0 whatever was found; 2 when there is no correction to look at."""
    from takeover.policies.absorb import absorb as measure
    from takeover.robot_bridge.robots.sim_state import reseeded

    runs = DEFAULT_RUNS if command.runs is None else command.runs
    if command.segments < 0 or runs < 0:
        raise StartupError(f"--segments {command.segments} --runs {runs}: neither may be below 0")
    if command.all:
        return absorb_all(command)
    if not command.version:
        raise StartupError("which version? `takeover policy absorb VERSION`, a number of `takeover policy ls`, or --all")
    workspace = existing(command.workspace)
    manifest = runnable(workspace, command.version)
    judged = judged_at(with_cameras(config_of(workspace, command.robot), manifest), manifest, command.set)
    with prepared(str(workspace.path), judged.config) as (robot, _), progress_display() as display:

        def show(what: str, done: int, total: int) -> bool:
            display.show(Progress(what, done, total, f"correction {done}"))
            return True

        retests: dict[str, Any] = {"environment": robot, "vary": reseeded, "runs": runs} if runs else {}
        at = judged.config.task_parameters
        made = measure(workspace, command.version, robot.spec, limit=command.segments, on_progress=show, parameters=at, **retests)
    if command.json:
        print_json(msgspec.to_builtins(made) | judged.as_json)
        return 0
    judged.say()
    _print(made)
    return 0


def absorb_all(command: Absorb) -> int:
    """Returns 0, also where some cannot be measured: they are named."""
    from takeover.policies.absorb import NothingToMeasure
    from takeover.policies.absorb import absorb as measure
    from takeover.policies.absorption_again import is_due
    from takeover.policies.manifest import version_numbers
    from takeover.policies.recorded_corrections import Memory
    from takeover.policies.torch_setup import configure

    if command.version or command.runs or command.set:
        raise StartupError("--all measures distances alone, of every version: it goes with neither a version nor --runs nor --set")
    workspace = existing(command.workspace)
    config = config_of(workspace, command.robot)
    about = robot_id_of(config.robot), config.task
    due = [version for version in reversed(version_numbers(workspace.path)) if is_due(workspace.path, version, *about)]
    configure(1)
    measured: list[int] = []
    nothing: list[int] = []
    problems: list[str] = []
    memory, specs = Memory(workspace), _Specs(workspace, config)
    try:
        with opened_catalog(workspace) as catalog, progress_display() as display:
            for done, version in enumerate(due, 1):
                try:
                    measure(workspace, version, specs.of(version), limit=command.segments, catalog=catalog, memory=memory)
                    measured.append(version)
                except NothingToMeasure:
                    nothing.append(version)
                except (StartupError, ValueError) as error:
                    problems.append(f"version {version}: {error}")
                display.show(Progress("absorption", done, len(due), f"version {version}"))
    except OSError as error:
        raise StartupError(f"{error.filename or workspace.path}: {error.strerror or error}; kept: {len(measured)} versions") from error
    except KeyboardInterrupt:
        print(f"{len(measured)} of {len(due)} versions measured and kept", file=sys.stderr)
        raise
    if command.json:
        print_json({"measured": measured, "nothing_to_measure": nothing, "problems": problems})
        return 0
    print(
        f"{len(measured)} of {len(due)} versions without a result measured"
        if due
        else f"every version of {about[0]}:{about[1]} has a result"
    )
    if nothing:
        print(f"{len(nothing)} have no correction of an earlier version to look at")
    for problem in problems:
        print(f"not measured: {problem}")
    return 0


class _Specs:
    """The robot as each version was trained for it: one simulator is made for each control rate and choice of cameras."""

    def __init__(self, workspace: Workspace, config: RunConfig) -> None:
        self._workspace, self._config = workspace, config
        self._made: dict[tuple[float, tuple[str, ...]], RobotSpec] = {}

    def of(self, version: int) -> RobotSpec:
        """Raises `StartupError`, `PolicyRefused` for a manifest that is damaged."""
        from takeover.policies.manifest import read_manifest, version_folder
        from takeover.robot_bridge.robots.base import RobotError
        from takeover.robot_bridge.robots.registry import make_simulator

        manifest = read_manifest(version_folder(self._workspace.path, version))
        config = judged_at(with_cameras(self._config, manifest), manifest, ()).config
        key = config.control_hz, tuple(config.policy_cameras)
        if key not in self._made:
            try:
                robot = make_simulator(config)
            except RobotError as error:
                raise StartupError(str(error)) from error
            self._made[key] = robot.spec
            robot.close()
        return self._made[key]


def _print(made: "Absorption") -> None:
    table = listing(f"version {made.version}: distance to what the person did, before and after")
    for column in ("episode", "correction", "acted", "steps", "before", "after", "change, 95 %", "", "retest", "in a batch"):
        table.add_column(column, no_wrap=True)
    for row in made.segments:
        change = "too few steps" if row.interval is None else f"{row.interval[0]:+.2f} to {row.interval[1]:+.2f}"
        cells = (
            row.episode_id[-10:],
            str(row.intervention_id),
            str(row.acted_version),
            str(row.n),
            f"{row.before:.2f}",
            f"{row.after:.2f}",
        )
        used = {True: "yes", False: "not yet", None: "not noted"}[row.used]
        table.add_row(*cells, change, row.verdict, _retest(row), used)
    print_table(table)
    for line in lines(made):
        print(line)
    for problem in made.problems:
        print(f"not measured: {problem}")


def _retest(row: "SegmentAbsorption") -> str:
    if row.retest is None:
        return ""
    found = row.retest
    return f"{found.old} to {found.new} of {found.runs}, {'passed' if found.passed else 'failed'}"


def lines(made: "Absorption") -> list[str]:
    """The totals, in words."""
    totals = made.totals
    said = []
    if totals["segments"]:
        n = f"n = {totals['segments']} corrections, {totals['steps']} steps"
        interval = totals["change_interval"]
        change = "" if interval is None else f", change {interval[0]:+.3f} to {interval[1]:+.3f} over corrections"
        said.append(f"mean distance {totals['before']:.3f} before, {totals['after']:.3f} after{change}, {n}")
        low, high = (100 * value for value in totals["closer_interval"])
        said.append(
            f"closer in {totals['closer']} of {totals['segments']} ({low:.0f} to {high:.0f} %), farther in {totals['farther']}, "
            f"not shown in {totals['not_shown']}"
        )
    if totals.get("retested"):
        said.append(f"retest passed in {totals['retests_passed']} of {totals['retested']}; closer and passed: {totals['absorbed']}")
    for count, text in (
        (totals["in_no_batch_yet"], "in no batch yet, not counted"),
        (totals["use_not_noted"], "of which the learner did not note whether a batch held them"),
        (made.labelled_out, "left out by labels"),
        (made.later, "of this version or later ones"),
    ):
        if count:
            said.append(f"{count} corrections {text}")
    if made.without_picture:
        said.append(f"{made.without_picture} steps left out: a picture that a policy needs is not stored or cannot be read")
    return said
