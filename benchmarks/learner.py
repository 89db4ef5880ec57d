"""What a hil-serl update costs beside its matrix products, what batches cost, with pictures too, and what publishing costs. One thread.

The robot's sizes are pick-lift's (with a gripper critic); the transitions are made up, times do not depend on them. Updates and products
take turns in the same run, and are measured in CPU time of the thread (on a quiet machine the same as wall time), since a loaded machine
slows both; on a GPU in wall time, after what was started there is done. Publishing is measured in wall time. Prints JSON.

    takeover bench learner [--hidden 256 128] [--rounds 200] [--pictures 40] [--set device=cpu written_gradients=false] [--out FILE]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.learner_clock import Clock, clock_of
from benchmarks.learner_pictures import picture_figures
from benchmarks.learner_products import measure, update_products
from benchmarks.learner_steps import steps_of
from benchmarks.result_text import commit, machine
from takeover.data.schema import EpisodeKind, RobotSpec
from takeover.policies.device import device_name
from takeover.policies.hil_serl import HilSerlLearner
from takeover.policies.publish import make_manifest, publish, weights_bytes
from takeover.policies.torch_setup import configure
from takeover.policies.warm_start import updates_to_wait
from takeover.robot_bridge.robots.sim import SimRobot

BLOCKS = 8  # updates and products take turns this often
DEMONSTRATIONS, EPISODES = 20, 40


def filled_learner(spec: RobotSpec, **parameters: Any) -> HilSerlLearner:
    """A learner that has cloned made-up demonstrations and seen made-up episodes."""
    learner = HilSerlLearner.make(spec, 0, {"clone_updates": 20, "critic_warmup": 20, **parameters})
    random = np.random.default_rng(0)
    for kind, count in ((EpisodeKind.DEMONSTRATION, DEMONSTRATIONS), (EpisodeKind.POLICY, EPISODES)):
        for number in range(count):
            start, steps, end = steps_of(spec, kind, number, random)
            learner.begin_episode(start)
            learner.ingest(steps)
            learner.end_episode(end)
    for _ in learner.clone_demonstrations():
        pass
    return learner


def timed(learner: HilSerlLearner, names: list[str], clock: Clock) -> dict[str, float]:
    """Puts a clock around these methods; seconds each took so far."""
    spent = dict.fromkeys(names, 0.0)

    def clocked(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            started = clock()
            try:
                return method(*arguments, **named)
            finally:
                spent[name] += clock() - started

        return call

    for name in names:
        setattr(learner, name, clocked(name, getattr(learner, name)))
    return spent


def one_update(hidden: int, critic_updates: int, rounds: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Time of a full update of this size and of its products, in turns. ``settings``: the learner's others."""
    spec = SimRobot("pick-lift").spec
    learner = filled_learner(spec, **{"hidden": hidden, "critic_updates": critic_updates, **settings})
    batch, clock = learner.parameters.batch, clock_of(learner.device)
    arm = spec.action.size - 1
    products = update_products(
        batch, spec.observation.size, arm, hidden, gripper=True, ensemble=learner.parameters.ensemble, critic_updates=critic_updates
    )
    # as after the first steps, which the critics learn alone: a full update has the actor's, with the pull to its clone
    learner.updates += updates_to_wait(learner.parameters, learner.updates)
    for _ in range(20):
        learner.update()
    updates, fastest, plain = [], [], []
    for _ in range(BLOCKS):
        times = []
        for _ in range(max(1, rounds // BLOCKS)):
            started = clock()
            learner.update()
            times.append(clock() - started)
        updates.append(float(np.median(times)) * 1e3)
        found = measure(products, max(1, rounds // BLOCKS), learner.device)
        fastest.append(found["fastest_ms"])
        plain.append(found["plain_ms"])
    spent = timed(learner, ["_batch", "_propose", "_critic_update", "_actor_update"], clock)
    started = clock()
    for _ in range(rounds):
        learner.update()
    total = clock() - started
    inside = spent["_propose"] + spent["_critic_update"] + spent["_actor_update"]
    return {
        "device": device_name(learner.device),
        "gradients": type(learner._gradients).__name__,
        "hidden": hidden,
        "batch": batch,
        "critic_updates": critic_updates,
        "update_ms": round(float(np.median(updates)), 3),
        "products_ms": round(float(np.median(fastest)), 3),
        "products_by_bmm_ms": round(float(np.median(plain)), 3),
        "ratio": round(float(np.median(np.divide(updates, fastest))), 2),
        "ratio_to_bmm": round(float(np.median(np.divide(updates, plain))), 2),
        "actor_share": round(spent["_actor_update"] / total, 3),
        "outside_forward_backward_optimiser": round(1.0 - inside / total, 4),
        "sampling_ms": round(spent["_batch"] / rounds / (critic_updates + 1) * 1e3, 4),
        "bytes_per_transition": learner.replay.columns.width * 4,
        "publication": publication(learner),
    }


def publication(learner: HilSerlLearner) -> dict[str, float]:
    """Size of the acting weights, and the time to make and write (flushed) them."""
    made, written, size = [], [], 0
    with tempfile.TemporaryDirectory(prefix="takeover-bench-") as folder:
        for version in range(1, 21):
            started = time.perf_counter()
            weights = learner.weights()
            content = weights_bytes(weights)
            manifest = make_manifest(weights, content, learner.spec, version=version, parent=version - 1, learner=learner.name, swap="step")
            made.append(time.perf_counter() - started)
            publish(folder, manifest, content)
            written.append(time.perf_counter() - started)
            size = len(content)
    return {"bytes": size, "make_ms": round(float(np.median(made)) * 1e3, 3), "to_disk_ms": round(float(np.median(written)) * 1e3, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 128], help="units of each of the two layers")
    parser.add_argument("--rounds", type=int, default=200, help="updates measured for each size")
    parser.add_argument("--pictures", type=int, default=40, metavar="N", help="batches of pictures that are measured (0: none)")
    parser.add_argument("--picture-episodes", type=int, default=40, metavar="N", help="how many episodes the replay with pictures holds")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the learner, in every row")
    parser.add_argument("--out", default="", help="write the JSON there too")
    arguments = parser.parse_args()
    settings = dict(pair.partition("=")[::2] for pair in arguments.set)
    configure(1)
    state = [one_update(hidden, critics, arguments.rounds, settings) for hidden in arguments.hidden for critics in (1, 2)]
    result = {"commit": commit(), "machine": machine().removesuffix(", no GPU used"), "torch": torch.__version__, "state": state}
    if arguments.pictures:
        result["pictures"] = picture_figures(arguments.pictures, arguments.picture_episodes)
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out:
        Path(arguments.out).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
