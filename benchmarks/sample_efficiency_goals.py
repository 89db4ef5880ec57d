"""The goals of the learner against what `sample-efficiency` found: one line each, with figure, goal, and reached, missed or not run.

A figure from fewer seeds, from other steps, starts or demonstrations than a goal names, or with other settings than a learner ships with,
is shown, but counts as *not run in full*: neither reached nor missed. Pure functions over the cells' results.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.sample_efficiency_compare import compared, success_at
from benchmarks.sample_efficiency_plan import VARIANTS
from benchmarks.sample_efficiency_text import interval_text, share_text
from takeover.app.operators.scripted import operator_parameters
from takeover.data.statistics import bootstrap_ratio_band, ratio

Result = Mapping[str, Any]
REACHED, MISSED, NOT_RUN, PARTLY = "reached", "missed", "not run", "not run in full"
OPERATOR = "expert"


@dataclass(frozen=True)
class Protocol:
    """What a goal is measured on."""

    name: str
    task: str
    steps: int
    task_parameters: Mapping[str, float]
    seeds: int = 5
    starts: int = 200
    demonstrations: int = 20

    def of(self, results: Sequence[Result], variant: str) -> list[Result]:
        """The cells of ``variant`` under the expert on this very task: those that are just as the goal says, or whatever there is."""
        found = [r for r in results if r["settings"]["variant"] == variant and self._fits(r["settings"])]
        return [r for r in found if not self._differs(r["settings"])] or found

    def _fits(self, settings: Mapping[str, Any]) -> bool:
        changed = {key: value for key, value in settings["task_parameters"].items() if NOMINAL.get(key) != value}
        return bool(settings["task"] == self.task and settings["operator"] == OPERATOR and changed == self.task_parameters)

    def _differs(self, settings: Mapping[str, Any]) -> list[str]:
        found = [
            f"{settings[key]:,} {key} in the place of {getattr(self, key):,}"
            for key in ("steps", "starts", "demonstrations")
            if settings[key] != getattr(self, key)
        ]
        usual = {
            "learner": (settings["learner_parameters"], VARIANTS[settings["variant"]].learner_parameters),
            "operator": (settings["operator_parameters"], operator_parameters({"style": OPERATOR}).as_dict()),
        }
        for group, (chosen, shipped) in usual.items():
            found += [f"{group}.{key} = {value}" for key, value in chosen.items() if shipped.get(key) != value]
        return found

    def lacking(self, results: Sequence[Result]) -> list[str]:
        """What ``results`` fall short of or do in another way; empty: the goal can be judged."""
        seeds = len({r["settings"]["seed"] for r in results})
        few = [f"{seeds} of {self.seeds} seeds"] if seeds < self.seeds else []
        return few + list(dict.fromkeys(text for r in results for text in self._differs(r["settings"])))


NOMINAL = {"clearance_m": 0.0015}
PEG = Protocol("peg-insert", "peg-insert", 15_000, {})
TIGHT = Protocol("peg-insert, 1.2 mm", "peg-insert", 15_000, {"clearance_m": 0.0012})
PICK = Protocol("pick-lift", "pick-lift", 17_500, {})


@dataclass(frozen=True)
class _Measure:
    """A figure in words (empty: no cells), and whether it is good enough; None: these cells cannot say."""

    figure: str = ""
    good: bool | None = None


def goals(cells: Sequence[Result]) -> list[dict[str, Any]]:
    """One dict per goal: protocol, text, figure, verdict, lacking. ``cells`` may be of several grids; one that comes twice counts once."""
    results = list({json.dumps(r["settings"], sort_keys=True): r for r in cells}.values())
    peg = _lines(PEG, results)
    lines = [
        peg("hil-serl, mean success >= 95 %", ["hil-serl"], lambda own: _mean(own, 0.95)),
        peg("hil-serl, worst seed >= 90 %", ["hil-serl"], lambda own: _worst(own, 0.90)),
        peg("at least 15 points above hg-dagger in every seed, at equal episodes", PAIR, lambda a, b: _above(a, b, "episodes")),
        peg("at least 15 points above hg-dagger in every seed, at equal human steps", PAIR, lambda a, b: _above(a, b, "human_steps")),
        peg("at least 10 points above itself without help at 10,000 steps", ["hil-serl", "hil-serl-alone"], _above_itself),
        peg("intervention rate of the first 20 episodes >= 0.20", ["hil-serl"], lambda own: _rate(own, slice(0, 20), low=0.20)),
        peg("intervention rate of the last 40 episodes <= 0.05", ["hil-serl"], lambda own: _rate(own, slice(-40, None), high=0.05)),
        peg("cycle time <= 0.8 of hg-dagger's (steps of successes)", PAIR, _cycle),
        peg("start-state Q over realised return 0.5 to 1.6 at the end, in every seed", ["hil-serl"], _values),
    ]
    for protocol, mean, worst in ((TIGHT, 0.90, 0.85), (PICK, 0.92, 0.87)):
        line = _lines(protocol, results)
        lines.append(line(f"hil-serl, mean success >= {100 * mean:.0f} %", ["hil-serl"], lambda own, least=mean: _mean(own, least)))
        lines.append(line(f"hil-serl, worst seed >= {100 * worst:.0f} %", ["hil-serl"], lambda own, least=worst: _worst(own, least)))
    return lines + [_imitation(name, results) for name in ("sirius", "iwr")]


PAIR = ["hil-serl", "hg-dagger"]


def _lines(protocol: Protocol, results: Sequence[Result]) -> Callable[..., dict[str, Any]]:
    def line(text: str, variants: Sequence[str], measure: Callable[..., _Measure]) -> dict[str, Any]:
        cells = [protocol.of(results, variant) for variant in variants]
        if len(cells) > 1:  # seed by seed: those that all have
            seeds = set.intersection(*({r["settings"]["seed"] for r in own} for own in cells))
            cells = [sorted((r for r in own if r["settings"]["seed"] in seeds), key=lambda r: r["settings"]["seed"]) for own in cells]
        found = measure(*cells) if all(cells) else _Measure()
        lacking = list(dict.fromkeys(lack for own in cells for lack in protocol.lacking(own)))
        return _entry(protocol.name, text, found, lacking)

    return line


def _entry(name: str, text: str, found: _Measure, lacking: Sequence[str]) -> dict[str, Any]:
    verdict = NOT_RUN if found.good is None else PARTLY if lacking else REACHED if found.good else MISSED
    return {"protocol": name, "text": text, "figure": found.figure, "verdict": verdict, "lacking": list(lacking)}


# --- figures ---


def _final(results: Sequence[Result]) -> tuple[int, int]:
    return sum(r["points"][-1]["successes"] for r in results), sum(r["points"][-1]["n"] for r in results)


def _mean(results: Sequence[Result], least: float) -> _Measure:
    k, n = _final(results)
    return _Measure(interval_text(k, n), k / n >= least)


def _worst(results: Sequence[Result], least: float) -> _Measure:
    last = min((r["points"][-1] for r in results), key=lambda p: p["successes"] / p["n"])
    return _Measure(interval_text(last["successes"], last["n"]), last["successes"] / last["n"] >= least)


def _above(mine: Sequence[Result], other: Sequence[Result], axis: str) -> _Measure:
    found = compared(mine[0]["settings"]["variant"], other[0]["settings"]["variant"], [*mine, *other])
    differences = found[f"at_equal_{axis}"]
    if not differences:
        return _Measure(f"no {axis.replace('_', ' ')} in both")
    a, b = found[f"shares_at_equal_{axis}"]
    n = found["n"] * len(differences) // len(found["seeds"])
    each = " ".join(f"{100 * d:+.0f}" for d in differences)
    return _Measure(
        f"{each}; {share_text(a, n)} against {share_text(b, n)}", len(differences) == len(mine) and min(differences) >= 0.15 - 1e-9
    )


def _above_itself(mine: Sequence[Result], alone: Sequence[Result]) -> _Measure:
    at = min(10_000, *(r["points"][-1]["train_steps"] for r in (*mine, *alone)))
    shares = [float(np.mean([success_at(r["points"], "train_steps", at) for r in own])) for own in (mine, alone)]
    n = sum(r["points"][-1]["n"] for r in mine)
    text = f"{100 * (shares[0] - shares[1]):+.0f} at {at:,} steps: {share_text(shares[0], n)} against {share_text(shares[1], n)}"
    return _Measure(text, shares[0] - shares[1] >= 0.10 - 1e-9)


def _rate(results: Sequence[Result], part: slice, low: float = 0.0, high: float = 1.0) -> _Measure:
    human = [x for r in results for x in r["episodes"]["human_steps"][part]]
    steps = [x for r in results for x in r["episodes"]["steps"][part]]
    value, band = ratio(human, steps), bootstrap_ratio_band(human, steps)
    return _Measure(f"{value:.3f} ({band[0]:.3f}-{band[1]:.3f}, n = {len(steps)} episodes)", low <= value <= high)


def _cycle(mine: Sequence[Result], other: Sequence[Result]) -> _Measure:
    lengths, counts = [], []
    for results in (mine, other):
        finals = [r["points"][-1] for r in results if r["points"][-1]["successes"]]
        counts.append(sum(p["successes"] for p in finals))
        lengths.append(sum(p["steps_per_success"] * p["successes"] for p in finals) / max(1, counts[-1]))
    if not all(counts):
        return _Measure("no success to time")
    text = f"{lengths[0] / lengths[1]:.2f}: {lengths[0]:.1f} against {lengths[1]:.1f} steps (n = {counts[0]} and {counts[1]} successes)"
    return _Measure(text, lengths[0] <= 0.8 * lengths[1])


def _values(results: Sequence[Result]) -> _Measure:
    found = [value_ratio(r["points"][-1]) for r in results]
    known = [value for value in found if value is not None]
    if not known:
        measured = any("start_value" in r["points"][-1] for r in results)
        return _Measure("nothing was earned" if measured else "not measured")
    starts = sum(r["points"][-1]["n"] for r, value in zip(results, found, strict=True) if value is not None)
    each = " ".join(f"{value:.2f}" for value in known)
    text = f"{each} (n = {starts} starts)" + (f"; not measured in {len(found) - len(known)} seeds" if len(known) < len(found) else "")
    return _Measure(text, len(known) == len(found) and all(0.5 <= value <= 1.6 for value in known))


def value_ratio(point: Mapping[str, Any]) -> float | None:
    """Start-state value over realised return; None where it was not measured, or nothing was earned."""
    if point.get("start_value") is None or point["start_return"] <= 0.0:
        return None
    return float(point["start_value"] / point["start_return"])


def _imitation(name: str, results: Sequence[Result]) -> dict[str, Any]:
    """Summed over what both have run: equal settings, the learner apart."""
    shared = ("task", "operator", "task_parameters", "operator_parameters", "seed", "steps", "starts", "demonstrations")

    def cells(variant: str) -> dict[str, Result]:
        own = (r for r in results if r["settings"]["variant"] == variant)
        return {json.dumps([r["settings"][key] for key in shared], sort_keys=True): r for r in own}

    mine, other = cells(name), cells("hg-dagger")
    both = [(mine[key], other[key]) for key in mine if key in other]
    found, lacking = _Measure(), list[str]()
    if both:
        (k, n), (k_other, n_other) = _final([a for a, _ in both]), _final([b for _, b in both])
        found = _Measure(f"{interval_text(k, n)} against {interval_text(k_other, n_other)}", k / n >= k_other / n_other)
        for key in ("task", "operator"):
            if len(names := {a["settings"][key] for a, _ in both}) < 2:
                lacking.append(f"one {key} ({', '.join(names)})")
        seeds = len({a["settings"]["seed"] for a, _ in both})
        if seeds < 5:
            lacking.append(f"{seeds} of 5 seeds")
    return _entry("all", f"{name} at least equal to hg-dagger, pooled over tasks and operators", found, lacking)


# --- the table ---


def goal_lines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """A Markdown table, and under it what was not run in full."""
    lines = ["| task | goal | found | |", "|---|---|---|---|"]
    for one in found:
        verdict = f"**{one['verdict']}**" if one["verdict"] in (REACHED, MISSED) else one["verdict"]
        lines.append(f"| {one['protocol']} | {one['text']} | {one['figure'] or '-'} | {verdict} |")
    lines += ["", "Differences are in points, one per seed. Intervals are of 95 %."]
    partly: dict[tuple[str, str], None] = {}
    for one in found:
        if one["verdict"] == PARTLY:
            partly[one["protocol"], ", ".join(one["lacking"])] = None
    if partly:
        lines += ["", "Not run in full, so neither reached nor missed:", ""]
        lines += [f"- {name}: {text}" for name, text in partly]
    return lines
