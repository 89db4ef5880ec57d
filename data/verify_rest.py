"""The rest of a workspace that `takeover data verify` looks at: strays, journals, labels, the index."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from takeover.data.catalog import Catalog, damage_of
from takeover.data.catalog_log import differing
from takeover.data.catalog_tables import EpisodeRow, LabelEvent
from takeover.data.journal import read_journal
from takeover.data.label_store import event_of, event_query
from takeover.data.labels import LabelError, read_log
from takeover.data.workspace import Workspace

CLOSING_S = 0.5
"""From an episode's file to its row in the catalog, at most, while a recorder runs."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with one file, catalog row or journal. ``episode``: its id, "" when unknown; ``path``: in the workspace."""

    episode: str
    path: str
    text: str


def problems_around(workspace: Workspace, catalog: Catalog, rows: Sequence[EpisodeRow]) -> Iterator[Problem]:
    """Everything but the content of the episode files. ``rows``: all episodes of the catalog."""
    paths = sorted(workspace.episodes.glob("*/*"))
    recording = (workspace.path / "recorder.lock").exists()
    if recording:
        time.sleep(CLOSING_S)  # what was being closed has its row by now
    if damage := damage_of(catalog.engine):
        said = f"{workspace.catalog_path}: damaged ({damage}); `takeover data repair` makes a new one of the files"
        yield Problem(episode="", path="catalog.sqlite", text=said)
    yield from _files(workspace, paths, {row.path for row in rows} | catalog.paths().keys(), recording)
    yield from _journals(workspace, recording)
    yield from _labels(workspace, catalog, recording)
    yield from _learning(workspace, catalog, recording)
    if rows and not workspace.index_path.exists():
        yield Problem(episode="", path="index.hdf5", text=f"{workspace.index_path}: is missing; `takeover data index` makes it")


def _problem(workspace: Workspace, path: Path, text: str, episode: str = "") -> Problem:
    return Problem(episode=episode, path=path.relative_to(workspace.path).as_posix(), text=f"{path}: {text}")


def _files(workspace: Workspace, paths: Sequence[Path], known: set[str], recording: bool) -> Iterator[Problem]:
    for path in paths:
        if recording and not path.exists():
            continue
        if path.suffix == ".hdf5" and path.relative_to(workspace.path).as_posix() not in known:
            yield _problem(workspace, path, "is not in the catalog; `takeover data repair` enters it", path.stem)
        elif path.name.endswith((".tmp", ".resealed")):
            yield _problem(workspace, path, "was never finished; `takeover data repair`", path.name.partition(".")[0])


def _journals(workspace: Workspace, recording: bool) -> Iterator[Problem]:
    for path in sorted(workspace.journal.rglob("*.mcap")):
        if path.parent != workspace.journal:
            yield _problem(workspace, path, "no episode could be made of this journal; `takeover data repair` tries again", _id_of(path))
        elif not recording:
            yield _problem(workspace, path, "is left over; a recorder or `takeover data repair` closes its episode", _id_of(path))
    for path in sorted(workspace.sessions.glob("*.mcap")):
        problem = read_journal(path).problem
        if problem and not problem.startswith("ends early"):  # that is how a recorder that was killed leaves one: nothing is missing
            yield _problem(workspace, path, f"{problem}; what else is in it can be read")


def _id_of(path: Path) -> str:
    return path.name.rsplit(".", 2)[0]


def _labels(workspace: Workspace, catalog: Catalog, recording: bool) -> Iterator[Problem]:
    """Every event is in the log and in the catalog."""
    with catalog.engine.connect() as connection:
        entered = {event.id: event for event in map(event_of, connection.execute(event_query()))}
    try:
        logged = {event.id: event for event in read_log(workspace.labels_path)}
    except LabelError as error:
        yield Problem(episode="", path="labels.jsonl", text=f"{error}; `takeover data repair` keeps the other lines")
        return
    lacking, more = len(entered.keys() - logged.keys()), len(logged.keys() - entered.keys())
    for said in unlike(logged, entered):
        yield _problem(workspace, workspace.labels_path, said)
    if lacking and not recording:
        yield _problem(
            workspace, workspace.labels_path, f"lacks {lacking} label events of the catalog; `takeover data repair` writes them back"
        )
    if more and not recording:
        yield _problem(
            workspace, workspace.labels_path, f"has {more} label events that the catalog lacks; `takeover data repair` enters them"
        )


def unlike(logged: Mapping[str, LabelEvent], entered: Mapping[str, LabelEvent]) -> Iterator[str]:
    """Events that say one thing in the log and another in the catalog: events never change, so one of the two was damaged."""
    for key in sorted(logged.keys() & entered.keys()):
        one, two = logged[key], entered[key]
        names = [name for name in LabelEvent.__struct_fields__ if getattr(one, name) != getattr(two, name)]
        if names:
            said = ", ".join(f"{name} {getattr(one, name)!r} and {getattr(two, name)!r}" for name in names)
            yield (
                f"event {key} ({one.field} of {one.target}) differs between this log and the catalog: {said}; take its line out when the "
                "catalog is right, move catalog.sqlite away when the log is, then call `takeover data repair`"
            )


def _learning(workspace: Workspace, catalog: Catalog, recording: bool) -> Iterator[Problem]:
    """Every policy, evaluation and use of a label is in the log and in the catalog."""
    only_logged, only_entered, broken = differing(catalog)
    for number, why in broken.items():
        said = f"line {number}: {why}; `takeover data repair` sets the line aside and keeps the others"
        yield _problem(workspace, workspace.learning_path, said)
    for rows, said in ((only_logged, "has {} rows that the catalog lacks"), (only_entered, "lacks {} rows that the catalog has")):
        if rows and not recording:
            yield _problem(workspace, workspace.learning_path, f"{said.format(len(rows))}; `takeover data repair` makes them agree")
