"""LeRobotDataset v3.0 out. A frame is a step; a run becomes an episode of its own: a jump inside an episode would be a lie."""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from takeover.data.exchange import lerobot_files, lerobot_schema
from takeover.data.exchange.errors import Cancelled, ExchangeError, Progress, silent
from takeover.data.exchange.lerobot_schema import IMAGE_PREFIX, Feature, Images, Precision
from takeover.data.exchange.lerobot_survey import Survey, spec_sha256, survey
from takeover.data.exchange.pictures import PictureError, decode, encode_png, picture_size
from takeover.data.exchange.selection import Selection, Source, plan_export
from takeover.data.exchange.statistics import combine, numeric_statistics, picture_statistics, sample
from takeover.data.exchange.stretches import PictureChoice, Stretch, read_stretches
from takeover.data.exchange.target import PartialTarget, write_file
from takeover.data.exchange.video import Codec, VideoTrack
from takeover.data.workspace import Workspace

SHARD_BYTES = 100 * 1024**2  # of pictures and columns in one data file
SHARD_EPISODES = 64  # recorded episodes in one data file: an interrupted export goes on after the last finished one


@dataclass(frozen=True)
class LeRobotOptions:
    """How to write it. ``pictures`` says which, ``images`` in what form (PNG or JPEG bytes in the table, MP4, or none)."""

    images: Images = "image"
    pictures: PictureChoice = "camera"
    precision: Precision = "float32"
    join_runs: bool = False
    codec: Codec = "h264"


@dataclass(frozen=True)
class Exported:
    """What was written where. ``resumed``: recorded episodes that an earlier try had already written."""

    target: Path
    episodes: int
    frames: int
    resumed: int = 0


def export_lerobot(
    workspace: Workspace,
    target: Path | str,
    selection: Selection | None = None,
    options: LeRobotOptions | None = None,
    progress: Progress = silent,
) -> Exported:
    """Write the selected episodes as the folder ``target``. Raises `ExchangeError`, `DamagedFile`, `OSError`, `Cancelled`."""
    selection, options = selection or Selection(), options or LeRobotOptions()
    sources, plan = plan_export(workspace, "lerobot", selection, options)
    wanted: PictureChoice = "none" if options.images == "none" else options.pictures
    common = survey(sources, wanted)
    fps = lerobot_schema.whole_fps(common.spec.control_hz, f"episode {sources[0].row.id}")
    features = lerobot_schema.picture_features(common.cameras, options.images, fps, options.codec)
    features |= lerobot_schema.numeric_features(common.spec, options.precision, options.join_runs, list(common.cameras))
    with PartialTarget(target, plan) as partial:
        resumed = sum(piece["sources"] for piece in partial.done)
        shard = _Shard(partial, features, common, options, fps)
        progress(resumed, len(sources))
        try:
            for index, source in enumerate(sources[resumed:], start=resumed + 1):
                shard.add(source, read_stretches(source, wanted, options.join_runs, selection.include_excluded))
                progress(index, len(sources))
        except Cancelled:
            shard.flush()
            raise
        shard.flush()
        episodes = [episode for piece in partial.done for episode in piece["episodes"]]
        frames = sum(episode["length"] for episode in episodes)
        _write_meta(partial.folder, features, common, fps, episodes, frames)
        return Exported(partial.finish(), len(episodes), frames, resumed)


