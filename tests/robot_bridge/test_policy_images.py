"""Pictures for the policy: small, of the same frame that people see; what is shown is what is recorded, in lockstep and in real time."""

from pathlib import Path

import numpy as np
import pytest

from takeover.data.schema import EpisodeKind, Mode, Observation, PolicyImage, Privileged
from takeover.robot_bridge.policy_images import SIZE, policy_image, policy_images
from takeover.robot_bridge.robots.base import Picture, RobotError
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.robots.sim_seeing import SeeingSimRobot

from .station import eventually, station

CAMERAS, TASK = ["front", "wrist"], "pick-lift-pictures"


def frame(height: int = 480, width: int = 640) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_every_pixel_is_the_mean_of_those_it_covers_in_the_middle_square() -> None:
    rgb = frame(256, 400)
    image = policy_image(Picture("front", 1, 0, rgb))
    middle = rgb[:, 72:328].reshape(SIZE, 2, SIZE, 2, 3).mean((1, 3))
    got = np.frombuffer(image.data, np.uint8).reshape(SIZE, SIZE, 3)
    assert np.abs(got - middle).max() <= 1.0  # rounded twice: along rows, then along columns
    assert (image.camera, image.height, image.width) == ("front", SIZE, SIZE)


def test_a_smaller_frame_is_enlarged() -> None:
    small = np.zeros((64, 80, 3), np.uint8)
    small[:, 40:] = 200
    image = policy_image(Picture("front", 1, 0, small))
    made = np.frombuffer(image.data, np.uint8).reshape(SIZE, SIZE, 3)
    assert (image.height, image.width) == (SIZE, SIZE)
    assert (made[:, :60] == 0).all()
    assert (made[:, 68:] == 200).all()


def test_a_missing_camera_is_left_out_and_the_order_is_the_policys() -> None:
    pictures = [Picture("front", 1, 0, frame()), Picture("wrist", 1, 0, 255 - frame())]
    assert [image.camera for image in policy_images(pictures, ["wrist", "side", "front"])] == ["wrist", "front"]


def test_an_unknown_camera_is_refused_by_name() -> None:
    with pytest.raises(RobotError, match="rear is no camera of the simulated robot; known: front, wrist"):
        SeeingSimRobot(TASK, ["front", "rear"])


def expert(privileged: Privileged) -> tuple[bool, list[float]]:
    return privileged.episode_step >= 3, privileged.expert_action if privileged.episode_step >= 3 else [0.0] * 5


def test_in_lockstep_the_pictures_are_of_the_very_state_that_was_observed(tmp_path: Path) -> None:
    shown: dict[int, list[PolicyImage]] = {}

    def act(observation: Observation) -> list[float]:
        shown[observation.seq] = observation.images
        return [0.0] * 5

    with station(tmp_path, clock="lockstep", operator="scripted", task=TASK, cameras=True, policy_cameras=CAMERAS) as made:
        recorder = made.recorder()
        made.actor(act)
        operator = made.operator("operator", "scripted")
        operator.answer = expert
        operator.take_lease()
        made.start(operator, EpisodeKind.POLICY, 1)
        made.until(lambda state: state.block_done == 1 and state.mode is Mode.READY and not state.episode_id, 60.0)
        assert eventually(lambda: len(recorder.ends) == 1)
        steps = recorder.steps
    twin = SeeingSimRobot(TASK, CAMERAS)
    for step in steps[::8]:
        assert step.images == shown[step.seq]
        twin.restore(step.sim_state)
        assert twin.policy_images() == step.images, f"step {step.episode_step}"
    last = steps[-1]
    assert [bool(step.next_images) for step in steps] == [False] * (len(steps) - 1) + [True]
    twin.restore(last.sim_state)
    twin.apply(np.asarray(last.action))
    twin.advance()
    assert twin.policy_images() == last.next_images
    assert last.next_images != last.images
    twin.close()


def test_in_real_time_what_the_actor_is_shown_is_what_is_recorded(tmp_path: Path) -> None:
    shown: dict[int, list[PolicyImage]] = {}

    def act(observation: Observation) -> list[float]:
        shown[observation.seq] = observation.images
        return [0.0, 0.0, 0.3, 0.0, 1.0] if observation.episode_step % 2 else [0.2, 0.0, -0.3, 0.0, 1.0]

    with station(tmp_path, operator="none", task=TASK, cameras=True, policy_cameras=CAMERAS) as made:
        recorder = made.recorder()
        made.actor(act)
        operator = made.operator()
        operator.take_lease()
        made.start(operator, EpisodeKind.POLICY, 1)
        assert eventually(lambda: len(recorder.steps) >= 15, 30.0)
        steps = list(recorder.steps)
    compared = [step for step in steps if step.seq in shown]
    assert len(compared) >= 5
    for step in compared:
        assert step.images == shown[step.seq], f"step {step.seq}"
        assert [image.camera for image in step.images] == CAMERAS
    assert len({step.images[0].data for step in compared}) > 1


def test_the_task_from_pictures_tells_nothing_of_the_cube_but_in_them() -> None:
    """The same start but for the cube's place: equal numbers, other pictures."""
    robot, other = SeeingSimRobot(TASK, CAMERAS), SimRobot("pick-lift")
    robot.reset(5)
    numbers, pictures = robot.read().observation, robot.policy_images()
    robot.data.joint("cube").qpos[:2] += 0.04
    robot._refresh()
    assert np.array_equal(robot.read().observation, numbers)
    assert robot.policy_images() != pictures
    assert not [name for name in robot.spec.observation.names if "cube" in name]
    assert robot.spec.observation.names == [name for name in other.spec.observation.names if "cube" not in name]
    robot.close()
