"""Every refusal of the bridge's I/O side, and every item of the start gate, over real sockets that the test itself turns."""

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
    CameraSpec,
    Command,
    EpisodeKind,
    Event,
    Hello,
    Hold,
    HoldReason,
    Lease,
    Mark,
    Mode,
    PolicyAction,
    RecordAck,
    RecorderHello,
    Reply,
    Resume,
    Role,
    Start,
    State,
    Stop,
)
from takeover.robot_bridge import control_desk
from takeover.robot_bridge import io as bridge_io
from takeover.robot_bridge.camera_thread import MAX_PICTURE_BACKLOG_BYTES, CameraThread
from takeover.robot_bridge.inbox import ReceivedCommand
from takeover.robot_bridge.names import MAX_AUTHOR, MAX_SENDER
from takeover.robot_bridge.protocol import ControlClient, Dealer, Endpoints, Push
from takeover.robot_bridge.record_log import RecordLog
from takeover.robot_bridge.refusals import MAX_KNOWN, MAX_NOTES, NOTE_NS, Refusal
from takeover.robot_bridge.robots.base import Picture
from takeover.robot_bridge.sight import pictures_alone
from takeover.robot_bridge.status import StatusBoard

from .by_hand import SECOND, ByHand, by_hand
from .specs import command


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[ByHand]:
    with by_hand(tmp_path) as made:
        yield made


@pytest.fixture
def client(hand: ByHand) -> Iterator[ControlClient]:
    made = hand.client()
    yield made
    made.close()


def hello(hand: ByHand, client: ControlClient, role: Role = Role.OPERATOR, protocol: int = PROTOCOL_VERSION) -> Reply:
    return hand.answered(client, Hello(protocol=protocol, sender=client.sender, role=role, software="test"))


class Sender:
    """Sends messages to one stream and turns the bridge until they were handled."""

    def __init__(self, hand: ByHand, stream: str, kind: Any) -> None:
        self.hand = hand
        self.push: Push[Any] = Push(hand.bridge._endpoints, stream, kind)

    def __call__(self, message: Any) -> str:
        """Why it was refused; "" when it was not."""
        before = self.hand.io.refused_commands
        noted = len(self.hand.events("command_refused"))
        inbox = self.hand.io.inbox
        known = inbox.command, inbox.chunk
        assert self.push.send(message, 2.0)
        assert self.hand.pump_until(lambda: self.hand.io.refused_commands != before or (inbox.command, inbox.chunk) != known)
        if self.hand.io.refused_commands == before:
            return ""
        events = self.hand.events("command_refused")
        return events[-1].text if len(events) > noted else "refused, not noted again"


@pytest.fixture
def send(hand: ByHand) -> Iterator[Sender]:
    made = Sender(hand, "command", Command)
    yield made
    made.push.close()


@pytest.fixture
def answer(hand: ByHand) -> Iterator[Sender]:
    made = Sender(hand, "policy_action", PolicyAction)
    yield made
    made.push.close()


def renew(hand: ByHand) -> None:
    hand.io.lease.heard_ns = time.monotonic_ns()


# --- commands ---


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"session": "another"}, "another session"),
        ({"lease": "stolen"}, "does not hold the lease"),
        ({"sender": "second"}, "does not hold the lease"),
        ({"authority": ["arm", "left_arm"]}, "unknown action group left_arm"),
        ({"authority": [], "deadman": True}, "pressed for no action group; known: arm"),
        ({"seq": 0}, "old sequence number"),
        ({"seq": 5}, "old sequence number"),
    ],
)
def test_what_is_not_the_holders_newest_command_is_refused(hand: ByHand, send: Sender, change: dict[str, Any], why: str) -> None:
    renew(hand)
    assert send(hand.command(seq=5)) == ""
    kept = hand.io.inbox.command
    assert kept is not None
    assert why in send(hand.command(**({"seq": 6} | change)))
    assert hand.io.inbox.command is kept
    renew(hand)
    assert send(hand.command(seq=7)) == ""


