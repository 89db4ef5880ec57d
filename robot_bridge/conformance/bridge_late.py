"""Checks of a bridge that move its robot: what was asked counts in the order in which it was asked, and a hold lasts."""

import math
import time

from takeover.data.schema import (
    Clear,
    EpisodeEnd,
    EpisodeKind,
    Finish,
    Hold,
    Mode,
    Outcome,
    OutcomeSource,
    Resume,
    SetOutcome,
    Start,
    Stop,
)
from takeover.robot_bridge.conformance.report import Skipped, Suite, need
from takeover.robot_bridge.conformance.rig import ME, SLACK_S, Rig

LATE: Suite[Rig] = Suite()
check = LATE.check

TRIES = 3  # of what depends on when in its period the bridge hears it
SETTLED_S = 0.3  # until a robot that was told to stop stands
QUIET_S = 1.0  # longer than bridges pause between two episodes
PRACTICE_S = 2.0  # longer than a hold lasts that nobody asked for in practice
STILL_M = 0.002


@check(
    "sent Stop and Finish (with `now`) at once in mode policy, several times",
    "stopped; the episode is recorded as `aborted` by `stop`, whatever came of Finish",
)
def stop_cause_stands(rig: Rig) -> str:
    refused = 0
    for _ in range(TRIES):
        rig.policy()
        since = rig.peers.acked
        stop, finish = rig.together(Stop(sender=ME), Finish(sender=ME, now=True))
        need(not stop, f"Stop was refused: {stop}")
        refused += bool(finish)
        rig.mode(Mode.STOPPED, 0.3 + SLACK_S)
        rig.until(lambda _, since=since: bool(_ends(rig, since)), "end of the episode")  # type: ignore[misc]
        end = _ends(rig, since)[0]
        cause = (end.outcome, end.outcome_source)
        need(cause == (Outcome.ABORTED, OutcomeSource.STOP), f"recorded as {end.outcome} by {end.outcome_source}")
        rig.done(Clear(sender=ME))
        rig.mode(Mode.READY)
    return f"aborted by stop; Finish was refused {refused} times of {TRIES}"


def _ends(rig: Rig, since: int) -> list[EpisodeEnd]:
    return [item for item in list(rig.peers.records) if isinstance(item, EpisodeEnd) and item.rec_seq > since]


@check("in mode stopped: sent Clear and another Stop at once, several times", "stays stopped, whatever came of that Clear")
def later_stop_stands(rig: Rig) -> str:
    rig.ready()
    refused = 0
    for _ in range(TRIES):
        rig.done(Stop(sender=ME))
        rig.mode(Mode.STOPPED, 0.3 + SLACK_S)
        clear, stop = rig.together(Clear(sender=ME), Stop(sender=ME))
        need(not stop, f"Stop was refused: {stop}")
        refused += bool(clear)
        rig.mode(Mode.STOPPED, 0.3 + SLACK_S)
        rig.stays(Mode.STOPPED, 0.4)
        rig.done(Clear(sender=ME))
        rig.mode(Mode.READY)
    return f"stayed stopped; that Clear was refused {refused} times of {TRIES}"


def _held(rig: Rig, duration_s: float) -> None:
    """The policy moves whatever it may; for so long nothing does, and then a Resume leads on."""
    rig.peers.answer = lambda seen: rig.answered(seen, [rig.push()] * rig.spare_rows)
    time.sleep(SETTLED_S)
    since, before = rig.peers.acked, rig.now()
    need(before.mode is Mode.HOLD, f"went on to mode {before.mode}")
    rig.stays(Mode.HOLD, duration_s)
    moved = [step.seq for step in rig.steps_after(since) if any(step.asked_action)]
    need(not moved, f"steps {moved[:5]} moved")
    moved_m = math.dist(before.tool_position, rig.now().tool_position)
    need(moved_m < STILL_M, f"the tool moved by {moved_m * 1000:.1f} mm")
    rig.stand_still()
    rig.partners()
    rig.done(Resume(sender=ME))
    rig.mode(Mode.POLICY)


@check(
    "ended an episode with success, and asked for a hold at once and between two episodes; asked for one at once after Start",
    "granted: hold `operator`, nothing moves until `Resume`, which leads to policy",
)
def hold_between_episodes(rig: Rig) -> str:
    for pause_s in (0.0, 0.0, 3 * rig.period_s):
        rig.policy()
        outcome = SetOutcome(sender=ME, outcome=Outcome.SUCCESS)
        if pause_s:
            rig.done(outcome)
            time.sleep(pause_s)
            refused = rig.ask(Hold(sender=ME)).error
        else:
            refused = "; ".join(filter(None, rig.together(outcome, Hold(sender=ME))))
        if refused and rig.now().mode is Mode.READY:
            raise Skipped(f"nothing moves between its episodes: {refused}")
        need(not refused, f"refused: {refused}")
        rig.hold("operator")
        _held(rig, QUIET_S)
    for _ in range(TRIES):
        rig.ready()
        rig.partners()
        refused = "; ".join(filter(None, rig.together(Start(sender=ME, kind=EpisodeKind.POLICY), Hold(sender=ME))))
        need(not refused, f"refused: {refused}")
        rig.hold("operator")
    _held(rig, QUIET_S)
    return "held each time, resumed"


@check(
    "in unattended practice: answered no more, then asked for a hold and answered again",
    f"hold `policy_late`; it lasts for more than {PRACTICE_S:g} s, until `Resume`",
)
def hold_in_practice(rig: Rig) -> str:
    rig.ready()
    rig.partners()
    error = rig.ask(Start(sender=ME, kind=EpisodeKind.POLICY, unattended=True, max_failures=5)).error
    if error:
        raise Skipped(f"no practice here, which a bridge may refuse: {error}")
    try:
        rig.mode(Mode.POLICY, 20.0)
        rig.peers.answer = None
        rig.hold("policy_late", timeout_s=rig.silence_s)
        rig.done(Hold(sender=ME))
        _held(rig, PRACTICE_S)
    finally:
        rig.ready()
    return "stayed in hold, resumed"
