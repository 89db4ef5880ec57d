"""The bridge over TCP: nobody without an admitted key, nobody beyond the roles of its key, nothing in the clear."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from takeover.data import audit
from takeover.data.schema import (
    AnyRecord,
    Clear,
    Command,
    EpisodeKind,
    Event,
    Fault,
    Finish,
    Hello,
    Lease,
    Mode,
    Observation,
    PolicyAction,
    RecorderHello,
    RecorderMessage,
    Role,
    RunConfig,
    SpeedScale,
    Start,
    State,
    Stop,
)
from takeover.robot_bridge.bridge import Bridge
from takeover.robot_bridge.protocol import (
    ControlClient,
    Dealer,
    EndpointError,
    Endpoints,
    KeyFolder,
    KeyProblem,
    KeyRefused,
    Pull,
    Push,
    Subscriber,
)
from takeover.robot_bridge.protocol.link import Link, LinkProblem, parse, port_offset
from takeover.robot_bridge.robots.sim import SimRobot
from tests.introduced import unused_port

from .station import Actor, Operator, Recorder, Station, eventually


class Network:
    """A bridge that listens on loopback, and clients with keys of their own."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.bridge_keys = KeyFolder(folder / "bridge-keys")
        self.bridge_keys.new("bridge")
        self.card = folder / "bridge.json"
        self.card.write_text(self.bridge_keys.card())
        self.address = f"tcp://127.0.0.1:{port}"
        self.station = Station(folder / "w", listen=self.address, keys=str(self.bridge_keys.path), sockets=str(folder / "s"), link=False)

    def client(self, name: str, *roles: Role, trust: Path | None = None) -> Endpoints:
        """Endpoints of another computer whose key the bridge admits with ``roles`` (none: does not admit)."""
        keys = KeyFolder(self.folder / f"keys-{name}")
        if not keys.own_names():
            keys.new(name)
            keys.trust(trust or self.card)
        card = self.folder / f"{name}.json"
        card.write_text(keys.card())
        if roles:
            self.bridge_keys.allow(card, list(roles))
            time.sleep(0.3)
        return Endpoints(self.folder / f"s-{name}", Link("127.0.0.1", self.port, False, keys))


@pytest.fixture
def network(tmp_path: Path, free_port: int) -> Iterator[Network]:
    made = Network(tmp_path, free_port)
    yield made
    made.station.close()


@pytest.fixture
def free_port() -> int:
    return unused_port()


def test_an_admitted_operator_drives_and_others_see_nothing(network: Network) -> None:
    inside = network.client("alice", Role.OPERATOR, Role.LEARNER)
    operator = Operator(inside)
    assert operator.take_lease().error == ""
    assert eventually(lambda: operator.state is not None and operator.state.commander == "console")
    outside = network.client("mallory")
    with Subscriber[State](outside, "state", State) as states, Push[Command](outside, "command", Command) as commands:
        assert states.receive(1.0) is None
        assert not commands.send(operator.command(), 0.5), "no connection, so nothing to send to"
    client = ControlClient(outside, "mallory", Role.OPERATOR)
    with pytest.raises(KeyRefused, match="does not admit this key"):
        client.hello("test", 1.5)
    client.close()
    state = operator.state
    assert state is not None
    assert state.refused_connections >= 3
    operator.close()


def test_without_curve_nothing_comes_through(network: Network) -> None:
    with zmq.Context.instance().socket(zmq.SUB) as plain:
        plain.subscribe(b"")
        plain.connect(f"tcp://127.0.0.1:{network.port + port_offset('state')}")
        assert not plain.poll(700)
    public, secret = zmq.curve_keypair()
    with zmq.Context.instance().socket(zmq.SUB) as stranger:  # CURVE alone would admit any key
        stranger.curve_publickey, stranger.curve_secretkey = public, secret
        stranger.curve_serverkey = network.bridge_keys.own().public_key.encode()
        stranger.subscribe(b"")
        stranger.connect(f"tcp://127.0.0.1:{network.port + port_offset('state')}")
        assert not stranger.poll(700)


