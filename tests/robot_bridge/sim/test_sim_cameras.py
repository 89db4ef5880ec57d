"""The simulated cameras, really rendered through EGL."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import mujoco
import numpy as np
import pytest

from takeover.robot_bridge.cameras import CameraSource
from takeover.robot_bridge.robots import sim_model
from takeover.robot_bridge.robots.base import Picture
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.robots.sim_camera_geometry import HEIGHT, WIDTH, front_axes, project, view_axes
from takeover.robot_bridge.robots.sim_cameras import SimCameras


@pytest.fixture(scope="module")
def scene() -> Iterator[tuple[SimRobot, SimCameras]]:
    robot = SimRobot("pick-lift")
    cameras = SimCameras(robot)
    yield robot, cameras
    cameras.close()


def shoot(cameras: SimCameras) -> dict[str, Picture]:
    return {picture.camera: picture for picture in cameras.pictures(cameras.capture())}


def green(rgb: np.ndarray) -> np.ndarray:
    """Mask of what has the hue of the task's object."""
    red, other, blue = (rgb[..., i].astype(float) for i in range(3))
    return (other > 1.6 * red) & (other > blue) & (other > 40)


def test_two_cameras_with_pictures_counters_and_times(scene: tuple[SimRobot, SimCameras]) -> None:
    robot, cameras = scene
    source: CameraSource = cameras
    assert [spec.name for spec in source.specs] == ["front", "wrist"]
    assert robot.spec.cameras == source.specs
    assert SimRobot("pick-lift").spec.cameras == []
    robot.reset(0)
    first, second = shoot(cameras), shoot(cameras)
    for name in ("front", "wrist"):
        assert first[name].rgb.shape == (HEIGHT, WIDTH, 3)
        assert first[name].rgb.dtype == np.uint8
        assert first[name].rgb.std() > 20  # something is there to be seen
        assert second[name].counter > first[name].counter
        assert second[name].t_source_ns > first[name].t_source_ns
        assert np.array_equal(first[name].rgb, second[name].rgb)  # a still scene renders alike


def test_projection_says_where_the_object_appears(scene: tuple[SimRobot, SimCameras]) -> None:
    robot, cameras = scene
    for seed in range(4):
        robot.reset(seed)
        u, v = project("front", robot.advice().values["cube_pose"][:3])
        rows, columns = np.nonzero(green(shoot(cameras)["front"].rgb))
        assert len(rows) > 300
        assert columns.mean() == pytest.approx(u, abs=8)
        assert rows.mean() == pytest.approx(v, abs=8)


def test_projection_agrees_with_the_renderers_camera() -> None:
    robot = SimRobot("peg-insert")
    model = sim_model.build_model(robot.task.scene(robot.parameters), visual=True)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    rotation = data.cam_xmat[model.camera("front").id].reshape(3, 3)
    right, down, forward = front_axes()
    assert rotation == pytest.approx(np.stack([right, -down, -forward], axis=1), abs=1e-6)


def test_view_frame_is_level_and_points_away_from_the_viewer() -> None:
    right, away = view_axes()
    assert np.linalg.norm(right) == pytest.approx(1.0)
    assert right @ away == pytest.approx(0.0, abs=1e-9)
    base_u, base_v = project("front", (0.0, 0.0, 0.05))
    right_u, _ = project("front", (*(0.05 * right), 0.05))
    _, away_v = project("front", (*(0.05 * away), 0.05))
    assert right_u > base_u + 20
    assert away_v < base_v - 10  # further away is higher up in the picture


def test_projection_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="only 'front'"):
        project("wrist", (0, 0, 0))
    with pytest.raises(ValueError, match="behind"):
        project("front", (2.0, -2.0, 1.0))


def test_motion_is_seen_and_a_frozen_camera_repeats_its_picture(scene: tuple[SimRobot, SimCameras]) -> None:
    robot, cameras = scene
    robot.reset(1)
    before = shoot(cameras)
    robot.inject("frozen_camera", 1.0)
    for _ in range(5):
        robot.apply(np.array([1.0, 0.0, -1.0, 0.0, 1.0]))
        robot.advance()
    frozen = shoot(cameras)
    robot.inject("frozen_camera", 0.0)
    after = shoot(cameras)
    for name in ("front", "wrist"):
        assert frozen[name].counter == before[name].counter
        assert frozen[name].t_source_ns == before[name].t_source_ns
        assert np.array_equal(frozen[name].rgb, before[name].rgb)
        assert after[name].counter > before[name].counter
        assert (np.abs(after[name].rgb.astype(int) - before[name].rgb) > 10).mean() > 0.01


@pytest.mark.parametrize(("how", "ticks"), [(2.0, False), (3.0, True)])
def test_a_frozen_camera_may_go_on_counting_and_ticking(scene: tuple[SimRobot, SimCameras], how: float, ticks: bool) -> None:
    robot, cameras = scene
    robot.reset(1)
    before = shoot(cameras)
    robot.inject("frozen_camera", how)
    robot.apply(np.array([1.0, 0.0, -1.0, 0.0, 1.0]))
    robot.advance()
    frozen = shoot(cameras)
    robot.inject("frozen_camera", 0.0)
    for name in ("front", "wrist"):
        assert frozen[name].counter > before[name].counter
        assert (frozen[name].t_source_ns > before[name].t_source_ns) is ticks
        assert np.array_equal(frozen[name].rgb, before[name].rgb)


def test_a_jittered_camera_and_dim_light_change_the_picture() -> None:
    pictures = []
    for parameters in ({}, {"camera_jitter_m": 0.03}, {"light": 0.4}):
        robot = SimRobot("peg-insert", parameters)
        robot.reset(0)
        cameras = SimCameras(robot)
        pictures.append(shoot(cameras)["front"].rgb.astype(float))
        cameras.close()
    assert np.abs(pictures[1] - pictures[0]).mean() > 2
    assert pictures[2].mean() < 0.85 * pictures[0].mean()


def test_renders_on_another_thread_than_it_was_made_on() -> None:
    robot = SimRobot("peg-insert")
    cameras = SimCameras(robot)
    captured, results = cameras.capture(), []

    def work() -> None:
        results.extend(cameras.pictures(captured))
        cameras.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert [picture.camera for picture in results] == ["front", "wrist"]
    assert green(results[0].rgb).sum() > 300  # the peg


def test_no_opengl_is_one_clear_error() -> None:
    """In a process of its own, told to use a platform that cannot render off screen."""
    code = (
        "from takeover.robot_bridge.robots.sim import SimRobot\n"
        "from takeover.robot_bridge.robots.base import RobotError\n"
        "from takeover.robot_bridge.robots.sim_cameras import SimCameras\n"
        "try: SimCameras(SimRobot())\n"
        "except RobotError as error: print(error)\n"
    )
    environment = {"PYOPENGL_PLATFORM": "glx", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment, check=True)
    assert "no OpenGL for the cameras" in done.stdout
    assert "apt-get install libegl1" in done.stdout
