"""Starts the processes of a station, watches them, restarts the dead, and stops all of them leaving nothing behind."""

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import msgspec

from takeover.app.child import STOPPED, UP, Child, wait_until_gone
from takeover.app.commands.options import known_probes
from takeover.app.processes.common import EXIT_BAD_INPUT, ORPHAN_GRACE_S, StartupError, load_config
from takeover.data.filelock import FileLock
from takeover.data.schema import LauncherReply, LauncherRequest, ProcessStatus, RunConfig
from takeover.data.workspace import Workspace, WorkspaceError
from takeover.robot_bridge.protocol import EndpointError, Endpoints, Publisher, Router

KNOWN_PROCESSES = ("bridge", "recorder", "actor", "learner", "evaluator", "operator", "console")
RUN_FILE = "run.json"
STOP_TIMEOUT_S = 3.0
STATUS_PERIOD_S = 0.5
INDISPENSABLE = ("bridge", "recorder", "console")  # with a console, the others may be given up and started again by hand
LAST = "recorder"  # ends after the others, so that it receives what they still send
LAST_STOP_TIMEOUT_S = 30.0  # it writes what it has to the disk; killing it loses nothing acknowledged, but leaves that to the next start


class StationFailed(RuntimeError):
    """A process died again and again; the text has its name and its last lines."""


class Interrupted(RuntimeError):
    """Somebody stopped the station: Ctrl+C, SIGTERM, the window was closed."""


