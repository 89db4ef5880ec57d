"""`sort-two`: two cubes in a fixed order, in real MuJoCo."""

import numpy as np
import pytest

from takeover.data.schema import SafetyLimits
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.robots.sim_camera_geometry import project
from takeover.robot_bridge.robots.sim_cameras import SimCameras
from takeover.robot_bridge.tasks.sort_two import CAUSES, LYING_M, SortTwo
from takeover.robot_bridge.tasks.sort_two_expert import action

Truth = dict[str, list[float]]
NOMINAL = {spec.name: spec.nominal for spec in SortTwo.parameters}


def truth_of(robot: SimRobot) -> Truth:
    return robot.advice().values


def step(robot: SimRobot, wanted: list[float]) -> bool:
    """Whether the episode is over."""
    robot.apply(np.array(wanted))
    robot.advance()
    return robot.evaluate().terminated


def drive_until(robot: SimRobot, done, wanted=lambda truth: action(truth), limit: int = 200) -> int:
    """Steps until ``done(truth)`` or the episode's end."""
    for count in range(1, limit + 1):
        if step(robot, wanted(truth_of(robot))) or done(truth_of(robot)):
            return count
    return limit


def other_order(truth: Truth) -> Truth:
    """As someone sees it who takes the violet cube for the first."""
    swapped = dict(truth)
    for one, two in (("first_cube_pose", "second_cube_pose"), ("first_mark", "second_mark")):
        swapped[one], swapped[two] = truth[two], truth[one]
    width, command, first, second = truth["gripper"]
    return swapped | {"gripper": [width, command, second, first], "on_mark": truth["on_mark"][::-1]}


def other_mark(truth: Truth) -> Truth:
    """As someone sees it who mistakes the marks for each other."""
    return truth | {"first_mark": truth["second_mark"], "second_mark": truth["first_mark"], "on_mark": [0.0, 0.0]}


def never(_: Truth) -> bool:
    return False


def grips(index: int):
    return lambda truth: truth["gripper"][2 + index] > 0.5


@pytest.fixture
def robot() -> SimRobot:
    robot = SimRobot("sort-two")
    robot.reset(2)
    return robot


def test_starts_leave_room_for_the_fingers_and_the_marks_free() -> None:
    random, sides = np.random.default_rng(0), 0
    for _ in range(500):
        variables, start = SortTwo().draw(random, NOMINAL)
        first, second, marks = variables[0:2], variables[3:5], variables[6:10].reshape(2, 2)
        assert np.hypot(*(first - second)) > 0.07
        assert np.abs(marks[0] - marks[1]).max() > 0.085
        for cube in (first, second):
            assert min(np.abs(cube - mark).max() for mark in marks) > 0.06
            assert np.abs(cube).max() < 0.13
        sides += first[1] > 0
        assert start[2] > 0.08
    assert 200 < sides < 300


def test_the_way_to_go_shrinks_along_the_experts_way() -> None:
    robot = SimRobot("sort-two")
    for seed in range(8):
        robot.reset(seed)
        ways = [truth_of(robot)["distance"][0]]
        while not step(robot, action(truth_of(robot))):
            ways.append(truth_of(robot)["distance"][0])
        assert robot.evaluate().success
        assert 0.5 < ways[0] < 1.0
        assert truth_of(robot)["distance"][0] == 0.0
        assert max(np.diff(ways)) < 0.004, seed
        assert max(np.diff(_progress(ways))) < 12, seed  # an onlooker calls 16 steps without progress a stall


def _progress(ways: list[float]) -> list[int]:
    best, at = ways[0], [0]
    for i, way in enumerate(ways):
        if way < best - 0.0015:
            best = way
            at.append(i)
    return at


def test_the_other_order_ends_the_episode_as_a_failure(robot: SimRobot) -> None:
    steps = drive_until(robot, never, lambda truth: action(other_order(truth)))
    evaluation = robot.evaluate()
    assert steps < 80
    assert evaluation.terminated
    assert not evaluation.success
    assert evaluation.reward == 0.0
    assert CAUSES[int(truth_of(robot)["failure"][0])] == "wrong order"


def test_a_cube_on_the_others_mark_ends_the_episode_as_a_failure(robot: SimRobot) -> None:
    steps = drive_until(robot, never, lambda truth: action(other_mark(truth)))
    evaluation = robot.evaluate()
    assert steps < 80
    assert evaluation.terminated
    assert not evaluation.success
    assert CAUSES[int(truth_of(robot)["failure"][0])] == "wrong place"


def test_the_first_alone_is_neither_success_nor_failure(robot: SimRobot) -> None:
    drive_until(robot, lambda truth: truth["on_mark"][0] > 0.5)
    evaluation = robot.evaluate()
    assert (evaluation.success, evaluation.terminated, evaluation.reward) == (False, False, 0.0)
    assert truth_of(robot)["failure"] == [0.0]
    for _ in range(10):  # the fingers closed over nothing, beside it
        assert not step(robot, [0.0, 0.0, 0.7, 0.0, 1.0])


def test_a_cube_in_the_fingers_does_not_count_as_set_down(robot: SimRobot) -> None:
    def over_its_mark(truth: Truth) -> bool:
        return bool(np.abs(np.subtract(truth["first_cube_pose"][:2], truth["first_mark"])).max() < truth["tolerance"][0])

    drive_until(robot, lambda truth: grips(0)(truth) and over_its_mark(truth) and truth["first_cube_pose"][2] < 0.018 + LYING_M)
    known = truth_of(robot)
    assert over_its_mark(known)
    assert known["gripper"][2] == 1.0
    assert known["on_mark"] == [0.0, 0.0]
    assert robot.read().observation[23] == 0.0
    drive_until(robot, lambda truth: truth["on_mark"][0] > 0.5, limit=5)
    assert truth_of(robot)["on_mark"] == [1.0, 0.0]
    assert robot.read().observation[23] == 1.0


