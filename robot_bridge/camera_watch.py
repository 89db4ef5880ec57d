"""Whether a camera still sees: its counter and its stamp advance, and its pixels change once the robot has moved."""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from takeover.robot_bridge.robots.base import Picture

FROZEN_AFTER_S = 0.115  # seen at the third step at 20 Hz, also when pictures take 35 ms to render: held within 200 ms, whenever it froze
FROZEN_AFTER_PERIODS = 2.3  # of a camera slower than 20 Hz: one picture may be lost and the next one late
MOVED_M = 0.03  # of the tool: two pictures of a still scene may be identical, two with this between them are not
BLIND_PICTURES = 2  # identical ones taken after such a motion: the camera repeats itself


@dataclass(frozen=True)
class _View:
    """The newest picture of a camera, and since when its pixels have been what they are. Replaced whole: two threads look at it."""

    counter: int
    t_source_ns: int
    new_ns: int  # when counter and stamp last advanced
    digest: int
    place: tuple[float, ...]  # of the tool when these pixels were first seen
    blind: int = 0  # pictures with these pixels since the tool was `MOVED_M` from there


class CameraWatch:
    """`judge` on the camera thread, `frozen` from any."""

    def __init__(self, rates_hz: Mapping[str, float]) -> None:
        """``rates_hz``: of every camera, by its name."""
        self._silence_ns = {name: max(FROZEN_AFTER_S, FROZEN_AFTER_PERIODS / rate) * 1e9 for name, rate in rates_hz.items()}
        self._views: dict[str, _View] = {}
        self._reset_ns = (0, 0)

    def robot_reset(self, begun_ns: int, ended_ns: int) -> None:
        """No picture is taken while the robot is put into its start state: that time counts for no camera's silence."""
        self._reset_ns = (begun_ns, ended_ns)

    def judge(self, picture: Picture, now_ns: int, place: Sequence[float] = ()) -> bool:
        """Whether ``picture`` is a new one: its counter is another and its stamp is later. ``place`` (3,) m: the tool when it was taken."""
        view, at = self._views.get(picture.camera), tuple(place)
        if view is None:
            self._views[picture.camera] = _View(picture.counter, picture.t_source_ns, now_ns, digest(picture), at)
            return True
        new = picture.counter != view.counter and picture.t_source_ns > view.t_source_ns
        # a stamp that jumped back counts from where it is now: a camera that was started again is not blind for ever
        view = replace(view, counter=picture.counter, t_source_ns=picture.t_source_ns)
        if new:
            pixels = digest(picture)
            view = replace(view, new_ns=now_ns)
            if pixels != view.digest:
                view = replace(view, digest=pixels, place=at, blind=0)
            elif at and view.place and math.dist(at, view.place) >= MOVED_M:
                view = replace(view, blind=view.blind + 1)
        self._views[picture.camera] = view
        return new

    def frozen(self, camera: str, now_ns: int) -> bool:
        """It never gave a picture, gave no new one for too long, or gives the same pixels although the robot has moved."""
        view = self._views.get(camera)
        return view is None or self._silent_ns(view, now_ns) > self._silence_ns[camera] or view.blind >= BLIND_PICTURES

    def _silent_ns(self, view: _View, now_ns: int) -> int:
        begun_ns, ended_ns = self._reset_ns
        return now_ns - view.new_ns - max(0, ended_ns - max(begun_ns, view.new_ns))


def digest(picture: Picture) -> int:
    """CRC-32 of every fourth pixel of every fourth row: a fraction of a millisecond, and the robot has moved by more than that."""
    return zlib.crc32(picture.rgb[::4, ::4].tobytes())
