"""The catalog on a PostgreSQL server: its own tests, a catalog of version 1, two processes at once.

Skipped unless TAKEOVER_TEST_DATABASE_URL names a server whose user may make schemas (docs/labels.md says what was tried).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import MetaData, create_engine, insert, inspect, select, text
from sqlalchemy.pool import StaticPool

from benchmarks.catalog_plans import statements
from benchmarks.catalog_rows import fill
from takeover.app.cli import main
from takeover.data.catalog import Catalog, SegmentFilter
from takeover.data.catalog_tables import metadata
from takeover.data.labels import Labels
from takeover.data.workspace import Workspace

SERVER = os.environ.get("TAKEOVER_TEST_DATABASE_URL", "")
ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
MODULES = ("test_catalog_labels", "test_catalog_pages", "test_claims", "test_people", "test_selection_verify", "test_recorder")
pytestmark = pytest.mark.skipif(not SERVER, reason="no database server: name one with TAKEOVER_TEST_DATABASE_URL")


@pytest.fixture
def url():
    from tests.data.on_server import drop_schemas, schema_url

    schema_url("tk_server_test")
    drop_schemas()  # what a run that was killed left there
    yield schema_url("tk_server_test")
    drop_schemas()


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=115,
        check=False,
    )


@pytest.mark.parametrize("module", MODULES)
def test_what_holds_on_sqlite_holds_on_a_server(module):
    done = run("-m", "pytest", "-p", "tests.data.on_server", "-p", "no:cacheprovider", f"tests/data/{module}.py", "--tb=short")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_every_statement_runs_and_gives_what_sqlite_gives(url, tmp_path):
    with Catalog(url) as there, Catalog.open(Workspace(tmp_path)) as here:
        for catalog in (there, here):
            fill(catalog, 300, 3000)
        for name, statement in statements().items():
            answers = []
            for catalog in (there, here):
                with catalog.engine.connect() as connection:
                    answers.append([tuple(row) for row in connection.execute(statement)])
            assert answers[0] == answers[1], name


def test_a_station_file_puts_the_catalog_there_for_one_workspace_alone(url, tmp_path, capsys):
    first, second = (Workspace(tmp_path / name).prepare() for name in ("first", "second"))
    for workspace in (first, second):
        workspace.station_path.write_text(f'catalog = "{url}"\n')
    with Catalog.open(first) as catalog:
        assert catalog.on_server
        fill(catalog, 30, 300)
    assert not first.catalog_path.exists()
    assert main(["data", "ls", "--json", "--workspace", str(first.path)]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == 30
    for command in ("ls", "repair"):
        assert main(["data", command, "--workspace", str(second.path)]) != 0
        assert "holds the catalog of another workspace" in capsys.readouterr().err


def test_ids_are_in_the_same_order_on_every_server(url, tmp_path):
    """A server's own collation may put "a" before "B" and "-" nowhere; pages are merged and continued by plain comparison."""
    from tests.data.test_catalog_labels import _episode, _segment

    names = ["B", "a", "Z-1", "z_1", "Za", "ab", "a-c", "0", "~"]
    with Catalog(url) as there, Catalog.open(Workspace(tmp_path)) as here:
        for catalog in (there, here):
            for name in names:
                session = {"id": "s", "station_id": "", "robot_id": "r", "task_id": "t", "operator": "o", "started_ns": 1}
                session |= {"software": "", "config_sha256": ""}
                kinds = [(f"{name}:{kind}0", kind_name) for kind, kind_name in (("t", "takeover"), ("f", "failure"))]
                rows = [_segment(0) | {"id": id_, "episode_id": name, "kind": kind, "started_ns": 5} for id_, kind in kinds]
                catalog.add_episode(session, _episode(0) | {"id": name, "started_ns": 5}, rows)
        for filters in (None, SegmentFilter(kinds=("takeover", "failure"))):
            paged, place = [], None
            while rows := there.segments(filters, limit=3, place=place):
                paged += rows
                place = (rows[-1].started_ns, rows[-1].id)
            assert [row.id for row in paged] == [row.id for row in here.segments(filters)] == sorted((r.id for r in paged), reverse=True)
        assert [row.id for row in there.episodes()] == sorted(names)


