"""What subscribers may send: names of streams, which are short. ZMQ keeps each with 45 times its size."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from takeover.data.schema import LauncherReply, Role
from takeover.robot_bridge.protocol import Endpoints, Publisher
from takeover.robot_bridge.protocol.link import Link, secure_client
from takeover.robot_bridge.protocol.sockets import MAX_SUBSCRIPTION_BYTES
from tests.introduced import introduced, unused_port

PREFIX = b"state\0"


@pytest.fixture(params=["ipc", "tcp"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Endpoints, Endpoints]]:
    """Of the publisher and of a subscriber."""
    here = there = Endpoints(tmp_path / "s")
    if request.param == "tcp":
        here, there = over_network(tmp_path)
    else:
        here.prepare()
    yield here, there
    here.close()


def over_network(folder: Path) -> tuple[Endpoints, Endpoints]:
    ours, theirs = introduced(folder, [Role.OBSERVER])
    port = unused_port()
    here = Endpoints(folder / "a", Link("127.0.0.1", port, True, ours))
    here.listen(lambda stream, key: None)
    return here, Endpoints(folder / "b", Link("127.0.0.1", port, False, theirs))


def subscriber(there: Endpoints) -> Any:
    """With a heartbeat often enough to be seen."""
    made = zmq.Context.instance().socket(zmq.SUB)
    made.linger = 0
    if link := there.over_network("state"):
        secure_client(made, link)
    made.setsockopt(zmq.HEARTBEAT_IVL, 20)
    made.setsockopt(zmq.HEARTBEAT_TIMEOUT, 2000)
    made.subscribe(PREFIX)
    return made


def test_subscriptions_heartbeats_and_the_handshake_pass_and_long_prefixes_end_the_connection(places: tuple[Endpoints, Endpoints]) -> None:
    here, there = places
    with Publisher(here, "state", LauncherReply) as publisher, subscriber(there) as sub:
        monitor = sub.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        sub.connect(there.address("state"))

        def received(seconds: float, count: int) -> int:
            found, end = 0, time.monotonic() + seconds
            while found < count and time.monotonic() < end:
                publisher.send(LauncherReply(request_id=1))
                time.sleep(0.005)
                if sub.poll(5):
                    found += sub.recv().startswith(PREFIX)
            return found

        assert received(5.0, 40) == 40, "0.2 s of heartbeats"
        sub.subscribe(b"camera/" + b"n" * 200 + b"\0")
        assert received(1.0, 20) == 20
        assert not monitor.poll(0), "and without having come back"
        sub.subscribe(os.urandom(MAX_SUBSCRIPTION_BYTES))
        assert monitor.poll(3000)
        assert recv_monitor_message(monitor)["event"] == zmq.EVENT_DISCONNECTED
        sub.disable_monitor()
        monitor.close(0)
