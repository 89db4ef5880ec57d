"""`takeover export` and `takeover import` as they are typed."""

import json
import os
import signal

import h5py
import pyarrow.parquet as pq
import pytest

from takeover.app.cli import main
from takeover.data.catalog import Catalog
from takeover.data.exchange import lerobot_export, mcap_export
from takeover.data.workspace import Workspace


def test_out_and_in_again(recorded, workspace, tmp_path, capsys):
    target, other = str(tmp_path / "set"), str(tmp_path / "other")
    where = ["--workspace", str(workspace.path)]
    assert main(["export", "lerobot", target, *where, "--outcome", "success", "--precision", "float64", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["target"], report["episodes"], report["frames"]) == (target, 5, 80)
    assert main(["data", "import", target, "--workspace", other]) == 0
    assert "made 5" in capsys.readouterr().out
    with Catalog.open(Workspace(other)) as catalog:
        assert [row.id for row in catalog.episodes()] == ["s1-ep0000", "s1-ep0001-r0", "s1-ep0001-r1", "s1-ep0001-r2", "s1-ep0003"]
    assert main(["import", str(workspace.path), "--workspace", other]) == 2  # s1-ep0000 is there, made of fewer columns
    assert "another episode s1-ep0000 already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("form", "made"),
    [("robomimic", ""), ("mcap", "s1-ep0002.mcap"), ("parquet", "episodes.parquet"), ("csv", "segments.csv")],
)
def test_every_format_is_written(recorded, workspace, tmp_path, form, made):
    target = tmp_path / "out"
    assert main(["data", "export", form, str(target), "--workspace", str(workspace.path), "--episode", "ep0002"]) == 0
    assert (target / made).is_file() if made else h5py.is_hdf5(target)
    assert not target.with_name("out.partial").exists()


def test_robomimic_and_single_files_are_recognised(recorded, workspace, tmp_path, capsys):
    where = ["--workspace", str(tmp_path / "other")]
    assert main(["export", "robomimic", str(tmp_path / "all.hdf5"), "--workspace", str(workspace.path)]) == 0
    assert main(["import", str(tmp_path / "all.hdf5"), *where]) == 0
    assert main(["import", str(workspace.path / recorded[1].path), *where, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["made"] == 1


def test_filters_by_day(recorded, workspace, tmp_path, capsys):
    where = ["--workspace", str(workspace.path)]
    assert main(["export", "parquet", str(tmp_path / "a"), *where, "--since", "2026-09-21", "--until", "2026-09-21"]) == 0
    assert len(pq.read_table(tmp_path / "a/episodes.parquet")) == 4
    for arguments, said in (
        (["--until", "2026-09-20"], "no episode fits the selection"),
        (["--since", "yesterday"], "'yesterday' is not a date; write 2026-05-31"),
    ):
        capsys.readouterr()
        assert main(["export", "parquet", str(tmp_path / "b"), *where, *arguments]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "csv", "out", "--workspace", "nowhere"], "nowhere is not a workspace with recordings"),
        (["import", "nowhere"], "nowhere does not exist"),
        (["import", "."], "neither a LeRobotDataset v3"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--workspace", "w"] if "--workspace" not in arguments else arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("takeover: ")
    assert error.count("\n") == 1


def test_ctrl_c_stops_between_two_episodes_and_the_same_command_goes_on(recorded, workspace, tmp_path, monkeypatch, capsys):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # runs in the background have it ignored
    real = mcap_export.write_episode_mcap
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(mcap_export, "write_episode_mcap", interrupted)
    command = ["export", "mcap", str(tmp_path / "out"), "--workspace", str(workspace.path)]
    assert main(command) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert len(list((tmp_path / "out.partial").glob("*.mcap"))) == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert main(command) == 0
    assert len(calls) == 4
    assert len(list((tmp_path / "out").iterdir())) == 4
    signal.signal(signal.SIGINT, before)


def test_a_full_disk_is_one_line_and_leaves_no_target(recorded, workspace, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lerobot_export.lerobot_files, "write_tables", full)
    assert main(["export", "lerobot", str(tmp_path / "set"), "--workspace", str(workspace.path)]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
    monkeypatch.undo()
    assert main(["export", "lerobot", str(tmp_path / "set"), "--workspace", str(workspace.path)]) == 0
