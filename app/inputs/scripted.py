"""The scripted operator as one more input device: fed with the simulator's truth, read like a pad."""

import time

from takeover.app.inputs.base import DeviceReading
from takeover.app.inputs.mapping import TWIST_INDEX
from takeover.app.operators.scripted import ScriptedOperator
from takeover.data.schema import Mode, Privileged, RobotSpec

STALE_AFTER_S = 0.3


class ScriptedDevice:
    """`observe` every control step, `poll` any time. Its twist is in the base frame."""

    def __init__(self, operator: ScriptedOperator, spec: RobotSpec) -> None:
        self.device_id = "scripted"
        self._operator = operator
        self._names = spec.action.names
        self._seq = -1
        self._observed_s = float("-inf")
        self._lockstep = False
        self._deadman = False
        self._twist = (0.0,) * 6
        self._gripper = 0.0
        self._presses: tuple[str, ...] = ()

    def observe(self, privileged: Privileged) -> None:
        """Decide for one control step; the same step twice (a re-sent one) changes nothing."""
        self._observed_s = time.monotonic()
        if privileged.seq == self._seq:
            return
        self._seq = privileged.seq
        self._lockstep = privileged.lockstep
        decision = self._operator.decide(privileged)
        self._deadman = decision.deadman
        twist = [0.0] * 6
        self._gripper = 0.0
        for name, value in zip(self._names, decision.action, strict=True):
            if name == "gripper":
                self._gripper = value
            else:
                twist[TWIST_INDEX[name]] = value
        self._twist = (twist[0], twist[1], twist[2], twist[3], twist[4], twist[5])
        self._presses = ("resume",) if decision.resume and privileged.mode == Mode.HOLD else ()
        if decision.outcome is not None:
            self._presses += (decision.outcome.value,)

    def poll(self) -> DeviceReading:
        """Dead when no step was observed for 0.3 s: what it last wanted is not repeated for ever (lockstep: time stands still)."""
        alive = self._lockstep or time.monotonic() - self._observed_s < STALE_AFTER_S
        deadman = alive and self._deadman
        presses, self._presses = self._presses, ()
        return DeviceReading(
            device_id=self.device_id,
            kind="scripted",
            name="scripted operator",
            alive=alive,
            deadman=deadman,
            neutral=not deadman,
            twist=self._twist if deadman else (0.0,) * 6,
            gripper=self._gripper if deadman else 0.0,
            t_ns=time.monotonic_ns(),
            presses=presses,
        )

    def rumble(self, strength: float, seconds: float) -> None:
        """It feels nothing."""

    def close(self) -> None:
        """Nothing to close."""
