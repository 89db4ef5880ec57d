"""The real bridge in real time, over real sockets: takeover, holds, STOP, lease, outcomes, recorder."""

import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from takeover.data.schema import (
    Clear,
    ControlMode,
    EpisodeKind,
    Fault,
    Finish,
    Hello,
    Hold,
    HoldReason,
    Lease,
    Mark,
    Mode,
    Next,
    Observation,
    Outcome,
    OutcomeChange,
    OutcomeSource,
    Resume,
    Role,
    RunConfig,
    SafetyBit,
    SetOutcome,
    Source,
    SpeedScale,
    Start,
    State,
    Stop,
    UndoOutcome,
)
from takeover.robot_bridge.bridge import Bridge
from takeover.robot_bridge.protocol import ControlClient, Push, Subscriber
from takeover.robot_bridge.robots.base import Picture
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.robots.sim_cameras import SimCameras

from .station import Actor, Operator, Recorder, Station, eventually, station


class Scene:
    """A running policy with everybody present."""

    def __init__(self, made: Station) -> None:
        self.station = made
        self.recorder: Recorder = made.recorder()
        self.actor: Actor = made.actor()
        self.operator: Operator = made.operator()
        assert self.operator.take_lease().error == ""

    def run_policy(self, episodes: int = 0) -> State:
        self.station.start(self.operator, EpisodeKind.POLICY, episodes)
        return self.until_mode(Mode.POLICY)

    def take_over(self, action: tuple[float, ...] = (0.5, 0.0, 0.0, 0.0)) -> State:
        self.operator.action = list(action)
        self.operator.deadman = True
        return self.until_mode(Mode.TAKEOVER)

    def until_mode(self, mode: Mode) -> State:
        """A machine that is busy with other things gives real holds (a late answer, an old command): resume as a person would."""
        deadline = time.monotonic() + 20.0
        while True:
            state = self.station.state()
            if state.mode is mode:
                return state
            if time.monotonic() > deadline:
                raise TimeoutError(f"not in {mode}: {state.mode} {state.hold_reason} {state.hold_detail} {state.gate}")
            if state.mode is Mode.HOLD and state.hold_reason in (HoldReason.POLICY_LATE, HoldReason.COMMAND_STALE, HoldReason.CONTROL_LATE):
                wanted = self.operator.deadman, self.operator.action
                self.neutral()
                time.sleep(0.2)
                if mode in (Mode.POLICY, Mode.READY):
                    self.operator.ask(Resume(sender="console"))
                self.operator.deadman, self.operator.action = wanted

    def neutral(self) -> None:
        self.operator.deadman = False
        self.operator.action = [0.0] * 4

    def until_hold(self, reason: HoldReason) -> State:
        deadline = time.monotonic() + 20.0
        while True:
            state = self.station.state()
            if state.mode is Mode.HOLD and state.hold_reason is reason:
                return state
            if time.monotonic() > deadline:
                raise TimeoutError(f"no hold for {reason}: {state.mode} {state.hold_reason} {state.hold_detail} {state.gate}")
            if state.mode is Mode.HOLD and state.hold_reason in (HoldReason.POLICY_LATE, HoldReason.CONTROL_LATE):
                self.operator.ask(Resume(sender="console"))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with station(tmp_path) as made:
        yield Scene(made)


def test_takeover_ramps_and_hands_back_without_a_snap(scene: Scene) -> None:
    scene.run_policy()
    scene.take_over()
    scene.station.until(lambda state: state.human_steps >= 8)
    scene.neutral()
    scene.until_mode(Mode.POLICY)
    assert eventually(lambda: scene.recorder.newest_mode is Mode.POLICY)
    steps = scene.recorder.steps
    human = [step for step in steps if step.source == [Source.HUMAN]]
    assert [step.control_mode for step in human[:4]] == [ControlMode.TRANSITION] * 3 + [ControlMode.HUMAN]
    assert [round(step.action[0], 3) for step in human[:4]] == [0.125, 0.25, 0.375, 0.5]
    assert {step.intervention_id for step in human} == {0}
    after = steps[steps.index(human[-1]) + 1]
    assert after.source == [Source.POLICY]
    assert after.action == [0.0] * 4
    assert after.run_id == human[0].run_id
    # whole transitions without a gap: every next observation is the observation after it
    for one, two in itertools.pairwise(steps):
        assert two.seq == one.seq + 1
        assert two.observation == one.next_observation
    assert all(len(step.sim_state) % 8 == 0 and step.sim_state for step in steps)


