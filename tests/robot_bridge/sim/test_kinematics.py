"""Inverse kinematics on the simulated arm's model."""

import mujoco
import numpy as np
import pytest

from takeover.robot_bridge.kinematics import ArmKinematics, wrap, yaw_of
from takeover.robot_bridge.robots import sim_model
from takeover.robot_bridge.robots.sim import SimRobot


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    robot = SimRobot("peg-insert")
    return sim_model.build_model(robot.task.scene(robot.parameters), visual=False)


@pytest.mark.parametrize("pose", [(0.0, 0.0, 0.1, 0.0), (0.12, -0.1, 0.02, 0.8), (-0.12, 0.12, 0.19, -0.8)])
def test_reaches_position_and_yaw_with_the_tool_straight_down(model: mujoco.MjModel, pose: tuple[float, float, float, float]) -> None:
    kinematics = ArmKinematics(model, "tool", np.array(sim_model.HOME))
    position = np.array(pose[:3])
    joints = kinematics.solve(np.array(sim_model.HOME), position, pose[3], iterations=60)
    assert kinematics.error_m(joints, position) < 1e-5
    data = mujoco.MjData(model)
    data.qpos[: len(joints)] = joints
    mujoco.mj_kinematics(model, data)
    rotation = data.site_xmat[model.site("tool").id].reshape(3, 3)
    assert rotation[:, 2] == pytest.approx([0.0, 0.0, -1.0], abs=1e-4)
    assert yaw_of(rotation) == pytest.approx(pose[3], abs=1e-4)


def test_two_iterations_follow_a_moving_target(model: mujoco.MjModel) -> None:
    kinematics = ArmKinematics(model, "tool", np.array(sim_model.HOME))
    position = np.array([0.0, 0.0, 0.1])
    joints = kinematics.solve(np.array(sim_model.HOME), position, 0.0, iterations=60)
    for _ in range(20):
        position += np.array([0.003, -0.003, 0.002])
        joints = kinematics.solve(joints, position, 0.0)
        assert kinematics.error_m(joints, position) < 5e-5


def test_a_target_out_of_reach_leaves_joints_in_their_limits_and_an_honest_error(model: mujoco.MjModel) -> None:
    kinematics = ArmKinematics(model, "tool", np.array(sim_model.HOME))
    joints = kinematics.solve(np.array(sim_model.HOME), np.array([2.0, 0.0, 0.5]), 0.0, iterations=60)
    limits = model.jnt_range[: len(joints)]
    assert np.all(joints >= limits[:, 0])
    assert np.all(joints <= limits[:, 1])
    assert kinematics.error_m(joints, np.array([2.0, 0.0, 0.5])) > 0.5


def test_wrap() -> None:
    assert wrap(3.5 * np.pi) == pytest.approx(-0.5 * np.pi)
    assert wrap(0.3) == pytest.approx(0.3)
