"""The short form of `make resume`: the learner process killed while it learns and writes a checkpoint; the same bits at the end."""

import random
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.resume import compare
from benchmarks.resume_run import MOMENTS
from takeover.policies.checkpoint import newest_checkpoint
from takeover.policies.publish import load_policy, published_versions, version_folder

from .conftest import Script, make_spec
from .test_learner_process import FAST, Station, demonstrations, episode


def test_killed_at_random_moments_it_ends_at_the_same_bits(tmp_path: Path) -> None:
    said: list[str] = []
    assert set(MOMENTS[:3]) == {"learning", "writing a checkpoint"}
    assert compare(tmp_path, "plain", 3, random.Random(1), said.append) == []
    assert "3 kills" in said[0]


def test_with_a_full_disk_it_learns_on_and_with_other_settings_it_ends(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The kernel refuses the living learner to make any file longer than 2 kB, as a full disk does in the middle of one."""
    sockets = tmp_path_factory.mktemp("s")
    fields: dict[str, Any] = {"clock": "realtime", "publish_every_s": 0.1, "checkpoint_every_s": 0.1}
    station, script, rng = Station(tmp_path / "w", sockets, **fields), Script(make_spec()), np.random.default_rng(7)
    folder = tmp_path / "w" / "learner" / "reach-hil-serl"
    try:
        station.start_learner()
        station.commit(demonstrations(script))
        station.commit(episode(script, rng))
        station.status_when(lambda status: status.updates == 25)
        station.until(lambda: updates_saved(folder) == 25)
        assert station.process is not None
        unlimited = resource.prlimit(station.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(station.process.pid, resource.RLIMIT_FSIZE, (2048, unlimited[1]))
        station.commit(episode(script, rng))
        full = station.status_when(lambda s: s.updates == 55 and "checkpoint not written" in s.text and "cannot be written" in s.text)
        assert (full.phase, full.error) == ("training", "")
        assert updates_saved(folder) == 25, "the old one is kept"
        versions = published_versions(tmp_path / "w")
        resource.prlimit(station.process.pid, resource.RLIMIT_FSIZE, unlimited)
        station.commit(episode(script, rng))
        station.status_when(lambda s: s.updates == 85 and "written" not in s.text)
        station.until(lambda: updates_saved(folder) == 85)
        assert station.stop_learner(signal.SIGTERM) == 0
        assert len(published_versions(tmp_path / "w")) > len(versions)
        for version in published_versions(tmp_path / "w"):
            load_policy(version_folder(tmp_path / "w", version), make_spec())
        assert [path.name for path in (*folder.iterdir(), *(tmp_path / "w" / "policies").iterdir()) if path.name.endswith(".tmp")] == []

        other = msgspec.structs.replace(station.config, learner_parameters=FAST | {"hidden": 24})
        station.path.write_bytes(msgspec.json.encode(other))
        command = [sys.executable, "-m", "takeover.app.processes.learner", "--config", str(station.path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 2, done.stderr
        assert "other settings: hidden was 16 and is 24. Set them back" in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        station.close()


def updates_saved(folder: Path) -> int:
    state, problems = newest_checkpoint(folder)
    assert problems == []
    return -1 if state is None else int(state["values"]["updates"])