def test_records_are_numbered_without_gaps(scene: Scene) -> None:
    scene.run_policy(1)
    scene.operator.ask(SetOutcome(sender="console", outcome=Outcome.SUCCESS))
    assert eventually(lambda: len(scene.recorder.ends) == 1)
    end, last = scene.recorder.ends[0], scene.recorder.steps[-1]
    assert (end.outcome, end.outcome_source, end.autonomous) == (Outcome.SUCCESS, OutcomeSource.OPERATOR, True)
    assert (last.terminated, last.truncated, last.reward) == (True, False, 1.0)
    assert end.steps == len(scene.recorder.steps)
    assert [record.rec_seq for record in scene.recorder.records] == list(range(len(scene.recorder.records)))
    assert scene.station.until_mode(Mode.READY).block_done == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"alive": False}, HoldReason.DEVICE_LOST),
        ({"sending": False}, HoldReason.COMMAND_STALE),
        ({"gui_alive": False}, HoldReason.COMMAND_STALE),
        ({"frozen_state_seq": 0}, HoldReason.COMMAND_STALE),
        ({"kind": "keyboard", "focused": False}, HoldReason.FOCUS_LOST),
        ({"action": [float("nan"), 0.0, 0.0, 0.0]}, HoldReason.HUMAN_FAULT),
        ({"action": [0.5, 0.0]}, HoldReason.HUMAN_FAULT),
    ],
)
def test_loss_during_a_takeover_holds(scene: Scene, change: dict[str, object], reason: HoldReason) -> None:
    scene.run_policy()
    normal = {name: getattr(scene.operator, name) for name in change}
    for _ in range(5):
        scene.take_over()
        for name, value in change.items():
            setattr(scene.operator, name, value)
        state = scene.station.until_mode(Mode.HOLD)
        if state.hold_reason is reason:
            break
        # a busy machine was faster with a hold of its own: again
        for name, value in normal.items():
            setattr(scene.operator, name, value)
        scene.neutral()
        scene.until_mode(Mode.POLICY)
    assert state.hold_reason is reason
    assert state.hold_detail
    time.sleep(0.3)
    held = [step for step in scene.recorder.steps if step.mode is Mode.HOLD]
    assert held
    for step in held:
        assert step.action == [0.0] * 4
        assert step.source == [Source.NONE]
        assert step.control_mode is ControlMode.SAFETY_HOLD


def test_a_desk_that_sees_no_states_is_nobody_and_keeps_nobody_out(scene: Scene) -> None:
    scene.run_policy()
    assert scene.operator.state is not None
    scene.operator.frozen_state_seq = scene.operator.state.seq
    scene.until_hold(HoldReason.NOT_PRESENT)
    scene.station.until(lambda state: state.commander == "")
    assert scene.station.operator("second").take_lease().error == ""


def test_after_a_hold_only_neutral_and_a_fresh_press_drive(scene: Scene) -> None:
    scene.run_policy()
    scene.take_over()
    scene.operator.alive = False
    scene.until_hold(HoldReason.DEVICE_LOST)
    scene.operator.alive = True  # reconnected with the stick deflected and the deadman down
    time.sleep(0.4)
    assert scene.station.state().mode is Mode.HOLD
    assert "deadman" in scene.operator.ask(Resume(sender="console")).error
    scene.neutral()
    assert eventually(lambda: scene.operator.ask(Resume(sender="console")).error == "")
    scene.until_mode(Mode.POLICY)
    scene.operator.ask(Hold(sender="console"))
    scene.until_hold(HoldReason.OPERATOR)
    time.sleep(0.1)
    scene.take_over()
    assert eventually(lambda: scene.recorder.newest_mode is Mode.TAKEOVER)
    steps = scene.recorder.steps
    assert steps[-1].intervention_id >= 1  # resumed in between: a second intervention
    assert steps[-1].run_id > steps[0].run_id
    assert scene.station.state().resumes >= 1


