"""What every process does the same way: read its configuration, log, say when it is ready, stop when told to or orphaned."""

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgspec

from takeover.app.processes.names import make_room
from takeover.data.schema import RunConfig
from takeover.robot_bridge.protocol import EndpointError

EXIT_OK = 0
EXIT_BAD_INPUT = 2
EXIT_ORPHANED = 3
ORPHAN_GRACE_S = 5.0


class StartupError(RuntimeError):
    """Something the user must change; printed as one line, exit status 2."""


class ProcessContext:
    """Handed to a process' main: its configuration, its stop flag and how to say that it is ready."""

    def __init__(self, name: str, config: RunConfig) -> None:
        self.name = name
        self.config = config
        self.stop = threading.Event()
        self._ready_path = Path(config.sockets) / f"{name}.ready"

    def ready(self) -> None:
        """Tell the launcher that the sockets are bound and work is being done (a file with the pid)."""
        temporary = self._ready_path.with_suffix(".tmp")
        temporary.write_text(str(os.getpid()))
        temporary.replace(self._ready_path)

    def not_ready(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self._ready_path.read_text() == str(os.getpid()):
                self._ready_path.unlink()


def load_config(path: str | os.PathLike[str]) -> RunConfig:
    """Raises `StartupError` naming the file and field."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=RunConfig)
    except OSError as error:
        raise StartupError(f"cannot read the run configuration {path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise StartupError(f"run configuration {path}: {error}") from error


def _watch_parent(context: ProcessContext) -> None:
    """End when the launcher is gone. A child of it sees that by its new parent, also where a dead launcher stays a zombie."""
    parent = context.config.parent_pid
    is_child = os.getppid() == parent
    while not context.stop.wait(0.5):
        if parent and (os.getppid() != parent if is_child else not _alive(parent)):
            logging.getLogger(context.name).warning("the launcher is gone; stopping")
            context.stop.set()
            time.sleep(ORPHAN_GRACE_S)
            os._exit(EXIT_ORPHANED)  # nobody is left to kill one that is stuck


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def run_process(name: str, main: Callable[[ProcessContext], None], argv: list[str] | None = None) -> int:
    """Run ``main`` until it returns; it must return soon after ``context.stop`` is set. Returns the exit status."""
    parser = argparse.ArgumentParser(prog=f"takeover {name}")
    parser.add_argument("--config", required=True, help="run configuration written by the launcher (JSON)")
    arguments = parser.parse_args(argv)
    try:
        context = ProcessContext(name, load_config(arguments.config))
        logs = Path(context.config.workspace) / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        logging.basicConfig(
            filename=logs / f"{name}.log", level=logging.INFO, format="%(asctime)s %(name)s[%(process)d] %(levelname)s %(message)s"
        )
        logging.Formatter.converter = time.gmtime
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: context.stop.set())
        make_room()
        threading.Thread(target=_watch_parent, args=(context,), daemon=True, name="parent-watch").start()
        try:
            main(context)
        finally:
            context.not_ready()
    except (StartupError, EndpointError) as error:
        print(f"takeover {name}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except Exception:
        logging.getLogger(name).exception("unhandled error")
        raise
    return EXIT_OK


def leave(status: int) -> NoReturn:
    """End the process at once, output flushed. For processes with torch, whose tear-down of the interpreter takes a second under load."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
