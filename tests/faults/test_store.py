"""Rows 26, 29 to 32 and 36: what becomes of records and labels when disks, files and people do what they should not."""

import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import pytest

from takeover.data.catalog import Catalog
from takeover.data.episode_file import verify_file
from takeover.data.exchange.robomimic_import import import_robomimic
from takeover.data.journal import read_journal
from takeover.data.labels import Labels, read_log
from takeover.data.recovery import rebuild_catalog, reconcile
from takeover.data.schema import EpisodeKind, HoldReason, Outcome
from takeover.data.verify import verify_workspace
from takeover.data.workspace import Workspace
from tests.robot_bridge.station import Operator

from .rig import PERIOD_MS, Rig, rig
from .test_recorder import lost

Bound = Callable[[float, float, str], None]


@pytest.fixture
def station() -> Iterator[Rig]:
    with rig() as made:
        made.actor(lambda _: [0.1, 0.0, 0.0, 0.0])
        yield made


def disk(station: Rig, how: str, seconds: float = 0.0) -> int:
    return station.hook("recorder", "disk", seconds=seconds, how=how, folder=station.config.workspace)


def drives_again(station: Rig, operator: Operator) -> None:
    """The disk is well: what waited is written, somebody resumes, the episode goes on."""
    station.until(lambda s: not s.gate["recorder"], "the recorder can write again")
    assert station.ask_resume(operator) == ""
    station.policy_runs(operator, 10)


def all_written(station: Rig) -> None:
    """Nothing waits any more, and every record that was acknowledged is in a file or a journal."""
    station.end_block()
    station.until(lambda s: s.record_backlog == 0, "everything is on disk")
    time.sleep(0.5)


@pytest.mark.parametrize("how", ["full", "readonly"])
def test_row_30_disk_cannot_be_written(station: Rig, bound: Bound, how: str) -> None:
    operator = station.operator()
    station.begin(operator, EpisodeKind.POLICY)
    station.policy_runs(operator, 10)
    pid, before = station.launcher.pids()["recorder"], station.launcher.restarts()["recorder"]
    if how == "full":  # the kernel refuses whatever makes a file longer than this
        unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, unlimited[1]))
        fault = time.monotonic_ns()
    else:
        fault = disk(station, "readonly")
    state, after_ms = station.held(fault, [HoldReason.DISK_FULL, HoldReason.RECORDER_LOST])
    bound(after_ms, 700.0, "ms")
    assert "journal" in state.hold_detail, "which file, and why"
    time.sleep(0.5)
    assert station.watch.state is not None
    assert station.watch.state.lateness_p99_ms < PERIOD_MS, "the control loop does not wait for a disk"
    if how == "full":
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
    else:
        disk(station, "well")
    drives_again(station, operator)
    all_written(station)
    bound(float(station.launcher.restarts()["recorder"] - before), 0.0, "crashes")
    bound(float(lost(station)), 0.0, "steps")


