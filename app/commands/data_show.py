"""`takeover data show`: one episode, readable, as JSON, or as a contact sheet."""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.markup import escape
from rich.table import Table

from takeover.app.commands.data_options import Where, existing, opened_catalog, print_json
from takeover.app.commands.progress import print_table
from takeover.app.processes.common import StartupError

if TYPE_CHECKING:
    from takeover.data.catalog import Catalog
    from takeover.data.episode_summary import EpisodeSummary


@dataclass(frozen=True)
class Show:
    """Show one episode: who drove when, how it ended, interventions and labels, limits, clocks, cameras, sizes."""

    episode: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="EPISODE|FILE")]
    """Id of an episode, or its beginning or end; or an episode file anywhere."""
    sheet: Annotated[str, tyro.conf.arg(metavar="FILE.png", help="Draw what the cameras saw, interventions marked.")] = ""
    columns: int = 12
    """Moments on the sheet, 1 to 60."""
    json: Annotated[bool, tyro.conf.arg(help="One JSON document on stdout.")] = False
    workspace: Where = ""


def show(command: Show) -> int:
    """Returns 0. Raises `StartupError` when there is no such episode, or its file is not what was written."""
    from takeover.data.contact_sheet import SheetError, write_contact_sheet
    from takeover.data.episode_file import EpisodeReader
    from takeover.data.episode_summary import summarise
    from takeover.data.hdf5_image import DamagedFile

    if command.sheet and not command.sheet.endswith(".png"):
        raise StartupError(f"--sheet {command.sheet}: the name of a PNG is needed, ending with .png")
    if not 1 <= command.columns <= 60:
        raise StartupError(f"--columns {command.columns}: 1 to 60")
    file = Path(command.episode)
    try:
        if file.is_file():
            path = file
            summary = _summary_of_file(path)
        else:
            workspace = existing(command.workspace)
            with opened_catalog(workspace) as catalog:
                path = workspace.path / _path_of(catalog, command.episode)
                summary = summarise(path, catalog)
        drawn = 0
        if command.sheet:
            with EpisodeReader(path) as reader:
                drawn = write_contact_sheet(reader, Path(command.sheet), command.columns)
    except (SheetError, OSError) as error:
        raise StartupError(str(error)) from error
    except DamagedFile as error:
        raise StartupError(f"{error}; `takeover data verify` says more") from error
    if command.json:
        print_json(summary)
    else:
        _print(summary)
    if command.sheet:
        print(f"{command.sheet}: {drawn} pictures", file=sys.stderr)
    return 0


def _summary_of_file(path: Path) -> "EpisodeSummary":
    """With its labels when it lies in a workspace."""
    from takeover.data.catalog import Catalog, CatalogError
    from takeover.data.catalog_place import has_catalog
    from takeover.data.episode_summary import summarise
    from takeover.data.workspace import Workspace

    folders = path.absolute().parents
    workspace = Workspace(folders[2]) if len(folders) > 2 else None
    if workspace is None or folders[1] != workspace.episodes or not workspace.path.is_dir():
        return summarise(path)
    try:
        if not has_catalog(workspace):
            return summarise(path)
        with Catalog.open(workspace) as catalog:
            return summarise(path, catalog)
    except CatalogError:
        return summarise(path)


def _path_of(catalog: "Catalog", name: str) -> str:
    from takeover.data.selection import EpisodeFilter, select_episodes

    rows = select_episodes(catalog, EpisodeFilter(name=name), limit=6)
    if not name or not rows:
        raise StartupError(f"no episode {name!r} in {catalog.url}; `takeover data ls` lists them")
    if len(rows) > 1:
        more = ", ..." if len(rows) > 5 else ""
        raise StartupError(f"several episodes are called {name!r}: {', '.join(row.id for row in rows[:5])}{more}; name one")
    return rows[0].path


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _print(summary: "EpisodeSummary") -> None:
    from takeover.data.episode_summary import STRIP_LEGEND

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, text in _lines(summary):
        table.add_row(escape(name), escape(text))
    print_table(table)
    print(f"\n{summary.strip}\n{STRIP_LEGEND}")


def _lines(summary: "EpisodeSummary") -> list[tuple[str, str]]:
    started = datetime.fromtimestamp(summary.started_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    consent = f", consent {summary.consent_version}" if summary.consent_version else ", consent not noted"
    relabelled = "" if summary.outcome_source != "label" else f", recorded as {summary.recorded_outcome}"
    marks = [
        word
        for word, set_ in (("excluded", summary.excluded), ("recovered", summary.recovered), ("unattended", summary.unattended))
        if set_
    ]
    clocks = summary.clocks
    lines = [
        ("episode", f"{summary.episode_id}  ({summary.kind} {summary.number} of session {summary.session_id})"),
        (
            "file",
            f"{summary.path}  {_bytes(summary.size_bytes)}, schema {summary.schema_version}",
        ),
        ("task", f"{summary.task_id} on {summary.robot_id}: {summary.task_prompt}"),
        ("operator", f"{summary.operator}{consent}, station {summary.station_id}"),
        ("policy", f"version {summary.policy_version} {summary.policy_sha256[:12]}" if summary.policy_version else "none"),
        ("started", f"{started}, {summary.duration_s:.1f} s at {summary.control_hz:g} Hz"),
        ("steps", f"{summary.steps}, human {summary.human_steps}, held {summary.held_steps}"),
        ("outcome", f"{summary.outcome} at step {summary.outcome_step}, source {summary.outcome_source}{relabelled}"),
    ]
    if marks:
        lines.append(("", ", ".join(marks)))
    if summary.labels:
        lines.append(("labels", _pairs(summary.labels)))
    for item in summary.interventions:
        where = f"steps {item.start} to {item.end} ({item.start_s:.1f} to {item.end_s:.1f} s), {item.trigger}"
        lines.append((f"takeover {item.id}", where + (f"; {_pairs(item.labels)}" if item.labels else "; no labels")))
    lines.append(("limits hit", ", ".join(f"{name} {count} steps" for name, count in summary.limits_hit.items()) or "none"))
    if summary.holds:
        lines.append(("held", ", ".join(f"{reason or 'paused'} {count} steps" for reason, count in summary.holds.items())))
    spread = f"{clocks.period_p50_ms:.1f} ms p50, {clocks.period_p95_ms:.1f} p95, {clocks.period_max_ms:.1f} max"
    period = f"period {spread} of {clocks.period_ms:.1f}"
    lines.append(("clocks", f"{period}; acts after {clocks.decision_p95_ms:.1f} ms p95; wall clock moved {clocks.wall_set_ms:.1f} ms"))
    for camera in summary.cameras:
        size = f"{camera.width}x{camera.height}, {_bytes(camera.size_bytes)}"
        rate = f"{camera.pictures} pictures {size}, {camera.rate_hz:.1f} Hz, {camera.lost} lost"
        lines.append((f"camera {camera.name}", rate))
    if not summary.cameras:
        lines.append(("cameras", "no full-size pictures"))
    if summary.policy_cameras:
        lines.append(("policy saw", ", ".join(summary.policy_cameras)))
    if summary.events:
        lines.append(("events", ", ".join(f"{kind} {count}" for kind, count in summary.events.items())))
    lines.append(("sizes", ", ".join(f"{part} {_bytes(count)}" for part, count in summary.sizes.items())))
    lines += [("history", _pairs(entry)) for entry in summary.history]
    return lines


def _pairs(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
