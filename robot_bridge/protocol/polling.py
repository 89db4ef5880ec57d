"""Waiting on many sockets at once, built once and reused, and a way for other threads to end the wait."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import zmq

from takeover.robot_bridge.protocol.sockets import Socket

MAX_AT_ONCE = 64  # messages of one socket; then the others of its thread have their turn
MAX_TURN_S = 0.002  # then too, after the message that takes it beyond: 64 of the largest ones keep a STOP waiting for half a second

T = TypeVar("T")


class Wakeup:
    """Ends a `PollSet.wait` from any thread."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def set(self) -> None:
        os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return

    def close(self) -> None:
        os.close(self.fd)


class PollSet:
    """A fixed set of sockets and one `Wakeup`. Belongs to the thread that owns the sockets."""

    def __init__(self, sockets: Sequence[Socket[Any]], wakeup: Wakeup) -> None:
        self._poller = zmq.Poller()
        self._by_raw: dict[Any, Socket[Any]] = {item.socket: item for item in sockets}
        for item in sockets:
            self._poller.register(item.socket, zmq.POLLIN)
        self._poller.register(wakeup.fd, zmq.POLLIN)
        self._wakeup = wakeup

    def wait(self, timeout_s: float) -> list[Socket[Any]]:
        """The sockets with something to receive; empty after ``timeout_s`` or a wake-up."""
        ready = []
        for raw, _ in self._poller.poll(max(0, int(timeout_s * 1000 + 0.999))):
            if raw == self._wakeup.fd:
                self._wakeup.clear()
            else:
                ready.append(self._by_raw[raw])
        return ready


def wait(sockets: Sequence[Socket[Any]], timeout_s: float) -> list[Socket[Any]]:
    """Those of ``sockets`` that have something to receive within ``timeout_s``."""
    poller = zmq.Poller()
    for item in sockets:
        poller.register(item.socket, zmq.POLLIN)
    ready = {raw for raw, _ in poller.poll(int(timeout_s * 1000))}
    return [item for item in sockets if item.socket in ready]


def turn(receive: Callable[[], T | None]) -> Iterator[T]:
    """What ``receive`` gives, until None, `MAX_AT_ONCE` or `MAX_TURN_S`: whoever floods one stream keeps no STOP waiting on another."""
    end = time.monotonic() + MAX_TURN_S
    for item in islice(iter(receive, None), MAX_AT_ONCE):
        yield item
        if time.monotonic() >= end:
            return