def test_row_30_disk_slow(station: Rig, bound: Bound) -> None:
    """0.1 s for a flush is nothing to anybody, 2.5 s holds the robot; the loop keeps its time in both."""
    operator = station.operator()
    station.begin(operator, EpisodeKind.POLICY)
    station.policy_runs(operator, 10)
    disk(station, "slow", 0.1)
    station.policy_runs(operator, 15)
    fault = disk(station, "slow", 2.5)
    _, after_ms = station.held(fault, [HoldReason.RECORDER_LOST], 8.0)
    bound(after_ms, 1600.0, "ms")  # a record may wait for a second, and one flush may just have been done
    state = station.watch.state
    assert state is not None
    assert state.lateness_p99_ms < PERIOD_MS
    disk(station, "well")
    drives_again(station, operator)
    all_written(station)
    bound(float(lost(station)), 0.0, "steps")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with three episodes of the real processes, and the journal of one that was still running."""
    kept = tmp_path_factory.mktemp("kept")
    with rig(workspace=str(kept / "w")) as station:
        station.actor(lambda _: [0.1, 0.0, 0.0, 0.0])
        operator = station.operator()
        for _ in range(3):
            station.begin(operator, EpisodeKind.POLICY)
            station.policy_runs(operator, 15)
            station.end_block()
        workspace = kept / "w"
        deadline = time.monotonic() + 20
        while len(list(workspace.glob("episodes/*/*.hdf5"))) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        station.begin(operator, EpisodeKind.POLICY)
        station.policy_runs(operator, 15)
        time.sleep(0.5)
        (journal,) = workspace.glob("journal/*.mcap")
        (kept / "running.mcap").write_bytes(journal.read_bytes())
    return kept


def test_row_26_contradictory_late_and_double_labels(recorded: Path, tmp_path: Path, bound: Bound) -> None:
    """Two labelers contradict each other, press twice, undo and come late; then the catalog is made anew from files and log."""
    workspace = Workspace(copy(recorded, tmp_path))
    with Catalog.open(workspace) as catalog:
        episode = catalog.episodes()[0].id
    script = (
        "import sys; from takeover.data.labels import Labels\n"
        "labels = Labels(sys.argv[1])\n"
        "for i in range(30):\n"
        "    for _ in range(2): labels.add_label(sys.argv[2], 'outcome', ('success', 'failure')[i % 2], sys.argv[3])\n"
        "    labels.add_label(sys.argv[2], 'note', f'{sys.argv[3]} {i}', sys.argv[3])\n"
    )
    labelers = [subprocess.Popen([sys.executable, "-c", script, str(workspace.path), episode, name]) for name in ("op-01", "op-02")]
    assert [labeler.wait(60) for labeler in labelers] == [0, 0]
    with Catalog.open(workspace) as catalog:
        labels = Labels(workspace, catalog)
        labels.add_outcome(episode, Outcome.UNKNOWN, "op-01", 1)  # given long before what stands
        labels.undo(list(read_log(workspace.labels_path))[-2].author)
        before = (catalog.labels([episode]), catalog.episodes(), labels.events_since(0))
    logged = list(read_log(workspace.labels_path))
    assert len({event.id for event in logged}) == len(logged) >= 60
    assert rebuild_catalog(workspace) == []
    with Catalog.open(workspace) as catalog:
        after = (catalog.labels([episode]), catalog.episodes(), Labels(workspace, catalog).events_since(0))
    bound(float(sum(a != b for a, b in zip(before, after, strict=True))), 0.0, "differences")


def test_row_29_files_cut_off(recorded: Path, tmp_path: Path, bound: Bound) -> None:
    """A finished file that was cut anywhere is named; the journal of a running episode gives every whole chunk before the cut."""
    rng, unnoticed, worse = random.Random(29), 0, 0
    path = tmp_path / "cut"
    finished = sorted(recorded.glob("w/episodes/*/*.hdf5"))
    for source in finished:
        assert verify_file(source) == []
        data = source.read_bytes()
        for _ in range(20):
            path.write_bytes(data[: rng.randrange(len(data))])
            unnoticed += not verify_file(path)
    whole = (recorded / "running.mcap").read_bytes()
    everything = read_journal(recorded / "running.mcap").records
    assert len(everything) > 20
    kept = 0
    for at in sorted(rng.randrange(len(whole)) for _ in range(60)):
        path.write_bytes(whole[:at])
        records = read_journal(path).records
        worse += records != everything[: len(records)] or len(records) < kept
        kept = len(records)
    assert kept > 0
    bound(float(unnoticed), 0.0, "cut files not noticed")
    bound(float(worse), 0.0, "journals with less than was whole")


def test_row_31_catalog_and_files_disagree(recorded: Path, tmp_path: Path, bound: Bound) -> None:
    """A file gone, a row gone, another file under a known name: put right or named, never renumbered silently."""
    workspace = Workspace(copy(recorded, tmp_path))
    files = sorted(workspace.episodes.glob("*/*.hdf5"))
    with Catalog.open(workspace) as catalog:
        before = {row.id: row for row in catalog.episodes()}
    gone, swapped = files[0], files[1]
    away = gone.read_bytes()
    gone.unlink()
    swapped.write_bytes(files[2].read_bytes())
    with Catalog.open(workspace) as catalog:
        said = "\n".join([*reconcile(workspace, catalog), *map(str, verify_workspace(workspace, catalog).problems)])
    unnamed = [path.stem for path in (gone, swapped) if path.stem not in said]
    gone.write_bytes(away)
    for name in ("catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"):
        (workspace.path / name).unlink(missing_ok=True)
    with Catalog.open(workspace) as catalog:
        reconcile(workspace, catalog)
        after = {row.id: row for row in catalog.episodes()}
    bound(float(len(unnamed)), 0.0, "disagreements not named")
    bound(float(sum(after.get(path.stem) != before[path.stem] for path in (gone, files[2]))), 0.0, "rows changed")


def test_row_32_bit_rot(recorded: Path, tmp_path: Path, bound: Bound) -> None:
    rng, path, unnoticed = random.Random(32), tmp_path / "rot", 0
    for source in sorted(recorded.glob("w/episodes/*/*.hdf5")):
        data = source.read_bytes()
        for _ in range(40):
            changed = bytearray(data)
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(changed)
            unnoticed += not verify_file(path)
    bound(float(unnoticed), 0.0, "flipped bits not noticed")


def test_row_36_foreign_files_that_reach_outside(tmp_path: Path, bound: Bound) -> None:
    """External links, soft links, path tricks in names: refused, and nothing is written outside the workspace."""
    secret, workspace = tmp_path / "secret.hdf5", Workspace(tmp_path / "w").prepare()
    with h5py.File(secret, "w") as file:
        file["x"] = [1.0]
    outside = {path: path.read_bytes() for path in tmp_path.glob("*") if path.is_file()}
    refused = 0
    links = {"external": h5py.ExternalLink(str(secret), "/x"), "soft": h5py.SoftLink("/data/demo_0/actions"), "hard": None}
    for name, link in links.items():
        foreign = tmp_path / f"{name}.hdf5"
        with h5py.File(foreign, "w") as file:
            demo = file.create_group("data/demo_0" if link is not None else "data/..%2f..%2fescape")
            demo["actions"] = [[0.0] * 4] * 3
            if link is not None:
                demo["obs/state"] = link
        outside[foreign] = foreign.read_bytes()
        with pytest.raises(Exception, match=foreign.name) as error:
            import_robomimic(workspace, foreign)
        assert error.type.__name__ in ("ExchangeError", "DamagedFile")
        refused += 1
    written = [path for path in tmp_path.glob("*") if path.is_file() and outside.get(path) != path.read_bytes()]
    assert refused == len(links)
    bound(float(len(written)), 0.0, "writes outside")
    assert not list(workspace.episodes.rglob("*.hdf5"))


def copy(recorded: Path, to: Path) -> Path:
    subprocess.run(["cp", "-a", str(recorded / "w"), str(to / "w")], check=True)
    return to / "w"
