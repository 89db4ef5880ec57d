"""Gamepads through SDL's controller API (the layout of names is the same for every known pad).

RB held = take over; left stick moves in the plane, right stick up/down and yaw; RT closes and LT opens the gripper; LB fine;
A success and B failure (held 0.4 s); X mark; Y resume; Start hold; Back STOP; d-pad: speed up/down, undo left, next right.
`GamepadHub` must be made, updated and closed in one thread: SDL's rule.
"""

import os
import time
from typing import Any

from takeover.app.inputs.base import DeviceReading
from takeover.app.inputs.shaping import HELD_S, Press, dead_zone, radial_dead_zone

# Before SDL starts: no window of its own, events without one, and no hands on our signals. The long SDL_HINT_... names do nothing.
os.environ.update(
    SDL_VIDEODRIVER="dummy",
    SDL_AUDIODRIVER="dummy",
    SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS="1",
    SDL_NO_SIGNAL_HANDLERS="1",
    PYGAME_HIDE_SUPPORT_PROMPT="1",
)

import pygame
from pygame._sdl2 import controller as sdl_controller

DEAD_ZONE = 0.12
TRIGGER_ZONE = 0.10
AXIS_MAX = 32767.0
AXES = {
    "left_x": pygame.CONTROLLER_AXIS_LEFTX,
    "left_y": pygame.CONTROLLER_AXIS_LEFTY,
    "right_x": pygame.CONTROLLER_AXIS_RIGHTX,
    "right_y": pygame.CONTROLLER_AXIS_RIGHTY,
    "lt": pygame.CONTROLLER_AXIS_TRIGGERLEFT,
    "rt": pygame.CONTROLLER_AXIS_TRIGGERRIGHT,
}
BUTTONS = {
    "a": pygame.CONTROLLER_BUTTON_A,
    "b": pygame.CONTROLLER_BUTTON_B,
    "x": pygame.CONTROLLER_BUTTON_X,
    "y": pygame.CONTROLLER_BUTTON_Y,
    "lb": pygame.CONTROLLER_BUTTON_LEFTSHOULDER,
    "rb": pygame.CONTROLLER_BUTTON_RIGHTSHOULDER,
    "back": pygame.CONTROLLER_BUTTON_BACK,
    "start": pygame.CONTROLLER_BUTTON_START,
    "up": pygame.CONTROLLER_BUTTON_DPAD_UP,
    "down": pygame.CONTROLLER_BUTTON_DPAD_DOWN,
    "left": pygame.CONTROLLER_BUTTON_DPAD_LEFT,
    "right": pygame.CONTROLLER_BUTTON_DPAD_RIGHT,
}
PRESSES = {
    "a": ("success", HELD_S),
    "b": ("failure", HELD_S),
    "x": ("mark", 0.0),
    "y": ("resume", 0.0),
    "start": ("hold", 0.0),
    "back": ("stop", 0.0),
    "up": ("speed_up", 0.0),
    "down": ("speed_down", 0.0),
    "left": ("undo", 0.0),
    "right": ("next", 0.0),
}


class PadLogic:
    """From raw axes and buttons to readings; pure but for the presses it remembers."""

    def __init__(self, device_id: str, name: str) -> None:
        self.device_id = device_id
        self.name = name
        self._presses = {button: Press(held_s, at_once=name == "stop") for button, (name, held_s) in PRESSES.items()}
        self._armed = False  # a pad plugged in with RB or a stick held does nothing until it was let go once
        self._last_s = 0.0
        self._rate_hz = 0.0

    def reading(self, raw: dict[str, float], now_ns: int) -> DeviceReading:
        """``raw``: sticks in [-1, 1] (y down is positive, as SDL has it), triggers in [0, 1], buttons 0 or 1."""
        now_s = now_ns * 1e-9
        left_x, left_y = radial_dead_zone(raw["left_x"], -raw["left_y"], DEAD_ZONE)
        right_x, right_y = dead_zone(raw["right_x"], DEAD_ZONE), dead_zone(-raw["right_y"], DEAD_ZONE)
        gripper = dead_zone(raw["lt"], TRIGGER_ZONE) - dead_zone(raw["rt"], TRIGGER_ZONE)
        twist = (left_x, left_y, right_y, 0.0, 0.0, 0.0 - right_x)
        neutral = not raw["rb"] and not any(twist) and gripper == 0.0
        self._armed = self._armed or neutral
        presses = tuple(PRESSES[button][0] for button, press in self._presses.items() if press.update(bool(raw[button]), now_s))
        if 0.0 < self._last_s < now_s:
            self._rate_hz += 0.05 * (1.0 / (now_s - self._last_s) - self._rate_hz)
        self._last_s = now_s
        return DeviceReading(
            device_id=self.device_id,
            kind="gamepad",
            name=self.name,
            alive=True,
            deadman=bool(raw["rb"]) and self._armed,
            neutral=neutral,
            twist=twist if self._armed else (0.0,) * 6,
            gripper=gripper if self._armed else 0.0,
            t_ns=now_ns,
            presses=presses,
            fine=bool(raw["lb"]),
            rate_hz=self._rate_hz,
            raw=raw,
        )


