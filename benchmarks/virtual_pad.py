"""A gamepad made of SDL's virtual joystick, in the very SDL library that pygame brings: for tests and benchmarks without hardware."""

import ctypes
from pathlib import Path

import pygame

GAMECONTROLLER = 1  # SDL_JOYSTICK_TYPE_GAMECONTROLLER
AXIS_INDEX = {"left_x": 0, "left_y": 1, "right_x": 2, "right_y": 3, "lt": 4, "rt": 5}
BUTTON_INDEX = {"a": 0, "b": 1, "x": 2, "y": 3, "back": 4, "start": 6, "lb": 9, "rb": 10, "up": 11, "down": 12, "left": 13, "right": 14}


def sdl_library() -> ctypes.CDLL:
    """SDL2 as pygame's wheel bundles it."""
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
        if self._index < 0:
            raise RuntimeError("SDL refused the virtual joystick; is its joystick subsystem up?")
        self._joystick = self._sdl.SDL_JoystickOpen(self._index)
        for trigger in ("lt", "rt"):  # a fresh virtual axis rests in its middle: a trigger half pulled
            self.axis(trigger, 0.0)

    def axis(self, name: str, value: float) -> None:
        """Sticks in [-1, 1] (y down is positive), triggers in [0, 1]."""
        raw = value * 2 - 1 if name in ("lt", "rt") else value
        if self._sdl.SDL_JoystickSetVirtualAxis(self._joystick, AXIS_INDEX[name], int(raw * 32767)) != 0:
            raise RuntimeError(f"SDL refused axis {name}")

    def button(self, name: str, down: bool) -> None:
        if self._sdl.SDL_JoystickSetVirtualButton(self._joystick, BUTTON_INDEX[name], int(down)) != 0:
            raise RuntimeError(f"SDL refused button {name}")

    def unplug(self) -> None:
        if self._index >= 0:
            self._sdl.SDL_JoystickDetachVirtual(self._index)
            self._sdl.SDL_JoystickClose(self._joystick)
            self._index = -1
