"""How fast and how small the record is: the recorder under two cameras at 30 Hz and 100 Hz state, and its parts, against plain h5py.

The real recorder process is fed over its socket in real time, as a bridge feeds it: steps at 100 Hz, two 640x480 pictures at 30 Hz,
episodes of ``--episode-s``. Then the same records are written as fast as they go, by `takeover.data` and with plain h5py (datasets that
grow, a flush every 100 ms), read back and verified. Prints JSON.

    takeover bench store [--seconds 30] [--episode-s 10] [--out FILE]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import psutil

from benchmarks.control_plain import quantiles
from benchmarks.result_text import commit, machine
from benchmarks.store_parts import by_plain_h5py, by_takeover
from benchmarks.store_records import HZ, Maker
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
        "acknowledged_ms": quantiles(feed.acked_s),
        "not_acknowledged": left,
        "asked_again": feed.hellos - 1,
        "journal_durable_after_end_ms": quantiles(list(durable_s.values())),
        "file_closed_after_end_ms": quantiles([closed.at_s[name] - at for name, at in ended_s.items() if name in closed.at_s]),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--episode-s", type=float, default=10.0)
    parser.add_argument("--episodes", type=int, default=10, help="written as fast as they go")
    parser.add_argument("--out", default="", help="write the JSON there too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tk-store-") as name:
        folder = Path(name)
        (folder / "live").mkdir()
        live = in_real_time(folder / "live", arguments.seconds, arguments.episode_s)
        episodes = [Maker(f"bench{i}").episode(arguments.episode_s) for i in range(arguments.episodes)]
        ours, plain = by_takeover(folder / "ours", episodes), by_plain_h5py(folder / "plain", episodes)
    ratios = {key: round(ours[key] / plain[key], 2) for key in ours if key in plain}
    content = {
        "commit": commit(),
        "machine": machine(),
        "what": f"state at {HZ:.0f} Hz, two 640x480 cameras at 30 Hz, episodes of {arguments.episode_s:g} s",
        "recorder process in real time": live,
        "takeover.data": ours,
        "plain h5py": plain,
        "ours over plain": ratios,
    }
    text = json.dumps(content, indent=1)
    print(text)
    if arguments.out:
        Path(arguments.out).write_text(text + "\n")


if __name__ == "__main__":
    main()
