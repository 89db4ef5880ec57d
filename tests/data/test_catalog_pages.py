"""Pages of the catalog: the plans, the order, what holds now beside the record, other servers, and catalogs of earlier versions."""

import random
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import event, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from benchmarks.catalog_plans import EPISODE_FILTERS, SEGMENT_FILTERS, plans_of, statements, whole_reads
from benchmarks.catalog_rows import fill
from takeover.data.catalog import Catalog, CatalogError, SegmentFilter
from takeover.data.catalog_current import fill_in, padded, refresh_episodes, refresh_sessions
from takeover.data.catalog_queries import episode_row
from takeover.data.catalog_tables import metadata, segments
from takeover.data.episode_pages import EpisodeFilter, episode_page
from takeover.data.labels import Labels
from takeover.data.training_labels import training_labels
from takeover.data.workspace import Workspace


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """600 episodes, 6000 segments, labelled."""
    workspace = Workspace(tmp_path_factory.mktemp("big"))
    with Catalog.open(workspace) as catalog:
        fill(catalog, 600, 6000)
        yield catalog


def test_no_page_reads_a_whole_table(big):
    plans = plans_of(big)
    assert len(plans) > 60
    for name, steps in plans.items():
        # the segments of named episodes and the events of one target are few: they are sorted
        allowed = ["USE TEMP B-TREE FOR ORDER BY"] if name.startswith(("segments episodes", "history")) else []
        assert [step for step in whole_reads(steps) if step not in allowed] == [], (name, steps)
        assert any("INDEX" in step or "PRIMARY KEY" in step for step in steps), (name, steps)


LEADING = {
    "version, task": "policy_version",
    "cause, task": "cause",
    "operator, kind": "operator",
    "session, version": "session_id",
    "task, open": "task_id",
    "several": "session_id",
    "cause open": "cause_done",
}


def test_the_filter_that_leaves_least_leads(big):
    plans = plans_of(big)
    for name, index in LEADING.items():
        for page in ("first", "deep"):
            assert f"INDEX segments_page_{index} " in plans[f"segments {name} {page}"][0], plans[f"segments {name} {page}"]


def test_the_check_of_plans_can_fail(big):
    with big.engine.connect() as connection:
        query = "EXPLAIN QUERY PLAN SELECT * FROM segments WHERE end_step = 7 ORDER BY end_s"
        steps = [str(row[3]) for row in connection.exec_driver_sql(query)]
    assert whole_reads(steps) == ["SCAN segments", "USE TEMP B-TREE FOR ORDER BY"]


def test_every_statement_and_table_is_written_for_another_server():
    dialect = postgresql.dialect()
    for name, statement in statements().items():
        sql = str(statement.compile(dialect=dialect))
        assert "SELECT" in sql, name
    for table in metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=dialect))
        for index in table.indexes:
            assert "CREATE INDEX" in str(CreateIndex(index).compile(dialect=dialect))


class _Printing:
    """A connection to a server that is not there: keeps what it would be told."""

    def __init__(self):
        self.said = []

    def execute(self, statement):
        self.said.append(str(statement.compile(dialect=postgresql.dialect())))


def test_what_keeps_the_columns_is_written_for_another_server():
    connection = _Printing()
    fill_in(connection)
    refresh_episodes(connection, ["a", "b"])
    refresh_sessions(connection, ["s"])
    assert len(connection.said) == 8
    assert all(sql.startswith("UPDATE ") for sql in connection.said)


def _passes(row, filters):
    labels = row.labels
    state = {
        "": True,
        "open": labels.get("review") != "submitted",
        "labeled": "cause" in labels,
        "done": labels.get("review") == "submitted",
    }
    return (
        (not filters.kinds or row.kind in filters.kinds)
        and (not filters.cause or labels.get("cause") == filters.cause)
        and filters.session_id in ("", row.session_id)
        and filters.task_id in ("", row.task_id)
        and filters.operator in ("", row.operator)
        and (filters.policy_version < 0 or row.policy_version == filters.policy_version)
        and (not filters.episode_ids or row.episode_id in filters.episode_ids)
        and row.started_ns >= filters.started_from_ns
        and (not filters.started_to_ns or row.started_ns < filters.started_to_ns)
        and (not filters.tag or f"tag:{filters.tag}" in labels)
        and state[filters.state]
    )


