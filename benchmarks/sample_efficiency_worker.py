"""One cell of `sample-efficiency` in a process of its own; started by `sample_efficiency_jobs`, not by people.

A line of JSON on stdin says which cell, in which folder, and what to add to its result. Lines of JSON on stdout: ``progress`` [done, text]
now and then; ``error`` or ``busy`` when there will be no result. When nobody listens any more, it ends and leaves no file.
"""

import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.sample_efficiency_cells import CellBusy, CellError, describe, finish_cell
from benchmarks.sample_efficiency_plan import Cell
from takeover.policies.torch_setup import configure

SAY_EVERY_S = 0.2


def _end(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)  # lets go of the lock on the way


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches everyone: who started this ends it
    signal.signal(signal.SIGTERM, _end)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else is printed is no answer
    configure(1)
    task = json.loads(sys.stdin.readline())
    said_s = 0.0

    def say(**message: Any) -> None:
        print(json.dumps(message), file=answers)

    def on_progress(done: float, total: float, text: str) -> bool:
        nonlocal said_s
        now_s = time.monotonic()
        if done >= total or now_s - said_s >= SAY_EVERY_S:
            said_s = now_s
            say(progress=[done, text])
        return True

    try:
        finish_cell(Cell(**task["cell"]), Path(task["folder"]), task["origin"], on_progress)
    except BrokenPipeError:
        return 1  # nobody is left to tell
    except CellBusy as error:
        say(busy=str(error))
        return 1
    except CellError as error:
        say(error=describe(error))
        return 1
    except Exception as error:
        logging.exception("broke off")
        say(error=describe(error))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
