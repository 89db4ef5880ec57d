"""What the machine itself adds: a process at the control thread's priority that does nothing but wake up on time.

python -m benchmarks.control_floor --hz 100     until its standard input ends; prints how late it woke up, as JSON

On a machine shared with others, or a virtual one, even that is late at times; no program on it can be more punctual.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from benchmarks.control_plain import quantiles
from takeover.robot_bridge.realtime import REAL_TIME_PRIORITY


@contextmanager
def bare_timer(hz: float, found: dict[str, Any]) -> Iterator[None]:
    """Runs one beside what is done in the context; its lateness then is ``found["bare timer beside it, lateness_ms"]``."""
    command = [sys.executable, "-m", "benchmarks.control_floor", "--hz", str(hz)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield
        finally:
            said, _ = process.communicate()
        found["bare timer beside it, lateness_ms"] = json.loads(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hz", type=float, required=True)
    period_ns = round(1e9 / parser.parse_args().hz)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REAL_TIME_PRIORITY))
    late_s: list[float] = []
    due_ns = time.monotonic_ns()
    while not ended.is_set():
        due_ns += period_ns
        wait_ns = due_ns - time.monotonic_ns()
        if wait_ns > 0:
            time.sleep(wait_ns / 1e9)
        late_s.append((time.monotonic_ns() - due_ns) / 1e9)
    print(json.dumps(quantiles(late_s)))


if __name__ == "__main__":
    main()
