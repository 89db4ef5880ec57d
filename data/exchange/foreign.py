"""An episode read from somebody's file, as arrays, and the robot it is said to be of. Everything is checked before it is ours."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np

from takeover.data.episode_schema import ACTION_COLUMNS
from takeover.data.exchange.errors import ExchangeError
from takeover.data.schema import (
    ActionGroup,
    ActionSpec,
    CameraSpec,
    ControlMode,
    EpisodeKind,
    EpisodeStart,
    ObservationSpec,
    Outcome,
    OutcomeSource,
    RobotSpec,
)
from takeover.data.schema import Source as Authority
from takeover.data.workspace import MAX_EPISODE_BYTES, plain_name

ActionKind = Literal["ee_delta", "ee_pose", "joint_delta", "joint_position"]
LARGEST_POLICY_PICTURE = 256  # pixels a side; larger ones are kept as camera pictures
MAX_STEPS = 200_000
MAX_PICTURE_BYTES = MAX_EPISODE_BYTES // 2
_SMALL_INTEGERS = ("run_id", "policy_version", "intervention_id", "safety_bits")
_ALLOWED: dict[str, tuple[int, ...]] = {
    "control_mode": (ControlMode.POLICY, ControlMode.HUMAN, ControlMode.TRANSITION),  # held steps are no steps
    "source": tuple(Authority),
}


@dataclass(frozen=True)
class ImportOptions:
    """What the file does not say. Empty fields: as the file says, or a neutral default.

    ``scale``: the action's numbers are divided by these (one per dimension) to lie in [-1, 1]; ``auto_scale`` takes the largest
    absolute value of each dimension in the file.
    """

    kind: EpisodeKind = EpisodeKind.DEMONSTRATION
    robot_id: str = ""
    task_id: str = ""
    prompt: str = ""
    operator: str = "imported"
    control_hz: float = 0.0
    action_kind: ActionKind = "ee_delta"
    frame: str = "base"
    gripper: Literal["none", "continuous", "discrete"] = "continuous"
    scale: tuple[float, ...] = ()
    auto_scale: bool = False
    prefix: str = ""
    """Episodes are named <prefix>-<number>; empty: made of the file's name."""


@dataclass
class ForeignEpisode:
    """n steps. ``columns`` may hold any `stretches.COLUMNS` that the file has. ``jpegs``: {camera: n JPEG byte strings};
    ``small``: {camera: (n, H, W, 3) uint8} for the policy, and ``small_after`` the pictures that follow them.
    ``where`` begins every error: file and episode. ``start``: of our own exports, else None."""

    id: str
    where: str
    spec: RobotSpec
    kind: EpisodeKind
    observation: np.ndarray
    next_observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    outcome: Outcome
    outcome_source: OutcomeSource = OutcomeSource.NONE
    event_step: int = -1
    operator: str = "imported"
    wall_ns: int = 0
    intervention: np.ndarray | None = None
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    states: np.ndarray | None = None
    jpegs: dict[str, list[bytes]] = field(default_factory=dict)
    small: dict[str, np.ndarray] = field(default_factory=dict)
    small_after: dict[str, np.ndarray] = field(default_factory=dict)
    start: EpisodeStart | None = None
    discarded: bool = False

    def __len__(self) -> int:
        return len(self.action)


