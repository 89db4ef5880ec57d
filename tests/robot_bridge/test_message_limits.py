"""Messages, addresses, keys: what is too large, malformed or of a stranger is refused."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from takeover.data.schema import Command, Role, RunConfig
from takeover.robot_bridge.protocol import Endpoints, Pull, Push
from takeover.robot_bridge.protocol.codec import BadMessage, Codec
from takeover.robot_bridge.protocol.keys import MAX_FILE_BYTES, RELOAD_S, AllowList, KeyFolder, KeyProblem
from takeover.robot_bridge.protocol.link import Gatekeeper, Link, LinkProblem, _Provider, parse
from takeover.robot_bridge.protocol.topics import topic

from .specs import command


def test_a_message_has_a_size_a_shape_and_a_depth() -> None:
    codec: Codec[Command] = Codec(Command, 1000)
    good = codec.encode(command())
    assert codec.decode(good) == command()
    with pytest.raises(BadMessage, match="the limit is 1000"):
        codec.decode(codec.encode(command(device_id="x" * 1000)))
    for junk in (b"", b"\xc1", good[:-1], b"\x91" * 900, b"\x80", b"\xa2\xff\xff", good.replace(b"neutral", b"neutrel")):
        with pytest.raises(BadMessage):
            codec.decode(junk)
    with pytest.raises(BadMessage, match="utf-8"):
        codec.decode(good.replace(b"pad", b"\xff\xfe\xfd"))
    with pytest.raises(BadMessage, match="recursion"):
        Codec[Any](Any).decode(b"\x91" * 5000)


def padded(size: int) -> Command:
    """A command whose message on its stream has ``size`` bytes."""
    codec, length = Codec[Command](Command), size
    for _ in range(3):  # a longer text may need a longer header
        length += size - len(b"command\0" + codec.encode(command(device_id="x" * length)))
    return command(device_id="x" * length)


def test_what_is_too_large_for_its_stream_is_refused_and_counted(tmp_path: Path) -> None:
    endpoints, told = Endpoints(tmp_path / "s"), []
    endpoints.prepare()
    limit = topic("command").max_bytes
    with Pull[Any](endpoints, "command", Command) as pull, Push[Any](endpoints, "command", Command) as push:
        pull.on_bad = lambda error, peer: told.append(str(error))
        assert push.send(padded(limit), 2.0)
        assert pull.receive(2.0) is not None, "the limit itself is allowed"
        for size in (limit + 1, 2 * limit):
            assert push.send(padded(size), 2.0)
            assert push.send(command(), 2.0)
            assert pull.receive(2.0) is not None, "its sender is not disconnected"
            assert told[-1] == f"message of {size} bytes; the limit is {limit}"
        assert pull.bad_messages == 2


def test_what_is_more_than_twice_too_large_does_not_arrive(tmp_path: Path) -> None:
    endpoints = Endpoints(tmp_path / "s")
    endpoints.prepare()
    with Pull[Any](endpoints, "command", Command) as pull, Push[Any](endpoints, "command", Command) as push:
        assert push.send(padded(2 * topic("command").max_bytes + 1), 2.0)
        assert pull.receive(0.3) is None
        assert pull.bad_messages == 0, "refused before it was read"
        assert push.send(command(), 2.0)
        assert pull.receive(2.0) is not None


def test_a_receiver_that_does_not_read_fills_its_queue_only(tmp_path: Path) -> None:
    endpoints = Endpoints(tmp_path / "s")
    endpoints.prepare()
    with Pull[Any](endpoints, "command", Command) as pull, Push[Any](endpoints, "command", Command) as push:
        assert push.send(command(), 2.0)
        sent = sum(push.send(command()) for _ in range(5000))
        assert sent < 1000, "the rest is dropped, not kept"
        assert pull.receive(1.0) is not None


@pytest.mark.parametrize(
    "address", ["udp://h:5600", "tcp://h", "tcp://h:80", "tcp://h:1023", "tcp://h:65408", "tcp://h:x", "h:5600", "tcp://a b:5600", ""]
)
def test_addresses_that_cannot_be(address: str) -> None:
    for listens in (True, False):
        with pytest.raises(LinkProblem, match=r"expected tcp://|base port must be"):
            parse(address, listens=listens)


def test_all_interfaces_are_for_those_who_listen() -> None:
    assert parse("tcp://*:5600", listens=True) == ("*", 5600)
    with pytest.raises(LinkProblem):
        parse("tcp://*:5600", listens=False)
    assert parse("tcp://h:65407", listens=False) == ("h", 65407)


def test_a_bridge_does_not_listen_and_connect() -> None:
    config = RunConfig(session_id="t", workspace="/", sockets="/", listen="tcp://*:5600", connect="tcp://h:5600")
    with pytest.raises(LinkProblem, match="not both"):
        Link.of(config)


# --- keys ---


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    made = KeyFolder(tmp_path / "k")
    made.new("own")
    return made


def admitted(keys: KeyFolder, name: str, *roles: Role) -> str:
    """Another's key, admitted; its public key."""
    public, _ = zmq.curve_keypair()
    card = keys.path.parent / f"{name}.json"
    card.write_text(msgspec.json.encode({"name": name, "public_key": public.decode()}).decode())
    keys.allow(card, list(roles))
    return public.decode()


