"""From an episode's end to its closed file, for episodes of a given size; and what a plain dump of the same costs."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.store_parts import numbers_of, spread
from benchmarks.store_records import CAMERA_HZ, Maker
from takeover.data.recorder import Recorder
from takeover.data.schema import AnyRecord, CameraFrame, Step
from takeover.data.workspace import Workspace

TARGET_MB = 20.0
SYNC_RECORDS = 25


def closing(folder: Path, count: int, progress: Callable[[int, int], None]) -> dict[str, Any]:
    """``count`` episodes of 20 MB, one after the other: their records journalled and synced, then the end, then the wait."""
    maker = Maker("close", live=False)
    per_s = CAMERA_HZ * sum(np.mean([len(jpeg) for jpeg in jpegs]) for jpegs in maker.pictures.values())
    seconds = TARGET_MB * 1e6 / per_s
    recorder = Recorder(Workspace(folder))
    took, plain, rows = [], [], []
    for number in range(count + 1):
        records = maker.episode(seconds)
        for index, record in enumerate(records[:-1]):
            recorder.accept(record)
            if index % SYNC_RECORDS == 0:
                recorder.sync()
        recorder.sync()
        began = time.perf_counter()
        recorder.accept(records[-1])
        recorder.sync()
        while recorder.pending:
            time.sleep(0.001)
        took.append(time.perf_counter() - began)
        plain.append(_dump(folder / "plain.hdf5", records))
        rows.append(len(records))
        progress(number + 1, count + 1)
    recorder.close()
    sizes = [path.stat().st_size for path in (folder / "episodes").glob("*/*.hdf5")]
    if len(sizes) != count + 1 or recorder.error():
        raise SystemExit(f"{len(sizes)} files of {count + 1}: {recorder.error()}")
    return {
        "episodes": count,
        "file_mb": round(float(np.mean(sizes)) / 1e6, 1),
        "file_closed_after_end_ms": spread(took[1:]),  # the first one has imports to make
        "plain_h5py_dump_ms": spread(plain[1:]),
        "target_p95_ms": 500.0,
    }


def _dump(path: Path, records: list[AnyRecord]) -> float:
    """Seconds for the same numbers and pictures as one plain file at the end: no checksums, no reading back, no catalog."""
    began = time.perf_counter()
    columns: dict[str, list[Any]] = {}
    pictures: dict[str, list[np.ndarray]] = {}
    for record in records:
        if isinstance(record, CameraFrame):
            pictures.setdefault(record.camera, []).append(np.frombuffer(record.jpeg, np.uint8))
        elif isinstance(record, Step):
            for name, value in numbers_of(record).items():
                columns.setdefault(name, []).append(value)
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file[name] = np.asarray(values)
        for camera, jpegs in pictures.items():
            file[camera] = np.concatenate(jpegs)
            file[f"{camera} offsets"] = np.cumsum([len(jpeg) for jpeg in jpegs])
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    took = time.perf_counter() - began
    path.unlink()
    return took
