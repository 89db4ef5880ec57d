"""What the `takeover data` commands share: the workspace, the filters, errors as one line, JSON on stdout."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import tyro

from takeover.app.processes.common import StartupError
from takeover.data.workspace import Workspace

if TYPE_CHECKING:
    from takeover.data.catalog import Catalog
    from takeover.data.selection import EpisodeFilter

Where = Annotated[str, tyro.conf.arg(metavar="DIR", help_behavior_hint="", help="Workspace folder (default: the user data folder).")]


@dataclass(frozen=True)
class Filters:
    """Which episodes; all that are given must hold."""

    task: str = ""
    """Task, e.g. peg-insert."""
    operator: str = ""
    """Pseudonym of who operated."""
    policy_version: int = -1
    """Newest policy version when the episode began; 0: none; -1: any."""
    outcome: str = ""
    """success, failure, aborted or unknown; a label counts more than the record."""
    cause: str = ""
    """A labelled cause: vision, planning, timing, force, wear, assumption, operator."""
    kind: str = ""
    """demonstration, policy, evaluation or manual_reset."""
    has_intervention: bool = False
    """Only episodes in which somebody took over."""
    session: str = ""
    """Id of a session."""
    since: str = ""
    """DATE or time, UTC: 2026-05-01 or 2026-05-01T14:30."""
    until: str = ""
    """DATE (its whole day counts) or time, UTC."""


def existing(path: str) -> Workspace:
    """The workspace that was named, or the user's. Raises `StartupError` when nothing was recorded there."""
    workspace = Workspace(path) if path else Workspace.default()
    recorded = (workspace.catalog_path, workspace.episodes, workspace.journal)
    if not any(place.exists() for place in recorded):
        raise StartupError(f"{workspace.path} is not a workspace with recordings; choose one with --workspace")
    return workspace


def filter_of(options: Filters, name: str = "") -> "EpisodeFilter":
    """Raises `StartupError` naming what is wrong."""
    from takeover.data.selection import EpisodeFilter, SelectionError, day_range

    try:
        from_ns, to_ns = day_range(options.since, options.until)
        return EpisodeFilter(
            task=options.task,
            operator=options.operator,
            policy_version=options.policy_version,
            outcome=options.outcome,
            cause=options.cause,
            kind=options.kind,
            has_intervention=options.has_intervention,
            session=options.session,
            name=name,
            from_ns=from_ns,
            to_ns=to_ns,
        )
    except SelectionError as error:
        raise StartupError(str(error)) from error


@contextmanager
def opened_catalog(workspace: Workspace) -> "Iterator[Catalog]":
    """Raises `StartupError` when there is none, it cannot be used, or it turns out to be damaged."""
    from takeover.data.catalog import Catalog, CatalogError, damage_of
    from takeover.data.catalog_place import has_catalog

    try:
        if not has_catalog(workspace):
            raise StartupError(f"{workspace.path} has no catalog; `takeover data repair` makes one of the files")
        catalog = Catalog.open(workspace)
    except CatalogError as error:
        raise StartupError(f"{error}; `takeover data repair` makes a new one of the files") from error
    with catalog:
        try:
            yield catalog
        except StartupError:
            raise
        except Exception as error:
            if damage := damage_of(catalog.engine):
                where = workspace.catalog_path
                raise StartupError(f"{where} is damaged ({damage}); `takeover data repair` makes a new one of the files") from error
            raise


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
