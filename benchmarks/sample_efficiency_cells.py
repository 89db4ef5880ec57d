"""One cell of `sample-efficiency`: demonstrations, cloning, the loop, evaluation on the held-out starts at several points; its file."""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inprocess_loop import Loop
from benchmarks.sample_efficiency_plan import VARIANTS, Cell
from benchmarks.sample_efficiency_returns import WatchedRobot, promised_and_earned, valued
from takeover.data.filelock import FileLock, Locked
from takeover.data.schema import EpisodeKind
from takeover.data.seeding import heldout_start
from takeover.policies.base import LearnerError
from takeover.policies.evaluation import evaluate
from takeover.policies.registry import make_learner
from takeover.policies.same_settings import HOW, differing
from takeover.robot_bridge.robots.base import RobotError
from takeover.robot_bridge.robots.sim import SimRobot

SCHEMA = 1
TRIES_PER_DEMONSTRATION = 20
HUMAN_STEPS_ALONE = ("hg-dagger", "bc")
POLICY_STEPS = frozenset({"policy_examples", "pre_intervention_s"})

OnProgress = Callable[[float, float, str], bool]
"""(done, total, text) -> whether to go on."""


class Cancelled(RuntimeError):
    """Asked to stop; the cell left no file."""


class CellError(RuntimeError):
    """A cell that cannot be run or whose file cannot be used; the text says what to do."""


class CellBusy(RuntimeError):
    """Another command runs this cell now."""


def describe(error: Exception) -> str:
    """In one line; what nobody foresaw, with its kind."""
    text = " ".join(str(error).split())
    return text if isinstance(error, CellError) else f"{type(error).__name__}: {text}"


def run_cell(cell: Cell, on_progress: OnProgress) -> dict[str, Any]:
    """Run it from the beginning. Raises `Cancelled` when ``on_progress`` returns False, `CellError` when the operator cannot
    demonstrate the task."""
    return _Run(cell, on_progress).run()


