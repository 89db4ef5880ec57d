"""Addresses belong to one living socket: ZMQ alone would let anybody take them silently."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from takeover.data.schema import LauncherReply, LauncherRequest
from takeover.robot_bridge.protocol import Dealer, EndpointError, Endpoints, Publisher, Pull, Push, Router, Subscriber

HOLD = """
import sys
from takeover.data.schema import LauncherReply
from takeover.robot_bridge.protocol import Endpoints, Publisher
publisher = Publisher(Endpoints(sys.argv[1]), "state", LauncherReply)
print("bound", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def endpoints() -> Iterator[Endpoints]:
    with tempfile.TemporaryDirectory(prefix="tk") as folder:
        yield Endpoints(folder)


def arrives(publisher: Publisher[LauncherReply], subscriber: Subscriber[LauncherReply], number: int) -> bool:
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        publisher.send(LauncherReply(request_id=number))
        received = subscriber.receive(0.02)
        if received is not None and received.request_id == number:
            return True
    return False


def test_a_second_binder_is_refused_by_name_and_the_first_goes_on(endpoints: Endpoints) -> None:
    with Publisher(endpoints, "state", LauncherReply) as first, Subscriber(endpoints, "state", LauncherReply) as subscriber:
        assert arrives(first, subscriber, 1)
        with pytest.raises(EndpointError, match=f"process {os.getpid()}: only one bridge") as refusal:
            Publisher(endpoints, "state", LauncherReply)
        assert "\n" not in str(refusal.value)
        assert arrives(first, subscriber, 2)
        with Subscriber(endpoints, "state", LauncherReply) as late:  # the path still leads to the first
            assert arrives(first, late, 3)
    assert list(endpoints.folder.iterdir()) == []


@pytest.mark.parametrize("kind", [Pull, Router])
def test_receivers_are_protected_too(endpoints: Endpoints, kind: type) -> None:
    types = (LauncherRequest, LauncherReply) if kind is Router else (LauncherRequest,)
    with kind(endpoints, "command", *types), pytest.raises(EndpointError, match="only one bridge"):
        kind(endpoints, "command", *types)


def test_the_address_of_a_killed_process_is_free(endpoints: Endpoints) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(endpoints.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"bound\n"
    with pytest.raises(EndpointError, match=f"process {holder.pid}"):
        Publisher(endpoints, "state", LauncherReply)
    holder.kill()
    holder.communicate()
    assert endpoints.path("state").exists()  # what SIGKILL leaves
    with Publisher(endpoints, "state", LauncherReply) as next_one, Subscriber(endpoints, "state", LauncherReply) as subscriber:
        assert arrives(next_one, subscriber, 1)
    assert list(endpoints.folder.iterdir()) == []


def test_closing_does_not_take_the_next_binders_path(endpoints: Endpoints) -> None:
    """Nor does ZMQ's own thread, some time after it was closed (older versions did)."""
    for _ in range(200):
        Publisher(endpoints, "state", LauncherReply).close()
        with Publisher(endpoints, "state", LauncherReply):
            time.sleep(0.0005)
            assert endpoints.path("state").exists()


def test_a_folder_that_is_missing_or_cannot_be_written(endpoints: Endpoints) -> None:
    for folder in (endpoints.folder / "none", Path("/proc")):
        with pytest.raises(EndpointError, match=f"cannot use the socket folder {folder}"):
            Publisher(Endpoints(folder), "state", LauncherReply)


def test_connecting_sides_may_be_many(endpoints: Endpoints) -> None:
    with Router(endpoints, "launcher", LauncherRequest, LauncherReply) as router:
        for _ in range(2):
            with Dealer(endpoints, "launcher", LauncherRequest, LauncherReply) as dealer:
                dealer.send(LauncherRequest(request_id=1, action="stop"))
                assert router.receive(5.0) is not None
    with Pull(endpoints, "command", LauncherRequest) as pull:
        for _ in range(2):
            with Push(endpoints, "command", LauncherRequest) as push:
                assert push.send(LauncherRequest(request_id=1, action="stop"), 5.0)
                assert pull.receive(5.0) is not None


def test_a_receiver_keeps_a_bounded_number_of_messages(endpoints: Endpoints) -> None:
    with Pull[Any](endpoints, "event", bytes) as pull, Push[Any](endpoints, "event", bytes) as push:
        accepted = 0
        while accepted < 5000 and push.send(bytes(4096), 0.3):
            accepted += 1
        assert 256 <= accepted < 5000, "the rest stays with its sender, which drops it"
        assert pull.receive(1.0) is not None
