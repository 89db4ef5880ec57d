"""Nothing recorded is lost: the recorder killed a hundred times while it records, files cut and flipped, the disk full.

1. The real recorder process is fed as a bridge feeds it and gets SIGKILL at random moments (seeded), also while it starts, syncs and
   closes files. After each, before another is started, every record it had acknowledged must be on the disk, equal to what was sent, and
   every file under a final name must be whole. At the end every episode is there, and nothing half-written.
2. A closed episode file gets one bit flipped, or is cut off, at random places: every time it must be found.
3. The recorder runs under a file size limit (the kernel refuses to write more): nothing is acknowledged that is not on disk, it says so,
   lives on, and goes on when the limit is gone.

    python -m benchmarks.crash [--kills 100] [--flips 400] [--seed 0] [--out docs/results/crash.txt]
"""

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.result_text import write_problems
from benchmarks.store_records import Maker
from takeover.data.catalog import Catalog
from takeover.data.episode_file import verify_file
from takeover.data.recorder import Recorder
from takeover.data.schema import AnyRecord, CameraFrame
from takeover.data.store import read_gap
from takeover.data.workspace import Workspace
from tests.app.test_recorder_process import BridgeSide, Station

STEPS = 40  # of an episode: one ends about every 0.4 s


class Feeding:
    """Episode after episode, a step every few milliseconds, whether a recorder is there or not."""

    def __init__(self, side: BridgeSide) -> None:
        self.side = side
        self.episodes = self.steps = 0
        self._name = ""

    def one(self) -> None:
        if not self._name:
            self._name = self.side.start(self.episodes)
        self.side.step(self._name, self.steps)
        self.steps += 1
        if self.steps == STEPS:
            self.side.end(self._name, STEPS)
            self._name, self.steps, self.episodes = "", 0, self.episodes + 1

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            self.one()
            self.side.pump(0.004)


def whole(workspace: Workspace, checked: set[Path], problems: list[str]) -> None:
    """Every file under a final name that was not looked at before verifies."""
    for path in sorted(workspace.episodes.glob("*/*.hdf5")):
        if path not in checked:
            problems += verify_file(path)
            checked.add(path)


def lost(workspace: Workspace, side: BridgeSide, acked: int) -> int:
    """How many of the acknowledged records (pictures are counted by the coverage) are not on the disk as they were sent."""
    if acked < 0:
        return 0
    sent = {record.rec_seq: record for record in side.records[: acked + 1] if not isinstance(record, CameraFrame)}
    found: dict[int, AnyRecord] = {record.rec_seq: record for record in read_gap(workspace, side.session, 0, acked, timeout_s=0.0)}
    return sum(found.get(number) != record for number, record in sent.items())


def kills(folder: Path, count: int, rng: random.Random, say: Callable[[str], None]) -> list[str]:
    station = Station(folder, "realtime")
    side = BridgeSide(station.endpoints, "s1")
    feeding, problems, checked = Feeding(side), list[str](), set[Path]()
    silent = 0
    for number in range(count):
        station.launch()
        before = side.acked
        if rng.random() < 0.1:  # while it starts
            feeding.run(rng.uniform(0.0, 0.6))
        else:
            feeding.run(20.0, until=lambda before=before: side.acked > before)  # type: ignore[misc]
            feeding.run(rng.uniform(0.0, 1.0))
        silent += side.acked == before
        acked = side.acked
        station.kill()
        side.pump()
        acked = max(acked, side.acked)  # what was on its way counts too
        missing = lost(station.workspace, side, acked)
        if missing:
            problems.append(f"kill {number}: {missing} of {acked + 1} acknowledged records are lost or changed")
        whole(station.workspace, checked, problems)
        side.peer = None
        if (number + 1) % 10 == 0:
            say(f"{number + 1} kills, {acked + 1} records acknowledged, {len(checked)} files, {len(problems)} problems")
    while feeding.steps:
        feeding.one()
    station.launch()
    side.wait(lambda: side.acked == len(side.records) - 1, 60.0)
    status = station.stop()
    if status != 0:
        problems.append(f"the recorder ended with {status}")
    whole(station.workspace, checked, problems)
    missing = lost(station.workspace, side, side.acked)
    if missing:
        problems.append(f"at the end {missing} records are lost")
    with Catalog.open(station.workspace) as catalog:
        rows = catalog.episodes()
    left = [path for folder_ in (station.workspace.journal, station.workspace.episodes) for path in folder_.rglob("*") if path.is_file()]
    half = [path.name for path in left if path.suffix != ".hdf5"]
    if half or len(rows) != feeding.episodes or any(row.recovered or row.steps != STEPS for row in rows):
        problems.append(f"{len(rows)} episodes of {feeding.episodes}, left over: {half}")
    side.router.close()
    say(f"{count} kills ({silent} of them before it had acknowledged anything new): {len(side.records)} records, {len(rows)} episodes")
    return problems


