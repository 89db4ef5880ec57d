"""robomimic out: one self-contained HDF5 file, without links, readable by `SequenceDataset` and by us.

Every stretch is built in memory and written whole as a part; at the end the parts are put together. HDF5 writes into a Python file that
keeps disk errors to itself until the end: a failed write inside HDF5 would take the process down.
"""

import io
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np

from takeover.data.episode_build import environment_args
from takeover.data.exchange.errors import ExchangeError, Progress, silent
from takeover.data.exchange.lerobot_export import Exported
from takeover.data.exchange.selection import Selection, Source, plan_export
from takeover.data.exchange.stretches import PictureChoice, Stretch, read_stretches
from takeover.data.exchange.target import PartialTarget, write_file, write_with
from takeover.data.index import VALID_PERCENT
from takeover.data.workspace import Workspace

FILE = "dataset.hdf5"
HIL = (
    "run_id", "seq", "t_observation_ns", "t_decision_ns", "t_applied_ns", "wall_ns", "control_mode", "policy_from_seq", "policy_version",
    "intervention_id", "safety_bits", "spread", "policy_action", "policy_action_valid", "human_action", "human_action_valid",
    "asked_action", "action", "source", "command_age_ms",
)  # fmt: skip


@dataclass(frozen=True)
class RobomimicOptions:
    """``policy_pictures``: also obs/<camera> and next_obs/<camera>. ``join_runs``: an episode is one demo, pauses and all."""

    policy_pictures: bool = True
    join_runs: bool = False


def export_robomimic(
    workspace: Workspace,
    target: Path | str,
    selection: Selection | None = None,
    options: RobomimicOptions | None = None,
    progress: Progress = silent,
) -> Exported:
    """Write the selected episodes as the file ``target``. Raises `ExchangeError`, `DamagedFile`, `OSError`, `Cancelled`."""
    selection, options = selection or Selection(), options or RobomimicOptions()
    sources, plan = plan_export(workspace, "robomimic", selection, options)
    _check_alike(sources)
    pictures: PictureChoice = "policy" if options.policy_pictures else "none"
    with PartialTarget(target, plan) as partial:
        resumed = len(partial.done)
        progress(resumed, len(sources))
        for index, source in enumerate(sources[resumed:], start=resumed):
            made: list[dict[str, Any]] = []
            for stretch in read_stretches(source, pictures, options.join_runs, selection.include_excluded):
                name = f"part-{index:06d}-{stretch.number:04d}.hdf5"
                write_file(partial.folder / name, _part(source, stretch))
                made.append({"part": name, "samples": len(stretch), "masks": _masks(source, stretch)})
            partial.note({"demos": made})
            progress(index + 1, len(sources))
        demos = [demo for piece in partial.done for demo in piece["demos"]]
        write_with(partial.folder / FILE, lambda path: _assemble(path, partial.folder, demos))
        return Exported(partial.finish(FILE), len(demos), sum(demo["samples"] for demo in demos), resumed)


def _check_alike(sources: Sequence[Source]) -> None:
    first = sources[0].row
    for source in sources:
        for name in ("control_hz", "robot_id"):
            one, two = getattr(first, name), getattr(source.row, name)
            if one != two:
                raise ExchangeError(
                    f"episodes {first.id} and {source.row.id} do not fit into one file: {name} is {one} and {two}; export them apart"
                )


def _masks(source: Source, stretch: Stretch) -> list[str]:
    """As in the index: an excluded episode is in no other mask."""
    row = source.row
    if row.excluded:
        return ["excluded"]
    split = "valid" if zlib.crc32(row.id.encode()) % 100 < VALID_PERCENT else "train"
    names = [split, f"round_{row.policy_version}", f"task_{row.task_id}", f"kind_{row.kind}"]
    if row.outcome in ("success", "failure") and stretch.is_last:
        names.append(row.outcome)
    if row.kind != "demonstration" and bool(stretch.human.any()):
        names.append("has_intervention")
    return [*names, "reviewed"] if source.reviewed else names


