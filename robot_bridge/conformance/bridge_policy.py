"""Checks of a bridge that move its robot: the policy's answers and chunks, episodes and their record, STOP."""

import math
import time

from takeover.data.schema import (
    EpisodeKind,
    Mode,
    Observation,
    PolicyAction,
    Source,
    Start,
    Step,
)
from takeover.robot_bridge.conformance.peers import raw
from takeover.robot_bridge.conformance.report import Skipped, Suite, need
from takeover.robot_bridge.conformance.rig import AMPLITUDE, ME, SLACK_S, Answer, Rig, all_finite

BEFORE: Suite[Rig] = Suite()
POLICY: Suite[Rig] = Suite()

ROWS, MAX_ROWS = 8, 1024
PLAN_S = 3.0  # of a chunk that counts


@BEFORE.check("asked for policy episodes before any actor had answered, and without a recorder", "refused")
def start_needs_policy_and_recorder(rig: Rig) -> str:
    rig.free()
    rig.lease()
    rig.peers.recorder = False
    rig.until(lambda state: state.recorder_age_ms < 0 or state.recorder_age_ms > 600, "loss of the recorder")
    errors = []
    if rig.now().policy_age_ms < 0:
        rig.peers.recorder = True
        rig.until(lambda state: 0 <= state.recorder_age_ms < 300, "recorder")
        errors.append(rig.refused(Start(sender=ME, kind=EpisodeKind.POLICY)))
        rig.peers.recorder = False
        rig.until(lambda state: state.recorder_age_ms > 600, "loss of the recorder")
    rig.peers.answer = rig.answered
    rig.until(lambda state: 0 <= state.policy_age_ms < 300, "answer of the actor", 2.0)
    errors.append(rig.refused(Start(sender=ME, kind=EpisodeKind.POLICY)))
    return "; ".join(errors)


@POLICY.check("answered every observation", "steps of source policy, the row recorded as policy_action with its from_seq, asked as it is")
def policy_drives(rig: Rig) -> str:
    rig.policy()
    since = rig.peers.acked
    rig.peers.answer = lambda seen: rig.answered(seen, [rig.push()] * rig.spare_rows, policy_version=7)
    steps = [step for step in rig.recorded(since, 10) if step.policy_version == 7]
    need(len(steps) >= 5, f"{len(steps)} of 10 steps were driven by the answers")
    for step in steps:
        need(step.mode is Mode.POLICY and set(step.source) == {Source.POLICY}, f"step {step.seq}: {step.mode} {step.source}")
        need(
            step.policy_action == rig.push() and 0 <= step.seq - step.policy_from_seq < rig.spare_rows,
            f"step {step.seq}: {step.policy_action}",
        )
        need(math.isclose(step.asked_action[0], AMPLITUDE), f"step {step.seq} asked {step.asked_action}")
    all_finite(steps)
    return f"{len(steps)} steps"


@POLICY.check("sent an answer with an unknown field", "used: telemetry may grow")
def unknown_field_in_answers(rig: Rig) -> str:
    rig.policy()
    size = rig.spec.action.size

    def answer(seen: Observation) -> PolicyAction | None:
        fields = {"type": "policy_action", "session": seen.session, "from_seq": seen.seq, "policy_version": 8}
        fields |= {"actions": [[0.0] * size] * rig.spare_rows, "valid_until_seq": seen.seq + rig.spare_rows - 1, "mood": "good"}
        rig.peers.outgoing.append(("policy_action", raw("policy_action", fields)))
        return None

    rig.peers.answer = answer
    rig.until(lambda state: state.policy_version == 8, "answer that counts", 2.0)
    rig.stays(Mode.POLICY, 0.3)
    return "used"


def _ramp(rows: int) -> list[float]:
    """Distinct values, so that the row of a chunk can be told."""
    return [AMPLITUDE * (i + 1) / rows for i in range(rows)]


def _chunks(rig: Rig, every: int, rows: int, **changes: int) -> None:
    """Answer every ``every``th observation with a chunk."""
    size = rig.spec.action.size
    chunk = [[value] + [0.0] * (size - 1) for value in _ramp(rows)]
    last = [-(10**9)]

    def answer(seen: Observation) -> PolicyAction | None:
        if seen.seq - last[0] < every:
            return None
        last[0] = seen.seq
        valid = seen.seq + changes["valid"] if "valid" in changes else None
        return rig.answered(seen, chunk, valid, policy_version=9)

    rig.peers.answer = answer


def _row_of(step: Step, rows: int) -> int:
    value = step.policy_action[0] if step.policy_action is not None else -1.0
    return min(range(rows), key=lambda i: abs(_ramp(rows)[i] - value))


