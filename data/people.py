"""People are pseudonyms with a consent version. Who they are in catalog and labels, and how one is forgotten."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, func, insert, select, update

from takeover.data.catalog import Catalog
from takeover.data.catalog_tables import episodes, label_events, metadata, people, segments
from takeover.data.entry import Entry

FORGOTTEN = "forgotten-"
"""Pseudonym of somebody who was forgotten, with a number."""
NOBODY = ("", "scripted", "none")
"""What stands for no person in a record."""
CONSOLE = "console-"
"""What a console calls itself is this and its person."""
FREE_TEXT = ("note", "subtask")
"""Label fields in which anything may stand."""
_PERSON_COLUMNS = ("operator", "author", "person")


class PeopleError(ValueError):
    """Nobody of that name, or a name that cannot be forgotten. Says what to do."""


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """What the workspace knows of one pseudonym."""

    id: str
    consent_version: str  # "": not noted
    episodes: int
    steps: int
    human_steps: int
    label_events: int
    decisions: int = 0  # about policies
    takeovers: int = 0  # in anybody's episodes


def note_operators(catalog: Catalog, entry: Entry) -> None:
    """Enter everybody who drove an episode into the table of people, with the newest consent that is noted."""
    for driver in entry.people:
        if driver.name not in NOBODY:
            _note(catalog, driver.name, driver.consent_version, entry.episode["started_ns"])


def _note(catalog: Catalog, person: str, consent: str, created_ns: int) -> None:
    with catalog.engine.connect() as connection:
        known = connection.execute(select(people.c.consent_version).where(people.c.id == person)).scalar()
    if known is not None and (not consent or known == consent):
        return
    with catalog.writing() as connection:
        if known is None:
            row = {"id": person, "role": "operator", "consent_version": consent, "created_ns": created_ns}
            connection.execute(insert(people), [row])
        else:
            connection.execute(update(people).where(people.c.id == person).values(consent_version=consent))


def list_people(catalog: Catalog, decided: Mapping[str, int] | None = None) -> list[Person]:
    """Everybody who operated, took over, labelled or decided, by name; ``episodes`` and steps are of those that they were operator of.

    ``decided``: decisions about policies by author.
    """
    decisions = decided or {}
    operated = select(episodes.c.operator, func.count(), func.sum(episodes.c.steps), func.sum(episodes.c.human_steps))
    labelled = select(label_events.c.author, func.count()).group_by(label_events.c.author)
    took_over = select(segments.c.operator, func.count()).where(segments.c.kind == "takeover").group_by(segments.c.operator)
    with catalog.engine.connect() as connection:
        consent = {row.id: row.consent_version for row in connection.execute(select(people))}
        work = {row[0]: row[1:] for row in connection.execute(operated.group_by(episodes.c.operator))}
        takeovers = {row[0]: row[1] for row in connection.execute(took_over)}
        labels: Counter[str] = Counter()
        for author, count in connection.execute(labelled):
            labels[author.removeprefix(CONSOLE)] += count
    return [
        Person(
            id=name,
            consent_version=consent.get(name, ""),
            episodes=int(work.get(name, (0, 0, 0))[0]),
            steps=int(work.get(name, (0, 0, 0))[1] or 0),
            human_steps=int(work.get(name, (0, 0, 0))[2] or 0),
            label_events=labels[name],
            decisions=decisions.get(name, 0),
            takeovers=takeovers.get(name, 0),
        )
        for name in sorted({*consent, *work, *labels, *decisions, *takeovers} - set(NOBODY))
    ]


def next_forgotten(catalog: Catalog, others: Iterable[str] = ()) -> str:
    """``forgotten-<n>`` that nobody has yet, in the catalog or among ``others``."""
    numbers = [0, *(int(n) for other in others if other.startswith(FORGOTTEN) and (n := other.removeprefix(FORGOTTEN)).isdecimal())]
    with catalog.engine.connect() as connection:
        for table, column in _person_columns():
            found = connection.execute(select(table.c[column]).where(table.c[column].like(f"{FORGOTTEN}%")).distinct()).scalars()
            numbers += [int(name.removeprefix(FORGOTTEN)) for name in found if name.removeprefix(FORGOTTEN).isdecimal()]
        found = connection.execute(select(people.c.id).where(people.c.id.like(f"{FORGOTTEN}%"))).scalars()
        numbers += [int(name.removeprefix(FORGOTTEN)) for name in found if name.removeprefix(FORGOTTEN).isdecimal()]
    return f"{FORGOTTEN}{1 + max(numbers)}"


def _person_columns() -> list[tuple[Any, str]]:
    """Every column of the catalog that holds a pseudonym, whatever table it is in."""
    return [(table, name) for table in metadata.sorted_tables for name in _PERSON_COLUMNS if name in table.c]


def mentions(person: str) -> "re.Pattern[bytes]":
    """Finds a pseudonym as a word of its own in bytes, in the name of that person's console (``console-<person>``) too."""
    return re.compile(rb"(?:(?<![0-9A-Za-z_-])|(?<=(?<![0-9A-Za-z_-])console-))" + re.escape(person.encode()) + rb"(?![0-9A-Za-z_-])")


def replaced(text: str, person: str, name: str) -> str:
    """``text`` with the pseudonym replaced where it stands as a word of its own."""
    return mentions(person).sub(name.encode(), text.encode()).decode()


def forget_in_catalog(catalog: Catalog, person: str, name: str) -> None:
    """Put ``name`` for ``person`` in every table, in the text of labels too, and leave nothing of it in the database's free pages."""
    with catalog.writing() as connection:
        for table, column in _person_columns():
            for prefix in ("", CONSOLE):
                connection.execute(update(table).where(table.c[column] == prefix + person).values({column: prefix + name}))
        for table in metadata.sorted_tables:
            _forget_in_texts(connection, table, person, name)
        row = connection.execute(select(people).where(people.c.id == person)).first()
        if row is not None:
            connection.execute(people.delete().where(people.c.id == person))
            connection.execute(insert(people), [dict(row._mapping) | {"id": name}])
    if catalog.engine.dialect.name == "sqlite":
        with catalog.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def _forget_in_texts(connection: Connection, table: Any, person: str, name: str) -> None:
    """Labels' free text may name somebody."""
    if "field" not in table.c:
        return
    for column in ("value", "previous"):
        if column not in table.c:
            continue
        query = select(table.c[column]).where(table.c.field.in_(FREE_TEXT), table.c[column].contains(person, autoescape=True)).distinct()
        for text in list(connection.execute(query).scalars()):
            changed = replaced(text, person, name)
            if changed != text:
                where = (table.c.field.in_(FREE_TEXT)) & (table.c[column] == text)
                connection.execute(update(table).where(where).values({column: changed}))


def files_that_mention(root: Path, person: str, skip: set[Path]) -> list[Path]:
    """Files below ``root`` with the pseudonym in them, apart from those that are, or are in, one of ``skip``."""
    end = re.compile(re.escape(person.encode()) + rb"(?![0-9A-Za-z_-])")  # in binary files anything may stand before it
    paths = [path for path in sorted(root.rglob("*")) if path.is_file() and path not in skip and not skip.intersection(path.parents)]
    return [path for path in paths if holds(path, end)]


def holds(path: Path, pattern: "re.Pattern[bytes]") -> bool:
    """Whether a file has what ``pattern`` finds. A file that cannot be read has not."""
    block, overlap, tail = 1 << 22, 256, b""
    try:
        with path.open("rb") as stream:
            while part := stream.read(block):
                if pattern.search(tail + part):
                    return True
                tail = part[-overlap:]
    except OSError:
        return False
    return False
