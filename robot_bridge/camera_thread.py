"""Pictures for people: captured on the control thread, rendered and JPEG-encoded once on a thread of their own."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import simplejpeg

from takeover.data.schema import CameraFrame, CameraSpec, PolicyImage
from takeover.robot_bridge.camera_watch import CameraWatch
from takeover.robot_bridge.cameras import CameraSource
from takeover.robot_bridge.picture_quality import LEVELS, Level, PictureQuality
from takeover.robot_bridge.policy_images import policy_images
from takeover.robot_bridge.protocol import Endpoints, Publisher
from takeover.robot_bridge.record_log import MAX_BACKLOG_BYTES, RecordLog
from takeover.robot_bridge.robots.base import Picture

log = logging.getLogger("bridge.cameras")

MAX_PICTURE_BACKLOG_BYTES = 512 * 1024
RETRY_S = 1.0


class CameraThread:
    """Newest capture wins: a slow renderer skips, it never queues. ``synchronous`` (lockstep): `offer` renders before it returns."""

    def __init__(
        self, source: CameraSource, endpoints: Endpoints, log_: RecordLog, *, synchronous: bool, policy_cameras: Sequence[str] = ()
    ) -> None:
        """``policy_cameras``: whose frames are made small for the policy, too."""
        self.source = source
        self._policy_cameras = list(policy_cameras)
        self._policy_images: list[PolicyImage] = []
        self.specs: list[CameraSpec] = source.specs
        self.error = ""
        self._records = log_
        self.quality = PictureQuality()
        self._emitted: dict[str, int] = {}
        self.pictures_not_recorded = 0
        self._remote = endpoints.over_network("state") is not None
        endpoints.check_cameras([spec.name for spec in self.specs])
        if dark := [f"{spec.name} has {spec.rate_hz:g}" for spec in self.specs if not spec.rate_hz > 0]:
            raise ValueError(f"CameraSpec.rate_hz, pictures a second, must be above 0: {', '.join(dark)}")
        self._publishers: dict[str, Publisher[CameraFrame]] = {
            spec.name: Publisher(endpoints, f"camera/{spec.name}", CameraFrame, queue=2) for spec in self.specs
        }
        self._synchronous = synchronous
        self._slot: tuple[Any, str, int, Sequence[float]] | None = None
        self._condition = threading.Condition()
        self._stopping = False
        self._period_ns = int(1e9 / max(spec.rate_hz for spec in self.specs))
        self._next_ns = 0
        self._source_ns: dict[str, int] = {}
        self._watch = CameraWatch({spec.name: spec.rate_hz for spec in self.specs})
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start rendering and wait for the first pictures, so that rendering threads exist before anything is prioritised."""
        if self._synchronous:
            return
        self._thread = threading.Thread(target=self._run, name="cameras", daemon=True)
        self._thread.start()

    def offer(self, episode_id: str, seq: int, place: Sequence[float] = ()) -> None:
        """Control thread: capture the scene as it is now, at the cameras' rate. ``episode_id`` "": publish only. ``place``: the tool, m."""
        now = time.monotonic_ns()
        if not self._synchronous and now < self._next_ns - self._period_ns // 4:
            return
        self._next_ns = max(self._next_ns + self._period_ns, now)
        captured = self.source.capture()
        if self._synchronous:
            self._render(captured, episode_id, seq, place)
            return
        with self._condition:
            self._slot = (captured, episode_id, seq, place)
            self._condition.notify()

    def newest_policy_images(self) -> list[PolicyImage]:
        """The policy's pictures of the newest frames; in lockstep, those of the last `offer`."""
        return self._policy_images

    def policy_images_now(self) -> list[PolicyImage]:
        """Lockstep: of the scene as it is now, neither published nor recorded. In real time the newest ones."""
        if self._synchronous and self._policy_cameras:
            return policy_images(self.source.pictures(self.source.capture()), self._policy_cameras)
        return self._policy_images

    def ages_ms(self, now_ns: int) -> dict[str, float]:
        """Since each camera's newest picture was taken; -1: none yet."""
        return {spec.name: (now_ns - self._source_ns[spec.name]) / 1e6 if spec.name in self._source_ns else -1.0 for spec in self.specs}

    def worst_age_ms(self) -> float:
        ages = self.ages_ms(time.monotonic_ns()).values()
        return -1.0 if any(age < 0 for age in ages) else max(ages)

    def frozen(self, now_ns: int) -> list[str]:
        """Cameras that gave no new picture for too long (or never one), or always the same although the robot has moved."""
        return [spec.name for spec in self.specs if self._watch.frozen(spec.name, now_ns)]

    def robot_reset(self, begun_ns: int, ended_ns: int) -> None:
        """Control thread: between these it offered nothing."""
        self._watch.robot_reset(begun_ns, ended_ns)

    def close(self) -> None:
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread is not None:
            self._thread.join(2.0)
        else:
            self._close_sockets()

    def _run(self) -> None:
        try:
            while (slot := self._next_slot()) is not None:
                try:
                    self._render(*slot)
                    self.error = ""
                except Exception as error:
                    # without pictures the robot can still be driven by whoever sees it: the gate and the picture ages say what happened
                    log.exception("no pictures; trying again in %.0f s", RETRY_S)
                    self.error = f"{type(error).__name__}: {error}"
                    self.source.close()
                    with self._condition:
                        self._condition.wait_for(lambda: self._stopping, RETRY_S)
        except Exception as error:
            log.exception("cameras stopped")
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self._close_sockets()

    def _next_slot(self) -> tuple[Any, str, int, Sequence[float]] | None:
        """The newest capture, waited for; None at the end."""
        with self._condition:
            self._condition.wait_for(lambda: self._slot is not None or self._stopping)
            slot, self._slot = self._slot, None
            return None if self._stopping else slot

    def _close_sockets(self) -> None:
        self.source.close()
        for publisher in self._publishers.values():
            publisher.close()

    def _render(self, captured: Any, episode_id: str, seq: int, place: Sequence[float]) -> None:
        pictures = self.source.pictures(captured)
        if self._policy_cameras:
            self._policy_images = policy_images(pictures, self._policy_cameras)
        for picture in pictures:
            self._emit(picture, episode_id, seq, place)

    def _emit(self, picture: Picture, episode_id: str, seq: int, place: Sequence[float]) -> None:
        best, level = LEVELS[0], self.quality.level

        def frame(jpeg: bytes, width: int, height: int) -> Callable[[str, int], CameraFrame]:
            return lambda session, rec_seq: CameraFrame(
                session=session,
                rec_seq=rec_seq,
                camera=picture.camera,
                counter=picture.counter,
                t_source_ns=picture.t_source_ns,
                width=width,
                height=height,
                jpeg=jpeg,
                episode_id=episode_id,
                seq=seq,
            )

        new = self._watch.judge(picture, time.monotonic_ns(), place)
        if new:
            self._source_ns[picture.camera] = picture.t_source_ns
        wanted = bool(new and episode_id)
        # over a network steps come first: pictures are left out of the record when they pile up
        fits = self._records.bytes < (MAX_PICTURE_BACKLOG_BYTES if self._remote else MAX_BACKLOG_BYTES)
        self.pictures_not_recorded += wanted and not fits
        number = self._emitted[picture.camera] = self._emitted.get(picture.camera, -1) + 1
        full = encoded(picture, best) if level == best or (wanted and fits) else None
        if number % level.every == 0:
            shown = full if full is not None and level == best else encoded(picture, level)
            self._publishers[picture.camera].send(frame(*shown)(self._records.session, -1))
        if wanted and fits and full is not None:
            self._records.append(frame(*full))


def encoded(picture: Picture, level: Level) -> tuple[bytes, int, int]:
    """JPEG, width and height of ``picture`` at ``level``."""
    rgb = picture.rgb if level.stride == 1 else np.ascontiguousarray(picture.rgb[:: level.stride, :: level.stride])
    jpeg = simplejpeg.encode_jpeg(rgb, quality=level.quality, colorspace="RGB", colorsubsampling="420", fastdct=True)
    return jpeg, rgb.shape[1], rgb.shape[0]
