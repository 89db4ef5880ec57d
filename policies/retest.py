"""Retest: the exact simulator state at every past takeover and failure is a case; an old and a new policy each try it k times.

Cases are not copied: episode files keep the states (``hil/sim_state``), a case is an episode and a step. What was run is kept in
``<workspace>/policies/retests.jsonl``, one line per case and policy, so that a stopped retest goes on and an old policy is run once.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import msgspec
import numpy as np

from takeover.data.catalog import Catalog
from takeover.data.catalog_tables import EpisodeRow
from takeover.data.episode_file import EpisodeReader
from takeover.data.hdf5_image import DamagedFile
from takeover.data.schema import EpisodeKind, Outcome, RobotSpec
from takeover.data.seeding import stream
from takeover.data.spaces import TOLERANCE
from takeover.data.statistics import wilson
from takeover.data.workspace import Workspace
from takeover.policies.evaluation import Environment, EvaluationCancelled, drive
from takeover.policies.manifest import policies_folder
from takeover.policies.outcomes import parameters_text
from takeover.policies.publish import LoadedPolicy

FILE = "retests.jsonl"
RUNS = 10
MAX_RUNS = 1000
KINDS = ("takeover", "failure")
Verdict = Literal["fixed", "not fixed", "worse", "nothing to fix"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
Progress = Callable[[int, int], bool]
Vary = Callable[[bytes, np.random.Generator], bytes]
"""A simulator's state with another generator for what it draws from now on; it belongs to the simulator, not to policies."""


class Restorable(Environment, Protocol):
    """An environment that continues from an exact state. Raises `RuntimeError` when a state does not fit it."""

    def restore(self, state: bytes) -> None: ...


@dataclass(frozen=True)
class Case:
    """Where somebody took over or the robot failed: episode and control step, with the exact state before that step's action."""

    episode_id: str
    seq: int
    kind: str  # takeover or failure
    policy_version: int  # when the episode began
    state: bytes
    first: np.ndarray | None = field(default=None, compare=False)  # (D,) the first observation of its episode; None: not known

    @property
    def name(self) -> str:
        return f"{self.episode_id}@{self.seq}"


class CaseRuns(msgspec.Struct, frozen=True, kw_only=True):
    """One policy's runs of one case: a line of the file."""

    episode_id: str
    seq: int
    sha256: str  # of the weights
    limit: int  # steps per run
    conditions: str = ""  # task parameters, `outcomes.parameters_text`
    successes: list[bool]  # run 0 with the state's own noise, run i > 0 with noise that is a function of (case, i)


@dataclass(frozen=True)
class CaseResult:
    """``interval``: of the difference of the success rates, new minus old, 95 % (Newcombe 1998, hybrid score)."""

    case: Case
    runs: int
    old: int
    new: int
    interval: tuple[float, float]
    verdict: Verdict


@dataclass(frozen=True)
class RetestResult:
    """All cases; ``problems``: those that could not be run, and why."""

    old_version: int
    new_version: int
    cases: list[CaseResult]
    problems: list[str]

    def count(self, verdict: Verdict) -> int:
        return sum(result.verdict == verdict for result in self.cases)

    def rate(self, which: Literal["old", "new"]) -> tuple[int, int, float, float]:
        """(successes, runs, low, high): the runs of a case are not independent, so Wilson's interval counts cases, not runs."""
        successes = [getattr(result, which) for result in self.cases]
        runs = [result.runs for result in self.cases]
        rates = [done / tried for done, tried in zip(successes, runs, strict=True)]
        return sum(successes), sum(runs), *wilson(sum(rates), len(rates))


def difference_interval(old: int, new: int, n: int) -> tuple[float, float]:
    """95 % interval of new / n - old / n (R. Newcombe, Statistics in Medicine 17, 1998, method 10); wide where runs are paired."""
    (old_low, old_high), (new_low, new_high) = wilson(old, n), wilson(new, n)
    p_old, p_new = old / n, new / n
    low = p_new - p_old - math.hypot(p_new - new_low, old_high - p_old)
    high = p_new - p_old + math.hypot(new_high - p_new, p_old - old_low)
    return low, high


def verdict_of(old: int, new: int, n: int) -> Verdict:
    """fixed: shown better, and right in most runs; worse: shown worse; nothing to fix: the old one never failed either."""
    low, high = difference_interval(old, new, n)
    if high < 0.0:
        return "worse"
    if low > 0.0 and 2 * new > n:
        return "fixed"
    return "nothing to fix" if old == n else "not fixed"


def _failed(row: EpisodeRow) -> bool:
    return row.outcome == Outcome.FAILURE.value


