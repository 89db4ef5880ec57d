"""`takeover devices`: what is plugged in, live."""

import time
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table

from takeover.app.inputs.base import DeviceReading
from takeover.app.inputs.manager import DeviceManager

REFRESH_S = 0.1


@dataclass(frozen=True)
class Devices:
    """Gamepads and SpaceMice that are plugged in, with live values."""

    seconds: float | None = None
    """How long to show live values (default: until Ctrl+C in a terminal, once elsewhere)."""


def devices(command: Devices) -> int:
    """Returns 0, or 2 when a device is there that may not be used (what to do is printed)."""
    screen = Console()
    manager = DeviceManager()
    try:
        manager.wait_scanned()
        seconds = command.seconds if command.seconds is not None else (float("inf") if screen.is_terminal else 0.0)
        deadline = time.monotonic() + seconds
        with Live(_table(manager.devices()), console=screen, refresh_per_second=1 / REFRESH_S) as live:
            while time.monotonic() < deadline:
                time.sleep(REFRESH_S)
                live.update(_table(manager.devices()))
    except KeyboardInterrupt:
        pass  # the usual way to end it
    finally:
        problems = manager.problems()
        manager.close()
    for problem in problems:
        Console(stderr=True).print(problem, highlight=False, soft_wrap=True)
    return 2 if problems else 0


def _table(readings: list[DeviceReading]) -> Table:
    table = Table()
    for column in ("device", "name", "state", "x", "y", "z", "yaw", "gripper", "pressed"):
        table.add_column(column)
    for reading in readings:
        state = "gone" if not reading.alive else "drives" if reading.deadman else "neutral" if reading.neutral else "moved"
        x, y, z, _, _, yaw = (f"{value:+.2f}" for value in reading.twist)
        pressed = " ".join(name for name, value in reading.raw.items() if value == 1.0)
        table.add_row(reading.device_id, reading.name, state, x, y, z, yaw, f"{reading.gripper:+.2f}", pressed)
    if not readings:
        table.add_row("none", "plug in a gamepad or a SpaceMouse; the keyboard works in the app's window")
    return table
