"""Row 28: the recorder is killed while it writes; what it had acknowledged is on disk, the robot is held meanwhile."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

from takeover.data.catalog import Catalog
from takeover.data.episode_file import EpisodeReader, verify_file
from takeover.data.recovery import left_over_journals
from takeover.data.schema import EpisodeKind, HoldReason
from takeover.data.workspace import Workspace

from .rig import Rig, rig

Bound = Callable[[float, float, str], None]


def on_disk(workspace: Path) -> dict[str, set[int]]:
    """Record numbers of every step in files and journals, by episode; every file is verified."""
    with Catalog.open(workspace) as catalog:
        files = {row.id: workspace / row.path for row in catalog.episodes()}
    assert [problem for path in files.values() for problem in verify_file(path)] == []
    kept = {item.episode_id: {record.rec_seq for record in item.records} for item in left_over_journals(Workspace(workspace))}
    for episode_id, path in files.items():
        with EpisodeReader(path) as episode:
            kept.setdefault(episode_id, set()).update(episode.column("rec_seq", held=True).tolist())
    return kept


def lost(station: Rig) -> int:
    """Acknowledged steps that are neither in a file nor in a journal."""
    kept = on_disk(Path(station.config.workspace))
    return sum(len(numbers - kept.get(episode_id, set())) for episode_id, numbers in station.watch.committed.items() if episode_id)


def test_row_28_recorder_killed(bound: Bound) -> None:
    with rig(cameras=True) as station:
        station.actor(lambda _: [0.1, 0.0, 0.0, 0.0])
        operator = station.operator()
        station.begin(operator, EpisodeKind.POLICY)
        for _ in range(3):
            station.policy_runs(operator, 15)
            before = station.launcher.restarts()["recorder"]
            fault = station.kill("recorder", signal.SIGKILL)
            _, after_ms = station.held(fault, [HoldReason.RECORDER_LOST])
            bound(after_ms, 700.0, "ms")  # 500 ms without a heartbeat, and a step
            deadline = time.monotonic() + 20
            while station.launcher.restarts()["recorder"] == before or station.launcher.states()["recorder"] != "up":
                assert time.monotonic() < deadline
                time.sleep(0.02)
            station.until(lambda s: not s.gate["recorder"], "the recorder is back")
            deadline = time.monotonic() + 10
            while error := station.ask_resume(operator):
                assert time.monotonic() < deadline, error
                time.sleep(0.05)
        station.end_block()
        time.sleep(0.5)
        assert sum(len(numbers) for numbers in station.watch.committed.values()) > 60
        bound(float(lost(station)), 0.0, "steps")
