"""What happens to the bridge around its loop: its I/O thread, clients that are refused while it starts, what it notes of its station."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from msgspec import structs

from takeover.data import audit
from takeover.data.schema import Mode, RobotSpec, Role
from takeover.robot_bridge.control_base import FAULTS_TO_OFFLINE
from takeover.robot_bridge.modes import ModeEvent
from takeover.robot_bridge.protocol import Endpoints, KeyFolder
from takeover.robot_bridge.protocol.link import Gatekeeper, Link, secure_client
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.sight import nobody_sees

from .by_hand import ByHand, by_hand
from .station import eventually


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[ByHand]:
    with by_hand(tmp_path) as made:
        yield made


def test_the_io_thread_outlives_a_robot_that_cannot_be_stopped(hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it no STOP would be heard any more."""
    steps: list[float] = []
    stops: list[int] = []

    def pump(timeout_s: float) -> None:
        steps.append(timeout_s)
        if len(steps) <= 2:
            raise OSError("a socket is gone")
        threading.Event().wait(0.01)

    def stop() -> None:
        stops.append(1)
        raise OSError("cable pulled")

    monkeypatch.setattr(hand.io, "pump", pump)
    with monkeypatch.context() as patch:
        patch.setattr(hand.robot, "stop", stop)
        thread = threading.Thread(target=hand.bridge._run_io, daemon=True)
        thread.start()
        assert eventually(lambda: len(steps) > 10), "it goes on"
        assert thread.is_alive()
        hand.bridge._io_stop.set()
        thread.join(5.0)
    assert len(stops) == 2
    assert hand.io.inbox.stop_reason == "the bridge's I/O failed; see its log"


def test_the_loop_outlives_a_robot_that_cannot_be_stopped(hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError("cable pulled")

    with monkeypatch.context() as patch:
        patch.setattr(hand.robot, "stop", fails)
        patch.setattr(hand.robot, "read", fails)
        hand.tick(FAULTS_TO_OFFLINE)
        assert hand.mode is Mode.OFFLINE
        hand.control.change(ModeEvent.CONNECT)
        hand.io.inbox.stop_reason = "asked for"
        hand.tick()
        assert hand.mode is Mode.STOPPED


def test_somebody_may_be_refused_while_the_bridge_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gatekeeper listens before the bridge has sockets: noted, and no error for the authenticator's thread."""
    monkeypatch.setattr(Endpoints, "listen", lambda self, on_refused: on_refused("command", "a stranger"))
    with by_hand(tmp_path) as hand:
        (noted,) = [entry for entry in audit.entries(tmp_path) if entry["what"] == "client_refused"]
        assert noted["who"] == "key a stranger"
        assert hand.io.refused_connections == 0, "there was nobody to count it"
        hand.bridge._client_refused("command", "a stranger")
        assert hand.io.refused_connections == 1


@pytest.mark.timeout(20)  # without its thread the authenticator cannot even be closed
def test_a_refusal_that_cannot_be_told_keeps_nobody_else_out(tmp_path: Path) -> None:
    """An error in the authenticator's thread would end it, and with it every later handshake."""
    told: list[str] = []

    def fails(stream: str, public_key: str) -> None:
        told.append(stream)
        raise AttributeError("no record yet")

    here, desks = KeyFolder(tmp_path / "here"), [KeyFolder(tmp_path / name) for name in ("stranger", "desk")]
    here.new("bridge")
    (tmp_path / "bridge.json").write_text(here.card())
    for desk in desks:
        desk.new(desk.path.name)
        desk.trust(tmp_path / "bridge.json")
    (tmp_path / "desk.json").write_text(desks[1].card())
    here.allow(tmp_path / "desk.json", [Role.OPERATOR])
    keeper = Gatekeeper(Link("127.0.0.1", 20000, True, here), fails)
    with contextlib.closing(keeper), zmq.Context.instance().socket(zmq.ROUTER) as server:
        assert not keeper.admit("control", "a stranger")
        keeper.guard(server, "control")
        port = server.bind_to_random_port("tcp://127.0.0.1")
        heard = []
        for desk in desks:
            with zmq.Context.instance().socket(zmq.DEALER) as client:
                client.linger = 0
                secure_client(client, Link("127.0.0.1", port, False, desk))
                client.connect(f"tcp://127.0.0.1:{port}")
                with contextlib.suppress(zmq.Again):  # refused already: there is no connection to send on
                    client.send(desk.path.name.encode(), zmq.NOBLOCK)
                if server.poll(1000 if desk is desks[0] else 5000):
                    heard.append(server.recv_multipart()[-1])
    assert set(told) == {"control"}
    assert heard == [b"desk"]


def test_the_audit_log_says_when_people_are_said_to_see_the_robot_and_when_no_more(tmp_path: Path) -> None:
    for said in ("auto", "yes", "yes", "no", "auto"):
        with by_hand(tmp_path, line_of_sight=said):
            pass
    noted = [
        (entry["who"], entry["before"], entry["said"]) for entry in audit.entries(tmp_path) if entry["what"] == "line_of_sight_changed"
    ]
    assert noted == [("bridge", "auto", "yes"), ("bridge", "yes", "no"), ("bridge", "no", "auto")]


class Real(SimRobot):
    """Calls itself real."""

    @property
    def spec(self) -> RobotSpec:
        return structs.replace(super().spec, simulated=False)


@pytest.mark.parametrize("said", ["auto", "no", "yes"])
def test_a_real_robot_that_nobody_sees_is_not_started(tmp_path: Path, said: str) -> None:
    """Without a camera there are no pictures that could be missing: nothing else would ever hold who drives blind."""
    if said == "yes":
        with by_hand(tmp_path, robot=Real("peg-insert"), line_of_sight=said) as hand:
            assert not hand.control.spec.simulated
        return
    with pytest.raises(ValueError, match=r'line_of_sight: robot .* is real and has no camera.* set line_of_sight = "yes" in station.toml'):
        ByHand(tmp_path, Real("peg-insert"), line_of_sight=said)
    with by_hand(tmp_path / "simulated", line_of_sight=said):
        pass


def test_a_real_robot_does_not_run_in_lockstep(tmp_path: Path) -> None:
    """There nobody need be present, and no command is too old."""
    with pytest.raises(ValueError, match="robot sim is real: it runs in real time"):
        ByHand(tmp_path, Real("peg-insert"), clock="lockstep", line_of_sight="yes")


@pytest.mark.parametrize("names", [[], ["front"]])
def test_a_real_robot_with_a_camera_needs_nobody_beside_it(hand: ByHand, names: list[str]) -> None:
    spec = structs.replace(hand.robot.spec, simulated=False)
    assert nobody_sees(hand.config, spec, names) is not bool(names)
    assert not nobody_sees(hand.config, hand.robot.spec, names)
