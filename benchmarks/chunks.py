"""An actor that takes 300 ms for an answer: one action at a time, or 50 of them; against one that answers every step at once.

Real bridge and recorder processes; the actors are threads here. Each drives the same smooth motion for some seconds, with a takeover of a
second in between. Prints JSON: holds, steps that stood still for want of an answer, the largest jump from step to step, lateness.

    takeover bench chunks [--seconds 20] [--out FILE]
"""

import argparse
import itertools
import json
import math
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.control import Watch, lateness_s
from benchmarks.control_plain import quantiles
from benchmarks.result_text import commit, machine
from takeover.app.commands.options import StationOptions, make_config
from takeover.app.launcher import Launcher
from takeover.data.schema import Command, EpisodeKind, HoldReason, Lease, Mode, Observation, PolicyAction, Resume, Source, Start, Step
from takeover.robot_bridge.protocol import ControlClient, Endpoints, Push, Subscriber

PERIOD_S = 0.05
INFERENCE_S = 0.3
VARIANTS = {
    "every step at once": (0.0, 1, 1),
    "300 ms for 50 actions": (INFERENCE_S, 50, 50),
    "300 ms for 1 action, held for 6 steps": (INFERENCE_S, 1, 7),
}
"""Name -> (inference time in s, rows of an answer, steps for which it is valid)."""


def motion(seq: int) -> list[float]:
    """What every actor wants at step ``seq``: slow circles."""
    return [0.4 * math.sin(seq / 12.0), 0.4 * math.cos(seq / 12.0), 0.0, 0.0]


def act(endpoints: Endpoints, inference_s: float, rows: int, valid: int, closing: threading.Event) -> None:
    """An actor of the kind that `VARIANTS` describes, until ``closing``."""
    with (
        Subscriber[Observation](endpoints, "observation", Observation) as observations,
        Push[PolicyAction](endpoints, "policy_action", PolicyAction) as answers,
    ):
        while not closing.is_set():
            seen = observations.receive(0.05)
            if seen is None:
                continue
            time.sleep(inference_s)
            actions = [motion(seen.seq + i) for i in range(rows)]
            last = seen.seq + valid - 1
            answers.send(PolicyAction(session=seen.session, from_seq=seen.seq, actions=actions, valid_until_seq=last, policy_version=1))


class Person:
    """Takes over for a second now and then; resumes whatever is held."""

    def __init__(self, endpoints: Endpoints, watch: Watch) -> None:
        self.watch = watch
        self.client = ControlClient(endpoints, "bench")
        self.session = self.client.hello("bench", 5.0).session
        self.lease = ""
        self.commands: Push[Command] = Push(endpoints, "command", Command)
        self.seq = 0
        self.holds: list[str] = []

    def ask(self, request: Any) -> str:
        reply = self.client.ask(request, 5.0)
        self.lease = reply.lease or self.lease
        return reply.error

    def send(self, *, deadman: bool) -> None:
        self.seq += 1
        state = self.watch.state
        self.commands.send(
            Command(
                session=self.session,
                sender="bench",
                seq=self.seq,
                lease=self.lease,
                device_id="bench",
                device_kind="gamepad",
                device_alive=True,
                deadman=deadman,
                neutral=not deadman,
                focused=True,
                gui_alive=True,
                action=[0.2 if deadman else 0.0, 0.0, 0.0, 0.0],
                authority=["arm"],
                newest_state_seq=state.seq if state is not None else -1,
            )
        )

    def work(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        held = False
        while (now := time.monotonic()) < end:
            self.send(deadman=(end - now) % 5.0 < 1.0)
            state = self.watch.state
            if state is not None and state.mode is Mode.HOLD and not held:
                self.holds.append(str(state.hold_reason))
            held = state is not None and state.mode is Mode.HOLD
            if held and state is not None and state.hold_reason is not HoldReason.NONE:
                self.client.send(Resume(sender="bench"))
            while self.client.poll() is not None:
                pass
            time.sleep(0.02)


def run(name: str, seconds: float) -> dict[str, Any]:
    """One variant on a station of its own."""
    inference_s, rows, valid = VARIANTS[name]
    with tempfile.TemporaryDirectory(prefix="takeover-chunks-") as folder:
        config = make_config(StationOptions(workspace=str(Path(folder) / "workspace"), learner="none"), operator="console", cameras=False)
        config = msgspec.structs.replace(config, learner="none")
        with Launcher(config, ["bridge", "recorder"]) as launcher:
            launcher.wait_ready(60)
            endpoints = Endpoints(config.sockets)
            watch, closing = Watch(endpoints), threading.Event()
            threading.Thread(target=act, args=(endpoints, inference_s, rows, valid, closing), daemon=True).start()
            person = Person(endpoints, watch)
            person.ask(Lease(sender="bench", device_kind="gamepad"))
            person.send(deadman=False)
            deadline = time.monotonic() + 20.0
            while error := person.ask(Start(sender="bench", kind=EpisodeKind.POLICY)):
                if time.monotonic() > deadline:
                    raise TimeoutError(error)
                person.send(deadman=False)
                time.sleep(0.05)
            person.work(seconds)
            time.sleep(0.5)
            closing.set()
            watch.closing.set()
            watch.join(2.0)
            return figures(watch.steps, person.holds)


def figures(steps: list[Step], holds: list[str]) -> dict[str, Any]:
    by_policy = [step for step in steps if step.mode is Mode.POLICY]
    driven = [step for step in by_policy if Source.POLICY in step.source]
    pairs = [
        (a, b) for a, b in itertools.pairwise(by_policy) if b.seq == a.seq + 1 and Source.POLICY in a.source and Source.POLICY in b.source
    ]
    jumps = [float(np.linalg.norm(np.subtract(b.action, a.action))) for a, b in pairs]
    wrong = [float(np.linalg.norm(np.subtract(step.action, motion(step.seq)))) for step in driven]
    runs = [len(list(group)) for waits, group in itertools.groupby(by_policy, key=lambda step: step.policy_action is None) if waits]
    return {
        "steps": len(steps),
        "holds": {reason: holds.count(reason) for reason in sorted(set(holds))},
        "held_steps": sum(step.mode is Mode.HOLD for step in steps),
        "driven_by_the_policy": len(driven),
        "stood_still_waiting": len(by_policy) - len(driven),
        "longest_wait_ms": max(runs, default=0) * PERIOD_S * 1000.0,
        "largest_jump": round(max(jumps, default=0.0), 3),
        "mean_jump": round(float(np.mean(jumps)), 4) if jumps else None,
        "mean_error_to_what_was_wanted": round(float(np.mean(wrong)), 4) if wrong else None,
        "inferred_from_steps_ago": quantile_steps([step.seq - step.policy_from_seq for step in driven]),
        "lateness_ms": quantiles(lateness_s([step for step in steps if step.mode in (Mode.POLICY, Mode.TAKEOVER)], PERIOD_S)),
    }


def quantile_steps(values: list[int]) -> dict[str, float]:
    return {"p50": float(np.median(values)), "max": float(max(values))} if values else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each variant")
    parser.add_argument("--out", default="", help="write the JSON there too")
    arguments = parser.parse_args()
    results = {name: run(name, arguments.seconds) for name in VARIANTS}
    text = json.dumps({"commit": commit(), "machine": machine(), "seconds": arguments.seconds, "results": results}, indent=1)
    print(text)
    if arguments.out:
        Path(arguments.out).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
