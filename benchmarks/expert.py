"""How well and how fast the scripted experts solve random starts, and what one control step costs. Prints JSON.

``python -m benchmarks.expert --starts 200 [--tasks sort-two]``
"""

import argparse
import json
import statistics
import time

import numpy as np

from takeover.robot_bridge.robots.registry import SIM_TASKS
from takeover.robot_bridge.robots.sim import SimRobot


def measure(task: str, starts: int) -> dict[str, float | int | str]:
    """Success, steps and cost of the expert on ``starts`` random starts."""
    robot = SimRobot(task)
    lengths: list[int] = []
    successes, steps, started = 0, 0, time.process_time()
    for seed in range(starts):
        robot.reset(seed)
        for step in range(robot.spec.max_steps):
            robot.apply(np.array(robot.advice().expert_action))
            robot.advance()
            robot.read()
            steps += 1
            evaluation = robot.evaluate()
            if evaluation.terminated:
                successes += evaluation.success
                lengths.extend([step + 1] if evaluation.success else [])
                break
    return {
        "task": task,
        "starts": starts,
        "successes": successes,
        "steps_median": statistics.median(lengths) if lengths else 0,
        "steps_max": max(lengths, default=0),
        "cpu_ms_per_step": round(1e3 * (time.process_time() - started) / steps, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=200)
    parser.add_argument("--tasks", nargs="+", choices=SIM_TASKS, default=SIM_TASKS, metavar="NAME", help=f"of {', '.join(SIM_TASKS)}")
    arguments = parser.parse_args()
    print(json.dumps([measure(task, arguments.starts) for task in arguments.tasks], indent=2))


if __name__ == "__main__":
    main()
