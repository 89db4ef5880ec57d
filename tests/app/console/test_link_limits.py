"""What the console's link sends and when it does not, without its thread: the commands go over a real socket."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs
from peer import SPEC, make_state

from takeover.app.console.client import ConsoleClient
from takeover.app.inputs.base import DeviceReading
from takeover.data.schema import (
    PROTOCOL_VERSION,
    CameraFrame,
    Command,
    ControlEnvelope,
    Hello,
    Hold,
    Lease,
    Mode,
    Next,
    Reply,
    ReplyEnvelope,
    RobotSpec,
    SetOutcome,
    Stop,
    ViewReport,
)
from takeover.robot_bridge.protocol import ClockOffset, ControlClient, Endpoints, Pull, Router, WatchedPush

SECOND = 1_000_000_000
PAD = DeviceReading("gamepad-0", "gamepad", "Pad", True, True, False, (0.5,) * 6, 0.0, 1)


class Device:
    reading = PAD

    def poll(self) -> DeviceReading:
        return self.reading


def to_action(reading: DeviceReading, spec: RobotSpec) -> list[float]:
    if spec.action.kind != "ee_delta":
        raise ValueError("these actions cannot be driven")
    return [*reading.twist[:3], 0.0]


class Linked:
    """The client, greeted and with the lease, and the bridge's end of its sockets."""

    def __init__(self, folder: Path) -> None:
        ends = Endpoints(folder)
        ends.prepare()
        self.commands: Pull[Command] = Pull(ends, "command", Command)
        self.control: Router[ControlEnvelope, ReplyEnvelope] = Router(ends, "control", ControlEnvelope, ReplyEnvelope)
        self.device = Device()
        self.client = client = ConsoleClient(ends, "console", self.device, to_action)
        client._command_out = WatchedPush(ends, "command", Command)
        client._control = ControlClient(ends, "console")
        client._launcher = _Nobody()  # type: ignore[assignment]
        client._pending, client._inputs, client._cameras = {}, [], {"front", "wrist"}
        client._on_state(make_state(commander="console"))
        client._control._saw_ns += 60 * SECOND  # a slow machine makes no lost link
        client._greeted(Reply(session="session-1", spec=SPEC))
        client._leased(Reply(session="session-1", lease="token"))
        client.stamp_gui()
        client.focused = True

    def command(self) -> Command | None:
        """What one turn sends; None when it sends nothing."""
        before = self.client.commands_sent
        self.client._command()
        return self.commands.receive(5.0) if self.client.commands_sent > before else None

    def asked(self) -> list[object]:
        found = []
        while (received := self.control.receive(0.1)) is not None:
            found.append(received[1].request)
        return found

    def close(self) -> None:
        for socket in (self.commands, self.control, self.client._command_out, self.client._control):
            socket.close()


class _Nobody:
    def receive(self) -> None:
        return None


@pytest.fixture
def linked(tmp_path: Path) -> Iterator[Linked]:
    made = Linked(tmp_path / "s")
    deadline = time.monotonic() + 10.0
    while made.command() is None:
        assert time.monotonic() < deadline
        made.client.stamp_gui()
    yield made
    made.close()


def test_a_command_says_what_the_device_and_the_window_say(linked):
    linked.client.gui_stamp_ns = time.monotonic_ns() + 60 * SECOND
    command = linked.command()
    assert command.gui_alive
    assert command.focused
    assert (command.deadman, command.neutral, command.device_alive) == (True, False, True)
    assert (command.session, command.lease, command.newest_state_seq) == ("session-1", "token", linked.client.state.seq)
    linked.client.focused = False
    linked.device.reading = replace(PAD, alive=False, deadman=False, neutral=True)
    after = linked.command()
    assert (after.deadman, after.neutral, after.device_alive, after.focused) == (False, True, False, False)
    assert after.seq > command.seq


def test_what_was_refused_on_a_connection_that_had_just_come_back_is_told_by_its_name(linked):
    for request in (ViewReport(sender="console", age_ms=1.0), Lease(sender="console"), Next(sender="console")):
        linked.client._send(request)
        peer, asked = linked.control.receive(5.0)
        linked.control.send(peer, ReplyEnvelope(request_id=asked.request_id, reply=Reply(session="session-1", error="say hello first")))
    deadline = time.monotonic() + 10.0
    while not linked.client.notices:
        linked.client._receive_replies()
        assert time.monotonic() < deadline
    assert [notice.text for notice in linked.client.notices] == [
        "Next: the connection to the bridge was lost and is back; this was not done"
    ]


def test_pictures_are_never_reported_younger_than_their_making(linked):
    """Where the clocks of two computers are known worse than the pictures are late."""
    client, now = linked.client, time.monotonic_ns()
    client._clock = ClockOffset()
    client._clock.heard(now - 4 * SECOND, now - 2 * SECOND, now)
    assert (client.clock_offset_ns, client.clock_error_ns) == (0, 2 * SECOND)
    frame = CameraFrame(session="session-1", rec_seq=-1, camera="front", counter=1, t_source_ns=now, width=1, height=1, jpeg=b"")
    client.frames = {"front": frame}
    client._report_view()
    client.frames = {"front": structs.replace(frame, t_source_ns=now - 5 * SECOND)}
    client._next_report_ns = 0
    client._report_view()
    first, second = [request for request in linked.asked() if isinstance(request, ViewReport)]
    assert first.age_ms == 0.0
    assert 3000.0 <= second.age_ms < 60_000.0


