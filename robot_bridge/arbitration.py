"""Who drives this step, and with which action: pure functions of what the bridge knows at the moment of the decision.

Nothing here reads a clock or a socket. `decide` is called once per control step, before the safety filter.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from takeover.data.drivers import UNNAMED, Driver
from takeover.data.schema import ActionGroup, ActionSpec, Command, ControlMode, HoldReason, Mode, Source
from takeover.robot_bridge.action_space import GRIPPER
from takeover.robot_bridge.modes import ModeEvent

FloatArray = npt.NDArray[np.float64]

LATE_ANSWERS_TO_HOLD = 2  # the first late policy answer gives zero velocity, the second holds
STALE_FORGIVEN_S = 0.5  # commands may be late for so long, outside a hold, without the next press being taken for an old one


def command_life_s(period_s: float) -> float:
    """How long a human command lives: three periods, at least 120 ms, at most 200 ms."""
    return min(max(3.0 * period_s, 0.120), 0.200)


def ramp_steps(control_hz: float) -> int:
    """Steps over which the human command ramps in: 150 ms (within 100-200 ms), 3 at 20 Hz, at least 1."""
    return max(1, round(0.150 * control_hz))


def stale_steps(control_hz: float) -> int:
    """`STALE_FORGIVEN_S` in control steps."""
    return round(STALE_FORGIVEN_S * control_hz)


@dataclass(frozen=True)
class Human:
    """The lease holder's newest command as judged on the bridge's clock. ``action`` (A,) finite, or ``fault`` says what is wrong."""

    command: Command
    action: FloatArray | None
    age_s: float
    fault: str = ""
    person: Driver = UNNAMED  # for the record: nothing is decided by it


@dataclass(frozen=True)
class PolicyChoice:
    """The row of the policy's chunk that is meant for this step: ``action`` (A,) finite, or ``fault`` says what is wrong.

    ``planned``: it answers an earlier observation than this step's, so it does not know who took over or handed back just now.
    """

    action: FloatArray | None
    fault: str = ""
    planned: bool = False


@dataclass(frozen=True)
class Rules:
    """What holds at this step, whoever drives."""

    spec: ActionSpec
    command_life_s: float
    ramp_steps: int
    hold_to_run: bool = False
    policy_drives: bool = True  # False in demonstrations: releasing pauses, nobody else moves the robot
    policy_awaited: bool = False  # the actor cannot have answered in time, through no fault of its own: nothing is late
    stale_steps: int = 0  # missing or late commands in a row that do not disarm outside a hold
    lacking: tuple[HoldReason, str] = (HoldReason.NONE, "")  # why nobody may drive, see `ControlBase.lacking`
    attended: bool = True  # False in unattended practice: the policy drives although nobody could take over
    scripts: bool = False  # on simulators a script's press in READY need not be fresh


@dataclass(frozen=True)
class Authority:
    """Memory between steps. ``armed``: the deadman was seen released, so a press is a fresh one. ``needs_neutral``: after a hold, a loss,
    a restart or a change of who commands only a centred device arms. ``grant``, ``device``: the lease and the device of which all this was
    seen. ``groups``: what the person drove in the step before, in a takeover."""

    armed: bool = False
    needs_neutral: bool = True
    ramp: int = 0  # steps of the ramp still to come
    ramp_from: tuple[float, ...] = ()
    late_answers: int = 0
    stale: int = 0  # commands missing or late in a row
    grant: str = ""
    groups: tuple[str, ...] = ()
    device: str = ""


@dataclass(frozen=True)
class Decision:
    """What to do this step. ``event`` changes the mode first (None: it stays). ``asked`` (A,) goes to the safety filter.

    ``flush``: within a takeover the person drives other groups than before, so what the policy planned counts no more.
    """

    authority: Authority
    asked: FloatArray
    source: tuple[Source, ...]
    control_mode: ControlMode
    event: ModeEvent | None = None
    reason: HoldReason = HoldReason.NONE
    detail: str = ""
    flush: bool = False


_OPERATOR_PAUSES = (HoldReason.OPERATOR, HoldReason.RELEASED, HoldReason.NOT_PRESENT, HoldReason.RESTARTED)


def control_mode_of_hold(reason: HoldReason) -> ControlMode:
    """A pause somebody chose is PAUSED, everything else SAFETY_HOLD."""
    return ControlMode.PAUSED if reason in _OPERATOR_PAUSES else ControlMode.SAFETY_HOLD


def why_not_driving(human: Human | None, rules: Rules) -> tuple[HoldReason, str]:
    """Why ``human`` may not drive now (NONE: may)."""
    if human is None:
        return HoldReason.COMMAND_STALE, "no command"
    command = human.command
    if human.age_s > rules.command_life_s:
        return HoldReason.COMMAND_STALE, f"command {human.age_s * 1000:.0f} ms old, limit {rules.command_life_s * 1000:.0f} ms"
    if not command.device_alive:
        return HoldReason.DEVICE_LOST, f"{command.device_id} is gone" if command.device_kind != "none" else "no device"
    if not command.gui_alive:
        return HoldReason.COMMAND_STALE, "the console does not answer"
    if command.device_kind == "keyboard" and not command.focused:
        return HoldReason.FOCUS_LOST, "the window lost the keyboard"
    if human.fault:
        return HoldReason.HUMAN_FAULT, human.fault
    return rules.lacking


def decide(
    mode: Mode,
    hold_reason: HoldReason,
    authority: Authority,
    human: Human | None,
    policy: PolicyChoice | None,
    last_action: FloatArray,
    rules: Rules,
    waiting_for_press: bool = False,
) -> Decision:
    """Decide one step in ``mode``.

    ``policy`` None: no answer for this step. At a takeover, at a hand-back and when a person in a takeover drives other groups than before,
    rows planned before it count for nothing: the flush that follows comes with the next observation only. ``last_action`` (A,) is what was
    applied in the previous step: the human command ramps in from there.

    ``waiting_for_press``: READY with a demonstration's start state made.
    """
    loss, detail = why_not_driving(human, rules)
    trusted = loss is HoldReason.NONE
    foreign = human is not None and human.command.lease != authority.grant
    authority = _armed(mode, authority, human, loss, rules)
    pressed = human is not None and trusted and human.command.deadman

    if mode is Mode.TAKEOVER:
        if not trusted:
            return _hold(authority, loss, detail, rules)
        if pressed and human is not None and not foreign:
            changed = _groups(human, rules) != authority.groups
            beside = None if changed and policy is not None and policy.planned else policy
            return replace(_human_step(authority, human, beside, last_action, rules), flush=changed)
        if rules.hold_to_run or not rules.policy_drives:
            why = "somebody else commands now" if foreign else "deadman released"
            return _hold(authority, HoldReason.RELEASED, why, rules)
        void = policy is not None and policy.planned
        rules = replace(rules, policy_awaited=rules.policy_awaited or void)
        return _policy_step(replace(authority, ramp=0), None if void else policy, rules, ModeEvent.RELEASE)

    if pressed and human is not None and (mode in (Mode.POLICY, Mode.HOLD) or (mode is Mode.READY and waiting_for_press)):
        # a script has no thumb that stays on the button from one demonstration to the next; real robots know no scripts
        fresh = authority.armed or (mode is Mode.READY and human.command.device_kind == "scripted" and rules.scripts)
        if fresh:
            # nothing to blend with when a demonstration starts: the robot stands and nobody else drove
            ramp = 0 if mode is Mode.READY else rules.ramp_steps
            taken = replace(authority, armed=False, ramp=ramp, ramp_from=tuple(float(v) for v in last_action), late_answers=0)
            beside = None if policy is not None and policy.planned else policy
            return replace(_human_step(taken, human, beside, last_action, rules), event=ModeEvent.TAKE)

    if mode is Mode.POLICY:
        if human is not None and _stops_the_policy(human.command, loss, rules):
            return _hold(authority, loss, detail, rules)
        return _policy_step(authority, policy, rules, None)
    return Decision(
        replace(authority, late_answers=0, ramp=0),
        np.zeros(rules.spec.size),
        _nobody(rules),
        control_mode_of_hold(hold_reason) if mode is Mode.HOLD else ControlMode.PAUSED,
    )


def _stops_the_policy(command: Command, loss: HoldReason, rules: Rules) -> bool:
    """Whether somebody wants the robot who may not drive it now, or could not take it any more. A command that is late says neither."""
    wants = command.deadman and loss not in (HoldReason.NONE, HoldReason.COMMAND_STALE)
    # a script cannot be unplugged: its device is "gone" while it has seen no step for a while
    return wants or (loss is HoldReason.DEVICE_LOST and rules.attended and command.device_kind != "scripted")


def watch(mode: Mode, authority: Authority, human: Human | None, rules: Rules) -> Authority:
    """What may be known of the next press without deciding a step: who has let go before an episode begins may take it at once."""
    return _armed(mode, authority, human, why_not_driving(human, rules)[0], rules)


def _armed(mode: Mode, authority: Authority, human: Human | None, loss: HoldReason, rules: Rules) -> Authority:
    """Whether the next press will be a fresh one. What one holder of the lease did arms nobody else; a takeover ends with its lease.

    Nor does what one device did arm another: it may come back deflected. While the policy drives it does: whoever reaches for another
    device has the robot at once, and a device that is lost there makes a hold.
    """
    if human is not None and human.command.lease != authority.grant:
        authority = replace(authority, armed=False, needs_neutral=True, stale=0, grant=human.command.lease)
    if human is not None and human.command.device_id != authority.device:
        if mode is not Mode.POLICY:
            authority = replace(authority, armed=False, needs_neutral=True)
        authority = replace(authority, device=human.command.device_id)
    if loss is HoldReason.COMMAND_STALE:
        late = authority.stale + 1
        disarms = mode is Mode.HOLD or late > rules.stale_steps
        return replace(authority, stale=late, armed=authority.armed and not disarms, needs_neutral=authority.needs_neutral or disarms)
    authority = replace(authority, stale=0)
    if loss is HoldReason.DEVICE_LOST:
        return replace(authority, armed=False, needs_neutral=True)
    if loss is not HoldReason.NONE and human is not None and human.command.deadman:
        # pressed while it could not count: kept down, it does not count when what was missing comes back
        return replace(authority, armed=False, needs_neutral=authority.needs_neutral or mode is Mode.HOLD)
    let_go = human is not None and loss is HoldReason.NONE and not human.command.deadman
    if let_go and human is not None and (human.command.neutral or not authority.needs_neutral):
        return replace(authority, armed=True, needs_neutral=False)
    return authority


def _nobody(rules: Rules) -> tuple[Source, ...]:
    return (Source.NONE,) * len(rules.spec.groups)


def _hold(authority: Authority, reason: HoldReason, detail: str, rules: Rules) -> Decision:
    held = replace(authority, armed=False, needs_neutral=True, ramp=0, late_answers=0)
    return Decision(held, np.zeros(rules.spec.size), _nobody(rules), control_mode_of_hold(reason), ModeEvent.HOLD, reason, detail)


def _policy_step(authority: Authority, policy: PolicyChoice | None, rules: Rules, event: ModeEvent | None) -> Decision:
    """The policy drives every group; a late answer is zero velocity once, then a hold."""
    if policy is not None and (policy.fault or policy.action is None):
        return _hold(authority, HoldReason.POLICY_FAULT, policy.fault, rules)
    if policy is None or policy.action is None:
        late = 0 if rules.policy_awaited else authority.late_answers + 1
        if late >= LATE_ANSWERS_TO_HOLD:
            return _hold(authority, HoldReason.POLICY_LATE, f"{late} answers in a row missing", rules)
        zero = np.zeros(rules.spec.size)
        return Decision(replace(authority, late_answers=late), zero, _nobody(rules), ControlMode.POLICY, event)
    sources = (Source.POLICY,) * len(rules.spec.groups)
    return Decision(replace(authority, late_answers=0), policy.action, sources, ControlMode.POLICY, event)


def _groups(human: Human, rules: Rules) -> tuple[str, ...]:
    """The robot's groups that the command names, in the robot's order."""
    return tuple(name for name in rules.spec.group_names if name in human.command.authority)


def _human_step(authority: Authority, human: Human, policy: PolicyChoice | None, last_action: FloatArray, rules: Rules) -> Decision:
    """The person drives the groups the command names; others stay with the policy, or stand where there is none."""
    human_action = human.action if human.action is not None else np.zeros(rules.spec.size)
    groups = _groups(human, rules)
    policy_action = policy.action if policy is not None and rules.policy_drives else None
    asked = np.zeros(rules.spec.size)
    sources: list[Source] = []
    for group in rules.spec.groups:
        part = slice(group.start, group.stop)
        if group.name in groups:
            asked[part] = _ramped(group, human_action, authority, rules)[part]
            sources.append(Source.HUMAN)
        elif policy_action is not None:
            asked[part] = policy_action[part]
            sources.append(Source.POLICY)
        else:
            sources.append(Source.NONE)
    control_mode = ControlMode.TRANSITION if authority.ramp > 0 else ControlMode.HUMAN
    left = max(0, authority.ramp - 1)
    return Decision(replace(authority, ramp=left, late_answers=0, groups=groups), asked, tuple(sources), control_mode)


def _ramped(group: ActionGroup, action: FloatArray, authority: Authority, rules: Rules) -> FloatArray:
    """Blend from what was applied before the takeover to ``action``. A discrete gripper has nothing between its commands."""
    if authority.ramp <= 0 or (group.name.endswith(GRIPPER) and rules.spec.gripper == "discrete"):
        return action
    weight = 1.0 - authority.ramp / (rules.ramp_steps + 1.0)
    return (1.0 - weight) * np.asarray(authority.ramp_from) + weight * action
