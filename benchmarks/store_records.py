"""Records such as a bridge sends: 100 Hz state, two 640x480 cameras at 30 Hz with pictures of a simulated arm."""

import time
from collections.abc import Iterator

import numpy as np
import simplejpeg

from takeover.data.schema import (
    AnyRecord,
    CameraFrame,
    ControlMode,
    EpisodeEnd,
    EpisodeKind,
    EpisodeStart,
    Mode,
    Outcome,
    OutcomeSource,
    Source,
    Step,
)
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.robots.sim_cameras import SimCameras

HZ, CAMERA_HZ = 100.0, 30.0
PICTURES = 12  # different ones, used in turn


def encoded_pictures() -> dict[str, list[bytes]]:
    """{camera: JPEGs} of the arm in different poses."""
    robot = SimRobot("peg-insert")
    robot.connect()
    cameras, made = SimCameras(robot), {}
    rng = np.random.default_rng(0)
    for i in range(PICTURES):
        robot.reset(i)
        for _ in range(10):
            robot.apply(rng.uniform(-1.0, 1.0, robot.spec.action.size))
            robot.advance()
        for picture in cameras.pictures(cameras.capture()):
            jpeg = bytes(simplejpeg.encode_jpeg(picture.rgb, quality=85, colorspace="RGB", colorsubsampling="420", fastdct=True))
            made.setdefault(picture.camera, []).append(jpeg)
    cameras.close()
    robot.close()
    return made


class Maker:
    """One session's records: contiguous numbers, random values from a seed."""

    pictures: dict[str, list[bytes]] = {}  # noqa: RUF012 - made once for all

    def __init__(self, session: str = "bench") -> None:
        if not Maker.pictures:
            Maker.pictures = encoded_pictures()
        self.session = session
        self.spec = SimRobot("peg-insert", control_hz=HZ).spec
        self._rng = np.random.default_rng(0)
        self._records = self._seq = self._episodes = self._frames = 0

    def _next(self) -> int:
        self._records += 1
        return self._records - 1

    def episode(self, seconds: float) -> list[AnyRecord]:
        return [record for record, _ in self.timed_episode(seconds)]

    def timed_episode(self, seconds: float) -> Iterator[tuple[AnyRecord, float]]:
        """Each record and when it is due, in seconds from the episode's start."""
        number, self._episodes = self._episodes, self._episodes + 1
        name = f"{self.session}-{number:04d}"
        steps, frames = round(seconds * HZ), round(seconds * CAMERA_HZ)
        observations = self._rng.normal(size=(steps + 1, self.spec.observation.size)).tolist()
        yield self._start(name, number), 0.0
        shown = 0
        for step in range(steps):
            yield self._step(name, step, observations[step], observations[step + 1], step == steps - 1), step / HZ
            while shown < frames and shown / CAMERA_HZ <= step / HZ:
                for camera, jpegs in self.pictures.items():
                    yield self._frame(name, camera, jpegs[shown % len(jpegs)]), step / HZ
                shown += 1
        yield self._end(name, steps), steps / HZ

    def _start(self, name: str, number: int) -> EpisodeStart:
        return EpisodeStart(
            session=self.session,
            rec_seq=self._next(),
            episode_id=name,
            number=number,
            kind=EpisodeKind.POLICY,
            spec=self.spec,
            station_id="bench",
            operator="op-01",
            start_seed=number,
            policy_version=1,
            policy_sha256="0" * 64,
            config_sha256="0" * 64,
            wall_ns=time.time_ns(),
            t_ns=time.monotonic_ns(),
        )

    def _step(self, name: str, step: int, before: list[float], after: list[float], last: bool) -> Step:
        human = 40 <= step % 200 < 90
        size, groups = self.spec.action.size, len(self.spec.action.groups)
        action = self._rng.uniform(-1.0, 1.0, size).tolist()
        now = time.monotonic_ns()
        self._seq += 1
        return Step(
            session=self.session,
            rec_seq=self._next(),
            seq=self._seq - 1,
            episode_id=name,
            episode_step=step,
            train_step=self._seq,
            run_id=0,
            kind=EpisodeKind.POLICY,
            t_observation_ns=now,
            t_decision_ns=now + 1_000_000,
            t_applied_ns=now + 2_000_000,
            wall_ns=time.time_ns(),
            mode=Mode.TAKEOVER if human else Mode.POLICY,
            control_mode=ControlMode.HUMAN if human else ControlMode.POLICY,
            observation=before,
            next_observation=after,
            source=[int(Source.HUMAN if human else Source.POLICY)] * groups,
            policy_action=action,
            policy_from_seq=self._seq - 1,
            policy_version=1,
            human_action=action if human else None,
            asked_action=action,
            action=action,
            intervention_id=step // 200 if human else -1,
            spread=0.1,
            scores={"novelty": 0.2},
            device_id="pad",
            device_alive=True,
            command_age_ms=12.0,
            reward=float(last),
            terminated=last,
            truncated=False,
        )

    def _frame(self, name: str, camera: str, jpeg: bytes) -> CameraFrame:
        self._frames += 1
        return CameraFrame(
            session=self.session,
            rec_seq=self._next(),
            camera=camera,
            counter=self._frames,
            t_source_ns=time.monotonic_ns(),
            width=640,
            height=480,
            jpeg=jpeg,
            episode_id=name,
            seq=self._seq - 1,
        )

    def _end(self, name: str, steps: int) -> EpisodeEnd:
        human = sum(40 <= step % 200 < 90 for step in range(steps))
        return EpisodeEnd(
            session=self.session,
            rec_seq=self._next(),
            episode_id=name,
            outcome=Outcome.SUCCESS,
            outcome_source=OutcomeSource.TASK,
            event_step=steps - 1,
            steps=steps,
            human_steps=human,
            takeovers=-(-steps // 200),
            autonomous=human == 0,
            t_ns=time.monotonic_ns(),
            wall_ns=time.time_ns(),
        )
