"""Mutations of lockstep: for whom it waits, and whose answer counts."""

from benchmarks.mutation import Mutation, of

TESTS = "tests/robot_bridge/test_lockstep_limits.py"
ENDS = "if left or self._stopped() or self.io.inbox.stop_reason is not None or self.end_request is not None:"

LOCKSTEP: list[Mutation] = [
    *of(
        "robot_bridge/lockstep.py",
        TESTS,
        ("lockstep: policy awaited", "if needs_policy and (inbox.policy is None or inbox.policy.from_seq != seq):", "if False:"),
        ("lockstep: policy's answer to the step", "inbox.policy is None or inbox.policy.from_seq != seq", "inbox.policy is None"),
        ("lockstep: answer to the step only", "return chunk.answer.from_seq == self.seq", "return True"),
        ("lockstep: operator awaited", "if scripted and (inbox.command is None or", "if False and (inbox.command is None or"),
        (
            "lockstep: operator's answer to the step",
            "inbox.command is None or inbox.command.command.for_step_seq != seq",
            "inbox.command is None",
        ),
        ("lockstep: recorder awaited", "if records.backlog > MAX_UNACKNOWLEDGED:", "if False:"),
        ("lockstep: recorder's backlog", "MAX_UNACKNOWLEDGED = 512 ", "MAX_UNACKNOWLEDGED = 8 * 512 "),
        ("lockstep: stop ends waiting", ENDS, ENDS.replace("self.io.inbox.stop_reason is not None or ", "")),
        ("lockstep: the end ends waiting", ENDS, ENDS.replace(" or self.end_request is not None", "")),
        ("lockstep: never without", ENDS, "if True:"),
        ("lockstep: requests while waiting", "self.requests.handle_all()\n            left", "pass\n            left"),
        ("lockstep: learner awaited", "inbox.learner.finished_train_step >= due", "True"),
        (
            "lockstep: learner known",
            "inbox.learner is not None and inbox.learner.finished",
            "inbox.learner is None or inbox.learner.finished",
        ),
        ("lockstep: lag", "self.book.train_step() - self.config.lockstep_lag", "self.book.train_step()"),
        (
            "lockstep: held steps train nothing",
            " or self.mode.mode not in (Mode.POLICY, Mode.TAKEOVER):\n            return True",
            ":\n            return True",
        ),
        ("lockstep: asks again", "if ask_again and now - asked >= RESEND_S:", "if False:"),
        ("lockstep: asks again, not always", "asked = now\n", "pass\n"),
        ("lockstep: says for whom", "if now >= report_at:", "if False:"),
        ("lockstep: time for people", "HELD_STEP_S = 0.25", "HELD_STEP_S = 0.0"),
        ("lockstep: people's requests", "while not self.io.inbox.requests and self.io", "while self.io"),
        ("lockstep: disk", "and self.io.records.error:", "and False:"),
        ("lockstep: demonstrations ask nobody", "self.message is not None and self.message.required_version > 0", "True"),
    ),
    *of(
        "robot_bridge/answers.py",
        TESTS,
        ("answers: to this step", "if received.command.for_step_seq != lockstep_seq:", "if False:"),
        ("answers: never old in lockstep", "age_s = 0.0", "age_s = received.age_s(now_ns)"),
        ("answers: old in real time", "age_s = received.age_s(now_ns)", "age_s = 0.0"),
        ("answers: sound", 'checked(received.command.action, action_size, "command")', "received.command.action"),
        ("version: may act yet", " if acts_from <= train_step", ""),
        ("version: outside training the newest", "if train_step < 0:", "if False:"),
        ("version: no learner", "if learner is None:", "if False:"),
    ),
]
