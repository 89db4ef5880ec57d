"""A pytest plugin: every workspace's catalog is a schema of its own on the server at TAKEOVER_TEST_DATABASE_URL.

TAKEOVER_TEST_DATABASE_URL=postgresql+psycopg://user@host/db python -m pytest -p tests.data.on_server tests/data/test_claims.py
"""

import hashlib
import os

import pytest
from sqlalchemy import create_engine, make_url, text

from takeover.data.workspace import Workspace

SERVER = os.environ.get("TAKEOVER_TEST_DATABASE_URL", "")
SQLITES_OWN = {  # plans, files and damage of SQLite; catalogs of version 1 were never on a server (test_server.py makes one)
    "test_no_page_reads_a_whole_table",
    "test_the_filter_that_leaves_least_leads",
    "test_the_check_of_plans_can_fail",
    "test_a_broken_or_foreign_catalog_says_what_to_do",
    "test_labels_survive_the_loss_of_the_catalog_and_a_torn_last_line",
    "test_a_catalog_of_version_1_is_brought_up_to_date_with_everything_in_it",
    "test_a_migration_that_is_cut_short_leaves_the_old_catalog",
    "test_a_person_is_forgotten_and_every_step_is_kept",
}
_made: set[str] = set()


def schema_url(schema: str) -> str:
    """The server's URL with ``schema``, made when there is none, as the place of all tables."""
    url = make_url(SERVER)
    if schema not in _made:
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
        engine.dispose()
        _made.add(schema)
    return url.update_query_dict({"options": f"-csearch_path={schema}"}).render_as_string(hide_password=False)


def drop_schemas() -> None:
    engine = create_engine(SERVER)
    for schema in sorted(_made):
        with engine.begin() as connection:
            connection.execute(text(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE'))
    _made.clear()
    engine.dispose()


def catalog_url(workspace: Workspace) -> str:
    if workspace.path.is_dir():
        workspace.catalog_path.touch()  # commands ask for it before they open a catalog
    return schema_url("tk_" + hashlib.sha256(str(workspace.path).encode()).hexdigest()[:16])


def pytest_configure(config: pytest.Config) -> None:
    if not SERVER:
        raise pytest.UsageError("name a server with TAKEOVER_TEST_DATABASE_URL")
    Workspace.catalog_url = property(catalog_url)  # type: ignore[assignment, method-assign]


def pytest_unconfigure(config: pytest.Config) -> None:
    drop_schemas()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if getattr(item, "originalname", item.name) in SQLITES_OWN:
            item.add_marker(pytest.mark.skip(reason="about SQLite itself"))
