"""Episode files of older schemas: one explicit step per version, done in memory when a file is opened. The file is never touched.

A change of the schema adds a function to `STEPS`, a file of the old version to ``tests/data/files``, and its fields to the page.
"""

from collections.abc import Callable
from pathlib import Path

import h5py
import msgspec
import numpy as np
from h5py import h5f

from takeover.data.episode_schema import SCHEMA_VERSION
from takeover.data.hdf5_image import DamagedFile
from takeover.data.schema import EpisodeEnd

_DEMO = "data/demo_0"


class NewerFile(DamagedFile):
    """An episode of a schema that this version does not know yet. Nothing is wrong with the file."""


def _from_1(demo: h5py.Group) -> None:
    """Version 2 adds reward_version, subtask, wall times of observation and decision, consent, the clocks at the end, a history."""
    hil = demo["hil"]
    for group in (hil, *([hil["held"]] if "held" in hil else [])):
        wall, applied = group["wall_ns"][:], group["t_applied_ns"][:]
        group["reward_version"] = np.zeros(len(wall), np.int32)
        group["subtask"] = np.zeros(len(wall), "S1")
        for name in ("observation", "decision"):
            group[f"wall_{name}_ns"] = wall - applied + group[f"t_{name}_ns"][:]
    end = msgspec.json.decode(demo.attrs["end"], type=EpisodeEnd)
    demo.attrs["consent_version"] = ""
    demo.attrs["wall_minus_monotonic_end_ns"] = end.wall_ns - end.t_ns
    demo.attrs["history"] = "[]"


STEPS: dict[int, Callable[[h5py.Group], None]] = {1: _from_1}
"""From this version to the next one."""


def in_newest_schema(path: Path, file: h5py.File) -> h5py.File:
    """``file`` itself if it has the newest schema; else it is closed and a copy in memory is given that was brought up to it.

    A file without ``/data/demo_0`` is given back: its reader says what is missing. Raises `NewerFile`, `DamagedFile`.
    """
    try:
        version = file[_DEMO].attrs.get("schema_version", 0) if _DEMO in file else SCHEMA_VERSION
    except (OSError, RuntimeError) as error:
        raise DamagedFile(f"{path}: {error}") from error
    if not isinstance(version, int | np.integer) or version < 1:
        raise DamagedFile(f"{path}: schema_version is {version!r}, not a number from 1 on")
    if version == SCHEMA_VERSION:
        return file
    if version > SCHEMA_VERSION:
        raise NewerFile(
            f"{path}: was written with episode schema {version}, this version reads up to {SCHEMA_VERSION}; "
            "update takeover, or export the episode where it was recorded"
        )
    file.close()
    copy = h5py.File(h5f.open_file_image(path.read_bytes(), h5f.FILE_IMAGE_OPEN_RW))
    try:
        for number in range(int(version), SCHEMA_VERSION):
            STEPS[number](copy[_DEMO])
            copy[_DEMO].attrs["schema_version"] = number + 1
    except (KeyError, OSError, ValueError, RuntimeError) as error:
        copy.close()
        raise DamagedFile(f"{path}: cannot be brought from schema {version} to {SCHEMA_VERSION}: {error}") from error
    return copy
