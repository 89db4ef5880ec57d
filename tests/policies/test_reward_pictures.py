"""A reward classifier that sees pictures alone: real recorder and files, drawn pictures; frozen encoder, kept features."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from takeover.app.cli import main
from takeover.data.catalog import Catalog
from takeover.data.labels import Labels
from takeover.data.recorder import Recorder
from takeover.data.schema import ControlMode, EpisodeKind, Outcome, OutcomeSource, PolicyImage
from takeover.data.workspace import Workspace
from takeover.policies import nets, reward_pictures
from takeover.policies.flat import Layout
from takeover.policies.reward_data import pictures_after, read_recorded
from takeover.policies.reward_live import RewardWatch
from takeover.policies.reward_rescore import rescore
from takeover.policies.reward_settings import RewardError, RewardSettings
from takeover.policies.reward_store import load_reward, rewards_folder
from takeover.policies.reward_training import RewardRequest, request_like, train_reward

SETTINGS = RewardSettings(picture_size=16, features=4, encoder_updates=80, updates=200, hidden=16, members=2, min_episodes=3)
STEPS, SIZE, LIT = 20, 24, 14


def picture(lit: bool, noise: np.random.Generator) -> PolicyImage:
    """A block that lights up with success, in noise."""
    pixels = noise.integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8)
    if lit:
        pixels[8:16, 8:16] = 220
    return PolicyImage(camera="front", height=SIZE, width=SIZE, data=pixels.tobytes())


@pytest.fixture
def workspace(tmp_path: Path, make_script) -> Path:
    """Eight episodes that succeed (the block is lit from step 14 on) and eight that do not; the state says nothing."""
    folder = tmp_path / "ws"
    recorder = Recorder(Workspace(folder).prepare())
    script, noise = make_script(), np.random.default_rng(0)
    for number in range(16):
        works = number % 2 == 0
        recorder.accept(script.start(EpisodeKind.POLICY))
        for step in range(STEPS):
            images = [picture(works and step >= LIT, noise)]
            last = {"next_images": [picture(works, noise)]} if step == STEPS - 1 else {}
            recorder.accept(script.step(ControlMode.POLICY, images=images, observation=[0.0] * 3, next_observation=[0.0] * 3, **last))
        outcome = Outcome.SUCCESS if works else Outcome.FAILURE
        recorder.accept(script.end(outcome, OutcomeSource.OPERATOR))
        recorder.sync()
    recorder.close()
    return folder


def test_it_learns_from_pictures_alone_and_a_later_version_keeps_the_encoder(workspace: Path) -> None:
    request = RewardRequest(robot_id="toy", task_id="reach", settings=SETTINGS, state=False, cameras=("front",))
    done: list[tuple[int, int]] = []
    first, problems = train_reward(workspace, request, lambda *at: done.append(at) is None)
    assert problems == []
    assert done
    assert (first.metrics["precision"], first.metrics["recall"]) == (1.0, 1.0)
    assert first.config["inputs"] == []
    features = rewards_folder(workspace) / "features" / first.encoder[:16]
    kept = {path: path.stat().st_mtime_ns for path in features.iterdir()}
    assert len(kept) == 16
    assert request_like(workspace, "toy", "reach") == request
    second, _ = train_reward(workspace, request, lambda *at: True)
    assert second.encoder == first.encoder
    assert {path: path.stat().st_mtime_ns for path in features.iterdir()} == kept  # nothing was computed again
    here = replace(SETTINGS, device="cpu")
    third, _ = train_reward(workspace, RewardRequest(**{**_fields(request), "new_encoder": True, "settings": here}), lambda *at: True)
    assert third.encoder == first.encoder  # the same data and seed, trained again
    assert request_like(workspace, "toy", "reach").settings == SETTINGS  # where it is trained is asked of each machine anew
    with Catalog.open(workspace) as catalog:
        Labels(workspace, catalog).add_label("e001", "outcome", "success@3", "reward-v9")  # a person's key says failure
    assert [(row.episode_id, row.after) for row in rescore(workspace, 3, lambda *at: True)[0]] == [("e001", "failure")]


def _fields(request: RewardRequest) -> dict[str, object]:
    return {name: getattr(request, name) for name in request.__struct_fields__}


def test_a_step_is_judged_by_the_picture_after_it(workspace: Path) -> None:
    spec = read_recorded(workspace, "toy", "reach", SETTINGS)
    episode = next(e for e in spec.episodes if e.episode_id == "e000")
    lit = [step for step, found in pictures_after(episode.path, ["front"]) if found["front"][12, 12, 0] > 200]
    assert lit == list(range(LIT - 1, STEPS))  # step 13 led to the first lit picture, the last one to its own


def test_pictures_that_are_not_there_are_refused_by_name(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = RewardRequest(robot_id="toy", task_id="reach", settings=SETTINGS, state=False, cameras=("wrist",))
    with pytest.raises(RewardError, match="no pictures of wrist"):
        train_reward(workspace, request, lambda *at: True)
    with pytest.raises(RewardError, match="nothing is left to see success by"):
        train_reward(workspace, RewardRequest(robot_id="toy", task_id="reach", state=False), lambda *at: True)
    assert main(["reward", "ls", "--json", "--workspace", str(workspace)]) == 0
    assert json.loads(capsys.readouterr().out)["rewards"] == []


def test_the_live_watch_scores_the_same_pictures(workspace: Path) -> None:
    request = RewardRequest(robot_id="toy", task_id="reach", settings=SETTINGS, state=False, cameras=("front",))
    manifest, _ = train_reward(workspace, request, lambda *at: True)
    recorded = read_recorded(workspace, "toy", "reach", SETTINGS)
    watch = RewardWatch(workspace, recorded.spec)
    assert watch.poll(0.0)
    model, _ = load_reward(workspace, manifest.version, recorded.spec)
    noise = np.random.default_rng(1)
    for lit in (True, False):
        image = picture(lit, noise)
        pixels = np.frombuffer(image.data, np.uint8).reshape(SIZE, SIZE, 3)
        assert (model.probability(np.zeros(3), {"front": pixels}) >= manifest.threshold) == lit


def test_every_layer_of_encoder_and_head_learns(workspace: Path) -> None:
    """Each convolution, the projection, and each layer of each member; without weight decay, which changes what learns nothing, too."""
    settings = replace(SETTINGS, weight_decay=0.0, encoder_updates=20, updates=20)
    request = RewardRequest(robot_id="toy", task_id="reach", settings=settings, state=True, cameras=("front",))
    manifest, _ = train_reward(workspace, request, lambda *at: True)
    model, _ = load_reward(workspace, manifest.version, read_recorded(workspace, "toy", "reach", settings).spec)
    head, encoder = model.config.head_layout(), model.config.encoder_layout()
    width = model.config.features
    seeded = [torch.Generator().manual_seed(settings.seed) for _ in range(2)]
    start = head.views(nets.initialise(head, seeded[0]))
    whole = Layout(encoder.shapes | {"top.w": (width, 1), "top.b": (1,)})
    start |= {name: view for name, view in whole.views(reward_pictures._initial(whole, seeded[1])).items() if name in encoder.shapes}
    members = model.config.members
    parts = {name: (list(range(members)) if name in head.shapes else [...]) for name in start}
    assert len(parts) == len(head.shapes) + 9
    same = [
        (name, part) for name, all_parts in parts.items() for part in all_parts if torch.equal(model.tensors[name][part], start[name][part])
    ]
    assert same == []