def lost(reading: DeviceReading, now_ns: int) -> DeviceReading:
    """What a device that is gone answers: nothing held, nothing moved."""
    return DeviceReading(reading.device_id, reading.kind, reading.name, False, False, False, (0.0,) * 6, 0.0, now_ns)


class Gamepad:
    """One plugged-in pad."""

    def __init__(self, pad: Any, instance_id: int) -> None:
        self._pad = pad
        self._logic = PadLogic(f"gamepad-{instance_id}", str(pad.name))
        self._reading = DeviceReading(self._logic.device_id, "gamepad", self._logic.name, False, False, False, (0.0,) * 6, 0.0, 0)

    @property
    def device_id(self) -> str:
        return self._logic.device_id

    def poll(self) -> DeviceReading:
        now_ns = time.monotonic_ns()
        if not self._pad.attached():
            self._reading = lost(self._reading, now_ns)
            self._logic = PadLogic(self._logic.device_id, self._logic.name)  # should it come back: with whatever is held then
            return self._reading
        raw = {name: max(-1.0, self._pad.get_axis(axis) / AXIS_MAX) for name, axis in AXES.items()}
        raw |= {name: float(self._pad.get_button(button)) for name, button in BUTTONS.items()}
        self._reading = self._logic.reading(raw, now_ns)
        return self._reading

    def rumble(self, strength: float, seconds: float) -> None:
        """Silently nothing on pads without motors."""
        self._pad.rumble(strength, strength, int(seconds * 1000))

    def close(self) -> None:
        self._pad.quit()


class GamepadHub:
    """All gamepads, hot-plugged by SDL's instance id (indices shift when another pad goes)."""

    def __init__(self) -> None:
        pygame.display.init()  # the event queue needs a video subsystem, be it the dummy one
        pygame.joystick.init()
        sdl_controller.init()
        sdl_controller.set_eventstate(True)
        self.pads: dict[int, Gamepad] = {}
        self.unmapped: list[str] = []  # joysticks that SDL has no layout for
        for index in range(pygame.joystick.get_count()):
            self._add(index)

    def update(self) -> list[int]:
        """Pump events; returns the instance ids of pads that went."""
        gone = []
        for event in pygame.event.get():
            if event.type == pygame.JOYDEVICEADDED:
                self._add(event.device_index)
            elif event.type == pygame.CONTROLLERDEVICEREMOVED:
                pad = self.pads.pop(event.instance_id, None)
                if pad is not None:
                    pad.close()
                    gone.append(event.instance_id)
        return gone

    def _add(self, index: int) -> None:
        if not sdl_controller.is_controller(index):
            self.unmapped.append(pygame.joystick.Joystick(index).get_name())
            return
        pad = sdl_controller.Controller(index)
        instance_id = pad.as_joystick().get_instance_id()
        if instance_id not in self.pads:
            self.pads[instance_id] = Gamepad(pad, instance_id)

    def close(self) -> None:
        for pad in self.pads.values():
            pad.close()
        self.pads.clear()
        sdl_controller.quit()
        pygame.joystick.quit()
        pygame.display.quit()
