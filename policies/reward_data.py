"""Recorded episodes as examples for a reward classifier: states, pictures on demand, what is known of each step, and the split."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from takeover.data.catalog import Catalog
from takeover.data.catalog_tables import EpisodeRow
from takeover.data.episode_build import DEMO
from takeover.data.episode_file import open_episode, read_events, read_records
from takeover.data.episode_labels import EpisodeLabels, within
from takeover.data.hdf5_image import DamagedFile
from takeover.data.outcome_labels import label_log_bytes, outcome_events
from takeover.data.schema import EpisodeKind, EpisodeStart, RobotSpec, Step
from takeover.data.training_labels import training_labels
from takeover.data.workspace import Workspace
from takeover.policies.reward_evidence import (
    Evidence,
    Judgement,
    count_vetoes,
    driven,
    evidence_of,
    judge,
    negative_marks,
    task_judges,
    with_marks,
)
from takeover.policies.reward_settings import RewardError, RewardSettings

KINDS = (EpisodeKind.DEMONSTRATION, EpisodeKind.POLICY, EpisodeKind.EVALUATION)
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class RewardEpisode:
    """One episode: ``states`` (N, D) float32 that its steps led to, and what is known of each."""

    episode_id: str
    file_sha256: str
    path: Path
    judgement: Judgement
    evidence: Evidence
    states: npt.NDArray[np.float32]
    vetoes: int = 0

    @property
    def has_positive(self) -> bool:
        return bool((self.evidence.labels == 1).any())

    @property
    def judged(self) -> bool:
        """Whether anything is known of it."""
        return bool((self.evidence.labels >= 0).any())


@dataclass(frozen=True)
class Recorded:
    """All usable episodes of one robot and task, oldest first, and where the labels stood."""

    spec: RobotSpec
    episodes: list[RewardEpisode]
    problems: list[str]  # files that could not be read
    label_log_bytes: int

    @property
    def snapshot(self) -> str:
        """sha256 over what every episode is and says: equal snapshots train equal classifiers."""
        digest = hashlib.sha256()
        for episode in self.episodes:
            digest.update(f"{episode.episode_id} {episode.file_sha256} {episode.judgement}".encode())
            digest.update(episode.evidence.labels.tobytes() + episode.evidence.hard.tobytes())
        return digest.hexdigest()


def rows_of(catalog: Catalog, robot_id: str, task_id: str) -> list[EpisodeRow]:
    """Episodes that count, oldest first; excluded and discarded ones are left out."""
    kinds = {kind.value for kind in KINDS}
    rows = catalog.episodes(task_id=task_id)
    return [row for row in rows if row.robot_id == robot_id and row.kind in kinds and not row.excluded]


def read_recorded(workspace: Workspace | Path | str, robot_id: str, task_id: str, settings: RewardSettings) -> Recorded:
    """Raises `RewardError` when there is no episode, or they differ in what they observe."""
    where = workspace if isinstance(workspace, Workspace) else Workspace(workspace)
    if not where.catalog_path.exists():
        raise RewardError(f"{where.path} has no catalog: record episodes first")
    with Catalog.open(where) as catalog:
        rows = rows_of(catalog, robot_id, task_id)
        ids = [row.id for row in rows]
        given, labels, log_bytes = outcome_events(catalog, ids), training_labels(catalog, ids), label_log_bytes(catalog)
    episodes: list[RewardEpisode] = []
    problems: list[str] = []
    spec: RobotSpec | None = None
    for row in rows:
        path = where.path / row.path
        try:
            start, steps, end = read_records(path)
            with open_episode(path, sealed=True) as file:
                events = read_events(file[DEMO], start)
        except (DamagedFile, FileNotFoundError) as error:
            problems.append(str(error))
            continue
        spec = spec or start.spec
        _check_spec(spec, start)
        kept = driven(steps)
        if not kept:
            continue
        judgement = judge(end, given.get(row.id, []), task_judges(start, kept))
        evidence = with_marks(evidence_of(judgement, len(kept), start.spec.control_hz, settings), kept, events)
        evidence = _left_out(evidence, labels[row.id])
        states = np.array([step.next_observation for step in kept], np.float32)
        if not np.isfinite(states).all():
            raise RewardError(
                f"{path}: an observation is not finite at step {int(np.flatnonzero(~np.isfinite(states).all(1))[0])}; exclude it"
            )
        vetoes = count_vetoes(judgement, negative_marks(kept, events))
        episodes.append(RewardEpisode(row.id, row.sha256, path, judgement, evidence, states, vetoes))
    if spec is None:
        more = f"; {problems[0]}" if problems else ""
        raise RewardError(f"no episode of {robot_id}:{task_id} in {where.path}: record some, or name another robot{more}")
    return Recorded(spec, episodes, problems, log_bytes)


def _check_spec(spec: RobotSpec, start: EpisodeStart) -> None:
    if start.spec.observation.names != spec.observation.names:
        differing = sorted(set(start.spec.observation.names) ^ set(spec.observation.names))
        raise RewardError(f"episode {start.episode_id} observes other things than the first one ({', '.join(differing)}); exclude one kind")


def _left_out(evidence: Evidence, labels: EpisodeLabels) -> Evidence:
    """Excluded segments and what was trimmed off are no examples."""
    out = np.array([within(step, labels.left_out) for step in range(len(evidence.labels))], np.bool_)
    return Evidence(np.where(out, np.int8(-1), evidence.labels).astype(np.int8), evidence.hard & ~out)


def split(episodes: Sequence[RewardEpisode], share: float, held_out_before: Sequence[str], trained_before: Sequence[str]) -> set[str]:
    """Ids of the episodes that are held out: ``share`` of those with a positive and of those without, at least one of each.

    What an earlier version held out stays held out, and what it trained on is never held out later. Hard negatives are trained on. What
    nothing is known of is not held out: it tells nothing of a classifier. The rest goes by the hash of the episode's id, so the split is
    the same wherever it is made.
    """
    chosen: set[str] = set()
    for positive in (True, False):
        group = [e for e in episodes if e.judged and e.has_positive == positive and not e.evidence.hard.any()]
        kept = [episode.episode_id for episode in group if episode.episode_id in set(held_out_before)]
        fresh = [episode.episode_id for episode in group if episode.episode_id not in {*held_out_before, *trained_before}]
        fresh.sort(key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        wanted = max(1, round(share * len(group))) if len(group) > 1 else 0
        chosen.update(kept + fresh[: max(0, wanted - len(kept))])
    return chosen


def pictures_after(episode_path: Path, cameras: Sequence[str]) -> Iterator[tuple[int, dict[str, Pixels]]]:
    """(driven step, {camera: (H, W, 3) uint8}) of the pictures that show what each driven step led to; steps that lack one are left out.

    Raises `DamagedFile`, `FileNotFoundError`.
    """
    _, steps, _ = read_records(episode_path, images=True)
    driven_index = -1
    held = {step.seq for step in steps} - {step.seq for step in driven(steps)}
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        if step.seq in held:
            continue
        driven_index += 1
        found = _pictures(step, following)
        if all(camera in found for camera in cameras):
            yield driven_index, {camera: found[camera] for camera in cameras}


def _pictures(step: Step, following: Step | None) -> dict[str, Pixels]:
    """Of what a step led to: its own last pictures at the end of a run, else those the next step saw."""
    images = step.next_images or (following.images if following is not None and following.run_id == step.run_id else [])
    return {image.camera: np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3) for image in images}
