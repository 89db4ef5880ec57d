"""A LeRobotDataset v3.0 folder, checked: description, episodes, one episode's columns. Paths are made by us, never taken from it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from takeover.data.exchange import lerobot_schema
from takeover.data.exchange.errors import ExchangeError
from takeover.data.exchange.lerobot_schema import MANDATORY, Feature

TIME_TOLERANCE_S = 1e-4
_NEEDED = ("episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index", "data/chunk_index", "data/file_index")
_DTYPES = (
    "float32",
    "float64",
    "float16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "uint16",
    "uint32",
    "bool",
    "string",
    "image",
    "video",
)


@dataclass
class Dataset:
    """What the metadata says. ``episodes``: a dict per episode; ``ours``: meta/takeover.json of our own exports, else empty."""

    path: Path
    fps: int
    robot: str
    features: dict[str, Feature]
    episodes: list[dict[str, Any]]
    tasks: dict[int, str]
    ours: dict[str, Any] = field(default_factory=dict)
    _table: tuple[Path, pa.Table] | None = None

    def columns(self, number: int) -> dict[str, Any]:
        """{feature: (n,) or (n, D) array; pictures as a list of bytes} of an episode, every row checked. Raises `ExchangeError`."""
        episode = self.episodes[number]
        path = self.path / lerobot_schema.DATA_PATH.format(**_file(episode, "data", self.path))
        if self._table is None or self._table[0] != path:
            self._table = (path, read_parquet(path))
        table = self._table[1]
        where = f"{path}, episode {number}"
        _has_columns(table, [n for n, feature in self.features.items() if feature.dtype != "video"], where)
        own = np.flatnonzero(numbers(table, "episode_index", Feature("int64", (1,)), where) == number)
        n = int(episode["length"])
        if len(own) != n or (n and own[-1] - own[0] != n - 1):
            raise ExchangeError(f"{where}: {len(own)} rows, the episode list says {n} in one piece; the file is not whole")
        rows = table.slice(int(own[0]) if n else 0, n)
        found: dict[str, Any] = {}
        for name, feature in self.features.items():
            if feature.dtype == "image":
                found[name] = _picture_bytes(rows, name, where)
            elif feature.dtype not in ("video", "string"):
                found[name] = numbers(rows, name, feature, where)
        self._check_clock(found, episode, where)
        return found

    def _check_clock(self, found: Mapping[str, np.ndarray], episode: Mapping[str, Any], where: str) -> None:
        frame = np.arange(int(episode["length"]))
        for name, expected in (("frame_index", frame), ("index", frame + int(episode["dataset_from_index"]))):
            wrong = np.flatnonzero(found[name] != expected)
            if wrong.size:
                step = int(wrong[0])
                raise ExchangeError(f"{where}: {name} is {int(found[name][step])} at step {step}, {int(expected[step])} is needed")
        off = np.flatnonzero(np.abs(found["timestamp"] - frame / self.fps) > TIME_TOLERANCE_S + 1e-6 * frame / self.fps)
        if off.size:
            step = int(off[0])
            raise ExchangeError(
                f"{where}: timestamp is {float(found['timestamp'][step]):.4f} s at step {step}, {step / self.fps:.4f} s "
                f"at {self.fps} frames per second: mixed control rates or missing frames"
            )


def open_dataset(path: Path | str) -> Dataset:
    """Read and check the metadata. Raises `ExchangeError` naming the file and the key."""
    root = Path(path).expanduser().absolute()
    info = _json(root / lerobot_schema.INFO)
    where = root / lerobot_schema.INFO
    version = str(info.get("codebase_version"))
    if not version.startswith("v3."):
        raise ExchangeError(f"{where}: codebase_version is {version!r}, v3.0 is read; convert it with lerobot's own converter")
    for key, standard in (("data_path", lerobot_schema.DATA_PATH), ("video_path", lerobot_schema.VIDEO_PATH)):
        if info.get(key) not in (standard, None if key == "video_path" else standard):
            raise ExchangeError(f"{where}: {key} is {info.get(key)!r}; only LeRobot's standard layout is read: {standard}")
    fps = info.get("fps")
    if not isinstance(fps, int | float) or isinstance(fps, bool) or fps != int(fps) or not 1 <= fps <= 10_000:
        raise ExchangeError(f"{where}: fps is {fps!r}; a whole number of frames per second is needed")
    features = _features(info.get("features"), where)
    tasks = _tasks(root / lerobot_schema.TASKS)
    episodes = _episodes(root, info, where)
    ours = _json(root / lerobot_schema.OURS) if (root / lerobot_schema.OURS).exists() else {}
    return Dataset(root, int(fps), str(info.get("robot_type") or ""), features, episodes, tasks, ours)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ExchangeError(f"{path} is missing: no LeRobotDataset v3.0, or a half-written one") from None
    except (OSError, ValueError) as error:
        raise ExchangeError(f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise ExchangeError(f"{path}: an object is needed")
    return value


def _features(given: Any, where: Path) -> dict[str, Feature]:
    if not isinstance(given, dict):
        raise ExchangeError(f"{where}: features is missing")
    found = {}
    for name, entry in given.items():
        try:
            dtype, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
        except (KeyError, TypeError, ValueError) as error:
            raise ExchangeError(f"{where}: features[{name!r}] has no dtype or no shape") from error
        if "/" in name or dtype not in _DTYPES or not shape or min(shape) < 1 or max(shape) > 1_000_000:
            raise ExchangeError(f"{where}: features[{name!r}] with dtype {dtype!r} and shape {list(shape)} cannot be read")
        if dtype not in ("image", "video") and len(shape) != 1:
            raise ExchangeError(f"{where}: features[{name!r}] has the shape {list(shape)}; numbers are read with one dimension")
        found[name] = Feature(dtype, shape, entry.get("names"))
    missing = [name for name in (*MANDATORY, "action") if name not in found]
    if missing:
        raise ExchangeError(f"{where}: features lacks {', '.join(missing)}")
    return found


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Raises `ExchangeError` for a file that is missing or was not finished."""
    try:
        return pq.read_table(path, columns=columns, partitioning=None, page_checksum_verification=True)
    except FileNotFoundError:
        raise ExchangeError(f"{path} is missing: a half-written dataset") from None
    except (OSError, pa.ArrowException, ValueError) as error:
        raise ExchangeError(f"{path}: {error}; a half-written or damaged file") from error


