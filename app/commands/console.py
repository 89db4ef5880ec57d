"""`takeover` and `takeover demo`: the app, and the app with the scripted operator driving."""

import sys
import threading
from dataclasses import dataclass

from takeover.app.commands.display import require_display
from takeover.app.commands.options import StationOptions, make_config
from takeover.app.commands.run import processes_of, stops_on_signals
from takeover.app.launcher import Interrupted, Launcher, StationFailed
from takeover.app.processes.common import StartupError
from takeover.app.supervisor import Progress, RunError, RunPlan, Supervisor
from takeover.data.schema import RunConfig


@dataclass(frozen=True)
class Console(StationOptions):
    """The app, on the built-in simulated robot unless the station says otherwise. What `takeover` alone does."""


@dataclass(frozen=True)
class Demo(StationOptions):
    """The app with the scripted operator driving the corrections: for a first look. Take over yourself at any time."""

    episodes: int = 10_000
    """Episodes of the loop."""


def console(command: Console) -> int:
    require_display("takeover")
    return open_console(make_config(command, operator="console"))


def demo(command: Demo) -> int:
    require_display("takeover demo")
    return open_console(make_config(command, operator="scripted"), demo_episodes=command.episodes)


def open_console(config: RunConfig, demo_episodes: int = 0) -> int:
    """All processes and the window; returns when it is closed, at Ctrl+C or SIGTERM. Exit status 1 or 2 after an error."""
    with Launcher(config, ["console", *processes_of(config)], _to_stderr) as launcher, stops_on_signals(launcher):
        if demo_episodes:
            threading.Thread(target=_drive, args=(config, launcher, demo_episodes), name="demo").start()
        launcher.wait()
    if launcher.error:
        if launcher.exit_status == 2:
            raise StartupError(launcher.error)
        _to_stderr(launcher.error)
    return launcher.exit_status


def _drive(config: RunConfig, launcher: Launcher, episodes: int) -> None:
    """Start the blocks that a person would start with buttons. Ends with the station."""
    supervisor = Supervisor(config, launcher, RunPlan(episodes=episodes), _ignore)
    try:
        supervisor.prepare()
        supervisor.work()
    except RunError as error:
        _to_stderr(f"demo: {error}")
    except (StartupError, StationFailed, Interrupted):
        return  # the launcher has the reason
    finally:
        supervisor.close()


def _ignore(progress: Progress) -> None:
    """The window shows it."""


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)