def test_a_lapsed_lease_is_not_revived_by_commands(hand: ByHand, send: Sender) -> None:
    hand.io.lease.heard_ns -= SECOND
    assert "lapsed" in send(hand.command())
    assert "lapsed" not in send(hand.command()), "one note a second"
    assert hand.io.refused_commands == 2
    hand.io.lease.release("console", b"console")
    assert "does not hold" in send(hand.command(lease=""))


def test_commands_of_a_window_that_stands_still_keep_the_lease_and_nobody_present(hand: ByHand, send: Sender) -> None:
    renew(hand)
    lease = hand.io.lease
    lease.present_ns = 0
    hand.io._state_times[1000] = time.monotonic_ns()
    assert send(hand.command(gui_alive=False, newest_state_seq=1000)) == ""
    assert lease.present_ns == 0
    assert send(hand.command(newest_state_seq=1000)) == ""
    assert lease.heard_ns == lease.present_ns > 0


@pytest.mark.parametrize(
    ("age_s", "renews", "present"), [(0.05, True, True), (0.25, True, False), (0.7, False, False), (None, False, False)]
)
def test_who_commands_too_late_to_take_over_is_not_present(
    hand: ByHand, send: Sender, age_s: float | None, renews: bool, present: bool
) -> None:
    lease, heard_ns = hand.io.lease, time.monotonic_ns()
    lease.heard_ns, lease.present_ns = heard_ns, 0
    if age_s is not None:  # else it names a state that nobody remembers
        hand.io._state_times[1000] = heard_ns - int(age_s * SECOND)
    assert send(hand.command(newest_state_seq=1000)) == "", "it counts, as an old one"
    assert (lease.heard_ns > heard_ns, lease.present_ns > 0) == (renews, present)


def test_in_lockstep_no_command_is_old(hand: ByHand, send: Sender) -> None:
    renew(hand)
    hand.io._lockstep, hand.io.lease.present_ns, before_ns = True, 0, hand.io.lease.heard_ns
    assert send(hand.command(newest_state_seq=1000)) == ""
    assert hand.io.lease.heard_ns == hand.io.lease.present_ns > before_ns


def test_refusals_are_noted_once_a_second_each(hand: ByHand) -> None:
    now = time.monotonic_ns()
    for i in range(20):
        hand.io._refuse(Refusal("x", "seq", f"above {i}", i), now + i)
    assert len(hand.events("command_refused")) == 1
    hand.io._refuse(Refusal("x", "seq", "above 20", 7), now + NOTE_NS)
    first, second = hand.events("command_refused")
    assert (first.text, first.value) == ("x: seq 0: above 0", 1.0)
    assert (second.text, second.value) == ("x: seq 7: above 20", 20.0), "and how many there were since"
    assert hand.io.refused_commands == 21
    for i in range(3000):
        hand.io._refuse(Refusal(f"{i} sender" * 50, "seq", "above 20", "v" * 10_000), now)
    assert len(hand.io.refusals._since) <= MAX_KNOWN
    assert max(len(sender) for _, sender, _, _ in hand.io.refusals._since) <= 64
    events = hand.events("command_refused")
    assert len(events) <= 2 + 2 * MAX_NOTES, "whoever they come from"
    assert max(len(event.text) for event in events) < 250


def test_a_command_is_as_old_as_what_its_sender_has_seen() -> None:
    def age(arrival_ns: int, state_ns: int) -> float:
        return ReceivedCommand(command(), arrival_ns, state_ns).age_s(10 * SECOND)

    assert age(9 * SECOND, 8 * SECOND) == 2.0
    assert age(8 * SECOND, 9 * SECOND) == 2.0
    assert age(9 * SECOND, 0) == float("inf"), "never seen, or too long ago to be known"


