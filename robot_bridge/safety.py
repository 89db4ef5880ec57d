"""The safety filter: pure, last before the robot, the same for human and policy. docs/safety.md explains every rule.

Not a safety-rated function: a real robot needs its own emergency stop.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from takeover.data.limits import check_limits
from takeover.data.schema import RobotSpec, SafetyBit, SafetyLimits, Source
from takeover.robot_bridge.action_space import axes_of, joint_limits_of

FloatArray = npt.NDArray[np.float64]

_TOLERANCE = 1e-6  # m, rad: what changes less than this is rounding, not a clamp worth a bit
_RANGE_TOLERANCE = 1e-3  # rounding of a tanh output is not a clamp
_GROSS_EXCESS = 1.25  # a limit exceeded by a quarter counts towards the hold; less is corrected and recorded only
_GROSS_WORKSPACE_STEPS = 2.0  # pushing at the edge of the box is ordinary exploration; pushing on from two full steps outside is not
_JOINT_PROGRESS_RAD = 1e-3  # a joint beyond its margin that goes on by this much is led there by the last action
_REMEMBERED_WAYS = 6
_COUNTED = SafetyBit.RANGE | SafetyBit.WORKSPACE | SafetyBit.TRANSLATION | SafetyBit.ROTATION | SafetyBit.SPEED | SafetyBit.ACCELERATION


class UnsafeAction(ValueError):
    """An action that must not be corrected but refused: wrong shape, not finite."""


@dataclass(frozen=True)
class SafetyState:
    """Memory between steps: last applied tool velocity (m/s, base frame), steps over the force limits, gross clamps in a row and in
    the episode, and the actions (A,) that took a joint to its limit."""

    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)
    over_force_steps: int = 0
    over_grip_steps: int = 0
    clamps_in_a_row: int = 0
    mistakes: int = 0
    applied: tuple[float, ...] = ()  # last action
    towards_limit: tuple[tuple[float, ...], ...] = ()  # unit vectors in action space; empty: no joint is at its limit
    beyond_joint_rad: float = 0.0  # how far at most since a joint came to its limit


@dataclass(frozen=True)
class SafetyResult:
    """``action`` (A,) in [-1, 1] to apply; ``hold`` says why the policy must be held, "" when it need not."""

    action: FloatArray
    bits: SafetyBit
    state: SafetyState
    hold: str = ""


def checked(values: object, size: int, what: str) -> FloatArray:
    """``values`` as a finite float64 (size,) array. Raises `UnsafeAction` saying what is wrong; nothing is ever repaired here."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UnsafeAction(f"{what}: not a list of numbers") from error
    if array.shape != (size,):
        raise UnsafeAction(f"{what}: shape {array.shape}, expected ({size},)")
    if not np.isfinite(array).all():
        raise UnsafeAction(f"{what}: not finite")
    return array


