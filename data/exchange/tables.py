"""Metrics out as CSV or Parquet: ``episodes`` has a row per episode, ``segments`` one per takeover, failure and safety hold."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from takeover.data.episode_file import EpisodeReader
from takeover.data.exchange.errors import Progress, silent
from takeover.data.exchange.lerobot_export import Exported
from takeover.data.exchange.lerobot_files import write_tables
from takeover.data.exchange.selection import Selection, Source, check_source, plan_export
from takeover.data.exchange.target import PartialTarget, write_with
from takeover.data.hdf5_image import DamagedFile
from takeover.data.schema import Source as Authority
from takeover.data.workspace import Workspace

TableFormat = Literal["csv", "parquet"]
_ROW = (
    "id", "session_id", "number", "kind", "robot_id", "task_id", "started_ns", "ended_ns", "control_hz", "steps", "human_steps",
    "held_steps", "takeovers", "autonomous", "outcome", "outcome_source", "recorded_outcome", "event_step", "discarded", "excluded",
    "recovered", "policy_version", "policy_sha256", "start_seed", "has_pictures", "size_bytes",
)  # fmt: skip
_SEGMENT = (
    "id", "episode_id", "session_id", "task_id", "kind", "number", "start_step", "end_step", "start_s", "end_s", "started_ns", "trigger",
    "detail", "policy_version", "episode_kind", "episode_outcome",
)  # fmt: skip
_LABELS = ("cause", "kind", "quality", "exclude", "review", "note", "onset", "trim")


def export_tables(
    workspace: Workspace, target: Path | str, selection: Selection | None = None, form: TableFormat = "parquet", progress: Progress = silent
) -> Exported:
    """Write the folder ``target`` with episodes.<form> and segments.<form>. Times in the columns' names are in their units.

    Raises `ExchangeError`, `DamagedFile`, `OSError`, `Cancelled`.
    """
    selection = selection or Selection()
    sources, plan = plan_export(workspace, form, selection)
    with PartialTarget(target, plan) as partial:
        resumed = len(partial.done)
        progress(resumed, len(sources))
        for index, source in enumerate(sources[resumed:], start=resumed + 1):
            counts = source.kept(source.row.steps, selection.include_excluded)
            partial.note({"episode": _episode(source, counts), "segments": _segments(source, counts)})
            progress(index, len(sources))
        segments = [row for piece in partial.done for row in piece["segments"]]
        _write(partial.folder / f"episodes.{form}", [piece["episode"] for piece in partial.done], form)
        _write(partial.folder / f"segments.{form}", segments, form, empty=_segment_columns())
        frames = sum(piece["episode"]["steps_counted"] for piece in partial.done)
        return Exported(partial.finish(), len(sources), frames, resumed)


def _episode(source: Source, counts: np.ndarray) -> dict[str, Any]:
    """The catalog's row, its labels, and what the file's columns add up to over the steps that count, (steps,) bool."""
    row = {name: getattr(source.row, name) for name in _ROW} | {"operator": source.operator}
    row |= {"cause": source.cause, "quality": source.labels.get("quality", ""), "note": source.labels.get("note", "")}
    check_source(source)
    try:
        with EpisodeReader(source.path) as reader:
            wall, reward, ages = (reader.column(name)[counts] for name in ("wall_ns", "reward", "command_age_ms"))
            bits, human = reader.column("safety_bits")[counts], (reader.column("source")[counts] == Authority.HUMAN).any(axis=1)
            late = np.diff(reader.column("t_observation_ns"))[counts[1:] & counts[:-1]]
            row |= {
                "steps_counted": int(counts.sum()),
                "duration_s": (int(wall[-1]) - int(wall[0])) / 1e9,
                "reward_sum": float(reward.sum()),
                "human_share": float(human.mean()),
                "safety_steps": int((bits != 0).sum()),
                "command_age_ms_p95": float(np.quantile(ages[ages >= 0], 0.95)) if (ages >= 0).any() else None,
                "step_ms_p99": float(np.quantile(late, 0.99)) / 1e6 if len(late) else None,
            }
    except (KeyError, OSError) as error:
        raise DamagedFile(f"{source.path}: {error}") from error
    return row


def _segments(source: Source, counts: np.ndarray) -> list[dict[str, Any]]:
    found = []
    for segment in source.segments:
        row = {name: getattr(segment, name) for name in _SEGMENT}
        row["operator"] = segment.operator if source.people else source.operator
        row |= {"steps": segment.end_step - segment.start_step + 1, "length_s": segment.end_s - segment.start_s}
        row["steps_counted"] = int(counts[segment.start_step : segment.end_step + 1].sum())
        found.append(row | {f"label_{name}": segment.labels.get(name, "") for name in _LABELS})
    return found


def _segment_columns() -> list[str]:
    return [*_SEGMENT, "operator", "steps", "length_s", "steps_counted", *(f"label_{name}" for name in _LABELS)]


def _write(path: Path, rows: Sequence[Mapping[str, Any]], form: TableFormat, empty: Sequence[str] = ()) -> None:
    names = list(rows[0]) if rows else list(empty)
    if form == "parquet":
        columns = {name: pa.array([row[name] for row in rows]) if rows else pa.array([], pa.string()) for name in names}
        write_tables(path, [pa.table(columns)])
        return

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as stream:
            table = csv.DictWriter(stream, names)
            table.writeheader()
            table.writerows({name: _cell(value) for name, value in row.items()} for row in rows)

    write_with(path, write)


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula is made a text."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value
