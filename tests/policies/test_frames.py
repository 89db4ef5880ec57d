"""Relative frames: the way there and back, rotated scenes, replay and acting agree, corrections alike, an actor that joins late."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from takeover.data.schema import ControlMode, EpisodeKind, Mode, Observation, RobotSpec
from takeover.policies.acting import Acting
from takeover.policies.base import PolicyRefused
from takeover.policies.evaluation import drive
from takeover.policies.frames import Frames, RelativePolicy
from takeover.policies.inference import build_policy
from takeover.policies.publish import make_manifest, publish, weights_bytes
from takeover.policies.registry import make_learner
from takeover.policies.replay import CorrectionReplay
from takeover.robot_bridge.robots.sim import SimRobot

NAMES = ["tool_x", "tool_y", "tool_z", "tool_yaw", "velocity_x", "velocity_y", "width", "hole_x", "hole_y", "hole_z", "hole_yaw"]
NAMES += ["to_hole_x", "to_hole_y", "to_hole_yaw", "force_x", "force_y", "force_z"]
UNITS = ["m", "m", "m", "rad", "m/s", "m/s", "m", "m", "m", "m", "rad", "m", "m", "rad", "N", "N", "N"]
SMALL = {"hidden": 16, "batch": 64, "clone_updates": 60, "critic_warmup": 10, "learning_starts": 5, "keep_warm_start": False}
BOTH = {"relative_pose": True, "ee_frame": True}


@pytest.fixture
def spec(make_robot_spec: Any) -> RobotSpec:
    made = make_robot_spec(observation=len(NAMES), arm=4)
    action = msgspec.structs.replace(made.action, names=["x", "y", "z", "yaw"], scale=[0.005, 0.005, 0.005, 0.08])
    return msgspec.structs.replace(made, action=action, observation=msgspec.structs.replace(made.observation, names=NAMES, units=UNITS))


def frames_of(spec: RobotSpec, relative_pose: bool = True, ee_frame: bool = True) -> Frames:
    made = Frames.of(spec, relative_pose, ee_frame)
    assert made is not None
    return made


def turned(values: Any, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([c * values[0] - s * values[1], s * values[0] + c * values[1]])


def moved(observation: np.ndarray, angle: float, shift: np.ndarray) -> np.ndarray:
    """The same scene somewhere else: everything turned by ``angle`` about the base, then shifted."""
    made = observation.copy()
    for name, is_place in (("tool", True), ("hole", True), ("velocity", False), ("to_hole", False), ("force", False)):
        at = [NAMES.index(f"{name}_x"), NAMES.index(f"{name}_y")]
        made[at] = turned(observation[at], angle) + (shift if is_place else 0.0)
    for name in ("tool_yaw", "hole_yaw"):
        made[NAMES.index(name)] += angle
    return made


def test_rotated_scenes_give_the_same_rows_and_actions(spec: RobotSpec) -> None:
    rng = np.random.default_rng(0)
    frames = frames_of(spec)
    for _ in range(20):
        first, now = rng.uniform(-0.5, 0.5, (2, len(NAMES)))
        angle, shift = rng.uniform(-2.0, 2.0), rng.uniform(-0.5, 0.5, 2)
        there = frames.observation(moved(now, angle, shift), moved(first, angle, shift))
        assert np.allclose(frames.observation(now, first), there, atol=1e-6)
        action = rng.uniform(-1.0, 1.0, 4)
        same = np.array([*turned(action[:2], angle), *action[2:]])
        assert np.allclose(frames.action_to(action, now), frames.action_to(same, moved(now, angle, shift)), atol=1e-6)


def test_there_and_back_is_the_same_action(spec: RobotSpec) -> None:
    rng = np.random.default_rng(1)
    for frames in (frames_of(spec), frames_of(spec, ee_frame=False)):
        for _ in range(20):
            action, observation = rng.uniform(-1.0, 1.0, 4), rng.uniform(-3.0, 3.0, len(NAMES))
            assert np.allclose(frames.action_from(frames.action_to(action, observation), observation), action, atol=1e-12)
    uneven = msgspec.structs.replace(spec, action=msgspec.structs.replace(spec.action, scale=[0.01, 0.005, 0.005, 0.08]))
    observation = np.zeros(len(NAMES))
    observation[3] = np.pi / 2
    # 10 mm along the base's x are 10 mm against the turned tool's y: two of its largest steps
    assert frames_of(uneven).action_to([1.0, 0.0, 0.0, 0.0], observation) == pytest.approx([0.0, -2.0, 0.0, 0.0], abs=1e-6)


def test_each_switch_does_its_half(spec: RobotSpec) -> None:
    first, now = np.random.default_rng(2).uniform(-0.4, 0.4, (2, len(NAMES)))
    pose = [NAMES.index(name) for name in NAMES if name.startswith(("tool_", "hole_"))]
    directions = [NAMES.index(name) for name in NAMES if name[-2:] in ("_x", "_y") and not name.startswith(("tool_", "hole_"))]
    others = [i for i in range(len(NAMES)) if i not in pose + directions]
    now32 = now.astype(np.float32)
    for relative_pose, ee_frame in ((True, False), (False, True), (True, True)):
        made = frames_of(spec, relative_pose, ee_frame).observation(now, first)
        assert np.array_equal(made[pose], now32[pose]) != relative_pose
        assert np.array_equal(made[directions], now32[directions]) != ee_frame
        assert np.array_equal(made[others], now32[others])
    assert Frames.of(spec, False, False) is None
    start = frames_of(spec).observation(first, first)
    assert start[[NAMES.index(name) for name in ("tool_x", "tool_y", "tool_z", "tool_yaw")]] == pytest.approx(0.0)


def test_robots_that_have_no_such_frames_are_refused_by_name(spec: RobotSpec, make_robot_spec: Any) -> None:
    with pytest.raises(ValueError, match="toy lacks tool_x, tool_y, tool_yaw"):
        Frames.of(make_robot_spec(), True, True)
    joints = msgspec.structs.replace(spec, action=msgspec.structs.replace(spec.action, kind="joint_delta"))
    with pytest.raises(ValueError, match="ee_delta actions with x and y; toy has joint_delta"):
        Frames.of(joints, False, True)
    tilting = msgspec.structs.replace(spec, action=msgspec.structs.replace(spec.action, names=["x", "y", "pitch", "yaw"]))
    with pytest.raises(ValueError, match="toy also turns by pitch"):
        make_learner("hil-serl", tilting, 0, SMALL | {"ee_frame": True})
    weights = make_learner("hil-serl", spec, 0, SMALL | BOTH).weights()
    weights.config["frames"] = {"ee_frame": 1}
    with pytest.raises(PolicyRefused, match="expected true or false for relative_pose and ee_frame"):
        build_policy(weights, spec)


def episode(target: Any, script: Any, modes: list[Any], rng: np.random.Generator, kind: EpisodeKind = EpisodeKind.POLICY) -> list[Any]:
    target.begin_episode(script.start(kind))
    steps = []
    observation = rng.uniform(-0.3, 0.3, len(NAMES)).tolist()
    for mode in modes:
        following = rng.uniform(-0.3, 0.3, len(NAMES)).tolist()
        action = rng.uniform(-1.0, 1.0, 4).tolist()
        steps.append(script.step(mode, observation=observation, next_observation=following, action=action))
        observation = following
        target.add(steps[-1]) if hasattr(target, "add") else target.ingest(steps[-1:])
    target.end_episode(script.end())
    return steps


def test_replay_turns_every_row_alike_and_records_stay_canonical(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    frames = frames_of(spec)
    replay, script = CorrectionReplay(spec, frames=frames), make_script(spec)
    modes = [ControlMode.PAUSED, ControlMode.POLICY, ControlMode.TRANSITION, ControlMode.HUMAN, ControlMode.POLICY]
    for seed in (0, 1):  # each episode has its own first pose, a held step's
        steps = episode(replay, script, modes, np.random.default_rng(seed))
        first = steps[0].observation
        rows, columns = replay.online.rows[4 * seed : 4 * seed + 4], replay.columns
        for row, step in zip(rows, steps[1:], strict=True):
            assert np.array_equal(row[columns.observation].numpy(), frames.observation(step.observation, first))
            assert np.array_equal(row[columns.next_observation].numpy(), frames.observation(step.next_observation, first))
            assert np.allclose(row[columns.action].numpy(), frames.action_to(step.action, step.observation), atol=1e-6)
        correction = replay.demonstrations.rows[seed]  # the human step is in both buffers, the same
        assert torch.equal(correction, rows[2])


@pytest.mark.parametrize("first", [[float("nan")] * len(NAMES), [0.0], [1e30] * len(NAMES)], ids=["not finite", "too few", "wild"])
def test_a_held_step_that_is_no_reading_is_not_the_first_pose(first: list[float], spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    """Everything of the episode is relative to it: every row would be as bad, and the learner would skip updates for as long as it runs."""
    frames, replay, script = frames_of(spec), CorrectionReplay(spec, frames=frames_of(spec)), make_script(spec)
    observations = np.random.default_rng(6).uniform(-0.3, 0.3, (3, len(NAMES))).tolist()
    replay.begin_episode(script.start())
    for mode, observation in zip(
        (ControlMode.SAFETY_HOLD, ControlMode.PAUSED, ControlMode.POLICY), [first, *observations[:2]], strict=True
    ):
        replay.add(script.step(mode, observation=observation, next_observation=observations[2], action=[0.1] * 4))
    row = replay.online.rows[0, replay.columns.observation].numpy()
    assert np.array_equal(row, frames.observation(observations[1], observations[0]))


def test_replay_and_acting_agree(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner, script, rng = make_learner("hil-serl", spec, 0, SMALL | BOTH), make_script(spec), np.random.default_rng(3)
    for _ in range(2):
        episode(learner, script, [ControlMode.HUMAN] * 20, rng, EpisodeKind.DEMONSTRATION)
    list(learner.clone_demonstrations())
    steps = episode(learner, script, [ControlMode.POLICY] * 6, rng)
    policy = build_policy(learner.weights(), spec)
    assert isinstance(policy, RelativePolicy)
    inner = policy._policy
    policy.begin_episode(steps[0].observation)
    frames, columns = frames_of(spec), learner.replay.columns
    for row, step in zip(learner.replay.online.rows[:6], steps, strict=True):
        in_replay = inner.act(row[columns.observation].numpy(), sample=False).actions[0]
        acted = policy.act(np.array(step.observation, np.float32), sample=False).actions[0]
        back = np.clip(frames.action_from(in_replay, step.observation), -1.0, 1.0)
        assert np.allclose(acted, back, atol=1e-6)
    with pytest.raises(RuntimeError, match="not told the episode's first observation"):
        build_policy(learner.weights(), spec).act(np.array(steps[0].observation, np.float32), sample=False)


def test_without_the_switches_nothing_changes(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    found = []
    for more in ({}, {"relative_pose": False, "ee_frame": False}, {"ee_frame": True}):
        learner, rng = make_learner("hil-serl", spec, 0, SMALL | more), np.random.default_rng(4)
        script = make_script(spec)
        for _ in range(2):
            episode(learner, script, [ControlMode.HUMAN] * 20, rng, EpisodeKind.DEMONSTRATION)
        list(learner.clone_demonstrations())
        found.append(learner.weights())
    assert weights_bytes(found[0]) == weights_bytes(found[1])
    assert "frames" not in found[0].config
    assert weights_bytes(found[2]) != weights_bytes(found[0])


def test_the_real_simulator_evaluates_and_retests_a_relative_policy() -> None:
    robot = SimRobot("peg-insert")
    policy = build_policy(make_learner("hil-serl", robot.spec, 0, {"hidden": 16} | BOTH).weights(), robot.spec)
    robot.reset(3)
    first = np.asarray(robot.read().observation, np.float32)
    assert drive(policy, robot, 6) == (False, 6)
    assert isinstance(policy, RelativePolicy)
    robot.reset(3)
    states = []
    for _ in range(3):
        states.append(robot.save())
        robot.apply(np.array([0.5, 0.5, 0.0, 0.9]))
        robot.advance()
    robot.restore(states[-1])
    drive(policy, robot, 2, first)  # the episode goes on: its first pose is still that of its beginning
    assert policy._first == pytest.approx(first)
    robot.restore(states[-1])
    drive(policy, robot, 2)
    assert policy._first != pytest.approx(first)


def published_twice(tmp_path: Path, spec: RobotSpec) -> None:
    for version in (1, 2):
        weights = make_learner("hil-serl", spec, version, {"hidden": 16} | BOTH).weights()
        data = weights_bytes(weights)
        publish(tmp_path, make_manifest(weights, data, spec, version=version, parent=0, learner="hil-serl", swap="step"), data)


def test_an_actor_takes_the_first_reading_there_is(tmp_path: Path, spec: RobotSpec) -> None:
    published_twice(tmp_path, spec)
    good = np.random.default_rng(5).uniform(-0.3, 0.3, (2, len(NAMES))).tolist()
    acting = Acting(tmp_path, spec, 0)
    assert acting.offer(1)
    for seq, (step, observation) in enumerate([(0, [float("nan")] * len(NAMES)), (0, good[0]), (1, good[1])]):
        at = {"episode_id": "a", "episode_step": step, "run_id": 0, "mode": Mode.POLICY}
        answer = acting.answer(Observation(session="s", seq=seq, t_robot_ns=0, observation=observation, **at))
        assert (answer is None) == (seq == 0)
    assert answer is not None
    assert np.isfinite(answer.actions).all()
    policy = acting.current.policy if acting.current else None
    assert isinstance(policy, RelativePolicy)
    assert policy._first == pytest.approx(good[0], abs=1e-6)


def test_an_actor_knows_the_first_pose_or_waits(tmp_path: Path, spec: RobotSpec) -> None:
    published_twice(tmp_path, spec)
    observations = np.random.default_rng(5).uniform(-0.3, 0.3, (8, len(NAMES)))
    acting = Acting(tmp_path, spec, 0)
    assert acting.offer(1)

    def ask(episode_id: str, step: int, run: int = 0) -> Any:
        at = {"episode_id": episode_id, "episode_step": step, "run_id": run, "mode": Mode.POLICY}
        ask.seq += 1  # type: ignore[attr-defined]
        return acting.answer(Observation(session="s", seq=ask.seq, t_robot_ns=0, observation=observations[step].tolist(), **at))  # type: ignore[attr-defined]

    ask.seq = 0  # type: ignore[attr-defined]
    assert ask("", 0) is not None  # before the first episode too: the start gate waits for an answer
    assert ask("late", 5) is None
    assert "waits for the next episode" in acting.waiting
    begun = ask("a", 0)
    assert begun is not None
    assert acting.waiting == ""
    after = ask("a", 3).actions
    assert ask("a", 3, run=1).actions == after  # a hold ends a run, not the episode
    assert acting.offer(2)
    ask("a", 4)
    policy = acting.current.policy if acting.current else None
    assert isinstance(policy, RelativePolicy)
    assert policy._first == pytest.approx(observations[0], abs=1e-6)  # new weights, the same episode


def test_steps_to_go_are_in_the_frame_of_the_first_reading_that_is_one(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    """The first step may be a held one whose reading is none: with it as the frame every reward would be no number."""
    learner, script = make_learner("hil-serl", spec, 0, SMALL | BOTH | {"progress_reward": 1.0}), make_script(spec)
    for _ in range(6):
        learner.begin_episode(script.start(EpisodeKind.DEMONSTRATION))
        for index in range(12):
            reading = [0.01 * index] * len(NAMES)
            here = [float("nan"), *reading[1:]] if index == 0 else reading
            mode = ControlMode.PAUSED if index == 0 else ControlMode.HUMAN
            won = index == 11
            fields = {"observation": here, "next_observation": [0.01 * (index + 1)] * len(NAMES)}
            learner.ingest([script.step(mode, **fields, reward=float(won), terminated=won)])
        learner.end_episode(script.end())
    assert list(learner.clone_demonstrations())[-1] == 1.0
    head = learner._progress.tensors()
    assert head
    assert all(bool(tensor.isfinite().all()) for tensor in head.values())
    shaped = learner._progress.shape(learner.replay.online.rows[:4].clone(), learner.replay.columns)
    assert bool(shaped.isfinite().all())