def find_cases(workspace: Workspace, spec: RobotSpec, problems: list[str]) -> Iterator[Case]:
    """Every takeover and failure of recorded episodes, newest first, also of evaluations and probes, where the policy is alone.

    Excluded and discarded episodes are left out.

    Files that cannot be read are named in ``problems``, and how many were recorded at another control rate than that of ``spec``.
    """
    with Catalog.open(workspace) as catalog:
        counted = catalog.newest_counted(spec.task_id, spec.robot_id, [EpisodeKind.POLICY.value, EpisodeKind.EVALUATION.value])
        all_rows = [row for row in counted if row.takeovers or _failed(row)]
    rows = [row for row in all_rows if math.isclose(row.control_hz, spec.control_hz, rel_tol=TOLERANCE)]
    if left_out := len(all_rows) - len(rows):
        problems.append(f"{left_out} episodes with cases: recorded at another control rate than {spec.control_hz:g} Hz")
    for row in rows:
        failed = _failed(row)
        path = workspace.path / row.path
        try:
            with EpisodeReader(path) as reader:
                states = reader.simulator_states()
                observations = reader.observations
        except (DamagedFile, OSError, KeyError, ValueError) as error:
            problems.append(f"episode {row.id}: {error}")
            continue
        found = [entry for entry in states if entry[0] == "takeover" or (entry[0] == "failure" and failed)]
        if not found:
            problems.append(f"episode {row.id}: {path} keeps no simulator state of its takeovers and failures")
        for kind, seq, state in found:
            yield Case(row.id, seq, kind, row.policy_version, state, observations[0] if len(observations) else None)


class KeptRuns:
    """What was run before under the same task parameters. One process writes."""

    def __init__(self, workspace: str | os.PathLike[str], parameters: Mapping[str, float] | None = None) -> None:
        self._conditions = parameters_text(parameters or {})
        self.path: Path = policies_folder(workspace) / FILE
        self.unreadable = 0  # lines that were passed over: their cases are run again
        self._known: dict[tuple[str, int, str, int], CaseRuns] = {}
        decoder = msgspec.json.Decoder(CaseRuns)
        for line in self.path.read_bytes().splitlines() if self.path.exists() else ():
            try:
                self._add(decoder.decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError):
                self.unreadable += 1

    def get(self, case: Case, sha256: str, limit: int) -> list[bool]:
        """The runs so far."""
        known = self._known.get((case.episode_id, case.seq, sha256, limit))
        return list(known.successes) if known else []

    def put(self, case: Case, sha256: str, limit: int, successes: list[bool]) -> None:
        """Keep a case's runs, on disk when this returns. Raises `OSError`."""
        conditions = self._conditions
        made = CaseRuns(episode_id=case.episode_id, seq=case.seq, sha256=sha256, limit=limit, conditions=conditions, successes=successes)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(fd).st_size
            torn = size and os.pread(fd, 1, size - 1) != b"\n"
            os.write(fd, (b"\n" if torn else b"") + msgspec.json.encode(made) + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        self._add(made)

    def _add(self, made: CaseRuns) -> None:
        if made.conditions == self._conditions:
            self._known[made.episode_id, made.seq, made.sha256, made.limit] = made


def run_case(loaded: LoadedPolicy, environment: Restorable, case: Case, runs: int, limit: int, kept: KeptRuns, vary: Vary) -> int:
    """Successes of ``runs`` runs of at most ``limit`` steps. Raises `RuntimeError` when the state does not fit, `OSError`."""
    sha256 = loaded.manifest.sha256
    successes = kept.get(case, sha256, limit)
    before = len(successes)
    for run in range(before, runs):
        state = case.state if run == 0 else vary(case.state, stream(case.seq, f"retest-{case.episode_id}", run))
        environment.restore(state)
        successes.append(drive(loaded.policy, environment, limit, case.first)[0])
    if len(successes) > before:
        kept.put(case, sha256, limit, successes)
    return sum(successes[:runs])


def retest(
    old: LoadedPolicy,
    new: LoadedPolicy,
    environment: Restorable,
    cases: Sequence[Case],
    kept: KeptRuns,
    vary: Vary,
    *,
    runs: int = RUNS,
    problems: Sequence[str] = (),
    on_progress: Progress | None = None,
) -> RetestResult:
    """Both policies from every case, deterministic actions, the same noise for both, a whole episode's time for each run.

    Cases whose state does not fit the environment are named in the result's ``problems``. ``on_progress(done, total)`` is called after
    each case; returning False raises `EvaluationCancelled`. Raises `ValueError` for runs out of range, `OSError`.
    """
    if not 1 <= runs <= MAX_RUNS:
        raise ValueError(f"{runs} runs per case; 1 to {MAX_RUNS}")
    found, failed = [], list(problems)
    limit = environment.spec.max_steps
    for done, case in enumerate(cases, 1):
        try:
            counts = [run_case(loaded, environment, case, runs, limit, kept, vary) for loaded in (old, new)]
        except RuntimeError as error:
            failed.append(f"episode {case.episode_id}, step {case.seq}: {error}")
        else:
            was, now = counts
            found.append(CaseResult(case, runs, was, now, difference_interval(was, now, runs), verdict_of(was, now, runs)))
        if on_progress is not None and not on_progress(done, len(cases)):
            raise EvaluationCancelled(f"stopped after {done} of {len(cases)} cases")
    return RetestResult(old.manifest.version, new.manifest.version, found, failed)


def as_json(result: RetestResult) -> dict[str, Any]:
    """Plain values."""
    rows = [
        {
            "episode_id": r.case.episode_id,
            "step": r.case.seq,
            "kind": r.case.kind,
            "runs": r.runs,
            "old": r.old,
            "new": r.new,
            "difference_interval": list(r.interval),
            "verdict": r.verdict,
        }
        for r in result.cases
    ]
    rates = (
        {which: dict(zip(("successes", "n", "low", "high"), result.rate(which), strict=True)) for which in ("old", "new")} if rows else {}
    )
    return {"old_version": result.old_version, "new_version": result.new_version, **rates, "cases": rows, "problems": result.problems}
