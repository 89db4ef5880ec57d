"""Checks of a bridge that move its robot: what is recorded of an episode, the loss of the recorder, STOP."""

import itertools
import math
import time

from takeover.data.schema import (
    Clear,
    EpisodeEnd,
    EpisodeKind,
    EpisodeStart,
    Finish,
    Mode,
    Outcome,
    OutcomeSource,
    Resume,
    SetOutcome,
    Start,
    Step,
    Stop,
)
from takeover.robot_bridge.conformance.report import Failed, Suite, need
from takeover.robot_bridge.conformance.rig import ME, SLACK_S, Rig

EPISODES: Suite[Rig] = Suite()
AFTER: Suite[Rig] = Suite()

TRIES = 3  # of what depends on when in its period the bridge hears it
SETTLED_S = 0.3  # until a robot that was told to stop stands
QUIET_S = 1.0  # longer than bridges pause between two episodes
STILL_M = 0.002


@EPISODES.check("fell silent as recorder in mode policy", "hold `recorder_lost` within 1.5 s, and all records come after a new hello")
def recorder_lost_holds(rig: Rig) -> str:
    rig.policy()
    rig.peers.recorder = False
    state = rig.hold("recorder_lost", timeout_s=1.5 + SLACK_S)
    rig.peers.recorder = True
    rig.until(lambda state: state.record_backlog == 0, "record_backlog of 0")
    need(not rig.peers.out_of_order, f"gaps: {rig.peers.out_of_order[:3]}")
    return state.hold_detail or state.hold_reason.value


@EPISODES.check("acknowledged nothing for a while, then said hello again", "what was not acknowledged comes again, without gaps")
def records_sent_again(rig: Rig) -> str:
    rig.policy()
    peers = rig.peers
    peers.acknowledge = False
    since = peers.acked
    rig.recorded(since, 4)
    before = list(peers.records)
    peers.records = [item for item in before if item.rec_seq <= since]
    peers.rejoin = True
    rig.recorded(since, 4)
    peers.acknowledge = True
    again = [item for item in list(peers.records) if since < item.rec_seq <= before[-1].rec_seq]
    need(again and not peers.out_of_order, f"{len(again)} came again, gaps: {peers.out_of_order[:3]}")
    first = [item for item in before if item.rec_seq > since][: len(again)]
    need(again == first, "other records came again than had come before")
    return f"{len(again)} records came again"


@EPISODES.check(
    "drove an episode and ended it with success",
    "start, steps and end recorded; seq by one, each next_observation the observation of the next step",
)
def episode_record(rig: Rig) -> str:
    rig.ready()
    since = rig.peers.acked
    rig.policy()
    time.sleep(10 * rig.period_s)
    rig.done(SetOutcome(sender=ME, outcome=Outcome.SUCCESS))
    rig.ask(Finish(sender=ME))
    rig.until(lambda state: not state.block_running, "end of the block of episodes", 8.0)
    rig.until(lambda state: state.record_backlog == 0, "record_backlog of 0")
    records = [item for item in list(rig.peers.records) if item.rec_seq > since]
    start = next((item for item in records if isinstance(item, EpisodeStart)), None)
    if start is None:
        raise Failed("no start was recorded")
    end = next((item for item in records if isinstance(item, EpisodeEnd) and item.episode_id == start.episode_id), None)
    if end is None:
        raise Failed(f"no end of episode {start.episode_id} was recorded")
    steps = [item for item in records if isinstance(item, Step) and item.episode_id == start.episode_id]
    need(end.outcome is Outcome.SUCCESS and end.outcome_source is OutcomeSource.OPERATOR, f"{end.outcome} {end.outcome_source}")
    need(
        end.steps == len([step for step in steps if step.mode is not Mode.HOLD]), f"end says {end.steps} steps, {len(steps)} were recorded"
    )
    for a, b in itertools.pairwise(steps):
        need(b.seq == a.seq + 1, f"step {b.seq} after {a.seq}")
        need(b.observation == a.next_observation, f"step {a.seq}: its next_observation is not what step {b.seq} saw")
    need(steps[-1].terminated and not steps[-1].truncated, "the last step is not marked as terminated")
    need(start.spec.action == rig.spec.action, "the start has another spec than the handshake")
    return f"{len(steps)} steps"


