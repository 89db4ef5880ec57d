"""For whom and for how long lockstep waits, one partner at a time: the loop without its thread, its sockets turned by the test."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import structs

from takeover.data.schema import (
    Command,
    EpisodeKind,
    Event,
    Hold,
    HoldReason,
    LearnerStatus,
    Mode,
    Outcome,
    OutcomeSource,
    PolicyAction,
    Role,
    RunConfig,
)
from takeover.robot_bridge import answers, chunks, lockstep
from takeover.robot_bridge.bridge import Bridge
from takeover.robot_bridge.inbox import Inbox, PendingRequest, ReceivedCommand
from takeover.robot_bridge.lockstep import HELD_STEP_S, RESEND_S, LockstepLoop
from takeover.robot_bridge.modes import ModeEvent
from takeover.robot_bridge.robots.sim import SimRobot

from .specs import command

GIVEN_UP = 40  # turns of the sockets


class Waiting:
    """In a policy episode at step 3; ``arrives`` happens at the third turn of the sockets."""

    def __init__(self, folder: Path, **config: Any) -> None:
        defaults: dict[str, Any] = {"cameras": False, "learner": "none", "operator": "none", "clock": "lockstep"}
        self.config = RunConfig(session_id="test", workspace=str(folder), sockets=str(folder / "s"), **(defaults | config))
        self.bridge = Bridge(self.config, SimRobot(), None, "test")
        control = self.bridge.control
        assert isinstance(control, LockstepLoop)
        self.control, self.io = control, self.bridge.io
        self.turns = 0
        self.arrives: Callable[[], object] = lambda: None
        self.sent: list[Any] = []
        self.io.pump = self._pump  # type: ignore[method-assign]
        self.io.publish = self.sent.append  # type: ignore[method-assign]
        control._stopped = lambda: self.turns >= GIVEN_UP
        control.reading = control.robot.read()
        control.change(ModeEvent.CONNECT)
        control.book.start_block(EpisodeKind.POLICY, 0)
        control.change(ModeEvent.RESET)
        control.reset_now()
        control.seq = 3

    def _pump(self, timeout_s: float) -> None:
        self.turns += 1
        if self.turns == 3:
            self.arrives()

    def policy(self, from_seq: int) -> None:
        made = PolicyAction(session="", from_seq=from_seq, actions=[[0.0] * 4], valid_until_seq=from_seq, policy_version=1)
        self.io.inbox.chunk = chunks.received(made, 4, time.monotonic_ns())

    def operator(self, for_step: int) -> None:
        self.io.inbox.command = ReceivedCommand(command(for_step_seq=for_step), 0, 0)

    def learner(self, **changes: Any) -> None:
        self.io.inbox.learner = status(**changes)

    def awaited(self, arrives: Callable[[], object] = lambda: None) -> tuple[bool, int]:
        """What `await_answers` says, and after how many turns."""
        self.turns, self.arrives = 0, arrives
        return self.control.await_answers(), self.turns

    def close(self) -> None:
        del self.io.pump
        self.io.close()
        self.bridge._endpoints.close()
        self.control.robot.close()


def status(**changes: Any) -> LearnerStatus:
    fields: dict[str, Any] = {
        "learner": "l",
        "phase": "training",
        "progress": 1.0,
        "text": "",
        "updates": 0,
        "updates_per_s": 0.0,
        "demonstrations": 0,
        "finished_train_step": -1,
        "backlog_steps": 0,
        "newest_version": 3,
        "versions": [(1, 0), (2, 10), (3, 20)],
        "versions_published": 3,
    }
    return LearnerStatus(**(fields | changes))


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Waiting]]:
    made: list[Waiting] = []

    def one(**config: Any) -> Waiting:
        made.append(Waiting(tmp_path, **config))
        return made[-1]

    yield one
    for waiting in made:
        waiting.close()


def test_a_step_waits_for_the_answer_to_itself(make: Callable[..., Waiting]) -> None:
    waiting = make()
    waiting.policy(2)
    assert waiting.awaited(lambda: waiting.policy(3)) == (True, 3)
    assert waiting.awaited() == (True, 0)
    waiting.io.inbox.chunk = None
    assert waiting.awaited() == (False, GIVEN_UP), "it never goes on without"
    waiting.policy(2)
    chunk = waiting.io.inbox.chunk
    assert chunk is not None
    assert not waiting.control.answered_by(chunk)


def test_a_step_waits_for_the_scripted_operators_answer_to_itself(make: Callable[..., Waiting]) -> None:
    waiting = make(operator="scripted")
    waiting.policy(3)
    waiting.operator(2)
    assert waiting.awaited(lambda: waiting.operator(3)) == (True, 3)
    waiting.io.inbox.command = None
    assert waiting.awaited() == (False, GIVEN_UP)


def test_a_step_waits_for_a_recorder_that_is_far_behind(make: Callable[..., Waiting]) -> None:
    waiting = make()
    waiting.policy(3)
    records = waiting.io.records
    while records.backlog <= 512:
        waiting.io.event("x")
    assert waiting.awaited(lambda: records.unsent() and records.acknowledge(records._entries[1].rec_seq)) == (True, 3)
    assert waiting.awaited() == (True, 0)


@pytest.mark.parametrize("what", ["stop", "the end", "a hold"])
def test_what_ends_an_episode_ends_the_waiting(make: Callable[..., Waiting], what: str) -> None:
    waiting = make()
    control = waiting.control

    def happens() -> None:
        if what == "stop":
            waiting.io.inbox.stop_reason = "pressed"
        elif what == "the end":
            control.end_request = (Outcome.SUCCESS, OutcomeSource.OPERATOR, False)
        else:
            waiting.io.inbox.requests.append(PendingRequest(b"x", 1, Hold(sender="console"), "console", Role.OPERATOR))

    waiting.io.reply = lambda *_: None  # type: ignore[method-assign]
    if what == "a hold":
        assert waiting.awaited(happens) == (False, GIVEN_UP), "a held step is made, too: whoever answers must answer"
        assert control.mode.mode is Mode.HOLD
    else:
        assert waiting.awaited(happens) == (False, 3)


def test_before_a_step_the_learner_has_finished_the_one_that_is_the_lag_before(make: Callable[..., Waiting]) -> None:
    waiting = make(learner="hil-serl", lockstep_lag=4)
    control = waiting.control

    def before(train_steps: int) -> tuple[bool, int]:
        control.book.train_steps, waiting.turns = train_steps, 0
        return control.before_step(), waiting.turns

    assert before(3) == (True, 0), "nothing can be finished yet"
    assert before(9) == (False, GIVEN_UP), "no learner has said anything yet"
    waiting.learner(finished_train_step=4)
    waiting.arrives = lambda: waiting.learner(finished_train_step=5)
    assert before(9) == (True, 3)
    assert before(10) == (False, GIVEN_UP)
    control.mode = replace(control.mode, mode=Mode.HOLD, reason=HoldReason.OPERATOR)
    assert before(10) == (True, 0), "a held step trains nothing"


def test_what_waits_asks_again_and_says_for_whom(make: Callable[..., Waiting], monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = make()
    control = waiting.control
    assert control.reading is not None
    control._publish(control.reading)
    waiting.sent.clear()
    clock = iter(range(1000))
    monkeypatch.setattr(lockstep, "time", SimpleNamespace(monotonic=lambda: next(clock) * RESEND_S / 2))
    kept: list[Event] = []
    waiting.io.records.append = lambda make: kept.append(make("", 0)) or 0  # type: ignore[method-assign, func-returns-value, assignment]
    assert waiting.awaited(lambda: waiting.policy(control.seq)) == (True, 3)
    assert waiting.sent == [control.message, control.privileged], "after 0.3 s, not at every turn"
    monkeypatch.setattr(lockstep, "REPORT_S", RESEND_S)
    waiting.io.inbox.chunk = None
    assert waiting.awaited(lambda: waiting.policy(control.seq)) == (True, 3)
    assert [(event.kind, event.text) for event in kept] == [("waiting", f"step {control.seq} waits for the policy")]


def test_a_held_robot_gives_people_the_time_of_a_step(make: Callable[..., Waiting]) -> None:
    waiting = make(operator="console")
    began = time.monotonic()
    waiting.io.pump = time.sleep  # type: ignore[method-assign, assignment]
    waiting.control._wait_for_people()
    assert time.monotonic() - began >= HELD_STEP_S
    waiting.io.inbox.requests.append(PendingRequest(b"x", 1, Hold(sender="console"), "console", Role.OPERATOR))
    began = time.monotonic()
    waiting.control._wait_for_people()
    assert time.monotonic() - began < HELD_STEP_S / 2


def test_a_recorder_that_cannot_write_holds_in_lockstep_too(make: Callable[..., Waiting]) -> None:
    waiting = make()
    waiting.control.supervise()
    assert waiting.control.mode.mode is Mode.POLICY
    waiting.io.records.error = "No space left"
    waiting.control.supervise()
    assert waiting.control.mode.reason is HoldReason.DISK_FULL


def test_a_demonstration_does_not_ask_a_policy_that_may_not_be_there(make: Callable[..., Waiting]) -> None:
    waiting = make(operator="scripted")
    control = waiting.control
    episode = control.book.episode
    assert control.asks_policy()
    assert episode is not None
    episode.kind = EpisodeKind.DEMONSTRATION
    assert control.reading is not None
    control._publish(control.reading)
    assert not control.asks_policy()
    waiting.learner()
    control._publish(control.reading)
    assert control.asks_policy()


# --- who must answer, and with what ---


def test_the_version_that_must_answer_is_the_newest_that_may_act_yet() -> None:
    assert answers.required_version(None, 5) == 0
    assert [answers.required_version(status(), step) for step in (0, 9, 10, 25, -1)] == [1, 1, 2, 3, 3]
    assert answers.required_version(status(versions=[(2, 10)]), 9) == 0


def test_in_lockstep_only_the_answer_to_the_step_counts_and_it_is_never_old() -> None:
    inbox = Inbox()
    assert answers.newest_human(inbox, 5, 0, 7) is None
    sent: Command = structs.replace(command(for_step_seq=7), action=[0.0] * 5)
    inbox.command = ReceivedCommand(sent, 1, 1)
    found = answers.newest_human(inbox, 5, 60_000_000_000, 7)
    assert found is not None
    assert found.age_s == 0.0
    assert answers.newest_human(inbox, 5, 60_000_000_000, 8) is None
    late = answers.newest_human(inbox, 5, 60_000_000_001, None)
    assert late is not None
    assert late.age_s == 60.0
    inbox.command = ReceivedCommand(structs.replace(sent, action=[float("nan")] * 5), 1, 1)
    bad = answers.newest_human(inbox, 5, 1, 7)
    assert bad is not None
    assert bad.action is None
    assert "finite" in bad.fault