MEANT = {Mode.POLICY: "e2", Mode.TAKEOVER: "e2", Mode.HOLD: "e2", Mode.STOPPED: ""}  # stopped: the bridge knows whether that one ran


@pytest.mark.parametrize(("mode", "meant"), [(mode, MEANT.get(mode, "e1")) for mode in Mode])
def test_an_outcome_key_names_the_episode_that_was_shown(linked: Linked, mode: Mode, meant: str) -> None:
    client = linked.client
    client._on_state(make_state(mode=mode, episode_id="e2", last_outcome_episode="e1"))
    client.press("success")
    client._on_state(make_state(mode=Mode.POLICY, episode_id="e3", last_outcome_episode="e2"))
    client._send_requests()
    assert [request.episode_id for request in linked.asked() if isinstance(request, SetOutcome)] == [meant]


def test_an_outcome_key_between_episodes_is_for_the_last(linked: Linked) -> None:
    client, stopped = linked.client, make_state(mode=Mode.STOPPED, last_outcome_episode="e1")
    for shown, meant in ((make_state(mode=Mode.HOLD, last_outcome_episode="e1"), "e1"), (stopped, "e1"), (make_state(), ""), (None, "")):
        client.state = shown
        client.press("failure")
        client._send_requests()
        assert [request.episode_id for request in linked.asked() if isinstance(request, SetOutcome)] == [meant]


def test_who_drives_blind_is_held_and_otherwise_present(linked: Linked) -> None:
    client = linked.client
    client.gui_stamp_ns = time.monotonic_ns() + 60 * SECOND
    for mode in Mode:
        for blind in (False, True):
            client._on_state(make_state(commander="console", mode=mode))
            client.blind = blind
            command = linked.command()
            assert command is not None
            assert command.deadman, "let go it would hand back to the policy"
            assert command.gui_alive is not (blind and mode is Mode.TAKEOVER)


def test_a_window_that_hangs_loses_authority_after_100_ms(linked):
    linked.client.gui_stamp_ns = time.monotonic_ns() - SECOND * 12 // 100
    assert not linked.command().gui_alive
    linked.client.stamp_gui()
    assert time.monotonic_ns() - linked.client.gui_stamp_ns < SECOND
    linked.client.gui_stamp_ns += 60 * SECOND  # this machine may be slow
    assert linked.command().gui_alive


def test_nothing_is_commanded_without_session_lease_state_or_a_drivable_robot(linked):
    client = linked.client
    for name, value in (("session", ""), ("lease", ""), ("_drivable", False), ("state", None), ("spec", None)):
        kept = getattr(client, name)
        setattr(client, name, value)
        assert linked.command() is None, name
        setattr(client, name, kept)
        assert linked.command() is not None
    client._on_state(make_state(session="session-2"))
    assert linked.command() is None, "a new bridge gets none before the handshake"


def test_a_new_bridge_is_greeted_once_a_second_and_the_lease_is_forgotten(linked):
    client = linked.client
    client._on_state(make_state(session="session-2"))
    client._handshake()
    client._handshake()
    assert [type(request) for request in linked.asked()] == [Hello]
    assert client.lease == ""
    client._next_hello_ns = 0
    client._handshake()
    assert [type(request) for request in linked.asked()] == [Hello]


def test_a_reply_in_another_protocol_or_for_a_robot_that_cannot_be_driven(linked):
    client = linked.client
    client._greeted(Reply(session="session-2", spec=SPEC, protocol=PROTOCOL_VERSION + 1))
    assert client.session == "session-1"
    assert "protocol" in client.notices[-1].text
    client._greeted(Reply(session="session-2", error="no"))
    assert client.session == "session-1"
    other = structs.replace(SPEC, action=structs.replace(SPEC.action, kind="joint_delta"))
    client._greeted(Reply(session="session-2", spec=other))
    assert "cannot be driven" in client.notices[-1].text
    assert linked.command() is None


def test_stop_leaves_without_lease_or_session(linked):
    linked.client.lease = linked.client.session = ""
    linked.client.state = None
    linked.client.press("stop")
    linked.client._send_stop()
    asked = linked.asked()
    assert [type(request) for request in asked] == [Stop]


