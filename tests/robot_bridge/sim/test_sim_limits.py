"""What the simulated robot does not take: actions, faults, parameters, rates and states that it cannot mean."""

import numpy as np
import pytest

from takeover.robot_bridge.robots.base import RobotError
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.robots.sim_state import reseeded


@pytest.fixture(scope="module")
def robot() -> SimRobot:
    return SimRobot("peg-insert")


def test_actions_have_a_shape_and_are_finite(robot: SimRobot) -> None:
    with pytest.raises(RobotError, match=r"action of shape \(3,\); peg-insert takes \(4,\)"):
        robot.apply(np.zeros(3))
    for bad in (np.nan, np.inf):
        with pytest.raises(RobotError, match="is not finite; it was not executed"):
            robot.apply(np.array([0.0, bad, 0.0, 0.0]))


def test_an_action_beyond_full_scale_is_full_scale() -> None:
    moved = []
    for scale in (1.0, 50.0):
        robot = SimRobot("peg-insert")
        robot.reset(3)
        for _ in range(3):
            robot.apply(np.array([0.0, scale, 0.0, 0.0]))
            robot.advance()
        moved.append(robot.read().tool_position)
    np.testing.assert_array_equal(moved[0], moved[1])


def test_faults_are_known_and_finite(robot: SimRobot) -> None:
    with pytest.raises(RobotError, match="unknown fault 'earthquake' for peg-insert; known: "):
        robot.inject("earthquake", 1.0)
    with pytest.raises(RobotError, match="fault 'latency': value nan is not finite"):
        robot.inject("latency", float("nan"))


def test_parameters_and_rates_are_in_range() -> None:
    with pytest.raises(RobotError, match="control rate 30 Hz; this robot runs at 20, 50, 100 Hz"):
        SimRobot("peg-insert", control_hz=30.0)
    for bad in (9.0, -1.0, float("nan")):
        with pytest.raises(RobotError, match="task parameter friction = "):
            SimRobot("peg-insert", {"friction": bad})
    with pytest.raises(RobotError, match="unknown task parameter 'colour'; known: "):
        SimRobot("peg-insert", {"colour": 1.0})


def test_states_are_whole_of_this_task_and_finite(robot: SimRobot) -> None:
    state = robot.save()
    for damaged, why in (
        (state[:-8], "this task's states have"),
        (b"x" + state[1:], "not a simulator state of version"),
        (state[:64] + np.float64(np.nan).tobytes() + state[72:], "non-finite numbers; it is damaged"),
    ):
        with pytest.raises(RobotError, match=why):
            robot.restore(damaged)
    chance = np.random.default_rng(1)
    for damaged in (state[:-8], b"x" + state[1:], b""):
        with pytest.raises(RobotError, match="its noise cannot be varied"):
            reseeded(damaged, chance)
    assert robot.save() == state
