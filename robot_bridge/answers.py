"""Turns received messages into what arbitration needs: the human command as judged now, the version that must answer; and their faults."""

from takeover.data.schema import LearnerStatus, SafetyBit
from takeover.robot_bridge.arbitration import Human, PolicyChoice
from takeover.robot_bridge.inbox import Inbox
from takeover.robot_bridge.safety import UnsafeAction, checked


def newest_human(inbox: Inbox, action_size: int, now_ns: int, lockstep_seq: int | None) -> Human | None:
    """The lease holder's newest command. In lockstep only the answer to ``lockstep_seq`` counts, and it is never old."""
    received = inbox.command
    if received is None:
        return None
    if lockstep_seq is not None:
        if received.command.for_step_seq != lockstep_seq:
            return None
        age_s = 0.0
    else:
        age_s = received.age_s(now_ns)
    try:
        return Human(received.command, checked(received.command.action, action_size, "command"), age_s, person=received.person)
    except UnsafeAction as error:
        return Human(received.command, None, age_s, fault=str(error), person=received.person)


def required_version(learner: LearnerStatus | None, train_step: int) -> int:
    """Lockstep: the newest version that may act at ``train_step``; 0 when there is none. Negative steps: the newest of all."""
    if learner is None:
        return 0
    if train_step < 0:
        return learner.newest_version
    return max((version for version, acts_from in learner.versions if acts_from <= train_step), default=0)


def fault_bits(human: Human | None, choice: PolicyChoice | None) -> SafetyBit:
    """NON_FINITE or SHAPE where somebody's action was refused."""
    bits = SafetyBit.NONE
    for fault in (human.fault if human is not None else "", choice.fault if choice is not None else ""):
        if fault:
            bits |= SafetyBit.NON_FINITE if "finite" in fault else SafetyBit.SHAPE
    return bits
