"""The safety filter: nothing non-finite, nothing over a limit, whatever is asked in whatever order."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from msgspec import structs

from takeover.data.limits import LIMIT_RANGES
from takeover.data.schema import SafetyBit, SafetyLimits, Source
from takeover.robot_bridge.safety import SafetyFilter, SafetyState, UnsafeAction

from .specs import SPEC

LIMITS = SafetyLimits()
ZERO = np.zeros(5)
HERE = np.array([0.0, 0.0, 0.1])
NO_FORCE = np.zeros(3)

numbers = st.floats(-3.0, 3.0, allow_nan=False)
anything = st.floats(allow_nan=True, allow_infinity=True)
edges = st.sampled_from([-0.2, 0.2, 0.01, 0.3])
positions = hnp.arrays(np.float64, 3, elements=st.one_of(st.floats(-0.5, 0.5), edges))
forces = hnp.arrays(np.float64, 3, elements=st.floats(-200.0, 200.0))


def translation(action: np.ndarray) -> np.ndarray:
    return action[:3] * 0.012


@settings(max_examples=300, deadline=None)
@given(
    actions=st.lists(hnp.arrays(np.float64, 5, elements=numbers), min_size=1, max_size=12),
    positions=positions,
    force=forces,
    scale=st.floats(0.05, 1.0),
    limits=st.builds(
        SafetyLimits,
        max_step_m=st.floats(0.001, 0.03),
        max_step_rad=st.floats(0.01, 0.2),
        max_speed_m_s=st.floats(0.02, 0.6),
        max_acceleration_m_s2=st.floats(0.5, 20.0),
        max_force_n=st.floats(1.0, 100.0),
    ),
)
def test_never_over_a_limit(
    actions: list[np.ndarray], positions: np.ndarray, force: np.ndarray, scale: float, limits: SafetyLimits
) -> None:
    """Step, speed, acceleration, box, rotation and force, over a sequence from standstill."""
    safety = SafetyFilter(SPEC, limits)
    state, position = SafetyState(), positions.copy()
    before = np.zeros(3)
    low, high = np.array(SPEC.workspace_low), np.array(SPEC.workspace_high)
    for asked in actions:
        result = safety.apply(state, asked, position, force, Source.POLICY, scale)
        delta = translation(result.action)
        length = np.linalg.norm(delta)
        assert np.isfinite(result.action).all()
        assert np.abs(result.action).max() <= 1.0
        assert length <= limits.max_step_m + 1e-9
        assert length / 0.05 <= limits.max_speed_m_s + 1e-6
        assert abs(result.action[3]) * 0.1 <= limits.max_step_rad + 1e-9
        # the box and the force guard may brake harder than the acceleration limit, never push harder
        if not result.bits & (SafetyBit.WORKSPACE | SafetyBit.FORCE):
            assert np.linalg.norm(delta - before) / 0.05**2 <= limits.max_acceleration_m_s2 + 1e-3
        outside_before = np.maximum(0, np.maximum(low - position, position - high))
        outside_after = np.maximum(0, np.maximum(low - position - delta, position + delta - high))
        assert (outside_after <= outside_before + 1e-9).all()
        if result.state.over_force_steps >= limits.force_debounce_steps:
            # the box may take back less than a micrometre per axis without a bit
            assert delta @ force >= -2e-6 * (1 + np.linalg.norm(force)) or result.bits & SafetyBit.WORKSPACE
        before, state, position = delta, result.state, position + delta


@settings(max_examples=200, deadline=None)
@given(asked=hnp.arrays(np.float64, 5, elements=anything), position=hnp.arrays(np.float64, 3, elements=anything))
def test_what_is_not_finite_is_refused(asked: np.ndarray, position: np.ndarray) -> None:
    """`np.clip(nan)` is nan: it is refused, never repaired."""
    safety = SafetyFilter(SPEC, LIMITS)
    if np.isfinite(asked).all() and np.isfinite(position).all():
        result = safety.apply(SafetyState(), asked, position, NO_FORCE, Source.HUMAN)
        assert np.isfinite(result.action).all()
    else:
        with pytest.raises(UnsafeAction, match="not finite"):
            safety.apply(SafetyState(), asked, position, NO_FORCE, Source.HUMAN)


@pytest.mark.parametrize("asked", [np.zeros(4), np.zeros(6), np.zeros((1, 5)), np.array(0.0)])
def test_a_wrong_shape_is_refused(asked: np.ndarray) -> None:
    with pytest.raises(UnsafeAction, match="shape"):
        SafetyFilter(SPEC, LIMITS).apply(SafetyState(), asked, HERE, NO_FORCE, Source.HUMAN)


@settings(max_examples=100, deadline=None)
@given(actions=st.lists(hnp.arrays(np.float64, 5, elements=st.floats(-1.0, 1.0)), min_size=1, max_size=20))
def test_defaults_leave_canonical_actions_alone(actions: list[np.ndarray]) -> None:
    """12 mm a step in every direction, reversals included, with room on all sides: nothing is changed."""
    safety, state = SafetyFilter(SPEC, LIMITS), SafetyState()
    for asked in actions:
        result = safety.apply(state, asked, HERE, NO_FORCE, Source.POLICY)
        assert result.bits == SafetyBit.NONE
        np.testing.assert_allclose(result.action, asked, atol=1e-12)
        state = result.state


def test_three_gross_clamps_of_the_policy_hold() -> None:
    safety, state = SafetyFilter(SPEC, SafetyLimits(max_step_m=0.004)), SafetyState()
    asked = np.array([1.0, 0, 0, 0, 0])
    held = []
    for _ in range(3):
        result = safety.apply(state, asked, HERE, NO_FORCE, Source.POLICY)
        state = result.state
        held.append(bool(result.hold))
    assert held == [False, False, True]


def test_clamps_must_be_in_a_row_and_the_policys() -> None:
    safety, state = SafetyFilter(SPEC, SafetyLimits(max_step_m=0.004)), SafetyState()
    asked = np.array([1.0, 0, 0, 0, 0])
    for action, driver in ((asked, Source.POLICY), (asked, Source.POLICY), (ZERO, Source.POLICY), *[(asked, Source.HUMAN)] * 5):
        result = safety.apply(state, action, HERE, NO_FORCE, driver)
        state = result.state
        assert not result.hold


def test_pushing_at_the_edge_of_the_box_does_not_hold() -> None:
    """Ordinary exploration: corrected and recorded, for as long as it likes."""
    safety, state = SafetyFilter(SPEC, LIMITS), SafetyState()
    edge = np.array([0.2, 0.0, 0.1])
    for _ in range(20):
        result = safety.apply(state, np.array([1.0, 0, 0, 0, 0]), edge, NO_FORCE, Source.POLICY)
        assert result.bits & SafetyBit.WORKSPACE
        assert result.action[0] == pytest.approx(0.0)
        assert not result.hold
        state = result.state


def test_a_tool_far_outside_may_return_but_not_leave_further() -> None:
    safety = SafetyFilter(SPEC, LIMITS)
    outside = np.array([0.4, 0.0, 0.1])
    assert safety.apply(SafetyState(), np.array([-1.0, 0, 0, 0, 0]), outside, NO_FORCE, Source.HUMAN).action[0] == pytest.approx(-1.0)
    assert safety.apply(SafetyState(), ZERO, outside, NO_FORCE, Source.HUMAN).action[0] == pytest.approx(0.0)
    state = SafetyState()
    for _ in range(3):
        result = safety.apply(state, np.array([1.0, 0, 0, 0, 0]), outside, NO_FORCE, Source.POLICY)
        assert result.action[0] == pytest.approx(0.0)
        state = result.state
    assert result.hold


def test_force_guard_waits_then_lets_go_only_away_from_contact() -> None:
    safety, state = SafetyFilter(SPEC, LIMITS), SafetyState()
    pressed = np.array([0.0, 0.0, 100.0])  # the table pushes the tool up
    down, up = np.array([0.2, 0, -1.0, 0, 0]), np.array([0, 0, 1.0, 0, 0])
    for _ in range(LIMITS.force_debounce_steps - 1):
        result = safety.apply(state, down, HERE, pressed, Source.POLICY)
        assert result.action[2] < -0.5
        state = result.state
    result = safety.apply(state, down, HERE, pressed, Source.POLICY)
    assert result.bits & SafetyBit.FORCE
    assert result.action[2] == pytest.approx(0.0)
    assert result.action[0] == pytest.approx(0.2)
    assert safety.apply(result.state, up, HERE, pressed, Source.POLICY).action[2] == pytest.approx(1.0)


def test_force_guard_does_not_press_again_through_a_full_scale_axis() -> None:
    """Found by random search: clipping one axis after the projection turned the motion back into the contact."""
    safety = SafetyFilter(SPEC, SafetyLimits(max_force_n=1.0, max_step_m=0.03))
    force = np.array([-1.0, -1.0, -1.0])
    state = SafetyState(over_force_steps=LIMITS.force_debounce_steps)
    result = safety.apply(state, np.array([-1.0, 1.0, 1.0, 0, 0]), HERE, force, Source.POLICY)
    assert result.bits & SafetyBit.FORCE
    assert translation(result.action) @ force >= -1e-12


def test_slow_mode_caps_and_does_not_scale_twice() -> None:
    safety = SafetyFilter(SPEC, LIMITS)
    cap = 0.25 * 0.012 * np.sqrt(3)
    fast = safety.apply(SafetyState(), np.array([1.0, 0, 0, 1.0, 0]), HERE, NO_FORCE, Source.HUMAN, 0.25)
    assert np.linalg.norm(translation(fast.action)) == pytest.approx(cap)
    assert fast.action[3] == pytest.approx(0.25)
    assert fast.bits == SafetyBit.SLOW_MODE
    slow = safety.apply(SafetyState(), np.array([0.2, 0, 0, 0, 0]), HERE, NO_FORCE, Source.HUMAN, 0.25)
    assert slow.action[0] == pytest.approx(0.2)


def test_limits_that_leave_no_workspace_are_refused() -> None:
    with pytest.raises(ValueError, match="workspace"):
        SafetyFilter(SPEC, SafetyLimits(workspace_low=[0.25, -0.3, 0.0]))


@pytest.mark.parametrize("name", list(LIMIT_RANGES))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, -1.0, 1e9])
def test_no_limit_can_be_switched_off(name: str, value: float) -> None:
    """Neither in the station file nor past it: the filter itself refuses to be made."""
    low, high, _ = LIMIT_RANGES[name]
    if low <= value <= high:
        pytest.skip(f"{value} is within {name}'s range")
    with pytest.raises(ValueError, match=f"limits.{name}"):
        SafetyFilter(SPEC, structs.replace(LIMITS, **{name: value}))


def test_slow_mode_stays_slow_at_every_allowed_limit() -> None:
    """What holds for robots without a watchdog, unattended practice and the way to a start pose, whatever a station sets."""
    low, high, _ = LIMIT_RANGES["slow_scale"]
    assert (low, high) == (0.05, 0.25)
    loosest = structs.replace(LIMITS, **{name: bounds[1] for name, bounds in LIMIT_RANGES.items() if name != "force_debounce_steps"})
    safety, state = SafetyFilter(SPEC, loosest), SafetyState()
    for _ in range(20):
        result = safety.apply(state, np.array([1.0, 1.0, 1.0, 1.0, 0.0]), HERE, NO_FORCE, Source.HUMAN, loosest.slow_scale)
        state = result.state
        assert np.linalg.norm(state.velocity) <= min(0.25, 0.25 * math.sqrt(3) * 0.012 * 20) + 1e-9
        assert abs(result.action[3]) <= 0.25 + 1e-9
        assert result.bits & SafetyBit.SLOW_MODE


@pytest.mark.parametrize("box", [[math.nan, 0.0, 0.0], [-math.inf, -1.0, 0.0], [-5.0, -0.3, 0.0], [0.0, 0.0], [0.4, -0.3, 0.0]])
def test_the_box_cannot_be_switched_off(box: list[float]) -> None:
    with pytest.raises(ValueError, match="workspace"):
        SafetyFilter(SPEC, structs.replace(LIMITS, workspace_low=box))


def test_a_budget_of_mistakes_per_episode_holds_the_policy() -> None:
    """Gross clamps, never two in a row: the fourth of four holds, and every one after it."""
    safety, state = SafetyFilter(SPEC, SafetyLimits(mistakes_per_episode=4)), SafetyState()
    held = []
    for i in range(10):
        asked = np.array([3.0 if i % 2 == 0 else 0.0, 0.0, 0.0, 0.0, 0.0])
        result = safety.apply(state, asked, HERE, NO_FORCE, Source.POLICY)
        state = result.state
        held.append(result.hold)
    assert held == ["", "", "", "", "", "", "4 in this episode", "", "5 in this episode", ""]
    person = safety.apply(state, np.array([3.0, 0.0, 0.0, 0.0, 0.0]), HERE, NO_FORCE, Source.HUMAN)
    assert person.hold == "", "a person's mistakes are not the policy's"
    assert person.state.mistakes == 5


def test_a_hold_decelerates_within_the_limit_and_then_stands() -> None:
    safety, state = SafetyFilter(SPEC, SafetyLimits(max_acceleration_m_s2=1.0)), SafetyState()
    for _ in range(6):
        state = safety.apply(state, np.array([1.0, 0.0, 0.0, 0.0, 0.0]), HERE, NO_FORCE, Source.HUMAN).state
    speeds = [state.velocity[0]]
    while speeds[-1] > 0:
        result = safety.apply(state, ZERO, HERE, NO_FORCE, Source.NONE)
        state = result.state
        speeds.append(state.velocity[0])
        assert len(speeds) < 10
    assert speeds[0] == pytest.approx(0.24)
    assert np.diff(speeds).min() >= -0.05 - 1e-9, "1 m/s^2 at 20 Hz"
    assert len(speeds) == 6
    assert safety.apply(state, ZERO, HERE, NO_FORCE, Source.NONE).bits is SafetyBit.NONE


ANGLES = hnp.arrays(np.float64, 2, elements=st.sampled_from([-1.1, -0.99, 0.0, 0.5, 0.985, 0.99, 1.2]))


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(st.tuples(hnp.arrays(np.float64, 5, elements=numbers), ANGLES), min_size=2, max_size=10),
    position=positions,
    force=forces,
    scale=st.floats(0.05, 1.0),
)
def test_the_joint_limit_takes_away_and_adds_nothing(
    steps: list[tuple[np.ndarray, np.ndarray]], position: np.ndarray, force: np.ndarray, scale: float
) -> None:
    """Box, force guard and slow mode were applied before it: no component may grow or turn round, no new pressing may remain."""
    safety, blind = SafetyFilter(JOINTED, LIMITS), SafetyFilter(SPEC, LIMITS)
    state = SafetyState()
    for asked, angles in steps:
        without = blind.apply(state, asked, position, force, Source.HUMAN, scale).action
        result = safety.apply(state, asked, position, force, Source.HUMAN, scale, joints=angles)
        assert (np.abs(result.action) <= np.abs(without)).all()
        assert (result.action * without >= 0.0).all()
        if result.state.over_force_steps >= LIMITS.force_debounce_steps and translation(without) @ force >= 0.0:
            assert translation(result.action) @ force >= 0.0
        assert bool(result.bits & SafetyBit.JOINT_LIMIT) == bool((result.action != without).any())
        assert result.state.velocity == pytest.approx(tuple(translation(result.action) / 0.05)), "the next step accelerates from this"
        for way in result.state.towards_limit:
            assert result.action @ np.array(way) <= 1e-6
        state, position = result.state, position + translation(result.action)


def test_what_the_force_guard_drops_may_have_held_a_rotation_back() -> None:
    """Found by random search: the slide went, the rotation that it had balanced stayed and led on to the joint's limit."""
    safety, state = SafetyFilter(JOINTED, LIMITS), SafetyState()
    force, at = np.array([-38.0, 33.0, 33.0]), np.array([-1.1, -1.1])
    asked = [np.array([-1.0, -1.0, -1.0, -1.0, -1.0]), np.array([0.0, 1.0, 0.0, 0.0, 0.0]), ZERO, np.array([1.0, 0.0, 0.0, -1.0, 0.0])]
    for action, joints in zip(asked, [at, at, np.array([1.2, -1.1]), at], strict=True):
        result = safety.apply(state, action, np.zeros(3), force, Source.HUMAN, 0.5, joints=joints)
        state = result.state
    assert state.towards_limit
    for way in state.towards_limit:
        assert result.action @ np.array(way) <= 1e-6


