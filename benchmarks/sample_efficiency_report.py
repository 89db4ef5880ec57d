"""What the cells of `sample-efficiency` say together: groups per (task, operator), rankings, a page in Markdown and one in JSON.

Pure functions over the cells' results; nothing is run here.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.sample_efficiency_compare import comparison_lines, comparisons, pooled, success_at
from benchmarks.sample_efficiency_plan import VARIANTS
from takeover.data.statistics import wilson

COLUMNS = (
    *("learner", "seeds", "warm start", "final", "worst seed", "deepest below warm start", "human steps (s)", "steps", "episodes"),
    *("loop min", "intervention rate first 20, last 40", "steps per success"),
)
NOBODY = "The operators are scripted. **No people were tested.**"


def summarise(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry per (task, operator), in the order in which they come, each with its learners ranked."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["settings"]["task"], result["settings"]["operator"]), []).append(result)
    return [_group(task, operator, members) for (task, operator), members in groups.items()]


def _group(task: str, operator: str, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    by_variant: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        by_variant.setdefault(result["settings"]["variant"], []).append(result)
    helped = [r["points"][-1]["human_steps"] for r in results if VARIANTS[r["settings"]["variant"]].takes_help]
    equal = min(helped) if helped else 0
    rows = [_row(variant, members, equal) for variant, members in by_variant.items()]
    return {
        "task": task,
        "operator": operator,
        "operator_parameters": results[0]["settings"]["operator_parameters"],
        "equal_human_steps": equal,
        "learners": sorted(rows, key=lambda row: -row["final"]["rate"]),
        "comparisons": comparisons(results),
        "ranking_at_equal_environment_steps": _ranked(rows, lambda row: row["final"]["rate"]),
        "ranking_at_equal_human_steps": _ranked([r for r in rows if r["takes_help"]], lambda row: row["at_equal_human_steps"]),
    }


def _row(variant: str, results: Sequence[Mapping[str, Any]], equal: float) -> dict[str, Any]:
    """One learner under one operator on one task, all seeds."""
    finals = [r["points"][-1] for r in results]
    count = min(len(r["points"]) for r in results)
    lengths = [p["steps_per_success"] for p in finals if p["steps_per_success"] is not None]
    episodes = [r["episodes"] for r in results]
    return {
        "variant": variant,
        "says": VARIANTS[variant].says,
        "ablation": VARIANTS[variant].ablation,
        "takes_help": VARIANTS[variant].takes_help,
        "seeds": sorted(r["settings"]["seed"] for r in results),
        "curve": [_pooled([r["points"][i] for r in results]) for i in range(count)],
        "final": _pooled(finals),
        "per_seed": {str(r["settings"]["seed"]): p["successes"] / p["n"] for r, p in zip(results, finals, strict=True)},
        "worst_seed": min(p["successes"] / p["n"] for p in finals),
        "at_equal_human_steps": float(np.mean([success_at(r["points"], "human_steps", equal) for r in results])),
        "deepest_dip": float(min(dip(r["points"]) for r in results)),
        "intervention_rate_first_20": _rate(episodes, slice(0, 20)),
        "intervention_rate_last_40": _rate(episodes, slice(-40, None)),
        "steps_per_success": float(np.mean(lengths)) if lengths else None,
        "demonstration_tries": [r["demonstrations"]["tries"] for r in results],
    }


def _pooled(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Successes summed over seeds with Wilson's interval; the axes as means over seeds."""
    successes, n = sum(p["successes"] for p in points), sum(p["n"] for p in points)
    low, high = wilson(successes, n)
    axes = {key: float(np.mean([p[key] for p in points])) for key in ("train_steps", "episodes", "human_steps", "takeovers", "wall_s")}
    return axes | {"successes": successes, "n": n, "rate": successes / n, "low": low, "high": high}


def dip(points: Sequence[Mapping[str, Any]]) -> float:
    """How far success ever fell below the warm start's, as a share; 0 or below."""
    shares = [p["successes"] / p["n"] for p in points]
    return min(0.0, min(shares) - shares[0])


def _rate(episodes: Iterable[Mapping[str, Sequence[int]]], part: slice) -> float:
    human = sum(sum(e["human_steps"][part]) for e in episodes)
    return human / max(1, sum(sum(e["steps"][part]) for e in episodes))


def _ranked(rows: Sequence[Mapping[str, Any]], key: Any) -> list[str]:
    return [str(row["variant"]) for row in sorted(rows, key=lambda row: -key(row))]


