"""The `InputDevice` interface: keyboard, gamepad, SpaceMouse and the scripted operator are all one of these."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

DeviceKind = Literal["keyboard", "gamepad", "spacemouse", "scripted", "leader", "none"]


@dataclass(frozen=True)
class DeviceReading:
    """A snapshot. ``twist`` is (x, y, z, roll, pitch, yaw) in [-1, 1] in the device's chosen frame; ``gripper`` in {-1, 0, +1} or between.

    ``presses`` are edge events since the last poll by name: success, failure, mark, next, hold, resume, stop, speed_up,
    speed_down, undo (already debounced and held for 0.4 s where the device asks for it).
    """

    device_id: str
    kind: DeviceKind
    name: str
    alive: bool
    deadman: bool
    neutral: bool
    twist: tuple[float, float, float, float, float, float]
    gripper: float
    t_ns: int
    presses: tuple[str, ...] = ()
    fine: bool = False
    rate_hz: float = 0.0
    raw: dict[str, float] = field(default_factory=dict)  # axes and buttons for the live device picture


class InputDevice(Protocol):
    def poll(self) -> DeviceReading:
        """The newest snapshot; never blocks. A device that is gone answers alive=False, deadman=False, zero twist."""

    def rumble(self, strength: float, seconds: float) -> None: ...

    def close(self) -> None: ...