class _Shard:
    """Collects stretches and writes them as one data file, with one video per camera, when they are enough."""

    def __init__(self, partial: PartialTarget, features: Mapping[str, Feature], common: Survey, options: LeRobotOptions, fps: int) -> None:
        self.partial, self.features, self.common, self.options, self.fps = partial, features, common, options, fps
        self.frames = sum(episode["length"] for piece in partial.done for episode in piece["episodes"])
        self.episode_count = sum(len(piece["episodes"]) for piece in partial.done)
        self.keys = [name for name, feature in features.items() if feature.is_picture]
        self._clear()

    def _clear(self) -> None:
        self.sources = self.bytes = 0
        self.tables: list[Any] = []
        self.episodes: list[dict[str, Any]] = []
        self.pictures: dict[str, list[Sequence[bytes] | np.ndarray]] = {key: [] for key in self.keys}

    @property
    def _file(self) -> dict[str, int]:
        return lerobot_schema.file_of(len(self.partial.done))

    def add(self, source: Source, stretches: Sequence[Stretch]) -> None:
        self.sources += 1
        for stretch in stretches:
            self._add(source, stretch)
        if self.bytes > SHARD_BYTES or self.sources >= SHARD_EPISODES:
            self.flush()

    def _add(self, source: Source, stretch: Stretch) -> None:
        n = len(stretch)
        columns: dict[str, Any] = dict(lerobot_schema.numeric_columns(stretch, self.features))
        frame = np.arange(n, dtype=np.int64)
        columns["timestamp"] = (frame / self.fps).astype(np.float32)
        columns["frame_index"], columns["index"] = frame, frame + self.frames
        columns["episode_index"] = np.full(n, self.episode_count, np.int64)
        columns["task_index"] = np.full(n, self.common.task_index(stretch.start.spec), np.int64)
        stats = {name: numeric_statistics(values) for name, values in columns.items()}
        seconds = (stretch.columns["t_observation_ns"] - stretch.columns["t_observation_ns"][0]) / 1e9
        episode = _episode_row(source, stretch, self.episode_count, self.frames, self._file)
        episode["clock_error_s"] = float(np.abs(seconds - frame / self.fps).max())
        for key in self.keys:
            encoded, few = self._encoded(stretch, key)
            stats[key] = picture_statistics(few, n)
            if self.features[key].dtype == "image":
                columns[key] = encoded
            else:
                begin = sum(len(part) for part in self.pictures[key])
                episode |= {f"videos/{key}/{name}": number for name, number in self._file.items()}
                episode |= {f"videos/{key}/from_timestamp": begin / self.fps, f"videos/{key}/to_timestamp": (begin + n) / self.fps}
                self.pictures[key].append(encoded)
            self.bytes += sum(map(len, encoded)) if isinstance(encoded, list) else encoded.nbytes
        episode |= {f"stats/{name}/{kind}": value for name, values in stats.items() for kind, value in values.items()}
        table = lerobot_files.table_of(columns, self.features)
        self.bytes += table.nbytes
        self.tables.append(table)
        self.episodes.append(episode)
        self.frames += n
        self.episode_count += 1

    def _encoded(self, stretch: Stretch, key: str) -> tuple[list[bytes] | np.ndarray, list[np.ndarray]]:
        """A stretch's pictures as they are written (bytes for the table, anything `VideoTrack` takes), and a few decoded."""
        camera = key.removeprefix(IMAGE_PREFIX)
        pictures, shape = stretch.pictures[camera], self.features[key].shape
        chosen = sample(len(pictures))
        if isinstance(pictures, np.ndarray):
            encoded = [encode_png(p) for p in pictures] if self.features[key].dtype == "image" else pictures
            return encoded, [pictures[i] for i in chosen]
        index = 0
        try:
            for index, data in enumerate(pictures):  # noqa: B007 - said in the error
                if (size := picture_size(data)) != shape[:2]:
                    raise PictureError(f"{size[1]}x{size[0]} pixels, the others have {shape[1]}x{shape[0]}")
            few = []
            for index in chosen:
                few.append(decode(pictures[index]))
        except PictureError as error:
            where = f"{stretch.source.path}: hil/pictures/{camera}, the picture of step {int(stretch.steps[index])}"
            raise ExchangeError(f"{where}: {error}; export it without pictures, or leave the episode out") from error
        return pictures, few

    def flush(self) -> None:
        """Write what was collected; durable and noted when this returns."""
        if not self.sources:
            return
        if self.tables:
            number = self._file
            lerobot_files.write_tables(self.partial.folder / lerobot_schema.DATA_PATH.format(**number), self.tables)
            self._write_videos(number)
        self.partial.note({"sources": self.sources, "episodes": self.episodes})
        self._clear()

    def _write_videos(self, number: Mapping[str, int]) -> None:
        """One video per camera, all of them at the same time."""
        tracks = []
        for key in self.keys:
            if self.features[key].dtype == "video":
                path = self.partial.folder / lerobot_schema.VIDEO_PATH.format(video_key=key, **number)
                height, width, _ = self.features[key].shape
                tracks.append((VideoTrack(path, width, height, self.fps, self.options.codec), self.pictures[key]))
        if not tracks:
            return
        with ThreadPoolExecutor(min(len(tracks), os.cpu_count() or 1), "encode") as pool:
            for written in [pool.submit(track.write, parts) for track, parts in tracks]:
                written.result()


