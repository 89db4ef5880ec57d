"""Checks of a bridge that move its robot: a person takes over, hands back, is lost, comes back."""

import itertools
import math
import time
from typing import Any

from takeover.data.schema import ControlMode, Hold, Lease, Mode, Resume, Role, Source, State
from takeover.robot_bridge.conformance.report import Failed, Skipped, Suite, need
from takeover.robot_bridge.conformance.rig import AMPLITUDE, ME, SLACK_S, Rig, all_finite
from takeover.robot_bridge.protocol import ControlClient

HANDS: Suite[Rig] = Suite()
check = HANDS.check


@check("pressed the deadman in mode policy", "takeover within 0.5 s; steps of source human; ramp (control_mode 2) before control_mode 1")
def takeover_by_deadman(rig: Rig) -> str:
    rig.policy()
    since = rig.peers.acked
    pressed = time.monotonic()
    rig.hand(deadman=True, action=rig.push())
    rig.mode(Mode.TAKEOVER, 0.5 + SLACK_S)
    took_s = time.monotonic() - pressed
    steps = [step for step in rig.recorded(since, 12) if step.mode is Mode.TAKEOVER]
    need(len(steps) >= 5, f"only {len(steps)} steps in mode takeover")
    need(all(set(step.source) == {Source.HUMAN} for step in steps), f"sources {[step.source for step in steps]}")
    modes = [step.control_mode for step in steps]
    ramp = modes.index(ControlMode.HUMAN) if ControlMode.HUMAN in modes else len(modes)
    need(ramp < len(modes) and set(modes[:ramp]) == {ControlMode.TRANSITION} and set(modes[ramp:]) == {ControlMode.HUMAN}, f"modes {modes}")
    need(0.05 <= ramp * rig.period_s <= 0.25, f"ramp of {ramp} steps")
    need(math.isclose(steps[-1].asked_action[0], AMPLITUDE, abs_tol=1e-6), f"asked {steps[-1].asked_action}")
    need(all(a.asked_action[0] <= b.asked_action[0] + 1e-9 for a, b in itertools.pairwise(steps)), "the ramp does not rise")
    return f"after {took_s * 1000:.0f} ms, ramp of {ramp} steps"


@check("released the deadman", "back to policy (or, with hold-to-run, hold `released`)")
def release_hands_back(rig: Rig) -> str:
    rig.takeover()
    rig.hand()
    state = rig.until(lambda state: state.mode is not Mode.TAKEOVER, "end of the takeover", 0.5 + SLACK_S)
    need(
        state.mode is Mode.POLICY or (state.mode is Mode.HOLD and state.hold_reason == "released"), f"mode {state.mode} {state.hold_reason}"
    )
    return state.mode.value


@check("took over and handed back, looking at `Observation.flush`", "true once after each change of mode")
def observations_say_flush(rig: Rig) -> str:
    rig.policy()
    first = rig.now().step_seq
    rig.hand(deadman=True, action=rig.push())
    rig.mode(Mode.TAKEOVER)
    time.sleep(4 * rig.period_s)
    rig.hand()
    rig.until(lambda state: state.mode is not Mode.TAKEOVER, "end of the takeover")
    time.sleep(4 * rig.period_s)
    flushes = [message.seq for _, message in list(rig.peers.observations) if message.seq > first and message.flush]
    need(len(flushes) == 2, f"flush at {flushes}, expected twice after {first}")
    return f"at {flushes}"


def _lost(rig: Rig, reasons: tuple[str, ...], within_s: float, **changes: Any) -> str:
    """Take over, then let the device say ``changes``: a hold."""
    rig.takeover()
    time.sleep(3 * rig.period_s)
    at = time.monotonic()
    rig.hand(deadman=True, **({"action": rig.push()} | changes))
    state = rig.hold(*reasons, timeout_s=within_s + SLACK_S)
    return f"{state.hold_reason} after {(time.monotonic() - at) * 1000:.0f} ms"


