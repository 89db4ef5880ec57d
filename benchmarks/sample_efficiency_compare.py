"""Learners of `sample-efficiency` against each other, seed by seed, at equal environment steps, equal episodes and equal human steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from takeover.data.statistics import wilson

Result = Mapping[str, Any]
REFERENCE = "hg-dagger"
ITSELF = (("hil-serl", "hil-serl-alone"), ("hil-serl-256", "hil-serl"))
AXES = ("train_steps", "episodes", "human_steps", "learning_s")


def success_at(points: Sequence[Mapping[str, Any]], axis: str, value: float) -> float:
    """Share of held-out starts when ``axis`` (train_steps, episodes, human_steps) had come to ``value``: straight lines between the
    points, the last one beyond them. Where nothing was spent between two points, the later counts."""
    spent = np.array([p[axis] for p in points], np.float64)
    share = np.array([p["successes"] / p["n"] for p in points])
    last = np.append(np.diff(spent) > 0, True)
    return float(np.interp(value, spent[last], share[last]))


def comparisons(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Within one task and operator: everyone against hg-dagger, and hil-serl against itself: without anybody who takes over, and with
    other networks."""
    names = list(dict.fromkeys(r["settings"]["variant"] for r in results))
    pairs = [(name, REFERENCE) for name in names if name != REFERENCE and REFERENCE in names]
    pairs += [pair for pair in ITSELF if set(pair) <= set(names)]
    found = (compared(a, b, results) for a, b in pairs)
    return [one for one in found if one["seeds"]]


def compared(a: str, b: str, results: Sequence[Result]) -> dict[str, Any]:
    """``a`` minus ``b`` per seed that both have, at the end of whoever spent less; human steps and seconds only where both have some,
    and seconds only where they are of the same machine.

    ``at_equal_AXIS``: differences, one per seed; ``shares_at_equal_AXIS``: (mean of a, mean of b) over the same seeds; ``n``: starts of
    either.
    """
    by_seed = {(r["settings"]["variant"], r["settings"]["seed"]): r for r in results}
    seeds = sorted(seed for name, seed in by_seed if name == a and (b, seed) in by_seed)
    pairs = [(by_seed[a, seed]["points"], by_seed[b, seed]["points"]) for seed in seeds]
    timed = [
        pair
        for pair, seed in zip(pairs, seeds, strict=True)
        if all(by_seed[a, seed].get(what) == by_seed[b, seed].get(what) for what in ("learning_estimated", "machine"))  # else other seconds
        and all(points[-1].get("learning_s") for points in pair)
    ]
    helped = [(mine, other) for mine, other in pairs if mine[-1]["human_steps"] and other[-1]["human_steps"]]
    found: dict[str, Any] = {"learner": a, "against": b, "seeds": seeds, "n": sum(mine[-1]["n"] for mine, _ in pairs)}
    for axis in AXES:
        chosen = {"human_steps": helped, "learning_s": timed}.get(axis, pairs)
        shares = [_at_the_end_of_less(mine, other, axis) for mine, other in chosen]
        found[f"at_equal_{axis}"] = [x - y for x, y in shares]
        found[f"shares_at_equal_{axis}"] = [float(np.mean(one)) for one in zip(*shares, strict=True)]
    return found


def _at_the_end_of_less(mine: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], axis: str) -> tuple[float, float]:
    end = min(mine[-1][axis], other[-1][axis])
    return success_at(mine, axis, end), success_at(other, axis, end)


def comparison_lines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """A Markdown table: mean and smallest difference over seeds, in points."""
    if not found:
        return []
    lines = [
        "",
        "### Against each other",
        "",
        "| learner | against | seeds | equal environment steps | equal episodes | equal human steps | equal seconds of learning |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        cells = [_points(one[f"at_equal_{axis}"]) for axis in AXES]
        lines.append(f"| {one['learner']} | {one['against']} | {len(one['seeds'])} | {' | '.join(cells)} |")
    return [*lines, "", "Differences in points, mean over seeds and smallest; each at the end of whoever spent less."]


def _points(differences: Sequence[float]) -> str:
    return f"{100 * float(np.mean(differences)):+.0f} (smallest {100 * min(differences):+.0f})" if differences else "-"


def pooled(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Final success summed over tasks and operators, of the learners that every group has; best first."""
    everywhere = set.intersection(*({row["variant"] for row in group["learners"]} for group in groups)) if groups else set()
    rows = []
    for name in sorted(everywhere):
        finals = [row["final"] for group in groups for row in group["learners"] if row["variant"] == name]
        successes, n = sum(f["successes"] for f in finals), sum(f["n"] for f in finals)
        low, high = wilson(successes, n)
        rows.append({"variant": name, "successes": successes, "n": n, "rate": successes / n, "low": low, "high": high})
    return sorted(rows, key=lambda row: -row["rate"])
