"""What the cells of `sample-efficiency` say together: groups per (task, operator), rankings, a page in Markdown and one in JSON.

Pure functions over the cells' results; nothing is run here.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.sample_efficiency_compare import comparison_lines, comparisons, pooled, success_at
from benchmarks.sample_efficiency_goals import goal_lines, value_ratio
from benchmarks.sample_efficiency_plan import VARIANTS
from benchmarks.sample_efficiency_seconds import learning, learning_lines, with_learning_seconds
from benchmarks.sample_efficiency_text import interval_text, point_text, share_text
from takeover.data.statistics import bootstrap_ratio_band, ratio, wilson

SUCCESS = ("learner", "seeds", "warm start", "final", "worst seed", "deepest below warm start", "human steps (s)", "steps", "episodes")
EFFORT = (
    *("learner", "intervention rate, first 20 episodes", "last 40", "steps per success", "start-state Q / return", "loop min"),
    "demonstrations tried",
)
NOBODY = "The operators are scripted. **No people were tested.**"


def summarise(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry per (task, operator), in the order in which they come, each with its learners ranked."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for result in with_learning_seconds(results):
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
    good = [p for p in finals if p["successes"]]
    successes = sum(p["successes"] for p in good)
    episodes = [r["episodes"] for r in results]
    worst = min(finals, key=lambda p: p["successes"] / p["n"])
    curve = [_pooled([r["points"][i] for r in results]) for i in range(count)]
    return {
        "variant": variant,
        "says": VARIANTS[variant].says,
        "ablation": VARIANTS[variant].ablation,
        "takes_help": VARIANTS[variant].takes_help,
        "seeds": sorted(r["settings"]["seed"] for r in results),
        "curve": curve,
        "final": _pooled(finals),
        "per_seed": {str(r["settings"]["seed"]): p["successes"] / p["n"] for r, p in zip(results, finals, strict=True)},
        "worst_seed": {"successes": worst["successes"], "n": worst["n"], "rate": worst["successes"] / worst["n"]},
        "at_equal_human_steps": float(np.mean([success_at(r["points"], "human_steps", equal) for r in results])),
        "deepest_dip": float(min(dip(r["points"]) for r in results)),
        "intervention_rate_first_20": _rate(episodes, slice(0, 20)),
        "intervention_rate_last_40": _rate(episodes, slice(-40, None)),
        "steps_per_success": sum(p["steps_per_success"] * p["successes"] for p in good) / successes if good else None,
        "successes_timed": successes,
        "value_ratio": [value_ratio(p) for p in finals],
        "values_measured": any("start_value" in p for p in finals),
        "learning": learning(results, curve),
        "demonstration_tries": [r["demonstrations"]["tries"] for r in results],
    }


def _pooled(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Successes summed over seeds with Wilson's interval; the axes as means over seeds."""
    successes, n = sum(p["successes"] for p in points), sum(p["n"] for p in points)
    low, high = wilson(successes, n)
    names = ("train_steps", "episodes", "human_steps", "takeovers", "wall_s", "learning_s")
    axes = {key: float(np.mean([p[key] for p in points])) for key in names}
    return axes | {"successes": successes, "n": n, "rate": successes / n, "low": low, "high": high}


def dip(points: Sequence[Mapping[str, Any]]) -> float:
    """How far success ever fell below the warm start's, as a share; 0 or below."""
    shares = [p["successes"] / p["n"] for p in points]
    return min(0.0, min(shares) - shares[0])


def _rate(episodes: Iterable[Mapping[str, Sequence[int]]], part: slice) -> dict[str, float]:
    """Human steps over steps, with the bootstrap's interval over episodes; n of them."""
    chosen = [(human, steps) for e in episodes for human, steps in zip(e["human_steps"][part], e["steps"][part], strict=True)]
    human, steps = zip(*chosen, strict=True) if chosen else ((), ())
    low, high = bootstrap_ratio_band(human, steps)
    return {"rate": ratio(human, steps), "low": low, "high": high, "n": len(chosen)}


def _ranked(rows: Sequence[Mapping[str, Any]], key: Any) -> list[str]:
    return [str(row["variant"]) for row in sorted(rows, key=lambda row: -key(row))]


# --- the page ---


def markdown(summary: Mapping[str, Any]) -> str:
    """The page. ``summary``: command, commits, machines, hz, settings, missing (names of cells), goals, groups of `summarise`."""
    settings = summary["settings"]
    lines = [
        "# Sample efficiency",
        "",
        f"{NOBODY} Success is of the policy alone, deterministic, on {settings['starts']} fixed held-out starts that no training run uses.",
        "",
        "## Goals",
        "",
        *goal_lines(summary["goals"]),
    ]
    if summary["missing"]:
        lines += [
            "",
            f"The grid is **unfinished**: {len(summary['missing'])} of the grid's cells are missing: {', '.join(summary['missing'])}.",
        ]
    for group in summary["groups"]:
        lines += ["", *_group_lines(group, summary["hz"][group["task"]])]
    if len(summary["groups"]) > 1:
        lines += ["", "## All tasks and operators together", ""]
        lines += [f"- {row['variant']}: {point_text(row)}" for row in pooled(summary["groups"])]
    lines += ["", "## How it was measured", "", *_method(summary)]
    lines += ["", "## Learners", ""]
    shown = dict.fromkeys(row["variant"] for group in summary["groups"] for row in group["learners"])
    lines += [f"- `{name}`: {VARIANTS[name].learner}, {VARIANTS[name].says}" for name in shown]
    lines += ["", "## Operators", "", *operator_table(summary["groups"])]
    return "\n".join(lines) + "\n"


