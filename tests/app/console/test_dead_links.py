"""Links that die without a word: TCP takes what is sent and nobody gets it. What must arrive all the same."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from peer import make_state

from takeover.data.schema import (
    Command,
    ControlEnvelope,
    Hello,
    Hold,
    HoldReason,
    Lease,
    Mode,
    Reply,
    ReplyEnvelope,
    Resume,
    Role,
    State,
    Stop,
)
from takeover.robot_bridge.protocol import SAY_HELLO, ControlClient, Endpoints, Pull, Router, WatchedPush, kept_hold, watched_push
from takeover.robot_bridge.protocol.link import Link, port_offset
from tests.fault_proxy import FaultProxy
from tests.introduced import introduced, unused_port


def command() -> Command:
    return Command(
        session="session-1",
        sender="console-far",
        seq=1,
        lease="lease-1",
        device_id="pad",
        device_kind="gamepad",
        device_alive=True,
        deadman=False,
        neutral=True,
        focused=True,
        gui_alive=True,
        action=[0.0] * 4,
        authority=["arm"],
        newest_state_seq=1,
    )


class Far:
    """The bridge's end of ``control`` and ``command``, and a desk's endpoints that reach it over a bad network."""

    def __init__(self, folder: Path) -> None:
        robot, desk = introduced(folder, [Role.OPERATOR])
        port = unused_port("127.0.0.2")
        self._bridge = Endpoints(folder / "s", Link("127.0.0.2", port, True, robot))
        self._bridge.listen(lambda stream, key: None)
        self.control: Router[ControlEnvelope, ReplyEnvelope] = Router(self._bridge, "control", ControlEnvelope, ReplyEnvelope)
        self.commands: Pull[Command] = Pull(self._bridge, "command", Command)
        self.proxy = FaultProxy("127.0.0.3", port, "127.0.0.2", port, [port_offset("control"), port_offset("command")])
        self.desk = Endpoints(folder / "s2", Link("127.0.0.3", port, False, desk))

    def close(self) -> None:
        for item in (self.control, self.commands):
            item.close()
        self.proxy.close()
        self._bridge.close()


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    made = Far(tmp_path)
    yield made
    made.close()


@pytest.fixture
def client(far: Far) -> Iterator[ControlClient]:
    with_client = ControlClient(far.desk, "console-far")
    assert with_client._dealer.writable(10.0)
    yield with_client
    with_client.close()


def stops(
    control: Router[ControlEnvelope, ReplyEnvelope], client: ControlClient, for_s: float, at_least: int = 0
) -> list[tuple[bytes, int]]:
    """The STOPs that arrive while the client polls, each as (who, request id): until there are some, or for that long."""
    found: list[tuple[bytes, int]] = []
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline and not (at_least and len(found) >= at_least):
        client.poll(0.01)
        while (received := control.receive()) is not None:
            assert isinstance(received[1].request, Stop)
            found.append((received[0], received[1].request_id))
    return found


def test_a_stop_that_a_dead_link_took_arrives_over_the_next_one_and_then_never_again(far: Far, client: ControlClient) -> None:
    far.proxy.forget_connections()
    assert client.stop_pressed_ns == 0
    asked = client.send(Stop(sender="console-far"))
    assert client.stop_pressed_ns > 0
    assert stops(far.control, client, 0.3) == [], "the link is dead"
    far.proxy.drop_connections()
    found = stops(far.control, client, 10.0, at_least=1)
    assert found
    assert client.stop_pressed_ns > 0, "arrived, but that is not known yet"
    peer, request_id = found[0]
    assert request_id == asked
    far.control.send(peer, ReplyEnvelope(request_id=request_id, reply=Reply(session="session-1", t_ns=time.monotonic_ns())))
    deadline = time.monotonic() + 10.0
    while client.stop_pressed_ns:
        client.poll(0.05)
        assert time.monotonic() < deadline, "confirmed by its reply"
    stops(far.control, client, 0.05)
    assert stops(far.control, client, 0.5) == [], "somebody else may have cleared it"
    assert client.clock.error_ns == -1, "which of the repeated ones was answered is not known"


def test_over_a_network_no_state_confirms_a_stop(far: Far, client: ControlClient) -> None:
    """A stalled link may bring one of a stopped robot late: somebody has cleared that since."""
    client.saw(make_state(seq=7, mode=Mode.POLICY))
    asked = client.send(Stop(sender="console-far"))
    client.saw(make_state(seq=10, mode=Mode.STOPPED))
    client.saw(make_state(session="session-2", seq=1, mode=Mode.STOPPED))
    assert client.stop_pressed_ns > 0
    found = stops(far.control, client, 10.0, at_least=3)
    assert [request_id for _, request_id in found] == [asked] * 3, "again and again, unanswered"


def test_on_one_computer_a_newer_state_of_a_stopped_robot_confirms_a_stop(tmp_path: Path) -> None:
    ends = Endpoints(tmp_path / "s")
    ends.prepare()
    client = ControlClient(ends, "console")
    client.saw(make_state(seq=7, mode=Mode.POLICY))
    client.send(Stop(sender="console"))
    others: list[State] = [
        make_state(seq=7, mode=Mode.STOPPED),  # what was seen at the press already
        make_state(seq=8, mode=Mode.POLICY),
        make_state(seq=9, mode=Mode.HOLD),
    ]
    for state in others:
        client.saw(state)
        assert client.stop_pressed_ns > 0
    client.saw(make_state(seq=10, mode=Mode.STOPPED))
    assert client.stop_pressed_ns == 0
    client.send(Stop(sender="console"))
    client.saw(make_state(session="session-2", seq=1, mode=Mode.STOPPED))
    assert client.stop_pressed_ns == 0, "a bridge that was started anew"
    client.close()


def test_the_answer_to_an_earlier_press_does_not_confirm_a_later_one(far: Far, client: ControlClient) -> None:
    client.send(Stop(sender="console-far"))
    ((peer, first),) = stops(far.control, client, 10.0, at_least=1)
    second = client.send(Stop(sender="console-far"))
    far.control.send(peer, ReplyEnvelope(request_id=first, reply=Reply(session="session-1")))
    assert (peer, second) in stops(far.control, client, 10.0, at_least=2)
    assert client.stop_pressed_ns > 0


def test_on_one_computer_a_bridge_that_hangs_gets_one_stop_and_a_living_one_more(tmp_path: Path) -> None:
    ends = Endpoints(tmp_path / "s")
    ends.prepare()
    with Router[ControlEnvelope, ReplyEnvelope](ends, "control", ControlEnvelope, ReplyEnvelope) as control:
        client = ControlClient(ends, "console")
        client.send(Stop(sender="console"))
        assert len(stops(control, client, 0.7)) == 1, "it would find a heap of them"
        client.saw(make_state(mode=Mode.POLICY))
        assert len(stops(control, client, 10.0, at_least=1)) == 1, "it lives and drives: the one before was lost"
        client.close()


Asked = tuple[bytes, ControlEnvelope]


def arrived(
    control: Router[ControlEnvelope, ReplyEnvelope], client: ControlClient, for_s: float, at_least: int = 0
) -> tuple[list[Asked], list[ReplyEnvelope]]:
    """What arrives while the client polls, until it is that much or for that long, and what polling returned."""
    found: list[Asked] = []
    told: list[ReplyEnvelope] = []
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline and not (at_least and len(found) >= at_least):
        if (reply := client.poll(0.01)) is not None:
            told.append(reply)
        while (received := control.receive()) is not None:
            found.append(received)
    return found, told


def answer(far: Far, asked: Asked, error: str = "") -> None:
    reply = Reply(session="session-1", error=error, t_ns=time.monotonic_ns())
    far.control.send(asked[0], ReplyEnvelope(request_id=asked[1].request_id, reply=reply))


@pytest.fixture
def kept_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_hold, "KEPT_NS", 20_000_000_000)


def test_a_hold_without_a_connection_leaves_over_the_next_one_and_no_resume_does(far: Far, client: ControlClient, kept_long: None) -> None:
    far.proxy.drop_connections()
    while client._dealer.writable(0.0):
        time.sleep(0.001)
    asked = client.send(Hold(sender="console-far"))
    client.send(Resume(sender="console-far"))
    found, _ = arrived(far.control, client, 10.0, at_least=1)
    assert [envelope.request_id for _, envelope in found] == [asked]
    answer(far, found[0])
    _, told = arrived(far.control, client, 0.1)
    assert [reply.request_id for reply in told] == [asked]
    assert arrived(far.control, client, 0.3) == ([], []), "done once"


def test_a_hold_that_a_dead_link_took_arrives_over_the_next_one(far: Far, client: ControlClient, kept_long: None) -> None:
    far.proxy.forget_connections()
    asked = client.send(Hold(sender="console-far"))
    assert arrived(far.control, client, 0.05) == ([], []), "the link is dead"
    far.proxy.drop_connections()
    found, _ = arrived(far.control, client, 10.0, at_least=1)
    assert [envelope.request_id for _, envelope in found] == [asked]


def test_a_hold_follows_the_hello_on_a_connection_that_the_bridge_does_not_know(far: Far, client: ControlClient, kept_long: None) -> None:
    client.send(Hello(protocol=1, sender="console-far", role=Role.OPERATOR, software="test"))
    hold, resume = client.send(Hold(sender="console-far")), client.send(Resume(sender="console-far"))
    found, _ = arrived(far.control, client, 10.0, at_least=3)
    for asked in found[1:]:
        answer(far, asked, SAY_HELLO)
    again, told = arrived(far.control, client, 10.0, at_least=3)
    assert [type(envelope.request) for _, envelope in again] == [Hello, Hold, Hello]
    assert again[1][1].request_id == hold
    assert [(reply.request_id, reply.reply.error) for reply in told] == [(resume, SAY_HELLO)], "what may move is not asked again"
    answer(far, again[1])
    _, told = arrived(far.control, client, 0.1)
    assert [(reply.request_id, reply.reply.error) for reply in told] == [(hold, "")]


def test_a_bridge_that_never_knows_the_sender_refuses_its_hold_in_the_end(tmp_path: Path, kept_long: None) -> None:
    ends = Endpoints(tmp_path / "s")
    ends.prepare()
    with Router[ControlEnvelope, ReplyEnvelope](ends, "control", ControlEnvelope, ReplyEnvelope) as control:
        client = ControlClient(ends, "console")
        client.send(Hello(protocol=1, sender="console", role=Role.OPERATOR, software="test"))
        hold, holds = client.send(Hold(sender="console")), 0
        deadline = time.monotonic() + 10.0
        while (told := client.poll(0.01)) is None:
            assert time.monotonic() < deadline
            while (received := control.receive()) is not None:
                if isinstance(received[1].request, Hold):
                    holds += 1
                    reply = Reply(session="session-1", error=SAY_HELLO)
                    control.send(received[0], ReplyEnvelope(request_id=hold, reply=reply))
        assert (told.request_id, told.reply.error, holds) == (hold, SAY_HELLO, 1 + kept_hold.GREETINGS)
        client.close()


def test_a_hold_is_asked_for_again_until_the_robot_is_seen_held(far: Far, client: ControlClient, kept_long: None) -> None:
    def again() -> int:
        """How many arrive in two more repetitions' time, or none."""
        return len(arrived(far.control, client, 0.5, at_least=1)[0])

    client.saw(make_state(seq=7, mode=Mode.POLICY))
    for shown in (
        make_state(seq=9, mode=Mode.HOLD, hold_reason=HoldReason.OPERATOR),
        make_state(seq=19, mode=Mode.STOPPED),
        make_state(session="session-2", seq=1, mode=Mode.HOLD, hold_reason=HoldReason.OPERATOR),
    ):
        client.send(Hold(sender="console-far"))
        assert again()
        for other in (
            make_state(seq=client.newest_state_seq, mode=Mode.HOLD, hold_reason=HoldReason.OPERATOR),  # what was seen at the press
            make_state(seq=client.newest_state_seq + 1, mode=Mode.HOLD, hold_reason=HoldReason.RELEASED),  # others may end that
            make_state(seq=client.newest_state_seq + 1, mode=Mode.POLICY),
        ):
            client.saw(other)
        assert again()
        client.saw(shown)
        assert not again()


