"""Limits of unattended practice, of the way to a start pose, and of what comes over a network: one at a time, without threads."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from takeover.data.schema import (
    PROTOCOL_VERSION,
    ControlEnvelope,
    EpisodeKind,
    Finish,
    Hello,
    Hold,
    HoldReason,
    Mark,
    Mode,
    RecordAck,
    RecorderHello,
    ReplyEnvelope,
    Resume,
    Role,
    SafetyBit,
    SafetyLimits,
    Source,
    Start,
    Stop,
)
from takeover.robot_bridge.arbitration import Authority
from takeover.robot_bridge.control import WAY_TO_START_S
from takeover.robot_bridge.control_state import practice_limits
from takeover.robot_bridge.names import MAX_SENDER
from takeover.robot_bridge.peers import Peer
from takeover.robot_bridge.protocol import Dealer
from takeover.robot_bridge.protocol.keys import Client
from takeover.robot_bridge.refusals import shown
from takeover.robot_bridge.robots.base import FloatArray, Reading
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.safety import SafetyState

from .by_hand import SECOND, ByHand, by_hand


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[ByHand]:
    with by_hand(tmp_path) as made:
        yield made


def practice(**changes: Any) -> Start:
    return Start(**({"sender": "console", "kind": EpisodeKind.POLICY, "unattended": True, "max_failures": 2} | changes))


# --- practice ---


def test_limits_are_tighter_and_never_off() -> None:
    tighter = practice_limits(SafetyLimits(max_force_n=40.0, max_gripper_force_n=30.0, clamps_to_hold=3, mistakes_per_episode=10))
    assert (tighter.max_force_n, tighter.max_gripper_force_n, tighter.clamps_to_hold, tighter.mistakes_per_episode) == (20.0, 15.0, 2, 5)
    least = practice_limits(SafetyLimits(max_force_n=1.0, max_gripper_force_n=1.0, clamps_to_hold=1, mistakes_per_episode=1))
    assert (least.max_force_n, least.max_gripper_force_n, least.clamps_to_hold, least.mistakes_per_episode) == (1.0, 1.0, 1, 1)


def test_practice_is_slow_under_tighter_limits_and_gets_the_time(hand: ByHand) -> None:
    hand.answers = [[1.0, 1.0, 1.0, 0.0]]
    assert hand.ask(practice()) == ""
    hand.tick(3)
    control, limits = hand.control, hand.config.limits
    assert control.unattended
    assert control.active_speed_scale() == limits.slow_scale
    assert control.last_action.max() == pytest.approx(limits.slow_scale, abs=0.01)
    assert control.max_steps == round(control.spec.max_steps / limits.slow_scale)
    hand.answers = [[3.0, 0.0, 0.0, 0.0]]
    hand.tick(limits.clamps_to_hold - 1)
    assert control.mode.reason is HoldReason.REPEATED_CLAMP


def test_nobody_needs_to_be_there_and_a_hold_ends_the_episode(hand: ByHand) -> None:
    assert hand.ask(practice()) == ""
    hand.tick(3)
    hand.commands = False
    hand.io.lease.heard_ns -= SECOND
    hand.tick()
    assert hand.mode is Mode.POLICY
    hand.answers, hand.io.inbox.chunk = None, None
    hand.tick(2)
    assert hand.mode is Mode.HOLD
    hand.answers = [[0.0] * 4]
    hand.tick(25)
    assert [record.outcome for record in hand.records if hasattr(record, "outcome_source")] == ["aborted"]


def test_a_watching_console_without_a_device_does_not_end_practice(hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    command = hand.command
    monkeypatch.setattr(hand, "command", lambda: command(device_alive=False))
    assert hand.ask(practice()) == ""
    hand.tick(5)
    assert hand.mode is Mode.POLICY
    hand.control.attend()
    hand.tick()
    assert hand.control.mode.reason is HoldReason.DEVICE_LOST, "somebody there could not take over"


def test_failures_end_the_practice(hand: ByHand) -> None:
    assert hand.ask(practice(episodes=50)) == ""
    hand.control.reset_pause_s = 0.0
    for _ in range(2):
        hand.tick(3)
        episode = hand.control.book.episode
        assert episode is not None
        episode.steps = hand.control.max_steps - 1
        hand.tick()
    hand.tick(3)
    assert hand.mode is Mode.READY
    assert hand.control.book.block is None
    assert len(hand.events("practice_stopped")) == 1


def test_who_takes_over_is_there(hand: ByHand) -> None:
    assert hand.ask(practice()) == ""
    hand.tick(3)
    hand.take_over()
    assert not hand.control.unattended
    assert hand.control.active_speed_scale() == 1.0
    assert len(hand.events("unattended_ended")) == 1


def test_practice_that_cannot_be(hand: ByHand) -> None:
    for failures in (0, -1, 1001):
        assert "a budget of 1 to 1000" in hand.ask(practice(max_failures=failures))
    assert "need a person" in hand.ask(practice(kind=EpisodeKind.DEMONSTRATION))
    spec = hand.control.spec
    for change, lack in ({"has_watchdog": False}, "a watchdog"), ({"can_reset": False}, "reset"), ({"simulated": False}, "judges"):
        hand.control.spec = structs.replace(spec, **change)
        assert lack in hand.ask(practice())
    hand.control.spec = structs.replace(spec, has_watchdog=False)
    assert hand.control.active_speed_scale() == hand.config.limits.slow_scale, "it cannot stop by itself"
    hand.control.spec = spec
    hand.control.lockstep = True
    assert "real time" in hand.ask(practice())
    hand.control.lockstep = False
    assert hand.control.book.block is None


# --- the way to a start pose ---


class Traveller(SimRobot):
    """Far away, and careless: asks for four times full scale."""

    wanted: tuple[float, ...] | None = (4.0, 0.0, 0.0, 0.0)

    def start_action(self, reading: Reading, seed: int) -> FloatArray | None:
        return np.array(self.wanted) if self.wanted is not None else None


@pytest.fixture
def travelling(tmp_path: Path) -> Iterator[ByHand]:
    with by_hand(tmp_path, robot=Traveller("peg-insert")) as hand:
        hand.control.book.start_block(EpisodeKind.POLICY, 0)
        hand.control.begin_reset()
        hand.tick(3)
        assert hand.mode is Mode.RESETTING
        assert hand.control.start_steps == 3
        yield hand


def test_it_goes_slowly_through_the_filter(travelling: ByHand) -> None:
    assert 0.0 < travelling.control.last_action[0] <= travelling.config.limits.slow_scale * np.sqrt(3)
    assert travelling.control.changed.counts["range"] == 3
    travelling.robot.wanted = (float("nan"),) * 4
    travelling.tick()
    assert travelling.mode is not Mode.RESETTING
    assert travelling.robot._stopped.is_set()


def test_it_does_not_take_for_ever(travelling: ByHand) -> None:
    travelling.control.start_steps = round(WAY_TO_START_S / travelling.control.period_s)
    travelling.tick()
    assert travelling.mode is Mode.OFFLINE
    assert travelling.robot._stopped.is_set()


@pytest.mark.parametrize("what", ["hold", "stop", "recorder", "lease"])
def test_it_can_be_held_stopped_and_is_watched(travelling: ByHand, what: str) -> None:
    travelling.commands = False
    if what == "hold":
        assert travelling.ask(Hold(sender="console")) == ""
    elif what == "stop":
        travelling.io.inbox.stop_reason = "pressed"
    elif what == "recorder":
        travelling.recorder = False
        travelling.io.records.heard_ns -= SECOND
    else:
        travelling.io.lease.heard_ns -= SECOND
    travelling.tick(5)
    assert travelling.mode is (Mode.STOPPED if what == "stop" else Mode.HOLD)
    assert not travelling.control.last_action.any()
    if what == "hold":
        travelling.commands = travelling.deadman = True
        travelling.control.authority = Authority(armed=True, needs_neutral=False, grant=travelling.token, device="pad")
        travelling.tick(3)
        assert travelling.mode is Mode.HOLD, "without an episode there is nothing to take over"
        travelling.deadman = False
        assert travelling.ask(Resume(sender="console")) == ""
        assert travelling.mode is Mode.RESETTING


@pytest.mark.parametrize("kind", [EpisodeKind.POLICY, EpisodeKind.DEMONSTRATION])
@pytest.mark.parametrize("what", ["lapsed", "never there", "absent", "recorder", "stuck"])
def test_not_one_step_is_made_without_what_it_relies_on(tmp_path: Path, kind: EpisodeKind, what: str) -> None:
    """Whatever kind of episode it is for, and from its first step on; again after a Resume."""
    with by_hand(tmp_path, robot=Traveller("peg-insert")) as hand:
        lease = hand.io.lease
        hand.control.book.start_block(kind, 0)
        for _ in range(2):
            hand.control.begin_reset()
            hand.commands, hand.recorder = False, what != "recorder"
            hand.io.records.heard_ns = time.monotonic_ns() - (0 if hand.recorder else SECOND)
            lease.heard_ns = time.monotonic_ns()
            if what == "lapsed":
                lease.heard_ns -= SECOND
            elif what == "never there":
                lease.sender, lease.grants = "", 0
            elif what == "absent":
                lease.present_ns = time.monotonic_ns() - SECOND
            elif what == "stuck":
                hand.control.tripped = True
            hand.tick()
            reasons = {"lapsed": HoldReason.LEASE_LAPSED, "recorder": HoldReason.RECORDER_LOST, "stuck": HoldReason.CONTROL_LATE}
            assert hand.control.mode.reason is reasons.get(what, HoldReason.NOT_PRESENT)
            assert not hand.control.changed.counts["range"], "nothing was asked of the robot but to stand"
            assert not hand.control.last_action.any()


def test_it_arrives_with_the_velocity_that_it_has(travelling: ByHand) -> None:
    velocity = travelling.control.safety_state.velocity
    assert velocity[0] > 0.0
    travelling.robot.wanted = None
    travelling.control.reset_now()
    assert travelling.control.safety_state.velocity == velocity
    assert travelling.control.start_steps == 0


# --- over a network ---


class Keys:
    """Who the newest message is from, as the gatekeeper of a network would know."""

    def __init__(self, hand: ByHand) -> None:
        self.roles = {"k1": {Role.OPERATOR}, "k2": {Role.OPERATOR}}
        self.io = hand.io
        hand.io._gatekeeper = self  # type: ignore[assignment]
        self.replies: list[ReplyEnvelope] = []
        hand.io._control.send = lambda peer, message: self.replies.append(message)  # type: ignore[method-assign]

    def client(self, key: str) -> Client | None:
        return Client(key, frozenset(self.roles[key])) if key in self.roles else None

    def permits(self, key: str, name: str) -> bool:
        return key in self.roles

    def ask(self, request: Any, user: str = "k1", peer: bytes = b"p", seen: int = -1) -> str:
        self.io._control.user = user
        self.io._request(peer, ControlEnvelope(request_id=1, request=request, newest_state_seq=seen))
        return self.replies[-1].reply.error if self.replies else ""


def hello(role: Role = Role.OPERATOR, sender: str = "console") -> Hello:
    return Hello(protocol=PROTOCOL_VERSION, sender=sender, role=role, software="test")


def test_a_key_has_its_roles_now_and_an_identity_belongs_to_its_key(hand: ByHand) -> None:
    keys = Keys(hand)
    hand.io._state_times[5] = time.monotonic_ns()
    mark = Mark(sender="console", text="x")
    assert "not granted" in keys.ask(hello(Role.LABELER))
    assert "not granted" in keys.ask(hello(), user="nobody")
    assert keys.ask(hello()) == ""
    keys.replies.clear()
    assert keys.ask(mark, seen=5) == ""
    assert len(hand.io.inbox.requests) == 1
    assert "hello" in keys.ask(mark, user="k2", seen=5), "another's identity does not come with another's key"
    keys.roles["k1"] = {Role.OBSERVER}
    assert "hello" in keys.ask(mark, seen=5), "the list is looked at again for every request"
    del keys.roles["k1"]
    assert "hello" in keys.ask(mark, seen=5)
    assert len(hand.io.inbox.requests) == 1


def test_requests_from_a_link_that_hung_are_not_done_but_stop_and_hold_are(hand: ByHand) -> None:
    keys = Keys(hand)
    assert keys.ask(hello()) == ""
    keys.replies.clear()
    now = time.monotonic_ns()
    hand.io._state_times |= {5: now - SECOND * 9 // 10, 6: now - SECOND * 11 // 10}
    assert keys.ask(Finish(sender="console"), seen=5) == ""
    assert len(hand.io.inbox.requests) == 1
    assert "more than a second ago" in keys.ask(Finish(sender="console"), seen=6)
    assert "without a recent state" in keys.ask(Finish(sender="console"), seen=4)
    assert len(hand.io.inbox.requests) == 1
    keys.ask(Hold(sender="console"))
    assert len(hand.io.inbox.requests) == 2
    keys.ask(Stop(sender="console"))
    assert hand.io.inbox.stop_reason == "k1/console"


def test_on_one_computer_too_old_requests_are_not_done_but_those_that_name_no_state_are(hand: ByHand) -> None:
    """A bridge that stood still has kept what was asked meanwhile. In lockstep no time counts."""
    io, replies = hand.io, []
    io._control.user = ""
    io._peers.greet(b"p", Peer("console", Role.OPERATOR), kept=b"")
    io._control.send = lambda peer, message: replies.append(message.reply.error)  # type: ignore[method-assign]
    io._state_times[6] = time.monotonic_ns() - SECOND * 11 // 10
    for seen in (6, -1):
        io._request(b"p", ControlEnvelope(request_id=1, request=Finish(sender="console"), newest_state_seq=seen))
    assert len(io.inbox.requests) == 1
    (refused,) = replies
    assert "more than a second ago" in refused
    io._lockstep = True
    io._request(b"p", ControlEnvelope(request_id=1, request=Finish(sender="console"), newest_state_seq=6))
    assert len(io.inbox.requests) == 2


def test_names_are_short_and_of_plain_letters(hand: ByHand) -> None:
    """A name with a slash would read like one that a key vouches for; one with a newline, like two."""
    keys = Keys(hand)
    for bad in ("", "a\nb", "a\n", "desk/console", "boss (no hello)", "\u0430lice", "a" * (MAX_SENDER + 1)):
        error = keys.ask(hello(sender=bad))
        assert error.startswith(f"sender {shown(bad)}: "), error
        assert error.endswith(f"1 to {MAX_SENDER} letters, digits, '-', '_' or '.'")
    assert len(hand.io._peers) == 0
    longest = f"console-{'P' * 64}"  # a station's person may have as many
    assert len(longest) == MAX_SENDER
    for good in (longest, "op.01", "A_b-9"):
        assert keys.ask(hello(sender=good)) == ""


def test_a_recorder_is_not_pushed_aside_and_does_not_ask_for_everything_all_the_time(hand: ByHand) -> None:
    io = hand.io
    for i in range(3):
        io.event("x", str(i))
    backlog = io.records.backlog
    with Dealer[Any, Any](hand.bridge._endpoints, "record", Any, Any) as recorder:
        recorder.send(RecorderHello(session="", acked_rec_seq=-1))
        assert hand.pump_until(lambda: io.records._next_send >= backlog)
        io._rewound_ns = time.monotonic_ns() + SECOND
        recorder.send(RecorderHello(session="", acked_rec_seq=-1))
        hand.pump(0.3)
        assert io.records.unsent() == [], "not so soon again"
        io._record_key, io.records.owner = "another key", "desk-a/recorder"
        io.records.heard_ns = time.monotonic_ns() - 3600 * SECOND
        before, heard = io.refused_commands, io.records.heard_ns
        recorder.send(RecordAck(session=io.session, acked_rec_seq=0, disk_free_bytes=1, episodes_closed=0))
        assert hand.pump_until(lambda: io.refused_commands == before + 1)
        assert (io.records.disk_free_bytes, io.records.heard_ns) == (-1, heard), "however long that one is silent"
        io._record_key = ""
        recorder.send(RecordAck(session=io.session, acked_rec_seq=0, disk_free_bytes=1, episodes_closed=0))
        assert hand.pump_until(lambda: io.records.disk_free_bytes == 1)


def test_refused_clients_are_noted_once_a_second(hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[int] = []
    monkeypatch.setattr(
        "takeover.robot_bridge.bridge.audit", SimpleNamespace(append=lambda *_, since_start, **__: noted.append(since_start))
    )
    for _ in range(50):
        hand.bridge._client_refused("command", "key")
    assert noted == [1]
    hand.bridge._refusal_noted_s -= 2.0
    hand.bridge._client_refused("command", "key")
    assert noted == [1, 51]
    assert hand.io.refused_connections == 51


def test_tighter_limits_are_in_force(hand: ByHand) -> None:
    force = np.array([0.0, 0.0, hand.config.limits.max_force_n * 0.75])
    state = SafetyState(over_force_steps=hand.config.limits.force_debounce_steps)
    seen = replace(hand.robot.read(), force_n=force, tool_position=np.array([0.0, 0.0, 0.15]))
    down = np.array([0.0, 0.0, -0.5, 0.0])
    assert not hand.control.filtered(state, down, seen, Source.POLICY, 1.0).bits & SafetyBit.FORCE
    hand.control.book.start_block(EpisodeKind.POLICY, 0, 3)
    assert hand.control.filtered(state, down, seen, Source.POLICY, 1.0).bits & SafetyBit.FORCE
