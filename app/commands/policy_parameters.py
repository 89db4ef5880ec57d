"""At which task parameters and control rate a version is judged: those it was trained at; other parameters may be asked for."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import tyro

from takeover.app.commands.options import parse_parameters, task_numbers
from takeover.app.commands.policy_rate import run_at
from takeover.app.processes.common import StartupError
from takeover.data.schema import RunConfig

if TYPE_CHECKING:
    from takeover.policies.manifest import Manifest

HELP = "Task parameters in the place of those that the version was trained at: --set clearance_m=0.002"
Parameters = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE", help_behavior_hint="", help=HELP)]
OWN = "the task's own parameters"
MAX_PROTOCOL = 64  # characters that the catalog has for it


@dataclass(frozen=True)
class Judged:
    """``config`` has task parameters and control rate; ``notes`` are said in the output: what was not as trained, or is not known."""

    config: RunConfig
    notes: tuple[str, ...]
    overridden: bool

    @property
    def as_json(self) -> dict[str, Any]:
        """What each of the JSON documents has besides."""
        config = self.config
        return {"task_parameters": dict(config.task_parameters), "control_hz": config.control_hz, "notes": list(self.notes)}

    def say(self) -> None:
        """Above what was found; in JSON they are part of the document."""
        for note in self.notes:
            print(note)

    def protocol(self, name: str) -> str:
        """Of an evaluation: a name of its own where parameters were overridden, so that it does not count as the usual one."""
        return f"{name} {text_of(self.config.task_parameters)}"[:MAX_PROTOCOL] if self.overridden else name


def text_of(parameters: dict[str, float]) -> str:
    from takeover.policies.outcomes import parameters_text

    return parameters_text(parameters) or OWN


def judged_at(config: RunConfig, manifest: "Manifest", given: tuple[str, ...], against: "Manifest | None" = None) -> Judged:
    """``given``: what follows ``--set``. ``against``: another version that is run beside it.

    Raises `StartupError`, also for control rates that the simulator does not have, or that differ.
    """
    hz, of_rate = run_at(manifest, against)
    asked, trained = asked_parameters(given), manifest.task_parameters
    parameters = (trained or {}) | asked
    at, name = text_of(parameters), f"version {manifest.version}"
    notes = []
    if asked:
        was = "at parameters that were not noted" if trained is None else f"at {text_of(trained)}"
        notes.append(f"warning: judged at {at} (--set); {name} was trained {was}")
    elif trained is None:
        notes.append(f"{name} has no note of the task parameters that it was trained at: judged at {OWN} (--set NAME=VALUE for others)")
    elif trained:
        notes.append(f"judged at {at}, as {name} was trained")
    if against is not None and against.task_parameters is not None and against.task_parameters != parameters:
        notes.append(f"warning: version {against.version} was trained at {text_of(against.task_parameters)}")
    at_both = msgspec.structs.replace(config, task_parameters=parameters, control_hz=hz)
    return Judged(at_both, (*notes, *of_rate), parameters != (trained or {}))


def asked_parameters(given: tuple[str, ...]) -> dict[str, float]:
    """``NAME=VALUE``, or ``task.NAME=VALUE`` as for the other commands. Raises `StartupError`."""
    groups = parse_parameters(tuple(pair if "." in pair.partition("=")[0] else f"task.{pair}" for pair in given))
    for group, values in groups.items():
        if group != "task" and values:
            raise StartupError(f"--set {group}.{next(iter(values))}: only parameters of the task count here")
    return task_numbers(groups["task"])
