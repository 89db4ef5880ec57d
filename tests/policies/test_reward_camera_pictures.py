"""A reward classifier that sees nothing but camera pictures of the simulator, learned from late and partly wrong keys."""

from pathlib import Path

import pytest

from benchmarks.reward_pictures import TASK, judge, record, report, train
from takeover.policies.reward_data import read_recorded
from takeover.policies.reward_settings import RewardSettings

CAMERAS = ["front"]
FAST = RewardSettings(min_episodes=2, picture_size=32, encoder_updates=120, updates=200, hidden=32, members=2)


@pytest.mark.timeout(300)
def test_pictures_alone_tell_success_far_better_than_the_more_frequent_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On episodes from other starts, against the simulator's truth, which it never saw."""
    monkeypatch.setattr("takeover.robot_bridge.robots.sim_cameras.CAMERAS", CAMERAS)  # what is not looked at is not rendered
    record(tmp_path / "train", 7, CAMERAS, seed=0)
    truth = record(tmp_path / "others", 3, CAMERAS, seed=1)
    model, manifest = train(tmp_path / "train", CAMERAS, FAST)
    assert manifest.config["inputs"] == []
    assert not set(manifest.trained_on) & set(truth)
    found = judge(model, read_recorded(tmp_path / "others", "sim", TASK, FAST).episodes, truth)
    print(report(found, manifest))
    assert found.episodes == 3
    assert found.positive_steps >= 20
    recall = found.true_steps / found.positive_steps
    specificity = 1.0 - found.false_steps / found.negative_steps
    assert (recall + specificity) / 2 >= 0.8, "always the more frequent answer is 0.5"
    assert found.true_steps + found.negative_steps - found.false_steps > 1.1 * max(found.positive_steps, found.negative_steps)
    assert record(tmp_path / "others", 3, CAMERAS, seed=1) == truth  # kept, not made again
