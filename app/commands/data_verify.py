"""`takeover data verify`, `repair` and `index`."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import tyro

from takeover.app.commands.data_options import Filters, Where, existing, filter_of, opened_catalog, print_json
from takeover.app.commands.progress import progress_display
from takeover.app.supervisor import Progress

STOPPED = 130


@contextmanager
def counted(phase: str) -> Iterator[tuple[Callable[[int, int], None], threading.Event]]:
    """A progress bar on stderr, and an event that Ctrl+C or SIGTERM sets: a long job stops at the next episode."""
    stop = threading.Event()
    main = threading.current_thread() is threading.main_thread()  # nobody else may set signals
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM) if main}
    try:
        with progress_display() as display:
            yield lambda done, total: display.show(Progress(phase=phase, done=done, total=total)), stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Verify(Filters):
    """Check files against their seals, counts, clocks and the catalog. Exit status 1 when something is wrong."""

    episode: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="EPISODE")] = ""
    """Id of one episode, or its beginning or end; left out: all that pass the filters."""
    restart: bool = False
    """Forget what an interrupted run has checked already."""
    json: Annotated[bool, tyro.conf.arg(help="One JSON document on stdout.")] = False
    workspace: Where = ""


def verify(command: Verify) -> int:
    """Returns 0; 1 when something is wrong; 130 when it was stopped (the next call goes on)."""
    from takeover.app.processes.common import StartupError
    from takeover.data.verify import verify_workspace

    workspace, filters = existing(command.workspace), filter_of(command, command.episode)
    with opened_catalog(workspace) as catalog, counted("verify") as (progress, stop):
        report = verify_workspace(workspace, catalog, filters, progress, stop, command.restart)
    if command.episode and not report.total:
        raise StartupError(f"no episode {command.episode!r} in {workspace.path}; `takeover data ls` lists them")
    if command.json:
        print_json(report)
    for problem in [] if command.json else report.problems:
        print(problem.text)
    episodes = f"{report.checked} episodes" if report.checked == report.total else f"{report.checked} of {report.total} episodes"
    known = f" ({report.remembered} in the run before)" if report.remembered else ""
    rate = f"{report.bytes / 1e6:.0f} MB in {report.seconds:.1f} s"
    print(f"{episodes} checked{known}, {len(report.problems)} problems, {rate}", file=sys.stderr)
    if stop.is_set() and report.checked < report.total:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return STOPPED
    return 1 if report.problems else 0


@dataclass(frozen=True)
class Repair:
    """Recover what can be recovered: journals, half-written files, catalog rows, labels, the index. Deletes nothing."""

    json: Annotated[bool, tyro.conf.arg(help="One JSON document on stdout.")] = False
    workspace: Where = ""


def repair(command: Repair) -> int:
    """Returns 0; 1 when something is left that could not be repaired."""
    from takeover.app.processes.common import StartupError
    from takeover.data.catalog_place import CatalogError
    from takeover.data.repair import repair as repair_workspace
    from takeover.data.workspace import WorkspaceError

    workspace = existing(command.workspace)
    try:
        with counted("repair") as (progress, stop):
            report = repair_workspace(workspace, progress, stop)
    except (WorkspaceError, CatalogError) as error:
        raise StartupError(str(error)) from error
    if command.json:
        print_json(report)
    else:
        for line in report.done:
            print(line)
        for line in report.left:
            print(f"not repaired: {line}")
    print(f"{len(report.done)} things repaired, {len(report.left)} left", file=sys.stderr)
    return 1 if report.left else 0


@dataclass(frozen=True)
class Index:
    """Make index.hdf5 anew: all episodes as one robomimic dataset."""

    workspace: Where = ""


def index(command: Index) -> int:
    """Returns 0."""
    from takeover.app.processes.common import StartupError
    from takeover.data.hdf5_image import DamagedFile
    from takeover.data.index import rebuild_index

    workspace = existing(command.workspace)
    try:
        with opened_catalog(workspace) as catalog:
            count = rebuild_index(workspace, catalog)
    except (DamagedFile, OSError) as error:
        raise StartupError(f"{error}; `takeover data verify` names what is wrong") from error
    print(f"{workspace.index_path}: {count} episodes")
    return 0
