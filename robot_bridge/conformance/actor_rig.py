"""What the checks of an actor work with: the actor, the bridge that it talks to, and waiting for what must come."""

import contextlib
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator

from takeover.data.schema import RobotSpec
from takeover.robot_bridge.conformance.fake_bridge import Answered, FakeBridge
from takeover.robot_bridge.conformance.report import Failed
from takeover.robot_bridge.protocol import Endpoints

SLACK_S = 1.0
STOP_S = 5.0


class ActorRig:
    """An actor under test and the bridge that it talks to."""

    def __init__(self, actor: str, folder: str, spec: RobotSpec, start_s: float) -> None:
        self.actor, self.folder, self.spec, self.start_s = actor, folder, spec, start_s
        self.is_command = "{sockets}" in actor
        self.bridge = FakeBridge(Endpoints(folder), spec)
        self.process: subprocess.Popen[bytes] | None = None
        self.latency_s = 0.0
        self.bridge.start()

    def launch(self) -> "subprocess.Popen[bytes]":
        """Start the actor. Raises `Failed`."""
        arguments = [part.replace("{sockets}", self.folder) for part in shlex.split(self.actor)]
        try:
            return subprocess.Popen(arguments)
        except OSError as error:
            raise Failed(f"cannot start {arguments[0]}: {error.strerror}") from error

    def close(self) -> None:
        if self.process is not None:
            stop(self.process)
        self.bridge.close()

    @property
    def patience_s(self) -> float:
        """For an answer to something that was just asked: an inference may have begun a moment before."""
        return 2 * self.latency_s + SLACK_S

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self.process is not None and self.process.poll() is not None:
                raise Failed(f"the actor ended by itself with status {self.process.returncode}")
            if time.monotonic() > deadline:
                raise Failed(f"no {what} within {timeout_s:.1f} s")
            time.sleep(0.005)

    def answers_since(self, t_s: float) -> list[Answered]:
        return [item for item in list(self.bridge.answers) if item.t_s >= t_s]

    def answered(self, seq: int, timeout_s: float | None = None) -> Answered:
        """Wait for the answer to ``seq`` of this session."""
        found: list[Answered] = []

        def there() -> bool:
            session = self.bridge.session
            found[:] = [item for item in list(self.bridge.answers) if (item.answer.session, item.answer.from_seq) == (session, seq)]
            return bool(found)

        self.wait(there, f"answer to observation {seq}", self.patience_s if timeout_s is None else timeout_s)
        return found[-1]

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """No observations but those that are asked for, and no inference under way."""
        self.bridge.pace_hz = 0.0
        time.sleep(self.latency_s + 0.3)
        try:
            yield
        finally:
            self.bridge.pace_hz = self.spec.control_hz


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Terminate, and kill what does not end."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
