"""Checks of a bridge whose robot waits: held steps on record, a block that is to end while it is held, a demonstration before its press."""

import time

from takeover.data.schema import (
    ControlMode,
    EpisodeKind,
    EpisodeStart,
    Finish,
    Hold,
    Mode,
    Outcome,
    Resume,
    SetOutcome,
    Start,
    State,
)
from takeover.robot_bridge.conformance.report import Skipped, Suite, need
from takeover.robot_bridge.conformance.rig import ME, Rig

WAITS: Suite[Rig] = Suite()
RESET_S = 20.0
WAIT_S = 0.4  # for what must not happen


@WAITS.check(
    "held the robot in a takeover, then resumed", "held steps: control_mode 3, no intervention, the run_id before; then the next run_id"
)
def held_steps(rig: Rig) -> str:
    rig.takeover()
    since = rig.peers.acked
    time.sleep(6 * rig.period_s)
    rig.done(Hold(sender=ME))
    rig.hold("operator")
    rig.hand()
    time.sleep(6 * rig.period_s)
    rig.until(lambda state: 0 <= state.command_age_ms < 100, "a fresh command")
    rig.done(Resume(sender=ME))
    rig.mode(Mode.POLICY)
    time.sleep(6 * rig.period_s)
    steps = rig.steps_after(since)
    taken, held, after = ([step for step in steps if step.mode is mode] for mode in (Mode.TAKEOVER, Mode.HOLD, Mode.POLICY))
    need(taken and held and after, f"{len(taken)} steps of the takeover, {len(held)} held ones, {len(after)} after them were recorded")
    held_as = {(step.control_mode, step.intervention_id, step.run_id) for step in held}
    need(held_as == {(ControlMode.PAUSED, -1, taken[-1].run_id)}, f"held as (control_mode, intervention_id, run_id) {sorted(held_as)}")
    next_runs = {step.run_id for step in after if step.seq > held[-1].seq}
    need(next_runs == {taken[-1].run_id + 1}, f"run {taken[-1].run_id} goes on as {sorted(next_runs)}")
    return f"{len(held)} held steps"


@WAITS.check("held the robot, then asked for the end of the block, but not now", "hold and episode go on; the block ends with the episode")
def finish_in_a_hold(rig: Rig) -> str:
    rig.policy()
    rig.done(Hold(sender=ME))
    held = rig.hold("operator")
    rig.done(Finish(sender=ME))
    rig.stays(Mode.HOLD, WAIT_S)
    state = rig.now()
    need(state.episode_id == held.episode_id and state.block_running, f"the episode is {state.episode_id!r} now, not {held.episode_id!r}")
    rig.done(SetOutcome(sender=ME, outcome=Outcome.FAILURE))
    rig.until(lambda state: state.mode is Mode.READY and not state.block_running, "end of the block")
    return "held on"


@WAITS.check(
    "asked for a demonstration, and pressed the deadman only later",
    "ready with its episode_id, kind and number in State and its episode_id in Observation; on record from the press on",
)
def waiting_demonstration(rig: Rig) -> str:
    rig.ready()
    rig.partners()
    since = rig.peers.acked
    error = rig.ask(Start(sender=ME, kind=EpisodeKind.DEMONSTRATION, episodes=1)).error
    if "not supported" in error:
        raise Skipped(error)
    need(not error, f"Start was refused: {error}")

    def waits(state: State) -> bool:
        need(state.mode in (Mode.READY, Mode.RESETTING), f"went to mode {state.mode} without a press")
        return state.mode is Mode.READY and state.block_running and bool(state.episode_id)

    state = rig.until(waits, "mode ready with the episode_id of a demonstration that waits", RESET_S)
    need(state.episode_kind is EpisodeKind.DEMONSTRATION and state.episode_number >= 0, f"{state.episode_kind} {state.episode_number}")
    rig.stays(Mode.READY, WAIT_S)
    asked = rig.peers.observations[-1][1]
    need(asked.episode_id == state.episode_id, f"Observation says episode {asked.episode_id!r}, State {state.episode_id!r}")
    need(not _starts(rig, since), "its EpisodeStart came before the press")
    rig.hand(deadman=True, action=rig.push())
    rig.mode(Mode.TAKEOVER)
    rig.recorded(since, 3)
    need(_starts(rig, since) == [state.episode_id], f"recorded as {_starts(rig, since)}, waited as {state.episode_id!r}")
    rig.hand()
    rig.ask(Finish(sender=ME, now=True))
    rig.until(lambda state: state.mode is Mode.READY and not state.block_running, "end of the block")
    return f"number {state.episode_number}"


def _starts(rig: Rig, since: int) -> list[str]:
    return [record.episode_id for record in list(rig.peers.records) if isinstance(record, EpisodeStart) and record.rec_seq > since]
