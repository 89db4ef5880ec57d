"""`takeover data labels`: label events from and to other workspaces, and how far labelers agree."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from takeover.app.commands.data_options import existing
from takeover.app.commands.progress import listing, print_table, progress_display
from takeover.app.processes.common import StartupError
from takeover.app.supervisor import Progress

if TYPE_CHECKING:
    from takeover.data.labels import Labels


@dataclass(frozen=True)
class DataLabels:
    """Labels as JSON lines: `takeover data labels export FILE`, `import FILE`; `agreement` compares blind second opinions."""

    action: Annotated[Literal["export", "import", "agreement"], tyro.conf.Positional]
    """An import of events that are here already changes nothing."""
    file: Annotated[str, tyro.conf.Positional] = ""
    workspace: Annotated[
        str, tyro.conf.arg(metavar="DIR", help_behavior_hint="", help="Workspace folder (default: the user data folder).")
    ] = ""


def data_labels(command: DataLabels) -> int:
    """Returns 0. Raises `StartupError` for what the user must change."""
    from takeover.data.catalog import CatalogError
    from takeover.data.labels import LabelError, Labels

    workspace = existing(command.workspace)
    if command.action != "agreement" and not command.file:
        raise StartupError(f"takeover data labels {command.action} needs a FILE")
    try:
        labels = Labels(workspace)
    except CatalogError as error:
        raise StartupError(str(error)) from error
    try:
        if command.action == "agreement":
            return _agreement(labels)
        return _exchange(labels, command.action, Path(command.file).expanduser())
    except LabelError as error:
        raise StartupError(str(error)) from error
    except OSError as error:
        raise StartupError(f"{error.filename or command.file}: {error.strerror}") from error
    finally:
        labels.close()


def _exchange(labels: "Labels", action: str, path: Path) -> int:
    from takeover.data.label_exchange import export_labels, import_labels

    with progress_display() as display:

        def show(done: int, total: int) -> None:
            display.show(Progress(f"{action} labels", done, total))

        if action == "export":
            if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
                raise StartupError(f"{path} cannot be written; name a file in a folder that exists")
            text = f"{export_labels(labels, path, show)} label events written to {path}"
        else:
            done = import_labels(labels, path, show)
            text = f"{done.added} label events added, {done.known} were here already"
            if done.waiting:
                text += f"; {done.waiting} are of episodes that are not here yet and hold once they are"
    print(text)
    return 0


def _agreement(labels: "Labels") -> int:
    from takeover.data.agreement import agreements

    table = listing("blind second opinions")
    for column in ("field", "n", "same", "kappa", "95 %", "n per class"):
        table.add_column(column, no_wrap=True)
    for found in agreements(labels.catalog):
        known = not math.isnan(found.kappa)
        table.add_row(
            found.name,
            str(found.n),
            f"{found.observed:.2f}" if found.n else "",
            f"{found.kappa:.2f}" if known else "not defined",
            f"{found.low:.2f} to {found.high:.2f}" if known else "",
            ", ".join(f"{value} {count}" for value, count in found.classes.items()),
        )
    print_table(table)
    return 0
