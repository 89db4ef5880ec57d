"""What it costs a learner to start again, by how much was ever recorded: processor time, memory, and how many episode files are read.

Stores of several sizes are written through the real recorder, and a `LearnerRun` with a small ring takes in their stream and leaves a
checkpoint. Then a process of its own goes on from it, once as it does and once reading everything that was recorded; both must be the
same to the bit. After their first tenth, policies are helped in every tenth episode (--helped 1: in every one), 10 of its 100 steps: what
people drove fills a ring of its own, and more slowly.

    python -m benchmarks.restart [--steps 3000 12000 48000] [--ring 4000] [--helped 10] [--out docs/results/restart.txt]

Prints JSON. ``ratios`` compare what was measured in this run: the largest store with the smallest one, and everything with what is held.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
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
from takeover.policies.learner_run import LearnerRun
from takeover.policies.torch_setup import configure
from takeover.robot_bridge.robots.sim import SimRobot
from tests.policies.conftest import Script

EPISODE = 100  # steps
HUMAN = 10  # of these, in an episode with help
COPIES = 8  # different episodes, recorded in turn
P, H = ControlMode.POLICY, ControlMode.HUMAN


def config_of(folder: Path, ring: int) -> RunConfig:
    """A learner that clones a little and makes no updates: they are not what is measured."""
    parameters: dict[str, Any] = {"clone_updates": 10, "critic_warmup": 2, "learning_starts": 1_000_000, "replay_capacity": ring}
    fields = {"session_id": "bench", "workspace": str(folder), "sockets": "", "task": "peg-insert", "clock": "lockstep"}
    return RunConfig(**fields, demonstrations=1, learner_parameters=parameters)


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


def record(folder: Path, steps: int, ring: int, helped: int) -> None:
    """A demonstration, ``steps`` steps of policy episodes, and a checkpoint of a learner that has ingested them."""
    run, recorder = LearnerRun(config_of(folder, ring)), Recorder(Workspace(folder))
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


def restart(folder: Path, ring: int, everything: bool) -> dict[str, Any]:
    """In this process: go on from the checkpoint; costs beyond those of the process itself."""
    if everything:
        _forget_what_is_held()
    read = _counted()
    run, process = LearnerRun(config_of(folder, ring)), psutil.Process()
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
    for ring in (learner.replay.demonstrations, learner.replay.online):
        n = ring.size
        for values in (ring.rows[:n].numpy(), ring.episode[:n], ring.step[:n], ring.correction[:n].numpy()):
            hashed.update(np.ascontiguousarray(values).tobytes())
    counters = {name: state["values"][name] for name in ("updates", "steps", "help_share")}
    hashed.update(json.dumps(counters | {"cursors": run.cursors}, sort_keys=True).encode())
    return hashed.hexdigest()


def measured(folder: Path, ring: int, everything: bool) -> dict[str, Any]:
    """`restart` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.restart", "--measure", str(folder), "--ring", str(ring)]
    done = subprocess.run([*command, *(["--everything"] if everything else [])], check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def compared(sizes: dict[str, dict[str, Any]]) -> dict[str, float]:
    """The largest store against the smallest, as it is and reading everything; and both ways on the largest."""
    first, last = (sizes[name] for name in (min(sizes, key=int), max(sizes, key=int)))
    ratios = {}
    for what in ("cpu_s", "peak_grew_mb", "files_read"):
        for way in ("held", "everything"):
            ratios[f"{what}, {way}: largest store / smallest"] = round(last[way][what] / max(first[way][what], 1e-3), 2)
        ratios[f"{what}, largest store: everything / held"] = round(last["everything"][what] / max(last["held"][what], 1e-3), 2)
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[3000, 12_000, 48_000], help="recorded steps of each store")
    parser.add_argument("--ring", type=int, default=4000, help="rows of each ring")
    parser.add_argument("--helped", type=int, default=10, help="one in so many episodes after the first tenth")
    parser.add_argument("--out", default="", help="a file to add the result to")
    parser.add_argument("--measure", default="", help=argparse.SUPPRESS)
    parser.add_argument("--everything", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    configure(1)
    if arguments.measure:
        print(json.dumps(restart(Path(arguments.measure), arguments.ring, arguments.everything)))
        return 0
    sizes: dict[str, dict[str, Any]] = {}
    for size in arguments.steps:
        with tempfile.TemporaryDirectory(prefix="tk-") as name:
            record(Path(name), size, arguments.ring, arguments.helped)
            found = {way: measured(Path(name), arguments.ring, way == "everything") for way in ("everything", "held")}
        same = found["everything"].pop("state") == found["held"].pop("state")
        sizes[str(size)] = found | {"same_bits": same}
        print(f"{size} steps: {json.dumps(found)}", file=sys.stderr)
    problems = [f"{size} steps: not the same bits" for size, found in sizes.items() if not found["same_bits"]]
    command = (
        f"python -m benchmarks.restart --steps {' '.join(map(str, arguments.steps))} --ring {arguments.ring} --helped {arguments.helped}"
    )
    head = {"command": command, "commit": commit(), "machine": machine()}
    text = json.dumps(head | {"recorded steps": sizes, "ratios": compared(sizes), "problems": problems}, indent=1)
    print(text)
    if arguments.out:
        with Path(arguments.out).open("a") as file:
            file.write(text + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
