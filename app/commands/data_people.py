"""`takeover data people` and `forget`."""

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from takeover.app.commands.data_options import Where, existing, opened_catalog, print_json
from takeover.app.commands.data_verify import STOPPED, counted
from takeover.app.commands.progress import listing, print_table
from takeover.app.processes.common import EXIT_BAD_INPUT, StartupError


@dataclass(frozen=True)
class People:
    """Who operated and labelled: pseudonyms, consent, how much."""

    json: Annotated[bool, tyro.conf.arg(help="One JSON document on stdout.")] = False
    workspace: Where = ""


def people(command: People) -> int:
    """Returns 0."""
    from takeover.data.decision_people import decision_authors
    from takeover.data.people import list_people

    workspace = existing(command.workspace)
    with opened_catalog(workspace) as catalog:
        found = list_people(catalog, decision_authors(workspace))
    if command.json:
        print_json(found)
        return 0
    table = listing(str(workspace.path))
    for column in ("person", "consent", "episodes", "steps", "by hand", "takeovers", "label events", "decisions"):
        table.add_column(column, no_wrap=True)
    for person in found:
        counts = (person.episodes, person.steps, person.human_steps, person.takeovers, person.label_events, person.decisions)
        table.add_row(person.id, person.consent_version or "not noted", *(f"{count:,}" for count in counts))
    print_table(table)
    return 0


@dataclass(frozen=True)
class Forget:
    """Replace a person's pseudonym by forgotten-N in files, catalog, labels and decisions; every step is kept. Cannot be undone."""

    person: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PERSON")]
    """The pseudonym."""
    by: Annotated[str, tyro.conf.arg(metavar="NAME", help="Who does it, for the audit log.")] = "data"
    yes: bool = False
    """Do it; without this only what would be done is said."""
    json: Annotated[bool, tyro.conf.arg(help="One JSON document on stdout.")] = False
    workspace: Where = ""


def forget(command: Forget) -> int:
    """Returns 0; 1 when something could not be done; 2 without ``--yes``; 130 when it was stopped (the next call goes on)."""
    from takeover.data.forget import forget as forget_person
    from takeover.data.people import PeopleError
    from takeover.data.workspace import WorkspaceError

    workspace = existing(command.workspace)
    if not command.yes:
        return _say_what(command)
    try:
        with counted("forget") as (progress, stop):
            report = forget_person(workspace, command.person, command.by or "data", progress, stop)
    except (PeopleError, WorkspaceError) as error:
        raise StartupError(str(error)) from error
    if command.json:
        print_json(report)
    else:
        counts = f"{report.journals} journals, {report.label_events} label events, {report.decisions} decisions"
        print(f"{report.name}: {report.episodes} episode files made anew, {counts}")
        for line in [*report.notes, *(f"not done: {line}" for line in report.left)]:
            print(line)
        for path in report.remains:
            print(f"still mentioned in {path}: look at it, and remove it or the word when it is not needed")
    if stop.is_set() and not report.finished:
        return STOPPED
    return 0 if report.finished else 1


def _say_what(command: Forget) -> int:
    from takeover.data.decision_people import decision_authors
    from takeover.data.people import list_people

    workspace = existing(command.workspace)
    with opened_catalog(workspace) as catalog:
        found = [person for person in list_people(catalog, decision_authors(workspace)) if person.id == command.person]
    if not found:
        raise StartupError(f"nobody is called {command.person!r} in {workspace.path}; `takeover data people` lists who is")
    count = found[0]
    what = f"{count.episodes} episodes, {count.label_events} label events and {count.decisions} decisions name {count.id!r}"
    print(f"{what}; this cannot be undone: add --yes to do it", file=sys.stderr)
    return EXIT_BAD_INPUT
