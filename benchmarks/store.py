"""How fast and how small the record is: the recorder under two cameras at 30 Hz and 100 Hz state, and its parts, against plain h5py.

The real recorder process is fed over its socket in real time, as a bridge feeds it: steps at 100 Hz, two 640x480 pictures at 30 Hz,
episodes of ``--episode-s``. Then the same records are written as fast as they go, by `takeover.data` and with plain h5py (datasets that
grow, a flush every 100 ms), read back and verified; episodes of 20 MB are closed; a hundred episodes are verified, asked for and
exported; a recorder goes on where ten thousand episodes are. Prints JSON, progress on stderr. About four minutes on two cores.

    takeover bench store [--out FILE] [--beside "what else ran"]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil

from benchmarks.result_text import commit, machine
from benchmarks.store_close import closing
from benchmarks.store_exports import EXPORT_HZ, exports, queries, recorded, verification
from benchmarks.store_parts import by_plain_h5py, by_takeover, spread
from benchmarks.store_records import HZ, Maker
from benchmarks.store_scale import many_episodes
from takeover.data.schema import AnyRecord, Committed, EpisodeEnd, RecordAck, RecorderHello, RecorderMessage, RunConfig
from takeover.robot_bridge.protocol import Endpoints, Router, Subscriber


class Closed(threading.Thread):
    """When each episode's file was said to be closed."""

    def __init__(self, endpoints: Endpoints) -> None:
        super().__init__(daemon=True)
        self._endpoints = endpoints
        self.at_s: dict[str, float] = {}
        self.closing = threading.Event()
        self.start()

    def run(self) -> None:
        with Subscriber[Committed](self._endpoints, "committed", Committed, latest=False) as committed:
            while not self.closing.is_set():
                message = committed.receive(0.05)
                if message is not None and message.closed_episode:
                    self.at_s[message.closed_episode] = time.monotonic()


class Feed:
    """The bridge's end of the record socket."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._router: Router[RecorderMessage, AnyRecord] = Router(endpoints, "record", RecorderMessage, AnyRecord)
        self._peer: bytes | None = None
        self.sent_s: dict[int, float] = {}
        self.acked_s: list[float] = []
        self._acked = -1
        self.hellos = 0

    def pump(self, timeout_s: float = 0.0) -> None:
        received = self._router.receive(timeout_s)
        while received is not None:
            peer, message = received
            self._peer = peer
            self.hellos += isinstance(message, RecorderHello)
            if isinstance(message, RecordAck) and message.session == "bench":
                now = time.monotonic()
                for number in range(self._acked + 1, message.acked_rec_seq + 1):
                    self.acked_s.append(now - self.sent_s.pop(number))
                self._acked = max(self._acked, message.acked_rec_seq)
            received = self._router.receive(0.0)

    def wait_for_recorder(self) -> None:
        deadline = time.monotonic() + 30.0
        while self._peer is None:
            if time.monotonic() > deadline:
                raise SystemExit("the recorder did not say hello")
            self.pump(0.05)

    def send(self, record: AnyRecord) -> None:
        assert self._peer is not None
        self.sent_s[record.rec_seq] = time.monotonic()
        self._router.send(self._peer, record)

    def close(self) -> None:
        self._router.close()


def in_real_time(folder: Path, seconds: float, episode_s: float) -> dict[str, Any]:
    """The recorder process for ``seconds``: CPU of one core, time to the acknowledgement, to the closed file."""
    config = RunConfig(session_id="bench", workspace=str(folder / "workspace"), sockets=str(folder / "s"))
    endpoints = Endpoints(config.sockets)
    endpoints.prepare()
    path = folder / "run.json"
    path.write_bytes(msgspec.json.encode(config))
    feed, closed, maker = Feed(endpoints), Closed(endpoints), Maker()
    process = subprocess.Popen([sys.executable, "-m", "takeover.app.processes.recorder", "--config", str(path)])
    try:
        feed.wait_for_recorder()
        for record in maker.episode(1.0):  # first things, once: imports, caches
            feed.send(record)
        time.sleep(1.0)
        feed.pump()
        feed.acked_s.clear()
        watched = psutil.Process(process.pid)
        before, began = watched.cpu_times(), time.monotonic()
        ended_s, durable_s, count = _feed(feed, maker, began, seconds, episode_s)
        after, took = watched.cpu_times(), time.monotonic() - began
        deadline = time.monotonic() + 10.0
        while set(ended_s) - set(closed.at_s) and time.monotonic() < deadline:
            feed.pump(0.05)
        left = len(feed.sent_s)
        files = [path.stat().st_size for path in (folder / "workspace" / "episodes").glob("*/*.hdf5")]
    finally:
        closed.closing.set()
        process.terminate()
        process.wait(10)
        closed.join(2.0)
        feed.close()
    cpu = (after.user + after.system) - (before.user + before.system)
    return {
        "seconds": round(took, 1),
        "records": count,
        "share_of_one_core": round(cpu / took, 3),
        "acknowledged_ms": spread(feed.acked_s),
        "not_acknowledged": left,
        "asked_again": feed.hellos - 1,
        "journal_durable_after_end_ms": spread(list(durable_s.values())),
        "file_closed_after_end_ms": spread([closed.at_s[name] - at for name, at in ended_s.items() if name in closed.at_s]),
        "file_mb": round(max(files, default=0) / 1e6, 1),
        "files_closed": len(closed.at_s),
    }


def _feed(feed: Feed, maker: Maker, began: float, seconds: float, episode_s: float) -> tuple[dict[str, float], dict[str, float], int]:
    """Records at their times: {episode: when its end was sent}, {episode: how long until that was acknowledged}, and how many."""
    ended_s: dict[str, float] = {}
    durable_s: dict[str, float] = {}
    waiting: dict[int, str] = {}
    count, at = 0, began
    while at - began < seconds:
        for record, due_s in maker.timed_episode(episode_s):
            while (left := at + due_s - time.monotonic()) > 0:
                feed.pump(min(left, 0.005))
            feed.send(record)
            count += 1
            if isinstance(record, EpisodeEnd):
                ended_s[record.episode_id] = time.monotonic()
                waiting[record.rec_seq] = record.episode_id
            feed.pump()
            for number in [number for number in waiting if number not in feed.sent_s]:
                name = waiting.pop(number)
                durable_s[name] = time.monotonic() - ended_s[name]
        at += episode_s
    deadline = time.monotonic() + 5.0
    while waiting and time.monotonic() < deadline:
        feed.pump(0.002)
        for number in [number for number in waiting if number not in feed.sent_s]:
            name = waiting.pop(number)
            durable_s[name] = time.monotonic() - ended_s[name]
    return ended_s, durable_s, count


class Said:
    """Progress on stderr: one line per part, its percentage rewritten in place on a terminal."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def part(self, name: str) -> Callable[[int, int], None]:
        self._line(name, "")
        shown = [-1]

        def progress(done: int, total: int) -> None:
            tenth = 10 * done // max(1, total)
            if tenth != shown[0]:
                shown[0] = tenth
                self._line(name, f"{done}/{total}")

        return progress

    def _line(self, name: str, text: str) -> None:
        print(f"{time.monotonic() - self._began:5.0f} s  {name} {text}", file=sys.stderr, flush=True)