@POLICY.check(
    f"answered every 4th observation with a chunk of {ROWS} rows", "step k takes row k - from_seq; a newer chunk replaces the older one"
)
def chunk_rows(rig: Rig) -> str:
    rig.policy()
    since = rig.peers.acked
    _chunks(rig, 4, ROWS)
    steps = [step for step in rig.recorded(since, 16) if step.policy_version == 9]
    need(len(steps) >= 10, f"{len(steps)} of 16 steps were driven by chunks")
    wrong = [
        (step.seq, step.policy_from_seq, _row_of(step, ROWS)) for step in steps if _row_of(step, ROWS) != step.seq - step.policy_from_seq
    ]
    need(not wrong, f"(seq, from_seq, row): {wrong[:3]}")
    need(len({step.policy_from_seq for step in steps}) >= 2, "one chunk only")
    need(max(step.seq - step.policy_from_seq for step in steps) >= 3, "later rows were never used")
    return f"{len(steps)} steps from {len({step.policy_from_seq for step in steps})} chunks"


def _hand_back_to_silence(rig: Rig) -> None:
    """End the takeover with nobody answering any more, and wait for the hold that follows."""
    rig.hand()
    state = rig.until(lambda state: state.mode is not Mode.TAKEOVER, "end of the takeover")
    if state.hold_reason == "released":
        raise Skipped("hold-to-run: nothing is handed back")
    rig.hold("policy_late", timeout_s=1.5 + SLACK_S + 4 * rig.period_s)
    time.sleep(0.2)


@POLICY.check(
    "sent a chunk of 200 rows, took over, handed back, and answered no more",
    "no row of it is used after the flush; then hold `policy_late`",
)
def chunk_flushed(rig: Rig) -> str:
    rig.policy()
    _chunks(rig, 10**6, 200)
    time.sleep(5 * rig.period_s)
    rig.hand(deadman=True, action=rig.push())
    rig.mode(Mode.TAKEOVER)
    time.sleep(4 * rig.period_s)
    since = rig.peers.acked
    _hand_back_to_silence(rig)
    used = [step.seq for step in rig.steps_after(since) if step.policy_version == 9 or step.policy_action is not None]
    need(not used, f"steps {used[:5]} took rows from before the flush")
    return "none used, held"


@POLICY.check(
    "sent a chunk of 200 rows in a takeover, handed back, and answered no more",
    "no row of it drives, not even the step that hands back; then hold `policy_late`",
)
def chunk_of_the_takeover(rig: Rig) -> str:
    rig.policy()
    rig.hand(deadman=True, action=rig.push())
    rig.mode(Mode.TAKEOVER)
    time.sleep(4 * rig.period_s)
    since = rig.peers.acked
    _chunks(rig, 10**6, 200)
    time.sleep(4 * rig.period_s)
    _hand_back_to_silence(rig)
    steps = rig.steps_after(since)
    planned = [step.seq for step in steps if step.mode is Mode.TAKEOVER and step.policy_version == 9]
    need(planned, "the chunk was on record for no step of the takeover")
    used = [step.seq for step in steps if step.mode is not Mode.TAKEOVER and step.policy_action is not None]
    need(not used, f"steps {used[:5]} took rows that were planned in the takeover")
    return f"there in {len(planned)} steps of the takeover, then none used, held"


@POLICY.check(
    "sent one chunk of 50 rows that is valid for 4 steps, and answered no more",
    "no row is used after valid_until_seq; then hold `policy_late`",
)
def chunk_expires(rig: Rig) -> str:
    rig.policy()
    since = rig.peers.acked
    _chunks(rig, 10**6, 50, valid=3)
    rig.hold("policy_late", timeout_s=1.5 + SLACK_S)
    time.sleep(0.2)
    used = [step.seq - step.policy_from_seq for step in rig.steps_after(since) if step.policy_version == 9]
    need(used and max(used) <= 3, f"rows {used} were used")
    return f"rows {used}"


@POLICY.check(
    "sent one chunk of 3 rows that is valid for long, and answered no more",
    "its last row is repeated for at most T_cmd; then hold `policy_late`",
)
def chunk_ends(rig: Rig) -> str:
    rig.policy()
    since = rig.peers.acked
    _chunks(rig, 10**6, 3, valid=1000)
    rig.hold("policy_late", timeout_s=1.5 + SLACK_S)
    time.sleep(0.2)
    used = [step.seq - step.policy_from_seq for step in rig.steps_after(since) if step.policy_version == 9]
    repeats = math.floor(rig.command_life_s * rig.spec.control_hz + 1e-9)
    need(used and max(used) <= 2 + repeats, f"rows {used} were used, at most {2 + repeats} repeats are allowed")
    return f"rows {used}"


