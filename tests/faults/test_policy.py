"""Rows 18-21: actions that are not finite, of the wrong shape, over a limit, or late."""

import itertools
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from takeover.data.schema import EpisodeKind, HoldReason, SafetyLimits, Source
from tests.robot_bridge.station import Actor, Operator

from .rig import PERIOD_MS, Rig, rig

Bound = Callable[[float, float, str], None]
QUIET = [0.0] * 4
LIMITS = SafetyLimits(max_speed_m_s=0.15, max_acceleration_m_s2=2.0)  # a station's own: at 20 Hz the simulator never reaches the defaults


class Scene:
    def __init__(self, station: Rig, actor: Actor, operator: Operator) -> None:
        self.station, self.actor, self.operator = station, actor, operator


@pytest.fixture(scope="module")
def shared() -> Iterator[Scene]:
    with rig(limits=LIMITS) as made:
        yield Scene(made, made.actor(), made.operator())


@pytest.fixture
def running(shared: Scene) -> Iterator[Scene]:
    shared.actor.act, shared.actor.silent = (lambda _: QUIET), False
    shared.station.begin(shared.operator, EpisodeKind.POLICY)
    try:
        shared.station.policy_runs(shared.operator)
        yield shared
    finally:  # the next test finds no block of one that a busy machine kept from beginning
        shared.operator.deadman, shared.operator.action = False, list(QUIET)
        shared.actor.act, shared.actor.silent = (lambda _: QUIET), False
        shared.station.end_block()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_row_18_policy_not_finite(running: Scene, bound: Bound, value: float) -> None:
    fault = time.monotonic_ns()
    running.actor.act = lambda _: [value, 0.0, 0.0, 0.0]
    state, _ = running.station.held(fault, [HoldReason.POLICY_FAULT])
    assert "not finite" in state.hold_detail
    time.sleep(0.3)
    bad = [step for step in running.station.steps_since(fault) if not np.isfinite(step.action).all() or any(step.action)]
    bound(float(len(bad)), 0.0, "steps")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_row_18_person_not_finite(running: Scene, bound: Bound, value: float) -> None:
    running.station.drive(running.operator)
    fault = time.monotonic_ns()
    running.operator.action = [value, 0.0, 0.0, 0.0]
    running.station.held(fault, [HoldReason.HUMAN_FAULT])
    time.sleep(0.3)
    bad = [step for step in running.station.steps_since(fault) if not np.isfinite(step.action).all()]
    bound(float(len(bad)), 0.0, "steps")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_row_18_person_not_finite_while_the_policy_drives(running: Scene, bound: Bound, value: float) -> None:
    """Who presses wants the robot: the policy does not go on because the action is none; nor is that press good later."""
    station, operator = running.station, running.operator
    station.policy_runs(operator)  # and who commands is seen to have let go
    fault = time.monotonic_ns()
    operator.action, operator.deadman = [value, 0.0, 0.0, 0.0], True
    station.held(fault, [HoldReason.HUMAN_FAULT])
    operator.action = [0.3, 0.0, 0.0, 0.0]
    time.sleep(0.5)
    moved = [step for step in station.steps_since(fault) if not np.isfinite(step.action).all() or any(step.action)]
    bound(float(len(moved)), 0.0, "steps")
    station.drive(operator)


@pytest.mark.parametrize("size", [0, 3, 7])
def test_row_19_wrong_shape(running: Scene, bound: Bound, size: int) -> None:
    fault = time.monotonic_ns()
    running.actor.act = lambda _: [0.9] * size
    state, _ = running.station.held(fault, [HoldReason.POLICY_FAULT])
    assert f"({size},)" in state.hold_detail
    time.sleep(0.3)
    bound(float(len([step for step in running.station.steps_since(fault) if any(step.action)])), 0.0, "steps")


def test_row_20_over_limit(running: Scene, bound: Bound) -> None:
    """Five times full scale in every axis, from a standstill: held after three; what was applied is checked here by its own arithmetic."""
    scale_m = np.array(running.operator.spec.action.scale[:3])
    fault = time.monotonic_ns()
    running.actor.act = lambda _: [5.0, -5.0, 5.0, 0.0]
    state, _ = running.station.held(fault, [HoldReason.REPEATED_CLAMP])
    assert "range" in state.hold_detail
    time.sleep(0.3)
    steps = running.station.steps_since(fault)
    driven = [step for step in steps if Source.POLICY in step.source and any(step.asked_action)]  # not the quiet answer before
    assert 2 <= len(driven) <= 3
    assert all(step.asked_action == [5.0, -5.0, 5.0, 0.0] for step in driven), "what was asked is kept"
    assert all(step.safety_bits for step in driven), "and that it was changed"
    assert max(abs(value) for step in steps for value in step.action) <= 1.0
    lengths = [float(np.linalg.norm(np.multiply(step.action[:3], scale_m))) for step in steps]
    period = PERIOD_MS / 1000.0
    bound(max(lengths), LIMITS.max_speed_m_s * period + 1e-9, "m per step")
    velocities = [np.zeros(3), *(np.multiply(step.action[:3], scale_m) / period for step in steps)]  # it stood before
    change = max(float(np.linalg.norm(b - a)) / period for a, b in itertools.pairwise(velocities))
    bound(change, LIMITS.max_acceleration_m_s2 + 1e-6, "m/s2")
    assert max(lengths) > 0.9 * LIMITS.max_speed_m_s * period
    assert change > 0.9 * LIMITS.max_acceleration_m_s2, "both limits were reached, so the figures say something"


def test_row_21_policy_late(running: Scene, bound: Bound) -> None:
    """The actor falls silent: zero velocity in the first step without an answer, held in the second."""
    running.actor.act = lambda _: [0.2, 0.0, 0.0, 0.0]
    running.station.policy_runs(running.operator, 8)
    running.actor.silent = True
    fault = time.monotonic_ns()
    running.station.held(fault, [HoldReason.POLICY_LATE])
    time.sleep(0.3)
    steps = running.station.steps_since(fault)
    moving = [step for step in steps if any(step.action)]
    assert len(moving) <= 1, "the step that had its answer already"
    last_ns = max((step.t_applied_ns for step in moving), default=fault)
    held = next(step for step in steps if step.hold_reason == "policy_late")
    bound((held.t_applied_ns - last_ns) / 1e6, 2 * PERIOD_MS + 0.9 * PERIOD_MS, "ms")  # two periods, and the wait within the second
    late = [step for step in steps if step.t_applied_ns < held.t_applied_ns and step.policy_action is None]
    assert all(step.action == QUIET for step in late)