def check(episode: ForeignEpisode) -> None:
    """Raise `ExchangeError` for shapes that differ, numbers that are not finite, actions beyond [-1, 1], ids that are no names."""
    where, n, spec = episode.where, len(episode), episode.spec
    _check_spec(spec, where)
    for name in (episode.id, spec.robot_id, spec.task_id, episode.operator, *episode.jpegs, *episode.small):
        try:
            plain_name(name)
        except ValueError as error:
            raise ExchangeError(f"{where}: {error}") from None
    if not 1 <= n <= MAX_STEPS:
        raise ExchangeError(f"{where}: {n} steps; an episode has 1 to {MAX_STEPS}")
    for key, array, tail in (
        ("observation", episode.observation, (spec.observation.size,)),
        ("next observation", episode.next_observation, (spec.observation.size,)),
        ("action", episode.action, (spec.action.size,)),
        ("reward", episode.reward, ()),
        ("terminated", episode.terminated, ()),
        ("truncated", episode.truncated, ()),
        *((f"pictures of {name}", array, array.shape[1:]) for name, array in episode.small.items()),
    ):
        if array.shape != (n, *tail):
            raise ExchangeError(f"{where}: {key} has the shape {array.shape}, {(n, *tail)} is needed")
    for camera, jpegs in episode.jpegs.items():
        if len(jpegs) != n:
            raise ExchangeError(f"{where}: {len(jpegs)} pictures of {camera}, {n} are needed")
    _check_columns(episode)
    for key, array in (("observation", episode.observation), ("next observation", episode.next_observation), ("reward", episode.reward)):
        finite(array, where, key)
    finite(episode.action, where, "action")
    beyond = np.flatnonzero((np.abs(episode.action) > 1.0 + 1e-6).any(axis=1))
    if beyond.size:
        step = int(beyond[0])
        largest = float(np.abs(episode.action[step]).max())
        raise ExchangeError(
            f"{where}: action is {largest:g} at step {step}; ours are within [-1, 1]: "
            "say what 1 stands for (--scale), or take the largest (--auto-scale)"
        )
    pictures = sum(len(jpeg) for stack in episode.jpegs.values() for jpeg in stack) + sum(array.nbytes for array in episode.small.values())
    if pictures > MAX_PICTURE_BYTES:
        raise ExchangeError(f"{where}: {pictures >> 20} MiB of pictures; an episode may have {MAX_PICTURE_BYTES >> 20} MiB")


def _check_spec(spec: RobotSpec, where: str) -> None:
    """A spec from a file must hold together: as many scales and units as names, groups within the action, a rate above 0."""
    action, size = spec.action, spec.action.size
    if not (0.1 <= spec.control_hz <= 10_000):
        raise ExchangeError(f"{where}: control_hz is {spec.control_hz:g}; 0.1 to 10000 are possible")
    if not (len(action.units) == len(action.scale) == size > 0) or len(spec.observation.units) != spec.observation.size:
        raise ExchangeError(f"{where}: the robot's spec has {size} action names, {len(action.units)} units and {len(action.scale)} scales")
    if not np.isfinite(action.scale).all() or min(action.scale) <= 0:
        raise ExchangeError(f"{where}: the action's scale is {action.scale}; every one must be above 0")
    if not action.groups or any(not 0 <= group.start < group.stop <= size for group in action.groups):
        raise ExchangeError(f"{where}: action groups {[(g.name, g.start, g.stop) for g in action.groups]} of {size} numbers")


def _check_columns(episode: ForeignEpisode) -> None:
    """Values that our records can hold: known modes and sources, counters that grow, 32-bit where ours are."""
    for name, values in episode.columns.items():
        allowed = _ALLOWED.get(name)
        bad: np.ndarray = np.zeros(len(values), bool)
        if len(values) != len(episode):
            raise ExchangeError(f"{episode.where}: {name} has {len(values)} rows, {len(episode)} are needed")
        width = _width(name, episode.spec)
        if (values.shape[1:] or (1,)) != (width,):
            raise ExchangeError(f"{episode.where}: {name} has the shape {values.shape}, {width} numbers a step are needed")
        if allowed is not None:
            bad = np.array(~np.isin(values, allowed).reshape(len(values), -1).all(axis=1))
        elif name in _SMALL_INTEGERS:
            bad = np.abs(np.asarray(values, np.float64)) >= 2**31
        elif name in ("seq", "t_observation_ns"):
            bad[1:] = np.diff(values) <= 0
        if bad.any():
            step = int(np.flatnonzero(bad)[0])
            raise ExchangeError(f"{episode.where}: {name} cannot be {values[step].tolist()!r} at step {step}")