@check("took over, then sent nothing any more", "hold `command_stale` within T_cmd + 2 periods")
def silence_holds(rig: Rig) -> str:
    rig.takeover()
    time.sleep(3 * rig.period_s)
    at = time.monotonic()
    rig.peers.command = None
    state = rig.hold("command_stale", "lease_lapsed", timeout_s=rig.command_life_s + 2 * rig.period_s + SLACK_S)
    took_s = time.monotonic() - at
    return f"{state.hold_reason} after {took_s * 1000:.0f} ms (T_cmd {rig.command_life_s * 1000:.0f} ms)"


@check(
    "came back from that hold with the deadman pressed and the device deflected", "stays in hold, also when released without being neutral"
)
def no_motion_before_neutral(rig: Rig) -> str:
    rig.takeover()
    rig.peers.command = None
    rig.hold("command_stale", "lease_lapsed")
    since = rig.peers.acked
    time.sleep(0.6)  # the lease has lapsed too
    rig.lease()
    rig.hand(deadman=True, action=rig.push())
    rig.stays(Mode.HOLD, 0.4)
    rig.hand(deadman=False, action=rig.push())
    rig.stays(Mode.HOLD, 0.2)
    rig.hand(deadman=True, action=rig.push())
    rig.stays(Mode.HOLD, 0.3)
    moved = [step.seq for step in rig.steps_after(since) if any(step.asked_action)]
    need(not moved, f"steps {moved} moved")
    return "stayed in hold, nothing asked of the robot"


def _held(rig: Rig) -> None:
    """From mode policy into a hold that was asked for."""
    rig.policy()
    rig.done(Hold(sender=ME))
    rig.hold("operator")


def _resumes(rig: Rig) -> None:
    """Ask until it is granted, for a second or so: what was just put right reaches the bridge late where the computer is busy."""
    deadline = time.monotonic() + 1.0 + SLACK_S
    while (error := rig.ask(Resume(sender=ME)).error) and time.monotonic() < deadline:
        time.sleep(0.1)
    need(not error, f"Resume was refused: {error}")
    rig.mode(Mode.POLICY)


@check("in a hold: asked to resume with the device deflected, then neutral", "refused, then policy")
def resume_needs_neutral(rig: Rig) -> str:
    _held(rig)
    rig.hand(deadman=False, action=rig.push())
    time.sleep(0.1)
    error = rig.refused(Resume(sender=ME))
    rig.hand()
    time.sleep(0.1)
    rig.done(Resume(sender=ME))
    rig.mode(Mode.POLICY)
    return error


@check("in a hold: asked to resume while commands come with an old `newest_state_seq`, then with the newest", "refused, then policy")
def resume_needs_commands(rig: Rig) -> str:
    _held(rig)
    rig.peers.frozen_state_seq = rig.now().seq
    time.sleep(rig.command_life_s + 0.1)
    error = rig.refused(Resume(sender=ME))
    rig.hand()
    _resumes(rig)
    return error


@check(
    "in mode policy: sent a Hold whose `newest_state_seq` names a state of 1.2 s ago; then a Resume like it, one that names a state "
    "that was never sent, and one with the newest",
    "hold `operator`; refused, refused, then policy",
)
def old_request_refused(rig: Rig) -> str:
    rig.policy()
    old = rig.now().seq
    time.sleep(1.2)
    rig.client.newest_state_seq = old
    held = rig.client.ask(Hold(sender=ME), 2.0).error
    need(not held, f"a Hold was refused, which is never too old: {held}")
    rig.hold("operator")
    error = rig.client.ask(Resume(sender=ME), 2.0).error
    need(error, "Resume was granted")
    rig.client.newest_state_seq = rig.now().seq + 10**6
    need(rig.client.ask(Resume(sender=ME), 2.0).error, "Resume was granted to one who saw a state that was never sent")
    rig.done(Resume(sender=ME))
    rig.mode(Mode.POLICY)
    return error


