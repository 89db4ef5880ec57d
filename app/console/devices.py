"""The devices as the link polls them: keyboard and pads as one, and what a press counts for while pictures are old."""

import time
from collections.abc import Callable
from dataclasses import replace

from takeover.app.console.client import DeviceSource
from takeover.app.inputs.base import DeviceReading
from takeover.app.inputs.keyboard import Keyboard
from takeover.app.inputs.manager import DeviceManager
from takeover.data.schema import Mode

HOLD_AGAIN_NS = 500_000_000


class Devices(DeviceSource):
    """Keyboard and everything the device manager finds, as one; applies the rules about old pictures."""

    def __init__(self, keyboard: Keyboard, manager: DeviceManager | None) -> None:
        self.keyboard, self.manager = keyboard, manager
        self.may_start = True  # false: pictures are too old to begin a correction
        self.seen: Callable[[], tuple[Mode | None, int]] = lambda: (None, 0)  # the station's mode, and when (ns) that was heard
        self._in_vain = False  # pressed while they were, and not let go since
        self._asked_ns = 0  # when that press asked for a hold in this stretch of POLICY; 0: not yet
        self._held = False  # that press has had its hold

    def poll(self) -> DeviceReading:
        reading = self.keyboard.poll()
        if self.manager is not None:
            if self.keyboard.enabled:
                self.manager.submit_keyboard(reading)
            reading = self.manager.poll()
        self._in_vain = reading.deadman and (self._in_vain or not self.may_start)
        if not self._in_vain:
            self._asked_ns, self._held = 0, False
            return reading
        return replace(reading, deadman=False, presses=(*reading.presses, *self._hold()))

    def _hold(self) -> tuple[str, ...]:
        """A press in vain says that somebody wants the robot: a policy that drives, or begins to under it, is held, whoever commands.

        Once per press: who resumes under a key that is still down (it may be stuck) means it, and the next hold needs a new press. What
        was asked and did not come about (lost on the way, or the episode ended first) is asked again: a policy still drives by a state
        that came `HOLD_AGAIN_NS` later, or drives anew without a hold in between.
        """
        mode, heard_ns = self.seen()
        if mode is not Mode.POLICY:
            self._held = self._held or (mode is Mode.HOLD and self._asked_ns > 0)
            self._asked_ns = 0
        elif not self._held and (self._asked_ns == 0 or heard_ns - self._asked_ns > HOLD_AGAIN_NS):
            self._asked_ns = time.monotonic_ns()
            return ("hold",)
        return ()

    def all(self) -> list[DeviceReading]:
        return self.manager.devices() if self.manager is not None else [self.keyboard.poll()]

    def problems(self) -> list[str]:
        return self.manager.problems() if self.manager is not None else []