def test_a_catalog_of_version_1_is_brought_up_to_date(url, tmp_path):
    make_version_1(url)
    with Catalog(url) as catalog:
        first, second, third = catalog.episodes()
        assert (first.outcome, first.recorded_outcome, first.event_step) == ("failure", "success", 39)
        assert (second.outcome, second.excluded, third.excluded) == ("failure", False, True)
        assert [row.id for row in catalog.segments(SegmentFilter(cause="wear", task_id="pick-lift"))] == ["s1-ep0001:f0"]
        assert [(row.episodes, row.steps) for row in catalog.sessions()] == [(3, 120)]
        labels = Labels(Workspace(tmp_path).prepare(), catalog)
        assert labels.redo("lab-01").value == "true"
        labels.add_label("s1-ep0001:f0", "note", "still counted on", "lab-01")
    with Catalog(url) as again:
        found = inspect(again.engine)
        for table in metadata.sorted_tables:
            assert {index.name for index in table.indexes} <= {index["name"] for index in found.get_indexes(table.name)}
            assert {column.name for column in table.columns} == {column["name"] for column in found.get_columns(table.name)}


def make_version_1(url):
    """Tables and rows as the program of that time would have made them on a server."""
    memory, engine = create_engine("sqlite://", poolclass=StaticPool), create_engine(url)
    memory.raw_connection().executescript((Path(__file__).parent / "files" / "catalog_v1.sql").read_text())
    old = MetaData()
    old.reflect(memory)
    with memory.connect() as source, engine.begin() as target:
        for table in old.sorted_tables:
            for column in table.columns:  # REAL and FLOAT are what SQLAlchemy calls Float on either
                column.type = column.type.as_generic()
            for constraint in list(table.constraints):
                constraint.name = None
        old.create_all(target)
        for table in old.sorted_tables:
            rows = [dict(row._mapping) for row in source.execute(select(table))]
            if rows:
                target.execute(insert(table), rows)
        for name, column in (("labels", "number"), ("evaluations", "id")):
            target.execute(text(f"SELECT setval(pg_get_serial_sequence('{name}', '{column}'), (SELECT max({column}) FROM {name}))"))
    engine.dispose()


WORK = """
import json, sys
from takeover.data.catalog import Catalog
from takeover.data.claims import Claims
from takeover.data.labels import Labels
from takeover.data.workspace import Workspace
url, folder, name = sys.argv[1:]
got = []
with Catalog(url) as catalog:
    claims, labels = Claims(catalog), Labels(Workspace(folder), catalog)
    while (row := claims.next(name)) is not None:
        got.append(row.id)
        labels.add_label(row.id, "review", "submitted", name)
print(json.dumps(got))
"""


def test_two_processes_share_out_every_segment(url, tmp_path):
    workspace = Workspace(tmp_path).prepare()
    with Catalog(url) as catalog:
        fill(catalog, 30, 90)
        wanted = sorted(row.id for row in catalog.segments(SegmentFilter(state="open"), limit=None))
        started = [
            subprocess.Popen(
                [sys.executable, "-c", WORK, url, str(workspace.path), name],
                env=ENVIRONMENT,
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in ("one", "two")
        ]
        shares = [json.loads(process.communicate(timeout=60)[0]) for process in started]
        assert sorted(shares[0] + shares[1]) == wanted
        assert all(shares), "both had some"
        assert catalog.count_segments(SegmentFilter(state="open")) == 0
        labels = Labels(workspace, catalog)
        assert len([event for event in labels.events_since(0) if event.author in ("one", "two")]) == len(wanted)


def test_two_processes_make_the_catalog_at_the_same_moment(url):
    opening = "import sys; from takeover.data.catalog import Catalog; Catalog(sys.argv[1]).close()"
    started = [subprocess.Popen([sys.executable, "-c", opening, url], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in started:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors[-2000:]