def _tasks(path: Path) -> dict[int, str]:
    table = read_parquet(path)
    texts = [f.name for f in table.schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    if "task_index" not in table.column_names or len(texts) != 1:
        raise ExchangeError(f"{path}: a column task_index and one with the task's text are needed, not {table.column_names}")
    return dict(zip(table["task_index"].to_pylist(), table[texts[0]].to_pylist(), strict=True))


def _episodes(root: Path, info: Mapping[str, Any], where: Path) -> list[dict[str, Any]]:
    paths = sorted((root / "meta/episodes").glob("*/*.parquet"))
    if not paths:
        raise ExchangeError(f"{root / 'meta/episodes'} has no episodes: no LeRobotDataset v3.0, or a half-written one")
    rows: list[dict[str, Any]] = []
    for path in paths:
        try:
            names = [name for name in pq.read_schema(path).names if not name.startswith("stats/")]
        except (OSError, pa.ArrowException) as error:
            raise ExchangeError(f"{path}: {error}; a half-written or damaged file") from error
        table = read_parquet(path, names)
        _has_columns(table, list(_NEEDED), str(path))
        rows += table.to_pylist()
    begin = 0
    for number, row in enumerate(rows):
        if row["episode_index"] != number:
            raise ExchangeError(
                f"{paths[0].parent.parent}: row {number} is episode {row['episode_index']}; row i must be episode i, each once"
            )
        length = row["length"]
        if not isinstance(length, int) or length < 1 or (row["dataset_from_index"], row["dataset_to_index"]) != (begin, begin + length):
            raise ExchangeError(f"{root}/meta/episodes: episode {number}: length and dataset_from_index do not go on from {begin}")
        begin += length
    if (info.get("total_episodes"), info.get("total_frames")) != (len(rows), begin):
        raise ExchangeError(
            f"{where}: {info.get('total_episodes')} episodes and {info.get('total_frames')} frames are promised, "
            f"{len(rows)} and {begin} are there: a half-written dataset"
        )
    return rows


def _has_columns(table: pa.Table, names: list[str], where: str) -> None:
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise ExchangeError(f"{where}: column {missing[0]!r} is missing")


def _file(episode: Mapping[str, Any], prefix: str, path: Path) -> dict[str, int]:
    """Chunk and file index as whole numbers: they become part of a path."""
    found = {}
    for name in ("chunk_index", "file_index"):
        value = episode.get(f"{prefix}/{name}")
        if not isinstance(value, int) or not 0 <= value < 1_000_000:
            raise ExchangeError(f"{path}, episode {episode['episode_index']}: {prefix}/{name} is {value!r}")
        found[name] = value
    return found


def video_path(dataset: Dataset, number: int, key: str) -> Path:
    """The file that has an episode's frames of a video feature."""
    found = _file(dataset.episodes[number], f"videos/{key}", dataset.path)
    return dataset.path / lerobot_schema.VIDEO_PATH.format(video_key=key, **found)


def numbers(table: pa.Table, name: str, feature: Feature, where: str) -> np.ndarray:
    """(n,) or (n, D) of a column, in its feature's dtype. Raises `ExchangeError` for nulls, texts, another length."""
    column = table[name].combine_chunks() if table[name].num_chunks != 1 else table[name].chunk(0)
    kind, size = column.type, feature.shape[0]
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    inner = kind.value_type if is_list else kind
    if not (pa.types.is_integer(inner) or pa.types.is_floating(inner) or pa.types.is_boolean(inner)):
        raise ExchangeError(f"{where}: {name} is of type {kind}, {feature.dtype} with shape {list(feature.shape)} is needed")
    if column.null_count:
        raise ExchangeError(f"{where}: {name} has no value at step {column.is_null().to_pylist().index(True)}")
    if is_list:
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(lengths != size)
        if wrong.size:
            step = int(wrong[0])
            raise ExchangeError(f"{where}: {name} has {int(lengths[step])} numbers at step {step}, {size} are needed")
        column = column.flatten()
        if column.null_count:
            raise ExchangeError(f"{where}: {name} has no value at step {column.is_null().to_pylist().index(True) // size}")
    elif size != 1:
        raise ExchangeError(f"{where}: {name} is one number a step, {size} are needed")
    values = column.to_numpy(zero_copy_only=False).astype(feature.dtype)
    return values if size == 1 else values.reshape(-1, size)


def _picture_bytes(table: pa.Table, name: str, where: str) -> list[bytes]:
    kind = table.schema.field(name).type
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise ExchangeError(f"{where}: {name} is of type {kind}, struct with bytes is needed")
    found = pc.struct_field(table[name], "bytes").to_pylist()
    for step, data in enumerate(found):
        if not data:
            raise ExchangeError(f"{where}: {name} has no picture in the table at step {step}; files outside the table are not read")
    return found
