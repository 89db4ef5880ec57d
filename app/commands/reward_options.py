"""What the `takeover reward` commands share: which robot, its newest classifier, errors as one line, progress."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import tyro

from takeover.app.commands.options import known_robot, station_of
from takeover.app.commands.progress import progress_display
from takeover.app.processes.common import StartupError
from takeover.app.supervisor import Progress
from takeover.data.workspace import Workspace

if TYPE_CHECKING:
    from takeover.data.station import Station

RobotName = Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="", help="As in `takeover run` (default: the station's).")]
Json = Annotated[bool, tyro.conf.arg(help="One JSON document on stdout.")]


def robot_and_task(workspace: Workspace, robot_option: str) -> "tuple[str, str, Station]":
    """(robot id, task id) that were named, or the station's, and the station. Raises `StartupError`."""
    _, station = station_of(str(workspace.path))
    robot, task = known_robot(robot_option or station.robot, station.task if not robot_option else None)
    return ("sim" if robot.startswith("sim") else robot), task, station


def assignments(pairs: Sequence[str]) -> dict[str, str]:
    """{name: value} of NAME=VALUE. Raises `StartupError`."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise StartupError(f"--set {pair}: expected NAME=VALUE")
        found[name] = value
    return found


@contextmanager
def refusals() -> Iterator[None]:
    """What a user can change becomes one line on stderr and exit status 2."""
    from takeover.data.catalog import CatalogError
    from takeover.data.hdf5_image import DamagedFile
    from takeover.data.label_log import LabelError
    from takeover.policies.reward_settings import RewardError

    try:
        yield
    except (RewardError, LabelError, CatalogError, DamagedFile) as error:
        raise StartupError(str(error)) from error
    except OSError as error:
        raise StartupError(f"{error.filename or 'the workspace'}: {error.strerror}; nothing was changed by half") from error


@contextmanager
def shown(what: str) -> Iterator[Callable[[int, int], bool]]:
    """A progress callback for stderr; Ctrl+C stops the work where it stands. Small networks: one thread."""
    from takeover.policies.torch_setup import configure

    configure(1)
    with progress_display() as display:

        def show(done: int, total: int) -> bool:
            display.show(Progress(what, done, total, f"{done:,} of {total:,}"))
            return True

        yield show
