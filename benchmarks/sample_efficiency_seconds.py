"""Success over processor seconds of learning: what a learner makes of one core, without robot, operator and evaluation.

So learners that need different time per update can be compared, as `hil-serl` and `hil-serl-256`. Ingesting steps counts as learning.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

LEVELS = (0.5, 0.75, 0.9)

Result = Mapping[str, Any]


def with_learning_seconds(results: Sequence[Result]) -> list[dict[str, Any]]:
    """``results`` with ``learning_s`` at every point and ``learning_estimated`` beside them.

    Cells of before this was noted know the sum by the clock alone: it is shared out in proportion to environment steps, to which updates
    are held.
    """
    found = []
    for result in results:
        points = result["points"]
        estimated = any("learning_s" not in point for point in points)
        if estimated:
            total, steps = result["seconds"]["learning"], max(1, points[-1]["train_steps"])
            points = [{**point, "learning_s": total * point["train_steps"] / steps} for point in points]
        found.append({**result, "points": points, "learning_estimated": estimated})
    return found


def learning(results: Sequence[Result], curve: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Of one learner, all seeds: means per cell, and the seconds after which its mean curve first reached `LEVELS` (None: never)."""
    seconds, updates = (float(np.mean([value(r) for r in results])) for value in (_seconds, _updates))
    return {
        "seconds": seconds,
        "updates": updates,
        "ms_per_update": 1000.0 * seconds / updates if updates else None,
        "seconds_to": {f"{level:g}": seconds_to(curve, level) for level in LEVELS},
        "machines": sorted({str(r.get("machine", "")) for r in results}),
        "estimated": any(r["learning_estimated"] for r in results),
    }


def _seconds(result: Result) -> float:
    return float(result["points"][-1]["learning_s"])


def _updates(result: Result) -> float:
    return float(result["updates"])


def seconds_to(curve: Sequence[Mapping[str, float]], level: float) -> float | None:
    """Seconds of learning when success first came to ``level``, along straight lines between the points."""
    if curve[0]["rate"] >= level:
        return float(curve[0]["learning_s"])
    for before, after in pairwise(curve):
        if after["rate"] >= level:
            share = (level - before["rate"]) / (after["rate"] - before["rate"])
            return float(before["learning_s"] + share * (after["learning_s"] - before["learning_s"]))
    return None


def learning_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A Markdown table of `learning`, for the learners of one group."""
    heads = [f"{100 * level:.0f} % after" for level in LEVELS]
    lines = [
        f"| learner | updates | processor seconds of learning | ms per update | {' | '.join(heads)} |",
        "|---" * (4 + len(LEVELS)) + "|",
    ]
    for row in rows:
        found = row["learning"]
        each = "-" if found["ms_per_update"] is None else f"{found['ms_per_update']:.1f}"
        about = "about " if found["estimated"] else ""
        seconds = f"{about}{found['seconds']:.0f}"
        reached = ["never" if value is None else f"{about}{value:.0f} s" for value in found["seconds_to"].values()]
        lines.append(f"| {row['variant']} | {found['updates']:,.0f} | {seconds} | {about}{each} | {' | '.join(reached)} |")
    machines = sorted({name for row in rows for name in row["learning"]["machines"]})
    if len(machines) > 1:
        lines += ["", f"Cells of several machines ({'; '.join(machines)}): their seconds are not to be held against each other."]
    if any(row["learning"]["estimated"] for row in rows):
        lines += ["", "*About*: these cells noted seconds by the clock, at the end alone; before it they are in proportion to steps."]
    return lines
