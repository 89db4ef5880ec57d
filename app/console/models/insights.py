"""What Insights and the report say, as pure functions over episodes: every figure with n, interval and definition. No Qt.

Which episodes count: kind ``policy``, not excluded by a label. Success is always reported twice, over the same n (episodes that
were not aborted): *alone* without one human step, and *with help* however it came about.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from takeover.data.statistics import bootstrap_ratio_band, cumulative_ratio_band, ratio, sliding_ratio_bands, wilson

WINDOW = 20  # episodes
FIRST = 5  # episodes before a curve begins: until there are 20 it is over all so far
SHORT_RUN = 60  # episodes; success of shorter runs is shown per half a window
MOST_POINTS = 300  # of a curve; more would not be seen

DEFINITIONS = {
    "rate": "Steps a person or script drove (ramps in, holds out) over all steps, last 20 episodes (all so far until there are 20). "
    "Band: 95 %, bootstrap over episodes.",
    "success": "No aborted episodes. Alone: success without one human step. With help: every success. Lines or bands: 95 % Wilson.",
    "heldout": "Policy alone, deterministic, on fixed starts that no training run uses. Lines: 95 % Wilson.",
    "causes": "Cause labels of takeovers and failures as they stand now; excluded segments left out.",
    "time": "Seconds from the episode's start to each takeover, holds excluded.",
    "effort": "Successes so far per 1,000 human steps so far, with and without help. Band: 95 %, bootstrap over episodes.",
}


@dataclass(frozen=True)
class EpisodePoint:
    """One episode as the curves need it."""

    episode_id: str
    steps: int
    human_steps: int
    takeovers: int
    success: bool
    aborted: bool
    policy_version: int

    @property
    def autonomous(self) -> bool:
        return self.human_steps == 0


@dataclass(frozen=True)
class Proportion:
    """k of n with its 95 % Wilson interval."""

    k: int
    n: int

    @property
    def value(self) -> float:
        return self.k / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.k, self.n)


@dataclass(frozen=True)
class Curve:
    """A value per position with its band. ``episodes`` (1-based count) and ``steps`` are the two x axes; all of equal length."""

    episodes: list[int]
    steps: list[int]
    value: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class SuccessWindow:
    """Episodes ``first`` to ``last`` (1-based, inclusive); ``steps`` is the step count at its end."""

    first: int
    last: int
    steps: int
    alone: Proportion
    helped: Proportion


@dataclass(frozen=True)
class VersionRow:
    """A stretch of policy versions and what it did."""

    first_version: int
    last_version: int
    episodes: int
    alone: Proportion
    helped: Proportion
    steps: int
    human_steps: int
    rate: float
    rate_low: float
    rate_high: float

    @property
    def name(self) -> str:
        return f"v{self.first_version}" if self.first_version == self.last_version else f"v{self.first_version}–{self.last_version}"


@dataclass(frozen=True)
class HeldOut:
    version: int
    result: Proportion
    label: str = ""  # "before", "after"


@dataclass(frozen=True)
class VersionMark:
    """From this episode (1-based) on, this version drove."""

    version: int
    episode: int
    steps: int


def cumulative_steps(points: Sequence[EpisodePoint]) -> list[int]:
    return np.cumsum([point.steps for point in points], dtype=np.int64).tolist()


def _positions(count: int, window: int) -> list[int]:
    """Ends of windows from `FIRST` episodes on, thinned evenly to `MOST_POINTS`, the last one always there."""
    first = min(window, FIRST, count) - 1
    return np.unique(np.linspace(first, count - 1, min(MOST_POINTS, count - first)).round().astype(int)).tolist() if count else []


def rate_curve(points: Sequence[EpisodePoint], window: int = WINDOW) -> Curve:
    """Intervention rate over the last ``window`` episodes, over all so far until there are as many."""
    human = np.array([point.human_steps for point in points], float)
    steps = np.array([point.steps for point in points], float)
    total = cumulative_steps(points)
    ends = _positions(len(points), window)
    parts = [slice(max(0, end + 1 - window), end + 1) for end in ends]
    value = [ratio(human[part], steps[part]) for part in parts]
    low, high = sliding_ratio_bands(human, steps, ends, window, resamples=500)
    return Curve([end + 1 for end in ends], [total[end] for end in ends], value, low.tolist(), high.tolist())


def proportions(points: Sequence[EpisodePoint]) -> tuple[Proportion, Proportion]:
    """(alone, with help) over the episodes that were not aborted."""
    counted = [point for point in points if not point.aborted]
    helped = sum(point.success for point in counted)
    alone = sum(point.success and point.autonomous for point in counted)
    return Proportion(alone, len(counted)), Proportion(helped, len(counted))


def window_of(count: int) -> int:
    """Episodes per point of success: half a window in a short run, which would else be one point or two."""
    return WINDOW // 2 if count < SHORT_RUN else WINDOW


def success_windows(points: Sequence[EpisodePoint], window: int = WINDOW) -> list[SuccessWindow]:
    """Success in consecutive windows; a last, shorter one counts from half a window on, smaller remainders join the last window."""
    if not points:
        return []
    total = cumulative_steps(points)
    starts = list(range(0, len(points), window))
    if len(starts) > 1 and len(points) - starts[-1] < window / 2:
        starts.pop()
    windows = []
    for index, start in enumerate(starts):
        stop = starts[index + 1] if index + 1 < len(starts) else len(points)
        alone, helped = proportions(points[start:stop])
        windows.append(SuccessWindow(start + 1, stop, total[stop - 1], alone, helped))
    return windows


def rows_wanted(points: Sequence[EpisodePoint], most: int) -> int:
    """Rows worth showing: versions of one or two episodes each say nothing alone and are joined."""
    versions = len({point.policy_version for point in points})
    return most if len(points) >= 3 * versions else max(1, min(most, len(points) // FIRST))


def version_rows(points: Sequence[EpisodePoint], most: int = 8) -> list[VersionRow]:
    """Newest first. More than ``most`` versions are joined into stretches of about equal numbers of episodes."""
    if not points:
        return []
    by_version: dict[int, list[EpisodePoint]] = {}
    for point in points:
        by_version.setdefault(point.policy_version, []).append(point)
    order = sorted(by_version)
    groups: list[list[int]] = []
    if len(order) <= most:
        groups = [[version] for version in order]
    else:
        size, seen = len(points) / most, 0
        for version in order:
            if seen >= len(groups) * size:
                groups.append([])
            groups[-1].append(version)
            seen += len(by_version[version])
    rows = []
    for group in reversed(groups):
        part = [point for version in group for point in by_version[version]]
        alone, helped = proportions(part)
        human, steps = [point.human_steps for point in part], [point.steps for point in part]
        low, high = bootstrap_ratio_band(human, steps)
        rows.append(VersionRow(group[0], group[-1], len(part), alone, helped, sum(steps), sum(human), ratio(human, steps), low, high))
    return rows


def version_marks(points: Sequence[EpisodePoint], most: int = 6) -> list[VersionMark]:
    """Where the driving version changed, thinned to about ``most`` marks evenly over the episodes, none too close to the next."""
    total = [0, *cumulative_steps(points)]
    changes = [
        VersionMark(point.policy_version, index + 1, total[index])
        for index, point in enumerate(points)
        if index and point.policy_version != points[index - 1].policy_version
    ]
    if len(changes) > most:
        wanted = np.linspace(0, len(points), most + 2)[1:-1]
        changes = sorted(
            {min(changes, key=lambda mark: abs(mark.episode - position)) for position in wanted}, key=lambda mark: mark.episode
        )
    kept: list[VersionMark] = []
    for mark in changes:
        if not kept or mark.episode - kept[-1].episode >= len(points) / (2 * most):
            kept.append(mark)
    return kept


def effort_curve(points: Sequence[EpisodePoint]) -> Curve:
    """Successes so far per 1,000 human steps so far."""
    total = cumulative_steps(points)
    ends = _positions(len(points), WINDOW)
    value, low, high = cumulative_ratio_band([point.success for point in points], [point.human_steps for point in points], ends)
    known = [index for index in range(len(ends)) if math.isfinite(value[index])]
    return Curve(
        [ends[index] + 1 for index in known],
        [total[ends[index]] for index in known],
        [1000 * float(value[index]) for index in known],
        [1000 * float(low[index]) for index in known],
        [1000 * float(high[index]) for index in known],
    )


def histogram(seconds: Sequence[float], most_bins: int = 12) -> tuple[list[float], list[int]]:
    """(edges, counts) with a round bin width; the first edge is 0. Empty input gives ([0, 1], [0])."""
    if not seconds:
        return [0.0, 1.0], [0]
    top = max(max(seconds), 1e-9)
    width = nice_step(top, most_bins)
    bins = max(1, math.floor(top / width) + 1)
    counts, edges = np.histogram(seconds, bins=bins, range=(0.0, bins * width))
    return edges.tolist(), counts.tolist()


def nice_step(span: float, most: int) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that divides ``span`` into at most ``most`` parts."""
    if span <= 0 or most < 1:
        raise ValueError(f"span {span} and count {most} must be positive")
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))