def _part(source: Source, stretch: Stretch) -> bytes:
    """An HDF5 image with one group ``demo``."""
    with h5py.File("part.hdf5", "w", driver="core", backing_store=False, libver=("v110", "v110")) as file:
        demo = file.create_group("demo")
        _put(demo, "actions", stretch.columns["action"].astype(np.float32))
        _put(demo, "rewards", stretch.reward)
        _put(demo, "dones", (stretch.terminated | stretch.truncated).astype(np.int64))
        _put(demo, "states", stretch.states)
        _put(demo, "obs/state", stretch.observation)
        _put(demo, "next_obs/state", stretch.next_observation)
        for camera, pictures in stretch.pictures.items():
            _put(demo, f"obs/{camera}", np.asarray(pictures), per_row=True)
            _put(demo, f"next_obs/{camera}", stretch.next_pictures[camera], per_row=True)
        _put(demo, "action_modes", stretch.modes)
        _put(demo, "intv_labels", stretch.intv_label)
        _put(demo, "round", np.full(len(stretch), stretch.start.policy_version, np.int64))
        for name in HIL:
            _put(demo, f"hil/{name}", stretch.columns[name])
        for name, values in (("reward", stretch.reward), ("terminated", stretch.terminated), ("truncated", stretch.truncated)):
            _put(demo, f"hil/{name}", values.astype(np.float64 if name == "reward" else np.uint8))
        _put(demo, "hil/success", stretch.success.astype(np.uint8))
        _put(demo, "hil/sample_weight", stretch.weight.astype(np.float32))
        for name, value in _attributes(source, stretch).items():
            demo.attrs[name] = value
        file.attrs["env_args"] = environment_args(stretch.start)
        file.flush()
        return file.id.get_file_image()


def _put(group: h5py.Group, name: str, values: np.ndarray, per_row: bool = False) -> None:
    if not values.size:
        group.create_dataset(name, data=values)
        return
    chunks = (1, *values.shape[1:]) if per_row else True
    group.create_dataset(name, data=values, chunks=chunks, compression="lzf" if per_row else None, fletcher32=True)


def _attributes(source: Source, stretch: Stretch) -> dict[str, Any]:
    row, start = source.row, msgspec.structs.replace(stretch.start, operator=source.operator)
    return {
        "num_samples": len(stretch),
        "episode_id": row.id,
        "stretch": stretch.number,
        "stretches": stretch.count,
        "whole": stretch.is_whole,
        "first_step": int(stretch.steps[0]),
        "last_step": int(stretch.steps[-1]),
        "session_id": row.session_id,
        "control_hz": row.control_hz,
        "kind": row.kind,
        "operator": source.operator,
        "outcome": row.outcome,
        "outcome_source": row.outcome_source,
        "success": row.success and stretch.is_last,
        "failure_cause": source.cause,
        "quality": source.labels.get("quality", ""),
        "excluded": row.excluded,
        "policy_version": row.policy_version,
        "policy_sha256": row.policy_sha256,
        "start": msgspec.json.encode(start).decode(),
        "end": msgspec.json.encode(stretch.end).decode(),
        "labels": msgspec.json.encode(list(source.events)).decode(),
    }


def _assemble(path: Path, folder: Path, demos: Sequence[Mapping[str, Any]]) -> None:
    masks: dict[str, list[bytes]] = {}
    with path.open("w+b") as raw:
        guarded = GuardedFile(raw)
        with h5py.File(guarded, "w", libver=("v110", "v110")) as file:
            data = file.create_group("data")
            for number, demo in enumerate(demos):
                with h5py.File(folder / demo["part"], "r") as part:
                    part.copy("demo", data, f"demo_{number}")
                    environment = part.attrs["env_args"]
                for name in demo["masks"]:
                    masks.setdefault(name, []).append(f"demo_{number}".encode())
                if guarded.error is not None:
                    break
            data.attrs["total"] = sum(demo["samples"] for demo in demos)
            data.attrs["env_args"] = environment
            for name, members in masks.items():
                file.create_dataset(f"mask/{name}", data=np.array(members, dtype="S16"))
        guarded.check()
        raw.flush()
        os.fsync(raw.fileno())


class GuardedFile(io.RawIOBase):
    """A file for HDF5 to write into that never raises: the first disk error is kept in ``error``, and `check` raises it."""

    def __init__(self, raw: Any) -> None:
        super().__init__()
        self._raw = raw
        self._position = 0
        self.error: OSError | None = None

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self._raw.fileno()).st_size}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        self._raw.seek(self._position)
        found = self._raw.read(len(view))
        view[: len(found)] = found
        view[len(found) :] = bytes(len(view) - len(found))
        self._position += len(view)
        return len(view)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self.error is None:
            try:
                self._raw.seek(self._position)
                self._raw.write(view)
                self._raw.flush()
            except OSError as error:
                self.error = error
        self._position += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        size = self._position if size is None else size
        try:
            self._raw.truncate(size)
        except OSError as error:
            self.error = self.error or error
        return size

    def flush(self) -> None:
        """Every write is flushed already."""
