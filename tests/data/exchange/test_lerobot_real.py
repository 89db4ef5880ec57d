"""Our LeRobotDataset v3.0 in LeRobot's own loader: every key, every frame, windows, statistics, episodes.

LeRobot wants other versions of several libraries than we do, so it lives in an environment of its own, whose Python is named by
TAKEOVER_LEROBOT_PYTHON (docs/exchange.md says how to make one). Skipped when there is none.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from takeover.data.episode_file import EpisodeReader
from takeover.data.episode_read import read_records
from takeover.data.exchange.lerobot_export import LeRobotOptions, export_lerobot
from takeover.data.exchange.pictures import decode
from takeover.data.exchange.selection import Selection
from takeover.data.labels import Labels

PYTHON = os.environ.get("TAKEOVER_LEROBOT_PYTHON", "") or (sys.executable if importlib.util.find_spec("lerobot") else "")
pytestmark = pytest.mark.skipif(
    not PYTHON, reason="lerobot is not installed; name a Python that has it with TAKEOVER_LEROBOT_PYTHON (docs/exchange.md)"
)
LENGTHS = [20, 12, 13, 15, 30, 20]  # two holds make three runs of the second episode
STARTS, COUNT = np.cumsum([0, *LENGTHS[:-1]]), sum(LENGTHS)
EXPORTS = {
    "images": LeRobotOptions(),
    "policys": LeRobotOptions(pictures="policy"),
    "videos": LeRobotOptions(images="video"),
    "numbers": LeRobotOptions(images="none"),
}


def load(folder, *names):
    """{dataset: (what LeRobot said, what it gave)} of the datasets ``folder/<name>``."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "PYTHONPATH": ""}
    command = [PYTHON, str(Path(__file__).with_name("lerobot_loader.py")), str(folder), *(str(folder / name) for name in names)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=115, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    said = json.loads(done.stdout.splitlines()[-1])
    found = {}
    for name in names:
        with np.load(folder / f"{name}.npz") as arrays:
            found[name] = (said[name], dict(arrays))
    return found


def test_lerobot_loads_what_was_recorded(recorded, workspace, tmp_path):
    for name, options in EXPORTS.items():
        export_lerobot(workspace, tmp_path / name, options=options)
    labels = Labels(workspace)
    labels.add_label("s1-ep0002", "outcome", "failure@0", "op-02")
    labels.close()
    export_lerobot(workspace, tmp_path / "one", Selection(ids=("ep0002",)), LeRobotOptions(images="video"))
    loaded = load(tmp_path, *EXPORTS, "one")
    steps = steps_of(workspace, recorded)
    for name in EXPORTS:
        said, found = loaded[name]
        check_episodes(said, json.loads((tmp_path / name / "meta/info.json").read_text()), found)
        check_frames(found, steps)
        check_windows(said, found)
        check_statistics(said, found)
    check_pictures(loaded["images"][1], loaded["videos"][1], workspace.path / recorded[2].path)
    said, found = loaded["one"]
    assert (said["frames"], said["episodes"]) == (1, 1)
    assert found["delta/action_is_pad"].tolist() == [[True, False, True]]


def steps_of(workspace, recorded):
    """Driven steps of the exported episodes, in the order of the rows."""
    found = []
    for row in recorded[:4]:
        _, steps, _ = read_records(workspace.path / row.path)
        found += [step for step in steps if not step.hold_reason]
    return found


def check_episodes(said, info, found):
    assert (said["frames"], said["episodes"], said["fps"], said["batched"]) == (COUNT, len(LENGTHS), 20, COUNT)
    assert said["ranges"] == [[int(a), int(a) + n, n] for a, n in zip(STARTS, LENGTHS, strict=True)]
    assert said["chosen"] == [LENGTHS[0] + LENGTHS[-1], [0, len(LENGTHS) - 1]]
    assert said["tasks"] == ["lift the cube"] * COUNT
    assert said["features"] == {name: [f["dtype"], f["shape"]] for name, f in info["features"].items()}
    assert set(info["features"]) == {name.removeprefix("frame/") for name in found if name.startswith("frame/")}
    policy = said["policy_features"]  # what a policy is made for
    assert (policy["observation.state"], policy["action"]) == (["STATE", [23]], ["ACTION", [5]])
    assert {policy[camera][0] for camera in said["cameras"]} <= {"VISUAL"}


def check_frames(found, steps):
    for key, values in (
        ("observation.state", [step.observation for step in steps]),
        ("action", [step.action for step in steps]),
        ("next.reward", [step.reward for step in steps]),
        ("intervention", [step.human_action is not None for step in steps]),
    ):
        wanted = np.array(values, np.float32).reshape(COUNT, -1)
        np.testing.assert_array_equal(found[f"frame/{key}"].reshape(COUNT, -1), wanted, err_msg=key)
    index = np.concatenate([np.arange(n) for n in LENGTHS])
    np.testing.assert_array_equal(found["frame/wallclock_ns"].ravel(), [step.wall_ns for step in steps])
    np.testing.assert_array_equal(found["frame/frame_index"].ravel(), index)
    np.testing.assert_array_equal(found["frame/timestamp"].ravel(), (index / 20).astype(np.float32))
    np.testing.assert_array_equal(found["frame/episode_index"].ravel(), np.repeat(np.arange(len(LENGTHS)), LENGTHS))


def check_windows(said, found):
    """The frame before, the frame and the one after; at an episode's ends they say that there is none."""
    rows = np.arange(COUNT)
    for key in ("observation.state", "action", *said["cameras"]):
        frames, windows, pad = found[f"frame/{key}"], found[f"delta/{key}"], found[f"delta/{key}_is_pad"]
        np.testing.assert_array_equal(pad[:, 0], np.isin(rows, STARTS))
        np.testing.assert_array_equal(pad[:, 1], np.zeros(COUNT, bool))
        np.testing.assert_array_equal(pad[:, 2], np.isin(rows, np.cumsum(LENGTHS) - 1))
        before, after = np.where(pad[:, 0], rows, rows - 1), np.where(pad[:, 2], rows, rows + 1)
        for at, wanted in enumerate((before, rows, after)):
            np.testing.assert_array_equal(windows[:, at], frames[wanted], err_msg=f"{key} {at}")


def check_statistics(said, found):
    for key in ("action", "observation.state", "next.reward"):
        values = found[f"frame/{key}"].reshape(COUNT, -1).astype(np.float64)
        for kind, wanted in (("mean", values.mean(0)), ("std", values.std(0)), ("min", values.min(0)), ("max", values.max(0))):
            np.testing.assert_allclose(found[f"stats/{key}/{kind}"].ravel(), wanted, atol=1e-5, err_msg=f"{key} {kind}")
        assert found[f"stats/{key}/count"].tolist() == [COUNT]
    for camera in said["cameras"]:
        mean = found[f"frame/{camera}"].mean((0, 2, 3))
        assert found[f"stats/{camera}/mean"].shape == (3, 1, 1)
        np.testing.assert_allclose(found[f"stats/{camera}/mean"].ravel(), mean, atol=0.03)  # of 16 pictures an episode, thinned out


def check_pictures(stills, moving, path):
    """A step has the picture of its moment, as an image and in the video."""
    one, two = stills["frame/observation.images.front"], moving["frame/observation.images.front"]
    assert one.shape == two.shape == (COUNT, 3, 48, 64)
    assert one.dtype == two.dtype == np.float32
    assert np.abs(one - two).mean() < 0.02  # of 1: what H.264 costs
    for i in range(30, 55):
        around = range(i - 2, i + 3)
        assert min(around, key=lambda k: np.abs(two[i] - one[k]).mean()) == i
    with EpisodeReader(path) as reader:
        at = reader.frame_at("front", int(reader.column("t_observation_ns")[7]))
        wanted = decode(reader.frame("front", at)).transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_allclose(one[STARTS[4] + 7], wanted, atol=2.5 / 255)  # two decoders of JPEG