def test_states_are_remembered_for_a_while(hand: ByHand, send: Sender) -> None:
    hand.io.compose_state = hand.bridge._board.compose
    for _ in range(bridge_io.REMEMBERED_STATES + 20):
        hand.io._state_due_ns = 0
        hand.io._flush()
    assert len(hand.io._state_times) <= bridge_io.REMEMBERED_STATES
    renew(hand)
    assert send(hand.command(newest_state_seq=hand.io._state_seq - 1)) == ""
    received = hand.io.inbox.command
    assert received is not None
    assert received.age_s(time.monotonic_ns()) < 60.0
    assert send(hand.command(newest_state_seq=3)) == ""
    received = hand.io.inbox.command
    assert received is not None
    assert received.age_s(time.monotonic_ns()) == float("inf")


def test_answers_that_cannot_be_meant_are_refused(hand: ByHand, answer: Sender) -> None:
    hand.run()
    hand.tick(5)
    hand.io.inbox.chunk = None
    seq = hand.control.seq

    def made(from_seq: int, session: str = "") -> PolicyAction:
        return PolicyAction(
            session=session or hand.io.session, from_seq=from_seq, actions=[[0.0] * 4], valid_until_seq=from_seq, policy_version=1
        )

    assert "another session" in answer(made(seq, "another"))
    assert "never sent" in answer(made(seq + 1))
    assert answer(made(seq)) == ""
    assert "older than the newest" in answer(made(seq - 1))
    policy = hand.io.inbox.policy
    assert policy is not None
    assert policy.from_seq == seq


# --- requests ---


def test_stop_needs_nothing_and_acts_before_it_is_answered(hand: ByHand, client: ControlClient) -> None:
    assert hand.answered(client, Stop(sender="anyone", reason="smoke")).error == ""
    assert hand.robot._stopped.is_set(), "before any control step"
    assert hand.io.inbox.stop_reason == "anyone (no hello): smoke"
    state = hand.bridge._board.compose(0, time.monotonic_ns())
    assert state is not None
    assert state.mode is Mode.STOPPED, "and everybody sees it, whatever the control thread does"


def test_nothing_is_done_in_anothers_name(hand: ByHand, client: ControlClient) -> None:
    assert hello(hand, client).error == ""
    for request in (Mark(sender="boss", text="x"), Lease(sender="boss")):
        assert hand.answered(client, request).error == "sender 'boss': this connection said hello as 'console'"
    assert not hand.io.inbox.requests
    client.send(Hold(sender="boss"))
    assert hand.pump_until(lambda: hand.io.inbox.requests), "a hold is never refused for its name"
    assert hand.io.inbox.requests[0].request == Hold(sender="console")
    assert hand.answered(client, Stop(sender="boss", reason="smoke")).error == ""
    assert hand.io.inbox.stop_reason == "console: smoke"


@pytest.mark.parametrize(
    ("claimed", "told"),
    [("desk/console" + 60 * " ", "somebody (no hello)"), ("boss" + 60 * "x", "boss" + 49 * "x" + " (no hello)")],
    ids=["with a slash", "long"],
)
def test_a_name_without_a_hello_is_told_as_one(hand: ByHand, client: ControlClient, claimed: str, told: str) -> None:
    """However long it is, and whatever it looks like."""
    assert hand.answered(client, Stop(sender=claimed)).error == ""
    assert hand.io.inbox.stop_reason == told


def test_a_name_is_as_long_as_an_author_may_be(hand: ByHand, client: ControlClient) -> None:
    name = "x" * MAX_SENDER
    reply = hand.answered(client, Hello(protocol=PROTOCOL_VERSION, sender=name, role=Role.OPERATOR, software="test"))
    assert reply.error == ""
    client.send(Mark(sender=name, text="x"))
    assert hand.pump_until(lambda: hand.io.inbox.requests)
    assert hand.io.inbox.requests[0].request.sender == "x" * MAX_AUTHOR


