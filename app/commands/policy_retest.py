"""`takeover policy retest`: does a new version manage what an old one did not, from the exact states where people took over?"""

import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from takeover.app.commands.data_options import Where, existing, print_json
from takeover.app.commands.policy_evaluate import prepared
from takeover.app.commands.policy_options import Json, config_of, decisions_of, other_of, runnable, trusted_of, with_cameras
from takeover.app.commands.policy_parameters import Judged, Parameters, judged_at
from takeover.app.commands.progress import listing, print_table, progress_display
from takeover.app.processes.common import StartupError
from takeover.app.supervisor import Progress
from takeover.data.catalog import Catalog

if TYPE_CHECKING:
    from takeover.data.workspace import Workspace
    from takeover.policies.publish import LoadedPolicy
    from takeover.policies.retest import RetestResult

DEFAULT_CASES = 20


@dataclass(frozen=True)
class Retest:
    """An old and a new version, k times each from every recorded takeover and failure: fixed, not fixed or worse. Stopped, it goes on."""

    version: Annotated[int, tyro.conf.Positional, tyro.conf.arg(metavar="VERSION")]
    """The new one."""
    against: Annotated[str, tyro.conf.arg(metavar="VERSION", help_behavior_hint="")] = "trusted"
    """The old one; default: the trusted one."""
    runs: int = 10
    """Runs of each policy per case; the first with the recorded state's own noise, the others with other noise, the same for both."""
    cases: int = DEFAULT_CASES
    """How many cases, newest episodes first; 0: all."""
    set: Parameters = ()
    robot: Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="", help="As in `takeover run` (default: the station's).")] = ""
    json: Json = False
    workspace: Where = ""


def retest(command: Retest) -> int:
    """Returns 0 whatever the verdicts are; 2 when there is no case."""
    from takeover.policies.decisions import standing
    from takeover.policies.publish import load_for
    from takeover.policies.retest import KeptRuns, find_cases
    from takeover.policies.retest import retest as run_retest
    from takeover.robot_bridge.robots.sim_state import reseeded

    if command.against != "trusted" and not command.against.isdigit():
        raise StartupError(f"--against {command.against}: a version's number, or trusted")
    if command.cases < 0:
        raise StartupError(f"--cases {command.cases}: 1 or more, or 0 for all")
    workspace = existing(command.workspace)
    manifest = runnable(workspace, command.version)
    against = other_of(workspace, manifest, command.against)
    judged = judged_at(with_cameras(config_of(workspace, command.robot), manifest), manifest, command.set, against)
    with prepared(str(workspace.path), judged.config) as (robot, _), progress_display() as display:
        spec = robot.spec
        now = standing(decisions_of(workspace), spec.robot_id, spec.task_id)
        other = trusted_of(now) if command.against == "trusted" else int(command.against)
        runnable(workspace, other)
        old, new = (load_for(workspace.path, version, spec) for version in (other, command.version))
        problems: list[str] = []
        found = find_cases(workspace, spec, problems)
        cases = list(itertools.islice(found, command.cases or None))
        if not cases:
            more = f"; {problems[0]}" if problems else ""
            raise StartupError(f"no recorded takeover or failure of {spec.robot_id}:{spec.task_id} in {workspace.path}{more}")

        def show(done: int, total: int) -> bool:
            display.show(Progress("retest", done, total, cases[done - 1].name))
            return True

        started_s = time.monotonic()
        kept = KeptRuns(workspace.path, judged.config.task_parameters)
        result = run_retest(old, new, robot, cases, kept, reseeded, runs=command.runs, problems=problems, on_progress=show)
    _note(workspace, (old, new), result, time.monotonic() - started_s, judged.protocol("retest"))
    _print(command, result, judged)
    return 0


def _note(
    workspace: "Workspace", loaded: "tuple[LoadedPolicy, LoadedPolicy]", result: "RetestResult", wall_s: float, protocol: str
) -> None:
    """One row per policy; none when no case could be run."""
    if not result.cases:
        return
    with Catalog.open(workspace) as catalog:
        for policy, successes in zip(loaded, (result.rate("old")[0], result.rate("new")[0]), strict=True):
            manifest = policy.manifest
            catalog.add_evaluation(
                session_id=manifest.data_session,
                policy_version=manifest.version,
                policy_sha256=manifest.sha256,
                task_id=manifest.task_id,
                protocol=protocol,
                successes=successes,
                n=result.rate("old")[1],
                wall_s=wall_s / 2,
            )


def _print(command: Retest, result: "RetestResult", judged: Judged) -> None:
    from takeover.policies.retest import VERDICTS, as_json

    if command.json:
        print_json(as_json(result) | judged.as_json)
        return
    judged.say()
    table = listing(f"version {result.new_version} against {result.old_version}, {command.runs} runs each")
    for column in ("episode", "step", "case", "old", "new", "difference, 95 %", "verdict"):
        table.add_column(column, no_wrap=True)
    for row in result.cases:
        low, high = (100 * value for value in row.interval)
        counts = (f"{row.old} of {row.runs}", f"{row.new} of {row.runs}", f"{low:+.0f} to {high:+.0f} points")
        table.add_row(row.case.episode_id[-10:], str(row.case.seq), row.case.kind, *counts, row.verdict)
    print_table(table)
    if result.cases:
        for which, (successes, n, low, high) in (("old", result.rate("old")), ("new", result.rate("new"))):
            print(f"{which}: {successes} of {n} runs in {len(result.cases)} cases ({100 * low:.0f} to {100 * high:.0f} %, over cases)")
        print(", ".join(f"{result.count(verdict)} {verdict}" for verdict in VERDICTS))
    for problem in result.problems:
        print(f"not run: {problem}")
