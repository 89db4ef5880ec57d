"""Reads a closed episode file into what Review plays: the timeline, and each camera's pictures with the step they belong to."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from takeover.app.console.models.review import Flag, FloatArray, IntArray, Timeline, build_signals, driver_spans
from takeover.data.episode_file import EpisodeReader
from takeover.data.schema import Event

_EVENT_ICONS = {"mark": "flag", "hold": "pause", "stop": "octagon", "fault": "warning", "alarm": "bell"}
_ENDINGS = {"success": "check", "failure": "xcirc"}


@dataclass(frozen=True)
class CameraTrack:
    """JPEG pictures of one camera; ``frame_of`` (N,) is the index of each step's picture, ``offset_ms`` (N,) how much later than the
    step's observation it was taken (negative: earlier)."""

    camera: str
    jpegs: list[bytes]
    frame_of: IntArray
    offset_ms: FloatArray


@dataclass(frozen=True)
class LoadedEpisode:
    """Everything the page needs of one episode; ``tracks`` in the order of the robot's cameras, empty without pictures."""

    timeline: Timeline
    tracks: list[CameraTrack]
    task: str
    devices: str
    probe: str = ""  # "no-help probe 3 of v12"; "": it is none


def load_episode(path: Path) -> LoadedEpisode:
    """Read an episode file. Raises FileNotFoundError or `takeover.data.hdf5_image.DamagedFile`."""
    with EpisodeReader(path) as reader:
        timeline = _timeline(reader)
        spec = reader.start.spec
        order = [camera.name for camera in spec.cameras]
        cameras = sorted(reader.cameras, key=lambda name: order.index(name) if name in order else len(order))
        tracks = [_track(reader, camera) for camera in cameras if reader.frame_count(camera)]
        drove = sorted({str(name) for name in reader.column("device_id").tolist() if name})
        return LoadedEpisode(timeline, tracks, spec.task_id, ", ".join(drove), _probe_text(reader))


def _probe_text(reader: EpisodeReader) -> str:
    start = reader.start
    if start.probe < 0:
        return ""
    version = f" of v{start.probe_version}" if start.probe_version else ""
    failed = ", failed by a takeover" if reader.end.takeovers else ""
    return f"no-help probe {start.probe + 1}{version}{failed}"


def _timeline(reader: EpisodeReader) -> Timeline:
    spec = reader.start.spec
    policy, human, applied = reader.policy_action, reader.human_action, reader.actions
    scores: dict[str, FloatArray] = {}
    to_go = reader.score("steps_to_go")
    if to_go is not None and np.isfinite(to_go).any():
        scores["steps_to_go"] = to_go
    elif "steps_to_go" in spec.observation.names:
        scores["steps_to_go"] = reader.observation("steps_to_go")
    modes = np.asarray(reader.control_mode, np.int64)
    return Timeline(
        episode_id=reader.start.episode_id,
        control_hz=reader.control_hz,
        control_mode=modes,
        run_id=np.asarray(reader.column("run_id"), np.int64),
        policy_version=np.asarray(reader.column("policy_version"), np.int64),
        safety_bits=np.asarray(reader.column("safety_bits"), np.int64),
        action_names=list(spec.action.names),
        policy_action=policy,
        human_action=human,
        applied_action=applied,
        signals=build_signals(spec, reader.observations, policy, applied, scores),
        flags=_flags(reader),
        spans=driver_spans(modes),
        outcome=str(reader.end.outcome),
        operator=reader.start.operator,
    )


def _flags(reader: EpisodeReader) -> list[Flag]:
    """Takeovers, marks, holds and the outcome, by step."""
    numbers = reader.column("seq")
    steps = len(numbers)
    flags = [Flag(int(one["start"]), "hand", "takeover") for one in reader.interventions]
    for event in reader.events:
        found = _event_icon(event)
        if found and event.seq >= 0 and steps:
            step = min(steps - 1, int(np.searchsorted(numbers, event.seq)))
            flags.append(Flag(step, found, event.text or event.kind.replace("_", " ")))
    outcome = str(reader.end.outcome)
    if steps and outcome in _ENDINGS:
        flags.append(Flag(min(steps - 1, max(0, reader.end.event_step)), _ENDINGS[outcome], outcome))
    return sorted(flags, key=lambda flag: flag.step)


def _event_icon(event: Event) -> str:
    """Icon of an event worth a flag; empty: not worth one."""
    return next((icon for word, icon in _EVENT_ICONS.items() if event.kind == word or event.kind.startswith(f"{word}_")), "")


def _track(reader: EpisodeReader, camera: str) -> CameraTrack:
    count = reader.frame_count(camera)
    seqs, times = reader.frame_seqs(camera), reader.frame_times_ns(camera)
    frame_of = np.clip(np.searchsorted(seqs, reader.column("seq"), side="right") - 1, 0, count - 1).astype(np.int64)
    offset = (times[frame_of] - reader.column("t_observation_ns")) / 1e6
    return CameraTrack(camera, [reader.frame(camera, index) for index in range(count)], frame_of, offset)
