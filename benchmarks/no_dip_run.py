"""One run for `benchmarks.no_dip`: the in-process loop, evaluated while it learns, which can stop between episodes and go on in another
process with the same numbers.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.resumable_loop import ResumableLoop
from takeover.data.schema import EpisodeEnd, EpisodeKind, EpisodeStart, RunConfig, Step
from takeover.data.seeding import DEMONSTRATION_BASE, HELDOUT_BASE, stream
from takeover.policies.checkpoint import newest_checkpoint, save_checkpoint
from takeover.policies.evaluation import evaluate
from takeover.policies.publish import make_manifest, publish, published_versions, weights_bytes
from takeover.robot_bridge.robots.sim import SimRobot

DEMONSTRATIONS = 20
_RECORDS = "records.msgpack"


def validation_start(index: int) -> int:
    """Start ``index`` of the stream named ``validation``: above the training starts, below the held-out ones."""
    return int(stream(0, "validation", index).integers(DEMONSTRATION_BASE, HELDOUT_BASE))


def config_of(
    task: str,
    learner: str,
    seed: int,
    settings: dict[str, Any],
    task_parameters: dict[str, float] | None = None,
    operator: dict[str, Any] | None = None,
) -> RunConfig:
    """Of a run in one process, scripted operator, by the rules of lockstep."""
    return RunConfig(
        session_id="bench",
        workspace="",
        sockets="",
        task=task,
        learner=learner,
        operator="scripted",
        clock="lockstep",
        seed=seed,
        demonstrations=DEMONSTRATIONS,
        learner_parameters=settings,
        task_parameters=task_parameters or {},
        operator_parameters=operator or {},
    )


def publish_version(folder: Path, loop: ResumableLoop, version: int, acts_from: int = 0) -> None:
    """A version of ``loop`` into a workspace, unless it is there."""
    if version in published_versions(folder):
        return
    weights = loop.weights[version]
    data = weights_bytes(weights)
    fields = {"version": version, "parent": version - 1, "learner": loop.config.learner, "swap": loop.training.need_learner().swap}
    publish(folder, make_manifest(weights, data, loop.spec, **fields, acts_from_train_step=acts_from), data)


class SnapshotLoop(ResumableLoop):
    """The loop; notes which weights act at the training steps in ``wanted``."""

    def __init__(self, config: RunConfig, wanted: list[int]) -> None:
        self.history: list[Any] = []
        super().__init__(config)
        self.wanted = set(wanted)
        self.due: list[tuple[int, int, int]] = []  # training step, acting version, human steps so far
        self.human_steps = 0

    def _feed(self, record_type: type[Any], /, **fields: Any) -> None:
        self.history.append(record_type(session="bench", rec_seq=self.records, **fields))
        super()._feed(record_type, **fields)
        if record_type is Step and fields["kind"] == EpisodeKind.POLICY:
            self.human_steps += fields["human_action"] is not None
            self.note(fields["train_step"] + 1)

    def note(self, steps: int) -> None:
        """If ``steps`` is wanted, remember the version that acts at it."""
        if steps in self.wanted:
            self.due.append((steps, max(v for v, acts_from in self.training.versions if acts_from <= steps), self.human_steps))

    def save(self, folder: Path, result: dict[str, Any]) -> None:
        """Everything needed to go on, between two episodes."""
        state, weights = self.state_with_weights()
        state["loop"] = {
            "train_step": self.train_step,
            "seq": self.seq,
            "human_steps": self.human_steps,
            "records": self.records,
            "weights": weights,
            "result": result,
        }
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{_RECORDS}.tmp"
        temporary.write_bytes(msgspec.msgpack.encode(self.history))  # grows only: an older checkpoint needs its beginning alone
        os.replace(temporary, folder / _RECORDS)
        save_checkpoint(folder, state)

    def load(self, folder: Path) -> dict[str, Any] | None:
        """Go on from what `save` wrote; returns the result so far, None when there is nothing. A broken checkpoint is passed over."""
        state, _ = newest_checkpoint(folder)
        if state is None:
            return None
        saved = state["loop"]
        decoder = msgspec.msgpack.Decoder(list[EpisodeStart | Step | EpisodeEnd])
        self.history = decoder.decode((folder / _RECORDS).read_bytes())[: saved["records"]]
        for record in self.history:
            self.training.replay(record)
        self.restore_weights(saved["weights"], state["tensors"])
        self.training.restore(state)
        self.train_step, self.seq, self.records = saved["train_step"], saved["seq"], saved["records"]
        self.human_steps = saved["human_steps"]
        return saved["result"]  # type: ignore[no-any-return]


def advance(
    config: RunConfig,
    wanted: list[int],
    starts: int,
    folder: Path,
    budget_s: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Run on from ``folder`` until step ``wanted[-1]`` is evaluated or ``budget_s`` of processor time is used.

    Returns the result so far; ``complete`` says whether it is whole.
    """
    began = time.process_time()
    loop = SnapshotLoop(config, wanted)
    robot = SimRobot(config.task, config.task_parameters)
    seeds = [validation_start(i) for i in range(starts)]
    result = loop.load(folder)
    if result is None:
        result = {"points": [], "episodes": [], "cpu_s": 0.0, "complete": False}
        loop.demonstrate()
        while loop.training.phase == "cloning":
            loop.training.work()
        loop.note(0)
    before, episodes = result["cpu_s"], len(result["episodes"])
    while True:
        for steps, version, human in loop.due:
            found = [o.success for o in evaluate(loop.policies[version], robot, seeds)]
            outcomes = "".join("1" if success else "0" for success in found)
            result["points"].append(
                {"steps": steps, "version": version, "human_steps": human, "n": starts, "successes": sum(found), "outcomes": outcomes}
            )
            say(f"step {steps}: {sum(found)} of {starts}")
        loop.due.clear()
        result["cpu_s"] = before + time.process_time() - began
        result["complete"] = loop.train_step >= wanted[-1]
        progressed = len(result["episodes"]) > episodes  # every call runs one episode, however small the budget
        if result["complete"] or (progressed and time.process_time() - began > budget_s):
            break
        episode = loop.episode(EpisodeKind.POLICY, len(result["episodes"]))
        result["episodes"].append({key: episode[key] for key in ("steps", "human_steps", "takeovers", "success")})
    if not result["complete"]:
        loop.save(folder, result)
    elif folder.exists():
        shutil.rmtree(folder)
    return result


def so_far(folder: Path) -> dict[str, Any] | None:
    """The result that an unfinished run has saved in ``folder``."""
    state, _ = newest_checkpoint(folder)
    return None if state is None else state["loop"]["result"]


def write(path: Path, content: dict[str, Any]) -> None:
    """Under its final name only when whole."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content))
    os.replace(temporary, path)