class Launcher:
    """A station's processes. All sockets and processes belong to one thread of its own; every method is thread-safe.

    Use as a context manager: entering starts everything, leaving stops everything. `StartupError` when the workspace is locked,
    not writable or full, when the socket folder is in use, or when a process refuses its configuration.
    """

    def __init__(self, config: RunConfig, processes: Sequence[str], report: Callable[[str], None] | None = None) -> None:
        unknown = sorted(set(processes) - set(KNOWN_PROCESSES))
        if unknown:
            raise StartupError(f"unknown process {unknown[0]!r}; known: {', '.join(KNOWN_PROCESSES)}")
        self.config = msgspec.structs.replace(config, parent_pid=os.getpid())
        # the bridge of a station that connects to one is another computer's
        self._names = [name for name in processes if name != "bridge" or not config.connect]
        self._report = report or (lambda line: None)
        self._workspace = Workspace(Path(config.workspace))
        self._folder = Path(config.sockets)
        self._children: dict[str, Child] = {}
        self._stop = threading.Event()
        self._started = threading.Event()
        self._workspace_lock: FileLock | None = None
        self._lock = threading.Lock()
        self._error = ""
        self._exit_status = 0
        self._states: dict[str, str] = {}
        self._pids: dict[str, int] = {}
        self._restarts: dict[str, int] = {}
        self._requests: list[tuple[str, str]] = []
        self._thread = threading.Thread(target=self._run, name="launcher")

    def __enter__(self) -> "Launcher":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Lock the workspace, prepare the sockets and start the processes; returns when they have been started, not yet ready."""
        try:
            self._workspace_lock = self._workspace.prepare().lock()
        except WorkspaceError as error:
            self._discard_empty_folder()
            raise StartupError(str(error)) from error
        try:
            self._prepare()
        except BaseException:
            self._workspace_lock.release()
            self._discard_empty_folder()
            raise
        self._thread.start()
        self._started.wait()
        if self._error:
            self.stop()
            raise StartupError(self._error)

    def _discard_empty_folder(self) -> None:
        with contextlib.suppress(OSError):
            self._folder.rmdir()  # refuses one that somebody uses

    def _prepare(self) -> None:
        try:
            self._workspace.require_space()
            if self.config.probe_versions:  # again: until the workspace was locked, the learner of the run before pruned
                known_probes(self._workspace, self.config.probe_share, tuple(self.config.probe_versions))
            remove_leftovers(self._folder, self.config.workspace)
            Endpoints(self._folder).prepare()
            (self._folder / RUN_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(self.config)))
        except (WorkspaceError, EndpointError) as error:
            raise StartupError(str(error)) from error
        except OSError as error:
            raise StartupError(f"cannot prepare the socket folder {self._folder}: {error.strerror}") from error

    # --- asked from any thread ---

    def states(self) -> dict[str, str]:
        """Process name -> "starting", "up", "restarting", "stopped" or "failed: ..."."""
        with self._lock:
            return dict(self._states)

    def pids(self) -> dict[str, int]:
        with self._lock:
            return dict(self._pids)

    def restarts(self) -> dict[str, int]:
        with self._lock:
            return dict(self._restarts)

    @property
    def error(self) -> str:
        """Why the station had to stop; empty when it was asked to."""
        return self._error

    @property
    def exit_status(self) -> int:
        """0, or 2 when a process refused its configuration, 1 when one was given up."""
        return self._exit_status

    @property
    def running(self) -> bool:
        return not self._stop.is_set()

    def check(self) -> None:
        """Raises `StartupError`, `StationFailed` or `Interrupted` when the station has stopped or is about to."""
        if not self._stop.is_set():
            return
        if not self._error:
            raise Interrupted("stopped")
        raise (StartupError if self._exit_status == EXIT_BAD_INPUT else StationFailed)(self._error)

    def wait_ready(self, timeout_s: float, names: Sequence[str] | None = None) -> None:
        """Until ``names`` (all) are up. Raises `StartupError` naming who is not, and what `check` does."""
        wanted = list(names or self._names)
        deadline = time.monotonic() + timeout_s
        while True:
            states = self.states()
            missing = [name for name in wanted if states.get(name) != UP]
            if not missing:
                return
            self.check()
            if time.monotonic() > deadline:
                raise StartupError(f"{', '.join(missing)} not ready after {timeout_s:.0f} s; see {self.config.workspace}/logs")
            time.sleep(0.05)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until the station is asked to stop, its window is closed or it fails; returns whether that happened."""
        return self._stop.wait(timeout_s)

    def request(self, action: str, process: str = "") -> None:
        """What a `LauncherRequest` does: start, stop, restart, shutdown."""
        with self._lock:
            self._requests.append((action, process))

    def shutdown(self) -> None:
        """Ask it to stop without waiting; safe in a signal handler."""
        self._stop.set()

    def stop(self) -> None:
        """Stop everything and wait until nothing is left."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    # --- the launcher's thread ---

    def _run(self) -> None:
        try:
            endpoints = Endpoints(self._folder)
            with (
                Publisher(endpoints, "process_status", ProcessStatus) as status,
                Router(endpoints, "launcher", LauncherRequest, LauncherReply) as requests,
            ):
                for name in self._names:
                    self._child(name).start()
                self._publish(status)
                self._started.set()
                self._watch(status, requests)
                self._end_all(status)
        except (EndpointError, OSError) as error:
            self._error, self._exit_status = str(error), 1
        finally:
            self._stop.set()
            for child in self._children.values():
                child.end(0.0)
            shutil.rmtree(self._folder, ignore_errors=True)
            if self._workspace_lock is not None:
                self._workspace_lock.release()
            self._started.set()

    def _child(self, name: str) -> Child:
        if name not in self._children:
            self._children[name] = Child(name, self.config, self._folder / RUN_FILE)
        return self._children[name]

    def _watch(self, status: Publisher[ProcessStatus], requests: "Router[LauncherRequest, LauncherReply]") -> None:
        next_status_s = 0.0
        while not self._stop.is_set():
            received = requests.receive(0.05)
            changed = False
            if received is not None:
                peer, request = received
                error = self._serve(request.action, request.process)
                self._publish(status)  # before the answer: who asked may look at the states at once
                requests.send(peer, LauncherReply(request_id=request.request_id, error=error))
            with self._lock:
                asked, self._requests = self._requests, []
            for action, process in asked:
                if error := self._serve(action, process):
                    self._report(error)
            now_s = time.monotonic()
            for child in self._children.values():
                if child.check(now_s):
                    changed = True
                    self._judge(child)
            if changed or now_s >= next_status_s:
                self._publish(status)
                next_status_s = now_s + STATUS_PERIOD_S

    def _judge(self, child: Child) -> None:
        """What a change of one process means for the station."""
        if child.name == "console" and child.state == STOPPED:
            self._stop.set()  # the window was closed
        elif child.state.startswith("failed"):
            reason = child.state.removeprefix("failed: ")
            bad_input = child.exit_status == EXIT_BAD_INPUT
            if not bad_input:
                reason = f"{child.name} {reason}\n{child.last_lines(12)}"
            if not bad_input and "console" in self._names and child.name not in INDISPENSABLE:
                self._report(reason)  # the console shows it and can start it again
                return
            self._error, self._exit_status = reason, EXIT_BAD_INPUT if bad_input else 1
            self._stop.set()
        elif child.state == "restarting":
            self._report(f"{child.name} ended ({child.exit_status}); starting it again")

    def _serve(self, action: str, process: str) -> str:
        if action == "shutdown":
            self._stop.set()
            return ""
        if process not in KNOWN_PROCESSES:
            return f"unknown process {process!r}; known: {', '.join(KNOWN_PROCESSES)}"
        child = self._child(process)
        if action in ("stop", "restart"):
            child.ask_to_end()
            self._end(child, time.monotonic())
        if action in ("start", "restart") and not child.wanted:
            child.start()
        return ""

    def _end_all(self, status: Publisher[ProcessStatus]) -> None:
        first = [child for child in self._children.values() if child.name != LAST]
        for group in (first, [child for child in self._children.values() if child.name == LAST]):
            for child in group:
                child.ask_to_end()
            asked_s = time.monotonic()
            for child in group:
                self._end(child, asked_s)
        self._publish(status)

    def _end(self, child: Child, asked_s: float) -> None:
        """Wait for a process that was asked to end at ``asked_s``; kill it when its time is over, and say so."""
        limit_s = STOP_TIMEOUT_S
        if child.name == LAST and not child.wait(asked_s + limit_s):
            limit_s = LAST_STOP_TIMEOUT_S
            self._report(f"{child.name} is still writing to the disk; it has {limit_s:.0f} s")
        if not child.end(asked_s + limit_s - time.monotonic()):
            self._report(f"{child.name} did not stop within {limit_s:.0f} s and was killed")

    def _publish(self, status: Publisher[ProcessStatus]) -> None:
        with self._lock:
            self._states = {name: child.state for name, child in self._children.items()}
            self._pids = {name: child.pid for name, child in self._children.items()}
            self._restarts = {name: child.restarts for name, child in self._children.items()}
            message = ProcessStatus(states=self._states, restarts=self._restarts, pids=self._pids)
        status.send(message)


def remove_leftovers(folder: Path, workspace: str) -> None:
    """Remove the socket folders that killed launchers left beside ``folder``, or in its place.

    Their processes end by themselves, usually within a second. `StartupError` when one that uses these sockets or this workspace stays.
    """
    beside = [path for path in folder.parent.iterdir() if path != folder] if folder.parent.is_dir() else []
    for path in [folder, *beside]:
        if path.is_symlink() or not (path / RUN_FILE).is_file():
            continue
        config = load_config(path / RUN_FILE)
        ours = path == folder or config.workspace == workspace
        pids = [config.parent_pid, *(int(ready.read_text()) for ready in path.glob("*.ready"))]
        left = wait_until_gone(pids, ORPHAN_GRACE_S + 2.0 if ours else 0.0)
        if left and ours:
            raise StartupError(f"process {left[0]} of another station still uses {path} or this workspace; stop it first")
        if not left:
            shutil.rmtree(path, ignore_errors=True)