def test_another_way_that_leads_deeper_is_found_out() -> None:
    """One way that led to a limit does not say what others do to that joint: who goes deeper on one loses that one too."""
    safety, at = SafetyFilter(JOINTED, LIMITS), np.array([0.99, 0.0])
    state = safety.apply(SafetyState(), np.array([1.0, 0, 0, 0, 0]), HERE, NO_FORCE, Source.HUMAN, joints=np.array([0.9, 0.0])).state
    sideways = np.array([0.0, 1.0, 0.0, 0.0, 0.0])
    first = safety.apply(state, sideways, HERE, NO_FORCE, Source.HUMAN, joints=at)
    assert first.action[1] == pytest.approx(1.0)
    second = safety.apply(first.state, sideways, HERE, NO_FORCE, Source.HUMAN, joints=np.array([1.0, 0.0]))
    assert second.bits is SafetyBit.JOINT_LIMIT
    assert not second.action.any()
    forward = safety.apply(second.state, np.array([1.0, 0, 0, 0, 0]), HERE, NO_FORCE, Source.HUMAN, joints=np.array([1.0, 0.0]))
    assert not forward.action.any(), "the first way is not forgotten for it"
    assert safety.apply(second.state, -sideways, HERE, NO_FORCE, Source.HUMAN, joints=np.array([1.0, 0.0])).bits is SafetyBit.NONE


