"""Demos of the index for episodes of which labels leave steps out: views of what counts, a demo per unbroken part."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py

from takeover.data.catalog import Catalog
from takeover.data.episode_build import DEMO
from takeover.data.hdf5_image import DamagedFile, check_seal
from takeover.data.training_labels import labelled_episodes, training_labels

Part = tuple[int, int]
"""First and last step, both counted."""


def cut_episodes(catalog: Catalog, rows: Iterable[Any], root: Path) -> dict[str, list[Part]]:
    """{episode: the parts that count} for those that are not whole; no part: nothing of it counts, or its file is damaged.

    ``rows`` have ``id``, ``steps`` and ``path``.
    """
    known = set(labelled_episodes(catalog))
    labelled = {row.id: row for row in rows if row.id in known}
    labels = training_labels(catalog, sorted(labelled))
    found = {key: parts_of(labels[key].left_out, row.steps) for key, row in labelled.items() if key in labels and labels[key].left_out}
    return {key: parts if _is_whole(root / labelled[key].path) else [] for key, parts in found.items()}


def _is_whole(path: Path) -> bool:
    """HDF5 may only open files of which this is known."""
    try:
        check_seal(path)
    except (DamagedFile, OSError):
        return False
    return True


def parts_of(left_out: Sequence[Part], steps: int) -> list[Part]:
    """What is left of ``steps`` steps without some ranges."""
    found, begin = [], 0
    for first, last in sorted(left_out):
        if first > begin:
            found.append((begin, first - 1))
        begin = max(begin, last + 1)
    return [*found, (begin, steps - 1)] if begin < steps else found


def add_part(data: h5py.Group, name: str, row: Any, root: Path, part: Part) -> None:
    """A group of virtual datasets over the steps ``part`` of an episode's file, found from the index' folder ``root``.

    Has what robomimic reads and the columns of ``hil``; the file's attributes with ``num_samples``, and ``first_step``, ``last_step``.
    Its seal was checked. Raises `OSError`.
    """
    first, last = part
    with h5py.File(root / row.path, "r") as file:
        demo, group = file[DEMO], data.create_group(name)
        for key, value in demo.attrs.items():
            group.attrs[key] = value
        group.attrs["num_samples"] = last - first + 1
        group.attrs["first_step"], group.attrs["last_step"] = first, last
        for folder in ("", "obs/", "next_obs/", "hil/"):
            for key, stored in demo[folder or "."].items():
                table = f"{folder}{key}" in ("hil/events", "hil/interventions")
                if isinstance(stored, h5py.Dataset) and not table and stored.shape[:1] == (row.steps,):
                    layout = h5py.VirtualLayout((last - first + 1, *stored.shape[1:]), stored.dtype)
                    layout[:] = h5py.VirtualSource(row.path, f"/{DEMO}/{folder}{key}", stored.shape)[first : last + 1]
                    group.create_virtual_dataset(f"{folder}{key}", layout)
