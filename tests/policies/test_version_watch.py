"""The actor finds every published version, and asking costs no more where many are: real folders, coarse times, gaps."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from takeover.policies import version_watch
from takeover.policies.acting import Acting
from takeover.policies.manifest import MANIFEST_NAME, newest_version, policies_folder, published_versions, version_folder
from takeover.policies.version_watch import HELD, VersionWatch

MANY = 300


def put(workspace: Path, *versions: int) -> None:
    """As `publish` does it, as far as a watch is concerned: whole under another name, then renamed."""
    for version in versions:
        temporary = policies_folder(workspace) / f".{version}.1.tmp"
        temporary.mkdir(parents=True)
        (temporary / MANIFEST_NAME).write_text("{}")
        temporary.rename(version_folder(workspace, version))


def polled(watch: VersionWatch) -> list[int]:
    watch.poll()
    return watch.newest_first


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system on which every change has a time of its own."""
    monkeypatch.setattr(version_watch, "SETTLED_S", 0.0)


def test_what_was_there_and_what_comes_is_known_at_once(tmp_path: Path) -> None:
    watch = VersionWatch(tmp_path)
    assert polled(watch) == []
    put(tmp_path, 1)
    assert polled(watch) == [1]
    put(tmp_path, 2, 3)
    assert polled(watch) == [3, 2, 1]
    put(tmp_path, 7)
    (policies_folder(tmp_path) / ".9.1.tmp").mkdir()
    assert polled(watch) == [7, 3, 2, 1]
    assert VersionWatch(tmp_path).newest_first == [7, 3, 2, 1]
    shutil.rmtree(version_folder(tmp_path, 7))
    assert polled(watch) == [3, 2, 1]
    shutil.rmtree(policies_folder(tmp_path))
    assert polled(watch) == []


def test_the_newest_are_held_whatever_was_before(tmp_path: Path) -> None:
    put(tmp_path, *range(1, HELD + 11))
    watch = VersionWatch(tmp_path)
    assert watch.newest_first == list(range(HELD + 10, 10, -1))
    put(tmp_path, HELD + 11)
    for _ in range(3):
        assert polled(watch) == list(range(HELD + 11, 11, -1))


@pytest.mark.usefixtures("settled")
def test_asking_again_looks_into_no_folder_however_many_there_are(
    tmp_path: Path, make_robot_spec: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, *range(1, MANY + 1))
    acting = Acting(tmp_path, make_robot_spec(), 0)
    assert acting.newest_on_disk() == MANY
    looked: list[str] = []

    def counted(name: str) -> None:
        real = getattr(os, name)

        def count(*args: Any, **kwargs: Any) -> Any:
            if "policies" in str(args[0]):
                looked.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, count)

    for name in ("stat", "listdir", "scandir"):
        counted(name)
    for _ in range(10):
        assert acting.newest_on_disk() == MANY
    assert set(looked) == {"stat"}
    assert len(looked) <= 30


@pytest.mark.usefixtures("settled")
def test_a_walk_is_taken_in_pieces_and_finds_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version_watch, "WALKED", 10)
    put(tmp_path, *range(1, 61))
    watch = VersionWatch(tmp_path)
    for _ in range(10):
        polled(watch)
    put(tmp_path, 100)
    found = [polled(watch)[0] for _ in range(12)]
    assert found[:5] == [60] * 5, "no look goes through them all"
    assert found[-1] == 100
    put(tmp_path, 101)
    assert polled(watch)[0] == 101, "the next number is found at once"


@pytest.mark.parametrize("settled_s", [3.0, 0.0])
def test_a_version_of_the_same_tick_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settled_s: float) -> None:
    """With a time that does not change, only looking again finds it; with 0.0, a tick of no length, it would be missed."""
    monkeypatch.setattr(version_watch, "SETTLED_S", settled_s)
    put(tmp_path, 1)
    tick = (1_700_000_000 * 10**9,) * 2
    os.utime(policies_folder(tmp_path), ns=tick)
    watch = VersionWatch(tmp_path)
    assert polled(watch) == [1]
    put(tmp_path, 5)
    os.utime(policies_folder(tmp_path), ns=tick)
    assert polled(watch) == ([5, 1] if settled_s else [1])


@pytest.mark.usefixtures("settled")
def test_a_folder_that_is_filled_later_is_found(tmp_path: Path) -> None:
    put(tmp_path, 1)
    watch = VersionWatch(tmp_path)
    version_folder(tmp_path, 5).mkdir()
    assert polled(watch) == [1]
    assert polled(watch) == [1]
    (version_folder(tmp_path, 5) / MANIFEST_NAME).write_text("{}")  # changes nothing of the folder above
    assert polled(watch) == [5, 1]


def test_what_comes_during_a_walk_is_not_lost_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version_watch, "WALKED", 10)
    put(tmp_path, *range(1, 41))
    watch = VersionWatch(tmp_path)
    for version in range(41, 61):
        put(tmp_path, version)
        assert polled(watch) == list(range(version, 0, -1))


def test_the_newest_on_disk_is_the_last_that_is_whole(tmp_path: Path) -> None:
    assert newest_version(tmp_path) == 0
    put(tmp_path, 1, 2, 30)
    version_folder(tmp_path, 31).mkdir()
    (policies_folder(tmp_path) / "decisions.jsonl").touch()
    assert newest_version(tmp_path) == 30
    assert published_versions(tmp_path) == [1, 2, 30]
