"""The forgetting suite: does a candidate still do what its line was trusted for, under conditions that are no longer the present ones?

A policy knows one task, so what it can forget are earlier variants of it (`task_parameters`: a tighter clearance, another friction).
Where the gate promoted a version under such conditions, the candidate meets that version there again, in pairs, from the same starts.
A drop is said in the gate's evidence; it decides nothing by itself.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from takeover.policies.base import PolicyRefused
from takeover.policies.decisions import Decision
from takeover.policies.evaluation import Environment, EvaluationCancelled, run_episode
from takeover.policies.gate import GateSettings, PairedTest
from takeover.policies.manifest import read_manifest, version_folder
from takeover.policies.outcomes import Outcomes, conditions_of
from takeover.policies.publish import LoadedPolicy, load_policy

STARTS = 50
CONDITIONS = 3  # at most, the newest ones
MakeEnvironment = Callable[[dict[str, float]], Environment]
"""A simulator with these task parameters. Raises `ValueError` where there is none."""


@dataclass(frozen=True)
class Earlier:
    """The version that was promoted last under conditions which are not the present ones."""

    conditions: str
    version: int
    sha256: str


def parameters_of(conditions: str) -> dict[str, float]:
    """The task parameters in what `outcomes.conditions_of` made. Raises `ValueError` for anything else."""
    _, _, changed = conditions.partition(" ")
    try:
        return {name: float(value) for name, _, value in (part.partition("=") for part in changed.split(",") if changed)}
    except ValueError:
        raise ValueError(f"conditions {conditions!r} name no parameters") from None


def earlier_conditions(decisions: Iterable[Decision], robot_id: str, task_id: str, now: str) -> list[Earlier]:
    """Newest first, at most `CONDITIONS`. A version that was refused later stands for nothing."""
    found: dict[str, Earlier] = {}
    refused: set[tuple[int, str]] = set()
    for decision in reversed(list(decisions)):
        if (decision.robot_id, decision.task_id) != (robot_id, task_id):
            continue
        if decision.kind == "refused":
            refused.add((decision.version, decision.sha256))
        conditions = decision.evidence.get("conditions")
        if decision.kind != "promoted" or not isinstance(conditions, str) or conditions == now or conditions in found:
            continue
        if (decision.version, decision.sha256) not in refused:
            found[conditions] = Earlier(conditions, decision.version, decision.sha256)
    return list(found.values())[:CONDITIONS]


def look_back(
    workspace: str | os.PathLike[str],
    candidate: LoadedPolicy,
    earlier: Sequence[Earlier],
    make_environment: MakeEnvironment,
    starts: Sequence[int],
    settings: GateSettings | None = None,
    on_progress: Callable[[int, int], bool] | None = None,
) -> list[dict[str, Any]]:
    """What the candidate does under each of the earlier conditions, against the version that was trusted there; plain JSON values.

    At most `STARTS` pairs each. ``forgotten`` is True where the candidate was shown worse. What cannot be compared (weights that are
    gone, parameters that are no more) is there with its ``error``. Nothing is run twice. Raises `EvaluationCancelled`, `OSError`.
    """
    found = []
    chosen = list(starts[:STARTS])
    for index, one in enumerate(earlier):

        def at(done: int, index: int = index, one: Earlier = one) -> None:
            if on_progress is not None and not on_progress(index * len(chosen) + done, len(earlier) * len(chosen)):
                raise EvaluationCancelled(f"stopped after {done} of {len(chosen)} pairs under {one.conditions}")

        row: dict[str, Any] = {"conditions": one.conditions, "against": one.version, "against_sha256": one.sha256}
        try:
            test = _meet(workspace, candidate, one, make_environment, chosen, settings, at)
        except (PolicyRefused, ValueError) as error:
            found.append(row | {"error": str(error), "forgotten": False})
            continue
        numbers = test.numbers
        kept = ("verdict", "pairs", "candidate_successes", "trusted_successes", "only_candidate", "only_trusted", "p_worse")
        found.append(row | {name: numbers[name] for name in kept} | {"forgotten": test.verdict == "worse"})
    return found


def _meet(
    workspace: str | os.PathLike[str],
    candidate: LoadedPolicy,
    one: Earlier,
    make_environment: MakeEnvironment,
    starts: Sequence[int],
    settings: GateSettings | None,
    at: Callable[[int], None],
) -> PairedTest:
    parameters = parameters_of(one.conditions)
    environment = make_environment(parameters)
    spec = environment.spec
    here = conditions_of(spec.robot_id, spec.task_id, spec.control_hz, parameters)
    if here != one.conditions:
        raise ValueError(f"measured under {one.conditions}; this simulator makes {here}")
    folder = version_folder(workspace, one.version)
    if read_manifest(folder).sha256 != one.sha256:
        raise PolicyRefused(f"{folder} holds other weights than those that were promoted")
    reference = load_policy(folder, spec)
    outcomes = Outcomes(workspace, one.conditions)

    def success(loaded: LoadedPolicy, start: int) -> bool:
        known = outcomes.get(loaded.manifest.sha256, start)
        if known is None:
            episode = run_episode(loaded.policy, environment, start)
            outcomes.put(loaded.manifest.sha256, start, episode.success, episode.steps)
            return episode.success
        return known.success

    test = PairedTest(settings)
    for done, start in enumerate(starts, 1):
        final = test.add(success(candidate, start), success(reference, start))
        at(done)
        if final:
            break
    return test


def said(rows: Sequence[dict[str, Any]]) -> str:
    """One line for what was forgotten; empty where nothing was."""
    drops = [
        f"under {row['conditions']} it is worse than version {row['against']} ({row['candidate_successes']} against "
        f"{row['trusted_successes']} of {row['pairs']} starts)"
        for row in rows
        if row["forgotten"]
    ]
    return "forgotten: " + ", ".join(drops) if drops else ""
