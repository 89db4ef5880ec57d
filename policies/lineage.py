"""Which corrections were in a batch up to a version: what the manifests of it and its ancestors note, remembered from version to version.

A version comes every two seconds and each is the child of the one before, so the way back grows with every one. What is remembered of a
version leads past those that noted nothing; how much is remembered is bounded.
"""

import os
from collections import OrderedDict

from takeover.policies.base import PolicyRefused
from takeover.policies.manifest import Manifest, read_manifest, version_folder

HELD = 1000  # versions


class Lineage:
    """Of the versions of one workspace, which are never overwritten."""

    def __init__(self, workspace: str | os.PathLike[str]) -> None:
        self._workspace = workspace
        self._held: OrderedDict[int, tuple[int, tuple[str, ...] | None]] = OrderedDict()  # the next ancestor to look at, its own notes

    def used(self, manifest: Manifest, above: int = 0) -> tuple[set[str], bool]:
        """(corrections of which a batch held a step, whether every ancestor noted them), of the ancestors with a number over ``above``.

        A correction is noted by a version after the one that acted in it: none at or below the lowest of these needs to be looked at.
        """
        used: set[str] = set()
        whole, version = True, manifest.version
        older, names = self._held.get(version) or (manifest.parent, _names(manifest))
        passed = [version]  # these lead to what comes next
        self._keep(version, older, names)
        while True:
            whole = whole and names is not None
            used.update(names or ())
            if not above < older < version:
                break
            version = older
            try:
                older, names = self._at(version)
            except PolicyRefused:
                return used, False
            if names == ():
                passed.append(version)
            else:
                self._lead(passed, version)
                passed = [version]
        self._lead(passed, older)
        return used, whole

    def _at(self, version: int) -> tuple[int, tuple[str, ...] | None]:
        """Raises `PolicyRefused`."""
        found = self._held.get(version)
        if found is None:
            manifest = read_manifest(version_folder(self._workspace, version))
            found = manifest.parent, _names(manifest)
        self._keep(version, *found)
        return found

    def _keep(self, version: int, older: int, names: tuple[str, ...] | None) -> None:
        self._held[version] = older, names
        self._held.move_to_end(version)
        while len(self._held) > HELD:
            self._held.popitem(last=False)

    def _lead(self, versions: list[int], to: int) -> None:
        for version in versions:
            if version in self._held:
                self._held[version] = to, self._held[version][1]


def _names(manifest: Manifest) -> tuple[str, ...] | None:
    return None if manifest.corrections is None else tuple(manifest.corrections)
