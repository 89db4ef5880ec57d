"""MCAP out: a file per episode for Foxglove and Rerun, the whole timeline on one clock, held steps included.

Everything is Protocol Buffers, which both know: pictures ``foxglove.CompressedImage``, remarks ``foxglove.Log``, numbers a message of
doubles per topic with a field per name, so that plots find them.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mcap.writer import CompressionType, Writer

from takeover.data.drivers import DRIVER
from takeover.data.episode_file import EpisodeReader
from takeover.data.exchange.errors import Progress, silent
from takeover.data.exchange.lerobot_export import Exported
from takeover.data.exchange.protobuf import Field, MessageType
from takeover.data.exchange.selection import Selection, Source, check_source, plan_export
from takeover.data.exchange.target import PartialTarget, write_with
from takeover.data.hdf5_image import DamagedFile
from takeover.data.workspace import Workspace

IMAGE = MessageType(
    "foxglove",
    "CompressedImage",
    (Field("timestamp", 1, "time"), Field("data", 2, "bytes"), Field("format", 3, "string"), Field("frame_id", 4, "string")),
)
LOG = MessageType(
    "foxglove",
    "Log",
    (
        Field("timestamp", 1, "time"),
        Field("level", 2, "enum", ".foxglove.Log.Level"),
        Field("message", 3, "string"),
        Field("name", 4, "string"),
        Field("file", 5, "string"),
        Field("line", 6, "fixed32"),
    ),
    {"Level": {"UNKNOWN": 0, "DEBUG": 1, "INFO": 2, "WARNING": 3, "ERROR": 4, "FATAL": 5}},
)
_INFO, _WARNING = 2, 3
SCALARS = (
    "control_mode", "intervention_id", "policy_version", "safety_bits", "spread", "reward", "command_age_ms", "picture_age_ms", "run_id",
    "episode_step",
)  # fmt: skip

_ACTIONS = ("policy_action", "human_action", "asked_action", "action")


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
    sources, plan = plan_export(workspace, "mcap", selection, options)
    with PartialTarget(target, plan) as partial:
        resumed = len(partial.done)
        progress(resumed, len(sources))
        for index, source in enumerate(sources[resumed:], start=resumed + 1):
            steps = 0

            def write(path: Path, source: Source = source) -> None:
                nonlocal steps
                steps = write_episode_mcap(source, path, options.pictures, selection.include_excluded)

            write_with(partial.folder / f"{source.row.id}.mcap", write)
            partial.note({"id": source.row.id, "steps": steps})
            progress(index, len(sources))
        return Exported(partial.finish(), len(sources), sum(piece["steps"] for piece in partial.done), resumed)


def write_episode_mcap(source: Source, path: Path, pictures: bool, keep_excluded: bool = False) -> int:
    """One episode's MCAP file without the time of the steps that labels leave out; returns how many steps, held ones included."""
    check_source(source)
    with EpisodeReader(source.path) as reader, path.open("wb") as stream:
        try:
            writer = Writer(stream, chunk_size=1 << 20, compression=CompressionType.LZ4)
            writer.start(profile="", library="takeover")
            channels = _Channels(writer)
            time = _Time(source, reader, keep_excluded)
            messages = [*_numbers(reader, time), *_remarks(source, reader, time), *(_pictures(reader, time) if pictures else ())]
            for number, (time_ns, topic, kind, values) in enumerate(sorted(messages, key=lambda message: message[0])):
                content = kind.encode(values() if callable(values) else values)
                writer.add_message(channels.of(topic, kind), time_ns, content, time_ns, number)
            writer.add_metadata("episode", _metadata(source, reader))
            writer.finish()
            return int(time.steps.sum())
        except (KeyError, IndexError, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            raise DamagedFile(f"{source.path}: {error}") from error


class _Channels:
    """A channel per topic, a schema per message type."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}

    def of(self, topic: str, kind: MessageType) -> int:
        if topic not in self._channels:
            name = kind.full_name
            if name not in self._schemas:
                self._schemas[name] = self._writer.register_schema(name, "protobuf", kind.descriptor_set())
            self._channels[topic] = self._writer.register_channel(topic, "protobuf", self._schemas[name])
        return self._channels[topic]


class _Time:
    """What of an episode's time counts. ``steps`` (m,) bool, held ones included: a hold goes with the step before it."""

    def __init__(self, source: Source, reader: EpisodeReader, keep_excluded: bool) -> None:
        self._kept = source.kept(len(reader), keep_excluded)
        driven = np.isin(reader.column("seq", held=True), reader.column("seq"))
        self.steps = self._kept[np.maximum(np.cumsum(driven) - 1, 0)]
        self._observed = reader.column("t_observation_ns", held=True)
        self.last_wall_ns = int(reader.column("wall_ns")[self._kept][-1])

    @property
    def whole(self) -> bool:
        return bool(self._kept.all())

    def has(self, t_ns: int) -> bool:
        """Whether a moment of the monotonic clock counts: it goes with the step observed last."""
        return self.whole or bool(self.steps[max(0, int(np.searchsorted(self._observed, t_ns, side="right")) - 1)])

    def pictures(self, taken_ns: np.ndarray) -> list[int]:
        """Which pictures of a camera: those of the time that counts, and those that its steps saw."""
        seen = np.searchsorted(taken_ns, self._observed[self.steps], side="right") - 1
        return sorted({i for i, t_ns in enumerate(taken_ns.tolist()) if self.has(t_ns)} | set(np.maximum(seen, 0).tolist()))


_Values = Sequence[float | int | str | bytes]
_Message = tuple[int, str, MessageType, _Values | Callable[[], _Values]]


def number_message(name: str, names: Sequence[str]) -> MessageType:
    """``takeover.<name>``: a timestamp and a double per name. What a field cannot be called is replaced by "_", and numbered if need be."""
    fields, seen = [Field("timestamp", 1, "time")], {"timestamp"}
    for number, given in enumerate(names, start=2):
        made = re.sub(r"[^0-9A-Za-z_]", "_", given)
        made = made if re.match(r"[A-Za-z]", made) else f"f_{made}"
        if made in seen:
            made = f"{made}_{number}"
        seen.add(made)
        fields.append(Field(made, number, "double"))
    return MessageType("takeover", name, tuple(fields))


def _numbers(reader: EpisodeReader, time: _Time) -> Iterator[_Message]:
    """``/observation``, ``/action``, ``/policy_action``, ``/human_action``, ``/asked_action``, ``/step``: one per control step."""
    spec, wall = reader.start.spec, reader.column("wall_ns", held=True).tolist()
    observed = reader.column("frames/state")[reader.column("frame_index", held=True)]
    topics = {name: (reader.column(name, held=True), spec.action.names) for name in _ACTIONS}
    topics["observation"] = (observed, spec.observation.names)
    for topic, (values, names) in topics.items():
        kind = number_message("".join(part.capitalize() for part in topic.split("_")), names)
        for time_ns, row, counts in zip(wall, values.tolist(), time.steps.tolist(), strict=True):
            if counts and any(map(math.isfinite, row)):  # otherwise nobody wanted anything
                yield time_ns, f"/{topic}", kind, (time_ns, *row)
    seq = reader.column("seq", held=True)
    table = np.column_stack(
        [
            *(reader.column(name, held=True).astype(np.float64) for name in SCALARS),
            ~np.isin(seq, reader.column("seq")),
            reader.column("source", held=True),
        ]
    )
    kind = number_message("Step", [*SCALARS, "held", *(f"source_{name}" for name in spec.action.group_names)])
    for time_ns, row, counts in zip(wall, table.tolist(), time.steps.tolist(), strict=True):
        if counts:
            yield time_ns, "/step", kind, (time_ns, *row)


def _remarks(source: Source, reader: EpisodeReader, time: _Time) -> Iterator[_Message]:
    """``/events``: events, takeovers and other segments with their labels, the outcome."""

    def log(time_ns: int, name: str, message: str, level: int = _INFO) -> _Message:
        return time_ns, "/events", LOG, (time_ns, level, message, name, "", 0)

    offset = reader.start.wall_ns - reader.start.t_ns
    for event in reader.events:
        if time.has(event.t_ns):
            text = event.text if source.people or event.kind not in (DRIVER, "lease") else ""
            yield log(event.wall_ns or event.t_ns + offset, event.source, f"{event.kind} {text}".strip())
    wall = reader.column("wall_ns").tolist()
    observed = reader.column("t_observation_ns").tolist()
    for segment in source.segments:
        first = min(segment.start_step, len(wall) - 1)
        if not time.has(observed[first]):
            continue
        labels = ", ".join(f"{field}: {value}" for field, value in sorted(segment.labels.items()))
        said = f"{segment.kind} {segment.number}, steps {segment.start_step} to {segment.end_step} {segment.detail} {labels}".strip()
        yield log(wall[first], "segment", said, _WARNING)
    yield log(reader.end.wall_ns if time.whole else time.last_wall_ns, "outcome", f"{source.row.outcome} ({source.row.outcome_source})")


def _pictures(reader: EpisodeReader, time: _Time) -> Iterator[_Message]:
    """``/camera/<name>``; read from the file when it is their turn."""
    offset = reader.start.wall_ns - reader.start.t_ns
    for camera in reader.cameras:
        taken = reader.frame_times_ns(camera)
        for index in time.pictures(taken) if len(taken) else ():
            time_ns = int(taken[index]) + offset

            def values(camera: str = camera, index: int = index, time_ns: int = time_ns) -> _Values:
                return (time_ns, reader.frame(camera, index), "jpeg", camera)

            yield time_ns, f"/camera/{camera}", IMAGE, values


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
