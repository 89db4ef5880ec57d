"""``index.hdf5``: every episode of a workspace as one robomimic dataset (external links and masks), rebuilt atomically."""

import zlib
from pathlib import Path

import h5py
import msgspec
import numpy as np

from takeover.data.catalog import Catalog
from takeover.data.catalog_tables import EpisodeRow
from takeover.data.episode_build import DEMO
from takeover.data.episode_file import open_episode
from takeover.data.hdf5_image import write_durably
from takeover.data.index_parts import add_part, cut_episodes
from takeover.data.workspace import Workspace

VALID_PERCENT = 10


def masks_of(rows: list[EpisodeRow], reviewed: set[str]) -> dict[str, list[int]]:
    """{mask name: positions in ``rows``}. Excluded episodes are in no other mask, so no filter key trains on them."""
    masks: dict[str, list[int]] = {
        "train": [],
        "valid": [],
        "success": [],
        "failure": [],
        "has_intervention": [],
        "reviewed": [],
        "excluded": [],
    }
    for index, row in enumerate(rows):
        if row.excluded:
            masks["excluded"].append(index)
            continue
        split = "valid" if zlib.crc32(row.id.encode()) % 100 < VALID_PERCENT else "train"
        names = [split, f"round_{row.policy_version}", f"task_{row.task_id}", f"kind_{row.kind}"]
        if row.outcome in ("success", "failure"):
            names.append(row.outcome)
        if row.takeovers and row.kind != "demonstration":
            names.append("has_intervention")
        if row.id in reviewed:
            names.append("reviewed")
        for name in names:
            masks.setdefault(name, []).append(index)
    return masks


def rebuild_index(workspace: Workspace, catalog: Catalog) -> int:
    """Write ``index.hdf5`` anew from the catalog; returns how many episodes it has. Episodes without steps are left out.

    An episode is one demo, a link; one of which labels leave steps out is a demo per part that counts (`index_parts`), and excluded
    when there is no such part or its file is damaged.
    """
    rows = [row for row in catalog.episodes() if row.steps > 0]
    cut = cut_episodes(catalog, rows, workspace.path)
    rows = [row if cut.get(row.id) != [] else msgspec.structs.replace(row, excluded=True) for row in rows]
    cut = {key: parts for key, parts in cut.items() if parts}
    demos = [(index, part) for index, row in enumerate(rows) for part in cut.get(row.id, [(0, row.steps - 1)])]
    masks = masks_of(rows, catalog.reviewed_episode_ids())
    image = h5py.File("index.hdf5", "w", driver="core", backing_store=False, libver=("v110", "v110"))
    with image:
        data = image.create_group("data")
        for number, (index, part) in enumerate(demos):
            row = rows[index]
            if row.id in cut:
                add_part(data, f"demo_{number}", row, workspace.path, part)
            else:
                data[f"demo_{number}"] = h5py.ExternalLink(row.path, f"/{DEMO}")
        data.attrs["total"] = sum(last - first + 1 for _, (first, last) in demos)
        if rows:
            data.attrs["env_args"] = _environment_args(workspace.path / rows[-1].path)
        data.attrs["episode_ids"] = np.array([rows[index].id.encode() for index, _ in demos], dtype="S64")
        mask = image.create_group("mask")
        for name, members in masks.items():
            wanted = set(members)
            ends = name in ("success", "failure")  # of the part that ends so
            inside = [n for n, (index, part) in enumerate(demos) if index in wanted and (not ends or part[1] == rows[index].steps - 1)]
            mask[name] = np.array([f"demo_{number}".encode() for number in inside], dtype="S16")
        image.flush()
        content = image.id.get_file_image()
    write_durably(workspace.index_path, content)
    return len(rows)


def _environment_args(path: Path) -> str:
    with open_episode(path) as file:
        return str(file["data"].attrs["env_args"])