def test_a_stop_is_shown_as_not_confirmed_until_it_is_and_a_window_that_closes_waits_for_it(linked: Linked) -> None:
    client = linked.client
    client.press("stop")
    assert client.stop_pressed_ns > 0, "before it has left, too"
    client._send_stop()
    client._receive_replies()
    assert client.stop_pressed_ns > 0
    received = linked.control.receive(5.0)
    assert received is not None
    answer = ReplyEnvelope(request_id=received[1].request_id, reply=Reply(session="session-1"))
    closing = threading.Timer(0.1, lambda: linked.control.send(received[0], answer))
    closing.start()
    client.lease = ""
    client._say_goodbye()
    assert closing.finished.is_set()
    client._receive_replies()
    assert client.stop_pressed_ns == 0


def test_a_request_that_is_not_answered_is_said(linked):
    client = linked.client
    client.press("mark")
    client._send_requests()
    client._receive_replies()
    assert not client.notices
    for pending in client._pending.values():
        pending.sent_ns -= SECOND * 14 // 10
    client._receive_replies()
    assert not client.notices
    for pending in client._pending.values():
        pending.sent_ns -= SECOND * 2 // 10
    client._receive_replies()
    assert [notice.text for notice in client.notices] == ["Mark: the bridge did not answer; it may be down"]
    assert not client._pending


def test_the_lease_is_asked_for_again_and_with_a_script_only_on_a_press(linked):
    client = linked.client
    client._next_lease_ns = 0
    client._keep_lease()
    client._keep_lease()
    assert [request.release for request in linked.asked() if isinstance(request, Lease)] == [False], "twice a second"
    client.only_on_press = True
    client._pressed_ns = time.monotonic_ns()
    client._next_lease_ns = 0
    client._keep_lease()
    assert [request.release for request in linked.asked()] == [False]
    client._pressed_ns -= 4 * SECOND
    client._next_lease_ns = 0
    client._keep_lease()
    assert [request.release for request in linked.asked()] == [True]
    client._on_state(make_state(commander="operator"))
    client._next_lease_ns = 0
    client._keep_lease()
    assert linked.asked() == []


def test_while_no_state_comes_nothing_is_commanded_and_the_lease_is_left_to_others(linked: Linked) -> None:
    client = linked.client
    client._next_lease_ns, client._control._saw_ns = 0, time.monotonic_ns() - 6 * SECOND // 10
    client._keep_lease()
    assert linked.command() is None
    assert linked.asked() == []
    client.press("hold")
    client._send_requests()
    assert [type(request) for request in linked.asked()] == [Hold], "what may only stop the robot is asked for all the same"
    client._control._saw_ns = time.monotonic_ns() + 60 * SECOND
    client._keep_lease()
    assert linked.command() is not None
    assert [type(request) for request in linked.asked()] == [Lease]


@pytest.mark.parametrize(("token", "period_s"), [("token", 0.2), ("", 0.5)])
def test_the_lease_is_renewed_more_often_than_it_lapses(linked: Linked, token: str, period_s: float) -> None:
    client = linked.client
    client.lease, client._next_lease_ns, began_ns = token, 0, time.monotonic_ns()
    client._keep_lease()
    assert 0 <= client._next_lease_ns - began_ns - period_s * SECOND <= time.monotonic_ns() - began_ns


def test_the_command_socket_is_told_what_arrives(linked: Linked) -> None:
    client = linked.client
    commands = client._command_out
    for arrives in ({"command_age_ms": 8.0}, {"command_age_ms": -1.0, "commander": "second"}):
        assert linked.command() is not None
        assert commands._since_ns > 0
        client._on_state(make_state(**({"commander": "console"} | arrives)))
        assert commands._since_ns == 0
    linked.command()
    client._on_state(make_state(commander="console", command_age_ms=-1.0))
    assert commands._since_ns > 0


def test_who_holds_the_lease_is_what_the_bridge_says(linked):
    client = linked.client
    assert client.holds_lease
    client._on_state(make_state(commander="second"))
    assert not client.holds_lease


def test_the_age_of_the_state(linked):
    client = linked.client
    assert client.state_age_ms(client.state_ns + 2_000_000) == 2.0
    client.state_ns = 0
    assert client.state_age_ms() == float("inf")


def test_a_lease_that_others_hold_is_said_once_and_its_token_dropped(linked: Linked) -> None:
    client = linked.client
    notices: list[str] = []

    def ask(error: str) -> list[str]:
        """What is shown when the next request for the lease is answered with ``error``."""
        client._next_lease_ns = 0
        client._keep_lease()
        received = linked.control.receive(5.0)
        assert received is not None
        peer, envelope = received
        linked.control.send(peer, ReplyEnvelope(request_id=envelope.request_id, reply=Reply(session="session-1", error=error)))
        deadline = time.monotonic() + 5.0
        client.round_trip_ms = -1.0
        while client.round_trip_ms < 0 and time.monotonic() < deadline:
            client._receive_replies()
        assert client.round_trip_ms >= 0, "answered"
        notices.extend(notice.text for notice in client.notices)
        client.notices.clear()
        return notices

    assert ask("other holds the lease") == ["other holds the lease"]
    assert client.lease == "", "its commands would keep the old lease alive against itself"
    assert ask("other holds the lease") == ["other holds the lease"]
    assert ask("third holds the lease") == ["other holds the lease", "third holds the lease"]