def test_a_bridge_with_another_key_is_not_believed(network: Network, tmp_path: Path) -> None:
    other = KeyFolder(tmp_path / "other")
    other.new("bridge")
    card = tmp_path / "other.json"
    card.write_text(other.card())
    client = ControlClient(network.client("bob", Role.OPERATOR, trust=card), "bob", Role.OPERATOR)
    with pytest.raises(TimeoutError):
        client.hello("test", 1.0)
    client.close()


@pytest.mark.parametrize(
    ("role", "stream", "may"),
    [
        (Role.OBSERVER, "command", False),
        (Role.LEARNER, "command", False),
        (Role.OPERATOR, "command", True),
        (Role.OPERATOR, "policy_action", False),
        (Role.LEARNER, "policy_action", True),
        (Role.LABELER, "event", True),
        (Role.OBSERVER, "event", False),
    ],
)
def test_a_stream_admits_its_roles_only(network: Network, role: Role, stream: str, may: bool) -> None:
    kinds: dict[str, Any] = {"command": Command, "policy_action": PolicyAction, "event": PolicyAction}
    with Push[Any](network.client("someone", role), stream, kinds[stream]) as push:
        assert bool(push.socket.poll(1500 if may else 500, zmq.POLLOUT)) == may


def test_the_role_is_bound_to_the_key_and_anyone_admitted_may_stop(network: Network) -> None:
    endpoints = network.client("viewer", Role.OBSERVER)
    client = ControlClient(endpoints, "viewer", Role.OPERATOR)
    assert "role operator is not granted to viewer; granted: observer" in client.hello("test", 5.0).error
    assert client.ask(Lease(sender="viewer"), 5.0).error == "say hello first"
    reply = client.ask(Hello(protocol=1, sender="viewer", role=Role.OBSERVER, software="test"), 5.0)
    assert reply.error == ""
    assert "may not command" in client.ask(Lease(sender="viewer"), 5.0).error
    with Subscriber[State](endpoints, "state", State) as states, Subscriber[Observation](endpoints, "observation", Observation) as seen:
        assert states.receive(3.0) is not None
        assert seen.receive(0.7) is None, "an observer sees pictures and state, not what the policy sees"
        assert client.ask(Stop(sender="viewer", reason="smoke"), 5.0).error == ""
        assert eventually(lambda: (state := states.receive(1.0)) is not None and state.mode is Mode.STOPPED)
    client.close()


def test_what_a_key_does_is_recorded_under_its_name(network: Network) -> None:
    """Whatever a client calls itself: its key says who it is, in events, in the audit log and as the author of a STOP."""
    recorder = Recorder(network.client("tape", Role.LEARNER))
    try:
        alice = Operator(network.client("alice", Role.OPERATOR))
        assert eventually(lambda: alice.state is not None)
        assert alice.ask(SpeedScale(sender="console", scale=0.5)).error == ""
        assert alice.ask(Stop(sender="boss", reason="smoke")).error == ""
        assert eventually(lambda: alice.state is not None and alice.state.mode is Mode.STOPPED)
        assert eventually(lambda: alice.ask(Clear(sender="console")).error == "")
        with Push[Event](network.client("alice", Role.OPERATOR), "event", Event) as notes:
            note = Event(session="", rec_seq=-1, kind="stop_cleared", text="boss", t_ns=0, wall_ns=0, source="bridge")
            assert notes.send(note, 3.0)
            assert eventually(lambda: len([event for event in recorder.events if event.kind == "stop_cleared"]) == 2)
        said = {(event.kind, event.source, event.text) for event in recorder.events}
        assert said >= {
            ("speed_scale", "bridge", "alice/console"),
            ("stop", "bridge", "alice/console: smoke"),
            ("stop_cleared", "bridge", "alice/console"),
            ("stop_cleared", "alice/bridge", "boss"),
        }
        cleared = [entry for entry in audit.entries(network.folder / "w") if entry["what"] == "stop_cleared"]
        assert [entry["who"] for entry in cleared] == ["alice/console"]
        alice.close()
    finally:
        recorder.peer.stop()


