"""The alternative that `benchmarks.control` is compared with: one plain Python process that does the same work at the same rate.

Simulated robot, scripted operator, policy inference, safety filter, two cameras rendered and encoded, every step on disk, a learner that
trains on the steps, a window's worth of drawing. Two styles: ``interleaved``, one thread that does everything in turn, and
``threads``, the control loop in one thread and the learner, the recorder, the cameras and the drawing in others. ``--load none``: no
learner, no pictures, no drawing.
"""

import argparse
import json
import os
import queue
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import simplejpeg

from benchmarks.inprocess_loop import Loop, _Driver
from takeover.data.schema import EpisodeKind, RunConfig, Step
from takeover.data.seeding import start_seed
from takeover.policies.torch_setup import configure
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.robots.sim_cameras import SimCameras

CAMERA_HZ = 20.0
DEMONSTRATIONS = 3


class PacedLoop(Loop):
    """`Loop` in real time, with what a station also does."""

    def __init__(self, config: RunConfig, hz: float, pictures: bool, out: Path) -> None:
        super().__init__(config)
        self.robot = SimRobot(config.task, config.task_parameters, hz)
        self.spec = self.robot.spec
        self.period_s = 1.0 / hz
        self.cameras = SimCameras(self.robot) if pictures else None
        self.every = max(1, round(hz / CAMERA_HZ))
        self.out = open(out, "ab")  # noqa: SIM115 - closed with the process
        self.encoder = msgspec.msgpack.Encoder()
        self.in_threads = False
        self.lateness_s: list[float] = []
        self.to_action_s: list[float] = []

    def work_in_threads(self) -> None:
        """Learner, recorder, cameras and drawing get a thread each, as fast as they can keep up."""
        self.in_threads = True
        self.to_learner: queue.SimpleQueue[Step] = queue.SimpleQueue()
        self.to_disk: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.newest_picture = b""
        self.captured: Any = None
        jobs = [self._record_thread] + ([self._camera_thread, self._draw_thread] if self.cameras is not None else [])
        jobs += [self._learn_thread] if self.training.versions else []
        for job in jobs:
            threading.Thread(target=job, daemon=True).start()

    def _learn_thread(self) -> None:
        while True:
            self.training.handle(self.to_learner.get())

    def _record_thread(self) -> None:
        while True:
            time.sleep(0.2)
            while not self.to_disk.empty():
                self.out.write(self.to_disk.get())
            self.out.flush()
            os.fsync(self.out.fileno())

    def _camera_thread(self) -> None:
        cameras = self.cameras
        while cameras is not None:
            time.sleep(1.0 / CAMERA_HZ)
            if self.captured is not None:
                for picture in cameras.pictures(self.captured):
                    self.newest_picture = encoded(picture.rgb)
                    self.to_disk.put(self.newest_picture)

    def _draw_thread(self) -> None:
        from PySide6.QtGui import QImage, QPainter

        canvas = QImage(1680, 1050, QImage.Format.Format_RGB32)
        while True:
            time.sleep(1.0 / CAMERA_HZ)
            image = QImage.fromData(self.newest_picture) if self.newest_picture else None
            if image is not None:
                painter = QPainter(canvas)
                painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
                painter.drawImage(canvas.rect(), image)
                painter.end()

    def paced(self, seconds: float) -> None:
        """Policy episodes at the control rate; like a control loop, a period that was missed whole is dropped."""
        end = time.monotonic() + seconds
        number = 0
        while time.monotonic() < end:
            self.robot.reset(start_seed(self.config.seed, EpisodeKind.POLICY, number))
            self._paced_episode(number, end)
            number += 1

    def _paced_episode(self, number: int, end: float) -> None:
        identity = f"policy-{number}"
        kind = EpisodeKind.POLICY if self.training.versions else EpisodeKind.DEMONSTRATION
        driver = _Driver(self, kind, number, identity)
        deadline = time.monotonic()
        for step in range(self.spec.max_steps):
            time.sleep(max(0.0, deadline - time.monotonic()))
            began = time.monotonic()
            if step:
                self.lateness_s.append(began - deadline)
            record, success = driver.step(step)
            self.to_action_s.append(time.monotonic() - began)
            message = Step(session="bench", rec_seq=self.records, **record)
            if self.in_threads:
                self.to_disk.put(self.encoder.encode(message))
                self.to_learner.put(message)
                if self.cameras is not None and step % self.every == 0:
                    self.captured = self.cameras.capture()
            else:
                self._in_turn(message, step)
            self.records += 1
            deadline += self.period_s
            if time.monotonic() > deadline + self.period_s:
                deadline = time.monotonic()
            if success or time.monotonic() > end:
                break

    def _in_turn(self, message: Step, step: int) -> None:
        self.out.write(self.encoder.encode(message))
        if self.cameras is not None and step % self.every == 0:
            for picture in self.cameras.pictures(self.cameras.capture()):
                self.out.write(encoded(picture.rgb))
        if step % round(0.2 / self.period_s) == 0:
            self.out.flush()
            os.fsync(self.out.fileno())
        if self.training.versions:
            self.training.handle(message)  # with the learner's updates


def encoded(rgb: Any) -> bytes:
    return bytes(simplejpeg.encode_jpeg(rgb, quality=85, colorspace="RGB", colorsubsampling="420", fastdct=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hz", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--load", choices=["none", "full"], default="full")
    parser.add_argument("--style", choices=["interleaved", "threads"], default="threads")
    parser.add_argument("--pictures", action="store_true")
    arguments = parser.parse_args()
    configure(1)
    learns = arguments.load == "full"
    with tempfile.TemporaryDirectory(prefix="takeover-plain-") as folder:
        config = RunConfig(
            session_id="bench",
            workspace=folder,
            sockets=folder,
            operator="scripted",
            clock="lockstep",
            demonstrations=DEMONSTRATIONS,
            learner_parameters={"clone_updates": 20.0},
        )
        loop = PacedLoop(config, arguments.hz, arguments.pictures, Path(folder) / "steps.bin")
        if learns:
            for number in range(DEMONSTRATIONS):
                loop.episode(EpisodeKind.DEMONSTRATION, number)
            while loop.training.phase == "cloning":
                loop.training.work()
        if arguments.style == "threads":
            loop.work_in_threads()
        loop.paced(arguments.seconds)
    print(json.dumps({"lateness_ms": quantiles(loop.lateness_s), "observation_to_action_ms": quantiles(loop.to_action_s)}), flush=True)
    os._exit(0)  # the threads never end


def quantiles(seconds: list[float]) -> dict[str, Any]:
    """Milliseconds at p50, p99, p99.9 and the largest, with n."""
    if not seconds:
        return {"n": 0}
    values = np.array(seconds) * 1000.0
    named = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    return {name: round(float(np.quantile(values, q)), 3) for name, q in named.items()} | {
        "max": round(float(values.max()), 3),
        "n": len(values),
    }


if __name__ == "__main__":
    main()
