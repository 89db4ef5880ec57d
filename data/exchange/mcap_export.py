"""MCAP out: a file per episode for Foxglove and Rerun, the whole timeline on one clock, held steps included.

Pictures are ``foxglove.CompressedImage``, remarks ``foxglove.Log``, both as JSON with their schemas; numbers are JSON objects with one
schema per topic, so that every plot finds its fields by name.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mcap.writer import CompressionType, Writer

from takeover.data.catalog import Catalog
from takeover.data.episode_file import EpisodeReader
from takeover.data.exchange.errors import Progress, silent
from takeover.data.exchange.lerobot_export import Exported
from takeover.data.exchange.selection import Selection, Source, select
from takeover.data.exchange.target import PartialTarget, write_with
from takeover.data.hdf5_image import DamagedFile
from takeover.data.workspace import Workspace

_TIME = {"type": "object", "title": "time", "properties": {"sec": {"type": "integer"}, "nsec": {"type": "integer"}}}
_NUMBER, _TEXT, _WHOLE = {"type": "number"}, {"type": "string"}, {"type": "integer"}
IMAGE_SCHEMA = {
    "title": "foxglove.CompressedImage",
    "type": "object",
    "properties": {
        "timestamp": _TIME,
        "frame_id": _TEXT,
        "data": {"type": "string", "contentEncoding": "base64"},
        "format": _TEXT,
    },
}
LOG_SCHEMA = {
    "title": "foxglove.Log",
    "type": "object",
    "properties": {"timestamp": _TIME, "level": _WHOLE, "message": _TEXT, "name": _TEXT, "file": _TEXT, "line": _WHOLE},
}
_INFO, _WARNING = 2, 3
SCALARS = (
    "control_mode", "intervention_id", "policy_version", "safety_bits", "spread", "reward", "command_age_ms", "picture_age_ms", "run_id",
    "episode_step",
)  # fmt: skip


@dataclass(frozen=True)
class McapOptions:
    """``pictures``: also the cameras' JPEGs."""

    pictures: bool = True


def export_mcap(
    workspace: Workspace,
    target: Path | str,
    selection: Selection | None = None,
    options: McapOptions | None = None,
    progress: Progress = silent,
) -> Exported:
    """Write ``<episode>.mcap`` of every selected episode into the folder ``target``. Log times are wall nanoseconds.

    Raises `ExchangeError`, `DamagedFile`, `OSError`, `Cancelled`.
    """
    selection, options = selection or Selection(), options or McapOptions()
    with Catalog.open(workspace) as catalog:
        sources = select(workspace, catalog, selection)
    plan = {"format": "mcap", "options": asdict(options), "selection": asdict(selection), "sources": [s.identity() for s in sources]}
    with PartialTarget(target, plan) as partial:
        resumed = len(partial.done)
        progress(resumed, len(sources))
        for index, source in enumerate(sources[resumed:], start=resumed + 1):
            steps = 0

            def write(path: Path, source: Source = source) -> None:
                nonlocal steps
                steps = write_episode_mcap(source, path, options.pictures)

            write_with(partial.folder / f"{source.row.id}.mcap", write)
            partial.note({"id": source.row.id, "steps": steps})
            progress(index, len(sources))
        return Exported(partial.finish(), len(sources), sum(piece["steps"] for piece in partial.done), resumed)