def test_a_lease_is_of_the_key_that_it_was_granted_to(network: Network) -> None:
    alice = Operator(network.client("alice", Role.OPERATOR))
    assert alice.take_lease().error == ""
    assert eventually(lambda: alice.state is not None and alice.state.command_age_ms >= 0)
    alice.sending = False
    with Push[Command](network.client("bob", Role.OPERATOR), "command", Command) as commands:
        assert commands.socket.poll(3000, zmq.POLLOUT)
        assert alice.take_lease().error == ""
        before = network.station.bridge.io.refused_commands
        assert commands.send(alice.command(device_id="stolen"), 1.0)
        assert eventually(lambda: network.station.bridge.io.refused_commands > before)
    received = network.station.bridge.io.inbox.command
    assert received is None or received.command.device_id != "stolen"
    alice.close()


def test_nobody_elsewhere_starts_or_ends_blocks_while_another_key_commands(network: Network) -> None:
    recorder = Recorder(network.client("tape", Role.LEARNER))
    inside = network.client("alice", Role.OPERATOR)
    alice = Operator(inside)
    assert alice.take_lease().error == ""
    assert eventually(lambda: alice.state is not None and alice.state.commander == "console")
    bob = Operator(network.client("bob", Role.OPERATOR), "bob")
    assert eventually(lambda: bob.state is not None)
    start = {"kind": EpisodeKind.DEMONSTRATION, "episodes": 1}
    for request in (Start(sender="bob", **start), Finish(sender="bob", now=True), Fault(sender="bob", name="camera_freeze")):
        assert bob.ask(request).error == "console holds the lease"
    supervisor = Operator(inside, "supervisor")  # of the same station: its key, another connection
    assert eventually(lambda: supervisor.state is not None)
    assert supervisor.ask(Start(sender="supervisor", **start)).error == ""
    assert eventually(lambda: alice.state is not None and alice.state.block_running)
    assert bob.ask(Finish(sender="bob", now=True)).error == "console holds the lease"
    assert supervisor.ask(Finish(sender="supervisor", now=True)).error == ""
    assert eventually(lambda: alice.state is not None and not alice.state.block_running)
    alice.sending = False
    assert eventually(lambda: bob.state is not None and not bob.state.commander and not bob.state.block_running)
    assert bob.ask(Start(sender="bob", **start)).error == "", "nobody commands"
    script = Operator(inside, "script", kind="scripted")
    assert eventually(lambda: script.take_lease().error == "")
    assert eventually(lambda: bob.state is not None and bob.state.commander == "script")
    assert bob.ask(Finish(sender="bob", now=True)).error == "", "a script gives way"
    for each in (alice, bob, supervisor, script):
        each.close()
    recorder.peer.stop()


def test_a_revoked_key_is_refused_while_it_is_connected(network: Network) -> None:
    operator = Operator(network.client("alice", Role.OPERATOR, Role.LEARNER))
    assert operator.take_lease().error == ""
    assert eventually(lambda: operator.state is not None and operator.state.command_age_ms >= 0)
    network.bridge_keys.revoke("alice")
    time.sleep(0.4)
    with pytest.raises(TimeoutError):
        operator.client.ask(Lease(sender="console"), 1.0)
    io = network.station.bridge.io
    assert eventually(lambda: io.lease.holder(time.monotonic_ns()) == ""), "its commands count no more"
    counted = io.refused_connections
    assert eventually(lambda: io.refused_connections > counted + 3), "each of them is counted"
    assert io.refusals.last.endswith("its key is not admitted to that stream")
    operator.close()


def test_a_revoked_key_sees_nothing_more_and_the_others_go_on(network: Network) -> None:
    gone, stays = network.client("alice", Role.OBSERVER), network.client("bob", Role.OBSERVER)
    with Subscriber[State](gone, "state", State) as hers, Subscriber[State](stays, "state", State) as his:
        assert hers.receive(3.0) is not None
        assert his.receive(3.0) is not None
        network.bridge_keys.revoke("alice")
        time.sleep(0.6)
        hers.receive(0.0)  # the last one that reached her
        assert hers.receive(0.7) is None
        assert his.receive(3.0) is not None
        assert his.receive(0.5) is not None
        network.bridge_keys.allow(network.folder / "alice.json", [Role.OBSERVER])
        time.sleep(0.3)
    with Subscriber[State](gone, "state", State) as again:
        assert again.receive(3.0) is not None, "admitted again"