def test_a_resumed_intervention_keeps_its_id(scene: Scene) -> None:
    scene.run_policy()
    scene.take_over()
    scene.station.until(lambda state: state.human_steps >= 5)
    scene.operator.alive = False
    scene.until_hold(HoldReason.DEVICE_LOST)
    scene.operator.alive = True
    scene.neutral()
    time.sleep(0.2)
    scene.take_over()
    assert eventually(lambda: scene.recorder.steps[-1].run_id >= 1)
    human = [step for step in scene.recorder.steps if step.source == [Source.HUMAN]]
    assert {step.intervention_id for step in human} == {0}
    assert {0, 1} <= {step.run_id for step in human}
    assert scene.station.state().takeovers == 1


def test_the_policy_late_once_stands_twice_holds(scene: Scene) -> None:
    scene.actor.act = lambda _: [0.5, 0.0, 0.0, 0.0]
    scene.run_policy()
    scene.station.until(lambda state: state.episode_step > 3)
    scene.actor.silent = True
    scene.until_hold(HoldReason.POLICY_LATE)
    assert eventually(lambda: scene.recorder.newest_mode is Mode.HOLD)
    steps = scene.recorder.steps
    late = max(i for i, step in enumerate(steps) if step.mode is Mode.POLICY)
    assert steps[late].policy_action is None
    assert steps[late].action == [0.0] * 4
    assert steps[late + 1].mode is Mode.HOLD


def test_a_policy_that_is_not_finite_never_reaches_the_robot(scene: Scene) -> None:
    scene.run_policy()
    scene.actor.act = lambda _: [float("nan")] * 4
    scene.until_hold(HoldReason.POLICY_FAULT)
    assert eventually(lambda: scene.recorder.newest_mode is Mode.HOLD)
    faulty = next(step for step in scene.recorder.steps if step.safety_bits & SafetyBit.NON_FINITE)
    assert faulty.action == [0.0] * 4
    scene.actor.act = lambda _: [0.0] * 4
    assert eventually(lambda: scene.operator.ask(Resume(sender="console")).error == "")
    scene.actor.act = lambda _: [0.0] * 7
    scene.until_hold(HoldReason.POLICY_FAULT)


def test_gross_clamps_in_a_row_hold(tmp_path: Path) -> None:
    with station(tmp_path) as made:
        scene = Scene(made)
        scene.actor.act = lambda _: [3.0, 0.0, 0.0, 0.0]
        scene.station.start(scene.operator)
        scene.until_hold(HoldReason.REPEATED_CLAMP)
        assert eventually(lambda: scene.recorder.newest_mode is Mode.HOLD)
        assert all(abs(value) <= 1.0 for step in scene.recorder.steps for value in step.action)


def test_operators_silence_lapses_the_lease(scene: Scene) -> None:
    scene.run_policy()
    scene.operator.sending = False
    assert scene.until_hold(HoldReason.LEASE_LAPSED).commander == ""


def test_nobody_there_nobody_drives(tmp_path: Path) -> None:
    with station(tmp_path) as made:
        made.recorder()
        made.actor()
        operator = made.operator()
        made.start(operator)
        state = made.until_mode(Mode.HOLD)
        assert state.hold_reason is HoldReason.NOT_PRESENT


