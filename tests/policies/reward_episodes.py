"""Episodes for tests of a learned reward: what a person's keys judged, a classifier of it, and successes that it gave wrongly."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from takeover.data.recorder import Recorder
from takeover.data.schema import ControlMode, EpisodeKind, Event, Outcome, OutcomeSource
from takeover.data.workspace import Workspace
from takeover.policies.reward_settings import RewardSettings
from takeover.policies.reward_training import RewardRequest, train_reward

SETTINGS = RewardSettings(updates=200, hidden=16, members=2, min_episodes=3)
STEPS, SUCCESS = 20, 14
WRONG = [f"wrong-{number}" for number in range(4)]  # ended by the classifier, with success; there was none


class Writer:
    """Episodes of the simulated robot: the first number says success, the second one looks like it."""

    def __init__(self, folder: Path, script: Any) -> None:
        self.script = script
        self.recorder = Recorder(Workspace(folder).prepare())
        self._noise = np.random.default_rng(0)

    def _state(self, true: bool, alike: bool) -> list[float]:
        values = self._noise.normal(0.0, 0.05, self.script.spec.observation.size)
        values[0], values[1] = values[0] + float(true), values[1] + float(alike)
        return [float(value) for value in values]

    def episode(self, name: str, kind: EpisodeKind, true: bool, alike: bool, source: OutcomeSource, mark: str = "") -> None:
        """One that ran to its step limit is a failure, whatever it looked like."""
        won = alike and source is not OutcomeSource.LIMIT
        self.recorder.accept(self.script.start(kind, name))
        mode = ControlMode.HUMAN if kind is EpisodeKind.DEMONSTRATION else ControlMode.POLICY
        for step in range(STEPS):
            late = step + 1 >= SUCCESS
            states = {"observation": self._state(true and step >= SUCCESS, alike and step >= SUCCESS)}
            states |= {"next_observation": self._state(true and late, alike and late)}
            last = {"reward": float(won), "terminated": won} if step == STEPS - 1 else {}
            made = self.script.step(mode, **states, **last)
            self.recorder.accept(made)
            if mark and step == SUCCESS + 2:
                self.script.rec_seq += 1
                self.recorder.accept(
                    Event(
                        session=made.session,
                        rec_seq=self.script.rec_seq,
                        kind="mark",
                        source="console",
                        t_ns=made.t_decision_ns,
                        wall_ns=0,
                        text=mark,
                        episode_id=name,
                        seq=made.seq,
                    )
                )
        outcome = Outcome.SUCCESS if won else Outcome.FAILURE
        self.recorder.accept(self.script.end(outcome, source))
        self.recorder.sync()

    def settle(self) -> None:
        """Until every episode is a closed file."""
        deadline = time.monotonic() + 60.0
        while self.recorder.pending:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def build(folder: Path, script: Any, settings: RewardSettings = SETTINGS, count: int = 8) -> None:
    """``count`` demonstrations and failures, classifier 1 of them, and the four of `WRONG`."""
    writer = Writer(folder, script)
    for number in range(count):
        writer.episode(f"good-{number}", EpisodeKind.DEMONSTRATION, True, True, OutcomeSource.OPERATOR)
        writer.episode(f"bad-{number}", EpisodeKind.POLICY, False, False, OutcomeSource.OPERATOR)
    writer.settle()
    first, _ = train_reward(folder, RewardRequest(robot_id="sim", task_id="peg-insert", settings=settings), lambda *_: True)
    assert (first.version, first.data["vetoes"]) == (1, 0)
    for name in WRONG:
        writer.episode(name, EpisodeKind.POLICY, False, True, OutcomeSource.CLASSIFIER)
    writer.recorder.close()
