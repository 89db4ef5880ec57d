"""``index.hdf5``: every episode of a workspace as one robomimic dataset (external links and masks), rebuilt atomically."""

import zlib
from pathlib import Path

import h5py
import numpy as np

from takeover.data.catalog import Catalog
from takeover.data.catalog_tables import EpisodeRow
from takeover.data.episode_build import DEMO
from takeover.data.episode_file import open_episode
from takeover.data.hdf5_image import write_durably
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
    """Write ``index.hdf5`` anew from the catalog; returns how many episodes it links. Episodes without steps are left out."""
    rows = [row for row in catalog.episodes() if row.steps > 0]
    masks = masks_of(rows, catalog.reviewed_episode_ids())
    image = h5py.File("index.hdf5", "w", driver="core", backing_store=False, libver=("v110", "v110"))
    with image:
        data = image.create_group("data")
        for index, row in enumerate(rows):
            data[f"demo_{index}"] = h5py.ExternalLink(row.path, f"/{DEMO}")
        data.attrs["total"] = sum(row.steps for row in rows)
        if rows:
            data.attrs["env_args"] = _environment_args(workspace.path / rows[-1].path)
        data.attrs["episode_ids"] = np.array([row.id.encode() for row in rows], dtype="S64")
        mask = image.create_group("mask")
        for name, members in masks.items():
            mask[name] = np.array([f"demo_{index}".encode() for index in members], dtype="S16")
        image.flush()
        content = image.id.get_file_image()
    write_durably(workspace.index_path, content)
    return len(rows)


def _environment_args(path: Path) -> str:
    with open_episode(path) as file:
        return str(file["data"].attrs["env_args"])