def test_filters_agree_with_a_plain_loop_over_all_rows(big):
    everything = big.segments(limit=None)
    assert len(everything) == 6000
    assert everything == sorted(everything, key=lambda row: (row.started_ns, row.id), reverse=True)
    rng = random.Random(0)
    for _ in range(60):
        chosen: dict = {}
        for filters in rng.sample([f for name, f in SEGMENT_FILTERS.items() if name not in ("several", "episodes")], rng.randint(1, 3)):
            chosen |= {name: value for name, value in vars(filters).items() if value != getattr(SegmentFilter(), name)}
        filters = SegmentFilter(**chosen)
        wanted = [row for row in everything if _passes(row, filters)]
        assert big.segments(filters, limit=None) == wanted
        assert big.count_segments(filters) == len(wanted)
        assert big.count_segments(filters, at_most=7) == min(7, len(wanted))
        assert big.segments(filters, limit=9, offset=4) == wanted[4:13]


@pytest.mark.parametrize("few", [5000, 40, 0])  # looked up first, some of them, none
def test_words_and_tags_find_the_same_whether_few_have_them_or_many(big, monkeypatch, few):
    monkeypatch.setattr("takeover.data.catalog_narrow.FEW", few)
    everything = big.segments(limit=None)
    found = 0
    for text in ("rim", "RIM 7", "force", "command", "safety", "0123", "submi", "true", "zzz", "100%", "a_b"):
        low = text.lower()
        wanted = [
            row for row in everything if any(low in part.lower() for part in (row.episode_id, row.detail, row.kind, *row.labels.values()))
        ]
        found += bool(wanted)
        assert big.segments(SegmentFilter(text=text), limit=None) == wanted, text
        assert big.count_segments(SegmentFilter(text=text)) == len(wanted)
        assert (
            big.segments(SegmentFilter(text=text, kinds=("takeover", "safety")), limit=5) == [r for r in wanted if r.kind != "failure"][:5]
        )
    assert found == 8
    tagged = [row for row in everything if "tag:slippery" in row.labels]
    assert tagged
    assert big.segments(SegmentFilter(tag="slippery"), limit=None) == tagged
    assert big.segments(SegmentFilter(tag="dry"), limit=None) == []


@pytest.mark.parametrize("filters", [SegmentFilter(), SegmentFilter(kinds=("takeover", "safety")), SegmentFilter(cause="force")])
def test_pages_by_place_are_the_whole_list(big, filters):
    found, place = [], None
    while rows := big.segments(filters, limit=700, place=place):
        found += rows
        place = (rows[-1].started_ns, rows[-1].id)
    assert found == big.segments(filters, limit=None)


def test_rows_of_the_same_moment_are_not_lost_between_pages(big, tmp_path):
    with Catalog.open(Workspace(tmp_path)) as catalog:
        fill(catalog, 20, 60)
        with catalog.writing() as connection:
            connection.execute(segments.update().values(started_ns=5))
        first = catalog.segments(limit=31)
        rest = catalog.segments(limit=100, place=(first[-1].started_ns, first[-1].id))
        assert len({row.id for row in first + rest}) == len(first + rest) == 60


def test_pages_of_episodes_agree_with_a_plain_loop(big):
    everything = big.episodes(newest_first=True)
    assert everything == big.episodes()[::-1]
    causes = {row.episode_id for row in big.segments(SegmentFilter(cause="force"), limit=None)}
    named = everything[17].id
    for choice in [*EPISODE_FILTERS.values(), EpisodeFilter(name=named[-6:]), EpisodeFilter(name=named)]:
        wanted = [
            row
            for row in everything
            if choice.task in ("", row.task_id)
            and choice.operator in ("", row.operator)
            and choice.policy_version in (-1, row.policy_version)
            and choice.outcome in ("", row.outcome)
            and choice.kind in ("", row.kind)
            and choice.session in ("", row.session_id)
            and (not choice.cause or row.id in causes)
            and (not choice.has_intervention or (row.takeovers > 0 and row.kind != "demonstration"))
            and row.started_ns >= choice.from_ns
            and (not choice.to_ns or row.started_ns < choice.to_ns)
            and (row.id.startswith(choice.name) or row.id.endswith(choice.name))
        ]
        with big.engine.connect() as connection:
            found = [episode_row(row._asdict()) for row in connection.execute(episode_page(choice, limit=None))]
            after = [
                episode_row(row._asdict())
                for row in connection.execute(episode_page(choice, 5, place=(wanted[2].started_ns, wanted[2].id) if wanted[3:] else None))
            ]
        assert found == wanted
        assert after == (wanted[3:8] if wanted[3:] else wanted[:5])


def test_ids_by_the_thousand(big):
    ids = [row.id for row in big.episodes()]
    assert big.episodes(ids=ids) == big.episodes()
    assert big.episodes(ids=ids, newest_first=True, limit=3, offset=550) == big.episodes(newest_first=True, limit=3, offset=550)


