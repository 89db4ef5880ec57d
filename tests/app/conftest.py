"""Shared by the tests of the app."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.virtual_pad import VirtualPad
from takeover.data.schema import RunConfig
from tests.patience import patient


@pytest.fixture
def plug_pad() -> Iterator[Callable[[], VirtualPad]]:
    pads: list[VirtualPad] = []

    def plug() -> VirtualPad:
        pads.append(VirtualPad())
        return pads[-1]

    yield plug
    for pad in pads:
        pad.unplug()


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], object]:
    """Wait (generously) until something is true and return it."""

    def wait(condition: Callable[[], object], timeout_s: float = 10.0) -> object:
        deadline = time.monotonic() + patient(timeout_s)
        while not (value := condition()):
            assert time.monotonic() < deadline, "did not happen in time"
            time.sleep(0.01)
        return value

    return wait


@pytest.fixture
def station_config(tmp_path: Path) -> Iterator[Callable[..., RunConfig]]:
    """A run configuration with a workspace and a socket folder of its own (with a short name: socket paths are limited)."""
    with tempfile.TemporaryDirectory(prefix="tk") as runtime:

        def make(**changes: Any) -> RunConfig:
            values = {
                "session_id": "test-session",
                "workspace": str(tmp_path / "workspace"),
                "sockets": str(Path(runtime) / "sockets"),
                "operator": "scripted",
                "clock": "lockstep",
                "cameras": False,
            }
            return RunConfig(**(values | changes))

        yield make
