"""Faults found in other people's learners, tried on what learns from pictures here: `PicturePairs`, `FeatureReplay`, the encoder."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from takeover.data.schema import ControlMode, EpisodeKind, Outcome, RobotSpec
from takeover.policies.inference import build_policy
from takeover.policies.picture_cloning import encode_frames
from takeover.policies.picture_encoder import stack_pictures
from takeover.policies.picture_hil_serl import PictureHilSerlLearner
from takeover.policies.picture_pairs import PicturePairs
from takeover.policies.step_authority import is_held

from .test_picture_hil_serl import CAMERAS, Filler, cloned, images, made

P, HELD = ControlMode.POLICY, ControlMode.PAUSED
PLACES = np.linspace(-1.0, 1.0, 10)


@pytest.fixture
def spec(make_robot_spec: Callable[..., RobotSpec]) -> RobotSpec:
    return msgspec.structs.replace(make_robot_spec(arm=1, gripper=True), policy_cameras=CAMERAS)


@pytest.fixture
def fill(spec: RobotSpec, make_script: Callable[..., Any]) -> Filler:
    return Filler(made(spec), make_script(spec))


def step(script: Any, place: int, mode: ControlMode = P, after: int | None = None, **changes: Any) -> Any:
    """Sees picture number ``place``; its own picture after it is number ``after``."""
    zeros = [0.0] * script.spec.observation.size
    numbers = {"observation": zeros, "next_observation": zeros, "action": [0.5, 0.0]}
    pictures = {"images": images(PLACES[place]), "next_images": [] if after is None else images(PLACES[after])}
    return script.step(mode, **numbers, **pictures, **changes)


def shown(learner: PictureHilSerlLearner, rows: Tensor) -> list[tuple[int, int]]:
    """Which pictures the rows hold as (seen, after it), by the frozen encoder on every picture there is."""
    frames = np.stack([stack_pictures(learner.shape, images(place), "here") for place in PLACES])
    known = torch.from_numpy(encode_frames(learner.shape, learner._encoder, frames))
    c, f = learner.replay.columns, learner.shape.size
    found = []
    for place in (c.observation, c.next_observation):
        far, nearest = torch.cdist(rows[:, place][:, -f:], known).sort(1)
        assert float(far[:, 0].max()) < 1e-3 < 1e-2 < float(far[:, 1].min()), "a picture that was shown, and no doubt which"
        found.append(nearest[:, 0].tolist())
    return list(zip(*found, strict=True))


@pytest.mark.parametrize("own", [True, False], ids=["own picture after the run", "none"])
@pytest.mark.parametrize("frozen", [True, False], ids=["encoded at once", "kept until the encoder is cloned"])
def test_no_row_holds_a_picture_of_another_run_or_episode(fill: Filler, frozen: bool, own: bool) -> None:
    """A hold between two runs, a crash at the end, and another episode after it."""
    learner, script = fill.learner, fill.script
    if frozen:
        cloned(fill)
    learner.begin_episode(script.start())
    steps = [step(script, 0), step(script, 1, after=8 if own else None), step(script, 2, HELD)]
    steps += [step(script, 3, run_id=1), step(script, 4, run_id=1)]  # the last one has nothing after it
    learner.ingest(steps)
    learner.end_episode(script.end(Outcome.FAILURE))
    learner.begin_episode(script.start())
    learner.ingest([step(script, 5), step(script, 6, after=7)])
    learner.end_episode(script.end(Outcome.FAILURE))
    if not frozen:
        cloned(fill)
    online = learner.replay.online
    assert shown(learner, online.rows[: online.size]) == [(0, 1), (1, 8 if own else 2), (3, 4), (5, 6), (6, 7)]
    assert learner.steps_left_out == 1


def test_pairs_end_at_gaps_episodes_and_runs(make_script: Callable[..., Any]) -> None:
    pairs, script = PicturePairs(), make_script()
    script.start()
    steps = [step(script, 0), step(script, 1, HELD), step(script, 2)]
    script.seq += 3
    steps += [step(script, 3), step(script, 4)]
    script.start()
    steps += [step(script, 5), step(script, 6, after=7)]
    complete = [pair for one in steps for pair in pairs.put(one)] + list(pairs.end())
    numbers = {images(place)[0].data: number for number, place in enumerate(PLACES)}
    found = [(numbers[pair.images[0].data], numbers[pair.next_images[0].data]) for pair in complete]
    assert found == [(0, 1), (3, 4), (5, 6), (6, 7)]
    assert not any(map(is_held, complete))
    assert pairs.left_out == 2, "before the gap, and before the other episode"


def test_demonstrations_and_online_pictures_have_one_scale_up_to_the_policy(fill: Filler) -> None:
    """The same pictures kept until the encoder is cloned, encoded when they come, and looked at by the policy: the same features."""
    learner, script = fill.learner, fill.script
    learner.begin_episode(script.start(EpisodeKind.DEMONSTRATION))
    learner.ingest([step(script, 2, ControlMode.HUMAN), step(script, 6, ControlMode.HUMAN, after=9)])
    learner.end_episode(script.end())
    cloned(fill)
    learner.begin_episode(script.start())
    learner.ingest([step(script, 2), step(script, 6, after=9)])
    learner.end_episode(script.end(Outcome.FAILURE))
    demonstrated, online = learner.replay.demonstrations.rows[:2], learner.replay.online.rows[:2]
    assert shown(learner, demonstrated) == shown(learner, online) == [(2, 6), (6, 9)]
    c, f = learner.replay.columns, learner.shape.size
    assert torch.equal(demonstrated[:, c.observation], online[:, c.observation])
    assert torch.equal(demonstrated[:, c.next_observation], online[:, c.next_observation])
    assert learner._log is None
    policy: Any = build_policy(learner.weights(), learner.robot_spec)
    policy.look(images(PLACES[2]))
    np.testing.assert_allclose(policy._features, online[0, c.observation][-f:].numpy(), atol=1e-4)


def test_every_layer_of_the_encoder_learns(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    """Without weight decay, which changes layers that no gradient reaches, too."""
    learner = made(spec, encoder_weight_decay=0.0)
    before = {name: view.clone() for name, view in learner.shape.layout().views(learner._encoder).items()}
    cloned(Filler(learner, make_script(spec)))
    after = learner.shape.layout().views(learner._encoder)
    assert len(before) == 9 * len(CAMERAS)
    assert [name for name, view in after.items() if torch.equal(view, before[name])] == []
