"""hil-serl with a reward from operators' keys (0.3 to 1.0 s late, 3 % wrong) against the simulator's truth, in one process.

    python -m benchmarks.late_keys --task peg-insert --arms truth dated undated --seeds 0 1 --steps 5000 --starts 100 --json out.json

Arms: ``truth``: the task ends episodes and gives the reward. ``dated``: keys alone do, dated back by ``--key-delay`` (0.5 s), as the
bridge does with ``reward = "keys"``. ``undated``: the same keys, not dated back. Finished cells are kept in the JSON file and not run
again. The operator is scripted; no people were tested.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.inprocess_driver import Driver
from benchmarks.inprocess_loop import Loop, rate, say
from takeover.app.operators.scripted import OperatorDecision
from takeover.data.schema import (
    EpisodeEnd,
    EpisodeKind,
    EpisodeStart,
    Outcome,
    OutcomeChange,
    OutcomeSource,
    Privileged,
    RunConfig,
    Source,
    Step,
)
from takeover.data.seeding import start_seed
from takeover.data.statistics import wilson
from takeover.policies.torch_setup import configure

ARMS = ("truth", "dated", "undated")
MOST_EPISODES = 10_000


class _Noting:
    """The scripted operator; remembers its newest decision."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.parameters = inner.parameters
        self.newest: OperatorDecision | None = None

    def decide(self, privileged: Privileged) -> OperatorDecision:
        self.newest = self._inner.decide(privileged)
        return self.newest


class KeyedLoop(Loop):
    """As `Loop`, but the task's judgement is hidden: an operator's key alone ends an episode with success or failure.

    ``date_back_steps``: what a key says is dated back by so many steps. A key that comes after the time limit relabels the episode, as
    `SetOutcome` does in the bridge.
    """

    def __init__(self, config: RunConfig, date_back_steps: int) -> None:
        super().__init__(config)
        self.date_back_steps = date_back_steps
        self.noting = _Noting(self.operator)
        self.operator = self.noting  # type: ignore[assignment]
        self.wrong_keys = 0

    def episode(self, kind: EpisodeKind, number: int) -> dict[str, Any]:
        identity = f"{kind}-{number}"
        seed = start_seed(self.config.seed, kind, number)
        self.robot.reset(seed)
        version = self._version()
        about = {"episode_id": identity, "number": number, "kind": kind, "spec": self.spec, "station_id": "bench", "operator": "scripted"}
        about |= {"start_seed": seed, "policy_version": version, "policy_sha256": "", "config_sha256": "", "wall_ns": 0, "t_ns": 0}
        self._feed(EpisodeStart, **about)
        driver = Driver(self, kind, number, identity)
        steps = human = takeovers = 0
        first_success = -1
        was_human = False
        pressed: Outcome | None = None
        while steps < self.spec.max_steps and pressed is None:
            record, success = driver.step(steps)
            pressed = self.noting.newest.outcome if self.noting.newest is not None else None
            if success and first_success < 0:
                first_success = steps
            record |= {"reward": float(pressed == Outcome.SUCCESS), "reward_source": "operator" if pressed else "none"}
            record |= {"terminated": pressed is not None, "truncated": pressed is None and steps + 1 == self.spec.max_steps}
            self._feed(Step, **record)
            steps += 1
            driven = Source.HUMAN in record["source"]
            human += driven
            takeovers += driven and not was_human
            was_human = driven
        self._end(identity, pressed, steps, human, takeovers)
        late = self._late_key(driver, identity, steps, pressed)
        key = pressed or late
        self.wrong_keys += key is not None and (key == Outcome.SUCCESS) != (first_success >= 0)
        return {
            "success": first_success >= 0,
            "first": first_success,
            "key": str(key) if key else "",
            "key_after_steps": steps - 1 - first_success if pressed and first_success >= 0 else None,
            "autonomous": human == 0,
            "steps": steps,
            "human_steps": human,
            "takeovers": takeovers,
            "policy_version": version,
        }

    def _end(self, identity: str, pressed: Outcome | None, steps: int, human: int, takeovers: int) -> None:
        self._feed(
            EpisodeEnd,
            episode_id=identity,
            outcome=pressed or Outcome.FAILURE,
            outcome_source=OutcomeSource.OPERATOR if pressed else OutcomeSource.LIMIT,
            event_step=max(0, steps - 1 - self.date_back_steps) if pressed else steps - 1,
            steps=steps,
            human_steps=human,
            takeovers=takeovers,
            autonomous=human == 0,
            t_ns=0,
            wall_ns=0,
        )

    def _late_key(self, driver: Driver, identity: str, steps: int, pressed: Outcome | None) -> Outcome | None:
        """The robot stands still after the time limit; a success that was seen is keyed all the same."""
        if pressed is not None:
            return None
        for after in range(self.noting.parameters.key_max_steps + 1):
            outcome = self.noting.decide(driver._privileged(steps + after)).outcome
            if outcome is not None:
                event_step = max(0, steps - 1 - max(0, self.date_back_steps - after - 1))
                fields = {"outcome": outcome, "previous": Outcome.FAILURE, "author": "bench", "event_step": event_step, "wall_ns": 0}
                self._feed(OutcomeChange, episode_id=identity, **fields)
                return outcome
        return None


