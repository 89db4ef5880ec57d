"""One supervised process: how it is started, when it counts as up, when it is started again, how it is ended."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

from takeover.app.processes.common import EXIT_BAD_INPUT
from takeover.data.schema import RunConfig

FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 5.0
GIVE_UP_RESTARTS = 8  # within GIVE_UP_WINDOW_S
GIVE_UP_WINDOW_S = 60.0
STEADY_AFTER_S = 10.0  # up for so long: the back-off starts again from the shortest
NICENESS = {"learner": 5}  # the evaluator lowers its own priority; the others keep the launcher's
# glibc gives every thread a heap of its own and keeps what is freed in it: memory of threads that build pictures and files in turn
# creeps for hours. Two heaps do; what the recorder builds episodes of goes back to the system at once. The user's own settings win.
MALLOC = {"MALLOC_ARENA_MAX": "2"}
MALLOC_RECORDER = MALLOC | {"MALLOC_MMAP_THRESHOLD_": str(256 * 1024), "MALLOC_TRIM_THRESHOLD_": str(1024 * 1024)}

STARTING, UP, RESTARTING, STOPPED = "starting", "up", "restarting", "stopped"


class Child:
    """Its `state` is "starting", "up", "restarting", "stopped" or "failed: ...". One thread only: the launcher's."""

    def __init__(self, name: str, config: RunConfig, config_path: Path) -> None:
        self.name = name
        self.state = STOPPED
        self.restarts = 0
        self.exit_status: int | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._config = config
        self._config_path = config_path
        self._ready_path = Path(config.sockets) / f"{name}.ready"
        self._log_path = Path(config.workspace) / "logs" / f"{name}.log"
        self._log_offset = 0
        self._backoff_s = FIRST_BACKOFF_S
        self._restart_at = 0.0
        self._up_since = 0.0
        self._deaths: deque[float] = deque(maxlen=GIVE_UP_RESTARTS)

    @property
    def pid(self) -> int:
        """0 while it does not run."""
        return self.process.pid if self.process is not None else 0

    @property
    def wanted(self) -> bool:
        return self.state in (STARTING, UP, RESTARTING)

    def start(self) -> None:
        """Start it now in a process group of its own, so that Ctrl+C reaches the launcher alone."""
        self._ready_path.unlink(missing_ok=True)
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._log_path, "ab") as log:
            self._log_offset = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"takeover.app.processes.{self.name}", "--config", str(self._config_path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                process_group=0,
            )
        if niceness := NICENESS.get(self.name):
            # Set from here, before the interpreter has started any thread: they all inherit it.
            # Never above our own: who was started with a low priority may not raise it.
            os.setpriority(os.PRIO_PROCESS, self.process.pid, max(niceness, os.getpriority(os.PRIO_PROCESS, 0)))
        self.state = STARTING

    def _environment(self) -> dict[str, str]:
        threads = str(self._config.torch_threads)
        malloc = MALLOC_RECORDER if self.name == "recorder" else MALLOC
        return malloc | os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)

    def check(self, now_s: float) -> bool:
        """Look at it once; start it again when that is due. Returns whether ``state`` changed. ``now_s``: monotonic."""
        before = self.state
        if self.process is not None and self._has_ended():
            self._died(now_s)
        elif self.state == STARTING and self._is_ready():
            self.state, self._up_since = UP, now_s
        elif self.state == UP and now_s - self._up_since > STEADY_AFTER_S:
            self._backoff_s = FIRST_BACKOFF_S
        elif self.state == RESTARTING and now_s >= self._restart_at:
            self.start()
        return self.state != before

    def _is_ready(self) -> bool:
        try:
            return self._ready_path.read_text() == str(self.pid)
        except FileNotFoundError:
            return False

    def _died(self, now_s: float) -> None:
        self._release()
        if not self.wanted:
            return
        if self.exit_status == EXIT_BAD_INPUT:
            self.state = f"failed: {self._refusal()}"
            return
        if self.name == "console" and self.exit_status == 0:
            self.state = STOPPED
            return
        self._deaths.append(now_s)
        if len(self._deaths) == GIVE_UP_RESTARTS and now_s - self._deaths[0] < GIVE_UP_WINDOW_S:
            self.state = f"failed: ended {GIVE_UP_RESTARTS} times within a minute, last {self._how_it_ended()}; {self._log_path}"
            return
        self.restarts += 1
        self.state = RESTARTING
        self._restart_at = now_s + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, LONGEST_BACKOFF_S)

    def _how_it_ended(self) -> str:
        if self.exit_status is not None and self.exit_status < 0:
            return f"by {signal.Signals(-self.exit_status).name}"
        return f"with exit status {self.exit_status}"

    def _refusal(self) -> str:
        """The one line in which it said what the user must change; libraries may have written others after it."""
        lines = [line for line in self.last_lines(1000).splitlines() if line.startswith(f"takeover {self.name}: ")]
        return lines[-1].removeprefix("takeover ") if lines else f"{self.name}: {self.last_lines(1) or 'refused its configuration'}"

    def last_lines(self, count: int) -> str:
        """The last lines this start of it wrote into its log."""
        try:
            with open(self._log_path, "rb") as log:
                log.seek(self._log_offset)
                text = log.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join([line for line in text.splitlines() if line.strip()][-count:])

    def ask_to_end(self) -> None:
        """SIGTERM; it is not started again."""
        if not self.state.startswith("failed"):
            self.state = STOPPED
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def wait(self, until_s: float) -> bool:
        """Wait for it, at most until ``until_s`` of the monotonic clock. Returns whether it has ended."""
        while self.process is not None and not self._has_ended():
            if time.monotonic() >= until_s:
                return False
            time.sleep(0.01)
        return True

    def end(self, timeout_s: float) -> bool:
        """Wait for it; after ``timeout_s`` kill its whole group. Returns whether it ended by itself."""
        ended = self.wait(time.monotonic() + timeout_s)
        self._release()
        return ended

    def _has_ended(self) -> bool:
        """Whether it is a zombie by now. It is not reaped yet, so its pid, and with it the group's id, cannot be reused."""
        return self.process is not None and os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _release(self) -> None:
        """Kill what is left of its group (it may have had helpers), reap it, remove its ready file."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass  # nobody left in the group but the zombie itself
            self.exit_status = self.process.wait()
        self.process = None
        self._ready_path.unlink(missing_ok=True)


def wait_until_gone(pids: list[int], timeout_s: float) -> list[int]:
    """Those of ``pids`` (not children of this process) that still run after ``timeout_s``; 0 stands for none."""
    deadline = time.monotonic() + timeout_s
    while (left := [pid for pid in pids if pid and _runs(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _runs(pid: int) -> bool:
    """False for zombies: they hold no socket."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
