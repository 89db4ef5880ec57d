"""A closed episode file back as everything it was made of, so that it can be made again: for repair and for forgetting a person."""

import json
from pathlib import Path

import msgspec

from takeover.data.episode_build import DEMO, build_episode
from takeover.data.episode_file import EpisodeReader, open_episode, read_events, read_records
from takeover.data.episode_schema import EpisodeRecords
from takeover.data.hdf5_image import DamagedFile, check_seal, write_durably
from takeover.data.schema import CameraFrame
from takeover.data.workspace import fsync_folder


def read_episode(path: Path) -> EpisodeRecords:
    """All records of a file, pictures and events included: `build_episode` of them has the same content in the newest schema.

    Raises `DamagedFile` (its seal too is checked), `FileNotFoundError`.
    """
    check_seal(path)
    start, steps, end = read_records(path, images=True, sealed=True)
    with EpisodeReader(path) as reader:
        frames = [frame for camera in reader.cameras for frame in _frames(reader, camera)]
        recovered, history = bool(reader.attributes["recovered"]), json.loads(reader.attributes["history"])
    with open_episode(path, sealed=True) as file:
        events = read_events(file[DEMO], start)
    frames.sort(key=lambda frame: frame.rec_seq)
    return EpisodeRecords(
        start=start,
        steps=steps,
        frames=frames,
        events=events,
        end=end if end.rec_seq >= 0 else None,  # else it was made up when the file was closed, and is made up again
        recovered=recovered,
        history=history,
    )


def _frames(reader: EpisodeReader, camera: str) -> list[CameraFrame]:
    group = reader._hil["pictures"][camera]
    width, height = int(group.attrs["width"]), int(group.attrs["height"])
    columns = {name: group[name][:].tolist() for name in ("t_source_ns", "counter", "seq", "rec_seq")}
    return [
        CameraFrame(
            session=reader.start.session,
            camera=camera,
            width=width,
            height=height,
            jpeg=reader.frame(camera, index),
            episode_id=reader.start.episode_id,
            **{name: values[index] for name, values in columns.items()},
        )
        for index in range(len(columns["seq"]))
    ]


def reseal(path: Path, episode: EpisodeRecords) -> None:
    """Put a file made of ``episode`` in the place of ``path``, whole or not at all; it is compared with ``episode`` before that.

    Raises `DamagedFile` when it would not read back as ``episode``, `OSError`.
    """
    beside = path.with_name(f"{path.stem}.resealed")
    write_durably(beside, build_episode(episode))
    try:
        if msgspec.msgpack.encode(read_episode(beside)) != msgspec.msgpack.encode(episode):  # as bytes: NaN is not equal to itself
            raise DamagedFile(f"{path}: made again it would not be the same; it was left as it is")
        beside.replace(path)
        fsync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)