class SafetyFilter:
    """Limits bound to a robot; `apply` is a pure function of its arguments."""

    def __init__(self, spec: RobotSpec, limits: SafetyLimits) -> None:
        """Raises `ValueError` for limits outside their ranges or spaces that cannot be checked."""
        check_limits(limits)
        self.spec = spec
        self.limits = limits
        self.axes = axes_of(spec)
        self.period_s = 1.0 / spec.control_hz
        self.low = np.maximum(spec.workspace_low, limits.workspace_low)
        self.high = np.minimum(spec.workspace_high, limits.workspace_high)
        if not (self.low < self.high).all():
            raise ValueError(
                f"limits.workspace_low/high {limits.workspace_low}..{limits.workspace_high} leave nothing of the robot's workspace "
                f"{spec.workspace_low}..{spec.workspace_high}"
            )
        self.joint_low, self.joint_high = joint_limits_of(spec)
        self.gripper = list(self.axes.gripper)
        self._full_step_m = float(np.linalg.norm(self.axes.scale[list(self.axes.translation)])) if self.axes.translation else 0.0

    def speed_cap_m_s(self, speed_scale: float) -> float:
        """Tool speed allowed at ``speed_scale``: below 1, that part of full scale and never more than ``slow_speed_m_s``."""
        if speed_scale >= 1.0:
            return self.limits.max_speed_m_s
        return min(self.limits.max_speed_m_s, self.limits.slow_speed_m_s, speed_scale * self._full_step_m / self.period_s)

    def apply(
        self,
        state: SafetyState,
        asked: FloatArray,
        tool_position: FloatArray,
        force_n: FloatArray,
        driver: Source,
        speed_scale: float = 1.0,
        joints: FloatArray | None = None,
        gripper_force_n: float = -1.0,
    ) -> SafetyResult:
        """Limit ``asked`` (A,), canonical. ``tool_position`` (3,) m and ``force_n`` (3,) N act on the tool, base frame.

        ``joints`` (J,) rad and ``gripper_force_n`` N where the robot tells them.

        Raises `UnsafeAction` for anything that is not finite or of the wrong shape.
        """
        asked = checked(asked, self.spec.action.size, "action")
        position = checked(tool_position, 3, "tool position")
        force = checked(force_n, 3, "force")
        joints = checked(joints, self.joint_low.size, "joints") if joints is not None and self.joint_low.size else None
        if not np.isfinite(gripper_force_n):
            raise UnsafeAction("gripper force: not finite")
        bits = SafetyBit.NONE
        gross = False

        action = np.clip(asked, -1.0, 1.0)
        excess = float(np.max(np.abs(asked), initial=0.0))
        if excess > 1.0 + _RANGE_TOLERANCE:
            bits |= SafetyBit.RANGE
            gross |= excess > _GROSS_EXCESS

        if self.axes.translation:
            action, moved_bits, moved_gross, state = self._limit_translation(state, action, position, force, speed_scale)
            bits |= moved_bits
            gross |= moved_gross
        action, turned_bits, turned_gross = self._limit_rotation(action, speed_scale)
        bits |= turned_bits
        gross |= turned_gross
        action, joint_bits, state = self._limit_joints(state, action, joints, force)
        action, grip_bits, state = self._limit_grip(state, action, gripper_force_n)
        bits |= joint_bits | grip_bits
        action = np.clip(action, -1.0, 1.0)

        counted = driver is Source.POLICY and gross and bool(bits & _COUNTED)
        in_a_row = state.clamps_in_a_row + 1 if counted else 0
        mistakes = state.mistakes + int(counted)
        state = replace(state, clamps_in_a_row=in_a_row, mistakes=mistakes, applied=tuple(action.tolist()))
        hold = ""
        if in_a_row >= self.limits.clamps_to_hold:
            hold = f"{in_a_row} in a row"
        elif counted and mistakes >= self.limits.mistakes_per_episode:
            hold = f"{mistakes} in this episode"
        return SafetyResult(action, bits, state, hold)

    def _limit_joints(
        self, state: SafetyState, action: FloatArray, joints: FloatArray | None, force: FloatArray
    ) -> tuple[FloatArray, SafetyBit, SafetyState]:
        """A joint near its limit: components that lead where it was led to it are dropped; any other way, and the way back, are free.

        Components only ever vanish, so that what the limits before made of the action stays within them.
        """
        if joints is None:
            return action, SafetyBit.NONE, state
        margin = self.limits.joint_margin_rad
        beyond = float(np.max(np.maximum(self.joint_low + margin - joints, joints - self.joint_high + margin), initial=-np.inf))
        if beyond < 0.0:
            return action, SafetyBit.NONE, replace(state, towards_limit=(), beyond_joint_rad=0.0)
        moving = [*self.axes.translation, *self.axes.rotation]
        ways = state.towards_limit
        if not ways or beyond > state.beyond_joint_rad + _JOINT_PROGRESS_RAD:
            # the last action led to the limit, or deeper into it on a way not known yet; whoever began there may try
            last = np.zeros(action.size)
            last[moving] = np.array(state.applied or np.zeros(action.size))[moving]
            if (length := float(np.linalg.norm(last))) > _TOLERANCE:
                ways = (*ways, tuple((last / length).tolist()))[-_REMEMBERED_WAYS:]
        state = replace(state, towards_limit=ways, beyond_joint_rad=max(beyond, state.beyond_joint_rad))
        limited = _not_along(ways, action)
        if (limited == action).all():
            return action, SafetyBit.NONE, state
        index, axis = list(self.axes.translation), list(self.axes.cartesian)
        velocity = np.zeros(3)
        velocity[axis] = limited[index] * self.axes.scale[index] / self.period_s
        if state.over_force_steps >= self.limits.force_debounce_steps and float(velocity @ force) < 0.0:
            velocity[:] = limited[index] = 0.0  # what is left of a slide along a contact would press on
            limited = _not_along(ways, limited)  # and may have held a rotation back
        return limited, SafetyBit.JOINT_LIMIT, replace(state, velocity=(float(velocity[0]), float(velocity[1]), float(velocity[2])))

    def _limit_grip(self, state: SafetyState, action: FloatArray, force_n: float) -> tuple[FloatArray, SafetyBit, SafetyState]:
        """Gripping too hard for some steps: commands that close further are dropped."""
        over = state.over_grip_steps + 1 if force_n > self.limits.max_gripper_force_n else 0
        state = replace(state, over_grip_steps=over)
        if over < self.limits.force_debounce_steps or not self.gripper or not (action[self.gripper] < 0).any():
            return action, SafetyBit.NONE, state
        limited = action.copy()
        limited[self.gripper] = np.maximum(limited[self.gripper], 0.0)
        return limited, SafetyBit.GRIPPER, state

    def _limit_translation(
        self, state: SafetyState, action: FloatArray, position: FloatArray, force: FloatArray, speed_scale: float
    ) -> tuple[FloatArray, SafetyBit, bool, SafetyState]:
        """Per-step clip, speed, slow mode, acceleration, force guard, workspace box, in this order: the box has the last word."""
        limits, period = self.limits, self.period_s
        index, axis = list(self.axes.translation), list(self.axes.cartesian)
        scale = self.axes.scale[index]
        delta = np.zeros(3)
        delta[axis] = action[index] * scale
        bits, gross = SafetyBit.NONE, False

        for limit, bit in ((limits.max_step_m, SafetyBit.TRANSLATION), (limits.max_speed_m_s * period, SafetyBit.SPEED)):
            length = float(np.linalg.norm(delta))
            if length > limit:
                bits |= bit if length > limit + _TOLERANCE else SafetyBit.NONE
                gross |= length > limit * _GROSS_EXCESS
                delta *= limit / length
        cap = self.speed_cap_m_s(speed_scale) * period
        if (length := float(np.linalg.norm(delta))) > cap:
            bits |= SafetyBit.SLOW_MODE if length > cap + _TOLERANCE else SafetyBit.NONE
            delta *= cap / length

        before = np.asarray(state.velocity) * period
        change = delta - before
        largest = limits.max_acceleration_m_s2 * period * period
        if (length := float(np.linalg.norm(change))) > largest:
            bits |= SafetyBit.ACCELERATION if length > largest + _TOLERANCE else SafetyBit.NONE
            gross |= length > largest * _GROSS_EXCESS
            delta = before + change * (largest / length)

        strength = float(np.linalg.norm(force))
        over = state.over_force_steps + 1 if strength > limits.max_force_n else 0
        if over >= limits.force_debounce_steps:
            away = force / strength
            if (into := float(delta @ away)) < 0.0:
                bits |= SafetyBit.FORCE
                delta = delta - into * away
                # without the part that presses, an axis may exceed full scale: shorten all, or clipping that one would press again
                delta /= max(1.0, float(np.max(np.abs(delta[axis]) / scale)))

        # a tool that is outside already (pushed, bumped) may go back or stay, never further out, and is never pulled
        inside = np.clip(position + delta, np.minimum(self.low, position), np.maximum(self.high, position)) - position
        if float(np.max(np.abs(inside - delta))) > _TOLERANCE:
            bits |= SafetyBit.WORKSPACE
            beyond = float(np.max(np.maximum(self.low - position, position - self.high)))
            gross |= beyond > _GROSS_WORKSPACE_STEPS * self._full_step_m
        delta = inside

        moved = action.copy()
        moved[index] = delta[axis] / scale
        velocity = np.zeros(3)
        velocity[axis] = np.clip(moved[index], -1.0, 1.0) * scale / period
        return (
            moved,
            bits,
            gross,
            replace(state, velocity=(float(velocity[0]), float(velocity[1]), float(velocity[2])), over_force_steps=over),
        )

    def _limit_rotation(self, action: FloatArray, speed_scale: float) -> tuple[FloatArray, SafetyBit, bool]:
        """The angle of the whole turn, about whichever axis the components make together."""
        bits, gross = SafetyBit.NONE, False
        turned, index, limit = action.copy(), list(self.axes.rotation), self.limits.max_step_rad
        angle = float(np.linalg.norm(action[index] * self.axes.scale[index]))
        if angle > limit:
            bits |= SafetyBit.ROTATION if angle > limit + _TOLERANCE else SafetyBit.NONE
            gross |= angle > limit * _GROSS_EXCESS
            turned[index] = action[index] * (limit / angle)
        for i in index:
            if speed_scale < 1.0 and abs(turned[i]) > speed_scale + _TOLERANCE:
                bits |= SafetyBit.SLOW_MODE
                turned[i] = np.sign(turned[i]) * speed_scale
        return turned, bits, gross


def _not_along(ways: tuple[tuple[float, ...], ...], action: FloatArray) -> FloatArray:
    """``action`` without the components that lead along one of ``ways``. What is dropped may have held another back: until none is left."""
    left = action.copy()
    while leading := [way for way in ways if float(left @ way) > _TOLERANCE]:
        left[left * np.array(leading[0]) > 0.0] = 0.0
    return left
