"""`takeover policy probes`: what the randomised no-help probes recorded in normal work say of a policy. Only recorded episodes count."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from takeover.app.commands.data_options import Where, existing, opened_catalog, print_json
from takeover.app.commands.policy_options import Json, config_of, decisions_of, robot_id_of, trusted_of
from takeover.app.commands.progress import progress_display
from takeover.app.processes.common import StartupError
from takeover.app.supervisor import Progress
from takeover.data.workspace import Workspace

if TYPE_CHECKING:
    from takeover.data.catalog_rows import EpisodeRow
    from takeover.policies.probes import Probe, ProbeFindings

MARGIN, ALPHA, BUDGET = 0.10, 0.05, 200
SIMULATED = "SIMULATED robot: nothing here says anything of a real one"


@dataclass(frozen=True)
class Probes:
    """No-help probes of a version, alone or against the trusted one. A takeover counts as failure. Needs `takeover run --probe-share`."""

    version: Annotated[int, tyro.conf.Positional, tyro.conf.arg(metavar="VERSION")]
    """Its number in `takeover policy ls`."""
    against: Annotated[str, tyro.conf.arg(metavar="VERSION", help_behavior_hint="")] = ""
    """Compare with this version, or with `trusted`, over finished blocks of two: better, not worse, worse, or insufficient evidence."""
    target: float = 0.0
    """Is its success rate at least this? 0: not asked."""
    margin: float = MARGIN
    """Not worse means: loses less than this in success rate."""
    alpha: float = ALPHA
    """Error rate of each answer and interval, over all looks."""
    budget: int = BUDGET
    """Probes that may be spent; say it before the first one."""
    robot: Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="", help="As in `takeover run` (default: the station's).")] = ""
    json: Json = False
    workspace: Where = ""


@dataclass
class Recorded:
    """Probes in the order in which they were made, and what was found beside them."""

    probes: "list[Probe]" = field(default_factory=list)
    simulated: bool = False
    blocks: int = 0  # evaluation episodes that nobody drew by chance: not counted
    mixed: list[str] = field(default_factory=list)  # probes in which another version drove than was drawn: not counted
    unreadable: list[str] = field(default_factory=list)
    excluded: int = 0  # counted all the same
    relabelled: int = 0


def probes(command: Probes) -> int:
    """Returns 0 whatever the answer is."""
    from takeover.policies.probes import ProbeSettings, judge

    if command.against not in ("", "trusted") and not command.against.isdigit():
        raise StartupError(f"--against {command.against}: a version's number, or trusted")
    workspace = existing(command.workspace)
    config = config_of(workspace, command.robot)
    other = _other(command, workspace, config.robot, config.task)
    with progress_display() as display:

        def show(done: int, total: int) -> None:
            display.show(Progress("reading probes", done, total, ""))

        found = recorded(workspace, config.robot, config.task, show)
    try:
        settings = ProbeSettings(alpha=command.alpha, margin=command.margin, target=command.target, budget=command.budget)
        findings = judge(found.probes, command.version, other, settings)
    except ValueError as error:
        raise StartupError(str(error)) from error
    if command.json:
        print_json(_document(config.robot, config.task, found, findings))
    else:
        print("\n".join(_lines(config.robot, config.task, found, findings)))
    return 0


def _other(command: Probes, workspace: Workspace, robot: str, task: str) -> int:
    from takeover.policies.decisions import standing

    if command.against != "trusted":
        return int(command.against or 0)
    return trusted_of(standing(decisions_of(workspace), robot_id_of(robot), task))


def recorded(workspace: Workspace, robot: str, task: str, on_progress: Callable[[int, int], None] | None = None) -> Recorded:
    """Every probe of one robot and task. Evaluations in a simulator of one's own, held-out starts and retests are none. Files that
    cannot be read are named and left out."""
    from takeover.data.episode_file import EpisodeReader
    from takeover.data.hdf5_image import DamagedFile
    from takeover.data.schema import EpisodeKind
    from takeover.policies.probes import Probe

    found = Recorded()
    with opened_catalog(workspace) as catalog:
        rows = [r for r in catalog.episodes(kind=EpisodeKind.EVALUATION.value, task_id=task) if r.robot_id == robot_id_of(robot)]
    for done, row in enumerate(rows, 1):
        try:
            with EpisodeReader(workspace.path / row.path) as reader:
                start = reader.start
                versions = {int(version) for version in reader.column("policy_version") if version > 0}
        except (DamagedFile, OSError) as error:
            found.unreadable.append(str(error))
            continue
        finally:
            if on_progress is not None:
                on_progress(done, len(rows))
        found.simulated |= start.spec.simulated
        if start.probe < 0:
            found.blocks += 1
            continue
        driven = start.probe_version or (versions.pop() if len(versions) == 1 else start.policy_version)
        if versions - {driven}:
            found.mixed.append(row.id)
            continue
        found.excluded += row.excluded
        found.relabelled += bool(row.recorded_outcome) and row.recorded_outcome != row.outcome
        found.probes.append(Probe(row.id, f"{row.session_id}:{start.probe // 2}", driven, _end(row)))
    return found


def _end(row: "EpisodeRow") -> Any:
    if row.human_steps or row.takeovers:
        return "taken over"
    if row.success:
        return "succeeded alone"
    return "failed" if row.outcome == "failure" else "aborted"


def _document(robot: str, task: str, found: Recorded, findings: "ProbeFindings") -> dict[str, Any]:
    beside = {"not_probes": found.blocks, "mixed": found.mixed, "unreadable": found.unreadable}
    counted = {"excluded_but_counted": found.excluded, "relabelled": found.relabelled}
    return {"robot": robot, "task": task, "simulated": found.simulated, "probes": len(found.probes)} | beside | counted | findings.numbers


def _lines(robot: str, task: str, found: Recorded, findings: "ProbeFindings") -> list[str]:
    settings = findings.settings
    lines = [f"no-help probes of {robot}:{task}: {findings.used} used of a budget of {settings.budget}"]
    if found.simulated:
        lines.append(SIMULATED)
    for row in findings.rates:
        rate = row.rate
        ends = ", ".join(f"{count} {end}" for end, count in row.ends.items() if count)
        between = "changed: no single rate fits" if rate.drifted else f"between {100 * rate.low:.0f} and {100 * rate.high:.0f} %"
        text = f"version {row.version}: {rate.successes} of {rate.n} alone, {between}" + (f" ({ends})" if ends else "")
        lines.append(text + (f"; target {100 * settings.target:.0f} %: {row.answer}" if settings.target else ""))
    if (test := findings.comparison) is not None:
        lines.append(f"in {test.pairs} finished blocks alone {test.wins} against {test.losses}: {test.verdict}")
    notes = (
        (findings.unused, "came after the answer or the budget and are not looked at"),
        (findings.unpaired, "are of unfinished blocks: in the rates, not in the comparison"),
        (found.blocks, "other evaluation episodes were not drawn by chance and are not counted"),
        (len(found.mixed), f"are left out, another version drove in them: {', '.join(found.mixed[:3])}"),
        (found.excluded, "are excluded by label and counted all the same: a probe is not taken back"),
        (found.relabelled, "count with the outcome that a person gave afterwards"),
    )
    lines += [f"{count} {text}" for count, text in notes if count]
    return lines + [f"cannot be read: {text}" for text in found.unreadable]
