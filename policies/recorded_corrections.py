"""Corrections as they lie in the store: what a person did in each intervention of a policy episode, and what acted when it began.

A correction is an intervention of a recorded policy episode that labels leave in; its steps are those that a person drove, ramp-in
excluded, and that labels call an example.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from takeover.data.catalog import Catalog, catalog_of
from takeover.data.catalog_tables import EpisodeRow
from takeover.data.episode_labels import EpisodeLabels
from takeover.data.hdf5_image import DamagedFile
from takeover.data.schema import EpisodeKind
from takeover.data.training_labels import training_labels
from takeover.data.workspace import Workspace
from takeover.policies.base import FloatArray
from takeover.policies.lineage import Lineage
from takeover.policies.manifest import Manifest, correction_name
from takeover.policies.recorded_episodes import Answer, AnswerKey, RecordedEpisodes

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
    answers: dict[int, tuple[AnswerKey, Answer]] = field(default_factory=dict, compare=False)  # of its episode, see `RecordedEpisode`

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


class Memory:
    """What is kept from one version to the next, bounded: recorded episodes, what acted in them would do, notes of manifests."""

    def __init__(self, workspace: Workspace) -> None:
        self.episodes = RecordedEpisodes()
        self.lineage = Lineage(workspace.path)


def find_corrections(
    workspace: Workspace, manifest: Manifest, limit: int = 0, catalog: Catalog | None = None, memory: Memory | None = None
) -> Found:
    """Interventions of recorded policy episodes of the version's robot and task, newest episode first, at most ``limit`` (0: all).

    Episodes that are excluded or discarded are left out; what only some labels leave out is counted. Labels are those of now, with any
    ``memory``.
    """
    found, kept = Found(), memory or Memory(workspace)
    _gather(found, workspace, manifest, limit, catalog, kept)
    lowest = min((correction.acted for correction in found.corrections), default=manifest.version)
    used, whole = kept.lineage.used(manifest, lowest)
    known = {True: True, False: False if whole else None}
    found.corrections = [replace(correction, used=known[correction.name in used]) for correction in found.corrections]
    return found


def _gather(found: Found, workspace: Workspace, manifest: Manifest, limit: int, catalog: Catalog | None, memory: Memory) -> None:
    for row, labels in _corrected(workspace, manifest, catalog):
        path = workspace.path / row.path
        try:
            episode = memory.episodes.of(row, path)
        except (DamagedFile, OSError, KeyError, ValueError) as error:
            found.problems.append(f"episode {row.id}: {error}")
            continue
        for number, first in sorted(episode.interventions, key=lambda one: -one[1]):
            driven = np.flatnonzero(episode.human & (episode.numbers == number))
            steps = np.array([step for step in driven if labels.imitated(int(step))], np.int64)
            acted = int(episode.acted[first])
            if not len(steps):
                found.labelled_out += bool(len(driven))
            elif acted == 0:
                found.unattended += 1
            elif acted >= manifest.version:
                found.later += 1
            else:
                found.corrections.append(
                    Correction(
                        row.id,
                        number,
                        int(episode.seq[first]),
                        acted,
                        steps,
                        episode.observations,
                        episode.actions,
                        episode.run,
                        None,
                        path,
                        episode.answers,
                    )
                )
                if limit and len(found.corrections) >= limit:
                    return


def _corrected(workspace: Workspace, manifest: Manifest, catalog: Catalog | None) -> Iterator[tuple[EpisodeRow, EpisodeLabels]]:
    """Episodes in which somebody took over, newest first, some at a time: few are wanted, and there may be very many."""
    with catalog_of(workspace, catalog) as opened:
        helped = opened.newest_counted(manifest.task_id, manifest.robot_id, [EpisodeKind.POLICY.value], page=LABELS_AT_ONCE, helped=True)
        while rows := list(itertools.islice(helped, LABELS_AT_ONCE)):
            labels = training_labels(opened, [row.id for row in rows])
            yield from ((row, labels[row.id]) for row in rows)
