"""Each limit of the safety filter alone, with numbers: what `test_safety` searches for at random, it has here by name."""

import numpy as np
import pytest
from msgspec import structs

from takeover.data.schema import ActionGroup, SafetyBit, SafetyLimits, Source
from takeover.robot_bridge.safety import SafetyFilter, SafetyResult, SafetyState, UnsafeAction

from .specs import ACTION, SPEC

HERE = np.array([0.0, 0.0, 0.1])
NO_FORCE = np.zeros(3)
FULL_STEP_M = 0.012 * np.sqrt(3)
LIMITS = SafetyLimits()
JOINTED = structs.replace(SPEC, joint_low=[-1.0, -1.0], joint_high=[1.0, 1.0])


def limits(**changes: float | list[float]) -> SafetyLimits:
    return structs.replace(LIMITS, **changes)


def once(
    asked: list[float],
    of: SafetyLimits = LIMITS,
    state: SafetyState | None = None,
    position: np.ndarray = HERE,
    force: np.ndarray = NO_FORCE,
    driver: Source = Source.POLICY,
    scale: float = 1.0,
) -> SafetyResult:
    return SafetyFilter(SPEC, of).apply(state or SafetyState(), np.array(asked), position, force, driver, scale)


def gross(result: SafetyResult) -> bool:
    return result.state.clamps_in_a_row > 0


def length_m(result: SafetyResult) -> float:
    return float(np.linalg.norm(result.action[:3] * 0.012))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_nothing_that_is_not_finite_passes(bad: float, where: int) -> None:
    parts = [np.zeros(5), HERE.copy(), np.zeros(3)]
    parts[where][1] = bad
    with pytest.raises(UnsafeAction, match="not finite"):
        SafetyFilter(SPEC, LIMITS).apply(SafetyState(), *parts, Source.HUMAN)


@pytest.mark.parametrize("angles", [[0.0], [0.0, 0.0, 0.0], [0.0, np.nan]])
def test_joints_must_be_those_of_the_limits(angles: list[float]) -> None:
    with pytest.raises(UnsafeAction, match="joints"):
        SafetyFilter(JOINTED, LIMITS).apply(SafetyState(), np.zeros(5), HERE, NO_FORCE, Source.HUMAN, joints=np.array(angles))


def test_a_grip_that_is_not_a_number_is_refused() -> None:
    """It would be below every limit."""
    with pytest.raises(UnsafeAction, match="gripper force"):
        SafetyFilter(SPEC, LIMITS).apply(SafetyState(), np.zeros(5), HERE, NO_FORCE, Source.HUMAN, gripper_force_n=float("nan"))


def test_shapes_must_fit() -> None:
    for parts in ((np.zeros(4), HERE, NO_FORCE), (np.zeros(5), np.zeros(2), NO_FORCE), (np.zeros(5), HERE, np.zeros(6))):
        with pytest.raises(UnsafeAction, match="shape"):
            SafetyFilter(SPEC, LIMITS).apply(SafetyState(), *parts, Source.HUMAN)
    with pytest.raises(UnsafeAction, match="not a list of numbers"):
        SafetyFilter(SPEC, LIMITS).apply(SafetyState(), "left", HERE, NO_FORCE, Source.HUMAN)  # type: ignore[arg-type]


def test_limits_are_checked_and_leave_a_box() -> None:
    with pytest.raises(ValueError, match="max_step_m"):
        SafetyFilter(SPEC, limits(max_step_m=100.0))
    with pytest.raises(ValueError, match="leave nothing"):
        SafetyFilter(SPEC, limits(workspace_low=[0.25, -0.3, 0.0]))


def test_the_range_clips_and_says_so() -> None:
    person = once([1.0, 0.0, 0.0, 0.0, 1.1], driver=Source.HUMAN)
    assert (person.bits, person.action[4]) == (SafetyBit.RANGE, 1.0)
    slightly, grossly = once([1.2, 0.0, 0.0, 0.0, 0.0]), once([1.3, 0.0, 0.0, 0.0, 0.0])
    assert slightly.bits == grossly.bits == SafetyBit.RANGE
    assert slightly.action[0] == grossly.action[0] == 1.0, "clipped before anything else is measured"
    assert not gross(slightly)
    assert gross(grossly)
    assert once([3.0, 1.0, 0.0, 0.0, 0.0], driver=Source.HUMAN).action[:2].tolist() == [1.0, 1.0]
    assert once([1.0005, 0.0, 0.0, 0.0, 0.0]).bits is SafetyBit.NONE