JOINTED = structs.replace(SPEC, joint_low=[-1.0, -1.0], joint_high=[1.0, 1.0])


def test_a_joint_at_its_limit_goes_no_further_and_may_come_back() -> None:
    safety, state = SafetyFilter(JOINTED, LIMITS), SafetyState()
    push = np.array([0.5, 0.0, 0.0, 0.5, 1.0])
    free = safety.apply(state, push, HERE, NO_FORCE, Source.HUMAN, joints=np.array([0.9, 0.0]))
    assert free.bits is SafetyBit.NONE
    stopped = safety.apply(free.state, push, HERE, NO_FORCE, Source.HUMAN, joints=np.array([0.99, 0.0]))
    assert stopped.bits is SafetyBit.JOINT_LIMIT
    assert stopped.action.tolist() == pytest.approx([0.0, 0.0, 0.0, 0.0, 1.0]), "the gripper is no joint of the arm"
    again = safety.apply(stopped.state, push, HERE, NO_FORCE, Source.HUMAN, joints=np.array([0.99, 0.0]))
    assert again.action[0] == pytest.approx(0.0), "nor in the steps after it"
    sideways = safety.apply(again.state, np.array([0.0, 0.5, 0.0, 0.0, 0.0]), HERE, NO_FORCE, Source.HUMAN, joints=np.array([0.99, 0.0]))
    assert sideways.action[1] == pytest.approx(0.5)
    back = safety.apply(again.state, -push, HERE, NO_FORCE, Source.HUMAN, joints=np.array([0.99, 0.0]))
    assert back.bits is SafetyBit.NONE
    assert back.action[0] == pytest.approx(-0.5)
    left = safety.apply(back.state, push, HERE, NO_FORCE, Source.HUMAN, joints=np.array([0.9, 0.0]))
    assert left.state.towards_limit == ()


def test_gripping_too_hard_drops_what_closes_further() -> None:
    safety, state = SafetyFilter(SPEC, LIMITS), SafetyState()
    close, opened = np.array([0.0, 0.0, 0.0, 0.0, -1.0]), np.array([0.0, 0.0, 0.0, 0.0, 1.0])
    for expected in (-1.0, -1.0, 0.0, 0.0):
        result = safety.apply(state, close, HERE, NO_FORCE, Source.POLICY, gripper_force_n=LIMITS.max_gripper_force_n + 1.0)
        state = result.state
        assert result.action[4] == expected
        assert bool(result.bits & SafetyBit.GRIPPER) == (expected == 0.0)
    assert safety.apply(state, opened, HERE, NO_FORCE, Source.POLICY, gripper_force_n=90.0).action[4] == 1.0
    assert safety.apply(state, close, HERE, NO_FORCE, Source.POLICY, gripper_force_n=LIMITS.max_gripper_force_n).action[4] == -1.0


def test_the_documented_limits_are_those_of_the_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "safety.md").read_text()
    for name, (low, high, unit) in LIMIT_RANGES.items():
        assert f"| `{name}` | {getattr(LIMITS, name):g} {unit}".rstrip() + f" | {low:g} to {high:g} |" in text, name
