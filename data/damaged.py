"""Looking into a damaged episode file from a distance: HDF5 can crash on one, so a process of its own does it.

``python -m takeover.data.damaged FILE`` prints what is wrong, a line each.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py

from takeover.data.episode_build import DEMO
from takeover.data.episode_checks import contradictions
from takeover.data.episode_migrate import in_newest_schema
from takeover.data.hdf5_image import DamagedFile, check_seal

TIMEOUT_S = 60.0
MAX_MEMORY_BYTES = 8 * 1024**3


def is_sealed(path: Path) -> bool:
    """Whether the file is, byte for byte, what was written."""
    try:
        check_seal(path)
    except (DamagedFile, OSError):
        return False
    return True


def inspect(path: Path) -> list[str]:
    """What contradicts itself in a file whose seal is broken, with the step, as far as it can still be read. Never raises or crashes."""
    try:
        run = subprocess.run([sys.executable, "-m", __name__, str(path)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"{path}: what is damaged in it cannot be found out: {error}"]
    found = [f"{path}: {line}" for line in run.stdout.splitlines()]
    if run.returncode:
        found.append(f"{path}: HDF5 cannot read on (it ended with {run.returncode})")
    return found or [f"{path}: every dataset can be read and nothing contradicts itself: the change is somewhere between them"]


def _print_contradictions(path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    file = in_newest_schema(path, h5py.File(path, "r"))
    found = False
    for name, dataset in _datasets(file[DEMO]):
        for rows in _unreadable(dataset):
            print(f"{name} cannot be read at {rows}", flush=True)
            found = True
    try:
        for problem in contradictions(file[DEMO]):
            print(problem, flush=True)
    except OSError:
        if not found:
            raise


def _datasets(demo: h5py.Group) -> list[tuple[str, h5py.Dataset]]:
    found: list[tuple[str, h5py.Dataset]] = []
    demo.visititems(lambda name, item: found.append((name, item)) if isinstance(item, h5py.Dataset) and not item.is_virtual else None)
    return found


def _unreadable(dataset: h5py.Dataset) -> Iterator[str]:
    """Which rows have a wrong checksum, as "rows 0 to 39"."""
    try:
        dataset[()]
        return
    except OSError:
        if dataset.chunks is None:
            yield "all rows"
            return
    step = dataset.chunks[0]
    for first in range(0, dataset.shape[0], step):
        try:
            dataset[first : first + step]
        except OSError:
            yield f"rows {first} to {min(first + step, dataset.shape[0]) - 1}"


if __name__ == "__main__":
    status = 0
    try:
        _print_contradictions(Path(sys.argv[1]))
    except Exception as error:  # noqa: BLE001 whatever a damaged file makes HDF5 say
        print(f"unreadable: {error}".replace("\n", " "), flush=True)
    os._exit(status)  # letting go of what is damaged can crash as well
