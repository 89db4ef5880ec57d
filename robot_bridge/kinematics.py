"""Differential inverse kinematics: damped least squares on MuJoCo's Jacobians, tool kept pointing straight down."""

import mujoco
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_DAMPING = 1e-3
_POSTURE_GAIN = 0.02


def yaw_of(rotation: FloatArray) -> float:
    """Yaw (rad) of a tool rotation, (9,) or (3, 3) row-major, whose x axis lies near the horizontal plane."""
    flat = rotation.reshape(-1)
    return float(np.arctan2(flat[3], flat[0]))


def wrap(angle: float) -> float:
    """``angle`` (rad) in [-pi, pi)."""
    return float((angle + np.pi) % (2.0 * np.pi) - np.pi)


class ArmKinematics:
    """Inverse kinematics of the first ``joints`` degrees of freedom of ``model`` for the site ``site``.

    Works on a scratch `MjData`, so the simulated state is never touched; the result is a function of its arguments alone.
    """

    def __init__(self, model: mujoco.MjModel, site: str, posture: FloatArray) -> None:
        self._model = model
        self._data = mujoco.MjData(model)
        self._site = model.site(site).id
        self._posture = posture
        self._joints = len(posture)
        self._jacobian = np.zeros((6, model.nv))
        self._error = np.zeros(6)
        self._identity = np.eye(6) * _DAMPING**2
        self._low = model.jnt_range[: self._joints, 0].copy()
        self._high = model.jnt_range[: self._joints, 1].copy()

    def solve(self, joints: FloatArray, position: FloatArray, yaw: float, iterations: int = 2) -> FloatArray:
        """Joint angles (J,) rad that bring the tool to ``position`` (3,) m and ``yaw`` rad, starting from ``joints``.

        Each iteration is one damped Gauss-Newton step; two follow a target that moves by millimetres to within microns.
        """
        solution = joints.copy()
        for _ in range(iterations):
            self._step(solution, position, yaw)
        return solution

    def error_m(self, joints: FloatArray, position: FloatArray) -> float:
        """Distance (m) between ``position`` and where ``joints`` put the tool."""
        self._data.qpos[: self._joints] = joints
        mujoco.mj_kinematics(self._model, self._data)
        return float(np.linalg.norm(position - self._data.site_xpos[self._site]))

    def _step(self, joints: FloatArray, position: FloatArray, yaw: float) -> None:
        model, data, error = self._model, self._data, self._error
        data.qpos[: self._joints] = joints
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacSite(model, data, self._jacobian[:3], self._jacobian[3:], self._site)
        jacobian = self._jacobian[:, : self._joints]
        error[:3] = position - data.site_xpos[self._site]
        error[3:] = _rotation_error(data.site_xmat[self._site], yaw)
        rest = _POSTURE_GAIN * (self._posture - joints)
        joints += rest + jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + self._identity, error - jacobian @ rest)
        np.clip(joints, self._low, self._high, out=joints)


def _rotation_error(rotation: FloatArray, yaw: float) -> FloatArray:
    """Small-angle rotation vector (3,) from ``rotation`` (9,) to "tool down at ``yaw``": half the sum of the axes' cross products."""
    c, s = np.cos(yaw), np.sin(yaw)
    m = rotation
    # columns of the matrix are the tool's axes; wanted: x (c, s, 0), y (s, -c, 0), z (0, 0, -1)
    return 0.5 * np.array([(m[7] * c - m[6] * s - m[5]), (m[6] * c + m[7] * s + m[2]), (m[0] * s - m[3] * c - m[1] * c - m[4] * s)])
