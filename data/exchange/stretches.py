"""Unbroken stretches of an episode, as arrays: what every export format is written from."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import h5py
import numpy as np

from takeover.data.episode_build import DEMO
from takeover.data.episode_file import EpisodeReader
from takeover.data.episode_read import open_episode
from takeover.data.exchange.selection import Source, check_source
from takeover.data.hdf5_image import DamagedFile
from takeover.data.schema import ControlMode, EpisodeEnd, EpisodeStart
from takeover.data.schema import Source as Authority

PictureChoice = Literal["camera", "policy", "none"]
"""camera: the recorded JPEGs, as they are; policy: the policy's own small pictures, exact; none."""

COLUMNS = (
    "run_id", "t_observation_ns", "t_decision_ns", "t_applied_ns", "wall_ns", "control_mode", "policy_from_seq", "policy_version",
    "intervention_id", "safety_bits", "spread", "policy_action", "policy_action_valid", "human_action", "human_action_valid",
    "asked_action", "action", "source", "device_alive", "command_age_ms", "picture_age_ms", "reward", "terminated", "truncated", "seq",
)  # fmt: skip


@dataclass
class Stretch:
    """Steps ``steps`` (numbers in the episode's file) of one episode, n of them, without a jump between them unless runs were joined.

    ``columns``: {hil column: (n, ...)}, floats in float64, absent actions NaN. ``reward``, ``terminated``, ``truncated`` are the
    current ones: a person's outcome counts. ``weight`` is 0 for steps that are excluded. ``pictures``: {camera: n JPEG byte strings, or
    (n, H, W, 3) uint8}; ``picture_age_s``: {camera: (n,)}, negative where the first picture came after the observation.
    """

    source: Source
    number: int
    count: int
    steps: np.ndarray
    start: EpisodeStart
    end: EpisodeEnd
    observation: np.ndarray
    next_observation: np.ndarray
    columns: dict[str, np.ndarray]
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    success: np.ndarray
    modes: np.ndarray
    intv_label: np.ndarray
    weight: np.ndarray
    states: np.ndarray
    pictures: dict[str, list[bytes] | np.ndarray] = field(default_factory=dict)
    next_pictures: dict[str, np.ndarray] = field(default_factory=dict)
    picture_age_s: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def id(self) -> str:
        """The episode's id, with the stretch's number when it is only a part."""
        return self.start.episode_id if self.count == 1 and self.is_whole else f"{self.start.episode_id}-r{self.number}"

    @property
    def is_whole(self) -> bool:
        """Whether every step of the episode is here."""
        return len(self.steps) == self.source.row.steps

    @property
    def is_last(self) -> bool:
        """Whether the episode ends here, outcome and all."""
        return int(self.steps[-1]) == self.source.last_step

    @property
    def human(self) -> np.ndarray:
        """(n,) bool: a person had authority over any action group, ramps included."""
        return (self.columns["source"] == Authority.HUMAN).any(axis=1)

    @property
    def intervened(self) -> np.ndarray:
        """(n,) bool: control mode human or transition, outside demonstrations as in them."""
        return np.isin(self.columns["control_mode"], (ControlMode.HUMAN, ControlMode.TRANSITION))


def read_stretches(source: Source, pictures: PictureChoice = "none", join_runs: bool = False, keep_excluded: bool = False) -> list[Stretch]:
    """An episode's stretches: runs (a hold, gap or abort ends one) without what labels leave out, or all in one with ``join_runs``.

    Raises `DamagedFile` naming the file and what is wrong in it, `FileNotFoundError`.
    """
    check_source(source)
    with EpisodeReader(source.path) as reader, open_episode(source.path) as file:
        demo = file[DEMO]
        try:
            return list(_stretches(source, reader, demo, pictures, join_runs, keep_excluded))
        except (KeyError, OSError, IndexError) as error:
            raise DamagedFile(f"{source.path}: {error}") from error


