"""The index is made when it is asked for: what an episode costs the recorder does not grow, and nobody reads a stale or damaged one."""

import threading
import time

import h5py
import pytest

from takeover.data.catalog import Catalog
from takeover.data.hdf5_image import DamagedFile
from takeover.data.index import fresh_index, indexed_episodes, is_stale, rebuild_index
from takeover.data.labels import Labels
from takeover.data.recorder import Recorder
from takeover.data.recovery import rebuild_catalog


@pytest.fixture
def recorded(workspace, stream):
    recorder = Recorder(workspace)
    for options in ({}, {"takeovers": ()}):
        for record in stream.episode(**options):
            recorder.accept(record)
        recorder.sync()
    recorder.close()
    return workspace


def test_a_recorder_makes_no_index_while_it_records(workspace, stream, monkeypatch):
    made = []
    monkeypatch.setattr("takeover.data.finalise.fresh_index", lambda *_: made.append(1))
    recorder = Recorder(workspace)
    for _ in range(3):
        for record in stream.episode(steps=3):
            recorder.accept(record)
        recorder.sync()
    while recorder.pending:
        time.sleep(0.01)
    assert made == []
    recorder.close()
    assert made == [1]


def test_an_index_is_made_again_only_when_something_changed(recorded):
    with Catalog.open(recorded) as catalog:
        assert not is_stale(recorded, catalog)
        before = recorded.index_path.stat().st_mtime_ns
        assert fresh_index(recorded, catalog) == recorded.index_path
        assert recorded.index_path.stat().st_mtime_ns == before
        labels = Labels(recorded, catalog)
        labels.add_label("s1-ep0001", "exclude", True, "op-02")
        assert is_stale(recorded, catalog)
        with h5py.File(fresh_index(recorded, catalog)) as file:
            assert file["mask/excluded"][:].tolist() == [b"demo_1"]
        assert not is_stale(recorded, catalog)
    assert rebuild_catalog(recorded) == []
    with Catalog.open(recorded) as catalog, h5py.File(fresh_index(recorded, catalog)) as file:
        assert file["mask/excluded"][:].tolist() == [b"demo_1"]


def test_a_damaged_index_is_never_opened(recorded):
    whole = recorded.index_path.read_bytes()
    assert indexed_episodes(recorded.index_path) == ["s1-ep0000", "s1-ep0001"]
    with Catalog.open(recorded) as catalog:
        for damaged in (whole[:-1], b"nothing", whole[: len(whole) // 2] + b"\x00\xff" + whole[len(whole) // 2 + 2 :], b""):
            recorded.index_path.write_bytes(damaged)
            with pytest.raises(DamagedFile):
                indexed_episodes(recorded.index_path)
            assert is_stale(recorded, catalog)
            assert indexed_episodes(fresh_index(recorded, catalog)) == ["s1-ep0000", "s1-ep0001"]


def test_two_at_once_make_one_whole_index(recorded):
    errors = []

    def work():
        try:
            with Catalog.open(recorded) as catalog:
                for _ in range(10):
                    assert rebuild_index(recorded, catalog) == 2
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(indexed_episodes(recorded.index_path)) == 2


def test_an_index_that_cannot_be_made_leaves_the_old_one(recorded):
    before = recorded.index_path.read_bytes()
    with Catalog.open(recorded) as catalog:
        newest = recorded.path / catalog.episodes()[-1].path
        newest.write_bytes(newest.read_bytes()[:-1])
        with pytest.raises(DamagedFile, match=newest.name):
            rebuild_index(recorded, catalog)
        assert recorded.index_path.read_bytes() == before
        newest.unlink()
        with pytest.raises(FileNotFoundError, match=newest.name):
            rebuild_index(recorded, catalog)
