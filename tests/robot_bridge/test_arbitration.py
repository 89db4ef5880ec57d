"""Who drives: nothing without live authority, ramps without snaps, presses that are fresh."""

from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from takeover.data.schema import ControlMode, HoldReason, Mode, Source
from takeover.robot_bridge.arbitration import Authority, Decision, Human, PolicyChoice, Rules, command_life_s, decide, ramp_steps
from takeover.robot_bridge.modes import ModeEvent

from .specs import ACTION, command

RULES = Rules(spec=ACTION, command_life_s=0.15, ramp_steps=3, stale_steps=10)
ARMED = Authority(armed=True, needs_neutral=False, grant="token", device="pad")
ZERO = np.zeros(5)
POLICY = PolicyChoice(np.full(5, 0.4))


def human(age_s: float = 0.01, fault: str = "", action: float = 0.8, **changes: object) -> Human:
    values = np.full(5, action)
    made = command(action=values.tolist(), neutral=not changes.get("deadman", False), **changes)
    return Human(made, None if fault else values, age_s, fault)


def step(mode: Mode, authority: Authority, person: Human | None, policy: PolicyChoice | None = POLICY, rules: Rules = RULES) -> Decision:
    return decide(mode, HoldReason.OPERATOR, authority, person, policy, ZERO, rules, waiting_for_press=mode is Mode.READY)


@pytest.mark.parametrize(("hz", "life"), [(5, 0.2), (20, 0.15), (25, 0.12), (100, 0.12)])
def test_life_of_a_command(hz: float, life: float) -> None:
    assert command_life_s(1 / hz) == pytest.approx(life)


def test_ramp_is_100_to_200_ms_where_the_rate_allows() -> None:
    for hz in (10, 20, 30, 50, 100):
        assert 0.1 <= ramp_steps(hz) / hz <= 0.2
    assert ramp_steps(20) == 3


def test_takeover_ramps_in_and_hands_back_at_once() -> None:
    mode, authority, last, driven = Mode.POLICY, ARMED, np.full(5, 0.4), []
    for _ in range(5):
        decision = decide(mode, HoldReason.NONE, authority, human(deadman=True, action=-0.8), POLICY, last, RULES)
        mode, authority, last = Mode.TAKEOVER, decision.authority, decision.asked
        driven.append((decision.control_mode, round(float(decision.asked[0]), 6), float(decision.asked[4])))
    assert [d[0] for d in driven] == [ControlMode.TRANSITION] * 3 + [ControlMode.HUMAN] * 2
    assert [d[1] for d in driven] == [0.1, -0.2, -0.5, -0.8, -0.8]
    assert [d[2] for d in driven] == [-0.8] * 5  # a discrete gripper has nothing between its commands
    released = decide(Mode.TAKEOVER, HoldReason.NONE, authority, human(deadman=False), POLICY, last, RULES)
    assert released.event is ModeEvent.RELEASE
    assert released.control_mode is ControlMode.POLICY
    np.testing.assert_array_equal(released.asked, POLICY.action)


def test_rows_planned_before_somebody_took_or_gave_back_do_not_drive_that_step() -> None:
    planned = replace(POLICY, planned=True)
    late = replace(ARMED, late_answers=1)
    released = step(Mode.TAKEOVER, late, human(deadman=False), policy=planned)
    assert (released.event, released.source) == (ModeEvent.RELEASE, (Source.NONE, Source.NONE))
    np.testing.assert_array_equal(released.asked, ZERO)
    assert released.authority.late_answers == 0, "there was an answer: it is not late, only void"
    for mode in (Mode.POLICY, Mode.HOLD):
        taken = step(mode, ARMED, human(deadman=True, authority=["gripper"]), policy=planned)
        assert (taken.event, taken.source) == (ModeEvent.TAKE, (Source.NONE, Source.HUMAN))
        np.testing.assert_allclose(taken.asked, [0, 0, 0, 0, 0.8])
        fresh = step(mode, ARMED, human(deadman=True, authority=["gripper"]))
        assert fresh.source == (Source.POLICY, Source.HUMAN), "an answer to this very observation drives on"
    beside = replace(ARMED, groups=("gripper",))
    later = step(Mode.TAKEOVER, beside, human(deadman=True, authority=["gripper"]), policy=planned)
    assert later.source == (Source.POLICY, Source.HUMAN), "planned in the takeover, for the takeover"
    bad = step(Mode.TAKEOVER, ARMED, human(deadman=False), policy=PolicyChoice(None, "not finite"))
    assert bad.reason is HoldReason.POLICY_FAULT


