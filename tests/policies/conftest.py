"""Steps and episodes of a small robot for learner tests, made with the real structs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from takeover.data.recorder import Recorder
from takeover.data.schema import (
    ActionGroup,
    ActionSpec,
    ControlMode,
    EpisodeEnd,
    EpisodeKind,
    EpisodeStart,
    Mode,
    ObservationSpec,
    Outcome,
    OutcomeSource,
    RobotSpec,
    RunConfig,
    Source,
    Step,
)
from takeover.data.workspace import Workspace
from takeover.policies.learner_run import LearnerRun

FAST = {"updates_per_step": 1, "clone_updates": 30, "critic_warmup": 10, "learning_starts": 5, "hidden": 16, "batch": 32, "actor_delay": 5}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def make_spec(observation: int = 3, arm: int = 2, gripper: bool = False, max_steps: int = 30) -> RobotSpec:
    """A robot with ``arm`` continuous actions and, if asked, a discrete gripper."""
    names = [f"a{i}" for i in range(arm)] + (["gripper"] if gripper else [])
    groups = [ActionGroup(name="arm", start=0, stop=arm)]
    if gripper:
        groups.append(ActionGroup(name="gripper", start=arm, stop=arm + 1))
    return RobotSpec(
        robot_id="toy",
        task_id="reach",
        prompt="reach",
        control_hz=20.0,
        max_steps=max_steps,
        action=ActionSpec(
            kind="ee_delta",
            frame="base",
            names=names,
            units=["m"] * len(names),
            scale=[0.01] * len(names),
            groups=groups,
            gripper="discrete" if gripper else "none",
        ),
        observation=ObservationSpec(names=[f"o{i}" for i in range(observation)], units=["m"] * observation),
        cameras=[],
        simulated=True,
        has_watchdog=True,
        can_reset=True,
        workspace_low=[-1.0] * 3,
        workspace_high=[1.0] * 3,
    )


class Script:
    """Writes episodes record by record, with running sequence numbers."""

    def __init__(self, spec: RobotSpec, session: str = "session-a") -> None:
        self.spec = spec
        self.session = session
        self.rec_seq = -1
        self.seq = -1
        self.train_step = -1
        self.number = -1
        self.kind = EpisodeKind.POLICY
        self.episode_id = ""
        self.count = 0

    def _next(self) -> dict[str, Any]:
        self.rec_seq += 1
        return {"session": self.session, "rec_seq": self.rec_seq}

    def start(self, kind: EpisodeKind = EpisodeKind.POLICY, episode_id: str = "") -> EpisodeStart:
        self.number += 1
        self.kind = kind
        self.count = 0
        self.episode_id = episode_id or f"e{self.number:03d}"
        return EpisodeStart(
            **self._next(),
            episode_id=self.episode_id,
            number=self.number,
            kind=kind,
            spec=self.spec,
            station_id="local",
            operator="op-01",
            start_seed=self.number,
            policy_version=0,
            policy_sha256="",
            config_sha256="",
            wall_ns=0,
            t_ns=0,
        )

    def step(self, mode: ControlMode = ControlMode.POLICY, **changes: Any) -> Step:
        """The next step; ``changes`` override any field."""
        held = mode in (ControlMode.PAUSED, ControlMode.SAFETY_HOLD)
        human = mode in (ControlMode.HUMAN, ControlMode.TRANSITION)
        self.seq += 1
        trains = self.kind == EpisodeKind.POLICY and not held
        self.train_step += trains
        d, a = self.spec.observation.size, self.spec.action.size
        fields: dict[str, Any] = {
            "seq": self.seq,
            "episode_id": self.episode_id,
            "episode_step": self.count,
            "train_step": self.train_step if trains else -1,
            "run_id": 0,
            "kind": self.kind,
            "t_observation_ns": self.seq * 50_000_000,
            "t_decision_ns": self.seq * 50_000_000,
            "t_applied_ns": self.seq * 50_000_000,
            "wall_ns": 0,
            "mode": Mode.TAKEOVER if human else Mode.HOLD if held else Mode.POLICY,
            "control_mode": mode,
            "observation": [float(self.seq)] * d,
            "next_observation": [float(self.seq) + 0.5] * d,
            "source": [int(Source.HUMAN if human else Source.NONE if held else Source.POLICY)] * len(self.spec.action.groups),
            "policy_action": [0.0] * a,
            "policy_from_seq": self.seq,
            "policy_version": 1,
            "human_action": [0.5] * a if human else None,
            "asked_action": [0.25] * a,
            "action": [0.25] * a,
            "intervention_id": 0 if human and self.kind == EpisodeKind.POLICY else -1,
        }
        if not held:
            self.count += 1
        return Step(**self._next(), **(fields | changes))

    def end(self, outcome: Outcome = Outcome.SUCCESS, source: OutcomeSource = OutcomeSource.TASK, **changes: Any) -> EpisodeEnd:
        fields: dict[str, Any] = {
            "episode_id": self.episode_id,
            "outcome": outcome,
            "outcome_source": source,
            "event_step": self.count - 1,
            "steps": self.count,
            "human_steps": 0,
            "takeovers": 0,
            "autonomous": True,
            "t_ns": 0,
            "wall_ns": 0,
        }
        return EpisodeEnd(**self._next(), **(fields | changes))


@pytest.fixture
def make_robot_spec() -> Callable[..., RobotSpec]:
    return make_spec


@pytest.fixture
def make_script() -> Callable[..., Script]:
    def make(spec: RobotSpec | None = None, session: str = "session-a") -> Script:
        return Script(spec or make_spec(), session)

    return make


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    made = Recorder(Workspace(tmp_path / "w"))
    yield made
    made.close()


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[Callable[..., LearnerRun]]:
    """Learners on the recorder's workspace, in lockstep unless told otherwise; closed at the end."""
    runs: list[LearnerRun] = []

    def make(**changes: Any) -> LearnerRun:
        fields: dict[str, Any] = {
            "session_id": "run-a",
            "workspace": str(tmp_path / "w"),
            "sockets": "",
            "task": "reach",
            "clock": "lockstep",
            "demonstrations": 1,
            "learner_parameters": FAST,
        }
        runs.append(LearnerRun(RunConfig(**(fields | changes))))
        return runs[-1]

    yield make
    for run in runs:
        run.close()
