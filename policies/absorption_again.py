"""Which versions' absorption is to be measured: those with weights and without a result, or with one by code that looked at no pictures.

A measurement that has begun leaves a mark beside the manifest until it has ended. One that gave way (to a request, to the end of a
run) is due again as often as that happens; one whose process died, or whose result could not be kept, `TRIES` times in all.
"""

import os
from pathlib import Path

from takeover.policies.absorption_file import Absorption, read_absorption
from takeover.policies.base import PolicyRefused
from takeover.policies.manifest import has_weights, read_manifest, version_folder

BEGUN = "absorption.begun"  # a byte for each time that it began and did not give way
TRIES = 3


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


def is_due(workspace: str | os.PathLike[str], version: int, robot_id: str, task_id: str) -> bool:
    """Whether a version of this robot and task is to be measured; what is damaged is left as it is."""
    folder = version_folder(workspace, version)
    if not has_weights(workspace, version) or _given_up(folder):
        return False
    try:
        manifest = read_manifest(folder)
        if (manifest.robot_id, manifest.task_id) != (robot_id, task_id):
            return False
        found = read_absorption(workspace, version)
    except (ValueError, PolicyRefused, OSError):
        return False
    return found is None or looked_at_nothing(found)


def _given_up(folder: Path) -> bool:
    try:
        return (folder / BEGUN).stat().st_size >= TRIES
    except OSError:
        return False
