"""Corrections as they lie in the store: what a person did in each intervention of a policy episode, and what acted when it began.

A correction is an intervention of a recorded policy episode that labels leave in; its steps are those that a person drove, ramp-in
excluded, and that labels call an example.
"""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from takeover.data.catalog import Catalog, catalog_of
from takeover.data.catalog_tables import EpisodeRow
from takeover.data.episode_file import EpisodeReader
from takeover.data.episode_labels import EpisodeLabels
from takeover.data.hdf5_image import DamagedFile
from takeover.data.schema import ControlMode, EpisodeKind
from takeover.data.training_labels import training_labels
from takeover.data.workspace import Workspace
from takeover.policies.base import FloatArray, PolicyRefused
from takeover.policies.manifest import Manifest, correction_name, read_manifest, version_folder

LABELS_AT_ONCE = 50  # episodes
Doubles = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Correction:
    """What a person did in one intervention. Arrays are of the whole episode, held steps left out; ``steps`` (n,) are indices into them."""

    episode_id: str
    number: int
    seq: int  # control step of the takeover
    acted: int  # the version that acted when the person took over
    steps: Steps
    observations: FloatArray  # (N, D)
    actions: Doubles  # (N, A) applied
    run: npt.NDArray[np.int64]  # (N,)
    used: bool | None  # whether a batch before this version held a step of it; None: not noted
    path: Path  # the episode's file: pictures stay there until a policy asks for them

    @property
    def name(self) -> str:
        return correction_name(self.episode_id, self.number)


@dataclass
class Found:
    """``corrections``, newest first; how many there are besides: ``labelled_out`` by labels, ``later`` that the new version or a later one
    acted in, ``unattended`` where no policy acted; ``problems``: what could not be read."""

    corrections: list[Correction] = field(default_factory=list)
    labelled_out: int = 0
    later: int = 0
    unattended: int = 0
    problems: list[str] = field(default_factory=list)


def used_corrections(workspace: str | os.PathLike[str], manifest: Manifest) -> tuple[set[str], bool]:
    """(corrections of which a batch up to this version held a step, whether every ancestor noted them)."""
    used: set[str] = set()
    whole, version = True, manifest
    while True:
        whole = whole and version.corrections is not None
        used.update(version.corrections or ())
        if not 0 < version.parent < version.version:
            return used, whole
        try:
            version = read_manifest(version_folder(workspace, version.parent))
        except PolicyRefused:
            return used, False


def find_corrections(workspace: Workspace, manifest: Manifest, limit: int = 0, catalog: Catalog | None = None) -> Found:
    """Interventions of recorded policy episodes of the version's robot and task, newest episode first, at most ``limit`` (0: all).

    Episodes that are excluded or discarded are left out; what only some labels leave out is counted.
    """
    found = Found()
    used, whole = used_corrections(workspace.path, manifest)
    for row, labels in _corrected(workspace, manifest, catalog):
        path = workspace.path / row.path
        try:
            with EpisodeReader(path) as reader:
                columns = {name: reader.column(name).astype(np.int64) for name in ("seq", "run_id", "policy_version", "control_mode")}
                observations, actions = reader.observations.astype(np.float32), reader.actions.astype(np.float64)
                interventions = reader.interventions
                numbers = reader.column("intervention_id").astype(np.int64)
        except (DamagedFile, OSError, KeyError, ValueError) as error:
            found.problems.append(f"episode {row.id}: {error}")
            continue
        human = columns["control_mode"] == ControlMode.HUMAN
        for one in sorted(interventions, key=lambda entry: -entry["start"]):
            driven = np.flatnonzero(human & (numbers == one["id"]))
            steps = np.array([step for step in driven if labels.imitated(int(step))], np.int64)
            acted = int(columns["policy_version"][one["start"]])
            if not len(steps):
                found.labelled_out += bool(len(driven))
            elif acted == 0:
                found.unattended += 1
            elif acted >= manifest.version:
                found.later += 1
            else:
                name = correction_name(row.id, int(one["id"]))
                known = True if name in used else False if whole else None
                seq = int(columns["seq"][one["start"]])
                found.corrections.append(
                    Correction(row.id, int(one["id"]), seq, acted, steps, observations, actions, columns["run_id"], known, path)
                )
                if limit and len(found.corrections) >= limit:
                    return found
    return found


def _corrected(workspace: Workspace, manifest: Manifest, catalog: Catalog | None) -> Iterator[tuple[EpisodeRow, EpisodeLabels]]:
    """Episodes in which somebody took over, newest first, some at a time: few are wanted, and there may be very many."""
    with catalog_of(workspace, catalog) as opened:
        counted = opened.newest_counted(manifest.task_id, manifest.robot_id, [EpisodeKind.POLICY.value])
        helped = (row for row in counted if row.takeovers)
        while rows := list(itertools.islice(helped, LABELS_AT_ONCE)):
            labels = training_labels(opened, [row.id for row in rows])
            yield from ((row, labels[row.id]) for row in rows)
