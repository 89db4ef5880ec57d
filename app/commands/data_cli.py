"""`takeover data ...`: what has been recorded. Each action is a small command over `takeover.data`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from takeover.app.commands import data_ls, data_people, data_show, data_verify

ACTIONS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "ls": (data_ls.Ls, data_ls.ls),
    "show": (data_show.Show, data_show.show),
    "verify": (data_verify.Verify, data_verify.verify),
    "repair": (data_verify.Repair, data_verify.repair),
    "index": (data_verify.Index, data_verify.index),
    "people": (data_people.People, data_people.people),
    "forget": (data_people.Forget, data_people.forget),
}
"""Name -> (its options, what does it). Others may add theirs."""

DESCRIPTION = """What has been recorded: list it, look at it, check it, repair it.

  takeover data ls --task peg-insert --outcome failure --since 2026-05-01
  takeover data show 01jx...                  who drove when, what went wrong
  takeover data show 01jx... --sheet a.png    and what the cameras saw
  takeover data verify                        every file against its seal, its counts and the catalog
  takeover data repair                        recover what can be recovered; deletes nothing
  takeover data forget op-07                  take a person's pseudonym out, keep the steps
"""


@dataclass(frozen=True)
class Data:
    """What has been recorded: `takeover data ls`, `show`, `verify`, `repair`, `index`, `people`, `forget`."""

    arguments: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="ACTION")] = ()


def data(arguments: Sequence[str]) -> int:
    """What follows ``takeover data``. Raises `StartupError` for what the user must change."""
    command = tyro.extras.subcommand_cli_from_dict(
        {name: kind for name, (kind, _) in ACTIONS.items()},
        prog="takeover data",
        description=DESCRIPTION,
        args=list(arguments) or ["--help"],
        config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    handler = next(handler for kind, handler in ACTIONS.values() if type(command) is kind)
    return handler(command)
