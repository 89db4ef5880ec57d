"""From recorded episodes to a fitted steps-to-go head in the workspace: `make_head` does what `takeover policy steps-to-go` does."""

import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from takeover.data.catalog import Catalog, catalog_of
from takeover.data.catalog_tables import EpisodeRow
from takeover.data.episode_file import read_records
from takeover.data.schema import EpisodeKind, RobotSpec
from takeover.data.training_labels import training_labels
from takeover.data.workspace import Workspace
from takeover.policies.base import PolicyRefused
from takeover.policies.steps_to_go import Bins, Targets, targets_of
from takeover.policies.steps_to_go_file import HeadManifest, head_path, make_manifest, read_head, save_head
from takeover.policies.steps_to_go_fit import FitCancelled, FitSettings, Progress, fit, report, split

KINDS = (EpisodeKind.DEMONSTRATION, EpisodeKind.POLICY)  # never evaluations: their starts are held out


LEAST_NEW = 20  # episodes, and a quarter more than there were, before a head is fitted again by itself
NEWEST = 300  # episodes that are read for that


@dataclass(frozen=True)
class Made:
    """``path``: empty when nothing was written."""

    path: Path
    manifest: HeadManifest


def usable(workspace: Workspace, task_id: str, robot_id: str, newest: int = 0, catalog: Catalog | None = None) -> list[EpisodeRow]:
    """The episodes that a head is fitted to or judged on, the ``newest`` ones (0: all), in the order of recording."""
    if not workspace.catalog_path.exists():
        return []
    with catalog_of(workspace, catalog) as opened:
        return list(itertools.islice(opened.newest_counted(task_id, robot_id, KINDS), newest or None))[::-1]


def recorded_episodes(workspace: Workspace, task_id: str, robot_id: str, catalog: Catalog | None = None) -> int:
    """How many there are, whether usable or not."""
    if not workspace.catalog_path.exists():
        return 0
    with catalog_of(workspace, catalog) as opened:
        return opened.count_episodes(task_id, robot_id, [kind.value for kind in KINDS])


def read_targets(
    workspace: Workspace,
    task_id: str,
    robot_id: str,
    newest: int = 0,
    on_progress: Progress | None = None,
    catalog: Catalog | None = None,
) -> tuple[RobotSpec | None, list[Targets]]:
    """The robot and what every recorded episode teaches, in the order of recording, labels applied, excluded ones left out; ``newest``:
    of so many at most (0: all).

    Raises `ValueError` naming an episode whose observations are others than those of the first, `DamagedFile` naming the file.
    """
    rows = usable(workspace, task_id, robot_id, newest, catalog)
    if not rows:
        return None, []
    with catalog_of(workspace, catalog) as opened:
        labels = training_labels(opened, [row.id for row in rows])
    spec: RobotSpec | None = None
    found: list[Targets] = []
    bins: Bins | None = None
    for row in rows:
        start, steps, end = read_records(workspace.path / row.path)
        if spec is None or bins is None:
            spec, bins = start.spec, Bins.of(start.spec.max_steps)
        if (start.spec.observation.names, start.spec.max_steps) != (spec.observation.names, spec.max_steps):
            raise ValueError(f"episode {start.episode_id} has other observations or another step limit than those before; exclude it")
        found.append(targets_of(start, steps, end, bins, labels.get(start.episode_id)))
        if on_progress is not None and not on_progress(len(found), len(rows)):
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
    newest: int = 0,
    on_progress: Progress | None = None,
    catalog: Catalog | None = None,
) -> Made:
    """Read, fit, judge on held-out episodes, and keep the head (``keep``) for actors to use from their next episode on.

    Raises `ValueError` when there is too little to learn from or a value is out of range, `FitCancelled`, `OSError`.
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha = {alpha}; the promised share of false alarms lies between 0 and 1")
    if not 0.0 < success_steps < 1e6:
        raise ValueError(f"success_steps = {success_steps}; a positive number of steps")
    recorded = recorded_episodes(workspace, task_id, robot_id, catalog)
    spec, episodes = read_targets(workspace, task_id, robot_id, newest, on_progress, catalog)
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
        recorded=recorded,
        report=found,
        wall_ns=time.time_ns(),
    )
    if not keep:
        return Made(head_path(workspace.path, robot_id, task_id), manifest)
    return Made(save_head(workspace.path, head, manifest), manifest)


def is_due(workspace: Workspace, task_id: str, robot_id: str, catalog: Catalog | None = None) -> bool:
    """Whether so much was recorded since the last fit that another is worth it; a damaged head is replaced."""
    recorded = recorded_episodes(workspace, task_id, robot_id, catalog)
    try:
        manifest, _ = read_head(head_path(workspace.path, robot_id, task_id))
    except (FileNotFoundError, PolicyRefused):
        return recorded >= LEAST_NEW
    return recorded >= manifest.recorded + max(LEAST_NEW, manifest.recorded // 4)
