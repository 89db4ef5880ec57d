"""A whole station that learns from pictures, every process real: what the actor saw is what is stored, byte for byte, and learned from."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from takeover.app.cli import main
from takeover.data.schema import EpisodeKind, RunConfig, Step
from takeover.data.seeding import stream
from takeover.data.store import iter_episode_records
from takeover.policies.base import SeesPictures
from takeover.policies.learner_run import LearnerRun
from takeover.policies.picture_hil_serl import PictureHilSerlLearner
from takeover.policies.publish import load_policy, published_versions, version_folder

TASK, CAMERAS, SEED = "pick-lift-pictures", ["front", "wrist"], 3
SETTINGS = {
    **{"observations": "pictures", "encoder_updates": 3, "encoder_batch": 8, "clone_updates": 10, "critic_warmup": 5},
    **{"hidden": 16, "batch": 16, "learning_starts": 20, "camera_features": 16, "actor_delay": 0},
}


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder with a short name: socket paths are limited."""
    with tempfile.TemporaryDirectory(prefix="tk") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


def run(workspace: Path, *more: str, encoder: str = "frozen") -> int:
    counts = ["--episodes", "1", "--demonstrations", "1", "--evaluation-starts", "1", "--seed", str(SEED)]
    where = ["--headless", "--clock", "lockstep", "--robot", f"sim:{TASK}", "--learner", "hil-serl", "--operator", "scripted"]
    settings = [f"learner.{name}={value}" for name, value in (SETTINGS | {"encoder": encoder}).items()]
    files = ["--workspace", str(workspace), "--summary", str(workspace) + ".json"]
    return main(["run", *where, *counts, *files, *more, "--set", *settings])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("encoder", ["frozen", "trained"])
def test_the_actor_sees_what_is_stored_and_learned_from(
    tmp_path: Path, runtime: Path, capsys: pytest.CaptureFixture[str], encoder: str
) -> None:
    workspace = tmp_path / "station"
    assert run(workspace, "--cameras", "--policy-cameras", *CAMERAS, encoder=encoder) == 0, capsys.readouterr().err
    episodes = list(iter_episode_records(workspace, TASK, images=True))
    assert {start.kind for start, _, _ in episodes} >= {EpisodeKind.DEMONSTRATION, EpisodeKind.POLICY}
    for start, steps, _ in episodes:
        assert start.spec.policy_cameras == CAMERAS
        for step in steps:
            assert [(i.camera, i.height, i.width) for i in step.images] == [(camera, 128, 128) for camera in CAMERAS]
        assert all(not step.next_images for step in steps[:-1])
        assert len(steps[-1].next_images) == 2
        assert steps[0].images[0].data != steps[-1].next_images[0].data
    acted = _acted_again(workspace, [step for _, steps, _ in episodes for step in steps])
    assert acted > 20
    _learned_from_the_same(workspace, episodes, encoder)
    _absorbed(workspace, capsys)
    if encoder == "frozen":  # both commands read a version as the actor does
        _evaluated(workspace, capsys)


def _evaluated(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["policy", "evaluate", "1", "--starts", "1", "--robot", f"sim:{TASK}", "--workspace", str(workspace)]) == 0
    assert "of 1" in capsys.readouterr().out
    where = ["--robot", f"sim:{TASK}", "--policy-cameras", *CAMERAS, "--workspace", str(workspace)]
    assert main(["evaluate", "--version", "1", "--starts", "1", *where]) == 0, capsys.readouterr().err
    assert "of 1" in capsys.readouterr().out


def _absorbed(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the person did is compared with what both versions do at the stored pictures."""
    capsys.readouterr()
    newest = max(published_versions(workspace))
    assert newest > 1
    assert main(["policy", "absorb", str(newest), "--runs", "0", "--json", "--robot", f"sim:{TASK}", "--workspace", str(workspace)]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["problems"] == []
    assert made["without_picture"] == 0
    assert made["totals"]["segments"] + made["totals"]["in_no_batch_yet"] == len(made["segments"]) > 0
    assert all(segment["n"] > 0 for segment in made["segments"])


def _acted_again(workspace: Path, steps: list[Step]) -> int:
    """Every recorded action of the policy is the one that its weights give for the stored pictures; returns how many."""
    spec = next(start.spec for start, _, _ in iter_episode_records(workspace, TASK))
    policies = {version: load_policy(version_folder(workspace, version), spec).policy for version in published_versions(workspace)}
    acted = 0
    for step in steps:
        if step.policy_action is None or step.kind != EpisodeKind.POLICY:
            continue
        policy = policies[step.policy_version]
        assert isinstance(policy, SeesPictures)
        policy.look(step.images)
        noise = torch.Generator().manual_seed(int(stream(SEED, "actor", step.train_step).integers(2**62)))
        again = policy.act(np.asarray(step.observation, np.float32), sample=True, generator=noise).actions[0]
        np.testing.assert_allclose(again, step.policy_action, atol=1e-5, err_msg=f"step {step.seq}")
        acted += 1
    return acted


def _learned_from_the_same(workspace: Path, episodes: list[object], encoder: str) -> None:
    """A learner that starts again on the store holds a transition for every step, and no picture is missing."""
    config = RunConfig(
        session_id="again",
        workspace=str(workspace),
        sockets="",
        task=TASK,
        learner="hil-serl",
        clock="lockstep",
        seed=SEED,
        demonstrations=1,
        policy_cameras=CAMERAS,
        learner_parameters=SETTINGS | {"encoder": encoder},
    )
    run = LearnerRun(config)
    run.resume()
    learner = run.training.learner
    assert isinstance(learner, PictureHilSerlLearner)
    stored = [len(steps) for start, steps, _ in iter_episode_records(workspace, TASK) if start.kind == EpisodeKind.POLICY]
    assert learner.frozen
    assert learner.train_steps == sum(stored)
    assert learner.steps_left_out == 0
    assert learner.updates > 0
    run.close()


def test_pictures_without_cameras_are_refused_in_one_line(tmp_path: Path, runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "a") != 0
    assert "learner.observations=pictures, but this run has no cameras; give --cameras" in capsys.readouterr().err
    assert run(tmp_path / "b", "--cameras") != 0
    assert "no camera is the policy's; give --policy-cameras front wrist" in capsys.readouterr().err
