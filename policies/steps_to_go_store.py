"""From recorded episodes to a fitted steps-to-go head in the workspace: `make_head` does what `takeover policy steps-to-go` does."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from takeover.data.catalog import Catalog
from takeover.data.schema import EpisodeEnd, EpisodeKind, EpisodeStart, RobotSpec, Step
from takeover.data.store import iter_episode_records
from takeover.data.training_labels import training_labels
from takeover.data.workspace import Workspace
from takeover.policies.steps_to_go import Bins, Targets, targets_of
from takeover.policies.steps_to_go_file import HeadManifest, head_path, make_manifest, save_head
from takeover.policies.steps_to_go_fit import FitCancelled, FitSettings, Progress, fit, report, split

KINDS = (EpisodeKind.DEMONSTRATION, EpisodeKind.POLICY)  # never evaluations: their starts are held out


@dataclass(frozen=True)
class Made:
    """``path``: empty when nothing was written."""

    path: Path
    manifest: HeadManifest


def _records(workspace: Workspace, task_id: str, robot_id: str) -> Iterator[tuple[EpisodeStart, list[Step], EpisodeEnd]]:
    for start, steps, end in iter_episode_records(workspace, task_id):
        if start.kind in KINDS and start.spec.robot_id == robot_id and not end.discarded:
            yield start, steps, end


def read_targets(
    workspace: Workspace, task_id: str, robot_id: str, on_progress: Progress | None = None
) -> tuple[RobotSpec | None, list[Targets]]:
    """The robot and what every recorded episode teaches, in the order of recording, labels applied, excluded ones left out.

    Raises `ValueError` naming an episode whose observations are others than those of the first, `DamagedFile` naming the file.
    """
    if not workspace.catalog_path.exists():
        return None, []
    with Catalog.open(workspace) as catalog:
        rows = [row for row in catalog.episodes(task_id=task_id) if row.robot_id == robot_id and not (row.excluded or row.discarded)]
        labels = training_labels(catalog, [row.id for row in rows])
    spec: RobotSpec | None = None
    found: list[Targets] = []
    bins: Bins | None = None
    for start, steps, end in _records(workspace, task_id, robot_id):
        if spec is None or bins is None:
            spec, bins = start.spec, Bins.of(start.spec.max_steps)
        if (start.spec.observation.names, start.spec.max_steps) != (spec.observation.names, spec.max_steps):
            raise ValueError(f"episode {start.episode_id} has other observations or another step limit than those before; exclude it")
        found.append(targets_of(start, steps, end, bins, labels.get(start.episode_id)))
        if on_progress is not None and not on_progress(len(found), max(len(found), len(rows))):
            raise FitCancelled(f"stopped after reading {len(found)} episodes")
    return spec, found


def make_head(
    workspace: Workspace,
    task_id: str,
    robot_id: str,
    settings: FitSettings,
    *,
    success_steps: float = 3.0,
    alpha: float = 0.2,
    keep: bool = True,
    on_progress: Progress | None = None,
) -> Made:
    """Read, fit, judge on held-out episodes, and keep the head (``keep``) for actors to use from their next episode on.

    Raises `ValueError` when there is too little to learn from or a value is out of range, `FitCancelled`, `OSError`.
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha = {alpha}; the promised share of false alarms lies between 0 and 1")
    if not 0.0 < success_steps < 1e6:
        raise ValueError(f"success_steps = {success_steps}; a positive number of steps")
    spec, episodes = read_targets(workspace, task_id, robot_id)
    if spec is None:
        raise ValueError(f"no recorded episode of {robot_id}:{task_id} in {workspace.path}; record some first")
    learned, held = split(episodes)
    head = fit(learned, Bins.of(spec.max_steps), spec.observation.units, settings, on_progress)
    found: dict[str, Any] = report(head, learned, held, success_steps, alpha)
    manifest = make_manifest(
        head,
        spec,
        success_steps=success_steps,
        stall_spread_steps=found["stall"]["threshold_spread_steps"],
        episodes=len(learned),
        report=found,
        wall_ns=time.time_ns(),
    )
    if not keep:
        return Made(head_path(workspace.path, robot_id, task_id), manifest)
    return Made(save_head(workspace.path, head, manifest), manifest)