@pytest.fixture
def gatekeeper(keys: KeyFolder) -> Iterator[tuple[Gatekeeper, list[tuple[str, str]]]]:
    refused: list[tuple[str, str]] = []
    made = Gatekeeper(Link("127.0.0.1", 17000, True, keys), lambda stream, key: refused.append((stream, key)))
    yield made, refused
    made.close()


def test_keys_are_admitted_by_stream(keys: KeyFolder, gatekeeper: tuple[Gatekeeper, list[tuple[str, str]]]) -> None:
    keeper, refused = gatekeeper
    alice, viewer = admitted(keys, "alice", Role.OPERATOR), admitted(keys, "viewer", Role.OBSERVER)
    stranger = zmq.curve_keypair()[0].decode()
    time.sleep(RELOAD_S + 0.05)
    assert keeper.admit("command", alice)
    assert keeper.admit("state", viewer)
    assert refused == []
    assert not keeper.admit("command", viewer)
    assert not keeper.admit("record", alice)
    assert not keeper.admit("state", stranger)
    assert refused == [("command", viewer), ("record", alice), ("state", stranger)]
    assert _Provider(keeper, "command").callback("command", alice.encode())
    assert not _Provider(keeper, "command").callback("state", alice.encode()), "a provider answers for its own stream"


def test_without_a_key_of_its_own_nothing_listens(tmp_path: Path) -> None:
    with pytest.raises(LinkProblem, match="takeover keys new NAME"):
        Gatekeeper(Link("127.0.0.1", 17000, True, KeyFolder(tmp_path)), lambda stream, key: None)


def test_the_list_is_read_again_and_one_that_cannot_be_read_admits_nobody(keys: KeyFolder) -> None:
    alice = admitted(keys, "alice", Role.OPERATOR)
    table = AllowList(keys)
    assert table.client(alice) is not None
    path = keys.path / "allowed.json"
    good = path.read_bytes()

    def changed(content: bytes | None) -> bool:
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
            os.utime(path, ns=(time.time_ns(), time.time_ns() + 10**9))
        time.sleep(RELOAD_S + 0.05)
        return table.client(alice) is not None

    assert not changed(b"{")
    assert "not a key file" in table.problem
    assert changed(good)
    assert table.problem == ""
    assert not changed(None)
    assert changed(good)
    keys.revoke("alice")
    time.sleep(RELOAD_S + 0.05)
    assert table.client(alice) is None


def test_names_and_keys_are_what_they_must_be(keys: KeyFolder, tmp_path: Path) -> None:
    for bad in ("", "A", "a/b", "../a", "a" * 65, "a b", "a\n"):
        with pytest.raises(KeyProblem, match="name"):
            keys.new(bad)
    with pytest.raises(KeyProblem, match="never overwritten"):
        keys.new("own")
    card = tmp_path / "card.json"
    for content, why in (
        ('{"name": "a", "public_key": "short"}', "40 characters"),
        ('{"name": "a", "public_key": "' + "a" * 41 + '"}', "40 characters"),
        ('{"name": "../a", "public_key": "' + "a" * 40 + '"}', "name"),
        ('{"name": "a", "public_key": "' + "a" * 40 + '", "roles": ["operator"]}', "not a key file"),
        ('{"name": "a", "public_key": "' + "a" * 40 + '"}' + " " * MAX_FILE_BYTES + "{", None),
        ("{", "not a key file"),
        ("[" * 100_000, "not a key file"),
    ):
        card.write_text(content)
        if why is None:
            keys.allow(card, [Role.OBSERVER])
            continue
        with pytest.raises(KeyProblem, match=why):
            keys.allow(card, [Role.OPERATOR])
    card.write_text('{"name": "b", "public_key": "' + "b" * 40 + '"}')
    with pytest.raises(KeyProblem, match="which role"):
        keys.allow(card, [])
    admitted(keys, "alice", Role.OPERATOR)
    with pytest.raises(KeyProblem, match="admitted already, as alice"):
        keys.allow(keys.path.parent / "alice.json", [Role.LEARNER], "eve")


