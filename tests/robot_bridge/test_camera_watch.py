"""Whether a camera still sees: counter, stamp and pixels."""

import numpy as np
import pytest

from takeover.robot_bridge.camera_watch import CameraWatch
from takeover.robot_bridge.robots.base import Picture

PERIOD_NS = 50_000_000
START = (0.4, 0.0, 0.2)


class Camera:
    """Twenty pictures a second, judged as they come; ``counts``, ``ticks`` and ``sees`` say what of them is alive."""

    def __init__(self) -> None:
        self.watch = CameraWatch({"front": 20.0})
        self.now_ns, self.counter, self.t_ns, self.shade = 10**12, 0, 0, 0
        self.rgb = np.zeros((48, 64, 3), np.uint8)

    def shoot(self, place: tuple[float, ...] = START, *, counts: bool = True, ticks: bool = True, sees: bool = True) -> bool:
        self.now_ns += PERIOD_NS
        self.counter += counts
        self.t_ns = self.now_ns if ticks else self.t_ns
        self.shade += sees
        self.rgb[20:30, 20:30] = self.shade
        return self.watch.judge(Picture("front", self.counter, self.t_ns, self.rgb.copy()), self.now_ns, place)

    @property
    def frozen(self) -> bool:
        return self.watch.frozen("front", self.now_ns + PERIOD_NS)


def test_a_camera_that_never_gave_a_picture_is_frozen():
    assert CameraWatch({"front": 20.0}).frozen("front", 0)


def test_a_camera_that_counts_ticks_and_sees_is_not_frozen():
    camera = Camera()
    assert [camera.shoot() for _ in range(8)] == [True] * 8
    assert not camera.frozen


@pytest.mark.parametrize("dead", ["counts", "ticks"])
def test_a_counter_or_a_stamp_that_stands_freezes_it_within_three_pictures(dead):
    camera = Camera()
    camera.shoot()
    new = []
    while not camera.frozen and len(new) < 20:
        new.append(camera.shoot(**{dead: False}))
    assert new == [False] * 2
    assert camera.shoot()
    assert not camera.frozen


def test_a_stamp_that_jumps_back_costs_one_picture():
    camera = Camera()
    camera.shoot()
    old = camera.watch.judge(Picture("front", 90, 5, camera.rgb), camera.now_ns, START)
    then = camera.watch.judge(Picture("front", 91, 6, camera.rgb), camera.now_ns, START)
    assert (old, then) == (False, True)


def test_equal_pixels_of_a_still_scene_are_fine_for_ever():
    camera = Camera()
    for _ in range(100):
        camera.shoot(sees=False)
    assert not camera.frozen


def test_equal_pixels_after_a_motion_are_not():
    camera = Camera()
    camera.shoot()
    near = (START[0], START[1] + 0.027, START[2])
    far = (START[0], START[1] + 0.033, START[2])
    for _ in range(6):
        camera.shoot(near, sees=False)
    assert not camera.frozen
    for _ in range(2):
        assert not camera.frozen
        camera.shoot(far, sees=False)
    assert camera.frozen
    camera.shoot(far)
    assert not camera.frozen, "it sees again"
    for _ in range(6):
        camera.shoot(far, sees=False)
    assert not camera.frozen, "what counts is the motion since the pixels last changed"


def test_without_a_place_pixels_are_not_judged():
    camera = Camera()
    for _ in range(10):
        camera.shoot((), sees=False)
    assert not camera.frozen


MS = 1_000_000


def test_the_time_of_a_reset_is_no_silence():
    camera = Camera()
    camera.shoot()
    begun = camera.now_ns + 10 * MS
    camera.watch.robot_reset(begun, begun + 400 * MS)
    assert not camera.watch.frozen("front", begun + 410 * MS)
    assert not camera.watch.frozen("front", begun + 504 * MS), "10 ms before it and 104 after"
    assert camera.watch.frozen("front", begun + 506 * MS)
    camera.now_ns = begun + 400 * MS
    camera.shoot()
    assert camera.watch.frozen("front", camera.now_ns + 116 * MS), "what was over before the newest picture excuses nothing"


def test_a_reset_that_ends_while_a_picture_comes_excuses_what_is_left_of_it():
    camera = Camera()
    camera.shoot()
    camera.watch.robot_reset(camera.now_ns - 100 * MS, camera.now_ns + 100 * MS)
    assert not camera.watch.frozen("front", camera.now_ns + 214 * MS)
    assert camera.watch.frozen("front", camera.now_ns + 216 * MS)


def test_who_was_blind_before_a_reset_is_so_after_it():
    camera = Camera()
    camera.shoot()
    begun = camera.now_ns + 140 * MS
    camera.watch.robot_reset(begun, begun + 100 * MS)
    assert camera.watch.frozen("front", begun + 101 * MS)


@pytest.mark.parametrize(("rate_hz", "silence_ms"), [(60.0, 115), (20.0, 115), (10.0, 230)])
def test_a_slow_camera_is_waited_for_longer(rate_hz, silence_ms):
    watch = CameraWatch({"front": rate_hz})
    watch.judge(Picture("front", 1, 1, np.zeros((48, 64, 3), np.uint8)), 0)
    assert [watch.frozen("front", (silence_ms + more) * MS) for more in (-1, 1)] == [False, True]