def _episode_row(source: Source, stretch: Stretch, index: int, frames: int, file: Mapping[str, int]) -> dict[str, Any]:
    """LeRobot's columns of an episode, then ours."""
    row, end, n = source.row, stretch.end, len(stretch)
    start = msgspec.to_builtins(msgspec.structs.replace(stretch.start, operator=source.operator))
    start["spec"] = spec_sha256(stretch.start.spec)
    return {
        "episode_index": index,
        "tasks": [stretch.start.spec.prompt or stretch.start.spec.task_id],
        "length": n,
        "data/chunk_index": file["chunk_index"],
        "data/file_index": file["file_index"],
        "dataset_from_index": frames,
        "dataset_to_index": frames + n,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
        "episode_id": row.id,
        "stretch": stretch.number,
        "stretches": stretch.count,
        "whole": stretch.is_whole,
        "first_step": int(stretch.steps[0]),
        "last_step": int(stretch.steps[-1]),
        "session_id": row.session_id,
        "kind": row.kind,
        "operator": source.operator,
        "outcome": row.outcome,
        "outcome_source": row.outcome_source,
        "event_step": row.event_step,
        "success": bool(row.success and stretch.is_last),
        "failure_cause": source.cause,
        "quality": source.labels.get("quality", ""),
        "excluded": row.excluded,
        "recovered": row.recovered,
        "policy_version": row.policy_version,
        "policy_sha256": row.policy_sha256,
        "final_state": stretch.next_observation[-1].tolist(),
        "start": json.dumps(start),
        "end": msgspec.json.encode(end).decode(),
        "labels": msgspec.json.encode(list(source.events)).decode(),
    }


def _write_meta(
    folder: Path, features: Mapping[str, Feature], common: Survey, fps: int, episodes: Sequence[Mapping[str, Any]], frames: int
) -> None:
    info = lerobot_schema.info_json(features, common.spec.robot_id, fps, len(episodes), frames, len(common.tasks))
    kinds = [name.rpartition("/")[2] for name in episodes[0] if name.startswith("stats/index/")]
    stats = {name: combine([{kind: episode[f"stats/{name}/{kind}"] for kind in kinds} for episode in episodes]) for name in features}
    ours = {"format": 1, "specs": {sha: msgspec.to_builtins(spec) for sha, spec in common.specs.items()}}
    write_file(folder / lerobot_schema.STATS, json.dumps(stats, indent=1).encode())
    write_file(folder / lerobot_schema.OURS, json.dumps(ours, indent=1, ensure_ascii=False).encode())
    lerobot_files.write_tasks(folder / lerobot_schema.TASKS, common.tasks)
    lerobot_files.write_episodes(folder / lerobot_schema.EPISODES_PATH.format(**lerobot_schema.file_of(0)), episodes)
    write_file(folder / lerobot_schema.INFO, json.dumps(info, indent=4, ensure_ascii=False).encode())
