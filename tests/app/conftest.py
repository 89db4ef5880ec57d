"""Shared by the tests of the app. A gamepad made of SDL's virtual joystick, in the very SDL library that pygame brings."""

import ctypes
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pygame
import pytest

from takeover.data.schema import RunConfig

GAMECONTROLLER = 1  # SDL_JOYSTICK_TYPE_GAMECONTROLLER
AXIS_INDEX = {"left_x": 0, "left_y": 1, "right_x": 2, "right_y": 3, "lt": 4, "rt": 5}
BUTTON_INDEX = {"a": 0, "b": 1, "x": 2, "y": 3, "back": 4, "start": 6, "lb": 9, "rb": 10, "up": 11, "down": 12, "left": 13, "right": 14}


def sdl_library() -> ctypes.CDLL:
    folder = Path(pygame.__file__).parent.parent / "pygame.libs"
    (path,) = folder.glob("libSDL2-2*")
    library = ctypes.CDLL(str(path))
    library.SDL_JoystickOpen.restype = ctypes.c_void_p
    library.SDL_JoystickClose.argtypes = [ctypes.c_void_p]
    library.SDL_JoystickSetVirtualAxis.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int16]
    library.SDL_JoystickSetVirtualButton.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint8]
    return library


class VirtualPad:
    """Plugged in when made; SDL's joystick subsystem must be up (a `GamepadHub` or `DeviceManager` exists)."""

    def __init__(self) -> None:
        self._sdl = sdl_library()
        self._index = self._sdl.SDL_JoystickAttachVirtual(GAMECONTROLLER, 6, 15, 0)
        assert self._index >= 0
        self._joystick = self._sdl.SDL_JoystickOpen(self._index)
        for trigger in ("lt", "rt"):  # a fresh virtual axis rests in its middle: a trigger half pulled
            self.axis(trigger, 0.0)

    def axis(self, name: str, value: float) -> None:
        """Sticks in [-1, 1] (y down is positive), triggers in [0, 1]."""
        raw = value * 2 - 1 if name in ("lt", "rt") else value
        assert self._sdl.SDL_JoystickSetVirtualAxis(self._joystick, AXIS_INDEX[name], int(raw * 32767)) == 0

    def button(self, name: str, down: bool) -> None:
        assert self._sdl.SDL_JoystickSetVirtualButton(self._joystick, BUTTON_INDEX[name], int(down)) == 0

    def unplug(self) -> None:
        if self._index >= 0:
            self._sdl.SDL_JoystickDetachVirtual(self._index)
            self._sdl.SDL_JoystickClose(self._joystick)
            self._index = -1


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
        deadline = time.monotonic() + timeout_s
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
