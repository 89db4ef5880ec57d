"""How far the tool turns: never so far that the springs that hold it work against each other."""

import numpy as np
import pytest

from takeover.data.schema import SafetyLimits, Source
from takeover.robot_bridge.kinematics import wrap
from takeover.robot_bridge.robots import sim
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.safety import SafetyFilter, SafetyState

LIMITS = SafetyLimits()


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("task", ["peg-insert", "pick-lift", "sort-two"])
def test_a_full_turn_of_the_stick_throws_nothing(task: str, sign: float) -> None:
    robot = SimRobot(task)
    robot.reset(1)
    scale = np.array(robot.spec.action.scale)
    safety, state, chance = SafetyFilter(robot.spec, LIMITS), SafetyState(), np.random.default_rng(1)
    action = np.zeros(len(scale))
    for step in range(150):
        before = robot.read()
        action[3] = sign
        if step > 60 and step % 7 == 0:
            action[:3] = chance.choice([-0.5, 0.0, 0.5], 3)  # about the table while the stick stays at its end
        result = safety.apply(state, action, before.tool_position, before.force_n, Source.HUMAN, joints=before.joints)
        state = result.state
        robot.apply(result.action)
        robot.advance()
        after = robot.read()
        assert abs(wrap(after.tool_yaw - before.tool_yaw)) <= LIMITS.max_step_rad
        moved = float(np.linalg.norm(after.tool_position - before.tool_position))
        assert moved <= (0.5 * scale[0] if step <= 60 else np.linalg.norm(scale[:3])), "it went where nobody asked it to"
    assert 1.9 < abs(after.tool_yaw) < 2.05


def test_below_that_the_target_is_moved_as_ever_to_the_bit() -> None:
    robot = SimRobot("peg-insert")
    robot.reset(4)
    chance, scale, window = np.random.default_rng(4), np.array(robot.spec.action.scale), robot._window
    turned = 0.0
    for step in range(100):
        action = chance.uniform(-1.0, 1.0, 4)
        action[3] = 0.9 * (-1.0 if 25 <= step < 70 else 1.0)
        moved = robot._target + action * scale * robot.parameters["actuator_gain"]
        position, yaw = robot._sense.position, robot._sense.yaw
        np.clip(moved[:3], position - window[:3], position + window[:3], out=moved[:3])
        np.clip(moved[:3], robot.task.workspace_low, robot.task.workspace_high, out=moved[:3])
        moved[3] = yaw + np.clip(wrap(moved[3] - yaw), -2.0 * window[3], 2.0 * window[3])
        robot.apply(action)
        robot.advance()
        assert robot._target.tobytes() == moved.tobytes()
        turned = max(turned, abs(robot.read().tool_yaw))
    assert turned > 1.5


def test_a_tool_that_is_beyond_stays_or_returns_and_is_not_pulled(monkeypatch: pytest.MonkeyPatch) -> None:
    robot = SimRobot("pick-lift")
    robot.reset(1)

    def turn(command: float, steps: int) -> list[float]:
        yaws = []
        for _ in range(steps):
            robot.apply(np.array([0.0, 0.0, 0.0, command, 0.0]))
            robot.advance()
            yaws.append(robot.read().tool_yaw)
        return yaws

    with monkeypatch.context() as changed:
        changed.setattr(sim, "_MAX_YAW_RAD", 9.0)
        turn(1.0, 30)
        beyond = turn(0.0, 5)[-1]
    assert beyond > 2.15
    assert np.abs(np.array(turn(0.0, 5)) - beyond).max() < 0.01
    assert np.abs(np.array(turn(1.0, 5)) - beyond).max() < 0.01, "no further"
    assert turn(-1.0, 5)[-1] < beyond - 0.3
