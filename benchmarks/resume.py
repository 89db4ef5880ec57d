"""Exact resume: the learner process killed at random moments, lockstep, and compared bit for bit with one that nobody disturbed.

The real process learns from a real recorder's stream, and gets SIGKILL (seeded) while it starts and ingests again, while it learns, and at
the moment a checkpoint is being written; records go on being committed while nobody listens. After each kill the newest whole checkpoint
must load, and no file may be half under its final name. At the end weights, targets, optimisers, counters, random state, what was
ingested, label cursors and every published version must be the same to the bit, and the event files must go on where they were.

    python -m benchmarks.resume [--kills 30] [--seed 0] [--learners hil-serl sirius] [--out docs/results/resume.txt]
"""

import argparse
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.result_text import write_problems
from takeover.data.schema import LearnerStatus
from takeover.policies.checkpoint import newest_checkpoint, save_checkpoint
from takeover.policies.event_files import read_scalars
from takeover.policies.publish import load_policy, published_versions, read_manifest, version_folder
from takeover.policies.registry import make_learner
from takeover.policies.torch_setup import configure
from takeover.robot_bridge.robots.sim import SimRobot
from tests.policies.conftest import Script, make_spec
from tests.policies.test_learner_process import FAST, Station, demonstrations, episode

MOMENTS = ("learning", "writing a checkpoint", "learning", "starting")
SETTINGS: dict[str, dict[str, Any]] = {
    "hil-serl": FAST,
    "sirius": {"updates_per_step": 1, "clone_updates": 60, "learning_starts": 5, "hidden": 16, "batch": 32},
}
STEPS = 30  # of an episode


class Run:
    """A learner process, and the stream it is fed."""

    def __init__(self, folder: Path, learner: str, episodes: int) -> None:
        sockets = folder / "s"
        self.station = Station(
            folder / "w",
            sockets,
            learner=learner,
            learner_parameters=SETTINGS[learner],
            checkpoint_every_updates=7,
            publish_every_updates=25,
        )
        script = Script(make_spec())
        rng = np.random.default_rng(7)
        self.records = demonstrations(script) + [record for _ in range(episodes) for record in episode(script, rng, STEPS)]
        self.records.pop()  # a step is last: the status says when it was learned from
        self.last_step = episodes * STEPS - 1
        self.sent = 0
        self.folder = folder / "w" / "learner" / f"reach-{learner}"

    def feed(self, count: int, heard: bool = True) -> None:
        for record in self.records[self.sent : self.sent + count]:
            self.station.commit([record], announce=heard)
        self.sent = min(self.sent + count, len(self.records))

    def wait_for(self, done: Callable[[LearnerStatus], bool], timeout_s: float = 60.0) -> LearnerStatus:
        """The first status with which it is; what was missed is announced again, as a recorder does."""

        def look() -> LearnerStatus | None:
            self.station.publisher.send(self.station.recorder.position())
            status = self.station.statuses.receive(0.05)
            return status if status is not None and done(status) else None

        found: LearnerStatus = self.station.until(look, timeout_s)
        return found

    def sees_writing(self, for_s: float) -> bool:
        """Whether a checkpoint is being written now; looks all the time."""
        deadline = time.monotonic() + for_s
        while time.monotonic() < deadline:
            if self.writing():
                return True
        return False

    def writing(self) -> bool:
        """Whether there is a checkpoint that is not in place yet."""
        return self.folder.is_dir() and any(entry.name.endswith(".tmp") for entry in os.scandir(self.folder))

    def kill(self) -> None:
        process = self.station.process
        assert process is not None
        process.kill()
        process.wait(10.0)

    def finish(self) -> dict[str, Any]:
        """Feed the rest, end the learner as a launcher does; its last state."""
        self.feed(len(self.records))
        self.wait_for(lambda status: status.finished_train_step == self.last_step)
        if status := self.station.stop_learner(signal.SIGTERM):
            raise RuntimeError(f"the learner ended with {status}")
        state, problems = newest_checkpoint(self.folder)
        assert state is not None, problems
        return state


def half_written(run: Run) -> list[str]:
    """Checkpoints and policies under their final names that are not whole, after a kill."""
    _, problems = newest_checkpoint(run.folder)
    workspace = run.station.config.workspace
    for version in published_versions(workspace):
        try:
            load_policy(version_folder(workspace, version), make_spec())
        except ValueError as error:
            problems.append(str(error))
    return problems


