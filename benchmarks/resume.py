"""Exact resume: the learner process killed at random moments, lockstep, and compared bit for bit with one that nobody disturbed.

The real process learns from a real recorder's stream, and gets SIGKILL (seeded) while it starts and ingests again, while it clones, while
it learns, and at the moment a checkpoint is being written; records go on being committed while nobody listens. After each kill the newest
whole checkpoint must load, and no file may be half under its final name. At the end weights, targets, optimisers, counters, random state,
what was ingested, label cursors, which update used which label first and every published version must be the same to the bit, and the
event files must go on where they were. Each arm (`benchmarks.resume_arms`) also says how often what it is about has happened, and at no
time is a problem.

    python -m benchmarks.resume [--kills 30] [--seed 0] [--jobs 2] [--arms plain rlif labels ...] [--out docs/results/resume.txt]
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.result_text import write_problems
from benchmarks.resume_arms import ARMS, Arm, give_labels
from benchmarks.resume_run import CLONING, MOMENTS, Run
from takeover.data.schema import EpisodeKind
from takeover.policies.checkpoint import save_checkpoint
from takeover.policies.event_files import read_scalars
from takeover.policies.registry import make_learner
from takeover.policies.torch_setup import configure
from takeover.robot_bridge.robots.sim import SimRobot

State = dict[str, Any]


def undisturbed(run: Run) -> State:
    """Its last state."""
    for stop in range(len(run.parts)):
        run.station.start_learner()
        _finish(run, stop)
    return run.last_state()


def disturbed(run: Run, arm: Arm, kills: int, rng: random.Random) -> tuple[State, list[str]]:
    """The last state after ``kills`` kills, and the problems found after each; parts share the kills, but for a short last one."""
    problems: list[str] = []
    shared = max(1, len(run.parts) - 1)
    moments = iter([*[CLONING] * min(arm.cloning, kills), *(MOMENTS[i % len(MOMENTS)] for i in range(max(0, kills - arm.cloning)))])
    for stop in range(len(run.parts)):
        if stop == 0 and not arm.cloning:
            run.feed(_until_cloning(run))
        if stop == 0 and arm.warm:
            run.station.start_learner()
            run.feed(arm.warm, at_once=True)
            run.learned()
            run.kill()
        for number in range(kills * stop // shared, min(kills, kills * (stop + 1) // shared)):
            moment = next(moments)
            run.kill_once(moment, rng)
            problems += [f"kill {number} ({moment}): {problem}" for problem in run.half_written()]
            run.feed(rng.randrange(6), heard=False)
        run.station.start_learner()
        _finish(run, stop)
    return run.last_state(), problems


def _until_cloning(run: Run) -> int:
    """Records up to the end of the last demonstration."""
    return next(i for i, record in enumerate(run.records) if getattr(record, "kind", "") == EpisodeKind.POLICY)


def _finish(run: Run, stop: int) -> None:
    run.finish_part()
    if stop < len(run.parts) - 1:
        give_labels(run, stop)


def differences(expected: State, found: State) -> list[str]:
    """What is not the same to the bit in two states."""
    tensors = expected["tensors"].keys() | found["tensors"].keys()
    wrong = [
        name
        for name in sorted(tensors)
        if name not in expected["tensors"]
        or name not in found["tensors"]
        or not torch.equal(expected["tensors"][name], found["tensors"][name])
    ]
    for key in ("values", "run", "cursors", "labels"):
        if expected[key] != found[key]:
            names = [name for name in expected[key] | found[key] if expected[key].get(name) != found[key].get(name)]
            wrong.append(f"{key} ({', '.join(names)})")
    return wrong


def compare(folder: Path, name: str, kills: int, rng: random.Random, say: Callable[[str], None]) -> list[str]:
    """Problems found with ``kills`` kills in arm ``name``."""
    arm = ARMS[name]
    plain, killed = (Run(folder / which, arm.learner, arm.stream(kills), arm.settings, **arm.config) for which in ("plain", "killed"))
    try:
        expected = undisturbed(plain)
        found, problems = disturbed(killed, arm, kills, rng)
        problems += [f"not the same at the end: {one}" for one in differences(expected, found)]
        versions = [run.versions() for run in (plain, killed)]
        if versions[0] != versions[1]:
            problems.append(f"published {len(versions[1])} versions, undisturbed {len(versions[0])}; or their weights differ")
        if plain.label_uses() != killed.label_uses():
            problems.append(f"labels were first used at {killed.label_uses()}, undisturbed at {plain.label_uses()}")
        steps = [[step for step, _ in read_scalars(run.folder / "tb")] for run in (plain, killed)]
        if steps[0] != steps[1] or steps[1] != sorted(set(steps[1])):
            problems.append(f"the event files are not the same, or go back: {steps[1]}, undisturbed {steps[0]}")
        again = killed.again()
        try:
            seen = arm.seen(killed, again.training.learner)
        finally:
            again.close()
    finally:
        plain.station.close()
        killed.station.close()
    problems += [f"did not happen: {what}" for count, what in seen if count <= 0]
    kinds = ", ".join(f"{count} while {moment}" for moment, count in sorted(killed.moments.items()))
    say(
        f"{name}: {arm.about}\n  {kills} kills ({kinds}; {killed.torn} left a checkpoint half-written under its temporary name), "
        f"{expected['values']['updates']} updates,\n  {len(versions[0])} versions and {len(expected['tensors'])} tensors compared: "
        f"{len(problems)} problems\n  {', '.join(f'{count:,} {what}' for count, what in seen)}"
    )
    return [f"{name}: {problem}" for problem in problems]


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


def run_arm(name: str, kills: int, seed: int) -> tuple[str, list[str]]:
    """What an arm came to, in words, and its problems."""
    said: list[str] = []
    with tempfile.TemporaryDirectory(prefix="tk-") as folder:
        try:
            problems = compare(Path(folder), name, kills, random.Random(seed), said.append)
        except (AssertionError, OSError, RuntimeError, ValueError) as error:  # the other arms go on
            problems = [f"{name}: {type(error).__name__}: {error}"]
    return "\n".join(said), problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="in each arm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="arms at a time")
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--out", default="docs/results/resume.txt")
    arguments = parser.parse_args()
    lines, problems = list[str](), list[str]()

    def say(text: str) -> None:
        print(text, flush=True)
        lines.append(text)

    began = time.monotonic()
    with ThreadPoolExecutor(arguments.jobs) as pool:  # what takes time are other processes
        for text, found in pool.map(lambda arm: run_arm(arm, arguments.kills, arguments.seed), arguments.arms):
            say(text)
            problems += found
    with tempfile.TemporaryDirectory(prefix="tk-") as folder:
        pause(Path(folder), say)
    settings = f"--kills {arguments.kills} --seed {arguments.seed} --jobs {arguments.jobs}"
    command = f"python -m benchmarks.resume {settings} --arms {' '.join(arguments.arms)}"
    return write_problems(Path(arguments.out), command, lines, problems, time.monotonic() - began)


if __name__ == "__main__":
    raise SystemExit(main())
