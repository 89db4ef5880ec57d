"""robomimic in: our own exports come back as what they were, other people's files become demonstrations (or what is told)."""

import json
import re
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np

from takeover.data.catalog import Catalog
from takeover.data.catalog_tables import LabelEvent
from takeover.data.exchange.adopt import Adopter, Imported, refresh_index
from takeover.data.exchange.errors import ExchangeError, Progress, silent
from takeover.data.exchange.foreign import (
    LARGEST_POLICY_PICTURE,
    ForeignEpisode,
    ImportOptions,
    flat_names,
    name_of,
    scaled,
    synthesised_spec,
)
from takeover.data.exchange.hdf5_checks import open_foreign, reading
from takeover.data.exchange.pictures import encode_jpeg
from takeover.data.exchange.robomimic_export import HIL
from takeover.data.label_exchange import adopt
from takeover.data.labels import Labels
from takeover.data.schema import EpisodeEnd, EpisodeKind, EpisodeStart, Outcome, OutcomeSource
from takeover.data.workspace import Workspace

_DEMO = re.compile(r"demo_(0|[1-9][0-9]{0,8})")


def import_robomimic(
    workspace: Workspace, source: Path | str, options: ImportOptions | None = None, progress: Progress = silent
) -> Imported:
    """Make episodes of a file's demos; called again, those that are there are skipped.

    Raises `ExchangeError` naming file, key and step; episodes before the bad one stay. Labels of our own exports come along.
    """
    options = options or ImportOptions()
    path = Path(source).expanduser().absolute()
    stem = name_of(options.prefix or path.stem) or "robomimic"
    with open_foreign(path) as file:
        with reading(path):
            demos = demos_of(file, path)
            reader = _Reader(file, path, options, stem, demos)
        workspace.prepare()
        with Catalog.open(workspace) as catalog:
            adopter = Adopter(workspace, catalog, f"import-{stem}", "takeover import robomimic")
            labels = Labels(workspace, catalog)
            progress(0, len(demos))
            for done, name in enumerate(demos, start=1):
                with reading(f"{path}, /data/{name}"):
                    episode, events = reader.episode(name), reader.labels(name)
                adopter.add(episode, int(name[5:]))
                adopt(labels, path, events)
                progress(done, len(demos))
            refresh_index(workspace, catalog)
    return adopter.result


def demos_of(file: h5py.File, path: Path) -> list[str]:
    """Names of the demos by number. Raises `ExchangeError` for a file that is none of robomimic's."""
    if not isinstance(file.get("data"), h5py.Group):
        raise ExchangeError(f"{path}: no group /data; not a file of robomimic's")
    names = list(file["data"])
    for name in names:
        if not _DEMO.fullmatch(name) or not isinstance(file["data"][name], h5py.Group):
            raise ExchangeError(f"{path}, /data/{name}: demos are groups called demo_<number>")
    if not names:
        raise ExchangeError(f"{path}: /data is empty")
    ids: dict[str, str] = {}
    for name in names:
        attributes = file["data"][name].attrs
        own = f"{attributes.get('episode_id', name)} {attributes.get('stretch', 0)}"
        if own in ids:
            raise ExchangeError(f"{path}: {ids[own]} and {name} have the same id {own}")
        ids[own] = name
    return sorted(names, key=lambda name: int(name[5:]))


