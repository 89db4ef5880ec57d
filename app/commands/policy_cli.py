"""`takeover policy ...`: what has been learned, what is trusted, what may act."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from takeover.app.commands import (
    policy_absorb,
    policy_decide,
    policy_evaluate,
    policy_probes,
    policy_progress,
    policy_retest,
    policy_show,
)

ACTIONS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "ls": (policy_show.Ls, policy_show.ls),
    "show": (policy_show.Show, policy_show.show),
    "promote": (policy_decide.Promote, policy_decide.promote),
    "rollback": (policy_decide.Rollback, policy_decide.rollback),
    "evaluate": (policy_evaluate.Evaluate, policy_evaluate.evaluate),
    "probes": (policy_probes.Probes, policy_probes.probes),
    "retest": (policy_retest.Retest, policy_retest.retest),
    "absorb": (policy_absorb.Absorb, policy_absorb.absorb),
    "steps-to-go": (policy_progress.StepsToGo, policy_progress.steps_to_go),
}
"""Name -> (its options, what does it)."""

DESCRIPTION = """What has been learned, what is trusted, and what may act.

  takeover policy ls                          versions, their held-out success, and what was decided
  takeover policy show 12                     one version: where it comes from, its results, its decisions
  takeover policy promote 12                  trust it
  takeover policy rollback                    back to the trusted one; `rollback 7` to version 7
  takeover policy rollback --release          the newest acts again
  takeover policy evaluate 12                 alone on the held-out starts
  takeover policy evaluate 12 --against trusted --decide
                                              what the gate does
  takeover policy probes 12 --against trusted  from the no-help probes recorded in normal work
  takeover policy retest 12 --against 7       from every recorded takeover and failure
  takeover policy absorb 12                   did it take up what people corrected?
  takeover policy absorb --all                the same of every version that has no result yet
  takeover policy steps-to-go                 fit the head that says how far a run is from success
"""


@dataclass(frozen=True)
class Policy:
    """What has been learned. `takeover policy ls`, `show`, `promote`, `rollback`, `evaluate`, `probes`, `retest`, `absorb`..."""

    arguments: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="ACTION")] = ()


def policy(arguments: Sequence[str]) -> int:
    """What follows ``takeover policy``. Raises `StartupError` for what the user must change."""
    command = tyro.extras.subcommand_cli_from_dict(
        {name: kind for name, (kind, _) in ACTIONS.items()},
        prog="takeover policy",
        description=DESCRIPTION,
        args=list(arguments) or ["--help"],
        config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    handler = next(handler for kind, handler in ACTIONS.values() if type(command) is kind)
    return handler(command)