def _method(summary: Mapping[str, Any]) -> list[str]:
    settings = summary["settings"]
    changed = [f"{group}.{name} = {value}" for group in ("learner", "operator", "task") for name, value in settings.get(group, {}).items()]
    return [
        f"- command: `{summary['command']}`",
        f"- commit: {', '.join(summary['commits']) or 'unknown'}",
        f"- machine: {', '.join(summary['machines'])}",
        *([f"- settings of every cell: {', '.join(changed)}"] if changed else []),
        *(
            [f"- cells of {', '.join(old)} were made before cells noted their learner's defaults"]
            if (old := summary["without_recipe"])
            else []
        ),
        *(f"- not counted, of another grid: {text}" for text in summary.get("also_left_out", [])),
        f"- {settings['demonstrations']} successful demonstrations by the same operator before the loop (failed ones are made again)",
        "- the demonstrations are the same for every learner of a seed, and their steps are in no figure",
        f"- {settings['steps']:,} environment steps of the loop, evaluated at the warm start and {settings['points']} times after it",
        "- success has Wilson's interval, 95 %, n = seeds x starts. It does not show how seeds differ; the worst seed does",
        "- intervention rate: share of steps that the operator drove, with the 95 % interval of the bootstrap over episodes",
        "- minutes of the loop: without demonstrations, cloning and evaluation, on that machine with whatever else it did",
        "- seconds of learning: processor time of ingesting steps and of updates, one thread",
        "- human seconds are steps that the operator drove, over the control rate; it neither resets nor labels here",
        "- start-state Q: mean of the critics at first observations of the held-out starts, over the discounted return from there",
    ]


def _group_lines(group: Mapping[str, Any], hz: float) -> list[str]:
    rows = group["learners"]
    lines = [
        f"## {group['task']}, operator {group['operator']}",
        "",
        f"![Success alone over human steps, environment steps, time]({picture_name(group['task'], group['operator'])})",
        "",
        *_table(SUCCESS, [_success_cells(row, hz) for row in rows]),
        "",
        *_table(EFFORT, [_effort_cells(row) for row in rows]),
        "",
        f"At equal environment steps: {' > '.join(group['ranking_at_equal_environment_steps'])}.",
    ]
    helped = {row["variant"]: row for row in rows if row["takes_help"]}
    if helped:
        ranked = [
            f"{name} {share_text(helped[name]['at_equal_human_steps'], helped[name]['final']['n'])}"
            for name in group["ranking_at_equal_human_steps"]
        ]
        lines += ["", f"At equal human steps ({group['equal_human_steps']}, straight lines between points): {' > '.join(ranked)}."]
    return [*lines, *comparison_lines(group["comparisons"]), "", "### Learning per second", "", *learning_lines(rows)]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(cells)} |" for cells in rows)]


def _success_cells(row: Mapping[str, Any], hz: float) -> list[str]:
    final, worst = row["final"], row["worst_seed"]
    return [
        *(row["variant"], str(len(row["seeds"])), point_text(row["curve"][0]), point_text(final)),
        *(interval_text(worst["successes"], worst["n"]), f"{100 * row['deepest_dip']:.0f}"),
        f"{final['human_steps']:,.0f} ({final['human_steps'] / hz:,.0f})",
        *(f"{final['train_steps']:,.0f}", f"{final['episodes']:,.0f}"),
    ]


def _effort_cells(row: Mapping[str, Any]) -> list[str]:
    values = " ".join("-" if value is None else f"{value:.2f}" for value in row["value_ratio"])
    length = row["steps_per_success"]
    return [
        row["variant"],
        *(_rate_text(row[key]) for key in ("intervention_rate_first_20", "intervention_rate_last_40")),
        "-" if length is None else f"{length:.1f} (n = {row['successes_timed']})",
        values if row["values_measured"] else "not measured" if VARIANTS[row["variant"]].learner == "hil-serl" else "no critics",
        f"{row['final']['wall_s'] / 60:.1f}",
        " ".join(map(str, row["demonstration_tries"])),
    ]


def _rate_text(found: Mapping[str, float]) -> str:
    return f"{found['rate']:.3f} ({found['low']:.3f}-{found['high']:.3f}, n = {found['n']})"


def operator_table(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every parameter of every operator that took part, as a Markdown table."""
    operators = {group["operator"]: group["operator_parameters"] for group in groups}
    names = dict.fromkeys(name for parameters in operators.values() for name in parameters)
    lines = [f"| parameter | {' | '.join(operators)} |", f"|---|{'---|' * len(operators)}"]
    return lines + [f"| {name} | {' | '.join(f'{p.get(name, 0):g}' for p in operators.values())} |" for name in names]


def picture_name(task: str, operator: str) -> str:
    return f"curves-{task}-{operator}.png"
