"""The same records written, read back and verified as fast as they go: by `takeover.data`, and with plain h5py."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from takeover.data.episode_file import EpisodeReader, verify_file
from takeover.data.recorder import Recorder
from takeover.data.schema import AnyRecord, CameraFrame, EpisodeStart, Step
from takeover.data.workspace import Workspace

Episodes = Sequence[Sequence[AnyRecord]]
SYNC_STEPS = 10  # 100 ms at 100 Hz


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    """Milliseconds at p50, p95 and p99, the largest, and n."""
    if not len(seconds):
        return {"n": 0}
    values = np.array(seconds) * 1000.0
    named = {name: round(float(np.quantile(values, q)), 2) for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
    return named | {"max": round(float(values.max()), 2), "n": len(values)}


def _found(files: list[Path], steps: int, write_s: float, check_s: float, read_s: float) -> dict[str, float]:
    size = sum(path.stat().st_size for path in files)
    return {
        "steps_per_s": round(steps / write_s, 1),
        "bytes_per_step": round(size / steps, 1),
        "verified_mb_per_s": round(size / 1e6 / check_s, 1),
        "read_mb_per_s": round(size / 1e6 / read_s, 1),
    }


def _steps(episodes: Episodes) -> int:
    return sum(isinstance(record, Step) for records in episodes for record in records)


def by_takeover(folder: Path, episodes: Episodes) -> dict[str, float]:
    """Journal with a sync every 100 ms of data, sealed files, catalog; then `verify_file` and `EpisodeReader`."""
    began = time.perf_counter()
    for records in episodes:  # a recorder per session, as the records say
        recorder = Recorder(Workspace(folder))
        since = 0
        for record in records:
            recorder.accept(record)
            since += isinstance(record, Step)
            if since == SYNC_STEPS:
                recorder.sync()
                since = 0
        recorder.sync()
        recorder.close()
    write_s = time.perf_counter() - began
    files = sorted((folder / "episodes").glob("*/*.hdf5"))
    began = time.perf_counter()
    problems = [problem for path in files for problem in verify_file(path)]
    check_s = time.perf_counter() - began
    if problems or len(files) != len(episodes):
        raise SystemExit(f"{len(files)} files of {len(episodes)}: {problems[:3]}")
    began = time.perf_counter()
    for path in files:
        with EpisodeReader(path) as reader:
            for name in reader.columns:
                reader.column(name)
            for camera in reader.cameras:
                for i in range(reader.frame_count(camera)):
                    reader.frame(camera, i)
    return _found(files, _steps(episodes), write_s, check_s, time.perf_counter() - began)


class _Growing:
    """Datasets of one file that grow by a row."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file

    def add(self, name: str, value: Any) -> None:
        row = np.asarray(value)
        if name not in self._file:
            self._file.create_dataset(name, (0, *row.shape), maxshape=(None, *row.shape), dtype=row.dtype, chunks=True, fletcher32=True)
        dataset = self._file[name]
        dataset.resize(len(dataset) + 1, axis=0)
        dataset[-1] = row


def by_plain_h5py(folder: Path, episodes: Episodes) -> dict[str, float]:
    """What one would write first: a file per episode, a dataset per number, appended to step by step and flushed every 100 ms."""
    folder.mkdir()
    bytes_type = h5py.vlen_dtype(np.uint8)
    began = time.perf_counter()
    for records in episodes:
        start = next(record for record in records if isinstance(record, EpisodeStart))
        with h5py.File(folder / f"{start.episode_id}.hdf5", "w") as file:
            growing, steps = _Growing(file), 0
            for record in records:
                if isinstance(record, CameraFrame):
                    if record.camera not in file:
                        file.create_dataset(record.camera, (0,), maxshape=(None,), dtype=bytes_type)
                    pictures = file[record.camera]
                    pictures.resize(len(pictures) + 1, axis=0)
                    pictures[-1] = np.frombuffer(record.jpeg, np.uint8)
                elif isinstance(record, Step):
                    for name, value in numbers_of(record).items():
                        growing.add(name, value)
                    steps += 1
                    if steps % SYNC_STEPS == 0:
                        file.flush()
    write_s = time.perf_counter() - began
    files = sorted(folder.glob("*.hdf5"))
    read_s = []
    for _ in range(2):  # to read everything is all the verification there is
        began = time.perf_counter()
        for path in files:
            with h5py.File(path) as file:
                for name in file:
                    file[name][:]
        read_s.append(time.perf_counter() - began)
    return _found(files, _steps(episodes), write_s, read_s[0], read_s[1])


def numbers_of(step: Step) -> dict[str, Any]:
    absent = [float("nan")] * len(step.action)
    return {
        "seq": step.seq,
        "episode_step": step.episode_step,
        "t_observation_ns": step.t_observation_ns,
        "t_decision_ns": step.t_decision_ns,
        "t_applied_ns": step.t_applied_ns,
        "wall_ns": step.wall_ns,
        "control_mode": int(step.control_mode),
        "observation": step.observation,
        "next_observation": step.next_observation,
        "source": step.source,
        "policy_action": step.policy_action or absent,
        "human_action": step.human_action or absent,
        "asked_action": step.asked_action,
        "action": step.action,
        "intervention_id": step.intervention_id,
        "policy_version": step.policy_version,
        "spread": step.spread,
        "reward": step.reward,
        "terminated": step.terminated,
        "truncated": step.truncated,
    }