def test_the_wrong_cube_in_the_hand_is_put_back_and_the_episode_saved(robot: SimRobot) -> None:
    drive_until(robot, grips(1), lambda truth: action(other_order(truth)))
    for _ in range(6):
        assert not step(robot, action(other_order(truth_of(robot))))
    assert truth_of(robot)["gripper"][3] == 1.0
    drive_until(robot, never)
    assert robot.evaluate().success


@pytest.mark.parametrize("fault", ["slip", "lost_grasp", "bumped_object"])
def test_the_expert_recovers_from_every_fault(fault: str) -> None:
    robot, saved = SimRobot("sort-two"), 0
    for seed in range(4):
        robot.reset(seed)
        drive_until(robot, grips(0))
        for _ in range(5):
            step(robot, action(truth_of(robot)))
        before = truth_of(robot)
        robot.inject(fault, 1.0)
        after = truth_of(robot)
        hit, spared = ("second", "first") if fault == "bumped_object" else ("first", "second")
        assert after[f"{spared}_cube_pose"] == before[f"{spared}_cube_pose"]
        if fault == "lost_grasp":
            assert after["first_cube_pose"][2] == pytest.approx(0.018)
        if fault == "bumped_object":
            assert np.hypot(*np.subtract(after[f"{hit}_cube_pose"], before[f"{hit}_cube_pose"])[:2]) == pytest.approx(0.02)
        drive_until(robot, never, limit=130)
        saved += robot.evaluate().success
    assert saved >= 3


def test_pushing_a_cube_into_the_table_does_not_trip_the_force_limit(robot: SimRobot) -> None:
    forces = []
    for _ in range(45):
        aside = np.array(truth_of(robot)["first_cube_pose"][:2]) - robot.read().tool_position[:2]
        down = -1.0 if np.hypot(*aside) < 0.01 else 0.0
        assert not step(robot, [*np.clip(30 * aside, -1, 1), down, 0.0, -1.0])  # fingers closed, from above
        forces.append(np.abs(robot.read().force_n).max())
    limits = SafetyLimits()
    assert 40.0 < forces[-1] < limits.max_force_n
    assert np.sum(np.array(forces) > limits.max_force_n) < limits.force_debounce_steps  # the impact at full speed


def test_restore_in_the_middle_of_the_second_carry_is_exact(robot: SimRobot) -> None:
    drive_until(robot, grips(1))
    for _ in range(4):
        step(robot, action(truth_of(robot)))
    state = robot.save()
    another = SimRobot("sort-two", {"friction": 0.5})
    another.restore(state)
    for _ in range(25):
        wanted = action(truth_of(robot))
        assert wanted == action(truth_of(another))
        assert step(robot, wanted) == step(another, wanted)
    assert robot.save() == another.save()


def test_what_is_seen_of_the_cubes_is_measured_with_an_error_of_each_its_own() -> None:
    robot, off = SimRobot("sort-two"), []
    for seed in range(60):
        robot.reset(seed)
        known, seen = truth_of(robot), robot.read().observation
        tool = np.array(known["tool_pose"])
        off.append([*(seen[11:14] + tool[:3] - known["first_cube_pose"][:3]), *(seen[15:18] + tool[:3] - known["second_cube_pose"][:3])])
        assert seen[19:21] + tool[:2] == pytest.approx(known["first_mark"], abs=1e-9)
        assert seen[21:23] + tool[:2] == pytest.approx(known["second_mark"], abs=1e-9)
    spread = np.std(off, axis=0)
    assert spread[[0, 1, 3, 4]] == pytest.approx([0.002] * 4, rel=0.4)
    assert abs(np.corrcoef(np.array(off)[:, 0], np.array(off)[:, 3])[0, 1]) < 0.4


def test_cubes_and_marks_are_seen_in_their_colours_where_they_lie() -> None:
    robot = SimRobot("sort-two")
    cameras = SimCameras(robot)
    try:
        for seed in range(3):
            robot.reset(seed)
            known = truth_of(robot)
            rgb = cameras.pictures(cameras.capture())[0].rgb.astype(float)
            for name, green in (("first", True), ("second", False)):
                half, wide = known["cube_half"][0], known["cube_half"][0] + known["tolerance"][0]
                x, y, z, _ = known[f"{name}_cube_pose"]
                side = _around(rgb, (x + half, y - half, z))  # the edge that faces the camera, or a side of it
                mark = _around(rgb, (known[f"{name}_mark"][0] + wide - 0.003, known[f"{name}_mark"][1], 0.001))
                for red, leaf, blue in (side, mark):
                    assert (leaf > 1.3 * red) if green else (min(red, blue) > 1.15 * leaf), (seed, name)
    finally:
        cameras.close()


def _around(rgb: np.ndarray, point: tuple[float, float, float]) -> np.ndarray:
    """The most colourful pixel (3,) within four of where ``point`` appears in the front picture."""
    u, v = (round(value) for value in project("front", point))
    patch = rgb[v - 4 : v + 5, u - 4 : u + 5].reshape(-1, 3)
    return patch[np.argmax(patch.max(1) - patch.min(1))]
