"""Row 33, and a whole station whose bridge is another process behind an address: every message crosses CURVE over TCP."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from takeover.app.launcher import Launcher
from takeover.data.catalog import Catalog
from takeover.data.schema import Command, EpisodeKind, Finish, Mode, Outcome, RunConfig, SetOutcome, Start, State, Stop
from takeover.robot_bridge.protocol import ControlClient, Endpoints, KeyRefused, Push, Subscriber
from takeover.robot_bridge.protocol.link import port_offset
from tests.robot_bridge.station import Operator, eventually
from tests.robot_bridge.test_security import free_port

from .network import BridgeProcess, takeover

Bound = Callable[[float, float, str], None]
__all__ = ["free_port"]


@pytest.fixture
def bridge(tmp_path: Path, free_port: int) -> Iterator[BridgeProcess]:
    made = BridgeProcess(tmp_path, free_port)
    yield made
    made.close()


def test_row_33_unknown_client_and_wrong_key(bridge: BridgeProcess, bound: Bound) -> None:
    """A key that nobody admitted, CURVE with a fresh key, and no CURVE at all: STOPs and commands, of which none arrives."""
    inside = bridge.desk("inside", "operator")
    bridge.wait(inside)
    unknown = bridge.endpoints(bridge.desk("unknown"))
    operator = Operator(bridge.endpoints(inside))
    operator.take_lease()
    client = ControlClient(unknown, "unknown")
    with Push[Command](unknown, "command", Command) as commands:
        for _ in range(20):
            client.send(Stop(sender="unknown"))
            commands.send(operator.command(deadman=True))
            time.sleep(0.02)
    with pytest.raises(KeyRefused, match="does not admit this key"):
        client.ask(Stop(sender="unknown"), 1.0)
    client.close()
    for keys in (None, zmq.curve_keypair()):
        with zmq.Context.instance().socket(zmq.DEALER) as socket:
            socket.linger = 0
            if keys is not None:
                socket.curve_publickey, socket.curve_secretkey = keys
                socket.curve_serverkey = operator_key(bridge)
            socket.connect(f"tcp://127.0.0.2:{bridge.port + port_offset('control')}")
            for _ in range(20):
                with contextlib.suppress(zmq.Again):  # no connection, so nowhere to send to
                    socket.send(b"control\0\x82\xaarequest_id\x01\xa7request\x82\xa4type\xa4stop\xa6sender\xa1x", zmq.NOBLOCK)
                time.sleep(0.02)
            assert not socket.poll(500)
    state = operator.state
    assert state is not None
    assert state.refused_connections >= 2
    bound(float(state.mode is Mode.STOPPED) + float(state.refused_commands), 0.0, "messages delivered")
    operator.close()


def operator_key(bridge: BridgeProcess) -> bytes:
    return str(json.loads(bridge.card.read_text())["public_key"]).encode()


def test_a_station_on_two_computers_records_on_the_one_without_the_robot(bridge: BridgeProcess, tmp_path: Path) -> None:
    desk = bridge.desk("desk", "operator", "learner")
    bridge.wait(desk)
    config = RunConfig(
        session_id="desk",
        workspace=str(desk),
        sockets=str(tmp_path / "d"),
        connect=bridge.address,
        keys=str(desk / "keys"),
        learner="none",
        operator="none",
    )
    with Launcher(config, ["bridge", "recorder"]) as launcher:
        launcher.wait_ready(30)
        assert set(launcher.pids()) == {"recorder"}, "the bridge is not ours to start"
        operator = Operator(Endpoints.of(config))
        assert operator.take_lease().error == ""
        assert eventually(lambda: operator.ask(Start(sender="console", kind=EpisodeKind.DEMONSTRATION, episodes=1)).error == "")
        assert eventually(lambda: operator.state is not None and bool(operator.state.episode_id))
        assert operator.drive([0.0, 0.3, 0.0, 0.0], lambda state: state.human_steps > 20), operator.state
        operator.ask(SetOutcome(sender="console", outcome=Outcome.SUCCESS))
        operator.deadman, operator.action = False, [0.0] * 4
        assert eventually(lambda: operator.state is not None and operator.state.mode is Mode.READY)

        def recorded() -> bool:
            with Catalog.open(desk) as catalog:
                return [row.outcome for row in catalog.episodes()] == ["success"]

        assert eventually(recorded, 15.0)
        operator.close()
    with Catalog.open(desk) as catalog:
        (row,) = catalog.episodes()
    assert (desk / row.path).is_file()
    assert not list(bridge.workspace.rglob("*.hdf5"))


def test_the_bridge_conforms_over_tcp_too(bridge: BridgeProcess, tmp_path: Path) -> None:
    """`takeover bridge check tcp://...` with keys, as somebody would try a bridge on another computer."""
    desk = bridge.desk("desk", "operator", "learner")
    bridge.wait(desk)
    results = tmp_path / "results.json"
    some = ["stop_latches", "silence_holds", "no_motion_before_neutral", "chunk_flushed", "answer_nan_refused", "records_sent_again"]
    command = ["bridge", "check", bridge.address, "--workspace", str(desk), "--drive", "--json", str(results), "--only", *some]
    told = takeover(*command)  # raises when a check failed
    found = {one["name"]: one["status"] for one in json.loads(results.read_text())["checks"]}
    assert set(found.values()) == {"pass"}, told
    assert {*some, "leave_it_ready"} <= set(found)


def test_revoking_a_key_ends_it_and_is_noted(bridge: BridgeProcess) -> None:
    desk = bridge.desk("desk", "operator")
    bridge.wait(desk)
    operator = Operator(bridge.endpoints(desk))
    operator.take_lease()
    takeover("keys", "revoke", "desk", "--workspace", str(bridge.workspace))
    time.sleep(0.5)
    with pytest.raises(TimeoutError):
        operator.client.ask(Finish(sender="console"), 1.0)
    with Subscriber[State](bridge.endpoints(desk), "state", State) as late:
        assert late.receive(1.0) is None, "a new connection is refused"
    operator.close()
    noted = takeover("audit", "--workspace", str(bridge.workspace))
    assert "key_allowed" in noted
    assert "key_revoked" in noted
    assert "limits_changed" in noted