def flips(folder: Path, count: int, rng: random.Random, say: Callable[[str], None]) -> list[str]:
    recorder = Recorder(Workspace(folder))
    for record in Maker().episode(4.0):
        recorder.accept(record)
    recorder.close()
    (path,) = (folder / "episodes").glob("*/*.hdf5")
    data = path.read_bytes()
    if verify_file(path):
        return [f"the untouched file does not verify: {verify_file(path)}"]
    missed = []
    for _ in range(count):
        at, bit = rng.randrange(len(data)), rng.randrange(8)
        changed = bytearray(data)
        changed[at] ^= 1 << bit
        path.write_bytes(changed)
        if not verify_file(path):
            missed.append(f"bit {bit} of byte {at} flipped and not found")
    for _ in range(count // 4):
        at = rng.randrange(len(data))
        path.write_bytes(data[:at])
        if not verify_file(path):
            missed.append(f"cut off at byte {at} and not found")
    say(f"{count} bits flipped and {count // 4} cuts in a file of {len(data) / 1e6:.1f} MB: {len(missed)} not found")
    return missed


def full_disk(folder: Path, say: Callable[[str], None]) -> list[str]:
    """The limit is set on the living process, and taken away again."""
    station, problems = Station(folder, "realtime"), list[str]()
    side = BridgeSide(station.endpoints, "s1")
    feeding = Feeding(side)
    station.launch()
    feeding.run(20.0, until=lambda: side.acked > 20)
    assert station.process is not None
    unlimited = resource.prlimit(station.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(station.process.pid, resource.RLIMIT_FSIZE, (8192, unlimited[1]))
    feeding.run(2.0)
    stuck = side.acked
    feeding.run(1.0)
    if side.acked != stuck:
        problems.append(f"acknowledged {side.acked - stuck} records that could not be written")
    if side.last_ack is None or not side.last_ack.error:
        problems.append("the acknowledgement does not say that nothing can be written")
    said = side.last_ack.error if side.last_ack is not None else ""
    if station.process.poll() is not None:
        problems.append(f"the recorder ended with {station.process.returncode}")
    resource.prlimit(station.process.pid, resource.RLIMIT_FSIZE, unlimited)
    while feeding.steps:
        feeding.one()
    try:
        side.wait(lambda: side.acked == len(side.records) - 1, 30.0)
    except AssertionError as error:
        problems.append(f"did not go on: {error}")
    station.stop()
    missing = lost(station.workspace, side, side.acked)
    if missing:
        problems.append(f"{missing} records are lost")
    side.router.close()
    say(f"disk full at record {stuck}: nothing more acknowledged, said {said!r}; went on to {side.acked} when there was room")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--flips", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="docs/results/crash.txt")
    arguments = parser.parse_args()
    rng, lines = random.Random(arguments.seed), list[str]()

    def say(text: str) -> None:
        print(text, flush=True)
        lines.append(text)

    with tempfile.TemporaryDirectory(prefix="tk-crash-") as name:
        folders = [Path(name) / part for part in ("k", "f", "d")]
        for folder in folders:
            folder.mkdir()
        problems = kills(folders[0], arguments.kills, rng, say)
        problems += flips(folders[1], arguments.flips, rng, say)
        problems += full_disk(folders[2], say)
    command = f"python -m benchmarks.crash --kills {arguments.kills} --flips {arguments.flips} --seed {arguments.seed}"
    return write_problems(Path(arguments.out), command, lines, problems)


if __name__ == "__main__":
    raise SystemExit(main())