def test_hello_comes_first_and_in_the_right_protocol(hand: ByHand, client: ControlClient) -> None:
    assert hand.answered(client, Mark(sender="console", text="x")).error == "say hello first"
    for protocol in (PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1):
        reply = hello(hand, client, protocol=protocol)
        assert f"protocol {protocol} asked for" in reply.error
        assert reply.spec is None
    assert hand.answered(client, Lease(sender="console")).error == "say hello first"
    assert hello(hand, client).spec is not None


@pytest.mark.parametrize("role", [Role.OBSERVER, Role.LABELER, Role.LEARNER])
def test_only_an_operator_gets_the_lease(hand: ByHand, role: Role) -> None:
    client = hand.client(role.value, role)
    hand.io.lease.release("console", b"console")
    assert hello(hand, client, role).error == ""
    reply = hand.answered(client, Lease(sender=role.value))
    assert (reply.error, reply.lease) == (f"role {role} may not command", "")
    client.close()


def test_who_comes_back_on_a_new_connection_need_not_wait_for_its_old_one(hand: ByHand, client: ControlClient) -> None:
    hand.io.lease.release("console", b"console")
    assert hello(hand, client).error == ""
    first = hand.answered(client, Lease(sender="console")).lease
    again = hand.client()
    assert hello(hand, again).error == ""
    assert "on another connection" in hand.answered(again, Lease(sender="console")).error, "both are there"
    client.close()
    hand.pump(0.1)
    hand.io.lease.heard("gamepad", time.monotonic_ns())  # commands of the old connection may still come
    second = hand.answered(again, Lease(sender="console"))
    assert second.error == ""
    assert second.lease not in ("", first), "a new grant: nothing that was commanded before counts"
    again.close()


def test_a_new_grant_makes_old_commands_worthless(hand: ByHand, client: ControlClient, send: Sender) -> None:
    renew(hand)
    assert send(hand.command(seq=900)) == ""
    assert hello(hand, client).error == ""
    hand.io.lease.heard_ns -= SECOND
    granted = hand.answered(client, Lease(sender="console", device_kind="gamepad"))
    assert granted.lease not in ("", hand.token), "another connection is somebody new"
    assert hand.io.inbox.command is None
    assert "does not hold" in send(hand.command(seq=901))
    assert send(hand.command(seq=1, lease=granted.lease)) == "", "and numbers begin anew"
    assert hand.answered(client, Lease(sender="console")).lease == granted.lease
    assert hand.io.inbox.command is not None


def test_requests_are_bounded(hand: ByHand, client: ControlClient) -> None:
    assert hello(hand, client).error == ""
    numbers = [client.send(Resume(sender="console")) for _ in range(control_desk.MAX_REQUESTS + 1)]
    for _ in range(400):
        hand.io.pump(0.01)
        if (envelope := client.poll()) is not None:
            break
    assert envelope is not None
    assert (envelope.request_id, envelope.reply.error) == (
        numbers[-1],
        f"too many requests are waiting, at most {control_desk.MAX_REQUESTS}",
    )
    assert len(hand.io.inbox.requests) == control_desk.MAX_REQUESTS


def test_a_bad_request_is_answered(hand: ByHand, client: ControlClient) -> None:
    client._dealer.socket.send(b"control\0\xff\xff")
    replies: list[Any] = []
    assert hand.pump_until(lambda: replies.append(client.poll()) or replies[-1])
    envelope = replies[-1]
    assert envelope.reply.error.startswith("bad request")


# --- recorder ---