def test_a_hold_is_not_asked_for_any_more_after_a_second(far: Far, client: ControlClient) -> None:
    client.send(Hold(sender="console-far"))
    assert len(arrived(far.control, client, 10.0, at_least=3)[0]) == 3, "again and again, unanswered"
    time.sleep(0.6)
    far.proxy.drop_connections()
    arrived(far.control, client, 0.1)
    assert arrived(far.control, client, 0.5) == ([], []), "its time is over"


def test_on_one_computer_a_bridge_that_hangs_gets_one_hold(tmp_path: Path) -> None:
    ends = Endpoints(tmp_path / "s")
    ends.prepare()
    with Router[ControlEnvelope, ReplyEnvelope](ends, "control", ControlEnvelope, ReplyEnvelope) as control:
        client = ControlClient(ends, "console")
        client.send(Hold(sender="console"))
        assert len(arrived(control, client, 0.5)[0]) == 1, "it would find a heap of them"
        client.close()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_push, "UNHEARD_NS", 200_000_000)


def driven(far: Far, commands: WatchedPush[Command], for_s: float, age_ms: float | None = None, at_least: int = 0) -> int:
    """How many commands arrive: sent every 10 ms, with the state that a living bridge sends meanwhile (or one that says ``age_ms``)."""
    found, deadline, newest_s = 0, time.monotonic() + for_s, 0.0
    while time.monotonic() < deadline and not (at_least and found >= at_least):
        commands.send(command())
        if far.commands.receive(0.01) is not None:
            found, newest_s = found + 1, time.monotonic()
        commands.arrived(((time.monotonic() - newest_s) * 1e3 if newest_s else -1.0) if age_ms is None else age_ms)
    return found


