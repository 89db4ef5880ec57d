"""Absorption of a version, measured and kept: distances on corrections, their retests, `absorption.json` beside the manifest."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from takeover.data.catalog import Catalog
from takeover.data.schema import RobotSpec
from takeover.data.statistics import bootstrap_ratio_band, wilson
from takeover.data.workspace import Workspace
from takeover.policies.absorption import AbsorptionCancelled, ActedVersions, Distance, distances
from takeover.policies.absorption_file import Absorption, SegmentAbsorption, SegmentRetest, write_absorption
from takeover.policies.publish import LoadedPolicy, load_for
from takeover.policies.recorded_corrections import Correction, Found, Memory, find_corrections
from takeover.policies.retest import MAX_RUNS, Case, KeptRuns, Restorable, Vary, find_cases, run_case, verdict_of

DIGITS = 6
Progress = Callable[[str, int, int], bool]
"""(what is done, done, total); False stops."""


class NothingToMeasure(ValueError):
    """There is no correction that a version could have taken up; the text says what there is instead."""


def absorb(
    workspace: Workspace,
    version: int,
    spec: RobotSpec,
    *,
    limit: int = 0,
    environment: Restorable | None = None,
    vary: Vary | None = None,
    runs: int = 5,
    on_progress: Progress | None = None,
    catalog: Catalog | None = None,
    parameters: Mapping[str, float] | None = None,
    memory: Memory | None = None,
) -> Absorption:
    """Measure and keep. ``environment`` and ``vary``: to retest each correction, ``runs`` times per policy; without them no retest.

    ``parameters``: the environment's task parameters, where they are not the task's own. ``memory``: where several versions are measured,
    one after the other.

    Stopped or repeated, retests that were run are not run again. Raises `PolicyRefused` when the version cannot be loaded,
    `NothingToMeasure`, `AbsorptionCancelled`, `OSError`.
    """
    if not 1 <= runs <= MAX_RUNS:
        raise ValueError(f"{runs} runs per correction; 1 to {MAX_RUNS}")
    new = load_for(workspace.path, version, spec)
    found = find_corrections(workspace, new.manifest, limit, catalog, memory)
    if not found.corrections:
        raise NothingToMeasure(_none(version, found))
    problems = found.problems
    said = on_progress or (lambda what, done, total: True)
    acted = ActedVersions(workspace.path, spec, problems)
    measured = list(distances(new, spec, found.corrections, acted, problems, lambda done, total: said("distances", done, total)))
    retests: dict[str, SegmentRetest] = {}
    if environment is not None and vary is not None:
        kept = KeptRuns(workspace.path, parameters)
        retests = _retests(workspace, spec, measured, new, acted, environment, vary, runs, kept, problems, said)
    segments = [_segment(one, retests.get(one.correction.name)) for one in measured]
    made = Absorption(
        version=version,
        sha256=new.manifest.sha256,
        wall_ns=time.time_ns(),
        limit=limit,
        segments=segments,
        totals=totals_of(segments),
        labelled_out=found.labelled_out,
        later=found.later,
        unattended=found.unattended,
        problems=problems,
        without_picture=sum(segment.without_picture for segment in segments),
        with_pictures=True,
    )
    write_absorption(workspace.path, made)
    return made


def _none(version: int, found: Found) -> str:
    reasons = {
        "left out by labels": found.labelled_out,
        "of this version or later ones": found.later,
        "without a policy that acted": found.unattended,
        "unreadable": len(found.problems),
    }
    there = ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count)
    return f"no correction of an earlier version than {version} to look at" + (f" ({there})" if there else "")


def _retests(
    workspace: Workspace,
    spec: RobotSpec,
    measured: Sequence[Distance],
    new: LoadedPolicy,
    acted: ActedVersions,
    environment: Restorable,
    vary: Vary,
    runs: int,
    kept: KeptRuns,
    problems: list[str],
    said: Progress,
) -> dict[str, SegmentRetest]:
    cases = _cases(workspace, spec, [one.correction for one in measured])
    made: dict[str, SegmentRetest] = {}
    for done, one in enumerate(measured, 1):
        correction = one.correction
        old, case = acted.get(correction.acted), cases.get((correction.episode_id, correction.seq))
        if case is None:
            problems.append(f"correction {correction.name}: no simulator state was recorded, so it cannot be retested")
        elif old is not None:
            try:
                was, now = (run_case(policy, environment, case, runs, spec.max_steps, kept, vary) for policy in (old, new))
            except RuntimeError as error:
                problems.append(f"correction {correction.name}: {error}")
            else:
                made[correction.name] = SegmentRetest(
                    runs=runs, old=was, new=now, verdict=verdict_of(was, now, runs), passed=2 * now > runs
                )
        if not said("retests", done, len(measured)):
            raise AbsorptionCancelled(f"stopped after {done} of {len(measured)} retests")
    return made


def _cases(workspace: Workspace, spec: RobotSpec, corrections: Sequence[Correction]) -> dict[tuple[str, int], Case]:
    wanted = {(correction.episode_id, correction.seq) for correction in corrections}
    found: dict[tuple[str, int], Case] = {}
    for case in find_cases(workspace, spec, []):
        if case.kind == "takeover" and (case.episode_id, case.seq) in wanted:
            found[case.episode_id, case.seq] = case
            if len(found) == len(wanted):
                break
    return found


def _segment(one: Distance, retested: SegmentRetest | None) -> SegmentAbsorption:
    return SegmentAbsorption(
        episode_id=one.correction.episode_id,
        intervention_id=one.correction.number,
        acted_version=one.correction.acted,
        used=one.correction.used,
        n=one.n,
        before=_short(one.before),
        after=_short(one.after),
        interval=(_short(one.interval[0]), _short(one.interval[1])) if math.isfinite(one.interval[0]) else None,
        verdict=one.verdict,
        gripper_before=None if one.gripper_before is None else _short(one.gripper_before),
        gripper_after=None if one.gripper_after is None else _short(one.gripper_after),
        retest=retested,
        without_picture=one.without_picture,
    )


def _short(value: float) -> float:
    """1e-6 of the largest command is far below what any of it says, and a file is written every two seconds."""
    return round(value, DIGITS)


def totals_of(segments: Sequence[SegmentAbsorption]) -> dict[str, Any]:
    """Over the segments that batches held or that nothing is known of: mean distances over steps, the change with its 95 % interval by a
    bootstrap over segments, how many are closer (Wilson), how many retests pass."""
    counted = [segment for segment in segments if segment.used is not False]
    made: dict[str, Any] = {
        "segments": len(counted),
        "steps": sum(segment.n for segment in counted),
        "in_no_batch_yet": len(segments) - len(counted),
        "use_not_noted": sum(segment.used is None for segment in segments),
    }
    if not counted:
        return made
    n = [segment.n for segment in counted]
    change = [segment.n * (segment.after - segment.before) for segment in counted]
    for which in ("before", "after"):
        made[which] = sum(segment.n * getattr(segment, which) for segment in counted) / sum(n)
    made["change_interval"] = list(bootstrap_ratio_band(change, n)) if len(counted) > 1 else None
    for verdict in ("closer", "farther", "not shown"):
        made[verdict.replace(" ", "_")] = sum(segment.verdict == verdict for segment in counted)
    made["closer_interval"] = list(wilson(made["closer"], len(counted)))
    tested = [segment.retest for segment in counted if segment.retest is not None]
    passed = sum(one.passed for one in tested)
    made |= {"retested": len(tested), "retests_passed": passed, "retests_interval": list(wilson(passed, len(tested)))}
    made["absorbed"] = sum(s.verdict == "closer" and s.retest is not None and s.retest.passed for s in counted)
    return made