def measured(folder: Path, arguments: argparse.Namespace, said: Said) -> dict[str, Any]:
    """Every part, in a folder of its own that is removed when it is done."""

    def place(name: str) -> Path:
        made = folder / name
        made.mkdir()
        return made

    found: dict[str, Any] = {}
    said.part(f"recorder process in real time, {arguments.seconds:g} s")
    found["recorder process in real time"] = in_real_time(place("live"), arguments.seconds, arguments.episode_s)
    found["20 MB episodes"] = closing(place("closing"), arguments.closings, said.part("closing 20 MB episodes"))
    said.part("writing, reading, verifying as fast as it goes, and the same with plain h5py")
    episodes = [Maker(f"bench{i}").episode(arguments.episode_s) for i in range(arguments.episodes)]
    ours, plain = by_takeover(folder / "ours", episodes), by_plain_h5py(folder / "plain", episodes)
    ratios = {key: round(ours[key] / plain[key], 2) for key in ours if key in plain}
    found |= {"takeover.data": ours, "plain h5py": plain, "ours over plain": ratios}
    del episodes
    for name in ("live", "closing", "ours", "plain"):
        shutil.rmtree(folder / name)
    count = arguments.exported
    workspace = recorded(place("many"), count, arguments.episode_s, said.part(f"recording {count} episodes to export"))
    found["verify"] = verification(workspace, said.part("verify"))
    said.part("catalog queries")
    found["catalog"] = {"episodes": count, **queries(workspace, 200)}
    found["exports"] = {
        "of": f"{count} episodes of {arguments.episode_s:g} s, control at {EXPORT_HZ:g} Hz, two 640x480 cameras at 30 Hz",
        **exports(workspace, folder, count * arguments.episode_s, lambda name: said.part(f"export {name}")),
    }
    shutil.rmtree(workspace.path)
    found["as the workspace grows"] = many_episodes(place("scale"), (0, 1000, 10_000), said.part("10,000 episodes in the workspace"))
    return found


def _chosen(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> list[str]:
    """The options that were not left out, but for places and remarks."""
    named = {name: value for name, value in vars(arguments).items() if name not in ("out", "folder", "beside")}
    return [f"--{name.replace('_', '-')} {value:g}" for name, value in named.items() if value != parser.get_default(name)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="of real time")
    parser.add_argument("--episode-s", type=float, default=10.0)
    parser.add_argument("--episodes", type=int, default=10, help="written as fast as they go")
    parser.add_argument("--closings", type=int, default=40, help="episodes of 20 MB to close")
    parser.add_argument("--exported", type=int, default=100, help="episodes to export, verify and ask for")
    parser.add_argument("--beside", default="nothing", help="what else ran on the machine, for the record")
    parser.add_argument("--folder", default=None, help="where 4 GB are free; the temporary folder when left out")
    parser.add_argument("--out", default="", help="write the result there too")
    arguments = parser.parse_args()
    began, load = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="tk-store-", dir=arguments.folder) as name:
        found = measured(Path(name), arguments, Said())
    content = {
        "command": " ".join(["takeover bench store", *_chosen(parser, arguments)]),
        "commit": commit(),
        "machine": machine(),
        "beside": f"{arguments.beside}; load when it began {load:.1f}",
        "took_s": round(time.monotonic() - began),
        "what": f"state at {HZ:.0f} Hz, two 640x480 cameras at 30 Hz, episodes of {arguments.episode_s:g} s, unless said otherwise",
        **found,
    }
    text = json.dumps(content, indent=1)
    print(text)
    if arguments.out:
        Path(arguments.out).write_text(text + "\n")


if __name__ == "__main__":
    main()
