"""What a limited operator sees: an old, noisy observation instead of the simulator's truth, and what it makes of it.

It judges progress, and steers, by rules that use the observation alone: what is measured of hole, cubes and marks, what the tool does,
and what the contact feels like. Pure functions but for `Sight`, which remembers the observations of one episode.
"""

from collections import deque
from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt

from takeover.app.operators.sight_sort import sort_rule
from takeover.data.schema import Privileged

FloatArray = npt.NDArray[np.float64]

VELOCITY = slice(4, 7)  # m/s, in the observation of every built-in task
NOISE_MEMORY = 0.9  # of the error of the eye, from one step to the next
YAW_NOISE_RAD_PER_M = 10.0
_CRUISE = 0.7


def peg_rule(seen: FloatArray) -> tuple[list[float], float]:
    """`peg-insert`: (canonical action (4,), path to go in m) of someone who goes by the measured hole and by feel."""
    to_hole, force, torque = seen[13:17], seen[17:20], seen[20:22]
    aside = float(np.hypot(*to_hole[:2]))
    motion = np.zeros(4)
    motion[3] = np.clip(4 * to_hole[3], -_CRUISE, _CRUISE)
    if to_hole[2] > 0.004:  # inside: the walls guide
        motion[2] = -_CRUISE
    elif force[2] > 3.0:  # standing on the plate: away from where it carries
        centre = np.array([-torque[1], torque[0]]) / force[2]
        motion[:2] = -0.15 * centre / max(float(np.linalg.norm(centre)), 1e-6)
        motion[2] = -0.1 if force[2] < 15.0 else 0.1
    else:
        motion[:2] = np.clip(70 * to_hole[:2], -_CRUISE, _CRUISE)
        motion[2] = -0.5 if aside < 0.0015 else np.clip(100 * (to_hole[2] + 0.004 + 0.4 * aside), -_CRUISE, 0.5)
        if aside < 0.0065 and to_hole[2] > -0.003:
            motion[2] = -0.5
    return motion.tolist(), aside + max(0.0, 0.015 - float(to_hole[2]))


def pick_rule(seen: FloatArray) -> tuple[list[float], float]:
    """`pick-lift`: (canonical action (5,), path to go in m) of someone who sees the cube and the fingers."""
    width, speed, command = seen[8:11]
    to_cube, height = seen[15:19], float(seen[22])
    aside, turn = float(np.hypot(*to_cube[:2])), float(to_cube[3])
    near = float(np.linalg.norm(to_cube[:3])) < 0.025
    holding = command < 0 and near and 0.01 < width < 0.055 and abs(speed) < 0.01
    to_lift = max(0.0, 0.08 - (height + float(to_cube[2]) - 0.02))
    to_go = to_lift if holding else to_lift + 0.02 + float(np.linalg.norm(to_cube[:3]))
    if holding:
        return [0.0, 0.0, _CRUISE, 0.0, -1.0], to_go
    level = abs(float(to_cube[2])) < 0.012
    if level and near and ((command < 0 and width > 0.01) or (aside < 0.007 and abs(turn) < 0.2)):
        return [0.0, 0.0, 0.0, 0.0, -1.0], to_go
    lateral = np.clip(18 * to_cube[:2], -_CRUISE, _CRUISE)
    hover = 0.0 if aside < 0.008 and abs(turn) < 0.2 else 0.05 + 0.3 * aside
    down = float(np.clip(20 * (to_cube[2] + hover), -_CRUISE, _CRUISE))
    yaw = float(np.clip(2.5 * turn, -_CRUISE, _CRUISE))
    return [float(lateral[0]), float(lateral[1]), down, yaw, 1.0], to_go


Rule = Callable[[FloatArray], tuple[list[float], float]]
RULES: dict[str, tuple[Rule, slice, int]] = {
    "hole_pose": (peg_rule, slice(13, 17), 22),
    "cube_pose": (pick_rule, slice(15, 19), 23),
    "first_cube_pose": (sort_rule, slice(11, 19), 28),
}
"""By what the task is about: its rule, where the observation measures it (x, y, z, yaw of each object), and the size of the observation."""


class Sight:
    """Turns the truth into what a limited operator knows. Call `see` once per control step."""

    def __init__(self, delay_steps: int, noise_m: float) -> None:
        self._delay, self._noise_m = delay_steps, noise_m
        self._observations: deque[list[float]] = deque(maxlen=delay_steps + 1)
        self._error = np.zeros(4)

    def begin_episode(self) -> None:
        self._observations.clear()
        self._error = np.zeros(4)

    def see(self, privileged: Privileged, random: np.random.Generator) -> Privileged:
        """``privileged`` with advice, progress and motion as judged from the observation of ``delay_steps`` ago, and nothing else of
        the truth. Raises `ValueError` for a task without a rule."""
        rule, place = _rule_of(privileged)
        self._observations.append(privileged.observation)
        seen = np.array(self._observations[0], np.float64)
        self._error = NOISE_MEMORY * self._error + np.sqrt(1.0 - NOISE_MEMORY**2) * random.standard_normal(4)
        error = self._noise_m * self._error * (1.0, 1.0, 1.0, YAW_NOISE_RAD_PER_M)
        seen[place] += np.tile(error, (place.stop - place.start) // len(error))
        action, to_go = rule(seen)
        return msgspec.structs.replace(
            privileged,
            observation=seen.tolist(),
            tool_velocity=seen[VELOCITY].tolist(),
            values={"distance": [to_go]},
            expert_action=action,
        )


def _rule_of(privileged: Privileged) -> tuple[Rule, slice]:
    for name, (rule, place, size) in RULES.items():
        if name in privileged.values and len(privileged.observation) == size:
            return rule, place
    raise ValueError(
        "the limited operator has no rule for this task: it knows peg-insert, pick-lift and sort-two;"
        " choose another style (--set operator.style=expert)"
    )
