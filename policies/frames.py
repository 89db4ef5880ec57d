"""Relative frames: observations and actions as the tool sees them, so that what was learned in one place holds in another.

Two switches. ``relative_pose``: positions and yaws relative to the tool's first pose of the episode, in that pose's axes. ``ee_frame``:
velocities, forces, ways to go, and the action's x and y in the axes of the tool as it is turned now. What is recorded stays canonical;
replay and acting both use this module, on the same float32 numbers.

Entries are known by their names: ``NAME_x`` and ``NAME_y`` belong together, with ``NAME_z`` and ``NAME_yaw`` where there are any. In
metres they are a position, unless NAME begins with ``to_``; everything else is a direction. The tool's pose is ``tool_x``, ``tool_y``,
``tool_z`` (if any), ``tool_yaw``. The tool is taken to hang straight down: only its yaw turns frames.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from takeover.data.schema import RobotSpec
from takeover.policies.base import Decision, FloatArray, LooksBack, Policy, PolicyRefused

Doubles = npt.NDArray[np.float64]
NEEDED = ("tool_x", "tool_y", "tool_yaw")


@dataclass(frozen=True)
class Frames:
    """Which entries of observation and action turn, for one robot. Make it with `of`."""

    relative_pose: bool
    ee_frame: bool
    tool: tuple[int, int, int, int]  # x, y, z (-1: none), yaw
    positions: tuple[tuple[int, int, int, int], ...]  # the tool's among them
    directions: tuple[tuple[int, int], ...]
    action: tuple[int, int]
    scale: tuple[float, float]  # of the action's x and y, SI

    @classmethod
    def of(cls, spec: RobotSpec, relative_pose: bool, ee_frame: bool) -> "Frames | None":
        """None when neither is asked for. Raises `ValueError` saying what the robot lacks."""
        if not (relative_pose or ee_frame):
            return None
        index = {name: i for i, name in enumerate(spec.observation.names)}
        lacking = [name for name in NEEDED if name not in index]
        if lacking:
            raise ValueError(f"relative frames need the observations {', '.join(NEEDED)}; {spec.robot_id} lacks {', '.join(lacking)}")
        actions = {name: i for i, name in enumerate(spec.action.names)}
        if spec.action.kind != "ee_delta" or not {"x", "y"} <= set(actions):
            raise ValueError(f"relative frames need ee_delta actions with x and y; {spec.robot_id} has {spec.action.kind}")
        if turned := sorted({"roll", "pitch"} & set(actions)):
            raise ValueError(f"relative frames know yaw alone; {spec.robot_id} also turns by {', '.join(turned)}: switch them off")
        positions: list[tuple[int, int, int, int]] = []
        directions: list[tuple[int, int]] = []
        for name, x in index.items():
            if not name.endswith("_x") or f"{name[:-1]}y" not in index:
                continue
            prefix, y = name[:-1], index[f"{name[:-1]}y"]
            if spec.observation.units[x] == "m" and not prefix.startswith("to_"):
                positions.append((x, y, index.get(f"{prefix}z", -1), index.get(f"{prefix}yaw", -1)))
            else:
                directions.append((x, y))
        x, y = actions["x"], actions["y"]
        return cls(
            relative_pose=relative_pose,
            ee_frame=ee_frame,
            tool=(index["tool_x"], index["tool_y"], index.get("tool_z", -1), index["tool_yaw"]),
            positions=tuple(positions),
            directions=tuple(directions),
            action=(x, y),
            scale=(spec.action.scale[x], spec.action.scale[y]),
        )

    @property
    def config(self) -> dict[str, Any]:
        """For a policy's configuration."""
        return {"relative_pose": self.relative_pose, "ee_frame": self.ee_frame}

    def observation(self, observation: npt.ArrayLike, first: npt.ArrayLike) -> FloatArray:
        """Canonical (D,) -> relative (D,), float32; ``first`` (D,): the episode's first observation."""
        canonical, made = _doubles(observation), _doubles(observation)
        if self.relative_pose:
            x0, y0, z0, yaw0 = _at(_doubles(first), self.tool)
            for x, y, z, yaw in self.positions:
                made[[x, y]] = _turned(canonical[x] - x0, canonical[y] - y0, -yaw0)
                if z >= 0 and self.tool[2] >= 0:
                    made[z] -= z0
                if yaw >= 0:
                    made[yaw] = (canonical[yaw] - yaw0 + np.pi) % (2.0 * np.pi) - np.pi
        if self.ee_frame:
            for x, y in self.directions:
                made[[x, y]] = _turned(canonical[x], canonical[y], -canonical[self.tool[3]])
        return made.astype(np.float32)

    def action_to(self, action: npt.ArrayLike, observation: npt.ArrayLike) -> Doubles:
        """Canonical action (A,) -> in the frame of the tool at the canonical ``observation`` (D,). A corner of the square of commands
        lies up to 1.41 from the middle, and stays there."""
        return self._action(action, observation, -1.0)

    def action_from(self, action: npt.ArrayLike, observation: npt.ArrayLike) -> Doubles:
        """The way back; not clipped to [-1, 1]."""
        return self._action(action, observation, 1.0)

    def _action(self, action: npt.ArrayLike, observation: npt.ArrayLike, sign: float) -> Doubles:
        made = np.array(action, np.float64)
        if self.ee_frame:
            (x, y), (sx, sy) = self.action, self.scale
            turned = _turned(made[x] * sx, made[y] * sy, sign * _doubles(observation)[self.tool[3]])
            made[x], made[y] = turned[0] / sx, turned[1] / sy
        return made