def test_sessions_count_what_is_there(big, tmp_path):
    assert [(row.episodes, row.steps) for row in big.sessions()] == [(200, 60_000)] * 3
    with Catalog.open(Workspace(tmp_path)) as catalog:
        fill(catalog, 10, 20)
        catalog.remove_episodes([row.id for row in catalog.episodes(limit=4)])
        assert [(row.episodes, row.steps) for row in catalog.sessions()] == [(6, 1800)]


def _version_1(workspace):
    connection = sqlite3.connect(workspace.catalog_path)
    connection.executescript((Path(__file__).parent / "files" / "catalog_v1.sql").read_text())
    connection.close()


def test_a_catalog_of_version_1_is_brought_up_to_date_with_everything_in_it(tmp_path):
    workspace = Workspace(tmp_path).prepare()
    _version_1(workspace)
    with Catalog.open(workspace) as catalog:
        first, second, third = catalog.episodes()
        assert (first.outcome, first.recorded_outcome, first.outcome_source, first.event_step) == ("failure", "success", "label", 39)
        assert (second.outcome, second.outcome_source, second.excluded) == ("failure", "task", False)
        assert third.excluded  # its maker discarded it
        assert [row.id for row in catalog.segments(SegmentFilter(state="done", session_id="s1"))] == ["s1-ep0000:t0"]
        assert [row.id for row in catalog.segments(SegmentFilter(cause="wear", task_id="pick-lift"))] == ["s1-ep0001:f0"]
        assert catalog.excluded_segments() == []
        assert [(row.episodes, row.steps) for row in catalog.sessions()] == [(3, 120)]
        assert [(row.successes, row.n) for row in catalog.evaluations()] == [(80, 200)]
        assert [row.version for row in catalog.policies()] == [1]
        labels = Labels(workspace, catalog)
        assert labels.redo("lab-01").value == "true"
        assert [row.id for row in catalog.excluded_segments()] == ["s1-ep0000:t0"]
        assert [step for steps in plans_of(catalog).values() for step in whole_reads(steps) if step.startswith("SCAN")] == []
    with Catalog.open(workspace) as again, again.engine.connect() as connection:
        assert again.episodes()[0].outcome == "failure"
        made = {row[0]: row[1] for row in connection.exec_driver_sql("SELECT name, tbl_name FROM sqlite_master WHERE type = 'index'")}
    wanted = {index.name for table in metadata.sorted_tables for index in table.indexes}
    assert {name for name in made if not name.startswith("sqlite_")} == wanted


def test_a_migration_that_is_cut_short_leaves_the_old_catalog(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path).prepare()
    _version_1(workspace)

    def fail(_):
        raise ValueError("the power went")

    with monkeypatch.context() as patch:
        patch.setattr("takeover.data.catalog_migrate.fill_in", fail)
        with pytest.raises(CatalogError, match="the power went"):
            Catalog.open(workspace)
    connection = sqlite3.connect(workspace.catalog_path)
    columns = {row[1] for row in connection.execute("PRAGMA table_info(episodes)")}
    assert "current_outcome" not in columns
    connection.close()
    with Catalog.open(workspace) as catalog:
        assert catalog.episodes()[0].outcome == "failure"


def test_a_catalog_of_a_later_version_is_refused(tmp_path):
    workspace = Workspace(tmp_path).prepare()
    with Catalog.open(workspace) as catalog, catalog.writing() as connection:
        connection.exec_driver_sql("UPDATE meta SET value = 99 WHERE name = 'version'")
    with pytest.raises(CatalogError, match=r"version 99.*the program that wrote it"):
        Catalog.open(workspace)


def test_a_deep_page_costs_no_more_than_the_first(big):
    with big.engine.connect() as connection:
        oldest = connection.execute(select(segments.c.started_ns, segments.c.id).order_by(segments.c.started_ns).offset(3).limit(1)).one()
    assert len(big.segments(limit=50, place=tuple(oldest))) == 3


def test_lists_of_every_length_are_few_statements(tmp_path):
    """A connection keeps what it prepared: one more for each number of ids, and a station's evaluator grew for as long as it ran."""
    seen: set[str] = set()
    with Catalog.open(tmp_path) as catalog:
        event.listen(catalog.engine, "before_cursor_execute", lambda connection, cursor, statement, *rest: seen.add(statement))
        for count in range(1, 301):
            catalog.episodes(ids=[f"e{number}" for number in range(count)])
            training_labels(catalog, [f"e{number}" for number in range(count)])
    assert len(seen) <= 2 * 10


@pytest.mark.parametrize(("count", "size"), [(0, 0), (1, 1), (2, 2), (3, 4), (256, 256), (257, 500), (500, 500)])
def test_padding_adds_no_id(count, size):
    ids = [f"e{number}" for number in range(count)]
    assert len(padded(ids)) == size
    assert set(padded(ids)) == set(ids)