def test_a_revoked_recorder_is_sent_no_more_records(network: Network) -> None:
    endpoints = network.client("disk", Role.LEARNER)
    io = network.station.bridge.io
    with Dealer[Any, Any](endpoints, "record", RecorderMessage, AnyRecord) as recorder:
        assert eventually(lambda: recorder.send(RecorderHello(session="test", acked_rec_seq=-1)) and recorder.receive(0.2) is not None)
        network.bridge_keys.revoke("disk")
        time.sleep(0.4)
        while recorder.receive(0.0) is not None:
            pass
        io.event("secret", "not for everybody")
        assert recorder.receive(0.7) is None
        assert io.records.backlog > 0, "kept for the next recorder"


def test_the_record_of_a_session_is_of_the_key_that_first_has_some_of_it_on_disk(network: Network) -> None:
    """Two desks: an episode whose parts are in two workspaces would be one in neither."""
    one, other = network.client("desk-a", Role.LEARNER), network.client("desk-b", Role.LEARNER)
    io = network.station.bridge.io
    watching = Dealer[Any, Any](other, "record", RecorderMessage, AnyRecord)
    assert eventually(lambda: watching.send(RecorderHello(session="", acked_rec_seq=-1)) and watching.receive(0.2) is not None)
    heard = io.records.heard_ns
    assert eventually(lambda: watching.send(RecorderHello(session=io.session, acked_rec_seq=-1)) and io.records.heard_ns > heard)
    assert io._record_key is None, "who only asks has nothing yet"
    watching.close()
    first = Recorder(one)
    assert eventually(lambda: bool(first.records) and io.records.backlog == 0)
    first.acknowledge = False
    second = Recorder(other)
    try:
        assert eventually(lambda: "recorder silent for" in io.records.trouble(time.monotonic_ns()), 2.0)
        refused, io.records.heard_ns = io.refused_commands, io.records.heard_ns - 60_000_000_000
        assert eventually(lambda: io.refused_commands > refused + 1, 2.0)
        assert not second.received, "however long the first is silent"
        assert io.records.trouble(time.monotonic_ns()).startswith("desk-a/recorder silent for 6")
        who = "desk-a/recorder has the record of this session: start that recorder again, or restart the bridge"
        assert io.refusals.last == f"desk-b/recorder: record: {who}"
        first.peer.stop()
        first = Recorder(one)
        assert eventually(lambda: not io.records.trouble(time.monotonic_ns())), "the same desk's, started again"
        io.event("later")
        assert eventually(lambda: first.received > 0)
        assert not second.received
    finally:
        first.peer.stop()
        second.peer.stop()


def test_one_desks_actor_drives(network: Network) -> None:
    """Every desk with the role for it runs one."""
    io = network.station.bridge.io
    first = Actor(network.client("desk-a", Role.LEARNER), lambda _: [0.4, 0.0, 0.0, 0.0])
    assert eventually(lambda: io.inbox.chunk is not None)
    second = Actor(network.client("desk-b", Role.LEARNER), lambda _: [-0.4, 0.0, 0.0, 0.0])
    try:
        assert eventually(lambda: "desk-b/actor: answer: desk-a/actor answers; " in io.refusals.last)
        policy = io.inbox.policy
        assert policy is not None
        assert policy.actions[0][0] == 0.4
    finally:
        first.peer.stop()
        second.peer.stop()


def test_tcp_without_keys_is_refused_in_one_line(tmp_path: Path) -> None:
    config = RunConfig(session_id="t", workspace=str(tmp_path), sockets=str(tmp_path / "s"), listen="tcp://127.0.0.1:17000", cameras=False)
    with pytest.raises(EndpointError, match="takeover keys new NAME"):
        Bridge(msgspec.structs.replace(config, keys=str(tmp_path / "none")), SimRobot(), None)
    with pytest.raises(EndpointError, match="without keys"):
        Pull(Endpoints(tmp_path, Link("127.0.0.1", 17000, True, KeyFolder(tmp_path))), "command", Command)