def test_recorder_silence_holds_and_nothing_is_lost_or_doubled(scene: Scene) -> None:
    scene.run_policy()
    scene.station.until(lambda state: state.episode_step > 5)
    scene.recorder.peer.stop()
    state = scene.until_hold(HoldReason.RECORDER_LOST)
    kept = list(scene.recorder.records)
    time.sleep(0.3)
    assert scene.station.state().record_backlog > 0
    again = Recorder(scene.station.endpoints)
    again.records.extend(kept)
    scene.station.closers.append(again.peer.stop)
    assert eventually(lambda: scene.station.state().record_backlog <= 2)
    assert [record.rec_seq for record in again.records] == list(range(len(again.records)))
    assert len(again.records) > len(kept)
    assert eventually(lambda: scene.operator.ask(Resume(sender="console")).error == "")
    assert state.mode is Mode.HOLD


def test_recorder_error_holds_with_disk_full(scene: Scene) -> None:
    scene.run_policy()
    scene.recorder.error = "No space left on device"
    assert "No space" in scene.until_hold(HoldReason.DISK_FULL).hold_detail


def test_stop_is_immediate_latches_and_aborts(scene: Scene) -> None:
    scene.actor.act = lambda _: [0.5, 0.0, 0.0, 0.0]
    scene.run_policy()
    assert eventually(lambda: len(scene.recorder.steps) > 2)
    observer = ControlClient(scene.station.endpoints, "labeler", Role.LABELER)
    began = time.monotonic()
    assert observer.ask(Stop(sender="labeler"), 2.0).error == ""
    assert scene.station.robot._stopped.is_set()
    assert time.monotonic() - began < 0.5  # measured: about 1 ms; it waits for no period
    observer.close()
    scene.station.until_mode(Mode.STOPPED)
    assert eventually(lambda: len(scene.recorder.ends) == 1)
    assert (scene.recorder.ends[0].outcome, scene.recorder.ends[0].outcome_source) == (Outcome.ABORTED, OutcomeSource.STOP)
    assert scene.recorder.steps[-1].truncated
    scene.operator.deadman = True
    time.sleep(0.3)
    assert scene.station.state().mode is Mode.STOPPED
    assert "ready" in scene.operator.ask(Start(sender="console", kind=EpisodeKind.POLICY)).error
    scene.neutral()
    assert scene.operator.ask(Clear(sender="console")).error == ""
    assert scene.station.until_mode(Mode.READY).episode_id == ""
    assert not scene.station.robot._stopped.is_set()


def test_second_commander_is_refused_and_scripts_give_way(scene: Scene) -> None:
    scene.run_policy()
    second = scene.station.operator("second")
    assert "console holds the lease" in second.take_lease().error
    second.lease = scene.operator.lease  # a stolen token does not help either
    second.action, second.deadman = [1.0, 0.0, 0.0, 0.0], True
    time.sleep(0.3)
    assert scene.station.state().mode is Mode.POLICY
    assert "console holds the lease" in second.ask(SpeedScale(sender="second", scale=0.5)).error
    second.sending = False
    scene.operator.ask(Lease(sender="console", release=True))
    script = scene.station.operator("operator", "scripted")
    assert script.take_lease().error == ""
    assert scene.operator.take_lease().error == ""
    assert "console holds" in script.take_lease().error


def test_whoever_gets_the_lease_must_let_go_first(tmp_path: Path) -> None:
    """A person with the deadman down pre-empts a script that drives: the takeover ends, only a fresh press lets the person drive."""
    with station(tmp_path) as made:
        recorder = made.recorder()
        made.actor()
        script = made.operator("operator", "scripted")
        assert script.take_lease().error == ""
        made.start(script)
        made.until(lambda state: state.mode is Mode.POLICY and state.episode_step > 3)
        script.action, script.deadman = [0.0, 0.3, 0.0, 0.0], True
        made.until(lambda state: state.mode is Mode.TAKEOVER and state.human_steps > 4)
        person = made.operator("console")
        person.action, person.deadman = [0.5, 0.0, 0.0, 0.0], True
        assert person.take_lease().error == ""
        made.until(lambda state: state.mode is not Mode.TAKEOVER)
        time.sleep(0.6)
        assert eventually(lambda: len(recorder.steps) > 10)
        assert all(abs(step.action[0]) < 0.01 for step in recorder.steps)
        scene = Scene.__new__(Scene)
        scene.station, scene.operator = made, person
        scene.neutral()
        if made.state().mode is Mode.HOLD:  # between the grant and the person's first command nobody commanded
            assert eventually(lambda: person.ask(Resume(sender="console")).error == "")
        made.until_mode(Mode.POLICY)
        time.sleep(0.2)
        scene.take_over()
        assert eventually(lambda: recorder.steps[-1].action[0] > 0.3)


