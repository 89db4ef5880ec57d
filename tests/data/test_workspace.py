"""Lock, space and folders of a workspace."""

import os
import stat
import subprocess
import sys
import tempfile

import pytest

from takeover.data.workspace import Workspace, WorkspaceError, plain_name, runtime_folder

HOLD = """
import sys, time
from takeover.data.workspace import Workspace
lock = Workspace(sys.argv[1]).prepare().lock()
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"locked\n"
    with pytest.raises(WorkspaceError, match=f"process {holder.pid}"):
        Workspace(tmp_path).lock()
    holder.kill()
    holder.communicate()
    with Workspace(tmp_path).lock():
        assert (tmp_path / "station.lock").read_text() == str(os.getpid())
    assert not (tmp_path / "station.lock").exists()


def test_space_and_writability_are_checked(tmp_path):
    workspace = Workspace(tmp_path).prepare()
    workspace.require_space(1)
    with pytest.raises(WorkspaceError, match="almost full"):
        workspace.require_space(workspace.free_bytes() * 2)
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="not writable"):
        Workspace(tmp_path / "file" / "ws").prepare()


def test_ids_cannot_leave_the_workspace(tmp_path):
    workspace = Workspace(tmp_path)
    assert workspace.episode_path("01abc", "2026-01-02") == tmp_path / "episodes/2026-01-02/01abc.hdf5"
    for bad in ("", "../x", "a/b", "a.b", "x" * 65):
        with pytest.raises(ValueError, match="not an id"):
            plain_name(bad)


def test_the_runtime_folder_is_private_and_short(monkeypatch):
    with tempfile.TemporaryDirectory(prefix="tk-") as short:
        monkeypatch.setenv("XDG_RUNTIME_DIR", short)
        folder = runtime_folder("01jabcdefghjkmnpqrstvwxyz0")
        assert folder.is_relative_to(short)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nonexistent")
    folder = runtime_folder("01jabcdefghjkmnpqrstvwxyz0")
    assert len(str(folder / "camera-a-rather-long-name.sock")) <= 107
    folder.rmdir()