def test_rows_planned_before_a_person_drove_other_groups_do_not_drive_that_step() -> None:
    planned = replace(POLICY, planned=True)
    taken = step(Mode.POLICY, ARMED, human(deadman=True), policy=planned)
    assert step(Mode.TAKEOVER, taken.authority, human(deadman=True), policy=planned).flush is False
    arm = human(deadman=True, authority=["arm"])
    given = step(Mode.TAKEOVER, taken.authority, arm, policy=planned)
    assert (given.event, given.source, given.flush) == (None, (Source.HUMAN, Source.NONE), True)
    assert given.asked[4] == 0.0
    fresh = step(Mode.TAKEOVER, taken.authority, arm)
    assert (fresh.source, fresh.flush) == ((Source.HUMAN, Source.POLICY), True), "an answer to this very observation drives on"
    later = step(Mode.TAKEOVER, given.authority, arm, policy=planned)
    assert (later.source, later.flush) == ((Source.HUMAN, Source.POLICY), False), "planned since"
    other = step(Mode.TAKEOVER, later.authority, human(deadman=True, authority=["gripper"]), policy=planned)
    assert (other.source, other.flush) == ((Source.NONE, Source.HUMAN), True)
    both = step(Mode.TAKEOVER, other.authority, human(deadman=True, authority=["gripper", "arm"]), policy=planned)
    assert both.flush
    assert not step(Mode.TAKEOVER, both.authority, human(deadman=True, authority=["arm", "gripper"]), policy=planned).flush


def test_hold_to_run_and_demonstrations_pause_on_release() -> None:
    for rules in (replace(RULES, hold_to_run=True), replace(RULES, policy_drives=False)):
        decision = step(Mode.TAKEOVER, ARMED, human(deadman=False), rules=rules)
        assert (decision.event, decision.reason) == (ModeEvent.HOLD, HoldReason.RELEASED)


def test_authority_per_group() -> None:
    decision = step(Mode.TAKEOVER, ARMED, human(deadman=True, authority=["gripper"]))
    assert decision.source == (Source.POLICY, Source.HUMAN)
    np.testing.assert_allclose(decision.asked, [0.4, 0.4, 0.4, 0.4, 0.8])
    alone = step(Mode.TAKEOVER, ARMED, human(deadman=True, authority=["gripper"]), policy=None)
    assert alone.source == (Source.NONE, Source.HUMAN)
    np.testing.assert_allclose(alone.asked, [0, 0, 0, 0, 0.8])


@pytest.mark.parametrize(
    ("person", "reason"),
    [
        (None, HoldReason.COMMAND_STALE),
        (human(age_s=0.151, deadman=True), HoldReason.COMMAND_STALE),
        (human(deadman=True, gui_alive=False), HoldReason.COMMAND_STALE),
        (human(deadman=False, device_alive=False), HoldReason.DEVICE_LOST),
        (human(deadman=True, device_kind="keyboard", focused=False), HoldReason.FOCUS_LOST),
        (human(deadman=True, fault="command: not finite"), HoldReason.HUMAN_FAULT),
    ],
)
def test_what_ends_a_takeover_in_a_hold(person: Human | None, reason: HoldReason) -> None:
    decision = step(Mode.TAKEOVER, ARMED, person)
    assert (decision.event, decision.reason) == (ModeEvent.HOLD, reason)
    assert not decision.asked.any()
    assert decision.authority.needs_neutral