def test_old_and_foreign_commands_are_refused(scene: Scene) -> None:
    scene.run_policy()
    operator = scene.operator
    scene.station.until(lambda state: state.episode_step > 3)
    replayed = operator.command(deadman=True, neutral=False, action=[1.0, 0.0, 0.0, 0.0])
    operator.sending = False
    time.sleep(0.05)
    refused = scene.station.bridge.io.refused_commands
    with Push(scene.station.endpoints, "command", type(replayed)) as push:
        push.send(operator.command(session="another", deadman=True, neutral=False), 1.0)
        push.send(operator.command(lease="stolen", deadman=True, neutral=False), 1.0)
        push.send(operator.command(authority=["left_arm"], deadman=True, neutral=False), 1.0)
        operator.sending = True
        time.sleep(0.1)
        push.send(replayed, 1.0)
        assert eventually(lambda: scene.station.bridge.io.refused_commands >= refused + 4)
    time.sleep(0.2)
    assert all(step.source != [Source.HUMAN] for step in scene.recorder.steps)
    assert {"command_refused"} <= {event.kind for event in scene.recorder.events}


def test_demonstrations_start_by_press_and_can_be_made_again(tmp_path: Path) -> None:
    with station(tmp_path) as made:
        recorder, operator = made.recorder(), made.operator()
        operator.take_lease()
        made.start(operator, EpisodeKind.DEMONSTRATION, 2)
        state = made.until(lambda state: state.mode is Mode.READY and state.episode_kind is EpisodeKind.DEMONSTRATION)
        assert recorder.starts == []
        time.sleep(0.2)
        operator.action, operator.deadman = [0.5, 0.0, 0.0, 0.0], True
        made.until(lambda state: state.mode is Mode.TAKEOVER and state.human_steps >= 5)
        operator.deadman, operator.action = False, [0.0] * 4
        made.until(lambda state: state.hold_reason is HoldReason.RELEASED)
        operator.ask(Next(sender="console", discard=True))
        made.until(lambda state: state.mode is Mode.READY and state.episode_number == 1)
        assert eventually(lambda: len(recorder.ends) == 1)
        assert recorder.ends[0].discarded
        assert made.state().block_done == 0
        first = recorder.steps[0]
        assert (first.control_mode, first.intervention_id, first.train_step) == (ControlMode.HUMAN, -1, -1)
        for done in (1, 2):
            time.sleep(0.2)
            operator.action, operator.deadman = [0.5, 0.0, 0.0, 0.0], True
            made.until_mode(Mode.TAKEOVER)
            operator.ask(SetOutcome(sender="console", outcome=Outcome.SUCCESS))
            operator.deadman, operator.action = False, [0.0] * 4
            made.until(lambda state, done=done: state.block_done == done and state.mode is Mode.READY)  # type: ignore[misc]
        assert state.episode_number == 0
        assert [start.number for start in recorder.starts] == [0, 1, 2]
        assert len({start.start_seed for start in recorder.starts}) == 3


def test_outcomes_can_be_undone_and_relabelled(scene: Scene) -> None:
    scene.run_policy(1)
    operator = scene.operator
    assert "undo" in operator.ask(UndoOutcome(sender="console")).error
    operator.ask(SetOutcome(sender="console", outcome=Outcome.FAILURE))
    scene.station.until(lambda state: state.block_done == 1)
    assert operator.ask(SetOutcome(sender="console", outcome=Outcome.SUCCESS)).error == ""
    assert operator.ask(UndoOutcome(sender="console")).error == ""
    assert operator.ask(UndoOutcome(sender="console")).error == ""
    assert operator.ask(UndoOutcome(sender="console")).error != ""
    assert eventually(lambda: len(scene.recorder.of(OutcomeChange)) == 3)
    changes = [(change.previous, change.outcome) for change in scene.recorder.of(OutcomeChange)]
    assert changes == [
        (Outcome.FAILURE, Outcome.SUCCESS),
        (Outcome.SUCCESS, Outcome.FAILURE),
        (Outcome.FAILURE, Outcome.UNKNOWN),
    ]