class RelativePolicy:
    """A policy that acts in relative frames, for a robot in canonical ones. `begin_episode` before the first `act` of every episode."""

    def __init__(self, policy: Policy, frames: Frames) -> None:
        self._policy, self._frames = policy, frames
        self._first: Doubles | None = None

    @property
    def needs_first(self) -> bool:
        """Whether it cannot act in an episode of which it does not know the first observation."""
        return self._frames.relative_pose

    @property
    def history(self) -> int | None:
        """As `LooksBack`, of the policy in these frames."""
        return self._policy.history if isinstance(self._policy, LooksBack) else None

    def begin_episode(self, first: npt.ArrayLike) -> None:
        """``first`` (D,): the episode's first observation, canonical."""
        self._first = _doubles(first)

    def reset(self) -> None:
        """Of the history: the episode's first pose stays."""
        self._policy.reset()

    def act(self, observation: FloatArray, *, sample: bool, generator: torch.Generator | None = None) -> Decision:
        """Raises `RuntimeError` before the first `begin_episode`."""
        if self._first is None:
            if self.needs_first:
                raise RuntimeError("relative frames: the policy was not told the episode's first observation")
            self._first = _doubles(observation)  # of no effect
        decision = self._policy.act(self._frames.observation(observation, self._first), sample=sample, generator=generator)
        actions = np.array([self._frames.action_from(action, observation) for action in decision.actions])
        return Decision(np.clip(actions, -1.0, 1.0).astype(np.float32), decision.spread, decision.scores)


def relative(policy: Policy, config: dict[str, Any], spec: RobotSpec) -> Policy:
    """``policy`` in the frames that its configuration names; itself where it names none. Raises `PolicyRefused`."""
    asked = config.get("frames")
    if asked is None:
        return policy
    if (
        not isinstance(asked, dict)
        or set(asked) != {"relative_pose", "ee_frame"}
        or not all(isinstance(value, bool) for value in asked.values())
    ):
        raise PolicyRefused(f"frames = {asked!r}; expected true or false for relative_pose and ee_frame")
    try:
        frames = Frames.of(spec, **asked)
    except ValueError as error:
        raise PolicyRefused(str(error)) from error
    return policy if frames is None else RelativePolicy(policy, frames)


def begin_episode(policy: Policy, first: npt.ArrayLike) -> None:
    """Tell a policy that an episode begins with the observation ``first`` (D,), and drop its history. For every policy."""
    if isinstance(policy, RelativePolicy):
        policy.begin_episode(first)
    policy.reset()


def _doubles(values: npt.ArrayLike) -> Doubles:
    """A copy, rounded to float32 as observations are on their way to a policy."""
    return np.asarray(values, np.float32).astype(np.float64)


def _at(values: Doubles, index: tuple[int, int, int, int]) -> tuple[float, ...]:
    return tuple(float(values[i]) if i >= 0 else 0.0 for i in index)


def _turned(x: float, y: float, angle: float) -> tuple[float, float]:
    c, s = np.cos(angle), np.sin(angle)
    return c * x - s * y, s * x + c * y
