"""What there is to say of one episode: who drove when, how it ended, what was held or limited, clocks, cameras, sizes."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np

from takeover.data.catalog import Catalog
from takeover.data.catalog_queries import SegmentFilter
from takeover.data.episode_build import DEMO
from takeover.data.episode_file import EpisodeReader
from takeover.data.hdf5_image import DamagedFile
from takeover.data.schema import ControlMode, SafetyBit

STRIP_WIDTH = 72
STRIP_LETTERS = {
    ControlMode.POLICY: ".",
    ControlMode.PAUSED: "-",
    ControlMode.TRANSITION: "h",
    ControlMode.HUMAN: "H",
    ControlMode.SAFETY_HOLD: "!",
}
"""Letters of the strip, the ones that must not be overlooked last."""
STRIP_LEGEND = ". policy   H human   h ramp   - paused   ! safety hold"


class CameraSummary(msgspec.Struct, frozen=True, kw_only=True):
    """``lost``: pictures missing in the camera's own count."""

    name: str
    pictures: int
    width: int
    height: int
    rate_hz: float
    lost: int
    size_bytes: int


class InterventionSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Steps are counted among the N, both ends included; ``labels`` {field: value} are the current ones of the catalog."""

    id: int
    start: int
    end: int
    start_s: float
    end_s: float
    trigger: str
    labels: dict[str, str]


class Clocks(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds. ``wall_set_ms``: by how much the wall clock was moved against the monotonic one during the episode."""

    wall_minus_monotonic_ns: int
    wall_set_ms: float
    period_ms: float  # nominal
    period_p50_ms: float
    period_p95_ms: float
    period_max_ms: float
    decision_p95_ms: float  # from the observation to the applied action


class EpisodeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Of one file, with the labels of the catalog if there is one. Times in seconds since the episode's start."""

    path: str
    size_bytes: int
    schema_version: int  # on disk
    episode_id: str
    session_id: str
    number: int
    kind: str
    station_id: str
    robot_id: str
    task_id: str
    task_prompt: str
    operator: str
    consent_version: str
    started_ns: int  # wall
    duration_s: float
    control_hz: float
    steps: int
    human_steps: int
    held_steps: int
    strip: str
    policy_version: int
    policy_sha256: str
    outcome: str  # current
    outcome_source: str
    outcome_step: int
    recorded_outcome: str
    excluded: bool
    recovered: bool
    unattended: bool
    interventions: list[InterventionSummary]
    limits_hit: dict[str, int]  # steps in which the safety filter changed something, by what
    holds: dict[str, int]  # held steps by reason
    clocks: Clocks
    cameras: list[CameraSummary]
    policy_cameras: list[str]
    events: dict[str, int]  # by kind
    sizes: dict[str, int]  # bytes stored, by part of the file
    history: list[dict[str, Any]]
    labels: dict[str, str]  # of the episode itself
    software: str


def summarise(path: Path, catalog: Catalog | None = None) -> EpisodeSummary:
    """Read one episode file; labels come from ``catalog``. Raises `DamagedFile`, `NewerFile`, `FileNotFoundError`."""
    with EpisodeReader(path) as reader:
        try:
            with h5py.File(path, "r") as file:  # as it is on disk: a reader sees older ones in the newest schema
                on_disk, sizes = int(file[DEMO].attrs["schema_version"]), _sizes(file)
            return _summary(path, reader, catalog, on_disk, sizes)
        except (KeyError, OSError, ValueError) as error:
            raise DamagedFile(f"{path}: {error}") from error


def _summary(path: Path, reader: EpisodeReader, catalog: Catalog | None, on_disk: int, sizes: dict[str, int]) -> EpisodeSummary:
    start, end, attributes = reader.start, reader.end, reader.attributes
    rows = catalog.episodes(ids=[start.episode_id]) if catalog is not None else []
    row = rows[0] if rows else None
    labels = catalog.labels([start.episode_id]).get(start.episode_id, {}) if catalog is not None else {}
    modes, reasons = reader.column("control_mode", held=True), reader.column("hold_reason", held=True)
    return EpisodeSummary(
        path=str(path),
        size_bytes=path.stat().st_size,
        schema_version=on_disk,
        episode_id=start.episode_id,
        session_id=start.session,
        number=start.number,
        kind=start.kind.value,
        station_id=start.station_id,
        robot_id=start.spec.robot_id,
        task_id=start.spec.task_id,
        task_prompt=start.spec.prompt,
        operator=start.operator,
        consent_version=start.consent_version,
        started_ns=start.wall_ns,
        duration_s=(end.t_ns - start.t_ns) / 1e9,
        control_hz=reader.control_hz,
        steps=len(reader),
        human_steps=int(attributes["human_steps"]),
        held_steps=int(attributes["held_steps"]),
        strip=authority_strip(reader.column("t_observation_ns", held=True), modes),
        policy_version=start.policy_version,
        policy_sha256=start.policy_sha256,
        outcome=row.outcome if row else end.outcome.value,
        outcome_source=row.outcome_source if row else end.outcome_source.value,
        outcome_step=end.event_step,
        recorded_outcome=end.outcome.value,
        excluded=row.excluded if row else end.discarded,
        recovered=bool(attributes["recovered"]),
        unattended=start.unattended,
        interventions=_interventions(reader, catalog),
        limits_hit=limits_hit(reader.column("safety_bits", held=True)),
        holds=dict(Counter(str(reason) for reason in reasons[(modes == ControlMode.PAUSED) | (modes == ControlMode.SAFETY_HOLD)])),
        clocks=_clocks(reader),
        cameras=[_camera(reader, name) for name in reader.cameras],
        policy_cameras=reader.policy_cameras,
        events=dict(Counter(event.kind for event in reader.events)),
        sizes=sizes,
        history=json.loads(attributes["history"]),
        labels=labels,
        software=start.software,
    )