def card_of(folder: Path, name: str) -> Path:
    """The card of a new key."""
    card = folder / f"{name}-{len([*folder.iterdir()])}.json"
    card.write_text(msgspec.json.encode({"name": name, "public_key": zmq.curve_keypair()[0].decode()}).decode())
    return card


def test_a_name_that_is_admitted_keeps_its_key_until_somebody_says_otherwise(keys: KeyFolder, tmp_path: Path) -> None:
    first, second = card_of(tmp_path, "desk"), card_of(tmp_path, "desk")
    admitted_key = keys.allow(first, [Role.OPERATOR]).public_key
    with pytest.raises(KeyProblem, match="desk is admitted already, with another key: --replace") as refusal:
        keys.allow(second, [Role.OPERATOR, Role.LEARNER])
    assert "\n" not in str(refusal.value)
    assert {key: client.roles for key, client in keys.allowed().items()} == {admitted_key: {Role.OPERATOR}}
    assert keys.allow(first, [Role.OBSERVER]).public_key == admitted_key, "the same key: its roles may change"
    assert [client.roles for client in keys.allowed().values()] == [{Role.OBSERVER}]
    other = keys.allow(second, [Role.OBSERVER], "desk-2")
    assert (other.name, other.public_key) == ("desk-2", keys.read_card(second).public_key)
    assert keys.revoke("desk-2") == other
    replaced = keys.allow(second, [Role.OPERATOR], replace=True)
    assert {key: client.name for key, client in keys.allowed().items()} == {replaced.public_key: "desk"}


def test_a_bridge_that_is_known_keeps_its_key_until_somebody_says_otherwise(keys: KeyFolder, tmp_path: Path) -> None:
    first, second = card_of(tmp_path, "robot"), card_of(tmp_path, "robot")
    keys.trust(first)
    with pytest.raises(KeyProblem, match="the bridge robot is known already, with another key: --replace if") as refusal:
        keys.trust(second)
    assert "\n" not in str(refusal.value)
    assert keys.trust(first) == keys.bridge("robot") == keys.read_card(first)
    assert keys.trust(second, replace=True) == keys.bridge("robot") == keys.read_card(second)


def test_a_key_that_others_can_read_is_not_used(keys: KeyFolder) -> None:
    assert (keys.path / "own").stat().st_mode & 0o777 == 0o700
    for item, mode in ((keys.path / "own/own.json", 0o600), (keys.path, 0o700)):
        assert item.stat().st_mode & 0o777 == mode
        item.chmod(mode | 0o040)
        with pytest.raises(KeyProblem, match="chmod go-rwx"):
            keys.own()
        item.chmod(mode)
    keys.new("second")
    with pytest.raises(KeyProblem, match="several"):
        keys.own()


def test_a_bridge_is_believed_by_its_own_key_only(keys: KeyFolder, tmp_path: Path) -> None:
    with pytest.raises(KeyProblem, match="public key is needed"):
        keys.bridge()
    for name in ("one", "two"):
        card = tmp_path / f"{name}.json"
        card.write_text(msgspec.json.encode({"name": name, "public_key": zmq.curve_keypair()[0].decode()}).decode())
        keys.trust(card)
        assert keys.bridge(name).name == name
        if name == "one":
            assert keys.bridge().name == "one"
        with pytest.raises(KeyProblem, match="public key is needed"):
            keys.bridge("unknown")
    with pytest.raises(KeyProblem, match="public key is needed"):
        keys.bridge()