class _Run:
    def __init__(self, cell: Cell, on_progress: OnProgress) -> None:
        self.cell = cell
        self.loop = Loop(cell.config(), redo_failed=True)
        self._on_progress = on_progress
        self._evaluated = 0
        self.seconds = {"demonstrations": 0.0, "clone": 0.0, "loop": 0.0, "evaluation": 0.0}
        self.episodes: list[dict[str, Any]] = []
        self.points: list[dict[str, Any]] = []

    def run(self) -> dict[str, Any]:
        cell, loop = self.cell, self.loop
        demonstrations = self._timed("demonstrations", self._demonstrate)
        self._timed("clone", self._clone)
        loop.update_s = loop.update_cpu_s = 0.0
        self._point()
        targets = [round(cell.steps * (i + 1) / cell.points) for i in range(cell.points)]
        for target in targets:
            while loop.train_step < target:
                number = len(self.episodes)
                self.episodes.append(self._timed("loop", lambda number=number: loop.episode(EpisodeKind.POLICY, number)))
                self._say("learning")
            self._point()
        return {
            "schema": SCHEMA,
            "settings": cell.settings,
            "recipe": recipe(cell),
            "demonstrations": demonstrations,
            "points": self.points,
            "episodes": {key: [int(e[key]) for e in self.episodes] for key in ("steps", "human_steps", "takeovers", "success")},
            "updates": loop.training.learner.updates if loop.training.learner is not None else 0,
            "safety_holds": loop.holds,
            "seconds": self.seconds | {"learning": loop.update_s, "learning_cpu": loop.update_cpu_s},
        }

    def _demonstrate(self) -> dict[str, int]:
        """Until enough succeeded: a person would do a failed one again."""
        wanted, found = self.cell.demonstrations, []
        while sum(e["success"] for e in found) < wanted:
            if len(found) >= TRIES_PER_DEMONSTRATION * wanted:
                good = sum(e["success"] for e in found)
                raise CellError(
                    f"{self.cell.name}: operator {self.cell.operator} demonstrated {self.cell.task} {good} times in {len(found)} tries;"
                    f" {wanted} are needed; choose another operator, or ask for fewer demonstrations"
                )
            found.append(self.loop.episode(EpisodeKind.DEMONSTRATION, len(found)))
            self._say("demonstrations")
        kept = [e for e in found if e["success"]]
        return {"tries": len(found), "kept": len(kept), "human_steps": sum(e["steps"] for e in kept)}

    def _clone(self) -> None:
        while self.loop.training.phase == "cloning":
            self.loop.training.work()
            self._say("cloning")

    def _point(self) -> None:
        """Newest version alone on the held-out starts."""
        loop, starts = self.loop, self.cell.starts
        newest = loop.training.versions[-1][0]

        def on_progress(done: int) -> bool:
            self._evaluated += 1
            self._say("evaluation")
            return True

        learner = valued(loop.training.learner)
        discount, penalty = (learner.parameters.discount, learner.parameters.gripper_penalty) if learner is not None else (1.0, 0.0)
        robot = WatchedRobot(loop.robot, discount, penalty)
        found = self._timed(
            "evaluation", lambda: evaluate(loop.policies[newest], robot, [heldout_start(i) for i in range(starts)], on_progress)
        )
        good = [o.steps for o in found if o.success]
        self.points.append(
            {
                "train_steps": loop.train_step,
                "episodes": len(self.episodes),
                "human_steps": sum(e["human_steps"] for e in self.episodes),
                "takeovers": sum(e["takeovers"] for e in self.episodes),
                "wall_s": self.seconds["loop"],
                "learning_s": loop.update_cpu_s,
                "version": newest,
                "successes": len(good),
                "n": starts,
                "steps_per_success": float(np.mean(good)) if good else None,
            }
            | (promised_and_earned(learner, robot) if learner is not None else {})
        )

    def _timed(self, name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        try:
            return work()
        finally:
            self.seconds[name] += time.perf_counter() - started

    def _say(self, text: str) -> None:
        cell = self.cell
        done = min(self.loop.train_step, cell.steps) + self._evaluated
        if not self._on_progress(done, work_of(cell), text):
            raise Cancelled(f"{cell.name}: stopped while {text}; it left no file and begins anew next time")


def finish_cell(cell: Cell, folder: Path, origin: Mapping[str, Any], on_progress: OnProgress) -> dict[str, Any]:
    """Its result: from its file, or run now under the cell's lock and saved together with ``origin``.

    Raises `CellBusy` when another process has the lock, and what `run_cell`, `load` and `save` raise.
    """
    path = cell_path(folder, cell)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{cell.name}.lock"))
    except Locked as error:
        raise CellBusy(f"process {error.holder} runs it") from error
    except OSError as error:
        raise CellError(f"{path}: cannot be locked: {error.strerror}; free space or choose another --out") from error
    with lock:
        found = load(path, cell)  # another command may have come first
        if found is None:
            found = run_cell(cell, on_progress) | dict(origin)
            save(path, found)
        return found


def work_of(cell: Cell) -> int:
    """Of a cell's progress: environment steps and evaluated starts."""
    return cell.steps + cell.starts * (cell.points + 1)


def cell_path(folder: Path, cell: Cell) -> Path:
    return folder / "cells" / f"{cell.name}.json"


def save(path: Path, result: dict[str, Any]) -> None:
    """Never a half-written file under its final name. Raises `CellError` when it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(result, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CellError(f"{path}: cannot be written: {error.strerror}; free space or choose another --out") from error


def recipe(cell: Cell) -> dict[str, Any]:
    """Every parameter of the cell's learner as it learns there, defaults included; not how it is computed (device, precision)."""
    spec = SimRobot(cell.task, dict(cell.task_parameters)).spec
    learner = make_learner(VARIANTS[cell.variant].learner, spec, cell.seed, dict(cell.learner_parameters))
    return _of_effect(asdict(learner.parameters), cell)  # type: ignore[attr-defined]


def _of_effect(parameters: Mapping[str, Any], cell: Cell) -> dict[str, Any]:
    """Without those that say how it is computed, or what of the policy's steps is an example to a learner that has none of them."""
    idle = POLICY_STEPS if VARIANTS[cell.variant].learner in HUMAN_STEPS_ALONE else frozenset()
    return {name: value for name, value in parameters.items() if name not in HOW | idle}


def load(path: Path, cell: Cell) -> dict[str, Any] | None:
    """A finished cell, None where there is none. Raises `CellError` for a damaged file, one made with other settings, or by a learner whose
    defaults were others. One of before they were noted is taken; the report says so."""
    try:
        result = _read(path)
    except FileNotFoundError:
        return None
    there, mine = result["settings"], cell.settings
    other = sorted(key for key in mine.keys() | there.keys() if mine.get(key) != there.get(key))
    texts = [f"{key}: there {there.get(key)}, now {mine.get(key)}" for key in other]
    if not texts and "recipe" in result:
        texts = differing(_of_effect(result["recipe"], cell), recipe(cell))
    if texts:
        raise CellError(f"{path}: made with other settings ({'; '.join(texts)}); choose another --out, or delete it")
    return result


def load_all(folder: Path) -> list[dict[str, Any]]:
    """Every finished cell of another grid's ``folder``, whatever its settings. Raises `CellError` where there is none, or for a damaged
    file."""
    paths = sorted((folder / "cells").glob("*.json"))
    if not paths:
        raise CellError(f"{folder}: holds no finished cells; name a folder that was an --out")
    return [_read(path) for path in paths]


def outdated(result: Mapping[str, Any]) -> str:
    """Why a finished cell of another grid says nothing of the learner as it is now; "" where it does, or its recipe was not noted yet."""
    there = dict(result["settings"])
    where = f"{there.get('task')}.{there.get('operator')}.{there.get('variant')}.seed{there.get('seed')}"
    if there.get("variant") not in VARIANTS:
        return f"{where}: no learner of this version"
    try:
        cell = Cell(**{field.name: there[field.name] for field in fields(Cell)})
        texts = differing(_of_effect(result["recipe"], cell), recipe(cell)) if "recipe" in result else []
    except (KeyError, TypeError, ValueError, LearnerError, RobotError) as error:
        texts = [describe(error)]
    return f"{where}: {'; '.join(texts)}" if texts else ""


def _read(path: Path) -> dict[str, Any]:
    """Raises FileNotFoundError, and `CellError` for a file that is no cell."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CellError(f"{path}: cannot be read ({error}); delete it to run it anew") from error
    if not isinstance(result, dict) or result.get("schema") != SCHEMA or not isinstance(result.get("settings"), dict):
        raise CellError(f"{path}: no cell of schema {SCHEMA}; delete it to run it anew")
    return result