def test_blocks_next_finish_and_the_step_limit(scene: Scene) -> None:
    scene.run_policy()
    operator = scene.operator
    assert "mode ready" in operator.ask(Start(sender="console", kind=EpisodeKind.POLICY)).error
    operator.ask(Next(sender="console"))
    scene.station.until(lambda state: state.episode_number == 1 and state.mode is Mode.POLICY)
    assert eventually(lambda: len(scene.recorder.ends) == 1)
    assert (scene.recorder.ends[0].outcome, scene.recorder.ends[0].outcome_source) == (Outcome.ABORTED, OutcomeSource.NEXT)
    operator.ask(Finish(sender="console"))
    assert scene.station.state().mode is Mode.POLICY
    state = scene.until_mode(Mode.READY)
    assert state.block_done == 2
    assert eventually(lambda: len(scene.recorder.ends) == 2)
    end, last = scene.recorder.ends[1], scene.recorder.steps[-1]
    assert (end.outcome, end.outcome_source, end.steps) == (Outcome.FAILURE, OutcomeSource.LIMIT, 100)
    assert (last.terminated, last.truncated) == (False, True)


def test_roles_and_handshake(scene: Scene) -> None:
    endpoints = scene.station.endpoints
    stranger = ControlClient(endpoints, "stranger", Role.OPERATOR)
    assert "hello" in stranger.ask(Hold(sender="stranger"), 2.0).error
    assert "protocol 99" in stranger.ask(Hello(protocol=99, sender="stranger", role=Role.OPERATOR, software="x"), 2.0).error
    observer = ControlClient(endpoints, "observer", Role.OBSERVER)
    reply = observer.hello("test", 2.0)
    assert reply.spec is not None
    assert reply.spec.task_id == "peg-insert"
    assert "may not" in observer.ask(Start(sender="observer", kind=EpisodeKind.POLICY), 2.0).error
    assert "may not" in observer.ask(Lease(sender="observer"), 2.0).error
    scene.run_policy()
    assert observer.ask(Hold(sender="observer"), 2.0).error == ""
    scene.until_hold(HoldReason.OPERATOR)
    assert "may not" in observer.ask(Resume(sender="observer"), 2.0).error
    stranger.close()
    observer.close()


def test_speed_scale_mark_and_fault(scene: Scene) -> None:
    operator = scene.operator
    scene.actor.act = lambda _: [1.0, 0.0, 0.0, 0.0]
    assert "allowed" in operator.ask(SpeedScale(sender="console", scale=2.0)).error
    assert operator.ask(SpeedScale(sender="console", scale=0.25)).error == ""
    scene.run_policy()
    assert operator.ask(Mark(sender="console", text="look here")).error == ""
    assert "known" in operator.ask(Fault(sender="console", name="gremlin")).error
    scene.station.until(lambda state: state.episode_step > 3)
    assert eventually(lambda: any(event.kind == "mark" for event in scene.recorder.events))
    mark = next(event for event in scene.recorder.events if event.kind == "mark")
    assert mark.text == "look here"
    assert mark.sim_state
    assert mark.episode_id == scene.recorder.starts[0].episode_id
    assert max(step.action[0] for step in scene.recorder.steps) == pytest.approx(0.25 * 3**0.5, abs=1e-6)
    assert scene.station.state().safety_counts["slow_mode"] > 0


