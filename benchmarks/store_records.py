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
    """One session's records: contiguous numbers, random values from a seed.

    Their times are those of the clock as they are made; without ``live`` those that they would have if they were recorded now, as fast as
    they are made.
    """

    pictures: dict[str, list[bytes]] = {}  # noqa: RUF012 - made once for all

    def __init__(self, session: str = "bench", hz: float = HZ, live: bool = True) -> None:
        if not Maker.pictures:
            Maker.pictures = encoded_pictures()
        self.session = session
        self.hz, self._live = hz, live
        self._began = (time.monotonic_ns(), time.time_ns())
        self._made_s = self._due_s = 0.0  # without ``live``: when this episode began, and how far it is
        self.spec = SimRobot("peg-insert", control_hz=hz).spec
        self._rng = np.random.default_rng(0)
        self._records = self._seq = self._episodes = self._frames = 0

    def _next(self) -> int:
        self._records += 1
        return self._records - 1

    def _now(self) -> tuple[int, int]:
        """(monotonic, wall) in nanoseconds."""
        if self._live:
            return time.monotonic_ns(), time.time_ns()
        since = int((self._made_s + self._due_s) * 1e9)
        return self._began[0] + since, self._began[1] + since

    def episode(self, seconds: float) -> list[AnyRecord]:
        return [record for record, _ in self.timed_episode(seconds)]

    def timed_episode(self, seconds: float) -> Iterator[tuple[AnyRecord, float]]:
        """Each record and when it is due, in seconds from the episode's start."""
        number, self._episodes = self._episodes, self._episodes + 1
        name = f"{self.session}-{number:04d}"
        steps, frames = round(seconds * self.hz), round(seconds * CAMERA_HZ)
        self._due_s = 0.0
        observations = self._rng.normal(size=(steps + 1, self.spec.observation.size)).tolist()
        yield self._start(name, number), 0.0
        shown = 0
        for step in range(steps):
            self._due_s = step / self.hz
            yield self._step(name, step, observations[step], observations[step + 1], step == steps - 1), step / self.hz
            while shown < frames and shown / CAMERA_HZ <= (step + 1) / self.hz:
                self._due_s = max(step / self.hz, shown / CAMERA_HZ)
                for camera, jpegs in self.pictures.items():
                    yield self._frame(name, camera, jpegs[shown % len(jpegs)]), self._due_s
                shown += 1
        self._due_s = steps / self.hz
        yield self._end(name, steps), steps / self.hz
        self._made_s += steps / self.hz + 1.0

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
            wall_ns=self._now()[1],
            t_ns=self._now()[0],
        )

    def _step(self, name: str, step: int, before: list[float], after: list[float], last: bool) -> Step:
        human = 40 <= step % 200 < 90
        size, groups = self.spec.action.size, len(self.spec.action.groups)
        action = self._rng.uniform(-1.0, 1.0, size).tolist()
        now, wall = self._now()
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
            wall_ns=wall,
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
            t_source_ns=self._now()[0],
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
            t_ns=self._now()[0],
            wall_ns=self._now()[1],
        )
