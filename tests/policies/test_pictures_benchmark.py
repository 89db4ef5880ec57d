"""The benchmark of learning from pictures: stopped anywhere, it goes on with the same numbers, and its table says n and intervals."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.pictures import main
from takeover.robot_bridge.tasks.pick_lift import PickLift

SMALL = [
    *("--demonstrations", "1", "--steps", "20", "--every", "20", "--starts", "1", "--set"),
    *("encoder_updates=3", "encoder_batch=8", "clone_updates=10", "critic_warmup=5", "hidden=16", "batch=16"),
    *("learning_starts=10", "camera_features=16", "actor_delay=0"),
]


def measured(out: Path) -> dict[str, Any]:
    result = json.loads((out / "seed-0.json").read_text())
    return {key: result[key] for key in ("points", "episodes", "demonstration_steps", "complete")}


@pytest.mark.parametrize("encoder", ["frozen", "trained"])
def test_a_run_that_is_stopped_goes_on_with_the_same_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, encoder: str
) -> None:
    monkeypatch.setattr(PickLift, "max_steps", 40)  # pictures of a policy that learned next to nothing take most of the time
    small = [*SMALL, f"encoder={encoder}", "batch=4"]  # of pictures: an update costs what its batch does
    main(["run", "--out", str(tmp_path / "whole"), *small])
    stops = 0
    while not (tmp_path / "pieces" / "seed-0.json").exists():
        stops += _stopped(["run", "--out", str(tmp_path / "pieces"), "--budget-s", "0", *small])
    assert stops >= 2
    assert measured(tmp_path / "pieces") == measured(tmp_path / "whole")
    assert not list((tmp_path / "pieces").glob("*.part"))
    capsys.readouterr()
    main(["table", "--out", str(tmp_path / "pieces")])
    shown = capsys.readouterr().out
    assert "| seed | steps | human steps | success | of | 95 % |" in shown
    assert "| 0 | 0 | 0 |" in shown
    main(["run", "--out", str(tmp_path / "pieces"), *small])  # a finished seed is not run again


def _stopped(arguments: list[str]) -> bool:
    """Whether there is more to do."""
    try:
        main(arguments)
    except SystemExit as stopped:
        return stopped.code == 3
    return False


def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no results; run"):
        main(["table", "--out", str(tmp_path)])
