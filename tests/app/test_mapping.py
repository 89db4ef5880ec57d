"""From twists to canonical actions in the three control frames."""

import math
from dataclasses import replace

import pytest

from takeover.app.inputs.base import DeviceReading
from takeover.app.inputs.mapping import FINE_FACTOR, to_canonical
from takeover.data.schema import RunConfig
from takeover.robot_bridge.robots.registry import make_robot
from takeover.robot_bridge.robots.sim_camera_geometry import project

AT_REST = DeviceReading("pad", "gamepad", "Pad", True, True, False, (0.0,) * 6, 0.0, 0)


def spec_of(task: str):
    return make_robot(RunConfig(session_id="s", workspace="/nowhere", sockets="/nowhere", task=task)).spec


@pytest.fixture(scope="module")
def peg():
    return spec_of("peg-insert")


@pytest.fixture(scope="module")
def pick():
    return spec_of("pick-lift")


def moved(**axes: float) -> DeviceReading:
    names = ("x", "y", "z", "roll", "pitch", "yaw")
    return replace(AT_REST, twist=tuple(axes.get(name, 0.0) for name in names))


def test_base_frame_is_the_identity(peg):
    assert to_canonical(moved(x=0.25, y=-0.5, z=1.0, yaw=-0.125), peg, "base", 1.0, 0.7) == [0.25, -0.5, 1.0, -0.125]


def pixel_shift(action: list[float]) -> tuple[float, float]:
    """By how many pixels a centimetre of this motion moves the tool in the front picture."""
    start = (0.0, 0.0, 0.08)
    u0, v0 = project("front", start)
    u1, v1 = project("front", [a + 0.01 * b for a, b in zip(start, action[:3], strict=True)])
    return u1 - u0, v1 - v0


def test_view_frame_is_as_seen_in_the_front_picture(peg):
    right = pixel_shift(to_canonical(moved(x=1.0), peg, "view", 1.0, 0.0))
    assert right[0] > 5
    assert abs(right[1]) < 0.2 * right[0]
    away = pixel_shift(to_canonical(moved(y=1.0), peg, "view", 1.0, 0.0))
    assert away[1] < -2, "away from the viewer is up in a picture taken from above"
    assert abs(away[0]) < 0.2 * abs(away[1])
    up = pixel_shift(to_canonical(moved(z=1.0), peg, "view", 1.0, 0.0))
    assert up[1] < -5


def test_tool_frame_turns_with_the_tool(peg):
    x, y, *_ = to_canonical(moved(x=1.0), peg, "tool", 1.0, math.pi / 2)
    assert (x, y) == pytest.approx((0.0, 1.0))


def test_a_diagonal_keeps_its_direction_when_turned(peg):
    reading = moved(x=1.0, y=1.0)
    x, y, *_ = to_canonical(reading, peg, "tool", 1.0, math.radians(20))
    assert math.degrees(math.atan2(y, x)) == pytest.approx(65)
    assert max(abs(x), abs(y)) <= 1.0


def test_speed_and_fine_scale_the_motion_but_not_the_gripper(pick):
    reading = replace(moved(z=1.0), gripper=1.0, fine=True)
    action = to_canonical(reading, pick, "base", 0.5, 0.0)
    assert action[2] == pytest.approx(0.5 * FINE_FACTOR)
    assert action[4] == 1.0


@pytest.mark.parametrize(("command", "expected"), [(-1.0, -1.0), (-0.6, -1.0), (0.3, 0.0), (0.9, 1.0)])
def test_discrete_gripper_snaps(pick, command, expected):
    assert to_canonical(replace(AT_REST, gripper=command), pick, "base", 1.0, 0.0)[4] == expected


def test_unknown_frame_and_joint_robots_are_refused(peg):
    with pytest.raises(ValueError, match="known: view, base, tool"):
        to_canonical(AT_REST, peg, "camera", 1.0, 0.0)
    import msgspec

    joints = msgspec.structs.replace(peg, action=msgspec.structs.replace(peg.action, names=["j1", "j2", "j3", "j4"]))
    with pytest.raises(ValueError, match="'j1'"):
        to_canonical(AT_REST, joints, "base", 1.0, 0.0)
