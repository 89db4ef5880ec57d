"""Runs pytest in a fresh child process per line of input, forked after what takes long to import: numpy, MuJoCo, ZMQ. Nothing of ours.

Started by `benchmarks.mutation_check` in its copy of the repository. Input and output are JSON lines: {"arguments", "output", "compiled",
"timeout_s"} -> {"status"}; -1: not done in time.
"""

import json
import os
import signal
import sys
import time

import h5py
import msgspec
import mujoco
import numpy.testing
import pytest
import simplejpeg
import ulid
import zmq.auth.thread

LOADED = (h5py, msgspec, mujoco, numpy.testing, simplejpeg, ulid, zmq.auth.thread)


def child(arguments: list[str], output: str, compiled: bool) -> None:
    """Never returns."""
    os.setsid()
    out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.dont_write_bytecode = not compiled
    sys.path[0] = os.getcwd()
    status = int(pytest.main(arguments))
    sys.stdout.flush()
    os._exit(status)


def finished(pid: int, timeout_s: float) -> int:
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -1


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            child(asked["arguments"], asked["output"], asked["compiled"])
        print(json.dumps({"status": finished(pid, asked["timeout_s"])}), flush=True)


if __name__ == "__main__":
    main()