class _Reader:
    def __init__(self, file: h5py.File, path: Path, options: ImportOptions, stem: str, demos: list[str]) -> None:
        self.data, self.path, self.options, self.stem = file["data"], path, options, stem
        self.environment = self._environment()
        self.control_hz = self._rate(demos)
        self.modified_ns = path.stat().st_mtime_ns
        self.scale: list[float] = list(options.scale)
        if options.auto_scale:
            found = [np.abs(self._numbers(name, "actions", self._length(name), 2)).max(axis=0) for name in demos]
            if len({len(row) for row in found}) > 1:
                raise ExchangeError(f"{path}: demos have actions of different sizes")
            largest = np.max(found, axis=0)
            self.scale = np.where(largest > 0, largest, 1.0).tolist()

    def _environment(self) -> dict[str, Any]:
        try:
            text = self.data.attrs.get("env_args", "{}")
            value = json.loads(text)
        except (ValueError, TypeError) as error:
            raise ExchangeError(f"{self.path}, /data: env_args is no JSON: {error}") from error
        return value if isinstance(value, dict) else {}

    def _rate(self, demos: list[str]) -> float:
        """The one control rate of the file and the command line. Raises `ExchangeError` when they contradict each other or say none."""
        said: dict[float, str] = {}
        kwargs = self.environment.get("env_kwargs")
        places = [(self.options.control_hz, "--control-hz"), ((kwargs if isinstance(kwargs, dict) else {}).get("control_freq"), "env_args")]
        places += [(self.data[name].attrs.get("control_hz"), name) for name in demos]
        for value, where in places:
            if not value:
                continue
            try:
                rate = float(value)
            except (TypeError, ValueError):
                raise ExchangeError(f"{self.path}, {where}: control rate {value!r} is no number") from None
            if not 0.1 <= rate <= 10_000:
                raise ExchangeError(f"{self.path}, {where}: control rate {rate:g} Hz")
            said.setdefault(rate, where)
        if len(said) > 1:
            pairs = ", ".join(f"{rate:g} Hz ({where})" for rate, where in said.items())
            raise ExchangeError(f"{self.path}: mixed control rates: {pairs}; one file has one rate")
        if not said:
            raise ExchangeError(f"{self.path}: the file does not say its control rate; say it with --control-hz")
        return next(iter(said))

    def _where(self, name: str) -> str:
        return f"{self.path}, /data/{name}"

    def _length(self, name: str) -> int:
        item = self.data[name].get("actions")
        if not isinstance(item, h5py.Dataset) or item.ndim != 2 or not item.shape[0] or not item.shape[1]:
            shape = item.shape if isinstance(item, h5py.Dataset) else "missing"
            raise ExchangeError(f"{self._where(name)}/actions: {shape}; (steps, numbers) is needed")
        noted = self.data[name].attrs.get("num_samples", item.shape[0])
        if noted != item.shape[0]:
            raise ExchangeError(f"{self._where(name)}: num_samples is {noted}, actions has {item.shape[0]} rows")
        return int(item.shape[0])

    def _numbers(self, name: str, key: str, n: int, dimensions: int) -> np.ndarray:
        """(n, ...) of a dataset. Raises `ExchangeError` when it is missing, or has another number of rows or dimensions."""
        item = self.data[name].get(key)
        where = f"{self._where(name)}/{key}"
        if not isinstance(item, h5py.Dataset):
            raise ExchangeError(f"{where} is missing")
        if item.ndim != dimensions or item.shape[0] != n or item.dtype.kind == "S":
            raise ExchangeError(f"{where}: shape {item.shape} of {item.dtype}; {n} rows of numbers in {dimensions} dimensions are needed")
        with reading(where):
            return item[:]

    def episode(self, name: str) -> ForeignEpisode:
        n = self._length(name)
        return self._own(name, n) if "start" in self.data[name].attrs else self._foreign(name, n)

    def _own(self, name: str, n: int) -> ForeignEpisode:
        attributes, where = self.data[name].attrs, self._where(name)
        try:
            start = msgspec.json.decode(attributes["start"], type=EpisodeStart)
            end = msgspec.json.decode(attributes["end"], type=EpisodeEnd)
            whole, stretch = bool(attributes["whole"]) and int(attributes["stretches"]) == 1, int(attributes["stretch"])
            outcome, outcome_source = Outcome(attributes["outcome"]), OutcomeSource(attributes["outcome_source"])
            episode_id, operator = str(attributes["episode_id"]), str(attributes["operator"])
        except (KeyError, TypeError, ValueError) as error:
            raise ExchangeError(f"{where}: an attribute of our export cannot be read: {error}") from error
        wide = {"policy_action": 2, "human_action": 2, "asked_action": 2, "action": 2, "source": 2}
        columns = {key: self._numbers(name, f"hil/{key}", n, wide.get(key, 1)) for key in HIL}
        terminated, truncated = (self._numbers(name, f"hil/{key}", n, 1).astype(bool) for key in ("terminated", "truncated"))
        if not whole:
            start = msgspec.structs.replace(start, t_ns=int(columns["t_observation_ns"][0]), wall_ns=int(columns["wall_ns"][0]))
        ended = whole or bool(terminated[-1] or truncated[-1])
        states = self._numbers(name, "states", n, 2)
        small, after = self._own_pictures(name, n)
        return ForeignEpisode(
            id=episode_id if whole else f"{episode_id}-r{stretch}",
            where=where,
            spec=start.spec,
            kind=start.kind,
            observation=self._numbers(name, "obs/state", n, 2).astype(np.float64),
            next_observation=self._numbers(name, "next_obs/state", n, 2).astype(np.float64),
            action=columns.pop("action"),
            reward=self._numbers(name, "hil/reward", n, 1).astype(np.float64),
            terminated=terminated,
            truncated=truncated,
            outcome=end.outcome if whole else outcome if ended else Outcome.UNKNOWN,
            outcome_source=end.outcome_source if whole else outcome_source if ended else OutcomeSource.NONE,
            event_step=end.event_step if whole else n - 1,
            operator=operator,
            wall_ns=start.wall_ns,
            columns=columns,
            states=states.astype(np.float64) if states.shape[1] else None,
            small=small,
            small_after=after,
            start=start,
            discarded=end.discarded,
        )

    def _own_pictures(self, name: str, n: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        cameras = sorted(set(self.data[name]["obs"]) - {"state"})
        return tuple({camera: self._pixels(name, f"{group}/{camera}", n) for camera in cameras} for group in ("obs", "next_obs"))  # type: ignore[return-value]

    def _pixels(self, name: str, key: str, n: int) -> np.ndarray:
        """(n, H, W, 3) uint8."""
        pixels = self._numbers(name, key, n, 4)
        if pixels.dtype != np.uint8 or pixels.shape[3] != 3:
            raise ExchangeError(
                f"{self._where(name)}/{key}: shape {pixels.shape} of {pixels.dtype}; pictures are (steps, height, width, 3) uint8"
            )
        return pixels

    def _foreign(self, name: str, n: int) -> ForeignEpisode:
        where, group = self._where(name), self.data[name].get("obs")
        if not isinstance(group, h5py.Group) or not len(group):
            raise ExchangeError(f"{where}/obs is missing or empty")
        keys = sorted(key for key in group if not isinstance(group[key], h5py.Dataset) or group[key].ndim <= 2)
        cameras = sorted(key for key in group if key not in keys and group[key].ndim == 4 and group[key].shape[3] == 3)
        if not keys:
            raise ExchangeError(f"{where}/obs has no observation of numbers")
        observation, names = self._observation(name, "obs", keys, n)
        following = np.concatenate([observation[1:], observation[-1:]])
        if isinstance(self.data[name].get("next_obs"), h5py.Group):
            following, _ = self._observation(name, "next_obs", keys, n)
        raw = self._numbers(name, "actions", n, 2).astype(np.float64)
        scale = self.scale or [1.0] * raw.shape[1]
        reward = self._numbers(name, "rewards", n, 1).astype(np.float64) if "rewards" in self.data[name] else np.zeros(n)
        done = self._numbers(name, "dones", n, 1).astype(bool) if "dones" in self.data[name] else np.zeros(n, bool)
        success = bool((reward > 0).any())
        terminated, truncated = done.copy(), np.zeros(n, bool)
        terminated[-1] |= success
        truncated[-1] = not terminated[-1]
        modes = self._numbers(name, "action_modes", n, 1) if "action_modes" in self.data[name] else None
        episode = ForeignEpisode(
            id=f"{self.stem}-{int(name[5:]):06d}",
            where=where,
            spec=synthesised_spec(
                self.options,
                robot_id=str(self.environment.get("env_name", "")),
                task_id=str(self.environment.get("env_name", "")),
                prompt="",
                control_hz=self.control_hz,
                action_names=flat_names(None, raw.shape[1], "a"),
                observation_names=names,
                scale=scale,
                longest=n,
                cameras={name_of(camera): group[camera].shape[1:3] for camera in cameras},
                simulated="env_name" in self.environment,
            ),
            kind=self.options.kind,
            observation=observation,
            next_observation=following,
            action=scaled(raw, scale, where),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            outcome=Outcome.SUCCESS if success else Outcome.UNKNOWN,
            outcome_source=OutcomeSource.TASK if success else OutcomeSource.NONE,
            operator=self.options.operator,
            wall_ns=self.modified_ns + int(name[5:]) * 1_000_000_000,
            intervention=modes == 1 if modes is not None and self.options.kind is EpisodeKind.POLICY else None,
        )
        for camera in cameras:
            pixels = self._pixels(name, f"obs/{camera}", n)
            if max(pixels.shape[1:3]) > LARGEST_POLICY_PICTURE:
                episode.jpegs[name_of(camera)] = [encode_jpeg(picture) for picture in pixels]
            else:
                episode.small[name_of(camera)] = pixels
        return episode

    def _observation(self, name: str, group: str, keys: list[str], n: int) -> tuple[np.ndarray, list[str]]:
        """(n, D) float64 of every low-dimensional key, in the order of their names, and the D names."""
        parts, names = [], []
        for key in keys:
            item = self.data[name][group].get(key)
            values = self._numbers(name, f"{group}/{key}", n, item.ndim if isinstance(item, h5py.Dataset) and item.ndim in (1, 2) else 2)
            values = values.astype(np.float64).reshape(n, -1)
            parts.append(values)
            names += [key] if values.shape[1] == 1 else [f"{key}.{i}" for i in range(values.shape[1])]
        return np.concatenate(parts, axis=1), names

    def labels(self, name: str) -> list[LabelEvent]:
        """Of our own exports' whole episodes."""
        attributes = self.data[name].attrs
        if "labels" not in attributes or not attributes.get("whole") or attributes.get("stretches") != 1:
            return []
        try:
            return msgspec.json.decode(attributes["labels"], type=list[LabelEvent])
        except (TypeError, msgspec.DecodeError) as error:
            raise ExchangeError(f"{self._where(name)}: labels cannot be read: {error}") from error
