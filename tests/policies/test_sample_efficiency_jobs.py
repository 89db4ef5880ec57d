"""`takeover bench sample-efficiency --jobs N`: cells in processes of their own, one lock per cell, one bar, and everything ends with it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks import sample_efficiency, sample_efficiency_cells, sample_efficiency_jobs
from benchmarks.sample_efficiency_cells import CellBusy, cell_path, finish_cell, load, run_cell, save, work_of
from benchmarks.sample_efficiency_jobs import Ran, run_cells
from benchmarks.sample_efficiency_plan import Cell, Grid
from takeover.app.cli import main
from takeover.app.supervisor import Progress
from takeover.data.filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--points", "1", "--starts", "2", "--demonstrations", "1", "--tasks", "pick-lift", "--set", "learner.clone_updates=20"]


def cells(*variants: str, **changes: Any) -> list[Cell]:
    grid = {"steps": 40, "points": 1, "starts": 2, "demonstrations": 1, "learner": {"clone_updates": 20}} | changes
    return Grid(variants, ["expert"], ["pick-lift"], [0], **grid).cells()


def quiet(progress: Progress) -> None:
    return None


def untimed(found: dict[str, Any]) -> dict[str, Any]:
    points = [{k: v for k, v in point.items() if k not in ("wall_s", "learning_s")} for point in found["points"]]
    return {k: v for k, v in found.items() if k != "seconds"} | {"points": points}


def test_two_at_once_find_what_one_after_another_finds(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "sample-efficiency", "--learners", "bc", "hg-dagger", "--steps", "40", *TINY, "--out", str(tmp_path)]
    assert main([*command, "--jobs", "2"]) == 0
    said = capfd.readouterr()
    answer = json.loads(said.out)
    assert (answer["missing"], answer["failed"]) == (0, [])
    assert "2 cells: 100 %" in said.err
    assert sorted(path.name for path in (tmp_path / "cells").iterdir()) == [
        "pick-lift.expert.bc.seed0.json",
        "pick-lift.expert.hg-dagger.seed0.json",
    ]
    mine = cells("hg-dagger")[0]
    found = load(cell_path(tmp_path, mine), mine)
    assert found is not None
    assert found["machine"]
    alone = run_cell(mine, lambda done, total, text: True)
    assert untimed({k: v for k, v in found.items() if k not in ("machine", "commit")}) == untimed(json.loads(json.dumps(alone)))


def test_a_cell_that_fails_or_is_busy_is_said_and_the_others_go_on(tmp_path: Path) -> None:
    shown: list[Progress] = []
    failing, busy, good = mine = cells("bc", "iwr", "hg-dagger")
    locks = [cell_path(tmp_path, cell).with_name(f".{cell.name}.lock") for cell in mine]
    locks[0].mkdir(parents=True)  # its worker cannot lock it
    with FileLock(locks[1]):
        ran = run_cells(mine, tmp_path, 2, 2, {"commit": "abc"}, shown.append)  # the busy one does not count as one of two
    assert list(ran.failed) == [failing.name]
    assert "cannot be locked: Is a directory; free space or choose another --out" in ran.failed[failing.name]
    assert ran.busy == {busy.name: f"process {os.getpid()} runs it"}
    found = load(cell_path(tmp_path, good), good)
    assert found is not None
    assert found["commit"] == "abc"
    assert shown[-1].done == shown[-1].total == work_of(failing) + work_of(good)
    assert "2 ended" in shown[-1].text


def test_a_fault_that_nobody_foresaw_fails_one_cell_and_the_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(cell: Cell, on_progress: Any) -> dict[str, Any]:
        if cell.variant == "bc":
            raise ZeroDivisionError("a bug\nof two lines")
        return run_cell(cell, on_progress)

    monkeypatch.setattr(sample_efficiency_cells, "run_cell", broken)
    assert sample_efficiency.main(["--learners", "bc", "hg-dagger", "--steps", "40", *TINY, "--out", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "sample-efficiency: pick-lift.expert.bc.seed0: ZeroDivisionError: a bug of two lines\n" in said.err
    answer = json.loads(said.out)
    assert (answer["failed"], answer["missing"]) == (["pick-lift.expert.bc.seed0"], 1)
    assert "pick-lift.expert.hg-dagger" in answer["final"]


def test_a_worker_that_breaks_off_is_a_failed_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_efficiency_jobs, "WORKER", "benchmarks.no_such_module")
    ran = run_cells(cells("bc", "iwr"), tmp_path, 2, None, {}, quiet)
    assert len(ran.failed) == 2
    assert all("its process ended with 1" in text and "No module named" in text for text in ran.failed.values())


def test_two_commands_never_run_the_same_cell(tmp_path: Path) -> None:
    first, second = cells("bc", "hg-dagger")
    path = cell_path(tmp_path, first)
    path.parent.mkdir()
    with FileLock(path.with_name(f".{first.name}.lock")):
        with pytest.raises(CellBusy, match=f"process {os.getpid()} runs it"):
            finish_cell(first, tmp_path, {}, lambda done, total, text: True)
        ran = run_cells([first, second], tmp_path, 1, 1, {}, quiet)  # the busy one does not count as the one
    assert ran == Ran(busy={first.name: f"process {os.getpid()} runs it"})
    assert not path.exists()
    assert load(cell_path(tmp_path, second), second) is not None
    save(path, {"schema": 1, "settings": first.settings, "made": "elsewhere"})
    assert finish_cell(first, tmp_path, {}, lambda done, total, text: False)["made"] == "elsewhere"  # came between, not run again


def test_most_cells_bound_what_is_begun(tmp_path: Path) -> None:
    assert run_cells(cells("bc"), tmp_path, 2, 0, {}, quiet) == Ran()
    run_cells(cells("bc", "iwr", "sirius"), tmp_path, 1, 1, {}, quiet)
    assert [path.name for path in (tmp_path / "cells").iterdir()] == ["pick-lift.expert.bc.seed0.json"]


# --- ended from outside ---


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """The command with two cells that would take minutes, and its two workers, both at work."""
    command = ["--learners", "bc", "hg-dagger", "--steps", "100000", *TINY, "--out", str(tmp_path), "--jobs", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.sample_efficiency", *command],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite started in the background ignores it
    )
    locks = tmp_path / "cells"
    deadline = time.monotonic() + 100.0
    while len(held := [lock for lock in locks.glob(".*.lock") if lock.read_text()] if locks.is_dir() else []) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = [psutil.Process(int(lock.read_text())) for lock in held]
    try:
        yield process, workers
    finally:
        for one in (process, *workers):
            try:
                one.kill()
            except psutil.NoSuchProcess:
                pass
        process.wait()


Running = tuple[subprocess.Popen[str], list[psutil.Process]]


def gone(workers: list[psutil.Process], timeout_s: float = 20.0) -> bool:
    return not psutil.wait_procs(workers, timeout_s)[1]


def test_ctrl_c_ends_all_workers_and_a_killed_one_holds_no_lock(tmp_path: Path, running: Running) -> None:
    process, workers = running
    lock = next(path for path in (tmp_path / "cells").glob(".*.lock") if path.read_text() == str(workers[0].pid))
    workers[0].kill()
    assert gone(workers[:1])
    FileLock(lock).release()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30.0)
    assert process.returncode == 130
    assert "goes on with the next unfinished cell" in stderr
    assert gone(workers)
    assert list((tmp_path / "cells").iterdir()) == []


def test_workers_end_when_the_command_is_killed(tmp_path: Path, running: Running) -> None:
    process, workers = running
    process.kill()
    assert gone(workers)
    assert list((tmp_path / "cells").iterdir()) == []