@pytest.mark.parametrize("address", ["udp://h:5600", "tcp://h", "tcp://h:80", "tcp://h:65500", "tcp://h:x", "h:5600", "tcp://*:5600", ""])
def test_addresses_that_cannot_be(address: str) -> None:
    with pytest.raises(LinkProblem):
        parse(address, listens=False)


def test_every_stream_has_a_port_of_its_own() -> None:
    names = ["state", "observation", "privileged", "policy_action", "command", "control", "event", "record", "camera/front", "camera/wrist"]
    offsets = [port_offset(name) for name in names]
    assert offsets[:8] == list(range(8)), "written in docs/protocol.md: never renumber"
    assert len(set(offsets)) == len(offsets)
    assert all(0 <= offset < 128 for offset in offsets)


def test_cameras_whose_names_lead_to_one_port_are_named(tmp_path: Path) -> None:
    listening = Endpoints(tmp_path, Link("127.0.0.1", 5600, True, KeyFolder(tmp_path / "keys")))
    listening.check_cameras(["front", "wrist", "cam17"])
    with pytest.raises(EndpointError, match=r"'cam17' and 'cam20' lead to the same port \(\+126\); rename"):
        listening.check_cameras(["cam17", "front", "cam20"])
    Endpoints(tmp_path).check_cameras(["cam17", "cam20"])  # on one computer every stream is a file


def test_key_files(tmp_path: Path) -> None:
    keys = KeyFolder(tmp_path / "k")
    with pytest.raises(KeyProblem, match="takeover keys new NAME"):
        keys.own()
    key = keys.new("a")
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "k/own/a.json").stat().st_mode & 0o777 == 0o600
    assert key.secret_key not in keys.card()
    with pytest.raises(KeyProblem, match="never overwritten"):
        keys.new("a")
    for bad in ("", "A", "a/b", "../a", "a" * 65, "a b"):
        with pytest.raises(KeyProblem, match="name"):
            keys.new(bad)
    keys.new("b")
    with pytest.raises(KeyProblem, match="several"):
        keys.own()
    card = tmp_path / "a.json"
    card.write_text(keys.card("a"))
    with pytest.raises(KeyProblem, match="which role"):
        keys.allow(card, [])
    keys.allow(card, [Role.OPERATOR])
    with pytest.raises(KeyProblem, match="admitted already, as a"):
        keys.allow(card, [Role.LABELER], "other")
    assert {client.name: set(client.roles) for client in keys.allowed().values()} == {"a": {Role.OPERATOR}}
    with pytest.raises(KeyProblem, match="admitted: a"):
        keys.revoke("nobody")
    keys.revoke("a")
    assert keys.allowed() == {}
    (tmp_path / "k/own/a.json").chmod(0o644)
    with pytest.raises(KeyProblem, match="chmod go-rwx"):
        keys.own("a")
    card.write_text('{"name": "a", "public_key": "short"}')
    with pytest.raises(KeyProblem, match="40 characters"):
        keys.allow(card, [Role.OPERATOR])
    card.write_text("{")
    with pytest.raises(KeyProblem, match="not a key file"):
        keys.allow(card, [Role.OPERATOR])
    (tmp_path / "k/allowed.json").write_text("[]")
    with pytest.raises(KeyProblem, match="not a key file"):
        keys.allowed()


def test_the_audit_log_is_appended_to_and_survives_a_torn_line(tmp_path: Path) -> None:
    assert audit.note_limits(tmp_path, "bridge", {"a": 1.0}) == {}
    assert audit.note_limits(tmp_path, "bridge", {"a": 1.0}) == {}
    assert audit.note_limits(tmp_path, "bridge", {"a": 2.0}) == {"a": (1.0, 2.0)}
    with open(tmp_path / audit.FILE, "a") as out:
        out.write('{"half": ')
    audit.append(tmp_path, "console", "stop_cleared")
    audit.append(tmp_path, "console", "too_long", text="x" * 100_000)
    assert [entry["what"] for entry in audit.entries(tmp_path)] == [
        "limits_changed",
        "limits_changed",
        "unreadable",
        "stop_cleared",
        "too_long",
    ]
    assert (tmp_path / audit.FILE).stat().st_mode & 0o777 == 0o600
