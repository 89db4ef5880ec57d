"""LeRobotDataset v3.0 in: our own exports come back as what they were, other people's become demonstrations (or what is told)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from takeover.data.catalog import Catalog
from takeover.data.catalog_tables import LabelEvent
from takeover.data.exchange.adopt import Adopter, Imported, refresh_index
from takeover.data.exchange.errors import ExchangeError, Progress, silent
from takeover.data.exchange.foreign import (
    ForeignEpisode,
    ImportOptions,
    flat_names,
    name_of,
    scaled,
    synthesised_spec,
)
from takeover.data.exchange.lerobot_read import Dataset, open_dataset
from takeover.data.exchange.lerobot_reader import Reader, camera_of
from takeover.data.exchange.lerobot_survey import spec_sha256
from takeover.data.label_exchange import adopt
from takeover.data.labels import Labels
from takeover.data.schema import EpisodeEnd, EpisodeKind, EpisodeStart, Outcome, OutcomeSource, RobotSpec
from takeover.data.workspace import Workspace

_BACK = {  # our columns' names in LeRobot -> hil
    "policy_action": "policy_action", "policy_action_valid": "policy_action_valid", "human_action": "human_action",
    "human_action_valid": "human_action_valid", "asked_action": "asked_action", "action_source": "source", "control_mode": "control_mode",
    "intervention_id": "intervention_id", "policy_version": "policy_version", "policy_from_seq": "policy_from_seq", "run_id": "run_id",
    "seq": "seq", "safety_bits": "safety_bits", "spread": "spread", "command_age_ms": "command_age_ms", "wallclock_ns": "wall_ns",
    "t_observation_ns": "t_observation_ns", "t_decision_ns": "t_decision_ns", "t_applied_ns": "t_applied_ns",
}  # fmt: skip


def import_lerobot(workspace: Workspace, source: Path | str, options: ImportOptions | None = None, progress: Progress = silent) -> Imported:
    """Make episodes of a dataset's; called again, those that are there are skipped.

    Raises `ExchangeError` naming file, key and step; episodes before the bad one stay. Labels of our own exports come along.
    """
    options = options or ImportOptions()
    dataset = open_dataset(source)
    stem = name_of(options.prefix or dataset.path.name) or "lerobot"
    reader = _OwnReader(dataset) if dataset.ours else _ForeignReader(dataset, options, stem)
    workspace.prepare()
    with Catalog.open(workspace) as catalog:
        adopter = Adopter(workspace, catalog, f"import-{stem}", "takeover import lerobot")
        labels = Labels(workspace, catalog)
        progress(0, len(dataset.episodes))
        for number in range(len(dataset.episodes)):
            adopter.add(reader.episode(number), number)
            if isinstance(reader, _OwnReader):
                adopt(labels, dataset.path, reader.labels(number))
            progress(number + 1, len(dataset.episodes))
        refresh_index(workspace, catalog)
    return adopter.result


class _OwnReader(Reader):
    """Exports of ours: start, end, labels and every column come back."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        try:
            self.specs = {sha: msgspec.convert(spec, RobotSpec) for sha, spec in dataset.ours["specs"].items()}
        except (KeyError, AttributeError, msgspec.ValidationError) as error:
            raise ExchangeError(f"{dataset.path}/meta/takeover.json: specs cannot be read: {error}") from error
        absent = [name for name in _BACK if name not in dataset.features]
        if absent:
            raise ExchangeError(
                f"{dataset.path}/meta/info.json: features lacks {', '.join(absent)}; without meta/takeover.json it is foreign"
            )

        if changed := [sha for sha, spec in self.specs.items() if spec_sha256(spec) != sha]:
            raise ExchangeError(f"{dataset.path}/meta/takeover.json: the robot's spec {changed[0][:12]} is not what was exported")
        columns = {"whole", "stretch", "stretches", "episode_id", "operator", "outcome", "outcome_source", "start", "end", "labels"}
        if lacking := sorted(columns - dataset.episodes[0].keys()):
            raise ExchangeError(f"{dataset.path}/meta/episodes lacks {', '.join(lacking)}; without meta/takeover.json it is foreign")

    def episode(self, number: int) -> ForeignEpisode:
        row, where = self.dataset.episodes[number], self.where(number)
        start, end = self._bounds(row, where)
        if start.spec.control_hz != self.dataset.fps:
            raise ExchangeError(
                f"{where}: mixed control rates: {start.spec.control_hz:g} Hz in its spec, {self.dataset.fps} in meta/info.json"
            )
        columns = self.dataset.columns(number)
        observation = _table(columns["observation.state"])
        following = self._following(columns, observation, row, where)
        n = len(observation)
        found = {ours: columns[name] for name, ours in _BACK.items()}
        for name in ("policy_action", "human_action", "asked_action"):
            found[name] = _table(found[name])
        whole, last = bool(row["whole"]), bool(columns["next.done"][-1])
        ended = whole or last
        if not whole:
            start = msgspec.structs.replace(start, t_ns=int(columns["t_observation_ns"][0]), wall_ns=int(columns["wallclock_ns"][0]))
        done, truncated = columns["next.done"], columns["next.truncated"]
        episode = ForeignEpisode(
            id=str(row["episode_id"]) if whole and row["stretches"] == 1 else f"{row['episode_id']}-r{row['stretch']}",
            where=where,
            spec=start.spec,
            kind=start.kind,
            observation=observation,
            next_observation=following,
            action=_table(columns["action"]).astype(np.float64),
            reward=columns["next.reward"].astype(np.float64),
            terminated=done & ~truncated,
            truncated=truncated,
            outcome=end.outcome if whole else Outcome(row["outcome"]) if ended else Outcome.UNKNOWN,
            outcome_source=end.outcome_source if whole else OutcomeSource(row["outcome_source"]) if ended else OutcomeSource.NONE,
            event_step=end.event_step if whole else n - 1,
            operator=str(row["operator"]),
            wall_ns=start.wall_ns,
            columns=found,
            start=start,
            discarded=end.discarded,
        )
        self.add_pictures(episode, columns, number)
        return episode

    def _bounds(self, row: Mapping[str, Any], where: str) -> tuple[EpisodeStart, EpisodeEnd]:
        try:
            fields = json.loads(row["start"])
            spec = self.specs[fields["spec"]]
            start = msgspec.convert(fields | {"spec": msgspec.to_builtins(spec)}, EpisodeStart)
            end = msgspec.json.decode(row["end"], type=EpisodeEnd)
            Outcome(row["outcome"]), OutcomeSource(row["outcome_source"]), int(row["stretch"])
        except (KeyError, TypeError, ValueError) as error:
            raise ExchangeError(f"{where}: start, end or outcome cannot be read: {error}") from error
        return start, end

    @staticmethod
    def _following(columns: Mapping[str, Any], observation: np.ndarray, row: Mapping[str, Any], where: str) -> np.ndarray:
        """The next observations: noted in datasets with joined runs, else the next row; the last one is in the episode's row."""
        if "next.observation.state" in columns:
            return _table(columns["next.observation.state"])
        last = row.get("final_state")
        if not isinstance(last, list) or len(last) != observation.shape[1] or any(value is None for value in last):
            raise ExchangeError(f"{where}: final_state does not have {observation.shape[1]} numbers")
        return np.concatenate([observation[1:], np.array([last], np.float64)])

    def labels(self, number: int) -> list[LabelEvent]:
        row = self.dataset.episodes[number]
        if not row["whole"] or row["stretches"] != 1:
            return []
        try:
            return msgspec.json.decode(row["labels"], type=list[LabelEvent])
        except (KeyError, TypeError, msgspec.DecodeError) as error:
            raise ExchangeError(f"{self.where(number)}: labels cannot be read: {error}") from error