def run_cell(arm: str, task: str, seed: int, steps: int, starts: int, key_delay_s: float, demonstrations: int = 20) -> dict[str, Any]:
    """One arm and seed: demonstrations, cloning, then the loop for ``steps`` training steps, then held-out starts."""
    keys = {} if arm == "truth" else {"keys": 1}
    config = RunConfig(
        session_id="bench",
        workspace="",
        sockets="",
        task=task,
        operator="scripted",
        clock="lockstep",
        seed=seed,
        demonstrations=demonstrations,
        operator_parameters=keys,
        reward="task" if arm == "truth" else "keys",
    )
    if arm == "truth":
        loop: Loop = Loop(config)
    else:
        probe = Loop(config)
        loop = KeyedLoop(config, round(key_delay_s * probe.spec.control_hz) if arm == "dated" else 0)
    shown = loop.demonstrate()
    while loop.training.phase == "cloning":
        loop.training.work()
    before = loop.evaluate(starts)
    found: list[dict[str, Any]] = []
    while loop.train_step < steps and len(found) < MOST_EPISODES:
        found.append(loop.episode(EpisodeKind.POLICY, len(found)))
        if len(found) % 10 == 0:
            say(f"{arm} seed {seed}: {loop.train_step} of {steps} steps, intervention rate {rate(found[-10:]):.2f}")
    after = loop.evaluate(starts)
    delays = [e["key_after_steps"] for e in (*shown, *found) if e.get("key_after_steps") is not None]
    return {
        "arm": arm,
        "task": task,
        "seed": seed,
        "steps": loop.train_step,
        "episodes": len(found),
        "before": before,
        "after": after,
        "intervention_rate": {"first_20": rate(found[:20]), "last_20": rate(found[-20:])},
        "human_steps": sum(e["human_steps"] for e in found),
        "wrong_keys": getattr(loop, "wrong_keys", 0),
        "keys": sum(bool(e.get("key")) for e in (*shown, *found)),
        "key_after_steps": {"min": min(delays), "mean": sum(delays) / len(delays), "max": max(delays)} if delays else {},
        "operator": loop.operator.parameters.as_dict(),
        "people_tested": False,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="peg-insert")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--starts", type=int, default=100)
    parser.add_argument("--key-delay", type=float, default=0.5, help="seconds by which keys are dated back")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    configure(1)
    cells: list[dict[str, Any]] = []
    if arguments.json and arguments.json.exists():
        cells = json.loads(arguments.json.read_text())
    for seed in arguments.seeds:
        for arm in arguments.arms:
            key = (arm, arguments.task, seed)
            asked = {"steps": arguments.steps, "starts": arguments.starts, "key_delay_s": arguments.key_delay}
            if not any((c["arm"], c["task"], c["seed"]) == key and c["asked"] == asked for c in cells):
                cells.append(run_cell(*key, **asked) | {"asked": asked})
                if arguments.json:
                    temporary = arguments.json.with_suffix(".tmp")
                    temporary.write_text(json.dumps(cells, indent=1))
                    temporary.rename(arguments.json)
    for cell in cells:
        k, n = cell["after"]["successes"], cell["after"]["n"]
        low, high = wilson(k, n)
        warm = cell["before"]
        print(f"{cell['arm']:8} seed {cell['seed']}: {k} of {n} ({100 * low:.0f} to {100 * high:.0f} %), ", end="")
        print(f"warm start {warm['successes']} of {warm['n']}, {cell['steps']} steps, {cell['wrong_keys']} of {cell['keys']} keys wrong")


if __name__ == "__main__":
    main()
