"""Records such as a bridge sends, made of seeded random numbers."""

import numpy as np
import pytest

from takeover.data.schema import (
    ActionGroup,
    ActionSpec,
    CameraFrame,
    CameraSpec,
    ControlMode,
    EpisodeEnd,
    EpisodeKind,
    EpisodeStart,
    Event,
    Mode,
    ObservationSpec,
    Outcome,
    OutcomeSource,
    RobotSpec,
    Source,
    Step,
)
from takeover.data.workspace import Workspace

SPEC = RobotSpec(
    robot_id="sim",
    task_id="pick-lift",
    prompt="lift the cube",
    control_hz=20.0,
    max_steps=100,
    action=ActionSpec(
        kind="ee_delta",
        frame="base",
        names=["x", "y", "z", "yaw", "gripper"],
        units=["m", "m", "m", "rad", ""],
        scale=[0.012, 0.012, 0.012, 0.1, 1.0],
        groups=[ActionGroup(name="arm", start=0, stop=4), ActionGroup(name="gripper", start=4, stop=5)],
        gripper="discrete",
    ),
    observation=ObservationSpec(names=[f"o{i}" for i in range(23)], units=[""] * 23),
    cameras=[CameraSpec(name="front", width=64, height=48, rate_hz=20.0)],
    simulated=True,
    has_watchdog=False,
    can_reset=True,
    workspace_low=[-0.3, -0.3, 0.0],
    workspace_high=[0.3, 0.3, 0.5],
)


class Stream:
    """Makes the lossless stream of one bridge session: contiguous rec_seq and seq, values from a seed."""

    def __init__(self, session: str = "s1", seed: int = 0) -> None:
        self.session = session
        self.rng = np.random.default_rng(seed)
        self.rec_seq = 0
        self.seq = 0
        self.number = 0
        self.t_ns = 1_000_000_000
        self.wall_ns = 1_790_000_000_000_000_000

    def next(self) -> int:
        self.rec_seq += 1
        self.t_ns += 50_000_000
        self.wall_ns += 50_000_000
        return self.rec_seq - 1

    def episode(
        self,
        steps: int = 40,
        takeovers: tuple[tuple[int, int], ...] = ((10, 20),),
        holds: tuple[int, ...] = (),
        outcome: Outcome = Outcome.SUCCESS,
        kind: EpisodeKind = EpisodeKind.POLICY,
        frames: bool = False,
        sim_state: bool = True,
        end: bool = True,
        events: bool = True,
        discarded: bool = False,
    ) -> list:
        """Records of one episode. ``holds``: step numbers before which two held steps come."""
        episode_id = f"{self.session}-ep{self.number:04d}"
        records: list = [
            EpisodeStart(
                session=self.session,
                rec_seq=self.next(),
                episode_id=episode_id,
                number=self.number,
                kind=kind,
                spec=SPEC,
                station_id="st",
                operator="op-01",
                start_seed=7,
                policy_version=3,
                policy_sha256="ab",
                config_sha256="cd",
                wall_ns=self.wall_ns,
                t_ns=self.t_ns,
                parameters={"mass": 0.1},
                software="takeover test",
            )
        ]
        self.number += 1
        observation = self.rng.normal(size=23).tolist()
        run = human_steps = 0
        for index in range(steps):
            if index in holds:
                for _ in range(2):
                    records.append(self._step(episode_id, index, run + 1, kind, observation, observation, held=True, human=-1))
                run += 2
                observation = self.rng.normal(size=23).tolist()
            following = self.rng.normal(size=23).tolist()
            taken = next((i for i, (low, high) in enumerate(takeovers) if low <= index < high), -1)
            human_steps += taken >= 0
            last = index == steps - 1
            records.append(
                self._step(
                    episode_id, index, run, kind, observation, following, False, taken, last and outcome is Outcome.SUCCESS, last, sim_state
                )
            )
            if frames:
                jpeg = self.rng.bytes(300)
                records.append(
                    CameraFrame(
                        session=self.session,
                        rec_seq=self.next(),
                        camera="front",
                        counter=index,
                        t_source_ns=self.t_ns,
                        width=64,
                        height=48,
                        jpeg=jpeg,
                        episode_id=episode_id,
                        seq=self.seq - 1,
                    )
                )
            if events and index == 5:
                records.append(
                    Event(
                        session=self.session,
                        rec_seq=self.next(),
                        kind="mark",
                        source="console",
                        t_ns=self.t_ns,
                        wall_ns=self.wall_ns,
                        text="schön",
                        episode_id=episode_id,
                        seq=self.seq - 1,
                        value=1.5,
                        sim_state=self.rng.bytes(64),
                    )
                )
            observation = following
        if end:
            records.append(
                EpisodeEnd(
                    session=self.session,
                    rec_seq=self.next(),
                    episode_id=episode_id,
                    outcome=outcome,
                    outcome_source=OutcomeSource.TASK,
                    event_step=steps - 1,
                    steps=steps,
                    human_steps=human_steps,
                    takeovers=len(takeovers),
                    autonomous=human_steps == 0,
                    discarded=discarded,
                    t_ns=self.t_ns,
                    wall_ns=self.wall_ns,
                )
            )
        return records

    def _step(
        self, episode_id, index, run, kind, observation, following, held, human, terminated=False, last=False, sim_state=True
    ) -> Step:
        rng = self.rng
        source = Source.NONE if held else Source.HUMAN if human >= 0 else Source.POLICY
        mode = ControlMode.SAFETY_HOLD if held else ControlMode.HUMAN if human >= 0 else ControlMode.POLICY
        self.seq += 1
        return Step(
            session=self.session,
            rec_seq=self.next(),
            seq=self.seq - 1,
            episode_id=episode_id,
            episode_step=index,
            train_step=-1 if held else self.seq,
            run_id=run,
            kind=kind,
            t_observation_ns=self.t_ns,
            t_decision_ns=self.t_ns + 1,
            t_applied_ns=self.t_ns + 2,
            wall_ns=self.wall_ns,
            mode=Mode.HOLD if held else Mode.TAKEOVER if human >= 0 else Mode.POLICY,
            control_mode=mode,
            hold_reason="command_stale" if held else "",
            observation=observation,
            next_observation=following,
            source=[source, source],
            policy_action=None if index % 7 == 3 else rng.uniform(-1, 1, 5).tolist(),
            policy_from_seq=self.seq - 2,
            policy_version=3,
            human_action=rng.uniform(-1, 1, 5).tolist() if human >= 0 else None,
            asked_action=rng.uniform(-1, 1, 5).tolist(),
            action=rng.uniform(-1, 1, 5).tolist(),
            intervention_id=human,
            safety_bits=8 if index % 5 == 0 else 0,
            spread=0.1,
            scores={"novelty/knn": 0.25} if index % 2 else {},
            device_id="pad",
            device_alive=True,
            command_age_ms=12.5,
            reward=float(terminated),
            terminated=terminated,
            truncated=last and not terminated,
            sim_state=rng.bytes(128) if sim_state else b"",
        )


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path / "ws").prepare()


@pytest.fixture
def new_stream() -> type[Stream]:
    """For tests that need more than one bridge session."""
    return Stream