class _ForeignReader(Reader):
    """Anybody's dataset: every ``observation.*`` number makes up the observation, ``action`` is scaled into [-1, 1]."""

    def __init__(self, dataset: Dataset, options: ImportOptions, stem: str) -> None:
        super().__init__(dataset)
        self.options, self.stem = options, stem
        if options.control_hz and options.control_hz != dataset.fps:
            raise ExchangeError(f"{dataset.path}/meta/info.json: fps is {dataset.fps}, --control-hz says {options.control_hz:g}")
        self.keys = [
            key
            for key, feature in dataset.features.items()
            if key.startswith("observation.") and not feature.is_picture and feature.dtype != "string"
        ]
        if not self.keys:
            raise ExchangeError(f"{dataset.path}/meta/info.json: features has no observation.state or other observation of numbers")
        self.scale = self._scale()
        self.modified_ns = (dataset.path / "meta/info.json").stat().st_mtime_ns

    def _scale(self) -> list[float]:
        size = self.dataset.features["action"].shape[0]
        if not self.options.auto_scale:
            return list(self.options.scale) or [1.0] * size
        largest = np.zeros(size)
        for number in range(len(self.dataset.episodes)):
            largest = np.maximum(largest, np.abs(_table(self.dataset.columns(number)["action"]).astype(np.float64)).max(axis=0))
        return np.where(largest > 0, largest, 1.0).tolist()

    def _spec(self, number: int, cameras: Mapping[str, tuple[int, int]]) -> RobotSpec:
        dataset, tasks = self.dataset, self.dataset.episodes[number]["tasks"] or [""]
        names = [
            n
            for key in self.keys
            for n in flat_names(dataset.features[key].names, dataset.features[key].shape[0], f"{key.removeprefix('observation.')}.")
        ]
        action = dataset.features["action"]
        return synthesised_spec(
            self.options,
            robot_id=dataset.robot,
            task_id=tasks[0],
            prompt=tasks[0],
            control_hz=float(dataset.fps),
            action_names=flat_names(action.names, action.shape[0], "a"),
            observation_names=names if len(set(names)) == len(names) else [f"o{i}" for i in range(len(names))],
            scale=self.scale,
            longest=max(row["length"] for row in dataset.episodes),
            cameras=cameras,
        )

    def episode(self, number: int) -> ForeignEpisode:
        where, row = self.where(number), self.dataset.episodes[number]
        columns = self.dataset.columns(number)
        observation = np.concatenate([_table(columns[key]).astype(np.float64) for key in self.keys], axis=1)
        n = len(observation)
        success = bool(columns["next.success"].any()) if "next.success" in columns else bool(row.get("success") or False)
        terminated = columns["next.done"].astype(bool) if "next.done" in columns else np.zeros(n, bool)
        if success:
            terminated[-1] = True
        truncated = np.zeros(n, bool)
        truncated[-1] = not terminated[-1]  # the file has no observation after the last one: a learner sees it stay where it is
        intervention = columns.get("intervention", columns.get("complementary_info.is_intervention"))
        episode = ForeignEpisode(
            id=f"{self.stem}-{number:06d}",
            where=where,
            spec=self._spec(number, {}),
            kind=self.options.kind,
            observation=observation,
            next_observation=np.concatenate([observation[1:], observation[-1:]]),
            action=scaled(_table(columns["action"]), self.scale, where),
            reward=columns["next.reward"].astype(np.float64) if "next.reward" in columns else _sparse(n, success),
            terminated=terminated,
            truncated=truncated,
            outcome=Outcome.SUCCESS if success else Outcome.UNKNOWN,
            outcome_source=OutcomeSource.TASK if success else OutcomeSource.NONE,
            operator=self.options.operator,
            wall_ns=self.modified_ns + round(row["dataset_from_index"] / self.dataset.fps * 1e9),
            intervention=intervention if self.options.kind is EpisodeKind.POLICY else None,
        )
        self.add_pictures(episode, columns, number)
        sizes = {key: self.dataset.features[key].shape for key in self.picture_keys}
        cameras = {camera_of(key): _height_width(shape) for key, shape in sizes.items()}
        episode.spec = self._spec(number, cameras)
        return episode


def _table(values: np.ndarray) -> np.ndarray:
    return np.asarray(values).reshape(len(values), -1)


def _sparse(n: int, success: bool) -> np.ndarray:
    reward = np.zeros(n)
    reward[-1] = float(success)
    return reward


def _height_width(shape: tuple[int, ...]) -> tuple[int, int]:
    """Of (H, W, 3) or (3, H, W)."""
    return (shape[1], shape[2]) if shape[0] == 3 and len(shape) == 3 else (shape[0], shape[1])