@check("in mode policy: asked as an observer, without the lease, for a hold; then to resume", "hold `operator`; refused")
def observers_hold(rig: Rig) -> str:
    rig.policy()
    observer = ControlClient(rig.endpoints, "check-observer", Role.OBSERVER)
    try:
        observer.hello("check", 2.0)
        error = observer.ask(Hold(sender="check-observer"), 2.0).error
        need(not error, f"refused: {error}")
        rig.hold("operator")
        error = observer.ask(Resume(sender="check-observer"), 2.0).error
        need(error, "an observer resumed")
        rig.stays(Mode.HOLD, 0.2)
        return error
    finally:
        observer.close()


@check("in a hold: released, neutral, pressed", "takeover")
def fresh_press_ends_a_hold(rig: Rig) -> str:
    _held(rig)
    rig.hand()
    time.sleep(0.1 + 2 * rig.period_s)
    rig.hand(deadman=True, action=rig.push())
    rig.mode(Mode.TAKEOVER, 0.5 + SLACK_S)
    return "takeover"


@check("in a hold, with the device neutral: pressed on another device; let go there, neutral, and pressed again", "stays in hold; takeover")
def another_device_rests_first(rig: Rig) -> str:
    _held(rig)
    time.sleep(0.1 + 2 * rig.period_s)
    rig.hand(deadman=True, action=rig.push(), device_id="check-another")
    rig.stays(Mode.HOLD, 0.3)
    rig.hand(device_id="check-another")
    time.sleep(0.1 + 2 * rig.period_s)
    rig.hand(deadman=True, action=rig.push(), device_id="check-another")
    rig.mode(Mode.TAKEOVER, 0.5 + SLACK_S)
    return "stayed in hold, then takeover"


@check("took over, then said that the device is gone", "hold `device_lost` within 3 periods")
def device_lost_holds(rig: Rig) -> str:
    return _lost(rig, ("device_lost",), 3 * rig.period_s, device_alive=False)


@check("took over, then said that the operator's window hangs (`gui_alive` false)", "hold within 3 periods")
def frozen_console_holds(rig: Rig) -> str:
    return _lost(rig, ("command_stale",), 3 * rig.period_s, gui_alive=False)


@check("took over with a keyboard, then lost its focus", "hold `focus_lost` within 3 periods")
def focus_lost_holds(rig: Rig) -> str:
    return _lost(rig, ("focus_lost",), 3 * rig.period_s, device_kind="keyboard", focused=False)


def _faulty(rig: Rig, action: list[float]) -> str:
    """Take over, then command what is no action: a hold, and a refusal that is counted."""
    rig.policy()
    before = rig.now().refused_commands
    observed = _lost(rig, ("human_fault",), 3 * rig.period_s, action=action)
    counted = rig.now().refused_commands - before
    need(counted > 0, f"{observed}, but nothing is counted in refused_commands")
    return f"{observed}, {counted} counted"


@check(
    "took over, then commanded NaN",
    "hold `human_fault` within 3 periods, counted in `refused_commands`; no step is asked to do what is not finite",
)
def command_nan_refused(rig: Rig) -> str:
    since = rig.peers.acked
    observed = _faulty(rig, rig.push(math.nan))
    all_finite(rig.steps_after(since))
    return observed


@check("took over, then commanded one number too many", "hold `human_fault` within 3 periods, counted in `refused_commands`")
def command_shape_refused(rig: Rig) -> str:
    return _faulty(rig, [*rig.push(), 0.0])


@check("said in mode policy that the device is gone", "hold `device_lost` within 3 periods: nobody could take over")
def lost_device_is_nobody(rig: Rig) -> str:
    rig.policy()
    rig.hand(device_alive=False)
    state = rig.hold("device_lost", timeout_s=3 * rig.period_s + SLACK_S)
    rig.hand()
    return state.hold_detail or state.hold_reason.value