def _stretches(
    source: Source, reader: EpisodeReader, demo: h5py.Group, pictures: PictureChoice, join_runs: bool, keep_excluded: bool
) -> Iterator[Stretch]:
    columns = {name: reader.column(name) for name in COLUMNS}
    count = len(reader)
    weights = source.weights(count)
    parts = split(np.flatnonzero(source.kept(count, keep_excluded)), columns["run_id"], columns["seq"], join_runs)
    reward, terminated, truncated = _outcome(source, columns, count)
    success = np.zeros(count, bool)
    success[source.last_step] = source.row.success
    observation, following = demo["obs/state"][:], demo["next_obs/state"][:]
    modes, labels, states = demo["action_modes"][:], demo["intv_labels"][:], demo["states"][:]
    for number, steps in enumerate(parts):
        found = Stretch(
            source=source,
            number=number,
            count=len(parts),
            steps=steps,
            start=reader.start,
            end=reader.end,
            observation=observation[steps],
            next_observation=following[steps],
            columns={name: values[steps] for name, values in columns.items()},
            reward=reward[steps],
            terminated=terminated[steps],
            truncated=truncated[steps],
            success=success[steps],
            modes=modes[steps],
            intv_label=labels[steps],
            weight=weights[steps],
            states=states[steps],
        )
        if pictures == "camera":
            _add_camera_pictures(found, reader)
        elif pictures == "policy":
            _add_policy_pictures(found, demo)
        yield found


def split(steps: np.ndarray, run_id: np.ndarray, seq: np.ndarray, join: bool) -> list[np.ndarray]:
    """Cut step numbers (m,) where the run changes or control steps are missing between two; empty parts are left out."""
    if not len(steps):
        return []
    if join:
        return [steps]
    cuts = np.flatnonzero((np.diff(run_id[steps]) != 0) | (np.diff(seq[steps]) != 1)) + 1
    return np.split(steps, cuts)


def _outcome(source: Source, columns: dict[str, np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rewards and ends as the learner takes them: a person's success or failure sets both at the step it is dated to."""
    reward, terminated = columns["reward"].copy(), columns["terminated"].astype(bool)
    truncated = columns["truncated"].astype(bool)
    row = source.row
    if row.outcome_source in ("operator", "label") and row.outcome in ("success", "failure") and count:
        reward[source.last_step] = 1.0 if row.success else 0.0
        terminated[source.last_step], truncated[source.last_step] = True, False
    return reward, terminated, truncated


def _add_camera_pictures(found: Stretch, reader: EpisodeReader) -> None:
    """The newest picture at each observation, as it was compressed when recorded."""
    times = found.columns["t_observation_ns"]
    for camera in reader.cameras:
        taken = reader.frame_times_ns(camera)
        index = np.maximum(np.searchsorted(taken, times, side="right") - 1, 0)
        cache: dict[int, bytes] = {}
        jpegs = []
        for i in index.tolist():
            if i not in cache:
                cache = {i: reader.frame(camera, i)}
            jpegs.append(cache[i])
        found.pictures[camera] = jpegs
        found.picture_age_s[camera] = (times - taken[index]) / 1e9


def _add_policy_pictures(found: Stretch, demo: h5py.Group) -> None:
    """The pictures the policy saw, (n, H, W, 3) u1. Raises `DamagedFile` when a step has none: a black one would be a lie."""
    for camera in sorted(set(demo["obs"]) - {"state"}):
        rows = demo["hil/frame_index"][:][found.steps]
        valid = demo["hil/image_valid"][camera][:]
        missing = np.flatnonzero(valid[rows] == 0)
        if missing.size:
            step = int(found.steps[missing[0]])
            raise DamagedFile(f"{found.source.path}: obs/{camera} has no picture at step {step}; export the camera pictures or none")
        found.pictures[camera] = demo["obs"][camera][:][found.steps]
        following = demo["next_obs"][camera][:][found.steps]
        bad = valid[rows + 1] == 0
        following[bad] = found.pictures[camera][bad]  # a run's last picture may be missing; the one before stands in
        found.next_pictures[camera] = following
        found.picture_age_s[camera] = np.zeros(len(found))
