"""LeRobotDataset v3.0 as we write it: its files, its features, and one stretch as its columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from takeover.data.exchange.errors import ExchangeError
from takeover.data.exchange.stretches import Stretch
from takeover.data.schema import RobotSpec

VERSION = "v3.0"
CHUNK_FILES = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
INFO, STATS, TASKS, OURS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet", "meta/takeover.json"
IMAGE_PREFIX = "observation.images."
MANDATORY = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64", "task_index": "int64"}
Images = Literal["image", "video", "none"]
Precision = Literal["float32", "float64"]


@dataclass(frozen=True)
class Feature:
    """One entry of ``features`` in info.json."""

    dtype: str
    shape: tuple[int, ...]
    names: Sequence[str] | None = None
    info: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"dtype": self.dtype, "shape": list(self.shape), "names": list(self.names) if self.names else None}
        return entry | ({"info": dict(self.info)} if self.info else {})

    @property
    def is_picture(self) -> bool:
        return self.dtype in ("image", "video")


def numeric_features(spec: RobotSpec, precision: Precision, join_runs: bool = False, cameras: Sequence[str] = ()) -> dict[str, Feature]:
    """Every numeric column, in the order in which it is written. With joined runs a row's successor is not always the next row."""
    width, names, groups = spec.action.size, spec.action.names, [f"{group.name}.source" for group in spec.action.groups]
    real, whole, truth = precision, "int64", "bool"
    one = (1,)
    state = Feature(real, (spec.observation.size,), spec.observation.names)
    return {
        "observation.state": state,
        **({"next.observation.state": state} if join_runs else {}),
        "action": Feature(real, (width,), names),
        "next.reward": Feature(real, one),
        "next.done": Feature(truth, one),
        "next.success": Feature(truth, one),
        "next.truncated": Feature(truth, one),
        "intervention": Feature(truth, one),
        "complementary_info.is_intervention": Feature("float32", one),
        "policy_action": Feature(real, (width,), names),
        "policy_action_valid": Feature(truth, one),
        "human_action": Feature(real, (width,), names),
        "human_action_valid": Feature(truth, one),
        "asked_action": Feature(real, (width,), names),
        "action_source": Feature(whole, (len(groups),), groups),
        "control_mode": Feature(whole, one),
        "intervention_id": Feature(whole, one),
        "policy_version": Feature(whole, one),
        "policy_from_seq": Feature(whole, one),
        "intv_label": Feature(whole, one),
        "action_mode": Feature(whole, one),
        "run_id": Feature(whole, one),
        "seq": Feature(whole, one),
        "safety_bits": Feature(whole, one),
        "spread": Feature(real, one),
        "command_age_ms": Feature(real, one),
        "sample_weight": Feature("float32", one),
        "wallclock_ns": Feature(whole, one),
        "t_observation_ns": Feature(whole, one),
        "t_decision_ns": Feature(whole, one),
        "t_applied_ns": Feature(whole, one),
        **({"picture_age_s": Feature("float32", (len(cameras),), sorted(cameras))} if cameras else {}),
        **{name: Feature(dtype, one) for name, dtype in MANDATORY.items()},
    }


def numeric_columns(stretch: Stretch, features: Mapping[str, Feature]) -> dict[str, np.ndarray]:
    """A stretch's columns but for the mandatory ones, each (n,) or (n, D) in its feature's dtype. Absent actions are 0 and not valid."""
    c = stretch.columns
    values: dict[str, np.ndarray] = {
        "observation.state": stretch.observation,
        "next.observation.state": stretch.next_observation,
        "action": c["action"],
        "next.reward": stretch.reward,
        "next.done": stretch.terminated | stretch.truncated,
        "next.success": stretch.success,
        "next.truncated": stretch.truncated,
        "intervention": stretch.intervened,
        "complementary_info.is_intervention": stretch.intervened,
        "policy_action": np.nan_to_num(c["policy_action"], nan=0.0),
        "policy_action_valid": c["policy_action_valid"],
        "human_action": np.nan_to_num(c["human_action"], nan=0.0),
        "human_action_valid": c["human_action_valid"],
        "asked_action": c["asked_action"],
        "action_source": c["source"],
        "control_mode": c["control_mode"],
        "intervention_id": c["intervention_id"],
        "policy_version": c["policy_version"],
        "policy_from_seq": c["policy_from_seq"],
        "intv_label": stretch.intv_label,
        "action_mode": stretch.modes,
        "run_id": c["run_id"],
        "seq": c["seq"],
        "safety_bits": c["safety_bits"],
        "spread": c["spread"],
        "command_age_ms": c["command_age_ms"],
        "sample_weight": stretch.weight,
        "wallclock_ns": c["wall_ns"],
        "t_observation_ns": c["t_observation_ns"],
        "t_decision_ns": c["t_decision_ns"],
        "t_applied_ns": c["t_applied_ns"],
    }
    if "picture_age_s" in features:
        values["picture_age_s"] = np.stack([stretch.picture_age_s[camera] for camera in sorted(stretch.pictures)], axis=1)
    found = {}
    for name, value in values.items():
        if name not in features:
            continue
        feature = features[name]
        array = np.asarray(value).astype(feature.dtype)
        found[name] = array.reshape(len(stretch)) if feature.shape == (1,) else array.reshape(len(stretch), *feature.shape)
    return found


def picture_features(shapes: Mapping[str, tuple[int, int]], images: Images, fps: int, codec: str) -> dict[str, Feature]:
    """``observation.images.<camera>`` of each camera with its (height, width). Raises `ExchangeError` for video of odd sizes."""
    found = {}
    for camera, (height, width) in sorted(shapes.items()):
        if images == "video" and (height % 2 or width % 2):
            raise ExchangeError(f"camera {camera}: pictures of {width}x{height}: MP4 in yuv420p needs even numbers; export images instead")
        info = None
        if images == "video":
            info = {
                "video.height": height,
                "video.width": width,
                "video.codec": codec,
                "video.pix_fmt": "yuv420p",
                "video.is_depth_map": False,
                "video.fps": fps,
                "video.channels": 3,
                "has_audio": False,
            }
        found[IMAGE_PREFIX + camera] = Feature(images, (height, width, 3), ("height", "width", "channels"), info)
    return found


def whole_fps(control_hz: float, where: str) -> int:
    """LeRobot's frame rate is a whole number. Raises `ExchangeError`."""
    fps = round(control_hz)
    if fps < 1 or abs(fps - control_hz) > 1e-6:
        raise ExchangeError(
            f"{where}: control_hz is {control_hz}; LeRobot wants a whole number of frames per second: export to robomimic or MCAP"
        )
    return fps


def file_of(number: int) -> dict[str, int]:
    """Chunk and file index of the ``number``-th file."""
    return {"chunk_index": number // CHUNK_FILES, "file_index": number % CHUNK_FILES}


def info_json(features: Mapping[str, Feature], robot: str, fps: int, episodes: int, frames: int, tasks: int) -> dict[str, Any]:
    """meta/info.json."""
    return {
        "codebase_version": VERSION,
        "robot_type": robot,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": CHUNK_FILES,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if any(feature.dtype == "video" for feature in features.values()) else None,
        "features": {name: feature.to_json() for name, feature in features.items()},
    }