@pytest.mark.parametrize(
    ("of", "largest_m", "bit"),
    [
        (limits(max_step_m=0.01), 0.01, SafetyBit.TRANSLATION),
        (limits(max_speed_m_s=0.2), 0.01, SafetyBit.SPEED),
        (limits(max_acceleration_m_s2=4.0), 0.01, SafetyBit.ACCELERATION),
    ],
)
def test_a_step_is_shortened_and_keeps_its_direction(of: SafetyLimits, largest_m: float, bit: SafetyBit) -> None:
    slightly, grossly = once([0.7, 0.7, 0.0, 0.0, 0.0], of), once([0.8, 0.8, 0.0, 0.0, 0.0], of)
    for result in (slightly, grossly):
        assert length_m(result) == pytest.approx(largest_m)
        assert result.action[0] == pytest.approx(result.action[1])
        assert result.bits == bit
    assert not gross(slightly)
    assert gross(grossly)


def test_acceleration_is_from_what_was_applied_before() -> None:
    of = limits(max_acceleration_m_s2=4.0)
    on = once([1.0, 0.0, 0.0, 0.0, 0.0], of, SafetyState(velocity=(0.1, 0.0, 0.0)))
    assert on.action[0] * 0.012 == pytest.approx(0.005 + 0.007)
    turned = once([-1.0, 0.0, 0.0, 0.0, 0.0], of, SafetyState(velocity=(0.24, 0.0, 0.0)))
    assert turned.action[0] * 0.012 == pytest.approx(0.002)
    assert gross(turned)


def test_slow_mode() -> None:
    quarter = once([1.0, 1.0, 1.0, 0.0, 0.0], scale=0.25)
    assert length_m(quarter) == pytest.approx(0.25 * FULL_STEP_M)
    assert quarter.bits is SafetyBit.SLOW_MODE
    slowest = once([1.0, 1.0, 1.0, 0.0, 0.0], limits(slow_speed_m_s=0.05), scale=0.9)
    assert length_m(slowest) == pytest.approx(0.05 * 0.05), "never more than that, however large the share"
    turned = once([0.0, 0.0, 0.0, -1.0, 0.0], scale=0.25)
    assert (turned.action[3], turned.bits) == (-0.25, SafetyBit.SLOW_MODE)


def test_rotation() -> None:
    of = limits(max_step_rad=0.08)
    slightly, grossly = once([0.0, 0.0, 0.0, -0.9, 0.0], of), once([0.0, 0.0, 0.0, 1.0, 0.0], limits(max_step_rad=0.07))
    assert slightly.action[3] == pytest.approx(-0.8)
    assert grossly.action[3] == pytest.approx(0.7)
    assert slightly.bits == grossly.bits == SafetyBit.ROTATION
    assert not gross(slightly)
    assert gross(grossly)


def test_a_turn_about_several_axes_is_one_angle() -> None:
    """A wrist that rolls, pitches and yaws at once turns by more than any of the three."""
    names, groups = ["roll", "pitch", "yaw"], [ActionGroup(name="arm", start=0, stop=3)]
    wrist = structs.replace(ACTION, names=names, units=["rad"] * 3, scale=[0.1, 0.1, 0.05], groups=groups, gripper="none")
    safety = SafetyFilter(structs.replace(SPEC, action=wrist), limits(max_step_rad=0.13))
    result = safety.apply(SafetyState(), np.array([1.0, -1.0, 1.0]), HERE, NO_FORCE, Source.POLICY)
    assert np.linalg.norm(result.action * wrist.scale) == pytest.approx(0.13)
    assert result.action == pytest.approx(np.array([1.0, -1.0, 1.0]) * 0.13 / 0.15), "about the same axis"
    assert result.bits is SafetyBit.ROTATION
    assert not gross(result)