def _width(name: str, spec: RobotSpec) -> int:
    if name == "source":
        return len(spec.action.groups)
    return spec.action.size if name in ACTION_COLUMNS else 1


def content_digest(episode: ForeignEpisode) -> str:
    """SHA-256 over everything of an episode that will be kept: the same one again is known by it."""
    digest = hashlib.sha256(repr((episode.id, episode.kind, episode.outcome, episode.event_step)).encode())
    digest.update(msgspec.json.encode(episode.spec))
    arrays = [episode.observation, episode.next_observation, episode.action, episode.reward, episode.terminated, episode.truncated]
    arrays += [episode.columns[name] for name in sorted(episode.columns)]
    arrays += [episode.small[name] for name in sorted(episode.small)]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    for name in sorted(episode.jpegs):
        for jpeg in episode.jpegs[name]:
            digest.update(jpeg)
    return digest.hexdigest()


def finite(array: np.ndarray, where: str, key: str) -> None:
    """Raises `ExchangeError` naming the first step that is not finite."""
    bad = np.flatnonzero(~np.isfinite(np.asarray(array, np.float64).reshape(len(array), -1)).all(axis=1))
    if bad.size:
        raise ExchangeError(f"{where}: {key} is not finite at step {int(bad[0])}")


def synthesised_spec(
    options: ImportOptions,
    *,
    robot_id: str,
    task_id: str,
    prompt: str,
    control_hz: float,
    action_names: Sequence[str],
    observation_names: Sequence[str],
    scale: Sequence[float],
    longest: int,
    cameras: Mapping[str, tuple[int, int]],
    simulated: bool = False,
) -> RobotSpec:
    """A spec of what is known: names, rate, scale. What is not known is left neutral (units "", no limits, one action group)."""
    width = len(action_names)
    return RobotSpec(
        robot_id=options.robot_id or name_of(robot_id) or "imported",
        task_id=options.task_id or name_of(task_id) or "imported",
        prompt=options.prompt or prompt,
        control_hz=options.control_hz or control_hz,
        max_steps=longest,
        action=ActionSpec(
            kind=options.action_kind,
            frame=options.frame,
            names=list(action_names),
            units=[""] * width,
            scale=[float(value) for value in scale],
            groups=[ActionGroup(name="all", start=0, stop=width)],
            gripper=options.gripper,
        ),
        observation=ObservationSpec(names=list(observation_names), units=[""] * len(observation_names)),
        cameras=[
            CameraSpec(name=name, width=size[1], height=size[0], rate_hz=options.control_hz or control_hz)
            for name, size in sorted(cameras.items())
        ],
        simulated=simulated,
        has_watchdog=False,
        can_reset=False,
        workspace_low=[0.0, 0.0, 0.0],
        workspace_high=[0.0, 0.0, 0.0],
    )


def name_of(text: Any) -> str:
    """Letters, digits, - and _ of a text, at most 40: an id made of somebody's name."""
    made = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in str(text))
    return made.strip("-")[:40]


def flat_names(names: Any, size: int, prefix: str) -> list[str]:
    """``size`` names: the given ones (a list, or LeRobot's {group: list}) when they fit, else <prefix>0, <prefix>1, ..."""
    if isinstance(names, Mapping):
        names = [item for group in names.values() if isinstance(group, list | tuple) for item in group]
    if isinstance(names, list | tuple) and len(names) == size and all(isinstance(n, str) for n in names) and len(set(names)) == size:
        return list(names)
    return [f"{prefix}{i}" for i in range(size)]


def scaled(actions: np.ndarray, scale: Sequence[float], where: str) -> np.ndarray:
    """Actions divided by ``scale``. Raises `ExchangeError` when it has another size or a zero."""
    if len(scale) != actions.shape[1] or min(scale, default=1.0) <= 0:
        raise ExchangeError(f"{where}: scale has {len(scale)} numbers (all must be above 0), the action has {actions.shape[1]}")
    return np.asarray(actions, np.float64) / np.asarray(scale, np.float64)