def test_a_frozen_camera_that_the_policy_needs_holds_it_but_not_a_person(tmp_path: Path) -> None:
    with station(tmp_path, cameras=True, policy_cameras=["front"]) as made:
        scene = Scene(made)
        scene.run_policy()
        made.until(lambda state: state.episode_step > 5)
        assert scene.operator.ask(Fault(sender="console", name="frozen_camera", value=1.0)).error == ""
        state = scene.until_hold(HoldReason.CAMERA_FROZEN)
        assert state.hold_detail == "front"
        made.until(lambda state: "front" in state.gate["cameras"])
        scene.neutral()
        time.sleep(0.2)
        scene.take_over()  # who sees the robot may drive it
        made.until(lambda state: state.human_steps > 5)
        scene.neutral()
        scene.until_hold(HoldReason.CAMERA_FROZEN)
        scene.operator.ask(Finish(sender="console", now=True))
        made.until_mode(Mode.READY)
        assert "camera frozen: front" in scene.operator.ask(Start(sender="console", kind=EpisodeKind.POLICY)).error
        assert scene.operator.ask(Fault(sender="console", name="frozen_camera", value=0.0)).error == ""
        made.until(lambda state: not state.gate["cameras"])
        scene.run_policy()


def test_a_robot_whose_reset_takes_long_does_not_begin_held_for_its_cameras(tmp_path: Path) -> None:
    class Slow(SimRobot):
        def reset(self, seed: int) -> None:
            super().reset(seed)
            time.sleep(0.3)

    with station(tmp_path, hardware=Slow("peg-insert"), cameras=True, policy_cameras=["front"]) as made:
        scene = Scene(made)
        scene.run_policy()
        held = []
        for number in range(3):
            made.until(lambda state, before=number: state.episode_number > before and state.mode in (Mode.POLICY, Mode.HOLD))
            time.sleep(0.15)
            held.append(made.state().hold_reason)
            scene.operator.ask(SetOutcome(sender="console", outcome=Outcome.FAILURE))
        assert HoldReason.CAMERA_FROZEN not in held


def test_a_policy_without_its_camera_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object, __: object) -> list[Picture]:
        raise RuntimeError("context lost")

    with station(tmp_path, cameras=True, policy_cameras=["wrist"]) as made:
        scene = Scene(made)
        scene.run_policy()
        monkeypatch.setattr(SimCameras, "pictures", broken)
        assert "context lost" in scene.until_hold(HoldReason.CAMERA_MISSING).hold_detail
        assert "context lost" in made.state().gate["cameras"]
        # it does not come back: the episode ends and no other begins, until there are pictures again
        made.until(lambda state: state.mode is Mode.READY and not state.block_running)
        assert eventually(lambda: [(end.outcome, end.outcome_source) for end in scene.recorder.ends] == [("aborted", "fault")])
        assert "camera missing" in scene.operator.ask(Start(sender="console", kind=EpisodeKind.POLICY)).error
        monkeypatch.undo()
        made.until(lambda state: not state.gate["cameras"])
        scene.run_policy()


def test_policy_cameras_must_exist(tmp_path: Path) -> None:
    config = RunConfig(
        session_id="test", workspace=str(tmp_path), sockets=str(tmp_path / "s"), cameras=False, policy_cameras=["front", "side"]
    )
    with pytest.raises(ValueError, match=r"front, side is no camera.*known: none"):
        Bridge(config, SimRobot("peg-insert"), None)