def authority_strip(times: np.ndarray, modes: np.ndarray, width: int = STRIP_WIDTH) -> str:
    """Who drove when, a letter per equal stretch of time: the most important mode in it (`STRIP_LETTERS`), so nothing short is lost.

    ``times`` (M,) increasing, ``modes`` (M,) `ControlMode`. Empty without steps.
    """
    if not len(times):
        return ""
    width = min(width, len(times))
    edges = np.linspace(times[0], times[-1] + 1, width + 1)
    cells = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, width - 1)
    order = list(STRIP_LETTERS)
    ranks = np.zeros(len(ControlMode), int)
    for rank, mode in enumerate(order):
        ranks[mode] = rank
    best = np.full(width, -1)
    np.maximum.at(best, cells, ranks[modes.astype(int)])
    letters, last = [], 0
    for rank in best.tolist():
        last = rank if rank >= 0 else last  # no step began in this stretch: the one before lasted
        letters.append(STRIP_LETTERS[order[last]])
    return "".join(letters)


def limits_hit(bits: np.ndarray) -> dict[str, int]:
    """{limit: steps in which the safety filter applied it}, the most frequent first. ``bits`` (M,) of `SafetyBit`."""
    found = {bit.name.lower(): int(((bits & bit) != 0).sum()) for bit in SafetyBit if bit and bit.name}
    return {name: count for name, count in sorted(found.items(), key=lambda item: -item[1]) if count}


def _interventions(reader: EpisodeReader, catalog: Catalog | None) -> list[InterventionSummary]:
    labels: dict[int, dict[str, str]] = {}
    if catalog is not None:
        for segment in catalog.segments(SegmentFilter(episode_ids=(reader.start.episode_id,)), limit=None):
            if segment.kind == "takeover":
                labels[segment.number] = segment.labels
    times = reader.times_s
    return [
        InterventionSummary(
            id=item["id"],
            start=item["start"],
            end=item["end"],
            start_s=float(times[item["start"]]),
            end_s=float(times[item["end"]]),
            trigger=item["trigger"],
            labels=labels.get(item["id"], {}),
        )
        for item in reader.interventions
    ]


def _clocks(reader: EpisodeReader) -> Clocks:
    observed, applied = reader.column("t_observation_ns"), reader.column("t_applied_ns")
    same_run = np.diff(reader.column("run_id")) == 0
    periods = np.diff(observed)[same_run] / 1e6
    p50, p95, longest = (float(value) for value in np.percentile(periods, (50, 95, 100))) if len(periods) else (0.0, 0.0, 0.0)
    at_start, at_end = (int(reader.attributes[f"wall_minus_monotonic{part}_ns"]) for part in ("", "_end"))
    return Clocks(
        wall_minus_monotonic_ns=at_start,
        wall_set_ms=(at_end - at_start) / 1e6,
        period_ms=1e3 / reader.control_hz,
        period_p50_ms=p50,
        period_p95_ms=p95,
        period_max_ms=longest,
        decision_p95_ms=float(np.percentile((applied - observed) / 1e6, 95)) if len(observed) else 0.0,
    )


def _camera(reader: EpisodeReader, name: str) -> CameraSummary:
    pictures = reader._hil["pictures"][name]
    times, counters = reader.frame_times_ns(name), pictures["counter"][:]
    span_s = (times[-1] - times[0]) / 1e9 if len(times) > 1 else 0.0
    return CameraSummary(
        name=name,
        pictures=len(times),
        width=int(pictures.attrs["width"]),
        height=int(pictures.attrs["height"]),
        rate_hz=float((len(times) - 1) / span_s) if span_s > 0 else 0.0,
        lost=int(np.maximum(np.diff(counters) - 1, 0).sum()),
        size_bytes=int(pictures["jpeg"].shape[0]),
    )


def _sizes(file: h5py.File) -> dict[str, int]:
    """Bytes on disk by part: pictures, frames, states, steps, other."""
    sizes: Counter[str] = Counter()

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not item.is_virtual:
            part = name.removeprefix(f"{DEMO}/")
            kinds = {
                "hil/pictures": "pictures",
                "hil/frames": "observations",
                "hil/sim_state": "simulator states",
                "states": "simulator states",
            }
            sizes[next((kind for head, kind in kinds.items() if part.startswith(head)), "steps")] += item.id.get_storage_size()

    file.visititems(add)
    return dict(sizes)