@POLICY.check(
    f"sent one chunk of {PLAN_S + 2:g} s that is valid throughout, and answered no more",
    f"a plan counts for {PLAN_S:g} s, its last row for at most T_cmd more; then hold `policy_late`",
)
def long_chunk_ends(rig: Rig) -> str:
    rows, plan = math.ceil((PLAN_S + 2.0) * rig.spec.control_hz), math.floor(PLAN_S * rig.spec.control_hz + 1e-9)
    if rows > MAX_ROWS:
        raise Skipped(f"{MAX_ROWS} rows are no {PLAN_S + 2:g} s at {rig.spec.control_hz:g} Hz")
    if rig.policy(PLAN_S + 1.0).episode_max_steps * rig.period_s < PLAN_S + 1.0:
        raise Skipped(f"episodes of this bridge end before {PLAN_S + 1:g} s")
    since, sent = rig.peers.acked, [rig.now().step_seq]

    def answer(seen: Observation) -> PolicyAction | None:
        if len(sent) > 1:
            return None
        sent.append(seen.seq)
        beyond = [[1e-3] * rig.spec.action.size] * (rows - plan)
        return rig.answered(seen, [[0.0] * rig.spec.action.size] * plan + beyond, policy_version=9)

    rig.peers.answer = answer
    rig.hold("policy_late", timeout_s=PLAN_S + rig.silence_s + rig.command_life_s)
    time.sleep(0.2)
    steps = [step for step in rig.steps_after(since) if step.policy_version == 9]
    used, allowed = [step.seq - step.policy_from_seq for step in steps], plan + math.floor(rig.command_life_s * rig.spec.control_hz + 1e-9)
    need(used, "none of its rows was used")
    need(max(used) < allowed, f"row {max(used)} was used, after {max(used) * rig.period_s:.2f} s")
    need(not any(any(step.policy_action or []) for step in steps), "not the last row that counts was repeated, but one beyond it used")
    return f"{len(used)} rows, {max(used) * rig.period_s:.2f} s"


@POLICY.check("answered nothing any more", "the rows that it has are used, then one step without motion, then hold `policy_late`")
def silent_policy_holds(rig: Rig) -> str:
    rig.policy()
    at = time.monotonic()
    rig.peers.answer = None
    rig.hold("policy_late", timeout_s=rig.silence_s)
    return f"after {(time.monotonic() - at) * 1000:.0f} ms"


def _unused(rig: Rig, answer: Answer) -> str:
    """Answers that must not count: the policy counts as silent."""
    rig.policy()
    since = rig.peers.acked
    rig.peers.answer = answer
    rig.hold("policy_late", timeout_s=rig.silence_s)
    time.sleep(0.1)
    used = [step.seq for step in rig.steps_after(since) if step.policy_version == 66]
    need(not used, f"steps {used} were driven by it")
    return "not used, held"


@POLICY.check("answered for another session", "not used; hold `policy_late`")
def answer_of_another_session(rig: Rig) -> str:
    return _unused(rig, lambda seen: rig.answered(seen, [rig.push()], session="01somebodyelse", policy_version=66))


@POLICY.check("answered observations that were not sent yet", "not used; hold `policy_late`")
def answer_to_the_future(rig: Rig) -> str:
    return _unused(
        rig, lambda seen: rig.answered(seen, [rig.push()] * 1000, from_seq=seen.seq + 500, valid_until_seq=10**9, policy_version=66)
    )


def _faulty(rig: Rig, rows: list[list[float]]) -> str:
    rig.policy()
    since = rig.peers.acked
    rig.peers.answer = lambda seen: rig.answered(seen, rows, policy_version=66)
    state = rig.hold("policy_fault", timeout_s=rig.silence_s)
    time.sleep(0.1)
    steps = rig.steps_after(since)
    moved = [step.seq for step in steps if step.policy_version == 66 and any(step.asked_action)]
    need(not moved, f"steps {moved} moved")
    all_finite(steps)
    return state.hold_detail or state.hold_reason.value


@POLICY.check("answered NaN", "hold `policy_fault`, nothing of it asked of the robot")
def answer_nan_refused(rig: Rig) -> str:
    return _faulty(rig, [rig.push(math.nan)])


@POLICY.check("answered a chunk whose 5th row is infinite", "the whole chunk is refused: hold `policy_fault`, its first row is not used")
def chunk_with_one_bad_row(rig: Rig) -> str:
    return _faulty(rig, [*([rig.push()] * 4), rig.push(math.inf), rig.push()])


@POLICY.check("answered rows with one number too many", "hold `policy_fault`")
def answer_shape_refused(rig: Rig) -> str:
    return _faulty(rig, [[*rig.push(), 0.0]])


@POLICY.check("answered 1025 rows", "hold `policy_fault`: at most 1024 are allowed")
def chunk_too_long(rig: Rig) -> str:
    return _faulty(rig, [rig.push()] * 1025)


@POLICY.check("commanded the policy to twice the allowed range", "every applied action within [-1, 1]")
def actions_limited(rig: Rig) -> str:
    rig.policy()
    since = rig.peers.acked
    rig.peers.answer = lambda seen: rig.answered(seen, [rig.push(2.0)] * rig.spare_rows, policy_version=10)
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline and len(rig.steps_after(since)) < 4:
        time.sleep(0.01)
    rig.peers.answer = rig.answered
    steps = [step for step in rig.steps_after(since) if step.policy_version == 10]
    need(steps, "no step was recorded")
    all_finite(steps, applied_only=True)
    return f"applied {max(abs(step.action[0]) for step in steps):.3f} at most"
