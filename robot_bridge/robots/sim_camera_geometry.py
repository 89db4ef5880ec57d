"""Where the simulated robot's front camera stands and how it projects: pure numbers, for the renderer and for the console alike.

Base frame: origin on the table in the middle of the work area, x away from the arm's base, z up.
"""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

WIDTH, HEIGHT = 640, 480
FRONT_POSITION_M = (0.48, -0.37, 0.36)
FRONT_TARGET_M = (0.0, 0.0, 0.108)
FRONT_FOVY_DEG = 32.5


def front_axes() -> tuple[FloatArray, FloatArray, FloatArray]:
    """Unit vectors (3,) of the front camera in the base frame: image right, image down, into the scene."""
    forward = np.array(FRONT_TARGET_M) - np.array(FRONT_POSITION_M)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    return right, np.cross(forward, right), forward


def view_axes() -> tuple[FloatArray, FloatArray]:
    """Horizontal unit vectors (2,) of the *view* frame in the base frame: to the right in the front picture, and away from the viewer."""
    right, _, forward = front_axes()
    away = forward[:2] / np.linalg.norm(forward[:2])
    return right[:2] / np.linalg.norm(right[:2]), away


def project(camera: str, point_m: npt.ArrayLike, width: int = WIDTH, height: int = HEIGHT) -> tuple[float, float]:
    """Pixel (u to the right, v down) of ``point_m`` (3,), base frame, in the picture of ``camera``.

    Only the front camera stands still; raises `ValueError` for another one and for points behind it.
    """
    if camera != "front":
        raise ValueError(f"camera {camera!r} cannot be projected to: only 'front' has a fixed pose")
    right, down, forward = front_axes()
    ray = np.asarray(point_m, np.float64) - np.array(FRONT_POSITION_M)
    depth = float(ray @ forward)
    if depth <= 1e-6:
        raise ValueError(f"point {np.round(ray, 3).tolist()} lies behind the front camera")
    focal = 0.5 * height / np.tan(np.radians(FRONT_FOVY_DEG) / 2.0)
    return width / 2.0 + focal * float(ray @ right) / depth, height / 2.0 + focal * float(ray @ down) / depth