def test_nobody_drives_unseen() -> None:
    """Who looks at pictures alone is held without them, cannot take over, and stops the policy by trying to."""
    blind = replace(RULES, lacking=(HoldReason.CAMERA_FROZEN, "side"))
    takeover = step(Mode.TAKEOVER, ARMED, human(deadman=True), rules=blind)
    tried = step(Mode.POLICY, ARMED, human(deadman=True), rules=blind)
    for decision in (takeover, tried):
        assert (decision.event, decision.reason, decision.detail) == (ModeEvent.HOLD, HoldReason.CAMERA_FROZEN, "side")
        assert not decision.asked.any()
    assert step(Mode.HOLD, ARMED, human(deadman=True), rules=blind).event is None
    assert step(Mode.READY, ARMED, human(deadman=True), rules=blind).event is None
    assert step(Mode.POLICY, ARMED, human(deadman=False), rules=blind).event is None, "the policy has what it needs"
    assert step(Mode.POLICY, ARMED, None, rules=blind).event is None


BLIND = replace(RULES, lacking=(HoldReason.CAMERA_FROZEN, "side"))
KEYS = {"device_kind": "keyboard"}
UNTRUSTED_PRESSES = [
    pytest.param(human(deadman=True), BLIND, id="blind"),
    pytest.param(human(deadman=True, fault="command: not finite"), RULES, id="human_fault"),
    pytest.param(human(deadman=True, focused=False, **KEYS), RULES, id="focus_lost"),
    pytest.param(human(deadman=True, device_alive=False), RULES, id="device_lost"),
]


@pytest.mark.parametrize(("untrusted", "rules"), UNTRUSTED_PRESSES)
@pytest.mark.parametrize("mode", [Mode.HOLD, Mode.READY, Mode.POLICY])
def test_a_press_that_could_not_count_does_not_count_later(mode: Mode, untrusted: Human, rules: Rules) -> None:
    """The deadman stays down while what was missing comes back: nothing moves before it was let go."""
    kind = {"device_kind": untrusted.command.device_kind}
    tried = step(mode, ARMED, untrusted, rules=rules)
    assert tried.event is (ModeEvent.HOLD if mode is Mode.POLICY else None)
    mode, authority = Mode.HOLD if mode is Mode.POLICY else mode, tried.authority
    for _ in range(3):
        kept = step(mode, authority, human(deadman=True, **kind))
        assert (kept.event, kept.source) == (None, (Source.NONE, Source.NONE))
        authority = kept.authority
    if mode is Mode.HOLD:
        deflected = Human(command(deadman=False, neutral=False, action=[0.5] * 5, **kind), np.full(5, 0.5), 0.01)
        assert not step(mode, authority, deflected).authority.armed
    authority = step(mode, authority, human(**kind)).authority
    assert step(mode, authority, human(deadman=True, **kind)).event is ModeEvent.TAKE


@pytest.mark.parametrize(("untrusted", "rules"), UNTRUSTED_PRESSES)
def test_who_wants_the_robot_and_may_not_drive_it_stops_the_policy(untrusted: Human, rules: Rules) -> None:
    for authority in (ARMED, Authority(grant="token")):
        tried = step(Mode.POLICY, authority, untrusted, rules=rules)
        assert (tried.event, tried.source) == (ModeEvent.HOLD, (Source.NONE, Source.NONE))
        assert tried.reason in (HoldReason.CAMERA_FROZEN, HoldReason.HUMAN_FAULT, HoldReason.FOCUS_LOST, HoldReason.DEVICE_LOST)
        assert not tried.asked.any()
    let_go = replace(untrusted, command=structs.replace(untrusted.command, deadman=False, device_alive=True))
    assert step(Mode.POLICY, ARMED, let_go, rules=rules).event is None, "who only watches may look away"


def test_a_press_that_comes_late_stops_nothing() -> None:
    for late in (human(deadman=True, age_s=0.2), human(deadman=True, gui_alive=False), None):
        assert step(Mode.POLICY, ARMED, late).source == (Source.POLICY, Source.POLICY)


