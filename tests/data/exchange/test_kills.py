"""Exports that are killed at random moments: never a half-written target, and the next try ends with the same files."""

import random
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
from robomimic.utils.dataset import SequenceDataset

from takeover.data.exchange.lerobot_export import LeRobotOptions, export_lerobot
from takeover.data.exchange.robomimic_export import export_robomimic

KILLS = 3
CODE = """
import sys, time
from takeover.data.exchange import lerobot_export, robomimic_export
from takeover.data.workspace import Workspace
lerobot_export.SHARD_EPISODES = 1
slow = lambda done, total: (print(done, flush=True), time.sleep(0.1))
form, workspace, target = sys.argv[1:]
if form == "lerobot":
    lerobot_export.export_lerobot(Workspace(workspace), target, progress=slow)
else:
    robomimic_export.export_robomimic(Workspace(workspace), target, progress=slow)
"""


def killed(form, workspace, target, after_s) -> bool:
    """Start an export and kill it ``after_s`` after its first sign of life; whether it was still at work."""
    process = subprocess.Popen([sys.executable, "-c", CODE, form, str(workspace.path), str(target)], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    time.sleep(after_s)
    process.kill()
    process.communicate()
    return process.returncode == -9


@pytest.mark.parametrize("form", ["lerobot", "robomimic"])
def test_a_killed_export_is_never_half_a_target_and_goes_on(recorded, workspace, tmp_path, form):
    rng = random.Random(1)
    target = tmp_path / "out"
    hits = 0
    for _ in range(KILLS):
        if killed(form, workspace, target, rng.uniform(0, 0.25)):
            hits += not target.exists()
        if target.exists():
            break
    assert hits >= 2
    export = export_lerobot if form == "lerobot" else export_robomimic
    if not target.exists():
        export(workspace, target)
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out"]
    if form == "robomimic":
        dataset = SequenceDataset(str(target), ("state",), ("actions",), filter_by_attribute=None, hdf5_cache_mode=None)
        assert len(dataset) == 110
        return
    export_lerobot(workspace, tmp_path / "whole", options=LeRobotOptions())
    went, came = (pq.read_table(sorted((path / "data").rglob("*.parquet"))) for path in (tmp_path / "whole", target))
    assert came == went
    assert sorted(path.name for path in target.iterdir()) == ["data", "meta"]
    assert not list(target.rglob("*.tmp"))
