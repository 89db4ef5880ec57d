"""`takeover export` and `takeover import`: thin over `takeover.data.exchange`."""

import dataclasses
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from takeover.app.commands.data_options import Filters, Where, existing, filter_of, opened_catalog
from takeover.app.commands.progress import progress_display
from takeover.app.processes.common import StartupError
from takeover.app.supervisor import Progress
from takeover.data.schema import EpisodeKind
from takeover.data.workspace import Workspace

Text = Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
STOPPED = 130


@dataclass(frozen=True, kw_only=True)
class Export(Filters):
    """Episodes for other tools: `takeover export lerobot DIR`, `robomimic FILE`, `mcap DIR`, `parquet DIR`, `csv DIR`.

    The same command goes on with an export that was interrupted. What labels exclude or trim off is left out.
    """

    format: Annotated[Literal["lerobot", "robomimic", "mcap", "parquet", "csv"], tyro.conf.Positional]
    """LeRobotDataset v3.0, one robomimic file, a file per episode for Foxglove and Rerun, or tables of metrics."""
    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    """The folder or file to make. It must not exist."""
    workspace: Where = ""
    episode: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ID", help_behavior_hint="")] = ()
    """Only these: ids, their beginnings or ends."""
    include_excluded: bool = False
    """Also what is excluded or trimmed off; with sample weight 0 where the format has weights."""
    without_people: bool = False
    """Leave the pseudonyms of operators and labelers out."""
    images: Literal["image", "video", "none"] = "image"
    """lerobot: pictures in the table, as MP4, or none. Elsewhere none leaves them out."""
    pictures: Literal["camera", "policy"] = "camera"
    """lerobot: the cameras' own, or the small ones the policy saw."""
    codec: Literal["h264", "av1"] = "h264"
    precision: Literal["float32", "float64"] = "float32"
    """lerobot: float64 keeps every bit."""
    join_runs: bool = False
    """lerobot, robomimic: an episode stays one, with jumps where the robot was held."""
    json: bool = False
    """Print the result as JSON."""


@dataclass(frozen=True)
class Import:
    """Other people's episodes, or another workspace's: `takeover import PATH`. What is there already is skipped."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """A LeRobotDataset v3.0 folder, a robomimic file, a workspace, or episode files."""
    format: Literal["auto", "lerobot", "robomimic", "takeover"] = "auto"
    workspace: Where = ""
    kind: Literal["demonstration", "policy", "evaluation"] = "demonstration"
    """What the episodes are, where the file does not say it."""
    robot: Text = ""
    task: Text = ""
    prompt: Text = ""
    operator: Text = "imported"
    control_hz: float = 0.0
    """Where the file does not say it."""
    action_kind: Literal["ee_delta", "ee_pose", "joint_delta", "joint_position"] = "ee_delta"
    frame: Text = "base"
    gripper: Literal["none", "continuous", "discrete"] = "continuous"
    scale: Annotated[tuple[float, ...], tyro.conf.arg(help_behavior_hint="")] = ()
    """Actions are divided by these, one per dimension, to lie in [-1, 1]."""
    auto_scale: bool = False
    """Take the largest absolute value of each dimension in the file."""
    prefix: Text = ""
    """Episodes are called <prefix>-<number> (default: the file's name)."""
    json: bool = False
    """Print the result as JSON."""


def export(command: Export) -> int:
    """Returns 0, or 130 when stopped."""
    workspace = existing(command.workspace)
    with opened_catalog(workspace):  # one that cannot be used is said before anything else
        return _long_job("export", command.json, lambda progress: _export(workspace, command, progress))


def _export(workspace: Workspace, command: Export, progress: Callable[[int, int], None]) -> Any:
    from takeover.data.exchange.lerobot_export import LeRobotOptions, export_lerobot
    from takeover.data.exchange.mcap_export import McapOptions, export_mcap
    from takeover.data.exchange.robomimic_export import RobomimicOptions, export_robomimic
    from takeover.data.exchange.selection import Selection
    from takeover.data.exchange.tables import export_tables

    selection = Selection(filter_of(command), command.episode, command.include_excluded, not command.without_people)
    pictures = command.images != "none"
    if command.format == "lerobot":
        options = LeRobotOptions(command.images, command.pictures, command.precision, command.join_runs, command.codec)
        return export_lerobot(workspace, command.target, selection, options, progress)
    if command.format == "robomimic":
        return export_robomimic(workspace, command.target, selection, RobomimicOptions(pictures, command.join_runs), progress)
    if command.format == "mcap":
        return export_mcap(workspace, command.target, selection, McapOptions(pictures), progress)
    return export_tables(workspace, command.target, selection, command.format, progress)


def import_(command: Import) -> int:
    """Returns 0, or 130 when stopped."""
    workspace = Workspace(command.workspace) if command.workspace else Workspace.default()
    return _long_job("import", command.json, lambda progress: _import(workspace, command, progress))


def _import(workspace: Workspace, command: Import, progress: Callable[[int, int], None]) -> Any:
    from takeover.data.exchange.foreign import ImportOptions
    from takeover.data.exchange.lerobot_import import import_lerobot
    from takeover.data.exchange.own_import import import_own, known_format
    from takeover.data.exchange.robomimic_import import import_robomimic

    source = Path(command.source)
    found = known_format(source) if command.format == "auto" else command.format
    options = ImportOptions(
        kind=EpisodeKind(command.kind),
        robot_id=command.robot,
        task_id=command.task,
        prompt=command.prompt,
        operator=command.operator,
        control_hz=command.control_hz,
        action_kind=command.action_kind,
        frame=command.frame,
        gripper=command.gripper,
        scale=command.scale,
        auto_scale=command.auto_scale,
        prefix=command.prefix,
    )
    if found == "takeover":
        return import_own(workspace, source, progress)
    reader = {"lerobot": import_lerobot, "robomimic": import_robomimic}[found]
    return reader(workspace, source, options, progress)


def _long_job(name: str, as_json: bool, work: Callable[[Callable[[int, int], None]], Any]) -> int:
    """Run with a progress bar; Ctrl+C and SIGTERM stop it between two episodes, a second one at once."""
    from takeover.data.catalog import CatalogError
    from takeover.data.exchange.errors import Cancelled, ExchangeError
    from takeover.data.hdf5_image import DamagedFile
    from takeover.data.labels import LabelError

    began = time.monotonic()
    with progress_display() as display, _stop_requests() as stopped:

        def progress(done: int, total: int) -> None:
            display.show(Progress(name, done, total, f"{done} of {total} episodes"))
            if stopped.is_set() and done < total:
                raise Cancelled

        try:
            result = work(progress)
        except Cancelled:
            display.note(f"{name} stopped; the same command goes on where it was")
            return STOPPED
        except (ExchangeError, DamagedFile, LabelError, CatalogError, OSError) as error:
            raise StartupError(str(error)) from error
    report = {key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(result).items()}
    if as_json:
        print(json.dumps(report | {"wall_s": round(time.monotonic() - began, 3)}))
    else:
        print(", ".join(f"{key} {value}" for key, value in report.items()))
    sys.stdout.flush()
    return 0


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def request(number: int, _: Any) -> None:
        event.set()
        signal.signal(number, before[number])  # again: at once

    before: dict[int, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, request)
    try:
        yield event
    finally:
        for restored, handler in before.items():
            signal.signal(restored, handler)
