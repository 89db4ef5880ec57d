"""Which versions' absorption is to be measured once more: what was cut off, and what was kept by code that did not look at pictures.

A measurement that has begun leaves a mark beside the manifest until it has ended. One that gave way (to a request, to the end of a
run) is due again as often as that happens; one whose process died, or whose result could not be kept, `TRIES` times in all.
"""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from takeover.policies.absorption_file import FILE, Absorption, read_absorption
from takeover.policies.base import PolicyRefused
from takeover.policies.manifest import read_manifest, version_folder, version_numbers

BEGUN = "absorption.begun"  # a byte for each time that it began and did not give way
TRIES = 3
LOOKED_AT = 200  # versions, newest first: of older ones nobody waits for the result


def began(folder: Path) -> None:
    """Raises `OSError`."""
    with (folder / BEGUN).open("ab") as mark:
        mark.write(b".")


def gave_way(folder: Path) -> None:
    (folder / BEGUN).write_bytes(b"")


def ended(folder: Path) -> None:
    """With a result, or without one since there was nothing to measure."""
    (folder / BEGUN).unlink(missing_ok=True)


def looked_at_nothing(found: Absorption) -> bool:
    """Whether there is no correction in it since policies that see pictures could not be asked."""
    return not found.segments and not found.with_pictures


def due(workspace: str | os.PathLike[str], task_id: str) -> Iterator[int]:
    """Versions of a task, newest first, among the newest `LOOKED_AT`; a damaged result is not replaced."""
    for version in islice(reversed(version_numbers(workspace)), LOOKED_AT):
        folder = version_folder(workspace, version)
        cut_off = _cut_off(folder)
        if not (cut_off or (folder / FILE).exists()):
            continue
        try:
            if read_manifest(folder).task_id != task_id:
                continue
            found = read_absorption(workspace, version)
        except (ValueError, PolicyRefused, OSError):
            continue
        if looked_at_nothing(found) if found is not None else cut_off:
            yield version


def _cut_off(folder: Path) -> bool:
    try:
        return (folder / BEGUN).stat().st_size < TRIES
    except OSError:
        return False
