"""Bringing the catalog of an earlier version up to date, in place and in one transaction: what is in no file (evaluations) stays."""

from typing import Any

from sqlalchemy import Connection, Table, inspect, select, text, update
from sqlalchemy.schema import CreateColumn, CreateTable

from takeover.data.catalog_current import fill_in
from takeover.data.catalog_tables import CATALOG_VERSION, meta, metadata

OLDEST = 1


def migrate(connection: Connection, version: int) -> None:
    """Add the tables, columns and indexes that ``version`` lacks and fill them in. Raises `ValueError` for a version it does not know.

    Only additions: a column that is new has a default, so that rows written before have a value.
    """
    if not OLDEST <= version < CATALOG_VERSION:
        raise ValueError(f"catalogs of version {OLDEST} to {CATALOG_VERSION - 1} can be brought up to date, not version {version}")
    # a change first, so that SQLite takes its write lock and everything below is one transaction
    connection.execute(update(meta).where(meta.c.name == "version").values(value=meta.c.value))
    if connection.execute(select(meta.c.value).where(meta.c.name == "version")).scalar() != version:
        return  # another process was first
    there = inspect(connection)
    known = set(there.get_table_names())
    for table in metadata.sorted_tables:
        if table.name not in known:
            connection.execute(CreateTable(table))
        else:
            _add_columns(connection, table, {column["name"]: column for column in there.get_columns(table.name)})
        present = there.get_indexes(table.name) if table.name in known else []
        # a server lists an index for each UNIQUE too, which goes with its constraint only
        indexes = {index["name"] for index in present if not index.get("duplicates_constraint")}
        wanted = {index.name for index in table.indexes}
        for name in sorted(str(name) for name in indexes - wanted if name):
            connection.execute(text(f"DROP INDEX {connection.dialect.identifier_preparer.quote(name)}"))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            if index.name not in indexes:
                index.create(connection)
    fill_in(connection)
    connection.execute(update(meta).where(meta.c.name == "version").values(value=CATALOG_VERSION))


def _add_columns(connection: Connection, table: Table, present: dict[str, Any]) -> None:
    quote = connection.dialect.identifier_preparer
    name = quote.format_table(table)
    for column in table.columns:
        if column.name not in present:
            made = str(CreateColumn(column).compile(dialect=connection.dialect))
            connection.execute(text(f"ALTER TABLE {name} ADD COLUMN {made}"))
        elif connection.dialect.name != "sqlite" and getattr(column.type, "length", None):
            kind, had = column.type.compile(dialect=connection.dialect), present[column.name]["type"]
            if had.compile(dialect=connection.dialect) != kind:  # shorter, or in another order; SQLite takes no notice of either
                connection.execute(text(f"ALTER TABLE {name} ALTER COLUMN {quote.format_column(column)} TYPE {kind}"))
