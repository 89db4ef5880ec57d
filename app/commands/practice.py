"""`takeover practice`: the policy drives with nobody there, slowly, until it has failed too often."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from takeover.app.commands.display import has_display
from takeover.app.commands.options import StationOptions, make_config
from takeover.app.commands.progress import progress_display
from takeover.app.commands.run import processes_of, stops_on_signals, write_json
from takeover.app.launcher import Launcher
from takeover.app.processes.common import StartupError
from takeover.app.supervisor import RunPlan, Supervisor
from takeover.data.schema import Outcome
from takeover.data.statistics import wilson

MAX_FAILURES = 1000


@dataclass(frozen=True)
class Practice(StationOptions):
    """Unattended practice: slow mode, half the forces, outcomes by the task alone; ends after a budget of failures. A person who takes
    over ends it."""

    episodes: Annotated[int, tyro.conf.arg(metavar="N")] = 20
    failures: Annotated[int, tyro.conf.arg(metavar="K")] = 5
    """It ends when so many episodes have failed or were aborted."""
    window: bool = False
    """Open the app beside it, to watch and to take over."""
    summary: Annotated[str, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = ""
    """Write what came of it as JSON to this file."""


def practice(command: Practice) -> int:
    """Exit status 1 when the budget of failures was used up."""
    if command.episodes < 1:
        raise StartupError(f"--episodes {command.episodes}: at least 1")
    if not 1 <= command.failures <= MAX_FAILURES:
        raise StartupError(f"--failures {command.failures}: 1 to {MAX_FAILURES}")
    if command.window and not has_display():
        raise StartupError("--window: there is no display")
    config = make_config(command, operator="none")
    names = [*(["console"] if command.window else []), *processes_of(config)]
    plan = RunPlan(episodes=command.episodes, max_failures=command.failures)
    with progress_display() as display, Launcher(config, names, display.note) as launcher, stops_on_signals(launcher):
        supervisor = Supervisor(config, launcher, plan, display.show)
        try:
            episodes = supervisor.practise()
        finally:
            supervisor.close()
    outcomes = [episode.end.outcome for episode in episodes]
    successes = outcomes.count(Outcome.SUCCESS)
    failed = len(outcomes) - successes
    low, high = wilson(successes, len(outcomes)) if outcomes else (0.0, 1.0)
    ended = failed >= command.failures
    print(f"unattended practice: {successes} of {len(outcomes)} succeeded (95 %: {low:.2f} to {high:.2f})")
    if supervisor.ended:
        print(f"ended: {supervisor.ended}")
    elif ended:
        print(f"ended after {failed} failures; {command.episodes - len(outcomes)} episodes were not tried")
    if command.summary:
        content = {"episodes": len(outcomes), "asked_for": command.episodes, "successes": successes, "interval": [low, high]}
        write_json(Path(command.summary), content | {"budget": command.failures, "ended_by_failures": ended, "ended": supervisor.ended})
    return 1 if ended else 0
