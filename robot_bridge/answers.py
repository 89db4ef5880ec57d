"""Turns received messages into what arbitration needs: the human command as judged now, the policy's row for this step."""

from takeover.data.schema import LearnerStatus, PolicyAction
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
        return Human(received.command, checked(received.command.action, action_size, "command"), age_s)
    except UnsafeAction as error:
        return Human(received.command, None, age_s, fault=str(error))


def covers(answer: PolicyAction | None, seq: int, flushed_at: int, *, lockstep: bool) -> bool:
    """Whether ``answer`` says what to do at step ``seq``: its chunk reaches that far and was made after the last flush."""
    if answer is None:
        return False
    if lockstep:
        return answer.from_seq == seq
    return flushed_at <= answer.from_seq <= seq <= answer.valid_until_seq


def policy_choice(answer: PolicyAction, seq: int, action_size: int) -> PolicyChoice:
    """The row for step ``seq``; the last one where the chunk is shorter than its validity."""
    if not answer.actions:
        return PolicyChoice(None, "policy: empty chunk")
    row = min(seq - answer.from_seq, len(answer.actions) - 1)
    try:
        return PolicyChoice(checked(answer.actions[row], action_size, f"policy version {answer.policy_version}"))
    except UnsafeAction as error:
        return PolicyChoice(None, str(error))


def required_version(learner: LearnerStatus | None, train_step: int) -> int:
    """Lockstep: the newest version that may act at ``train_step``; 0 when there is none. Negative steps: the newest of all."""
    if learner is None:
        return 0
    if train_step < 0:
        return learner.newest_version
    return max((version for version, acts_from in learner.versions if acts_from <= train_step), default=0)
