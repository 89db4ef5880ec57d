"""Bit flips in ``catalog.sqlite``: one clear line, never a traceback, and `repair` makes every page what it was."""

import shutil
import sqlite3

import numpy as np
import pytest

from takeover.app.cli import main
from takeover.data.catalog import Catalog, CatalogError, damage_of
from takeover.data.labels import read_log
from takeover.data.recorder import Recorder
from takeover.data.verify import verify_workspace
from takeover.data.workspace import Workspace

from .test_learning_log import lived, pages  # noqa: F401 - a fixture


def settle(workspace):
    """Everything in the one file, as after a proper end."""
    connection = sqlite3.connect(workspace.catalog_path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def flip(path, rng, count, low=0):
    data = bytearray(path.read_bytes())
    for position in rng.integers(low, len(data), count):
        data[position] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def said_of(workspace, capsys, *command):
    status = main(["data", *command, "--workspace", str(workspace.path)])
    return status, capsys.readouterr()


@pytest.mark.parametrize("low", [0, 100], ids=["anywhere", "behind the header"])
def test_flipped_bits_are_said_in_one_line_and_repaired(lived, tmp_path, capsys, low):  # noqa: F811
    settle(lived)
    before, events, rng = pages(lived), read_log(lived.labels_path), np.random.default_rng(low)
    settle(lived)
    noticed = 0
    for number in range(8):
        workspace = Workspace(tmp_path / f"w{number}")
        shutil.copytree(lived.path, workspace.path)
        flip(workspace.catalog_path, rng, 400, low)
        for command in (("ls",), ("verify",)):
            status, said = said_of(workspace, capsys, *command)
            assert status in (0, 1, 2)
            assert "Traceback" not in said.err
            if status == 2:
                assert said.err.count("\n") == 1, said.err
                assert "`takeover data repair` makes a new one of the files" in said.err
            noticed += status != 0
        assert said_of(workspace, capsys, "repair")[0] == 0
        assert pages(workspace) == before
        assert read_log(workspace.labels_path) == events
        with Catalog.open(workspace) as catalog:
            assert verify_workspace(workspace, catalog).problems == []
        assert list((workspace.path / "set-aside").rglob("catalog.sqlite"))  # nothing is deleted
    assert noticed >= 8


@pytest.mark.parametrize(("table", "said"), [("meta", "cannot open the catalog"), ("episodes", "is damaged")])
def test_a_recorder_refuses_a_damaged_catalog_and_lets_go_of_the_workspace(lived, table, said):  # noqa: F811
    settle(lived)
    connection = sqlite3.connect(lived.catalog_path)
    ((page,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchall()
    ((size,),) = connection.execute("PRAGMA page_size").fetchall()
    connection.close()
    data = bytearray(lived.catalog_path.read_bytes())
    data[(page - 1) * size : (page - 1) * size + 64] = b"\xa5" * 64
    lived.catalog_path.write_bytes(data)
    with pytest.raises(CatalogError, match=f"{said}.*makes a new one of the"):
        Recorder(lived)
    assert not (lived.path / "recorder.lock").exists()
    assert main(["data", "repair", "--workspace", str(lived.path)]) == 0
    Recorder(lived).close()


def test_a_whole_catalog_is_whole(lived):  # noqa: F811
    with Catalog.open(lived) as catalog:
        assert damage_of(catalog.engine) == ""
