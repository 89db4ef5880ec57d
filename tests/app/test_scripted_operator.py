"""The scripted operator against the real simulated robot, in the order in which the bridge would ask it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from msgspec import structs

from takeover.app.operators.scripted import OperatorParameters, ScriptedOperator, operator_parameters
from takeover.data.schema import EpisodeKind, HoldReason, Mode, Privileged
from takeover.robot_bridge.robots.sim import SimRobot

Policy = Callable[[SimRobot], list[float]]


@dataclass
class Run:
    success: bool
    steps: int
    deadman: list[bool]
    actions: list[list[float]]


def privileged(robot: SimRobot, kind: EpisodeKind, number: int, step: int, mode: Mode) -> Privileged:
    advice, reading = robot.advice(), robot.read()
    return Privileged(
        session="s",
        seq=step,
        mode=mode,
        hold_reason=HoldReason.NONE,
        episode_id=f"{kind}-{number}",
        episode_kind=kind,
        episode_number=number,
        episode_step=step,
        intervention_id=-1,
        observation=reading.observation.tolist(),
        tool_velocity=reading.tool_velocity.tolist(),
        values=advice.values,
        expert_action=advice.expert_action,
        policy_action=None,
        lockstep=True,
    )


def run(
    operator: ScriptedOperator, kind: EpisodeKind, number: int, policy: Policy | None = None, task: str = "peg-insert", seed: int = 0
) -> Run:
    robot = SimRobot(task)
    robot.reset(seed)
    result = Run(False, 0, [], [])
    for step in range(robot.spec.max_steps):
        mode = Mode.TAKEOVER if result.deadman and result.deadman[-1] else Mode.READY if policy is None else Mode.POLICY
        decision = operator.decide(privileged(robot, kind, number, step, mode))
        result.deadman.append(decision.deadman)
        result.actions.append(decision.action)
        action = decision.action if decision.deadman or policy is None else policy(robot)
        robot.apply(np.array(action))
        robot.advance()
        result.steps = step + 1
        if robot.evaluate().terminated:
            result.success = robot.evaluate().success
            break
    return result


def idle(robot: SimRobot) -> list[float]:
    return [0.0] * robot.spec.action.size


def expert(robot: SimRobot) -> list[float]:
    return robot.advice().expert_action


def backwards(robot: SimRobot) -> list[float]:
    return [-value for value in robot.advice().expert_action[:3]] + [0.0] * (robot.spec.action.size - 3)


@pytest.mark.parametrize("task", ["peg-insert", "pick-lift", "sort-two"])
def test_drives_all_of_a_demonstration_well_but_like_a_hand(task: str) -> None:
    operator = ScriptedOperator({}, seed=0)
    runs = [run(operator, EpisodeKind.DEMONSTRATION, number, task=task, seed=100 + number) for number in range(20)]
    assert all(all(result.deadman) for result in runs)
    assert sum(result.success for result in runs) >= 18
    assert 25 <= np.mean([result.steps for result in runs]) <= (90 if task == "sort-two" else 60)
    robot = SimRobot(task)
    robot.reset(100)
    assert np.abs(np.array(runs[0].actions[0]) - robot.advice().expert_action).max() > 1e-3  # noise


def test_lets_a_good_policy_work() -> None:
    operator = ScriptedOperator({}, seed=0)
    for number in range(8):
        result = run(operator, EpisodeKind.POLICY, number, expert, seed=number)
        assert result.success
        assert not any(result.deadman)


@pytest.mark.parametrize("number", range(6))
def test_takes_over_from_a_stalled_policy_after_noticing_and_reacting(number: int) -> None:
    result = run(ScriptedOperator({}, seed=3), EpisodeKind.POLICY, number, idle, seed=number)
    first = result.deadman.index(True)
    assert 16 + 3 <= first <= 16 + 6 + 1
    stretch = [*result.deadman[first:], False].index(False)
    assert stretch >= 10 or result.success


def test_opposite_motion_is_noticed_sooner_than_a_stall() -> None:
    starts = [
        run(ScriptedOperator({}, seed=3), EpisodeKind.POLICY, number, backwards, seed=number).deadman.index(True) for number in range(6)
    ]
    assert max(starts) < 16 + 3
    assert min(starts) >= 6 + 3 - 1


def test_late_in_an_episode_it_holds_to_the_end() -> None:
    """With 35 steps left from the very start of the way, it never gives back, though its longest correction is 20."""
    successes = 0
    for number in range(8):
        operator = ScriptedOperator({"stall_steps": 58, "correct_max_steps": 20}, seed=number)
        result = run(operator, EpisodeKind.POLICY, number, idle, seed=number)
        first = result.deadman.index(True)
        assert first >= 60
        assert all(result.deadman[first:])
        successes += result.success
    assert successes >= 2


def test_never_lets_go_too_early() -> None:
    """Whenever it gives back, either half of the way is done or the longest correction is over."""
    for number in range(12):
        robot, operator = SimRobot("peg-insert"), ScriptedOperator({}, seed=number)
        robot.reset(number)
        down, taken, at_take, released = False, 0, 0.0, 0
        for step in range(60):
            now = privileged(robot, EpisodeKind.POLICY, 0, step, Mode.TAKEOVER if down else Mode.POLICY)
            decision = operator.decide(now)
            distance = now.values["distance"][0]
            if decision.deadman and not down:
                taken, at_take = step, distance
            if down and not decision.deadman:
                released += 1
                assert step - taken >= 10
                assert distance < 0.5 * at_take or step - taken >= 47
            down = decision.deadman
            robot.apply(np.array(decision.action))
            robot.advance()
            if robot.evaluate().terminated:
                break
        assert taken > 0 or released == 0


def test_the_same_seed_and_episode_give_the_same_hand_whatever_came_before() -> None:
    fresh = run(ScriptedOperator({}, seed=5), EpisodeKind.POLICY, 7, idle, seed=1)
    operator = ScriptedOperator({}, seed=5)
    run(operator, EpisodeKind.DEMONSTRATION, 0, seed=2)
    run(operator, EpisodeKind.POLICY, 3, backwards, seed=3)
    again = run(operator, EpisodeKind.POLICY, 7, idle, seed=1)
    assert fresh == again
    assert run(ScriptedOperator({}, seed=6), EpisodeKind.POLICY, 7, idle, seed=1).actions != fresh.actions


def test_presses_resume_with_a_neutral_device_when_held_and_not_incessantly() -> None:
    robot = SimRobot("peg-insert")
    operator = ScriptedOperator({}, seed=0)
    held = [operator.decide(privileged(robot, EpisodeKind.POLICY, 0, 5, Mode.HOLD)) for _ in range(10)]
    assert not any(decision.deadman for decision in held)
    assert sum(decision.resume for decision in held) == 1
    assert not operator.decide(privileged(robot, EpisodeKind.POLICY, 0, 6, Mode.POLICY)).resume


def test_a_held_demonstration_goes_on_with_a_fresh_press() -> None:
    robot = SimRobot("peg-insert")
    operator = ScriptedOperator({}, seed=0)
    presses = [
        operator.decide(privileged(robot, EpisodeKind.DEMONSTRATION, 0, 3, mode)).deadman
        for mode in (Mode.TAKEOVER, Mode.TAKEOVER, Mode.HOLD, Mode.HOLD, Mode.TAKEOVER)
    ]
    assert presses == [True, True, False, True, True]


@pytest.mark.parametrize("kind", [EpisodeKind.POLICY, EpisodeKind.DEMONSTRATION])
def test_a_hold_that_a_person_asked_for_is_the_persons_to_end(kind: EpisodeKind) -> None:
    robot = SimRobot("peg-insert")
    operator = ScriptedOperator({}, seed=0)
    asked = structs.replace(privileged(robot, kind, 0, 5, Mode.HOLD), hold_reason=HoldReason.OPERATOR)
    held = [operator.decide(asked) for _ in range(20)]
    assert not any(decision.resume or decision.deadman for decision in held)
    another = structs.replace(asked, hold_reason=HoldReason.POLICY_LATE)
    held = [operator.decide(another) for _ in range(20)]
    assert any(decision.resume or decision.deadman for decision in held), "any other one goes on"


@pytest.mark.parametrize("mode", [Mode.OFFLINE, Mode.STOPPED, Mode.RESETTING, Mode.READY])
def test_keeps_its_hands_off_when_there_is_nothing_to_drive(mode: Mode) -> None:
    decision = ScriptedOperator({}, seed=0).decide(privileged(SimRobot("peg-insert"), EpisodeKind.POLICY, 0, 0, mode))
    assert not decision.deadman
    assert decision.action == [0.0] * 4


def test_evaluations_are_never_touched() -> None:
    result = run(ScriptedOperator({}, seed=0), EpisodeKind.EVALUATION, 0, idle)
    assert not any(result.deadman)


def test_parameters_are_checked_by_name_and_range() -> None:
    assert operator_parameters({"style": "slow", "noise": 0.2}) == replace(operator_parameters({"style": "slow"}), noise=0.2)
    assert OperatorParameters().as_dict()["stall_steps"] == 16
    with pytest.raises(ValueError, match="unknown operator style 'angry'; known: expert"):
        operator_parameters({"style": "angry"})
    with pytest.raises(ValueError, match="unknown operator parameter 'mood'; known: style, stall_steps"):
        operator_parameters({"mood": 1.0})
    with pytest.raises(ValueError, match=r"noise = 3\.0: allowed is 0\.0 to 1\.0"):
        operator_parameters({"noise": 3.0})
    with pytest.raises(ValueError, match="correct_min_steps is above"):
        operator_parameters({"correct_min_steps": 60})


def test_a_task_without_a_measure_of_progress_is_refused() -> None:
    robot = SimRobot("peg-insert")
    blind = privileged(robot, EpisodeKind.POLICY, 0, 0, Mode.POLICY)
    values = {name: value for name, value in blind.values.items() if name != "distance"}
    stripped = Privileged(**{name: getattr(blind, name) for name in blind.__struct_fields__} | {"values": values})
    with pytest.raises(ValueError, match="privileged 'distance'"):
        ScriptedOperator({}, seed=0).decide(stripped)
