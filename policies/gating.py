"""The gate at work: run candidate and trusted policy on the same starts, and write down what follows from the test's verdict."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from takeover.data.schema import RobotSpec
from takeover.data.seeding import stream
from takeover.policies.base import PolicyRefused
from takeover.policies.decisions import GATE, Decision, Kind, current_standing, decide, read_decisions, standing
from takeover.policies.evaluation import Environment, EvaluationCancelled, run_episode
from takeover.policies.forgetting import MakeEnvironment, earlier_conditions, look_back, said
from takeover.policies.gate import GateSettings, PairedTest
from takeover.policies.manifest import Manifest, read_manifest, version_folder
from takeover.policies.outcomes import Outcomes
from takeover.policies.publish import LoadedPolicy, load_for, load_policy

Progress = Callable[[int, int], bool]
FIRST = "first"


@dataclass(frozen=True)
class GateResult:
    """``verdict``: one of `gate.Verdict`, or ``first`` where nothing was trusted before."""

    version: int
    trusted: int  # what it was compared with; 0: nothing
    verdict: str
    numbers: dict[str, Any]  # of the test; empty for the first
    decisions: list[Decision]

    @property
    def text(self) -> str:
        """One line."""
        if self.verdict == FIRST:
            return f"version {self.version} is the first that is trusted: there is nothing to compare it with"
        n = self.numbers
        drop = said(n.get("forgetting", []))
        return (
            f"version {self.version} against {self.trusted}: {self.verdict}; {n['candidate_successes']} against "
            f"{n['trusted_successes']} of {n['pairs']} starts, alone {n['only_candidate']} against {n['only_trusted']}"
            + (f"; {drop}" if drop else "")
        )


def run_start(loaded: LoadedPolicy, environment: Environment, start: int, outcomes: Outcomes) -> bool:
    """Success of one start, run unless it is known. Raises `OSError` when the outcome cannot be kept."""
    sha256 = loaded.manifest.sha256
    known = outcomes.get(sha256, start)
    if known is not None:
        return known.success
    found = run_episode(loaded.policy, environment, start)
    outcomes.put(sha256, start, found.success, found.steps)
    return found.success


def order_of(starts: Sequence[int], candidate_sha256: str, trusted_sha256: str) -> list[int]:
    """``starts`` in an order that is a function of the two policies' weights: the same each time these two meet, another for others.

    In one fixed order the first few dozen starts would decide every comparison of a run, and versions would be chosen by them.
    """
    seed = int(hashlib.sha256(f"{candidate_sha256} {trusted_sha256}".encode()).hexdigest()[:8], 16)
    return [starts[i] for i in stream(seed, "pairs").permutation(len(starts))]


def compare(
    candidate: LoadedPolicy,
    trusted: LoadedPolicy,
    environment: Environment,
    starts: Sequence[int],
    outcomes: Outcomes,
    settings: GateSettings | None = None,
    on_progress: Progress | None = None,
) -> PairedTest:
    """Pairs, in the order of `order_of`, until the verdict is final or ``starts`` end; ``on_progress(done, total)`` after each.

    Both act deterministically. What was run before is not run again, so a comparison that was stopped goes on where it was. Raises
    `EvaluationCancelled` when ``on_progress`` returns False.
    """
    test = PairedTest(settings)
    for done, start in enumerate(order_of(starts, candidate.manifest.sha256, trusted.manifest.sha256), 1):
        final = test.add(run_start(candidate, environment, start, outcomes), run_start(trusted, environment, start, outcomes))
        if on_progress is not None and not on_progress(done, len(starts)):
            raise EvaluationCancelled(f"stopped after {done} of {len(starts)} pairs")
        if final:
            break
    return test


def gate(
    workspace: str | os.PathLike[str],
    version: int,
    environment: Environment,
    starts: Sequence[int],
    outcomes: Outcomes,
    settings: GateSettings | None = None,
    on_progress: Progress | None = None,
    author: str = GATE,
    make_environment: MakeEnvironment | None = None,
) -> GateResult:
    """Compare a version with the trusted one of its robot and task and decide.

    better: promoted. not worse: promoted if it won at least as many starts alone as it lost, so that small losses do not add up from
    promotion to promotion; else it passed. worse: refused, and the trusted one acts (a person's pin stays as it is). insufficient
    evidence: noted as undecided. Where nothing is trusted yet, the version becomes trusted, unless a person holds the robot to another
    one: then that is what it is compared with. With ``make_environment`` a candidate that
    is not worse also meets what was trusted under earlier conditions (`forgetting`); a drop is evidence and changes no decision. Raises
    `PolicyRefused` when either cannot be loaded, `ValueError` when there is nothing to compare, `DecisionConflict` when somebody
    decided meanwhile, `DecisionError`.
    """
    spec: RobotSpec = environment.spec
    candidate = load_for(workspace, version, spec)
    now = current_standing(workspace, spec.robot_id, spec.task_id)
    manifest = candidate.manifest
    against, against_sha256 = now.reference
    if not now.trusted and against in (0, version):
        reason = "the first: nothing to compare it with"
        evidence = {"conditions": outcomes.conditions}
        made = decide(workspace, [("promoted", manifest)], author=author, reason=reason, evidence=evidence, after=now.last)
        return GateResult(version, 0, FIRST, {}, made)
    if now.trusted == version and now.trusted_sha256 == manifest.sha256:
        raise ValueError(f"version {version} is the trusted one itself; name another")
    trusted = _load_reference(workspace, "the trusted" if now.trusted else "the pinned", against, against_sha256, spec)
    test = compare(candidate, trusted, environment, starts, outcomes, settings, on_progress)
    entries: list[tuple[Kind, Manifest]]
    if test.verdict == "worse":
        entries = [("refused", manifest)]
        if not now.pinned:
            entries.append(("rolled_back", trusted.manifest))
    elif test.verdict == "insufficient evidence":
        entries = [("undecided", manifest)]
    else:
        entries = [("promoted" if test.verdict == "better" or test.wins >= test.losses else "passed", manifest)]
    numbers: dict[str, Any] = {"against": against, "against_sha256": against_sha256, "conditions": outcomes.conditions}
    numbers |= test.numbers
    if make_environment is not None and test.verdict != "worse":
        earlier = earlier_conditions(read_decisions(workspace), spec.robot_id, spec.task_id, outcomes.conditions)
        numbers["forgetting"] = look_back(workspace, candidate, earlier, make_environment, starts, settings, on_progress)
    reason = f"{test.verdict} than version {against}" if test.verdict != "insufficient evidence" else test.verdict
    if drop := said(numbers.get("forgetting", [])):
        reason += f"; {drop}"
    made = decide(workspace, entries, author=author, reason=reason, evidence=numbers, after=now.last)
    return GateResult(version, against, test.verdict, numbers, made)


def gate_is_due(workspace: str | os.PathLike[str], version: int) -> bool:
    """Whether the gate said nothing yet of this version against its reference. Raises `PolicyRefused`, `DecisionError`."""
    manifest = read_manifest(version_folder(workspace, version))
    decisions = read_decisions(workspace)
    now = standing(decisions, manifest.robot_id, manifest.task_id)
    _, against_sha256 = now.reference
    if manifest.sha256 == against_sha256 or version in now.refused:
        return False
    return not any(
        decision.author == GATE and decision.sha256 == manifest.sha256 and decision.evidence.get("against_sha256") == against_sha256
        for decision in decisions
    )


def _load_reference(workspace: str | os.PathLike[str], what: str, version: int, sha256: str, spec: RobotSpec) -> LoadedPolicy:
    folder = version_folder(workspace, version)
    try:
        if read_manifest(folder).sha256 != sha256:
            raise PolicyRefused(f"{folder} holds other weights than those that were promoted")
        return load_policy(folder, spec)
    except PolicyRefused as error:
        raise PolicyRefused(f"{what} version {version} cannot be compared with: {error}; promote another one") from error


def as_json(result: GateResult) -> dict[str, Any]:
    """Plain values."""
    made = [msgspec.to_builtins(decision) for decision in result.decisions]
    return {"version": result.version, "trusted": result.trusted, "verdict": result.verdict, "numbers": result.numbers, "decisions": made}