def test_a_recorder_gets_what_it_does_not_have_and_acknowledges_its_own_session_only(hand: ByHand) -> None:
    for i in range(5):
        hand.io.event("x", str(i))
    backlog = hand.io.records.backlog
    with Dealer[Any, Any](hand.bridge._endpoints, "record", Any, Event) as recorder:

        def received() -> int:
            frames: list[Any] = []
            assert hand.pump_until(lambda: hand.io.records.unsent() == [] and hand.io._recorder is not None)
            hand.pump(0.1)
            while (frame := recorder.receive(0.3)) is not None:
                frames.append(frame)
            return len(frames)

        recorder.send(RecorderHello(session="older", acked_rec_seq=3))
        assert received() == backlog, "what it has of another session says nothing"
        assert hand.io.records.backlog == backlog
        recorder.send(RecordAck(session="older", acked_rec_seq=99, disk_free_bytes=7, episodes_closed=0, error="full"))
        hand.pump(0.1)
        assert hand.io.records.backlog == backlog
        assert (hand.io.records.disk_free_bytes, hand.io.records.error) == (7, "full")
        recorder.send(RecorderHello(session=hand.io.session, acked_rec_seq=1))
        assert received() == hand.io.records.backlog == backlog - 2


def test_a_notice_of_the_recorder_is_an_event_and_holds_nothing(hand: ByHand) -> None:
    with Dealer[Any, Any](hand.bridge._endpoints, "record", Any, Event) as recorder:
        for notice in ("", "episode a cannot be closed", "episode a cannot be closed", "episode b cannot be closed"):
            recorder.send(RecordAck(session=hand.io.session, acked_rec_seq=-1, disk_free_bytes=7, episodes_closed=0, notice=notice))
        assert hand.pump_until(lambda: len(hand.events("recorder_notice")) == 2)
        hand.pump(0.1)
    assert [event.text for event in hand.events("recorder_notice")] == ["episode a cannot be closed", "episode b cannot be closed"]
    assert {event.source for event in hand.events("recorder_notice")} == {"recorder"}
    assert (state := hand.bridge._compose_alive(0, time.monotonic_ns())) is not None
    assert state.recorder_notice == "episode b cannot be closed"
    assert hand.io.records.error == ""


# --- start gate ---


def gate(hand: ByHand) -> dict[str, str]:
    state = hand.bridge._board.compose(0, time.monotonic_ns())
    assert isinstance(state, State)
    return state.gate


def test_the_gate_says_what_is_missing(tmp_path: Path) -> None:
    with by_hand(tmp_path, learner="hil-serl") as hand:
        hand.answers, hand.commands = None, False
        hand.tick()
        assert gate(hand)["command_echo"] == "no commands arrive"
        assert gate(hand)["policy"] == "no policy yet"
        assert gate(hand)["learner"] == "the learner is silent"
        hand.answers, hand.commands = [[0.0] * 4], True
        hand.tick()
        hand.io.inbox.learner_arrival_ns = time.monotonic_ns()
        hand.io.records.disk_free_bytes = 2 << 30
        assert not any(gate(hand).values()), gate(hand)
        hand.age_s, hand.action = 0.3, [0.5, 0.0, 0.0, 0.0]
        hand.answers = None
        hand.tick()
        chunk = hand.io.inbox.chunk
        assert chunk is not None
        hand.io.inbox.chunk = replace(chunk, arrival_ns=chunk.arrival_ns - 2 * SECOND)
        hand.io.inbox.learner_arrival_ns -= 4 * SECOND
        hand.io.records.disk_free_bytes = 1 << 29
        hand.io.records.heard_ns -= SECOND
        told = gate(hand)
        assert told["command_echo"].startswith("the newest command is 3")
        assert told["device_neutral"] == "let the device come to rest"
        assert told["disk"] == "only 512 MB free"
        assert told["recorder"].startswith("recorder silent")
        assert told["learner"] == "the learner is silent"
        assert told["policy"] == "the actor is silent"


def test_no_state_before_the_robot_was_read(hand: ByHand) -> None:
    hand.control.reading = None
    assert StatusBoard(hand.control).compose(0, time.monotonic_ns()) is None


# --- cameras ---


