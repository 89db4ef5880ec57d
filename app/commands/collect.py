"""`takeover collect`: demonstrations with any device, then cloning."""

import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import msgspec

from takeover.app.commands.console import open_console
from takeover.app.commands.display import has_display
from takeover.app.commands.options import NO_LEARNER, StationOptions, make_config, station_of
from takeover.app.commands.progress import progress_display
from takeover.app.commands.run import stops_on_signals
from takeover.app.device_operator import DeviceOperator
from takeover.app.inputs.manager import KINDS, DeviceManager
from takeover.app.launcher import Launcher
from takeover.app.processes.common import StartupError
from takeover.app.supervisor import RunPlan, Supervisor
from takeover.data.drivers import Driver
from takeover.data.schema import RunConfig
from takeover.robot_bridge.protocol import Endpoints

DEVICE_HELP = "hold RB (or push the SpaceMouse) to drive; A success, B failure, d-pad left discards and records again, Back STOP"


@dataclass(frozen=True)
class Collect(StationOptions):
    """Record demonstrations, then clone them into policy version 1.

    In the app's Collect mode where there is a display; in the terminal with `--headless`, by gamepad, SpaceMouse or script.
    """

    episodes: int = 20
    """How many demonstrations."""
    device: Literal["any", "scripted"] = "any"
    """`scripted`: the scripted operator makes them (simulators only)."""
    headless: bool = False
    """No window even where there is a display."""
    no_cameras: bool = False
    """Neither render nor record pictures."""


def collect(command: Collect) -> int:
    """Returns the exit status."""
    if command.episodes < 1:
        raise StartupError(f"--episodes {command.episodes}: at least 1")
    scripted = command.device == "scripted"
    headless = command.headless or scripted or not has_display()
    if headless and not scripted:
        require_device(station_of(command.workspace)[1].devices.allowed())
    config = make_config(command, operator="scripted" if scripted else "console", cameras=not command.no_cameras)
    config = msgspec.structs.replace(config, demonstrations=command.episodes, collect=0 if headless else command.episodes)
    return _collect_headless(config, scripted) if headless else open_console(config)


def require_device(kinds: Collection[str] = KINDS) -> None:
    """Raises `StartupError` with what is plugged in and what to do."""
    manager = DeviceManager(kinds=kinds)
    try:
        manager.wait_scanned()
        devices, problems = manager.devices(), manager.problems()
    finally:
        manager.close()
    if not devices:
        known = "known devices: gamepad, SpaceMouse, keyboard (in the app's window), --device scripted"
        raise StartupError("; ".join(["no gamepad or SpaceMouse is plugged in", *problems, known]))


def _collect_headless(config: RunConfig, scripted: bool) -> int:
    names = ["bridge", "recorder", *(["operator"] if scripted else []), *(["learner"] if config.learner != NO_LEARNER else [])]
    with progress_display() as display, Launcher(config, names, display.note) as launcher, stops_on_signals(launcher):
        supervisor = Supervisor(config, launcher, RunPlan(episodes=0), display.show)
        try:
            if scripted:
                supervisor.prepare()
            else:
                display.note(DEVICE_HELP)
                driver = Driver(config.person, config.consent_version)
                with DeviceOperator(Endpoints.of(config), kinds=config.devices, driver=driver):
                    supervisor.prepare()
        finally:
            supervisor.close()
    print(f"demonstrations and policy version 1 are in {config.workspace}", file=sys.stdout)
    return 0
