"""What an episode costs a recorder whose workspace has ten thousand of them: time to its closed file, memory; and what the index costs."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import psutil

from benchmarks.store_parts import spread
from benchmarks.store_records import Maker
from takeover.data.index import rebuild_index
from takeover.data.recorder import Recorder
from takeover.data.workspace import Workspace

EPISODE_S = 1.0
BATCH = 60
_FILL = """
import sys
from benchmarks.catalog_rows import fill
from takeover.data.catalog import Catalog
with Catalog.open(sys.argv[1]) as catalog:
    fill(catalog, int(sys.argv[2]), 2 * int(sys.argv[2]))
"""


def many_episodes(folder: Path, stages: tuple[int, ...], progress: Callable[[int, int], None]) -> dict[str, Any]:
    """At each number of episodes in the catalog: `BATCH` more through the recorder, then one index, with the memory both add."""
    found: dict[str, Any] = {}
    for done, stage in enumerate(stages):
        # a process each, so that memory which an earlier part has let go of hides nothing
        command = [sys.executable, "-m", "benchmarks.store_scale", str(folder / str(stage)), str(stage)]
        found[f"{stage} episodes"] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        progress(done + 1, len(stages))
    found["plain h5py file of as many links"] = {"ms": round(_plain_links(folder / "plain.hdf5", stages[-1]) * 1e3, 1)}
    return found


def _stage(workspace: Workspace, stage: int) -> dict[str, Any]:
    process, recorder, maker = psutil.Process(), Recorder(workspace), Maker("scale", live=False)
    _record(recorder, maker, 30)  # memory settles
    if stage:  # rows alone, by another process; files do not matter to a recorder that runs
        subprocess.run([sys.executable, "-c", _FILL, str(workspace.path), str(stage)], check=True)
    before = process.memory_info().rss
    took = _record(recorder, maker, BATCH)
    between = process.memory_info().rss
    began = time.perf_counter()
    count = rebuild_index(workspace, recorder.catalog)
    made_s = time.perf_counter() - began
    after = process.memory_info().rss
    recorder.close()
    return {
        "file_closed_after_end_ms": spread(took),
        "recorder_grew_kb_per_episode": round((between - before) / 1e3 / BATCH, 1),
        "index_of": count,
        "index_made_ms": round(made_s * 1e3, 1),
        "index_grew_mb": round((after - between) / 1e6, 1),
        "index_mb": round(workspace.index_path.stat().st_size / 1e6, 2),
    }


def _record(recorder: Recorder, maker: Maker, count: int) -> list[float]:
    """Seconds from each episode's end to its closed file."""
    took = []
    for _ in range(count):
        records = maker.episode(EPISODE_S)
        for record in records[:-1]:
            recorder.accept(record)
        recorder.sync()
        began = time.perf_counter()
        recorder.accept(records[-1])
        recorder.sync()
        while recorder.pending:
            time.sleep(0.0005)
        took.append(time.perf_counter() - began)
    return took


def _plain_links(path: Path, count: int) -> float:
    began = time.perf_counter()
    with h5py.File(path, "w") as file:
        for index in range(count):
            file[f"data/demo_{index}"] = h5py.ExternalLink(f"episodes/2026-01-01/{index}.hdf5", "/data/demo_0")
    return time.perf_counter() - began


if __name__ == "__main__":
    print(json.dumps(_stage(Workspace(sys.argv[1]), int(sys.argv[2]))))