class Cameras:
    """A source whose pictures the test makes."""

    def __init__(self) -> None:
        self.specs = [CameraSpec(name="front", width=16, height=8, rate_hz=20.0), CameraSpec(name="side", width=16, height=8, rate_hz=20.0)]
        self.counter = 0
        self.names = ["front", "side"]

    def capture(self) -> None:
        return None

    def pictures(self, captured: Any) -> list[Picture]:
        rgb = np.zeros((8, 16, 3), dtype=np.uint8)
        return [Picture(camera=name, rgb=rgb, t_source_ns=time.monotonic_ns(), counter=self.counter) for name in self.names]

    def close(self) -> None:
        pass


@pytest.fixture
def filmed(tmp_path: Path) -> Iterator[tuple[ByHand, Cameras, CameraThread]]:
    cameras = Cameras()
    with by_hand(tmp_path, cameras=cameras, policy_cameras=["front"]) as hand:
        assert hand.bridge.cameras is not None
        yield hand, cameras, hand.bridge.cameras
        hand.bridge.cameras.close()


def picture(cameras: Cameras, thread: CameraThread, episode: str = "", new: bool = True) -> None:
    cameras.counter += int(new)
    thread._render(None, episode, 0, (0.0, 0.0, 0.0))


@pytest.mark.parametrize("rate_hz", [0.0, -20.0, float("nan")])
def test_a_camera_without_a_rate_is_named(tmp_path: Path, rate_hz: float) -> None:
    cameras = Cameras()
    cameras.specs[1] = structs.replace(cameras.specs[1], rate_hz=rate_hz)
    with pytest.raises(ValueError, match=rf"rate_hz, pictures a second, must be above 0: side has {rate_hz:g}$"):
        CameraThread(cameras, Endpoints(tmp_path), RecordLog("session", lambda _: b"", lambda: None), synchronous=True)


def test_people_who_do_not_see_the_robot_need_every_camera(filmed: tuple[ByHand, Cameras, CameraThread]) -> None:
    hand, cameras, thread = filmed
    picture(cameras, thread)
    views = thread._watch._views
    taken = views["front"].new_ns
    views["side"] = replace(views["side"], new_ns=taken - SECOND)
    late = taken + SECOND // 10
    for said, simulated, watched in [("auto", True, 0), ("yes", False, 0), ("no", True, 2), ("auto", False, 2)]:
        config = structs.replace(hand.config, line_of_sight=said)
        hand.control.watched = pictures_alone(config, structs.replace(hand.control.spec, simulated=simulated))
        assert len(hand.control.watched) == watched
        blind = hand.control.blind(late)
        assert blind == ((HoldReason.CAMERA_FROZEN, "side") if watched else (HoldReason.NONE, ""))
    views["side"] = replace(views["side"], new_ns=time.monotonic_ns() - SECOND)
    hand.io.records.heard_ns = time.monotonic_ns()
    assert hand.control.rules().lacking == (HoldReason.CAMERA_FROZEN, "side")


def test_a_persons_action_that_is_no_action_is_told_and_still_holds(hand: ByHand, send: Sender) -> None:
    renew(hand)
    for action, said in [([float("nan"), 0.0, 0.0, 0.0], "not finite"), ([0.0, 0.0], "shape (2,), expected (4,)")]:
        refused = hand.io.refused_commands
        seq = hand.io._command_seq + 1
        assert said in send(hand.command(seq=seq, action=action))
        assert hand.io.refused_commands == refused + 1
        kept = hand.io.inbox.command
        assert kept is not None
        assert kept.command.seq == seq, "who drives is judged by it, and held"


