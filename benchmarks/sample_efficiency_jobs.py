"""Runs the cells of `sample-efficiency` that are missing: one after another in this process, or several at once in processes of their own.

A cell is run under a lock on a file beside its result, so that two commands on one folder never run the same cell twice; the lock goes
with the process that holds it, however that ends. A cell that fails is noted, and the others go on.
"""

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.sample_efficiency_cells import CellBusy, CellError, describe, finish_cell, work_of
from benchmarks.sample_efficiency_plan import Cell
from takeover.app.supervisor import Progress

ROOT = Path(__file__).resolve().parents[1]
WORKER = "benchmarks.sample_efficiency_worker"
END_TIMEOUT_S = 10.0  # for a worker that was asked to end
LAST_LINES = 4  # of what a worker that broke off had written

Show = Callable[[Progress], None]
log = logging.getLogger("sample-efficiency")


@dataclass
class Ran:
    """What became of the cells that were asked for, by name; those in neither have their result, or were not begun."""

    failed: dict[str, str] = field(default_factory=dict)  # why
    busy: dict[str, str] = field(default_factory=dict)  # who runs it


def run_cells(cells: Sequence[Cell], folder: Path, jobs: int, most: int | None, origin: Mapping[str, Any], show: Show) -> Ran:
    """Run ``cells``, ``jobs`` at a time and at most ``most`` of them (None: all); a cell that is busy elsewhere does not count.

    KeyboardInterrupt ends all; those that were running have left no file.
    """
    count = len(cells) if most is None else min(most, len(cells))
    if count == 0:
        return Ran()
    overall = _Overall(cells, count, show)
    if jobs == 1:
        return _in_turn(cells, folder, count, origin, overall)
    return _at_once(cells, folder, min(jobs, count), count, origin, overall)


def _in_turn(cells: Sequence[Cell], folder: Path, count: int, origin: Mapping[str, Any], overall: "_Overall") -> Ran:
    ran = Ran()
    begun = 0
    for cell in cells:
        if begun == count:
            break

        def on_progress(done: float, total: float, text: str, name: str = cell.name) -> bool:
            overall.at(name, done, text)
            return True

        try:
            finish_cell(cell, folder, origin, on_progress)
        except CellBusy as error:
            ran.busy[cell.name] = str(error)
            continue
        except CellError as error:
            ran.failed[cell.name] = describe(error)
        except Exception as error:
            log.exception("%s broke off", cell.name)
            ran.failed[cell.name] = describe(error)
        begun += 1
        overall.ended(cell.name)
    return ran


# --- several at once ---


class _Worker:
    """One cell in its own process. What it says arrives on ``heard`` as (name, message); None is the end of it."""

    def __init__(self, cell: Cell, folder: Path, origin: Mapping[str, Any], heard: "queue.Queue[tuple[str, Any]]") -> None:
        self.name = cell.name
        self.error = ""
        self.busy = ""
        self._heard = heard
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `finish` or `end`
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended at once: its last words are in stderr
            self.process.stdin.write(json.dumps({"cell": asdict(cell), "folder": str(folder), "origin": dict(origin)}) + "\n")
            self.process.stdin.close()
        self._thread = threading.Thread(target=self._listen, name=f"cell {self.name}", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._heard.put((self.name, json.loads(line)))
        self._heard.put((self.name, None))

    def finish(self) -> None:
        """After its last message: wait for it, and note why it ended if it said nothing itself."""
        status = self.process.wait()
        self._thread.join()
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        self._stderr.close()
        if status and not (self.error or self.busy):
            how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with {status}"
            self.error = f"its process was {how}" if status < 0 else f"its process {how}"
            if lines:
                self.error += f": {' | '.join(lines[-LAST_LINES:])}"

    def end(self) -> None:
        """Ask it to, then make it."""
        self.process.terminate()
        try:
            self.process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._thread.join()
        self._stderr.close()


def _at_once(cells: Sequence[Cell], folder: Path, jobs: int, count: int, origin: Mapping[str, Any], overall: "_Overall") -> Ran:
    ran, waiting, begun = Ran(), deque(cells), 0
    heard: queue.Queue[tuple[str, Any]] = queue.Queue()
    with _ended_with_us() as workers:
        while True:
            while waiting and len(workers) < jobs and begun < count:
                cell = waiting.popleft()
                workers[cell.name] = _Worker(cell, folder, origin, heard)
                begun += 1
            if not workers:
                return ran
            name, message = heard.get()
            worker = workers[name]
            if message is None:
                worker.finish()
                del workers[name]
                if worker.busy:
                    ran.busy[name] = worker.busy
                    begun -= 1
                    continue
                if worker.error:
                    ran.failed[name] = worker.error
                overall.ended(name)
            elif "progress" in message:
                done, text = message["progress"]
                overall.at(name, done, text)
            else:
                worker.error, worker.busy = message.get("error", ""), message.get("busy", "")


@contextlib.contextmanager
def _ended_with_us() -> Iterator[dict[str, _Worker]]:
    """Running workers by the name of their cell; whatever ends the block ends them."""
    workers: dict[str, _Worker] = {}
    try:
        yield workers
    finally:
        for worker in workers.values():
            worker.process.terminate()
        for worker in workers.values():
            worker.end()


class _Overall:
    """One bar over all cells."""

    def __init__(self, cells: Sequence[Cell], count: int, show: Show) -> None:
        self._work = {cell.name: work_of(cell) for cell in cells}
        self._total = sum(list(self._work.values())[:count])  # all cells of a grid are as long
        self._count, self._show = count, show
        self._ended: dict[str, float] = {}
        self._running: dict[str, tuple[float, str]] = {}

    def at(self, name: str, done: float, text: str) -> None:
        self._running[name] = (done, text)
        self._draw()

    def ended(self, name: str) -> None:
        self._running.pop(name, None)
        self._ended[name] = self._work[name]
        self._draw()

    def _draw(self) -> None:
        done = sum(self._ended.values()) + sum(done for done, _ in self._running.values())
        now = [f"{name} {100 * done / self._work[name]:.0f} % ({text})" for name, (done, text) in self._running.items()]
        self._show(Progress(f"{self._count} cells", done, self._total, f"{len(self._ended)} ended; {', '.join(now)}".rstrip("; ")))
