"""The bridge's gatekeeper starts though libzmq still holds the address of the one before."""

import threading
import time
from pathlib import Path

import pytest
import zmq

from takeover.robot_bridge.protocol import KeyFolder
from takeover.robot_bridge.protocol.link import Gatekeeper, Link

ADDRESS = "inproc://zeromq.zap.01"  # RFC 27: fixed, one per process


def made(folder: Path) -> Gatekeeper:
    keys = KeyFolder(folder / "keys")
    if not keys.own_names():
        keys.new("bridge")
    return Gatekeeper(Link("127.0.0.1", 20000, True, keys), lambda stream, key: None)


def held() -> "zmq.Socket[bytes]":
    """The address; whoever had it before may just have been closed."""
    one = zmq.Context.instance().socket(zmq.REP)
    deadline = time.monotonic() + 5.0
    while True:
        try:
            one.bind(ADDRESS)
        except zmq.ZMQError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return one


def test_an_address_that_is_let_go_late_is_waited_for(tmp_path: Path) -> None:
    before = held()
    late = threading.Timer(0.3, before.close, [0])
    late.start()
    keeper = made(tmp_path)
    late.join()
    keeper.close()
    made(tmp_path).close()


def test_one_that_is_never_let_go_is_an_error(tmp_path: Path) -> None:
    before = held()
    with pytest.raises(zmq.ZMQError, match="in use"):
        made(tmp_path)
    before.close(0)
    made(tmp_path).close()
