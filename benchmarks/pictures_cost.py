"""What pictures cost: processor time of each part of a step and of an update, against state observations, and bytes.

    python -m benchmarks.pictures_cost [--json out.json]

Medians of the process's own processor time, so that other work on the machine counts little; two cameras of 128x128, batch 256, one thread.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inprocess_loop import Loop
from takeover.data.schema import EpisodeKind, RunConfig
from takeover.policies.base import SeesPictures
from takeover.policies.picture_hil_serl import PictureHilSerlLearner
from takeover.policies.picture_trained import TrainedPictureLearner
from takeover.policies.torch_setup import configure
from takeover.policies.warm_start import actor_waits
from takeover.robot_bridge.policy_images import policy_images
from takeover.robot_bridge.robots.sim_seeing import SeeingSimRobot

QUICK = {"clone_updates": 20, "critic_warmup": 10, "actor_delay": 0}  # no waiting: an update is one of critics and actor
SEEING = {"observations": "pictures", "encoder_updates": 5} | QUICK
TRAINED = {"encoder": "trained", "actor_delay": 3}  # the first updates are of the critics alone, and the encoder stands still


def milliseconds(work: Callable[[], object], times: int) -> float:
    """Median processor time of ``work``."""
    work()
    taken = []
    for _ in range(times):
        began = time.process_time()
        work()
        taken.append(1e3 * (time.process_time() - began))
    return statistics.median(taken)


def trained(task: str, cameras: list[str], settings: dict[str, Any]) -> Loop:
    """A loop after two demonstrations, cloning and an episode: enough to fill batches."""
    config = RunConfig(
        session_id="bench",
        workspace="",
        sockets="",
        task=task,
        operator="scripted",
        clock="lockstep",
        demonstrations=2,
        policy_cameras=cameras,
        learner_parameters=settings,
    )
    loop = Loop(config)
    for number in range(2):
        loop.episode(EpisodeKind.DEMONSTRATION, number)
    while loop.training.phase == "cloning":
        loop.training.work()
    loop.episode(EpisodeKind.POLICY, 0)
    return loop


def measure(times: int = 40) -> dict[str, float]:
    """All costs, in ms of processor time or bytes."""
    state = trained("pick-lift", [], QUICK)
    seeing = trained("pick-lift-pictures", ["front", "wrist"], SEEING)
    learner, plain, robot = seeing.training.learner, state.training.learner, seeing.robot
    if not isinstance(learner, PictureHilSerlLearner) or not isinstance(robot, SeeingSimRobot) or plain is None:
        raise RuntimeError("the loops did not learn from what they were asked to")
    frames = robot._eyes.pictures(robot._eyes.capture())
    images = robot.policy_images()
    policy = seeing.policies[max(seeing.policies)]
    if not isinstance(policy, SeesPictures):
        raise RuntimeError("the policy does not look at pictures")
    observation = np.asarray(robot.read().observation, np.float32)
    looks: SeesPictures = policy

    def act() -> None:
        looks.look(images)
        seeing.policies[max(seeing.policies)].act(observation, sample=False)

    copies = iter([list(images) for _ in range(times + 1)])  # another list each time: the same one would be known already
    rows = learner.replay.columns.width * 4
    return {
        "render two 640x480 frames, ms": milliseconds(lambda: robot._eyes.pictures(robot._eyes.capture()), times),
        "make two 128x128 pictures of them, ms": milliseconds(lambda: policy_images(frames, ["front", "wrist"]), times),
        "actor: encode and act, ms": milliseconds(act, times),
        "learner: encode one frame, 4 crops, ms": milliseconds(lambda: learner._encoded(next(copies), "benchmark"), times),
        "update from pictures, ms": milliseconds(learner.update, times),
        **trained_encoder(times),
        "update from state, ms": milliseconds(plain.update, times),
        "bytes per step on the wire and in the journal": float(sum(len(image.data) for image in images)),
        "bytes per transition in replay": float(rows),
    }


def trained_encoder(times: int) -> dict[str, float]:
    """Of an encoder that goes on learning, each way of keeping pictures; a tenth as often, since an update takes about a hundred times as
    long."""
    found = {}
    for store in ("raw", "jpeg"):
        learner = trained("pick-lift-pictures", ["front", "wrist"], SEEING | TRAINED | {"picture_store": store}).training.learner
        if not isinstance(learner, TrainedPictureLearner):
            raise RuntimeError("the loop did not learn with a trained encoder")
        waiting = milliseconds(learner.update, 1)
        while actor_waits(learner.parameters, learner.updates + 1):
            learner.update()
        found[f"update, encoder trained ({store}), ms"] = milliseconds(learner.update, max(3, times // 10))
        found[f"update before that, encoder and actor wait ({store}), ms"] = waiting
        held = learner.replay.online.size + learner.replay.demonstrations.size
        found[f"bytes of pictures per transition ({store})"] = learner.picture_bytes / held
    return found


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=40)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    configure(1)
    found = measure(arguments.times)
    for name, value in found.items():
        print(f"{name:60} {value:10.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
