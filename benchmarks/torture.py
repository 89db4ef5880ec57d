"""Random faults, one after the other, at a whole station in real time: does the robot stand when it must, and does the station go on?

Every process, the window (offscreen), cameras and the scripted operator run; the robot is the simulator server, a process of its own
with its own watchdog and monitor. Each event kills a process (another robot is started in its place after 0.3-3 s, the others by the
launcher), stops it for 0.3-3 s, or sticks one of its threads for as long. Then: the recorded steps (and the robot's monitor) must show
that nothing moved for longer than the bound, unless the event does not concern what moves it; the station must drive again by itself.
At the end every step that the recorder had acknowledged must be in a file or a journal, every file must verify, and no process, socket
or thread may be left.

    python -m benchmarks.torture [--events 100] [--seed 0] [--out docs/results/torture.txt] [--state FILE]

The events follow from the seed alone. Interrupted, it goes on where it was when it is given the same --state.
"""

import argparse
import json
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.result_text import commit
from benchmarks.torture_events import strike
from benchmarks.torture_report import report
from benchmarks.torture_robot import TortureRobot
from benchmarks.torture_run import NotBack, Torturer, left_behind
from benchmarks.whole_station import whole_station
from tests.faults.test_recorder import on_disk

MAX_SESSIONS = 20  # stations that had to be started by hand


class Ledger:
    """What has been done so far, in a file: an interrupted run goes on from here."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.content: dict[str, Any] = {
            "seed": seed,
            "commit": commit(),
            "sessions": 0,
            "wall_s": 0.0,
            "events": [],
            "problems": [],
            "monitors": [],
            "committed": {},
        }
        if path.exists():
            self.content = json.loads(path.read_text())
            if self.content["seed"] != seed:
                raise SystemExit(f"{path} is of seed {self.content['seed']}; remove it or give that seed")
            if self.content["commit"] != commit():
                raise SystemExit(f"{path} was begun at commit {self.content['commit']}, this is {commit()}: remove it to begin anew")

    @property
    def done(self) -> int:
        return len(self.content["events"])

    def acknowledged(self, committed: dict[str, set[int]]) -> None:
        """Remember which records the recorder has announced as on disk."""
        for episode_id, numbers in list(committed.items()):
            if episode_id:
                known = self.content["committed"].setdefault(episode_id, [])
                self.content["committed"][episode_id] = sorted({*known, *numbers})

    def save(self) -> None:
        temporary = self.path.with_name(self.path.name + ".tmp")
        temporary.write_text(json.dumps(self.content))
        temporary.replace(self.path)


def session(ledger: Ledger, workspace: Path, events: int) -> None:
    """One station, until all events are done or it does not go on by itself."""
    content = ledger.content
    content["sessions"] += 1
    number, before_s, began_s = content["sessions"], content["wall_s"], time.monotonic()
    content["monitors"].append({})
    threads = set(threading.enumerate())
    with tempfile.TemporaryDirectory(prefix="tk") as folder:
        robot = TortureRobot(Path(folder))
        try:
            with whole_station(workspace, f"torture-{number}", content["seed"], robot="sim-server", robot_address=robot.address) as station:
                torturer = Torturer(station, robot)
                goes_on = True
                while goes_on and ledger.done < events:
                    goes_on = _strike(ledger, torturer, events)
                    ledger.acknowledged(station.rig.watch.committed)
                    content["monitors"][-1] = robot.monitor()  # also of an event that ended this session
                    content["wall_s"] = before_s + time.monotonic() - began_s
                    ledger.save()
            ledger.acknowledged(station.rig.watch.committed)
            problems = left_behind(torturer.pids, Path(station.rig.config.sockets))
        finally:
            robot.close()
    time.sleep(0.5)
    problems += [f"thread {thread.name} is left" for thread in set(threading.enumerate()) - threads]
    content["problems"] += [f"after session {number}: {problem}" for problem in problems]
    ledger.save()


def _strike(ledger: Ledger, torturer: Torturer, events: int) -> bool:
    """The next event; returns whether the station goes on."""
    struck = strike(ledger.content["seed"], ledger.done)
    try:
        result = torturer.event(struck)
    except NotBack as error:
        result = {"problems": [str(error)], "back_s": None}
    done = {"event": str(struck), "target": struck.target, "do": struck.do, "seconds": struck.seconds} | result
    ledger.content["events"].append(done)
    print(line(ledger.done, events, done), flush=True)
    return done["back_s"] is not None


def line(number: int, events: int, result: dict[str, Any]) -> str:
    measured = f"{result['measured_ms']} ms of {result['limit_ms']:.0f}" if result.get("measured_ms") is not None else "-"
    back = f"{result['back_s']:.1f} s" if result["back_s"] is not None else "never"
    verdict = "; ".join(result["problems"]) or "ok"
    return f"{number:>4}/{events} {result['event']:<28} in {result.get('mode', ''):<9} moved {measured:<14} back {back:<8} {verdict}"


def lost(ledger: Ledger, workspace: Path) -> tuple[int, int, int, list[str]]:
    """Acknowledged steps, those of them that are nowhere on disk, files, and what is wrong with files."""
    try:
        kept = on_disk(workspace)
    except AssertionError as error:
        return 0, 0, 0, [f"a file does not verify: {error}"]
    committed = {episode_id: set(numbers) for episode_id, numbers in ledger.content["committed"].items()}
    missing = {episode_id: numbers - kept.get(episode_id, set()) for episode_id, numbers in committed.items()}
    problems = [f"{len(numbers)} acknowledged steps of episode {episode_id} are lost" for episode_id, numbers in missing.items() if numbers]
    return sum(map(len, committed.values())), sum(map(len, missing.values())), len(kept), problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="docs/results/torture.txt")
    parser.add_argument("--state", default="", help="file that remembers how far it has come; its workspace lies beside it")
    parser.add_argument("--note", default="", help="what else must be known of this run")
    arguments = parser.parse_args()
    place = Path(arguments.state or Path(tempfile.gettempdir()) / f"takeover-torture-{arguments.seed}.json").absolute()
    ledger, workspace = Ledger(place, arguments.seed), place.with_suffix(".workspace")
    while ledger.done < arguments.events and ledger.content["sessions"] < MAX_SESSIONS:
        session(ledger, workspace, arguments.events)
    steps, gone, files, problems = lost(ledger, workspace)
    if violations := sum(monitor.get("violations", 0) for monitor in ledger.content["monitors"]):
        problems.append(f"{violations} commands that the robot's own monitor objects to, in all")
    text = report(ledger.content, arguments.events, arguments.note, steps, gone, files, problems)
    Path(arguments.out).write_text(text)
    print(text)
    failed = [*problems, *ledger.content["problems"], *(p for event in ledger.content["events"] for p in event["problems"])]
    if not failed:
        place.unlink()
        shutil.rmtree(workspace)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
