"""A workspace with real episodes: the simulated arm, a flawed policy, the scripted operator, the real file writer and catalog."""

from pathlib import Path

import msgspec
import numpy as np
import simplejpeg

from takeover.app.operators.scripted import ScriptedOperator
from takeover.data.catalog import Catalog
from takeover.data.entry import entry_of
from takeover.data.episode_file import write_episode
from takeover.data.episode_schema import EpisodeRecords
from takeover.data.schema import (
    CameraFrame,
    ControlMode,
    EpisodeEnd,
    EpisodeKind,
    EpisodeStart,
    HoldReason,
    Mode,
    Outcome,
    OutcomeSource,
    Privileged,
    Source,
    Step,
)
from takeover.data.workspace import Workspace
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.robots.sim_cameras import SimCameras

RAMP = 3
STEP_NS = 50_000_000


class Recorder:
    """Records episodes of one session into a workspace. ``flaw`` of `episode`: how far the policy's aim is off, 0 is the expert."""

    def __init__(self, workspace: Path, session: str = "s1", pictures: bool = False, started_ns: int = 1_790_000_000_000_000_000) -> None:
        self.workspace = Workspace(workspace).prepare()
        self.catalog = Catalog.open(self.workspace)
        self.session, self.number, self.rec_seq, self.seq = session, 0, 0, 0
        self.t_ns, self.wall_ns = 1_000_000_000, started_ns
        self.robot = SimRobot("peg-insert")
        self.camera = SimCameras(self.robot) if pictures else None
        self.operator = ScriptedOperator({}, seed=4)
        self.spec = self.robot.spec
        if self.camera is not None:
            self.spec = msgspec.structs.replace(self.spec, cameras=self.camera.specs)

    def close(self) -> None:
        if self.camera is not None:
            self.camera.close()
        self.catalog.close()

    def _next(self) -> int:
        self.rec_seq += 1
        return self.rec_seq - 1

    def episode(
        self,
        flaw: float = 0.0,
        help_: bool = True,
        version: int = 1,
        kind: EpisodeKind = EpisodeKind.POLICY,
        most_steps: int = 100,
        hold_at: int = -1,
        aborted: bool = False,
        probe: int = -1,
        probe_version: int = 0,
    ) -> EpisodeEnd:
        """One whole episode into its file and the catalog. ``hold_at``: a safety hold of three steps before that step."""
        number, episode_id = self.number, f"{self.session}-{self.number:04d}"
        self.number += 1
        robot = self.robot
        robot.reset(1000 + number)
        drawn = np.random.default_rng([number, 7])
        aim = drawn.choice([-1.0, 1.0], 4) * flaw
        start = EpisodeStart(
            session=self.session,
            rec_seq=self._next(),
            episode_id=episode_id,
            number=number,
            kind=kind,
            spec=self.spec,
            station_id="local",
            operator="op-01",
            start_seed=1000 + number,
            policy_version=version,
            policy_sha256="ab" * 32,
            config_sha256="",
            wall_ns=self.wall_ns,
            t_ns=self.t_ns,
            software="test",
            probe=probe,
            probe_version=probe_version,
        )
        records = EpisodeRecords(start)
        human_steps, ramp, run = 0, 0, 0
        intervention, driving, success = -1, False, False
        for index in range(most_steps):
            reading, advice = robot.read(), robot.advice()
            expert = np.array(advice.expert_action)
            policy = np.clip(expert + aim * (0.3 + drawn.random(4)), -1, 1)
            if index == hold_at:
                run += 2
                for _ in range(3):
                    records.steps.append(self._step(episode_id, index, run - 1, kind, version, reading, reading, policy, held=True))
            privileged = Privileged(
                session=self.session,
                seq=self.seq,
                mode=Mode.TAKEOVER if driving else Mode.POLICY,
                hold_reason=HoldReason.NONE,
                episode_id=episode_id,
                episode_kind=EpisodeKind.POLICY if probe >= 0 else kind,  # whoever helps in a probe all the same
                episode_number=number,
                episode_step=index,
                intervention_id=intervention,
                observation=reading.observation.tolist(),
                tool_velocity=reading.tool_velocity.tolist(),
                values=advice.values,
                expert_action=advice.expert_action,
                policy_action=policy.tolist(),
                lockstep=True,
            )
            decision = self.operator.decide(privileged)
            person = decision.deadman and help_
            if person and not driving:
                intervention, ramp = intervention + 1, 0
            driving = person
            hand = np.array(decision.action) if person else None
            share = min(1.0, (ramp + 1) / RAMP) if person else 0.0
            ramp += person
            applied = policy if hand is None else share * hand + (1 - share) * policy
            human_steps += person
            pictures = self.camera.pictures(self.camera.capture()) if self.camera else []
            robot.apply(applied)
            robot.advance()
            following, verdict = robot.read(), robot.evaluate()
            success = verdict.success
            end = success or verdict.terminated or index == most_steps - 1
            seq = self.seq
            records.steps.append(
                self._step(
                    episode_id,
                    index,
                    run,
                    kind,
                    version,
                    reading,
                    following,
                    policy,
                    hand,
                    applied,
                    intervention if person else -1,
                    ramp <= RAMP,
                    success,
                    end,
                )
            )
            for picture in pictures:
                records.frames.append(
                    CameraFrame(
                        session=self.session,
                        rec_seq=self._next(),
                        camera=picture.camera,
                        counter=index,
                        t_source_ns=self.t_ns + 4_000_000,
                        width=640,
                        height=480,
                        jpeg=simplejpeg.encode_jpeg(picture.rgb, quality=85),
                        episode_id=episode_id,
                        seq=seq,
                    )
                )
            if end:
                break
        steps = [step for step in records.steps if step.control_mode not in (ControlMode.PAUSED, ControlMode.SAFETY_HOLD)]
        outcome = Outcome.ABORTED if aborted else Outcome.SUCCESS if success else Outcome.FAILURE
        records.end = EpisodeEnd(
            session=self.session,
            rec_seq=self._next(),
            episode_id=episode_id,
            outcome=outcome,
            outcome_source=OutcomeSource.TASK,
            event_step=len(steps) - 1,
            steps=len(steps),
            human_steps=human_steps,
            takeovers=intervention + 1,
            autonomous=human_steps == 0,
            t_ns=self.t_ns,
            wall_ns=self.wall_ns,
        )
        path, digest, size = write_episode(self.workspace, records)
        entry = entry_of(records, path.relative_to(self.workspace.path).as_posix(), digest, size)
        self.catalog.add_episode(entry.session, entry.episode, entry.segments)
        self.wall_ns += 2_000_000_000
        return records.end

    def _step(
        self,
        episode_id,
        index,
        run,
        kind,
        version,
        reading,
        following,
        policy,
        hand=None,
        applied=None,
        intervention=-1,
        ramping=False,
        success=False,
        end=False,
        held=False,
    ) -> Step:
        self.seq += 1
        self.t_ns += STEP_NS
        self.wall_ns += STEP_NS
        person = hand is not None
        mode = ControlMode.SAFETY_HOLD if held else ControlMode.POLICY
        if person:
            mode = ControlMode.TRANSITION if ramping else ControlMode.HUMAN
        action = [0.0] * len(policy) if held else applied.tolist()
        return Step(
            session=self.session,
            rec_seq=self._next(),
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
            mode=Mode.HOLD if held else Mode.TAKEOVER if person else Mode.POLICY,
            control_mode=mode,
            hold_reason="repeated_clamp" if held else "",
            observation=reading.observation.tolist(),
            next_observation=following.observation.tolist(),
            source=[Source.NONE if held else Source.HUMAN if person else Source.POLICY],
            policy_action=policy.tolist(),
            policy_from_seq=self.seq - 1,
            policy_version=version,
            human_action=hand.tolist() if person else None,
            asked_action=action,
            action=action,
            intervention_id=intervention,
            device_id="scripted" if person else "",
            device_alive=person,
            reward=float(success),
            terminated=success,
            truncated=end and not success,
        )
