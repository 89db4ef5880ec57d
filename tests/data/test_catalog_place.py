"""Where a workspace's catalog is, and what is said when it cannot be there."""

from pathlib import Path

import pytest

from takeover.app.cli import main
from takeover.data.catalog import Catalog, CatalogError
from takeover.data.catalog_place import ID_FILE, claim, engine_of, has_catalog, shown, url_of
from takeover.data.station import StationError, default_station_text, load_station
from takeover.data.workspace import Workspace

NOBODY_LISTENS = "postgresql+pg8000nonexistent://user:geheim@127.0.0.1:1/lab"


def station(workspace: Workspace, catalog: str) -> Path:
    workspace.station_path.write_text(default_station_text().replace('catalog = ""', f'catalog = "{catalog}"'))
    return workspace.station_path


def test_without_a_word_it_is_the_workspaces_own_file(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert not has_catalog(workspace)
    station(workspace, "")
    assert url_of(workspace) == workspace.catalog_url
    Catalog.open(workspace).close()
    assert has_catalog(workspace)
    assert not (tmp_path / ID_FILE).exists()


def test_the_station_file_names_a_server(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    station(workspace, "postgresql+psycopg://user@host/lab")
    assert url_of(workspace) == load_station(workspace.station_path).catalog == "postgresql+psycopg://user@host/lab"
    assert has_catalog(workspace)


@pytest.mark.parametrize("wrong", ["sqlite:///elsewhere.sqlite", "host/lab", "postgresql", "://host"])
def test_what_is_no_server_is_refused_with_its_line(tmp_path: Path, wrong: str) -> None:
    path = station(Workspace(tmp_path), wrong)
    line = path.read_text().splitlines().index(next(row for row in path.read_text().splitlines() if row.startswith("catalog"))) + 1
    with pytest.raises(StationError, match=f"line {line}: catalog is .*allowed: the URL of a database server"):
        load_station(path)


def test_a_database_nobody_can_open_is_named_without_its_password(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = Workspace(tmp_path).prepare()
    station(workspace, NOBODY_LISTENS)
    with pytest.raises(CatalogError, match="names no database") as found:
        Catalog.open(workspace)
    for command in (["data", "ls"], ["data", "repair"], ["data", "verify"], ["data", "labels", "agreement"]):
        assert main([*command, "--workspace", str(tmp_path)]) != 0
        said = capsys.readouterr().err
        assert "names no database" in said
        assert "geheim" not in said
        assert "Traceback" not in said
    assert "geheim" not in str(found.value)
    assert shown(NOBODY_LISTENS).startswith("postgresql+pg8000nonexistent://user:***@")


def test_a_missing_driver_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"mysql://host/lab needs the Python package 'MySQLdb': install it"):
        engine_of("mysql://host/lab")


def test_a_station_file_that_cannot_be_read_hides_no_catalog(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.station_path.write_text("catalog = [")
    with pytest.raises(CatalogError, match=r"station\.toml must say where the catalog is"):
        has_catalog(workspace)
    workspace.station_path.write_text("catalog = 7")
    with pytest.raises(CatalogError, match="catalog is 7; allowed"):
        Catalog.open(workspace)


def test_a_servers_catalog_belongs_to_one_workspace(tmp_path: Path) -> None:
    """The check that `Catalog.open` makes for every server, here on a file."""
    first, second = (Workspace(tmp_path / name).prepare() for name in ("first", "second"))
    with Catalog(f"sqlite:///{tmp_path / 'shared.sqlite'}") as catalog:
        claim(catalog.engine, first)
        claim(catalog.engine, first)
        with pytest.raises(CatalogError, match=r"another workspace than .*second; give each a database of its own"):
            claim(catalog.engine, second)
        (first.path / ID_FILE).write_text("seven")
        with pytest.raises(CatalogError, match=r"catalog\.id: .*bring it back from a copy"):
            claim(catalog.engine, first)
