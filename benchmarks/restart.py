"""What it costs a learner to start again, by how much was ever recorded: processor time, memory, and how many episode files are read.

Stores of several sizes are written through the real recorder, and a `LearnerRun` with a small ring takes in their stream and leaves a
checkpoint. Then a process of its own goes on from it, once as it does and once reading everything that was recorded; both must be the
same to the bit. After their first tenth, policies are helped in every tenth episode (--helped 1: in every one), 10 of its 100 steps: what
people drove fills a ring of its own, and more slowly. An imitation learner (--learner sirius) holds everything there is: it goes on once as
it does, with policy episodes in blocks, and once step by step.

    python -m benchmarks.restart [--steps 3000 12000 48000] [--ring 4000] [--helped 10] [--learner sirius] [--out docs/results/restart.txt]

Prints JSON. ``ratios`` compare what was measured in this run: the largest store with the smallest one, and one way with the other.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.result_text import commit, machine
from takeover.data import store
from takeover.data.recorder import Recorder
from takeover.data.schema import ControlMode, EpisodeKind, RunConfig
from takeover.data.workspace import Workspace
from takeover.policies import learner_run
from takeover.policies.checkpoint import newest_checkpoint
from takeover.policies.class_weights import StepClass
from takeover.policies.imitation_ingestion import ImitationIngestion
from takeover.policies.imitation_table import Table
from takeover.policies.learner_run import LearnerRun
from takeover.policies.replay import CorrectionReplay
from takeover.policies.torch_setup import configure
from takeover.robot_bridge.robots.sim import SimRobot
from tests.policies.conftest import Script

EPISODE = 100  # steps
HUMAN = 10  # of these, in an episode with help
COPIES = 8  # different episodes, recorded in turn
P, H = ControlMode.POLICY, ControlMode.HUMAN
RINGS, IMITATION = ("everything", "held"), ("step by step", "blocks")  # the ways to start again, the learner's own last


def ways_of(learner: str) -> tuple[str, str]:
    return RINGS if learner == "hil-serl" else IMITATION


def config_of(folder: Path, ring: int, learner: str) -> RunConfig:
    """A learner that clones a little and makes no updates: they are not what is measured."""
    parameters: dict[str, Any] = {"clone_updates": 10, "learning_starts": 1_000_000}
    if learner == "hil-serl":
        parameters |= {"critic_warmup": 2, "replay_capacity": ring}
    fields = {"session_id": "bench", "workspace": str(folder), "sockets": "", "task": "peg-insert", "clock": "lockstep"}
    return RunConfig(**fields, demonstrations=1, learner=learner, learner_parameters=parameters)


def numbers(count: int) -> list[list[dict[str, Any]]]:
    """Observations and actions of ``count`` episodes. The gripper is told to close, or to open, or neither, at random."""
    spec, rng = SimRobot("peg-insert").spec, np.random.default_rng(0)
    made = []
    for _ in range(count):
        seen = rng.normal(size=(EPISODE + 1, spec.observation.size))
        actions = rng.uniform(-1.0, 1.0, (EPISODE, spec.action.size))
        made.append(
            [
                {"observation": seen[i].tolist(), "next_observation": seen[i + 1].tolist(), "action": actions[i].tolist()}
                for i in range(EPISODE)
            ]
        )
    return made


def record(folder: Path, steps: int, ring: int, helped: int, learner: str) -> None:
    """A demonstration, ``steps`` steps of policy episodes, and a checkpoint of a learner that has ingested them."""
    run, recorder = LearnerRun(config_of(folder, ring, learner)), Recorder(Workspace(folder))
    script, episodes = Script(SimRobot("peg-insert").spec), numbers(COPIES)
    count = steps // EPISODE
    for number in range(-1, count):
        kind = EpisodeKind.POLICY if number >= 0 else EpisodeKind.DEMONSTRATION
        help_it = number < count // 10 or number % helped == 0
        driven = range(EPISODE) if number < 0 else range(40, 40 + HUMAN * help_it)
        modes = [H if i in driven else P for i in range(EPISODE)]
        records = [script.start(kind), *(script.step(mode, **n) for mode, n in zip(modes, episodes[number % COPIES], strict=True))]
        for one in (*records, script.end()):
            recorder.accept(one)
        message = recorder.sync().committed
        if message is None:
            raise RuntimeError("nothing was committed")
        for _ in run.committed(message):
            pass
        while recorder.pending > 4:
            time.sleep(0.001)
    recorder.close()
    run.checkpoint(wait=True)
    run.close()


def restart(folder: Path, ring: int, learner: str, way: str) -> dict[str, Any]:
    """In this process: go on from the checkpoint; costs beyond those of the process itself."""
    if way == "everything":
        _forget_what_is_held()
    elif way == "step by step":
        ImitationIngestion.takes_blocks = property(lambda self: False)  # type: ignore[method-assign, assignment]
    read = _counted()
    run, process = LearnerRun(config_of(folder, ring, learner)), psutil.Process()
    before, began = process.memory_info().rss, time.process_time()
    run.resume()
    took_s = time.process_time() - began
    after, peak = process.memory_info().rss, _peak_bytes()
    found = {
        "cpu_s": round(took_s, 3),
        "files_read": len(read),
        "grew_mb": round((after - before) / 1e6, 1),
        "peak_grew_mb": round((peak - before) / 1e6, 1),
        "state": _digest(run),
    }
    run.close()
    return found


def _peak_bytes() -> int:
    """Most memory this process had; ``ru_maxrss`` would also count its parent's before it began."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def _forget_what_is_held() -> None:
    """Have checkpoints read as those of a version that did not say which episodes they need."""
    from takeover.policies.rebuild import for_everything

    def newest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
        state, problems = newest_checkpoint(folder)
        return (None if state is None else for_everything(state)), problems

    learner_run.newest_checkpoint = newest  # type: ignore[attr-defined]