def test_the_box_is_the_robots_and_the_stations() -> None:
    for of, at, to in (
        (LIMITS, [0.195, 0.0, 0.1], 0.2),
        (limits(workspace_high=[0.1, 0.3, 0.4]), [0.095, 0.0, 0.1], 0.1),
        (LIMITS, [-0.195, 0.0, 0.1], -0.2),
        (limits(workspace_low=[-0.1, -0.3, 0.0]), [-0.095, 0.0, 0.1], -0.1),
    ):
        result = once([np.sign(to), 0.0, 0.0, 0.0, 0.0], of, position=np.array(at))
        assert at[0] + result.action[0] * 0.012 == pytest.approx(to)
        assert result.bits is SafetyBit.WORKSPACE
        assert not gross(result), "pushing at the edge is exploration"


def test_far_outside_there_is_a_way_back_only() -> None:
    outside = np.array([0.4, 0.0, 0.1])
    assert once([0.0] * 5, position=outside).action[0] == 0.0, "nobody is pulled"
    assert once([-1.0, 0.0, 0.0, 0.0, 0.0], position=outside).action[0] == pytest.approx(-1.0)
    further = once([1.0, 0.0, 0.0, 0.0, 0.0], position=outside)
    assert further.action[0] == pytest.approx(0.0)
    assert gross(further)
    assert not gross(once([1.0, 0.0, 0.0, 0.0, 0.0], position=np.array([0.21, 0.0, 0.1])))


def test_force_guard() -> None:
    of, force = limits(max_force_n=10.0, max_step_m=0.03), np.array([0.0, 0.0, 10.1])
    state = SafetyState()
    for step in range(1, of.force_debounce_steps + 1):
        result = once([0.5, 0.0, -0.5, 0.0, 0.0], of, state, force=force)
        pressing = step < of.force_debounce_steps
        assert bool(result.action[2] < 0.0) == pressing, "a short knock is no contact"
        assert bool(result.bits & SafetyBit.FORCE) != pressing
        state = result.state
    assert result.action[0] == pytest.approx(0.5), "along the contact it may slide"
    assert once([0.0, 0.0, 1.0, 0.0, 0.0], of, state, force=force).action[2] == pytest.approx(1.0), "and away from it"
    assert once([0.0, 0.0, -1.0, 0.0, 0.0], of, state, force=force * 0.9).bits is SafetyBit.NONE
    slanted = once([-1.0, 1.0, 1.0, 0.0, 0.0], of, state, force=np.array([-10.0, -10.0, -10.0]))
    assert slanted.action[:3] @ np.array([-10.0, -10.0, -10.0]) >= -1e-9, "no axis is clipped back into the contact"


def test_what_counts_towards_a_hold() -> None:
    safety = SafetyFilter(SPEC, limits(clamps_to_hold=3, mistakes_per_episode=5))
    state = SafetyState()

    def step(value: float, driver: Source = Source.POLICY) -> str:
        nonlocal state
        result = safety.apply(state, np.array([value, 0.0, 0.0, 0.0, 0.0]), HERE, NO_FORCE, driver)
        state = result.state
        return result.hold

    assert [step(3.0), step(3.0), step(3.0)] == ["", "", "3 in a row"]
    assert step(0.0) == ""
    assert [step(3.0), step(0.0)] == ["", ""], "not in a row"
    assert [step(3.0, Source.HUMAN) for _ in range(9)] == [""] * 9, "a person's do not count"
    assert step(3.0) == "5 in this episode"


def joints(state: SafetyState, asked: list[float], angle: float, force: np.ndarray = NO_FORCE) -> SafetyResult:
    safety = SafetyFilter(JOINTED, LIMITS)
    return safety.apply(state, np.array(asked), HERE, force, Source.HUMAN, joints=np.array([angle, 0.0]))


def test_joint_limit() -> None:
    margin = LIMITS.joint_margin_rad
    free = joints(SafetyState(), [1.0, 0.0, 0.0, 0.0, 0.0], 1.0 - 1.5 * margin)
    assert free.bits is SafetyBit.NONE
    near = joints(free.state, [1.0, 0.5, 0.0, 0.0, 0.0], 1.0 - 0.5 * margin)
    assert near.bits is SafetyBit.JOINT_LIMIT
    assert near.action.tolist() == [0.0, 0.5, 0.0, 0.0, 0.0]
    deeper = joints(near.state, [0.0, 0.5, 0.0, 0.0, 0.0], 1.0 - 0.2 * margin)
    assert not deeper.action.any(), "the other way leads deeper too"
    assert joints(deeper.state, [1.0, 0.0, 0.0, 0.0, 0.0], 1.0 - 0.2 * margin).action[0] == 0.0, "and the first is not forgotten"
    assert joints(deeper.state, [-1.0, 0.0, 0.0, 0.0, 0.0], 1.0 - 0.2 * margin).bits is SafetyBit.NONE