def test_a_failing_robot_is_reported_held_and_survived(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.run_policy()
    failures = iter([True])

    def broken(_: object, original: object = scene.station.robot.apply) -> None:
        if next(failures, False):
            raise OSError("cable pulled")
        original(_)  # type: ignore[operator]

    monkeypatch.setattr(scene.station.robot, "apply", broken)
    state = scene.until_hold(HoldReason.ROBOT_FAULT)
    assert "cable pulled" in state.hold_detail
    assert scene.station.robot._stopped.is_set()
    assert eventually(lambda: any(event.kind == "robot_fault" for event in scene.recorder.events))
    assert eventually(lambda: scene.operator.ask(Resume(sender="console")).error == "")
    scene.until_mode(Mode.POLICY)


def test_a_stuck_control_thread_stops_robot_and_heartbeat(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.run_policy()
    release = threading.Event()
    original = scene.station.robot.evaluate

    def stuck() -> object:
        release.wait(3.0)
        return original()

    monkeypatch.setattr(scene.station.robot, "evaluate", stuck)
    assert eventually(lambda: scene.station.robot._stopped.is_set(), 3.0)
    while scene.station._states.receive(0.2) is not None:
        pass  # what was sent before
    with pytest.raises(TimeoutError):
        scene.station.state(0.3)
    release.set()
    scene.until_hold(HoldReason.CONTROL_LATE)


def test_flush_marks_every_change_of_who_drives(scene: Scene) -> None:
    seen: list[Observation] = []
    with Subscriber[Observation](scene.station.endpoints, "observation", Observation, latest=False) as observations:
        assert observations.receive(2.0) is not None
        scene.run_policy()
        scene.take_over()
        time.sleep(0.3)
        scene.neutral()
        scene.until_mode(Mode.POLICY)
        time.sleep(0.2)
        while (observation := observations.receive()) is not None:
            seen.append(observation)
    running = [observation for observation in seen if observation.episode_id]
    assert running[0].flush
    changes = [two for one, two in itertools.pairwise(running) if one.mode is not two.mode]
    assert len(changes) == 2
    assert all(observation.flush for observation in changes)


def test_garbage_is_answered_counted_and_survived(scene: Scene) -> None:
    """Truncated, nested, oversized, unknown and wrongly typed messages, on every socket that listens."""
    scene.run_policy()
    junk = [b"", b"control\0", b"control\0\xff\xff", b"nonsense", b"control\0" + b"\x91" * 5000, b"control\0" + bytes(60_000)]
    junk.append(b"control\0\x82\xaarequest_id\x01\xa7request\x82\xa4type\xa4stop\xa5extra\x01")
    client = scene.operator.client
    for data in junk:
        client._dealer.socket.send(data)
    errors = [reply.reply.error for _ in junk if (reply := client.poll(2.0)) is not None]
    assert len(errors) == len(junk)
    assert all(error.startswith("bad request") for error in errors)
    io = scene.station.bridge.io
    with Push(scene.station.endpoints, "command", bytes) as push, Push(scene.station.endpoints, "event", bytes) as events:
        for data in junk:
            push.socket.send(data.replace(b"control", b"command"))
            events.socket.send(data.replace(b"control", b"event"))
        assert eventually(lambda: io._command.bad_messages >= len(junk) and io._event.bad_messages >= len(junk))
    assert scene.station.state().mode is Mode.STOPPED  # a stop with an unknown field is refused like everything else, and stops


def test_an_io_failure_stops_the_robot_and_stop_still_works(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.run_policy()
    io = scene.station.bridge.io
    failures = iter([True])
    original = io._flush

    def broken() -> None:
        if next(failures, False):
            raise OSError("network down")
        original()

    monkeypatch.setattr(io, "_flush", broken)
    scene.station.until_mode(Mode.STOPPED)
    assert scene.station.robot._stopped.is_set()
    assert eventually(lambda: scene.operator.ask(Clear(sender="console")).error == "")
    assert scene.operator.ask(Stop(sender="console")).error == ""
    scene.station.until_mode(Mode.STOPPED)


def test_threads_that_share_pythons_lock_go_before_other_processes(tmp_path: Path) -> None:
    """Where that is permitted; the control thread waits for whoever of them holds the lock."""
    allowed: list[bool] = []

    def ask() -> None:
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -5)
        except PermissionError:
            allowed.append(False)
        else:
            allowed.append(True)

    asking = threading.Thread(target=ask)
    asking.start()
    asking.join()
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with station(tmp_path) as made:
        made.state()
        (io,) = [thread for thread in threading.enumerate() if thread.name == "io"]
        assert io.native_id is not None
        assert eventually(lambda: os.getpriority(os.PRIO_PROCESS, io.native_id) == (-5 if allowed[0] else before))
    assert os.getpriority(os.PRIO_PROCESS, 0) == before, "nobody else's"