def kill_once(run: Run, moment: str, rng: random.Random) -> None:
    if moment == "starting":
        run.station.launch_learner()
        time.sleep(rng.uniform(0.0, 2.5))
    elif moment == "learning":
        run.station.start_learner()
        run.feed(rng.randrange(4, 24))
        time.sleep(rng.uniform(0.0, 0.2))
    else:
        run.station.start_learner()
        for _ in range(4):  # a checkpoint is due after every seven updates
            run.feed(8)
            if run.sees_writing(0.5):
                break
        time.sleep(rng.uniform(0.0, 0.003))
    run.kill()


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What is not the same to the bit in two states."""
    tensors = expected["tensors"].keys() | found["tensors"].keys()
    wrong = [
        name
        for name in sorted(tensors)
        if name not in expected["tensors"]
        or name not in found["tensors"]
        or not torch.equal(expected["tensors"][name], found["tensors"][name])
    ]
    return wrong + [key for key in ("values", "run", "cursors", "labels") if expected[key] != found[key]]


def compare(folder: Path, learner: str, kills: int, rng: random.Random, say: Callable[[str], None]) -> list[str]:
    """Problems found with ``kills`` kills of ``learner``."""
    episodes = 2 + kills * 2 // 3
    plain, disturbed = Run(folder / "plain", learner, episodes), Run(folder / "killed", learner, episodes)
    problems: list[str] = []
    moments: Counter[str] = Counter()
    torn = 0
    try:
        plain.station.start_learner()
        expected = plain.finish()
        disturbed.feed(len(demonstrations(Script(make_spec()))))
        for number in range(kills):
            moment = MOMENTS[number % len(MOMENTS)]
            kill_once(disturbed, moment, rng)
            moments[moment] += 1
            torn += disturbed.writing()
            problems += [f"kill {number} ({moment}): {problem}" for problem in half_written(disturbed)]
            disturbed.feed(rng.randrange(6), heard=False)
        disturbed.station.start_learner()
        found = disturbed.finish()
        problems += [f"not the same at the end: {name}" for name in differences(expected, found)]
        hashes = [
            [
                read_manifest(version_folder(run.station.config.workspace, version)).sha256
                for version in published_versions(run.station.config.workspace)
            ]
            for run in (plain, disturbed)
        ]
        if hashes[0] != hashes[1]:
            problems.append(f"published {len(hashes[1])} versions, undisturbed {len(hashes[0])}; or their weights differ")
        steps = [step for step, _ in read_scalars(disturbed.folder / "tb")]
        if not steps or steps != sorted(set(steps)):
            problems.append(f"the event files go back: {steps}")
    finally:
        plain.station.close()
        disturbed.station.close()
    kinds = ", ".join(f"{count} while {moment}" for moment, count in sorted(moments.items()))
    say(
        f"{learner}: {kills} kills ({kinds}; {torn} left a checkpoint half-written under its temporary name), "
        f"{expected['values']['updates']} updates,\n  {len(hashes[0])} versions and {len(expected['tensors'])} tensors compared: "
        f"{len(problems)} problems"
    )
    return problems


def pause(folder: Path, say: Callable[[str], None]) -> None:
    """How long learning waits for a checkpoint at default size, and how long the writing takes that it does not wait for."""
    configure()
    learner = make_learner("hil-serl", SimRobot("peg-insert").spec, 0)
    copying, writing = [], []
    for _ in range(20):
        began = time.perf_counter()
        state = learner.state() | {"run": {}, "cursors": {}, "labels": {}}
        copying.append(1000.0 * (time.perf_counter() - began))
        save_checkpoint(folder, state)
        writing.append(1000.0 * (time.perf_counter() - began) - copying[-1])
    size = sum(tensor.numel() * tensor.element_size() for tensor in state["tensors"].values())
    say(
        f"checkpoint of hil-serl on peg-insert, {size / 1e6:.1f} MB: learning waits {np.median(copying):.1f} ms (longest of 20: "
        f"{max(copying):.1f}), a thread then writes for {np.median(writing):.0f} ms (longest: {max(writing):.0f})"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="of each learner")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learners", nargs="*", default=["hil-serl", "sirius"], choices=sorted(SETTINGS))
    parser.add_argument("--out", default="docs/results/resume.txt")
    arguments = parser.parse_args()
    lines, problems = list[str](), list[str]()

    def say(text: str) -> None:
        print(text, flush=True)
        lines.append(text)

    began = time.monotonic()
    for learner in arguments.learners:
        with tempfile.TemporaryDirectory(prefix="tk-") as name:
            problems += compare(Path(name), learner, arguments.kills, random.Random(arguments.seed), say)
    with tempfile.TemporaryDirectory(prefix="tk-") as name:
        pause(Path(name), say)
    command = f"python -m benchmarks.resume --kills {arguments.kills} --seed {arguments.seed} --learners {' '.join(arguments.learners)}"
    return write_problems(Path(arguments.out), command, lines, problems, time.monotonic() - began)


if __name__ == "__main__":
    raise SystemExit(main())