def test_joint_limit_in_contact() -> None:
    """The slide along the contact ends; what is left of it would press."""
    state = SafetyState(over_force_steps=LIMITS.force_debounce_steps, applied=(1.0, 0.0, 0.0, 0.0, 0.0))
    force = np.array([LIMITS.max_force_n, LIMITS.max_force_n, 0.0])
    result = joints(state, [0.5, -0.5, 0.0, 0.0, 0.0], 0.999, force)
    assert result.action.tolist() == [0.0] * 5
    assert result.state.velocity == (0.0, 0.0, 0.0)


def test_what_is_dropped_for_one_way_no_longer_holds_another_back() -> None:
    ways = ((0.0, 1.0, 0.0, 0.0, 0.0), (0.6, -0.8, 0.0, 0.0, 0.0))
    state = SafetyState(towards_limit=ways, beyond_joint_rad=1.0)
    assert not joints(state, [0.5, 0.5, 0.0, 0.0, 0.0], 0.999).action.any()


def test_what_the_force_guard_drops_no_longer_holds_a_rotation_back() -> None:
    """Sideways is dropped for the joint, the rest of the slide would press; without both the rotation leads on to the limit."""
    ways = ((0.0, 1.0, 0.0, 0.0, 0.0), (0.7, 0.0, 0.0, 0.7, 0.0))
    state = SafetyState(towards_limit=ways, beyond_joint_rad=1.0, over_force_steps=LIMITS.force_debounce_steps)
    force = np.array([LIMITS.max_force_n, LIMITS.max_force_n, 0.0])
    assert not joints(state, [-0.5, 0.6, 0.0, 0.4, 0.0], 0.999, force).action.any()
    assert joints(state, [-0.5, 0.6, 0.0, 0.4, 0.0], 0.999).action.tolist() == [-0.5, 0.0, 0.0, 0.4, 0.0]


def test_a_gripper_that_is_told_to_open_may_while_another_one_may_not_close() -> None:
    names, units = ["x", "y", "z", "left", "right"], ["m", "m", "m", "", ""]
    groups = [ActionGroup(name=name, start=i, stop=i + 1) for i, name in ((3, "left_gripper"), (4, "right_gripper"))]
    spec = structs.replace(
        SPEC, action=structs.replace(ACTION, names=names, units=units, groups=[ActionGroup(name="arm", start=0, stop=3), *groups])
    )
    state = SafetyState(over_grip_steps=LIMITS.force_debounce_steps)
    asked = np.array([0.0, 0.0, 0.0, -1.0, 1.0])
    result = SafetyFilter(spec, LIMITS).apply(state, asked, HERE, NO_FORCE, Source.HUMAN, gripper_force_n=LIMITS.max_gripper_force_n + 1.0)
    assert result.action.tolist() == [0.0, 0.0, 0.0, 0.0, 1.0]


def test_grip() -> None:
    safety, state = SafetyFilter(SPEC, LIMITS), SafetyState()
    close = np.array([0.0, 0.0, 0.0, 0.0, -1.0])
    for step in range(1, LIMITS.force_debounce_steps + 1):
        result = safety.apply(state, close, HERE, NO_FORCE, Source.HUMAN, gripper_force_n=LIMITS.max_gripper_force_n + 0.1)
        state = result.state
        assert result.action[4] == (0.0 if step == LIMITS.force_debounce_steps else -1.0)
    assert result.bits is SafetyBit.GRIPPER
    opened = safety.apply(state, -close, HERE, NO_FORCE, Source.HUMAN, gripper_force_n=LIMITS.max_gripper_force_n + 0.1)
    assert (opened.action[4], opened.bits) == (1.0, SafetyBit.NONE)
    assert safety.apply(state, close, HERE, NO_FORCE, Source.HUMAN, gripper_force_n=LIMITS.max_gripper_force_n).action[4] == -1.0
