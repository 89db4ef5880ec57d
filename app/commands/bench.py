"""`takeover bench`: the benchmarks of a checkout, by name."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from takeover.app.processes.common import StartupError

ROOT = Path(__file__).resolve().parents[2]
NAMES = {
    "control": "lateness, age of commands, STOP, hop by hop, against a plain Python process",
    "chunks": "an actor that takes 300 ms for 50 actions, against one that answers every step",
    "store": "the recorder under two cameras at 30 Hz and 100 Hz state, and its parts against plain h5py",
    "realtime": "the whole station in real time: pictures, corrections to the policy, CPU",
    "catalog_scale": "the catalog's pages with 100,000 episodes and a million segments",
    "expert": "the scripted expert on every task",
    "learner": "an update against its matrix products alone, batches of pictures, bytes per transition, publishing",
    "sample-efficiency": "learners x operators x tasks x seeds: success against human steps, environment steps, wall time",
    "operators": "how well each scripted operator demonstrates the tasks",
    "inprocess_loop": "learner settings over many seeds, without processes",
}


@dataclass(frozen=True)
class Bench:
    """Run a benchmark: `takeover bench NAME [options]`, `takeover bench` lists them. They print JSON."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = ""


def bench(arguments: Sequence[str]) -> int:
    """What follows ``takeover bench``; the benchmark's own options are its own business."""
    name = arguments[0] if arguments else ""
    if not name or name in ("-h", "--help"):
        width = max(map(len, NAMES))
        print("\n".join(f"  {known:<{width}}  {text}" for known, text in NAMES.items()))
        return 0
    if name not in NAMES:
        raise StartupError(f"unknown benchmark {name!r}; known: {', '.join(NAMES)}")
    module = name.replace("-", "_")
    if not (ROOT / "benchmarks" / f"{module}.py").is_file():
        raise StartupError("benchmarks come with a checkout of the repository, not with an installed package")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))}
    process = subprocess.Popen([sys.executable, "-m", f"benchmarks.{module}", *arguments[1:]], env=environment)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # it got Ctrl+C too, and ends in its own way
            continue