@check(
    "pressed the deadman in mode policy while commanding NaN, then went on pressing with a finite action",
    "hold `human_fault` within 3 periods; stays in hold until the deadman was let go",
)
def press_that_is_no_action(rig: Rig) -> str:
    rig.policy()
    since = rig.peers.acked
    rig.hand(deadman=True, action=rig.push(math.nan))
    rig.hold("human_fault", timeout_s=3 * rig.period_s + SLACK_S)
    rig.hand(deadman=True, action=rig.push())
    rig.stays(Mode.HOLD, 0.4)
    moved = [step.seq for step in rig.steps_after(since) if any(step.asked_action)]
    need(not moved, f"steps {moved} moved")
    return "held, and stayed so"


@check("in a hold, with the device neutral: pressed while commanding NaN, then went on pressing with a finite action", "stays in hold")
def old_press_takes_nothing(rig: Rig) -> str:
    _held(rig)
    for _ in range(3):  # a command of ours that is late disarms, too
        rig.hand()
        time.sleep(0.1 + 2 * rig.period_s)
        rig.hand(deadman=True, action=rig.push(math.nan))
        time.sleep(0.1 + 2 * rig.period_s)
        rig.hand(deadman=True, action=rig.push())
        rig.stays(Mode.HOLD, 0.3)
    return "stayed in hold"


@check("took over, then commanded with an old `newest_state_seq`, as over a link that is late", "hold `command_stale`")
def late_link_holds(rig: Rig) -> str:
    rig.takeover()
    time.sleep(3 * rig.period_s)
    state = rig.now()
    rig.peers.frozen_state_seq = state.seq
    held = rig.hold("command_stale", timeout_s=rig.command_life_s + 2 * rig.period_s + SLACK_S)
    return held.hold_detail or held.hold_reason.value


@check(
    "took over; a second operator asked for the lease; in a hold it asked to resume, and then we did",
    "refused by our name, the takeover goes on; refused, then policy",
)
def second_commander_refused(rig: Rig) -> str:
    rig.takeover()
    other = ControlClient(rig.endpoints, "check-other", Role.OPERATOR)
    try:
        other.hello("check", 2.0)
        reply = other.ask(Lease(sender="check-other", device_kind="gamepad"), 2.0)
        need(reply.error and not reply.lease, "granted")
        need(ME in reply.error, f"the refusal does not name the holder: {reply.error}")
        rig.stays(Mode.TAKEOVER, 0.3)
        _held(rig)
        for _ in range(3):
            rig.until(lambda state: 0 <= state.command_age_ms < 100, "our commands")
            asked = time.monotonic()
            refused = other.ask(Resume(sender="check-other"), 2.0)
            need(refused.error, "somebody without the lease resumed")
            rig.now()
            if all(state.command_age_ms < 100 for heard, state in list(rig.peers.states) if heard >= asked):
                break  # nothing stood against it but the lease: our commands were there all the time
        else:
            raise Failed(f"refused ({refused.error}), but our own commands were late each time: perhaps not for the lease")
    finally:
        other.close()
    _resumes(rig)
    return f"{reply.error}; {refused.error}"


def _held_for_absence(rig: Rig, before: State, *reasons: str) -> State:
    """The hold that a bridge with an operator goes into; ``before``: a state in mode policy."""
    try:
        return rig.hold(*reasons, timeout_s=1.0 + SLACK_S)
    except Failed:
        if "command_echo" not in before.gate:
            raise Skipped("this bridge runs without an operator (no `command_echo` in its gate)") from None
        raise


@check("went on commanding in mode policy, with `gui_alive` false", "hold `not_present` within 1 s")
def frozen_console_is_nobody(rig: Rig) -> str:
    state = rig.policy()
    rig.hand(gui_alive=False)
    held = _held_for_absence(rig, state, "not_present")
    rig.hand()
    return held.hold_reason.value


@check("stopped commanding in mode policy, and let the lease lapse", "hold `lease_lapsed` or `not_present` within 1 s")
def nobody_present_holds(rig: Rig) -> str:
    state = rig.policy()
    rig.peers.command = None
    held = _held_for_absence(rig, state, "lease_lapsed", "not_present")
    rig.lease()
    return held.hold_reason.value