def test_the_policy_is_held_without_its_camera(filmed: tuple[ByHand, Cameras, CameraThread]) -> None:
    hand, cameras, thread = filmed
    now = time.monotonic_ns
    cameras.names = ["side"]
    picture(cameras, thread)
    assert hand.control.camera_trouble(now()) == (HoldReason.CAMERA_MISSING, "front")
    assert "front" in gate(hand)["cameras"]
    cameras.names = ["front"]
    picture(cameras, thread)
    views = thread._watch._views
    taken = views["front"].new_ns
    assert hand.control.camera_trouble(taken) == (HoldReason.NONE, "")
    views["side"] = replace(views["side"], new_ns=taken - SECOND)
    assert hand.control.camera_trouble(taken + SECOND // 10)[0] is HoldReason.NONE, "the policy does not use that one"
    assert hand.control.camera_trouble(taken + SECOND // 5) == (HoldReason.CAMERA_FROZEN, "front")
    picture(cameras, thread, new=False)
    assert hand.control.camera_trouble(taken + SECOND // 5)[0] is HoldReason.CAMERA_FROZEN, "the same picture again is none"
    picture(cameras, thread)
    thread.error = "context lost"
    assert hand.control.camera_trouble(now()) == (HoldReason.CAMERA_MISSING, "context lost")
    assert gate(hand)["cameras"] == "context lost"


def test_a_camera_that_stays_away_ends_the_episode(filmed: tuple[ByHand, Cameras, CameraThread]) -> None:
    hand, cameras, thread = filmed
    picture(cameras, thread)
    hand.control.cameras = SimpleNamespace(  # type: ignore[assignment]
        error="",
        offer=lambda *_: None,
        ages_ms=thread.ages_ms,
        frozen=lambda _: [],
        robot_reset=lambda *_: None,
        worst_age_ms=lambda: 0.0,
        newest_policy_images=list,
        policy_images_now=list,
    )
    hand.run()
    hand.control.cameras.error = "unplugged"  # type: ignore[union-attr]
    hand.tick()
    assert hand.control.mode.reason is HoldReason.CAMERA_MISSING
    hand.tick(10)
    assert hand.mode is Mode.HOLD
    assert not [record for record in hand.records if hasattr(record, "outcome_source")]
    hand.tick(8)
    assert [record.outcome for record in hand.records if hasattr(record, "outcome_source")] == ["aborted"]
    assert "camera missing" in hand.ask(Start(sender="console", kind=EpisodeKind.POLICY))
    hand.control.cameras.error = ""  # type: ignore[union-attr]
    assert hand.ask(Start(sender="console", kind=EpisodeKind.POLICY)) == ""


def test_only_new_pictures_of_an_episode_are_recorded_and_only_what_fits(filmed: tuple[ByHand, Cameras, CameraThread]) -> None:
    hand, cameras, thread = filmed
    cameras.names = ["front"]
    before = len(hand.records)
    picture(cameras, thread)
    picture(cameras, thread, "e")
    picture(cameras, thread, "e", new=False)
    assert len(hand.records) == before + 1
    hand.io.records.bytes = MAX_PICTURE_BACKLOG_BYTES + 1
    picture(cameras, thread, "e")
    assert len(hand.records) == before + 2, "on one computer nothing is left out so soon"
    thread._remote = True
    picture(cameras, thread, "e")
    assert (len(hand.records), thread.pictures_not_recorded) == (before + 2, 1)


def test_a_slow_renderer_skips_and_a_broken_one_is_tried_again(
    filmed: tuple[ByHand, Cameras, CameraThread], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cameras, thread = filmed
    for i in range(5):
        thread._next_ns = 0
        thread.offer("", i)
    slot = thread._next_slot()
    assert slot is not None
    assert slot[2] == 4
    assert thread._slot is None
    monkeypatch.setattr("takeover.robot_bridge.camera_thread.RETRY_S", 0.05)
    monkeypatch.setattr(cameras, "pictures", lambda _: 1 / 0)
    thread.start()
    thread._next_ns = 0
    thread.offer("", 5)
    deadline = time.monotonic() + 10.0
    while not thread.error and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "ZeroDivisionError" in thread.error
    monkeypatch.undo()
    while thread.error and time.monotonic() < deadline:
        thread._next_ns = 0
        thread.offer("", 6)
        time.sleep(0.02)
    assert thread.error == ""
