"""One run for `benchmarks.pictures`: the in-process loop with two cameras, which can stop at any moment and go on with the same numbers.

Records go to one compressed file per episode, learner and loop to a checkpoint between episodes; an evaluation remembers each start.
"""

import os
import shutil
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.inprocess_loop import make_robot
from benchmarks.no_dip_run import validation_start
from benchmarks.resumable_loop import ResumableLoop
from takeover.data.schema import EpisodeEnd, EpisodeKind, EpisodeStart, RunConfig, Step
from takeover.policies.checkpoint import newest_checkpoint, save_checkpoint
from takeover.policies.evaluation import run_episode

SAVE_EVERY_S = 60.0  # processor time

_decoder = msgspec.msgpack.Decoder(list[EpisodeStart | Step | EpisodeEnd])


class PictureLoop(ResumableLoop):
    """The loop; episodes are kept in ``folder`` so that another process can go on."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self.folder = folder
        self.written = 0  # episodes
        self._running: list[Any] = []
        super().__init__(config, redo_failed=True)

    def _feed(self, record_type: type[Any], /, **fields: Any) -> None:
        self._running.append(record_type(session="bench", rec_seq=self.records, **fields))
        super()._feed(record_type, **fields)
        if record_type is EpisodeEnd:
            replace_bytes(self._path(self.written), zlib.compress(msgspec.msgpack.encode(self._running), 1))
            self.written += 1
            self._running = []

    def _path(self, number: int) -> Path:
        return self.folder / "episodes" / f"{number:06d}.msgpack.zlib"

    def save(self, result: dict[str, Any]) -> None:
        """Everything needed to go on, between two episodes."""
        state, weights = self.state_with_weights()
        counters = {name: getattr(self, name) for name in ("train_step", "seq", "records", "written", "holds")}
        state["loop"] = {"counters": counters, "weights": weights, "result": result}
        save_checkpoint(self.folder, state)

    def load(self) -> dict[str, Any] | None:
        """Go on from what `save` wrote; the result so far, None when there is nothing."""
        state, _ = newest_checkpoint(self.folder)
        if state is None:
            return None
        saved = state["loop"]
        self.training.expect(state)
        for number in range(saved["counters"]["written"]):
            for record in _decoder.decode(zlib.decompress(self._path(number).read_bytes())):
                self.training.replay(record)
        self.training.restore(state)
        self.restore_weights(saved["weights"], state["tensors"])
        for name, value in saved["counters"].items():
            setattr(self, name, value)
        return saved["result"]  # type: ignore[no-any-return]


class Budget:
    """Processor time of this process, and when to save. However small, one episode or evaluated start is made."""

    def __init__(self, seconds: float) -> None:
        self._end = time.process_time() + seconds
        self._save = time.process_time() + SAVE_EVERY_S
        self.worked = False

    @property
    def used_up(self) -> bool:
        return self.worked and time.process_time() >= self._end

    def save_due(self) -> bool:
        due = time.process_time() >= self._save
        if due:
            self._save = time.process_time() + SAVE_EVERY_S
        return due


def advance(
    config: RunConfig, steps: int, every: int, starts: int, folder: Path, budget_s: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Run on from ``folder`` until ``steps`` training steps are made and evaluated or ``budget_s`` of processor time is used.

    The newest policy is evaluated alone at the warm start and after the first episode that reaches each multiple of ``every``.
    """
    loop, robot = PictureLoop(config, folder), make_robot(config)
    try:
        return _advance(loop, robot, steps, every, starts, Budget(budget_s), say)
    finally:
        loop.robot.close()
        robot.close()


def _advance(
    loop: PictureLoop, robot: Any, steps: int, every: int, starts: int, budget: Budget, say: Callable[[str], None]
) -> dict[str, Any]:
    cpu, wall = time.process_time(), time.perf_counter()
    result = loop.load() or _demonstrations(loop, say)
    before = result["cpu_s"], result["wall_s"]

    def note() -> None:
        result["cpu_s"], result["wall_s"] = before[0] + time.process_time() - cpu, before[1] + time.perf_counter() - wall

    def save() -> None:
        note()
        loop.save(result)

    if not result["points"]:
        _add_point(loop, result)
        save()
    while True:
        if not _evaluated(loop, robot, result["points"][-1], starts, budget, say):
            break
        if loop.train_step >= steps or budget.used_up:
            result["complete"] = loop.train_step >= steps
            break
        episode = loop.episode(EpisodeKind.POLICY, len(result["episodes"]))
        budget.worked = True
        result["episodes"].append({key: episode[key] for key in ("steps", "human_steps", "takeovers", "success")})
        if loop.train_step >= min(steps, every * len(result["points"])):
            _add_point(loop, result)
        if budget.save_due():
            save()
            say(f"step {loop.train_step}, {len(result['episodes'])} episodes, {result['cpu_s']:.0f} s of processor time")
    if result["complete"]:
        note()
        shutil.rmtree(loop.folder)
    else:
        save()
    return result


def _demonstrations(loop: PictureLoop, say: Callable[[str], None]) -> dict[str, Any]:
    """Record and clone. Not saved in between: it begins again when it is stopped."""
    tried = steps = 0
    while loop.training.phase == "waiting":
        steps += loop.episode(EpisodeKind.DEMONSTRATION, tried)["steps"]
        tried += 1
    say(f"{tried} demonstrations, {steps} steps; cloning")
    began = time.process_time()
    while loop.training.phase == "cloning":
        loop.training.work()
    clone_s = time.process_time() - began
    say(f"cloned in {clone_s:.0f} s of processor time")
    counts = {"demonstrations_tried": tried, "demonstration_steps": steps, "clone_cpu_s": clone_s}
    return counts | {"points": [], "episodes": [], "cpu_s": 0.0, "wall_s": 0.0, "complete": False}


def _add_point(loop: PictureLoop, result: dict[str, Any]) -> None:
    human = sum(episode["human_steps"] for episode in result["episodes"])
    version = loop.training.versions[-1][0]
    result["points"].append({"steps": loop.train_step, "version": version, "human_steps": human, "outcomes": ""})


def _evaluated(loop: PictureLoop, robot: Any, point: dict[str, Any], starts: int, budget: Budget, say: Callable[[str], None]) -> bool:
    """Run what is missing of ``point``'s starts; False when the budget was used up first."""
    policy = loop.policies[point["version"]]
    while len(point["outcomes"]) < starts:
        if budget.used_up:
            return False
        outcome = run_episode(policy, robot, validation_start(len(point["outcomes"])))
        budget.worked = True
        point["outcomes"] += "1" if outcome.success else "0"
        if len(point["outcomes"]) == starts:
            say(f"step {point['steps']}: {point['outcomes'].count('1')} of {starts}")
    return True


def replace_bytes(path: Path, content: bytes) -> None:
    """Under its final name only when whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
