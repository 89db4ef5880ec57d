"""The limited operator sees old observations and nothing of the truth; other-style moves one axis at a time."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from takeover.app.operators.scripted import STYLES, OperatorParameters, ScriptedOperator, operator_parameters
from takeover.app.operators.sight import Sight
from takeover.data.schema import EpisodeKind, Mode, Privileged
from takeover.robot_bridge.robots.sim import SimRobot

from .test_scripted_operator import privileged


def demonstrate(style: str, task: str, number: int) -> tuple[bool, list[list[float]], list[Privileged]]:
    """Success, actions and what was there to be seen."""
    robot, operator = SimRobot(task), ScriptedOperator({"style": style}, seed=number)
    robot.reset(number)
    actions, seen = [], []
    for step in range(robot.spec.max_steps):
        seen.append(privileged(robot, EpisodeKind.DEMONSTRATION, number, step, Mode.READY))
        actions.append(operator.decide(seen[-1]).action)
        robot.apply(np.array(actions[-1]))
        robot.advance()
        if robot.evaluate().terminated:
            return robot.evaluate().success, actions, seen
    return False, actions, seen


@pytest.mark.parametrize("task", ["peg-insert", "pick-lift", "sort-two"])
@pytest.mark.parametrize("style", ["limited", "other-style"])
def test_demonstrates_every_task(style: str, task: str) -> None:
    assert sum(demonstrate(style, task, number)[0] for number in range(10)) >= 7


def test_the_truth_changes_nothing_for_who_cannot_see_it() -> None:
    _, actions, seen = demonstrate("limited", "peg-insert", 0)
    operator = ScriptedOperator({"style": "limited"}, seed=0)
    for step, (wanted, there) in enumerate(zip(actions, seen, strict=True)):
        lie = msgspec.structs.replace(
            there, expert_action=[0.9, -0.9, 0.9, 0.9], tool_velocity=[1.0, 1.0, 1.0], values={"hole_pose": [9.0], "distance": [0.0]}
        )
        assert operator.decide(lie).action == wanted, step


def test_sees_what_was_measured_some_steps_ago_with_an_error_of_its_own() -> None:
    _, _, there = demonstrate("expert", "peg-insert", 0)
    sight, random = Sight(3, 0.0), np.random.default_rng(0)
    seen = [sight.see(one, random).observation for one in there]
    assert seen[:4] == [there[0].observation] * 4  # nothing older is known at the beginning
    assert seen[4:] == [one.observation for one in there[1:-3]]
    sight.begin_episode()
    assert sight.see(there[20], random).observation == there[20].observation
    blurred = Sight(0, 0.002)
    errors = np.array([np.subtract(blurred.see(one, random).observation, one.observation) for one in there])
    assert np.abs(errors[:, :13]).max() == 0.0
    assert 0.0002 < errors[:, 13:15].std() < 0.006
    assert np.abs(np.diff(errors[:, 13])).mean() < np.abs(errors[:, 13]).mean() * 2  # slow, not a new one each step


def test_takes_over_by_what_it_sees() -> None:
    """A policy that does nothing is noticed without the truth, later by the delay at most."""
    for number in range(4):
        robot, operator = SimRobot("peg-insert"), ScriptedOperator({"style": "limited"}, seed=number)
        robot.reset(number)
        down = []
        for step in range(40):
            down.append(operator.decide(privileged(robot, EpisodeKind.POLICY, 0, step, Mode.POLICY)).deadman)
            if down[-1]:
                break
            robot.apply(np.zeros(4))
            robot.advance()
        assert down[-1], number
        assert 16 + 3 <= len(down) - 1 <= 16 + 6 + 16  # the noise may look like progress once


def test_one_axis_at_a_time() -> None:
    steady = replace(STYLES["other-style"], noise=0.0, tremor=0.0)
    robot = SimRobot("peg-insert")
    robot.reset(0)
    action = ScriptedOperator(steady, seed=0).decide(privileged(robot, EpisodeKind.DEMONSTRATION, 0, 0, Mode.READY)).action
    wanted = robot.advice().expert_action
    assert np.count_nonzero(action) == 1 < np.count_nonzero(wanted)
    assert np.argmax(np.abs(action)) == np.argmax(np.abs(wanted))


def test_a_task_without_a_rule_is_refused() -> None:
    robot = SimRobot("peg-insert")
    robot.reset(0)
    unknown = msgspec.structs.replace(privileged(robot, EpisodeKind.POLICY, 0, 0, Mode.POLICY), values={"distance": [1.0]})
    with pytest.raises(ValueError, match="no rule for this task: it knows peg-insert, pick-lift and sort-two"):
        ScriptedOperator({"style": "limited"}, seed=0).decide(unknown)


def test_every_style_of_the_comparison_exists_and_is_written_out() -> None:
    assert list(STYLES) == ["expert", "slow", "sloppy", "other-style", "lenient", "limited"]
    for style in STYLES:
        assert operator_parameters({"style": style}) == STYLES[style]
        assert OperatorParameters(**STYLES[style].as_dict()) == STYLES[style]  # type: ignore[arg-type]
