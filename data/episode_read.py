"""Reading closed episode files back as the records that came over the wire."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np

from takeover.data.episode_block import StepBlock
from takeover.data.episode_build import DEMO
from takeover.data.episode_migrate import in_newest_schema
from takeover.data.episode_schema import ACTION_COLUMNS, COLUMNS, OPTIONAL_ACTIONS
from takeover.data.hdf5_image import DamagedFile, check_seal
from takeover.data.schema import EpisodeEnd, EpisodeStart, Event, Mode, PolicyImage, Source, Step

CHUNK_CACHE_BYTES = 4 << 20  # of each open dataset: a few chunks of pictures, so that playback checks each of them once


@contextlib.contextmanager
def open_episode(path: Path, sealed: bool = False) -> Iterator[h5py.File]:
    """The HDF5 file for reading, in the newest schema: an older one is brought up to it in memory.

    Its seal is checked first, since a damaged file can crash HDF5 and the process with it; ``sealed`` says that this was done just now.
    Raises `DamagedFile`, `FileNotFoundError`, `NewerFile` if it was written by a newer version of this program.
    """
    if not sealed:
        _check(path)
    try:
        file = h5py.File(path, "r", rdcc_nbytes=CHUNK_CACHE_BYTES)
    except OSError as error:
        if not path.exists():
            raise FileNotFoundError(f"no episode file {path}") from error
        raise DamagedFile(f"{path}: {error}") from error
    try:
        file = in_newest_schema(path, file)
        yield file
    finally:
        file.close()


def _check(path: Path) -> None:
    try:
        check_seal(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"no episode file {path}") from None
    except OSError as error:
        raise DamagedFile(f"{path}: cannot be read: {error.strerror}") from error


def texts(values: np.ndarray) -> list[str]:
    return [value.decode() for value in values.tolist()]


def _read_steps(
    group: h5py.Group, start: EpisodeStart, state: np.ndarray, snapshots: dict[int, bytes], frames: h5py.Group | None
) -> list[Step]:
    columns: dict[str, list[Any]] = {}
    for column in COLUMNS:
        values = group[column.name][:]
        row = texts(values) if column.dtype == "S" else values.tolist()
        columns[column.name] = [column.back(value) for value in row] if column.back else row
    for name in ACTION_COLUMNS:
        columns[name] = group[name][:].tolist()
        if name in OPTIONAL_ACTIONS:
            valid = group[f"{name}_valid"][:]
            columns[name] = [row if ok else None for row, ok in zip(columns[name], valid, strict=True)]
    columns["source"] = group["source"][:].tolist()
    columns["mode"] = [Mode(value) for value in columns["mode"]]
    rows = group["frame_index"][:].tolist()
    count = len(rows)
    scores: list[dict[str, float]] = [{} for _ in range(count)]
    if "scores" in group:
        for name in json.loads(group["scores"].attrs["names"]):
            for target, value in zip(scores, group["scores"][name.replace("/", "_")][:].tolist(), strict=True):
                if value == value:  # NaN: the step did not have it
                    target[name] = value
    steps = []
    names = list(columns)
    for index, values in enumerate(zip(*(columns[name] for name in names), strict=True)):
        fields = dict(zip(names, values, strict=True))
        row = rows[index]
        steps.append(
            Step(
                session=start.session,
                episode_id=start.episode_id,
                kind=start.kind,
                observation=state[row].tolist(),
                next_observation=state[row + 1].tolist(),
                scores=scores[index],
                sim_state=snapshots.get(fields["seq"], b""),
                images=_policy_images(frames, row) if frames is not None else [],
                **fields,
            )
        )
    return steps


def _policy_images(hil: h5py.Group, row: int) -> list[PolicyImage]:
    if "image_valid" not in hil:
        return []
    found = []
    for camera, valid in hil["image_valid"].items():
        if valid[row]:
            picture = hil["frames"][camera][row]
            found.append(PolicyImage(camera=camera, height=picture.shape[0], width=picture.shape[1], data=picture.tobytes()))
    return found


def _with_last_pictures(steps: list[Step], hil: h5py.Group) -> list[Step]:
    """The policy's pictures after the last step of each run: they belong to no other step."""
    if "image_valid" not in hil:
        return steps
    row_of = dict(zip(hil["seq"][:].tolist(), hil["frame_index"][:].tolist(), strict=True))
    if "held" in hil:
        row_of |= dict(zip(hil["held/seq"][:].tolist(), hil["held/frame_index"][:].tolist(), strict=True))
    begun = set(row_of.values())
    valid = {camera: item[:] for camera, item in hil["image_valid"].items()}
    made = []
    for step in steps:
        row = row_of[step.seq] + 1
        found = []
        for camera, marks in valid.items():
            if row not in begun and marks[row]:
                picture = hil["frames"][camera][row]
                found.append(PolicyImage(camera=camera, height=picture.shape[0], width=picture.shape[1], data=picture.tobytes()))
        made.append(msgspec.structs.replace(step, next_images=found) if found else step)
    return made


