"""What a link that hangs, breaks and comes back must not do: act on old wishes, lock people out, mix up who is who."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import zmq

from takeover.data import audit
from takeover.data.schema import Clear, Hold, Lease, Mode, Resume, Role, SpeedScale, Start, Stop
from takeover.data.schema.enums import EpisodeKind
from takeover.robot_bridge.protocol import ControlClient, Endpoints, KeyRefused
from takeover.robot_bridge.protocol.link import Link, port_offset

from .station import Operator, Station, eventually
from .test_remote import Remote
from .test_security import Network, free_port

__all__ = ["free_port"]


@pytest.fixture
def remote(tmp_path: Path, free_port: int) -> Iterator[Remote]:
    made = Remote(tmp_path, free_port, cameras=False)
    yield made
    made.close()


@pytest.fixture
def network(tmp_path: Path, free_port: int) -> Iterator[Network]:
    made = Network(tmp_path, free_port)
    yield made
    made.station.close()


def seen(network: Network) -> int:
    """The newest state that somebody who looks has seen."""
    return network.station.bridge.io._state_seq - 1


def bridge_mode(remote: Remote) -> Mode:
    return remote.station.bridge.control.mode.mode


def test_what_was_asked_during_an_outage_is_not_done_after_it(remote: Remote) -> None:
    """Impatient people press Resume and Start while nothing answers; seconds later nobody may be expecting motion."""
    remote.run_policy()
    operator = remote.operator
    remote.proxy.cut = True
    assert eventually(lambda: bridge_mode(remote) is Mode.HOLD)
    seq = remote.state.seq
    asked = 0
    for _ in range(5):
        operator.client.newest_state_seq = remote.state.seq
        operator.client.send(Resume(sender="console"))
        operator.client.send(SpeedScale(sender="console", scale=0.31))
        asked += 2
        time.sleep(0.4)
    assert remote.state.seq - seq < 10, "nothing comes through"
    remote.proxy.cut = False
    assert eventually(lambda: remote.state.seq > seq + 20)
    time.sleep(1.5)
    assert bridge_mode(remote) is Mode.HOLD
    assert remote.state.speed_scale != 0.31
    remote.resume_until(lambda: remote.state.mode is Mode.POLICY)


def test_what_was_asked_without_a_connection_is_forgotten_but_a_stop_is_not(remote: Remote) -> None:
    remote.run_policy()
    operator = remote.operator
    operator.ask(Hold(sender="console"))
    assert eventually(lambda: remote.state.mode is Mode.HOLD)
    remote.proxy.cut = True
    remote.proxy.drop_connections()
    assert eventually(lambda: not operator.client._dealer.writable(0.0))
    operator.client.send(Resume(sender="console"))
    remote.proxy.cut = False
    seq = remote.state.seq
    assert eventually(lambda: remote.state.seq > seq + 50, 15.0)
    assert bridge_mode(remote) is Mode.HOLD
    remote.proxy.cut = True
    remote.proxy.drop_connections()
    assert eventually(lambda: not operator.client._dealer.writable(0.0))
    operator.client.send(Stop(sender="console"))
    remote.proxy.cut = False

    def stopped() -> bool:
        operator.client.poll(0.05)
        return bridge_mode(remote) is Mode.STOPPED

    assert eventually(stopped, 15.0)


def test_a_new_connection_greets_by_itself(remote: Remote) -> None:
    remote.run_policy()
    remote.proxy.drop_connections()
    seq = remote.state.seq
    assert eventually(lambda: remote.state.seq > seq + 20)

    def done() -> bool:
        """The lease is asked for anew, as a console does: it was of the connection that has gone."""
        return not remote.operator.take_lease().error and not remote.operator.ask(SpeedScale(sender="console", scale=0.5)).error

    assert eventually(done)
    assert eventually(lambda: remote.state.speed_scale == 0.5)


def test_without_a_state_in_view_nothing_is_done_but_hold_and_stop(remote: Remote) -> None:
    remote.run_policy()
    client = remote.operator.client
    client.newest_state_seq = -1
    assert "without a recent state" in client.ask(SpeedScale(sender="console", scale=0.5), 5.0).error
    assert client.ask(Hold(sender="console"), 5.0).error == ""
    assert eventually(lambda: bridge_mode(remote) is Mode.HOLD)
    client.newest_state_seq = -1
    assert client.ask(Stop(sender="console"), 5.0).error == ""
    assert eventually(lambda: bridge_mode(remote) is Mode.STOPPED)
    assert "without a recent state" in client.ask(Clear(sender="console"), 5.0).error
    assert remote.operator.ask(Clear(sender="console")).error == ""


def test_a_role_that_was_taken_away_counts_no_more_on_a_connection_made_with_it(network: Network) -> None:
    endpoints = network.client("alice", Role.OPERATOR)
    client = ControlClient(endpoints, "alice", Role.OPERATOR)
    assert client.hello("test", 5.0).error == ""
    client.newest_state_seq = seen(network)
    assert client.ask(SpeedScale(sender="alice", scale=0.5), 5.0).error == ""
    network.bridge_keys.allow(network.folder / "alice.json", [Role.OBSERVER])
    time.sleep(0.4)
    client.newest_state_seq = seen(network)
    assert client.ask(SpeedScale(sender="alice", scale=0.7), 5.0).error == "say hello first"
    assert client.ask(Lease(sender="alice"), 5.0).error == "say hello first"
    assert network.station.bridge.control.speed_scale == 0.5
    client.close()


def test_nobody_inherits_a_connection_by_its_name(network: Network) -> None:
    """A client may name its connection (ROUTING_ID). Another key that takes the name of one that left is nobody yet."""
    clients = []
    for name, role in (("alice", Role.OPERATOR), ("eve", Role.OBSERVER)):
        client = ControlClient.__new__(ControlClient)
        endpoints = network.client(name, role)
        connect = zmq.Socket.connect

        def named(socket: zmq.Socket[bytes], address: str, connect: object = connect) -> object:
            socket.setsockopt(zmq.ROUTING_ID, b"seat-1")
            return connect(socket, address)  # type: ignore[operator]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(zmq.Socket, "connect", named)
            client.__init__(endpoints, name, role)  # type: ignore[misc]
        clients.append(client)
        if role is Role.OPERATOR:
            assert client.hello("test", 5.0).error == ""
            client.close()
            time.sleep(0.3)
    eve = clients[1]
    eve.newest_state_seq = seen(network)
    assert eve.ask(SpeedScale(sender="alice", scale=0.5), 5.0).error == "say hello first"
    assert eve.ask(Start(sender="alice", kind=EpisodeKind.DEMONSTRATION), 5.0).error == "say hello first"
    eve.close()


def test_a_refused_key_is_told_so_and_noted(network: Network) -> None:
    client = ControlClient(network.client("mallory"), "mallory", Role.OPERATOR)
    with pytest.raises(KeyRefused, match="does not admit this key"):
        client.hello("test", 2.0)
    client.close()
    noted = [entry for entry in audit.entries(network.folder / "w") if entry["what"] == "client_refused"]
    assert noted
    assert noted[0]["stream"] == "control"


def test_a_recorded_conversation_says_nothing_when_it_is_played_again(network: Network) -> None:
    """Every byte of an operator's connections, sent once more: with the bridge as it was, and after a restart of it."""
    streams = ("control", "command")
    heard: dict[str, list[bytes]] = {name: [] for name in streams}
    endpoints = network.client("alice", Role.OPERATOR)
    assert endpoints.link is not None
    with ExitStack() as stack:
        taps = {name: stack.enter_context(Tap(network.port + port_offset(name))) for name in streams}
        base = endpoints.link.port
        tapped = {network.port + port_offset(name): tap.port for name, tap in taps.items()}

        class Tapped(Link):
            def address(self, name: str) -> str:
                port = base + port_offset(name)
                return f"tcp://{self.host}:{tapped.get(port, port)}"

        link = endpoints.link
        operator = Operator(Endpoints(endpoints.folder, Tapped(link.host, link.port, False, link.keys, link.own, link.bridge)))
        assert operator.take_lease().error == ""
        assert eventually(lambda: operator.ask(SpeedScale(sender="console", scale=0.6)).error == "")
        assert operator.ask(Stop(sender="console")).error == ""
        assert eventually(lambda: operator.state is not None and operator.state.mode is Mode.STOPPED)
        assert eventually(lambda: operator.ask(Clear(sender="console")).error == "")
        assert operator.ask(SpeedScale(sender="console", scale=0.4)).error == ""
        operator.close()
        for name, tap in taps.items():
            heard[name] = [bytes(data) for data in tap.sent]
    assert all(sum(len(data) for data in heard[name]) > 1000 for name in streams)
    for restarted in (False, True):
        if restarted:
            network.station.close()
            network.station = Station(network.folder / "w", link=False, **network_config(network))
        control, io = network.station.bridge.control, network.station.bridge.io
        assert eventually(lambda control=control: control.mode.mode is Mode.READY)
        scale, refused = control.speed_scale, io.refused_commands
        for name, conversations in heard.items():
            for data in conversations:
                with socket.create_connection(("127.0.0.1", network.port + port_offset(name)), timeout=2.0) as again:
                    again.settimeout(0.3)
                    try:
                        again.sendall(data)
                        while again.recv(65536):
                            pass
                    except OSError:
                        pass  # cut off, or nothing more to say
        time.sleep(0.5)
        assert control.mode.mode is Mode.READY
        assert control.speed_scale == scale
        assert io.refused_commands == refused, "nothing even reaches the checks"
        assert not io.lease.holder(time.monotonic_ns())


def network_config(network: Network) -> dict[str, str]:
    return {"listen": network.address, "keys": str(network.bridge_keys.path), "sockets": str(network.folder / "s")}


class Tap:
    """Forwards connections to a port of this computer and keeps what the clients send."""

    def __init__(self, target: int) -> None:
        self.sent: list[bytearray] = []
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return  # closed, or the bridge has gone
            self.sent.append(bytearray())
            threading.Thread(target=self._copy, args=(client, server, self.sent[-1]), daemon=True).start()
            threading.Thread(target=self._copy, args=(server, client, bytearray()), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
        try:
            while data := source.recv(65536):
                kept += data
                sink.sendall(data)
        except OSError:
            pass  # one side has gone
        for item in (source, sink):
            item.close()

    def __enter__(self) -> "Tap":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
