"""The catalog's row of an episode against what its file says. Labels are left out: they stand over the record."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import select

from takeover.data.catalog import Catalog
from takeover.data.catalog_tables import episodes
from takeover.data.entry import Entry


class Difference(NamedTuple):
    """A column in which the catalog is wrong."""

    column: str
    noted: Any
    stored: Any


def recorded_row(catalog: Catalog, episode_id: str) -> Mapping[str, Any] | None:
    """The row as it was entered, without labels; None when there is none."""
    with catalog.engine.connect() as connection:
        row = connection.execute(select(episodes).where(episodes.c.id == episode_id)).first()
    return None if row is None else dict(row._mapping)


def differences(entry: Entry, row: Mapping[str, Any]) -> list[Difference]:
    """Columns of ``row`` that say something else than the file ``entry`` was made of."""
    return [Difference(name, row[name], value) for name, value in entry.episode.items() if name in row and row[name] != value]
