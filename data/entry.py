"""What the catalog notes of an episode: computed from its records, or read from its closed file."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from takeover.data.drivers import Driver, driver_at, drivers
from takeover.data.episode_build import DEMO, find_interventions
from takeover.data.episode_file import open_episode, read_events, read_records
from takeover.data.episode_schema import EpisodeRecords, ending, is_held
from takeover.data.hdf5_image import check_seal
from takeover.data.schema import ControlMode, EpisodeEnd, EpisodeKind, EpisodeStart, Outcome, Step
from takeover.data.workspace import Workspace

FAILURE_LEAD_S = 2.0  # a failure's segment begins this long before it


class Entry:
    """The catalog rows of one episode: ``session``, ``episode``, ``segments``; and everybody who drove it, the operator first."""

    def __init__(
        self, session: dict[str, Any], episode: dict[str, Any], segments: list[dict[str, Any]], people: Sequence[Driver] = ()
    ) -> None:
        self.people = people
        self.session = session
        self.episode = episode
        self.segments = segments


def ranges_of(numbers: Iterable[int]) -> list[list[int]]:
    """Sorted disjoint [first, last] ranges of integers."""
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


def entry_of(episode: EpisodeRecords, relative_path: str, sha256: str, size_bytes: int) -> Entry:
    """Rows for an episode whose records are at hand."""
    numbers = episode.rec_seqs()
    return _entry(
        episode.start,
        episode.steps,
        ending(episode),
        drivers(episode.start, episode.events),
        numbers,
        bool(episode.frames),
        episode.recovered,
        relative_path,
        sha256,
        size_bytes,
    )


def entry_of_file(workspace: Workspace, path: Path, sha256: str = "") -> Entry:
    """Rows for a closed file. Raises `DamagedFile` when it is not what was written. ``sha256``: if the seal was just checked."""
    sha256 = sha256 or check_seal(path)
    start, steps, end = read_records(path, sealed=True)
    with open_episode(path, sealed=True) as file:
        demo = file[DEMO]
        events = read_events(demo, start)
        numbers = [start.rec_seq, *(step.rec_seq for step in steps), *(event.rec_seq for event in events)]
        if end.rec_seq >= 0:
            numbers.append(end.rec_seq)
        pictures = demo["hil/pictures"]
        for camera in pictures:
            numbers += pictures[camera]["rec_seq"][:].tolist()
        recovered, has_pictures = bool(demo.attrs["recovered"]), len(pictures) > 0
    relative = path.relative_to(workspace.path).as_posix()
    return _entry(start, steps, end, drivers(start, events), numbers, has_pictures, recovered, relative, sha256, path.stat().st_size)


def _entry(
    start: EpisodeStart,
    steps: Sequence[Step],
    end: EpisodeEnd,
    driven_by: Sequence[tuple[int, Driver]],
    numbers: Sequence[int],
    has_pictures: bool,
    recovered: bool,
    path: str,
    sha256: str,
    size_bytes: int,
) -> Entry:
    spec = start.spec
    session = {
        "id": start.session,
        "station_id": start.station_id,
        "robot_id": spec.robot_id,
        "task_id": spec.task_id,
        "operator": start.operator,
        "started_ns": start.wall_ns,
        "software": start.software,
        "config_sha256": start.config_sha256,
    }
    episode = {
        "id": start.episode_id,
        "session_id": start.session,
        "number": start.number,
        "kind": start.kind.value,
        "robot_id": spec.robot_id,
        "task_id": spec.task_id,
        "operator": start.operator,
        "started_ns": start.wall_ns,
        "ended_ns": end.wall_ns,
        "control_hz": spec.control_hz,
        "steps": sum(not is_held(step) for step in steps),
        "human_steps": end.human_steps,
        "held_steps": sum(is_held(step) for step in steps),
        "takeovers": end.takeovers,
        "autonomous": end.autonomous,
        "outcome": end.outcome.value,
        "outcome_source": end.outcome_source.value,
        "event_step": end.event_step,
        "discarded": end.discarded,
        "recovered": recovered,
        "policy_version": start.probe_version or start.policy_version,  # what answered when it began may be another than what was to drive
        "policy_sha256": start.policy_sha256 if start.probe_version in (0, start.policy_version) else "",
        "start_seed": start.start_seed,
        "has_pictures": has_pictures,
        "first_rec_seq": min(numbers),
        "rec_ranges": json.dumps(ranges_of(numbers)),
        "path": path,
        "sha256": sha256,
        "size_bytes": size_bytes,
    }
    return Entry(session, episode, _segments(start, steps, end, driven_by), [driver for _, driver in driven_by])


def _segments(start: EpisodeStart, steps: Sequence[Step], end: EpisodeEnd, driven_by: Sequence[tuple[int, Driver]]) -> list[dict[str, Any]]:
    """Takeovers, safety holds and the failure of an episode, for the review queue. Demonstrations have none."""
    driven = [step for step in steps if not is_held(step)]
    if start.kind in (EpisodeKind.DEMONSTRATION, EpisodeKind.MANUAL_RESET) or not driven:
        return []
    rows = []
    for found in find_interventions(steps, start.kind):
        row = _segment(start, driven, "takeover", found["id"], found["start"], found["end"], found["trigger"].value)
        rows.append(row | {"operator": driver_at(driven_by, driven[found["start"]].seq)})
    rows += _safety_holds(start, steps, driven)
    if end.outcome is Outcome.FAILURE:
        last = max(0, min(end.event_step, len(driven) - 1))
        first = max(0, last - round(FAILURE_LEAD_S * start.spec.control_hz))
        rows.append(_segment(start, driven, "failure", 0, first, last, "", end.outcome_source.value))
    return rows


def _safety_holds(start: EpisodeStart, steps: Sequence[Step], driven: Sequence[Step]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    index, holding = 0, False
    for step in steps:
        held = step.control_mode == ControlMode.SAFETY_HOLD
        if held and not holding:
            at = min(index, len(driven) - 1)
            rows.append(_segment(start, driven, "safety", len(rows), max(0, at - 1), at, "safety", step.hold_reason))
        holding = held
        index += not is_held(step)
    return rows


def _segment(
    start: EpisodeStart, driven: Sequence[Step], kind: str, number: int, first: int, last: int, trigger: str, detail: str = ""
) -> dict[str, Any]:
    return {
        "id": f"{start.episode_id}:{kind[0]}{number}",
        "episode_id": start.episode_id,
        "kind": kind,
        "number": number,
        "start_step": first,
        "end_step": last,
        "start_s": (driven[first].t_observation_ns - start.t_ns) / 1e9,
        "end_s": (driven[last].t_observation_ns - start.t_ns) / 1e9,
        "started_ns": driven[first].wall_ns,
        "trigger": trigger,
        "detail": detail,
        "operator": start.operator,
        "policy_version": driven[first].policy_version,
    }