def _counted() -> list[Path]:
    """Every episode file that is read from now on."""
    read: list[Path] = []
    for name in ("read_records", "read_block"):
        inner = getattr(store, name, None)
        if inner is not None:
            setattr(store, name, lambda path, *rest, _inner=inner, **options: read.append(path) or _inner(path, *rest, **options))
    return read


def _digest(run: LearnerRun) -> str:
    """Of everything that is learned from and with."""
    learner: Any = run.training.learner
    hashed = hashlib.sha256()
    state = learner.state()
    for name, tensor in sorted(state["tensors"].items()):
        if not name.startswith("replay."):
            hashed.update(tensor.contiguous().numpy().tobytes())
    for values in _of_rings(learner.replay) if hasattr(learner, "replay") else _of_table(learner._steps()):
        hashed.update(np.ascontiguousarray(values).tobytes())
    counters = {name: state["values"].get(name) for name in ("updates", "steps", "help_share", "unused_corrections")}
    hashed.update(json.dumps(counters | {"cursors": run.cursors}, sort_keys=True).encode())
    return hashed.hexdigest()


def _of_rings(replay: CorrectionReplay) -> Iterator[np.ndarray]:
    for ring in (replay.demonstrations, replay.online):
        n = ring.size
        yield from (ring.rows[:n].numpy(), ring.episode[:n], ring.step[:n], ring.correction[:n].numpy())


def _of_table(table: Table) -> Iterator[np.ndarray]:
    columns = (table.observations, table.actions, table.corrections, table.gripper)
    yield from (values.numpy() for values in (*columns, *(table.members(c) for c in StepClass)))


def measured(folder: Path, ring: int, learner: str, way: str) -> dict[str, Any]:
    """`restart` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.restart", "--measure", str(folder), "--ring", str(ring), "--learner", learner]
    done = subprocess.run([*command, "--way", way], check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def compared(sizes: dict[str, dict[str, Any]], ways: tuple[str, str]) -> dict[str, float]:
    """The largest store against the smallest, both ways; and one way against the learner's own on the largest."""
    first, last = (sizes[name] for name in (min(sizes, key=int), max(sizes, key=int)))
    other, own = ways
    ratios = {}
    for what in ("cpu_s", "peak_grew_mb", "files_read"):
        for way in (own, other):
            ratios[f"{what}, {way}: largest store / smallest"] = round(last[way][what] / max(first[way][what], 1e-3), 2)
        ratios[f"{what}, largest store: {other} / {own}"] = round(last[other][what] / max(last[own][what], 1e-3), 2)
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[3000, 12_000, 48_000], help="recorded steps of each store")
    parser.add_argument("--ring", type=int, default=4000, help="rows of each ring")
    parser.add_argument("--helped", type=int, default=10, help="one in so many episodes after the first tenth")
    parser.add_argument("--learner", default="hil-serl", help="hil-serl, or an imitation learner, of which --ring says nothing")
    parser.add_argument("--out", default="", help="a file to add the result to")
    parser.add_argument("--measure", default="", help=argparse.SUPPRESS)
    parser.add_argument("--way", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    configure(1)
    if arguments.measure:
        print(json.dumps(restart(Path(arguments.measure), arguments.ring, arguments.learner, arguments.way)))
        return 0
    ways = ways_of(arguments.learner)
    sizes: dict[str, dict[str, Any]] = {}
    for size in arguments.steps:
        with tempfile.TemporaryDirectory(prefix="tk-") as name:
            record(Path(name), size, arguments.ring, arguments.helped, arguments.learner)
            found = {way: measured(Path(name), arguments.ring, arguments.learner, way) for way in ways}
        same = len({found[way].pop("state") for way in ways}) == 1
        sizes[str(size)] = found | {"same_bits": same}
        print(f"{size} steps: {json.dumps(found)}", file=sys.stderr)
    problems = [f"{size} steps: not the same bits" for size, found in sizes.items() if not found["same_bits"]]
    command = (
        f"python -m benchmarks.restart --steps {' '.join(map(str, arguments.steps))} --ring {arguments.ring} --helped {arguments.helped}"
    )
    command += "" if arguments.learner == "hil-serl" else f" --learner {arguments.learner}"
    head = {"command": command, "commit": commit(), "machine": machine()}
    text = json.dumps(head | {"recorded steps": sizes, "ratios": compared(sizes, ways), "problems": problems}, indent=1)
    print(text)
    if arguments.out:
        with Path(arguments.out).open("a") as file:
            file.write(text + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
