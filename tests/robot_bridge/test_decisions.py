"""Arbitration, modes and the safety filter together, under random people, policies, losses, requests and an unkind world."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from msgspec import structs

from takeover.data.schema import HoldReason, Mode, SafetyBit, SafetyLimits, Source
from takeover.robot_bridge.arbitration import Authority, Human, PolicyChoice, decide
from takeover.robot_bridge.modes import ModeEvent, ModeState, transition
from takeover.robot_bridge.safety import SafetyFilter, SafetyState

from .specs import SPEC, command
from .test_arbitration import BLIND, RULES, ZERO

EVENTS = 100_000
PERIOD_S = 0.05
LIMITS = SafetyLimits(max_step_m=0.015, max_speed_m_s=0.28, max_acceleration_m_s2=4.0, max_step_rad=0.08)
JOINTED = structs.replace(SPEC, joint_low=[-1.0, -1.0], joint_high=[1.0, 1.0])

# Combinations, so that a step costs few draws: drawing is what takes the time.
SWITCHES = list(itertools.product([False, True], repeat=6))
COMMANDS = list(
    itertools.product(
        ["keyboard", "gamepad", "scripted"],
        [0.0, 0.1, 0.2, float("inf")],  # age in s
        ["", "", "not finite"],
        [(), ("arm",), ("gripper",), ("arm", "gripper")],
        ["token", "token", "token", "other"],
    )
)
TOUCHES = [(False, ""), (True, ""), (True, ""), (True, "not finite")]  # of somebody who is there: deadman, fault
SIGHTS = list(itertools.product([1.0, 0.5, 0.25], [RULES.lacking, RULES.lacking, BLIND.lacking]))  # speed scale; why people do not see


def metres(action: np.ndarray) -> np.ndarray:
    """Translation (3,) of one step."""
    return action[:3] * 0.012


class Machine(RuleBasedStateMachine):
    """See the module's docstring."""

    events = 0  # steps that reached the filter

    @initialize(demonstration=st.booleans(), hold_to_run=st.booleans(), scripts=st.booleans())
    def begin(self, demonstration: bool, hold_to_run: bool, scripts: bool) -> None:
        self.rules_ = replace(RULES, policy_drives=not demonstration, hold_to_run=hold_to_run, scripts=scripts)
        self.filter = SafetyFilter(JOINTED, LIMITS)
        self.position, self.force, self.scale = np.array([0.0, 0.0, 0.1]), np.zeros(3), 1.0
        self.joints, self.grip_n = np.zeros(2), 0.0
        self.bits, self.before = SafetyBit.NONE, ZERO
        self.mode = ModeState(Mode.READY if demonstration else Mode.POLICY)
        self.authority, self.safety = Authority(), SafetyState()
        self.applied, self.source = ZERO, (Source.NONE, Source.NONE)
        self.person: Human | None = None
        self.policy: PolicyChoice | None = None
        self.lease = ""
        self.in_vain = False  # the deadman is down since a press that was seen and could not count

    def moves(self) -> bool:
        """Ticks while STOPPED test little: then only requests and silence come."""
        return self.mode.mode is not Mode.STOPPED

    @precondition(moves)
    @rule(
        switches=st.sampled_from(SWITCHES),
        command_of=st.sampled_from(COMMANDS),
        action=st.floats(-2.0, 2.0),
        policy=st.one_of(st.none(), st.floats(-2.0, 2.0), st.just("fault")),
    )
    def tick(self, switches, command_of, action, policy) -> None:  # type: ignore[no-untyped-def]
        deadman, neutral, alive, focused, gui, awaited = switches
        kind, age, fault, groups, lease = command_of
        values = np.full(5, action)
        self.rules_ = replace(self.rules_, policy_awaited=awaited)
        made = command(
            deadman=deadman,
            neutral=neutral and not deadman,
            device_alive=alive,
            focused=focused,
            gui_alive=gui,
            device_kind=kind,
            action=values.tolist(),
            authority=list(groups),
            lease=lease,
        )
        self.person = Human(made, None if fault else values, age, fault)
        self.policy = (
            None if policy is None else PolicyChoice(None, "not finite") if policy == "fault" else PolicyChoice(np.full(5, float(policy)))
        )
        self.step_once()

    @precondition(moves)
    @rule(
        force=st.floats(-100.0, 100.0),
        axis=st.integers(0, 2),
        joint=st.floats(-1.1, 1.1),
        grip=st.floats(0.0, 80.0),
        sight=st.sampled_from(SIGHTS),
        bump=st.floats(-0.05, 0.05),
    )
    def world(self, force: float, axis: int, joint: float, grip: float, sight: tuple[float, tuple[HoldReason, str]], bump: float) -> None:
        """Something touches, pushes or carries the arm; somebody asks for another speed; pictures stand, or come again."""
        scale, blind = sight
        self.rules_ = replace(self.rules_, lacking=blind)
        self.force = np.zeros(3)
        self.force[axis] = force
        self.joints, self.grip_n, self.scale = np.array([joint, 0.0]), grip, scale
        self.position[axis] += bump
        self.step_once()

    @precondition(lambda self: self.moves() and self.person is not None)
    @rule(touch=st.sampled_from(TOUCHES))
    def hand(self, touch: tuple[bool, str]) -> None:
        """The same person at a living device, a moment later; nothing else changes, so that one act follows from another."""
        assert self.person is not None
        deadman, fault = touch
        values = np.full(5, 0.5 * deadman)
        changes = {"device_alive": True, "focused": True, "gui_alive": True, "action": values.tolist()}
        made = structs.replace(self.person.command, deadman=deadman, neutral=not deadman, **changes)
        self.person = Human(made, None if fault else values, 0.0, fault)
        self.step_once()

    @rule()
    def silence(self) -> None:
        self.person = self.policy = None
        self.step_once()

    @rule(event=st.sampled_from([ModeEvent.STOP, ModeEvent.RESUME, ModeEvent.HOLD, ModeEvent.CLEAR, ModeEvent.CLEAR]))
    def request(self, event: ModeEvent) -> None:
        if event is ModeEvent.CLEAR:
            if self.mode.mode is Mode.STOPPED:  # deliberately; nothing that was known before counts
                self.mode = transition(self.mode, event, 0)
                assert self.mode.mode is Mode.READY
                self.authority, self.safety, self.applied, self.before = Authority(), SafetyState(), ZERO, ZERO
                self.source = (Source.NONE, Source.NONE)
            return
        if event is ModeEvent.RESUME and (self.mode.mode is not Mode.HOLD or not self.rules_.policy_drives):
            return
        if event is ModeEvent.HOLD and self.mode.mode not in (Mode.POLICY, Mode.TAKEOVER):
            return
        before = self.mode
        self.mode = transition(before, event, 0, HoldReason.OPERATOR)
        if before.mode is Mode.STOPPED:
            assert self.mode is before, "latched"
        if event is ModeEvent.HOLD:
            self.authority = replace(self.authority, armed=False, needs_neutral=True, ramp=0)

    def step_once(self) -> None:
        if self.mode.mode is Mode.STOPPED:
            self.applied, self.source = ZERO, (Source.NONE, Source.NONE)
            return
        before = self.mode.mode
        decision = decide(
            before, self.mode.reason, self.authority, self.person, self.policy, self.applied, self.rules_, waiting_for_press=True
        )
        before_lease, self.lease = self.lease, self.person.command.lease if self.person is not None else self.lease
        if Source.HUMAN in decision.source and before is not Mode.READY:
            assert self.lease == before_lease  # somebody new has let go at least once
        self.look_at_the_hand()
        scripted = self.rules_.scripts and self.person is not None and self.person.command.device_kind == "scripted"
        if decision.event is ModeEvent.TAKE and not (scripted and before is Mode.READY):  # there its press need not be fresh
            assert not self.in_vain, "a press that could not count takes nothing over later"
        self.authority, self.source = decision.authority, decision.source
        if decision.event is not None:
            reason = self.mode.reason if before is Mode.HOLD else HoldReason.NONE
            self.mode = transition(self.mode, decision.event, 0, decision.reason, decision.detail)
            if before is Mode.HOLD and self.mode.mode is Mode.HOLD:
                assert self.mode.reason is reason, "the first reason stays"
        self.before = self.applied
        started = self.safety
        Machine.events += 1  # what the filter has judged: nothing else counts
        driver = Source.HUMAN if Source.HUMAN in decision.source else Source.POLICY
        result = self.filter.apply(
            started,
            decision.asked,
            self.position,
            self.force,
            driver,
            self.scale,
            joints=self.joints,
            gripper_force_n=self.grip_n,
        )
        if result.hold:  # as the control loop does
            self.mode = transition(self.mode, ModeEvent.HOLD, 0, HoldReason.REPEATED_CLAMP)
            self.authority = replace(self.authority, armed=False, needs_neutral=True, ramp=0)
            self.source = (Source.NONE, Source.NONE)
            result = self.filter.apply(
                started,
                ZERO,
                self.position,
                self.force,
                Source.NONE,
                self.scale,
                joints=self.joints,
                gripper_force_n=self.grip_n,
            )
        self.applied, self.safety, self.bits = result.action, result.state, result.bits
        self.at = self.position.copy()
        self.position = self.position + metres(self.applied)
        if before is Mode.HOLD and self.mode.mode is Mode.TAKEOVER:
            assert self.person is not None
            assert self.person.command.deadman

    def look_at_the_hand(self) -> None:
        """A press in vain is one until the deadman is seen let go by who is trusted; what comes late says nothing."""
        if self.person is None or self.person.age_s > RULES.command_life_s or not self.person.command.gui_alive:
            return
        seen = self.person.command
        elsewhere = seen.device_kind == "keyboard" and not seen.focused
        trusted = seen.device_alive and not elsewhere and not self.person.fault and self.rules_.lacking == RULES.lacking
        if trusted != seen.deadman:
            self.in_vain = seen.deadman

    @invariant()
    def finite_and_in_range(self) -> None:
        if hasattr(self, "applied"):
            assert np.isfinite(self.applied).all()
            assert np.abs(self.applied).max() <= 1.0

    @invariant()
    def within_every_limit(self) -> None:
        """By arithmetic of its own, not the filter's."""
        if not hasattr(self, "at"):
            return
        moved, before = metres(self.applied), metres(self.before)
        length = float(np.sqrt(np.sum(np.square(moved))))
        full = float(np.sqrt(3)) * 0.012
        assert length <= LIMITS.max_step_m + 1e-9
        assert length / PERIOD_S <= LIMITS.max_speed_m_s + 1e-6
        if self.scale < 1.0:
            assert length <= min(LIMITS.slow_speed_m_s * PERIOD_S, self.scale * full) + 1e-9
        assert abs(self.applied[3]) * 0.1 <= LIMITS.max_step_rad + 1e-9
        brakes = SafetyBit.FORCE | SafetyBit.WORKSPACE | SafetyBit.JOINT_LIMIT | SafetyBit.SLOW_MODE  # these may stop harder
        if not self.bits & brakes and self.mode.mode is not Mode.STOPPED:
            assert np.linalg.norm(moved - before) / PERIOD_S**2 <= LIMITS.max_acceleration_m_s2 + 1e-6
        low, high = np.maximum(JOINTED.workspace_low, LIMITS.workspace_low), np.minimum(JOINTED.workspace_high, LIMITS.workspace_high)
        assert (self.at + moved <= np.maximum(high, self.at) + 1e-9).all(), "never further out"
        assert (self.at + moved >= np.minimum(low, self.at) - 1e-9).all()

    @invariant()
    def nothing_without_live_authority(self) -> None:
        if not hasattr(self, "applied"):
            return
        if Source.HUMAN in self.source:
            person = self.person
            assert person is not None
            seen = person.command
            assert seen.deadman
            assert seen.device_alive
            assert seen.gui_alive
            assert person.age_s <= RULES.command_life_s
            assert not person.fault
            assert seen.focused or seen.device_kind != "keyboard"
            assert self.rules_.lacking == RULES.lacking
        if Source.POLICY in self.source:
            assert self.policy is not None
            assert not self.policy.fault
            assert self.rules_.policy_drives
        if all(source is Source.NONE for source in self.source):
            assert np.linalg.norm(metres(self.applied)) <= np.linalg.norm(metres(self.before)) + 1e-9, "it only ever slows down"


@pytest.mark.timeout(600)
def test_a_hundred_thousand_events() -> None:
    Machine.events = 0
    quick = settings(max_examples=1750, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    rounds = 0
    while Machine.events < EVENTS:
        before, rounds = Machine.events, rounds + 1
        run_state_machine_as_test(Machine, settings=quick)
        assert Machine.events > before, "nothing reaches the filter any more"
    assert rounds <= 3, f"{Machine.events} events in {rounds} rounds: too few of the steps reach the filter"