def test_the_policy_is_held_when_nobody_could_take_over() -> None:
    """Its pad is gone; of a script that only says that it saw no step for a while, and in unattended practice nobody need be there."""
    gone = step(Mode.POLICY, ARMED, human(device_alive=False))
    assert (gone.event, gone.reason, gone.detail) == (ModeEvent.HOLD, HoldReason.DEVICE_LOST, "pad is gone")
    none = step(Mode.POLICY, ARMED, human(device_alive=False, device_kind="none", device_id="none"))
    assert (none.event, none.detail) == (ModeEvent.HOLD, "no device")
    assert step(Mode.POLICY, ARMED, human(device_alive=False, device_kind="scripted")).event is None
    unattended = replace(RULES, attended=False)
    for nobody in (None, human(device_alive=False)):
        assert step(Mode.POLICY, ARMED, nobody, rules=unattended).event is None
    assert step(Mode.POLICY, ARMED, human(device_alive=False, deadman=True), rules=unattended).reason is HoldReason.DEVICE_LOST


def test_focus_matters_only_to_the_keyboard() -> None:
    assert step(Mode.TAKEOVER, ARMED, human(deadman=True, focused=False)).event is None


def test_first_late_answer_stands_still_second_holds() -> None:
    first = step(Mode.POLICY, ARMED, None, policy=None)
    assert first.event is None
    assert not first.asked.any()
    second = step(Mode.POLICY, first.authority, None, policy=None)
    assert (second.event, second.reason) == (ModeEvent.HOLD, HoldReason.POLICY_LATE)
    assert step(Mode.POLICY, first.authority, None).authority.late_answers == 0


def test_late_answers_do_not_matter_to_a_person() -> None:
    authority = ARMED
    for _ in range(5):
        decision = step(Mode.TAKEOVER, authority, human(deadman=True), policy=None)
        assert decision.event is None
        authority = decision.authority


def test_a_faulty_policy_holds() -> None:
    decision = step(Mode.POLICY, ARMED, None, policy=PolicyChoice(None, "policy version 3: not finite"))
    assert (decision.event, decision.reason) == (ModeEvent.HOLD, HoldReason.POLICY_FAULT)


def test_a_press_must_be_fresh_after_a_hold() -> None:
    """Deadman kept down, or released with the stick deflected, starts nothing; neutral and pressed again does."""
    held = Authority()
    kept = step(Mode.HOLD, held, human(deadman=True))
    assert kept.event is None
    deflected = Human(command(deadman=False, neutral=False, action=[0.5] * 5), np.full(5, 0.5), 0.01)
    assert not step(Mode.HOLD, held, deflected).authority.armed
    neutral = step(Mode.HOLD, held, human(deadman=False))
    assert neutral.authority.armed
    assert step(Mode.HOLD, neutral.authority, human(deadman=True)).event is ModeEvent.TAKE


def test_another_holder_must_let_go_first() -> None:
    """The new lease holder comes with the deadman down: nothing that the one before did arms it, and it inherits no takeover."""
    other = human(deadman=True, lease="other")
    came = step(Mode.POLICY, ARMED, other)
    assert (came.event, came.source[0]) == (None, Source.POLICY)
    assert step(Mode.POLICY, came.authority, other).event is None
    let_go = step(Mode.POLICY, came.authority, human(lease="other"))
    assert step(Mode.POLICY, let_go.authority, other).event is ModeEvent.TAKE


def test_a_takeover_ends_with_its_lease() -> None:
    driving = step(Mode.POLICY, ARMED, human(deadman=True)).authority
    assert step(Mode.TAKEOVER, driving, human(deadman=True)).source[0] is Source.HUMAN
    taken = step(Mode.TAKEOVER, driving, human(deadman=True, lease="other"))
    assert (taken.event, taken.source[0]) == (ModeEvent.RELEASE, Source.POLICY)
    assert step(Mode.POLICY, taken.authority, human(deadman=True, lease="other")).event is None
    alone = step(Mode.TAKEOVER, driving, human(deadman=True, lease="other"), rules=replace(RULES, policy_drives=False))
    assert (alone.event, alone.reason, alone.detail) == (ModeEvent.HOLD, HoldReason.RELEASED, "somebody else commands now")


@pytest.mark.parametrize("late", [None, human(age_s=0.2, deadman=True), human(gui_alive=False)])
def test_late_commands_just_before_a_press_do_not_cost_the_takeover(late: Human | None) -> None:
    for mode, steps, takes in ((Mode.POLICY, 10, True), (Mode.POLICY, 11, False), (Mode.HOLD, 1, False), (Mode.READY, 10, True)):
        authority = ARMED
        for _ in range(steps):
            decision = step(mode, authority, late)
            assert Source.HUMAN not in decision.source
            authority = decision.authority
        assert (step(mode, authority, human(deadman=True)).event is ModeEvent.TAKE) is takes
    authority = ARMED
    for _ in range(20):  # now and then is not in a row
        authority = step(Mode.POLICY, step(Mode.POLICY, authority, late).authority, human()).authority
    assert authority.armed


