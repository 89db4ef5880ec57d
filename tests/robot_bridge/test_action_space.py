"""What the filter could not limit is refused before the first command."""

import math

import pytest
from msgspec import structs

from takeover.data.schema import ActionGroup, RobotSpec, SafetyLimits
from takeover.robot_bridge.action_space import axes_of, joint_limits_of
from takeover.robot_bridge.robots.registry import SIM_TASKS
from takeover.robot_bridge.safety import SafetyFilter
from takeover.robot_bridge.tasks.registry import make_task

from .specs import ACTION, SPEC

ARM, HAND = ActionGroup(name="arm", start=0, stop=4), ActionGroup(name="hand", start=4, stop=5)


def test_the_axes_of_an_arm_with_a_gripper() -> None:
    axes = axes_of(SPEC)
    assert (axes.translation, axes.cartesian, axes.rotation, axes.gripper) == ((0, 1, 2), (0, 1, 2), (3,), (4,))
    assert axes.scale.tolist() == ACTION.scale


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "joint_delta"}, "joint_delta"),
        ({"frame": "tool"}, "frame 'tool'"),
        ({"names": ["x", "x", "z", "yaw", "gripper"]}, "same axis"),
        ({"units": ["mm", "mm", "mm", "rad", ""]}, "component 0, 'x': unit 'mm'"),
        ({"units": ["m", "m", "m", "deg", ""]}, "component 3, 'yaw': unit 'deg'"),
        ({"units": ["", "m", "m", "rad", ""]}, "component 0, 'x': unit ''"),
        ({"units": ["m", "m", "m", "rad", "m"]}, "component 4, 'gripper': unit 'm'"),
        ({"names": ["x", "y", "up", "yaw", "gripper"]}, "'up': moves the tool by metres along no axis"),
        ({"names": ["x", "y", "", "yaw", "gripper"]}, "along no axis"),
        ({"units": ["m", "m", "m", "rad"]}, "5 names, 4 units, 5 scales"),
        ({"scale": [0.012] * 4}, "5 names, 5 units, 4 scales"),
        ({"scale": [0.012, 0.012, math.nan, 0.1, 1.0]}, "component 2, 'z': scale nan"),
        ({"scale": [0.012, 0.0, 0.012, 0.1, 1.0]}, "scale 0.0"),
        ({"scale": [0.012, -0.012, 0.012, 0.1, 1.0]}, "scale -0.012"),
        ({"groups": [ARM, HAND]}, "gripper 'discrete', but 0 components"),
        ({"groups": [ARM, HAND], "gripper": "none"}, "component 4, 'gripper': unit ''"),
        ({"gripper": "none"}, "gripper 'none', but 1 components"),
        ({"groups": [ARM]}, "expected each of 0 to 4 once"),
        ({"groups": [ARM, ActionGroup(name="gripper", start=3, stop=5)]}, "expected each of 0 to 4 once"),
    ],
)
def test_action_spaces_that_cannot_be_limited_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match="robot 'test'") as caught:
        SafetyFilter(structs.replace(SPEC, action=structs.replace(ACTION, **change)), SafetyLimits())
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("low", "high"), [([-1.0], []), ([], [1.0]), ([-1.0, -1.0], [1.0]), ([1.0], [-1.0]), ([0.0], [0.0]), ([math.nan], [1.0])]
)
def test_joint_limits_must_fit(low: list[float], high: list[float]) -> None:
    with pytest.raises(ValueError, match="joint_low"):
        SafetyFilter(structs.replace(SPEC, joint_low=low, joint_high=high), SafetyLimits())


def test_a_robot_may_know_no_joint_limits() -> None:
    assert [limits.size for limits in joint_limits_of(SPEC)] == [0, 0]


@pytest.mark.parametrize("name", SIM_TASKS)
def test_every_task_that_comes_with_it_is_accepted(name: str) -> None:
    spec: RobotSpec = structs.replace(SPEC, action=make_task(name).action)
    assert axes_of(spec).translation == (0, 1, 2)
