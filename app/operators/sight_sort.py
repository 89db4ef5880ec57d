"""How a limited operator sorts two cubes: by the measured cubes, the marks and the fingers alone. Pure, like the rules of `sight`."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_CRUISE = 0.7
_ACROSS, _RISE = 10.0, 10.0  # of full deflection per metre; more would swing, since what is seen is old
_HALF_M = 0.018  # of a cube, as everyone can see
_CARRY_M, _FUNNEL = 0.05, 0.8
_CLEAR_M = 0.065
_GRASP_M = 0.02


def sort_rule(seen: FloatArray) -> tuple[list[float], float]:
    """`sort-two`: (canonical action (5,), path to go in m) of someone who sees both cubes, their marks and the fingers."""
    due = int(seen[23] > 0.5)
    cubes, marks = (seen[11:15], seen[15:19]), (seen[19:21], seen[21:23])  # from the tool point
    to_go = _path(seen, cubes, marks, due)
    width, command, height = float(seen[8]), float(seen[10]), float(seen[27])
    if command > 0 and width < 0.050 and min(float(np.linalg.norm(cube[:3])) for cube in cubes) < 0.03:
        return [0.0, 0.0, 0.0, 0.0, 1.0], to_go
    if _holding(seen, cubes[due]):
        return _carry(marks[due] - cubes[due][:2], height + float(cubes[due][2]) - _HALF_M), to_go
    if _holding(seen, cubes[1 - due]):
        return _put_back(cubes[1 - due], marks, height), to_go
    still = float(np.linalg.norm(seen[4:7])) < 0.04
    return _fetch(cubes[due], cubes[1 - due], width, command, height, still), to_go


def _holding(seen: FloatArray, cube: FloatArray) -> bool:
    return bool(seen[10] < 0 and np.linalg.norm(cube[:3]) < 0.022 and 0.01 < seen[8] < 0.052 and abs(seen[9]) < 0.01)


def _carry(aside: FloatArray, lift: float) -> list[float]:
    over = float(np.hypot(*aside))
    if over < 0.012 and lift < 0.005:
        return [0.0, 0.0, 0.0, 0.0, 1.0]
    wanted = -0.003 if over < 0.010 else min(_CARRY_M, 0.006 + _FUNNEL * over)
    up = float(np.clip(_RISE * (wanted - lift), -0.4, _CRUISE))
    lifted = 1.0 if over < 0.02 else float(np.clip(lift / 0.02, 0.0, 1.0))
    lateral = lifted * np.clip(_ACROSS * aside, -_CRUISE, _CRUISE)
    return [float(lateral[0]), float(lateral[1]), up, 0.0, -1.0]


def _put_back(cube: FloatArray, marks: tuple[FloatArray, FloatArray], height: float) -> list[float]:
    """The wrong cube is in the hand: down with it, but on no mark."""
    lift = height + float(cube[2]) - _HALF_M
    if min(float(np.abs(cube[:2] - mark).max()) for mark in marks) < 0.04:
        return [-_CRUISE, 0.0, float(np.clip(_RISE * (_CARRY_M - lift), -0.4, _CRUISE)), 0.0, -1.0]
    return [0.0, 0.0, 0.0, 0.0, 1.0] if lift < 0.005 else [0.0, 0.0, -0.4, 0.0, -1.0]


def _fetch(cube: FloatArray, other: FloatArray, width: float, command: float, height: float, still: bool) -> list[float]:
    aside, turn = float(np.hypot(*cube[:2])), float(cube[3])
    if float(np.hypot(*other[:2])) < 0.06 and height < _CLEAR_M - 0.005 and aside > 0.03:
        return [0.0, 0.0, _CRUISE, 0.0, 1.0]  # off the other cube before moving aside
    near = float(np.linalg.norm(cube[:3])) < 0.025
    if near and command < 0 and width > 0.01:
        return [0.0, 0.0, 0.0, 0.0, -1.0]
    low = abs(float(cube[2])) < 0.03  # what is seen is old: whoever is down stays there as long as it is good enough
    inside = aside < (0.014 if low else 0.009) and abs(turn) < (0.3 if low else 0.2)
    if inside and still and abs(float(cube[2])) < 0.008:
        return [0.0, 0.0, 0.0, 0.0, -1.0]
    lateral = np.clip(_ACROSS * cube[:2], -_CRUISE, _CRUISE)
    hover = 0.0 if inside else 0.045 + 0.3 * aside
    down = float(np.clip(_RISE * (cube[2] + hover), -_CRUISE, _CRUISE))
    return [float(lateral[0]), float(lateral[1]), down, float(np.clip(2.5 * turn, -_CRUISE, _CRUISE)), 1.0]


def _path(seen: FloatArray, cubes: tuple[FloatArray, FloatArray], marks: tuple[FloatArray, FloatArray], due: int) -> float:
    height = float(seen[27])
    to_go = 0.0 if _holding(seen, cubes[due]) else _reach(cubes[due], height)
    to_go += _carrying(cubes[due], marks[due], height)
    if due == 0:
        from_mark = cubes[1].copy()
        from_mark[:2] -= marks[0]
        from_mark[2] = 0.0
        to_go += _reach(from_mark, _HALF_M) + _carrying(cubes[1], marks[1], height)
    return to_go


def _reach(cube: FloatArray, height: float) -> float:
    rise = max(0.0, _CLEAR_M - height) if float(np.hypot(*cube[:2])) > 0.05 else 0.0
    return _GRASP_M + rise + float(np.linalg.norm(cube[:3]))


def _carrying(cube: FloatArray, mark: FloatArray, height: float) -> float:
    over, lift = float(np.hypot(*(mark - cube[:2]))), max(0.0, height + float(cube[2]) - _HALF_M)
    peak = min(_CARRY_M, _FUNNEL * over)
    return _GRASP_M + over + max(0.0, peak - lift) + max(peak, lift)