def test_commands_reach_the_bridge_again_after_a_nat_has_forgotten_their_connection(far: Far, hurried: None) -> None:
    with WatchedPush[Command](far.desk, "command", Command) as commands:
        assert commands.socket.poll(10_000, zmq.POLLOUT)
        assert driven(far, commands, 10.0, at_least=30) == 30
        assert commands.renewed == 0
        far.proxy.forget_connections()
        assert driven(far, commands, 0.5, age_ms=900.0) <= 20, "what was on its way"
        assert commands.renewed == 0, "the bridge says that they arrive"
        assert driven(far, commands, 10.0, at_least=30) == 30
        assert commands.renewed == 1
        driven(far, commands, 0.6, age_ms=-1.0)
        assert commands.renewed == 1, "a slow network needs time for the handshake"
        commands._not_before_ns = 0
        driven(far, commands, 0.6, age_ms=1500.0)
        assert commands.renewed == 2


def test_on_one_computer_and_while_nothing_is_sent_a_connection_stays(far: Far, tmp_path: Path, hurried: None) -> None:
    ends = Endpoints(tmp_path / "s3")
    ends.prepare()
    with WatchedPush[Command](ends, "command", Command) as local, WatchedPush[Command](far.desk, "command", Command) as idle:
        local.send(command())
        time.sleep(0.25)
        local.arrived(-1.0)
        idle.arrived(-1.0)
        assert (local.renewed, idle.renewed) == (0, 0)


def test_a_key_that_cannot_be_read_leaves_the_connection_as_it_is(far: Far, tmp_path: Path, hurried: None) -> None:
    with WatchedPush[Command](far.desk, "command", Command) as commands:
        assert commands.socket.poll(10_000, zmq.POLLOUT)
        (tmp_path / "desk").rename(tmp_path / "away")
        commands.send(command())
        time.sleep(0.25)
        commands.arrived(-1.0)
        assert commands.renewed == 0
        assert driven(far, commands, 10.0, age_ms=0.0, at_least=5) == 5


def test_another_bridge_has_a_clock_of_its_own(far: Far, client: ControlClient) -> None:
    def answered(session: str, t_ns: int) -> None:
        client.send(Lease(sender="console-far"))
        received = far.control.receive(5.0)
        assert received is not None
        far.control.send(received[0], ReplyEnvelope(request_id=received[1].request_id, reply=Reply(session=session, t_ns=t_ns)))
        assert client.poll(5.0) is not None

    answered("session-1", time.monotonic_ns())
    assert client.clock.error_ns >= 0
    answered("session-1", 0)
    assert client.clock.error_ns >= 0, "one that says no time"
    answered("session-2", 0)
    assert client.clock.error_ns == -1
