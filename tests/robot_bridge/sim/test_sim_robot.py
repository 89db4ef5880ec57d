"""The simulated robot against the `Robot` contract, in real MuJoCo."""

import threading

import numpy as np
import pytest

from takeover.data.schema import SafetyLimits
from takeover.robot_bridge.robots.base import Robot, RobotError
from takeover.robot_bridge.robots.registry import SIM_TASKS, split_robot
from takeover.robot_bridge.robots.sim import MAX_LATENCY_STEPS, SimRobot
from takeover.robot_bridge.tasks.peg_insert import PLATE_TOP_M
from takeover.robot_bridge.tasks.registry import make_task

TASKS = SIM_TASKS


@pytest.fixture(params=TASKS)
def robot(request: pytest.FixtureRequest) -> SimRobot:
    return SimRobot(request.param)


def drive(robot: SimRobot, actions: np.ndarray) -> np.ndarray:
    rows = []
    for action in actions:
        robot.apply(action)
        robot.advance()
        reading = robot.read()
        rows.append(np.concatenate([reading.observation, reading.joints, reading.force_n, reading.tool_position]))
    return np.array(rows)


def random_actions(robot: SimRobot, count: int, seed: int = 0) -> np.ndarray:
    """Random but persistent, and downwards, so that contacts and grasps happen."""
    generator = np.random.default_rng(seed)
    actions = np.repeat(generator.uniform(-1, 1, (count // 5 + 1, robot.spec.action.size)), 5, axis=0)[:count]
    actions[:, 2] -= 0.4
    return np.clip(actions, -1, 1)


def expert_episode(robot: SimRobot, seed: int) -> tuple[bool, int]:
    robot.reset(seed)
    for step in range(robot.spec.max_steps):
        robot.apply(np.array(robot.advice().expert_action))
        robot.advance()
        if robot.evaluate().terminated:
            return robot.evaluate().success, step + 1
    return False, robot.spec.max_steps


def test_is_a_robot_and_its_spec_fits_its_readings(robot: SimRobot) -> None:
    assert isinstance(robot, Robot)
    spec, reading = robot.spec, robot.read()
    assert reading.observation.shape == (spec.observation.size,)
    assert spec.observation.size == {"peg-insert": 22, "pick-lift": 23, "pick-lift-pictures": 15, "sort-two": 28}[spec.task_id]
    assert len(spec.observation.units) == spec.observation.size
    assert len(spec.action.units) == len(spec.action.scale) == spec.action.size
    assert spec.control_hz == 20.0
    assert spec.max_steps == (200 if spec.task_id == "sort-two" else 100)
    assert np.all(reading.tool_position > spec.workspace_low)
    assert np.all(reading.tool_position < spec.workspace_high)


def test_reset_is_a_function_of_the_seed(robot: SimRobot) -> None:
    actions = random_actions(robot, 20)
    robot.reset(5)
    first = drive(robot, actions)
    robot.reset(6)
    other = drive(robot, actions)
    robot.reset(5)
    assert np.array_equal(first, drive(robot, actions))
    assert not np.array_equal(first, other)


def test_restore_continues_bit_for_bit_also_in_another_robot(robot: SimRobot) -> None:
    actions = random_actions(robot, 90)
    robot.reset(3)
    robot.inject("latency", 2)
    drive(robot, actions[:40])
    state = robot.save()
    after, end = drive(robot, actions[40:]), robot.save()
    assert np.abs(after).max() < 1e4
    robot.restore(state)
    assert robot.save() == state
    assert np.array_equal(after, drive(robot, actions[40:]))
    assert robot.save() == end
    another = SimRobot(robot.spec.task_id, {"friction": 0.4})
    another.reset(11)
    another.restore(state)
    assert np.array_equal(after, drive(another, actions[40:]))
    assert another.save() == end


def test_restore_in_the_middle_of_a_grasp_is_exact() -> None:
    robot = SimRobot("pick-lift")
    robot.reset(1)
    while robot.advice().values["gripper"][2] < 0.5:
        robot.apply(np.array(robot.advice().expert_action))
        robot.advance()
    state = robot.save()
    lift = np.tile([0.0, 0.0, 0.5, 0.2, -1.0], (12, 1))
    lifted = drive(robot, lift)
    assert robot.evaluate().reward == 0.0 or robot.evaluate().success
    another = SimRobot("pick-lift")
    another.restore(state)
    assert np.array_equal(lifted, drive(another, lift))
    assert another.advice().values["cube_pose"][2] > 0.06


def test_state_length_is_constant_and_a_multiple_of_eight(robot: SimRobot) -> None:
    lengths = set()
    for seed in range(3):
        robot.reset(seed)
        drive(robot, random_actions(robot, 7, seed))
        lengths.add(len(robot.save()))
    assert len(lengths) == 1
    assert lengths.pop() % 8 == 0


def test_a_state_of_another_task_or_a_damaged_one_is_refused() -> None:
    peg, pick = SimRobot("peg-insert"), SimRobot("pick-lift")
    with pytest.raises(RobotError, match="another task"):
        peg.restore(pick.save())
    state = bytearray(peg.save())
    state[0] ^= 255
    with pytest.raises(RobotError, match="not a simulator state"):
        peg.restore(bytes(state))
    state = bytearray(peg.save())
    state[64:72] = np.float64(np.nan).tobytes()
    with pytest.raises(RobotError, match="damaged"):
        peg.restore(bytes(state))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_actions_never_reach_the_simulation(robot: SimRobot, bad: float) -> None:
    before = robot.save()
    action = np.zeros(robot.spec.action.size)
    action[1] = bad
    with pytest.raises(RobotError, match="not finite"):
        robot.apply(action)
    assert robot.save() == before
    with pytest.raises(RobotError, match="shape"):
        robot.apply(np.zeros(3))


def test_random_motion_stays_finite_and_in_the_workspace(robot: SimRobot) -> None:
    low, high = np.array(robot.spec.workspace_low), np.array(robot.spec.workspace_high)
    for seed in range(5):
        robot.reset(seed)
        rows = drive(robot, random_actions(robot, 100, seed))
        assert np.isfinite(rows).all()
        positions = rows[:, -3:]
        assert np.all(positions > low - 0.01)
        assert np.all(positions < high + 0.01)


def test_reading_twice_gives_the_same_numbers(robot: SimRobot) -> None:
    robot.apply(np.full(robot.spec.action.size, 0.5))
    robot.advance()
    assert np.array_equal(robot.read().observation, robot.read().observation)


def test_free_motion_follows_the_command_and_stands_still_without() -> None:
    robot = SimRobot("peg-insert")
    start = robot.read().tool_position
    drive(robot, np.tile([0.5, -0.5, 0.2, 0.5], (10, 1)))
    yaw = robot.read().tool_yaw
    rows = drive(robot, np.zeros((20, 4)))
    moved = robot.read().tool_position - start
    assert moved == pytest.approx([0.025, -0.025, 0.010], abs=5e-4)
    assert robot.read().tool_yaw == pytest.approx(yaw, abs=0.03)
    assert np.linalg.norm(rows[-1, -3:] - rows[-5, -3:]) < 1e-4
    assert np.linalg.norm(robot.read().tool_velocity) < 1e-3


def test_pushing_on_the_plate_is_bounded_felt_and_does_not_go_through() -> None:
    robot = SimRobot("peg-insert", {"hole_range_m": 0.0, "hole_yaw_range_rad": 0.0, "grasp_offset_m": 0.0})
    robot.reset(0)
    drive(robot, np.tile([1.0, 0.0, 0.0, 0.0], (6, 1)))  # 3 cm beside the hole, above the plate
    rows = drive(robot, np.tile([0.0, 0.0, -1.0, 0.0], (60, 1)))
    tip = robot.advice().values["tip"]
    assert tip[2] == pytest.approx(PLATE_TOP_M, abs=5e-4)
    assert rows[-1, -4] == pytest.approx(27.0, abs=3.0)  # force z: the window times the stiffness
    assert rows[:, -6:-3].max() < 60.0
    assert not robot.evaluate().success


def test_pushing_the_cube_into_the_table_stays_under_the_default_force_limit() -> None:
    robot = SimRobot("pick-lift")
    robot.reset(1)
    forces = []
    for _ in range(80):
        cube, tool = np.array(robot.advice().values["cube_pose"]), robot.read().tool_position
        aside = cube[:2] - tool[:2]
        down = -1.0 if np.hypot(*aside) < 0.01 else 0.3
        robot.apply(np.array([*np.clip(30 * aside, -1, 1), down, 0.0, -1.0]))  # fingers closed, from above
        robot.advance()
        forces.append(robot.read().force_n)
    assert 30.0 < np.abs(forces).max() < SafetyLimits().max_force_n


def test_stop_is_thread_safe_halts_at_once_and_ignores_commands_until_cleared() -> None:
    robot = SimRobot("peg-insert")
    fast = np.array([1.0, 0.0, 0.0, 0.0])
    drive(robot, np.tile(fast, (5, 1)))
    thread = threading.Thread(target=robot.stop)
    thread.start()
    thread.join()
    at_stop = robot.read().tool_position
    drive(robot, np.tile(fast, (20, 1)))
    assert np.linalg.norm(robot.read().tool_position - at_stop) < 0.006
    robot.clear()
    standing = robot.read().tool_position
    robot.advance()
    assert np.linalg.norm(robot.read().tool_position - standing) < 1e-3  # nothing commanded before the stop is executed after it
    drive(robot, np.tile(fast, (4, 1)))
    assert robot.read().tool_position[0] - standing[0] > 0.01


def test_a_stop_cleared_between_two_periods_still_drops_what_was_commanded_before() -> None:
    robot = SimRobot("peg-insert", {"latency_steps": 3})
    drive(robot, np.tile([1.0, 0.0, 0.0, 0.0], (5, 1)))
    robot.stop()
    robot.apply(np.array([1.0, 0.0, 0.0, 0.0]))  # ignored
    robot.clear()
    robot.advance()
    standing = robot.read().tool_position
    drive(robot, np.zeros((5, 4)))
    assert np.linalg.norm(robot.read().tool_position - standing) < 0.004  # it only comes to rest


def test_a_command_lives_one_period() -> None:
    """The robot's own watchdog: a control loop that stops commanding stops the robot."""
    robot = SimRobot("peg-insert")
    start = robot.read().tool_position
    robot.apply(np.array([1.0, 0.0, 0.0, 0.0]))
    for _ in range(10):
        robot.advance()
    assert robot.read().tool_position[0] - start[0] == pytest.approx(0.005, abs=5e-4)


def test_a_state_saved_between_command_and_period_keeps_the_command() -> None:
    robot, another = SimRobot("peg-insert"), SimRobot("peg-insert")
    robot.apply(np.array([1.0, 0.0, 0.0, 0.0]))
    another.restore(robot.save())
    robot.advance()
    another.advance()
    assert robot.save() == another.save()
    assert robot.read().tool_velocity[0] > 0.02


def test_latency_delays_by_exactly_that_many_steps() -> None:
    command = np.array([0.8, 0.0, 0.0, 0.0])
    tracks = {}
    for latency in (0, 3):
        robot = SimRobot("peg-insert", {"latency_steps": latency})
        robot.reset(2)
        tracks[latency] = drive(robot, np.tile(command, (10, 1)))[:, -3]
    assert tracks[3][2] == pytest.approx(tracks[3][0], abs=1e-6)  # still standing
    assert tracks[3][3:] == pytest.approx(tracks[0][:-3], abs=1e-6)
    assert tracks[0][2] - tracks[0][0] > 0.005


def test_faults_do_what_they_say() -> None:
    peg = SimRobot("peg-insert")
    hole = np.array(peg.advice().values["hole_pose"][:2])
    peg.inject("bumped_object", 1.0)
    assert np.linalg.norm(np.array(peg.advice().values["hole_pose"][:2]) - hole) == pytest.approx(0.01)
    offset = np.array(peg.advice().values["tip"])
    peg.inject("slip", 1.0)
    assert np.linalg.norm(np.array(peg.advice().values["tip"]) - offset) == pytest.approx(0.004, abs=1e-4)
    peg.inject("frozen_camera", 1.0)
    assert peg.camera_frozen
    peg.inject("frozen_camera", 0.0)
    assert not peg.camera_frozen
    with pytest.raises(RobotError, match="known: slip, lost_grasp, bumped_object, latency, frozen_camera"):
        peg.inject("earthquake", 1.0)
    with pytest.raises(RobotError, match="not finite"):
        peg.inject("latency", float("nan"))
    peg.inject("latency", 1e9)
    assert peg.save()  # bounded by the queue
    assert MAX_LATENCY_STEPS < 100


def test_a_lost_grasp_cannot_be_inserted_and_a_dropped_cube_lies_on_the_table() -> None:
    peg = SimRobot("peg-insert")
    peg.reset(4)
    peg.inject("lost_grasp", 1.0)
    for _ in range(60):
        peg.apply(np.array(peg.advice().expert_action))
        peg.advance()
    assert not peg.evaluate().success
    pick = SimRobot("pick-lift")
    assert expert_episode(pick, 4)[0]
    pick.inject("lost_grasp", 1.0)
    drive(pick, np.zeros((5, 5)))
    assert pick.advice().values["cube_pose"][2] == pytest.approx(0.02, abs=2e-3)


def test_parameters_are_validated_by_name_and_range(robot: SimRobot) -> None:
    with pytest.raises(RobotError, match=r"friction = 9\.0: allowed is"):
        SimRobot(robot.spec.task_id, {"friction": 9.0})
    with pytest.raises(RobotError, match="friction = nan: allowed is"):
        SimRobot(robot.spec.task_id, {"friction": float("nan")})
    with pytest.raises(RobotError, match="unknown task parameter 'colour'; known: "):
        SimRobot(robot.spec.task_id, {"colour": 1.0})
    with pytest.raises(RobotError, match="known: peg-insert, pick-lift"):
        SimRobot("juggling")
    for spec in robot.spec.parameters:
        assert spec.low <= spec.nominal <= spec.high
        for extreme in (spec.low, spec.high):
            SimRobot(robot.spec.task_id, {spec.name: extreme}).advance()


def test_parameters_change_the_physics() -> None:
    tight, wide = SimRobot("peg-insert", {"clearance_m": 0.0005}), SimRobot("peg-insert", {"clearance_m": 0.004})
    blind = {}
    for name, robot in (("tight", tight), ("wide", wide)):
        successes = 0
        for seed in range(15):
            robot.reset(seed)
            for _ in range(60):
                reading = robot.read()
                to_hole = reading.observation[13:17]
                down = -0.7 if np.hypot(*to_hole[:2]) < 0.002 else float(np.clip(50 * (to_hole[2] + 0.004), -0.7, 0.7))
                robot.apply(np.array([*np.clip(70 * to_hole[:2], -1, 1), down, np.clip(4 * to_hole[3], -1, 1)]))
                robot.advance()
                if robot.evaluate().success:
                    successes += 1
                    break
        blind[name] = successes
    assert blind["wide"] >= blind["tight"] + 5  # a grasp offset of 3 mm goes in with 4 mm of clearance, hardly with half of one


@pytest.mark.parametrize("task", TASKS)
def test_expert_solves_random_starts_at_a_human_pace(task: str) -> None:
    robot = SimRobot(task)
    results = [expert_episode(robot, 1000 + seed) for seed in range(60)]
    assert sum(success for success, _ in results) >= 59
    low, high = (45, 70) if task == "sort-two" else (20, 45)
    assert low <= np.mean([steps for _, steps in results]) <= high


def test_observation_alone_suffices_to_insert_by_feeling() -> None:
    """Force and torque say where the peg stands: a memoryless rule on the observation finds the hole despite the hidden offset."""
    robot = SimRobot("peg-insert")
    successes = 0
    for seed in range(20):
        robot.reset(seed)
        for _ in range(100):
            observation = robot.read().observation
            to_hole, force, torque = observation[13:17], observation[17:20], observation[20:22]
            distance = float(np.hypot(*to_hole[:2]))
            action = np.zeros(4)
            action[3] = np.clip(4 * to_hole[3], -0.7, 0.7)
            if to_hole[2] > 0.004:  # inside
                action[2] = -0.7
            elif force[2] > 3.0:  # standing on the plate: away from where it carries
                centre = np.array([-torque[1], torque[0]]) / force[2]
                action[:2] = -0.15 * centre / max(float(np.linalg.norm(centre)), 1e-6)
                action[2] = -0.1 if force[2] < 15.0 else 0.1
            else:
                action[:2] = np.clip(70 * to_hole[:2], -0.7, 0.7)
                action[2] = -0.5 if distance < 0.0015 else np.clip(100 * (to_hole[2] + 0.004 + 0.4 * distance), -0.7, 0.5)
                if distance < 0.0065 and to_hole[2] > -0.003:
                    action[2] = -0.5
            robot.apply(action)
            robot.advance()
            if robot.evaluate().success:
                successes += 1
                break
    assert successes >= 18


def test_the_registry_names_every_task_and_refuses_others() -> None:
    for task in SIM_TASKS:
        assert make_task(task).name == task
        assert split_robot(f"sim:{task}") == ("sim", task)
    with pytest.raises(RobotError, match="unknown robot 'shovel'; known: sim"):
        split_robot("shovel")
    with pytest.raises(RobotError, match="unknown task 'juggling' for robot 'sim'; known: peg-insert, pick-lift"):
        split_robot("sim:juggling")


@pytest.mark.parametrize("control_hz", [50.0, 100.0])
def test_other_control_rates_move_at_the_same_speed(control_hz: float) -> None:
    robots = SimRobot("peg-insert"), SimRobot("peg-insert", control_hz=control_hz)
    moved = []
    for robot in robots:
        robot.reset(3)
        start = robot.read().tool_position
        for _ in range(round(0.5 * robot.spec.control_hz)):
            robot.apply(np.array([0.0, 0.8, 0.0, 0.0]))
            robot.advance()
        moved.append(robot.read().tool_position - start)
    np.testing.assert_allclose(moved[0], moved[1], atol=0.002)
    assert robots[1].spec.max_steps == robots[0].spec.max_steps * control_hz / 20.0
    with pytest.raises(RobotError, match="20, 50, 100 Hz"):
        SimRobot("peg-insert", control_hz=30.0)
