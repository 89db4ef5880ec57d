"""Twenty demonstrations through a virtual gamepad, without the scripted expert: do they serve as well?

A stand-in for a person moves the sticks of SDL's virtual joystick in real time. It sees what the policy sees, noise and all, nothing
of the simulator's truth: it steers to where the hole seems to be, and when the peg stands on the plate it feels its way by force and
torque. Pad, input thread, commands, bridge, recorder and learner are the real ones. Prints JSON; the workspace can be
trained further with ``takeover run --headless --clock lockstep --workspace DIR``.

    python -m benchmarks.pad_demonstrations --workspace DIR [--episodes 20] [--seed 1]
"""

import argparse
import json
import math
import threading
import time

import numpy as np

from benchmarks.virtual_pad import VirtualPad
from takeover.app.commands.options import StationOptions, make_config
from takeover.app.device_operator import DeviceOperator
from takeover.app.inputs.gamepad import DEAD_ZONE
from takeover.app.inputs.shaping import dead_zone
from takeover.app.launcher import Launcher
from takeover.app.supervisor import RunPlan, Supervisor
from takeover.data.catalog import Catalog
from takeover.data.schema import EpisodeKind, Mode, State
from takeover.data.statistics import wilson
from takeover.data.workspace import Workspace
from takeover.robot_bridge.protocol import Endpoints, Subscriber

TO_HOLE = slice(13, 17)  # in the observation of peg-insert: x, y, z (m), yaw (rad), from the tool point, as measured
FORCE = slice(17, 20)  # N
TORQUE = slice(20, 22)  # N m
PRESS_STATES = 60  # states (50 Hz) from one press to the next while nothing comes of it


def wanted_motion(observation: np.ndarray) -> np.ndarray:
    """(x, y, z, yaw) in [-1, 1] of a person who goes by the measured hole and by feel; a function of the observation alone."""
    to_hole, force, torque = observation[TO_HOLE], observation[FORCE], observation[TORQUE]
    distance = float(np.hypot(*to_hole[:2]))
    motion = np.zeros(4)
    motion[3] = np.clip(4 * to_hole[3], -0.7, 0.7)
    if to_hole[2] > 0.004:  # inside
        motion[2] = -0.7
    elif force[2] > 3.0:  # standing on the plate: away from where it carries
        centre = np.array([-torque[1], torque[0]]) / force[2]
        motion[:2] = -0.15 * centre / max(float(np.linalg.norm(centre)), 1e-6)
        motion[2] = -0.1 if force[2] < 15.0 else 0.1
    else:
        motion[:2] = np.clip(70 * to_hole[:2], -0.7, 0.7)
        motion[2] = -0.5 if distance < 0.0015 else np.clip(100 * (to_hole[2] + 0.004 + 0.4 * distance), -0.7, 0.5)
        if distance < 0.0065 and to_hole[2] > -0.003:
            motion[2] = -0.5
    return motion


def stick(value: float) -> float:
    """Where a stick must stand so that, past its dead zone, ``value`` comes out."""
    return 0.0 if value == 0.0 else float(np.copysign(DEAD_ZONE + abs(value) * (1.0 - DEAD_ZONE), value))


class StandIn(threading.Thread):
    """Holds RB while an episode can be driven and moves the sticks at the rate of the bridge's state."""

    def __init__(self, endpoints: Endpoints, pad: VirtualPad) -> None:
        super().__init__(name="stand-in", daemon=True)
        self._endpoints = endpoints
        self._pad = pad
        self.closing = threading.Event()

    def run(self) -> None:
        states: Subscriber[State] = Subscriber(self._endpoints, "state", State)
        waited = 0
        while not self.closing.is_set():
            state = states.receive(0.1)
            if state is None:
                continue
            # as a person's thumb does: let go when a demonstration ends or is held, then press afresh
            waited = waited + 1 if state.mode in (Mode.READY, Mode.HOLD) else 0
            pressed = state.mode == Mode.TAKEOVER or waited % PRESS_STATES > PRESS_STATES // 3
            drives = state.episode_kind == EpisodeKind.DEMONSTRATION and pressed
            motion = wanted_motion(np.array(state.observation)) if drives and state.mode == Mode.TAKEOVER else np.zeros(4)
            length = float(np.hypot(motion[0], motion[1]))
            radial = stick(length) / length if length else 0.0
            self._pad.axis("left_x", float(motion[0]) * radial)
            self._pad.axis("left_y", -float(motion[1]) * radial)
            self._pad.axis("right_y", -stick(float(motion[2])))
            self._pad.axis("right_x", -stick(float(motion[3])))
            self._pad.button("rb", drives)
        states.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", required=True)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if not math.isclose(dead_zone(stick(0.5), DEAD_ZONE), 0.5):
        raise SystemExit("the stand-in's idea of the dead zone is wrong")
    options = StationOptions(workspace=arguments.workspace, seed=arguments.seed, demonstrations=arguments.episodes)
    config = make_config(options, operator="console", cameras=False)
    endpoints = Endpoints(config.sockets)
    started_s = time.monotonic()
    with Launcher(config, ["bridge", "recorder", "actor", "learner", "evaluator"]) as launcher:
        launcher.wait_ready(60)
        supervisor = Supervisor(config, launcher, RunPlan(episodes=0), lambda progress: None)
        with DeviceOperator(endpoints, frame="base") as operator:
            while operator.reading is None:
                time.sleep(0.05)
            stand_in = StandIn(endpoints, VirtualPad())
            stand_in.start()
            supervisor.prepare()
            stand_in.closing.set()
            stand_in.join()
        result = supervisor.evaluate("before", 1)
        supervisor.close()
    demonstrations = Catalog.open(Workspace(arguments.workspace)).episodes(kind="demonstration")
    low, high = wilson(result.successes, result.n)
    print(
        json.dumps(
            {
                "demonstrations": len(demonstrations),
                "demonstrations_successful": sum(episode.outcome == "success" for episode in demonstrations),
                "steps": [episode.steps for episode in demonstrations],
                "heldout_after_cloning": {"successes": result.successes, "n": result.n, "interval": [low, high]},
                "wall_s": time.monotonic() - started_s,
            }
        )
    )


if __name__ == "__main__":
    main()
