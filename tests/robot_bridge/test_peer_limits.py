"""What peers may fill the record and the memory with, and which addresses a station may have: one limit at a time, without threads."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from takeover.data.schema import Event, RunConfig, State
from takeover.robot_bridge.bridge import Bridge
from takeover.robot_bridge.io import MAX_EVENT_NAME, MAX_EVENT_TEXT
from takeover.robot_bridge.protocol import EndpointError, Endpoints, KeyFolder, PeerGone, Publisher, Push
from takeover.robot_bridge.protocol.endpoints import MAX_IPC_PATH_BYTES
from takeover.robot_bridge.protocol.link import Link
from takeover.robot_bridge.record_log import MAX_EVENT_BACKLOG_BYTES
from takeover.robot_bridge.robots.base import RobotError
from takeover.robot_bridge.robots.registry import make_cameras, make_robot, split_robot
from takeover.robot_bridge.robots.sim import SimRobot

from .by_hand import ByHand, by_hand


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[ByHand]:
    with by_hand(tmp_path) as made:
        yield made


@pytest.fixture
def notes(hand: ByHand) -> Iterator[Push[Any]]:
    with Push[Any](hand.bridge._endpoints, "event", Event) as push:
        yield push


def note(text: str, kind: str = "note", source: str = "desk") -> Event:
    return Event(session="", rec_seq=-1, kind=kind, text=text, t_ns=0, wall_ns=0, source=source)


# --- words ---


def test_the_words_of_an_event_are_cut(hand: ByHand, notes: Push[Any]) -> None:
    assert notes.send(note("x" * 9000, "k" * 200, "s" * 200), 2.0)
    assert hand.pump_until(lambda: hand.events("k" * MAX_EVENT_NAME))
    kept = hand.events("k" * MAX_EVENT_NAME)[0]
    assert (len(kept.text), kept.source) == (MAX_EVENT_TEXT, "local/" + "s" * MAX_EVENT_NAME)
    hand.io.event("mark", "x" * 9000)
    assert len(hand.events("mark")[0].text) == MAX_EVENT_TEXT, "as cut as other processes' words"


def test_words_do_not_fill_the_memory(hand: ByHand, notes: Push[Any]) -> None:
    hand.io.records.bytes = MAX_EVENT_BACKLOG_BYTES + 1
    assert notes.send(note("one too many"), 2.0)
    assert hand.pump_until(lambda: hand.io.refused_commands or hand.events("note"))
    assert (hand.io.refused_commands, hand.events("note")) == (1, [])
    hand.io.records.bytes = MAX_EVENT_BACKLOG_BYTES
    assert notes.send(note("fits"), 2.0)
    assert hand.pump_until(lambda: hand.events("note"))


def test_messages_that_cannot_be_read_are_counted_one_by_one_and_noted_once_a_second(hand: ByHand, notes: Push[Any]) -> None:
    for number in range(1, 6):
        assert notes.socket.poll(2000, 2)
        notes.socket.send(b"event\0junk")
        assert hand.pump_until(lambda number=number: hand.io.bad_messages >= number)
        assert hand.io.bad_messages == number
    assert len(hand.events("bad_message")) == 1


# --- records on their way ---


def test_records_that_the_recorder_does_not_take_are_sent_again_in_order(hand: ByHand) -> None:
    io, sent = hand.io, []
    for number in range(5):
        io.event("x", str(number))
    expected = io.records.unsent(1000)
    io.records.rewind(-1)
    io._recorder = b"r"

    def takes(limit: int) -> Any:
        def send(peer: bytes, frame: bytes) -> bool:
            if len(sent) >= limit:
                return False
            sent.append(frame)
            return True

        return send

    for limit in (2, 3, 1000):
        io._record.send_encoded = takes(limit)  # type: ignore[method-assign]
        io._send_records()
        assert sent == expected[:limit]


def test_a_recorder_that_has_gone_is_sent_nothing_and_nothing_is_lost(hand: ByHand) -> None:
    io, asked = hand.io, []
    io.event("x")
    io._recorder = b"r"

    def send(peer: bytes, frame: bytes) -> bool:
        asked.append(peer)
        raise PeerGone("record")

    io._record.send_encoded = send  # type: ignore[method-assign]
    io._send_records()
    io._send_records()
    assert asked == [b"r"]
    assert len(io.records.unsent(1000)) == io.records.backlog > 0


# --- addresses ---


def listening(folder: Path) -> Endpoints:
    return Endpoints(folder, Link("127.0.0.1", 5600, True, KeyFolder(folder / "keys")))


def test_nothing_listens_on_a_network_without_keys(tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match=r"tcp://127\.0\.0\.1:5600: nothing listens on a network without keys"):
        Publisher[State](listening(tmp_path), "state", State)


def test_a_socket_path_has_a_length() -> None:
    room = MAX_IPC_PATH_BYTES - len("/state.sock")
    assert Endpoints("/" + "x" * (room - 1)).address("state")
    with pytest.raises(EndpointError, match=f"longer than {MAX_IPC_PATH_BYTES} bytes; choose a shorter runtime folder"):
        Endpoints("/" + "x" * room).address("state")


def test_a_folder_for_sockets_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    Endpoints(tmp_path / "s").prepare()
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    Endpoints(tmp_path / "s").prepare()


@pytest.mark.parametrize("mode", [0o1777, 0o755, 0o710, 0o701])
def test_a_folder_that_others_can_enter_is_refused_and_left_as_it_is(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(EndpointError, match=rf"{folder} is open to others \(mode {mode:04o}\): name one that does not exist yet"):
        Endpoints(folder).prepare()
    assert folder.stat().st_mode & 0o7777 == mode


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(EndpointError, match=f"{tmp_path} belongs to somebody else: name one that does not exist yet"):
        Endpoints(tmp_path).prepare()


def test_a_bridge_on_a_network_runs_in_real_time(tmp_path: Path) -> None:
    config = RunConfig(
        session_id="s", workspace=str(tmp_path), sockets=str(tmp_path / "s"), clock="lockstep", listen="tcp://127.0.0.1:5600"
    )
    with pytest.raises(ValueError, match="lockstep is for one computer"):
        Bridge(config, SimRobot(), None)


@pytest.mark.parametrize("address", ["tcp://10.77.0.1:5600", "tcp://127.0.0.1:5600"])
def test_who_may_drive_from_elsewhere_is_not_said_to_see_the_robot(tmp_path: Path, address: str) -> None:
    """Refused before a key is looked for, a socket is opened or the robot is reached."""
    robot = SimRobot()
    config = RunConfig(session_id="s", workspace=str(tmp_path), sockets=str(tmp_path / "s"), listen=address, line_of_sight="yes")
    with pytest.raises(ValueError, match=f'line_of_sight = "yes".* listens on {address}') as refused:
        Bridge(config, robot, None)
    assert '"auto"' in str(refused.value), "and what to do"
    assert not (tmp_path / "s").exists()
    for said in ("auto", "no"):
        with pytest.raises(EndpointError, match="key"):  # the next thing that it lacks
            Bridge(structs.replace(config, line_of_sight=said), robot, None)


# --- cameras and robots ---


def test_the_policys_cameras_are_the_stations(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="policy_cameras: rear is no camera of this station; known: none"):
        ByHand(tmp_path, policy_cameras=["rear"])


def test_robots_and_clocks_that_are_not_known() -> None:
    config: dict[str, Any] = {"session_id": "s", "workspace": "", "sockets": ""}
    with pytest.raises(RobotError, match="unknown robot 'shovel'; known: sim, sim-server"):
        split_robot("shovel")
    for name, task in (("sim:juggling", None), ("sim-server", "juggling")):
        with pytest.raises(RobotError, match="unknown task 'juggling' for robot 'sim"):
            split_robot(name, task)
    with pytest.raises(RobotError, match="lives by its own clock"):
        make_robot(RunConfig(robot="sim-server", clock="lockstep", robot_address="127.0.0.1:5601", **config))
    stranger: Any = object()
    with pytest.raises(RobotError, match="no cameras are known for robot 'sim'"):
        make_cameras(RunConfig(**config), stranger)
