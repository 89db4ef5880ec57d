"""How well each scripted operator demonstrates the built-in tasks, in the in-process loop. Prints JSON; no people are tested.

``takeover bench operators --episodes 30``
"""

import argparse
import json
from typing import Any

import numpy as np

from benchmarks.inprocess_loop import Loop
from takeover.app.operators.scripted import STYLES
from takeover.data.schema import EpisodeKind, RunConfig
from takeover.data.statistics import wilson
from takeover.policies.torch_setup import configure
from takeover.robot_bridge.robots.registry import SIM_TASKS


def measure(task: str, style: str, episodes: int, seed: int) -> dict[str, Any]:
    """Successes of ``episodes`` demonstrations, with Wilson's interval, and their mean length in steps."""
    config = RunConfig(
        session_id="bench",
        workspace="",
        sockets="",
        task=task,
        learner="bc",
        operator="scripted",
        clock="lockstep",
        seed=seed,
        demonstrations=episodes + 1,  # never enough to begin cloning
        operator_parameters={"style": style},
    )
    loop = Loop(config)
    found = [loop.episode(EpisodeKind.DEMONSTRATION, number) for number in range(episodes)]
    good = sum(episode["success"] for episode in found)
    steps = float(np.mean([episode["steps"] for episode in found]))
    return {"task": task, "operator": style, "successes": good, "n": episodes, "interval": wilson(good, episodes), "steps": round(steps, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.episodes < 1:
        parser.error(f"--episodes {arguments.episodes}; at least 1")
    configure(1)
    print(json.dumps([measure(task, style, arguments.episodes, arguments.seed) for task in SIM_TASKS for style in STYLES], indent=1))


if __name__ == "__main__":
    main()
