"""All input devices of a station behind one object: who drives, what they say, what is missing.

The driving device is the last one whose deadman was pressed while nobody else's was held; it stays the driving device until
another one's is pressed, also for a second after it was unplugged (so that the bridge sees it gone, and holds).
"""

import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace

from takeover.app.inputs.base import DeviceReading
from takeover.app.inputs.gamepad import Gamepad, GamepadHub, lost
from takeover.app.inputs.spacemouse import SpaceMouse, SpaceMouseHub

PERIOD_S = 0.008
KINDS = ("gamepad", "spacemouse")
FORGET_AFTER_S = 10.0
GONE_S = 1.0  # a driving device that has been gone for so long gives way to one that is there: its rest then arms the next press
STUCK_S = 0.1  # a reading that the reading thread has not renewed for so long (a driver that hangs) says nothing any more
NO_DEVICE = DeviceReading("none", "none", "no device", False, False, True, (0.0,) * 6, 0.0, 0)


class Arbiter:
    """Pure choice of the driving device among readings; see the module's docstring for the rule."""

    def __init__(self) -> None:
        self.driving = ""
        self._held: set[str] = set()

    def update(self, readings: dict[str, DeviceReading]) -> None:
        held = {device_id for device_id, reading in readings.items() if reading.alive and reading.deadman}
        pressed = held - self._held
        if pressed and self.driving not in held:
            self.driving = max(pressed, key=lambda device_id: readings[device_id].t_ns)
        self._held = held

    def choose(self, readings: dict[str, DeviceReading], now_ns: int) -> DeviceReading:
        """Where nobody drives: the first living device, pads before others."""
        driving = readings.get(self.driving)
        if driving is not None and (driving.alive or now_ns - driving.t_ns < GONE_S * 1e9):
            return driving
        rank = {"gamepad": 0, "spacemouse": 1, "scripted": 2, "keyboard": 3}
        alive = [reading for reading in readings.values() if reading.alive]
        return min(alive, key=lambda reading: (rank.get(reading.kind, 9), reading.device_id), default=driving or NO_DEVICE)


class DeviceManager:
    """Polls pads and SpaceMice in a thread of its own at 125 Hz; the keyboard's readings are handed in by the window.

    ``kinds``: which are opened at all. ``on_stop`` is called in that thread the moment a device's STOP is pressed, so that it works
    beside a frozen window.
    """

    def __init__(self, on_stop: Callable[[DeviceReading], None] | None = None, kinds: Collection[str] = KINDS) -> None:
        self._on_stop = on_stop
        self._kinds = frozenset(kinds)
        self._lock = threading.Lock()
        self._readings: dict[str, DeviceReading] = {}
        self._presses: list[str] = []
        self._problems: list[str] = []
        self._submitted: set[str] = set()
        self._turned_ns = time.monotonic_ns()
        self._rumbles: list[tuple[str, float, float]] = []
        self._arbiter = Arbiter()
        self._closing = threading.Event()
        self._scanned = threading.Event()
        self._thread = threading.Thread(target=self._run, name="devices", daemon=True)
        self._thread.start()

    def poll(self) -> DeviceReading:
        """The driving device's newest reading, with every device's presses since the last poll. Never blocks."""
        with self._lock:
            presses, self._presses = tuple(self._presses), []
            now_ns = time.monotonic_ns()
            reading = self._arbiter.choose(self._readings, now_ns)
            stuck = now_ns - self._turned_ns > STUCK_S * 1e9
            if stuck and reading.alive and reading.device_id in self._readings and reading.device_id not in self._submitted:
                reading = lost(reading, now_ns)
            return replace(reading, presses=presses)

    def devices(self) -> list[DeviceReading]:
        """Newest reading of every device; those unplugged in the last ten seconds answer ``alive=False``."""
        with self._lock:
            return list(self._readings.values())

    def problems(self) -> list[str]:
        """Devices that are there but cannot be used, each with what to do."""
        with self._lock:
            return list(self._problems)

    def wait_scanned(self, timeout_s: float = 3.0) -> bool:
        """Until every kind of device was looked for once."""
        return self._scanned.wait(timeout_s)

    def submit_keyboard(self, reading: DeviceReading) -> None:
        """Hand in the keyboard's snapshot (the window calls this)."""
        self.submit(reading)

    def submit(self, reading: DeviceReading) -> None:
        """Hand in a reading of a device that somebody else polls."""
        with self._lock:
            self._submitted.add(reading.device_id)
            self._readings[reading.device_id] = reading
            self._presses.extend(reading.presses)
            self._arbiter.update(self._readings)

    def rumble(self, strength: float, seconds: float) -> None:
        """The driving device vibrates; ``strength`` in [0, 1]. Nothing on devices without motors."""
        with self._lock:
            self._rumbles.append((self._arbiter.choose(self._readings, time.monotonic_ns()).device_id, strength, seconds))

    def close(self) -> None:
        self._closing.set()
        self._thread.join(2.0)

    def _run(self) -> None:
        log = logging.getLogger("devices")
        pads = GamepadHub() if "gamepad" in self._kinds else None
        mice = SpaceMouseHub() if "spacemouse" in self._kinds else None
        try:
            while not self._closing.wait(PERIOD_S):
                devices: dict[str, Gamepad | SpaceMouse] = {}
                problems: list[str] = []
                if pads is not None:
                    pads.update()
                    devices |= {pad.device_id: pad for pad in pads.pads.values()}
                    problems += [f"{name}: no layout known for this joystick" for name in pads.unmapped]
                if mice is not None:
                    mice.update()
                    devices |= {mouse.device_id: mouse for mouse in mice.mice.values()}
                    problems += mice.problems
                polled = {device_id: device.poll() for device_id, device in devices.items()}
                with self._lock:
                    rumbles, self._rumbles = self._rumbles, []
                    self._turned_ns = time.monotonic_ns()
                    self._merge(polled)
                    self._problems = problems
                for reading in polled.values():
                    if "stop" in reading.presses and self._on_stop is not None:
                        self._on_stop(reading)
                for device_id, strength, seconds in rumbles:
                    if device_id in devices:
                        devices[device_id].rumble(strength, seconds)
                self._scanned.set()
        except Exception:
            log.exception("the device thread ended; pads and SpaceMice are gone")
            raise
        finally:
            with self._lock:
                self._merge({})
            for hub in (mice, pads):
                if hub is not None:
                    hub.close()

    def _merge(self, polled: dict[str, DeviceReading]) -> None:
        """Take over new readings; devices that went become dead ones, forgotten after a while unless they drive. Lock held."""
        now_ns = time.monotonic_ns()
        for device_id, reading in list(self._readings.items()):
            if device_id in self._submitted or device_id in polled:
                continue
            if reading.alive:
                self._readings[device_id] = lost(reading, now_ns)
            elif now_ns - reading.t_ns > FORGET_AFTER_S * 1e9 and device_id != self._arbiter.driving:
                del self._readings[device_id]
        for reading in polled.values():
            self._readings[reading.device_id] = reading
            self._presses.extend(reading.presses)
        self._arbiter.update(self._readings)