# --- the page ---


def markdown(summary: Mapping[str, Any]) -> str:
    """The page. ``summary``: command, commit, machine, hz, settings, missing (names of cells), groups of `summarise`."""
    settings = summary["settings"]
    lines = [
        "# Sample efficiency",
        "",
        f"{NOBODY} Success is of the policy alone, deterministic, on {settings['starts']} fixed held-out starts that no training run uses.",
        "",
        f"- command: `{summary['command']}`",
        f"- commit: {', '.join(summary['commits']) or 'unknown'}",
        f"- machine: {', '.join(summary['machines'])}",
        f"- {settings['demonstrations']} successful demonstrations by the same operator before the loop (failed ones are made again)",
        "- demonstrations are the same for every learner of a seed, and their steps are in no figure below",
        f"- {settings['steps']:,} environment steps of the loop, evaluated at the warm start and {settings['points']} times after it",
        "- intervals are Wilson's, 95 %, over seeds x starts; how seeds differ they do not show, the worst seed does",
        "- wall time is the loop's, without demonstrations, cloning and evaluation, on that machine with whatever else it did",
        "- human seconds are steps that the operator drove, over the control rate; it neither resets nor labels here",
    ]
    if summary["missing"]:
        lines.append(f"- **unfinished**: {len(summary['missing'])} of the grid's cells are missing: {', '.join(summary['missing'])}")
    for group in summary["groups"]:
        lines += ["", *_group_lines(group, summary["hz"][group["task"]])]
    if len(summary["groups"]) > 1:
        lines += ["", "## All tasks and operators together", ""]
        lines += [f"- {row['variant']}: {_share(row)}" for row in pooled(summary["groups"])]
    lines += ["", "## Learners", ""]
    shown = dict.fromkeys(row["variant"] for group in summary["groups"] for row in group["learners"])
    lines += [f"- `{name}`: {VARIANTS[name].learner}, {VARIANTS[name].says}" for name in shown]
    lines += ["", "## Operators", "", *operator_table(summary["groups"])]
    return "\n".join(lines) + "\n"


def _group_lines(group: Mapping[str, Any], hz: float) -> list[str]:
    lines = [
        f"## {group['task']}, operator {group['operator']}",
        "",
        f"![curves]({picture_name(group['task'], group['operator'])})",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    for row in group["learners"]:
        final = row["final"]
        length = f"{row['steps_per_success']:.0f}" if row["steps_per_success"] is not None else "-"
        lines.append(
            f"| {row['variant']} | {len(row['seeds'])} | {_share(row['curve'][0])} | {_share(final)} | {100 * row['worst_seed']:.0f} % |"
            f" {100 * row['deepest_dip']:.0f} | {final['human_steps']:.0f} ({final['human_steps'] / hz:.0f}) | {final['train_steps']:.0f} |"
            f" {final['episodes']:.0f} | {final['wall_s'] / 60:.1f} | {row['intervention_rate_first_20']:.3f},"
            f" {row['intervention_rate_last_40']:.3f} | {length} |"
        )
    lines += ["", f"At equal environment steps: {' > '.join(group['ranking_at_equal_environment_steps'])}."]
    helped = {row["variant"]: row for row in group["learners"] if row["takes_help"]}
    if helped:
        ranked = [f"{name} {100 * helped[name]['at_equal_human_steps']:.0f} %" for name in group["ranking_at_equal_human_steps"]]
        lines.append(f"At equal human steps ({group['equal_human_steps']}, straight lines between points): {' > '.join(ranked)}.")
    return lines + comparison_lines(group["comparisons"])


def _share(point: Mapping[str, Any]) -> str:
    return f"{100 * point['rate']:.0f} % ({100 * point['low']:.0f}-{100 * point['high']:.0f}, n = {point['n']})"


def operator_table(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every parameter of every operator that took part, as a Markdown table."""
    operators = {group["operator"]: group["operator_parameters"] for group in groups}
    names = dict.fromkeys(name for parameters in operators.values() for name in parameters)
    lines = [f"| parameter | {' | '.join(operators)} |", f"|---|{'---|' * len(operators)}"]
    return lines + [f"| {name} | {' | '.join(f'{p.get(name, 0):g}' for p in operators.values())} |" for name in names]


def picture_name(task: str, operator: str) -> str:
    return f"curves-{task}-{operator}.png"
