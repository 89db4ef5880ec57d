"""Front and wrist camera of the simulated robot, rendered off screen through EGL without shadows, reflections or multisampling.

`capture` copies the few numbers that the scene depends on (control thread); `pictures` renders them on the thread that calls it first,
which owns the OpenGL context from then on.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt

from takeover.data.schema import CameraSpec
from takeover.robot_bridge.robots import sim_model
from takeover.robot_bridge.robots.base import FloatArray, Picture, RobotError
from takeover.robot_bridge.robots.sim import CONTROL_HZ, SimRobot
from takeover.robot_bridge.robots.sim_camera_geometry import FRONT_POSITION_M, HEIGHT, WIDTH

CAMERAS = ("front", "wrist")
_NO_OPENGL = "no OpenGL for the cameras ({}): install it with 'apt-get install libegl1 libgl1 libgl1-mesa-dri', or run without cameras"
_PHYSICS_GROUP = 3  # geoms that only collide are not shown


@dataclass(frozen=True)
class _Captured:
    t_ns: int
    qpos: FloatArray
    variables: FloatArray
    camera_offset: FloatArray
    parameters: tuple[tuple[str, float], ...]
    frozen: int  # see SimRobot.inject


class SimCameras:
    """`CameraSource`. Raises `RobotError` when there is no OpenGL."""

    def __init__(self, robot: SimRobot) -> None:
        self._robot = robot
        self._renderer: _Renderer | None = None
        self._counter = 0
        self._latest: list[Picture] = []
        _open_gl().free()  # fail here, before anything runs, not later on the camera thread
        robot.attach_cameras(self.specs)

    @property
    def specs(self) -> list[CameraSpec]:
        return [CameraSpec(name=name, width=WIDTH, height=HEIGHT, rate_hz=CONTROL_HZ) for name in CAMERAS]

    def capture(self) -> _Captured:
        """A copy of what the scene depends on; takes microseconds."""
        robot = self._robot
        return _Captured(
            t_ns=time.monotonic_ns(),
            qpos=robot.data.qpos.copy(),
            variables=robot.variables.copy(),
            camera_offset=robot.camera_offset.copy(),
            parameters=tuple(robot.parameters.items()),
            frozen=robot.camera_fault,
        )

    def pictures(self, captured: Any) -> list[Picture]:
        """Front and wrist, (480, 640, 3) uint8 RGB. A frozen camera gives its old pictures again, with their old counter and time."""
        if captured.frozen and self._latest:
            return self._again(captured)
        if self._renderer is None or self._renderer.parameters != captured.parameters:
            self.close()
            self._renderer = _Renderer(self._robot, captured.parameters)
        self._renderer.pose(captured)
        self._counter += 1
        self._latest = [Picture(name, self._counter, captured.t_ns, self._renderer.render(name)) for name in CAMERAS]
        return self._latest

    def _again(self, captured: _Captured) -> list[Picture]:
        """The old pictures: 1 as they are, 2 with a new counter, 3 with a new counter and time."""
        if captured.frozen > 1:
            self._counter += 1
            t_ns = captured.t_ns if captured.frozen > 2 else self._latest[0].t_source_ns
            self._latest = [replace(picture, counter=self._counter, t_source_ns=t_ns) for picture in self._latest]
        return self._latest

    def close(self) -> None:
        """Call it on the thread that rendered."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


class _Renderer:
    """An OpenGL context with the visual model of one set of parameters."""

    def __init__(self, robot: SimRobot, parameters: tuple[tuple[str, float], ...]) -> None:
        self.parameters = parameters
        values = dict(parameters)
        self._task = robot.task
        self._model = sim_model.build_model(self._task.scene(values), visual=True, light=values["light"])
        self._data = mujoco.MjData(self._model)
        self._gl = _open_gl()
        self._gl.make_current()
        self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(self._model, maxgeom=400)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_HAZE):
            self._scene.flags[flag] = False
        self._option = mujoco.MjvOption()
        self._option.geomgroup[_PHYSICS_GROUP] = 0
        self._perturb = mujoco.MjvPerturb()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._viewport = mujoco.MjrRect(0, 0, WIDTH, HEIGHT)
        self._shadow = int(self._model.body("drop_shadow").mocapid[0])
        self._buffer = np.zeros((HEIGHT, WIDTH, 3), np.uint8)

    def pose(self, captured: _Captured) -> None:
        """Put the scene into the captured state."""
        model, data = self._model, self._data
        data.qpos[:] = captured.qpos
        self._task.install(model, data, captured.variables)
        model.cam_pos[model.camera("front").id] = np.array(FRONT_POSITION_M) + captured.camera_offset
        mujoco.mj_kinematics(model, data)
        tool = data.site("tool").xpos
        data.mocap_pos[self._shadow] = (tool[0], tool[1], self._task.surface_height(tool, captured.variables) + 0.0004)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_camlight(model, data)

    def render(self, camera: str) -> npt.NDArray[np.uint8]:
        self._camera.fixedcamid = self._model.camera(camera).id
        mujoco.mjv_updateScene(
            self._model, self._data, self._option, self._perturb, self._camera, int(mujoco.mjtCatBit.mjCAT_ALL), self._scene
        )
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        mujoco.mjr_readPixels(self._buffer, None, self._viewport, self._context)
        return self._buffer[::-1].copy()  # OpenGL's first row is the lowest

    def close(self) -> None:
        self._context.free()
        self._gl.free()


def _open_gl() -> Any:
    """A fresh EGL context, current on no thread. Raises `RobotError` that names the packages to install."""
    try:
        from mujoco.egl import GLContext

        return GLContext(WIDTH, HEIGHT)
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        # PyOpenGL says "'NoneType' object has no attribute ..." where the library is missing
        raise RobotError(_NO_OPENGL.format(error)) from error
