"""``index.hdf5``: every episode of a workspace as one robomimic dataset (external links and masks), made whole and sealed.

It is made when somebody asks for it (`fresh_index`, ``takeover data index``) and when a recorder ends, not while one records: so what an
episode costs the recorder does not grow with the episodes there are. The seal tells a damaged index before HDF5 opens it, and a stamp
an index that is older than the catalog.
"""

import contextlib
import fcntl
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from sqlalchemy import func, select

from takeover.data.catalog import Catalog
from takeover.data.catalog_tables import episodes
from takeover.data.episode_build import DEMO
from takeover.data.episode_file import open_episode
from takeover.data.hdf5_image import DamagedFile, ImageBuilder, check_seal, write_durably
from takeover.data.index_parts import add_part, cut_episodes
from takeover.data.workspace import Workspace

VALID_PERCENT = 10
_STAMP = "catalog"
_ALWAYS = ("train", "valid", "success", "failure", "has_intervention", "reviewed", "excluded")
_COLUMNS = [
    episodes.c[name]
    for name in (
        "id", "path", "steps", "kind", "task_id", "policy_version", "takeovers", "outcome", "discarded", "current_outcome", "excluded",
    )
]  # fmt: skip
_OF_THE_END = ("success", "failure")  # masks of the part that ends so
_AT_ONCE = 1000


def rebuild_index(workspace: Workspace, catalog: Catalog) -> int:
    """Write ``index.hdf5`` anew from the catalog; returns how many episodes it has. Episodes without steps are left out.

    An episode is one demo, a link; one of which labels leave steps out is a demo per part that counts (`index_parts`), and excluded
    when there is no such part or its file is damaged.

    Somebody else who is making it is waited for. Raises `OSError`; `DamagedFile` when the newest episode cannot be read.
    """
    with _alone(workspace):
        builder = ImageBuilder()
        try:
            count = _fill(builder, workspace, catalog)
        except BaseException:
            builder.abandon()
            raise
        write_durably(workspace.index_path, builder.finish())
        return count


def fresh_index(workspace: Workspace, catalog: Catalog) -> Path:
    """The path of an index that is as the catalog is, made anew when it was not. Raises as `rebuild_index`."""
    if is_stale(workspace, catalog):
        rebuild_index(workspace, catalog)
    return workspace.index_path


def is_stale(workspace: Workspace, catalog: Catalog) -> bool:
    """Whether episodes or labels were added since the index was made, or it cannot be read. Raises `OSError`."""
    try:
        with _opened(workspace.index_path) as file:
            return bool(file["data"].attrs.get(_STAMP, "") != _stamp(catalog))
    except (FileNotFoundError, DamagedFile):
        return True


def indexed_episodes(path: Path) -> list[str]:
    """Ids of the episodes of an index, in its order, each once. Raises `DamagedFile`, `OSError`."""
    with _opened(path) as file:
        return list(dict.fromkeys(value.decode() for value in file["data"].attrs["episode_ids"]))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """A damaged index is never shown to HDF5: it could crash the process."""
    check_seal(path)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except KeyError as error:
        raise DamagedFile(f"{path}: {error}") from error


def _stamp(catalog: Catalog) -> str:
    """Differs when the catalog does. Counted besides, since a catalog that is made anew begins its count again."""
    with catalog.engine.connect() as connection:
        count, steps = connection.execute(select(func.count(), func.sum(episodes.c.steps)).select_from(episodes)).one()
    return f"{catalog.change_counter()} {count} {steps or 0}"


def _fill(builder: ImageBuilder, workspace: Workspace, catalog: Catalog) -> int:
    """Links and masks into ``builder``, a few rows of the catalog at a time."""
    stamp = _stamp(catalog)  # before the rows: what comes in between makes it stale
    reviewed = catalog.reviewed_episode_ids()
    cut = cut_episodes(catalog, _rows(catalog), workspace.path)
    data = builder.root.create_group("data")
    ids: list[bytes] = []
    masks: dict[str, list[int]] = {name: [] for name in _ALWAYS}
    count = steps = 0
    newest = ""
    for row in _rows(catalog):
        count, newest = count + 1, row.path
        parts = cut.get(row.id, [(0, row.steps - 1)])
        for part in parts or [(0, row.steps - 1)]:
            index = len(ids)
            if row.id in cut and parts:
                add_part(data, f"demo_{index}", row, workspace.path, part)
            else:
                data[f"demo_{index}"] = h5py.ExternalLink(row.path, f"/{DEMO}")
            for name in masks_of(row, reviewed) if parts else ["excluded"]:
                if name not in _OF_THE_END or part[1] == row.steps - 1:
                    masks.setdefault(name, []).append(index)
            ids.append(row.id.encode())
            steps += part[1] - part[0] + 1
    data.attrs["total"] = steps
    data.attrs[_STAMP] = stamp
    data.attrs["episode_ids"] = np.array(ids, dtype="S64")
    if newest:
        data.attrs["env_args"] = _environment_args(workspace.path / newest)
    mask = builder.root.create_group("mask")
    for name, members in masks.items():
        builder.put(mask, name, np.array([f"demo_{index}".encode() for index in members], dtype="S16"))
    return count


def _rows(catalog: Catalog) -> Iterator[Any]:
    """Episodes with steps, oldest first."""
    query = select(*_COLUMNS).where(episodes.c.steps > 0).order_by(episodes.c.started_ns, episodes.c.id)
    with catalog.engine.connect() as connection:
        yield from connection.execution_options(yield_per=_AT_ONCE).execute(query)


def masks_of(row: Any, reviewed: set[str]) -> list[str]:
    """The masks an episode of the catalog is in. An excluded one is in no other, so no filter key trains on it."""
    if row.excluded or (row.discarded and not row.current_outcome):  # without a current outcome the row was never refreshed
        return ["excluded"]
    split = "valid" if zlib.crc32(row.id.encode()) % 100 < VALID_PERCENT else "train"
    names = [split, f"round_{row.policy_version}", f"task_{row.task_id}", f"kind_{row.kind}"]
    outcome = row.current_outcome or row.outcome
    if outcome in ("success", "failure"):
        names.append(outcome)
    if row.takeovers and row.kind != "demonstration":
        names.append("has_intervention")
    if row.id in reviewed:
        names.append("reviewed")
    return names


@contextlib.contextmanager
def _alone(workspace: Workspace) -> Iterator[None]:
    """One process at a time makes the index; the others wait. Gone with the process however it ends."""
    workspace.path.mkdir(parents=True, exist_ok=True)
    fd = os.open(workspace.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # the folder itself: no file is left behind
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _environment_args(path: Path) -> str:
    with open_episode(path) as file:
        return str(file["data"].attrs["env_args"])