def write_episode_mcap(source: Source, path: Path, pictures: bool) -> int:
    """One episode's MCAP file; returns how many steps, held ones included."""
    with EpisodeReader(source.path) as reader, path.open("wb") as stream:
        try:
            writer = Writer(stream, chunk_size=1 << 20, compression=CompressionType.ZSTD)
            writer.start(profile="", library="takeover")
            channels = _Channels(writer)
            messages = [*_numbers(reader), *_remarks(source, reader), *(_pictures(reader) if pictures else ())]
            for number, (time_ns, topic, value, schema) in enumerate(sorted(messages, key=lambda message: message[0])):
                content = value() if callable(value) else value
                writer.add_message(channels.of(topic, schema), time_ns, json.dumps(content).encode(), time_ns, number)
            writer.add_metadata("episode", _metadata(source, reader))
            writer.finish()
            return len(reader.column("seq", held=True))
        except (KeyError, IndexError, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            raise DamagedFile(f"{source.path}: {error}") from error


class _Channels:
    """A channel per topic, a schema per name and content."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}

    def of(self, topic: str, schema: dict[str, Any]) -> int:
        if topic not in self._channels:
            text = json.dumps(schema)
            if text not in self._schemas:
                self._schemas[text] = self._writer.register_schema(schema["title"], "jsonschema", text.encode())
            self._channels[topic] = self._writer.register_channel(topic, "json", self._schemas[text])
        return self._channels[topic]


_Message = tuple[int, str, Any, dict[str, Any]]


def _stamp(time_ns: int) -> dict[str, int]:
    return {"sec": time_ns // 1_000_000_000, "nsec": time_ns % 1_000_000_000}


def _schema(title: str, names: list[str]) -> dict[str, Any]:
    return {"title": title, "type": "object", "properties": {"timestamp": _TIME} | dict.fromkeys(names, _NUMBER)}


def _plain(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if np.isfinite(value) else None


def _numbers(reader: EpisodeReader) -> Iterator[_Message]:
    """``/observation``, ``/action``, ``/policy_action``, ``/human_action``, ``/asked_action``, ``/step``: an object per control step."""
    spec, wall = reader.start.spec, reader.column("wall_ns", held=True).tolist()
    held = reader.column("seq", held=True)
    driven = set(reader.column("seq").tolist())
    topics = {f"/{name}": (reader.column(name, held=True), spec.action.names) for name in ("policy_action", "human_action", "asked_action")}
    topics["/action"] = (reader.column("action", held=True), spec.action.names)
    topics["/observation"] = (reader.column("frames/state")[reader.column("frame_index", held=True)], spec.observation.names)
    for topic, (values, names) in topics.items():
        schema = _schema(f"takeover{topic.replace('/', '.')}", names)
        for time_ns, row in zip(wall, values.tolist(), strict=True):
            if not any(np.isfinite(row)):
                continue  # nobody wanted anything
            yield time_ns, topic, {"timestamp": _stamp(time_ns)} | dict(zip(names, map(_plain, row), strict=True)), schema
    columns = {name: reader.column(name, held=True).tolist() for name in SCALARS}
    groups = [f"source.{name}" for name in spec.action.group_names]
    sources = reader.column("source", held=True).tolist()
    schema = _schema("takeover.step", [*SCALARS, "held", *groups])
    for index, time_ns in enumerate(wall):
        value: dict[str, Any] = {"timestamp": _stamp(time_ns)} | {name: _plain(column[index]) for name, column in columns.items()}
        value |= {"held": int(int(held[index]) not in driven)} | dict(zip(groups, sources[index], strict=True))
        yield time_ns, "/step", value, schema


def _remarks(source: Source, reader: EpisodeReader) -> Iterator[_Message]:
    """``/events``: events, takeovers and other segments with their labels, the outcome."""

    def log(time_ns: int, name: str, message: str, level: int = _INFO) -> _Message:
        value = {"timestamp": _stamp(time_ns), "level": level, "message": message, "name": name, "file": "", "line": 0}
        return time_ns, "/events", value, LOG_SCHEMA

    offset = reader.start.wall_ns - reader.start.t_ns
    for event in reader.events:
        yield log(event.wall_ns or event.t_ns + offset, event.source, f"{event.kind} {event.text}".strip())
    wall = reader.column("wall_ns").tolist()
    for segment in source.segments:
        labels = ", ".join(f"{field}: {value}" for field, value in sorted(segment.labels.items()))
        said = f"{segment.kind} {segment.number}, steps {segment.start_step} to {segment.end_step} {segment.detail} {labels}".strip()
        yield log(wall[min(segment.start_step, len(wall) - 1)], "segment", said, _WARNING)
    yield log(reader.end.wall_ns, "outcome", f"{source.row.outcome} ({source.row.outcome_source})")


def _pictures(reader: EpisodeReader) -> Iterator[_Message]:
    """``/camera/<name>``; read from the file when it is their turn."""
    offset = reader.start.wall_ns - reader.start.t_ns
    for camera in reader.cameras:
        for index, taken in enumerate(reader.frame_times_ns(camera).tolist()):
            time_ns = taken + offset

            def value(camera: str = camera, index: int = index, time_ns: int = time_ns) -> dict[str, Any]:
                data = base64.b64encode(reader.frame(camera, index)).decode()
                return {"timestamp": _stamp(time_ns), "frame_id": camera, "data": data, "format": "jpeg"}

            yield time_ns, f"/camera/{camera}", value, IMAGE_SCHEMA


def _metadata(source: Source, reader: EpisodeReader) -> dict[str, str]:
    row = source.row
    return {
        "episode_id": row.id,
        "session_id": row.session_id,
        "task": row.task_id,
        "prompt": reader.start.spec.prompt,
        "robot": row.robot_id,
        "kind": row.kind,
        "operator": source.operator,
        "outcome": row.outcome,
        "failure_cause": source.cause,
        "control_hz": str(row.control_hz),
        "policy_version": str(row.policy_version),
        "policy_sha256": row.policy_sha256,
        "labels": json.dumps(source.labels),
    }
