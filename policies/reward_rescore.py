"""Rewards by a classifier as labels: an episode's outcome is set anew by one version, and replay follows as it follows any label.

The recorded rewards stay as they are. A person's outcome, key or label, always stands. Run again, nothing changes; stopped, it goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from torch import Tensor

from takeover.data.catalog import Catalog
from takeover.data.catalog_tables import LabelEvent
from takeover.data.episode_file import read_records
from takeover.data.hdf5_image import DamagedFile
from takeover.data.labels import Labels
from takeover.data.outcome_labels import outcome_events
from takeover.data.schema import EpisodeEnd, EpisodeKind, Outcome, OutcomeSource
from takeover.data.workspace import Workspace
from takeover.policies.reward_data import rows_of
from takeover.policies.reward_evidence import by_classifier, driven, task_judges
from takeover.policies.reward_fit import RewardCancelled
from takeover.policies.reward_model import RewardModel, first_success
from takeover.policies.reward_settings import RewardError
from takeover.policies.reward_store import RewardManifest, load_reward, newest_for

Progress = Callable[[int, int], bool]
TRAINED = (EpisodeKind.DEMONSTRATION.value, EpisodeKind.POLICY.value)


class Rescored(msgspec.Struct, frozen=True, kw_only=True):
    """What a version says of one episode."""

    episode_id: str
    before: str  # as it stood: "success@41", "failure", ...
    after: str
    highest: float  # probability
    changed: bool


@dataclass(frozen=True)
class Standing:
    """Who an episode's outcome is from now."""

    value: str
    by: str  # "person", "classifier", or the recorded source


def recorded_value(end: EpisodeEnd) -> str:
    return f"{end.outcome.value}@{end.event_step}" if end.outcome == Outcome.SUCCESS else end.outcome.value


def standing_of(end: EpisodeEnd, events: list[LabelEvent]) -> Standing:
    """A label that was taken back leaves what was recorded."""
    newest = events[-1] if events else None
    if newest is not None and newest.value:
        return Standing(newest.value, "classifier" if by_classifier(newest.author) else "person")
    return Standing(recorded_value(end), end.outcome_source.value)


def rescore(
    workspace: Workspace | Path | str, version: int, progress: Progress, *, over_task: bool = False, write: bool = True
) -> tuple[list[Rescored], list[str]]:
    """Set the outcome of every episode that no person has judged; returns what was said of each, and what could not be read.

    Left as they are: what a person judged, and, unless ``over_task``, what the task itself did. Success at a step where the probability
    passes first: ``success@k``. None: a recorded success becomes ``unknown`` (the episode was cut short), and otherwise what was
    recorded holds. ``write`` off: nothing is changed. Raises `RewardError`, `RewardCancelled`, `LabelError`, `OSError`.
    """
    where = workspace if isinstance(workspace, Workspace) else Workspace(workspace)
    model, manifest = load_reward(where.path, version)
    found: list[Rescored] = []
    problems: list[str] = []
    with Catalog.open(where) as catalog:
        rows = [row for row in rows_of(catalog, manifest.robot_id, manifest.task_id) if row.kind in TRAINED]
        given = outcome_events(catalog, [row.id for row in rows])
        labels = Labels(where, catalog)
        for done, row in enumerate(rows):
            if not progress(done, len(rows)):
                raise RewardCancelled(f"stopped after {done} of {len(rows)} episodes; run it again to go on")
            try:
                start, steps, end = read_records(where.path / row.path, images=bool(model.config.cameras))
            except (DamagedFile, FileNotFoundError) as error:
                problems.append(str(error))
                continue
            recorded = recorded_value(end)
            now = standing_of(end, given.get(row.id, []))
            kept = driven(steps)
            by_task = now.by == OutcomeSource.TASK or (now.by == OutcomeSource.LIMIT and task_judges(start, kept))
            if now.by in ("person", OutcomeSource.OPERATOR) or (by_task and not over_task):
                continue
            if not kept or list(start.spec.observation.names) != manifest.observation_names:
                problems.append(f"episode {row.id}: nothing to score, or other observations than the classifier's")
                continue
            states = np.array([step.next_observation for step in kept], np.float32)
            probabilities = model.probabilities(states, _features(model, where.path / row.path, len(kept)))
            after = _value(first_success(probabilities, model.config.threshold), recorded)
            if end.outcome_source == OutcomeSource.OPERATOR:
                after = recorded  # a key is a person's word: a label that a classifier set against it is taken back
            changed = after != now.value
            if changed and write:  # what was recorded comes back by taking the label back: a time limit is no failure to learn from
                labels.add_label(row.id, "outcome", "" if after == recorded else after, manifest.author)
            highest = float(probabilities.max())
            found.append(Rescored(episode_id=row.id, before=now.value, after=after, highest=highest, changed=changed))
        progress(len(rows), len(rows))
    return found, problems


def _value(seen: int, recorded: str) -> str:
    if seen >= 0:
        return f"{Outcome.SUCCESS.value}@{seen}"
    return Outcome.UNKNOWN.value if recorded.startswith(Outcome.SUCCESS) else recorded


def _features(model: RewardModel, path: Path, count: int) -> Tensor | None:
    if not model.config.cameras:
        return None
    from takeover.policies.reward_pictures import episode_features

    return episode_features(model, path, count)


def veto(workspace: Workspace | Path | str, episode_id: str, author: str) -> LabelEvent:
    """A person says that what a classifier took for success is none: the outcome becomes ``unknown``, the steps hard negatives.

    Raises `RewardError` when the episode is unknown or no classifier has called it a success; `LabelError`, `OSError`.
    """
    if by_classifier(author):
        raise RewardError(f"{author!r} is how a classifier signs; a veto needs a person's pseudonym")
    where = workspace if isinstance(workspace, Workspace) else Workspace(workspace)
    with Catalog.open(where) as catalog:
        try:
            row = catalog.episode(episode_id)
        except KeyError:
            raise RewardError(f"no episode {episode_id!r} in {where.path}") from None
        events = outcome_events(catalog, [episode_id]).get(episode_id, [])
        _, _, end = read_records(where.path / row.path)
        now = standing_of(end, events)
        ended = end.outcome_source == OutcomeSource.CLASSIFIER and end.outcome == Outcome.SUCCESS
        claimed = ended or any(by_classifier(event.author) and event.value.startswith(Outcome.SUCCESS) for event in events)
        if not claimed or not now.value.startswith(Outcome.SUCCESS):
            raise RewardError(f"episode {episode_id} is no success of a classifier (it is {now.value!r} by {now.by}); label it instead")
        return Labels(where, catalog).add_label(episode_id, "outcome", Outcome.UNKNOWN.value, author)


def classifier_for(workspace: Workspace | Path | str, robot_id: str, task_id: str, version: int = 0) -> tuple[RewardModel, RewardManifest]:
    """The newest classifier for a robot and task, or the one asked for. Raises `RewardError`."""
    where = workspace.path if isinstance(workspace, Workspace) else Path(workspace)
    if version:
        return load_reward(where, version)
    manifest = newest_for(where, robot_id, task_id)
    if manifest is None:
        raise RewardError(f"no reward classifier for {robot_id}:{task_id} in {where}; `takeover reward train` makes one")
    return load_reward(where, manifest.version)
