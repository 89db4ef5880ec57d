"""Exports against the time the robot took, verification and catalog queries, over a workspace of many recorded episodes."""

import hashlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py

from benchmarks.store_parts import spread
from benchmarks.store_records import Maker
from takeover.data.catalog import Catalog, SegmentFilter
from takeover.data.exchange.lerobot_export import LeRobotOptions, export_lerobot
from takeover.data.exchange.mcap_export import export_mcap
from takeover.data.exchange.robomimic_export import export_robomimic
from takeover.data.exchange.tables import export_tables
from takeover.data.recorder import Recorder
from takeover.data.selection import EpisodeFilter, select_episodes
from takeover.data.verify import verify_workspace
from takeover.data.workspace import Workspace

Progress = Callable[[int, int], None]
EXPORT_HZ = 20.0  # control; the cameras have 30
TARGET = 10.0
EXPORTS: dict[str, Callable[[Workspace, Path, Progress], Any]] = {
    "lerobot, MP4 (H.264, crf 23)": lambda w, t, p: export_lerobot(w, t, options=LeRobotOptions(images="video"), progress=p),
    "lerobot, images": lambda w, t, p: export_lerobot(w, t, options=LeRobotOptions(), progress=p),
    "lerobot, numbers": lambda w, t, p: export_lerobot(w, t, options=LeRobotOptions(images="none"), progress=p),
    "robomimic": lambda w, t, p: export_robomimic(w, t, progress=p),
    "mcap": lambda w, t, p: export_mcap(w, t, progress=p),
    "parquet": lambda w, t, p: export_tables(w, t, progress=p),
}


def recorded(folder: Path, count: int, seconds: float, progress: Progress) -> Workspace:
    """A workspace of ``count`` episodes of ``seconds``, as they would have been recorded in real time."""
    workspace, maker = Workspace(folder), Maker("many", EXPORT_HZ, live=False)
    recorder = Recorder(workspace)
    for number in range(count):
        for one in maker.episode(seconds):
            recorder.accept(one)
        recorder.sync()
        while recorder.pending > 2:
            time.sleep(0.002)
        progress(number + 1, count)
    recorder.close()
    return workspace


def exports(workspace: Workspace, folder: Path, robot_s: float, progress: Callable[[str], Progress]) -> dict[str, Any]:
    """Seconds of robot time per second of each format; and of copying all steps and pictures with plain h5py."""
    found: dict[str, Any] = {}
    for name, export in EXPORTS.items():
        target = folder / "target"
        began = time.perf_counter()
        made = export(workspace, target, progress(name))
        took = time.perf_counter() - began
        size = sum(path.stat().st_size for path in ([target] if target.is_file() else target.rglob("*")) if path.is_file())
        found[name] = {
            "times_real_time": round(robot_s / took, 1),
            "seconds": round(took, 1),
            "mb": round(size / 1e6),
            "frames": made.frames,
        }
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    began = time.perf_counter()
    _copy(workspace, folder / "plain.hdf5")
    found["plain h5py copy, nothing converted or checked"] = {"times_real_time": round(robot_s / (time.perf_counter() - began), 1)}
    (folder / "plain.hdf5").unlink()
    found["target_times_real_time"] = TARGET
    return found


def _files(workspace: Workspace) -> list[Path]:
    return sorted(workspace.episodes.glob("*/*.hdf5"))


def _datasets(file: h5py.File) -> list[h5py.Dataset]:
    """Every stored dataset."""
    found: list[h5py.Dataset] = []

    def visit(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not item.is_virtual:
            found.append(item)

    file.visititems(visit)
    return found


def _copy(workspace: Workspace, target: Path) -> None:
    with h5py.File(target, "w") as out:
        for index, path in enumerate(_files(workspace)):
            with h5py.File(path) as file:
                for dataset in _datasets(file):
                    out[f"{index}{dataset.name}"] = dataset[()]


def verification(workspace: Workspace, progress: Progress) -> dict[str, Any]:
    """MB/s of `verify_workspace`; of SHA-256 alone, and of reading everything with plain h5py."""
    files = _files(workspace)
    size = sum(path.stat().st_size for path in files)
    with Catalog.open(workspace) as catalog:
        began = time.perf_counter()
        report = verify_workspace(workspace, catalog, progress=progress, restart=True)
        took = time.perf_counter() - began
    if report.problems:
        raise SystemExit(str(report.problems[:3]))
    began = time.perf_counter()
    for path in files:
        with path.open("rb") as stream:
            hashlib.file_digest(stream, "sha256")
    hashed = time.perf_counter() - began
    began = time.perf_counter()
    for path in files:
        with h5py.File(path) as file:
            for dataset in _datasets(file):
                dataset[()]
    read = time.perf_counter() - began
    return {
        "episodes": len(files),
        "mb": round(size / 1e6),
        "verify_mb_per_s": round(size / 1e6 / took, 1),
        "sha256_alone_mb_per_s": round(size / 1e6 / hashed, 1),
        "plain_h5py_read_mb_per_s": round(size / 1e6 / read, 1),
    }


def queries(workspace: Workspace, repeats: int) -> dict[str, Any]:
    """The same question to the catalog, and to the files one by one with plain h5py."""
    asked: dict[str, Callable[[Catalog], Any]] = {
        "episodes_page": lambda catalog: catalog.episodes(newest_first=True, limit=200),
        "successes": lambda catalog: select_episodes(catalog, EpisodeFilter(outcome="success"), limit=None),
        "segments_page": lambda catalog: catalog.segments(SegmentFilter(kinds=("takeover",)), limit=200),
        "sessions": lambda catalog: catalog.sessions(),
    }
    found: dict[str, Any] = {}
    with Catalog.open(workspace) as catalog:
        for name, ask in asked.items():
            took = []
            for _ in range(repeats):
                began = time.perf_counter()
                ask(catalog)
                took.append(time.perf_counter() - began)
            found[f"{name}_ms"] = spread(took)
        successes = {row.id for row in select_episodes(catalog, EpisodeFilter(outcome="success"), limit=None)}
    began = time.perf_counter()
    plain = set()
    for path in _files(workspace):
        with h5py.File(path) as file:
            attributes = file["data/demo_0"].attrs
            if attributes["outcome"] == "success":
                plain.add(str(attributes["episode_id"]))
    found["successes_plain_h5py_ms"] = round((time.perf_counter() - began) * 1e3, 1)
    if plain != successes:
        raise SystemExit(f"the catalog knows {len(successes)} successes, the files {len(plain)}")
    return found