def share_driven_by(operators: Sequence[str]) -> str:
    """What the intervention rate is a share of; a scripted operator is no person, and the caption says so."""
    if list(operators) == ["scripted"]:
        return "share of steps the scripted operator drove"
    return "share of steps a person or the script drove" if "scripted" in operators else "share of steps a person drove"


def summary_points(summary: dict) -> list[EpisodePoint]:
    """Episodes of a headless run's JSON summary. Raises KeyError naming the missing field."""
    return [
        EpisodePoint(
            str(index),
            one["steps"],
            one["human_steps"],
            one["takeovers"],
            one["success"],
            one["outcome"] == "aborted",
            one["policy_version"],
        )
        for index, one in enumerate(summary["episodes"])
    ]


def curve_csv(points: Sequence[EpisodePoint], window: int = WINDOW) -> str:
    """Episodes and the curve's values, one row per episode (RFC 4180)."""
    curve = rate_curve(points, window)
    at = {episode: index for index, episode in enumerate(curve.episodes)}
    lines = [
        "episode,episode_id,policy_version,steps,human_steps,takeovers,success,autonomous,aborted,steps_total,rate_last_20,low_95,high_95"
    ]
    for index, (point, total) in enumerate(zip(points, cumulative_steps(points), strict=True)):
        place = at.get(index + 1)
        tail = (
            ["", "", ""]
            if place is None or index + 1 < window
            else [f"{v:.6f}" for v in (curve.value[place], curve.low[place], curve.high[place])]
        )
        flags = [str(int(flag)) for flag in (point.success, point.success and point.autonomous, point.aborted)]
        cells = [index + 1, point.episode_id, point.policy_version, point.steps, point.human_steps, point.takeovers, *flags, total, *tail]
        lines.append(",".join(str(cell) for cell in cells))
    return "\r\n".join(lines) + "\r\n"
