"""Absorption over the versions of a run: the curve, what is read under the pointer, what is said where there is none. No Qt.

Of a version it is the share of corrections at which it acts closer to what the person did than the version that acted, with an interval
that leaves 0 out (`takeover.policies.absorption`); corrections that no batch held count for nothing.
"""

import csv
import io
import itertools
import math
import shlex
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from takeover.app.console.models.insights import MOST_POINTS, Proportion

DEFINITION = (
    "Per policy version, of the newest corrections that a training batch held (up to 20 where the evaluator measures): the share at which "
    "the version acts closer to what the person (or script) did than the version that acted, with a 95 % interval that leaves 0 out. One "
    "that is too short to tell counts as not closer. Band: 95 % Wilson, of each version by itself. The version learned from these "
    "corrections: it says that they were taken up, not that it helps elsewhere."
)
MOST_LEARNERS = 6  # stretches of one learner each; more are drawn as one
NAMED_PROBLEMS = 3


@dataclass(frozen=True, slots=True)
class VersionAbsorption:
    """What is known of one version. ``measured`` False: there is no result, or ``problem`` says why it cannot be read.

    ``before`` and ``after``: mean distance to the person of the version that acted and of this one, NaN without a correction; ``change``:
    95 % interval of their difference over corrections. ``task`` empty: its manifest cannot be read.
    """

    version: int
    session: str = ""  # of the bridge whose steps it was trained on; empty: not noted
    robot: str = ""
    task: str = ""
    learner: str = ""
    measured: bool = False
    closer: int = 0
    farther: int = 0
    corrections: int = 0
    steps: int = 0
    in_no_batch: int = 0  # corrections, in none of the figures
    before: float = math.nan
    after: float = math.nan
    change: tuple[float, float] | None = None
    retested: int = 0
    retests_passed: int = 0
    problem: str = ""

    @property
    def result(self) -> Proportion:
        return Proportion(self.closer, self.corrections)

    def is_of(self, run: "Run") -> bool:
        """Whether it was made from a run's steps; one of which that cannot be known is of every run."""
        if not self.task:
            return True
        return (self.robot, self.task) == (run.robot, run.task) and self.session in ("", run.session)


@dataclass(frozen=True)
class Run:
    """Whose versions are asked for."""

    session: str
    robot: str
    task: str


@dataclass(frozen=True)
class AbsorptionCurve:
    """Share of corrections with the Wilson interval, by version. Of more than `MOST_POINTS` versions neighbours are averaged, the
    newest excepted. All lists of equal length."""

    versions: list[float] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    learners: list[tuple[int, str]] = field(default_factory=list)  # (index of its first point, name): where the learner changed


@dataclass(frozen=True)
class AbsorptionView:
    """Of one run. ``points``: versions with at least one correction, ascending."""

    run: Run
    points: list[VersionAbsorption] = field(default_factory=list)
    curve: AbsorptionCurve = field(default_factory=AbsorptionCurve)
    versions: int = 0
    uncounted: int = 0  # measured, without a correction that counts
    unmeasured: int = 0
    unreadable: int = 0
    problems: list[str] = field(default_factory=list)  # of the newest unreadable ones
    unread: int = 0  # versions of the workspace that are still to be read


def view_of(run: Run, known: Sequence[VersionAbsorption], unread: int = 0) -> AbsorptionView:
    """``known``: of all runs, ascending."""
    own = [one for one in known if one.is_of(run)]
    points = [one for one in own if one.measured and one.corrections]
    damaged = [one.problem for one in reversed(own) if one.problem]
    return AbsorptionView(
        run=run,
        points=points,
        curve=curve_of(points),
        versions=len(own),
        uncounted=sum(one.measured for one in own) - len(points),
        unmeasured=sum(not one.measured and not one.problem for one in own),
        unreadable=len(damaged),
        problems=damaged[:NAMED_PROBLEMS],
        unread=unread,
    )


def curve_of(points: Sequence[VersionAbsorption]) -> AbsorptionCurve:
    """``points`` ascending, each with a correction."""
    stretches = [list(group) for _, group in itertools.groupby(points, key=lambda one: one.learner)]
    if len(stretches) > MOST_LEARNERS:
        stretches = [list(points)]
    together = math.ceil(len(points) / MOST_POINTS)
    curve = AbsorptionCurve()
    for stretch in stretches:
        curve.learners.append((len(curve.versions), stretch[0].learner if len(stretches) > 1 else ""))
        rows = np.array([(one.version, one.result.value, *one.result.interval) for one in stretch], float)
        groups = [rows[:-1][start : start + together].mean(0) for start in range(0, len(rows) - 1, together)]
        for values, column in zip((curve.versions, curve.value, curve.low, curve.high), np.array([*groups, rows[-1]]).T, strict=True):
            values += column.tolist()
    return curve