def _snapshots(demo: h5py.Group) -> dict[int, bytes]:
    """Simulator state before each step, by seq."""
    found: dict[int, bytes] = {}
    states = demo["states"][:]
    if states.shape[1]:
        found = {seq: states[row].tobytes() for row, seq in enumerate(demo["hil/seq"][:].tolist())}
    group = demo["hil/sim_state"]
    kinds, numbers, offsets, data = texts(group["kind"][:]), group["seq"][:].tolist(), group["offsets"][:].tolist(), group["data"][:]
    for index, (kind, seq) in enumerate(zip(kinds, numbers, strict=True)):
        if kind in ("step", "held"):
            found[seq] = data[offsets[index] : offsets[index + 1]].tobytes()
    return found


def read_records(path: Path, images: bool = False, sealed: bool = False) -> tuple[EpisodeStart, list[Step], EpisodeEnd]:
    """The episode as it came over the wire: steps (held ones too, by rec_seq) equal the live ones bit for bit.

    Without ``images`` the policy's pictures are left out; ``sealed`` as in `open_episode`. Raises `FileNotFoundError`, `DamagedFile`.
    """
    with open_episode(path, sealed) as file:
        try:
            demo = file[DEMO]
            hil = demo["hil"]
            start, end = read_bounds(demo)
            state, snapshots = hil["frames/state"][:], _snapshots(demo)
            frames = hil if images else None
            steps = _read_steps(hil, start, state, snapshots, frames)
            if "held" in hil:
                steps += _read_steps(hil["held"], start, state, snapshots, frames)
                steps.sort(key=lambda step: step.rec_seq)
            if images:
                steps = _with_last_pictures(steps, hil)
        except (KeyError, OSError, ValueError) as error:
            raise DamagedFile(f"{path}: {error}") from error
    return start, steps, end


def read_block(path: Path) -> tuple[EpisodeStart, StepBlock, EpisodeEnd]:
    """As `read_records`, with the same numbers. Raises `FileNotFoundError`, `DamagedFile`."""
    with open_episode(path) as file:
        try:
            demo = file[DEMO]
            hil = demo["hil"]
            start, end = read_bounds(demo)
            state, rows = _column(hil, "frames/state"), _column(hil, "frame_index")
            groups = [hil, hil["held"]] if "held" in hil else [hil]
            block = StepBlock(
                session=start.session,
                rec_seq=max([start.rec_seq, *(number for group in groups for number in _last_record(group))]),
                episode_id=start.episode_id,
                steps=_column(hil, "episode_step").astype(np.int64),
                observations=state[rows],
                following=state[rows + 1],
                actions=_column(hil, "action"),
                rewards=_column(hil, "reward"),
                terminated=_column(hil, "terminated").astype(bool),
                runs=_column(hil, "run_id").astype(np.int64),
                modes=_column(hil, "control_mode").astype(np.int64),
                human=(_column(hil, "source") == Source.HUMAN).any(1),
                interventions=_column(hil, "intervention_id").astype(np.int64),
                versions=tuple(np.unique(np.concatenate([_column(group, "policy_version") for group in groups])).tolist()),
            )
        except (KeyError, OSError, ValueError, IndexError) as error:
            raise DamagedFile(f"{path}: {error}") from error
    return start, block, end


def _column(group: h5py.Group, name: str) -> np.ndarray:
    """All of a dataset. By the calls below those of `h5py.Dataset`, which take longer than reading a column of one episode does."""
    dataset = h5py.h5d.open(group.id, name.encode())
    values = np.empty(dataset.shape, dataset.dtype)
    dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    return values


def _last_record(group: h5py.Group) -> list[int]:
    return [int(number) for number in group["rec_seq"][-1:]]


def read_bounds(demo: h5py.Group) -> tuple[EpisodeStart, EpisodeEnd]:
    """EpisodeStart and EpisodeEnd as received (a recovered episode's end has rec_seq -1)."""
    return msgspec.json.decode(demo.attrs["start"], type=EpisodeStart), msgspec.json.decode(demo.attrs["end"], type=EpisodeEnd)


def read_events(demo: h5py.Group, start: EpisodeStart) -> list[Event]:
    """The episode's events, simulator states included."""
    group = demo["hil/sim_state"]
    offsets, data = group["offsets"][:].tolist(), group["data"][:]
    snapshots = {
        (kind, seq): data[offsets[i] : offsets[i + 1]].tobytes()
        for i, (kind, seq) in enumerate(zip(texts(group["kind"][:]), group["seq"][:].tolist(), strict=True))
    }
    events = []
    for row in demo["hil/events"][:]:
        kind, seq = row["kind"].decode(), int(row["seq"])
        events.append(
            Event(
                session=start.session,
                rec_seq=int(row["rec_seq"]),
                kind=kind,
                source=row["source"].decode(),
                t_ns=int(row["t_ns"]),
                wall_ns=int(row["wall_ns"]),
                text=row["text"].decode(),
                episode_id=start.episode_id,
                seq=seq,
                value=float(row["value"]),
                sim_state=snapshots.get((kind, seq), b""),
            )
        )
    return events