def test_only_late_ones_in_a_row_count_and_letting_go_unseen_does_not_arm() -> None:
    deflected = Human(command(deadman=False, neutral=False, action=[0.5] * 5), np.full(5, 0.5), 0.01)
    authority = ARMED
    for _ in range(20):
        authority = step(Mode.POLICY, step(Mode.POLICY, authority, None).authority, deflected).authority
    assert authority.armed
    unfocused = human(device_kind="keyboard", focused=False)
    assert not step(Mode.POLICY, replace(ARMED, armed=False), unfocused).authority.armed
    assert not step(Mode.POLICY, replace(ARMED, armed=False), human(fault="not finite")).authority.armed


def test_an_answer_that_cannot_be_there_yet_is_awaited() -> None:
    authority = ARMED
    for _ in range(5):
        decision = step(Mode.POLICY, authority, None, policy=None, rules=replace(RULES, policy_awaited=True))
        assert decision.event is None
        assert not decision.asked.any()
        authority = decision.authority


def test_in_a_demonstration_no_group_is_left_to_a_policy() -> None:
    alone = step(Mode.TAKEOVER, ARMED, human(deadman=True, authority=["gripper"]), rules=replace(RULES, policy_drives=False))
    assert alone.source == (Source.NONE, Source.HUMAN)
    assert not alone.asked[:4].any()


def test_a_press_is_used_up() -> None:
    assert not step(Mode.POLICY, ARMED, human(deadman=True)).authority.armed


def test_a_lost_device_disarms_at_once() -> None:
    lost = step(Mode.POLICY, ARMED, human(device_alive=False))
    assert step(Mode.POLICY, lost.authority, human(deadman=True)).event is None


def test_another_device_is_at_rest_first() -> None:
    """What comes back deflected (a device out of reach for a while) is no press, whatever the device that stood in for it showed."""
    keys = {"device_id": "keyboard", "device_kind": "keyboard"}
    for mode in (Mode.HOLD, Mode.READY):
        kept = step(mode, step(mode, Authority(grant="token"), human(**keys)).authority, human(**keys)).authority
        assert kept.armed
        back = step(mode, kept, human(deadman=True))
        assert (back.event, back.asked.any()) == (None, False)
        assert step(mode, back.authority, human(deadman=True)).event is None
        deflected = Human(command(deadman=False, neutral=False, action=[0.5] * 5), np.full(5, 0.5), 0.01)
        let_go = step(mode, back.authority, deflected).authority
        assert step(mode, let_go, human(deadman=True)).event is None, "let go, but deflected"
        centred = step(mode, let_go, human()).authority
        assert step(mode, centred, human(deadman=True)).event is ModeEvent.TAKE
    driven = step(Mode.POLICY, ARMED, human(**keys)).authority
    assert step(Mode.POLICY, driven, human(deadman=True)).event is ModeEvent.TAKE, "a policy that drives is taken over with any device"


def test_ready_waits_for_a_press_and_starts_without_a_ramp() -> None:
    assert step(Mode.READY, Authority(), human(deadman=True)).event is None
    started = step(Mode.READY, ARMED, human(deadman=True))
    assert started.event is ModeEvent.TAKE
    assert started.control_mode is ControlMode.HUMAN
    script = human(deadman=True, device_kind="scripted")
    assert step(Mode.READY, Authority(), script, rules=replace(RULES, scripts=True)).event is ModeEvent.TAKE
    assert step(Mode.READY, Authority(), script).event is None, "on a real robot it lets go first, as a person does"
    assert step(Mode.READY, ARMED, script).event is ModeEvent.TAKE
    idle = decide(Mode.READY, HoldReason.NONE, ARMED, human(deadman=True), POLICY, ZERO, RULES, waiting_for_press=False)
    assert idle.event is None