def reading(points: Sequence[VersionAbsorption], version: float) -> str:
    """Lines about the measured version next to ``version``."""
    if not points:
        return ""
    at = bisect_left(points, version, key=lambda one: one.version)
    one = min(points[max(0, at - 1) : at + 1], key=lambda near: abs(near.version - version))
    low, high = one.result.interval
    lines = [f"v{one.version}: {100 * one.result.value:.0f} % ({100 * low:.0f}–{100 * high:.0f} %), n {one.corrections}"]
    if math.isfinite(one.before) and math.isfinite(one.after):
        lines.append(f"distance {one.before:.2f} → {one.after:.2f}")
    if one.change is not None:
        lines.append(f"change {one.change[0]:+.2f} to {one.change[1]:+.2f}".replace("-", "−"))
    lines.append(f"closer in {one.closer}, farther in {one.farther}")
    if one.retested:
        lines.append(f"retest passed in {one.retests_passed} of {one.retested}")
    if one.in_no_batch:
        lines.append(f"{one.in_no_batch} more in no batch yet")
    lines.append(f"{one.learner}, {one.steps:,} steps" if one.learner else f"{one.steps:,} steps")
    return "\n".join(lines)


def notes_of(view: AbsorptionView) -> list[str]:
    """Beside the title, longest wording first: the newest measured version, and what is missing."""
    unreadable = [f"{view.unreadable:,} unreadable"] if view.unreadable else []
    if not view.points:
        return ["".join(unreadable)]
    newest = view.points[-1]
    short = f"{newest.closer} of {newest.corrections}"
    long = f"v{newest.version}: {short}"
    reading_on = ["reading on"] if view.unread else []
    return [", ".join([long, *reading_on, *unreadable]), ", ".join([long, *unreadable]), ", ".join([short, *unreadable]), short]


def command_for(run: Run, workspace: str) -> str:
    """The command that measures this run's versions."""
    robot = f"sim:{run.task}" if run.robot == "sim" else run.robot
    return f"takeover policy absorb --all --robot {shlex.quote(robot)} --workspace {shlex.quote(workspace)}"


def reason_of(view: AbsorptionView) -> str:
    """Why there is no curve, and what to do; empty: there is one."""
    if view.points:
        return ""
    if view.unread:
        return f"Reading what was measured: {_counted(view.unread, 'version')} to go."
    if not view.versions:
        return "No policy version was made from this run's steps."
    if view.unmeasured:
        unread = f" {view.unreadable:,} cannot be read." if view.unreadable else ""
        return (
            f"{_counted(view.versions, 'version')}, none measured.{unread} A run in real time measures them by itself. "
            "Otherwise (click to copy):\ntakeover policy absorb --all"
        )
    if view.unreadable:
        return f"{_counted(view.unreadable, 'result')} cannot be read. {view.problems[0]}"
    return f"{_counted(view.uncounted, 'version')} measured; of the corrections before no training batch has held one yet."


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def details_of(view: AbsorptionView) -> list[str]:
    """Paragraphs for the tooltip: the definition, what is left out of the curve, what could not be read."""
    said = [DEFINITION]
    if len(view.points) > MOST_POINTS:
        said.append(
            f"{len(view.points):,} versions are drawn as {len(view.curve.versions)} points: neighbours are averaged, the newest is not."
        )
    missing = [
        f"{count:,} {text}"
        for count, text in (
            (view.unmeasured, "not measured (yet, or without an earlier correction, or pruned before)"),
            (view.uncounted, "measured without a correction that a batch held"),
            (view.unreadable, "unreadable"),
        )
        if count
    ]
    if missing:
        said.append(f"Of {view.versions:,} versions of this run: {len(view.points):,} drawn, {', '.join(missing)}.")
    return said + view.problems + ([f"and {view.unreadable - len(view.problems):,} more"] if view.unreadable > len(view.problems) else [])


COLUMNS = (
    "policy_version,learner,robot,task,closer,farther,corrections,steps,share_closer,low_95,high_95,distance_before,distance_after,"
    "change_low_95,change_high_95,in_no_batch_yet,retested,retests_passed"
)


def absorption_csv(points: Sequence[VersionAbsorption]) -> str:
    """One row per measured version, none averaged (RFC 4180)."""
    text = io.StringIO(f"{COLUMNS}\r\n")
    text.seek(0, io.SEEK_END)
    writer = csv.writer(text)
    for one in points:
        share = [f"{value:.6f}" for value in (one.result.value, *one.result.interval)]
        distance = [
            f"{value:.6f}" if math.isfinite(value) else "" for value in (one.before, one.after, *(one.change or (math.nan, math.nan)))
        ]
        counts = (one.closer, one.farther, one.corrections, one.steps)
        writer.writerow(
            [one.version, one.learner, one.robot, one.task, *counts, *share, *distance, one.in_no_batch, one.retested, one.retests_passed]
        )
    return text.getvalue()