@EPISODES.check(
    "sent STOP in mode policy, without a handshake; then asked to start and resume, and pressed the deadman", "stopped at once, latched"
)
def stop_latches(rig: Rig) -> str:
    rig.policy()
    since = rig.peers.acked
    at = time.monotonic()
    with rig.raw() as client:
        envelope = client.ask({"type": "stop", "sender": "check-bystander", "reason": "check"})
        need(envelope is not None and not envelope.reply.error, "STOP was not acknowledged")
        rig.mode(Mode.STOPPED, 0.3 + SLACK_S)
    took_s = time.monotonic() - at
    rig.refused(Start(sender=ME, kind=EpisodeKind.POLICY))
    rig.refused(Resume(sender=ME))
    rig.hand()
    time.sleep(3 * rig.period_s)
    rig.hand(deadman=True, action=rig.push())
    rig.stays(Mode.STOPPED, 0.4)
    rig.hand()
    ends = [item for item in list(rig.peers.records) if isinstance(item, EpisodeEnd) and item.rec_seq > since]
    need(ends and ends[-1].outcome is Outcome.ABORTED and ends[-1].outcome_source is OutcomeSource.STOP, f"end of the episode: {ends[-1:]}")
    need(not rig.now().block_running, "the block of episodes goes on")
    return f"after {took_s * 1000:.0f} ms"


@EPISODES.check("sent Stop in a takeover, then Clear", "stopped with the deadman pressed; ready only after Clear")
def stop_and_clear(rig: Rig) -> str:
    rig.takeover()
    rig.done(Stop(sender=ME))
    rig.mode(Mode.STOPPED, 0.3 + SLACK_S)
    rig.stays(Mode.STOPPED, 0.3)
    rig.hand()
    rig.done(Clear(sender=ME))
    rig.mode(Mode.READY)
    return "ready"


@EPISODES.check(
    "sent Stop and Clear at once in mode policy, several times", "stays ready: no block runs, nothing is recorded, nothing moves"
)
def stop_and_clear_at_once(rig: Rig) -> str:
    together = 0
    for _ in range(TRIES):
        rig.policy()
        rig.peers.answer = lambda seen: rig.answered(seen, [rig.push()] * rig.spare_rows)  # moves whatever goes on
        time.sleep(3 * rig.period_s)
        together += _cleared_at_once(rig)
        rig.until(lambda state: state.mode is Mode.READY and not state.block_running, "mode ready without a block", 2.0)
        time.sleep(SETTLED_S)
        since, before = rig.peers.acked, rig.now()
        rig.stays(Mode.READY, QUIET_S)
        after, more = rig.now(), [record for record in list(rig.peers.records) if record.rec_seq > since]
        need(not after.block_running and after.block_number == before.block_number, "a block of episodes goes on")
        need(not [record for record in more if isinstance(record, EpisodeStart | Step)], f"{len(more)} records came after Clear")
        moved_m = math.dist(before.tool_position, after.tool_position)
        need(moved_m < STILL_M, f"the tool moved by {moved_m * 1000:.1f} mm")
    return f"stayed ready; Clear counted with its Stop {together} times of {TRIES}"


def _cleared_at_once(rig: Rig) -> bool:
    """Send Stop and Clear in one go; whether that Clear counted. One that comes too early to be needed is refused and sent again."""
    _, error = rig.together(Stop(sender=ME), Clear(sender=ME))
    if error:
        rig.mode(Mode.STOPPED, 0.3 + SLACK_S)
        rig.done(Clear(sender=ME))
    return not error


@AFTER.check("ended what was running", "mode ready, no block of episodes, every record received")
def leave_it_ready(rig: Rig) -> str:
    rig.ready()
    rig.until(lambda state: state.record_backlog == 0, "record_backlog of 0")
    need(not rig.peers.out_of_order, f"gaps: {rig.peers.out_of_order[:3]}")
    return f"{len(rig.peers.records)} records"
